"""Patience: when an exchange with a node is given up, because it does not move, or too slowly."""

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

STALL_TIMEOUT_S = 5.0  # without a byte either way; what a dead or frozen node may cost
TOTAL_TIMEOUT_S = 30.0  # of an exchange without a body to speak of: a node that drips is as good as dead
RATE_MIN = (
    1 << 20
)  # bytes/s; each MiB of a body adds a second to the whole: below this rate no camera or script can work

T = TypeVar("T")


class Patience:
    """Gives up on an exchange that does not move, or moves too slowly; *expired* then says why."""

    def __init__(self, clock: IReactorTime) -> None:
        self.expired = ""
        self._exchange: Deferred[Any] | None = None
        stalled = f"did not answer within {STALL_TIMEOUT_S:g} s"
        self._stall = clock.callLater(STALL_TIMEOUT_S, self._expire, stalled)
        self._total = clock.callLater(TOTAL_TIMEOUT_S, self._expire, "answers too slowly")

    def watch(self, exchange: Deferred[T]) -> Deferred[T]:
        """Cancel *exchange* when patience runs out, which began when this object was made."""
        self._exchange = exchange
        return exchange.addBoth(self._end)

    def expect(self, size: int) -> None:
        """Allow for a body of *size* bytes, in either direction."""
        if self._total.active():
            self._total.reset(TOTAL_TIMEOUT_S + size / RATE_MIN)

    def moved(self, allowance: float = 0.0) -> None:
        """Note progress; the next may take *allowance* seconds longer than usual."""
        if self._stall.active():
            self._stall.reset(STALL_TIMEOUT_S + allowance)

    def _expire(self, why: str) -> None:
        self.expired = why
        if self._exchange is not None:
            self._exchange.cancel()

    def _end(self, result: T) -> T:
        for timer in (self._stall, self._total):
            if timer.active():
                timer.cancel()
        return result
