"""Re-routing: what becomes of an accepted put that came back without a receipt.

The rule: a put is sent again until a node receipts it, every node has refused it, or patience is over; it never ends twice,
and two copies of it are the same bytes. Where a put may be stored already it goes first, with its digest, which a node answers
with a receipt when it has these bytes; where the name is taken all the same, as on a PYME node, which knows no digests, what is
stored there is read back and compared. The digest is computed only then, and off the reactor for what is large.

Which node is next, and when it has room, the streamer decides; it takes from `returned`.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

import xxhash
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from granum.request import NeverBegun
from granum.streaming.account import Account, Piece, Put
from granum.streaming.lanes import Lane
from granum.transfer import Receipt, Transfer
from granum.wire.digest import XXH3, Digest
from granum.wire.errors import (
    AlreadyStored,
    Closed,
    GranumError,
    Misdirected,
    NodeBusy,
    NodeError,
    NodeTimeout,
    NoSpace,
    NotAllowed,
    NotStored,
    PreconditionFailed,
    TooSlow,
)

INLINE_BYTES_MAX = 1 << 20  # hashed on the reactor: a tenth of a millisecond, less than a thread costs
TAKEN = (AlreadyStored, PreconditionFailed)  # the name is: by others, or by this very put


class Meaning(Enum):
    """What a node's refusal says."""

    OF_THE_PUT = auto()  # every node would say so
    FOR_NOW = auto()  # the node takes nothing at the moment
    FOR_GOOD = auto()  # the node will not take this put
    UNKNOWN = auto()  # the node failed, and may have stored it


def meaning(error: BaseException) -> Meaning:
    """Return what *error*, a node's answer to a put, says."""
    match error:
        case NodeBusy() | TooSlow():
            return Meaning.FOR_NOW
        case NoSpace() | NotAllowed() | Misdirected():
            return Meaning.FOR_GOOD
        case NodeError():
            return Meaning.UNKNOWN
    return Meaning.OF_THE_PUT


def digest_of(pieces: Sequence[Piece]) -> Digest:
    """Return the digest of the file that *pieces* make up."""
    computed = xxhash.xxh3_128()
    for piece in pieces:
        computed.update(memoryview(piece).cast("B"))
    return Digest(XXH3, computed.hexdigest())


class Rerouting:
    """The puts on their way back. *changed* is called when one can be sent again, *receipted* for one found to be stored."""

    def __init__(
        self,
        account: Account,
        reactor: Any,
        changed: Callable[[], None],
        receipted: Callable[[Receipt, Put, Lane], None],
    ) -> None:  # Any: see Streamer
        self.returned: deque[Put] = deque()  # for any node
        self.has_homing = False  # whether one went home since the dispatch looked last
        self._account = account
        self._reactor = reactor
        self._changed = changed
        self._receipted = receipted
        self._comparing: set[Deferred[None]] = set()
        self._transfer: Transfer | None = None
        self._ended = False

    def failed(self, put: Put, lane: Lane, error: BaseException) -> None:
        """Take in that *put* came back from *lane*, given back by its channel or refused by its node."""
        put.lane_key, put.last = None, (lane.node, error)
        if self._ended:
            self._account.fail(put, lane.node, error)
            return
        if not put.is_back:
            put.is_back, put.since = True, self._reactor.seconds()
        channel = lane.channel
        if channel is not None and error is channel.cause:
            self._given_back(put, lane, error)
        elif isinstance(error.__cause__, NeverBegun):
            self.returned.append(put)
        else:
            self._refused(put, lane, error)

    def end(self) -> Deferred[None] | None:
        """Fail what comes back from now on; returns what closes the connections used for comparing, if any."""
        self._ended = True
        for comparing in tuple(self._comparing):
            comparing.cancel()
        self.returned.clear()
        transfer, self._transfer = self._transfer, None
        return transfer.close() if transfer is not None else None

    # -- private ------------------------------------------------------------------------------------------------------

    def _given_back(self, put: Put, lane: Lane, error: BaseException) -> None:
        """*put* was sent as a whole, so it may be stored: go home first, unless that is what was tried, or stalls."""
        goes_home = lane.node.key not in put.maybe and lane.failures == 0 and not isinstance(error, NodeTimeout)
        put.maybe[lane.node.key] = lane.node
        self._with_digest(put, lane if goes_home else None)

    def _refused(self, put: Put, lane: Lane, error: BaseException) -> None:
        key = lane.node.key
        if isinstance(error, TAKEN) and key in put.maybe:
            self._compare(put, lane, error)
            return
        match meaning(error):
            case Meaning.OF_THE_PUT:
                self._account.fail(put, lane.node, error)
                return
            case Meaning.UNKNOWN:
                put.maybe[key] = lane.node
                put.refused[key] = (lane.node, error)
                lane.set_aside(error, self._reactor.seconds())
                self._with_digest(put, None)
                return
            case Meaning.FOR_GOOD:
                put.refused[key] = (lane.node, error)
        lane.set_aside(error, self._reactor.seconds())
        self.returned.append(put)

    def _with_digest(self, put: Put, home: Lane | None) -> None:
        """Compute the digest of *put* if need be, then let it go *home*, or anywhere."""

        def go(digest: Digest) -> None:
            put.digest = digest
            if put.is_settled or self._ended:
                return
            if home is not None and home.failures <= 1:
                home.homing.append(put)
                self.has_homing = True
            else:
                self.returned.append(put)
            self._changed()

        if put.digest is not None:
            go(put.digest)
        elif put.size <= INLINE_BYTES_MAX:
            go(digest_of(put.pieces))
        else:
            pool = self._reactor.getThreadPool()
            deferToThreadPool(self._reactor, pool, digest_of, put.pieces).addCallback(go)

    def _compare(self, put: Put, lane: Lane, refusal: BaseException) -> None:
        """Find out whether what is stored under the name of *put* is this put."""

        async def compare() -> None:
            if self._transfer is None:
                self._transfer = Transfer(self._reactor)
            entry = await self._transfer.head(lane.node, put.path)
            if entry is None:
                raise NotStored(f"{put.path} is refused as stored by {lane.node.name}, which does not have it")
            is_same = entry.size in {-1, put.size} and not entry.is_directory
            if is_same:
                body = await self._transfer.get(lane.node, put.path)
                is_same = len(body) == put.size and digest_of([body]) == put.digest
            if put.is_settled:
                return
            if is_same:
                self._receipted(Receipt(put.path, lane.node, put.size, time.time(), ""), put, lane)
            else:
                self._account.fail(put, lane.node, refusal)

        def failed(failure: Any) -> None:
            if not put.is_settled:
                cause = Closed("the streamer was closed first") if self._ended else failure.value
                if isinstance(cause, GranumError) and not self._ended:  # not known, so ask another node to take it
                    put.refused[lane.node.key] = (lane.node, cause)
                    self.returned.append(put)
                    self._changed()
                else:
                    self._account.fail(put, lane.node, cause)

        def over(_: object) -> None:
            self._comparing.discard(comparing)

        comparing = Deferred.fromCoroutine(compare())
        self._comparing.add(comparing)
        comparing.addErrback(failed).addBoth(over)
