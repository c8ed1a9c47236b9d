"""The channel: one persistent connection to one node, on which puts are sent without waiting for their receipts.

Every put is sent without delay, and the pieces of a frame go from the caller's memory to the socket without being copied: the
channel is the transport's pull producer and calls sendmsg(2) itself, because `transport.write` takes bytes only and joins
what is queued, which costs four times as much at 8 MiB.

Each put has exactly one outcome, in the order of sending: its receipt, the node's refusal (which concerns this put alone),
or the end of the channel, which gives back every put that has no answer. One that had not left as a whole cannot be stored;
`was_sent` of its error tells. The channel never sends a put twice, and knows neither placement nor who waits for room in its
window.
"""

import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, cast

from twisted.internet import error as network
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from granum.request import NeverBegun
from granum.roster import Node
from granum.streaming.window import Window
from granum.transfer import NODE_HEADER, Receipt
from granum.wire.digest import Digest
from granum.wire.errors import NodeError, NodeTimeout, NodeUnreachable
from granum.wire.exchange import DURABILITY, Answer, PutExchange
from granum.wire.paths import ClusterPath

CONNECT_TIMEOUT_S = 2.0  # a node in the same building answers in milliseconds; two tries of SYN fit in
STALL_TIMEOUT_S = (
    5.0  # without a byte either way; longer than any sync of a healthy disk, and what a dead node may cost
)
PROGRESS_BYTES = 64 * 1024  # a kernel that is out of room takes a frozen node's bytes singly, for minutes: no progress
PIECES_MAX = (
    16  # of one sendmsg: eight small puts or more than a socket buffer of large ones; the kernel's limit is 1,024
)

Piece = bytes | memoryview
EndpointFactory = Callable[[Any, Node], IStreamClientEndpoint]  # Any: a reactor with whatever the endpoint needs of it


class _SocketTransport(Protocol):
    """What the channel uses of Twisted's TCP transport."""

    def getHandle(self) -> socket.socket: ...  # noqa: N802
    def setTcpNoDelay(self, enabled: bool) -> None: ...  # noqa: N802, FBT001
    def registerProducer(self, producer: IPullProducer, streaming: bool) -> None: ...  # noqa: N802, FBT001
    def unregisterProducer(self) -> None: ...  # noqa: N802
    def startWriting(self) -> None: ...  # noqa: N802
    def loseConnection(self) -> None: ...  # noqa: N802
    def abortConnection(self) -> None: ...  # noqa: N802


@dataclass(slots=True, eq=False)
class _Put:
    """One put on its way; *begins* and *ends* are its place in all the bytes of this connection."""

    path: ClusterPath
    size: int
    begins: int
    ends: int
    outcome: Deferred[Receipt]


def tcp_endpoint(reactor: Any, node: Node) -> IStreamClientEndpoint:
    """Return the endpoint that connects to the address in *node*, which may also be a host name."""
    if isIPAddress(node.address):
        return TCP4ClientEndpoint(reactor, node.address, node.port, timeout=CONNECT_TIMEOUT_S)
    if isIPv6Address(node.address):
        return TCP6ClientEndpoint(reactor, node.address, node.port, timeout=CONNECT_TIMEOUT_S)
    return HostnameEndpoint(reactor, node.address, node.port, timeout=CONNECT_TIMEOUT_S)


def connect(
    node: Node,
    *,
    reactor: Any,
    endpoint: EndpointFactory = tcp_endpoint,
    window: Window[Any] | None = None,
) -> "Deferred[Channel]":
    """Open a channel to *node*; fires with it, or fails with NodeUnreachable or NodeTimeout. Cancelling leaves nothing."""
    channel = Channel(node, clock=reactor, window=window)
    connecting: Deferred[Channel] = connectProtocol(endpoint(reactor, node), channel)
    return connecting.addErrback(_as_unreachable)


def _as_unreachable(failure: Failure) -> Failure:
    if failure.check(network.ConnectingCancelledError):
        return Failure(CancelledError())
    if failure.check(network.TimeoutError):
        return Failure(NodeTimeout(f"no connection within {CONNECT_TIMEOUT_S:g} s"))
    if failure.check(network.ConnectError, network.DNSLookupError, OSError):
        return Failure(NodeUnreachable(f"no connection: {failure.getErrorMessage()}"))
    return failure


