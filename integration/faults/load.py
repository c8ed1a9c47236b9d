"""Streams of puts whose bodies are known, and the judgement of what is on disk afterwards.

Nothing is remembered but digests: a file is whole when it has the digest of the put of its path, and a receipt is lost when
its file is not there.
"""

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from integration.faults.talk import UNANSWERED, Address, Line
from integration.faults.waiting import pause

NOT_OURS = frozenset({".granum", "lost+found"})
RETRY_S = 0.02  # between tries to reach a daemon that is down
STREAM_END_S = 60.0


def body_of(path: str, size: int) -> bytes:
    """Return the body of the put of *path*: *size* bytes that no other path has."""
    return Random(path).randbytes(size)


def digest(body: bytes) -> bytes:
    """Return what *body* is recognised by."""
    return hashlib.sha256(body).digest()


@dataclass(frozen=True, slots=True)
class Receipt:
    """A put of *path* was answered with 2xx at *when* (monotonic seconds); *mark* is what the mark of the load said then."""

    path: str
    when: float
    mark: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with a store: receipted paths without a file, and files that are not whole."""

    lost: tuple[str, ...]
    torn: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.lost and not self.torn


def judge(root: Path, offered: Mapping[str, bytes], receipted: Iterable[str]) -> Findings:
    """Compare the files below *root* with the digests *offered* by path; each one *receipted* must be there."""
    found: dict[str, bool] = {}
    for directory, below, files in os.walk(root):
        if Path(directory) == root:
            below[:] = [name for name in below if name not in NOT_OURS]
        for name in files:
            file = Path(directory, name)
            path = "/" + str(file.relative_to(root))
            found[path] = offered.get(path) == digest(file.read_bytes())
    return Findings(
        lost=tuple(path for path in receipted if path not in found),
        torn=tuple(path for path, whole in found.items() if not whole),
    )


class Streams(AbstractContextManager["Streams"]):
    """*count* threads, each putting one file after the other to *address* until it has put *puts* or is stopped.

    A put without an answer is never repeated: its path stays unknown. *path_of* gets the stream and the number of the put.
    """

    def __init__(
        self,
        address: Address,
        random: Random,
        *,
        count: int,
        sizes: tuple[int, int],
        puts: int | None = None,
        path_of: Callable[[int, int], str] = "/s{}/f{:06}".format,
        mark: Callable[[], int] = lambda: 0,
        pace_s: float = 0.0,
    ) -> None:
        self.offered: dict[str, bytes] = {}
        self.receipts: list[Receipt] = []
        self.answers: Counter[int] = Counter()  # by status; 0: none
        self._address = address
        self._sizes = sizes
        self._puts = puts
        self._path_of = path_of
        self._mark = mark
        self._pace_s = pace_s
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._stream, args=(number, Random(random.random())), daemon=True)
            for number in range(count)
        ]

    def join(self) -> None:
        """Wait until every stream has put what it had to."""
        for thread in self._threads:
            thread.join(STREAM_END_S)
            assert not thread.is_alive(), "a stream does not end"

    def stop(self) -> None:
        """Let every stream finish its put and end."""
        self._stopped.set()
        self.join()

    def _stream(self, stream: int, random: Random) -> None:
        line: Line | None = None
        number = 0
        while not self._stopped.is_set() and number != self._puts:
            path = self._path_of(stream, number)
            number += 1
            body = body_of(path, random.randint(*self._sizes))
            self.offered[path] = digest(body)
            try:
                line = line or Line(self._address)
                answer = line.put(path, body)
            except UNANSWERED:
                self.answers[0] += 1
                if line is not None:
                    line.close()
                line = None
                pause(RETRY_S)
                continue
            if answer.stored:
                self.receipts.append(Receipt(path, time.monotonic(), self._mark()))
            self.answers[answer.status] += 1
            pause(self._pace_s)
        if line is not None:
            line.close()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
