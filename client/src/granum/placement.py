"""Placement: which node gets the next put.

A placement is a pure function of the put, the nodes to choose from and the ledger: same inputs, same node. The ledger is
what the client remembers of its own writes; it knows nothing of other clients. *nodes* are those that can be written now, so
a node that goes away or is full is simply not among them; that a put goes back to the node that may have it already is not
decided here.

There are two kinds. A `Placement` is a plain function of the frame number (None for a put without one), the nodes and the
ledger. A `PutPlacement` has a method `choose`, which is given the whole `Put` instead of its number. Callers do not tell them
apart: they call `choose(placement, put, nodes, ledger)` of this module, which also checks what comes back.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import xxhash

from granum.room import Room
from granum.roster import Node
from granum.wire.errors import BadConfig, NoNode
from granum.wire.paths import ClusterPath

CHUNK_FRAMES = 50  # consecutive frames on one node: what PYME's acquisition does


@dataclass(slots=True)
class Ledger:
    """This client's writes: for each node, by its key, when it was last written and in which order."""

    _times: dict[str, float] = field(default_factory=dict)
    _order: dict[str, int] = field(default_factory=dict)
    _writes: int = 0

    def wrote(self, key: str, now: float) -> None:
        """Note a write to the node *key* at *now*, in seconds of the reactor's clock; later calls are later writes."""
        self._writes += 1
        self._times[key] = now
        self._order[key] = self._writes

    def last_write(self, key: str) -> float | None:
        """Return when the node *key* was last written; None when never."""
        return self._times.get(key)

    def order(self, key: str) -> int:
        """Return the place of the last write to *key* among all writes, counted from 1; 0 when there was none.

        Placement goes by this and not by time: two puts within one tick of a clock are still one after the other.
        """
        return self._order.get(key, 0)


@dataclass(frozen=True, slots=True)
class Put:
    """What a placement may know of a put: its *path*, its *size* in bytes, its frame's *number* (None without one)."""

    path: ClusterPath
    size: int
    number: int | None = None


Placement: TypeAlias = Callable[[int | None, Sequence[Node], Ledger], Node]


class PutPlacement(Protocol):
    """A placement that sees the whole put."""

    def choose(self, put: Put, nodes: Sequence[Node], ledger: Ledger) -> Node:
        """Return the node of *put*, one of *nodes*, which are at least one."""


AnyPlacement: TypeAlias = Placement | PutPlacement


def choose(placement: AnyPlacement, put: Put, nodes: Sequence[Node], ledger: Ledger) -> Node:
    """Return the node of *nodes* that *placement*, of either kind, chooses for *put*.

    Raises NoNode when there is none to choose from, BadConfig when a placement returns something else; what a caller's own
    placement raises goes through.
    """
    if not nodes:
        raise NoNode("there is no node to write to")
    sees_put = getattr(placement, "choose", None)
    chosen = sees_put(put, nodes, ledger) if sees_put is not None else placement(put.number, nodes, ledger)  # type: ignore[operator]  # told apart by the attribute, not by a type
    if chosen not in nodes:
        raise BadConfig(f"the placement chose {chosen!r} for {put.path}, which is none of the nodes it was given")
    return chosen


# -- by what this client wrote -----------------------------------------------------------------------------------------


def least_recently_written(number: int | None, nodes: Sequence[Node], ledger: Ledger) -> Node:  # noqa: ARG001
    """Return the node that this client has left unwritten longest, one never written first; ties go to the lowest key.

    This is the rule that PYME documents. Raises NoNode when *nodes* is empty.
    """
    if not nodes:
        raise NoNode("there is no node to write to")
    return min(nodes, key=lambda node: (ledger.order(node.key), node.key))


# -- by the number of the frame ----------------------------------------------------------------------------------------


def pyme_distribution(function: Callable[..., int]) -> Placement:
    """Return the placement that a distribution function of PYME makes: *function*(n_servers, i=frame number) -> index.

    The index counts the nodes in the order of their keys. Puts without a number go to the least recently written node.
    """

    def by_function(number: int | None, nodes: Sequence[Node], ledger: Ledger) -> Node:
        if number is None or not nodes:
            return least_recently_written(number, nodes, ledger)
        index = function(len(nodes), i=number)
        try:
            place = operator.index(index)
        except TypeError:
            place = -1
        if not 0 <= place < len(nodes):
            raise BadConfig(
                f"the distribution function gave {index!r} for frame {number} and {len(nodes)} nodes; "
                f"an index from 0 to {len(nodes) - 1} is expected"
            )
        return sorted(nodes, key=lambda node: node.key)[place]

    return by_function


