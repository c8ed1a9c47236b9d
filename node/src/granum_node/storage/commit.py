"""Committing: publishing so that a receipt survives a power failure.

`Commit` first syncs the file, then links it, then syncs the directory and every directory on the way whose own name was not
synced before; only then does it say so. Syncs are made by threads that are lent to it, several at once, because a disk joins
those that are in flight together. A thread does little else: each call that it makes costs the interpreter a change of threads,
which soon comes to more than the disk does. So all that came for one directory meanwhile is linked by one thread, shares one
sync, and is reported together.

The first sync that fails ends writing for good: the kernel has marked the lost pages clean, so a second sync would succeed
without having written them. Reading goes on. `report` brings outcomes to where they are wanted; nothing here knows HTTP or the
reactor.
"""

import errno
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from granum.wire.errors import GranumError, NodeBusy, NodeError
from granum.wire.paths import ClusterPath
from granum_node.storage.publish import Done, outcome_of
from granum_node.storage.rounds import Outcomes, Rounds
from granum_node.storage.spool import SpooledFile
from granum_node.storage.tree import Tree, error_of, mapped

COMMIT_THREADS = 8  # syncs in flight: 8 reach seven times the rate of one, more add little
KNOWN_DIRECTORIES_MAX = 100_000  # remembered as durable; forgetting them costs one more sync each

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done to a directory: *make* changes it, by its descriptor; *release* lets go of what was needed for it."""

    path: ClusterPath
    done: Done
    make: Callable[[int], None]
    release: Callable[[], None] = lambda: None


class Commit:
    """Publishes so that a receipt survives a power failure; `work` is to be run by COMMIT_THREADS threads."""

    durability = "commit"

    def __init__(
        self,
        tree: Tree,
        report: Callable[[Callable[[], None]], None],
        synced: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Hand outcomes to *report*, from the threads, as a call to make elsewhere for all that came meanwhile.

        *synced* is told, in a thread, how many seconds each sync took.
        """
        self._tree = tree
        self._synced = synced
        self._answers = 0
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outcomes = Outcomes(report)
        self._changes = Rounds(self._change)
        self._durable: set[tuple[int, int]] = set()  # device and inode of directories whose own name is on the disk
        tree.made = self._is_new
        self._failure: GranumError | None = None
        self._pending = 0
        self._lock = threading.Lock()
        # Names that somebody is publishing, each with those who came for it since.
        self._turns: dict[ClusterPath, deque[Callable[[], None]]] = {}

    @property
    def failure(self) -> GranumError | None:
        """Why nothing is written any more: a sync has failed."""
        return self._failure

    @property
    def pending(self) -> int:
        """How many puts the threads have not finished, or whose outcome has not been reported."""
        return self._pending

    @property
    def answers(self) -> int:
        """How many outcomes and probes the threads have answered."""
        return self._answers

    def probe(self) -> None:
        """Have the next thread that is free answer."""

        def answer() -> None:
            self._answers += 1

        self._tasks.put(lambda: self._outcomes.add([answer]))

    def publish(self, file: SpooledFile, path: ClusterPath, done: Done) -> None:
        """Commit *file* as *path* in one of the threads."""
        error = outcome_of(partial(self._seal, file, path))
        if error is not None:
            file.discard()
            done(error)
            return
        self._in_turn(path, partial(self._commit, file, path), done)

    def make_directory(self, path: ClusterPath, done: Done) -> None:
        """Make the directory *path*, durable when *done* is told."""
        make = partial(self._tree.make_new_directory_under, path=path)
        self._in_turn(path, lambda told: self._changes.join(path.parent, Change(path, told, make)), done)

    def confirm(self, path: ClusterPath, done: Done) -> None:
        """Sync the file *path* and its directories in one of the threads: another put may have named it just now."""
        self._in_turn(path, partial(self._confirm, path), done)

    def start(self, in_thread: Callable[[Callable[[], None]], object]) -> None:
        """Have COMMIT_THREADS threads wait for work."""
        for _ in range(COMMIT_THREADS):
            in_thread(self._work)

    def close(self) -> None:
        """End the threads once they have done what was asked before."""
        for _ in range(COMMIT_THREADS):
            self._tasks.put(None)

    def _in_turn(self, path: ClusterPath, work: Callable[[Done], None], done: Done) -> None:
        """Have a thread do *work* when what was asked before for the same name has its outcome: the first put wins."""
        self._pending += 1

        def begin() -> None:
            self._tasks.put(lambda: work(told))

        def told(error: Exception | None) -> None:
            with self._lock:
                waiting = self._turns[path]
                following = waiting.popleft() if waiting else None
                if following is None:
                    del self._turns[path]
            if following is not None:
                following()
            self._pending -= 1
            self._answers += 1
            done(error)

        with self._lock:
            if path in self._turns:
                self._turns[path].append(begin)
                return
            self._turns[path] = deque()
        begin()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _seal(self, file: SpooledFile, path: ClusterPath) -> None:
        """Keep the digest beside *file*: like every write of its body, this reaches the page cache, and waits for no disk."""
        self._check()
        with mapped(path):
            file.seal()

    def _commit(self, file: SpooledFile, path: ClusterPath, done: Done) -> None:
        error = outcome_of(partial(self._sync, file.sync, path))
        if error is None:
            link = partial(file.link_under, self._tree, path=path)
            self._changes.join(path.parent, Change(path, done, link, file.discard))
        else:
            file.discard()
            self._tell([done], error)

    def _confirm(self, path: ClusterPath, done: Done) -> None:
        def sync() -> None:
            fd, _ = self._tree.open_file(path)
            try:
                self._sync(partial(os.fdatasync, fd), path)
            finally:
                os.close(fd)

        error = outcome_of(sync)
        if error is None:
            self._changes.join(path.parent, Change(path, done, lambda _: None))
        else:
            self._tell([done], error)

    def _sync(self, sync: Callable[[], None], path: ClusterPath) -> None:
        self._check()
        try:
            self._timed(sync)
        except OSError as error:
            if error.errno in _NO_ROOM:  # the disk took less than it had promised; nothing has a name yet
                raise error_of(error, path) from error
            raise self._fail(error) from error

    def _change(self, directory: ClusterPath, changes: list[Change]) -> None:
        """Make *changes* to *directory*, sync it once for all of them, and tell their outcomes."""
        fd = -1

        def begin() -> None:
            nonlocal fd
            self._check()
            with mapped(directory, below=True):
                fd = self._durable_directory(directory)

        error = outcome_of(begin)
        made = []
        for change in changes:
            refusal = error or outcome_of(partial(change.make, fd))
            change.release()
            if refusal is None:
                made.append(change)
            else:
                self._tell([change.done], refusal)
        if made:
            self._settle(fd, made)
        if fd >= 0:
            os.close(fd)

    def _settle(self, directory: int, made: list[Change]) -> None:
        try:
            self._timed(partial(os.fsync, directory))
        except OSError as error:
            self._fail(error)
            for change in made:
                path = change.path
                lost = NodeError(f"{path} may or may not be stored: the node's disk failed while it was written")
                self._tell([change.done], lost)
        else:
            self._tell([change.done for change in made], None)

    def _tell(self, all_done: list[Done], outcome: Exception | None) -> None:
        self._outcomes.add([partial(done, outcome) for done in all_done])

    def _durable_directory(self, path: ClusterPath) -> int:
        """Return a descriptor of the directory *path*, made where it is missing, whose own name is on the disk."""
        fd = self._tree.make_directories(path)
        try:
            key = _key(fd)
            if path.parts and key not in self._durable:
                parent = self._durable_directory(path.parent)
                try:
                    self._sync_directory(parent)
                finally:
                    os.close(parent)
                if len(self._durable) >= KNOWN_DIRECTORIES_MAX:
                    self._durable.clear()
                self._durable.add(key)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _is_new(self, directory: int) -> None:
        """Forget what is known of one that had the inode of *directory* before, and was removed behind the node's back."""
        self._durable.discard(_key(directory))

    def _sync_directory(self, directory: int) -> None:
        try:
            self._timed(partial(os.fsync, directory))
        except OSError as error:
            raise self._fail(error) from error

    def _timed(self, sync: Callable[[], None]) -> None:
        began = time.monotonic()
        sync()
        self._synced(time.monotonic() - began)

    def _fail(self, error: OSError) -> GranumError:
        """Stop writing for good."""
        if self._failure is None:
            self._failure = NodeBusy(
                f"the node takes no more writes, because its disk failed: {os.strerror(error.errno or 0)}; "
                "reading goes on; its log and its disk need a look"
            )
        return self._failure


def _key(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
