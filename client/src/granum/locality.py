"""Locality: how much of a directory lies on which node, and what of it on this machine.

For whoever distributes an analysis: work goes where its frames are. The report is a value that `json.dumps` takes as it is,
by `as_json`. A file that has copies is counted on every node that has one. What is in directories below is not looked at.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from granum.roster import Node
from granum.union import UnionView
from granum.wire.listing import UNKNOWN_SIZE
from granum.wire.paths import ClusterPath

_FRAME = re.compile(r"frame(0\d{4}|[1-9]\d{4,9})\.pzf", re.ASCII)


def frame_number(name: str) -> int | None:
    """Return the number of the frame that a file *name* stands for; None for any other file."""
    found = _FRAME.fullmatch(name)
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Share:
    """What one node holds of a directory: the numbers of its *frames*, the names of its other *files*, *bytes* of both.

    *is_local* tells whether the node's store can be read on this machine.
    """

    node: Node
    is_local: bool
    frames: tuple[int, ...]
    files: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Locality:
    """The *shares* of the nodes that hold anything of *path*, by node key, and why others could not be asked."""

    path: ClusterPath
    shares: tuple[Share, ...]
    missing: Mapping[str, str]

    @property
    def bytes(self) -> int:
        """All bytes, copies counted each."""
        return sum(share.bytes for share in self.shares)

    def nodes_of(self, number: int) -> tuple[Node, ...]:
        """Return the nodes that hold the frame *number*, those on this machine first."""
        holders = [share for share in self.shares if number in share.frames]
        return tuple(share.node for share in sorted(holders, key=lambda share: not share.is_local))

    def as_json(self) -> dict[str, Any]:  # Any: JSON
        """Return the report in terms of JSON."""
        return {
            "path": str(self.path),
            "partial": bool(self.missing),
            "missing": dict(self.missing),
            "nodes": [
                {
                    "id": share.node.key,
                    "name": share.node.name,
                    "host": share.node.host,
                    "local": share.is_local,
                    "bytes": share.bytes,
                    "frames": list(share.frames),
                    "files": list(share.files),
                }
                for share in self.shares
            ],
        }


def locality_of(path: ClusterPath, view: UnionView, local: Collection[str]) -> Locality:
    """Return the locality that *view* of *path* shows; *local* are the keys of the nodes with a store on this machine."""
    nodes: dict[str, Node] = {}
    frames: dict[str, list[int]] = {}
    files: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for name, entry in view.items():
        if entry.is_directory:
            continue
        number = frame_number(name)
        for node in view.holders(name):
            nodes[node.key] = node
            if number is None:
                files.setdefault(node.key, []).append(name)
            else:
                frames.setdefault(node.key, []).append(number)
            sizes[node.key] = sizes.get(node.key, 0) + (0 if entry.size == UNKNOWN_SIZE else entry.size)
    shares = [
        Share(node, key in local, tuple(sorted(frames.get(key, ()))), tuple(files.get(key, ())), sizes[key])
        for key, node in sorted(nodes.items())
    ]
    return Locality(path, tuple(shares), {name: str(cause) for name, cause in view.missing.items()})
