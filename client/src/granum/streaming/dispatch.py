"""The dispatch: which put is sent next, to which node, and what happens to one for which there is no room.

A put goes to the node that the placement chooses among those with room in their windows, so a slow node slows its own share
only. Order of service: puts that came back, then those that are kept in memory or wait, oldest first, then what lies in the
overflow, which uses the half of each window that fresh puts leave free. A put that no node takes waits until one does; it is
ended when every node has refused it, when no node was ever reached, or when nothing was receipted for as long as *patience* says.
"""

import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from granum.placement import AnyPlacement, Ledger
from granum.roster import Node
from granum.streaming.account import Account, Overflow, Put
from granum.streaming.channel import Channel, EndpointFactory
from granum.streaming.choice import Choice
from granum.streaming.lanes import Lane, Lanes, Nodes
from granum.streaming.rerouting import Rerouting
from granum.streaming.spilling import Spill
from granum.transfer import Receipt
from granum.wire.errors import Closed, GranumError, NodeBusy, NoNode, OnSomeNodes, OverflowUnusable

TICK_S = 0.25  # while something has no node: how soon a new, or returned, one is found
LOOKED_AT_MAX = 64  # kept puts for which a node is sought at a time: thousands may be kept, each for a node of its own
PUT_BYTES_MIN = 4096  # of memory for each put that is kept: it takes 1.5 KiB of objects beside its file
KEPT_MIN = 1024  # puts that may be kept however little memory there is

_log = Logger()

OnFull: TypeAlias = Literal["wait", "overflow", "raise"]


