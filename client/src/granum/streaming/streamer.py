"""The streamer: spreads puts over the nodes, makes the caller wait while windows are full, and accounts for every put.

Each put is *waiting* until the window of its node takes it, which accepts it; an accepted put is *outstanding* until it has
its receipt or has failed, never both: accepted = receipted + failed + outstanding. A put that was not yet accepted when its
node went away is placed anew, because nothing of it was sent; one that was accepted may be stored, so it fails with the
cause and is reported by `flush` and `close`.

The streamer knows neither series nor frames, only files and their optional numbers.
"""

from collections import deque
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail
from twisted.python.failure import Failure

from granum.placement import Ledger, Placement, least_recently_written
from granum.roster import Node
from granum.streaming.channel import Channel, EndpointFactory, Piece, connect, tcp_endpoint
from granum.streaming.window import WINDOW_BYTES_MAX, WINDOW_PUTS_MAX
from granum.transfer import Receipt
from granum.wire.errors import BadConfig, Closed, NodeBusy, NodeTimeout, NotReceipted, OnSomeNodes
from granum.wire.paths import ClusterPath

PENDING_MAX = 64  # waiting puts; a caller that waits for each has one, so this stops one that never waits early enough
FAILED_MAX = 10_000  # then put() refuses more: a caller that looks at the end only is told, and the list stays small
NODE_RETRY_S = 10.0  # a node that went away is tried again after this; connecting in vain costs its put up to 2 s
PATHS_NAMED_MAX = 5  # in the sentence of an error; its attribute has them all

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Failed:
    """An accepted put without a receipt: refused by *node*, or given back when its channel ended."""

    path: ClusterPath
    node: Node
    cause: BaseException


@dataclass(frozen=True, slots=True)
class Summary:
    """What was receipted: number of puts, their bytes, puts by node name, and the durabilities that nodes stated."""

    puts: int
    bytes: int
    per_node: Mapping[str, int]
    durability: frozenset[str]


@dataclass(slots=True, eq=False)
class _Put:
    serial: int
    path: ClusterPath
    pieces: Sequence[Piece]
    size: int
    number: int | None
    accepted: Deferred[Node]


@dataclass(slots=True, eq=False)
class _Lane:
    """One node: its channel when there is one, and who waits for it. *cause* is why it was last set aside."""

    node: Node
    waiting: deque[_Put] = field(default_factory=deque)
    opening: Deferred[Channel] | None = None
    channel: Channel | None = None
    cause: BaseException | None = None
    retry_at: float = 0.0
    answers: bool = True  # False when it could not be reached or stalled: then not even as the last resort
    on_trial: bool = False  # set aside once and not receipted since: gets one put at a time
    receipted: int = 0

    @property
    def is_used(self) -> bool:
        """Whether a put is on its way to the node, or waits for it."""
        return bool(self.waiting) or (self.channel is not None and self.channel.outstanding > 0)


