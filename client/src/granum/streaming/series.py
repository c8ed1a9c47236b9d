"""The series writer: frames and metadata of one acquisition, in PYME's layout, streamed while the camera runs.

A series is a directory NAME.pcs: metadata.json first, then frame00000.pzf and so on, final_metadata.json, and events.json
last, which marks it complete. The rule: the mark is set only when every frame has its receipt, so a reader that sees it
lacks nothing; a series that was given up or lost a frame never has it.

What a frame must be like is known to `frames`, how the mark is set to `mark`; how files travel is the streamer's matter.
"""

import operator
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from granum.cluster import Cluster
from granum.placement import AnyPlacement
from granum.roster import Node
from granum.streaming import opening
from granum.streaming.account import Summary
from granum.streaming.encoding import Encoders
from granum.streaming.frames import Frames
from granum.streaming.intake import Intake
from granum.streaming.layout import EVENTS, FINAL_METADATA, METADATA, SUFFIX, frame_name, series_path
from granum.streaming.mark import Mark
from granum.streaming.metadata import Event, encode_events, encode_metadata, flat_metadata
from granum.streaming.overflow import Overflow
from granum.streaming.streamer import PENDING_MAX, Streamer
from granum.transfer import Receipt
from granum.wire import frame
from granum.wire.errors import (
    Closed,
    NodeBusy,
    NotReceipted,
)
from granum.wire.paths import ClusterPath
from granum.wire.pzf import HEADER_BYTES, Compression

__all__ = ["EVENTS", "FINAL_METADATA", "METADATA", "SUFFIX", "SeriesWriter", "frame_name"]

PENDING_BYTES_MAX = 128 << 20  # of frames handed over and not yet in a window; one larger frame may wait alone
NOT_KNOWN_YET = -1  # PYME's word for a size that is still growing

_Claimed = tuple[int, Sequence[bytes | memoryview]]  # a frame's number, and the pieces of its file


