"""Opening things below the root of a store, and nothing else.

Every path is opened relative to the root's descriptor, with symbolic links refused at every component, so no name that
travels over HTTP and no link or rename inside the tree can lead outside. The kernel resolves the whole path in one call
where it has openat2(2); elsewhere each component is opened by itself under the same rule.
"""

import ctypes
import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from types import TracebackType

from granum.wire.errors import (
    AlreadyStored,
    GranumError,
    IsADirectory,
    NodeBusy,
    NoSpace,
    NotADirectory,
    NotAllowed,
    NotStored,
    PathTooLong,
    StoreUnusable,
)
from granum.wire.paths import ClusterPath
from granum_node.storage.index import Index

DIRECTORY_MODE = 0o770  # less the umask; the service runs with 0027
NAMING_LOCKS = 64  # far more than threads that publish, so two names seldom share one

_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that someone left in the tree must not hang the node.
_OPEN_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_RESOLVE = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
_libc = ctypes.CDLL(None, use_errno=True)


_OPEN_HOW_BYTES = ctypes.sizeof(_OpenHow)
_syscall = _libc.syscall


@lru_cache  # the kernel only reads it, so all calls with the same flags share one; making it costs as much as the call
def _how(flags: int) -> object:
    return ctypes.byref(_OpenHow(flags, 0, _RESOLVE))


def _openat2(root: int, relative: str, flags: int) -> int:
    fd: int = _syscall(_SYS_OPENAT2, root, os.fsencode(relative), _how(flags), _OPEN_HOW_BYTES)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), relative)
    return fd


def _open_each(root: int, relative: str, flags: int) -> int:
    """Open *relative* below *root* component by component; the answer of kernels without openat2."""
    *directories, last = relative.split("/")
    at = root
    try:
        for name in directories:
            below = os.open(name, _OPEN_DIRECTORY, dir_fd=at)
            if at != root:
                os.close(at)
            at = below
        return os.open(last, flags | os.O_NOFOLLOW, dir_fd=at)
    finally:
        if at != root:
            os.close(at)


def choose_opener(root: int) -> Callable[[int, str, int], int]:
    """Return the best way to open a path below a descriptor that this kernel offers."""
    try:
        os.close(_openat2(root, ".", _OPEN_DIRECTORY))
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EPERM}:  # EPERM: a sandbox that does not know the call
            raise
        return _open_each
    return _openat2


