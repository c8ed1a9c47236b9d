"""The history checker: whether what clients saw of a cluster can have been a store that keeps its promises.

A history is a list of operations with their times on one host's monotonic clock, whatever bed they ran on: daemons,
namespaces, simulation, machines. The rules are those of a register that is written once, W1 to W8, and F for streams; they
need no search, only the first and the last of a few moments per path, so a history of n operations is checked in n log n.
Each anomaly is a sentence that begins with its rule and names the path.

An operation whose outcome the client does not know is `INFO`: it may take effect at any time, once, or never. One that is
known not to have stored anything is `FAIL`; a name that was found taken is `REFUSED`. A read that failed says nothing and is
left out.

`python -m integration.history FILE` checks a history that `kept` has written, and prints what it breaks.
"""

import json
import sys
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

LISTED_AFTER_S = 2.0  # promise P7: how late another client's complete listing may be


class Outcome(Enum):
    """How a put ended for the client that asked for it."""

    OK = "ok"
    REFUSED = "refused"
    FAIL = "fail"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Put:
    """A put of the file *path*; *size* in bytes, *node* the one that answered."""

    path: str
    digest: str
    size: int
    invoked: float
    completed: float
    outcome: Outcome
    node: str = ""

    @property
    def may_be_stored(self) -> bool:
        """Whether its bytes may be found."""
        return self.outcome in {Outcome.OK, Outcome.INFO}


