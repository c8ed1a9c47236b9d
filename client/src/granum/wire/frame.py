"""Frames as NumPy arrays: to and from PZF files, with square-root quantisation.

An array of one to three dimensions becomes one of three, (width, height, depth), where width is the length of its first
axis. Fortran-contiguous arrays keep their order, all others are stored in C order; samples are little-endian.

The rule: an array comes back with the same samples, unless the caller asked for quantisation; raw samples are never
copied, neither out of a contiguous little-endian array nor out of a file. This module does not know series or nodes.
"""

import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granum.wire import huffman, pzf
from granum.wire.errors import BadConfig, BadFrame, WrongFrame
from granum.wire.huffman import Bytes

# Levels are cast through int64, whatever a damaged header claims they are.
_LEVEL_MAX = 2.0**62
_U2_MAX = 65_535
# A camera keeps its settings for a whole series; a few cameras on one PC share the cache. 64 KiB each.
_QUANTISATIONS_KEPT = 8


class SaturatedFrame(UserWarning):
    """The brightest samples of a frame exceed what its quantisation can hold; choose a larger scale or offset."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """One byte q for each sample x: q = sqrt(x - offset) / scale, to the nearest; samples below *offset* give 0.

    *offset* is the camera's, 0 to 65,535 counts: below it q would be imaginary, above it no u2 sample is left. *scale*
    is 0.001 to 100 roots of a count, PYME's limits; 1 is the size of shot noise when a count is an electron. A file
    keeps both in single precision. Raises BadConfig when one is out of range.
    """

    offset: float
    scale: float

    def __post_init__(self) -> None:
        for name, value, low, high in (("offset", self.offset, 0, _U2_MAX), ("scale", self.scale, 0.001, 100)):
            if not low <= value <= high:
                raise BadConfig(f"the quantisation {name} is {value}; it can be {low} to {high}")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded PZF file: its header, and its samples as a read-only array of shape (width, height, depth)."""

    header: pzf.Header
    array: NDArray[Any]


def encode(
    array: NDArray[Any],
    *,
    frame_number: int = 0,
    sequence_id: int = 0,
    timestamp: int = 0,
    compression: pzf.Compression = "raw",
    quantise: Quantisation | None = None,
) -> list[bytes | memoryview]:
    """Return the pieces of one PZF file, header first, for one gathering write.

    *array* has u1, u2 or f4 samples in one to three dimensions. Raw samples of a contiguous little-endian array are a
    view of it: leave it unchanged until the pieces are sent. A frame whose Huffman codes would be too long for PYME is
    stored raw and exact. *quantise* needs u2 samples and a compression; SaturatedFrame is warned when it clips them.

    Raises WrongFrame when the array cannot be stored, BadConfig when the settings do not go together.
    """
    if compression not in pzf.COMPRESSIONS:
        raise BadConfig(f"the compression is {compression!r}; it can be {', '.join(pzf.COMPRESSIONS)}")
    if quantise is not None and compression == "raw":
        raise BadConfig("PYME cannot read frames that are quantised but not compressed; choose huffman as well")
    array = np.asarray(array)
    exact = pzf.Header(
        dtype=_sample_type(array),
        shape=_shape(array),
        order="F" if array.flags.f_contiguous else "C",
        frame_number=frame_number,
        sequence_id=sequence_id,
        timestamp=timestamp,
    )
    as_raw = exact.pack()  # refuses what does not fit before any work is done on the samples
    samples = np.asarray(array, dtype=f"<{exact.dtype}", order=exact.order).reshape(-1, order=exact.order)
    stored = samples.view("u1")
    if compression == "raw":
        return [as_raw, stored.data]
    header = replace(exact, compression=compression)
    if quantise is not None:
        header = replace(header, quantisation="sqrt", quant_offset=quantise.offset, quant_scale=quantise.scale)
        stored = _quantised(samples, quantise)
    stream = pzf.encode_chunks(stored.data) if compression == "chunks" else huffman.encode(stored.data)
    if stream is None:
        return [as_raw, samples.view("u1").data]
    return [header.pack(), stream]


