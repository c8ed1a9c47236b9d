"""The count of a scoreboard: what became of each row and of its controls, in lines for a person and one line at the end.

A row counts as passed when its check held and every control of it was found. One that was skipped counts as not passed, and
the closing line says how many were. A row of which a part did not run is not passed either.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from integration.faults.board import FAMILIES, Outcome, Row

DETAILS_MAX = 5  # lines of what went wrong, for a row that failed


@dataclass(slots=True)
class Verdict:
    """What became of one row so far: the *outcome* of its check, those of its *controls* by flaw, or why it was *skipped*."""

    row: Row
    outcome: Outcome | None = None
    controls: dict[str, Outcome] = field(default_factory=dict)
    skipped: str = ""
    took_s: float = 0.0

    @property
    def found(self) -> bool:
        """Whether every control was found out."""
        return set(self.controls) == set(self.row.control) and not any(map(escaped, self.controls.values()))

    @property
    def passed(self) -> bool:
        """Whether the promise held, by a check that can fail."""
        return self.outcome is not None and self.outcome.held and self.found

    def lines(self) -> Iterator[str]:
        """Yield what to print of it."""
        name = f"{self.row.name:4}"
        if self.skipped:
            yield f"{name} skipped, because {self.skipped}"
            return
        did_not_run = not self.outcome or set(self.controls) < set(self.row.control)
        verdict = "passed" if self.passed else "not run whole" if did_not_run else "FAILED"
        figure = self.outcome.figure if self.outcome else ""
        yield f"{name} {verdict}  {figure}  [{self.row.figure}] ({self.took_s:.0f} s)"
        if self.outcome and not self.outcome.held:
            yield from (f"       {detail}" for detail in self.outcome.details[:DETAILS_MAX])
        for flaw, control in self.controls.items():
            state = "broken" if control.broken else "NOT FOUND" if control.held else "found"
            yield f"     control '{flaw}' {state}: {control.figure}"


def escaped(control: Outcome) -> bool:
    """Whether *control* shows nothing: it held, or could not be carried out."""
    return control.held or control.broken


@dataclass(slots=True)
class Tally:
    """What became of every row that was to run, by name and in order."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)

    def of(self, row: Row) -> Verdict:
        """Return what is known of *row*; from now on it counts."""
        return self.verdicts.setdefault(row.name, Verdict(row))

    @property
    def failed(self) -> bool:
        """Whether a row failed that could run."""
        return any(not verdict.passed and not verdict.skipped for verdict in self.verdicts.values())

    def lines(self) -> list[str]:
        """Return what to print of every row."""
        return [line for verdict in self.verdicts.values() for line in verdict.lines()]

    def closing_line(self) -> str:
        """Return the line that counts."""
        verdicts = self.verdicts.values()
        counts = []
        for family in FAMILIES.values():
            own = [verdict for verdict in verdicts if verdict.row.family == family]
            counts.append(f"{family} {sum(verdict.passed for verdict in own)}/{len(own)}")
        controlled = [verdict for verdict in verdicts if verdict.row.control]
        counts.insert(1, f"controls {sum(verdict.found for verdict in controlled)}/{len(controlled)}")
        skipped = sum(bool(verdict.skipped) for verdict in verdicts)
        return ", ".join(counts) + (f" ({skipped} skipped)" if skipped else "")
