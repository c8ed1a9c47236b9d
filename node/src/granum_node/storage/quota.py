"""Quotas: what one directory at the top of a store may hold, and what one address may put in an hour.

All are soft in bytes: puts are admitted while what is there and on its way is below the limit, so one put at most overshoots.
The number of files is exact. A directory counts what was measured and what was stored since. An address counts what it put,
and is forgiven at the rate of its limit in an hour, so a program that has run wild slows down and nobody is shut out for long;
nothing of it is kept over a restart. Pure: readings and time are handed in.
"""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from granum.wire.errors import NoSpace, OverQuota
from granum.wire.paths import ClusterPath
from granum_node.sizes import show_size

HOUR_S = 3600.0
ADDRESSES_MAX = 10_000  # a few hundred bytes each; beyond it those that are new share one quota
SITE_BITS = 64  # of an IPv6 address: a host has the rest to itself, and may take a new one for each put


class Quota(Protocol):
    """A limit that a put counts against."""

    def check(self, new_files: int) -> None:
        """Raise GranumError when neither a byte nor *new_files* more are admitted."""

    def begin(self, size: int) -> None:
        """Take note that a put of *size* bytes, as far as it is known, is admitted."""

    def grow(self, more: int) -> None:
        """Take note that an admitted put has *more* bytes than it announced."""

    def settle(self, announced: int, size: int, *, stored: bool) -> None:
        """Take note that a put that announced and grew to *announced* bytes is over; *size* arrived."""


class DirectoryQuota:
    """What the directory *name* at the top may hold: *limit* bytes and *limit_files* files; None for any number."""

    def __init__(self, name: str, limit: int | None, limit_files: int | None = None) -> None:
        self.name = name
        self.limit = limit
        self.limit_files = limit_files
        self.used = 0  # as measured, and stored since; too small until the first measurement, so not enforced before
        self.files = 0
        self.arriving = 0
        self.arriving_files = 0
        self._since = 0
        self._files_since = 0

    def check(self, new_files: int) -> None:
        """Raise NoSpace when the directory has used up its bytes, or has no place for *new_files* more."""
        if self.limit is not None and self.used + self.arriving >= self.limit:
            raise self._over(show_size(self.limit))
        if self.limit_files is not None and self.files + self.arriving_files + new_files > self.limit_files:
            raise self._over(f"{self.limit_files} files")

    def begin(self, size: int) -> None:
        """Count a put that begins."""
        self.arriving += size
        self.arriving_files += 1

    def grow(self, more: int) -> None:
        """Count what a put has beyond its announcement."""
        self.arriving += more

    def settle(self, announced: int, size: int, *, stored: bool) -> None:
        """Count a put that is over."""
        self.arriving -= announced
        self.arriving_files -= 1
        if stored:
            self.used += size
            self.files += 1
            self._since += size
            self._files_since += 1

    def begin_measuring(self) -> None:
        """Take note that the directory is measured from now on: what is stored meanwhile may or may not be seen."""
        self._since = self._files_since = 0

    def measured(self, size: int, files: int) -> None:
        """Take note of what was measured; what was stored meanwhile counts, perhaps twice, until the next time."""
        self.used = size + self._since
        self.files = files + self._files_since

    def _over(self, limit: str) -> NoSpace:
        return NoSpace(
            f"the directory /{self.name} has used up its quota of {limit} on this node; "
            "raise the quota or choose another directory"
        )


class AddressQuota:
    """What one address may put: *limit* bytes in an hour, by the monotonic *seconds*."""

    def __init__(self, limit: int, seconds: Callable[[], float]) -> None:
        self._limit = limit
        self._seconds = seconds
        self._used = 0.0
        self._arriving = 0
        self._puts = 0
        self._since = seconds()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held against the address."""
        return not self._puts and not self._settled()

    def check(self, new_files: int) -> None:  # noqa: ARG002 - an address has any number of files
        """Raise OverQuota when the address has put its share."""
        if self._settled() + self._arriving >= self._limit:
            raise OverQuota(
                f"your address has put the {show_size(self._limit)} that this node takes of one address in an hour; "
                "wait a moment for each next file, or put it on another node"
            )

    def begin(self, size: int) -> None:
        """Count a put that begins."""
        self._arriving += size
        self._puts += 1

    def grow(self, more: int) -> None:
        """Count what a put has beyond its announcement."""
        self._arriving += more

    def settle(self, announced: int, size: int, *, stored: bool) -> None:
        """Count a put that is over."""
        self._arriving -= announced
        self._puts -= 1
        if stored:
            self._used = self._settled() + size

    def _settled(self) -> float:
        now = self._seconds()
        self._used = max(0.0, self._used - (now - self._since) * self._limit / HOUR_S)
        self._since = now
        return self._used


@dataclass(slots=True)
class Quotas:
    """All quotas of one node: of *directories*, by name, and *per_address* bytes in an hour for each, None for any number."""

    directories: Mapping[str, DirectoryQuota] = field(default_factory=dict)
    per_address: int | None = None
    seconds: Callable[[], float] = float  # time stands still where no address has a quota
    _addresses: dict[str, AddressQuota] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        limits: Mapping[str, int],
        limits_files: Mapping[str, int],
        per_address: int | None,
        seconds: Callable[[], float],
    ) -> "Quotas":
        """Return the quotas of a node: bytes and files by directory, bytes in an hour for each address."""
        names = {**limits, **limits_files}
        directories = {name: DirectoryQuota(name, limits.get(name), limits_files.get(name)) for name in names}
        return cls(directories, per_address, seconds)

    def concerning(self, path: ClusterPath, peer: str) -> tuple[Quota, ...]:
        """Return those that a put of *path* from the address *peer* counts against; none for a *peer* ''."""
        if self.per_address is None and not self.directories:
            return ()
        return tuple(self._concerning(path, peer))

    def _concerning(self, path: ClusterPath, peer: str) -> Iterator[Quota]:
        if self.directories and len(path.parts) > 1 and path.parts[0] in self.directories:
            yield self.directories[path.parts[0]]
        if self.per_address is not None and peer:
            yield self._of_address(self.per_address, _site(peer))

    def _of_address(self, limit: int, site: str) -> AddressQuota:
        if site not in self._addresses and len(self._addresses) >= ADDRESSES_MAX:
            self._addresses = {name: quota for name, quota in self._addresses.items() if not quota.is_idle}
            if len(self._addresses) >= ADDRESSES_MAX:
                site = ""
        if site not in self._addresses:
            self._addresses[site] = AddressQuota(limit, self.seconds)
        return self._addresses[site]


def _site(peer: str) -> str:
    """Return what an address counts as: itself, or the network of an IPv6 host."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, SITE_BITS), strict=False))