class SeriesWriter:
    """Writes one series to *cluster*; made by `create`. *path* is its directory, *image_id* its number in every frame."""

    def __init__(
        self,
        cluster: Cluster,
        frames: Frames,
        metadata: Mapping[str, Any],
        streamer: Streamer,
        *,
        encoders: int | None = None,
        overflow: Overflow | None = None,
        encodes_ahead: bool = True,
        keeps: bool = False,
    ) -> None:
        """Use `create`, which stores the metadata as well. *keeps*: the streamer takes in whatever fits into memory."""
        self.path = frames.directory
        self.image_id: int = metadata["imageID"]
        self._cluster = cluster
        self._frames = frames
        self._metadata = metadata
        self._streamer = streamer
        self._encoders = Encoders(cluster.reactor, encoders)
        self._overflow = overflow
        self._encodes_ahead = encodes_ahead and not frames.is_raw
        self._takes_from_threads = keeps and frames.is_raw
        self._intake: Intake[_Claimed] = Intake(cluster.reactor, streamer.has_memory, self._take)
        if keeps:
            frames.prepare()
        self._not_put: dict[str, BaseException] = {}  # frames encoded ahead that the streamer then did not accept
        self._taken = 0  # frames that the streamer took: not each that is claimed
        self._pending = self._pending_bytes = 0  # frames that were handed over and are not in a window yet
        self._drained: Deferred[None] | None = None
        self._closed = False
        self._aborted = False
        self._mark = Mark(cluster, self.path)
        self._to_mark: Summary | None = None  # every frame is receipted, and a finalise failed behind that

    @classmethod
    def create(
        cls,
        cluster: Cluster,
        path: str | ClusterPath,
        *,
        metadata: Mapping[str, Any] | None = None,
        compression: Compression = "raw",
        quantise: frame.Quantisation | None = None,
        shape: tuple[int, ...] | None = None,
        dtype: DTypeLike | None = None,
        encoders: int | None = None,
        placement: AnyPlacement | str | None = None,
        overflow_dir: str | None = None,
        overflow_options: Mapping[str, Any] | None = None,
        on_receipt: Callable[[Receipt], None] | None = None,
        **streamer_options: Any,  # those of Streamer, each with its own type
    ) -> "Deferred[SeriesWriter]":
        """Store metadata.json in a new directory *path*, '.pcs' appended when missing; fires with the writer.

        *metadata* may be nested. Without *shape* or *dtype* the first frame decides what the others must have; with both, and
        *on_full* "raise", memory is ready for the first ones. *encoders* is how many threads compress, by default one for each
        core; *placement* is that of the cluster unless given.

        *on_full*, one of the options of `Streamer`, says what becomes of a frame for which no node has room: "wait";
        "raise", which keeps it in memory, and refuses it when that is full; or "overflow", for which *overflow_dir* names a
        directory on this machine, and *overflow_options* are those of `Overflow.create`. *on_receipt* is called on the
        reactor's thread with the receipt of each frame.

        Fails with AlreadyStored when an answering node has the directory, ValueError for bad metadata, WrongFrame or
        BadConfig for frames or codings that PZF does not hold, NoNode, or with what `Cluster.put` fails with.
        """

        async def create() -> SeriesWriter:
            directory = series_path(path)
            stated = {"DimOrder": "XYCZT", "SizeC": 1, "SizeZ": 1, "SizeT": NOT_KNOWN_YET, **flat_metadata(metadata)}
            image_id = stated["imageID"] = 1 + secrets.randbelow(2**63 - 1)
            # Made first, so that a setting which no frame could be stored with fails before anything is.
            frames = Frames(directory, image_id, compression=compression, quantise=quantise, shape=shape, dtype=dtype)
            await opening.check_free(cluster, directory)
            overflow = opening.overflow_of(cluster, directory, overflow_dir, overflow_options)
            streamer = Streamer(
                cluster.roster.nodes,
                reactor=cluster.reactor,
                ledger=cluster.ledger,
                placement=await cluster.placement(placement),
                overflow=overflow,
                on_receipt=cluster.noted if on_receipt is None else partial(opening.tell, (cluster.noted, on_receipt)),
                **streamer_options,
            )
            await cluster.put(directory / METADATA, encode_metadata(stated))
            settings = opening.settings(streamer_options)
            return cls(cluster, frames, stated, streamer, encoders=encoders, overflow=overflow, **settings)

        return Deferred.fromCoroutine(create())

    def store_frame(self, n: int, array: ArrayLike, *, copy: bool = True) -> Deferred[Node | None]:
        """Stream frame *n*; fires when it is taken in: wait for it before the next frame.

        Fires with its node when it is in a window; with None when it is in the overflow, is kept in memory, or waits for one
        of the encoders while these keep up.

        *array* has (height, width) or three axes, u1, u2 or f4 in either byte order. It is copied before this returns,
        because cameras use their buffers again; with *copy* off it must not change until the series is finalised.

        Fails, and stores nothing, with WrongFrame (not the shape or dtype of the series), AlreadyStored (number used),
        ValueError (negative number), Closed, or as `Streamer.put` does. Frames stored before are not touched.
        """
        try:
            self._check_open()
            number, samples = operator.index(n), np.asarray(array)
            self._check_room(samples.nbytes)
            self._frames.claim(number, samples)
        except Exception:  # noqa: BLE001 - told to whoever waits
            return fail()
        size = samples.nbytes
        takes_in = self._takes_in(size)
        self._pending += 1
        self._pending_bytes += size
        stored = self._put(number, samples, copy=copy)
        if takes_in:  # its caller goes on, so what goes wrong is told at the end
            stored.addCallbacks(self._put_in, self._not_put_in, callbackArgs=(size,), errbackArgs=(number, size))
            return succeed(None)
        stored.addCallbacks(self._put_in, self._not_stored, callbackArgs=(size,), errbackArgs=(number, size))
        return stored

    def take_in(self, n: int, array: ArrayLike, *, copy: bool = True) -> bool:
        """Do on any thread, without waiting for the reactor, what `store_frame` does; it raises what that fails with.

        Returns False, with nothing done, where only `store_frame` can tell what becomes of the frame: when *on_full* is not
        "raise", frames are compressed, memory is full, or a frame has failed.
        """
        if not self._takes_from_threads:
            return False
        samples, number = np.asarray(array), operator.index(n)
        size = samples.nbytes + HEADER_BYTES
        if not self._intake.reserve(size):
            return False
        is_added = is_claimed = False
        try:
            self._frames.claim(number, samples)
            is_claimed = True
            is_added = self._intake.add((number, self._frames.encoded(number, self._kept(samples, copy=copy))), size)
            if not is_added:
                self._check_open()
        finally:
            if not is_added:
                self._intake.give_back(size)
                if is_claimed:
                    self._frames.release(number)
        return is_added

    def finalise(self, events: Iterable[Event] = (), metadata: Mapping[str, Any] | None = None) -> Deferred[Summary]:
        """Wait for all receipts, store the final metadata and then *events*, and fire with the summary of the frames.

        *metadata* are added to those of `create`; SizeT becomes the number of frames unless they state it. Fails with
        NotReceipted, and leaves the series incomplete, when a frame has no receipt; ValueError, with the series still
        open, for bad metadata or events. When it fails behind the frames, because a node did not take one of the two
        files, call it again with the same arguments: it goes on where it stopped.
        """
        return Deferred.fromCoroutine(self._finalise(events, metadata))

    def abort(self) -> Deferred[None]:
        """Close without marking the series complete; frames on their way may or may not be stored. Fires when closed."""
        self._closed = self._aborted = True
        self._to_mark = None
        return Deferred.fromCoroutine(self._abort())

    @property
    def summary(self) -> Summary:
        """What is receipted so far: also when `finalise` failed, or was never called."""
        return self._streamer.summary

    # -- frames -------------------------------------------------------------------------------------------------------

    def _check_room(self, size: int) -> None:
        pending = self._pending
        if pending >= PENDING_MAX or (pending and self._pending_bytes + size > PENDING_BYTES_MAX):
            raise NodeBusy(f"{pending} frames wait for room already; wait for each before the next")

    def _takes_in(self, size: int) -> bool:
        """Whether a frame of *size* bytes is encoded behind its caller's back.

        Those that are encoded and find no window count as well: so a caller who waits for each waits, and is never refused.
        """
        return (
            self._encodes_ahead
            and self._encoders.has_room
            and self._pending < min(2 * self._encoders.count, PENDING_MAX // 2)
            and self._pending_bytes + 2 * size <= PENDING_BYTES_MAX
        )

    def _kept(self, samples: NDArray[Any], *, copy: bool) -> NDArray[Any]:
        """Return *samples*, or a copy, that do not change until they are sent."""
        return self._frames.copied(samples) if copy or not samples.dtype.isnative else samples

    def _put(self, number: int, samples: NDArray[Any], *, copy: bool) -> Deferred[Node | None]:
        """Make a file of a frame, raw ones at once, compressed ones in a thread, and put it."""
        frames, path = self._frames, self._frames.path(number)
        try:
            kept = self._kept(samples, copy=copy)
            if frames.is_raw:
                return self._streamer.put(path, frames.encoded(number, kept), number)
        except Exception:  # noqa: BLE001 - told to whoever waits
            return fail()

        async def encode_and_put() -> Node | None:
            pieces = await self._encoders.run(partial(frames.encoded, number, kept))
            return await self._streamer.put(path, pieces, number)

        return Deferred.fromCoroutine(encode_and_put())

    def _put_in(self, node: Node | None, size: int) -> Node | None:
        self._taken += 1
        self._not_pending(size)
        return node

    def _not_stored(self, failure: Failure, number: int, size: int) -> Failure:
        self._frames.release(number)
        self._not_pending(size)
        return failure

    def _not_put_in(self, failure: Failure, number: int, size: int) -> None:
        assert failure.value is not None
        self._not_put[str(self._frames.path(number))] = failure.value
        self._not_pending(size)

    def _not_pending(self, size: int) -> None:
        self._pending -= 1
        self._pending_bytes -= size
        if self._drained is not None and not self._pending:
            self._drained.callback(None)

    def _take(self, claimed: _Claimed) -> None:
        number, pieces = claimed
        self._taken += 1
        self._streamer.take(self._frames.path(number), pieces, number)

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _finalise(self, events: Iterable[Event], metadata: Mapping[str, Any] | None) -> Summary:
        if self._to_mark is None:
            self._check_open()
        marker = encode_events(events)
        added = flat_metadata(metadata)
        summary, self._to_mark = self._to_mark, None  # taken, because one finalise at a time is enough
        if summary is None:
            summary = await self._receipted()
        final = {**self._metadata, "SizeT": self._taken, **added, "imageID": self.image_id}
        try:
            await self._mark.set(encode_metadata(final), marker, self._check_not_aborted)
        except BaseException:
            if not self._aborted:
                self._to_mark = summary
            raise
        return summary

    async def _receipted(self) -> Summary:
        """Take no more frames, and wait until all have their receipts; end everything when one will have none."""
        self._closed = True
        try:
            self._intake.close()
            if self._pending:
                self._drained = Deferred()
                await self._drained
            self._check_not_aborted()
            summary = await self._close_streamer()
            self._check_not_aborted()
        except BaseException:
            await self._abort()
            raise
        self._encoders.end()
        self._frames.end()
        self._cluster.forget_listing(self.path / METADATA)
        await self._close_overflow()
        self._check_not_aborted()
        return summary

    async def _close_streamer(self) -> Summary:
        """Close the streamer; raise NotReceipted for what it, or the way to it, lost."""
        try:
            summary = await self._streamer.close()
        except NotReceipted as error:
            if not self._not_put:
                raise
            lost = [*error.paths, *self._not_put]
            raise NotReceipted(
                f"{len(lost)} frames have no receipt", lost, {**error.causes, **self._not_put}
            ) from error
        if self._not_put:
            raise NotReceipted(f"{len(self._not_put)} frames were not sent", [*self._not_put], self._not_put)
        return summary

    async def _abort(self) -> None:
        self._intake.close()
        try:
            await self._streamer.abort()
        finally:
            self._encoders.end()
            self._frames.end()
            self._cluster.forget_listing(self.path / METADATA)
            await self._close_overflow()

    async def _close_overflow(self) -> None:
        """Close the overflow. That its disk failed was logged, and changes nothing of what is receipted or lost by now."""
        if self._overflow is not None:
            with suppress(OSError):
                await self._overflow.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"the series {self.path} is closed")

    def _check_not_aborted(self) -> None:
        if self._aborted:
            raise Closed(f"the series {self.path} was aborted")
