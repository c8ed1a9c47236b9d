"""How a connection is closed so that the peer can read its last answer.

Our half is shut first; what the peer still sends is dropped for a while, since a reset would take the answer away from it. A
peer that sends its whole body before it reads must find the answer behind it, so the wait goes on while something comes, up to
a bound.
"""

import socket
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

LINGER_S = 2.0  # of silence, for the peer to read our last answer before the connection is reset
LINGER_MAX_S = 30.0  # while it still sends


class Transport(Protocol):
    """What is closed."""

    def getHandle(self) -> socket.socket: ...  # noqa: D102, N802
    def resumeProducing(self) -> None: ...  # noqa: D102
    def abortConnection(self) -> None: ...  # noqa: D102, N802


class Lingering:
    """The end of one connection, by *clock*; it has not begun when made."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None
        self._until = 0.0
        self.max_s = LINGER_MAX_S

    @property
    def begun(self) -> bool:
        """Whether our half is shut."""
        return self._call is not None

    def begin(self, transport: Transport) -> None:
        """Shut our half of *transport*, and reset what is left of it in the end."""
        try:
            transport.getHandle().shutdown(socket.SHUT_WR)
        except OSError:
            transport.abortConnection()
            return
        transport.resumeProducing()
        self._until = self._clock.seconds() + self.max_s
        self._call = self._clock.callLater(LINGER_S, transport.abortConnection)

    def heard(self, now: float) -> None:
        """Wait on: the peer still sends."""
        if self._call is not None and self._call.active():
            self._call.reset(min(LINGER_S, max(0.0, self._until - now)))

    def end(self) -> None:
        """Wait no more: the connection is gone."""
        if self._call is not None and self._call.active():
            self._call.cancel()
