"""The segments of one overflow on disk: written, synced, read back and deleted.

The rule: nothing is ever half there. A write that fails is cut off again; a segment is deleted only behind the sync of the
docket that names all its records as delivered. Everything blocks, so it runs in threads: `write` in one at a time, `settle` in
one at a time, both beside each other. Which records are pending is not known here.
"""

import errno
import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from granum.streaming.pending import Place, Token
from granum.streaming.record import (
    ENTRY_BYTES,
    MAGIC,
    Head,
    Piece,
    encode_entries,
    record_length,
)
from granum.streaming.survey import (
    HEADER,
    LOCK,
    Header,
    Scanned,
    docket_name,
    make_directory,
    scan,
    segment_name,
    take_lock,
)
from granum.wire.errors import OverflowUnusable
from granum.wire.paths import ClusterPath

PIECES_MAX = 1024  # of one write: the kernel's limit
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class File:
    """A file to be written: the *pieces* of its body, *size* bytes in all."""

    path: ClusterPath
    pieces: Sequence[Piece]
    size: int
    number: int | None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write: where the first files of it lie, and why the others do not; *free* bytes are left on the disk."""

    places: Sequence[Place]
    error: OSError | None
    free: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What a full disk kept from being noted, by segment, to be tried again; and how many bytes are free."""

    unnoted: Mapping[int, Sequence[int]]
    free: int


