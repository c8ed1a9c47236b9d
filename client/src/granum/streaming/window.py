"""The window: which puts are on their way to one node, bounded in number and in bytes.

A put enters when it is sent and leaves with its receipt, its refusal or the end of its channel. The rule kept here is that
the memory held by unreceipted puts stays below a bound, while a single put larger than the bound can still be sent: alone.
Order of entry is kept, because a node answers in that order.

The window knows neither who waits for room nor what a put holds.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# Two frames of 8 MiB, or four of 512 KiB, already keep a connection busy; deeper windows only add delay. Four of 8 MiB
# leave room for a node that syncs before it answers, and are what a client can hold for each of ten nodes.
WINDOW_BYTES_MAX = 32 << 20
# Small puts are bound by the round trip, not by bytes: 64 frames of 64 KiB reach the full rate of the sender.
WINDOW_PUTS_MAX = 64

Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True)
class Window(Generic[Key]):
    """Unreceipted puts by key, oldest first. *size* is the number of bytes that a put keeps in memory."""

    bytes_max: int = WINDOW_BYTES_MAX
    puts_max: int = WINDOW_PUTS_MAX
    _sizes: dict[Key, int] = field(default_factory=dict)
    _held: int = 0

    @property
    def size(self) -> int:
        """The bytes of all puts in the window."""
        return self._held

    @property
    def outstanding(self) -> tuple[Key, ...]:
        """The keys of all puts in the window, oldest first."""
        return tuple(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def room(self, size: int) -> bool:
        """Tell whether a put of *size* bytes may enter now; one of any size may enter an empty window."""
        return not self._sizes or (len(self._sizes) < self.puts_max and self._held + size <= self.bytes_max)

    def accept(self, key: Key, size: int) -> None:
        """Let a put enter; the caller has asked `room`. Raises ValueError when it may not, or is inside already."""
        if key in self._sizes or not self.room(size):
            raise ValueError("the put is in the window already, or the window has no room for it")
        self._sizes[key] = size
        self._held += size

    def release(self, key: Key) -> None:
        """Let a put leave, whatever its outcome was. Raises KeyError when it is not inside."""
        self._held -= self._sizes.pop(key)
