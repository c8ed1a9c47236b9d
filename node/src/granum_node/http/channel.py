"""One connection: bytes in, requests out, bodies passed on as they arrive, replies in order.

`dataReceived` walks one index over each chunk. Body bytes go to the verb's sink as slices of the chunk, never gathered; only
an unfinished head is kept for the next chunk. Requests are pipelined without limit while they are puts, because PYME's
streaming client stops reading replies; what bounds memory is that a put's reply is small, and that a reply which holds an
open file or a listing stops the parsing of what is behind it until it has left.

A request whose end cannot be known closes the connection after its answer; one that is cut short gets none. Closing is
graceful: our half first, then what the peer still sends is dropped for a while, since a reset would take the answer away
from it.
"""

from typing import Protocol as TypingProtocol

from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from granum.wire.errors import BadRequest, GranumError, NodeBusy, TooSlow
from granum_node.http import arriving
from granum_node.http.arriving import ArrivingBody
from granum_node.http.deadlines import Deadlines, Late
from granum_node.http.limits import Budget
from granum_node.http.lingering import LINGER_S, Lingering
from granum_node.http.outbox import Outbox
from granum_node.http.parser import Request, find_head, parse_head
from granum_node.http.reply import CONTINUE, HeadMaker, Reply
from granum_node.http.sink import Sink
from granum_node.http.withholding import Withholding

CHUNK_BYTES = 256 * 1024  # of one recv; smaller ones cost a quarter of the throughput of large files
FILES_PENDING_MAX = 16  # replies holding an open file, per connection
REPLY_BYTES_PENDING_MAX = 4 << 20  # small replies and listings that the peer does not read
UNANSWERED_MAX = 128  # puts whose receipt is not known yet; each holds a descriptor
KEPT_BYTES_MAX = 64 * 1024  # of unparsed requests behind a full outbox; beyond it reading pauses

BAD_HEAD = Request("", b"", 1, {}, None, chunked=False, keep_alive=False, expects_continue=False)


class Responder(TypingProtocol):
    """What a channel asks of the server behind it."""

    heads: HeadMaker
    budget: Budget

    def begin(self, reply: Reply) -> Sink | None:
        """Answer, now or later, and return where the body goes; None to have it dropped. Raises GranumError to refuse."""

    def count(self, verb: str, status: int) -> None:
        """Take note of an answer."""

    def joined(self, channel: "Channel") -> None:
        """Take note of a new connection."""

    def left(self, channel: "Channel") -> None:
        """Take note that a connection is gone."""


