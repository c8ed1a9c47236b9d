"""The files of a fake node, in memory: the rules of a store without a disk.

Names are cluster paths in their `str` form, '/a/b'. A file lies in directories that exist, a name is given once, and what is
stored never changes through `put` or `mkdir`; a test may still assign to `files` what it likes. Errors are those of
`granum.wire.errors`. HTTP is not known here.
"""

from collections import UserDict
from collections.abc import Iterator

from granum.wire.errors import AlreadyStored, NotADirectory, NotStored
from granum.wire.listing import Entry, Flags, encode_listing, flags_of_directory
from granum.wire.paths import ROOT, ClusterPath


class StoredFiles(UserDict[str, bytes]):
    """Cluster path -> bytes. Assigning a file makes its directories, as a put does."""

    def __init__(self, directories: set[str]) -> None:
        self._directories = directories
        super().__init__()

    def __setitem__(self, name: str, body: bytes) -> None:
        path = ClusterPath.parse(name)
        self._directories.update(str(parent) for parent in _parents(path))
        super().__setitem__(str(path), bytes(body))


class MemoryStore:
    """A tree of files: *files* maps names to bytes, *directories* holds the name of every directory but the root."""

    def __init__(self) -> None:
        self.directories: set[str] = set()
        self.files = StoredFiles(self.directories)

    def is_directory(self, path: ClusterPath) -> bool:
        """Whether *path* can be listed; the root always can."""
        # The second look is for a directory that a test added without those above it.
        name = str(path)
        return path == ROOT or name in self.directories or any(d.startswith(name + "/") for d in self.directories)

    def get(self, path: ClusterPath) -> bytes:
        """Return the bytes of a file; raise NotStored when there is none."""
        try:
            return self.files[str(path)]
        except KeyError:
            raise NotStored(f"there is no file {path}") from None

    def listing(self, path: ClusterPath) -> bytes:
        """Return the JSON listing of a directory; raise NotStored when there is none."""
        if not self.is_directory(path):
            raise NotStored(f"there is no directory {path}")
        top = str(path).rstrip("/") + "/"
        entries = {}
        inside: dict[str, set[str]] = {}
        for name in (*self.files, *self.directories):
            if not name.startswith(top):
                continue
            child, *below = name[len(top) :].split("/")
            if below:
                inside.setdefault(child, set()).add(below[0])
            elif name in self.files:
                entries[child] = Entry(child, Flags.FILE, len(self.files[name]))
            else:
                inside.setdefault(child, set())
        for child, names in inside.items():
            entries[child] = Entry(child, flags_of_directory(names), len(names))
        return encode_listing(entries.values())

    def check_free(self, path: ClusterPath) -> None:
        """Raise AlreadyStored when the name is taken, NotADirectory when a part of it is a file."""
        if str(path) in self.files or self.is_directory(path):
            raise AlreadyStored(f"{path} is already stored; a name is given once")
        for parent in _parents(path):
            if str(parent) in self.files:
                raise NotADirectory(f"{parent} is a file, so nothing can lie below it")

    def put(self, path: ClusterPath, body: bytes) -> None:
        """Store a file and make its directories; raise as `check_free` does."""
        self.check_free(path)
        self.files[str(path)] = body

    def mkdir(self, path: ClusterPath) -> None:
        """Make a directory and those above it; raise as `check_free` does."""
        self.check_free(path)
        self.directories.update(str(parent) for parent in (path, *_parents(path)))


def _parents(path: ClusterPath) -> Iterator[ClusterPath]:
    while (path := path.parent) != ROOT:
        yield path
