"""The outbox of one connection: replies leave in the order of their requests, as fast as the socket takes them.

A request reserves a `Slot` when it is parsed; the slot is filled at once or later (a listing from a thread, a receipt after a
sync), and what is behind it waits. Small pieces leave together in one sendmsg(2), files by sendfile(2), both straight to the
socket: `transport.write` is never used, because it copies, and goes through the reactor once more for every reply. The
outbox is the transport's pull producer for the life of the connection, so the reactor calls it when the socket is writable.

Replies may be withheld (`withholding` says when): they are known, and wait to be released, oldest first.
"""

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol as TypingProtocol

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

PIECES_MAX = 64  # in one sendmsg; far below IOV_MAX, and enough for the kernel to fill its segments
WITHHELD_BYTES_MAX = 4 << 20  # some 20,000 receipts; then half of them leave, for a peer that still reads
_CORK = socket.MSG_MORE  # a file follows the head at once: let both share a segment


class SocketTransport(TypingProtocol):
    """What the outbox needs of Twisted's TCP transport."""

    def getHandle(self) -> socket.socket: ...  # noqa: D102, N802
    def startWriting(self) -> None: ...  # noqa: D102, N802
    def abortConnection(self) -> None: ...  # noqa: D102, N802
    def registerProducer(self, producer: object, streaming: bool) -> None: ...  # noqa: D102, N802, FBT001
    def unregisterProducer(self) -> None: ...  # noqa: D102, N802


@dataclass(slots=True)
class FilePart:
    """A stretch of an open file to send; the outbox closes *fd* when it is through with it."""

    fd: int
    offset: int
    left: int


Item = bytes | memoryview | FilePart  # a memoryview is what is left of bytes that went in part


@dataclass(slots=True)
class Slot:
    """The place of one reply. *closes* ends the connection behind it."""

    _outbox: "Outbox"
    closes: bool = False
    items: list[Item] | None = None
    interim: bytes = b""

    def fill(self, items: list[Item], *, closes: bool = False) -> None:
        """Set the reply; it leaves when all earlier ones have. Only the first one counts."""
        if self.items is not None:
            _close_files(items)
            return
        self.closes = self.closes or closes
        self.items = items
        self._outbox.filled(self)


