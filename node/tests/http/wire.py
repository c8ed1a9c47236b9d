"""A Twisted transport over one end of a socket pair, turned by hand: the reactor's part, without a reactor."""

# ruff: noqa: N802 - the names are Twisted's

import socket
from typing import Any


class Wire:
    """The transport of the thing under test; *peer* is the other end. Small buffers, so that sends are partial."""

    def __init__(self, buffer_bytes: int = 8192) -> None:
        self.ours, self.peer = socket.socketpair()
        for end in (self.ours, self.peer):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        self.producer: Any = None
        self.protocol: Any = None
        self.writing = self.aborted = self.lost = self.paused = False

    def close(self) -> None:
        self.ours.close()
        self.peer.close()

    # -- what the outbox and the channel call ---------------------------------------------------------------------

    def getHandle(self) -> socket.socket:
        return self.ours

    def setTcpNoDelay(self, on: bool) -> None:
        pass

    def startWriting(self) -> None:
        self.writing = True

    def abortConnection(self) -> None:
        self.aborted = True

    def loseConnection(self) -> None:
        assert self.producer is None, "Twisted never closes while a producer is registered"
        self.lost = True

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert not streaming
        self.producer = producer
        producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    # -- what a test calls ---------------------------------------------------------------------------------------

    def take(self, limit: int = 1 << 30) -> bytes:
        """Read as the peer up to *limit* bytes, turning the writing side like a reactor, until nothing more comes."""
        taken = bytearray()
        while len(taken) < limit:
            try:
                piece = self.peer.recv(min(65536, limit - len(taken)))
            except BlockingIOError:
                if not self.turn():
                    break
                continue
            except ConnectionError:
                break
            if not piece:
                break
            taken += piece
        return bytes(taken)

    def turn(self) -> bool:
        """Be the reactor that finds the socket writable; False when nobody waits for that."""
        waited, self.writing = self.writing, False
        if waited and self.producer is not None:
            self.producer.resumeProducing()
        return waited
