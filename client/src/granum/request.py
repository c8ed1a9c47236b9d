"""One HTTP request to one node: sent, watched, its answer read whole.

Every request ends in bounded time, by a deadline on progress and one on the whole. Redirects are not followed, cookies not
kept, bodies not decoded, and a body that is shorter than announced is an error. What goes wrong on the way becomes
NodeUnreachable or NodeTimeout, naming node and address. What a status means is decided elsewhere.

GETs, which are most of all requests, go by `fetching`, the others by treq.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, cast

from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet import error as network
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import RequestNotSent  # no public name; `twisted.web.client` raises it
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from granum.fetching import KEPT_CONNECTIONS, KEPT_IDLE_S, Fetcher
from granum.patience import Patience
from granum.roster import Node
from granum.wire.errors import NodeError, NodeTimeout, NodeUnreachable

CONNECT_TIMEOUT_S = 2.0  # a node in the same building answers in milliseconds; two tries of SYN fit in
REACH_TIMEOUT_S = 10.0  # for a node that is missing, whom nobody waits for: the kernel knocks at 0, 1, 3 and 7 s
SYNC_RATE_MIN = (
    20 << 20
)  # bytes/s; what a put may take longer than STALL_TIMEOUT_S to be synced: a quarter of an old disk
WRITE_PIECE = 1 << 18  # bytes handed to the transport at a time


@dataclass(frozen=True, slots=True)
class Reply:
    """A node's answer, whole: *body* is b'' for a HEAD, *length* what Content-Length says (-1: nothing)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    length: int

    def header(self, name: str) -> str:
        """Return the first header *name*, in lower case; '' when there is none."""
        return self.headers.get(name, "")


class NeverBegun(Exception):
    """The request was waiting for its turn when its node failed."""


def was_sent(error: NodeUnreachable) -> bool:
    """Whether the request behind *error* may have reached the node; False when no connection was made."""
    unsent = (network.ConnectError, network.DNSLookupError, network.TimeoutError, RequestNotSent, NeverBegun)
    return not isinstance(error.__cause__, unsent)


