"""Power loss without a power switch: a disk's log of writes and flushes, and the states it may have been left in.

The log has the format of the kernel's dm-log-writes, little-endian, everything aligned to the sector size. A state is a cut at
a random entry: what lies before the last flush is on disk; of what follows each write is there or not, by chance, as a volatile
cache that reorders leaves it. A cut never lies inside one entry, so torn sectors are not modelled. Pure but for the files.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from integration.faults.disks import run

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_LOGGED_SECTOR_BYTES = 512  # the unit of an entry's position on the disk, whatever the log's own sector size


@dataclass(frozen=True, slots=True)
class Entry:
    """One write or flush; the data lies *at* this byte of the log."""

    sector: int
    size_bytes: int
    flags: int
    at: int


@dataclass(frozen=True, slots=True)
class State:
    """What a disk holds after a power loss when *cut* entries had been sent to it: the entries *kept*."""

    cut: int
    kept: tuple[Entry, ...]


def read_entries(log: Path) -> list[Entry]:
    """Return the entries of *log*; raise ValueError when it is none."""
    entries = []
    with log.open("rb") as file:
        magic, version, count, sector_bytes = _SUPER.unpack(file.read(_SUPER.size))
        if magic != MAGIC or version != 1:
            raise ValueError("not a log of writes")
        at = sector_bytes
        for _ in range(count):
            file.seek(at)
            sector, sectors, flags, _ = _ENTRY.unpack(file.read(_ENTRY.size))
            size = 0 if flags & DISCARD else sectors * sector_bytes
            entries.append(Entry(sector, size, flags, at + sector_bytes))
            at += sector_bytes + size
    return entries


def state_at(entries: list[Entry], cut: int, random: Random) -> State:
    """Return one state that a power loss after *cut* entries may leave."""
    flushed = max((number for number, entry in enumerate(entries[:cut], 1) if entry.flags & FLUSH), default=0)
    later = (entry for entry in entries[flushed:cut] if entry.flags & FUA or random.random() < 0.5)
    return State(cut, (*entries[:flushed], *later))


def states(entries: list[Entry], number: int, random: Random) -> Iterator[State]:
    """Yield *number* states at random cuts over the whole log."""
    for _ in range(number):
        yield state_at(entries, random.randint(1, len(entries)), random)


def restore(state: State, pristine: Path, log: Path, image: Path) -> None:
    """Make *image* what *state* says, from the disk as it was when the log began."""
    run("cp", "--sparse=always", str(pristine), str(image))
    with log.open("rb") as source, image.open("r+b") as disk:
        for entry in state.kept:
            if entry.size_bytes:
                source.seek(entry.at)
                disk.seek(entry.sector * _LOGGED_SECTOR_BYTES)
                disk.write(source.read(entry.size_bytes))
