"""The series reader: frames of a series as arrays, while it is being written or afterwards.

A view of the directory says which frames there are and which node holds each, so every frame is asked of its own node. The
rule: an array has the shape and dtype of the series, or reading fails and names the frame; a view that may lack frames,
because a node did not answer, says so in `missing`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from granum.arrays.follow import POLL_S, Follow
from granum.arrays.nearby import Nearby
from granum.arrays.prefetch import AHEAD, AHEAD_BYTES, Prefetch
from granum.cluster import Cluster
from granum.locality import Locality, frame_number
from granum.streaming.series import EVENTS, FINAL_METADATA, METADATA, SUFFIX, frame_name
from granum.union import UnionView
from granum.wire import frame, pzf
from granum.wire.errors import BadFrame, GranumError, NotStored, Partial, WrongFrame
from granum.wire.paths import ClusterPath

TRIES_MAX = 4  # frames looked at for shape and dtype: more than one, for the first may be damaged or its node down


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the frames of a series are; *is_raw* is a guess from one of them, the rest holds for all."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_raw: bool


@dataclass(frozen=True, slots=True)
class _State:
    """What was found at one moment; *kind* is None before there is a frame."""

    view: UnionView
    numbers: tuple[int, ...]
    metadata: dict[str, Any]
    kind: _Kind | None


class SeriesReader:
    """Reads the series *path* of *cluster*, as it was found when opened or refreshed last; made by `open`."""

    def __init__(self, cluster: Cluster, path: ClusterPath, state: _State) -> None:
        """Use `open`."""
        self.path = path
        self._cluster = cluster
        self._state = state

    @classmethod
    def open(cls, cluster: Cluster, path: str | ClusterPath) -> "Deferred[SeriesReader]":
        """Fire with a reader of the series *path*, or of *path*.pcs when there is no *path*.

        Fails with NotStored when there is no such series, Partial when the node that may hold it did not answer, BadFrame
        when metadata or frames are damaged, NoNode.
        """

        async def find() -> SeriesReader:
            directory = ClusterPath.parse(path)
            try:
                view = await cluster.listdir(directory)
            except NotStored:
                if directory.name.endswith(SUFFIX) or not directory.parts:
                    raise
                directory = directory.parent / (directory.name + SUFFIX)
                view = await cluster.listdir(directory)
            return cls(cluster, directory, await _look(cluster, directory, view, None))

        return Deferred.fromCoroutine(find())

    # -- what is there ------------------------------------------------------------------------------------------------

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of all frames found, ascending."""
        return self._state.numbers

    @property
    def shape(self) -> tuple[int, ...]:
        """(frames, height, width), or with a depth as fourth; (0,) while no frame is there."""
        return (len(self.numbers), *self._state.kind.shape) if self._state.kind else (0,)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of every frame, in native byte order; None while no frame is there."""
        return self._state.kind.dtype if self._state.kind else None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata by flat, dotted keys: the final ones when they are there."""
        return self._state.metadata

    @property
    def complete(self) -> bool:
        """Whether the series was finalised, which is after all of its frames were stored."""
        return EVENTS in self._state.view

    @property
    def partial(self) -> bool:
        """Whether a known node did not answer, so that frames may be lacking."""
        return self._state.view.partial

    @property
    def missing(self) -> Mapping[str, BaseException]:
        """The nodes that did not answer, by name, each with the cause."""
        return self._state.view.missing

    def __len__(self) -> int:
        return len(self.numbers)

    # -- verbs --------------------------------------------------------------------------------------------------------

    def frame(self, n: int) -> Deferred[NDArray[Any]]:
        """Fire with frame *n* as a read-only array of shape (height, width), or with a depth as third.

        Fails with NotStored when it is not among `numbers` (Partial when a node is missing that may hold it), BadFrame when
        it is damaged, WrongFrame when it has not the shape and dtype of the series, or as `Cluster.get` does.
        """
        return Deferred.fromCoroutine(self._frame(n))

    def frames(
        self, numbers: Iterable[int] | None = None, *, ahead: int = AHEAD, bytes_max: int = AHEAD_BYTES
    ) -> Prefetch[NDArray[Any]]:
        """Return an asynchronous iterator over pairs (number, array) of *numbers*, of all for None, in their order.

        Up to *ahead* frames and *bytes_max* bytes are asked for before they are needed, of all nodes at once. A frame that
        cannot be read raises as `frame` does at its place, and iterating again goes on behind it. `close` it, or use it in
        `async with`, when you stop before the end.
        """
        frames = Prefetch(self.frame, self._size, ahead=ahead, bytes_max=bytes_max)
        frames.add(self.numbers if numbers is None else numbers)
        return frames

    def nearby(self, numbers: Iterable[int], *, ahead: int = AHEAD) -> Nearby | None:
        """Return the frames *numbers* for reading in the thread that calls, where they lie in stores on this machine.

        None when that is off, or does not pay: compressed frames are decoded by several threads at once. May be called in
        any thread, and blocks.
        """
        state, stores = self._state, self._cluster.local
        if stores is None or state.kind is None or not state.kind.is_raw:
            return None
        decoder = frame.Decoder()

        def decode(n: int, file: bytes) -> NDArray[Any]:
            try:
                array = decoder.array(file)
            except BadFrame as error:
                raise _named(error, self.path, state.view, n) from error
            return self._checked(n, _image(array), state.kind)

        return Nearby(stores, self.path, state.view, numbers, decode, ahead=ahead)

    def follow(
        self,
        *,
        poll_s: float = POLL_S,
        timeout_s: float | None = None,
        ahead: int = AHEAD,
        bytes_max: int = AHEAD_BYTES,
    ) -> Follow:
        """Return an asynchronous iterator over pairs (number, array): all frames there are, then those that still come.

        It ends when the series is complete; see `granum.arrays.follow.Follow` for *poll_s* and *timeout_s*, `frames` for the
        rest.
        """
        frames = Prefetch(self.frame, self._size, ahead=ahead, bytes_max=bytes_max)
        return Follow(self, frames, self._cluster.reactor, poll_s=poll_s, timeout_s=timeout_s)

    def locality(self) -> Deferred[Locality]:
        """Fire with which frames lie on which node, and on this machine, as `Cluster.locality`."""
        return self._cluster.locality(self.path)

    def file(self, n: int) -> Deferred[bytes]:
        """Fire with the PZF file of frame *n*; fails as `frame` does, but does not look inside."""
        return Deferred.fromCoroutine(_file(self._cluster, self.path, self._state.view, n))

    def refresh(self) -> Deferred[None]:
        """Look again for frames, metadata and completion; fires when the properties show what is there now."""
        return Deferred.fromCoroutine(self._refresh())

    def _size(self, n: int) -> int:
        """Return the bytes that frame *n* takes here: those of its file or of its array, whichever are more."""
        entry = self._state.view.get(frame_name(n))
        kind = self._state.kind
        decoded = prod(kind.shape) * kind.dtype.itemsize if kind else 0
        return max(decoded, entry.size if entry is not None else 0)

    async def _frame(self, n: int) -> NDArray[Any]:
        state = self._state
        decoded = await _decoded(self._cluster, self.path, state.view, n)
        return self._checked(n, _image(decoded.array), state.kind)

    def _checked(self, n: int, array: NDArray[Any], kind: _Kind | None) -> NDArray[Any]:
        """Return *array*, frame *n*, when it is of *kind*."""
        if kind is not None and (array.shape != kind.shape or array.dtype != kind.dtype):
            raise WrongFrame(
                f"frame {n} of {self.path} has shape {array.shape} and dtype {array.dtype}; "
                f"the series has {kind.shape} and {kind.dtype}"
            )
        return array

    async def _refresh(self) -> None:
        self._cluster.forget_listing(self.path / METADATA)
        view = await self._cluster.listdir(self.path)
        self._state = await _look(self._cluster, self.path, view, self._state.kind)


