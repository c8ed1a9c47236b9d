"""Fetching: GETs on kept connections, one at a time on each, their answers read whole.

Twisted's client spends a millisecond on each request that reads a frame, and hands bodies on in small pieces; this spends a
tenth of it. It reads what nodes answer, PYME's too: a status line, headers, and a body as long as Content-Length says. Whatever
else comes is refused and ends the connection. Deadlines, and what errors mean, are `request`'s.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from granum.roster import Node
from granum.wire.errors import NodeError, NodeUnreachable

HEAD_BYTES_MAX = 1 << 16  # of an answer; nodes send some 400 bytes
RECEIVE_BYTES = 1 << 18  # taken from the socket at a time: a frame of 8 MiB in 32 pieces, not 128
KEPT_IDLE_S = 30.0  # below every node's own idle timeout
KEPT_CONNECTIONS = 8  # idle, for each node: as many as `transfer` uses at once
_CONTINUE = range(100, 200)  # statuses that another answer follows


@dataclass(frozen=True, slots=True)
class Answer:
    """A node's answer, whole; *headers* have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetcher:
    """GETs from nodes by *reactor*, each connection made within *connect_timeout_s*."""

    def __init__(self, reactor: Any, connect_timeout_s: float) -> None:  # Any: a reactor with TCP and time
        self._reactor = reactor
        self._connect_timeout_s = connect_timeout_s
        self._kept: dict[str, list[_Connection]] = {}
        self._open: dict[_Connection, None] = {}  # a set would be closed in another order each time
        self._closed: Deferred[None] | None = None

    async def get(
        self,
        node: Node,
        target: str,
        headers: Mapping[str, str],
        *,
        expect: Callable[[int], None],
        moved: Callable[[], None],
    ) -> Answer:
        """Return *node*'s answer to a GET of *target*.

        *expect* is told the length of its body and may raise; *moved* is called at every piece that comes.

        Raises what the connection fails with, NodeUnreachable for what is not HTTP, NodeError for an answer without a length.
        Cancelling closes the connection.
        """
        sent = {"Host": node.host, "Accept-Encoding": "identity", **headers}
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        question = _Question("\r\n".join([*lines, "", ""]).encode("ascii"), str(node), expect, moved)
        kept = self._kept.get(node.host, [])
        while kept:  # the node may have closed it meanwhile: then nothing of an answer comes, and another is tried
            try:
                return await self._talk(kept.pop(), question, node.host)
            except ConnectionClosed:
                if question.begun:
                    raise
        endpoint = TCP4ClientEndpoint(self._reactor, node.address, node.port, timeout=self._connect_timeout_s)
        made = await endpoint.connect(Factory.forProtocol(lambda: _Connection(self._ended)))
        connection = cast("_Connection", made)
        self._open[connection] = None
        return await self._talk(connection, question, node.host)

    def close(self) -> Deferred[None]:
        """Close every connection; fires when they are closed."""
        closed: Deferred[None] = Deferred()
        self._closed = closed
        for connection in tuple(self._open):
            connection.close()
        self._ended(None)
        return closed

    async def _talk(self, connection: "_Connection", question: "_Question", host: str) -> Answer:
        answer = await connection.ask(question)
        kept = self._kept.setdefault(host, [])
        if connection.is_reusable and len(kept) < KEPT_CONNECTIONS and self._closed is None:
            kept.append(connection)
            connection.keep(self._reactor, lambda: self._drop(connection, host))
        else:
            connection.close()
        return answer

    def _drop(self, connection: "_Connection", host: str) -> None:
        """Close a kept *connection* that was idle too long, or that the node has closed."""
        kept = self._kept.get(host, [])
        if connection in kept:
            kept.remove(connection)
        if not kept:
            self._kept.pop(host, None)
        connection.close()

    def _ended(self, connection: "_Connection | None") -> None:
        if connection is not None:
            self._open.pop(connection, None)
        if self._closed is not None and not self._open:
            closed, self._closed = self._closed, None
            closed.callback(None)


@dataclass(slots=True, eq=False)
class _Question:
    """One GET; *begun* once anything of its answer has come."""

    bytes: bytes
    node: str
    expect: Callable[[int], None]
    moved: Callable[[], None]
    begun: bool = False


