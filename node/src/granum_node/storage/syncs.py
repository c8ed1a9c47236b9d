"""What the threads of a committing publisher share: syncs of one directory, and the way back for outcomes.

Both do for many puts at once what would cost each of them a call of its own. Neither knows files or paths.
"""

import os
import threading
from collections.abc import Callable
from functools import partial


class DirectorySyncs:
    """Syncs directories; whoever comes while a sync of one is under way shares the next."""

    def __init__(self, timed: Callable[[Callable[[], None]], None]) -> None:
        """Sync by *timed*, which makes the call that it is given."""
        self._timed = timed
        self._lock = threading.Lock()
        # A directory is a key while somebody syncs it; the list holds those who wait for the next sync.
        self._waiting: dict[tuple[int, int], list[Callable[[OSError | None], None]]] = {}

    def join(self, directory: int, synced: Callable[[OSError | None], None]) -> None:
        """Call *synced* after a sync of *directory* that begins later than this call; perhaps from another thread."""
        status = os.fstat(directory)
        key = (status.st_dev, status.st_ino)
        with self._lock:
            if key in self._waiting:
                self._waiting[key].append(synced)
                return
            self._waiting[key] = [synced]
        while together := self._take(key):
            error = None
            try:
                self._timed(partial(os.fsync, directory))
            except OSError as failed:
                error = failed
            for each in together:
                each(error)

    def _take(self, key: tuple[int, int]) -> list[Callable[[OSError | None], None]]:
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

    def add(self, outcome: Callable[[], None]) -> None:
        """Report *outcome*, soon."""
        with self._lock:
            self._collected.append(outcome)
            first = len(self._collected) == 1
        if first:
            self._report(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            collected, self._collected = self._collected, []
        for outcome in collected:
            outcome()
