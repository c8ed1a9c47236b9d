"""The register of the scoreboard: rows, what each must show, and the controls that must fail.

A row is a check of one promise under one fault. Its control is the same check run on a program with a known flaw: a control
that passes shows that the check cannot fail, and counts the row as failed. A row that cannot run here says why and never
counts as passed. Rows are named 'R…' (reliability) or 'S…' (security); this module does not know what they do.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

FAMILIES = {"R": "reliability", "S": "security"}

# A container's root may have a program and not what it needs of the kernel; each of these shows it.
TRIALS = {
    "losetup": "losetup -f && unshare --mount --propagation unchanged true",
    "fusermount3": "test -w /dev/fuse",
    "strace": "strace -qq -o /dev/null true",
}


@dataclass(frozen=True, slots=True)
class Bed:
    """What a check works with: an empty directory of its own, the seed of everything random, and which form it runs in."""

    directory: Path
    seed: int
    long: bool = False

    def random(self, purpose: str) -> Random:
        """Return the source of chance for *purpose*, the same in every run with this seed."""
        return Random(f"{self.seed} {purpose}")

    def amount(self, short: int, long: int) -> int:
        """Return how many of something this form of the run makes."""
        return long if self.long else short

    def below(self, name: str) -> "Bed":
        """Return the same bed in a new directory *name* of this one."""
        directory = self.directory / name
        directory.mkdir()
        return Bed(directory, self.seed, self.long)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check saw: whether the promise held, the figure in one line, and what to look at when it did not.

    *broken*: the check could not be carried out, which proves nothing, not even for a control.
    """

    held: bool
    figure: str
    details: tuple[str, ...] = ()
    broken: bool = False


Check = Callable[[Bed], Outcome]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the scoreboard; *figure* is the one to reach, *control* maps each flaw to the check of a program with it."""

    name: str
    figure: str
    check: Check
    control: Mapping[str, Check] = field(default_factory=dict)
    root: bool = False
    programs: tuple[str, ...] = ()
    long_only: bool = False
    unless: Callable[[], str] = str  # says what else is in its way; '' for nothing

    @property
    def family(self) -> str:
        """'reliability' or 'security'."""
        return FAMILIES[self.name[0]]

    def obstacle(self) -> str:
        """Return why this row cannot run here, '' when it can."""
        if self.root and os.geteuid() != 0:
            return "it needs root"
        missing = [program for program in self.programs if shutil.which(program) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
        lacks = (_complaint(TRIALS[program]) for program in self.programs if program in TRIALS)
        return next(filter(None, lacks), "") or self.unless()


@functools.cache
def _complaint(trial: str) -> str:
    """Return why the shell command *trial* fails here, '' when it does not."""
    done = subprocess.run(("sh", "-c", trial), capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    words = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return f"this machine does not let it: '{trial}' says: {words}"


ROWS: dict[str, Row] = {}


def row(
    name: str,
    *,
    figure: str,
    control: Mapping[str, Check] | None = None,
    root: bool = False,
    programs: Sequence[str] = (),
    long_only: bool = False,
    unless: Callable[[], str] = str,
) -> Callable[[Check], Check]:
    """Register the decorated check as the row *name*; raise ValueError when there is one already."""

    def register(check: Check) -> Check:
        if name in ROWS or name[0] not in FAMILIES:
            raise ValueError(f"{name!r} is registered already, or belongs to no family")
        ROWS[name] = Row(name, figure, check, control or {}, root, tuple(programs), long_only, unless)
        return check

    return register
