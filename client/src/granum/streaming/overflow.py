"""Overflow: local disk that takes what the nodes do not, and keeps it until they do.

Files are appended to segments and handed out again, oldest first; a segment goes when all in it are delivered and that is
written down. The rules: no file is lost that was synced, whatever ends this process; nothing blocks the reactor; what it
takes is bounded. A file that was delivered just before a crash may be handed out once more by whoever opens the overflow
next, which harms nobody, since nodes receipt the same bytes again.

Where the files go, and when, this module does not know.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from granum.config import OVERFLOW_BYTES_MAX
from granum.streaming.appends import Appends
from granum.streaming.pending import Pending, Place, Token
from granum.streaming.record import Head, Piece
from granum.streaming.segments import FULL, Segments, Settled, Written
from granum.streaming.survey import Header, Scanned, read_record
from granum.wire.errors import Closed, OverflowUnusable
from granum.wire.paths import ClusterPath

RESERVE_BYTES = 1 << 30  # of the disk: it is often the one that the system lives on
SEGMENT_BYTES_MAX = 256 << 20  # disk space comes back in such steps, and each costs three syncs
SYNC_S = 0.2  # what a power failure may take
SYNC_BYTES = 64 << 20  # the same at a camera's rate: then sooner, so that no sync is a long one
FULL_RETRY_S = 1.0  # a full disk is looked at again, since others may make room

Sync = Literal["window", "each"]
_T = TypeVar("_T")

_log = Logger()


class Overflow:
    """The overflow of one stream; make it with `create` or `reopen`. Nothing is on disk before the first file is.

    *reactor* keeps time, and *pool* has the threads that write, sync and read. *bytes_max* is what the segments take at most,
    a few hundred bytes more for a record that just fits. *sync* "window" syncs every SYNC_S and every SYNC_BYTES, "each"
    before an `append` fires.
    """

    def __init__(self, segments: Segments, top: str, *, reactor: Any, pool: ThreadPool, bytes_max: int) -> None:
        """Take *segments*, opened or not; Any: a reactor with time and callFromThread."""
        self._segments = segments
        self._top = top
        self._reactor = reactor
        self._pool = pool
        self._bytes_max = bytes_max
        self._pending = Pending()
        self._appends = Appends(
            lambda files: self._in_thread(segments.write, top, files),
            placed=self._placed,
            after=self._written,
            withdrawn=self.delivered,
            why=self._why,
        )
        self._settled_at: list[Deferred[None]] = []  # who waits for the thread that settles
        self._is_settling = False
        self._tick: IDelayedCall | None = None
        self._unsynced = 0
        self._free: int | None = None  # bytes of the disk, as last seen
        self._is_full = False
        self._closed: Deferred[None] | None = None
        self.failure: OverflowUnusable | None = None  # of the disk: then no more is written
        self.unreadable = 0  # bytes that are damaged in what was reopened

    @classmethod
    def create(
        cls,
        top: str,
        *,
        cluster: str,
        nodes: Sequence[str] = (),
        series: ClusterPath,
        reactor: Any,
        pool: ThreadPool,
        bytes_max: int = OVERFLOW_BYTES_MAX,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        reserve_bytes: int = RESERVE_BYTES,
        sync: Sync = "window",
        wall_clock: Callable[[], float] = time.time,
    ) -> Self:
        """Return an empty overflow for *series* of *cluster*; its directory is made below *top* when it is needed.

        *nodes* ('host:port') and *cluster* tell another process where to deliver. *reserve_bytes* of the disk stay free.
        """
        segments = Segments(
            Header(cluster, tuple(nodes), series, wall_clock()),
            segment_bytes_max=min(segment_bytes_max, max(bytes_max // 4, 1)),  # so that space comes back before the end
            reserve_bytes=reserve_bytes,
            sync_each=sync == "each",
        )
        return cls(segments, top, reactor=reactor, pool=pool, bytes_max=bytes_max)

    @classmethod
    def reopen(cls, directory: str, *, reactor: Any, pool: ThreadPool) -> "Deferred[Overflow]":
        """Fire with what another process left in *directory*: its undelivered files are pending; nothing can be appended.

        Fails with OverflowInUse when that process lives, else with OverflowUnusable.
        """
        nobody = Header("", (), ClusterPath(), 0)
        segments = Segments(nobody, segment_bytes_max=0, reserve_bytes=0, sync_each=False)
        overflow = cls(segments, "", reactor=reactor, pool=pool, bytes_max=0)

        def take_in(found: list[Scanned]) -> Overflow:
            for segment in found:
                overflow._pending.found(
                    segment.number,
                    segment.first,
                    segment.offsets,
                    segment.size,
                    segment.delivered,
                    is_damaged=segment.unreadable > 0,
                )
                overflow.unreadable += segment.unreadable
            return overflow

        return overflow._in_thread(segments.reopen, directory).addCallback(take_in)

    # -- the account ---------------------------------------------------------------------------------------------------

    @property
    def header(self) -> Header:
        """Whose files these are."""
        return self._segments.header

    @property
    def directory(self) -> str:
        """Where they are; '' while there are none."""
        return self._segments.directory

    @property
    def pending(self) -> int:
        """The number of files appended and not delivered; not of those that `next` found damaged."""
        return len(self._pending)

    @property
    def pending_bytes(self) -> int:
        """The bytes of their records."""
        return sum(place.length for place in self._pending.places)

    def room(self, size: int) -> bool:
        """Whether a file of *size* bytes can be appended now."""
        if self._closed is not None or self.failure is not None:
            return False
        if self._is_full or (self._free is not None and self._appends.size + size > self._free):
            self._settle_within(FULL_RETRY_S)  # which looks at the disk again
            return False
        return self._pending.size + self._appends.size + size <= self._bytes_max

    # -- verbs ---------------------------------------------------------------------------------------------------------

    def append(self, path: ClusterPath, pieces: Sequence[Piece], number: int | None) -> Deferred[Token]:
        """Write a file made of *pieces*, which must not change before this fires; with its token, when it is written.

        Fails with Closed, or with OverflowUnusable: there is no room, or the disk fails; then nothing of it is there.
        Cancelling withdraws it.
        """
        if self._closed is not None:
            return fail(Closed("the overflow is closed"))
        if self.failure is not None:
            return fail(self.failure)
        size = sum(memoryview(piece).nbytes for piece in pieces)
        if not self.room(size):
            return fail(OverflowUnusable(f"{path} does not fit: the overflow below {self._top} is full"))
        return self._appends.add(path, pieces, size, number)

    def next(self) -> Deferred[tuple[Token, ClusterPath, memoryview, int | None] | None]:
        """Fire with the oldest file that is not handed out: token, path, body and number; with None when all are.

        Fails with OverflowUnusable for one that is damaged, which is passed over from then on and stays on disk. Cancelling
        gives the file back.
        """
        if self._closed is not None:
            return fail(Closed("the overflow is closed"))
        place = self._pending.take()
        if place is None:
            return succeed(None)
        token = place.token
        handed: Deferred[tuple[Token, ClusterPath, memoryview, int | None] | None] = Deferred()

        def read(found: tuple[Head, memoryview]) -> None:
            if handed.called:  # cancelled
                self.returned(token)
            else:
                head, body = found
                handed.callback((token, head.path, body, head.number))

        def failed(failure: Failure) -> None:
            self._pending.damaged(token)
            if not handed.called:
                handed.errback(failure)

        self._in_thread(read_record, self.directory, place).addCallbacks(read, failed)
        return handed

    def delivered(self, token: Token) -> None:
        """Note that the file *token* has its receipt."""
        if self._pending.delivered(token):
            self._settle_within(SYNC_S)

    def returned(self, token: Token) -> None:
        """Take back a file that was handed out and not delivered; it is handed out again."""
        self._pending.returned(token)

    def close(self) -> Deferred[None]:
        """Write what is queued, sync all, and fire. The directory is removed when nothing in it is left to deliver.

        Fails with OverflowUnusable when the disk fails, closed all the same.
        """
        if self._closed is None:
            self._closed = Deferred.fromCoroutine(self._close())
        over: Deferred[None] = Deferred()  # each caller's own, because a cancelled wait must not cancel the closing

        def ended(result: Failure | None) -> None:
            if not over.called:
                over.callback(result)

        self._closed.addBoth(ended)
        return over

    # -- inside: writing -----------------------------------------------------------------------------------------------

    def _placed(self, place: Place) -> None:
        self._pending.written(place)
        self._unsynced += place.length

    def _written(self, written: Written) -> None:
        self._free = written.free
        self._settle_within(0 if self._unsynced >= SYNC_BYTES else SYNC_S)

    def _why(self, error: OSError) -> OverflowUnusable:
        """Return *error* as one of the family, and note what it means for the next file."""
        if isinstance(error, OverflowUnusable):
            return error
        where = self.directory or self._top
        if self._segments.is_failed:
            self.failure = OverflowUnusable(f"the disk of the overflow {where} has failed: {error.strerror}")
            _log.error("{failure}; what it holds and was not synced may be lost", failure=self.failure)
            return self.failure
        self._is_full = True
        if error.errno in FULL:
            return OverflowUnusable(f"the disk of the overflow {where} is full")
        return OverflowUnusable(f"the overflow {where} cannot be written: {error.strerror}")

    # -- inside: syncing, the docket -----------------------------------------------------------------------------------

    def _settle_within(self, seconds: float) -> None:
        """Settle at the latest in *seconds*, unless closing, which does that itself."""
        if self._closed is not None:
            return
        if self._tick is not None:
            if self._tick.getTime() <= self._reactor.seconds() + seconds:
                return
            self._tick.cancel()
        self._tick = self._reactor.callLater(seconds, self._settle)

    def _settle(self) -> None:
        """Sync, write down what was delivered, and delete what is done with, in a thread; one at a time."""
        self._tick = None
        if self._is_settling:
            self._settle_within(SYNC_S)
            return
        if not self.directory:  # it could not be made: that is tried again
            self._is_full, self._free = False, None
            return
        if self._pending.is_idle and not self._appends.is_writing:
            self._segments.seal()
            self._pending.seal()
        self._unsynced = 0
        self._is_settling = True
        delivered, finished = self._pending.take_unnoted(), self._pending.finished()
        settling = self._in_thread(self._segments.settle, delivered, finished)
        settling.addCallback(self._settled, finished)
        settling.addErrback(self._not_settled)
        settling.addBoth(self._wake)

    def _settled(self, settled: Settled, finished: Sequence[int]) -> None:
        self._free = settled.free
        self._is_full = False
        self._pending.deleted(finished)
        if settled.unnoted:
            self._pending.not_noted(settled.unnoted)
            self._settle_within(FULL_RETRY_S)

    def _not_settled(self, failure: Failure) -> None:
        """Note that a sync or the docket failed: the files stay, and may be handed out once more by another process."""
        if failure.check(OSError):
            assert isinstance(failure.value, OSError)
            self.failure = self.failure or self._why(failure.value)
        else:
            _log.failure("a defect while the overflow was synced", failure=failure)

    def _wake(self, _: object) -> None:
        self._is_settling = False
        waiting, self._settled_at = self._settled_at, []  # one that wakes may settle again, and wait for that
        for each in waiting:
            each.callback(None)

    # -- inside: the end -----------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        await self._appends.over()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        await self._no_settling()
        if self.directory:
            self._segments.seal()
            self._pending.seal()
            self._settle()
            await self._no_settling()
        await self._in_thread(self._release, self._pending.is_done and self.failure is None)
        if self.failure is not None:
            raise self.failure

    async def _no_settling(self) -> None:
        if self._is_settling:
            waiting: Deferred[None] = Deferred()
            self._settled_at.append(waiting)
            await waiting

    def _release(self, is_done: bool) -> None:  # noqa: FBT001 - called by a pool
        try:
            if is_done:
                self._segments.remove()
        finally:
            self._segments.release()

    def _in_thread(self, work: Callable[..., _T], *arguments: object) -> Deferred[_T]:
        return deferToThreadPool(self._reactor, self._pool, work, *arguments)