@implementer(IPullProducer)
@dataclass(slots=True)
class Outbox:
    """Replies of one connection. *finished* is called once, after a reply that closes has left."""

    transport: SocketTransport
    finished: Callable[[], None]
    drained: Callable[[], None]  # called whenever nothing is left to send
    queued_bytes: int = (
        0  # of the small pieces that are known and have not left, those that wait for an earlier reply included
    )
    files: int = 0  # that have not left whole, likewise
    sent_bytes: int = 0
    withholds: bool = False
    _withheld: deque[list[Item]] = field(default_factory=deque)
    _withheld_bytes: int = 0
    _order: deque[Slot] = field(default_factory=deque)
    _ready: deque[Item] = field(default_factory=deque)
    _closing: bool = False
    _waiting: bool = False
    _open: bool = True
    corked: bool = False  # while set, a filled slot does not flush: the channel does, once for all that it parsed

    def __post_init__(self) -> None:
        self._waiting = True  # registerProducer calls resumeProducing at once, before there is anything to send
        self.transport.registerProducer(self, False)  # noqa: FBT003 - Twisted's signature
        self._waiting = False

    def reserve(self) -> Slot:
        """Return the slot of the next reply."""
        slot = Slot(self)
        self._order.append(slot)
        return slot

    @property
    def unanswered(self) -> int:
        """How many replies are not known yet or wait behind one that is not."""
        return len(self._order)

    @property
    def is_blocked(self) -> bool:
        """Whether something is ready that the peer has not taken yet."""
        return bool(self._ready)

    @property
    def is_idle(self) -> bool:
        """Whether everything asked for has been answered and has left."""
        return not (self._order or self._ready or self._withheld)

    def release(self, replies: int | None = None) -> None:
        """Let the oldest so many *replies* of those withheld leave; None for all, and withhold no more."""
        self.withholds = self.withholds and replies is not None
        self._release(len(self._withheld) if replies is None else replies)
        if not self.corked:
            self.flush()

    def send_interim(self, slot: Slot, text: bytes) -> None:
        """Send *text* (100 Continue) ahead of the reply in *slot*, in order."""
        slot.interim = text
        self.queued_bytes += len(text)
        self._advance()

    def withdraw(self, slot: Slot) -> None:
        """Forget the reply in *slot*, the last one: its request did not arrive whole."""
        slot.items = []
        self._order.remove(slot)

    def close_after_last(self) -> None:
        """End the connection once everything asked for so far has been answered and has left."""
        if self._order:
            self._order[-1].closes = True
        else:
            self._closing = True
            self._release(len(self._withheld))
            self.flush()

    def filled(self, slot: Slot) -> None:
        """Note that *slot* has its reply."""
        if not self._open:
            _close_files(slot.items or [])
            return
        for item in slot.items or ():
            if isinstance(item, FilePart):
                self.files += 1
            else:
                self.queued_bytes += len(item)
        self._advance()
        if not self.corked:
            self.flush()

    def flush(self) -> None:
        """Send what the socket takes; the reactor calls again for the rest."""
        if self._waiting or not self._open:
            return
        ready = self._ready
        try:
            while ready:
                if not self._send_some():
                    self._wait()
                    return
        except BlockingIOError:
            self._wait()
            return
        except OSError:  # the peer is gone, or a file was cut short behind the node's back: nothing can be saved
            self.transport.abortConnection()
            return
        if self._closing and not self._order:
            self.finished()
        else:
            self.drained()

    def resumeProducing(self) -> None:
        """Go on sending: the socket is writable again."""
        if self._waiting and self._open:
            self._waiting = False
            self.flush()

    def stopProducing(self) -> None:
        """Drop everything: the connection is lost."""
        if not self._open:
            return
        self._open = False
        _close_files(self._ready)
        for slot in self._order:
            _close_files(slot.items or [])
        for items in self._withheld:
            _close_files(items)
        self._ready.clear()
        self._order.clear()
        self._withheld.clear()

    def _wait(self) -> None:
        self._waiting = True
        self.transport.startWriting()

    def _advance(self) -> None:
        while self._order and not self._closing:
            slot = self._order[0]
            if slot.interim:
                self._ready.append(slot.interim)
                slot.interim = b""
            if slot.items is None:
                return
            self._order.popleft()
            if self.withholds and not slot.closes:
                self._withhold(slot.items)
                continue
            self._release(len(self._withheld))
            self._ready.extend(slot.items)
            if slot.closes:
                self._closing = True
                for late in self._order:
                    _close_files(late.items or [])
                self._order.clear()

    def _withhold(self, items: list[Item]) -> None:
        self._withheld.append(items)
        self._withheld_bytes += (size := _size(items))
        self.queued_bytes -= size
        if self._withheld_bytes > WITHHELD_BYTES_MAX:
            self._release(len(self._withheld) // 2)

    def _release(self, replies: int) -> None:
        for _ in range(min(replies, len(self._withheld))):
            items = self._withheld.popleft()
            self._withheld_bytes -= (size := _size(items))
            self.queued_bytes += size
            self._ready.extend(items)

    def _send_some(self) -> bool:
        """Send from the front of the queue; False when the socket took less than offered."""
        handle = self.transport.getHandle()
        first = self._ready[0]
        if isinstance(first, FilePart):
            sent = os.sendfile(handle.fileno(), first.fd, first.offset, first.left) if first.left else 0
            if sent == 0 and first.left:
                raise OSError("the file was cut short behind the node's back")
            self.sent_bytes += sent
            first.offset += sent
            first.left -= sent
            if first.left:
                return False  # one stretch per turn keeps connections fair
            os.close(first.fd)
            self.files -= 1
            self._ready.popleft()
            return True
        if len(self._ready) == 1:
            return self._sent((first,), handle.sendmsg((first,)))
        pieces: list[bytes | memoryview] = []
        flags = 0
        for item in self._ready:
            if isinstance(item, FilePart):
                flags = _CORK
                break
            pieces.append(item)
            if len(pieces) == PIECES_MAX:
                break
        return self._sent(pieces, handle.sendmsg(pieces, (), flags))

    def _sent(self, pieces: Sequence[bytes | memoryview], sent: int) -> bool:
        """Take *sent* bytes off the *pieces* at the front of the queue; False when that is not all of them."""
        self.sent_bytes += sent
        self.queued_bytes -= sent
        for piece in pieces:
            if sent < len(piece):
                if sent:
                    self._ready[0] = memoryview(piece)[sent:]  # no copy: a listing may have many megabytes left
                return False
            sent -= len(piece)
            self._ready.popleft()
        return True


def _size(items: list[Item]) -> int:
    return sum(len(item) for item in items if not isinstance(item, FilePart))


def _close_files(items: "list[Item] | deque[Item]") -> None:
    for item in items:
        if isinstance(item, FilePart):
            os.close(item.fd)