@implementer(IHalfCloseableProtocol)
class Channel(Protocol):
    """One connection of a node, from the address *peer*; *clock* measures idleness in monotonic seconds."""

    def __init__(self, responder: Responder, clock: IReactorTime, peer: str = "") -> None:
        """Serve requests with *responder*."""
        self.peer = peer
        self._responder = responder
        self._clock = clock
        self._kept = b""
        self._body: ArrivingBody | None = None
        self._held = False  # requests have arrived that are not parsed yet
        self._read_waits = False  # the first of them is a read, and answers before it are not known yet
        self._ending = False  # no further request is read
        self._draining = False  # the node stops: this request, then no other
        self._peer_is_done = False
        self._lingering = Lingering(clock)
        self._withholding: Withholding | None = None  # of PYME's streams alone
        self._deadlines = Deadlines(clock.seconds())
        self._held_bytes = 0  # as the budget knows it
        self.received_bytes = 0

    # -- what Twisted calls --------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Set the socket up for small replies without delay and large chunks."""
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        self.transport.bufferSize = CHUNK_BYTES  # type: ignore[union-attr]
        self._outbox = Outbox(self.transport, self._finished, self._drained)  # type: ignore[arg-type]
        self._responder.joined(self)

    def dataReceived(self, data: bytes) -> None:
        """Take what has arrived."""
        self.received_bytes += len(data)
        now = self._deadlines.heard = self._clock.seconds()
        if self._ending:
            if not self._draining:
                self._lingering.heard(now)
            return
        if self._kept:
            data = self._kept + data
            self._kept = b""
        self._advance(data)

    def readConnectionLost(self) -> None:
        """Answer what the peer asked, then close: it sends no more."""
        if self._lingering.begun:
            self.transport.loseConnection()  # type: ignore[union-attr]
        elif not self._peer_is_done:
            self._peer_is_done = True
            if not self._held:
                self._end_requests()

    def writeConnectionLost(self) -> None:
        """Do nothing: we closed our half ourselves."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Let go of everything; what was not received whole leaves nothing behind."""
        self._ending = True
        self._kept = b""
        self._hold()
        self._abort_body()
        self._outbox.stopProducing()
        self._lingering.end()
        if self._withholding is not None:
            self._withholding.end()
        self._responder.left(self)

    @property
    def sent_bytes(self) -> int:
        """Bytes that have left so far."""
        return self._outbox.sent_bytes

    @property
    def unanswered(self) -> int:
        """How many requests have no answer yet."""
        return self._outbox.unanswered

    # -- for the server --------------------------------------------------------------------------------------------

    def close_when_idle(self) -> None:
        """Finish what has begun and close; new requests are not read. Called again until the connection is gone."""
        self._draining = True
        if self._body is not None:
            return
        self._ending = True
        if not self._lingering.begun and self._outbox.is_idle and self._is_quiet():
            self.transport.unregisterProducer()  # type: ignore[union-attr]
            self.transport.loseConnection()  # type: ignore[union-attr]
        else:
            self._outbox.close_after_last()

    def _is_quiet(self) -> bool:
        """Whether the peer has long read whatever it was sent, so that there is nothing to linger for."""
        return not self._outbox.sent_bytes or self._clock.seconds() - self._deadlines.heard > LINGER_S

    def cut(self) -> None:
        """End the connection at once, whatever it is doing."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    def check(self, now: float) -> None:
        """Close the connection when the peer has not moved for too long; what the node itself owes may take its time."""
        outbox = self._outbox
        late = self._deadlines.look(
            now,
            outbox.sent_bytes,
            reading=not self._ending,
            blocked=outbox.is_blocked,
            unanswered=outbox.unanswered,
        )
        if late is Late.REQUEST:
            self._give_up()
        elif late is Late.PEER:
            self.transport.abortConnection()  # type: ignore[union-attr]

    def _give_up(self) -> None:
        """Answer 408 to a request that arrives too slowly, behind the answers that are due, and end the connection."""
        self._lingering.max_s = LINGER_S  # it has had its time
        reply = self._body.reply if self._body is not None else None
        self._abort_body()
        self._kept = b""
        self._hold()
        if reply is not None and reply.slot.items is not None:
            self._ending = True
            self._outbox.close_after_last()
        else:
            self._break(reply or self._new_reply(BAD_HEAD), TooSlow())

    # -- requests ------------------------------------------------------------------------------------------------

    def _advance(self, data: bytes) -> None:
        """Parse and answer as much of *data* as may be, keep the rest, send what is ready."""
        self._held = self._read_waits = False
        self._outbox.corked = True
        at = self._consume(data)
        self._outbox.corked = False
        if at < len(data):
            self._kept = data[at:]
        if self._kept or self._held_bytes:
            self._hold()
        if self._held and (len(self._kept) > KEPT_BYTES_MAX or self._responder.budget.is_spent):
            self.transport.pauseProducing()  # type: ignore[union-attr]
        if self._peer_is_done and not self._held and not self._ending:
            self._end_requests()
        self._outbox.flush()

    def _hold(self) -> None:
        """Account for what is kept. An unfinished head that no memory is left for is refused: waiting would free none."""
        unfinished = bool(self._kept) and not self._held
        if unfinished:
            self._deadlines.head_waits(self._clock.seconds())
        else:
            self._deadlines.head_ends()
        budget = self._responder.budget
        budget.change(self._held_bytes, len(self._kept))
        self._held_bytes = len(self._kept)
        if unfinished and budget.is_spent:
            self._kept = b""
            self._hold()
            self._break(
                self._new_reply(BAD_HEAD), NodeBusy("the node has too many unfinished requests; try again soon")
            )

    def _drained(self) -> None:
        """Everything has been sent: go on with what was held back."""
        if self._held and not self._is_full() and not (self._read_waits and self._outbox.unanswered):
            if not self._peer_is_done:
                self.transport.resumeProducing()  # type: ignore[union-attr]
            # Not at once: flush() is our caller, and would nest deeper with each round of a long pipeline.
            self._clock.callLater(0, self._resume)

    def _resume(self) -> None:
        kept, self._kept = self._kept, b""
        if kept and not self._ending:
            self._advance(kept)

    def _is_full(self) -> bool:
        outbox = self._outbox
        return (
            outbox.files >= FILES_PENDING_MAX
            or outbox.queued_bytes >= REPLY_BYTES_PENDING_MAX
            or outbox.unanswered >= UNANSWERED_MAX
        )

    def _consume(self, data: bytes) -> int:
        """Return the index of the first byte of *data* that must wait."""
        at = 0
        while at < len(data) and not self._ending:
            if self._body is not None:
                at = self._take_body(self._body, data, at)
                continue
            if self._is_full():
                self._held = True
                return at
            try:
                end = find_head(data, at)
                if end < 0:
                    return at
                request = parse_head(data[at : end - 4])
            except GranumError as error:
                self._break(self._new_reply(BAD_HEAD), error)
                break
            if request.verb != "PUT" and self._outbox.unanswered:  # it must see what was put before it
                self._held = self._read_waits = True
                return at
            at = end
            self._begin(request, len(data) - at)
        return len(data) if self._ending else at

    def _new_reply(self, request: Request) -> Reply:
        return Reply(request, self._outbox.reserve(), self._responder.heads, self._responder.count, self.peer)

    def _begin(self, request: Request, arrived: int) -> None:
        """Have *request* answered, of whose body, if it has one, *arrived* bytes at most are here."""
        self._deadlines.head_ends()
        if b"host" not in request.headers and request.verb == "PUT" and request.keep_alive and not self._peer_is_done:
            self._withhold()
        elif self._outbox.withholds:
            self._outbox.release()
        reply = self._new_reply(request)
        reply.is_whole = request.length is not None and request.length <= arrived
        self._ending = not request.keep_alive and not request.has_body
        # A peer that waits for 100 Continue may or may not send its body after a final answer, so the end of the request
        # is unknown; of a very long body the end is not worth waiting for.
        endless = request.length is not None and request.length > arriving.DROPPED_BODY_BYTES_MAX
        undroppable = endless or (request.expects_continue and request.has_body)
        reply.slot.closes = undroppable
        sink: Sink | None
        try:
            sink = self._responder.begin(reply)
        except Exception as error:  # noqa: BLE001 - whatever fails in a verb is answered, and logged there
            unframed = request.verb == "PUT" and not request.has_body and request.length is None
            if undroppable or unframed:
                self._break(reply, error)
                return
            reply.refuse(error)
            sink = None
        else:
            if sink is None and undroppable:
                self._ending = True
                return
            reply.slot.closes = False
            if request.expects_continue and request.has_body:
                self._outbox.send_interim(reply.slot, CONTINUE)
        if request.has_body:
            self._body = ArrivingBody(reply, sink)
            if not reply.is_whole:
                self._deadlines.body_begins(self._clock.seconds())
        elif sink is not None:
            sink.finish()

    def _withhold(self) -> None:
        if self._withholding is None:
            self._withholding = Withholding(self._outbox, self._clock, self._last_heard)
        self._withholding.begin()

    def _last_heard(self) -> float:
        """Return when the peer last sent anything: now, while we do not read it."""
        return self._clock.seconds() if self._held else self._deadlines.heard

    def _take_body(self, body: ArrivingBody, data: bytes, at: int) -> int:
        self._deadlines.body_arrived(len(data) - at)
        try:
            at = body.take(data, at)
        except BadRequest as error:
            self._abort_body()
            if body.reply.slot.items is None:
                self._break(body.reply, error)
            else:
                self._ending = True
                self._outbox.close_after_last()
            return len(data)
        if body.is_whole:
            self._end_body(body)
        elif body.is_endless:  # answered before it has ended, and the connection ends behind the answer
            body.reply.slot.closes = True
            self._end_body(body)
            self._ending = True
            self._outbox.close_after_last()
            return len(data)
        return at

    def _end_body(self, body: ArrivingBody) -> None:
        self._ending = self._draining or not body.reply.request.keep_alive
        body.reply.slot.closes |= self._draining
        self._body = None
        self._deadlines.body_ends()
        body.sink.finish()

    def _end_requests(self) -> None:
        """Forget the request that is cut short, answer the others, and close."""
        cut = self._body
        self._abort_body()
        if cut is not None and cut.reply.slot.items is None:
            self._outbox.withdraw(cut.reply.slot)
        self._ending = True
        self._outbox.close_after_last()

    def _abort_body(self) -> None:
        body, self._body = self._body, None
        self._deadlines.body_ends()
        if body is not None:
            body.sink.abort()

    # -- the end -----------------------------------------------------------------------------------------------------

    def _break(self, reply: Reply, error: BaseException) -> None:
        """Answer a request whose end is unknown, and end the connection behind the answer."""
        self._ending = True
        reply.refuse(error, closes=True)

    def _finished(self) -> None:
        """Close our half, then wait a little for the peer to close its own."""
        if self._lingering.begun:
            return
        self._ending = True
        transport = self.transport
        assert transport is not None
        transport.unregisterProducer()  # type: ignore[attr-defined]
        if self._peer_is_done:
            transport.loseConnection()
        else:
            self._lingering.begin(transport)  # type: ignore[arg-type]
