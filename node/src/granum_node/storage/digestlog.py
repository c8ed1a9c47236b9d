"""The digest log: a second record of what was stored, so that a digest that got lost beside a file is missed.

For each directory of the store there is one file in `.granum/digests`, to which records are appended: name, size and digest of
a file, behind a checksum of the record. Publishing a file costs an entry in a queue; `keeper` writes what has come together,
one append for each directory, and only once the files themselves are on the disk. **A record therefore says that its file was
synced.** What is queued when the node is killed has no record, and its file still has its attribute.

Every append begins with MARK, which no name can hold. A reader that meets a record whose checksum is wrong, the torn end of an
append, goes on at the next MARK, so nobody ever reads a log to append to it. Of several records of one name the last one
counts. A directory that was moved behind the node's back has no log at its new place; the old one is removed by a scrub.
"""

import os
import struct
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import xxhash

from granum.wire.digest import XXH3, Digest
from granum.wire.paths import ClusterPath

DIRECTORY = "digests"
MARK = b"\0granum/records/"  # it has no part that is both its beginning and its end, so a torn one hides none
PENDING_MAX = 65_536  # records in memory, some 25 MiB; beyond it files go without one, which only costs a look at them
WAKE = PENDING_MAX // 2  # records that are worth writing before it is time

_HEAD = struct.Struct("<IHBxQ16s")  # checksum of what follows; length of the name; kind; size; digest; then the name
_NO_DIGEST, _XXH3, _WHERE = range(
    3
)  # kinds of records; the last names the directory, so that a log can be told orphaned

Item = tuple[ClusterPath, Digest | None, int]


@dataclass(frozen=True, slots=True)
class Record:
    """What a log says of a file: its *size* and *digest*; None for a file that was there before the node, taken as it is."""

    digest: Digest | None
    size: int


class Records:
    """The records of one directory, read from the bytes of its log."""

    def __init__(self, log: bytes) -> None:
        self._log = log
        self._at: dict[bytes, int] = {}  # by name; 10^5 of them take some 15 MiB
        self.directory = ""
        at = log.find(MARK)
        while at >= 0:
            at = log.find(MARK, self._scan(at + len(MARK)))

    def _scan(self, at: int) -> int:
        """Take note of the records from *at* on; return where one is wrong, or none is."""
        log, head = self._log, _HEAD.size
        while at + head <= len(log):
            check, length, kind, _, _ = _HEAD.unpack_from(log, at)
            end = at + head + length
            if end > len(log) or zlib.crc32(log[at + 4 : end]) != check:
                break
            name = log[at + head : end]
            if kind == _WHERE:
                self.directory = os.fsdecode(name)
            else:
                self._at[name] = at
            at = end
        return at

    def __contains__(self, name: str) -> bool:
        return os.fsencode(name) in self._at

    def __len__(self) -> int:
        return len(self._at)

    def get(self, name: str) -> Record | None:
        """Return what the log says of the file *name*, if anything."""
        at = self._at.get(os.fsencode(name))
        if at is None:
            return None
        _, _, kind, size, value = _HEAD.unpack_from(self._log, at)
        return Record(Digest(XXH3, value.hex()) if kind == _XXH3 else None, size)


def encode(name: str, digest: Digest | None, size: int) -> bytes:
    """Return the record of the file *name*."""
    if digest is None or digest.algorithm != XXH3:
        return _encode(os.fsencode(name), _NO_DIGEST, size, b"")
    return _encode(os.fsencode(name), _XXH3, size, bytes.fromhex(digest.value))


def _encode(name: bytes, kind: int, size: int, value: bytes) -> bytes:
    record = _HEAD.pack(0, len(name), kind, size, value) + name
    return zlib.crc32(record[4:]).to_bytes(4, "little") + record[4:]


def read_records(state: int, directory: str) -> Records:
    """Return the records of the *directory*, 'a/b', of a store whose hidden directory is *state*; none when it has no log.

    Raises OSError when the log cannot be read.
    """
    try:
        return Records(_read(state, _log_name(directory)))
    except FileNotFoundError:
        return Records(b"")


def _read(state: int, name: str) -> bytes:
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=state), "rb") as file:
        return file.read()


