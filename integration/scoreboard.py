"""The scoreboard: what granum promises, checked under the faults it is promised for, one figure for each row.

A row passes when its check holds and every control of it fails. The last line counts; the exit status is 0 only when no row
failed. Rows that cannot run here are named with the reason and never count as passed.
"""

import importlib
import pkgutil
import re
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import click

from integration import faults
from integration.faults.board import ROWS, Bed, Check, Outcome, Row
from integration.faults.tally import Tally

SEED = 20_240_229


@click.command()
@click.option("--long", "long", is_flag=True, help="The nightly form: more states, more file systems, more rows.")
@click.option("--rows", metavar="R1,R3,…", help="Only these rows.  [default: all of the form]")
@click.option("--seed", default=SEED, show_default=True, help="Of everything random.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where stores and images lie.  [default: temporary]")
def main(long: bool, rows: str | None, seed: int, directory: Path | None) -> None:  # noqa: FBT001 - click's way
    """Check the promises of granum under faults on this machine; see docs/scoreboard.md."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is undone in order then too
    click.echo(f"scoreboard: {'long' if long else 'short'} form, seed {seed}, Python {sys.version.split()[0]}")
    sys.exit(0 if run(chosen(rows, long=long), seed, long=long, directory=directory) else 1)


def register() -> None:
    """Import every module of `integration.faults` that is called row_…, which registers its rows."""
    for module in pkgutil.iter_modules(faults.__path__):
        if module.name.startswith("row_"):
            importlib.import_module(f"{faults.__name__}.{module.name}")


def _place(row: Row) -> tuple[str, int]:
    """Return where *row* stands in the order of the board: R1, R2, … R10, …, S1, …"""
    return row.name[0], int(re.sub(r"\D", "", row.name))


def chosen(names: str | None, *, long: bool) -> list[Row]:
    """Return the rows called *names*, separated by commas, else all that belong to this form."""
    register()
    if names is None:
        return sorted((row for row in ROWS.values() if long or not row.long_only), key=_place)
    unknown = [name for name in names.split(",") if name not in ROWS]
    if unknown:
        raise click.BadParameter(
            f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}", param_hint="--rows"
        )
    return [ROWS[name] for name in names.split(",")]


def run(rows: list[Row], seed: int, *, long: bool, directory: Path | None) -> bool:
    """Run *rows*, print a line for each and the closing line; return whether none failed."""
    tally = Tally()
    for row in rows:
        verdict = tally.of(row)
        verdict.skipped = row.obstacle()
        if not verdict.skipped:
            began = time.monotonic()
            verdict.outcome = attempt(row.check, row.name, seed, long=long, directory=directory)
            for flaw, check in row.control.items():
                verdict.controls[flaw] = attempt(check, row.name, seed, long=long, directory=directory)
            verdict.took_s = time.monotonic() - began
        for line in verdict.lines():
            click.echo(line)
    click.echo(tally.closing_line())
    return not tally.failed


def attempt(check: Check, name: str, seed: int = SEED, *, long: bool = False, directory: Path | None = None) -> Outcome:
    """Run *check* in a directory of its own; an exception is a failure of the harness or the node, shown as such."""
    with tempfile.TemporaryDirectory(prefix=f"granum-{name}-", dir=directory, ignore_cleanup_errors=True) as scratch:
        try:
            return check(Bed(Path(scratch), seed, long))
        except Exception as error:  # noqa: BLE001 - one row must not keep the others from running
            last = traceback.format_exc().strip().splitlines()[-8:]
            return Outcome(held=False, figure=f"broken: {error!r}", details=tuple(last), broken=True)


if __name__ == "__main__":
    main()