@dataclass(frozen=True, slots=True)
class Read:
    """A read of *path*: the *digest* of what came, None for "it is not stored", which only a complete view may say."""

    path: str
    digest: str | None
    invoked: float
    completed: float
    reader: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """A listing of *directory* ('/' or '/a/'): names and sizes of its files; *complete* when no node was missing."""

    directory: str
    sizes: Mapping[str, int]
    invoked: float
    completed: float
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a stream said of itself: paths it *accepted*, and of these the ones *delivered* and the ones *reported* lost."""

    accepted: Collection[str]
    delivered: Collection[str]
    reported: Collection[str]


@dataclass(frozen=True, slots=True)
class Final:
    """What was found when all was quiet, from *since* on: *copies* are the digests of each path, by the node that has it.

    Reads and listings that began then are the sweep.
    """

    since: float = inf
    copies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    copies_max: int = 1


@dataclass(frozen=True, slots=True)
class History:
    """All that happened. *collisions* are paths that were reported as such; *doubled*, those said to be stored twice."""

    puts: Sequence[Put] = ()
    reads: Sequence[Read] = ()
    listings: Sequence[Listed] = ()
    streams: Sequence[Streamed] = ()
    final: Final = field(default_factory=Final)
    collisions: frozenset[str] = frozenset()
    doubled: frozenset[str] = frozenset()


def anomalies(history: History) -> list[str]:
    """Return a sentence for every promise that *history* shows broken, in the order of the rules."""
    puts: dict[str, list[Put]] = defaultdict(list)
    reads: dict[str, list[Read]] = defaultdict(list)
    for put in history.puts:
        puts[put.path].append(put)
    for read in history.reads:
        reads[read.path].append(read)
    found: list[str] = []
    for path in sorted(puts.keys() | reads.keys()):
        found += _of_path(path, puts[path], reads[path], history)
    found += _of_listings(puts, history)
    found += _of_copies(puts, history)
    for number, stream in enumerate(history.streams):
        found += _of_stream(number, stream)
    return sorted(found)


# -- one path ---------------------------------------------------------------------------------------------------------


def _of_path(path: str, puts: Sequence[Put], reads: Sequence[Read], history: History) -> Iterator[str]:
    collided = path in history.collisions
    seen = {put.digest for put in puts if put.outcome is Outcome.OK} | {read.digest for read in reads if read.digest}
    if len(seen) > 1 and not collided:
        yield f"W1 {path}: {len(seen)} different contents were receipted or read, and no collision was reported"
    yield from _invented(path, puts, reads)
    yield from _vanished(path, puts, reads, collided=collided)
    yield from _refused(path, puts, seen)
    yield from _undecided(path, puts, reads, history.final.since)


def _invented(path: str, puts: Iterable[Put], reads: Iterable[Read]) -> Iterator[str]:
    begun: dict[str, float] = {}
    for put in puts:
        if put.may_be_stored:
            begun[put.digest] = min(put.invoked, begun.get(put.digest, inf))
    for read in reads:
        if read.digest is not None and begun.get(read.digest, inf) >= read.completed:
            yield f"W2 {path}: {read.reader or 'a reader'} got bytes that nobody had put by {read.completed:.3f}"


def _vanished(path: str, puts: Iterable[Put], reads: Sequence[Read], *, collided: bool) -> Iterator[str]:
    receipted = min((put.completed for put in puts if put.outcome is Outcome.OK), default=inf)
    there = min((read.completed for read in reads if read.digest is not None), default=inf)
    for read in reads:
        if read.digest is None and read.invoked >= receipted:
            yield f"W3 {path}: said to be absent at {read.invoked:.3f}, receipted at {receipted:.3f}"
        elif read.digest is None and read.invoked >= there:
            yield f"W4 {path}: said to be absent at {read.invoked:.3f}, read at {there:.3f}"
    if not collided:
        for before, after in pairwise(sorted((r for r in reads if r.digest is not None), key=lambda r: r.completed)):
            if after.invoked >= before.completed and after.digest != before.digest:
                yield f"W4 {path}: another content at {after.invoked:.3f} than at {before.completed:.3f}"


def _refused(path: str, puts: Sequence[Put], seen: Collection[str]) -> Iterator[str]:
    winners = sorted(put.invoked for put in puts if put.may_be_stored and (put.digest in seen or not seen))
    for put in puts:
        if put.outcome is Outcome.REFUSED and not bisect_right(winners, put.completed):
            yield f"W5 {path}: refused as taken at {put.completed:.3f}, when nobody had put it"


def _undecided(path: str, puts: Sequence[Put], reads: Iterable[Read], since: float) -> Iterator[str]:
    if any(put.outcome is Outcome.INFO for put in puts):
        last = {read.digest is None for read in reads if read.invoked >= since}
        if len(last) > 1:
            yield f"W7 {path}: there for one reader and absent for another, when all was over"
    for put in puts:
        if put.outcome is Outcome.OK:
            for read in reads:
                if read.invoked >= since and read.digest is None:
                    yield f"W8 {path}: receipted, and {read.reader or 'a reader'} does not find it in the end"
            return


# -- listings, copies, streams ----------------------------------------------------------------------------------------


def _of_listings(puts: Mapping[str, Sequence[Put]], history: History) -> Iterator[str]:
    receipts: dict[str, list[tuple[float, str, int]]] = defaultdict(list)  # by directory: when, name, size
    begun: dict[str, dict[str, float]] = defaultdict(dict)  # by directory: when the first put of each name began
    for path, each in puts.items():
        directory, name = _split(path)
        for put in each:
            if put.outcome is Outcome.OK:
                receipts[directory].append((put.completed, name, put.size))
            if put.may_be_stored:
                begun[directory][name] = min(put.invoked, begun[directory].get(name, inf))
    for waiting in receipts.values():
        waiting.sort()
    for listing in history.listings:
        known = begun[listing.directory]
        for name in listing.sizes:
            if known.get(name, inf) >= listing.completed:
                yield f"W6 {listing.directory}{name}: listed at {listing.completed:.3f}, and nobody had put it"
        if listing.complete:
            yield from _lacking(listing, receipts[listing.directory], history.collisions)


def _lacking(listing: Listed, receipts: Sequence[tuple[float, str, int]], collisions: frozenset[str]) -> Iterator[str]:
    due = bisect_right(receipts, listing.invoked - LISTED_AFTER_S, key=lambda receipt: receipt[0])
    for when, name, size in receipts[:due]:
        path = listing.directory + name
        if name not in listing.sizes:
            yield f"W6 {path}: not in the complete listing of {listing.invoked:.3f}, receipted at {when:.3f}"
        elif listing.sizes[name] != size and path not in collisions:
            yield f"W6 {path}: listed with {listing.sizes[name]} bytes, and has {size}"


def _of_copies(puts: Mapping[str, Sequence[Put]], history: History) -> Iterator[str]:
    if not history.final.copies and history.final.since == inf:
        return
    for path, each in puts.items():
        receipted = {put.digest for put in each if put.outcome is Outcome.OK}
        copies = history.final.copies.get(path, {})
        if receipted and not receipted & set(copies.values()):
            yield f"W8 {path}: receipted, and no node has it in the end"
        if path in history.collisions:
            continue
        strange = {node for node, digest in copies.items() if receipted and digest not in receipted}
        if strange:
            yield f"W8 {path}: other bytes than were receipted on {', '.join(sorted(strange))}"
        twins = max(
            Counter(put.digest for put in each if put.may_be_stored).values(), default=0
        )  # the same bytes put twice
        if len(copies) > max(history.final.copies_max, twins) and path not in history.doubled:
            yield f"W8 {path}: {len(copies)} copies where {history.final.copies_max} was asked for, and nobody said so"


def _of_stream(number: int, stream: Streamed) -> Iterator[str]:
    accepted = Counter(stream.accepted)
    ended = Counter(stream.delivered) + Counter(stream.reported)
    for path in sorted((accepted - ended).keys()):
        yield f"F {path}: accepted by stream {number}, and neither delivered nor reported"
    for path in sorted((ended - accepted).keys()):
        yield f"F {path}: stream {number} speaks of it {ended[path]} times, and accepted it {accepted[path]} times"


def _split(path: str) -> tuple[str, str]:
    directory, _, name = path.rpartition("/")
    return directory + "/", name


# -- kept histories ---------------------------------------------------------------------------------------------------


def kept(history: History, file: Path) -> str:
    """Write *history* to *file*; return the command that checks it again."""

    def plain(value: Any) -> Any:
        return value.value if isinstance(value, Enum) else sorted(value)

    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(history), default=plain))
    return f"python -m integration.history {file}"


def read(file: Path) -> History:
    """Return the history that `kept` wrote to *file*."""
    said = json.loads(file.read_text())
    return History(
        [Put(**{**put, "outcome": Outcome(put["outcome"])}) for put in said["puts"]],
        [Read(**each) for each in said["reads"]],
        [Listed(**each) for each in said["listings"]],
        [Streamed(**each) for each in said["streams"]],
        Final(**said["final"]),
        frozenset(said["collisions"]),
        frozenset(said["doubled"]),
    )


def main() -> None:
    """Check the history in the file that is the only argument; exit with 1 when it breaks a promise."""
    found = anomalies(read(Path(sys.argv[1])))
    print("\n".join((*found, f"{len(found)} anomalies")))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
