"""The entries of one directory, with their text kept ready, so that a listing of many is a join of few pieces.

Text is only ever added to, as entries are; when one goes or changes, all of it is made again. What cannot be reached through
the node is not listed: links, devices and names that no cluster path can have. Knows no disk, no clock and no threads.
"""

import heapq
from collections.abc import Sequence

from granum.wire.errors import BadPath
from granum.wire.listing import Flags, encode_entry
from granum.wire.paths import HIDDEN_NAME, RESERVED_PREFIX, check_name

PIECE_ENTRIES = 5_000  # written at a time: joins of them hold the interpreter for a fraction of a millisecond
PIECES_MAX = 64  # joined into one beyond this: each listing adds one, so their number would grow with polling

_INODE_SHIFT = 64  # a file's inode and size share one number: half the memory of a pair of numbers


def is_listed(name: str, *, top: bool) -> bool:
    """Whether *name* can be asked for; *top* in the directory where the node's own names are reserved."""
    if name == HIDDEN_NAME or (top and name.startswith(RESERVED_PREFIX)):
        return False
    try:
        check_name(name)
    except BadPath:
        return False
    return True


class Rows:
    """What one directory holds: files with their sizes, names of directories, and names that are not listed."""

    __slots__ = ("_broken", "_files", "_fresh", "_pieces", "_young", "directories", "others")

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._young: dict[str, int] = {}  # when each changed
        self.directories: set[str] = set()
        self.others: set[str] = set()
        self._fresh: list[str] = []  # settled files that have no text yet
        self._pieces: list[bytes] = []
        self._broken = False  # whether the text says something that is not so any more

    def __len__(self) -> int:
        return len(self._files) + len(self.directories) + len(self.others)

    def __contains__(self, name: str) -> bool:
        return name in self._files or name in self.directories or name in self.others

    @property
    def names(self) -> list[str]:
        """Every name, in no order."""
        return [*self._files, *self.directories, *self.others]

    @property
    def young(self) -> tuple[str, ...]:
        """The files whose size may still change; the text leaves them out."""
        return tuple(self._young)

    def inode(self, name: str) -> int | None:
        """Return which file *name* is, 0 when that is not known; None when it is no file."""
        file = self._files.get(name)
        return None if file is None else file >> _INODE_SHIFT

    def size(self, name: str) -> int:
        """Return the size of the file *name*; 0 when it is gone."""
        return self._files.get(name, 0) & ((1 << _INODE_SHIFT) - 1)

    def put_file(self, name: str, size: int, inode: int = 0, young: int | None = None) -> None:
        """Have the file *name*, whatever had the name before; *young*: when it changed, if that is not long ago."""
        if name in self:
            self.drop(name)
        self._files[name] = inode << _INODE_SHIFT | size
        if young is not None:
            self._young[name] = young
        else:
            self._fresh.append(name)

    def put_directory(self, name: str) -> None:
        """Have the directory *name*, whatever had the name before."""
        self.drop(name)
        self.directories.add(name)

    def put_other(self, name: str) -> None:
        """Have the name *name*, which is not listed, whatever had it before."""
        self.drop(name)
        self.others.add(name)

    def resize(self, name: str, size: int, young: int | None) -> None:
        """Have another size for the file *name* while it is young, which it is no more when *young* is None."""
        if name in self._young:
            self._files[name] = self._files[name] >> _INODE_SHIFT << _INODE_SHIFT | size
            if young is None:
                self.settle(name)
            else:
                self._young[name] = young

    def settle(self, name: str) -> None:
        """Believe that the young file *name* has its last size."""
        if self._young.pop(name, None) is not None:
            self._fresh.append(name)

    def older_than(self, number: int) -> list[str]:
        """Return the young files but for the *number* that changed last."""
        if len(self._young) <= number:
            return []
        newest = set(heapq.nlargest(number, self.young, key=lambda name: self._young.get(name, 0)))
        return [name for name in self.young if name not in newest]

    def learn_inode(self, name: str, inode: int) -> None:
        """Have *inode* for the file *name* when it had none."""
        if self.inode(name) == 0:
            self._files[name] |= inode << _INODE_SHIFT

    def drop(self, name: str) -> None:
        """Have *name* no more, if ever."""
        self.directories.discard(name)
        self.others.discard(name)
        if self._files.pop(name, None) is not None and name not in self._young:
            self._broken = True
        self._young.pop(name, None)

    def take_unwritten(self) -> Sequence[str]:
        """Return the files that `write` is to be called with, once."""
        unwritten = self._fresh
        if self._broken:
            self._broken = False
            self._pieces = []
            unwritten = list(self._files)
        self._fresh = []
        return unwritten

    def write(self, names: Sequence[str]) -> tuple[bytes, ...]:
        """Add the text of the files *names*; return all of it, in pieces between which commas belong."""
        for start in range(0, len(names), PIECE_ENTRIES):
            files = [(name, self._files.get(name)) for name in names[start : start + PIECE_ENTRIES]]
            text = ",".join(
                encode_entry(name, Flags.FILE, file & ((1 << _INODE_SHIFT) - 1))
                for name, file in files
                if file is not None and name not in self._young
            )
            if text:
                self._pieces.append(text.encode("ascii"))
        if len(self._pieces) > PIECES_MAX:
            self._pieces = [b",".join(self._pieces)]
        return tuple(self._pieces)
