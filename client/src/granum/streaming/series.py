"""The series writer: frames and metadata of one acquisition, in PYME's layout, streamed while the camera runs.

A series is a directory NAME.pcs: metadata.json first, then frame00000.pzf and so on, final_metadata.json, and events.json
last, which marks it complete. The rule: the mark is set only when every frame has its receipt, so a reader that sees it
lacks nothing; a series that was given up or lost a frame never has it.

All frames of a series have one shape and one dtype. The series knows frames; how files travel is the streamer's matter.
"""

import operator
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from twisted.internet.defer import Deferred

from granum.cluster import Cluster
from granum.placement import AnyPlacement
from granum.roster import Node
from granum.streaming.account import Summary
from granum.streaming.encoding import Encoders
from granum.streaming.metadata import Event, encode_events, encode_metadata, flat_metadata
from granum.streaming.overflow import Overflow
from granum.streaming.streamer import PENDING_MAX, Streamer
from granum.transfer import Receipt
from granum.wire import frame
from granum.wire.errors import (
    AlreadyStored,
    BadConfig,
    Closed,
    NodeBusy,
    NotADirectory,
    NotReceipted,
    NotStored,
    Partial,
    WrongFrame,
)
from granum.wire.paths import ClusterPath
from granum.wire.pzf import Compression

SUFFIX = ".pcs"
METADATA = "metadata.json"
FINAL_METADATA = "final_metadata.json"
EVENTS = "events.json"

FRAMES_MAX = 1 << 32  # the field of a PZF header
PENDING_BYTES_MAX = 128 << 20  # of frames handed over and not yet in a window; one larger frame may wait alone
NOT_KNOWN_YET = -1  # PYME's word for a size that is still growing


def frame_name(n: int) -> str:
    """Return the file name of frame *n*."""
    return f"frame{n:05d}.pzf"


