"""Metrics as nodes write them: Prometheus' text format, read into numbers. A line that cannot be read is passed over."""

import math
import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?[ \t]+(\S+)(?:[ \t]+-?[0-9]+)?[ \t]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n"}

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: how many durations were at most each of *bounds*, in seconds, ascending, the last of them infinite."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    def since(self, before: "Buckets | None") -> "Buckets | None":
        """Return what was added to *before*; None when they do not belong together, as after a restart."""
        if before is None or before.bounds != self.bounds:
            return None
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return (
            None
            if any(later < earlier for earlier, later in pairwise((0.0, *counts)))
            else Buckets(self.bounds, counts)
        )

    def quantile(self, part: float) -> float | None:
        """Return below which duration *part* (0 to 1) of them lie, as far as the bounds tell; None when there are none.

        Within a bucket they are taken to lie evenly, and none to lie beyond the last finite bound.
        """
        total = self.counts[-1] if self.counts else 0.0
        if not total:
            return None
        rank = part * total
        at = bisect_left(self.counts, rank)
        above = self.bounds[at]
        if math.isinf(above):
            return self.bounds[at - 1] if at else None
        below, count_below = (self.bounds[at - 1], self.counts[at - 1]) if at else (0.0, 0.0)
        inside = self.counts[at] - count_below
        return below + (above - below) * ((rank - count_below) / inside if inside else 1.0)


class Metrics:
    """The samples of one page."""

    def __init__(self, samples: Mapping[tuple[str, Labels], float]) -> None:
        self._samples = dict(samples)

    def value(self, name: str, /, **labels: str) -> float | None:
        """Return the sum of all samples *name* that have *labels*, whatever others they have; None when there are none."""
        wanted = labels.items()
        found = [value for (own, told), value in self._samples.items() if own == name and wanted <= told]
        return sum(found) if found else None

    def buckets(self, name: str, /, **labels: str) -> Buckets | None:
        """Return the histogram *name* that has *labels*; None when there is none."""
        wanted = labels.items()
        counts: dict[float, float] = {}
        for (own, told), value in self._samples.items():
            if own == f"{name}_bucket" and wanted <= told and (bound := _number(dict(told).get("le", ""))) is not None:
                counts[bound] = counts.get(bound, 0.0) + value
        if math.inf not in counts:
            return None
        bounds = tuple(sorted(counts))
        return Buckets(bounds, tuple(counts[bound] for bound in bounds))


def parse(page: str) -> Metrics:
    """Return what *page* tells."""
    samples: dict[tuple[str, Labels], float] = {}
    for line in page.split("\n"):
        found = _SAMPLE.fullmatch(line.strip())
        if found is None:  # a comment, too
            continue
        name, written, number = found.groups()
        labels, value = _labels(written or ""), _number(number)
        if labels is not None and value is not None:
            samples[name, labels] = value
    return Metrics(samples)


def _labels(written: str) -> Labels | None:
    labels: list[tuple[str, str]] = []
    at = 0
    while written[at:].strip():
        found = _LABEL.match(written, at)
        if found is None:
            return None
        labels.append((found[1], _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), found[2])))
        at = found.end()
    return frozenset(labels)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value