@implementer(IPullProducer)
class Channel(TwistedProtocol):
    """Sends puts to *node*. *ended* fires once, behind all outcomes: with the cause if puts were given back, else None."""

    def __init__(
        self,
        node: Node,
        *,
        clock: IReactorTime,
        window: Window[Any] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Start with an empty *window*, the channel's alone; *wall_clock* gives the unix time that receipts carry."""
        self.node = node
        self.ended: Deferred[BaseException | None] = Deferred()
        self._clock = clock
        self._wall_clock = wall_clock
        self._window: Window[_Put] = Window() if window is None else window
        self._exchange: PutExchange[_Put] = PutExchange(node.host)
        self._outbox: deque[memoryview] = deque()
        self._queued = 0  # bytes ever put into the outbox
        self._sent = 0  # bytes ever taken by the socket
        self._wire: _SocketTransport | None = None
        self._socket: socket.socket | None = None
        self._writing = False  # whether the transport will call resumeProducing when the socket is writable
        self._cause: BaseException | None = None
        self._counted = 0  # of these, when progress was noted last
        self._progressed = 0.0
        self._deadline: IDelayedCall | None = None

    # -- for the streamer ---------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether puts can be sent."""
        return self._wire is not None and self._cause is None

    @property
    def outstanding(self) -> int:
        """The number of puts without an answer."""
        return len(self._window)

    @property
    def cause(self) -> BaseException | None:
        """Why the channel ends or has ended: the outcome of every put that it gives back; None while nothing is wrong."""
        return self._cause

    @property
    def quiet(self) -> float:
        """For how many seconds the node has taken and sent nothing to speak of, though it owes receipts."""
        return self._clock.seconds() - self._progressed if len(self._window) else 0.0

    @property
    def has_sent(self) -> bool:
        """Whether the socket has taken every byte of every put."""
        return not self._outbox

    def room(self, size: int) -> bool:
        """Tell whether a put of *size* bytes can be sent now."""
        return self.is_open and self._window.room(size)

    def put(self, path: ClusterPath, pieces: Iterable[Piece], digest: Digest | None = None) -> Deferred[Receipt]:
        """Send a file made of *pieces*, which must not change before the outcome; the caller has asked `room`.

        With *digest* it may be repeated. Fires with the receipt. Fails with what the node said of this put (AlreadyStored,
        NoSpace, ...), or with the cause of the channel's end (NodeUnreachable, NodeTimeout, NodeError): then the put may be
        stored if it `was_sent`.
        """
        views = [memoryview(piece).cast("B") for piece in pieces if memoryview(piece).nbytes]
        size = sum(map(len, views))
        put = _Put(path, size, self._queued, 0, Deferred())
        if not len(self._window):
            self._progressed = self._clock.seconds()
        self._window.accept(put, size)
        head = self._exchange.put(put, path, size, digest)
        self._outbox.append(memoryview(head))
        self._outbox.extend(views)
        self._queued += len(head) + size
        put.ends = self._queued
        if self._deadline is None:
            self._deadline = self._clock.callLater(STALL_TIMEOUT_S, self._check_progress)
        if not self._writing and self._wire is not None:
            # Not sent here but in this turn of the reactor: puts made together then share a sendmsg, which is worth a
            # third more small frames a second.
            self._writing = True
            self._wire.startWriting()
        return put.outcome

    def close(self) -> None:
        """End the channel; puts without an answer are given back. *ended* tells when it is done."""
        if self._wire is None:
            return
        if len(self._window) or self._cause is not None:
            self._break(NodeUnreachable("the connection was given up before the receipt came"))
            return
        self._cause = NodeUnreachable("the channel is closed")
        self._wire.unregisterProducer()  # with a producer, loseConnection would wait for it for ever
        self._wire.loseConnection()

    # -- called by Twisted: connection --------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Become the transport's producer for its whole life."""
        self._wire = cast("_SocketTransport", self.transport)
        self._socket = self._wire.getHandle()
        self._wire.setTcpNoDelay(True)  # else the tail of a frame waits for the receipt of the one before
        self._wire.registerProducer(self, False)  # noqa: FBT003 - Twisted's own signature

    def dataReceived(self, data: bytes) -> None:
        """Pair what arrived with the oldest puts."""
        self._progressed = self._clock.seconds()
        try:
            answers = self._exchange.receive(data)
            for answer in answers:
                self._check_was_sent(answer)
                self._check_node(answer)
        except (NodeError, NodeUnreachable) as error:
            self._break(error)
            return
        for answer in answers:
            self._window.release(answer.key)
        for answer in answers:  # in a second pass: a callback may send the next put
            put = answer.key
            if answer.error is not None:
                put.outcome.errback(answer.error)
            else:
                durability = answer.headers.get(DURABILITY, "")
                put.outcome.callback(Receipt(put.path, self.node, put.size, self._wall_clock(), durability))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give back every put without an answer."""
        if self._cause is None:
            self._cause = NodeUnreachable(f"the connection broke: {reason.getErrorMessage()}")
        self._wire = self._socket = None
        self._outbox.clear()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        unreceipted = self._window.outstanding
        for put in unreceipted:
            self._window.release(put)
        for put in unreceipted:
            put.outcome.errback(self._cause if self._sent >= put.ends else _unsent(self._cause))
        self.ended.callback(self._cause if unreceipted else None)

    # -- called by Twisted: producer ----------------------------------------------------------------------------------

    def resumeProducing(self) -> None:
        """Give the socket what it takes of the outbox, and ask to be called again while something is left.

        Twisted stops watching the socket before each call, and calls once inside `registerProducer`, when the outbox is
        empty. It never writes itself, so nothing can overtake.
        """
        self._writing = False
        if self._socket is None:
            return
        while self._outbox:
            pieces = list(islice(self._outbox, PIECES_MAX))
            try:
                taken = self._socket.sendmsg(pieces)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # Answers that came before the break can still be read; reading then finds the end of the connection.
                self._cause = self._cause or NodeUnreachable(f"the connection broke: {error.strerror}")
                self._outbox.clear()
                return
            self._sent += taken
            drained = _drop_front(self._outbox, taken, pieces)
            if not self._outbox or self._sent - self._counted >= PROGRESS_BYTES:
                self._counted = self._sent
                self._progressed = self._clock.seconds()
            if not drained:
                break
        if self._outbox and self._wire is not None:
            self._writing = True
            self._wire.startWriting()

    def stopProducing(self) -> None:
        """Drop what is not sent; the connection is gone."""
        self._outbox.clear()

    # -- private ------------------------------------------------------------------------------------------------------

    def _check_was_sent(self, answer: "Answer[_Put]") -> None:
        """Raise NodeError for an answer that came too early to be one: nothing else would tell it from a receipt."""
        put = answer.key
        if self._sent <= put.begins or (answer.error is None and self._sent < put.ends):
            raise NodeError("the node answered a put before it was sent")

    def _check_node(self, answer: "Answer[_Put]") -> None:
        """Raise NodeUnreachable for an answer of another node, which has taken over the address."""
        found = answer.headers.get(NODE_HEADER, "")
        if self.node.node_id and found and found != self.node.node_id:
            raise NodeUnreachable(f"another node answers at {self.node.host}: not {self.node.node_id} but {found}")

    def _check_progress(self) -> None:
        self._deadline = None
        if not len(self._window):
            return
        quiet = self._clock.seconds() - self._progressed
        if quiet >= STALL_TIMEOUT_S:
            self._break(NodeTimeout(f"the node took and sent nothing to speak of for {STALL_TIMEOUT_S:g} s"))
        else:
            self._deadline = self._clock.callLater(STALL_TIMEOUT_S - quiet, self._check_progress)

    def _break(self, cause: BaseException) -> None:
        self._cause = self._cause or cause
        self._outbox.clear()
        if self._wire is not None:
            self._wire.abortConnection()


def _unsent(cause: BaseException) -> BaseException:
    """Return *cause* for a put that cannot be stored, because the node did not get all of it."""
    error = type(cause)(str(cause))
    error.__cause__ = NeverBegun()
    return error


def _drop_front(outbox: deque[memoryview], taken: int, pieces: Sequence[memoryview]) -> bool:
    """Remove *taken* bytes from the front of *outbox*, which begins with *pieces*; tell whether all of them went."""
    for piece in pieces:
        if taken < len(piece):
            outbox[0] = piece[taken:]
            return False
        taken -= len(piece)
        outbox.popleft()
    return True
