"""Encoders: threads of their own that make files of frames, beside the reactor.

The codecs release the interpreter's lock, so as many frames are encoded at a time as there are threads; in which order they
are done means nothing. Threads begin with the first frame, and end with the series; one that is encoding is not waited for.
"""

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Encoders:
    """At most *count* threads, by default one for each core. *reactor* is where what they made is told."""

    def __init__(self, reactor: Any, count: int | None = None) -> None:  # Any: a reactor with callFromThread
        self.count = count if count is not None else max(len(os.sched_getaffinity(0)), 1)
        self._reactor = reactor
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0  # jobs queued or being done
        self._is_ended = False

    @property
    def has_room(self) -> bool:
        """Whether a job would be begun soon: no more than one waits for each thread."""
        return self._busy < 2 * self.count

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        """Do *job* in a thread; fires, on the reactor, with what it returns. Cancelling forgets it."""
        done: Deferred[T] = Deferred()
        self._busy += 1
        if len(self._threads) < min(self._busy, self.count) and not self._is_ended:
            # A daemon: an interpreter that exits in mid-series must not wait for a thread that waits for frames.
            thread = threading.Thread(target=self._work, name=f"granum-encoder-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put((job, done))
        return done

    def end(self) -> None:
        """Let the threads end, behind the jobs that are queued."""
        self._is_ended = True
        for _ in self._threads:
            self._jobs.put(None)
        self._threads.clear()

    def _work(self) -> None:
        while (queued := self._jobs.get()) is not None:
            job, done = queued
            try:
                result = job()
            except BaseException:  # noqa: BLE001 - told to whoever waits
                result = Failure()
            self._reactor.callFromThread(self._tell, done, result)
            del queued, job, done, result  # else a frame is kept until the next one comes

    def _tell(self, done: Deferred[Any], result: Any) -> None:
        self._busy -= 1
        if not done.called:
            done.callback(result)
