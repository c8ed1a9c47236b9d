"""Movies: files of a camera on the local disk, read frame by frame.

`open_movie` knows .dax with its .inf, .tif and .npy. The rule: what a movie promises in its `shape` is what its frames have,
in native byte order, or reading raises BadMovie that names the file, what is there and what is expected. Opening reads the
description only, and each frame is read when it is asked for, so the frames ahead of a damage can still be had.

This module does not know the cluster.
"""

import os
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from math import prod
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import tifffile
from numpy.typing import NDArray

from granum.wire.errors import BadMovie
from granum.wire.pzf import FRAME_BYTES_MAX

FRAMES_MAX = 1 << 32  # the frame number of PZF has 32 bits
INF_BYTES_MAX = 1 << 20  # a description has a dozen short lines

_Result = TypeVar("_Result")

_SAMPLES = "biuf"  # kinds of dtype that an image can have: no text, no objects, no records


class Movie(ABC):
    """A movie on the local disk: its frames are (height, width) arrays in native byte order.

    *shape* is (frames, height, width). *metadata* are flat dotted keys, ready for a series. Usable as a context manager.
    """

    def __init__(self, filename: str, shape: tuple[int, int, int], dtype: Any, metadata: Mapping[str, Any]) -> None:
        """Check that *shape* and *dtype* can be those of a movie; raises BadMovie."""
        self.filename = filename
        self.dtype: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
        if self.dtype.kind not in _SAMPLES:
            raise BadMovie(f"{filename}: the samples are {self.dtype}; numbers are expected")
        frames, height, width = shape
        if frames < 0 or frames > FRAMES_MAX or height < 1 or width < 1:
            raise BadMovie(f"{filename}: {frames} frames of {width} x {height} pixels are not a movie")
        if height * width * self.dtype.itemsize > FRAME_BYTES_MAX:
            raise BadMovie(f"{filename}: a frame of {width} x {height} pixels exceeds {FRAME_BYTES_MAX:,} bytes")
        self.shape = shape
        self.metadata = {"Source.Filename": os.path.basename(filename), **metadata}

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return map(self.frame, range(len(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def frame(self, n: int) -> NDArray[Any]:
        """Return frame *n*, counted from 0, as a (height, width) array.

        Raises IndexError outside the movie, BadMovie when the frame is damaged or the file ends before its end.
        """
        if not 0 <= n < len(self):
            raise IndexError(f"frame {n} is outside the movie, which has {len(self)} frames")
        array = self._read(n)
        if array.shape != self.shape[1:]:
            raise BadMovie(f"{self.filename}: frame {n} has shape {array.shape}; {self.shape[1:]} is expected")
        return array.astype(self.dtype, copy=False)

    def close(self) -> None:  # noqa: B027 - most movies hold nothing open between two frames
        """Let go of the file."""

    @abstractmethod
    def _read(self, n: int) -> NDArray[Any]:
        """Return frame *n* as the file has it."""


def open_movie(filename: str | os.PathLike[str]) -> Movie:
    """Open the movie *filename* by its suffix: .dax (with .inf beside it), .tif, .tiff or .npy.

    Raises BadMovie when it is no movie, FileNotFoundError when it is not there.
    """
    name = os.fspath(filename)
    suffix = os.path.splitext(name)[1].lower()
    opener = _OPENERS.get(suffix)
    if opener is None:
        raise BadMovie(f"{name}: the suffix is {suffix!r}; {', '.join(_OPENERS)} are expected")
    if not os.path.isfile(name):
        raise FileNotFoundError(f"there is no file {name}")
    return opener(name)


class _PlainMovie(Movie):
    """Samples without any coding, frame after frame and row after row, from byte *offset* on."""

    def __init__(
        self, filename: str, shape: tuple[int, int, int], stored: Any, offset: int, metadata: Mapping[str, Any]
    ) -> None:
        super().__init__(filename, shape, stored, metadata)
        self._stored = np.dtype(stored)
        self._offset = offset

    def _read(self, n: int) -> NDArray[Any]:
        samples = self.shape[1] * self.shape[2]
        size = samples * self._stored.itemsize
        # Opened for each frame: the file may be on a share that comes and goes, and a map of a file that is cut short
        # under it kills the program.
        with open(self.filename, "rb") as file:
            array: NDArray[Any] = np.fromfile(file, self._stored, samples, offset=self._offset + n * size)
        if len(array) < samples:
            there = os.path.getsize(self.filename)
            expected = self._offset + len(self) * size
            raise BadMovie(
                f"{self.filename}: the movie ends at frame {n}: the file has {there:,} bytes, "
                f"{len(self)} frames of {self.shape[2]} x {self.shape[1]} pixels need {expected:,}"
            )
        return array.reshape(self.shape[1:])


class _ArrayMovie(Movie):
    """Frames of an array that is mapped into memory."""

    def __init__(self, filename: str, array: NDArray[Any]) -> None:
        super().__init__(filename, _movie_shape(filename, array.shape), array.dtype, {})
        self._array = array.reshape(self.shape) if array.ndim == 2 else array

    def _read(self, n: int) -> NDArray[Any]:
        return np.array(self._array[n])


class _TiffMovie(Movie):
    """One page of a TIFF file for each frame, coded in any way that tifffile reads."""

    def __init__(self, filename: str, tiff: tifffile.TiffFile) -> None:
        first = tiff.pages.first
        if len(first.shape) != 2:
            raise BadMovie(f"{filename}: a page has shape {first.shape}; images of one colour are expected")
        pages, broken = _count_pages(tiff)
        # A file cut short has lost the pages at its end, which its description or its last page still announces.
        frames = max(pages + broken, _described_frames(tiff))
        super().__init__(filename, (frames, *first.shape), first.dtype, {})
        self._tiff = tiff
        self._pages = pages

    def _read(self, n: int) -> NDArray[Any]:
        if n >= self._pages:
            raise BadMovie(
                f"{self.filename}: the movie ends at frame {n}: the file has {self._pages} readable pages, "
                f"{len(self)} or more are expected"
            )

        def read() -> NDArray[Any]:
            return np.asarray(self._tiff.pages[n].asarray())

        array = _tiff_result(self.filename, f"frame {n}", read)
        if array.dtype.newbyteorder("=") != self.dtype:
            raise BadMovie(f"{self.filename}: frame {n} has {array.dtype} samples; {self.dtype} is expected")
        return array

    def close(self) -> None:
        self._tiff.close()


# -- one opener for each format ---------------------------------------------------------------------------------------


def _open_dax(filename: str) -> Movie:
    inf = os.path.splitext(filename)[0] + ".inf"
    try:
        with open(inf, encoding="latin-1") as file:
            text = file.read(INF_BYTES_MAX)
    except FileNotFoundError as error:
        raise BadMovie(f"{filename}: a .dax has no header; {inf} must lie beside it") from error
    lines = (line.partition("=") for line in text.splitlines())
    stated = {key.strip(): value.strip() for key, equals, value in lines if equals}
    kind = stated.get("data type", "16 bit integers (binary, big endian)")
    if not kind.startswith("16 bit integers"):
        raise BadMovie(f"{inf}: the data type is {kind!r}; 16 bit integers are expected")
    width, height = _numbers(inf, stated, "frame dimensions", r"(\d{1,10})\s*x\s*(\d{1,10})", "WIDTH x HEIGHT")
    (frames,) = _numbers(inf, stated, "number of frames", r"(\d{1,10})", "a number")
    metadata = {f"Source.{re.sub(r'[^0-9A-Za-z_]', '_', key)}": value for key, value in stated.items()}
    stored = "<u2" if "little endian" in kind else ">u2"
    return _PlainMovie(filename, (frames, height, width), stored, 0, metadata)


def _numbers(inf: str, stated: Mapping[str, str], key: str, pattern: str, expected: str) -> list[int]:
    found = re.fullmatch(pattern, stated.get(key, ""))
    if found is None:
        there = f"{key!r} is {stated[key]!r}" if key in stated else f"{key!r} is missing"
        raise BadMovie(f"{inf}: {there}; {expected} is expected")
    return [int(group) for group in found.groups()]


def _open_npy(filename: str) -> Movie:
    try:
        with open(filename, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read_header(file)
            offset = file.tell()
        if not fortran:
            return _PlainMovie(filename, _movie_shape(filename, shape), dtype, offset, {})
        return _ArrayMovie(filename, np.load(filename, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        if isinstance(error, BadMovie):
            raise
        raise BadMovie(f"{filename}: not a readable .npy file: {error}") from error


def _movie_shape(filename: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3:
        raise BadMovie(f"{filename}: the array has shape {shape}; (frames, height, width) or one frame is expected")
    frames, height, width = shape
    return frames, height, width


def _open_tiff(filename: str) -> Movie:
    tiff = _tiff_result(filename, "the file", lambda: tifffile.TiffFile(filename))
    try:
        return _tiff_movie(filename, tiff)
    except BaseException:
        tiff.close()
        raise


def _tiff_movie(filename: str, tiff: tifffile.TiffFile) -> Movie:
    try:
        series = tiff.series
    except Exception:  # noqa: BLE001 - of a damaged file, whose first pages may be readable one by one
        series = []
    # Frames that follow each other without coding need no pages; ImageJ writes one page for a file above 4 GB.
    if len(series) == 1 and series[0].ndim == 3 and series[0].dataoffset is not None:
        stored = np.dtype(series[0].dtype).newbyteorder(tiff.byteorder)
        shape = _movie_shape(filename, series[0].shape)
        movie = _PlainMovie(filename, shape, stored, series[0].dataoffset, {})
        tiff.close()
        return movie
    return _tiff_result(filename, "the file", lambda: _TiffMovie(filename, tiff))


def _described_frames(tiff: tifffile.TiffFile) -> int:
    """Return the number of frames that the writer's description promises; 0 when there is none."""
    try:
        if tiff.imagej_metadata:
            return int(tiff.imagej_metadata.get("images", 0))
        described = tiff.shaped_metadata  # looks at all pages, so one that is damaged shows here
        return prod(described[0]["shape"][:-2]) if described and len(described) == 1 else 0
    except Exception:  # noqa: BLE001 - as above
        return 0


def _count_pages(tiff: tifffile.TiffFile) -> tuple[int, bool]:
    """Return the number of pages in the chain that starts at the first, and whether it breaks off outside the file."""
    layout, file = tiff.tiff, tiff.filehandle
    seen: set[int] = set()
    offset = tiff.pages.first.offset
    while offset:
        file.seek(offset)
        count = file.read(layout.tagnosize)
        tags = struct.unpack(layout.tagnoformat, count)[0] if len(count) == layout.tagnosize else 0
        file.seek(offset + layout.tagnosize + tags * layout.tagsize)
        pointer = file.read(layout.offsetsize)
        if offset in seen or not tags or len(pointer) < layout.offsetsize:
            return len(seen), True
        seen.add(offset)
        (offset,) = struct.unpack(layout.offsetformat, pointer)
    return len(seen), False


def _tiff_result(filename: str, what: str, read: Callable[[], _Result]) -> _Result:
    """Return what *read* returns; whatever the reader raises on a damaged or unusual file becomes BadMovie."""
    try:
        return read()
    except BadMovie:
        raise
    except Exception as error:
        hint = "; install it with: pip install imagecodecs" if "imagecodecs" in str(error) else ""
        raise BadMovie(f"{filename}: {what} cannot be read: {error}{hint}") from error


_OPENERS: Mapping[str, Callable[[str], Movie]] = {
    ".dax": _open_dax,
    ".tif": _open_tiff,
    ".tiff": _open_tiff,
    ".npy": _open_npy,
}
