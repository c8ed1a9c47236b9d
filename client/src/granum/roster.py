"""The roster: which nodes are in the cluster, as far as this client has heard, and which of them do not answer.

Identity is the node id, which survives a new address, port or process; a node that states none (PYME's, and any row of the
local registry) is known by its instance name, or by where it listens. Advertisements are hints: what several sources say of
one node is merged, and what was said last holds. A node leaves when no source advertises it any longer. One that failed
before it left has crashed rather than said goodbye: it stays among the missing for a while, so that a view goes on naming it.

Time is an argument, in seconds of a monotonic clock. Nothing here reads a socket.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from granum.room import Room
from granum.wire.advert import Advertisement

STATIC = "list"  # the source that a person wrote: trusted about nodes that do not tell their cluster
OTHERS_MAX = 16  # names of other clusters kept, for the error of one who has misspelt his own
MISSING_KEEP_S = (
    600.0  # by then a crashed machine has rebooted and checked its disks; later, its absence is no accident
)


@dataclass(frozen=True, slots=True)
class Node:
    """One node at one address. *key* is its node id, or the instance name of a node without one.

    *name* is for people, 'computer:port'. *node_id* is '' for a PYME node.
    """

    key: str
    name: str
    address: str
    port: int
    cluster: str
    node_id: str = ""

    @property
    def host(self) -> str:
        """Where it listens, 'address:port'."""
        return f"{self.address}:{self.port}"

    @property
    def url_base(self) -> str:
        """What a cluster path is appended to."""
        return f"http://{self.host}"

    def __str__(self) -> str:
        return self.name if self.name == self.host else f"{self.name} at {self.host}"


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node and how it does: the *sources* that advertise it now, when one last did, when it last answered.

    *cause* is why the node is missing; None while it is not. Times are seconds of the reactor's clock. *room* is what it can
    still take, as it last said itself; None when it was not asked.
    """

    node: Node
    sources: tuple[str, ...]
    heard: float
    answered: float | None
    cause: BaseException | None
    room: Room | None = None


@dataclass(slots=True)
class _Record:
    """What one source says under one instance name; *order* tells which record changed last."""

    advertisement: Advertisement
    order: int
    heard: float


@dataclass(slots=True)
class _Health:
    answered: float | None = None
    cause: BaseException | None = None
    failed: float = 0.0
    room: Room | None = None


@dataclass(frozen=True, slots=True)
class _Member:
    node: Node
    sources: tuple[str, ...]
    heard: float


