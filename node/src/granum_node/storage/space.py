"""Room: which puts a node still admits. The rule, over readings of the file system that are handed in.

A put is admitted only if the **reserve** of bytes and inodes is still there once everything admitted before has arrived: a
disk that is full to the brim cannot be repaired, and loses the receipts of all who write at that moment. What is known when
the head of a put has been read is decided then; a body of unknown length is watched while it grows. A node whose reserve is
reached is **full** until RECOVERY times the reserve is free, so that it does not flap at the edge.

The file system is read a few times a second and never for each put; in between, what was admitted is taken off the last
reading, so nothing is admitted twice. A put also counts against the **quotas** that concern it (`quota`). Nothing here reads
a disk, a clock or a directory by itself, and nothing is allocated ahead.
"""

from collections.abc import Callable
from dataclasses import dataclass

from granum.wire.errors import NoSpace
from granum.wire.paths import ClusterPath
from granum_node.sizes import Size, show_size
from granum_node.storage.quota import Quota, Quotas

READING_S = 0.25  # the age of a reading at most; others who write 1 GB/s take a quarter of the reserve meanwhile
RECOVERY = 1.2  # times the reserve must be free again before a full node takes puts


@dataclass(frozen=True, slots=True)
class Room:
    """A reading of a file system; free is what the node itself may still use. No *inodes* at all: it does not count them."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    inodes: int
    free_inodes: int


class Claim:
    """The room that one put was admitted for."""

    __slots__ = ("_space", "announced", "quotas", "size")

    def __init__(self, space: "Space", announced: int, quotas: tuple[Quota, ...]) -> None:
        self._space = space
        self.announced = announced
        self.quotas = quotas
        self.size = 0  # that has arrived

    def arrived(self, size: int) -> None:
        """Take note that *size* bytes are spooled; raise NoSpace or OverQuota when they are more than announced and too many."""
        self.size = size
        if size > self.announced:
            self._space.grow(self)

    def settle(self, *, stored: bool) -> None:
        """Take note that the put is over; the next reading shows what it took or left. May be called again."""
        self._space.settle(self, stored=stored)


class Space:
    """The room of one node; *read* reads the file system and *seconds* is monotonic time."""

    def __init__(
        self,
        read: Callable[[], Room],
        seconds: Callable[[], float],
        reserve: Size,
        reserve_inodes: int,
        quotas: Quotas | None = None,
    ) -> None:
        """Keep *reserve* and *reserve_inodes* free, and every put within the *quotas*."""
        self._read = read
        self._seconds = seconds
        self._reserve = reserve
        self._reserve_inodes = reserve_inodes
        self.quotas = quotas or Quotas()
        self._claims: set[Claim] = set()
        self._full = ""
        self._take(read())

    @property
    def full(self) -> str | None:
        """Why no put is admitted, as a sentence; None while puts are."""
        self._look()
        return self._full or None

    @property
    def room(self) -> Room:
        """The newest reading."""
        self._look()
        return self._room

    def admit(self, path: ClusterPath, size: int, peer: str = "") -> Claim:
        """Return the claim of a put of *size* bytes, 0 where it is not known, as *path* from the address *peer*.

        Raises NoSpace, or OverQuota for what the address has put already.
        """
        self._look()
        quotas = self.quotas.concerning(path, peer)
        for quota in quotas:
            quota.check(1)
        self._check(size)
        self._promised += size
        self._new_inodes += 1
        claim = Claim(self, size, quotas)
        self._claims.add(claim)
        for quota in quotas:
            quota.begin(size)
        return claim

    def grow(self, claim: Claim) -> None:
        """Have *claim* cover what has arrived; raise NoSpace or OverQuota when that is too much."""
        more = claim.size - claim.announced
        self._look()
        for quota in claim.quotas:
            quota.check(0)
        self._check(more)
        claim.announced = claim.size
        self._promised += more
        for quota in claim.quotas:
            quota.grow(more)

    def settle(self, claim: Claim, *, stored: bool) -> None:
        """Let go of *claim*."""
        if claim not in self._claims:
            return
        self._claims.remove(claim)
        for quota in claim.quotas:
            quota.settle(claim.announced, claim.size, stored=stored)

    def _look(self) -> None:
        if self._seconds() >= self._stale_at:
            try:
                room = self._read()
            except OSError:  # a disk that is gone fails the put itself, which says why
                room = self._room
            self._take(room)

    def _take(self, room: Room) -> None:
        self._room = room
        self._stale_at = self._seconds() + READING_S
        self._reserve_bytes = self._reserve.of(room.total_bytes)
        # Admitted since or before, and not on the disk as far as this reading shows.
        self._promised = sum(max(0, claim.announced - claim.size) for claim in self._claims)
        self._new_inodes = 0
        if self._is_below(RECOVERY if self._full else 1.0):
            self._full = self._reason()
        else:
            self._full = ""

    def _check(self, size: int) -> None:
        if self._full:
            raise NoSpace(self._full)
        left = self._room.free_bytes - self._promised - size
        if left >= self._reserve_bytes and not self._lacks_inodes(1.0, 1):
            return
        if self._is_below(RECOVERY):
            self._full = self._reason()
            raise NoSpace(self._full)
        # A smaller one still fits.
        raise NoSpace(f"the node has no room for {show_size(size)} more; free some or put it on another node")

    def _is_below(self, times: float) -> bool:
        free = self._room.free_bytes - self._promised
        return free < self._reserve_bytes * times or self._lacks_inodes(times, 0)

    def _lacks_inodes(self, times: float, more: int) -> bool:
        free = self._room.free_inodes - self._new_inodes - more
        return self._room.inodes > 0 and free < self._reserve_inodes * times

    def _reason(self) -> str:
        if self._lacks_inodes(1.0, 1):
            left = f"{self._room.free_inodes - self._new_inodes} inodes are free"
            needed = str(int(self._reserve_inodes * RECOVERY))
        else:
            left = f"{show_size(max(0, self._room.free_bytes - self._promised))} are free"
            needed = show_size(int(self._reserve_bytes * RECOVERY))
        return f"the node has no room left: {left}, and it takes puts again when {needed} are; free some or add a node"
