"""Withholding: answers to PYME's streaming client wait until it has sent all it has.

PYME's streams put without Host and read answers in a thread that ends, when they are closed, with the answer it is at. What is
in the kernel then is thrown away as soon as one more answer comes unread: the connection is reset, and the last files are lost
with no error anywhere. So answers to such puts are kept until the peer has been silent for SILENCE_S, longer than a camera's
pauses between frames; and since that client gives up when nothing at all comes for 30 s, one answer leaves every ANSWER_S.

Silence is not what the node itself has made: while it reads nothing more, or has just stood still with bytes waiting, it goes on
withholding.

Knows times; what is kept, and what else makes it leave, is the outbox's affair.
"""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from granum_node.http.outbox import Outbox

SILENCE_S = 0.25  # 50 ms lost the last file of cameras that need 100 ms for a frame
ANSWER_S = 20.0


class Withholding:
    """The answers of *outbox*, by *clock*; *heard* tells when the peer last sent anything, now if we do not listen."""

    def __init__(self, outbox: Outbox, clock: IReactorTime, heard: Callable[[], float]) -> None:
        self._outbox = outbox
        self._clock = clock
        self._heard = heard
        self._answered = self._begun = 0.0
        self._is_sure = False
        self._call: IDelayedCall | None = None

    def begin(self) -> None:
        """Keep answers from now on, until the peer is silent; called for each put."""
        self._outbox.withholds = True
        self._begun = self._clock.seconds()
        if self._call is None:
            self._answered = self._begun
            self._call = self._clock.callLater(SILENCE_S, self._look)

    def end(self) -> None:
        """Look no more: the connection is gone."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        if not self._outbox.withholds:
            return
        now = self._clock.seconds()
        left = max(self._heard(), self._begun) + SILENCE_S - now
        if left <= 0 and self._is_sure:
            self._outbox.release()
            return
        self._is_sure = left <= 0  # the reactor calls before it reads: after a stall what has arrived is read first
        if now - self._answered >= ANSWER_S:
            self._answered = now
            self._outbox.release(1)
        self._call = self._clock.callLater(max(left, 0), self._look)
