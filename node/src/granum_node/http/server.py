"""What a request asks for, and who answers it: the table of verbs and endpoints."""

from collections import Counter
from collections.abc import Callable

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory

from granum.wire.errors import BadPath, UnsupportedVerb
from granum.wire.paths import Target, parse_target
from granum_node.http.channel import Channel
from granum_node.http.pool import Pool
from granum_node.http.read import Reader
from granum_node.http.reply import HeadMaker, Reply
from granum_node.http.sink import Sink
from granum_node.http.status import Identity, status_body
from granum_node.http.write import Writer
from granum_node.storage.publish import Publisher
from granum_node.storage.store import Store

_VERBS = frozenset({"GET", "HEAD", "PUT"})


class Server(ServerFactory):
    """The HTTP server of one node over *store*; *clock* gives monotonic seconds."""

    noisy = False

    def __init__(self, store: Store, publisher: Publisher, identity: Identity, clock: IReactorTime, pool: Pool) -> None:
        """Answer as the node that *identity* describes; *publisher* gives names in *store*."""
        self.heads = HeadMaker(f"granum-node/{identity.version}", identity.node_id)
        self.channels: set[Channel] = set()
        self._clock = clock
        self._store = store
        self._publisher = publisher
        self._identity = identity
        self._started = clock.seconds()
        self._reader = Reader(store, pool)
        self._writer = Writer(store, publisher)
        self._answers: Counter[tuple[str, int]] = Counter()
        self._endpoints: dict[str, Callable[[Reply], None]] = {"__status": self._status, "__healthz": self._healthz}

    def buildProtocol(self, addr: IAddress | None) -> Channel:  # noqa: ARG002
        """Return the protocol of a new connection."""
        return Channel(self, self._clock)

    def begin(self, reply: Reply) -> Sink | None:
        """Answer a request, now or later, and return where its body goes; raise GranumError to refuse it."""
        request = reply.request
        if request.verb not in _VERBS:
            raise UnsupportedVerb
        target = parse_target(request.target)
        if target.endpoint:
            self._at_endpoint(reply, target)
            return None
        if request.verb == "PUT":
            return self._writer.begin(reply, target)
        self._reader.begin(reply, target)
        return None

    def count(self, verb: str, status: int) -> None:
        """Count an answer, for `/__status`."""
        # A peer can make up as many verbs as it likes; the table must not grow with them.
        self._answers[verb if verb in _VERBS else "other", status] += 1

    def joined(self, channel: Channel) -> None:
        """Keep track of *channel*."""
        self.channels.add(channel)

    def left(self, channel: Channel) -> None:
        """Lose track of *channel*."""
        self.channels.discard(channel)

    def check_channels(self) -> None:
        """Close connections on which nothing moves; to be called about once a second."""
        now = self._clock.seconds()
        for channel in tuple(self.channels):
            channel.check(now)

    def _at_endpoint(self, reply: Reply, target: Target) -> None:
        answer = self._endpoints.get(target.endpoint)
        if answer is None or target.path.parts or reply.request.verb == "PUT":
            raise BadPath(f"/{target.endpoint}: names that begin with '__' belong to the node, and it has no such one")
        answer(reply)

    def _status(self, reply: Reply) -> None:
        answers = {f"{verb} {status}": number for (verb, status), number in sorted(self._answers.items())}
        body = status_body(self._identity, self._store, self._publisher, self._clock.seconds() - self._started, answers)
        reply.send(200, {"Content-Type": "application/json; charset=utf-8"}, body)

    def _healthz(self, reply: Reply) -> None:
        reply.send(200, {"Content-Type": "text/plain; charset=utf-8"}, b"ok\n")
