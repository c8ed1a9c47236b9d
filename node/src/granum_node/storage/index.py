"""The index: what is kept of the directories that were listed, so that the next listing need not read them.

`add` surrounds every name that this node adds, whether the directory is kept or not; `listing` answers. Directories are told
apart by device and inode, so one that is moved is still itself. What was listed longest ago is forgotten first, and costs one
reading when it is asked for again. Knows descriptors, not paths.
"""

import itertools
import os
import stat
import threading
import time
from collections.abc import Callable

from granum.wire.listing import Flags, encode_entry
from granum_node.storage.directory import Clocks, Directory, Listed, stamp_of

ENTRIES_MAX = 1_000_000  # of all directories: some 200 MB, and more than the frames that one camera makes in an hour
ADDED_MAX = 100_000  # names added between two looks at ENTRIES_MAX, so by how much it can be exceeded

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_Key = tuple[int, int]


class Index:
    """Listings of directories, and what must be told of every name that is added to one."""

    def __init__(
        self,
        entries_max: int = ENTRIES_MAX,
        wall_ns: Callable[[], int] = time.time_ns,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep at most *entries_max* entries; *wall_ns* is the clock of files and *seconds* a monotonic one."""
        self._entries_max = entries_max
        self._clocks = Clocks(wall_ns, seconds)
        self._lock = threading.Lock()  # of the dictionary, when directories are put in or out
        self._directories: dict[_Key, Directory] = {}
        self._uses = itertools.count(1)
        self._added = 0  # names, since all directories were weighed
        self._entries = 0  # how many are kept, as they were weighed

    @property
    def entries(self) -> int:
        """How many entries are kept, directories that are only counted being one each; short by ADDED_MAX at most."""
        return self._entries

    def add(self, directory: int, name: str, size: int | None, make: Callable[[], None]) -> None:
        """Have *make* add *name* to the *directory*, an open descriptor: a file of *size* bytes, or a directory for None.

        When it returns, every listing that begins later has the name. What *make* raises is raised.
        """
        known = self._find(directory)
        if known is None:
            make()
        else:
            known.add(directory, name, size, make)
            self._added += 1
            if self._added > ADDED_MAX:
                self._added = 0
                self._weigh(*tuple(self._directories.values()))
        now = self._find(directory)
        if now is not None and now is not known:  # it was listed for the first time meanwhile
            now.distrust()

    def listing(self, directory: int, *, top: bool = False) -> Listed:
        """Return the listing of the *directory*, an open descriptor, *top* when it is the root; may take long."""
        known = self._keep(directory, top=top)
        pieces, rest, names = known.entries(directory)
        rows = [self._subdirectory(name, directory) for name in names]
        listed = known.listed(pieces, rest + [row for row in rows if row is not None])
        self._weigh(known)
        return listed

    def _subdirectory(self, name: str, parent: int) -> str | None:
        """Return the entry of the directory *name* in *parent*; None when it is none any more."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                return None
            known = self._directories.get((status.st_dev, status.st_ino))
            held = None if known is None else known.held(stamp_of(status))
            if known is None or held is None:
                held = self._count(name, parent)
            else:
                known.used = next(self._uses)
        except (FileNotFoundError, NotADirectoryError):  # changed behind the node's back since it was listed
            return None
        except PermissionError:  # closed to the node: there, and nothing known of it
            held = Flags.DIRECTORY, 0
        return encode_entry(name, *held)

    def _count(self, name: str, parent: int) -> tuple[Flags, int]:
        fd = os.open(name, _OPEN, dir_fd=parent)
        try:
            return self._keep(fd, top=False).count(fd)
        finally:
            os.close(fd)

    def _find(self, directory: int) -> Directory | None:
        if not self._directories:
            return None
        status = os.fstat(directory)
        return self._directories.get((status.st_dev, status.st_ino))

    def _keep(self, directory: int, *, top: bool) -> Directory:
        """Return what is known of the *directory*, used now."""
        status = os.fstat(directory)
        key = (status.st_dev, status.st_ino)
        with self._lock:
            known = self._directories.get(key)
            if known is None:
                known = self._directories[key] = Directory(self._clocks, top=top)
                self._entries += known.weighed
            known.used = next(self._uses)
        return known

    def _weigh(self, *directories: Directory) -> None:
        """Note how much is known of *directories*; forget others, or these, when it is too much."""
        with self._lock:
            for directory in directories:
                if not directory.forgotten:
                    before, directory.weighed = directory.weighed, directory.weight
                    self._entries += directory.weighed - before
            if self._entries <= self._entries_max:
                return
            for key, directory in sorted(self._directories.items(), key=lambda item: item[1].used):
                del self._directories[key]
                directory.forgotten = True
                self._entries -= directory.weighed
                if self._entries <= self._entries_max:
                    return