def append(state: int, directory: str, records: Iterable[bytes]) -> None:
    """Append *records* to the log of *directory*; raise OSError when the disk does not take them. Syncs nothing."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    logs = _open_logs(state)
    try:
        fd = os.open(_file_name(directory), flags, 0o600, dir_fd=logs)
    finally:
        os.close(logs)
    try:
        new = os.fstat(fd).st_size == 0
        if new:
            _hand_over(fd, state)
        where = _encode(os.fsencode(directory), _WHERE, 0, b"") if new else b""
        rest = memoryview(b"".join((MARK, where, *records)))
        while rest:  # the torn piece of a write that fails here is passed over by every reader
            rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)


def _open_logs(state: int) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(DIRECTORY, flags, dir_fd=state)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(DIRECTORY, 0o700, dir_fd=state)
        logs = os.open(DIRECTORY, flags, dir_fd=state)
        _hand_over(logs, state)
        return logs


def _hand_over(fd: int, state: int) -> None:
    """Have what was just made belong to whom the hidden directory does: root may be who gives a file back for the node."""
    if os.geteuid() == 0:
        owner = os.fstat(state)
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _file_name(directory: str) -> str:
    return xxhash.xxh3_128_hexdigest(os.fsencode(directory))


def _log_name(directory: str) -> str:
    return f"{DIRECTORY}/{_file_name(directory)}"


class DigestLog:
    """The digest log of the store whose hidden directory is *state*, a descriptor that the caller keeps."""

    def __init__(self, state: int) -> None:
        self._state = state
        self._pending: deque[Item] = deque()
        self.dropped = 0  # files that went without a record
        self.touched = False  # whether a directory was made since this was last set to False
        self.wake: Callable[[], None] = lambda: None  # called when much has come together

    def add(self, path: ClusterPath, digest: Digest | None, size: int) -> None:
        """Queue a record of the file *path*, just published; for any thread, on the path of every put."""
        pending = self._pending
        if len(pending) >= WAKE:
            self.wake()
            if len(pending) >= PENDING_MAX:
                self.dropped += 1
                return
        pending.append((path, digest, size))

    @property
    def pending(self) -> int:
        """How many records are not written."""
        return len(self._pending)

    def take(self) -> list[Item]:
        """Return what has come together, to be given to `write` once these files are on the disk."""
        return [self._pending.popleft() for _ in range(len(self._pending))]

    def write(self, items: Iterable[Item]) -> None:
        """Append the records of *items*; what the disk does not take is dropped, and the first OSError raised in the end."""
        by_directory: dict[tuple[str, ...], list[bytes]] = defaultdict(list)
        for path, digest, size in items:
            by_directory[path.parts[:-1]].append(encode(path.parts[-1], digest, size))
        failed: OSError | None = None
        for parts, records in by_directory.items():
            try:
                append(self._state, "/".join(parts), records)
            except OSError as error:
                failed = failed or error
                self.dropped += len(records)
        if failed is not None:
            raise failed

    def read(self, directory: str) -> Records:
        """Return the records of *directory*, 'a/b', that are written."""
        return read_records(self._state, directory)

    def remove_orphans(self, root: int) -> int:
        """Remove the logs of directories that are not below *root* any more; return how many."""
        try:
            logs = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._state)
        except FileNotFoundError:
            return 0
        try:
            names = os.listdir(logs)
        finally:
            os.close(logs)
        removed = 0
        for name in names:
            log = f"{DIRECTORY}/{name}"
            with suppress(OSError):
                directory = _directory_of(self._state, log)
                if directory is not None and not _is_directory(root, directory):
                    os.unlink(log, dir_fd=self._state)
                    removed += 1
        return removed


def _directory_of(state: int, name: str) -> str | None:
    """Return the directory whose log is the file *name*; None when its beginning does not say."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=state)
    try:
        # A directory's path has 4,000 bytes at most, and the first record names it.
        records = Records(os.pread(fd, 8192, 0))
    finally:
        os.close(fd)
    found = records.directory
    return found if found or _log_name("") == name else None


def _is_directory(root: int, directory: str) -> bool:
    try:
        os.stat(directory or ".", dir_fd=root, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
