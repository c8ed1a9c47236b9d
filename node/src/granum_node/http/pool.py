"""Work that may block, done by a few threads; its outcome comes back on the reactor."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

Outcome = TypeVar("Outcome")


class Pool(Protocol):
    """Runs work away from the reactor; a test may run it at once."""

    def run(
        self, work: Callable[[], Outcome], done: Callable[[Outcome], None], failed: Callable[[BaseException], None]
    ) -> None:
        """Call *done* with what *work* returns, or *failed* with what it raises."""


class ReactorPool:
    """A pool over the threads of *threads*, answering through *reactor*."""

    def __init__(self, reactor: IReactorFromThreads, threads: ThreadPool) -> None:
        self._reactor = reactor
        self._threads = threads

    def run(
        self, work: Callable[[], Outcome], done: Callable[[Outcome], None], failed: Callable[[BaseException], None]
    ) -> None:
        """Run *work* in a thread."""

        def report(success: bool, outcome: Outcome | Failure) -> None:  # noqa: FBT001 - the pool's own signature
            if success:
                self._reactor.callFromThread(done, outcome)
            else:
                assert isinstance(outcome, Failure)
                self._reactor.callFromThread(failed, outcome.value)

        self._threads.callInThreadWithCallback(report, work)
