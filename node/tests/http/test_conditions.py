"""Conditions and ranges of a read: the tables of RFC 9110."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum_node.http.conditions import Decision, Unsatisfiable, Version, decide, select

STRONG = Version(b'"xxh3-128:01"', 1_700_000_000)  # Tue, 14 Nov 2023 22:13:20 GMT
WEAK = Version(b'W/"5-01"', 1_700_000_000)
THEN = b"Tue, 14 Nov 2023 22:13:20 GMT"
BEFORE = b"Tue, 14 Nov 2023 22:13:19 GMT"
AFTER = b"Tue, 14 Nov 2023 22:13:21 GMT"
OURS, OTHER = STRONG.tag, b'"xxh3-128:02"'
PROCEED, NOT_MODIFIED, FAILED = Decision.PROCEED, Decision.NOT_MODIFIED, Decision.FAILED


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, PROCEED),
        # one condition alone
        ({b"if-match": b"*"}, PROCEED),
        ({b"if-match": OURS}, PROCEED),
        ({b"if-match": OTHER + b" , " + OURS}, PROCEED),
        ({b"if-match": OTHER}, FAILED),
        ({b"if-match": b"W/" + OURS}, FAILED),
        ({b"if-match": b""}, FAILED),
        ({b"if-match": b"xxh3-128:01"}, FAILED),
        ({b"if-unmodified-since": THEN}, PROCEED),
        ({b"if-unmodified-since": BEFORE}, FAILED),
        ({b"if-unmodified-since": b"yesterday"}, PROCEED),
        ({b"if-none-match": b"*"}, NOT_MODIFIED),
        ({b"if-none-match": OURS}, NOT_MODIFIED),
        ({b"if-none-match": OTHER + b"," + OURS}, NOT_MODIFIED),
        ({b"if-none-match": b"W/" + OURS}, NOT_MODIFIED),
        ({b"if-none-match": OTHER}, PROCEED),
        ({b"if-modified-since": THEN}, NOT_MODIFIED),
        ({b"if-modified-since": AFTER}, NOT_MODIFIED),
        ({b"if-modified-since": BEFORE}, PROCEED),
        ({b"if-modified-since": b"0"}, PROCEED),
        ({b"if-modified-since": b"Tue, 14 Nov 2023 22:13:20"}, NOT_MODIFIED),
        # an entity tag goes before a date
        ({b"if-match": OURS, b"if-unmodified-since": BEFORE}, PROCEED),
        ({b"if-none-match": OTHER, b"if-modified-since": AFTER}, PROCEED),
        ({b"if-none-match": OURS, b"if-modified-since": BEFORE}, NOT_MODIFIED),
        # what may fail goes before what may save a transfer
        ({b"if-match": OTHER, b"if-none-match": OURS}, FAILED),
        ({b"if-match": OURS, b"if-none-match": OURS}, NOT_MODIFIED),
        ({b"if-unmodified-since": BEFORE, b"if-none-match": OURS}, FAILED),
        ({b"if-unmodified-since": THEN, b"if-modified-since": THEN}, NOT_MODIFIED),
    ],
)
def test_conditions(headers: dict[bytes, bytes], expected: Decision) -> None:
    assert decide(headers, STRONG) is expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({b"if-match": b"*"}, PROCEED),
        ({b"if-match": WEAK.tag}, FAILED),
        ({b"if-none-match": WEAK.tag}, NOT_MODIFIED),
        ({b"if-none-match": b'"5-01"'}, NOT_MODIFIED),
        ({b"if-none-match": b'W/"5-02"'}, PROCEED),
    ],
)
def test_a_file_without_a_digest_is_never_certainly_the_same(headers: dict[bytes, bytes], expected: Decision) -> None:
    assert decide(headers, WEAK) is expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (b"bytes=0-0", (0, 1)),
        (b"bytes=0-9", (0, 10)),
        (b"bytes=2-4", (2, 3)),
        (b"bytes=2-", (2, 8)),
        (b"bytes=9-", (9, 1)),
        (b"bytes=9-100", (9, 1)),
        (b"bytes=-3", (7, 3)),
        (b"bytes=-10", (0, 10)),
        (b"bytes=-11", (0, 10)),
        (b"BYTES=1-1", (1, 1)),
        (b"bytes= 1-1 ", (1, 1)),
        (b"bytes=0-1,3-4", None),
        (b"bytes=4-2", None),
        (b"bytes=-", None),
        (b"bytes=a-b", None),
        (b"bytes=1--2", None),
        (b"lines=1-2", None),
        (b"bytes 1-2", None),
        (b"bytes=" + b"9" * 25 + b"-", None),
        (b"", None),
    ],
)
def test_ranges_of_ten_bytes(asked: bytes, expected: tuple[int, int] | None) -> None:
    assert select({b"range": asked}, STRONG, 10) == expected


@pytest.mark.parametrize("asked", [b"bytes=10-", b"bytes=10-11", b"bytes=999999999999-", b"bytes=-0"])
def test_ranges_behind_the_end(asked: bytes) -> None:
    with pytest.raises(Unsatisfiable):
        select({b"range": asked}, STRONG, 10)


def test_ranges_of_an_empty_file() -> None:
    assert select({b"range": b"bytes=-5"}, STRONG, 0) is None
    with pytest.raises(Unsatisfiable):
        select({b"range": b"bytes=0-"}, STRONG, 0)


@pytest.mark.parametrize(
    ("condition", "version", "is_part"),
    [
        (OURS, STRONG, True),
        (OTHER, STRONG, False),
        (b"W/" + OURS, STRONG, False),
        (THEN, STRONG, True),
        (AFTER, STRONG, False),
        (BEFORE, STRONG, False),
        (b"nonsense", STRONG, False),
        (WEAK.tag, WEAK, False),
        (THEN, WEAK, False),
    ],
)
def test_if_range(condition: bytes, version: Version, is_part: bool) -> None:
    found = select({b"range": b"bytes=1-2", b"if-range": condition}, version, 10)
    assert found == ((1, 2) if is_part else None)


@given(st.integers(0, 1 << 40), st.binary(max_size=40) | st.from_regex(rb"bytes=[0-9]{0,6}-[0-9]{0,6}", fullmatch=True))
def test_a_part_always_lies_in_the_file(size: int, asked: bytes) -> None:
    try:
        part = select({b"range": asked}, STRONG, size)
    except Unsatisfiable:
        return
    if part is not None:
        start, length = part
        assert start >= 0
        assert length > 0
        assert start + length <= size
