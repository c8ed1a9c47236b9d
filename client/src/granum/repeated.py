"""Repeated rounds of work on a given clock.

Twisted's LoopingCall imports the process's reactor when it is made; a library that runs its own must not.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

log = Logger()


class Repeated:
    """Runs *work* again *interval_s* seconds after each time that it has ended. A round that fails is logged."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], interval_s: float, clock: IReactorTime) -> None:
        self._work = work
        self._interval_s = interval_s
        self._clock = clock
        self._next: IDelayedCall | None = None
        self._round: Deferred[None] | None = None
        self._stopped = True

    def start(self) -> Deferred[None]:
        """Begin at once; fires when the first round has ended."""
        self._stopped = False
        first: Deferred[None] = Deferred()
        self._run().addBoth(lambda _: first.callback(None))
        return first

    def stop(self) -> Deferred[None]:
        """Cancel the round that runs, begin no other; fires when all is over."""
        self._stopped = True
        if self._next is not None and self._next.active():
            self._next.cancel()
        running = self._round
        if running is None:
            return succeed(None)
        over: Deferred[None] = Deferred()
        running.addBoth(lambda _: over.callback(None))
        running.cancel()
        return over

    def _run(self) -> Deferred[None]:
        self._round = running = Deferred.fromCoroutine(self._work())
        return running.addErrback(self._log).addBoth(self._ended)

    def _log(self, failure: Any) -> None:  # Any: a Failure, whose type Twisted does not parametrise
        if not self._stopped:
            log.failure("repeated work failed", failure)

    def _ended(self, _: None) -> None:
        self._round = None
        if not self._stopped:
            self._next = self._clock.callLater(self._interval_s, self._run)
