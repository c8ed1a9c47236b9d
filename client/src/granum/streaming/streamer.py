"""The streamer: puts of one program to all nodes, with back-pressure, until each has its receipt.

What the caller sees when no window has room is his choice, *on_full*: "wait"; "raise", which keeps the put in memory, and
refuses it with NodeBusy when that is full; or "overflow", to the local disk. What was accepted is sent until a node receipts it;
what then has none is named by `close`. The streamer knows neither series nor frames, only files and their numbers; how they
travel is the matter of `dispatch`.
"""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Literal, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail

from granum.placement import AnyPlacement, Ledger, least_recently_written
from granum.roster import Node
from granum.streaming.account import Account, Failed, Overflow, Piece, Summary
from granum.streaming.channel import EndpointFactory, tcp_endpoint
from granum.streaming.dispatch import Dispatch, OnFull
from granum.streaming.lanes import Nodes
from granum.streaming.pace import PACE_BYTES_MAX, PACE_PUTS_MAX
from granum.transfer import Receipt
from granum.wire.errors import BadConfig, Closed, NodeBusy
from granum.wire.paths import ClusterPath

PENDING_MAX = 64  # waiting puts; a caller that waits for each has one, so this stops one that never waits early enough
FAILED_MAX = 10_000  # then put() refuses more: a caller that looks at the end only is told, and the list stays small
MEMORY_BYTES_MAX = 256 << 20  # of unreceipted puts: half of a client's 512 MiB; the rest is for encoders and who waits
PATIENCE_S = 30.0  # without any receipt and with no node to try: longer than a node takes to restart

_Result = TypeVar("_Result")


