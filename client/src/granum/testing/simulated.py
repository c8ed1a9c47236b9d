"""Nodes and their network on a clock that a test moves: everything happens when it is told to, and nothing by itself.

A simulated node keeps files as a node does: once, and again only with the same digest. Its connections break at any moment,
with what has arrived stored or not; frozen, it takes what a kernel buffers and nothing more.
"""

# ruff: noqa: N802, N815, D102, FBT001, ARG002 - the doubles have the names and arguments that Twisted gives them

from collections.abc import Sequence
from typing import Any

from twisted.internet import error as network
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from granum.roster import Node
from granum.streaming.rerouting import digest_of
from granum.wire.digest import parse_header
from granum.wire.errors import error_for

BUFFER_BYTES = 4096  # what the kernel of a frozen node takes


class SimNode:
    """A node named *key*. *port* may change while it is down."""

    def __init__(self, clock: Clock, key: str) -> None:
        self.clock = clock
        self.key = key
        self.port = 1
        self.is_up = True
        self.is_frozen = False
        self.refusal: int | None = None  # the status that every put is answered with
        self.files: dict[str, bytes] = {}
        self.puts: list[str] = []  # the path of every put answered, or stored without an answer
        self.wires: list[SimWire] = []

    @property
    def node(self) -> Node:
        """The node as the roster has it."""
        return Node(self.key, self.key, "sim", self.port, "test", self.key)

    def answer(self, most: int = 1000) -> int:
        """Answer up to *most* puts that have arrived; return how many there were."""
        answered = 0
        while not self.is_frozen and answered < most:
            wire = next((wire for wire in self.wires if wire.has_request), None)
            if wire is None:
                break
            status = self._store(*wire.take_request())
            said = b"" if status == 200 else str(error_for(status)).encode()
            reply = b"HTTP/1.1 %d x\r\nContent-Length: %d\r\nGranum-Node: %s\r\n\r\n" % (
                status,
                len(said),
                self.key.encode(),
            )
            wire.protocol.dataReceived(reply + said)
            answered += 1
        return answered

    def break_off(self, *, stores: int = 0) -> None:
        """Break every connection; up to *stores* puts that have arrived are stored first, and their receipts lost."""
        for wire in tuple(self.wires):
            while stores and wire.has_request:
                self._store(*wire.take_request())
                stores -= 1
            wire.lose()

    def _store(self, path: str, digest: str, body: bytes) -> int:
        self.puts.append(path)
        if self.refusal is not None:
            return self.refusal
        if path in self.files:
            return 200 if parse_header(digest) == [digest_of([self.files[path]])] else 405
        if digest and parse_header(digest) != [digest_of([body])]:
            return 422
        self.files[path] = body
        return 200


class SimWire:
    """A transport and its socket, between a channel and a simulated node."""

    def __init__(self, node: SimNode, protocol: Any) -> None:
        self.node = node
        self.protocol = protocol
        self.arrived = b""
        self.producer: Any = None
        self.is_lost = False

    @property
    def has_request(self) -> bool:
        """Whether a whole put has arrived."""
        head, end, body = self.arrived.partition(b"\r\n\r\n")
        return bool(end) and len(body) >= int(_header(head, "content-length"))

    def take_request(self) -> tuple[str, str, bytes]:
        """Remove the oldest put; return its path, digest header and body."""
        head, _, rest = self.arrived.partition(b"\r\n\r\n")
        length = int(_header(head, "content-length"))
        self.arrived = rest[length:]
        return head.split(b" ")[1].decode(), _header(head, "granum-digest"), rest[:length]

    def sendmsg(self, pieces: Sequence[memoryview]) -> int:
        joined = b"".join(pieces)
        if self.node.is_frozen:
            joined = joined[: max(BUFFER_BYTES - len(self.arrived), 0)]
            if not joined:
                raise BlockingIOError
        self.arrived += joined
        return len(joined)

    def startWriting(self) -> None:
        self.node.clock.callLater(0.01 if self.node.is_frozen else 0, self._become_writable)

    def _become_writable(self) -> None:
        if self.producer is not None and not self.is_lost:
            self.producer.resumeProducing()

    def lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.node.wires.remove(self)
            self.protocol.connectionLost(Failure(network.ConnectionLost()))

    def abortConnection(self) -> None:
        self.node.clock.callLater(0, self.lose)

    loseConnection = abortConnection

    def getHandle(self) -> "SimWire":
        return self

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer
        producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None


class SimEndpoint:
    """Connects to the simulated node of a cluster that *known* says, if it listens there."""

    def __init__(self, clock: Clock, sim: SimNode, port: int) -> None:
        self.clock, self.sim, self.port = clock, sim, port

    def connect(self, factory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = Deferred(lambda _: call.cancel() if call.active() else None)

        def connect() -> None:
            if not self.sim.is_up or self.sim.port != self.port:
                connecting.errback(network.ConnectionRefusedError())
                return
            protocol = factory.buildProtocol(None)
            wire = SimWire(self.sim, protocol)
            self.sim.wires.append(wire)
            protocol.makeConnection(wire)
            connecting.callback(protocol)

        call = self.clock.callLater(0.001, connect)
        return connecting


def endpoint_to(sims: dict[str, SimNode]) -> Any:
    """Return the endpoint factory that a streamer of *sims*, by key, is given."""
    return lambda clock, node: SimEndpoint(clock, sims[node.key], node.port)


def _header(head: bytes, name: str) -> str:
    for line in head.decode().split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""
