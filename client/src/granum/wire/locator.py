"""Locators: the URIs that name a place in a cluster, 'granum://lab/series/frame00000.pzf'.

Three spellings are read: 'granum', 'pyme-cluster' (also as 'PYME-CLUSTER', which is what PYME writes) and 'pymecluster'.
The authority is the cluster name; the triple-slash form, 'granum:///path', means any cluster. Names stand as they are,
without percent-encoding, because PYME's do.
"""

import re
from dataclasses import dataclass

from granum.wire.errors import BadLocator
from granum.wire.paths import ROOT, ClusterPath

SCHEME = "granum"  # what granum itself writes; in lower case, which every library that matches schemes expects
CLUSTER_NAME_MAX = 32  # characters; keeps the closing bracket of an advertisement inside its 63 bytes

_LOCATOR = re.compile(r"(?:granum|pyme-cluster|PYME-CLUSTER|pymecluster)://([^/]*)(/.*)?", re.DOTALL)
_CLUSTER_NAME = re.compile(rf"[A-Za-z0-9_.\-]{{1,{CLUSTER_NAME_MAX}}}")


@dataclass(frozen=True, slots=True)
class Locator:
    """A place in a cluster; an empty *cluster* stands for every cluster that can be seen."""

    cluster: str
    path: ClusterPath = ROOT

    @classmethod
    def parse(cls, text: str) -> "Locator":
        """Return the place that the URI *text* names; raise BadLocator or BadPath."""
        found = _LOCATOR.fullmatch(text)
        if found is None:
            raise BadLocator(f"{text!r} is not a cluster address; write granum://CLUSTER/path")
        return cls(found[1], ClusterPath.parse(found[2] or ""))

    def __str__(self) -> str:
        return f"{SCHEME}://{self.cluster}{self.path}"


def is_locator(text: str) -> bool:
    """Whether *text* has the form of a cluster URI rather than of a plain path."""
    return _LOCATOR.fullmatch(text) is not None


def check_cluster_name(name: str) -> str:
    """Return *name* when a node may advertise it; raise BadLocator when it may not."""
    if _CLUSTER_NAME.fullmatch(name) is None:
        raise BadLocator(
            f"{name!r} cannot be a cluster name; use 1 to {CLUSTER_NAME_MAX} letters, digits, '_', '-' and '.'"
        )
    return name
