"""What the node knows of one directory, and how it stays true: own changes are noted as they are made, others are noticed.

Every change of a directory moves its ctime, which unlike its mtime nobody can set back (rsync and tar set mtimes). What is
known stands for one ctime. An own change looks at it before and after, so what is known then stands for the ctime after it;
any other ctime means that somebody else was here, and the names are read again: only those that are new are looked at.

The ctime has gaps: what is changed from outside between the two looks of an own change, or, on kernels before 6.13, in the same
tick of the clock. So what was moved by own changes, or read while its ctime was fresh, is read once more after `trust_s`.
"""

import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from granum.wire.digest import XXH3, Digest
from granum.wire.listing import Flags, encode_entry, flags_of_directory
from granum.wire.paths import HIDDEN_NAME
from granum_node.storage.digest import new_hasher
from granum_node.storage.listing import Rows, is_listed

TICK_NS = 50_000_000  # the clock of files ticks every 1 to 10 ms; a ctime older than this will not come again
YOUNG_NS = 5_000_000_000  # a file from outside that changed less than this ago may be one that is still being copied
YOUNG_MAX = 1_000  # such files, the last to change: of a hundred thousand that are copied only the last ones still grow
TRUST_S = 1.0  # how long a change from outside can stay hidden, in small directories
TRUST_S_PER_NAME = 1e-4  # and in large ones: reading takes 1 us a name, so 1 % of one core goes to looking again

_UNKNOWN = -1  # the ctime that nothing has


@dataclass(frozen=True, slots=True)
class Clocks:
    """*wall_ns*: the clock of files, in ns. *seconds*: monotonic."""

    wall_ns: Callable[[], int]
    seconds: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Listed:
    """A listing as it goes over the wire, and its entity tag: the same for the same bytes."""

    body: bytes
    tag: str


def stamp_of(status: os.stat_result) -> int:
    """Return what tells one state of a directory from another."""
    return status.st_ctime_ns


