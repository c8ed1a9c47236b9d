"""The scoreboard: what granum promises, checked under the faults it is promised for, one figure for each row.

A row passes when its check holds and every control of it fails. The last line counts; the exit status is 0 only when no row
failed. Rows that cannot run here are named with the reason and never count as passed.
"""

import importlib
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import click

from integration.faults.board import FAMILIES, ROWS, Bed, Check, Outcome, Row

# Importing one registers its rows; they run in this order.
MODULES = (
    "integration.faults.row_kills",
    "integration.faults.row_power",
    "integration.faults.row_disks",
    "integration.faults.row_limits",
    "integration.faults.row_connections",
    "integration.faults.row_clocks",
    "integration.faults.row_life",
    "integration.faults.row_requests",
    "integration.faults.row_slow",
    "integration.faults.row_names",
    "integration.faults.row_writers",
)
SEED = 20_240_229
DETAILS_MAX = 5  # lines of what went wrong, for a row that failed


@click.command()
@click.option("--long", "long", is_flag=True, help="The nightly form: more states, more file systems, more rows.")
@click.option("--rows", metavar="R1,R3,…", help="Only these rows.  [default: all of the form]")
@click.option("--seed", default=SEED, show_default=True, help="Of everything random.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where stores and images lie.  [default: temporary]")
def main(long: bool, rows: str | None, seed: int, directory: Path | None) -> None:  # noqa: FBT001 - click's way
    """Check the promises of granum under faults on this machine; see docs/scoreboard.md."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is undone in order then too
    for module in MODULES:
        importlib.import_module(module)
    click.echo(f"scoreboard: {'long' if long else 'short'} form, seed {seed}, Python {sys.version.split()[0]}")
    sys.exit(0 if run(chosen(rows, long=long), seed, long=long, directory=directory) else 1)


def chosen(names: str | None, *, long: bool) -> list[Row]:
    """Return the rows called *names*, separated by commas, else all that belong to this form."""
    if names is None:
        return [row for row in ROWS.values() if long or not row.long_only]
    unknown = [name for name in names.split(",") if name not in ROWS]
    if unknown:
        raise click.BadParameter(
            f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}", param_hint="--rows"
        )
    return [ROWS[name] for name in names.split(",")]


def run(rows: list[Row], seed: int, *, long: bool, directory: Path | None) -> bool:
    """Run *rows*, print a line for each and the closing line; return whether none failed."""
    wanted = Counter(row.family for row in rows)
    passed: Counter[str] = Counter()
    found_out = 0
    failed = False
    for row in rows:
        obstacle = row.obstacle()
        if obstacle:
            click.echo(f"{row.name:4} skipped, because {obstacle}")
            continue
        began = time.monotonic()
        outcome = attempt(row.check, row.name, seed, long=long, directory=directory)
        controls = {
            flaw: attempt(check, row.name, seed, long=long, directory=directory) for flaw, check in row.control.items()
        }
        escaped = [flaw for flaw, control in controls.items() if control.held or control.broken]
        row_passed = outcome.held and not escaped
        show(row, outcome, controls, row_passed=row_passed, took_s=time.monotonic() - began)
        passed[row.family] += row_passed
        found_out += bool(controls) and not escaped
        failed |= not row_passed
    counts = [f"{family} {passed[family]}/{wanted[family]}" for family in FAMILIES.values()]
    counts.insert(1, f"controls {found_out}/{sum(bool(row.control) for row in rows)}")
    click.echo(", ".join(counts))
    return not failed


def attempt(check: Check, name: str, seed: int, *, long: bool, directory: Path | None) -> Outcome:
    """Run *check* in a directory of its own; an exception is a failure of the harness or the node, shown as such."""
    with tempfile.TemporaryDirectory(prefix=f"granum-{name}-", dir=directory, ignore_cleanup_errors=True) as scratch:
        try:
            return check(Bed(Path(scratch), seed, long))
        except Exception as error:  # noqa: BLE001 - one row must not keep the others from running
            last = traceback.format_exc().strip().splitlines()[-8:]
            return Outcome(held=False, figure=f"broken: {error!r}", details=tuple(last), broken=True)


def show(row: Row, outcome: Outcome, controls: dict[str, Outcome], *, row_passed: bool, took_s: float) -> None:
    """Print what became of one row."""
    verdict = "passed" if row_passed else "FAILED"
    click.echo(f"{row.name:4} {verdict}  {outcome.figure}  [{row.figure}] ({took_s:.0f} s)")
    if not outcome.held:
        for detail in outcome.details[:DETAILS_MAX]:
            click.echo(f"       {detail}")
    for flaw, control in controls.items():
        state = "broken" if control.broken else "NOT FOUND" if control.held else "found"
        click.echo(f"     control '{flaw}' {state}: {control.figure}")


if __name__ == "__main__":
    main()