class Segments:
    """The files in the directory of one overflow; made below *top* with the first write, or opened with `reopen`.

    A segment takes *segment_bytes_max*, or one record. *reserve_bytes* of the disk are left free. With *sync_each* a write
    returns when it is synced, else `settle` syncs.
    """

    def __init__(self, header: Header, *, segment_bytes_max: int, reserve_bytes: int, sync_each: bool) -> None:
        self.header = header
        self.directory = ""
        self._segment_bytes_max = segment_bytes_max
        self._reserve_bytes = reserve_bytes
        self._sync_each = sync_each
        self._folder = self._lock = self._active = -1  # descriptors
        self._number = 0
        self._size = 0  # of the active segment
        self._seq = 0  # of the next record
        self.is_failed = False  # a sync failed: what it was to save may be gone, and nothing more is written
        self._sealed: deque[int] = deque()  # descriptors of segments that nothing more is written to, not synced yet

    def reopen(self, directory: str) -> list[Scanned]:
        """Take over what lies in *directory*; return it. Raises OverflowInUse or OverflowUnusable."""
        self.header = Header.read(directory)
        try:
            self._lock = take_lock(directory)
            self.directory = os.path.abspath(directory)
            self._folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            found = list(scan(directory))
        except OSError as error:
            self.release()
            if isinstance(error, OverflowUnusable):
                raise
            raise OverflowUnusable(f"{directory} cannot be read: {error.strerror}") from error
        self._number = max((segment.number for segment in found), default=0)
        self._seq = max((segment.first + len(segment.offsets) for segment in found), default=0)
        return found

    # -- one thread at a time ------------------------------------------------------------------------------------------

    def write(self, top: str, files: Sequence[File]) -> Written:
        """Write *files* behind all others, as many as there is room for, from where they lie; they are read once more."""
        places: list[Place] = []
        error: OSError | None = None
        try:
            if not self.directory:
                made, self._folder, self._lock = make_directory(top, self.header)
                self.directory = made  # last: others go by it
            for group in self._groups(files):
                places += self._append(group)
        except OSError as failed:
            error = failed
        if self._sync_each and places and not self.is_failed:
            try:
                self._sync(self._active)
            except OSError as failed:
                error = failed
        if self._sync_each and self.is_failed:
            places.clear()  # they may not be safe, and whoever asked for that puts them elsewhere
        return Written(places, error, self._free())

    def _groups(self, files: Sequence[File]) -> Iterator[list[tuple[Head, Sequence[Piece]]]]:
        """Yield what goes into one segment together, having begun that segment."""
        group: list[tuple[Head, Sequence[Piece]]] = []
        end = self._size
        for file in files:
            length = record_length(file.path, file.size)
            if self._active < 0 or (end > len(MAGIC) and end + length > self._segment_bytes_max):
                if group:
                    yield group
                group = []
                self._begin()
                end = self._size
            group.append(
                (Head.of(file.pieces, seq=self._seq + len(group), number=file.number, path=file.path), file.pieces)
            )
            end += length
        yield group

    def seal(self) -> None:
        """Write nothing more to the segment that is being written; does not block, but no write may be under way."""
        if self._active >= 0:
            self._sealed.append(self._active)
            self._active = -1

    def _begin(self) -> None:
        """Begin the next segment."""
        if self._active >= 0 and self._sync_each:
            self._sync(self._active)
        self.seal()
        path = os.path.join(self.directory, segment_name(self._number + 1))
        segment = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_all(segment, [MAGIC], 0)
            os.fsync(self._folder)
        except BaseException:
            os.close(segment)
            os.unlink(path)
            raise
        self._active, self._number, self._size = segment, self._number + 1, len(MAGIC)

    def _append(self, group: Sequence[tuple[Head, Sequence[Piece]]]) -> list[Place]:
        """Write the records of *group* to the active segment, all or none."""
        if self.is_failed:
            raise OSError(errno.EIO, "a sync has failed, so nothing more is written", self.directory)
        if self._free() < sum(head.length for head, _ in group):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.directory)
        pieces: list[Piece] = []
        places = []
        end = self._size
        for head, body in group:
            pieces += (head.encode(), *body)
            places.append(Place(Token(head.seq), self._number, end, head.length))
            end += head.length
        try:
            _write_all(self._active, pieces, self._size)
        except BaseException:
            try:
                os.ftruncate(self._active, self._size)
            except OSError:
                self.seal()  # its end is torn now, and nothing may stand behind that
            raise
        self._seq += len(group)
        self._size = end
        return places

    # -- another one ---------------------------------------------------------------------------------------------------

    def settle(self, delivered: Mapping[int, Sequence[int]], finished: Collection[int]) -> Settled:
        """Sync what was written, note and sync *delivered* by segment, then delete *finished*.

        Raises OSError when the disk fails; the segments are there still.
        """
        while self._sealed:
            self._sync(self._sealed[0])
            os.close(self._sealed.popleft())
        active = self._active
        if active >= 0:  # it may be sealed meanwhile, but only here is one closed
            self._sync(active)
        unnoted = {}
        for number, seqs in delivered.items():
            try:
                self._note(number, seqs)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                # Deleting a segment makes room, and says the same as its docket: it must not wait for that.
                if number not in finished:
                    unnoted[number] = seqs
        if finished:
            self._delete(finished)
        return Settled(unnoted, self._free())

    def _note(self, number: int, seqs: Sequence[int]) -> None:
        """Add *seqs* to the docket of a segment, and sync it."""
        path = os.path.join(self.directory, docket_name(number))
        docket = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(docket).st_size
            _write_all(docket, [encode_entries(seqs)], size - size % ENTRY_BYTES)  # over a torn entry, not behind it
            self._sync(docket)
        finally:
            os.close(docket)

    def _delete(self, numbers: Collection[int]) -> None:
        os.fsync(self._folder)  # the names of the dockets
        for number in numbers:
            os.unlink(os.path.join(self.directory, segment_name(number)))
        os.fsync(self._folder)
        for number in numbers:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self.directory, docket_name(number)))

    # -- the end -------------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Close everything; what is on disk stays, for whoever opens it next."""
        self.seal()
        while self._sealed:
            os.close(self._sealed.popleft())
        for descriptor in (self._folder, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._folder = self._lock = -1

    def remove(self) -> None:
        """Delete all that is in the directory, and itself, still under the lock."""
        if self.directory:
            for name in [HEADER, *(name for name in os.listdir(self.directory) if name not in {HEADER, LOCK}), LOCK]:
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.directory, name))
            os.rmdir(self.directory)

    def _sync(self, file: int) -> None:
        try:
            os.fdatasync(file)
        except OSError:
            self.is_failed = (
                True  # not tried again: the kernel may have dropped the bytes, and would say that all is well
            )
            raise

    def _free(self) -> int:
        """Return how many bytes may still be written, by the reserve."""
        if self._folder < 0:
            return 0
        disk = os.fstatvfs(self._folder)
        return max(disk.f_bavail * disk.f_frsize - self._reserve_bytes, 0)


def _write_all(file: int, pieces: Sequence[Piece], offset: int) -> None:
    """Write *pieces* one behind the other from *offset* on, without copying them."""
    views = deque(memoryview(piece).cast("B") for piece in pieces if memoryview(piece).nbytes)
    while views:
        taken = os.pwritev(file, [views[index] for index in range(min(len(views), PIECES_MAX))], offset)
        offset += taken
        while views and taken >= len(views[0]):
            taken -= len(views.popleft())
        if taken:
            views[0] = views[0][taken:]


def drop(directory: str) -> None:
    """Delete the overflow in *directory* with all that is in it; raise OverflowInUse, or OverflowUnusable when it is none."""
    segments = Segments(Header.read(directory), segment_bytes_max=0, reserve_bytes=0, sync_each=False)
    segments.reopen(directory)
    try:
        segments.remove()
    finally:
        segments.release()