class Directory:
    """What is known of one directory: how many names it has, and, once it was listed, which.

    `reading` is held by the thread that reads it, perhaps for seconds; `lock` by whoever changes what is known, own changes of
    the directory included, and never while it is read.
    """

    def __init__(self, clocks: Clocks, *, top: bool) -> None:
        self.reading = threading.Lock()
        self.lock = threading.Lock()
        self.used = 0  # larger for what was used later
        self.weighed = 1  # the weight that the index counts with
        self.forgotten = False
        self._clocks = clocks
        self._top = top
        self._stamp = _UNKNOWN
        self._unverified_since: float | None = None  # None: nothing can be hidden
        self._count = 0
        self._flags = Flags.DIRECTORY
        self._rows: Rows | None = None
        self._arrived: set[str] | None = None  # own changes since reading began; None: nobody reads
        self._last: tuple[tuple[bytes, ...], bytes, Listed] | None = None

    @property
    def weight(self) -> int:
        """How many names are kept, and one for the directory."""
        return 1 if self._rows is None else 1 + len(self._rows)

    def add(self, fd: int, name: str, size: int | None, make: Callable[[], None]) -> None:
        """Have *make* add *name* to the directory, open as *fd*: a file of *size* bytes, or a directory when it is None."""
        with self.lock:
            before = stamp_of(os.fstat(fd))
            make()
            self._stamp = stamp_of(os.fstat(fd)) if before == self._stamp else _UNKNOWN
            self._count += 1
            if name.endswith(".json"):
                self._flags |= flags_of_directory((name,))
            if self._arrived is not None:
                self._arrived.add(name)
            if self._unverified_since is None:
                self._unverified_since = self._clocks.seconds()
            if self._rows is not None:
                if name in self._rows:  # somebody removed it, and nothing told
                    self._stamp = _UNKNOWN
                if size is None:
                    self._rows.put_directory(name)
                else:
                    self._rows.put_file(name, size)

    def distrust(self) -> None:
        """Have the names read again: something was added that is not known here."""
        with self.lock:
            self._stamp = _UNKNOWN

    def held(self, stamp: int) -> tuple[Flags, int] | None:
        """Return the flags and the number of names when they are known for the directory as it is at *stamp*."""
        with self.lock:
            return (self._flags, self._count) if self._is_current(stamp) else None

    def count(self, fd: int) -> tuple[Flags, int]:
        """Return the flags and the number of names of the directory, open as *fd*; may read it."""
        with self.reading:
            self._refresh(fd, full=False)
            with self.lock:
                return self._flags, self._count

    def entries(self, fd: int) -> tuple[tuple[bytes, ...], list[str], list[str]]:
        """Return the entries of the directory, open as *fd*; may read it.

        First the text of settled files in pieces, then that of each other file, then the names of the directories.
        """
        with self.reading:
            before = () if self._rows is None else self._rows.young
            self._refresh(fd, full=True)
            rows = self._rows
            assert rows is not None, "it was read in full"
            for name in before:
                self._look_again(name, rows, fd)
            for name in rows.older_than(YOUNG_MAX):
                with self.lock:
                    rows.settle(name)
            young = [encode_entry(name, Flags.FILE, rows.size(name)) for name in rows.young]
            with self.lock:
                unwritten = rows.take_unwritten()
                directories = list(rows.directories)
            return rows.write(unwritten), young, directories

    def listed(self, pieces: tuple[bytes, ...], rest: list[str]) -> Listed:
        """Return the listing of *pieces* and *rest*: the same object while both are the same."""
        loose = ",".join(rest).encode("ascii")
        last = self._last
        if last is not None and last[0] == pieces and last[1] == loose:
            return last[2]
        texts = [b"{"]
        for piece in (*pieces, loose):
            if piece:
                texts += (piece, b",")
        texts[max(1, len(texts) - 1) :] = [b"}"]
        body = b"".join(texts)
        hasher = new_hasher(XXH3)
        hasher.update(body)
        listed = Listed(body, Digest(XXH3, hasher.hexdigest()).entity_tag)
        self._last = (pieces, loose, listed)
        return listed

    def _is_current(self, stamp: int) -> bool:
        if self._arrived is not None or stamp != self._stamp:
            return False
        since = self._unverified_since
        trust_s = max(TRUST_S, TRUST_S_PER_NAME * self._count)
        return since is None or self._clocks.seconds() - since < trust_s

    def _refresh(self, fd: int, *, full: bool) -> None:
        """Make what is known true again, by reading when that is needed; with the names when *full*."""
        with self.lock:
            full = full or self._rows is not None
            if self._is_current(stamp_of(os.fstat(fd))) and full == (self._rows is not None):
                return
            began, wall_ns = self._clocks.seconds(), self._clocks.wall_ns()
            self._stamp = stamp = stamp_of(os.fstat(fd))
            self._arrived = set()
            if full and self._rows is None:
                self._rows = Rows()
        seen = None
        try:
            seen = {name for name in os.listdir(fd) if name != HIDDEN_NAME} if self._rows is None else self._read(fd)
        finally:
            with self.lock:
                arrived, self._arrived = self._arrived, None
                if seen is None:
                    self._stamp = _UNKNOWN
                else:
                    seen |= arrived
                    self._count = len(seen)
                    self._flags = flags_of_directory(seen)
                    is_settled = not arrived and wall_ns - stamp > TICK_NS
                    self._unverified_since = None if is_settled else began

    def _read(self, fd: int) -> set[str]:
        """Bring the rows up to what the directory holds; return all its names."""
        rows = self._rows
        assert rows is not None, "reading has begun"
        seen = set()
        with os.scandir(fd) as found:
            for item in found:
                seen.add(item.name)
                inode = rows.inode(item.name)
                if inode is None or inode != item.inode() or not item.is_file(follow_symlinks=False):
                    self._note(item, rows, inode)
        seen.discard(HIDDEN_NAME)
        with self.lock:
            known = rows.names
        for name in known:
            if name not in seen:
                with self.lock:
                    if self._arrived is not None and name not in self._arrived:
                        rows.drop(name)
        return seen

    def _note(self, item: "os.DirEntry[str]", rows: Rows, inode: int | None) -> None:
        """Note what *item* is, which is not the file *inode* that had its name before."""
        put = self._seen_as(item, rows, inode)
        with self.lock:
            if put is not None and self._arrived is not None and item.name not in self._arrived:
                put()

    def _seen_as(self, item: "os.DirEntry[str]", rows: Rows, inode: int | None) -> Callable[[], None] | None:
        """Return what notes *item* in *rows*; None when they have it."""
        name = item.name
        if not is_listed(name, top=self._top):
            return None if name in rows.others or name == HIDDEN_NAME else partial(rows.put_other, name)
        if item.is_dir(follow_symlinks=False):
            return None if name in rows.directories else partial(rows.put_directory, name)
        if not item.is_file(follow_symlinks=False):
            return None if name in rows.others else partial(rows.put_other, name)
        try:
            status = item.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):  # changed since its name was read, as the ctime will tell
            return partial(rows.drop, name)
        if inode == 0 and status.st_size == rows.size(name):  # published by this node, and read for the first time
            return partial(rows.learn_inode, name, item.inode())
        return partial(rows.put_file, name, status.st_size, item.inode(), self._young_since(status))

    def _look_again(self, name: str, rows: Rows, fd: int) -> None:
        """Note what size the young file *name* has now."""
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        with self.lock:
            if stat.S_ISREG(status.st_mode):
                rows.resize(name, status.st_size, self._young_since(status))

    def _young_since(self, status: os.stat_result) -> int | None:
        """Return when a file changed, if it may change again soon."""
        return status.st_ctime_ns if self._clocks.wall_ns() - status.st_ctime_ns < YOUNG_NS else None
