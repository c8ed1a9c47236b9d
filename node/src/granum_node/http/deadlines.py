"""The deadlines of one connection, looked at about once a second: who is late, the request or the peer as a whole.

A head must arrive as a whole in time, a body must make progress, and a peer must take what is ready for it; between requests it
may be silent for long. What the node itself owes may take its time, and a time in which the node stood still counts for nobody.
Knows times and counts; what to do about them is the channel's affair.
"""

from enum import Enum

from granum_node.http.limits import HEAD_S, NODE_STALL_S, READER_STALL_S, Pace

IDLE_S = 600.0  # between requests; PYME's clients keep connections open over an experiment's pauses


class Late(Enum):
    """Who is late."""

    NOBODY = "everything moves"
    REQUEST = "the request that is arriving does not arrive in time"
    PEER = "the peer takes nothing, or has asked for nothing for long"


class Deadlines:
    """Times are in seconds of any one clock."""

    __slots__ = ("_checked", "_head_since", "_in_body", "_pace", "_sent_bytes", "heard")

    def __init__(self, now: float) -> None:
        self.heard = now  # when the peer last moved
        self._checked = now
        self._sent_bytes = 0  # as of the last look
        self._head_since: float | None = None  # the first byte of an unfinished head
        self._in_body = False
        self._pace = Pace(now)

    def head_waits(self, now: float) -> None:
        """Take note that a head is not whole yet."""
        if self._head_since is None:
            self._head_since = now

    def head_ends(self) -> None:
        """Take note that no head is unfinished."""
        self._head_since = None

    def body_begins(self, now: float) -> None:
        """Take note that body bytes are owed."""
        self._in_body = True
        self._pace.since, self._pace.arrived = now, 0

    def body_arrived(self, size: int) -> None:
        """Take note of *size* bytes of body."""
        self._pace.arrived += size

    def body_ends(self) -> None:
        """Take note that no body byte is owed any more."""
        self._in_body = False

    def look(self, now: float, sent_bytes: int, *, reading: bool, blocked: bool, unanswered: int) -> Late:
        """Return who is late.

        Requests count while the node is *reading* them. *sent_bytes* have left so far, more waits for the peer when *blocked*,
        and *unanswered* requests wait for the node.
        """
        lapse, self._checked = now - self._checked, now
        if lapse > NODE_STALL_S:
            self._excuse(lapse)
        if reading and self._head_since is not None and now - self._head_since >= HEAD_S:
            return Late.REQUEST
        if reading and self._in_body and self._pace.is_too_slow(now):
            return Late.REQUEST
        if self._sent_bytes != sent_bytes or (unanswered and not blocked):
            self._sent_bytes = sent_bytes
            self.heard = now
        return Late.PEER if now - self.heard > (READER_STALL_S if blocked else IDLE_S) else Late.NOBODY

    def _excuse(self, lapse: float) -> None:
        """Do not count the *lapse* in which the node itself stood still, and read nothing of what had arrived."""
        self.heard += lapse
        self._pace.since += lapse
        if self._head_since is not None:
            self._head_since += lapse
