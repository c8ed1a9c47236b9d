"""The register of the scoreboard: rows, what each must show, and the controls that must fail.

A row is a check of one promise under one fault. Its control is the same check run on a program with a known flaw: a control
that passes shows that the check cannot fail, and counts the row as failed. A row that cannot run here says why and never
counts as passed. Rows are named 'R…' (reliability) or 'S…' (security); this module does not know what they do.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

FAMILIES = {"R": "reliability", "S": "security"}


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

    @property
    def family(self) -> str:
        """'reliability' or 'security'."""
        return FAMILIES[self.name[0]]

    def obstacle(self) -> str:
        """Return why this row cannot run here, '' when it can."""
        if self.root and os.geteuid() != 0:
            return "it needs root"
        missing = [program for program in self.programs if shutil.which(program) is None]
        return f"not installed: {', '.join(missing)}" if missing else ""


ROWS: dict[str, Row] = {}


def row(
    name: str,
    *,
    figure: str,
    control: Mapping[str, Check] | None = None,
    root: bool = False,
    programs: Sequence[str] = (),
    long_only: bool = False,
) -> Callable[[Check], Check]:
    """Register the decorated check as the row *name*; raise ValueError when there is one already."""

    def register(check: Check) -> Check:
        if name in ROWS or name[0] not in FAMILIES:
            raise ValueError(f"{name!r} is registered already, or belongs to no family")
        ROWS[name] = Row(name, figure, check, control or {}, root, tuple(programs), long_only)
        return check

    return register
