"""What lies in an overflow's directory: its header, its lock, its segments; and which such directories there are.

    DIR/header.json   whose files these are and where they go       DIR/lock   held (flock) by the process that uses them
    DIR/00000001.segment   records                                  DIR/00000001.delivered   the docket of that segment

Reading decides what a crash left: a segment counts as far as its heads are whole. Behind the first that is not, either the
file ends, in a write that was never over, or something damaged it, and what stands there cannot be read. Nothing here writes
but the header and the lock; all of it blocks, so it is called in threads.
"""

import errno
import fcntl
import json
import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Self

from granum.streaming.pending import Place
from granum.streaming.record import HEAD_BYTES_MAX, MAGIC, Head, decode_entries, decode_head, is_body, is_cut
from granum.wire.errors import BadPath, OverflowInUse, OverflowUnusable
from granum.wire.paths import ClusterPath

HEADER = "header.json"
LOCK = "lock"
NAME_BYTES_MAX = 100  # of a series, in the name of its directory
SEGMENT, DOCKET = ".segment", ".delivered"


@dataclass(frozen=True, slots=True)
class Header:
    """Whose files an overflow holds: those of *series*, for *cluster* ('' for any), also known at *nodes* ('host:port').

    *created* is unix time.
    """

    cluster: str
    nodes: tuple[str, ...]
    series: ClusterPath
    created: float

    def encode(self) -> bytes:
        """Return how it is written down."""
        return json.dumps({"version": 1, **asdict(self), "series": str(self.series)}, indent=2).encode() + b"\n"

    @classmethod
    def read(cls, directory: str) -> Self:
        """Return the header of the overflow in *directory*; raise OverflowUnusable when there is none to be understood."""
        try:
            with open(os.path.join(directory, HEADER), encoding="utf-8") as file:
                found = json.load(file)
            if found["version"] != 1:
                raise OverflowUnusable(f"{directory} was written by a later version of granum; use that one")
            nodes = tuple(str(node) for node in found["nodes"])
            return cls(str(found["cluster"]), nodes, ClusterPath.parse(str(found["series"])), float(found["created"]))
        except OSError as error:
            raise OverflowUnusable(f"{directory} is not an overflow that can be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, BadPath) as error:
            raise OverflowUnusable(f"{directory} is not an overflow: its {HEADER} cannot be understood") from error


@dataclass(frozen=True, slots=True)
class Scanned:
    """One segment as it was found: its first record, where each begins, how many bytes hold whole records.

    *delivered* are the records that its docket names. *unreadable* bytes behind the last record are damaged; those of a write
    that was never over do not count.
    """

    number: int
    first: int
    offsets: "array[int]"
    size: int
    delivered: frozenset[int]
    unreadable: int


@dataclass(frozen=True, slots=True)
class Leftover:
    """One overflow directory: *frames* undelivered records of *size* bytes in all, *held* by a live process or not.

    *pid* is the holder's process id where it is known; *unreadable* bytes are damaged.
    """

    directory: str
    header: Header
    frames: int
    size: int
    unreadable: int
    held: bool
    pid: int | None


def segment_name(number: int) -> str:
    """Return the file name of the segment *number*."""
    return f"{number:08}{SEGMENT}"


def docket_name(number: int) -> str:
    """Return the file name of the docket of the segment *number*."""
    return f"{number:08}{DOCKET}"


def take_lock(directory: str) -> int:
    """Return the descriptor that holds the lock of *directory* until it is closed; raise OverflowInUse when it is taken."""
    path = os.path.join(directory, LOCK)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink == 0:  # its holder was just removing it all
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
        os.truncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    except BlockingIOError as error:
        os.close(lock)
        raise OverflowInUse(f"{directory} is in use by a running program, which delivers it by itself") from error
    except BaseException:
        os.close(lock)
        raise
    return lock


def make_directory(top: str, header: Header) -> tuple[str, int, int]:
    """Make a directory for the overflow of *header* below *top*; return its path and descriptors of it and of its lock."""
    os.makedirs(top, mode=0o700, exist_ok=True)
    stamp = f"{datetime.fromtimestamp(header.created, UTC):%Y%m%dT%H%M%SZ}"
    name = header.series.name.encode()[:NAME_BYTES_MAX].decode("utf-8", "ignore") or "files"
    for attempt in count(1):
        again = f"-{attempt}" if attempt > 1 else ""
        directory = os.path.join(os.path.abspath(top), f"{stamp}-{name}{again}")
        with suppress(FileExistsError):
            os.mkdir(directory, 0o700)
            break
    descriptors: list[int] = []
    try:
        descriptors.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        descriptors.append(take_lock(directory))  # before the header, which makes it an overflow for others
        with open(os.path.join(directory, HEADER), "xb") as file:
            file.write(header.encode())
            file.flush()
            os.fsync(file.fileno())
        os.fsync(descriptors[0])
        _sync_directory(top)
    except BaseException:
        for made in (HEADER, LOCK):
            with suppress(OSError):
                os.unlink(os.path.join(directory, made))
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(OSError):
            os.rmdir(directory)
        raise
    return directory, descriptors[0], descriptors[1]


def read_record(directory: str, place: Place) -> tuple[Head, memoryview]:
    """Return the head and the body of the record at *place*; raise OverflowUnusable when it is damaged."""
    path = os.path.join(directory, segment_name(place.segment))
    raw = bytearray(place.length)
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(place.offset)
            view, taken = memoryview(raw), 0
            while step := file.readinto(view[taken:]):
                taken += step
    except OSError as error:
        raise OverflowUnusable(f"{path} cannot be read: {error.strerror}") from error
    whole = memoryview(raw).toreadonly()
    head = decode_head(bytes(whole[:HEAD_BYTES_MAX]))
    if head is None or head.seq != place.token or head.length != place.length:
        raise OverflowUnusable(f"{path} is damaged: what was written at byte {place.offset} is not there")
    body = whole[place.length - head.size :]
    if not is_body(head, body):
        raise OverflowUnusable(f"{head.path} is damaged in the overflow, {path}, and cannot be delivered")
    return head, body


def scan(directory: str) -> Iterator[Scanned]:
    """Yield every segment in *directory* in the order of writing."""
    names = [name.removesuffix(SEGMENT) for name in os.listdir(directory) if name.endswith(SEGMENT)]
    following = 0
    for number in sorted(int(name) for name in names if name.isdecimal()):
        found = _scan_segment(directory, number, following)
        following = found.first + len(found.offsets)
        yield found


def directories(top: str) -> list[str]:
    """Return the directory of every overflow below *top*, in the order of their names; none when there is no such place."""
    try:
        names = sorted(os.listdir(top))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [os.path.join(top, name) for name in names]
    return [directory for directory in found if os.path.exists(os.path.join(directory, HEADER))]


def leftover(directory: str) -> Leftover:
    """Return what lies in *directory*; raise OverflowUnusable when that is no overflow."""
    header = Header.read(directory)
    held, pid = _holder(directory)
    frames = size = unreadable = 0
    for found in scan(directory):
        ends = [*found.offsets[1:], found.size]
        for index, (begin, end) in enumerate(zip(found.offsets, ends, strict=False)):
            if found.first + index not in found.delivered:
                frames += 1
                size += end - begin
        unreadable += found.unreadable
    return Leftover(directory, header, frames, size, 0 if held else unreadable, held, pid)


def _scan_segment(directory: str, number: int, following: int) -> Scanned:
    """Return what is in the segment *number*; *following* is its first record when there is none to say so itself."""
    docket = b""
    with suppress(FileNotFoundError), open(os.path.join(directory, docket_name(number)), "rb") as file:
        docket = file.read()
    offsets = array("Q")
    first, unreadable, at = following, 0, len(MAGIC)
    with open(os.path.join(directory, segment_name(number)), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size  # one that is being written goes on growing
        while at < size:
            raw = os.pread(file.fileno(), HEAD_BYTES_MAX, at)
            head = decode_head(raw)
            if head is None or (offsets and head.seq != first + len(offsets)):
                unreadable = 0 if head is None and is_cut(raw) else size - at
                break
            if at + head.length > size:
                break
            first = first if offsets else head.seq
            offsets.append(at)
            at += head.length
    return Scanned(number, first, offsets, at, frozenset(decode_entries(docket)), unreadable)


def _sync_directory(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _holder(directory: str) -> tuple[bool, int | None]:
    """Return whether a process holds the lock of *directory*, and its id where it can be told."""
    try:
        lock = os.open(os.path.join(directory, LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False, None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.pread(lock, 20, 0).strip()
        return True, int(written) if written.isdigit() else None
    finally:
        os.close(lock)
    return False, None
