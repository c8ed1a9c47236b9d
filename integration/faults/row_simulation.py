"""R40: the real client and node in simulated runs, each from a seed; the controls are bugs planted in them."""

import re
import subprocess
import sys
from collections.abc import Callable

from integration.faults.board import Bed, Outcome, row

SEEDS_SHORT, SEEDS_LONG = 200, 2000
CONTROL_SEEDS = 150  # within which each planted bug must show itself
LIMIT_S = 900.0
LAST_LINE = re.compile(r"^simulation: (\d+)/(\d+) seeds hold; .*$", re.MULTILINE)
# Run in a process of its own, whose threads cannot be in the way of forking, and which sets up what makes runs alike.
COMMAND = (sys.executable, "-m", "integration.simulation")


def _simulate(*arguments: str) -> tuple[bool, str, tuple[str, ...]]:
    done = subprocess.run((*COMMAND, *arguments), capture_output=True, text=True, check=False, timeout=LIMIT_S)
    said = LAST_LINE.search(done.stdout)
    if said is None:
        raise RuntimeError(f"the simulation ended with status {done.returncode}: {done.stderr[-2000:]}")
    broken = tuple(line for line in done.stdout.splitlines() if line != said[0])
    return done.returncode == 0 and said[1] == said[2], said[0].removeprefix("simulation: "), broken


def _control(bug: str) -> Callable[[Bed], Outcome]:
    def check(_: Bed) -> Outcome:
        held, figure, details = _simulate("--seeds", str(CONTROL_SEEDS), "--bug", bug, "--until", "1")
        return Outcome(held, figure, details)

    return check


FLAWS = {
    "no fsync of files": "1",
    "receipt before commit": "4",
    "renames over": "5",
    "another node, without digest": "7",
    "silence is absence": "8",
    "freed when sent": "9",
    "dropped at close": "10",
}


@row(
    "R40",
    figure=f"{SEEDS_SHORT} seeds hold ({SEEDS_LONG} in the long form), every operation checked",
    control={flaw: _control(bug) for flaw, bug in FLAWS.items()},
)
def holds_when_simulated(bed: Bed) -> Outcome:
    """Run the seeds from 1 on, those that came out of earlier runs first among them."""
    return Outcome(*_simulate("--seeds", str(bed.amount(SEEDS_SHORT, SEEDS_LONG))))
