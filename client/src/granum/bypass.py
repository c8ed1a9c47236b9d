"""Bypass: reading a file straight from the store of a node on this machine, without HTTP.

A published file is complete and never changes, so its bytes can be read where they lie. A store is believed when it holds
the node id that the roster knows, or when it closes that to us and root or the service says which node it is of. Paths are
opened one name at a time and symbolic links are never followed, so what is read lies in that store. Whatever is odd (no such
store, no permission, no regular file) is answered with None, and the caller asks the node. Files are read in a thread of the
reactor's pool; many of one directory, a `Folder`'s, in the thread of whoever wants them.
"""

import errno
import io
import ipaddress
import json
import os
import re
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.threads import deferToThreadPool

from granum.roster import Node
from granum.wire.paths import HIDDEN_NAME, ClusterPath

NODE_ID_FILE = "node-id"
SMALL_FILE_MAX = 4096  # bytes of a marker or a node id; both are one line
RESCAN_S = 5.0  # how long a node without a local store is not looked for again
BELIEVED_S = 1.0  # how long a folder is that of its node without another look
WANTED_BYTES = 1 << 20  # of a file that will be read, asked of the disk; the kernel reads on by itself

SYSTEM_MARKERS = "/run/granum"  # made for the service, and given to it, by root

_MARKER_NAME = re.compile(r"[0-9A-Za-z-]{1,64}")  # node ids that may become file names
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # non-blocking: a FIFO must not hold a thread

T = TypeVar("T")


