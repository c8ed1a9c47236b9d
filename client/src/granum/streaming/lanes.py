"""The lanes: what the streamer knows of each node, and the one channel to it.

A lane opens when the first put goes there. A node that broke off, stalled or refused for its own sake is on trial: it is
avoided for a while that grows, then connected to without any put at stake, and gets one put at a time until that is receipted.
A node that has done nothing for AVOID_AFTER_S is left alone as well, though its channel waits on.

Nodes come and go with the roster, if there is one: a lane is kept for good, because a node may return, and on another port.
Which put goes to which lane is not decided here.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from granum.roster import Node
from granum.streaming.account import Put
from granum.streaming.channel import Channel, EndpointFactory, connect
from granum.streaming.pace import Pace, paced
from granum.wire.errors import NodeTimeout

AVOID_AFTER_S = 2.0  # twice what a busy disk syncs in; half of what a dead node may cost
NODE_RETRY_S = 10.0  # after a stall: to find out costs the put that is tried up to five seconds
RECONNECT_S = 0.5  # after a break or a refusal, and doubled each time: to find out costs no put anything
ROSTER_S = 0.25  # how often the roster is looked at: a node joins a running stream within this
LOOK_S = 0.05  # how often, without any event, the lanes are looked at: to do so for each put takes a third of its time

Nodes: TypeAlias = Iterable[Node] | Callable[[], Iterable[Node]]


@dataclass(slots=True, eq=False)
class Lane:
    """One node. *cause* is why it was last set aside, *failures* how often since its last receipt."""

    node: Node
    pace: Pace
    queue: deque[Put] = field(default_factory=deque)  # not accepted yet: its channel is being opened
    homing: deque[Put] = field(default_factory=deque)  # may be stored there: to be put again when it is reached
    opening: Deferred[Channel] | None = None
    channel: Channel | None = None
    cause: BaseException | None = None
    failures: int = 0
    retry_at: float = 0.0
    on_trial: bool = False
    has_left: bool = False  # the roster has it no longer: it said goodbye, or is missing
    was_short: bool = False  # a put found no room since the last receipt
    receipted: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether a put is on its way to the node, or waits for it."""
        return bool(self.queue or self.homing) or (self.channel is not None and self.channel.outstanding > 0)

    def takes(self, now: float) -> bool:
        """Tell whether puts may go there, if there is room."""
        if self.has_left:
            return False
        if self.on_trial:
            return now >= self.retry_at and self.channel is not None and self.channel.is_open and not self.is_busy
        return self.channel is None or (self.channel.is_open and self.channel.quiet < AVOID_AFTER_S)

    def room(self, size: int) -> bool:
        """Tell whether its window takes a put of *size* bytes, now or as soon as the channel is open."""
        if self.channel is not None:
            has_room = self.channel.room(size)
        else:
            window = self.pace.window
            held = sum(put.size for put in self.queue)
            has_room = not self.queue or (len(self.queue) < window.puts_max and held + size <= window.bytes_max)
        self.was_short = self.was_short or not has_room
        return has_room

    def has_spare_room(self, size: int) -> bool:
        """Tell whether the window would stay half empty: what can wait leaves the rest to what cannot."""
        window = self.pace.window
        halves = len(window) < max(window.puts_max // 2, 1) and window.size + size <= window.bytes_max // 2
        return self.room(size) and (halves or not len(window))

    def receipt(self, took: float) -> None:
        """Note a receipt: the node works, and its pace shows."""
        self.receipted += 1
        self.on_trial, self.failures, self.cause = False, 0, None
        self.pace.receipt(took, short=self.was_short and self.channel is not None and self.channel.has_sent)
        self.was_short = False

    def set_aside(self, cause: BaseException, now: float) -> None:
        """Put the lane on trial; a first break is tried at once, since most are of the network or of a restart."""
        self.failures += 1
        self.cause, self.on_trial = cause, True
        again = RECONNECT_S * 2 ** min(self.failures - 2, 10) if self.failures > 1 else 0.0
        self.retry_at = now + (NODE_RETRY_S if isinstance(cause, NodeTimeout) else min(again, NODE_RETRY_S))


class LaneUser(Protocol):
    """Who is told of the lanes."""

    def lane_opened(self, lane: Lane) -> None:
        """Its channel is open."""

    def lane_closed(self, lane: Lane, cause: BaseException | None) -> None:
        """Its channel ended, or could not be opened; *cause* is None when it was idle."""


class Lanes:
    """All lanes, by the key of their node. *nodes* are given once, or asked for whenever needed."""

    def __init__(
        self, nodes: Nodes, user: LaneUser, reactor: Any, endpoint: EndpointFactory, bytes_max: int, puts_max: int
    ) -> None:  # Any: see Streamer
        self.were_reached = False  # whether a channel was ever open
        self._by_key: dict[str, Lane] = {}
        self._roster = nodes if callable(nodes) else None
        self._user = user
        self._reactor = reactor
        self._endpoint = endpoint
        self._bounds = (bytes_max, puts_max)
        self._looked = self._taking_until = float("-inf")
        self._taking: list[Lane] = []
        if not callable(nodes):
            self._join(nodes)

    def __iter__(self) -> Iterator[Lane]:
        return iter(tuple(self._by_key.values()))

    def __getitem__(self, key: str) -> Lane:
        return self._by_key[key]

    def values(self) -> Iterator[Lane]:
        """Every lane, those that have left too."""
        return iter(self)

    def taking(self, now: float) -> list[Lane]:
        """Return the lanes that puts may go to; connects to those whose time on trial has come."""
        if now < self._taking_until:
            return self._taking
        self._look(now)
        taking = self._taking = []
        self._taking_until = now + LOOK_S
        for lane in self:
            if lane.takes(now):
                taking.append(lane)
            elif lane.on_trial and now >= lane.retry_at and (lane.homing or not lane.has_left):
                self.open(lane)
        return taking

    def changed(self) -> None:
        """Note that a lane does otherwise than when it was looked at last."""
        self._taking_until = float("-inf")

    def open(self, lane: Lane) -> None:
        """Open the channel of *lane* unless it has one."""
        if lane.channel is not None or lane.opening is not None:
            return

        def opened(channel: Channel) -> None:
            lane.opening, lane.channel, self.were_reached = None, channel, True
            self.changed()
            channel.ended.addCallback(ended)
            self._user.lane_opened(lane)

        def not_opened(failure: Failure) -> None:
            assert failure.value is not None
            lane.opening = None
            lane.set_aside(failure.value, self._reactor.seconds())
            self.changed()
            self._user.lane_closed(lane, failure.value)

        def ended(cause: BaseException | None) -> None:
            lane.channel = None
            self.changed()
            if cause is not None:  # else the node closed an idle connection, which is no fault
                lane.set_aside(cause, self._reactor.seconds())
            self._user.lane_closed(lane, cause)

        connecting = connect(lane.node, reactor=self._reactor, endpoint=self._endpoint, window=lane.pace.window)
        lane.opening = connecting  # before the callbacks, which may run at once
        connecting.addCallbacks(opened, not_opened)

    # -- the roster ---------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Ask the roster who is there, unless that was done a moment ago."""
        if self._roster is None or now - self._looked < ROSTER_S:
            return
        self._looked = now
        nodes = tuple(self._roster())
        self._join(nodes)
        there = {node.key for node in nodes}
        for lane in self:
            lane.has_left = lane.node.key not in there
            if lane.has_left and lane.channel is not None and not lane.is_busy:
                lane.channel.close()

    def _join(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            lane = self._by_key.get(node.key)
            if lane is None:
                self._by_key[node.key] = Lane(node, paced(*self._bounds))
            elif lane.node != node:
                if lane.node.host != node.host:
                    lane.retry_at = 0.0  # it has moved, so what went wrong at the old address says nothing
                lane.node = node
