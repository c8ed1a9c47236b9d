"""What the rows about streams share: nodes, a recorded client, a camera that keeps its rate, a disturbance beside it, a verdict.

The camera is the calling thread; what happens to the nodes meanwhile runs in a thread of its own, whose failure is the row's.
"""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import granum
from granum.wire.errors import GranumError
from integration.faults.board import Bed, Outcome
from integration.faults.daemon import Daemon, Program, node
from integration.faults.waiting import pause
from integration.recorder import Recorded, RecordedSeries, Recorder, noise
from integration.simulation.bugs import plant

CLUSTER = "faults"
END_S = 60.0  # for a disturbance to be over


@dataclass(slots=True)
class Stage:
    """Nodes and who records what their clients see."""

    daemons: list[Daemon]
    recorder: Recorder = field(default_factory=Recorder)

    @property
    def stores(self) -> Mapping[str, Path]:
        """The store of each node."""
        return {f"node{number}": daemon.root for number, daemon in enumerate(self.daemons, 1)}

    @property
    def hosts(self) -> list[str]:
        """Where the nodes listen."""
        return [host_of(daemon) for daemon in self.daemons]

    @contextmanager
    def client(self, name: str = "client", hosts: Sequence[str] = (), **options: Any) -> Iterator[Recorded]:
        """Connect a recorded client to *hosts*, by default to all nodes; *options* are those of `granum.connect`."""
        where = list(hosts) or self.hosts
        given = {"discover": False, "bypass": False, "expect": len(where), **options}
        with granum.connect(CLUSTER, nodes=where, **given) as cluster:
            yield Recorded(cluster, self.recorder, name)

    def verdict(
        self, row: str, figure: str, held: Mapping[str, bool], since: float = float("inf"), *, sweeps: bool = True
    ) -> Outcome:
        """Return the outcome: *held* names what must be true; the histories and the daemons' logs are judged besides.

        A control has no *row*.
        """
        found = self.recorder.judged(row, self.stores if sweeps else None, since)
        broken = [what for what, is_true in held.items() if not is_true]
        tracebacks = sum(daemon.tracebacks() for daemon in self.daemons)
        if tracebacks:
            broken.append(f"{tracebacks} tracebacks in the nodes' logs")
        counted = f"{len(found[:-1] if row else found)} anomalies in {self.recorder.operations} operations"
        return Outcome(not found and not broken, f"{figure}; {counted}", (*broken, *found[-1:], *found[:-1]))


def host_of(daemon: Daemon) -> str:
    """Return where *daemon* listens, 'address:port'."""
    return f"{daemon.address[0]}:{daemon.address[1]}"


@contextmanager
def stage(
    bed: Bed, count: int, environment: Mapping[str, str] | None = None, program: Program | None = None
) -> Iterator[Stage]:
    """Start *count* nodes of one cluster, known to nobody but by their addresses; *program* runs in place of the node."""
    with ExitStack() as running:
        yield Stage(
            [
                running.enter_context(
                    Daemon(
                        program or node(),
                        bed.directory / f"store{number}",
                        bed.directory / f"daemon{number}",
                        environment=environment,
                    )
                )
                for number in range(1, count + 1)
            ]
        )


@dataclass(slots=True)
class Film:
    """How long each `store_frame` took, and what it failed with."""

    stalls_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        """What 99 % of the calls took at most."""
        return statistics.quantiles(self.stalls_s, n=100)[-1] if len(self.stalls_s) > 1 else 0.0

    @property
    def longest_s(self) -> float:
        """The longest call."""
        return max(self.stalls_s, default=0.0)


def film(series: RecordedSeries, numbers: Iterable[int], side: int, rate_hz: float = 0.0) -> Film:
    """Store a frame of *side* x *side* pixels for each of *numbers*, *rate_hz* a second; 0.0 for as fast as can be."""
    seen = Film()
    image = noise((side, side))
    due = time.monotonic()
    for number in numbers:
        image.flat[:2] = number & 0xFFFF, number >> 16
        began = time.monotonic()
        try:
            series.store_frame(number, image)
        except GranumError as error:
            seen.errors.append(f"frame {number}: {error}")
        seen.stalls_s.append(time.monotonic() - began)
        if rate_hz:
            due = max(due + 1 / rate_hz, time.monotonic() - 0.1)
            pause(due - time.monotonic())
    return seen


@contextmanager
def disturbed(disturb: Callable[[], None]) -> Iterator[threading.Thread]:
    """Run *disturb* beside the body, and to its end; raise what it failed with."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            disturb()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(END_S)
    if failures:
        raise failures[0]
    if thread.is_alive():
        raise RuntimeError("the disturbance does not end")


@contextmanager
def planted(bug: str, kind: type, name: str) -> Iterator[None]:
    """Plant the *bug* of `integration.simulation.bugs`, which replaces *name* of *kind*, for the body."""
    sound = getattr(kind, name)
    plant(bug)
    try:
        yield
    finally:
        setattr(kind, name, sound)


def while_alive(thread: threading.Thread, at_least: int, more: int = 0) -> Iterator[int]:
    """Yield 0, 1, … until *thread* has ended, but *at_least* so many; then *more*."""
    number = 0
    while thread.is_alive() or number < at_least:
        yield number
        number += 1
    yield from range(number, number + more)


def names_on_disk(roots: Iterable[Path], below: str) -> set[str]:
    """Return the names of the files in the directory *below* of any of *roots*."""
    found: set[str] = set()
    for root in roots:
        if (root / below).is_dir():
            found.update(os.listdir(root / below))
    return found
