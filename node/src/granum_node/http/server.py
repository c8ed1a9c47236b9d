"""What a request asks for, and who answers it: the table of verbs and endpoints."""

import resource
from functools import partial

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from granum.wire.errors import UnsupportedVerb
from granum.wire.paths import parse_target
from granum_node.http.channel import Channel
from granum_node.http.door import Door, TurnedAway, host_of
from granum_node.http.endpoints import Endpoints
from granum_node.http.gate import Rules, asked_by, check
from granum_node.http.limits import Budget
from granum_node.http.meters import Meters
from granum_node.http.pool import Pool
from granum_node.http.read import Reader
from granum_node.http.reply import HeadMaker, Reply
from granum_node.http.sink import Sink
from granum_node.http.state import States
from granum_node.http.status import Identity
from granum_node.http.write import Writer
from granum_node.storage.publish import Publisher
from granum_node.storage.space import Space
from granum_node.storage.store import Store

ALLOWED_VERBS = "GET, HEAD, PUT, OPTIONS"
_VERBS = frozenset(ALLOWED_VERBS.split(", "))
_log = Logger()


class Server(ServerFactory):
    """The HTTP server of one node over *store*; *clock* gives monotonic seconds."""

    noisy = False

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        space: Space,
        identity: Identity,
        clock: IReactorTime,
        pool: Pool,
        rules: Rules,
        meters: Meters,
        *,
        log_requests: bool = False,
    ) -> None:
        """Answer as the node that *identity* describes, by the *rules* of the gate.

        *publisher* gives names in *store* to what *space* admits; *meters* counts. With *log_requests* each answer is logged.
        """
        self.heads = HeadMaker(f"granum-node/{identity.version}", identity.node_id)
        self.channels: dict[Channel, None] = {}  # in the order of their coming
        self.budget = Budget()
        self.door = Door(rules, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._rules = rules
        self._clock = clock
        self._meters = meters
        self._log_requests = log_requests
        self.states = States(publisher, space)
        self._reader = Reader(store, pool)
        self._writer = Writer(store, publisher, pool, space, self.states)
        self._endpoints = Endpoints(
            identity,
            store,
            publisher,
            space,
            self.states,
            meters,
            self.channels,
            self.door,
            clock,
            started=clock.seconds(),
        )

    def buildProtocol(self, addr: IAddress | None) -> Channel | TurnedAway | None:
        """Return the protocol of a new connection; None to close it unread."""
        peer = host_of(addr)
        if not self.door.knows(peer):
            return None
        return Channel(self, self._clock, peer) if self.door.enter(peer) else TurnedAway(self.heads)

    def begin(self, reply: Reply) -> Sink | None:
        """Answer a request, now or later, and return where its body goes; raise GranumError to refuse it."""
        request = reply.request
        began = self._clock.seconds()
        if self._log_requests:
            reply.count = partial(self._log_answer, reply, began)
        else:
            reply.count = partial(self._meters.answered, began)
        if request.verb not in _VERBS:
            raise UnsupportedVerb
        target = parse_target(b"/" if request.target == b"*" and request.verb == "OPTIONS" else request.target)
        name = f"/{target.endpoint}" if target.endpoint else str(target.path)
        check(self._rules, asked_by(reply.peer, request.verb, name, request.target, request.length, request.headers))
        if request.verb == "OPTIONS":
            reply.send(200, {"Allow": ALLOWED_VERBS})
            return None
        if target.endpoint:
            self._endpoints.begin(reply, target)
            return None
        if request.verb == "PUT":
            return self._writer.begin(reply, target)
        self._reader.begin(reply, target)
        return None

    def count(self, verb: str, status: int) -> None:
        """Count the answer to what was no request."""
        self._meters.count(verb, status)

    def joined(self, channel: Channel) -> None:
        """Keep track of *channel*."""
        self.channels[channel] = None

    def left(self, channel: Channel) -> None:
        """Lose track of *channel*."""
        self.channels.pop(channel, None)
        self._meters.left(channel)
        self.door.leave(channel.peer)

    def check_channels(self) -> None:
        """Close connections on which nothing moves; to be called about once a second."""
        now = self._clock.seconds()
        for channel in tuple(self.channels):
            channel.check(now)

    def _log_answer(self, reply: Reply, began: float, verb: str, status: int) -> None:
        self._meters.answered(began, verb, status)
        _log.info(
            "{peer} {verb} {target} {status} in {milliseconds} ms",
            peer=reply.peer,
            verb=verb,
            target=reply.request.target.decode("utf-8", "backslashreplace"),
            status=status,
            milliseconds=round((self._clock.seconds() - began) * 1000, 3),
        )
