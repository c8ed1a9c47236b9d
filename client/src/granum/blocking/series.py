"""Writing a series in plain threads: a writer that waits for room.

Thin over `granum.streaming.series`, which holds every rule. It belongs to the process that began it.
"""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from granum.blocking.thread import ReactorThread
from granum.roster import Node

ReactorSeries: TypeAlias = Any  # the writer that it wraps, whose module is imported on first use only


class SeriesWriter:
    """A series being streamed. As a context manager it finalises at the end of the block, or aborts after an error."""

    def __init__(self, thread: ReactorThread, writer: ReactorSeries) -> None:
        self._thread = thread
        self._writer = writer
        self._ended = False

    def store_frame(self, number: int, frame: npt.ArrayLike, *, copy: bool = True) -> Node | None:
        """Hand over one frame; return once it is taken in, not yet with the receipt.

        Returns the node whose window took it in; None when it is in the overflow, waits to be compressed, or is kept in
        memory, as all are with *on_full* "raise": the call then takes as long as the copy. Behind a frame that
        failed, or with that memory full, it waits for the reactor, so that the program is told.

        With *copy* off the caller promises not to change the array before `finalise`. Raises what earlier frames failed with.
        """
        array = np.asarray(frame)
        if self._thread.is_here and self._writer.take_in(number, array, copy=copy):
            return None
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
