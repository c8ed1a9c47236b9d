"""Reading everything in a store and comparing it with the digests recorded, beside each file and in the digest log.

What was read before may still be in the machine's memory, where it does not rot, so each file is first dropped from there. A
file that is on its way has no name and is not met. One without any digest was placed by hand or stored with digests off, and
nothing can be said of it; one whose digest is in the log alone has lost its attribute. Sizes and times say nothing: a damaged
disk keeps both. Names are met in the same order every time, so that a scrub can go on where it was.
"""

import heapq
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from granum.wire.digest import XXH3, Digest
from granum.wire.errors import StoreUnusable
from granum.wire.paths import HIDDEN_NAME
from granum_node.storage.digest import digest_of, recorded
from granum_node.storage.digestlog import Record, Records, read_records

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
AT_ONCE = 1 << 20  # names of one directory in memory
Pace = Callable[[int], None]  # told how many bytes were read; may wait


class State(Enum):
    """What became of a file."""

    GOOD = "good"
    DAMAGED = "damaged"
    BARE = "attribute lost"
    WITHOUT = "no digest"
    UNREADABLE = "cannot be read"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One file, or a directory that cannot be read: its *name* below the root, and its *state*.

    *expected* is the digest that its bytes should have, *found* the one that they have; *logged* whether the log knows it.
    """

    name: str
    state: State
    expected: Digest | None = field(default=None, compare=False)
    found: Digest | None = field(default=None, compare=False)
    inode: int = field(default=0, compare=False)
    size: int = field(default=0, compare=False)
    logged: bool = field(default=False, compare=False)


def judge(known: Digest | None, found: Digest, logged: Digest | None = None) -> State:
    """Return what a file is that has the digest *known* beside it and *logged* in the log, and whose bytes have *found*.

    What is beside the file counts: the record of a file that was removed behind the node's back and put again may be lost.
    """
    if known is None and logged is None:
        return State.WITHOUT
    if known == found:
        return State.GOOD
    return State.BARE if logged == found else State.DAMAGED


def verify(root: str) -> Iterator[Verdict]:
    """Yield a verdict for every file of the store in the directory *root*, by their names; takes long.

    The store may be served meanwhile. Links and devices are passed over, and so is the node's own directory. Raises
    StoreUnusable when there is no such directory or it may not be read.
    """
    try:
        top = os.open(root, _OPEN & ~os.O_NOFOLLOW | os.O_DIRECTORY)
    except OSError as error:
        raise StoreUnusable(f"the store {root} cannot be read: {error.strerror}; is that its directory?") from error
    try:
        yield from examine(top)
    finally:
        os.close(top)


def examine(top: int, after: str = "", pace: Pace = lambda _: None, at_once: int = AT_ONCE) -> Iterator[Verdict]:
    """Yield a verdict for every file below the open directory *top* that comes after the one named *after*, '' for all.

    Of a directory *at_once* names are kept in memory, and it is read again for the next: who takes days keeps few.
    """
    try:
        state = os.open(HIDDEN_NAME, _OPEN | os.O_DIRECTORY, dir_fd=top)
    except OSError:  # never served, or not for this user: files are compared with what is beside them
        yield from _Examination(lambda _: Records(b""), pace, at_once).below(top, "", after.split("/"))
        return
    try:
        examination = _Examination(lambda directory: read_records(state, directory), pace, at_once)
        yield from examination.below(top, "", after.split("/"))
    finally:
        os.close(state)


def examine_file(directory: int, name: str, prefix: str, record: Record | None, pace: Pace = lambda _: None) -> Verdict:
    """Return the verdict for the file *name* in the open *directory*, of which the log has *record*; raise OSError."""
    fd = os.open(name, _OPEN | os.O_NONBLOCK, dir_fd=directory)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        known = recorded(fd)
        logged = None if record is None else record.digest
        found = digest_of(fd, XXH3 if known is None else known.algorithm, pace)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # nor does what was read push out what others need
        status = os.fstat(fd)
    finally:
        os.close(fd)
    state = judge(known, found, logged)
    return Verdict(prefix + name, state, known or logged, found, status.st_ino, status.st_size, record is not None)


@dataclass(frozen=True, slots=True)
class _Examination:
    log: Callable[[str], Records]
    pace: Pace
    at_once: int

    def below(self, directory: int, prefix: str, after: list[str]) -> Iterator[Verdict]:
        """Examine what is in *directory*, whose name is *prefix*, from the name that *after* begins with on."""
        first, *rest = after
        while True:
            try:
                entries = self._entries(directory, prefix, first, begun=bool(rest))
            except OSError:
                yield Verdict(prefix, State.UNREADABLE)
                return
            for name, is_directory, record in entries:
                try:
                    if is_directory:
                        yield from self._directory(directory, name, f"{prefix}{name}/", rest if name == first else [""])
                    elif name != first:
                        yield examine_file(directory, name, prefix, record, self.pace)
                except FileNotFoundError:  # removed behind the node's back since its name was read
                    continue
                except OSError:
                    yield Verdict(prefix + name, State.UNREADABLE)
            if len(entries) < self.at_once:
                return
            first, rest = entries[-1][0], []

    def _entries(
        self, directory: int, prefix: str, first: str, *, begun: bool
    ) -> list[tuple[str, bool, Record | None]]:
        """Return the names behind *first*, in order, whether each is a directory, and its record; *first* too when *begun*."""
        with os.scandir(directory) as found:
            names = heapq.nsmallest(
                self.at_once,
                (
                    (entry.name, entry.is_dir(follow_symlinks=False))
                    for entry in found
                    if (entry.name > first or (begun and entry.name == first))
                    and entry.name != HIDDEN_NAME
                    and not _is_neither(entry)
                ),
            )
        try:
            records = self.log(prefix[:-1])
        except PermissionError:  # the log is the node's user's alone
            records = Records(b"")
        return [(name, is_directory, records.get(name)) for name, is_directory in names]

    def _directory(self, parent: int, name: str, prefix: str, after: list[str]) -> Iterator[Verdict]:
        directory = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=parent)
        try:
            yield from self.below(directory, prefix, after)
        finally:
            os.close(directory)


def _is_neither(entry: "os.DirEntry[str]") -> bool:
    """Whether *entry* is neither a file nor a directory."""
    return not entry.is_dir(follow_symlinks=False) and not entry.is_file(follow_symlinks=False)
