"""Appends: files on their way into an overflow, written in batches by a thread, one batch at a time.

Small files share a write, and a sync where each is synced; large ones go alone. Each file is accounted for by its own
Deferred: written, failed, or withdrawn. Where the bytes go, its maker says.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from granum.streaming.pending import Place, Token
from granum.streaming.record import Piece, record_length
from granum.streaming.segments import File, Written
from granum.wire.errors import OverflowUnusable
from granum.wire.paths import ClusterPath

WRITE_BYTES_MAX = 64 << 20  # in one go of a thread
WRITE_FILES_MAX = 256  # likewise: a few thousand pieces


@dataclass(slots=True, eq=False)
class _Append:
    file: File
    length: int
    done: Deferred[Token]
    is_withdrawn: bool = False


class Appends:
    """Files that wait for *write*, which is given a batch and fires with what became of it.

    *placed* is told of every record that was written, then *after* of the whole batch; *withdrawn* of those whose Deferred
    was cancelled meanwhile. *why* says what an error of the disk means.
    """

    def __init__(
        self,
        write: Callable[[Sequence[File]], Deferred[Written]],
        *,
        placed: Callable[[Place], None],
        after: Callable[[Written], None],
        withdrawn: Callable[[Token], None],
        why: Callable[[OSError], OverflowUnusable],
    ) -> None:
        self._begin = write
        self._placed = placed
        self._after = after
        self._withdrawn = withdrawn
        self._why = why
        self._queue: deque[_Append] = deque()
        self._idle: list[Deferred[None]] = []
        self.size = 0  # bytes of the records that wait or are being written
        self.is_writing = False

    def add(self, path: ClusterPath, pieces: Sequence[Piece], size: int, number: int | None) -> Deferred[Token]:
        """Queue a file; fires when it is written, with its token. Cancelling withdraws it."""
        length = record_length(path, size)
        waiting = _Append(File(path, tuple(pieces), size, number), length, Deferred(lambda _: self._withdraw(waiting)))
        self._queue.append(waiting)
        self.size += length
        self._write()
        return waiting.done

    def over(self) -> Deferred[None]:
        """Fire when nothing waits and nothing is being written."""
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        self._write()
        return waiting

    def _write(self) -> None:
        """Let *write* have what waits, unless it is at work."""
        if self.is_writing:
            return
        batch: list[_Append] = []
        size = 0
        while self._queue and len(batch) < WRITE_FILES_MAX:
            if batch and size + self._queue[0].length > WRITE_BYTES_MAX:
                break
            batch.append(self._queue.popleft())
            size += batch[-1].length
        if not batch:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)
            return
        self.is_writing = True
        writing = self._begin([append.file for append in batch])
        writing.addCallbacks(self._written, self._failed, (batch,), {}, (batch,), {})

    def _written(self, written: Written, batch: Sequence[_Append]) -> None:
        self._end(batch)
        for place in written.places:
            self._placed(place)
        error = self._why(written.error) if written.error is not None else OverflowUnusable()
        self._after(written)
        for append, place in zip(batch, written.places, strict=False):
            if append.is_withdrawn:
                self._withdrawn(place.token)
            else:
                append.done.callback(place.token)
        for append in batch[len(written.places) :]:
            if not append.is_withdrawn:
                append.done.errback(error)
        self._write()

    def _failed(self, failure: Failure, batch: Sequence[_Append]) -> None:
        """Fail *batch* for a reason that is no disk's: pieces that are no bytes, or a defect."""
        self._end(batch)
        for append in batch:
            if not append.is_withdrawn:
                append.done.errback(failure)
        self._write()

    def _end(self, batch: Sequence[_Append]) -> None:
        self.is_writing = False
        self.size -= sum(append.length for append in batch)

    def _withdraw(self, append: _Append) -> None:
        append.is_withdrawn = True
        if append in self._queue:
            self._queue.remove(append)
            self.size -= append.length