class Tree:
    """The files and directories below *root*, an open directory descriptor that the caller keeps."""

    def __init__(self, root: int, opener: Callable[[int, str, int], int] | None = None) -> None:
        """Use *opener* to resolve paths, by default the best that the kernel has."""
        self._root = root
        self._open = opener or choose_opener(root)
        self.index = Index()  # is told of every name that is added, by those who add it
        self.is_kept: Callable[[ClusterPath], bool] = lambda _: False  # whether a free name must not be given away
        self.made: Callable[[int], None] = lambda _: (
            None
        )  # is told of each directory, open, that was missing on the way
        self._naming = tuple(threading.Lock() for _ in range(NAMING_LOCKS))

    def naming(self, path: ClusterPath) -> threading.Lock:
        """Return what is held by who gives the name *path* or takes it away, for a few calls of the kernel."""
        return self._naming[hash(path.parts) % NAMING_LOCKS]

    def open_file(self, path: ClusterPath) -> tuple[int, os.stat_result]:
        """Return a descriptor and the status of the regular file *path*.

        Raises IsADirectory for a directory and NotStored for everything that is neither, links included.
        """
        try:
            fd = self._open(self._root, path.relative, _OPEN_FILE)
        except OSError as error:
            raise error_of(error, path) from error
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return fd, status
        os.close(fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectory(f"{path} is a directory")
        raise NotStored(f"{path} is not a file")

    def open_directory(self, path: ClusterPath) -> int:
        """Return a descriptor of the directory *path*; raise NotStored when it is absent or no directory."""
        with mapped(path):
            return self._open(self._root, path.relative, _OPEN_DIRECTORY)

    def is_taken(self, path: ClusterPath) -> bool:
        """Whether anything has the name *path*; raise NotADirectory when it would lie below a file."""
        try:
            os.close(self._open(self._root, path.relative, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
        except FileNotFoundError:
            return False
        except OSError as error:  # a link at the end is opened itself, so ELOOP means one on the way
            raise error_of(error, path, below=True) from error
        return True

    def make_directories(self, path: ClusterPath) -> int:
        """Return a descriptor of the directory *path*, made with all its parents where they are missing.

        Raises NotADirectory when a part of the path is a file or a link.
        """
        try:
            return self._open(self._root, path.relative, _OPEN_DIRECTORY)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise error_of(error, path, below=True) from error
        parent = self.make_directories(path.parent)
        try:
            with mapped(path, below=True):
                with (
                    self.naming(path),
                    suppress(FileExistsError),
                ):  # another was first, or a file, as the next call tells
                    if self.is_kept(path):
                        raise NotADirectory(f"a part of {path} is a file, so nothing can be stored below it")
                    self._make_directory(parent, path.name)
                made = os.open(path.name, _OPEN_DIRECTORY, dir_fd=parent)
            self.made(made)
            return made
        finally:
            os.close(parent)

    def make_new_directory(self, path: ClusterPath) -> None:
        """Make the directory *path* and its parents; raise AlreadyStored when the name is taken."""
        with mapped(path, below=True):
            parent = self.make_directories(path.parent)
            try:
                self.make_new_directory_under(parent, path)
            finally:
                os.close(parent)

    def make_new_directory_under(self, parent: int, path: ClusterPath) -> None:
        """Make the directory *path*, whose parent is open as *parent*; raise AlreadyStored when the name is taken."""
        with mapped(path, below=True), self.naming(path):
            try:
                self.check_kept(path)
                self._make_directory(parent, path.name or ".")
            except FileExistsError:
                raise AlreadyStored(f"{path} is already stored on this node") from None

    def check_kept(self, path: ClusterPath) -> None:
        """Raise AlreadyStored when the name *path* must not be given away, though it may be free."""
        if self.is_kept(path):
            raise AlreadyStored(f"{path} is already stored on this node, and damaged")

    def _make_directory(self, parent: int, name: str) -> None:
        self.index.add(parent, name, None, partial(os.mkdir, name, DIRECTORY_MODE, dir_fd=parent))


class mapped:  # noqa: N801 - reads as what it does; a generator would cost each put and get some microseconds
    """Turns an OSError about *path* into the family; *below* for work that needs its parents to be directories."""

    __slots__ = ("_below", "_path")

    def __init__(self, path: ClusterPath, *, below: bool = False) -> None:
        self._path = path
        self._below = below

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Raise what *error* means for the path, if it is an OSError."""
        if isinstance(error, OSError) and not isinstance(error, GranumError):
            raise error_of(error, self._path, below=self._below) from error


def error_of(error: OSError, path: ClusterPath, *, below: bool = False) -> GranumError:
    """Return the error of the family that says what *error* means for *path*; it never carries a host path."""
    match error.errno:
        case errno.ENOTDIR | errno.ELOOP if below:
            return NotADirectory(f"a part of {path} is a file, so nothing can be stored below it")
        case errno.EXDEV if below:
            return StoreUnusable(f"{path} would lie on another file system than the rest of the store")
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP | errno.EXDEV | errno.ENXIO:
            return NotStored(f"{path} is not stored on this node")
        case errno.ENAMETOOLONG:
            return PathTooLong(f"{path} is too long for this node's file system")
        case errno.EACCES | errno.EPERM:
            return NotAllowed(f"the node may not open {path}; its owner or mode was changed behind the node's back")
        case errno.EROFS:
            return NodeBusy(
                f"the node takes no writes, so not {path}: its file system has become read-only; its log and its disk need a look"
            )
        case errno.ENOSPC | errno.EDQUOT:
            return NoSpace(f"the node has no room left for {path}; free some or add a node")
        case errno.EMFILE | errno.ENFILE | errno.ENOMEM:
            return NodeBusy(f"the node has too much open to get at {path}; try again later or on another node")
        case _:
            return StoreUnusable(f"{path}: {os.strerror(error.errno or 0)}")
