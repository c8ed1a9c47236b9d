"""Texts that people read."""

import json

import pytest

from granum.cli.output import JsonArray, count_text, size_text, table
from granum.wire.errors import NotStored


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (-1, "?"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (9950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (2_000_000_000_000, "2.0 TB"),
    ],
)
def test_a_size_has_two_or_three_digits_and_a_unit(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "entries", "1 entry"),
        (2, "entries", "2 entries"),
        (1, "frames", "1 frame"),
        (12000, "files", "12,000 files"),
    ],
)
def test_one_is_not_plural(number: int, noun: str, text: str) -> None:
    assert count_text(number, noun) == text


def test_columns_are_aligned_by_the_width_that_a_terminal_shows() -> None:
    """A wide character takes two cells; nothing is cut off, and no line ends in blanks."""
    assert table(("NAME", "SIZE"), [("顕微鏡", "1"), ("x" * 8, "1000")], right=[1]) == [
        "NAME      SIZE",
        "顕微鏡       1",
        "xxxxxxxx  1000",
    ]


@pytest.mark.parametrize("rows", [[], [{"a": 1}], [{"a": 1}, {"b": [2]}]])
def test_rows_that_are_printed_as_they_come_are_one_document(
    rows: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    with JsonArray() as array:
        for row in rows:
            array.add(row)
    assert json.loads(capsys.readouterr().out) == rows


def failing(array: JsonArray, *rows: object) -> None:
    with array:
        for row in rows:
            array.add(row)
        raise NotStored


def test_a_command_that_fails_ends_its_document_and_begins_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotStored):
        failing(JsonArray())
    assert capsys.readouterr().out == ""
    with pytest.raises(NotStored):
        failing(JsonArray(), 1)
    assert json.loads(capsys.readouterr().out) == [1]
