"""Gathering: the sources of one cluster feed its roster, and whoever needs nodes waits here until they are known.

A verb must not take the first node that is heard of for the whole cluster, so it waits until every source has settled, or
until as many nodes are known as the user said there are. Nodes that failed are missing until a probe of ours, their own
status, is answered.

Anybody on the network can advertise, and each node that is known and does not answer costs a little time. So at most
UNPROVEN_MAX nodes are known that have never answered; when there are more, the next ones must answer before they are believed.
A node in a list is believed always.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from granum.discovery import Source
from granum.repeated import Repeated
from granum.roster import STATIC, Node, Roster
from granum.wire.advert import Advertisement
from granum.wire.errors import GranumError, NoNode

log = Logger()

PROBE_S = 1.0  # how often missing nodes are asked whether they are back; a second of a partial view is bearable
ROOM_POLL_S = 5.0  # how often nodes are asked for their room; meanwhile a camera fills 4 GB, spread over all of them
UNPROVEN_MAX = 32  # nodes that never answered: more than a lab starts at once, few enough to ask them all
TRIALS_MAX = 64  # nodes being tried at a time, and four times as many that wait for it; the oldest go first


class Gathering:
    """Feeds *roster* from *sources*; *probe* asks a node for its status and lets the roster know how that went.

    *reach* makes a connection to a missing node before that, and takes its time: a node that says nothing is then knocked at
    by the kernel, after 1, 3 and 7 seconds, and not by a connection each second.
    """

    def __init__(
        self,
        roster: Roster,
        sources: Sequence[Source],
        probe: Callable[[Node], Awaitable[Mapping[str, object]]],
        reach: Callable[[Node], Awaitable[None]],
        clock: IReactorTime,
    ) -> None:
        self._roster = roster
        self._sources = tuple(sources)
        self._probe_node = probe
        self._reach = reach
        self._clock = clock
        self._probes = Repeated(self._probe, PROBE_S, clock)
        self._rooms = Repeated(self._ask_all, ROOM_POLL_S, clock)
        self._watches_room = False
        self._probing: dict[str, Deferred[None]] = {}  # address and port of a missing node -> the probe under way
        self._untried: dict[tuple[str, str], Advertisement] = {}  # (source, instance) -> what waits for its trial
        self._trials: set[Deferred[None]] = set()
        self._awaited: set[Deferred[None]] = (
            set()
        )  # those that had begun when the sources settled; later ones delay nobody
        self._unsettled = len(self._sources)
        self._enough = False  # the user said how many nodes there are, and they are here
        self._waiters: list[tuple[int | None, Deferred[None]]] = []

    def start(self) -> None:
        """Listen to the sources, and begin to probe."""
        self._unsettled, self._enough = len(self._sources), False
        for source in self._sources:
            source.start(self).addBoth(self._settled)
        self._probes.start()
        if self._watches_room:
            self._rooms.start()

    def stop(self) -> Deferred[None]:
        """End every source; whoever waits is cancelled. Fires when all has ended."""
        waiters, self._waiters = self._waiters, []
        for _, waiter in waiters:
            waiter.cancel()
        self._untried.clear()
        for asked in (*self._trials, *self._probing.values()):
            asked.cancel()
        ends = [self._probes.stop(), self._rooms.stop(), *(source.stop() for source in self._sources)]
        return DeferredList(ends, consumeErrors=True).addCallback(lambda _: None)

    async def ready(self, expect: int | None = None) -> tuple[Node, ...]:
        """Return the nodes once *expect* of them are known, or every source has settled.

        *expect* above one is taken to be all: from then on nobody waits for others. Raises NoNode, saying where was looked.
        """
        if not self._is_met(expect):
            waiter: Deferred[None] = Deferred()
            self._waiters.append((expect, waiter))
            await waiter
        nodes = self._roster.nodes()
        if expect is not None and 1 < expect <= len(nodes):
            self._enough = True
        if not self._roster.states():
            raise NoNode(self._nothing_found())
        return nodes

    async def watch_room(self) -> None:
        """Keep asking all nodes for their room from now on; returns when it is known, as far as nodes answer."""
        await self.ready()
        if not self._watches_room:
            self._watches_room = True
            await self._rooms.start()

    # -- what the sources say: the sink --------------------------------------------------------------------------------

    def heard(self, advertisement: Advertisement, source: str) -> None:
        """Take in what a source heard."""
        is_news = source != STATIC and self._roster.is_news(advertisement, source)
        if is_news and self._roster.unproven >= UNPROVEN_MAX:
            self._untried[source, advertisement.instance] = advertisement
            while len(self._untried) > 4 * TRIALS_MAX:
                del self._untried[next(iter(self._untried))]
            self._try()
            return
        self._roster.heard(advertisement, source, self._clock.seconds())
        self._wake()

    def gone(self, instance: str, source: str) -> None:
        """Take in that a source has lost a node."""
        self._untried.pop((source, instance), None)
        self._roster.gone(instance, source, self._clock.seconds())

    def failed(self, instance: str, source: str, cause: BaseException) -> None:
        """Take in that a node which a source knows does not answer."""
        key = self._roster.key_of(instance, source)
        if key is not None:
            self._roster.failed(key, self._clock.seconds(), cause)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _is_met(self, expect: int | None) -> bool:
        if self._enough or not (self._unsettled or self._awaited):
            return True
        return expect is not None and len(self._roster.nodes()) >= expect

    def _settled(self, _: object) -> None:
        self._unsettled -= 1
        if not self._unsettled:
            self._awaited = set(self._trials)
        self._wake()

    def _wake(self) -> None:
        met = [(expect, waiter) for expect, waiter in self._waiters if self._is_met(expect)]
        self._waiters = [entry for entry in self._waiters if entry not in met]
        for _, waiter in met:
            if not waiter.called:  # cancelled by the one who waited
                waiter.callback(None)

    def _nothing_found(self) -> str:
        whose = f"of cluster {self._roster.cluster!r} " if self._roster.cluster else ""
        tried = "; ".join(source.describe() for source in self._sources) or "nothing, for no source was given"
        others = ", ".join(map(repr, self._roster.other_clusters))
        there = f". There are nodes of {others}; if one of these is meant, give its name" if others else ""
        return f"no node {whose}was found; looked at {tried}{there}. Start a node with 'granum serve DIR'"

    async def _probe(self) -> None:
        """Ask the missing nodes whether they are back, each for itself, and forget those that have been away too long."""
        for node in self._roster.missing():
            if self._roster.is_advertised(node) and node.host not in self._probing:
                probe = self._probing[node.host] = Deferred.fromCoroutine(self._look_for(node))
                probe.addBoth(self._looked, node.host)
        self._roster.forget_missing(self._clock.seconds())

    async def _look_for(self, node: Node) -> None:
        try:
            await self._reach(node)
            await self._probe_node(node)
        except (GranumError, CancelledError):
            return

    def _looked(self, result: object, host: str) -> None:
        del self._probing[host]
        if isinstance(result, Failure):
            log.failure("a node could not be probed", result)

    async def _ask(self, node: Node) -> None:
        await self._probe_node(node)

    async def _ask_all(self) -> None:
        asked = [Deferred.fromCoroutine(self._ask(node)) for node in self._roster.nodes()]
        await DeferredList(asked, consumeErrors=True)

    def _try(self) -> None:
        """Ask the nodes that wait for their trial who they are, TRIALS_MAX at a time, the latest first."""
        while self._untried and len(self._trials) < TRIALS_MAX:
            (source, _), said = self._untried.popitem()
            trial = Deferred.fromCoroutine(self._prove(said, source))
            self._trials.add(trial)
            trial.addBoth(self._tried, trial)

    async def _prove(self, said: Advertisement, source: str) -> None:
        host = f"{said.address}:{said.port}"
        try:
            await self._probe_node(Node(said.node_id or said.instance, host, said.address, said.port, "", said.node_id))
        except (GranumError, CancelledError):
            return
        now = self._clock.seconds()
        self._roster.heard(said, source, now)
        key = self._roster.key_of(said.instance, source)
        if key is not None:
            self._roster.answered(key, now)

    def _tried(self, _: object, trial: Deferred[None]) -> None:
        self._trials.discard(trial)
        self._awaited.discard(trial)
        self._try()
        self._wake()
