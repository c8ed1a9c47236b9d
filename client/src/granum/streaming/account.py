"""The account of a streamer: every put, from the moment it is handed over to its one outcome.

A put *waits* until a window, or the overflow, takes it, which accepts it. An accepted put is *outstanding* until it has its
receipt or has failed, or *overflowed* while it lies on the local disk only. The rule, at every moment: accepted = receipted +
failed + outstanding + overflowed; and what was not accepted was refused to its caller.

Nodes, channels and time are not known here: who decides is the streamer.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred

from granum.roster import Node
from granum.transfer import Receipt
from granum.wire.digest import Digest
from granum.wire.errors import NotReceipted
from granum.wire.paths import ClusterPath

PATHS_NAMED_MAX = 5  # in the sentence of an error; its attribute has them all

Piece: TypeAlias = bytes | memoryview
Token: TypeAlias = Any  # what an overflow calls a record; hashable


class Overflow(Protocol):
    """Where puts go that no window takes: a bounded place on the local disk."""

    @property
    def pending(self) -> int:
        """The number of records that are not delivered and can be read."""

    def room(self, size: int) -> bool:
        """Tell whether a record of *size* bytes may be appended now."""

    def append(self, path: ClusterPath, pieces: Sequence[Piece], number: int | None) -> Deferred[Token]:
        """Write a record; fires with its token when it is on the disk."""

    def next(self) -> Deferred[Any]:
        """Take out the oldest record not taken yet: (token, path, body, number), or None when there is none.

        Fails for one that is damaged, which is passed over from then on.
        """

    def delivered(self, token: Token) -> object:
        """Note that the record is stored on a node, or not wanted any more."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An accepted put that will have no receipt: *node*, if any had it last, and the cause."""

    path: ClusterPath
    node: Node | None
    cause: BaseException


@dataclass(frozen=True, slots=True)
class Moved:
    """A put receipted by *node* that the nodes in *maybe* may have stored as well: the same bytes, so it does no harm."""

    path: ClusterPath
    maybe: tuple[Node, ...]
    node: Node


@dataclass(frozen=True, slots=True)
class Summary:
    """What was receipted: number of puts, their bytes, puts by node name, and the durabilities that nodes stated.

    *moved* are the puts that may be stored twice; *refused* counts those that were not accepted because nothing had room.
    """

    puts: int
    bytes: int
    per_node: Mapping[str, int]
    durability: frozenset[str]
    moved: tuple[Moved, ...] = ()
    refused: int = 0

    @property
    def doubled(self) -> tuple[ClusterPath, ...]:
        """The paths of *moved*."""
        return tuple(moved.path for moved in self.moved)


@dataclass(slots=True, eq=False)
class Put:
    """One put. *since*: when it was handed over, or first came back from a node without a receipt.

    *maybe* are the nodes, by key, that may have stored it; *refused* those that will not, with the cause. *lane_key* is that
    of the node it is on its way to. *token* is its record in the overflow; *record* tells whether there is one.
    """

    serial: int
    path: ClusterPath
    pieces: Sequence[Piece]
    size: int
    number: int | None
    accepted: Deferred[Node | None]
    since: float
    is_accepted: bool = False
    is_settled: bool = False
    is_unwritten: bool = False  # the overflow failed to take it: it waits for a window
    is_back: bool = False  # came back from a node, so that `since` is the time of that
    sent_at: float = 0.0
    lane_key: str | None = None
    digest: Digest | None = None
    maybe: dict[str, Node] = field(default_factory=dict)
    refused: dict[str, tuple[Node, BaseException]] = field(default_factory=dict)
    last: tuple[Node, BaseException] | None = None  # who gave it back or refused it last, and why
    record: bool = False
    token: Token = None


