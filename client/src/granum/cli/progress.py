"""Progress: one bar on standard error with bytes, rate, files and the time left.

Shown on a terminal only, and never with --json or --quiet. It is drawn at most DRAWS_PER_S times a second however many
files go by, and what goes by between two drawings is only counted.
"""

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress

DRAWS_PER_S = 8  # readable, and less than a hundredth of a core


class Bar:
    """A progress bar over *files* and *size* bytes in all; nothing at all unless *shown*. Use as a context manager."""

    def __init__(
        self, title: str, files: int, size: int, *, shown: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title = title
        self._total = (files, size)
        self._done = (0, 0)
        self._clock = clock
        self._started = self._drawn = clock()
        self._progress = _progress() if shown else None

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._task = self._progress.add_task(self._title, total=max(self._total[1], 1), files=self._files_text())
            self._progress.start()
            self._progress.refresh()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._progress is not None:
            self._draw()
            self._progress.stop()

    def add(self, size: int, files: int = 1) -> None:
        """Count *files* done, of *size* bytes together."""
        self._done = (self._done[0] + files, self._done[1] + size)
        if self._progress is not None and self._clock() - self._drawn >= 1 / DRAWS_PER_S:
            self._draw()

    def _draw(self) -> None:
        assert self._progress is not None
        self._drawn = self._clock()
        self._progress.update(self._task, completed=self._done[1], files=self._files_text(), refresh=True)

    def _files_text(self) -> str:
        elapsed = self._clock() - self._started
        rate = f", {self._done[0] / elapsed:,.0f}/s" if elapsed > 1 / DRAWS_PER_S else ""
        return f"{self._done[0]:,}/{self._total[0]:,}{rate}"


def is_wanted(*, json: bool, quiet: bool) -> bool:
    """Whether a bar is to be shown: standard error is a terminal, and the output is for a person."""
    return sys.stderr.isatty() and not json and not quiet and os.environ.get("TERM") != "dumb"


def _progress() -> "Progress":
    from rich.console import Console  # noqa: PLC0415 - costs time that --help and completion do not have
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[files]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
