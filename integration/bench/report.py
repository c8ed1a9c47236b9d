"""Tables in Markdown, so that what is printed can stand in a page as it is: the figures, and what they are measured against.

A figure is the median over the repetitions; a ratio is one of medians, with the least and greatest ratio of a single repetition
beside it. Pure: results in, text out.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from integration.bench.contest import Contestant, Results
from integration.bench.listing import Listed
from integration.bench.sample import Cell, Sample

LARGE_BYTES = 1 << 20  # from here on CPU is told per byte, below per request
Figure = Callable[[Sample], float]
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of one cell or directory, against its goal; *low* and *high* are of single repetitions."""

    metric: str
    against: str
    value: float
    low: float
    high: float
    goal: float
    stretch: float
    at_most: bool = False
    unit: str = "x"

    @property
    def met(self) -> str:
        """'stretch', 'yes' or 'no'."""
        for bar, word in ((self.stretch, "stretch"), (self.goal, "yes")):
            if (self.value <= bar) if self.at_most else (self.value >= bar):
                return word
        return "no"


def requests(sample: Sample) -> float:
    """Return the figure that servers are compared by."""
    return sample.requests_per_s


def median_of(samples: Mapping[int, S], figure: Callable[[S], float]) -> float:
    """Return the median of *figure* over the repetitions."""
    return statistics.median(figure(sample) for sample in samples.values())


def ratio(
    ours: Mapping[int, Sample], theirs: Mapping[int, Sample], figure: Figure = requests
) -> tuple[float, float, float]:
    """Return median over median, and the least and greatest ratio within one repetition."""
    return ratio_of(ours, theirs, figure)


def ratio_of(
    ours: Mapping[int, S], theirs: Mapping[int, S], figure: Callable[[S], float]
) -> tuple[float, float, float]:
    """Return the same of samples of any kind."""
    single = [figure(ours[number]) / figure(theirs[number]) for number in ours.keys() & theirs.keys()]
    return median_of(ours, figure) / median_of(theirs, figure), min(single), max(single)


def rows(results: Results, cells: Iterable[Cell], present: Sequence[Contestant], systems: Mapping[str, str]) -> str:
    """Return the table of figures; *systems* gives the file system of each place."""
    titles = (
        *("verb", "size", "shape", "server", "durability", "digest", "files on", "MB/s", "requests/s", "min-max %"),
        *("server CPU", "client CPU us", "peak MiB", "p50 ms", "p99 ms", "x nginx"),
    )
    lines = []
    for cell in cells:
        for contestant in present:
            samples = results.samples.get((str(cell), contestant.name))
            if samples:
                nginx = results.samples.get((str(cell), "nginx")) if contestant.place == "memory" else None
                lines.append(_row(cell, contestant, samples, nginx, systems[contestant.place]))
    return table(titles, lines, left=7)


def _row(
    cell: Cell, contestant: Contestant, samples: Mapping[int, Sample], nginx: Mapping[int, Sample] | None, system: str
) -> list[str]:
    def mid(figure: Figure) -> float:
        return median_of(samples, figure)

    rates = [sample.requests_per_s for sample in samples.values()]
    spread = f"{min(rates) / mid(requests) * 100 - 100:+.0f} {max(rates) / mid(requests) * 100 - 100:+.0f}"
    large = cell.bytes >= LARGE_BYTES
    cpu = f"{mid(lambda s: s.cpu_s_per_gb):.2f} s/GB" if large else f"{mid(lambda s: s.cpu_us_per_request):.0f} us"
    peak = mid(lambda s: s.peak_mib)
    return [
        *(cell.verb, cell.size, str(cell.shape), contestant.name, contestant.mode.durability, contestant.mode.digest),
        *(system, f"{mid(lambda s: s.megabytes_per_s):,.1f}", f"{mid(requests):,.0f}", spread, cpu),
        *(f"{mid(lambda s: s.client_us_per_request):,.0f}", f"{peak:.0f}" if peak else "-"),
        *(f"{mid(lambda s: s.p50_ms):.2f}", f"{mid(lambda s: s.p99_ms):.2f}"),
        f"{ratio(samples, nginx)[0]:.2f}" if nginx else "-",
    ]


def listing_rows(listed: Mapping[str, Sequence[Listed]]) -> str:
    """Return the table of listings."""
    titles = ("server", "cold ms", "warm ms", "MB", "healthz p99 idle", "p50 busy", "p99 busy", "longest busy")
    lines = []
    for name, each in listed.items():

        def mid(figure: Callable[[Listed], float], each: Sequence[Listed] = each) -> float:
            return statistics.median(map(figure, each))

        busy = (lambda x: x.idle_p99_ms, lambda x: x.p50_ms, lambda x: x.p99_ms, lambda x: x.max_ms)
        waits = [f"{mid(figure):.1f}" if mid(lambda x: x.p99_ms) else "-" for figure in busy]
        lines.append(
            [
                name,
                f"{mid(lambda x: x.cold_ms):.1f}",
                f"{mid(lambda x: x.warm_ms):.1f}",
                f"{each[0].bytes / 1e6:.1f}",
                *waits,
            ]
        )
    return table(titles, lines, left=1)


def target_rows(measured: Iterable[Measured]) -> str:
    """Return the table of goals."""
    titles = ("metric", "against", "measured", "min", "max", "goal", "stretch", "met")
    lines = []
    for each in measured:
        sign = "<=" if each.at_most else ">="
        lines.append(
            [
                *(each.metric, each.against, f"{each.value:.2f} {each.unit}", f"{each.low:.2f}", f"{each.high:.2f}"),
                *(f"{sign} {each.goal:g}", f"{sign} {each.stretch:g}", each.met),
            ]
        )
    return table(titles, lines, left=2)


def table(titles: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    """Return a Markdown table, its first *left* columns aligned to the left."""
    widths = [max(len(row[column]) for row in (titles, *lines)) for column in range(len(titles))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line(titles), line(rule), *map(line, lines)])
