"""Keeping the digest log: a thread that writes its records, in durability `relaxed` after a sync of the whole file system.

With a sync, a round is: take the records that have come together, sync the file system, write the records. A file that has a
record was thus on the disk before; what has none after an unclean stop is looked at (`recovery`). Rounds begin twice in each
window, so that a receipt is on the disk within it as long as a sync takes less than half of it. The first sync that fails ends
writing for good, as with `Commit`. Nothing of this is done on the reactor, or for a single put.
"""

import errno
import threading
import time
from collections.abc import Callable

from granum_node.storage.digestlog import DigestLog

COMMIT_ROUND_S = 5.0  # between rounds where every file is synced before it has its name: its attribute is as durable


class Keeper:
    """Writes the records of *log*, at the latest every *round_s*."""

    def __init__(
        self,
        log: DigestLog,
        round_s: float,
        *,
        sync: Callable[[], None] | None = None,
        failed: Callable[[OSError], object] = lambda _: None,
        unwritten: Callable[[OSError], None] = lambda _: None,
        synced: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Call *sync* before records are written.

        When it fails, nothing is written any more and *failed* is told; *synced* is told how many seconds it took, and
        *unwritten* why the log did not take records. All three are told in the thread of the keeper.
        """
        self._log = log
        self._round_s = round_s
        self._sync = sync
        self._failed = failed
        self._unwritten = unwritten
        self._synced = synced
        self._broken = False
        self._stopping = False
        self._wake = threading.Event()
        self._working = threading.Lock()
        self._thread: threading.Thread | None = None
        log.wake = self._wake.set

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="granum-keeper", daemon=True)
        self._thread.start()

    def finish(self) -> bool:
        """Write everything that is left and end; return whether it is all on the disk. To be called by another thread."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        return self.round() and self._make_durable()

    def round(self) -> bool:
        """Do one round; return whether all that was taken is on the disk, as far as this keeper syncs."""
        with self._working:
            items = self._log.take()
            touched, self._log.touched = self._log.touched, False
            if not items and not touched:
                return not self._broken
            if not self._make_durable():
                return False
            try:
                self._log.write(items)
            except OSError as error:  # the files are there, and only their second record is not
                self._unwritten(error)
            return True

    def _run(self) -> None:
        try:
            due = time.monotonic() + self._round_s
            while not self._stopping:
                self._wake.wait(max(0.0, due - time.monotonic()))
                self._wake.clear()
                due = time.monotonic() + self._round_s  # counted from where a round begins, however long it takes
                self.round()
        finally:
            if not self._stopping:  # a defect; nothing must be promised any more that nobody keeps
                self._broken = True
                self._failed(OSError(errno.EIO, "the keeper of the digest log has ended"))

    def _make_durable(self) -> bool:
        if self._sync is None:
            return True
        if self._broken:
            return False
        began = time.monotonic()
        try:
            self._sync()
        except OSError as error:
            self._broken = True
            self._failed(error)
            return False
        self._synced(time.monotonic() - began)
        return True
