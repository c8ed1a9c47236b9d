"""The goals of the node, and which of them a run met. Pure.

A goal is a ratio to a peer or limit of the same run, never an absolute figure, but for memory and waiting. The node has its
default digest on unless the metric says otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from integration.bench.contest import Results
from integration.bench.listing import Listed
from integration.bench.report import Figure, Measured, median_of, ratio, requests
from integration.bench.sample import SHAPES, Cell

MEMORY_MIB = 80.0
MEMORY_MIB_PER_CONNECTION = 1.0
LAG_P99_MS = 20.0
LISTING, LISTING_STRETCH = 50.0, 100.0
RELAXED, UNHASHED, COMMIT = "granum relaxed", "granum relaxed, digest off", "granum commit"


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of requests/s that *ours* shall reach over *theirs* in every shape."""

    verb: str
    size: str
    ours: str
    theirs: str
    goal: float
    stretch: float


GOALS = (
    Goal("put", "8M", UNHASHED, "PYME", 1.0, 1.2),
    Goal("put", "8M", UNHASHED, "nginx", 0.95, 1.1),
    Goal("put", "8M", RELAXED, "nginx", 0.85, 1.0),
    Goal("put", "8M", RELAXED, "limit: recv+write", 0.7, 0.9),
    Goal("put", "64K", RELAXED, "PYME", 2.5, 3.5),
    Goal("put", "64K", RELAXED, "nginx", 0.85, 1.1),
    Goal("put", "1K", RELAXED, "PYME", 3.5, 5.0),
    Goal("put", "1K", RELAXED, "nginx", 0.8, 1.0),
    Goal("get", "8M", RELAXED, "PYME", 1.3, 1.5),
    Goal("get", "8M", RELAXED, "nginx", 1.0, 1.1),
    Goal("get", "64K", RELAXED, "PYME", 4.0, 6.0),
    Goal("get", "64K", RELAXED, "nginx", 0.8, 1.0),
    Goal("get", "1K", RELAXED, "PYME", 5.0, 9.0),
    Goal("get", "1K", RELAXED, "nginx", 0.5, 0.75),
    *(Goal("put", size, COMMIT, "limit: fsync'd writes", 0.8, 0.95) for size in ("8M", "1M", "64K", "1K")),
)
GET_CPU = Goal("get", "8M", RELAXED, "PYME", 0.5, 0.4)


def measured(results: Results, listed: Mapping[str, Sequence[Listed]]) -> Iterator[Measured]:
    """Yield every goal of which the run has both sides."""
    for goal in GOALS:
        yield from _ratios(results, goal, requests, "requests/s", at_most=False)
    yield from _ratios(results, GET_CPU, lambda sample: sample.cpu_s_per_gb, "CPU", at_most=True)
    yield from _memory(results)
    yield from _listings(listed)


def _ratios(results: Results, goal: Goal, figure: Figure, what: str, *, at_most: bool) -> Iterator[Measured]:
    for shape in SHAPES:
        cell = str(Cell(goal.verb, goal.size, shape))
        ours, theirs = (results.samples.get((cell, name)) for name in (goal.ours, goal.theirs))
        if ours and theirs:
            metric = f"{cell} {what}, {goal.ours}"
            yield Measured(metric, goal.theirs, *ratio(ours, theirs, figure), goal.goal, goal.stretch, at_most)


def _memory(results: Results) -> Iterator[Measured]:
    for (cell, name), samples in results.samples.items():
        if name.startswith("granum") and " 8M " in cell:
            shape = next(shape for shape in SHAPES if cell.endswith(str(shape)))
            bound = MEMORY_MIB + MEMORY_MIB_PER_CONNECTION * shape.connections
            peaks = [sample.peak_mib for sample in samples.values()]
            middle = median_of(samples, lambda sample: sample.peak_mib)
            metric = f"{cell} peak memory, {name}"
            yield Measured(metric, "-", middle, min(peaks), max(peaks), bound, bound, at_most=True, unit="MiB")


def _listings(listed: Mapping[str, Sequence[Listed]]) -> Iterator[Measured]:
    own, pyme = listed.get("granum"), listed.get("PYME")
    if own:
        waits = sorted(each.p99_ms for each in own)
        middle = waits[len(waits) // 2]
        metric = "healthz p99 while listing, granum"
        yield Measured(metric, "-", middle, waits[0], waits[-1], LAG_P99_MS, LAG_P99_MS, at_most=True, unit="ms")
    if own and pyme:
        single = sorted(theirs.cold_ms / ours.warm_ms for theirs, ours in zip(pyme, own, strict=False))
        middle = single[len(single) // 2]
        yield Measured("warm listing, granum", "PYME, cold", middle, single[0], single[-1], LISTING, LISTING_STRETCH)
