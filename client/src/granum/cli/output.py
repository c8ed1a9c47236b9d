"""Output: tables and JSON on standard output, remarks on standard error.

Tables are aligned text, the same on a terminal and in a pipe, so that nothing is cut off or wrapped; a terminal shows their
heads in bold unless NO_COLOR is set. JSON is one document. Nothing here knows a cluster.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import click

GAP = "  "
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def size_text(size: int) -> str:
    """Return *size* bytes for people, in decimal units, '?' when it is not known."""
    if size < 0:
        return "?"
    value = float(size)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    digits = 1 if unit != "B" and value < 9.95 else 0
    return f"{value:.{digits}f} {unit}"


def count_text(number: int, noun: str) -> str:
    """Return '1 entry', '2 entries': *noun* is the plural, its singular is worked out."""
    singular = noun.removesuffix("ies") + "y" if noun.endswith("ies") else noun.removesuffix("s")
    return f"{number:,} {singular if number == 1 else noun}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Return the lines of a table; the columns numbered in *right* are aligned to the right."""
    from rich.cells import cell_len  # noqa: PLC0415 - costs time that --help and completion do not have

    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(cell_len(cell) for cell in column) for column in zip(*lines, strict=True)]
    flush = set(right)

    def aligned(cells: Sequence[str]) -> str:
        padded = []
        for column, cell in enumerate(cells):
            gap = " " * (widths[column] - cell_len(cell))
            padded.append(gap + cell if column in flush else cell + gap)
        return GAP.join(padded).rstrip()

    return [aligned(line) for line in lines]


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> None:
    """Print a table; nothing when it has no rows."""
    first, *others = table(head, rows, right=right)
    if others:
        say(click.style(first, bold=True) if _is_coloured() else first)
    for line in others:
        say(line)


def print_fields(fields: Mapping[str, str]) -> None:
    """Print 'name  value' lines, the values aligned."""
    width = max(map(len, fields))
    for name, value in fields.items():
        say(f"{name:<{width}}{GAP}{value}")


def print_json(document: Any) -> None:
    """Print *document*, which JSON can hold, as the one document of the command."""
    click.echo(json.dumps(document, indent=2))


class JsonArray(AbstractContextManager["JsonArray"]):
    """The one document of a command whose rows are printed as they come. A command that fails before its first prints none."""

    def __init__(self) -> None:
        self._begun = False

    def add(self, row: Any) -> None:
        """Print *row*, which JSON can hold."""
        click.echo(("," if self._begun else "[") + "\n  " + json.dumps(row), nl=False)
        self._begun = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._begun:
            click.echo("\n]")
        elif kind is None:
            click.echo("[]")


def say(text: str) -> None:
    """Print one line on standard output."""
    click.echo(_printable(text))


def remark(text: str) -> None:
    """Print 'granum: text' as one line on standard error."""
    click.echo(_printable("granum: " + " ".join(text.splitlines())), err=True)


def _printable(text: str) -> str:
    """Return *text* with what is no UTF-8 escaped: names of local files can be any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _is_coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
