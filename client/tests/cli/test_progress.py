"""The bar is drawn rarely and counts everything."""

import io
import time

import pytest

from granum.cli.progress import DRAWS_PER_S, Bar


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_ten_thousand_files_a_second_are_drawn_eight_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    drawn: list[tuple[float, str]] = []
    bar = Bar("put", 10_000, 10_000 * 64, shown=True, clock=clock)
    with bar:
        assert bar._progress is not None
        monkeypatch.setattr(
            bar._progress, "update", lambda task, *, completed, files, refresh: drawn.append((completed, files))
        )
        for number in range(10_000):
            clock.now = (number + 1) / 10_000
            bar.add(64)
    assert len(drawn) == DRAWS_PER_S + 1  # and once at the end
    assert drawn[-1] == (640_000, "10,000/10,000, 10,000/s")


def test_a_bar_costs_less_than_a_twentieth_of_the_time_of_ten_thousand_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured with the real display on a terminal that takes everything; the fastest of three, for others use the machine."""
    terminal = io.StringIO()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")

    def cost_s() -> float:
        clock = Clock()
        with Bar("put", 10_000, 10_000 * 64, shown=True, clock=clock) as bar:
            began = time.thread_time()
            for number in range(10_000):
                clock.now = (number + 1) / 10_000
                bar.add(64)
            return time.thread_time() - began

    cost_s()  # the first draws load what they need
    assert min(cost_s() for _ in range(3)) < 0.05
    assert "━" in terminal.getvalue()


def test_a_bar_that_is_not_shown_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("put", 1, 1, shown=False) as bar:
        bar.add(1)
    assert capsys.readouterr() == ("", "")
