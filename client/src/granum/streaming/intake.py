"""The intake: what other threads hand to the reactor's without waiting for it.

A thread that waits for the reactor's turn twice, to be heard and to be answered, pays more for that than for all the rest of a
small frame. So memory is reserved here, under a lock, and what was handed over lies in a queue that the reactor empties in one
go; it is woken for the first of a batch only.

The rule: what was added is taken, in order, or `close` comes first and nothing is added behind it. What is taken, and how much
memory there is in all, is not known here.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Intake(Generic[Item]):
    """Items for *take*, which is called on the thread of *reactor*; *has_memory* is asked on any thread."""

    def __init__(self, reactor: Any, has_memory: Callable[[int], bool], take: Callable[[Item], None]) -> None:
        self._reactor = reactor  # Any: a reactor with callFromThread
        self._has_memory = has_memory
        self._take = take
        self._lock = threading.Lock()
        self._queue: deque[tuple[Item, int]] = deque()
        self._reserved = 0  # bytes: of what is in the queue, and of what is about to be
        self._is_woken = False
        self._is_closed = False

    def reserve(self, size: int) -> bool:
        """Reserve *size* bytes for an item; False when there is no memory. `add` or `give_back` must follow."""
        with self._lock:
            if self._is_closed or not self._has_memory(self._reserved + size):
                return False
            self._reserved += size
            return True

    def give_back(self, size: int) -> None:
        """Give back what was reserved for an item that does not come."""
        with self._lock:
            self._reserved -= size

    def add(self, item: Item, size: int) -> bool:
        """Hand over *item*, for which *size* bytes were reserved; False, with nothing done, when `close` came first."""
        with self._lock:
            if self._is_closed:
                return False
            self._queue.append((item, size))
            wakes, self._is_woken = not self._is_woken, True
        if wakes:
            self._reactor.callFromThread(self._drain)
        return True

    def close(self) -> None:
        """Take what was added, and let nothing be added any more. On the reactor's thread."""
        with self._lock:
            self._is_closed = True
        self._drain()

    def _drain(self) -> None:
        with self._lock:  # with what is there: what is added from now on wakes again
            self._is_woken, count = False, len(self._queue)
        for _ in range(count):  # not what comes meanwhile: with a fast camera nothing would be sent
            item, size = self._queue.popleft()
            self._take(item)  # which counts its memory, so that at no moment it counts nowhere
            self.give_back(size)
