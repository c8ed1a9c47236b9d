"""The frames of one series: which belong to it, and the file that each becomes.

The rule: all have one shape and one dtype, and each number is used once. A frame is claimed before anything else is done with
it; a claim that is released leaves nothing behind. Asked on any thread. Nodes, and what becomes of a file, are not known here.
"""

import math
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from granum.streaming.buffers import Buffers
from granum.streaming.layout import frame_name
from granum.wire import frame, pzf
from granum.wire.errors import AlreadyStored, WrongFrame
from granum.wire.paths import ClusterPath
from granum.wire.pzf import Compression

FRAMES_MAX = 1 << 32  # the field of a PZF header

_IS_FILE_ORDER = sys.byteorder == "little"  # whether samples in memory are as a file has them


class Frames:
    """The frames of the series *directory*, whose number is *image_id*; what is not stated the first frame decides."""

    def __init__(
        self,
        directory: ClusterPath,
        image_id: int,
        *,
        compression: Compression,
        quantise: frame.Quantisation | None,
        shape: tuple[int, ...] | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        """Raise what no frame could be stored with: WrongFrame, BadConfig, PathTooLong."""
        directory / frame_name(FRAMES_MAX - 1)  # the longest name there can be, so that `path` need not check any
        trial = np.zeros((1, 1), _stored_dtype(dtype or "u2"))
        frame.encode(trial, compression=compression, quantise=quantise)
        if shape is not None:
            _check_shape("every frame", shape)
        self.directory = directory
        self.is_raw = compression == "raw"
        self._image_id = image_id
        self._compression: Compression = compression
        self._quantise = quantise
        self._stated = (None if shape is None else tuple(shape), None if dtype is None else trial.dtype)
        self._shape, self._dtype = self._stated
        self._numbers: set[int] = set()
        self._lock = threading.Lock()
        self._buffers = Buffers()
        self._heads: dict[tuple[Any, ...], bytes] = {}  # of raw files, by what they say but for the number

    def path(self, number: int) -> ClusterPath:
        """Return the path of frame *number*."""
        return ClusterPath((*self.directory.parts, frame_name(number)))

    def claim(self, number: int, samples: NDArray[Any]) -> None:
        """Take *number* for the frame *samples*; raise WrongFrame, AlreadyStored or ValueError when it does not belong here."""
        with self._lock:
            if samples.shape != self._shape or samples.dtype != self._dtype or not 0 <= number < FRAMES_MAX:
                self._check(number, samples)
            if number in self._numbers:
                raise AlreadyStored(f"frame {number} of {self.directory} was stored before; each number is used once")
            self._shape, self._dtype = samples.shape, samples.dtype.newbyteorder("=")
            self._numbers.add(number)

    def release(self, number: int) -> None:
        """Give *number* back: its frame is not stored, and decides nothing."""
        with self._lock:
            self._numbers.discard(number)
            if not self._numbers:
                self._shape, self._dtype = self._stated

    def prepare(self) -> None:
        """Have memory ready for copies, if it was stated what frames are like."""
        if self._shape is not None and self._dtype is not None:
            self._buffers.prepare(math.prod(self._shape) * self._dtype.itemsize)

    def copied(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of *samples* in native byte order."""
        return self._buffers.copied(samples)

    def end(self) -> None:
        """Give back the memory for copies: no more are made."""
        self._buffers.end()

    def encoded(self, number: int, samples: NDArray[Any]) -> Sequence[bytes | memoryview]:
        """Return the pieces of the file of frame *number*; raw samples are a view, of native *samples* of the series."""
        flags = samples.flags
        if not (self.is_raw and _IS_FILE_ORDER and (flags.c_contiguous or flags.f_contiguous)):
            return self._encoded(number, samples)
        kind = (samples.shape, samples.dtype.char, flags.f_contiguous)
        head = self._heads.get(kind)
        if head is None:
            made = self._encoded(0, samples)[0]
            head = self._heads[kind] = bytes(made)
        return pzf.renumbered(head, number), (samples.T if flags.f_contiguous else samples).data.cast("B")

    # -- private ------------------------------------------------------------------------------------------------------

    def _encoded(self, number: int, samples: NDArray[Any]) -> Sequence[bytes | memoryview]:
        return frame.encode(
            samples,
            frame_number=number,
            sequence_id=self._image_id,
            compression=self._compression,
            quantise=self._quantise,
        )

    def _check(self, number: int, samples: NDArray[Any]) -> None:
        if number < 0:
            raise ValueError(f"frame {number}: frames are counted from 0")
        if number >= FRAMES_MAX:
            raise WrongFrame(f"frame {number}: PZF counts frames below {FRAMES_MAX:,}")
        _check_shape(f"frame {number}", samples.shape)
        dtype = _stored_dtype(samples.dtype)
        shape_expected, dtype_expected = self._shape or samples.shape, self._dtype or dtype
        if (samples.shape, dtype) != (shape_expected, dtype_expected):
            raise WrongFrame(
                f"frame {number} has shape {samples.shape} and dtype {dtype}; "
                f"the series {self.directory} has {shape_expected} and {dtype_expected}"
            )


def _check_shape(what: str, shape: Sequence[int]) -> None:
    if len(shape) not in {2, 3} or min(shape) < 1:
        raise WrongFrame(f"{what} has shape {tuple(shape)}; (height, width) is expected")


def _stored_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype that a frame comes back with; raises WrongFrame for one that PZF does not hold."""
    native = np.dtype(dtype).newbyteorder("=")
    if native not in {np.dtype("u1"), np.dtype("u2"), np.dtype("f4")}:
        raise WrongFrame(f"the samples are {native}; uint8, uint16 and float32 can be stored")
    return native
