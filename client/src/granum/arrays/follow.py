"""Following: the frames of a series while it is being acquired, each once, until the mark that completes it.

The directory is looked at again and again, as any reader would, so it works from every machine. What comes is what has its
receipt; within one look frames are in order, but a frame that was receipted late comes late. The end is believed only when no
node is missing: else frames of that node might be lacking, and following goes on until it is back or time is up.
"""

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from granum.arrays.prefetch import Numbered, Prefetch
from granum.wire.errors import GranumError, NodeTimeout, Partial

if TYPE_CHECKING:
    from granum.arrays.series import SeriesReader

POLL_S = 1.0  # the age that a listing of ours may have anyway


class Follow(Numbered[NDArray[Any]]):
    """Pairs (number, array) of *reader*, whose properties show what was found last.

    It looks every *poll_s* seconds of *clock* while there is nothing to give. A frame that cannot be read raises at its place,
    and the next call goes on. After *timeout_s* without a frame (None: never) it raises Partial, naming the nodes missing, or
    NodeTimeout when none is; the next call waits anew.
    """

    def __init__(
        self,
        reader: "SeriesReader",
        frames: Prefetch[NDArray[Any]],
        clock: Any,  # Any: a reactor with time; zope's interfaces are opaque
        *,
        poll_s: float = POLL_S,
        timeout_s: float | None = None,
    ) -> None:
        self._reader = reader
        self._frames = frames
        self._clock = clock
        self._poll_s = poll_s
        self._timeout_s = timeout_s
        self._seen: set[int] = set()
        self._looked = clock.seconds()
        self._failure: GranumError | None = None  # of the last look, when that was none
        self._looking: Deferred[None] | None = None  # until a frame comes, or the end
        self._is_closed = False
        self._take_new()

    def next(self) -> Deferred[tuple[int, NDArray[Any]] | None]:
        """Fire with the next pair, None when the series is complete; cancelling it closes the iterator."""
        return Deferred.fromCoroutine(self._next())

    def next_ready(self) -> Deferred[list[tuple[int, NDArray[Any]]]]:
        """Do as `next`, but fire with all that has come already, none at the end; see `Prefetch.next_ready`."""
        return Deferred.fromCoroutine(self._next_ready())

    def close(self) -> None:
        """Cancel what is on its way; there is nothing more after this, and whoever waits is told so."""
        self._is_closed = True
        if self._looking is not None:
            self._looking.cancel()
        self._frames.close()

    async def _next(self) -> tuple[int, NDArray[Any]] | None:
        await self._wait()
        return await self._frames.next()

    async def _next_ready(self) -> list[tuple[int, NDArray[Any]]]:
        await self._wait()
        return await self._frames.next_ready()

    async def _wait(self) -> None:
        """Look until there is a frame, or the series is complete, or this is closed."""
        looking = self._looking = Deferred.fromCoroutine(self._look_on())
        try:
            await looking
        except CancelledError:
            if not self._is_closed:
                self.close()
                raise
        finally:
            self._looking = None

    async def _look_on(self) -> None:
        began = self._clock.seconds()
        while self._frames.is_drained and not self._is_closed:
            if self._reader.complete and not self._reader.partial and self._failure is None:
                return
            if self._timeout_s is not None and self._clock.seconds() - began >= self._timeout_s:
                raise self._stalled()
            wait = self._looked + self._poll_s - self._clock.seconds()
            await deferLater(self._clock, max(wait, 0), lambda: None)
            await self._look()

    async def _look(self) -> None:
        self._looked = self._clock.seconds()
        self._failure = None
        try:
            await self._reader.refresh()
        except GranumError as error:  # nobody answers at the moment, or metadata are there in part
            self._failure = error
            return
        self._take_new()

    def _take_new(self) -> None:
        new = [number for number in self._reader.numbers if number not in self._seen]
        self._seen.update(new)
        self._frames.add(new)

    def _stalled(self) -> GranumError:
        reader = self._reader
        state = "complete, but nodes are missing" if reader.complete else "not complete; is it still being acquired?"
        message = f"no frame of {reader.path} came within {self._timeout_s:g} s, and it is {state}"
        if self._failure is not None:
            return NodeTimeout(f"{message}; looking for more failed: {self._failure}")
        return Partial(message, reader.missing) if reader.partial else NodeTimeout(message)
