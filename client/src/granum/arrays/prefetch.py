"""Prefetch: numbered things asked for ahead of their use, several at a time, and given out in the order of asking.

What is on its way or waits to be taken is bounded in number and in bytes. The rule: one that fails raises at its place and
the next call goes on behind it; whoever stops before the end calls `close`, and nothing is left on its way.

Where things come from, this module does not know: frames of one series lie on several nodes, so asking for several at a time
keeps all of them busy.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Generic, Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

AHEAD = 16  # more than the three or four that each of three nodes sends at a time; small frames need the number
AHEAD_BYTES = 32 << 20  # three frames of 8 MiB, one of each of three nodes; more only wait, in memory that is not warm
READY_BYTES = 1 << 20  # given out together: a hand-over between threads costs as much as reading a small frame

T = TypeVar("T")


class Numbered(ABC, Generic[T]):
    """An asynchronous iterator over pairs (number, thing); `async with` closes it, also when it was left before its end."""

    @abstractmethod
    def close(self) -> None:
        """Stop what is on its way; there is nothing more after this."""

    @abstractmethod
    async def _next(self) -> tuple[int, T] | None:
        """Return the next pair, None at the end."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, T]:
        found = await self._next()
        if found is None:
            raise StopAsyncIteration
        return found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Prefetch(Numbered[T]):
    """Pairs (number, what *fetch* fires with for it), for the numbers that `add` was told.

    *size* gives the bytes that one will take. At most *ahead* of them, and *bytes_max* unless a single one is larger, are held
    or on their way, the one that the caller took last not counted.
    """

    def __init__(
        self,
        fetch: Callable[[int], Deferred[T]],
        size: Callable[[int], int],
        *,
        ahead: int = AHEAD,
        bytes_max: int = AHEAD_BYTES,
    ) -> None:
        self._fetch = fetch
        self._size = size
        self._ahead = max(ahead, 1)
        self._bytes_max = bytes_max
        self._left: deque[int] = deque()
        self._asked: deque[tuple[int, int, Deferred[T]]] = deque()  # number, bytes, result; the oldest first
        self._awaited: Deferred[T] | None = None  # the one that the caller waits for
        self._bytes = 0
        self._closed = False

    def add(self, numbers: Iterable[int]) -> None:
        """Let *numbers* follow those that are there; asked for when the next one is taken."""
        self._left.extend(numbers)

    @property
    def is_drained(self) -> bool:
        """Whether everything was given out."""
        return not self._asked and not self._left

    def next(self) -> Deferred[tuple[int, T] | None]:
        """Fire with the next pair, None at the end; fails with what that number's fetch failed with.

        Cancelling it closes the iterator.
        """
        return Deferred.fromCoroutine(self._next())

    def next_ready(self) -> Deferred[list[tuple[int, T]]]:
        """Fire with the next pair and those behind it that have come already, up to READY_BYTES; none at the end.

        For readers in another thread. One that failed is left for the next call, where it fails. Otherwise as `next`.
        """
        return Deferred.fromCoroutine(self._next_ready())

    def close(self) -> None:
        """Cancel what is on its way; there is nothing more after this, and whoever waits is told so."""
        self._closed = True
        self._left.clear()
        if self._awaited is not None:
            self._awaited.cancel()
        while self._asked:
            _, size, result = self._asked.popleft()
            self._bytes -= size
            result.addErrback(lambda _: None)
            result.cancel()

    async def _next(self) -> tuple[int, T] | None:
        self._fill()
        if not self._asked:
            return None
        number, size, result = self._asked.popleft()
        self._awaited = result
        try:
            return number, await result
        except CancelledError:
            if self._closed:
                return None
            self._awaited = None
            self.close()
            raise
        finally:
            self._awaited = None
            self._bytes -= size
            self._fill()

    async def _next_ready(self) -> list[tuple[int, T]]:
        first = await self._next()
        if first is None:
            return []
        ready, held = [first], 0
        while self._asked:
            _, size, result = self._asked[0]
            held += size
            if held > READY_BYTES or not result.called or result.paused or isinstance(result.result, Failure):
                break
            more = await self._next()
            assert more is not None
            ready.append(more)
        return ready

    def _fill(self) -> None:
        while self._left and not self._closed and len(self._asked) < self._ahead:
            size = self._size(self._left[0])
            if self._asked and self._bytes + size > self._bytes_max:
                return
            number = self._left.popleft()
            self._bytes += size
            self._asked.append((number, size, self._fetch(number)))