async def _look(cluster: Cluster, path: ClusterPath, view: UnionView, kind: _Kind | None) -> _State:
    """Return what *view* of the series *path* holds; *kind* is what is known of its frames already."""
    metadata, numbers = await _found(cluster, path, view)
    if EVENTS in view and metadata.get("SizeT") != len(numbers):
        # One node may have been listed before its last files came and another after the series was completed. Every frame
        # and the final metadata were there before the mark that is seen now, so a second look finds them all.
        cluster.forget_listing(path / METADATA)
        view = await cluster.listdir(path)
        metadata, numbers = await _found(cluster, path, view)
    if kind is None and numbers:
        kind = await _kind(cluster, path, view, numbers)
    return _State(view, numbers, metadata, kind)


async def _found(cluster: Cluster, path: ClusterPath, view: UnionView) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return the metadata and the frame numbers that *view* shows; raise NotStored when it is that of no series."""
    source = next((name for name in (FINAL_METADATA, METADATA) if name in view), None)
    if source is None and not view.partial:
        raise NotStored(f"{path} is not a series: it has no {METADATA}")
    metadata = {} if source is None else await _read_metadata(cluster, path, view, source)
    return metadata, _numbers(view)


def _numbers(view: UnionView) -> tuple[int, ...]:
    return tuple(sorted(n for name in view if (n := frame_number(name)) is not None))


async def _read_metadata(cluster: Cluster, path: ClusterPath, view: UnionView, source: str) -> dict[str, Any]:
    body = await cluster.get(path / source, nodes=view.holders(source))
    try:
        metadata = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"{path / source} is not readable metadata: {error}") from error
    if not isinstance(metadata, dict):
        raise BadFrame(f"{path / source} is not readable metadata: a JSON object is expected")
    return metadata


async def _kind(cluster: Cluster, path: ClusterPath, view: UnionView, numbers: tuple[int, ...]) -> _Kind:
    """Return what the first frame is that can be read; raises what the first one failed with."""
    failure: GranumError | None = None
    for n in numbers[:TRIES_MAX]:
        try:
            decoded = await _decoded(cluster, path, view, n)
        except GranumError as error:
            failure = failure or error
        else:
            array = _image(decoded.array)
            return _Kind(array.shape, array.dtype, decoded.header.compression == "raw")
    assert failure is not None
    raise failure


async def _file(cluster: Cluster, path: ClusterPath, view: UnionView, n: int) -> bytes:
    name = frame_name(n)
    if name not in view:
        if view.partial:
            raise Partial(f"frame {n} of {path} was not found", view.missing)
        raise NotStored(f"there is no frame {n} in {path}")
    return await cluster.get(path / name, nodes=view.holders(name))


async def _decoded(cluster: Cluster, path: ClusterPath, view: UnionView, n: int) -> frame.Frame:
    """Return frame *n*; compressed ones are decoded in a thread."""
    file = await _file(cluster, path, view, n)
    try:
        if pzf.parse_header(file).compression == "raw":
            return frame.decode(file)
        reactor = cluster.reactor
        return await deferToThreadPool(reactor, reactor.getThreadPool(), frame.decode, file)
    except BadFrame as error:
        raise _named(error, path, view, n) from error


def _named(error: BadFrame, path: ClusterPath, view: UnionView, n: int) -> BadFrame:
    """Return *error*, which the file of frame *n* was read with, saying which file that is."""
    holders = ", ".join(node.name for node in view.holders(frame_name(n)))
    return BadFrame(f"frame {n}: {error}; it is in {path} on {holders}")


def _image(array: NDArray[Any]) -> NDArray[Any]:
    """Return *array* without the depth of a plain image."""
    return array[:, :, 0] if array.shape[2] == 1 else array
