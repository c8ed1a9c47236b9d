"""Places: what a user writes for a file or directory in a cluster.

A place is a plain cluster path, '/a/b' or 'a/b', or a locator, 'granum://lab/a/b'. The cluster that a locator names wins over
`--cluster`, and 'granum:///a' means any cluster. Nothing here looks anything up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click

from granum.wire.errors import BadLocator
from granum.wire.locator import Locator, is_locator
from granum.wire.paths import ClusterPath


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster path; *cluster* is the name in the locator it came from, None when it was written as a plain path.

    *slash* tells whether it ended in '/', which for the target of a copy means: below this.
    """

    path: ClusterPath
    cluster: str | None = None
    slash: bool = False

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Return the place that *text* names; raise BadPath or BadLocator."""
        slash = text.endswith("/")
        if is_locator(text) or "://" in text:  # the second is no path that anybody means: a misspelt scheme
            locator = Locator.parse(text)
            return cls(locator.path, locator.cluster, slash)
        return cls(ClusterPath.parse(text), None, slash)


def one_cluster(places: Iterable[Place], said: str | None) -> str | None:
    """Return the cluster of all *places*, *said* where none names one; raise BadLocator when they name several."""
    named = {place.cluster for place in places if place.cluster is not None}
    if len(named) > 1:
        raise BadLocator(f"one command talks to one cluster; these name {', '.join(sorted(map(repr, named)))}")
    return next(iter(named), said)


def to_place(_: click.Context, __: click.Parameter, value: str | Sequence[str]) -> Place | tuple[Place, ...]:
    """Return what the value of an argument names: click's callback, for one PATH or several."""
    return Place.parse(value) if isinstance(value, str) else tuple(map(Place.parse, value))