def by_chunk(frames: int = CHUNK_FRAMES) -> Placement:
    """Return the placement of PYME's acquisition: *frames* consecutive frames go to one node, the next ones to the next."""
    if frames < 1:
        raise BadConfig(f"chunks of {frames} frames cannot be placed; at least 1 is expected")
    return pyme_distribution(lambda count, i: i // frames % count)


round_robin = by_chunk(1)  # frame i on node i % n, which is what PYME's streaming does by itself


# -- by the path -------------------------------------------------------------------------------------------------------


def _hash(node: Node, path: ClusterPath) -> int:
    """Return 64 bits that *node* and *path* have together: XXH3-64 of the node's key, a zero byte and the path."""
    return xxhash.xxh3_64_intdigest(node.key.encode() + b"\0" + str(path).encode())


class _ByHash:
    def choose(self, put: Put, nodes: Sequence[Node], ledger: Ledger) -> Node:  # noqa: ARG002
        return max(nodes, key=lambda node: (_hash(node, put.path), node.key))


by_hash: PutPlacement = _ByHash()
"""Rendezvous hashing: each node's key and the path are hashed together, and the highest hash has it.

Every client chooses the same node for a path, so two that race for one name meet there; when a node comes or goes, only what
lies on that node is placed otherwise.
"""


# -- by the nodes themselves -------------------------------------------------------------------------------------------


def pinned(*names: str) -> Placement:
    """Return the placement on the nodes *names* alone: node ids, names 'computer:port', 'address:port', or computers.

    Of several, the least recently written one is next. While none of them can be written it raises NoNode.
    """
    if not names:
        raise BadConfig("a pinned placement needs the name of at least one node")

    def on_these(number: int | None, nodes: Sequence[Node], ledger: Ledger) -> Node:
        meant = [node for node in nodes if not _names_of(node).isdisjoint(names)]
        if not meant:
            raise NoNode(f"no node named {' or '.join(names)} can be written now")
        return least_recently_written(number, meant, ledger)

    return on_these


def _names_of(node: Node) -> set[str]:
    return {node.key, node.name, node.name.partition(":")[0], node.host, node.address}


@dataclass(frozen=True, slots=True)
class SpaceAware:
    """Each node gets a share of the puts in proportion to the room it has, so that all fill up together.

    *room* tells what is known of a node's room. A node that takes no puts, or has no room for this one, gets nothing while
    another has some; one of which nothing is known yet counts as the least roomy.
    """

    room: Callable[[Node], Room | None]

    def choose(self, put: Put, nodes: Sequence[Node], ledger: Ledger) -> Node:
        """Return the node with the highest room / -ln(hash): weighted rendezvous hashing of the path."""
        rooms = {node.key: self.room(node) for node in nodes}
        open_ones = [node for node in nodes if _fits(rooms[node.key], put.size)]
        if not open_ones:  # let a node say so itself: its word is newer than ours
            return least_recently_written(put.number, nodes, ledger)
        least = min((room.free for node in open_ones if (room := rooms[node.key]) is not None), default=1)

        def score(node: Node) -> tuple[float, str]:
            room = rooms[node.key]
            chance = (_hash(node, put.path) + 0.5) / 2**64
            return (least if room is None else room.free) / -math.log(chance), node.key

        return max(open_ones, key=score)


def _fits(room: Room | None, size: int) -> bool:
    return room is None or (room.takes_puts and room.free > size)


# -- by name -----------------------------------------------------------------------------------------------------------

NAMED = ("least-recently-written", "round-robin", "chunk", "chunk:FRAMES", "hash", "space", "pinned:NODE,NODE")


def placement_named(text: str, room: Callable[[Node], Room | None] = lambda _: None) -> AnyPlacement:
    """Return the placement that *text* names, one of NAMED; raise BadConfig for another. *room* is for 'space'."""
    name, _, rest = text.strip().partition(":")
    if not rest:
        match name:
            case "least-recently-written":
                return least_recently_written
            case "round-robin":
                return round_robin
            case "chunk":
                return by_chunk()
            case "hash":
                return by_hash
            case "space":
                return SpaceAware(room)
    if name == "chunk" and rest.isascii() and rest.isdigit() and 0 < len(rest) < 10:
        return by_chunk(int(rest))
    if name == "pinned" and (nodes := [node.strip() for node in rest.split(",") if node.strip()]):
        return pinned(*nodes)
    raise BadConfig(f"there is no placement {text!r}; there are {', '.join(NAMED)}")
