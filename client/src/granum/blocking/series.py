"""Series for plain threads: a writer that waits for room, a reader that looks like a sequence and converts to an array.

Thin over `granum.streaming.series` and `granum.arrays.series`, which hold every rule. A reader goes on working in a forked
child; a writer belongs to the process that began it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from granum.blocking.thread import ReactorThread, reactor_thread
from granum.roster import Node

READ_AHEAD = 8  # frames asked for before they are needed: enough to keep three nodes and the decoder busy

Array: TypeAlias = npt.NDArray[Any]  # Any: the dtype of the series
ReactorSeries: TypeAlias = Any  # the writer or reader of the module it wraps, which is imported on first use only


class SeriesWriter:
    """A series being streamed. As a context manager it finalises at the end of the block, or aborts after an error."""

    def __init__(self, thread: ReactorThread, writer: ReactorSeries) -> None:
        self._thread = thread
        self._writer = writer
        self._ended = False

    def store_frame(self, number: int, frame: npt.ArrayLike, *, copy: bool = True) -> Node | None:
        """Hand over one frame; return once it is taken in, not yet with the receipt.

        Returns the node whose window took it in; None when it is in the overflow or waits to be compressed.

        With *copy* off the caller promises not to change the array before `finalise`. Raises what earlier frames failed with.
        """
        array = np.asarray(frame)
        node: Node | None = self._thread.run(lambda: self._writer.store_frame(number, array, copy=copy))
        return node

    def finalise(self, events: Iterable[Any] = (), metadata: Mapping[str, Any] | None = None) -> Any:
        """Store what completes the series; return the summary when everything has its receipt, else raise NotReceipted.

        Any: the events of PYME, JSON values, and the summary of `granum.streaming`.
        """
        self._ended = True
        return self._thread.run(lambda: self._writer.finalise(events, metadata))

    def abort(self) -> None:
        """End without completing the series; what is stored stays."""
        self._ended = True
        self._thread.run(self._writer.abort)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._ended:
            self.finalise()
        else:  # also behind a finalise that failed and left the series open
            self.abort()


class SeriesReader:
    """A stored series as a sequence of frames: indexed from 0, sliced, iterated, `numpy.asarray(series)`.

    *reopen* opens it on this process's reactor. A series that is still being streamed grows at `refresh`.
    """

    def __init__(self, reopen: Callable[[], ReactorSeries]) -> None:
        self._reopen = reopen
        self._live = (reactor_thread(), reopen())

    @property
    def shape(self) -> tuple[int, ...]:
        """(frames, *shape of one frame)."""
        shape: tuple[int, ...] = self._reader.shape
        return shape

    @property
    def ndim(self) -> int:
        """Number of dimensions, that of the frames included."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of every frame; None while there is no frame."""
        dtype: np.dtype[Any] | None = self._reader.dtype
        return dtype

    @property
    def numbers(self) -> Sequence[int]:
        """The numbers of the stored frames, ascending: `series[i]` is frame `numbers[i]`."""
        numbers: Sequence[int] = self._reader.numbers
        return numbers

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the camera program said of the series."""
        metadata: Mapping[str, Any] = self._reader.metadata
        return metadata

    @property
    def complete(self) -> bool:
        """Whether the series has been finalised."""
        return bool(self._reader.complete)

    @property
    def missing(self) -> Mapping[str, BaseException]:
        """The nodes that did not answer, by name, each with the cause: their frames may be lacking."""
        missing: Mapping[str, BaseException] = self._reader.missing
        return missing

    def refresh(self) -> None:
        """Look for frames that were stored since."""
        refresh = self._reader.refresh
        self._live[0].run(refresh)

    def frame(self, number: int) -> Array:
        """Return the frame with this *number*."""
        return self._ask(number).result()

    def file(self, number: int) -> bytes:
        """Return the PZF file of the frame with this *number*, as it is stored."""
        reader = self._reader
        file: bytes = self._live[0].run(lambda: reader.file(number))
        return file

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int | slice) -> Array:
        if isinstance(index, slice):
            return self._stack(self.numbers[index])
        return self.frame(self.numbers[index])

    def __iter__(self) -> Iterator[Array]:
        return self._frames(self.numbers)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:  # noqa: FBT001
        if copy is False:
            raise ValueError("a series is not in memory, so it cannot be converted without a copy")
        return self._stack(self.numbers).astype(dtype or self.dtype or np.float64, copy=False)

    @property
    def _reader(self) -> ReactorSeries:
        if self._live[0] is not reactor_thread():
            self._live = (reactor_thread(), self._reopen())
        return self._live[1]

    def _ask(self, number: int) -> "Future[Array]":
        reader = self._reader
        return self._live[0].submit(lambda: reader.frame(number))

    def _stack(self, numbers: Sequence[int]) -> Array:
        stack = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for index, frame in enumerate(self._frames(numbers)):
            stack[index] = frame
        return stack

    def _frames(self, numbers: Sequence[int]) -> Iterator[Array]:
        """Yield the frames *numbers* in order, with READ_AHEAD of them on their way."""
        asked: deque[Future[Array]] = deque()
        left = iter(numbers)
        try:
            for number in left:
                asked.append(self._ask(number))
                if len(asked) == READ_AHEAD:
                    yield asked.popleft().result()
            while asked:
                yield asked.popleft().result()
        finally:
            for future in asked:
                future.cancel()