class Requester:
    """Sends requests to nodes, on kept connections. *reactor* gives TCP, names, threads and time."""

    def __init__(self, reactor: Any) -> None:  # Any: zope's interfaces cannot be intersected in types
        self._clock = cast("IReactorTime", reactor)
        self._reactor = reactor
        self._fetcher = Fetcher(reactor, CONNECT_TIMEOUT_S)
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = KEPT_CONNECTIONS
        self._pool.cachedConnectionTimeout = KEPT_IDLE_S  # type: ignore[assignment]  # untyped class attribute, an int
        agent = Agent.usingEndpointFactory(reactor, _Endpoints(reactor), self._pool)
        no_cookies = IndexableCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
        self._client = HTTPClient(_PlainAgent(agent), no_cookies, data_to_body_producer=lambda producer: producer)

    async def request(
        self,
        verb: str,
        node: Node,
        target: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        body_bytes_max: int,
    ) -> Reply:
        """Return *node*'s answer to *verb* on *target*; one with a longer body than *body_bytes_max* is a NodeError.

        *headers* are sent beside those that every request has.

        Raises NodeUnreachable, NodeTimeout. Cancelling closes the connection.
        """
        patience = Patience(self._clock)
        if verb == "GET":
            exchange = Deferred.fromCoroutine(self._fetch(node, target, headers or {}, body_bytes_max, patience))
        else:
            exchange = Deferred.fromCoroutine(
                self._exchange(verb, node, target, body, headers, body_bytes_max, patience)
            )
        try:
            return await patience.watch(exchange)
        except (NodeError, NodeUnreachable):
            raise
        except Exception as error:
            if patience.expired:
                raise NodeTimeout(f"node {node} {patience.expired}") from error
            if _is_cancelled(error):
                raise CancelledError from error
            raise _unreachable(node, error) from error

    async def reach(self, node: Node) -> None:
        """Make a connection to *node* within REACH_TIMEOUT_S and close it; raise NodeUnreachable when there is none."""
        endpoint = TCP4ClientEndpoint(self._reactor, node.address, node.port, timeout=REACH_TIMEOUT_S)
        try:
            made = await connectProtocol(endpoint, Protocol())
        except network.ConnectError as error:
            raise NodeUnreachable(f"node {node} accepts no connection yet") from error
        if made.transport is not None:
            made.transport.loseConnection()

    def close(self) -> Deferred[None]:
        """Close the kept connections; fires when they are closed."""
        ends = [cast("Deferred[None]", self._pool.closeCachedConnections()), self._fetcher.close()]
        return DeferredList(ends, consumeErrors=True).addCallback(lambda _: None)

    async def _fetch(
        self, node: Node, target: str, headers: Mapping[str, str], body_bytes_max: int, patience: Patience
    ) -> Reply:
        def expect(length: int) -> None:
            if length > body_bytes_max:
                raise NodeError(f"node {node} offers an answer of {length} bytes")
            patience.expect(length)

        answer = await self._fetcher.get(node, target, headers, expect=expect, moved=patience.moved)
        return Reply(answer.status, answer.headers, answer.body, len(answer.body))

    async def _exchange(
        self,
        verb: str,
        node: Node,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        body_bytes_max: int,
        patience: Patience,
    ) -> Reply:
        producer = _BytesProducer(body, patience) if body else None
        response: IResponse = await self._client.request(
            verb,
            node.url_base + target,
            headers=Headers({name: [value] for name, value in (headers or {}).items()}),
            data=cast("Any", producer),  # Any: the client passes it to data_to_body_producer as it is
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        reader = _BodyReader(patience)
        if verb == "HEAD":
            lengths = response.headers.getRawHeaders("content-length") or [""]
            length = int(lengths[0]) if lengths[0].isdecimal() and len(lengths[0]) < 20 else -1
        else:
            length = -1 if response.length == UNKNOWN_LENGTH else cast("int", response.length)
            if not 0 <= length <= body_bytes_max:
                response.deliverBody(reader)
                reader.give_up()
                said = "does not say how long its answer is" if length < 0 else f"offers an answer of {length} bytes"
                raise NodeError(f"node {node} {said}")
            patience.expect(length)
        response.deliverBody(reader)
        found = {
            name.decode("latin-1").lower(): values[0].decode("latin-1").strip()
            for name, values in response.headers.getAllRawHeaders()
        }
        return Reply(response.code, found, await reader.finished, length)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Connects by IPv4, which is what nodes have; Twisted's endpoint for any address would import the global reactor."""

    def __init__(self, reactor: Any) -> None:  # Any: a reactor with TCP
        self._reactor = reactor

    def endpointForURI(self, uri: URI) -> TCP4ClientEndpoint:  # noqa: N802
        return TCP4ClientEndpoint(self._reactor, uri.host.decode("ascii"), uri.port, timeout=CONNECT_TIMEOUT_S)


@implementer(IAgent)
class _PlainAgent:
    """Asks for bodies as they are: treq's client would ask for gzip, and lose the length with it."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803
    ) -> Deferred[IResponse]:
        headers = headers.copy() if headers is not None else Headers()
        headers.setRawHeaders("accept-encoding", ["identity"])
        return self._agent.request(method, uri, headers, bodyProducer)


@implementer(IBodyProducer)
class _BytesProducer:
    """Sends bytes as fast as the transport takes them; Twisted's own producer would need the global reactor."""

    def __init__(self, body: bytes, patience: Patience) -> None:
        self.length = len(body)
        self._body = memoryview(body)
        self._sent = 0
        self._paused = False
        self._patience = patience

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:  # noqa: N802
        self._consumer = consumer
        self._finished: Deferred[None] = Deferred(lambda _: self.stopProducing())
        finished = self._finished
        self._patience.expect(self.length)
        self.resumeProducing()
        return finished

    def resumeProducing(self) -> None:
        self._paused = False
        while not self._paused and self._sent < self.length:
            piece = self._body[self._sent : self._sent + WRITE_PIECE]
            self._sent += len(piece)
            self._patience.moved()
            self._consumer.write(bytes(piece))  # transports take nothing but bytes
        if self._sent == self.length and not self._finished.called:
            self._patience.moved(self.length / SYNC_RATE_MIN)
            self._finished.callback(None)

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True


class _BodyReader(Protocol):
    """Collects the body of an answer; *finished* fires with it, or fails when the connection breaks first."""

    def __init__(self, patience: Patience) -> None:
        self.finished: Deferred[bytes] = Deferred(lambda _: self._close())
        self._pieces: list[bytes] = []
        self._patience = patience

    def give_up(self) -> None:
        """Close the connection; nobody waits for the body."""
        self.finished.addErrback(lambda _: b"")
        self.finished.cancel()

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self._patience.moved()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.finished.called:
            return
        if reason.check(ResponseDone):
            self.finished.callback(b"".join(self._pieces))
        else:
            self.finished.errback(reason)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def _is_cancelled(error: BaseException) -> bool:
    reasons = getattr(error, "reasons", None) or []
    return isinstance(error, CancelledError | network.ConnectingCancelledError) or any(
        reason.check(CancelledError) for reason in reasons
    )


def _unreachable(node: Node, error: Exception) -> NodeUnreachable:
    """Return what *error*, from the network or from Twisted's client, means for the caller."""
    match error:
        case network.TimeoutError():
            return NodeTimeout(f"node {node} did not accept a connection within {CONNECT_TIMEOUT_S:g} s")
        case network.ConnectionRefusedError():
            return NodeUnreachable(f"node {node} refuses the connection; is it running?")
        case network.DNSLookupError():
            return NodeUnreachable(f"node {node}: there is no machine of that name")
        case network.ConnectError():
            return NodeUnreachable(f"node {node} cannot be reached: {error.osError or error}")
    reasons = [reason.value for reason in getattr(error, "reasons", None) or []]
    closed = all(isinstance(reason, network.ConnectionClosed) for reason in reasons[:1])
    return NodeUnreachable(
        f"node {node} closed the connection before its answer was complete"
        if closed
        else f"node {node} does not answer in HTTP: {reasons[0]!r}"
    )
