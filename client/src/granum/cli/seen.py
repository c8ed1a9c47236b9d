"""What `granum doctor` has seen of a cluster and of its own machine. Values alone; what they mean `diagnosis` says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from granum.cli.rates import part
from granum.wire.advert import Advertisement

MDNS, REGISTRY, LIST = "mdns", "registry", "list"  # the sources


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node said when it was asked.

    *lead* is how far its clock is ahead of this machine's, in seconds, at least and at most; None when it tells no date.
    *may_put* tells whether this machine is allowed to write; None when the node was not asked or was not able to say.
    """

    status: Mapping[str, Any]
    node_id: str = ""
    lead: tuple[float, float] | None = None
    may_put: bool | None = None

    @property
    def own(self) -> Mapping[str, Any]:
        """What granum's nodes say beyond PYME's; empty for a PYME node."""
        return part(self.status, "Granum")


@dataclass(frozen=True, slots=True)
class Found:
    """One address where a node is said to listen, what *advertisements* say so, each by its source, and what came of asking.

    *failure* is a sentence that says why there is no answer. *is_closed* tells that a connection was made and closed unread.
    """

    address: str
    port: int
    advertisements: tuple[tuple[str, Advertisement], ...]
    answer: Answer | None = None
    failure: str = ""
    is_closed: bool = False

    @property
    def host(self) -> str:
        """Where it listens, 'address:port'."""
        return f"{self.address}:{self.port}"

    @property
    def sources(self) -> frozenset[str]:
        """Where it was heard of."""
        return frozenset(source for source, _ in self.advertisements)

    @property
    def cluster(self) -> str:
        """The name of its cluster; '' when it is not known."""
        return next((said.cluster for _, said in self.advertisements if said.cluster), "")

    @property
    def name(self) -> str:
        """What people call it, 'computer:port'."""
        computers = [said.computer for _, said in self.advertisements if said.computer != said.instance]
        return f"{computers[0]}:{self.port}" if computers else self.host

    @property
    def own_host(self) -> str:
        """Where it says itself that it listens: a node of several addresses is found at each, and is one."""
        match {} if self.answer is None else self.answer.status:
            case {"IPAddress": str(address), "Port": int(port)}:
                return f"{address}:{port}"
        return self.host

    def __str__(self) -> str:
        return self.name if self.name == self.host else f"{self.name} at {self.host}"


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory that ought to be a mount; *entries* is what it lists, at most a thousand, None when it does not answer."""

    path: str
    is_mounted: bool
    is_read_only: bool = False
    entries: int | None = None
    failure: str = ""
    is_forbidden: bool = False  # to the user who asks


@dataclass(frozen=True, slots=True)
class Gateway:
    """The mounts of a gateway: a branch for each node, of which *addresses* are known, and the union of them."""

    union: Mount
    branches: tuple[Mount, ...]
    addresses: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Share:
    """What answers where a share ought to be: *dialect* of SMB (0x0302 is 3.0.2), None when there is a *failure*."""

    host: str
    dialect: int | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was seen.

    *cluster* is the cluster that was asked for, '' when none was; *found* are its nodes, *other_clusters* what else was heard.
    *version* is the client's. *interfaces* are those that have multicast. *has_list* tells that the configuration
    lists nodes. *gateway* is None on a machine that is none.
    """

    cluster: str
    version: str
    found: tuple[Found, ...] = ()
    other_clusters: frozenset[str] = frozenset()
    discovers: bool = True
    has_list: bool = False
    interfaces: tuple[str, ...] = ()
    gateway: Gateway | None = None
    shares: tuple[Share, ...] = ()

    @property
    def answers(self) -> tuple[tuple[Found, Answer], ...]:
        """The nodes that answered, with their answers."""
        return tuple((found, found.answer) for found in self.found if found.answer is not None)
