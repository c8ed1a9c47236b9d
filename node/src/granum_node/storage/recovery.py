"""What is done when a store is opened, before a file of it is served: nothing torn may be found there.

A file that was published in durability `relaxed` may be torn by a power failure until the file system is synced, and a record in
the digest log says that this has happened. So after an **unclean stop** of a node that ran relaxed, every file without a record
is read: one whose bytes do not have the digest beside it, or that has none, goes into quarantine. In durability `commit` a file
is synced before it has its name, and nothing needs a look.

`.granum/durability` says how a store is used that is relaxed: 'relaxed open' and, after a clean stop, 'relaxed closed'. It is on
the disk before the first put is taken, and removed when the store is used with `commit`. When a store is opened as relaxed and
nothing in it can be torn, all files that have no record get one without a digest: they are taken as they are, whoever put them
there.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from granum.wire.digest import Digest
from granum.wire.paths import HIDDEN_NAME
from granum_node.storage.digest import digest_of, recorded
from granum_node.storage.digestlog import append, encode, read_records
from granum_node.storage.kernel import sync_file_system
from granum_node.storage.quarantine import Quarantine

FILE = "durability"
COMMIT, OPEN, CLOSED = "", "relaxed open", "relaxed closed"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Recovered:
    """What opening a store came to: how many files were *taken* as they are, *read* in full, and *quarantined*, by name."""

    taken: int = 0
    read: int = 0
    quarantined: tuple[str, ...] = ()


def recover(root: int, state: int, quarantine: Quarantine, *, relaxed: bool) -> Recovered:
    """Make the store in the open directory *root* fit to be served and mark how it is used from now on; may take long.

    *state* is its hidden directory. Raises OSError when the disk fails.
    """
    before = read_mark(state)
    found = Recovered()
    if before == OPEN:
        found = _check(root, state, quarantine)
    elif relaxed:
        found = Recovered(taken=_take_all(root, state))
    if found != Recovered():
        sync_file_system(root)
    set_mark(state, OPEN if relaxed else COMMIT)
    return found


def read_mark(state: int) -> str:
    """Return how the store was used last: OPEN, CLOSED, or COMMIT, which needs no file."""
    try:
        with open(os.open(FILE, _OPEN, dir_fd=state), encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def set_mark(state: int, text: str) -> None:
    """Say how the store is used, durably."""
    if read_mark(state) == text:
        return
    if text == COMMIT:
        os.unlink(FILE, dir_fd=state)
        os.fsync(state)
        return
    with suppress(FileNotFoundError):
        os.unlink(FILE + ".new", dir_fd=state)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(FILE + ".new", flags, 0o600, dir_fd=state), "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(FILE + ".new", FILE, src_dir_fd=state, dst_dir_fd=state)
    os.fsync(state)


def _check(root: int, state: int, quarantine: Quarantine) -> Recovered:
    """Read every file that has no record; those that are whole get one, the others are quarantined."""
    whole: list[tuple[str, list[bytes]]] = []
    torn: list[str] = []
    read = 0
    for directory, prefix, names in _without_record(root, state):
        records = []
        for name in names:
            try:
                known, found, inode, size = _read(directory, name)
            except OSError:  # it is gone, or closed to the node, which cannot serve it either
                continue
            read += 1
            if known is not None and known == found:
                records.append(encode(name, known, size))
            elif quarantine.take(prefix + name, "not whole after a power failure", known, found, inode, size):
                torn.append(prefix + name)
        if records:
            whole.append((prefix[:-1], records))
    if whole:
        sync_file_system(root)  # after a kill without a power failure what was read lay in memory
    for where, records in whole:
        try:
            append(state, where, records)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            # They are whole all the same, and the node is needed to read; after the next crash they are looked at again.
    return Recovered(read=read, quarantined=tuple(torn))


def _take_all(root: int, state: int) -> int:
    taken = 0
    for directory, prefix, names in _without_record(root, state):
        records = [encode(name, None, os.stat(name, dir_fd=directory, follow_symlinks=False).st_size) for name in names]
        append(state, prefix[:-1], records)
        taken += len(records)
    return taken


def _read(directory: int, name: str) -> tuple[Digest | None, Digest | None, int, int]:
    """Return the digest beside the file *name*, that of its bytes, None where they cannot be read, its inode and its size."""
    fd = os.open(name, _OPEN | os.O_NONBLOCK, dir_fd=directory)
    try:
        status = os.fstat(fd)
        known = recorded(fd)
        found = None
        with suppress(OSError):  # a part of it cannot be read
            found = digest_of(fd) if known is None else digest_of(fd, known.algorithm)
    finally:
        os.close(fd)
    return known, found, status.st_ino, status.st_size


def _without_record(root: int, state: int) -> Iterator[tuple[int, str, list[str]]]:
    """Yield each directory that has files without a record: a descriptor, its name with a slash behind it, and their names."""

    def entered(directory: int, prefix: str) -> Iterator[tuple[int, str, list[str]]]:
        below, names = [], []
        with os.scandir(directory) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != HIDDEN_NAME:
                        below.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    names.append(entry.name)
        if names:
            bare = _bare(state, prefix[:-1], names)
            if bare:
                yield directory, prefix, bare
        del names
        for name in below:
            with suppress(PermissionError):  # closed to the node, which serves nothing of it
                yield from _within(directory, name, prefix, entered)

    return entered(root, "")


def _bare(state: int, directory: str, names: list[str]) -> list[str]:
    """Return those of *names* that the log of *directory* does not have: all, where the node may not read it."""
    try:
        records = read_records(state, directory)
    except PermissionError:
        return names
    return [name for name in names if name not in records]


def _within(
    parent: int, name: str, prefix: str, entered: Callable[[int, str], Iterator[tuple[int, str, list[str]]]]
) -> Iterator[tuple[int, str, list[str]]]:
    directory = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=parent)
    try:
        yield from entered(directory, f"{prefix}{name}/")
    finally:
        os.close(directory)
