"""What the threads of a committing publisher share: rounds of work on one thing, and the way back for outcomes.

Both do for many puts at once what would cost each of them a call of its own. Neither knows files or syncs.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Rounds(Generic[Key, Item]):
    """Works on things, each of them in rounds: whatever comes for one while a round is under way shares the next."""

    def __init__(self, work: Callable[[Key, list[Item]], None]) -> None:
        """Do a round by *work*, which must not raise."""
        self._work = work
        self._lock = threading.Lock()
        # A thing is a key while somebody works on it; the list holds what waits for the next round.
        self._waiting: dict[Key, list[Item]] = {}

    def join(self, key: Key, item: Item) -> None:
        """Have *item* in a round on *key* that begins later than this call; by this thread, or by the one that is at it."""
        with self._lock:
            if key in self._waiting:
                self._waiting[key].append(item)
                return
            self._waiting[key] = [item]
        while together := self._take(key):
            self._work(key, together)

    def _take(self, key: Key) -> list[Item]:
        with self._lock:
            together = self._waiting[key]
            if together:
                self._waiting[key] = []
            else:
                del self._waiting[key]
            return together


class Outcomes:
    """Takes outcomes from the threads and reports them together, one wake-up for all that came meanwhile."""

    def __init__(self, report: Callable[[Callable[[], None]], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._collected: list[Callable[[], None]] = []

    def add(self, outcomes: list[Callable[[], None]]) -> None:
        """Report *outcomes*, soon."""
        with self._lock:
            first = not self._collected
            self._collected += outcomes
        if first:
            self._report(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            collected, self._collected = self._collected, []
        rest = iter(collected)
        try:
            for outcome in rest:
                outcome()
        finally:
            if left := [*rest]:  # one that raises is a defect, and must not leave the others' senders without an answer
                self.add(left)