class Dispatch:
    """Sends the puts of *account*; the options are those of `Streamer`."""

    def __init__(
        self,
        account: Account,
        nodes: Nodes,
        *,
        reactor: Any,  # Any: see Streamer
        ledger: Ledger,
        placement: AnyPlacement,
        endpoint: EndpointFactory,
        window_bytes_max: int,
        window_puts_max: int,
        memory_bytes_max: int,
        on_full: OnFull,
        overflow: Overflow | None,
        patience: float,
        on_receipt: Callable[[Receipt], None],
    ) -> None:
        """*on_full* is what becomes of a put that neither a window nor *overflow*, if there is one, has room for."""
        self.lanes = Lanes(nodes, self, reactor, endpoint, window_bytes_max, window_puts_max)
        self._account = account
        self._reactor = reactor
        self._ledger = ledger
        self._choice = Choice(self.lanes, account, ledger, placement, memory_bytes_max)
        self._memory_bytes_max = memory_bytes_max
        self._puts_max = max(memory_bytes_max // PUT_BYTES_MIN, KEPT_MIN)
        self._refuses = on_full == "raise"
        self._patience = patience
        self._on_receipt = on_receipt
        self._rerouting = Rerouting(account, reactor, self.serve, self._receipted)
        self._spill: Spill | None = None
        if overflow is not None:
            self._spill = Spill(overflow, account, self._came_back, self.serve, self._not_written)
        self._kept: deque[Put] = deque()  # accepted into memory, and not sent yet
        self._waiting: deque[Put] = deque()  # not accepted
        self._tick: IDelayedCall | None = None
        self._progress_at = float("-inf")  # when the last receipt came, or the end was announced
        self._ends = self._ended = False

    # -- for the streamer ---------------------------------------------------------------------------------------------

    def begin(self, put: Put) -> None:
        """Send *put*, or let it wait, or end it."""
        if (self._kept or self._waiting or self._choice.is_full or not self._place(put)) and not self._divert(put):
            self._waiting.append(put)
            self._watch()

    def take(self, put: Put) -> None:
        """Accept *put*, for which the caller found memory, and send it as soon as a window has room."""
        self._account.accept(put)
        if self._kept or self._waiting or self._choice.is_full or not self._place(put):
            self._keep(put)

    def has_memory(self, size: int) -> bool:
        """Tell, on any thread, whether a put of *size* bytes would be accepted into memory now."""
        held, puts = self._account.held + size, len(self._account.unsettled) + 1
        return not self._ended and held <= self._memory_bytes_max and puts <= self._puts_max

    def withdraw(self, accepted: Deferred[Node | None]) -> None:
        """Forget the put whose caller cancelled *accepted*."""
        put = next(put for put in self._account.unsettled.values() if put.accepted is accepted)
        for queue in (self._waiting, *(lane.queue for lane in self.lanes)):
            if put in queue:
                queue.remove(put)
        self._account.withdraw(put)

    def finish(self) -> None:
        """From now on the overflow is drained with no more than patience."""
        self._ends = True
        self._progress_at = max(self._progress_at, self._reactor.seconds())
        self._watch()

    def end(self) -> list[Deferred[None]]:
        """Give up what is not settled and close the channels; returns what fires as each is closed."""
        self._ended = True
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if self._spill is not None:
            self._spill.end()
        comparing = self._rerouting.end()
        ended = [comparing] if comparing is not None else []
        self._waiting.clear()
        self._kept.clear()
        for put in tuple(self._account.unsettled.values()):
            if not put.is_accepted:
                self._account.refuse(put, Closed("the streamer was closed before the put was sent"))
            elif put.lane_key is None:  # else its channel gives it back below
                node, cause = put.last or (None, Closed("the streamer was closed first"))
                self._account.fail(put, node, cause)
        for lane in self.lanes:
            lane.queue.clear()
            lane.homing.clear()
            if lane.opening is not None:
                lane.opening.cancel()
            if lane.channel is not None:
                ended.append(_end_of(lane.channel))
                lane.channel.close()
        return ended

    # -- service ------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Send whatever there is room for, in the order of service."""
        if self._ended:
            return
        choice = self._choice
        choice.look_again()
        diverts = self._refuses or self._spill is not None
        for queue in (self._rerouting.returned, self._kept, self._waiting):
            place, most = 0, LOOKED_AT_MAX if queue is self._kept else sys.maxsize
            while place < min(len(queue), most) and (not choice.is_full or (diverts and queue is self._waiting)):
                put = queue[place]
                del queue[place]  # before it is sent, because its caller may then put again, or end everything
                if self._place(put) or (queue is self._waiting and self._divert(put)):
                    continue
                queue.insert(place, put)
                place += 1
        if self._rerouting.has_homing:
            for lane in self.lanes:
                self._send_home(lane)
            self._rerouting.has_homing = any(lane.homing for lane in self.lanes)
        spill = self._spill
        if spill is not None and spill.has_more and not self._rerouting.returned and self._has_spare_room():
            spill.take()
        self._watch()

    def _has_spare_room(self) -> bool:
        return self._choice.has_spare_room(self._reactor.seconds())

    def _watch(self) -> None:
        """Look again in a while, as long as something has no node."""
        if self._tick is None and not self._ended:
            spill = self._spill
            has_more = spill is not None and spill.has_more
            if has_more or self._waiting or self._kept or self._rerouting.returned:
                self._tick = self._reactor.callLater(TICK_S, self._look_again)

    def _look_again(self) -> None:
        self._tick = None
        self.lanes.changed()
        now = self._reactor.seconds()
        lost = self._ends and now - self._progress_at >= self._patience and not self.lanes.taking(now)
        if lost and self._spill is not None:
            self._spill.give_up(NoNode("no node takes puts; it is kept in the overflow"))
        self.serve()

    # -- from waiting to accepted -------------------------------------------------------------------------------------

    def _place(self, put: Put) -> bool:
        """Send *put* to a node with room, or end it when no node will have it; False when it has to wait."""
        now = self._reactor.seconds()
        try:
            try:
                lane = self._choice.lane_for(put, now)
            except NoNode:
                self._check_hope(put, now)
                return False
        except GranumError as error:
            if put.is_accepted:
                node, cause = put.last or (None, error)
                self._account.fail(put, node, cause)
            else:
                self._account.refuse(put, error)
            return True
        if lane is None:
            return False
        # Now and not with the receipt: a burst would go to one node, and slow nodes would look idle.
        self._ledger.wrote(lane.node.key, now)
        if lane.channel is None:
            lane.queue.append(put)
            self.lanes.open(lane)
        else:
            self._send(put, lane)
        return True

    def _check_hope(self, put: Put, now: float) -> None:
        """Raise OnSomeNodes when *put*, which no node takes now, need not wait for one."""
        if put.record and not self._ends:  # safe on the disk
            put.refused.clear()
            return
        if not put.is_accepted and self._overflow_for(put) is not None:
            return
        here = [lane for lane in self.lanes if not lane.has_left]
        if put.refused and here and all(lane.node.key in put.refused for lane in here):
            causes = {node.name: cause for node, cause in put.refused.values()}
            raise OnSomeNodes(f"{put.path} is refused by every node", causes)
        has_hope = self.lanes.were_reached or put.is_accepted  # else a wrong address would show after patience only
        if not has_hope or now - max(put.since, self._progress_at) >= self._patience:
            causes = {lane.node.name: lane.cause for lane in self.lanes if lane.cause is not None}
            raise OnSomeNodes(f"{put.path} was not sent: no node takes puts at the moment", causes)

    def _divert(self, put: Put) -> bool:
        """Do with *put*, for which no window has room, what the caller chose; False when it waits."""
        spill = self._overflow_for(put)
        if spill is not None:
            spill.append(put)
            return True
        has_memory = self._choice.fits(put) and len(self._account.unsettled) <= self._puts_max
        if self._refuses and self._spill is None and has_memory:
            self._account.accept(put)
            self._keep(put)
            put.accepted.callback(None)  # last: the caller may put again
            return True
        if self._refuses:
            self._account.refused += 1
            self._account.refuse(put, NodeBusy(f"{put.path} was refused: nothing has room for it now"))
            return True
        return False

    def _keep(self, put: Put) -> None:
        """Keep *put*, accepted, in memory until a window has room."""
        self._kept.append(put)
        self._watch()

    def _not_written(self, put: Put, error: BaseException) -> None:
        """Do with *put*, for which the overflow turned out to have no room, what the caller chose for that."""
        if self._refuses or not isinstance(error, OverflowUnusable):
            self._account.refused += 1
            self._account.refuse(put, error)
        else:
            put.is_unwritten = True
            self._waiting.appendleft(put)
            self._watch()

    def _overflow_for(self, put: Put) -> Spill | None:
        """Return what takes *put* to the local disk; None when nothing does."""
        spill = self._spill
        return spill if spill is not None and not put.is_unwritten and spill.room(put.size) else None

    # -- from accepted to settled -------------------------------------------------------------------------------------

    def _send(self, put: Put, lane: Lane) -> None:
        assert lane.channel is not None
        is_first = not put.is_accepted
        if is_first:
            self._account.accept(put)
        if lane.on_trial:
            self.lanes.changed()
        put.lane_key, put.sent_at = lane.node.key, self._reactor.seconds()
        outcome = lane.channel.put(put.path, put.pieces, put.digest)
        of = (put, lane)
        outcome.addCallbacks(self._receipted, self._failed, callbackArgs=of, errbackArgs=of)
        if is_first:
            self._choice.sent(lane, put.size)
            put.accepted.callback(lane.node)  # last: the caller may put again, and then comes back here

    def _send_home(self, lane: Lane) -> None:
        """Put again what the node of *lane* may have stored: one until that is receipted, then all."""
        while lane.homing and lane.channel is not None:
            is_busy = lane.on_trial and lane.channel.outstanding > 0
            if is_busy or not lane.channel.room(lane.homing[0].size):
                return
            self._send(lane.homing.popleft(), lane)
        if lane.homing and lane.opening is None:
            if self._reactor.seconds() >= lane.retry_at:
                self.lanes.open(lane)
            else:
                self._rerouting.returned.extend(lane.homing)
                lane.homing.clear()

    def _receipted(self, receipt: Receipt, put: Put, lane: Lane) -> None:
        now = self._progress_at = self._reactor.seconds()
        if lane.on_trial:
            self.lanes.changed()
        lane.receipt(now - put.sent_at)
        if put.record and self._spill is not None:
            self._spill.delivered(put)
        try:
            self._on_receipt(receipt)
        except Exception:  # noqa: BLE001 - of the program; the put has its receipt all the same
            _log.failure("on_receipt failed for {path}", path=receipt.path)
        self._account.receipt(put, receipt)
        if self._has_queue:
            # Receipts come in batches, and behind the first of one the window is full again.
            if lane.room(0) or self._choice.lacks_memory:
                self.serve()
        else:
            self._choice.is_full = False

    @property
    def _has_queue(self) -> bool:
        rerouting = self._rerouting
        waits = self._kept or self._waiting or rerouting.returned
        return bool(waits) or rerouting.has_homing or self._spill is not None

    def _failed(self, failure: Failure, put: Put, lane: Lane) -> None:
        assert failure.value is not None
        self._rerouting.failed(put, lane, failure.value)
        self.lanes.changed()
        self.serve()

    def _came_back(self, put: Put) -> None:
        """Send *put*, from the overflow, behind those that a node gave back."""
        put.since = self._reactor.seconds()
        self._rerouting.returned.append(put)

    # -- what lanes tell ----------------------------------------------------------------------------------------------

    def lane_opened(self, lane: Lane) -> None:
        """Send what was chosen for *lane* while it was being opened."""
        while lane.queue and lane.channel is not None and lane.channel.room(lane.queue[0].size):
            if not self._choice.fits(lane.queue[0]):
                break
            self._send(lane.queue.popleft(), lane)
        self._let_go(lane)
        self.serve()

    def lane_closed(self, lane: Lane, cause: BaseException | None) -> None:
        """Let go elsewhere what was chosen for *lane*, and what it may have stored if it was not to be reached again."""
        self._let_go(lane)
        if cause is not None and lane.failures > 1:
            self._rerouting.returned.extend(lane.homing)
            lane.homing.clear()
        self.serve()

    def _let_go(self, lane: Lane) -> None:
        """Take back what was chosen for *lane* and not sent."""
        self._rerouting.returned.extendleft(put for put in reversed(lane.queue) if put.is_accepted)
        self._waiting.extendleft(put for put in reversed(lane.queue) if not put.is_accepted)
        lane.queue.clear()


def _end_of(channel: Channel) -> Deferred[None]:
    """Fire when *channel* has ended; a Deferred of its own, because a cancelled wait must not cancel the account."""
    over: Deferred[None] = Deferred()
    channel.ended.addCallback(lambda _: over.callback(None))
    return over