def marker_directories(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return where nodes say which store they serve, in files '<node id>.json' that hold {"store": DIR}."""
    own = environment.get("XDG_RUNTIME_DIR", "")
    return (SYSTEM_MARKERS, *([f"{own}/granum"] if own else []))


class LocalStores:
    """The stores on this machine: *stores* as configured, and those that *markers* (directories) name.

    *reactor* lends its threads and its clock.
    """

    def __init__(self, stores: Sequence[str], markers: Sequence[str], reactor: Any) -> None:  # Any: as Requester
        self._stores = tuple(stores)
        self._markers = tuple(markers)
        self._reactor = reactor
        self._absent: dict[str, float] = {}  # node id -> when no store was found for it
        self._found: dict[str, str] = {}  # node id -> directory

    def may_hold(self, node: Node) -> bool:
        """Whether a store of *node* was found on this machine, or has not been looked for lately."""
        looked = self._absent.get(node.node_id)
        return bool(node.node_id) and (looked is None or self._reactor.seconds() >= looked + RESCAN_S)

    async def read(self, node: Node, path: ClusterPath, start: int = 0, length: int | None = None) -> bytes | None:
        """Return *length* bytes of *path* in the store of *node* from byte *start* on, all the rest for None.

        None when they cannot be had this way.
        """
        return await self._with_store(node, lambda root: _read_below(root, path.parts, start, length))

    async def has(self, node: Node) -> bool:
        """Whether the store of *node* can be read on this machine."""
        return await self._with_store(node, _close) is not None

    def folder(self, node: Node, path: ClusterPath) -> "Folder | None":
        """Return the directory *path* in the store of *node*, None when it is not to be had; blocks, for any thread."""
        folder = Folder(lambda: self._folder(node, path), self._reactor.seconds)
        return folder if folder.is_there() else None

    async def _with_store(self, node: Node, use: Callable[[int], T | None]) -> T | None:
        """Return what *use* makes, in a thread, of a descriptor of the store of *node*; None without such a store."""
        if not self.may_hold(node):
            return None
        return await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._open_and, node.node_id, use)

    def _folder(self, node: Node, path: ClusterPath) -> "_Descriptor | None":
        if not self.may_hold(node):
            return None
        return self._open_and(node.node_id, lambda root: _folder_below(root, path.parts))

    def _open_and(self, node_id: str, use: Callable[[int], T | None]) -> T | None:
        """Return what *use* makes of the store of *node_id*, which it closes; None without one. Runs in any thread."""
        known = self._found.get(node_id)
        candidates = [(known, False)] if known is not None else []
        stores = [(store, False) for store in self._stores]
        looked = self._reactor.seconds()
        for directory, is_vouched in (*candidates, *_marked(node_id, self._markers), *stores):
            root = _open_store(directory, node_id, is_vouched=is_vouched)
            if root is not None:
                if not is_vouched:  # a marker is read again each time: it goes when its node does
                    self._found[node_id] = directory
                self._absent.pop(node_id, None)
                return use(root)
        self._absent[node_id] = looked
        return None


class _Descriptor:
    """A descriptor that is closed when nothing refers to it any more, so that no thread closes what another one uses."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound: at exit `os` may be gone first
        close(self.fd)


class Wanted(_Descriptor):
    """A file that will be read, of *size* bytes; until then the disk may bring it."""

    __slots__ = ("size",)

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd  # as the class above does, for less
        self.size = size

    def read(self) -> bytes | None:
        """Return the whole of it, None when that fails; once."""
        try:
            body = os.read(self.fd, self.size)
        except OSError:
            return None
        return body if len(body) == self.size else None


class Folder:
    """One directory of a store on this machine, whose files are read by name in the thread that calls.

    *find* opens it when the store is believed, and is asked again once BELIEVED_S of *seconds* have passed. None stands, as
    everywhere here, for what the node is to be asked for.
    """

    def __init__(self, find: Callable[[], _Descriptor | None], seconds: Callable[[], float]) -> None:
        self._find = find
        self._seconds = seconds
        self._believed_until = float("-inf")
        self._directory: _Descriptor | None = None

    def is_there(self) -> bool:
        """Whether the store is here, and has the directory."""
        return self._current() is not None

    def want(self, name: str) -> Wanted | None:
        """Return the regular file *name*, opened, and let the disk begin to read it."""
        directory = self._current()
        if directory is None or "/" in name:
            return None
        try:
            fd = os.open(name, _FILE, dir_fd=directory.fd)
        except OSError:
            return None
        found = os.fstat(fd)
        wanted = Wanted(fd, found.st_size)
        if not stat.S_ISREG(found.st_mode):
            return None
        os.posix_fadvise(fd, 0, WANTED_BYTES, os.POSIX_FADV_WILLNEED)
        return wanted

    def _current(self) -> _Descriptor | None:
        now = self._seconds()
        if now >= self._believed_until:
            self._directory = self._find()
            self._believed_until = now + BELIEVED_S
        return self._directory


def is_own_address(address: str) -> bool:
    """Whether *address*, dotted IPv4, belongs to this machine: whether a socket can be bound to it."""
    try:
        ipaddress.IPv4Address(address)  # a name would be looked up, which blocks
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except (OSError, ValueError):
        return False
    return True


def _marked(node_id: str, markers: Sequence[str]) -> list[tuple[str, bool]]:
    """Return the directories that markers name for *node_id*, and whether root or the service vouches for each.

    Believed are markers of root, of this user, and of the service that root gave SYSTEM_MARKERS to.
    """
    if _MARKER_NAME.fullmatch(node_id) is None:
        return []
    stores = []
    for directory in markers:
        try:
            fd = os.open(f"{directory}/{node_id}.json", _FILE)
        except OSError:
            continue
        try:
            owner = os.fstat(fd).st_uid
            is_vouched = owner == 0 or owner == _service(directory)
            if is_vouched or owner == os.getuid():
                store = json.loads(_read_small(fd))["store"]
                stores += [(store, is_vouched)] if isinstance(store, str) else []
        except (OSError, ValueError, TypeError, KeyError):
            continue
        finally:
            os.close(fd)
    return stores


def _service(directory: str) -> int | None:
    """Return the user who alone may write markers to *directory* because root said so; None when there is none."""
    found = os.stat(directory)
    is_shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return found.st_uid if directory == SYSTEM_MARKERS and not is_shared else None


def _open_store(directory: str, node_id: str, *, is_vouched: bool) -> int | None:
    """Return a descriptor of *directory* when it is the store of *node_id*.

    Of a service's store the node id is closed to others; then it is enough that the marker *is_vouched* for.
    """
    try:
        root = os.open(directory, _DIRECTORY)
    except (OSError, ValueError):
        return None
    try:
        fd = _open_below(root, (HIDDEN_NAME, NODE_ID_FILE))
        try:
            if _read_small(fd).decode("ascii", "replace").strip() == node_id:
                return root
        finally:
            os.close(fd)
    except PermissionError:
        if is_vouched:
            return root
    except OSError:
        pass
    os.close(root)
    return None


def _close(root: int) -> bytes:
    os.close(root)
    return b""


def _folder_below(root: int, names: Sequence[str]) -> _Descriptor | None:
    """Return the directory *names* below *root*, which is closed."""
    try:
        at = _open_directory(root, names)
    except OSError:
        os.close(root)
        return None
    if at != root:
        os.close(root)
    return _Descriptor(at)


def _read_below(root: int, names: Sequence[str], start: int, length: int | None) -> bytes | None:
    """Return the part of the regular file *names* below *root*, which is closed."""
    try:
        fd = _open_below(root, names)
    except OSError:
        return None
    finally:
        os.close(root)
    try:
        size = max(os.fstat(fd).st_size - start, 0)
        expected = size if length is None else min(size, length)
        with open(fd, "rb", buffering=0, closefd=False) as file:
            file.seek(start)
            body = file.readall() if length is None else _read_exactly(file, expected)
    except (OSError, OverflowError):
        return None
    finally:
        os.close(fd)
    return body if len(body) == expected else None


def _read_exactly(file: io.FileIO, length: int) -> bytes:
    """Return *length* bytes of *file*, fewer when it ends: one read stops at 2 GiB."""
    pieces = []
    while length and (piece := file.read(length)):
        pieces.append(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _open_below(root: int, names: Sequence[str]) -> int:
    """Return a descriptor of the regular file *names* below *root*; OSError when a name is a link or of another kind."""
    if not names:
        raise IsADirectoryError(errno.EISDIR, "the root is a directory")
    at = _open_directory(root, names[:-1])
    try:
        fd = os.open(names[-1], _FILE, dir_fd=at)
    finally:
        if at != root:
            os.close(at)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    return fd


def _open_directory(root: int, names: Sequence[str]) -> int:
    """Return a descriptor of the directory *names* below *root*, *root* itself for none; OSError when a name is a link."""
    at = root
    try:
        for name in names:
            deeper = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            if at != root:
                os.close(at)
            at = deeper
    except OSError:
        if at != root:
            os.close(at)
        raise
    return at


def _read_small(fd: int) -> bytes:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return os.read(fd, SMALL_FILE_MAX)