class SeriesWriter:
    """Writes one series to *cluster*; made by `create`. *path* is its directory, *image_id* its number in every frame."""

    def __init__(
        self,
        cluster: Cluster,
        path: ClusterPath,
        metadata: Mapping[str, Any],
        streamer: Streamer,
        *,
        compression: Compression,
        quantise: frame.Quantisation | None,
        encoders: int | None = None,
        overflow: Overflow | None = None,
        encodes_ahead: bool = True,
    ) -> None:
        """Use `create`, which stores the metadata as well."""
        self.path = path
        self.image_id: int = metadata["imageID"]
        self._cluster = cluster
        self._metadata = metadata
        self._streamer = streamer
        self._compression: Compression = compression
        self._quantise = quantise
        self._encoders = Encoders(cluster.reactor, encoders)
        self._overflow = overflow
        self._encodes_ahead = encodes_ahead and compression != "raw"
        self._not_put: dict[str, BaseException] = {}  # frames encoded ahead that the streamer then did not accept
        self._shape: tuple[int, ...] | None = None
        self._dtype: np.dtype[Any] | None = None
        self._stated_shape: tuple[int, ...] | None = None
        self._stated_dtype: np.dtype[Any] | None = None
        self._numbers: set[int] = set()
        self._pending = self._pending_bytes = 0  # frames that were handed over and are not in a window yet
        self._drained: Deferred[None] | None = None
        self._closed = False
        self._aborted = False
        self._to_mark: Summary | None = None  # every frame is receipted, and a finalise failed behind that
        self._tried: set[str] = set()  # files behind the frames that may be stored

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

        *metadata* may be nested. Without *shape* or *dtype* the first frame decides what the others must have. *encoders* is
        how many threads compress, by default one for each core; *placement* is that of the cluster unless given.

        *on_full*, one of the options of `Streamer`, says what becomes of a frame for which no node has room: "wait",
        "raise", or "overflow", for which *overflow_dir* names a directory on this machine, and *overflow_options* are those
        of `Overflow.create`. *on_receipt* is called on the reactor's thread with the receipt of each frame.

        Fails with AlreadyStored when an answering node has the directory, ValueError for bad metadata, WrongFrame or
        BadConfig for frames or codings that PZF does not hold, NoNode, or with what `Cluster.put` fails with.
        """

        async def create() -> SeriesWriter:
            directory = _series_path(path)
            stated = {"DimOrder": "XYCZT", "SizeC": 1, "SizeZ": 1, "SizeT": NOT_KNOWN_YET, **flat_metadata(metadata)}
            stated["imageID"] = 1 + secrets.randbelow(2**63 - 1)
            # A trial frame, so that a setting which no frame could be stored with fails before anything is.
            trial = np.zeros((1, 1), _stored_dtype(dtype or "u2"))
            frame.encode(trial, compression=compression, quantise=quantise)
            if shape is not None:
                _check_shape("every frame", shape)
            await _check_free(cluster, directory)
            overflow = _overflow(cluster, directory, overflow_dir, overflow_options)
            streamer = Streamer(
                cluster.roster.nodes,
                reactor=cluster.reactor,
                ledger=cluster.ledger,
                placement=await cluster.placement(placement),
                overflow=overflow,
                on_receipt=cluster.noted if on_receipt is None else partial(_tell, (cluster.noted, on_receipt)),
                **streamer_options,
            )
            await cluster.put(directory / METADATA, encode_metadata(stated))
            writer = cls(
                cluster,
                directory,
                stated,
                streamer,
                compression=compression,
                quantise=quantise,
                encoders=encoders,
                overflow=overflow,
                # A frame that may be refused is refused to the call that hands it over, so nothing is promised before.
                encodes_ahead="raise" not in {streamer_options.get("on_full"), streamer_options.get("overflow_full")}
                and streamer_options.get("pending_max", PENDING_MAX) >= PENDING_MAX,
            )
            writer._shape = writer._stated_shape = None if shape is None else tuple(shape)
            writer._dtype = writer._stated_dtype = None if dtype is None else trial.dtype
            return writer

        return Deferred.fromCoroutine(create())

    def store_frame(self, n: int, array: ArrayLike, *, copy: bool = True) -> Deferred[Node | None]:
        """Stream frame *n*; fires when it is taken in: wait for it before the next frame.

        Fires with its node when it is in a window; with None when it is in the overflow, or waits for one of the encoders
        while these keep up.

        *array* has (height, width) or three axes, u1, u2 or f4 in either byte order. It is copied before this returns,
        because cameras use their buffers again; with *copy* off it must not change until the series is finalised.

        Fails, and stores nothing, with WrongFrame (not the shape or dtype of the series), AlreadyStored (number used),
        ValueError (negative number), Closed, or as `Streamer.put` does. Frames stored before are not touched.
        """
        return Deferred.fromCoroutine(self._store_frame(n, array, copy=copy))

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

    # -- private ------------------------------------------------------------------------------------------------------

    async def _abort(self) -> None:
        try:
            await self._streamer.abort()
        finally:
            self._encoders.end()
            self._cluster.forget_listing(self.path / METADATA)
            await self._close_overflow()

    async def _close_overflow(self) -> None:
        """Close the overflow. That its disk failed was logged, and changes nothing of what is receipted or lost by now."""
        if self._overflow is not None:
            with suppress(OSError):
                await self._overflow.close()

    async def _store_frame(self, n: int, array: ArrayLike, *, copy: bool) -> Node | None:
        if self._closed:
            raise Closed(f"the series {self.path} is closed")
        number = operator.index(n)
        samples = np.asarray(array)
        self._check_frame(number, samples)
        pending = self._pending
        if pending >= PENDING_MAX or (pending and self._pending_bytes + samples.nbytes > PENDING_BYTES_MAX):
            raise NodeBusy(f"{pending} frames wait for room already; wait for each before the next")
        if copy or not samples.dtype.isnative:
            samples = np.array(samples, samples.dtype.newbyteorder("="), order="A")
        if self._shape is None or self._dtype is None:
            self._shape, self._dtype = samples.shape, samples.dtype
        self._numbers.add(number)
        if self._takes_in(samples.nbytes):
            Deferred.fromCoroutine(self._put(number, samples, is_taken_in=True))
            return None
        return await self._put(number, samples)

    def _takes_in(self, size: int) -> bool:
        """Whether a frame of *size* bytes is encoded behind its caller's back.

        Those that are encoded and find no window count as well: so a caller who waits for each waits, and is never refused.
        """
        few = self._pending < min(2 * self._encoders.count, PENDING_MAX // 2)
        return (
            self._encodes_ahead
            and self._encoders.has_room
            and few
            and self._pending_bytes + 2 * size <= PENDING_BYTES_MAX
        )

    async def _put(self, number: int, samples: NDArray[Any], *, is_taken_in: bool = False) -> Node | None:
        self._pending += 1
        self._pending_bytes += samples.nbytes
        try:
            pieces = await self._encode(number, samples)
            return await self._streamer.put(self.path / frame_name(number), pieces, number)
        except BaseException as error:
            if is_taken_in:  # its caller has gone on, so it is told at the end
                self._not_put[str(self.path / frame_name(number))] = error
                return None
            self._numbers.discard(number)
            if not self._numbers:  # a frame that was not stored decides nothing
                self._shape, self._dtype = self._stated_shape, self._stated_dtype
            raise
        finally:
            self._pending -= 1
            self._pending_bytes -= samples.nbytes
            if self._drained is not None and not self._pending:
                self._drained.callback(None)

    def _check_frame(self, number: int, samples: NDArray[Any]) -> None:
        if number < 0:
            raise ValueError(f"frame {number}: frames are counted from 0")
        if number >= FRAMES_MAX:
            raise WrongFrame(f"frame {number}: PZF counts frames below {FRAMES_MAX:,}")
        if number in self._numbers:
            raise AlreadyStored(f"frame {number} of {self.path} was stored before; each number is used once")
        _check_shape(f"frame {number}", samples.shape)
        dtype = _stored_dtype(samples.dtype)
        shape_expected, dtype_expected = self._shape or samples.shape, self._dtype or dtype
        if (samples.shape, dtype) != (shape_expected, dtype_expected):
            raise WrongFrame(
                f"frame {number} has shape {samples.shape} and dtype {dtype}; "
                f"the series {self.path} has {shape_expected} and {dtype_expected}"
            )

    async def _encode(self, number: int, samples: NDArray[Any]) -> list[bytes | memoryview]:
        """Return the pieces of the frame's file: raw ones at once, compressed ones from a thread."""
        encode = partial(
            frame.encode,
            samples,
            frame_number=number,
            sequence_id=self.image_id,
            compression=self._compression,
            quantise=self._quantise,
        )
        return encode() if self._compression == "raw" else await self._encoders.run(encode)

    async def _finalise(self, events: Iterable[Event], metadata: Mapping[str, Any] | None) -> Summary:
        if self._closed and self._to_mark is None:
            raise Closed(f"the series {self.path} is closed")
        marker = encode_events(events)
        added = flat_metadata(metadata)
        summary, self._to_mark = self._to_mark, None  # taken, because one finalise at a time is enough
        if summary is None:
            summary = await self._receipted()
        final = {**self._metadata, "SizeT": len(self._numbers), **added, "imageID": self.image_id}
        try:
            await self._put_behind(FINAL_METADATA, encode_metadata(final))
            self._check_not_aborted()
            await self._put_behind(EVENTS, marker)
        except BaseException:
            if not self._aborted:
                self._to_mark = summary
            raise
        return summary

    async def _receipted(self) -> Summary:
        """Take no more frames, and wait until all have their receipts; end everything when one will have none."""
        self._closed = True
        try:
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
        self._cluster.forget_listing(self.path / METADATA)
        await self._close_overflow()
        self._check_not_aborted()
        return summary

    async def _put_behind(self, name: str, body: bytes) -> None:
        """Store one of the files behind the frames, which a former try may have stored already."""
        path = self.path / name
        was_tried = name in self._tried
        self._tried.add(name)
        try:
            await self._cluster.put(path, body)
        except AlreadyStored:
            if not was_tried or await self._cluster.get(path) != body:
                raise

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

    def _check_not_aborted(self) -> None:
        if self._aborted:
            raise Closed(f"the series {self.path} was aborted")


