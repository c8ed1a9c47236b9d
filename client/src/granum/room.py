"""Room: how much a node can still take, as its status tells.

A granum node keeps its own reserve and says when only that is left. PYME's has none and fills its disk to the last byte, so
the client leaves it the reserve that a granum node would keep. Nothing here asks a node.
"""

from collections.abc import Mapping
from dataclasses import dataclass

RESERVE_SHARE = 0.01  # of a disk that keeps no reserve itself; what granum's nodes keep by default
RESERVE_BYTES_MIN = 1 << 30  # 1 GiB, as well


@dataclass(frozen=True, slots=True)
class Room:
    """What a node can take: *free* bytes, more or less; *takes_puts* is off while it is full, draining or failed."""

    free: int
    takes_puts: bool = True


def room_of(status: Mapping[str, object]) -> Room | None:
    """Return the room that a node's *status* tells of; None when it tells nothing that can be understood."""
    match status.get("Disk"):
        case {"free": int(free), "total": int(total)}:
            pass
        case _:
            return None
    own = status.get("Granum")
    if isinstance(own, dict):
        return Room(max(free, 0), own.get("writable") is not False)
    left = free - max(int(total * RESERVE_SHARE), RESERVE_BYTES_MIN)
    return Room(max(left, 0), left > 0)
