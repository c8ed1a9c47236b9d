"""What granum promises, one test for each row of the scoreboard in its short form, and one for each control of a row.

docs/scoreboard.md says what the rows do. A control is the same check on a program with a known flaw, which it must find. A
row that cannot run here is skipped with the reason. The run ends with the scoreboard's closing line.
"""

import time
from pathlib import Path

import pytest

from integration import scoreboard
from integration.faults.board import Check, Outcome, Row
from integration.faults.tally import DETAILS_MAX, Tally, Verdict

ROWS = scoreboard.chosen(None, long=False)
LONGEST_S = 900  # on a machine with four times the work that it can do the longest row takes two minutes
CONTROLS = [(row, flaw) for row in ROWS for flaw in row.control]


def attempt(check: Check, verdict: Verdict, directory: Path) -> Outcome:
    """Run *check* of the row that *verdict* is about; skip it where that cannot run."""
    verdict.skipped = verdict.row.obstacle()
    if verdict.skipped:
        pytest.skip(verdict.skipped)
    began = time.monotonic()
    outcome = scoreboard.attempt(check, verdict.row.name, directory=directory)
    verdict.took_s += time.monotonic() - began
    return outcome


def fail(*lines: str) -> None:
    pytest.fail("\n".join(lines[: DETAILS_MAX + 2]), pytrace=False)


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_promise_holds_under_its_fault(row: Row, tally: Tally, tmp_path: Path) -> None:
    verdict = tally.of(row)
    outcome = verdict.outcome = attempt(row.check, verdict, tmp_path)
    if not outcome.held:
        fail(outcome.figure, f"promised: {row.figure}", *outcome.details)


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S)
@pytest.mark.parametrize(("row", "flaw"), CONTROLS, ids=[f"{row.name}, {flaw}" for row, flaw in CONTROLS])
def test_a_program_that_breaks_a_promise_is_found(row: Row, flaw: str, tally: Tally, tmp_path: Path) -> None:
    verdict = tally.of(row)
    control = verdict.controls[flaw] = attempt(row.control[flaw], verdict, tmp_path)
    if control.broken:
        fail("the control could not be carried out", control.figure, *control.details)
    if control.held:
        fail("the flaw was not found", control.figure)
