"""Buffers: memory for the copies of frames, used again and again.

To touch fresh memory costs more than to copy a large frame, and costs it at once: a call that takes a millisecond takes five, or
twenty. So the memory of a frame that has its receipt is kept for one of the next, and what will be needed beside it is touched
ahead, in a thread of its own. The rule: a buffer is used again only when nothing refers to it any more, no array, no view and no
transport; the interpreter itself counts that.
"""

import threading
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

REUSED_BYTES_MIN = 128 << 10  # the allocator keeps smaller pieces itself
KEPT_BYTES_MAX = 256 << 20  # that nobody uses: what was needed once, as all puts of a streamer may hold
AHEAD_BYTES = 16 << 20  # touched ahead: two frames of 8 MiB, twenty milliseconds of the fastest camera


class Buffers:
    """Copies arrays of mostly one size; asked on any thread. *free* are the buffers that nobody uses."""

    def __init__(self, ahead_bytes: int = AHEAD_BYTES) -> None:
        """Have *ahead_bytes* of free buffers before they are needed."""
        self.free: deque[NDArray[np.uint8]] = deque()
        self._ahead_bytes = ahead_bytes
        self._touching = threading.Lock()  # held by the thread that does it

    def copied(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of *samples* in native byte order, in Fortran order if they have that, else in C order."""
        dtype, size = samples.dtype.newbyteorder("="), samples.nbytes
        if size < REUSED_BYTES_MIN:
            return np.array(samples, dtype, order="A")
        try:
            memory = self.free.pop()  # the last one that came free is the warmest
        except IndexError:
            memory = np.empty(size, "u1")
        if memory.nbytes != size:
            self.free.clear()
            memory = np.empty(size, "u1")
        if 2 * len(self.free) * size < self._ahead_bytes:
            self.prepare(size)
        lent = np.asarray(_Loan(memory, self.free)).view(dtype)
        copy = lent.reshape(samples.shape, order="F" if samples.flags.f_contiguous else "C")
        np.copyto(copy, samples)
        return copy

    def prepare(self, size: int) -> None:
        """Begin to touch memory for copies of *size* bytes, in a thread of its own."""
        if size >= REUSED_BYTES_MIN and self._touching.acquire(blocking=False):
            try:
                threading.Thread(target=self._touch, args=(size,), name="granum-buffers", daemon=True).start()
            except RuntimeError:  # no more threads are to be had: then copies meet fresh memory
                self._touching.release()

    def end(self) -> None:
        """Give the memory back that nobody uses, and touch no more ahead."""
        self._ahead_bytes = 0
        self.free.clear()

    def _touch(self, size: int) -> None:
        try:
            while len(self.free) * size < self._ahead_bytes:
                memory = np.empty(size, "u1")
                memory.fill(0)
                self.free.appendleft(memory)
            if not self._ahead_bytes:  # it has ended meanwhile
                self.free.clear()
        finally:
            self._touching.release()


class _Loan:
    """The base of every array that lies in *memory*; when the last of them is gone, so is this, and *memory* is free."""

    def __init__(self, memory: NDArray[np.uint8], free: deque[NDArray[np.uint8]]) -> None:
        self.__array_interface__ = memory.__array_interface__  # an array of its own, with this for its base
        self._memory = memory
        self._free = free

    def __del__(self) -> None:
        if (len(self._free) + 1) * self._memory.nbytes <= KEPT_BYTES_MAX:
            self._free.append(self._memory)