def decode(data: Bytes) -> Frame:
    """Return the frame that *data*, one whole PZF file, holds; a raw one is a view of *data*, not a copy.

    Quantised samples come back as (q * scale)**2 + offset in single precision without its fraction; one that exceeds
    its type wraps around, as in PYME. Raises BadFrame when *data* is damaged, cut short or of another format.
    """
    header = pzf.parse_header(data)
    stored = pzf.payload(header, data)
    samples = np.frombuffer(stored, dtype=f"<{header.dtype}" if header.quantisation == "none" else "u1")
    if header.quantisation == "sqrt":
        samples = _counts_of_levels(header)[samples]
    array = samples.reshape(header.shape, order=header.order)
    array.flags.writeable = False
    return Frame(header, array)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the samples are in raw files of this *length* and `pzf.kind`."""

    length: int
    kind: bytes
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    order: pzf.Order


class Decoder:
    """Decodes one file after the other; a raw one that is like the last raw one costs a tenth of what `decode` takes.

    The frames of a series differ in what tells them apart alone, so the header of the first one is read for all.
    """

    def __init__(self) -> None:
        self._last: _Layout | None = None

    def array(self, data: bytes) -> NDArray[Any]:
        """Return the array that `decode` gives for *data*; raises as that does."""
        last, kind = self._last, pzf.kind(data)
        if last is not None and last.kind == kind and last.length == len(data):
            return np.ndarray(last.shape, last.dtype, data, last.offset, order=last.order)
        decoded = decode(data)
        header = decoded.header
        if header.compression == "raw" and header.quantisation == "none":
            dtype = decoded.array.dtype
            self._last = _Layout(len(data), kind, header.shape, dtype, header.data_offset, header.order)
        return decoded.array


def _sample_type(array: NDArray[Any]) -> pzf.SampleType:
    """Return the PZF name of the array's dtype in either byte order."""
    for name in pzf.SAMPLE_TYPES:
        if array.dtype.newbyteorder("<") == np.dtype(f"<{name}"):
            return name
    raise WrongFrame(f"the samples are {array.dtype}; PZF holds uint8, uint16 and float32")


def _shape(array: NDArray[Any]) -> tuple[int, int, int]:
    """Return (width, height, depth), with 1 for each axis that the array lacks."""
    if not 1 <= array.ndim <= 3:
        raise WrongFrame(f"the array has {array.ndim} dimensions; PZF holds frames of 1, 2 or 3")
    width, height, depth = (*array.shape, 1, 1)[:3]
    return width, height, depth


def _quantised(samples: NDArray[Any], quantise: Quantisation) -> NDArray[np.uint8]:
    """Return one level for each u2 sample, and warn when the brightest exceed the highest level."""
    if samples.dtype != np.dtype("<u2"):
        raise WrongFrame(f"the samples are {samples.dtype}; only uint16 can be quantised")
    brightest = int(samples.max(initial=0))
    highest = (255 * quantise.scale) ** 2 + quantise.offset
    if highest < brightest:
        warnings.warn(
            f"the frame has samples up to {brightest}, but quantisation with offset {quantise.offset:g} and scale "
            f"{quantise.scale:g} holds {highest:.0f} at most; brighter ones are clipped, so choose a larger scale",
            SaturatedFrame,
            stacklevel=3,
        )
    levels: NDArray[np.uint8] = _levels_of_counts(quantise)[samples]
    return levels


@lru_cache(maxsize=_QUANTISATIONS_KEPT)
def _levels_of_counts(quantise: Quantisation) -> NDArray[np.uint8]:
    """Return the level of each count from 0 to 65,535.

    Halves round up. The highest level is 255, or the highest one that does not exceed 65,535 once decoded: PYME lets
    such levels wrap around, which turns the brightest samples black.
    """
    offset, scale = np.float32(quantise.offset), np.float32(quantise.scale)  # what the file keeps
    highest = np.flatnonzero(_decoded_levels(offset, scale) <= _U2_MAX)[-1]
    counts = np.arange(_U2_MAX + 1, dtype=np.float64)
    roots = np.sqrt(np.maximum(counts - float(offset), 0)) / float(scale)
    levels: NDArray[np.uint8] = np.minimum(np.floor(roots + 0.5), highest).astype(np.uint8)
    levels.flags.writeable = False
    return levels


def _counts_of_levels(header: pzf.Header) -> NDArray[Any]:
    """Return the sample that each of the 256 levels stands for, in the type of the frame."""
    with np.errstate(over="ignore", invalid="ignore"):
        decoded = _decoded_levels(np.float32(header.quant_offset), np.float32(header.quant_scale))
    if not (np.abs(decoded) < _LEVEL_MAX).all():
        raise BadFrame(
            f"no sample can be quantised with offset {header.quant_offset} and scale {header.quant_scale}; "
            "the frame is damaged"
        )
    if header.dtype == "f4":
        return decoded
    return decoded.astype(np.int64).astype(f"<{header.dtype}")  # a direct cast of too large a float is undefined


def _decoded_levels(offset: np.float32, scale: np.float32) -> NDArray[np.float32]:
    """Return (q * scale)**2 + offset for q = 0 to 255, truncated towards zero, all in single precision."""
    roots = np.arange(256, dtype=np.float32) * scale
    return np.trunc(roots * roots + offset)
