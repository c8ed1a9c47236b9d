"""The digest log: what was appended is read, whatever was torn before, between or behind it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.wire.digest import Digest
from granum.wire.paths import ClusterPath
from granum_node.storage import digestlog
from granum_node.storage.digestlog import MARK, DigestLog, Record, Records, append, encode, read_records

ONE, OTHER = Digest("xxh3-128", "1" * 32), Digest("xxh3-128", "2" * 32)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def log_file(directory: Path) -> Path:
    (found,) = (directory / "digests").iterdir()
    return found


def test_what_is_appended_is_read(state: int) -> None:
    append(state, "a/b", [encode("f", ONE, 5)])
    append(state, "a/b", [encode("ü", OTHER, 1 << 40), encode("by-hand", None, 7)])
    records = read_records(state, "a/b")
    assert [records.get(name) for name in ("f", "ü", "by-hand", "g")] == [
        Record(ONE, 5),
        Record(OTHER, 1 << 40),
        Record(None, 7),
        None,
    ]
    assert (len(records), records.directory, "f" in records, "g" in records) == (3, "a/b", True, False)


def test_a_directory_has_its_own_log(state: int) -> None:
    append(state, "a", [encode("f", ONE, 5)])
    append(state, "", [encode("f", OTHER, 5)])
    assert [read_records(state, name).get("f") for name in ("a", "", "b")] == [Record(ONE, 5), Record(OTHER, 5), None]


def test_the_last_record_of_a_name_counts(state: int) -> None:
    for digest in (ONE, OTHER):
        append(state, "d", [encode("f", digest, 5)])
    assert read_records(state, "d").get("f") == Record(OTHER, 5)


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_torn_append_costs_its_own_records_only(state: int, tmp_path: Path, cut: int) -> None:
    """The power failed while the second of three was written: all that was whole before and behind it counts."""
    append(state, "d", [encode("a", ONE, 1)])
    append(state, "d", [encode("b", ONE, 1)])
    log = log_file(tmp_path)
    log.write_bytes(log.read_bytes()[:-cut] if cut < 49 else log.read_bytes()[:-49])
    append(state, "d", [encode("c", ONE, 1)])
    records = read_records(state, "d")
    assert ("a" in records, "b" in records, "c" in records) == (True, False, True)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_rubbish_is_no_record_and_hides_none(before: bytes, behind: bytes) -> None:
    records = Records(before + MARK + encode("f", ONE, 5) + behind)
    assert records.get("f") == Record(ONE, 5)


@given(st.integers(16, 16 + 32), st.integers(0, 7))
def test_a_flipped_bit_is_not_believed(at: int, bit: int) -> None:
    log = bytearray(MARK + encode("f", ONE, 5))
    log[at] ^= 1 << bit
    assert len(Records(bytes(log))) == 0


def test_what_was_not_written_has_no_record(state: int) -> None:
    log = DigestLog(state)
    log.add(ClusterPath.parse("d/f"), ONE, 5)
    assert (log.pending, len(log.read("d"))) == (1, 0)
    log.write(log.take())
    assert (log.pending, log.read("d").get("f")) == (0, Record(ONE, 5))


def test_memory_is_bounded_and_what_goes_without_a_record_is_counted(
    state: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digestlog, "PENDING_MAX", 4)
    monkeypatch.setattr(digestlog, "WAKE", 2)
    log = DigestLog(state)
    woken: list[int] = []
    log.wake = lambda: woken.append(log.pending)
    for number in range(6):
        log.add(ClusterPath((f"f{number}",)), ONE, 5)
    assert (log.pending, log.dropped, woken) == (4, 2, [2, 3, 4, 4])


def test_a_log_that_cannot_be_written_is_told_and_the_others_are(state: int, tmp_path: Path) -> None:
    log = DigestLog(state)
    append(state, "a", [])
    name = log_file(tmp_path)
    name.unlink()
    name.mkdir()
    for path in ("a/f", "b/f"):
        log.add(ClusterPath.parse(path), ONE, 5)
    with pytest.raises(IsADirectoryError):
        log.write(log.take())
    assert (log.dropped, log.read("b").get("f")) == (1, Record(ONE, 5))


def test_the_log_of_a_directory_that_is_gone_is_removed(state: int, tmp_path: Path) -> None:
    log = DigestLog(state)
    (tmp_path / "store" / "here").mkdir(parents=True)
    for directory in ("", "here", "gone", "here/gone"):
        append(state, directory, [encode("f", ONE, 5)])
    root = os.open(tmp_path / "store", os.O_RDONLY)
    try:
        assert log.remove_orphans(root) == 2
    finally:
        os.close(root)
    assert [len(log.read(directory)) for directory in ("", "here", "gone", "here/gone")] == [1, 1, 0, 0]


def test_the_log_is_closed_to_others(state: int, tmp_path: Path) -> None:
    append(state, "d", [])
    assert ((tmp_path / "digests").stat().st_mode & 0o777, log_file(tmp_path).stat().st_mode & 0o777) == (0o700, 0o600)
