"""The run: which servers meet, in which order, and what is kept of each meeting.

Every repetition starts every server afresh over an empty store and takes every cell once on each of them, one after the other,
so that a slow minute of the machine falls on all alike; who comes first changes with every cell and repetition.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from integration.bench import programs
from integration.bench.peers import Ceiling, Granum, Mode, Nginx, Peer, Pyme
from integration.bench.sample import SIZES, Cell, Failed, Sample, fill, load_disk, load_peer, verify

DURABILITIES = ("relaxed", "commit")
DIGEST = "xxh3-128"  # the node's default


@dataclass(frozen=True, slots=True)
class Contestant:
    """One line of the table in every cell of *verbs*; *make* is None for the writer without a server."""

    name: str
    place: str  # 'memory' or 'disk'
    mode: Mode
    verbs: tuple[str, ...]
    make: Callable[[Path, Path], Peer] | None
    absent: str = ""  # why it cannot run at all


@dataclass(slots=True)
class Results:
    """What was measured: the samples of every (cell, contestant) by repetition, and why others are missing."""

    samples: dict[tuple[str, str], dict[int, Sample]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def contestants(node_help: str) -> list[Contestant]:
    """Return everyone who takes part; *node_help* tells which modes this granum-node has."""
    has_durability, has_digest = "--durability" in node_help, "--digest" in node_help
    no_durability = "" if has_durability else "this granum-node has no --durability"
    no_digest = "" if has_digest else "this granum-node has no --digest; its goals are judged without one"
    digest = DIGEST if has_digest else "none"
    both = ("put", "get")
    modes = (
        ("granum relaxed", "memory", Mode("relaxed", digest), both, ""),
        ("granum relaxed, digest off", "memory", Mode("relaxed", "off"), ("put",), no_digest),
        ("granum commit", "disk", Mode("commit", digest), ("put",), no_durability),
    )
    own = [
        Contestant(name, place, mode, verbs, partial(Granum, mode=mode), absent)
        for name, place, mode, verbs, absent in modes
    ]
    none = Mode("none", "none")
    return [
        *own,
        Contestant("nginx", "memory", none, both, Nginx),
        Contestant("PYME", "memory", none, both, Pyme),
        Contestant("limit: recv+write", "memory", none, both, Ceiling),
        Contestant("limit: fsync'd writes", "disk", Mode("commit", "none"), ("put",), None),
    ]


def rotated(order: Sequence[Contestant], turn: int) -> list[Contestant]:
    """Return *order* beginning *turn* places later."""
    start = turn % len(order) if order else 0
    return [*order[start:], *order[:start]]


class Contest:
    """All repetitions of all *cells* among *present*; stores lie below *places*, by the names of places."""

    def __init__(
        self,
        present: Sequence[Contestant],
        cells: Sequence[Cell],
        places: dict[str, Path],
        seconds: float,
        say: Callable[[str], None],
    ) -> None:
        """Take samples of *seconds*; *say* is told what is under way."""
        self.results = Results()
        self._present = present
        self._cells = cells
        self._places = places
        self._seconds = seconds
        self._say = say
        self._body = places["memory"] / "body"

    def run(self, repetitions: int) -> Results:
        """Do it all; what cannot run is noted, and the rest goes on."""
        size = max(SIZES.values())
        with open("/dev/urandom", "rb") as noise:
            self._body.write_bytes(noise.read(size))
        for repetition in range(repetitions):
            self._say(f"repetition {repetition + 1} of {repetitions}")
            with self._started(repetition) as peers:
                for turn, cell in enumerate(self._cells):
                    for contestant in rotated(self._present, repetition + turn):
                        self._meet(cell, contestant, peers, repetition)
        return self.results

    @contextlib.contextmanager
    def _started(self, repetition: int) -> Iterator[dict[str, Peer]]:
        peers: dict[str, Peer] = {}
        roots = [place / "stores" for place in self._places.values()]
        with ExitStack() as running:
            for number, contestant in enumerate(self._present):
                if contestant.absent:
                    self.results.absent[contestant.name] = contestant.absent
                if contestant.make is None or contestant.name in self.results.absent:
                    continue
                root = self._places[contestant.place] / "stores" / str(number)
                try:
                    peer = running.enter_context(
                        contestant.make(root, self._places["memory"] / "stores" / f"{number}.scratch")
                    )
                    self._fill(contestant, peer, first=repetition == 0)
                    peers[contestant.name] = peer
                except programs.Absent as error:
                    self.results.absent[contestant.name] = str(error)
                except Failed as error:
                    self._fail(f"{contestant.name}, before timing: {error}")
            yield peers
        for root in roots:
            shutil.rmtree(root, ignore_errors=True)

    def _fill(self, contestant: Contestant, peer: Peer, *, first: bool) -> None:
        sizes = {cell.size for cell in self._cells if cell.verb in contestant.verbs and (first or cell.verb == "get")}
        if contestant.place == "disk":  # one size shows that it keeps what it was given; all of them would take minutes
            sizes = {min(sizes, key=SIZES.__getitem__)} if sizes else set()
        for size in sorted(sizes):
            fill(size, peer, f"stored-{size}", self._body)
            if first:
                verify(size, peer, f"stored-{size}", self._body)

    def _meet(self, cell: Cell, contestant: Contestant, peers: dict[str, Peer], repetition: int) -> None:
        if cell.verb not in contestant.verbs:
            return
        peer = peers.get(contestant.name)
        on_disk = contestant.place == "disk"
        directory = f"stored-{cell.size}" if cell.verb == "get" else f"put-{cell}".replace(" ", "-")
        try:
            if contestant.make is None:
                below = self._places["disk"] / "stores" / "synced"
                below.mkdir(parents=True, exist_ok=True)
                sample = load_disk(cell, below, self._body, self._seconds)
            elif peer is not None:
                sample = load_peer(cell, peer, directory, self._body, self._seconds, on_disk=on_disk)
            else:
                return
        except Failed as error:
            self._fail(f"{contestant.name}, {cell}: {error}")
            return
        if sample.errors:
            self._fail(f"{contestant.name}, {cell}: {sample.errors} replies were errors")
        self.results.samples.setdefault((str(cell), contestant.name), {})[repetition] = sample

    def _fail(self, what: str) -> None:
        self._say(f"FAILED {what}")
        self.results.failures.append(what)
