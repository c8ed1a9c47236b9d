"""One connection to a fake node: bytes in, answers in order out, faults where they are due.

Requests are answered one after the other as they become whole, so answers cannot change places. When the end of a request
cannot be told, the answer is the last one and the connection closes; the closing waits for the client to read, because a
reset would take the answer with it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Literal, TypeAlias

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from granum.testing.answer import Answerer, Headers, Reply, error_reply, refusal
from granum.testing.request import Body, Head, body_of, take_head
from granum.wire.errors import GranumError, error_for

LINGER_S = 1.0  # for a client to read the last answer; longer than any loopback needs
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Fault: TypeAlias = int | Literal["drop", "silent", "cut"]


@dataclass(slots=True)
class Service:
    """What all connections to one fake node share.

    *always* are headers of every answer; *on_last_closed* is called whenever no connection is left.
    """

    reactor: Any  # zope's interfaces are opaque to mypy
    answerer: Answerer
    always: Headers
    on_last_closed: Callable[[], None]
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[tuple[Fault, str | None]] = field(default_factory=list)
    connections: "set[NodeConnection]" = field(default_factory=set)

    def due_fault(self, verb: str) -> Fault | None:
        """Return the fault that strikes the next request with *verb*, and use it up."""
        for place, (fault, wanted) in enumerate(self.faults):
            if wanted in {None, verb}:
                del self.faults[place]
                return fault
        return None

    def headers(self, *, closes: bool) -> Headers:
        """Return the headers that stand in every answer of this moment."""
        date = formatdate(self.reactor.seconds(), usegmt=True)
        return [*self.always, ("Date", date), *([("Connection", "close")] if closes else [])]


@implementer(IHalfCloseableProtocol)
class NodeConnection(Protocol):
    """One client's connection to the node behind *service*."""

    transport: Any  # the TCP transport: more than the interface that Protocol declares

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = bytearray()
        self._head: Head | None = None
        self._body: Body | None = None
        self._deaf = False
        self._linger: Any = None

    def connectionMade(self) -> None:
        """Twisted calls this when the connection is open."""
        self.transport.setTcpNoDelay(True)
        self._service.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Twisted calls this when the connection is closed; a body cut short is forgotten."""
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._service.connections.discard(self)
        if not self._service.connections:
            self._service.on_last_closed()

    def readConnectionLost(self) -> None:
        """Twisted calls this when the client has said its last word: what was answered is still sent."""
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Twisted calls this when the last answer is sent; the client closes next."""

    def dataReceived(self, data: bytes) -> None:
        """Twisted calls this with what has arrived."""
        self._buffer += b"" if self._deaf else data
        try:
            while not self._deaf and self._step():
                pass
        except GranumError as error:
            self._send(refusal(error), closes=True)

    def _step(self) -> bool:
        """Read one part of a request; False when more must arrive."""
        if self._head is None or self._body is None:
            head = take_head(self._buffer)
            if head is None:
                return False
            self._service.requests.append((head.verb, head.target.decode("latin-1")))
            self._head, self._body = head, body_of(head)
            if "expect" in head.headers and head.version != "HTTP/1.0":
                self._service.answerer.check(
                    head
                )  # raises: the final answer, for no one can tell whether a body follows
                self.transport.write(CONTINUE)
        head, body = self._head, self._body
        if not body.take(self._buffer):
            return False
        self._head = self._body = None
        self._finish(head, bytes(body.received))
        return True

    def _finish(self, head: Head, body: bytes) -> None:
        fault = self._service.due_fault(head.verb)
        if isinstance(fault, int):
            self._send(error_reply(fault, str(error_for(fault))), closes=head.closes)
        elif fault is None:
            self._send(self._service.answerer.answer(head, body), closes=head.closes)
        else:
            self._deaf = True
            if fault == "cut":
                self._send_half(self._service.answerer.answer(head, body))
            if fault != "silent":
                self.transport.loseConnection()

    def _send_half(self, reply: Reply) -> None:
        head, body = reply.head(self._service.headers(closes=False)), reply.sent_body()
        self.transport.write(head + body[: len(body) // 2] if body else head[: len(head) // 2])

    def _send(self, reply: Reply, *, closes: bool) -> None:
        self.transport.writeSequence([reply.head(self._service.headers(closes=closes)), reply.sent_body()])
        if closes:
            self._deaf = True
            self.transport.loseWriteConnection()
            self._linger = self._service.reactor.callLater(LINGER_S, self.transport.abortConnection)
