"""The control of R29: a server with the node's two timers on Twisted's stock clock, which is wall time.

It answers a bad request with 400, half-closes and resets the connection a while later, as the node does; and it closes
connections on which nothing moved for longer than the node would wait.
"""

import argparse

from twisted.internet import reactor, task
from twisted.internet.interfaces import IReactorCore, IReactorTCP, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure

from granum_node.http.limits import BODY_WINDOW_S
from granum_node.http.lingering import LINGER_S

CHECK_S = 1.0


class StockChannel(Protocol):
    """One connection; takes a put of any length as whole when as much has arrived as was announced."""

    def __init__(self, clock: IReactorTime, channels: "set[StockChannel]") -> None:
        self._clock = clock
        self._channels = channels
        self._seen = b""
        self._heard = clock.seconds()

    def connectionMade(self) -> None:
        """Join the connections that are checked."""
        self._channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Leave them."""
        self._channels.discard(self)

    def dataReceived(self, data: bytes) -> None:
        """Answer a whole put with 200 and what is no request with 400."""
        self._heard = self._clock.seconds()
        self._seen += data
        head, end, body = self._seen.partition(b"\r\n\r\n")
        if not end:
            return
        assert self.transport is not None
        if not head.startswith((b"PUT ", b"GET ")):
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.transport.loseWriteConnection()  # type: ignore[attr-defined]
            self._clock.callLater(LINGER_S, self.transport.abortConnection)  # type: ignore[attr-defined]
        elif len(body) >= int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0] or 0):
            self._seen = b""
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def check(self) -> None:
        """Abort a connection on which nothing has moved for too long."""
        if self._clock.seconds() - self._heard > BODY_WINDOW_S:
            assert self.transport is not None
            self.transport.abortConnection()  # type: ignore[attr-defined]


class StockFactory(ServerFactory):
    """Makes and checks the connections."""

    noisy = False

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._channels: set[StockChannel] = set()

    def buildProtocol(self, addr: object) -> StockChannel:  # noqa: ARG002
        """Return the protocol of a new connection."""
        return StockChannel(self._clock, self._channels)

    def check(self) -> None:
        """Check every connection."""
        for channel in tuple(self._channels):
            channel.check()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    clock, core, tcp = IReactorTime(reactor), IReactorCore(reactor), IReactorTCP(reactor)
    factory = StockFactory(clock)
    port = tcp.listenTCP(arguments.port, factory, interface="127.0.0.1")
    checks = task.LoopingCall(factory.check)
    checks.start(CHECK_S, now=False)
    where = f"http://127.0.0.1:{port.getHost().port}"  # type: ignore[attr-defined]
    core.callWhenRunning(print, f"granum-node stand-in serves {arguments.root} at {where} (cluster faults)", flush=True)
    core.run()


if __name__ == "__main__":
    main()
