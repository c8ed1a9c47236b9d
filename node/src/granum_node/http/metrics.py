"""Metrics in the text format of Prometheus, and the two shapes that need more than a number.

Names end in their unit and begin with 'granum_'. No label ever holds a path, an address or anything else that peers make up:
a series of numbers per frame would cost more than the frames.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SYNC_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
LAG_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)

Labels = Mapping[str, str]


@dataclass(slots=True)
class Histogram:
    """How often a duration was at most each of *bounds*, in seconds, and the sum of all."""

    bounds: Sequence[float]
    sum: float = 0.0
    counts: list[int] = field(default_factory=list)  # one for each bound, one for what is above them all

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one duration; not to be called by two threads at once."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Exposition:
    """One page of metrics, family by family."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def gauge(self, name: str, text: str, value: float, labels: Labels | None = None) -> None:
        """Add a number that goes up and down."""
        self._family(name, text, "gauge", [(labels or {}, value)])

    def counter(self, name: str, text: str, value: float) -> None:
        """Add a number that only grows; its *name* ends in '_total'."""
        self._family(name, text, "counter", [({}, value)])

    def counters(self, name: str, text: str, values: Iterable[tuple[Labels, float]]) -> None:
        """Add numbers that only grow, told apart by their labels."""
        self._family(name, text, "counter", values)

    def histograms(self, name: str, text: str, values: Iterable[tuple[Labels, Histogram]]) -> None:
        """Add histograms, told apart by their labels."""
        self._head(name, text, "histogram")
        for labels, histogram in values:
            edges = [*map(repr, histogram.bounds), "+Inf"]
            for edge, below in zip(edges, accumulate(histogram.counts), strict=True):
                self._sample(f"{name}_bucket", {**labels, "le": edge}, below)
            self._sample(f"{name}_sum", labels, histogram.sum)
            self._sample(f"{name}_count", labels, sum(histogram.counts))

    def encode(self) -> bytes:
        """Return the page."""
        return "".join(f"{line}\n" for line in self._lines).encode()

    def _family(self, name: str, text: str, kind: str, values: Iterable[tuple[Labels, float]]) -> None:
        self._head(name, text, kind)
        for labels, value in values:
            self._sample(name, labels, value)

    def _head(self, name: str, text: str, kind: str) -> None:
        self._lines += [f"# HELP granum_{name} {text}", f"# TYPE granum_{name} {kind}"]

    def _sample(self, name: str, labels: Labels, value: float) -> None:
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        self._lines.append(f"granum_{name}{{{pairs}}} {value!r}" if pairs else f"granum_{name} {value!r}")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
