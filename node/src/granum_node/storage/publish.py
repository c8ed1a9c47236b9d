"""Publishing: how a spooled file gets its name, and what must be on the disk before its receipt.

`Relaxed` links and is done: the file survives the end of the process, not a power failure. `Commit` first syncs the file, then
links it, then syncs the directory and every directory on the way whose own name was not synced before; only then does it say
so. It works in threads that are lent to it, several at once, because a disk joins syncs that are in flight together; all
files linked in one directory while a sync of it is under way share the next one, and their receipts go out together.

The first sync that fails ends writing for good: the kernel has marked the lost pages clean, so a second sync would succeed
without having written them. Reading goes on. Neither knows HTTP or the reactor; `report` brings outcomes to where they are
wanted.
"""

import errno
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from granum.wire.errors import GranumError, NodeBusy, NodeError
from granum.wire.paths import ClusterPath
from granum_node.storage.spool import SpooledFile
from granum_node.storage.syncs import DirectorySyncs, Outcomes
from granum_node.storage.tree import Tree, error_of, mapped

COMMIT_THREADS = 8  # syncs in flight: 8 reach seven times the rate of one, more add little
KNOWN_DIRECTORIES_MAX = 100_000  # remembered as durable; forgetting them costs one more sync each

Done = Callable[[Exception | None], None]
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class Publisher(Protocol):
    """Publishes spooled files and makes directories; *done* gets None, or why not."""

    durability: str

    @property
    def failure(self) -> GranumError | None:
        """Why nothing can be written any more; None while it can."""

    @property
    def pending(self) -> int:
        """How many puts have not been told their outcome."""

    def publish(self, file: SpooledFile, path: ClusterPath, done: Done) -> None:
        """Give *file* the name *path*; let go of it whatever comes."""

    def make_directory(self, path: ClusterPath, done: Done) -> None:
        """Make the directory *path* and its parents; it is refused when the name is taken."""

    def confirm(self, path: ClusterPath, done: Done) -> None:
        """Make the stored file *path* as durable as one that was just published."""

    @property
    def answers(self) -> int:
        """How many outcomes and probes were answered so far: while it grows, those who publish live."""

    def probe(self) -> None:
        """Ask for one more answer."""

    def start(self, in_thread: Callable[[Callable[[], None]], object]) -> None:
        """Begin; *in_thread* runs a call in a thread of its own, for as long as it takes."""

    def close(self) -> None:
        """Take nothing more; what was taken is finished."""


class Relaxed:
    """Publishes at once, and syncs nothing."""

    durability = "relaxed"
    failure: GranumError | None = None
    pending = 0
    answers = 0

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def probe(self) -> None:
        """Answer at once: who asks is who publishes."""
        self.answers += 1

    def publish(self, file: SpooledFile, path: ClusterPath, done: Done) -> None:
        """Link *file* as *path*."""
        done(_outcome(lambda: file.publish(self._tree, path)))

    def make_directory(self, path: ClusterPath, done: Done) -> None:
        """Make the directory *path*."""
        done(_outcome(lambda: self._tree.make_new_directory(path)))

    def confirm(self, path: ClusterPath, done: Done) -> None:  # noqa: ARG002
        """Do nothing: the file is there."""
        done(None)

    def start(self, in_thread: Callable[[Callable[[], None]], object]) -> None:
        """Do nothing: no thread is needed."""

    def close(self) -> None:
        """Do nothing: nothing is under way."""


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
        self._syncs = DirectorySyncs(self._timed)
        self._durable: set[tuple[int, int]] = set()  # device and inode of directories whose own name is on the disk
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

        self._tasks.put(lambda: self._outcomes.add(answer))

    def publish(self, file: SpooledFile, path: ClusterPath, done: Done) -> None:
        """Commit *file* as *path* in one of the threads."""
        self._in_turn(path, lambda told: self._commit(file, path, told), done)

    def make_directory(self, path: ClusterPath, done: Done) -> None:
        """Make the directory *path*, durable when *done* is told."""
        self._in_turn(path, lambda told: self._make(path, told), done)

    def confirm(self, path: ClusterPath, done: Done) -> None:
        """Sync the file *path* and its directories in one of the threads: another put may have named it just now."""
        self._in_turn(path, lambda told: self._confirm(path, told), done)

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

    def _commit(self, file: SpooledFile, path: ClusterPath, done: Done) -> None:
        def commit() -> None:
            try:
                self._check()
                with mapped(path):
                    file.seal()
                self._sync(file.sync, path)
                with mapped(path, below=True):
                    directory = self._durable_directory(path.parent)
                try:
                    file.link_under(directory, path)
                except BaseException:
                    os.close(directory)
                    raise
            finally:
                file.discard()
            self._join(directory, path, done)

        self._try(commit, done)

    def _make(self, path: ClusterPath, done: Done) -> None:
        def make() -> None:
            self._check()
            with mapped(path, below=True):
                parent = self._durable_directory(path.parent)
            try:
                self._tree.make_new_directory(path)
            except BaseException:
                os.close(parent)
                raise
            self._join(parent, path, done)

        self._try(make, done)

    def _try(self, work: Callable[[], None], done: Done) -> None:
        error = _outcome(work)
        if error is not None:
            self._outcomes.add(lambda: done(error))

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _confirm(self, path: ClusterPath, done: Done) -> None:
        def confirm() -> None:
            self._check()
            fd, _ = self._tree.open_file(path)
            try:
                self._sync(partial(os.fdatasync, fd), path)
            finally:
                os.close(fd)
            with mapped(path, below=True):
                directory = self._durable_directory(path.parent)
            self._join(directory, path, done)

        self._try(confirm, done)

    def _sync(self, sync: Callable[[], None], path: ClusterPath) -> None:
        try:
            self._timed(sync)
        except OSError as error:
            if error.errno in _NO_ROOM:  # the disk took less than it had promised; nothing has a name yet
                raise error_of(error, path) from error
            raise self._fail(error) from error

    def _durable_directory(self, path: ClusterPath) -> int:
        """Return a descriptor of the directory *path*, made where it is missing, whose own name is on the disk."""
        fd = self._tree.make_directories(path)
        try:
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino)
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

    def _sync_directory(self, directory: int) -> None:
        try:
            self._timed(partial(os.fsync, directory))
        except OSError as error:
            raise self._fail(error) from error

    def _timed(self, sync: Callable[[], None]) -> None:
        began = time.monotonic()
        sync()
        self._synced(time.monotonic() - began)

    def _join(self, directory: int, path: ClusterPath, done: Done) -> None:
        """Have *directory*, which is closed in the end, synced with others that changed in it, then tell *done*."""

        def synced(error: OSError | None) -> None:
            outcome: GranumError | None = None
            if error is not None:
                self._fail(error)
                outcome = NodeError(f"{path} may or may not be stored: the node's disk failed while it was written")
            self._outcomes.add(lambda: done(outcome))

        try:
            self._syncs.join(directory, synced)
        finally:
            os.close(directory)

    def _fail(self, error: OSError) -> GranumError:
        """Stop writing for good."""
        if self._failure is None:
            self._failure = NodeBusy(
                f"the node takes no more writes, because its disk failed: {os.strerror(error.errno or 0)}; "
                "reading goes on; its log and its disk need a look"
            )
        return self._failure


def _outcome(work: Callable[[], None]) -> Exception | None:
    """Do *work* and return what it raised, if anything."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - a thread must go on, and every put has an answer, logged where it is made
        return error
    return None