class Roster:
    """The nodes of the cluster *cluster*; of every cluster when that is ''."""

    def __init__(self, cluster: str = "") -> None:
        self.cluster = cluster
        self._records: dict[tuple[str, str], _Record] = {}  # (source, instance) ->
        self._keys: dict[tuple[str, str], str] = {}  # whose each record is; worked out from the records
        self._members: dict[str, _Member] = {}  # advertised now; as well
        self._crashed: dict[str, _Member] = {}  # advertised no longer, but failed before they left
        self._health: dict[str, _Health] = {}
        self._order = 0
        self._others: set[str] = set()  # clusters that were heard and are not ours

    # -- what the sources say ------------------------------------------------------------------------------------------

    def heard(self, advertisement: Advertisement, source: str, now: float) -> None:
        """Take in what *source* says; another cluster's advertisement is ignored."""
        slot = (source, advertisement.instance)
        unnamed = source == STATIC and not advertisement.cluster
        if self.cluster and advertisement.cluster != self.cluster and not unnamed:
            if advertisement.cluster and len(self._others) < OTHERS_MAX:
                self._others.add(advertisement.cluster)
            self.gone(advertisement.instance, source, now)
            return
        known = self._records.get(slot)
        if known is not None and known.advertisement == advertisement:
            known.heard = now
            return
        if advertisement.node_id and source != STATIC:  # a node is one process: its former instance name is history
            self._records = {
                other: record
                for other, record in self._records.items()
                if other[0] != source or record.advertisement.node_id != advertisement.node_id
            }
        self._order += 1
        self._records[slot] = _Record(advertisement, self._order, now)
        self._settle(now)

    def gone(self, instance: str, source: str, now: float) -> None:
        """Note that *source* advertises *instance* no longer."""
        if self._records.pop((source, instance), None) is not None:
            self._settle(now)

    # -- what requests show --------------------------------------------------------------------------------------------

    def answered(self, key: str, now: float) -> None:
        """Note that the node *key* answered."""
        if key in self._members:
            health = self._health.setdefault(key, _Health())
            health.answered, health.cause, health.failed = now, None, 0.0

    def told(self, key: str, room: Room | None) -> None:
        """Note what the node *key* said of its room; None when it said nothing of it."""
        if key in self._members:
            self._health.setdefault(key, _Health()).room = room

    def failed(self, key: str, now: float, cause: BaseException) -> None:
        """Note that the node *key* did not answer; it is missing until it does."""
        if key in self._members:
            health = self._health.setdefault(key, _Health())
            health.cause, health.failed = cause, now

    def forget_missing(self, now: float) -> None:
        """Drop the crashed nodes that nobody has advertised for MISSING_KEEP_S since they failed."""
        for key in tuple(self._crashed):
            if now - self._health[key].failed >= MISSING_KEEP_S:
                del self._crashed[key], self._health[key]

    # -- what is known -------------------------------------------------------------------------------------------------

    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes that answer, as far as is known, sorted by key."""
        return tuple(state.node for state in self.states() if state.cause is None)

    def missing(self) -> Mapping[Node, BaseException]:
        """Return the nodes that are known and do not answer, each with the cause."""
        return {state.node: state.cause for state in self.states() if state.cause is not None}

    def states(self) -> tuple[NodeState, ...]:
        """Return every known node with its state, missing or not, sorted by key."""
        members = {**self._crashed, **self._members}
        names = Counter(member.node.name for member in members.values())
        states = []
        for key, member in sorted(members.items()):
            node, health = member.node, self._health.get(key, _Health())
            if names[node.name] > 1:  # two machines with one host name: a view must still name each
                node = replace(node, name=f"{node.name} [{key[:8]}]")
            states.append(NodeState(node, member.sources, member.heard, health.answered, health.cause, health.room))
        return tuple(states)

    @property
    def unproven(self) -> int:
        """The number of nodes that are advertised and have never answered."""
        return sum(self._health.get(key, _Health()).answered is None for key in self._members)

    def is_news(self, advertisement: Advertisement, source: str) -> bool:
        """Whether *advertisement* would bring a node of our cluster that is not known at all."""
        is_ours = not self.cluster or advertisement.cluster == self.cluster
        is_known = (source, advertisement.instance) in self._records or advertisement.node_id in self._members
        return is_ours and not is_known

    @property
    def other_clusters(self) -> tuple[str, ...]:
        """The names of other clusters that were heard of, at most OTHERS_MAX."""
        return tuple(sorted(self._others))

    def room(self, node: Node) -> Room | None:
        """Return what *node* last said of its room; None when it was not asked."""
        health = self._health.get(node.key)
        return health.room if health is not None else None

    def is_advertised(self, node: Node) -> bool:
        """Whether *node* is still advertised at that address."""
        member = self._members.get(node.key)
        return member is not None and member.node.host == node.host

    def key_of(self, instance: str, source: str) -> str | None:
        """Return the key of the node that *source* advertises as *instance*."""
        return self._keys.get((source, instance))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """Work out the nodes anew from the records; keep those that left after a failure."""
        self._keys = _keys(self._records)
        groups: dict[str, list[tuple[str, _Record]]] = {}
        for slot, record in self._records.items():
            groups.setdefault(self._keys[slot], []).append((slot[0], record))
        before, self._members = self._members, {key: _member(key, group) for key, group in groups.items()}
        for key, member in before.items():
            if key not in self._members and self._health.get(key, _Health()).cause is not None:
                self._crashed[key] = member
        hosts = {member.node.host for member in self._members.values()}
        instances = {instance for _, instance in self._records}
        for key, member in tuple(self._crashed.items()):
            renamed = not member.node.node_id and (key in instances or member.node.host in hosts)
            if key in self._members or renamed:
                del self._crashed[key]
        known = self._members.keys() | self._crashed.keys()
        self._health = {key: health for key, health in self._health.items() if key in known}
        self.forget_missing(now)


def _keys(records: Mapping[tuple[str, str], _Record]) -> dict[tuple[str, str], str]:
    """Return the identity behind each of *records*: a node id when any record of the same node has one."""
    named: dict[str, set[str]] = {}  # instance -> the node ids that records of that name state
    placed: dict[tuple[str, int], set[str]] = {}  # where a node listens -> the same
    there: dict[tuple[str, int], set[tuple[bool, str]]] = {}  # where -> instances, those of the list last
    for (source, instance), record in records.items():
        said = record.advertisement
        host = (said.address, said.port)
        there.setdefault(host, set()).add((source == STATIC, instance))
        if said.node_id:
            named.setdefault(instance, set()).add(said.node_id)
            placed.setdefault(host, set()).add(said.node_id)
    keys = {}
    for slot, record in records.items():
        said = record.advertisement
        host = (said.address, said.port)
        found = named.get(slot[1]) or placed.get(host)
        keys[slot] = said.node_id or (min(found) if found else min(there[host])[1])  # one port has one node
    return keys


def _member(key: str, group: Sequence[tuple[str, _Record]]) -> _Member:
    """Return the node behind the records in *group*: where it listens is what was said last."""
    latest = max((record for _, record in group), key=lambda record: record.order).advertisement
    told = max((record.advertisement for _, record in group), key=lambda said: (bool(said.cluster), said.node_id))
    host = f"{latest.address}:{latest.port}"
    name = host if told.computer == told.instance else f"{told.computer}:{latest.port}"
    node_id = max(record.advertisement.node_id for _, record in group)
    node = Node(key, name, latest.address, latest.port, told.cluster, node_id)
    return _Member(node, tuple(sorted({source for source, _ in group})), max(record.heard for _, record in group))
