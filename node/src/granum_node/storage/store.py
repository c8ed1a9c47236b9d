"""The store of a node: one directory, opened by one node at a time.

Beside the user's files it holds `.granum/`, on the same file system: the lock, the node id that stays with the data when
address, port and host name change, and the spool. Opening creates only these, and only after everything that can fail
without them has succeeded.
"""

import fcntl
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass

from granum.wire.digest import Digest
from granum.wire.errors import IsADirectory, NotStored, StoreLocked, StoreUnusable
from granum.wire.listing import Entry
from granum.wire.paths import HIDDEN_NAME, ClusterPath
from granum_node.storage.digest import is_same, recorded
from granum_node.storage.listing import read_listing
from granum_node.storage.space import Room
from granum_node.storage.spool import SpooledFile, keeps_attributes, probe
from granum_node.storage.tree import Tree, mapped

STATE_MODE = 0o700
NODE_ID_FILE = "node-id"


@dataclass(frozen=True, slots=True)
class Found:
    """A stored file that was compared with a digest; *recorded* is its own, where it has one."""

    is_same: bool
    recorded: Digest | None = None


@dataclass(slots=True)
class Store:
    """An opened store; everything a node does to its disk goes through it."""

    directory: str
    node_id: str
    tree: Tree
    _root: int
    _lock: int
    _spool: int
    _named_spool: bool
    records: bool  # whether each file's digest is computed as it arrives, and kept beside it

    @classmethod
    def open(cls, directory: str, *, digests: bool = True) -> "Store":
        """Open the store in *directory*, which must exist and be writable; *digests* when files are to have one.

        Raises StoreUnusable, or StoreLocked when another node serves it.
        """
        check_directory(directory)
        descriptors: list[int] = []
        try:
            root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            descriptors.append(root)
            state = _state_directory(root)
            descriptors.append(state)
            lock = _lock(state, directory)
            descriptors.append(lock)
            spool = _spool_directory(state)
            descriptors.append(spool)
            named = probe(spool)
            records = digests and keeps_attributes(spool, named=named)
            store = cls(directory, _node_id(state), Tree(root), root, lock, spool, named, records)
        except BaseException as error:
            for fd in descriptors:
                os.close(fd)
            if isinstance(error, OSError):
                raise StoreUnusable(
                    f"{HIDDEN_NAME} in the store {directory} cannot be used: {error.strerror}; "
                    "it and what is in it must belong to the node's user"
                ) from error
            raise
        os.close(state)
        return store

    def spool(self, *, hashed: bool = False) -> SpooledFile:
        """Return a new spooled file, *hashed* at any rate; raise OSError when the disk cannot give one."""
        return SpooledFile(self._spool, named=self._named_spool, hashed=hashed, records=self.records)

    def compare(self, path: ClusterPath, digests: tuple[Digest, ...]) -> Found:
        """Compare what is stored as *path* with *digests*; may take as long as reading it."""
        try:
            fd, _ = self.tree.open_file(path)
        except (NotStored, IsADirectory):  # the name is that of something else
            return Found(is_same=False)
        try:
            with mapped(path):
                return Found(is_same(fd, digests), recorded(fd))
        finally:
            os.close(fd)

    def listing(self, path: ClusterPath) -> list[Entry]:
        """Return the entries of the directory *path*; may take long."""
        return read_listing(self.tree, path)

    def room(self) -> Room:
        """Return a reading of the file system."""
        status = os.fstatvfs(self._root)
        unit = status.f_frsize
        return Room(
            total_bytes=status.f_blocks * unit,
            used_bytes=(status.f_blocks - status.f_bfree) * unit,
            free_bytes=status.f_bavail * unit,
            inodes=status.f_files,
            free_inodes=status.f_favail,
        )

    def close(self) -> None:
        """Let go of the store; another node may open it."""
        for fd in (self._spool, self._root, self._lock):
            os.close(fd)


def check_directory(directory: str) -> None:
    """Raise StoreUnusable unless *directory* can hold a store; create nothing."""
    if not os.path.isdir(directory):
        problem = "is not a directory" if os.path.exists(directory) else "does not exist"
        raise StoreUnusable(f"the store {directory} {problem}; create it with 'mkdir' or name another with --root")
    if os.statvfs(directory).f_flag & os.ST_RDONLY or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise StoreUnusable(
            f"the store {directory} is read-only or closed for this user; make it writable or use another one"
        )


def _state_directory(root: int) -> int:
    with suppress(FileExistsError):
        os.mkdir(HIDDEN_NAME, STATE_MODE, dir_fd=root)
    return os.open(HIDDEN_NAME, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)


def _lock(state: int, directory: str) -> int:
    fd = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=state)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StoreLocked(
            f"another node already serves the store {directory}; stop that one or name another store with --root"
        ) from None
    return fd


def _spool_directory(state: int) -> int:
    with suppress(FileExistsError):
        os.mkdir("spool", STATE_MODE, dir_fd=state)
    spool = os.open("spool", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=state)
    for name in os.listdir(spool):  # left by a node that was killed where spooled files need a name
        os.unlink(name, dir_fd=spool)
    return spool


def _node_id(state: int) -> str:
    try:
        with open(os.open(NODE_ID_FILE, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=state), encoding="ascii") as file:
            return str(uuid.UUID(file.read().strip()))
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise StoreUnusable(
            f"{HIDDEN_NAME}/{NODE_ID_FILE} holds no node id; put the right one back, or remove the file to get a new one"
        ) from error
    node_id = str(uuid.uuid4())
    temporary = NODE_ID_FILE + ".new"  # the lock is held, so nobody else writes it
    with suppress(FileNotFoundError):  # left by a node that was killed here, and read-only
        os.unlink(temporary, dir_fd=state)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444, dir_fd=state)
    with open(fd, "w", encoding="ascii") as file:
        file.write(node_id + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, NODE_ID_FILE, src_dir_fd=state, dst_dir_fd=state)
    os.fsync(state)
    return node_id
