"""Fetching: answers in whatever pieces they come, connections that are kept, and those that were closed meanwhile."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from granum.fetching import KEPT_CONNECTIONS, Fetcher
from granum.roster import Node
from granum.wire.errors import NodeError, NodeUnreachable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Two: 1\r\nX-Two: 2\r\n\r\nfirst"


class Server:
    """A server that answers each request with what the test hands it, in the pieces that it hands it in."""

    def __init__(self) -> None:
        self.answers: list[list[bytes] | None] = []  # None: close instead
        self.requests: list[bytes] = []
        self.connections: list[Any] = []
        factory = Factory.forProtocol(lambda: _Served(self))
        factory.noisy = False
        listen: Any = reactor
        self.port = listen.listenTCP(0, factory, interface="127.0.0.1")
        self.fetcher = Fetcher(reactor, 2.0)
        self.node = Node("k", "odd:1", "127.0.0.1", self.port.getHost().port, "lab")
        self.moves = 0

    def get(self, target: str = "/f", expect: Callable[[int], None] = lambda _: None, **headers: str) -> Deferred[Any]:
        def moved() -> None:
            self.moves += 1

        return Deferred.fromCoroutine(self.fetcher.get(self.node, target, headers, expect=expect, moved=moved))


class _Served(Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server

    def connectionMade(self) -> None:
        self._server.connections.append(self)

    def connectionLost(self, reason: Any = None) -> None:
        self._server.connections.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self._server.requests.append(data)
        self._send(self._server.answers.pop(0))

    def _send(self, pieces: list[bytes] | None) -> None:
        transport: Any = self.transport
        if pieces is None:
            transport.loseConnection()
        elif pieces:
            transport.write(pieces[0])
            reactor.callLater(0.002, self._send, pieces[1:])  # type: ignore[attr-defined]


@pytest_twisted.async_yield_fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    yield server
    await server.fetcher.close()
    await server.port.stopListening()
    while server.connections:
        await deferLater(reactor, 0.001, lambda: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "pieces",
    [[OK], [OK[:1], OK[1:]], [OK[:60], OK[60:]], [OK[:-3], OK[-3:]], [bytes([byte]) for byte in OK]],
    ids=["whole", "first byte", "in the head", "in the body", "byte by byte"],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_is_read_in_whatever_pieces_it_comes(server: Server, pieces: list[bytes]) -> None:
    server.answers = [pieces]
    answer = await server.get()
    assert (answer.status, answer.headers, answer.body) == (200, {"content-length": "5", "x-two": "1"}, b"first")


@pytest_twisted.ensureDeferred
async def test_a_request_names_host_headers_and_no_coding(server: Server) -> None:
    server.answers = [[OK]]
    await server.get("/a%20b", Range="bytes=0-4")
    host = f"127.0.0.1:{server.node.port}"
    expected = f"GET /a%20b HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: identity\r\nRange: bytes=0-4\r\n\r\n"
    assert server.requests == [expected.encode()]


@pytest_twisted.ensureDeferred
async def test_a_continue_is_passed_over(server: Server) -> None:
    server.answers = [[b"HTTP/1.1 100 Continue\r\n\r\n" + OK]]
    assert (await server.get()).body == b"first"


@pytest_twisted.ensureDeferred
async def test_a_connection_is_kept_for_the_next_question(server: Server) -> None:
    server.answers = [[OK], [OK]]
    await server.get()
    await server.get()
    assert len(server.connections) == 1


@pytest_twisted.ensureDeferred
async def test_at_most_so_many_connections_are_kept(server: Server) -> None:
    count = KEPT_CONNECTIONS + 3
    server.answers = [[OK[:-1], OK[-1:]] for _ in range(count)]
    for answer in [server.get() for _ in range(count)]:
        await answer
    while len(server.connections) > KEPT_CONNECTIONS:
        await deferLater(reactor, 0.001, lambda: None)  # type: ignore[arg-type]
    assert len(server.fetcher._kept[server.node.host]) == KEPT_CONNECTIONS


@pytest.mark.parametrize(
    "ending", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfirst", OK + b"more"]
)
@pytest_twisted.ensureDeferred
async def test_a_connection_that_ends_or_says_more_than_it_announced_is_not_kept(server: Server, ending: bytes) -> None:
    server.answers = [[ending]]
    assert (await server.get()).body == b"first"
    assert server.fetcher._kept.get(server.node.host, []) == []


@pytest_twisted.ensureDeferred
async def test_a_kept_connection_that_the_node_closes_unanswered_is_followed_by_a_new_one(server: Server) -> None:
    server.answers = [[OK], None, [OK]]
    await server.get()
    assert (await server.get()).body == b"first"
    assert len(server.requests) == 3


@pytest_twisted.ensureDeferred
async def test_a_new_connection_that_is_closed_unanswered_fails(server: Server) -> None:
    server.answers = [None]
    with pytest.raises(ConnectionClosed):
        await server.get()


@pytest_twisted.ensureDeferred
async def test_a_kept_connection_that_breaks_within_an_answer_fails_and_is_not_asked_twice(server: Server) -> None:
    server.answers = [[OK], [OK[:-2]]]
    await server.get()
    half = server.get()
    while server.moves < 2:
        await deferLater(reactor, 0.001, lambda: None)  # type: ignore[arg-type]
    server.connections[0].transport.loseConnection()
    with pytest.raises(ConnectionClosed):
        await half
    assert len(server.requests) == 2


@pytest_twisted.ensureDeferred
async def test_cancelling_closes_the_connection(server: Server) -> None:
    server.answers = [[OK[:-2]]]
    half = server.get()
    while not server.moves:
        await deferLater(reactor, 0.001, lambda: None)  # type: ignore[arg-type]
    half.cancel()
    with pytest.raises(CancelledError):
        await half
    while server.connections:
        await deferLater(reactor, 0.001, lambda: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", NodeUnreachable, "does not answer in HTTP: 'SSH-2.0"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", NodeUnreachable, "does not answer in HTTP: 'no colon'"),
        (b"x" * 70_000, NodeUnreachable, "its head does not end"),
        (b"HTTP/1.1 200 OK\r\n\r\n", NodeError, "does not say how long its answer is"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", NodeError, "does not say how long its answer is"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            NodeError,
            "does not say how long its answer is",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\n", NodeError, "it is coded as gzip"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_believed_is_refused(
    server: Server, answer: bytes, error: type[Exception], text: str
) -> None:
    server.answers = [[answer]]
    with pytest.raises(error, match=text):
        await server.get()


@pytest_twisted.ensureDeferred
async def test_a_length_that_is_refused_ends_the_exchange_before_the_body(server: Server) -> None:
    def expect(length: int) -> None:
        raise NodeError(f"{length} bytes are too many")

    server.answers = [[OK[:-5]]]
    with pytest.raises(NodeError, match="5 bytes are too many"):
        await server.get(expect=expect)


@pytest_twisted.ensureDeferred
async def test_a_closed_fetcher_has_no_connections_and_can_go_on(server: Server) -> None:
    server.answers = [[OK], [OK], [OK]]
    await server.get()
    await server.fetcher.close()
    assert not server.fetcher._open
    await server.get()
    await server.get()
    assert len(server.fetcher._open) == 1
