"""Placement: which node gets the next put.

A placement is a pure function of the frame number (None for a put without one), the nodes to choose from and the ledger:
same inputs, same node. The ledger is what the client remembers of its own writes; it knows nothing of other clients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from granum.roster import Node
from granum.wire.errors import NoNode


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


Placement: TypeAlias = Callable[[int | None, Sequence[Node], Ledger], Node]


def least_recently_written(number: int | None, nodes: Sequence[Node], ledger: Ledger) -> Node:  # noqa: ARG001
    """Return the node that this client has left unwritten longest, one never written first; ties go to the lowest key.

    This is the rule that PYME documents. Raises NoNode when *nodes* is empty.
    """
    if not nodes:
        raise NoNode("there is no node to write to")
    return min(nodes, key=lambda node: (ledger.order(node.key), node.key))