@dataclass(slots=True, eq=False)
class _Body:
    """The body that is arriving: *left* bytes are still to come."""

    status: int
    headers: dict[str, str]
    left: int
    pieces: list[bytes] = field(default_factory=list)


class _Connection(Protocol):
    """One connection; *ended* is told of its end."""

    def __init__(self, ended: Callable[["_Connection"], None]) -> None:
        self.is_reusable = True
        self._ended = ended
        self._question: _Question | None = None
        self._answer: Deferred[Answer] | None = None
        self._head = b""
        self._body: _Body | None = None
        self._idle: IDelayedCall | None = None
        self._dropped: Callable[[], None] | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.bufferSize = RECEIVE_BYTES
        transport.setTcpNoDelay(True)

    def ask(self, question: _Question) -> Deferred[Answer]:
        """Send *question*, fire with the answer; cancelling closes the connection."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._question, self._head, self._body = question, b"", None
        answer: Deferred[Answer] = Deferred(lambda _: self.close())
        self._answer = answer
        transport: Any = self.transport
        transport.write(question.bytes)
        return answer

    def keep(self, clock: Any, dropped: Callable[[], None]) -> None:
        """Wait for another question; *dropped* is called when none comes in time, or the connection ends first."""
        self._dropped = dropped

        def expired() -> None:
            self._idle = None
            dropped()

        self._idle = clock.callLater(KEPT_IDLE_S, expired)

    def close(self) -> None:
        """End the connection."""
        self.is_reusable = False
        transport: Any = self.transport
        transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        question = self._question
        if question is None:  # nothing was asked: no node of ours does that
            self.close()
            return
        question.begun = True
        question.moved()
        try:
            if self._body is None:
                data = self._read_head(self._head + data, question)
            body = self._body
            if body is not None:
                self._read_body(body, data)
        except (NodeError, NodeUnreachable) as error:
            self._fail(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_reusable = False
        self._ended(self)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
            if self._dropped is not None:
                self._dropped()
        if self._answer is not None:
            answer, self._answer = self._answer, None
            if not answer.called:
                answer.errback(reason)

    def _read_head(self, data: bytes, question: _Question) -> bytes:
        """Take the head, once it is whole, and return what follows it."""
        while (end := data.find(b"\r\n\r\n")) >= 0:
            status, headers = _parsed(data[:end], question.node)
            data = data[end + 4 :]
            if status in _CONTINUE:
                continue
            length = headers.get("content-length", "")
            if not (length.isascii() and length.isdigit() and len(length) < 20) or "transfer-encoding" in headers:
                raise NodeError(f"node {question.node} does not say how long its answer is")
            coding = headers.get("content-encoding", "identity")
            if coding != "identity":
                raise NodeError(f"node {question.node} does not say how long its answer is: it is coded as {coding}")
            question.expect(int(length))
            self.is_reusable = headers.get("connection", "").lower() != "close"
            self._body = _Body(status, headers, int(length))
            return data
        if len(data) > HEAD_BYTES_MAX:
            raise NodeUnreachable(f"node {question.node} does not answer in HTTP: its head does not end")
        self._head = data
        return b""

    def _read_body(self, body: _Body, data: bytes) -> None:
        if len(data) > body.left:  # more than was announced: what it belongs to cannot be known
            self.is_reusable = False
            data = data[: body.left]
        body.pieces.append(data)
        body.left -= len(data)
        if body.left == 0 and self._answer is not None:
            answer, self._answer, self._question = self._answer, None, None
            whole = body.pieces[0] if len(body.pieces) == 1 else b"".join(body.pieces)
            self._body = None
            answer.callback(Answer(body.status, body.headers, whole))

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        self.close()
        if answer is not None:
            answer.errback(error)


def _parsed(head: bytes, node: str) -> tuple[int, dict[str, str]]:
    """Return the status and the headers in *head*, of several with one name the first; raise NodeUnreachable."""
    first, *rest = head.decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1.") or not status[:3].isdigit():
        raise NodeUnreachable(f"node {node} does not answer in HTTP: {first[:80]!r}")
    headers: dict[str, str] = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise NodeUnreachable(f"node {node} does not answer in HTTP: {line[:80]!r}")
        headers.setdefault(name.strip().lower(), value.strip())
    return int(status[:3]), headers
