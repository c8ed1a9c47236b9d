"""The end of a run that checked promises: a line for each row, and the closing line of the scoreboard."""

from collections.abc import Iterator

import pytest

from integration.faults.tally import Tally

TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash[TALLY] = Tally()


@pytest.fixture
def tally(pytestconfig: pytest.Config) -> Tally:
    """What became of the rows of this run."""
    return pytestconfig.stash[TALLY]


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Print what each row came to."""
    yield
    lines = config.stash[TALLY].lines()
    if lines:
        terminalreporter.section("promises")
        for line in lines:
            terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run with the closing line, below the one in which pytest counts tests."""
    tally = config.stash[TALLY]
    if tally.verdicts:
        print(tally.closing_line(), flush=True)
