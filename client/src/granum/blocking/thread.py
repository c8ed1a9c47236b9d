"""A reactor in a thread of its own, for programs that have none.

The thread is started on first use and serves every blocking object of the process. After a fork the child gets a new one:
threads do not survive a fork, and the parent's connections are not the child's to use. No other module of the client runs a
reactor or starts a thread, and the process's global reactor is never run.
"""

import atexit
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure

EXIT_TIMEOUT_S = 5.0  # for services to end when the interpreter exits; it must not hang on a dead network

T = TypeVar("T")


class _Reactor(EPollReactor):
    """A reactor whose time does not jump when somebody sets the clock."""

    seconds = staticmethod(time.monotonic)


class _DaemonThread(threading.Thread):
    """A thread that an exiting interpreter does not wait for: the idle threads of a pool never end by themselves."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # Any: those of Thread
        super().__init__(*arguments, daemon=True, **options)


class ReactorThread:
    """One running reactor. *services* are stopped when the interpreter exits; touch them on the reactor's thread only."""

    def __init__(self) -> None:
        self.reactor: Any = _Reactor()  # type: ignore[no-untyped-call]  # Any: zope's interfaces cannot be intersected
        self.services: set[Any] = set()  # Any: IService
        self.reactor.getThreadPool().threadFactory = _DaemonThread
        self._is_stopping = False
        self._thread = _DaemonThread(target=self.reactor.run, name="granum", kwargs={"installSignalHandlers": False})
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """Whether it runs in this process, beside the caller's thread; else `run` says what is wrong."""
        return self._thread.is_alive()

    def submit(self, work: Callable[[], Deferred[T]]) -> "Future[T]":
        """Call *work* on the reactor's thread; the future gets what its Deferred fires with, or its error as it is.

        Cancelling the future cancels the Deferred.
        """
        future: Future[T] = Future()
        self._submit(work, future)
        return future

    def run(self, work: Callable[[], Deferred[T]]) -> T:
        """Do as `submit` does and wait; an interruption (Ctrl-C) cancels what was begun."""
        future: Future[T] = Future()
        try:
            self._submit(work, future)
            return future.result()
        finally:
            future.cancel()  # does nothing to one that has ended

    def stop(self) -> None:
        """Stop the services and the reactor; return when they have ended, or after EXIT_TIMEOUT_S.

        Whoever waits goes on waiting: at exit these are daemon threads only, which end with the interpreter, and an error
        would be no more than a traceback on its standard error.
        """
        self._is_stopping = True
        if self._thread.is_alive():
            self.reactor.callFromThread(self._end)
            self._thread.join(EXIT_TIMEOUT_S)

    def _submit(self, work: Callable[[], Deferred[T]], future: "Future[T]") -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking call on the reactor's own thread would wait for itself")
        if not self._thread.is_alive():
            raise RuntimeError("this belongs to another process, or the interpreter is exiting")
        self.reactor.callFromThread(self._begin, work, future)

    def _begin(self, work: Callable[[], Deferred[T]], future: "Future[T]") -> None:
        if future.cancelled():
            return
        begun: Deferred[T] = maybeDeferred(work)

        def cancelled(ended: "Future[T]") -> None:
            if ended.cancelled():
                self.reactor.callFromThread(begun.cancel)

        def succeeded(result: T) -> None:
            if not self._is_stopping and future.set_running_or_notify_cancel():
                future.set_result(result)

        def failed(failure: Failure) -> None:
            if not self._is_stopping and future.set_running_or_notify_cancel():
                future.set_exception(failure.value)

        future.add_done_callback(cancelled)
        begun.addCallbacks(succeeded, failed)

    def _end(self) -> None:
        ends = [maybeDeferred(service.stopService) for service in self.services]
        DeferredList(ends, consumeErrors=True).addBoth(lambda _: self.reactor.stop())


_lock = threading.Lock()
_current: ReactorThread | None = None
_left_behind: list[ReactorThread] = []  # a parent's; collecting them would close what they hold, with warnings


def reactor_thread() -> ReactorThread:
    """Return the reactor thread of this process, started when there is none yet."""
    global _current  # noqa: PLW0603 - one for each process, by design
    with _lock:
        if _current is None:
            _current = ReactorThread()
        return _current


def _after_fork() -> None:
    global _current, _lock  # noqa: PLW0603
    _lock = threading.Lock()  # the old one may be held by a thread that is not here
    if _current is not None:
        _left_behind.append(_current)
        _current = None


def _at_exit() -> None:
    if _current is not None:
        _current.stop()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