class Streamer:
    """Streams puts to *nodes*, one channel each, opened when the first put goes there.

    *reactor* connects and keeps time. *ledger* is told where each put goes; *placement* reads it to choose. The window of
    each channel holds *window_bytes_max* bytes and *window_puts_max* puts; *pending_max* puts may wait for room in all.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        *,
        reactor: Any,  # whatever the endpoint and the clock need; zope's interfaces cannot be intersected
        ledger: Ledger,
        placement: Placement = least_recently_written,
        window_bytes_max: int = WINDOW_BYTES_MAX,
        window_puts_max: int = WINDOW_PUTS_MAX,
        pending_max: int = PENDING_MAX,
        endpoint: EndpointFactory = tcp_endpoint,
    ) -> None:
        self._lanes = {node.key: _Lane(node) for node in nodes}
        self._reactor = reactor
        self._ledger = ledger
        self._placement = placement
        self._window = {"bytes_max": window_bytes_max, "puts_max": window_puts_max}
        self._pending_max = pending_max
        self._endpoint = endpoint
        self._closed = False
        self._serial = 0
        self._unsettled: dict[int, _Put] = {}  # waiting and outstanding, by serial, oldest first
        self._flushes: deque[tuple[int, Deferred[None]]] = deque()  # each waits for all serials up to its own
        self._accepted = self._receipted = self._bytes = 0
        self._failed: list[Failed] = []
        self._durability: set[str] = set()

    # -- the account --------------------------------------------------------------------------------------------------

    @property
    def accepted(self) -> int:
        """The number of puts that have entered a window."""
        return self._accepted

    @property
    def outstanding(self) -> int:
        """The number of accepted puts whose outcome is not known yet."""
        return self._accepted - self._receipted - len(self._failed)

    @property
    def failed(self) -> Sequence[Failed]:
        """Every accepted put that will have no receipt, in the order of failing."""
        return tuple(self._failed)

    @property
    def summary(self) -> Summary:
        """What is receipted so far."""
        per_node = {lane.node.name: lane.receipted for lane in self._lanes.values()}
        return Summary(self._receipted, self._bytes, per_node, frozenset(self._durability))

    # -- verbs --------------------------------------------------------------------------------------------------------

    def put(self, path: ClusterPath, pieces: Iterable[Piece], number: int | None = None) -> Deferred[Node]:
        """Stream a file made of *pieces*, which must not change until its receipt; *number* is for placement.

        Fires with the node when the put is in its window; wait for it before the next put, that is the back-pressure.
        Fails when the put was not accepted: Closed, NodeBusy when too many wait, OnSomeNodes when no node takes puts,
        NotReceipted when FAILED_MAX have failed. Cancelling withdraws a put that still waits.
        """
        if self._closed:
            return fail(Closed("the streamer is closed"))
        if len(self._unsettled) - self.outstanding >= self._pending_max:
            return fail(NodeBusy(f"{self._pending_max} puts wait for room already; wait for each before the next"))
        if len(self._failed) >= FAILED_MAX:
            return fail(self._not_receipted())
        self._serial += 1
        kept = tuple(pieces)
        size = sum(memoryview(piece).nbytes for piece in kept)
        put = _Put(self._serial, path, kept, size, number, Deferred(self._withdraw))
        self._unsettled[put.serial] = put
        self._place(put)
        return put.accepted

    def flush(self) -> Deferred[None]:
        """Fire when every put so far has its receipt; fails with NotReceipted when any put ever failed."""
        return _deferred(self._flush())

    def close(self) -> Deferred[Summary]:
        """Flush, close the channels, and fire with the summary; fails with NotReceipted, closed all the same."""
        self._closed = True
        return _deferred(self._close())

    def abort(self) -> Deferred[None]:
        """Close the channels now; puts that wait fail with Closed, puts without a receipt stay so. Fires when closed."""
        self._closed = True
        return _deferred(self._disconnect())

    async def _flush(self) -> None:
        if self._unsettled:
            settled: Deferred[None] = Deferred()
            self._flushes.append((self._serial, settled))
            await settled
        if self._failed:
            raise self._not_receipted()

    async def _close(self) -> Summary:
        try:
            await self._flush()
        finally:
            await self._disconnect()
        return self.summary

    async def _disconnect(self) -> None:
        for lane in self._lanes.values():  # first, so that none is placed anew when its connecting is cancelled
            while lane.waiting:
                self._refuse(lane.waiting.popleft(), Closed("the streamer was closed before the put was sent"))
        ended: list[Deferred[None]] = []
        for lane in self._lanes.values():
            if lane.opening is not None:
                lane.opening.cancel()
            if lane.channel is not None:
                ended.append(_end_of(lane.channel))
                lane.channel.close()
        over = await DeferredList(ended, consumeErrors=True)
        if not all(has_ended for has_ended, _ in over):  # a list of Deferreds keeps it to itself that it was cancelled
            raise CancelledError

    # -- from waiting to accepted -------------------------------------------------------------------------------------

    def _place(self, put: _Put) -> None:
        """Choose the node of *put*, or refuse it."""
        lanes = self._usable()
        if not lanes:
            causes = {lane.node.name: lane.cause for lane in self._lanes.values() if lane.cause is not None}
            self._refuse(put, OnSomeNodes(f"{put.path} was not sent: no node takes puts at the moment", causes))
            return
        try:
            chosen = self._placement(put.number, [lane.node for lane in lanes], self._ledger)
            lane = self._lanes[chosen.key]
        except Exception as error:  # noqa: BLE001 - a caller's own placement may raise anything, and its put is told
            self._refuse(put, BadConfig(f"the placement chose no node: {error!r}"))
            return
        # Now and not with the receipt: a burst would go to one node, and slow nodes would look idle.
        self._ledger.wrote(lane.node.key, self._reactor.seconds())
        lane.waiting.append(put)
        self._fill(lane)

    def _usable(self) -> list[_Lane]:
        """Return the lanes that are not set aside; when all are, those whose nodes at least answer.

        One that was set aside comes back with one put: were its node frozen still, a window full of frames would be lost.
        """
        now = self._reactor.seconds()
        due = [lane for lane in self._lanes.values() if now >= lane.retry_at]
        free = [lane for lane in due if not (lane.on_trial and lane.is_used)]
        return free or due or [lane for lane in self._lanes.values() if lane.answers]

    def _fill(self, lane: _Lane) -> None:
        """Send what waits for *lane* while its window has room; open its channel when it has none."""
        if lane.channel is None:
            if lane.waiting and lane.opening is None:
                self._open(lane)
            return
        channel = lane.channel
        while lane.waiting and channel.room(lane.waiting[0].size):
            put = lane.waiting.popleft()
            self._accepted += 1
            outcome = channel.put(put.path, put.pieces)
            outcome.addCallbacks(self._on_receipt, self._on_failure, (put, lane), {}, (put, lane), {})
            put.accepted.callback(lane.node)  # last: the caller may put again, and then comes back here

    def _withdraw(self, accepted: Deferred[Node]) -> None:
        for lane in self._lanes.values():
            for put in lane.waiting:
                if put.accepted is accepted:
                    lane.waiting.remove(put)
                    self._settle(put)
                    return

    def _refuse(self, put: _Put, error: BaseException) -> None:
        self._settle(put)
        put.accepted.errback(error)

    # -- from accepted to settled -------------------------------------------------------------------------------------

    def _on_receipt(self, receipt: Receipt, put: _Put, lane: _Lane) -> None:
        self._receipted += 1
        self._bytes += receipt.size
        self._durability.add(receipt.durability)
        lane.receipted += 1
        lane.on_trial = False
        self._fill(lane)
        self._settle(put)

    def _on_failure(self, failure: Failure, put: _Put, lane: _Lane) -> None:
        assert failure.value is not None
        self._failed.append(Failed(put.path, lane.node, failure.value))
        self._fill(lane)
        self._settle(put)

    def _settle(self, put: _Put) -> None:
        """Forget *put*, whose outcome is known, and fire the flushes that waited for it last."""
        del self._unsettled[put.serial]
        oldest = next(iter(self._unsettled), self._serial + 1)
        while self._flushes and self._flushes[0][0] < oldest:
            _, settled = self._flushes.popleft()
            if not settled.called:  # a flush may have been cancelled
                settled.callback(None)

    def _not_receipted(self) -> NotReceipted:
        paths = [str(failed.path) for failed in self._failed]
        causes: dict[str, BaseException] = {}
        for failed in self._failed:
            causes.setdefault(failed.node.name, failed.cause)
        named = ", ".join(paths[:PATHS_NAMED_MAX])
        more = f" and {len(paths) - PATHS_NAMED_MAX} more" if len(paths) > PATHS_NAMED_MAX else ""
        return NotReceipted(f"{len(paths)} of {self._accepted} puts have no receipt: {named}{more}", paths, causes)

    # -- channels -----------------------------------------------------------------------------------------------------

    def _open(self, lane: _Lane) -> None:
        def opened(channel: Channel) -> None:
            lane.opening, lane.channel, lane.answers = None, channel, True
            channel.ended.addCallback(self._on_ended, lane)
            self._fill(lane)

        def not_opened(failure: Failure) -> None:
            assert failure.value is not None
            lane.opening = None
            self._set_aside(lane, failure.value, answers=False)

        connecting = connect(lane.node, reactor=self._reactor, endpoint=self._endpoint, **self._window)
        lane.opening = connecting  # before the callbacks, which may run at once
        connecting.addCallbacks(opened, not_opened)

    def _on_ended(self, cause: BaseException | None, lane: _Lane) -> None:
        lane.channel = None
        if cause is not None:
            self._set_aside(lane, cause, answers=not isinstance(cause, NodeTimeout))
        else:
            self._fill(lane)  # the node closed an idle connection, which is no fault

    def _set_aside(self, lane: _Lane, cause: BaseException, *, answers: bool) -> None:
        """Choose *lane* no more for a while, and place anew what waited for it."""
        lane.cause, lane.answers, lane.on_trial = cause, answers, True
        lane.retry_at = self._reactor.seconds() + NODE_RETRY_S
        waiting = tuple(lane.waiting)
        lane.waiting.clear()
        for put in waiting:
            self._place(put)


def _end_of(channel: Channel) -> Deferred[None]:
    """Fire when *channel* has ended; a Deferred of its own, because a cancelled wait must not cancel the account."""
    over: Deferred[None] = Deferred()
    channel.ended.addCallback(lambda _: over.callback(None))
    return over


def _deferred(coroutine: Coroutine[Any, Any, _Result]) -> Deferred[_Result]:
    return Deferred.fromCoroutine(coroutine)
