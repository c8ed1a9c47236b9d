"""Fleets: the nodes that a stream goes to, three of a kind or a sink, and the sweeper that keeps their stores small.

The first node of a fleet also serves the cells with one node, so that both are the same processes.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from integration.bench import programs
from integration.bench.peers import Ceiling, Granum, Mode, Peer, Pyme

NODES = 3
SWEEP_S = 0.05  # at 10,000 frames/s of 64 KiB a sweep finds 500, 33 MB; scanning the rest costs 3 % of a core
Make = Callable[[Path, Path], Peer]


class Sink(Peer):
    """A C program that answers puts and throws their bodies away unread."""

    def start(self) -> None:
        """Start it; it says its port."""
        self._launch(str(programs.compiled("sink", fetch=False)), says_port=True)


class Fleet(AbstractContextManager["Fleet"]):
    """*count* peers that *make* makes, over stores below *root*; they share one home, in *scratch*."""

    def __init__(self, make: Make, count: int, root: Path, scratch: Path) -> None:
        """Describe it; nothing is started."""
        self.peers = [make(root / f"node{number}", scratch) for number in range(1, count + 1)]
        self.scratch = scratch
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            for peer in self.peers:
                starting.enter_context(peer)
            self._running = starting.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._running.close()


def kinds(digest: str) -> dict[str, tuple[Make, int, str, Mode]]:
    """Return how each kind of fleet is made: maker, number of nodes, the place of its stores, and the mode of its puts."""
    none, relaxed, commit = Mode("none", "none"), Mode("relaxed", digest), Mode("commit", digest)
    return {
        "sink": (Sink, 1, "memory", none),
        "relaxed": (partial(Granum, mode=relaxed), NODES, "memory", relaxed),
        "commit": (partial(Granum, mode=commit), NODES, "disk", commit),
        "pyme": (Pyme, NODES, "memory", none),
        "ceiling": (Ceiling, 1, "memory", none),
    }


class Sweeper(AbstractContextManager["Sweeper"]):
    """Removes all frames in *directories* of each of *roots* but the last *keep*, again and again, from outside.

    So pages are used again: memory that a virtual machine touches for the first time costs as much as all the rest.
    """

    def __init__(self, roots: Sequence[Path], directories: Sequence[str], keep: int) -> None:
        """Begin on entry; *directories* in the order in which they are filled."""
        self._below = [[root / directory for directory in directories] for root in roots]
        self._keep = keep
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def sweep(self) -> None:
        """Do it once."""
        for directories in self._below:
            frames = [file for directory in directories for file in sorted(_frames_in(directory), key=_by_number)]
            for file in frames[: max(len(frames) - self._keep, 0)]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(file)

    def _run(self) -> None:
        while not self._ended.wait(SWEEP_S):
            self.sweep()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()


def _frames_in(directory: Path) -> list[str]:
    try:
        return [f"{directory}/{name}" for name in os.listdir(directory) if name.startswith("frame")]
    except FileNotFoundError:
        return []


def _by_number(file: str) -> tuple[int, str]:
    return len(file), file
