"""The store of a node: one directory, opened by one node at a time.

Beside the user's files it holds `.granum/`, on the same file system: the lock, the node id that stays with the data when
address, port and host name change, and the spool. Opening creates only these, and only after everything that can fail
without them has succeeded.
"""

import fcntl
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from granum.wire.digest import XXH3, Digest
from granum.wire.errors import IsADirectory, NotStored, StoreLocked, StoreUnusable
from granum.wire.listing import Flags, encode_entry
from granum.wire.paths import HIDDEN_NAME, ClusterPath
from granum_node.storage.digest import is_same, new_hasher, recorded
from granum_node.storage.digestlog import DigestLog
from granum_node.storage.directory import Listed
from granum_node.storage.kernel import sync_file_system
from granum_node.storage.quarantine import Quarantine
from granum_node.storage.recovery import CLOSED, Recovered, recover, set_mark
from granum_node.storage.scrub import Scrub
from granum_node.storage.space import Room
from granum_node.storage.spool import SpooledFile, keeps_attributes, probe
from granum_node.storage.tree import Tree, mapped
from granum_node.storage.verify import Verdict

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
    log: DigestLog
    quarantine: Quarantine
    _root: int
    _state: int
    _lock: int
    _spool: int
    _named_spool: bool
    _hashes: bool  # whether each file's digest is computed as it arrives
    records: bool  # and can be kept beside it
    scrubbing: Scrub | None = None

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
            node_id = _node_id(state)
            tree = Tree(root)
            quarantine = Quarantine(tree, state)
            log = DigestLog(state)
            store = cls(directory, node_id, tree, log, quarantine, root, state, lock, spool, named, digests, records)
        except BaseException as error:
            for fd in descriptors:
                os.close(fd)
            if isinstance(error, OSError):
                raise StoreUnusable(
                    f"{HIDDEN_NAME} in the store {directory} cannot be used: {error.strerror}; "
                    "it and what is in it must belong to the node's user"
                ) from error
            raise
        return store

    def recover(self, *, relaxed: bool) -> Recovered:
        """See to it that nothing torn is served; *relaxed*: how it is used from now on. To be called before; may take long.

        Raises StoreUnusable when the disk fails; the store is closed then.
        """
        try:
            self.quarantine.finish()
            return recover(self._root, self._state, self.quarantine, relaxed=relaxed)
        except OSError as error:
            self.close()
            raise StoreUnusable(f"the store {self.directory} cannot be checked: {error.strerror}") from error

    def sync(self) -> None:
        """Have the disk write everything; raise OSError when it could not. May take long."""
        sync_file_system(self._root)

    def mark_closed(self) -> None:
        """Say that everything which was published relaxed is on the disk; raise OSError when that cannot be said."""
        set_mark(self._state, CLOSED)

    def scrub(self, cycle_s: float, tell: Callable[[Verdict], None]) -> Scrub:
        """Return a scrub of this store, a cycle each *cycle_s*, that will *tell*, in its own thread, what is not good."""
        self.scrubbing = Scrub(
            self._root, self._state, self.log, self.quarantine, cycle_s, lambda: self.room().used_bytes, tell
        )
        return self.scrubbing

    def spool(self, *, hashed: bool = False) -> SpooledFile:
        """Return a new spooled file, *hashed* at any rate; raise OSError when the disk cannot give one."""
        return SpooledFile(self._spool, named=self._named_spool, hashed=hashed or self._hashes, records=self.records)

    def published(self, path: ClusterPath, file: SpooledFile) -> None:
        """Take note, for the digest log, that *file* was published as *path*."""
        self.log.add(path, file.recorded or file.digest, file.size)

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

    def listing(self, path: ClusterPath) -> Listed:
        """Return the listing of the directory *path*, files in quarantine included, since their names are taken.

        Raises NotStored when there is none. May take long.
        """
        fd = self.tree.open_directory(path)
        try:
            with mapped(path):
                listed = self.tree.index.listing(fd, top=not path.parts)
        finally:
            os.close(fd)
        held = self.quarantine.below(path)
        return _with_files(listed, held) if held else listed

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
        for fd in (self._spool, self._root, self._state, self._lock):
            os.close(fd)


def _with_files(listed: Listed, sizes: Mapping[str, int]) -> Listed:
    """Return *listed* with the files *sizes*; one that is there already, placed by hand since, stands behind them and counts."""
    more = ",".join(encode_entry(name, Flags.FILE, size) for name, size in sorted(sizes.items())).encode()
    body = b"{" + more + (b"}" if listed.body == b"{}" else b"," + listed.body[1:])
    hasher = new_hasher(XXH3)
    hasher.update(body)
    return Listed(body, Digest(XXH3, hasher.hexdigest()).entity_tag)


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