def _tell(listeners: Iterable[Callable[[Receipt], None]], receipt: Receipt) -> None:
    for listener in listeners:
        listener(receipt)


def _series_path(path: str | ClusterPath) -> ClusterPath:
    parsed = ClusterPath.parse(path)
    if parsed.name.endswith(SUFFIX):
        return parsed
    return parsed.parent / (parsed.name + SUFFIX)


def _overflow(
    cluster: Cluster, series: ClusterPath, top: str | None, options: Mapping[str, Any] | None
) -> Overflow | None:
    if top is None:
        if options is not None:
            raise BadConfig("overflow_options are for an overflow; name its directory with overflow_dir")
        return None
    reactor, nodes = cluster.reactor, [node.host for node in cluster.roster.nodes()]
    pool = reactor.getThreadPool()
    return Overflow.create(
        top, cluster=cluster.roster.cluster, nodes=nodes, series=series, reactor=reactor, pool=pool, **(options or {})
    )


async def _check_free(cluster: Cluster, directory: ClusterPath) -> None:
    """Raise AlreadyStored when a node has *directory*; one that does not answer must not keep a camera waiting."""
    try:
        await cluster.listdir(directory)
    except (NotStored, Partial):
        return
    except NotADirectory:
        pass
    raise AlreadyStored(f"{directory} is stored already; choose another name")


def _check_shape(what: str, shape: Sequence[int]) -> None:
    if len(shape) not in {2, 3} or min(shape) < 1:
        raise WrongFrame(f"{what} has shape {tuple(shape)}; (height, width) is expected")


def _stored_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype that a frame comes back with; raises WrongFrame for one that PZF does not hold."""
    native = np.dtype(dtype).newbyteorder("=")
    if native not in {np.dtype("u1"), np.dtype("u2"), np.dtype("f4")}:
        raise WrongFrame(f"the samples are {native}; uint8, uint16 and float32 can be stored")
    return native