class Streamer:
    """Streams puts to *nodes*, a collection or a callable that is asked again as nodes come and go; one channel each.

    *reactor* connects and keeps time. *ledger* is told where each put goes; *placement* reads it to choose. The window of
    each channel adapts below *window_bytes_max* and *window_puts_max*; all unreceipted puts together hold *memory_bytes_max*.
    *pending_max* puts may wait for room in all. With *on_full* "raise" what no window takes is accepted as long as it fits into
    *memory_bytes_max*, for which small files count as 4 KiB, and refused then. With *on_full* "overflow", what no window takes
    goes to *overflow*; when that is full too, puts do as *overflow_full* says. *patience* is for how many seconds a put may be
    without a node to try. *on_receipt* is told each receipt.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        reactor: Any,  # whatever the endpoint and the clock need; zope's interfaces cannot be intersected
        ledger: Ledger,
        placement: AnyPlacement = least_recently_written,
        window_bytes_max: int = PACE_BYTES_MAX,
        window_puts_max: int = PACE_PUTS_MAX,
        memory_bytes_max: int = MEMORY_BYTES_MAX,
        pending_max: int = PENDING_MAX,
        on_full: OnFull = "wait",
        overflow: Overflow | None = None,
        overflow_full: Literal["wait", "raise"] = "wait",
        patience: float = PATIENCE_S,
        on_receipt: Callable[[Receipt], None] = lambda _: None,
        endpoint: EndpointFactory = tcp_endpoint,
    ) -> None:
        if on_full not in {"wait", "overflow", "raise"} or overflow_full not in {"wait", "raise"}:
            raise BadConfig(f"on_full={on_full!r}, overflow_full={overflow_full!r}: write wait, raise or overflow")
        if (on_full == "overflow") is not (overflow is not None):
            raise BadConfig("on_full='overflow' needs an overflow, and nothing else does")
        self._account = Account()
        self._reactor = reactor
        self._pending_max = pending_max
        self._dispatch = Dispatch(
            self._account,
            nodes,
            reactor=reactor,
            ledger=ledger,
            placement=placement,
            endpoint=endpoint,
            window_bytes_max=window_bytes_max,
            window_puts_max=window_puts_max,
            memory_bytes_max=memory_bytes_max,
            on_full=overflow_full if overflow is not None else on_full,
            overflow=overflow,
            patience=patience,
            on_receipt=on_receipt,
        )
        self._lanes = self._dispatch.lanes
        self._closed = False

    # -- the account --------------------------------------------------------------------------------------------------

    @property
    def accepted(self) -> int:
        """The number of puts that were taken in: receipted + failed + outstanding + overflowed."""
        return self._account.accepted

    @property
    def outstanding(self) -> int:
        """The number of accepted puts whose outcome is not known yet, without those in the overflow."""
        return self._account.outstanding

    @property
    def overflowed(self) -> int:
        """The number of accepted puts that lie in the overflow only."""
        return len(self._account.overflowed)

    @property
    def failed(self) -> Sequence[Failed]:
        """Every accepted put that will have no receipt, in the order of failing."""
        return tuple(self._account.failed)

    @property
    def summary(self) -> Summary:
        """What is receipted so far."""
        account = self._account
        per_node = {lane.node.name: lane.receipted for lane in self._lanes}
        durability, moved = frozenset(account.durability), tuple(account.moved)
        return Summary(account.receipted, account.bytes, per_node, durability, moved, account.refused)

    # -- verbs --------------------------------------------------------------------------------------------------------

    def put(self, path: ClusterPath, pieces: Iterable[Piece], number: int | None = None) -> Deferred[Node | None]:
        """Stream a file made of *pieces*, which must not change until its receipt; *number* is for placement.

        Fires when the put is accepted: with its node, though it may end on another, or None when it went to the overflow or
        is kept in memory; wait for it before the next put, that is the back-pressure. Fails when the put was not accepted:
        Closed, NodeBusy when too many wait or nothing has room, OnSomeNodes when no node takes puts, NotReceipted when
        FAILED_MAX have failed. Cancelling withdraws a put that still waits.
        """
        if self._closed:
            return fail(Closed("the streamer is closed"))
        account = self._account
        if account.waiting >= self._pending_max:
            account.refused += 1
            return fail(NodeBusy(f"{self._pending_max} puts wait for room already; wait for each before the next"))
        if len(account.failed) >= FAILED_MAX:
            return fail(account.not_receipted())
        put = account.begin(path, tuple(pieces), number, self._reactor.seconds(), self._dispatch.withdraw)
        self._dispatch.begin(put)
        return put.accepted

    def has_memory(self, size: int) -> bool:
        """Tell, on any thread, whether `take` would be in bounds with *size* bytes, and nothing has gone wrong so far."""
        return not (self._closed or self._account.failed) and self._dispatch.has_memory(size)

    def take(self, path: ClusterPath, pieces: Sequence[Piece], number: int | None = None) -> None:
        """Stream a file as `put` does, accepted as it is: the caller has asked `has_memory`."""
        self._dispatch.take(self._account.begin(path, pieces, number, self._reactor.seconds()))

    def flush(self) -> Deferred[None]:
        """Fire when every put so far has its receipt; fails with NotReceipted when any put ever failed."""
        return _deferred(self._flush())

    def close(self) -> Deferred[Summary]:
        """Flush, the overflow too, close the channels, and fire with the summary.

        Fails with NotReceipted, closed all the same; what it names from the overflow is still there.
        """
        self._closed = True
        self._dispatch.finish()
        return _deferred(self._close())

    def abort(self) -> Deferred[None]:
        """Close the channels now; puts that wait fail with Closed, puts without a receipt stay so. Fires when closed."""
        self._closed = True
        return _deferred(self._disconnect())

    async def _flush(self) -> None:
        self._dispatch.serve()
        await self._account.flushed()
        if self._account.failed:
            raise self._account.not_receipted()

    async def _close(self) -> Summary:
        try:
            await self._flush()
        finally:
            await self._disconnect()
        return self.summary

    async def _disconnect(self) -> None:
        over = await DeferredList(self._dispatch.end(), consumeErrors=True)
        if not all(has_ended for has_ended, _ in over):  # a list of Deferreds keeps it to itself that it was cancelled
            raise CancelledError


def _deferred(coroutine: Coroutine[Any, Any, _Result]) -> Deferred[_Result]:
    return Deferred.fromCoroutine(coroutine)
