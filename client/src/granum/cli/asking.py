"""Asking every node for `granum doctor`: who is there, where it was heard of, and what it says. Nothing here judges.

Unlike a cluster, which merges what it hears into one roster, this keeps every place where a node is said to listen, so that
contradictions stay visible. Each is asked once, at the same time as all others, and whatever it does ends within seconds.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from granum.cli.seen import Answer, Found
from granum.config import Config
from granum.discovery import Source, ZeroconfSource
from granum.listed import RegistrySource, StaticSource
from granum.request import Requester, was_sent
from granum.roster import STATIC, Node
from granum.transfer import NODE_HEADER, STATUS_BYTES_MAX
from granum.wire.advert import Advertisement
from granum.wire.errors import GranumError, NodeError, NodeTimeout, NodeUnreachable

HEARD_MAX = 512  # advertisements: far more than a lab has, and few enough connections for one process
PROBE = "/granum-doctor"  # a name that nothing has
NEVER = {"If-Match": '"never"'}  # a put with a condition that no file meets is judged, and never stored
FORBIDDEN = 403
CONDITION_FAILED, TAKEN = 412, 405  # what a node says to it that would take puts


class Ear:
    """Keeps what sources hear: (source, instance) -> what it said last. A sink of discovery."""

    def __init__(self) -> None:
        self.heard_of: dict[tuple[str, str], Advertisement] = {}

    def heard(self, advertisement: Advertisement, source: str) -> None:
        """Take in an advertisement, unless there are HEARD_MAX."""
        slot = (source, advertisement.instance)
        if slot in self.heard_of or len(self.heard_of) < HEARD_MAX:
            self.heard_of[slot] = advertisement

    def gone(self, instance: str, source: str) -> None:
        """Forget one."""
        self.heard_of.pop((source, instance), None)

    def failed(self, instance: str, source: str, cause: BaseException) -> None:
        """Do nothing: each is asked anyway."""


class Asking:
    """Asks nodes, each place once, and keeps what came of it; *wall_clock* gives the unix time of this machine."""

    def __init__(self, requester: Requester, wall_clock: Callable[[], float]) -> None:
        self._requester = requester
        self._clock = wall_clock
        self._known: dict[str, Answer | GranumError] = {}

    async def status(self, node: Node) -> Mapping[str, object]:
        """Return what `Transfer.status` does: what sources ask nodes for that were named without an id."""
        answer = await self.answer(node)
        return {**answer.status, "node_id": answer.node_id} if answer.node_id else answer.status

    async def answer(self, node: Node) -> Answer:
        """Return what *node* says; raise the error of one that is silent, or is no node."""
        if node.host not in self._known:
            try:
                self._known[node.host] = await self._ask(node)
            except GranumError as error:
                self._known[node.host] = error
        known = self._known[node.host]
        if isinstance(known, GranumError):
            raise known
        return known

    async def found(self, found: Found) -> Found:
        """Return *found* with what came of asking it."""
        try:
            answer = await self.answer(Node(found.host, found.name, found.address, found.port, ""))
        except GranumError as error:
            is_closed = isinstance(error, NodeUnreachable) and not isinstance(error, NodeTimeout) and was_sent(error)
            return replace(found, failure=str(error), is_closed=is_closed)
        return replace(found, answer=answer)

    async def _ask(self, node: Node) -> Answer:
        before = self._clock()
        reply = await self._requester.request("GET", node, "/__status", body_bytes_max=STATUS_BYTES_MAX)
        after = self._clock()
        status = _status(reply.body)
        if reply.status != 200 or status is None:
            raise NodeError(f"what answers at {node.host} is no node")
        node_id = reply.header(NODE_HEADER)
        may_put = await self._may_put(node) if node_id else None
        return Answer(status, node_id, lead(reply.header("date"), before, after), may_put)

    async def _may_put(self, node: Node) -> bool | None:
        """Return whether *node* takes puts of this machine; None when it takes none at the moment. Nothing is stored."""
        reply = await self._requester.request("PUT", node, PROBE, b"", headers=NEVER, body_bytes_max=STATUS_BYTES_MAX)
        if reply.status == FORBIDDEN:
            return False
        return True if reply.status in (CONDITION_FAILED, TAKEN) else None


async def ask_all(
    reactor: Any,  # Any: a reactor with threads, TCP and time
    config: Config,
    *,
    discover: bool,
    wall_clock: Callable[[], float] = time.time,
) -> tuple[tuple[Found, ...], frozenset[str]]:
    """Return the nodes of the cluster in *config*, of all when it names none, asked; and which other clusters were heard."""
    requester, ear = Requester(reactor), Ear()
    asking = Asking(requester, wall_clock)
    sources: list[Source] = []
    if discover:
        sources += [ZeroconfSource(reactor), RegistrySource(reactor, asking.status)]
    if config.nodes:
        sources.append(StaticSource(config.nodes, reactor, asking.status, config.port))
    try:
        await DeferredList([source.start(ear) for source in sources], consumeErrors=True)
        ours, others = sorted_out(ear.heard_of, config.cluster)
        asked = [Deferred.fromCoroutine(asking.found(found)) for found in ours]
        return tuple([await each for each in asked]), others
    finally:
        await DeferredList([*(source.stop() for source in sources), requester.close()], consumeErrors=True)


def sorted_out(
    heard: Mapping[tuple[str, str], Advertisement], cluster: str
) -> tuple[tuple[Found, ...], frozenset[str]]:
    """Return where nodes of *cluster* ('' for any) are said to listen, by address, and the names of the others in *heard*."""
    places: dict[tuple[str, int], list[tuple[str, Advertisement]]] = {}
    others = set()
    for (source, _), said in heard.items():
        if cluster and said.cluster != cluster and not (source == STATIC and not said.cluster):
            others.add(said.cluster)
        else:
            places.setdefault((said.address, said.port), []).append((source, said))
    found = (Found(address, port, tuple(said)) for (address, port), said in places.items())
    return tuple(sorted(found, key=lambda each: (each.name, each.host))), frozenset(others - {""})


def lead(date: str, before: float, after: float) -> tuple[float, float] | None:
    """Return how far a clock is ahead, at least and at most, that said *date* between *before* and *after* by ours.

    A date of HTTP has whole seconds. None when it is not understood.
    """
    try:
        said = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
    return said - after, said + 1 - before


def _status(body: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
