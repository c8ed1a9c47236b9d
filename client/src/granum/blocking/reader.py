"""Reading a series in plain threads: looks like a sequence, converts to an array, follows a running acquisition.

Thin over `granum.arrays.series`, which holds every rule. It goes on working in a forked child.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from granum.blocking.thread import ReactorThread, reactor_thread
from granum.locality import Locality

Array: TypeAlias = npt.NDArray[Any]  # Any: the dtype of the series
ReactorReader: TypeAlias = Any  # what this wraps, whose modules are imported on first use only


class Frames(Iterator[tuple[int, Array]]):
    """An iterator over pairs (number, frame) that reads ahead; a context manager.

    A frame that cannot be read raises at its place; calling `next` again, or iterating again, goes on behind it.
    """

    def __init__(self, thread: ReactorThread, begin: Callable[[], ReactorReader]) -> None:
        """*begin* makes the iterator of the reactor's side."""
        self._thread = thread
        self._frames = begin()
        self._ready: deque[tuple[int, Array]] = deque()

    def __next__(self) -> tuple[int, Array]:
        if not self._ready:
            self._ready.extend(self._thread.run(self._frames.next_ready))
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def close(self) -> None:
        """Stop what is on its way; there is nothing more after this."""
        self._ready.clear()
        self._thread.reactor.callFromThread(self._frames.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NearbyFrames(Frames):
    """As `Frames`, where some lie in stores on this machine: those are read in the thread that iterates.

    *near* is `granum.arrays.nearby.Nearby`, *begin* makes the iterator over its `elsewhere`, *ask* gets one frame by number.
    """

    def __init__(
        self, thread: ReactorThread, near: Any, begin: Callable[[], ReactorReader], ask: Callable[[int], Array]
    ) -> None:  # Any: as ReactorReader
        super().__init__(thread, begin)
        self._near = near
        self._ask = ask

    def __next__(self) -> tuple[int, Array]:
        pair: tuple[int, Array] | None = self._near.next(super().__next__, self._ask)
        if pair is None:
            raise StopIteration
        return pair

    def close(self) -> None:
        """Close the files, and stop what is on its way; there is nothing more after this."""
        self._near.close()
        super().close()


class SeriesReader:
    """A stored series as a sequence of frames: indexed from 0, sliced, iterated, `numpy.asarray(series)`.

    *reopen* opens it on this process's reactor. A series that is still being streamed grows at `refresh`.
    """

    def __init__(self, reopen: Callable[[], ReactorReader]) -> None:
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
        with self.frames([number]) as frames:
            return next(frames)[1]

    def file(self, number: int) -> bytes:
        """Return the PZF file of the frame with this *number*, as it is stored."""
        reader = self._reader
        file: bytes = self._live[0].run(lambda: reader.file(number))
        return file

    def frames(self, numbers: Iterable[int] | None = None, **options: Any) -> Frames:
        """Return an iterator over (number, frame) of *numbers*, of all for None, that reads ahead from all nodes at once.

        *options* are those of `granum.arrays.series.SeriesReader.frames`.
        """
        reader, thread = self._reader, self._live[0]
        chosen = list(self.numbers if numbers is None else numbers)
        near = reader.nearby(chosen, **{name: options[name] for name in ("ahead",) if name in options})
        if near is None:
            return Frames(thread, lambda: reader.frames(chosen, **options))
        elsewhere = near.elsewhere
        return NearbyFrames(
            thread,
            near,
            lambda: reader.frames(elsewhere, **options),
            lambda number: thread.run(lambda: reader.frame(number)),
        )

    def follow(self, **options: Any) -> Frames:
        """Return an iterator over (number, frame) of all frames there are and of those that come, until the series is complete.

        *options* are those of `granum.arrays.series.SeriesReader.follow`, ``timeout_s`` among them.
        """
        reader = self._reader
        return Frames(self._live[0], lambda: reader.follow(**options))

    def locality(self) -> Locality:
        """Return which frames lie on which node, and on this machine."""
        reader = self._reader
        found: Locality = self._live[0].run(reader.locality)
        return found

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int | slice) -> Array:
        if isinstance(index, slice):
            return self._stack(self.numbers[index])
        return self.frame(self.numbers[index])

    def __iter__(self) -> Iterator[Array]:
        with self.frames() as frames:
            yield from map(itemgetter(1), frames)  # holds no frame while the next one is read

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:  # noqa: FBT001
        if copy is False:
            raise ValueError("a series is not in memory, so it cannot be converted without a copy")
        return self._stack(self.numbers).astype(dtype or self.dtype or np.float64, copy=False)

    @property
    def _reader(self) -> ReactorReader:
        if self._live[0] is not reactor_thread():
            self._live = (reactor_thread(), self._reopen())
        return self._live[1]

    def _stack(self, numbers: Sequence[int]) -> Array:
        stack = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        with self.frames(numbers) as frames:
            for index, (_, frame) in enumerate(frames):
                stack[index] = frame
        return stack
