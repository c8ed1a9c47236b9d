"""Parts of files: what is asked for, and what is believed to be it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.wire.parts import is_behind, is_that_part, range_of


def test_a_range_names_its_first_and_its_last_byte() -> None:
    assert [range_of(0, 1), range_of(6, 5), range_of(100, None)] == ["bytes=0-0", "bytes=6-10", "bytes=100-"]


@pytest.mark.parametrize(
    ("content_range", "size", "start", "length"),
    [
        ("bytes 6-10/12", 5, 6, 5),
        ("bytes 6-11/12", 6, 6, 100),  # the file ends
        ("bytes 6-11/12", 6, 6, None),
        ("bytes 6-10/*", 5, 6, 5),
    ],
)
def test_the_part_that_was_asked_for_is_believed(content_range: str, size: int, start: int, length: int | None) -> None:
    assert is_that_part(content_range, size, start, length)


@pytest.mark.parametrize(
    ("content_range", "size", "start", "length"),
    [
        ("", 5, 6, 5),
        ("bytes 0-4/12", 5, 6, 5),  # another place
        ("bytes 6-10/12", 4, 6, 5),  # fewer bytes than it says
        ("bytes 6-8/12", 3, 6, 5),  # less than was asked for, and the file goes on
        ("bytes 6-10/12", 5, 6, None),
        ("bytes 6-10/8", 5, 6, 5),  # behind its own end
        ("bytes 6-8/*", 3, 6, 5),
        ("bytes 6-10/*", 5, 6, None),
        ("lines 6-10/12", 5, 6, 5),
        ("bytes 6-10/12, bytes 0-1/12", 5, 6, 5),
    ],
)
def test_another_part_is_not(content_range: str, size: int, start: int, length: int | None) -> None:
    assert not is_that_part(content_range, size, start, length)


def test_a_range_behind_the_end_says_how_long_the_file_is() -> None:
    assert is_behind("bytes */12", 12)
    assert not is_behind("bytes */12", 11)
    assert not is_behind("", 12)


@given(st.integers(1, 50), st.integers(0, 60), st.none() | st.integers(1, 60))
def test_what_an_honest_node_answers_is_believed(total: int, start: int, length: int | None) -> None:
    end = total if length is None else min(start + length, total)
    if start >= total:
        assert is_behind(f"bytes */{total}", start)
    else:
        assert is_that_part(f"bytes {start}-{end - 1}/{total}", end - start, start, length)
