"""R10: bits that rot on the disk, with sizes and times as they were."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import xxhash

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, node
from integration.faults.load import body_of, digest
from integration.faults.waiting import until

SIZES = (1, 50_000)
FOUND_S = 120.0  # for one reading of the store
AT_ONCE_DAYS = "0.0000001"  # of a cycle: the scrub rests no longer than it must for the sake of others
NEVER_DAYS = "0"
CORRUPT = "corrupt"


def _node(bed: Bed, scrub_days: str) -> Daemon:
    program = node("relaxed").with_options("--scrub-days", scrub_days)
    return Daemon(program, bed.directory / "store", bed.directory / "daemon")


def fill(bed: Bed, number: int) -> dict[str, bytes]:
    """Have a node store *number* files; return the digest of each by its path."""
    random = bed.random("sizes")
    offered = {}
    with _node(bed, NEVER_DAYS) as daemon, talk.Line(daemon.address) as line:
        for count in range(number):
            path = f"/d{count % 10}/f{count}"
            body = body_of(path, random.randint(*SIZES))
            if not line.put(path, body).stored:
                raise RuntimeError(f"{path} was not stored")
            offered[path] = digest(body)
        daemon.stop()
    return offered


def flip(file: Path, random: Random) -> None:
    """Flip one bit of *file* and leave size, mode and times as they were."""
    status = file.stat()
    at = random.randrange(status.st_size)
    fd = os.open(file, os.O_RDWR)  # root may
    try:
        byte = os.pread(fd, 1, at)[0]
        os.pwrite(fd, bytes([byte ^ 1 << random.randrange(8)]), at)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@dataclass(frozen=True, slots=True)
class Filled:
    """A store with files: the digest of each by its path, and what was written down of it, size and time."""

    root: Path
    offered: Mapping[str, bytes]
    written: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Found:
    """What looking for rot came to: the paths named, how often a bad file was read as good, and the paths not served."""

    named: frozenset[str]
    trusted: int = 0
    refused: frozenset[str] = frozenset()


def rot(find: Callable[[Bed, Filled], Found], bed: Bed) -> Outcome:
    """Flip bits and compare what *find* finds with them."""
    total, rotten = bed.amount(1000, 10_000), bed.amount(100, 1000)
    root = bed.directory / "store"
    offered = fill(bed, total)
    filled = Filled(root, offered, {path: _written(root / path[1:]) for path in offered})
    random = bed.random("bits")
    flipped = frozenset(random.sample(sorted(offered), rotten))
    for path in sorted(flipped):
        flip(root / path[1:], random)
    began = time.monotonic()
    found = find(bed, filled)
    missed, false = flipped - found.named, found.named - flipped
    figure = (
        f"found {len(flipped & found.named)} of {rotten} in {total} files, false alarms {len(false)}, "
        f"bad files read as good {found.trusted}, good files refused {len(found.refused - flipped)} "
        f"({time.monotonic() - began:.1f} s)"
    )
    held = not missed and not false and not found.trusted and found.refused <= flipped
    return Outcome(held, figure, (f"missed {sorted(missed)[:3]}, false {sorted(false)[:3]}",))


def _written(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _by_size_and_time(bed: Bed, filled: Filled) -> Found:  # noqa: ARG001 - as every finder
    """Compare sizes and times with those that were written down."""
    named = (path for path, known in filled.written.items() if _written(filled.root / path[1:]) != known)
    return Found(frozenset(named))


@row(
    "R10",
    figure="all found, false alarms 0, bad files read as good by a client that verifies 0",
    control={"scrub by size and time": partial(rot, _by_size_and_time)},
)
def bit_rot(bed: Bed) -> Outcome:
    """Read every file while the node scrubs, and again from a new node when it has."""
    return rot(_by_scrub, bed)


def _by_scrub(bed: Bed, filled: Filled) -> Found:
    with _node(bed, AT_ONCE_DAYS) as daemon, talk.Line(daemon.address) as line:
        trusted = sum(_is_trusted(line.get(path), expected) for path, expected in filled.offered.items())
        if not until(lambda: b"granum_scrub_cycles_total 0" not in line.get("/__metrics").body, FOUND_S, 0.1):
            raise RuntimeError("the scrub has not come to an end")
    with _node(bed, NEVER_DAYS) as daemon, talk.Line(daemon.address) as line:
        answers = {path: line.get(path) for path in filled.offered}
    trusted += sum(_is_trusted(answers[path], expected) for path, expected in filled.offered.items())
    refused = frozenset(path for path, answer in answers.items() if answer.status != 200)
    return Found(
        frozenset(path for path in refused if answers[path].headers.get("granum-error") == CORRUPT), trusted, refused
    )


def _is_trusted(answer: talk.Answer, expected: bytes) -> bool:
    """Whether *answer* gives a client other bytes than were put, under the digest of which it believes them."""
    if answer.status != 200 or digest(answer.body) == expected:
        return False
    named = answer.headers.get("granum-digest", "")
    return not named or named == f"xxh3-128={xxhash.xxh3_128_hexdigest(answer.body)}"