class Account:
    """Counts puts and tells flushes. *held* is the number of bytes that accepted puts without a receipt keep in memory."""

    def __init__(self) -> None:
        self.unsettled: dict[int, Put] = {}  # waiting, outstanding and overflowed, by serial, oldest first
        self.overflowed: dict[Token, Put] = {}
        self.failed: list[Failed] = []
        self.moved: list[Moved] = []
        self.durability: set[str] = set()
        self.accepted = self.receipted = self.bytes = self.held = self.refused = 0
        self._serial = 0
        self._oldest = 1  # no serial before it is unsettled
        self._flushes: deque[tuple[int, Deferred[None]]] = deque()  # each waits for all serials up to its own

    @property
    def outstanding(self) -> int:
        """The number of accepted puts that are neither settled nor in the overflow."""
        return self.accepted - self.receipted - len(self.failed) - len(self.overflowed)

    @property
    def waiting(self) -> int:
        """The number of puts that are not accepted yet."""
        return len(self.unsettled) - (self.accepted - self.receipted - len(self.failed))

    def begin(
        self,
        path: ClusterPath,
        pieces: Sequence[Piece],
        number: int | None,
        now: float,
        withdraw: Callable[[Deferred[Node | None]], None] | None = None,
    ) -> Put:
        """Enter a put that waits; *withdraw* is called when its caller cancels it."""
        self._serial += 1
        size = sum([piece.nbytes if type(piece) is memoryview else len(piece) for piece in pieces])
        put = Put(self._serial, path, pieces, size, number, Deferred(withdraw), now)
        self.unsettled[put.serial] = put
        return put

    def accept(self, put: Put) -> None:
        """Count *put* as accepted, and as outstanding; its caller is told by whoever calls."""
        self.accepted += 1
        self.held += put.size
        put.is_accepted = True

    def overflow(self, put: Put, token: Token) -> None:
        """Note that *put*, accepted, lies on the local disk alone, as *token*."""
        put.record, put.token, put.pieces = True, token, ()
        self.overflowed[token] = put
        self.held -= put.size

    def take(self, token: Token, body: Piece) -> Put | None:
        """Return the put that lies in the overflow as *token*, outstanding again; None when it is not one of ours."""
        put = self.overflowed.pop(token, None)
        if put is not None:
            put.pieces = (body,)
            self.held += put.size
        return put

    def receipt(self, put: Put, receipt: Receipt) -> None:
        """Note the receipt of *put*."""
        self.receipted += 1
        self.bytes += receipt.size
        self.durability.add(receipt.durability)
        if put.maybe:
            maybe = tuple(node for key, node in put.maybe.items() if key != receipt.node.key)
            if maybe:
                self.moved.append(Moved(put.path, maybe, receipt.node))
        self._settle(put)

    def fail(self, put: Put, node: Node | None, cause: BaseException) -> None:
        """Note that *put*, accepted, will have no receipt."""
        if self.overflowed.get(put.token) is put:
            del self.overflowed[put.token]
            self.held += put.size
        self.failed.append(Failed(put.path, node, cause))
        self._settle(put)

    def refuse(self, put: Put, error: BaseException) -> None:
        """Tell the caller that *put* was not accepted."""
        self._settle(put)
        put.accepted.errback(error)

    def withdraw(self, put: Put) -> None:
        """Forget *put*, which its caller cancelled."""
        self._settle(put)

    def flushed(self) -> Deferred[None]:
        """Fire when every put so far is settled."""
        settled: Deferred[None] = Deferred()
        if self.unsettled:
            self._flushes.append((self._serial, settled))
        else:
            settled.callback(None)
        return settled

    def not_receipted(self) -> NotReceipted:
        """Return the error that names every put that failed."""
        paths = [str(failed.path) for failed in self.failed]
        causes: dict[str, BaseException] = {}
        for failed in self.failed:
            causes.setdefault(failed.node.name if failed.node is not None else "overflow", failed.cause)
        named = ", ".join(paths[:PATHS_NAMED_MAX])
        more = f" and {len(paths) - PATHS_NAMED_MAX} more" if len(paths) > PATHS_NAMED_MAX else ""
        return NotReceipted(f"{len(paths)} of {self.accepted} puts have no receipt: {named}{more}", paths, causes)

    def _settle(self, put: Put) -> None:
        """Forget *put*, whose outcome is known, and fire the flushes that waited for it last."""
        put.is_settled = True
        if put.is_accepted:
            self.held -= put.size
        put.pieces = ()
        del self.unsettled[put.serial]
        if not self._flushes:
            return
        # Counted and not looked up: the first key of a dict is behind the gaps of all that were deleted.
        while self._oldest <= self._serial and self._oldest not in self.unsettled:
            self._oldest += 1
        while self._flushes and self._flushes[0][0] < self._oldest:
            _, settled = self._flushes.popleft()
            if not settled.called:  # a flush may have been cancelled
                settled.callback(None)
