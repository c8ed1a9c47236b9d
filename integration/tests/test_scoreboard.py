"""The scoreboard's own rules: what passes a row, what a control must do, and that the judgement of a disk can be negative."""

import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import click
import pytest

from integration import scoreboard
from integration.faults import board, row_connections, row_disks, row_power, talk
from integration.faults.blocklog import FLUSH, FUA, MAGIC, Entry, read_entries, state_at
from integration.faults.board import ROWS, Bed, Check, Outcome, Row, row
from integration.faults.daemon import REPOSITORY, Daemon, node, standin
from integration.faults.disks import ServedDisk
from integration.faults.load import digest, judge
from integration.faults.tally import Tally
from integration.faults.waiting import until

HELD = Outcome(held=True, figure="lost 0")
FAILED = Outcome(held=False, figure="lost 3", details=("/a",))
BROKEN = Outcome(held=False, figure="broken", broken=True)


def crash(bed: Bed) -> Outcome:
    """Be a check with a defect."""
    raise RuntimeError("no disk")


def constant(outcome: Outcome) -> Check:
    """Return a check that always sees *outcome*."""
    return lambda bed: outcome


def run(*rows: Row) -> bool:
    """Run *rows* as the short form."""
    return scoreboard.run(list(rows), 1, long=False, directory=None)


def closing_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line printed."""
    return capsys.readouterr().out.splitlines()[-1]


@pytest.fixture
def register() -> Iterator[None]:
    """Give the register back as it was."""
    before = dict(ROWS)
    yield
    ROWS.clear()
    ROWS.update(before)


@pytest.mark.parametrize(
    ("check", "control", "passes", "closing"),
    [
        (constant(HELD), constant(FAILED), True, "reliability 1/1, controls 1/1, security 0/0"),
        (constant(HELD), constant(HELD), False, "reliability 0/1, controls 0/1, security 0/0"),
        (constant(HELD), constant(BROKEN), False, "reliability 0/1, controls 0/1, security 0/0"),
        (constant(HELD), crash, False, "reliability 0/1, controls 0/1, security 0/0"),
        (constant(FAILED), constant(FAILED), False, "reliability 0/1, controls 1/1, security 0/0"),
        (crash, constant(FAILED), False, "reliability 0/1, controls 1/1, security 0/0"),
    ],
)
def test_a_row_passes_when_it_holds_and_its_control_is_found(
    check: Check,
    control: Check,
    passes: bool,
    closing: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A control that passes, or could not be carried out, counts its row as failed."""
    assert run(Row("R1", "lost 0", check, {"flaw": control})) is passes
    assert closing_line(capsys) == closing


def test_a_row_that_cannot_run_says_why_and_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing failed, yet the closing line has one row less."""
    assert run(Row("S1", "x", crash, programs=("no-such-program",)), Row("S2", "x", constant(HELD)))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "S1   skipped, because not installed: no-such-program"
    assert printed[-1] == "reliability 0/0, controls 0/0, security 1/2 (1 skipped)"


def test_a_row_for_root_is_skipped_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the rest of the scoreboard runs for everyone."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Row("R1", "x", crash, root=True).obstacle() == "it needs root"


def test_a_program_that_is_there_and_cannot_work_is_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """As strace in a container that may not trace; without a reason, a row would fail for what is no fault of the node."""
    monkeypatch.setattr(board, "TRIALS", {"sh": "echo it is not permitted >&2; exit 1"})
    assert Row("R1", "x", crash, programs=("sh",)).obstacle().endswith("says: it is not permitted")
    monkeypatch.setattr(board, "TRIALS", {"sh": "true"})
    assert Row("R1", "x", crash, programs=("sh",)).obstacle() == ""
    assert Row("R1", "x", crash, programs=("sh",), unless=lambda: "of the weather").obstacle() == "of the weather"


def test_a_row_of_which_a_control_did_not_run_has_not_passed() -> None:
    """A promise counts only with a check that can fail."""
    tally = Tally()
    verdict = tally.of(Row("R1", "lost 0", constant(HELD), {"flaw": constant(FAILED)}))
    verdict.outcome = HELD
    assert tally.lines()[0].startswith("R1   not run whole  lost 0")
    assert tally.closing_line() == "reliability 0/1, controls 0/1, security 0/0"
    verdict.controls["flaw"] = FAILED
    assert tally.closing_line() == "reliability 1/1, controls 1/1, security 0/0"


def test_a_run_of_tests_ends_with_the_closing_line() -> None:
    """Which is how `make test` says what holds."""
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "integration/tests/test_promises.py",
        "-k",
        "S17",
    )
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "reliability 0/0, controls 0/0, security 1/1"


def test_rows_are_found_and_stand_in_order() -> None:
    """A module of rows is all that a new row needs."""
    names = [row.name for row in scoreboard.chosen(None, long=True)]
    assert [name for name in names if name in {"R1", "R9", "R13", "R39", "S1", "S9", "S28"}] == [
        "R1", "R9", "R13", "R39", "S1", "S9", "S28",
    ]  # fmt: skip


@pytest.mark.usefixtures("register")
def test_a_name_is_registered_once() -> None:
    """Two rows of one name would hide each other."""
    row("S99", figure="x")(constant(HELD))
    with pytest.raises(ValueError, match="S99"):
        row("S99", figure="x")(constant(HELD))


@pytest.mark.usefixtures("register")
def test_an_unknown_row_is_refused() -> None:
    """A run of nothing must not look like a run without failures."""
    with pytest.raises(click.BadParameter, match="no row R999"):
        scoreboard.chosen("R999", long=False)


@pytest.mark.usefixtures("register")
def test_the_short_form_leaves_out_the_long_rows() -> None:
    """They take too long for every push."""
    row("S98", figure="x", long_only=True)(constant(HELD))
    assert "S98" not in {each.name for each in scoreboard.chosen(None, long=False)}
    assert "S98" in {each.name for each in scoreboard.chosen(None, long=True)}


def test_a_receipt_without_file_is_lost_and_a_changed_file_is_torn(tmp_path: Path) -> None:
    """The state directory of the node is not looked at."""
    (tmp_path / ".granum").mkdir()
    (tmp_path / ".granum" / "node-id").write_text("x")
    (tmp_path / "d").mkdir()
    for name, body in (("whole", b"abc"), ("short", b"ab"), ("never-put", b"")):
        (tmp_path / "d" / name).write_bytes(body)
    offered = {f"/d/{name}": digest(b"abc") for name in ("whole", "short", "gone", "unknown")}
    found = judge(tmp_path, offered, ["/d/whole", "/d/gone"])
    assert found.lost == ("/d/gone",)
    assert sorted(found.torn) == ["/d/never-put", "/d/short"]


def entries(*flags: int) -> list[Entry]:
    """Return one entry for each of *flags*, told apart by their sectors."""
    return [Entry(number, 512, each, 0) for number, each in enumerate(flags)]


def test_what_lies_before_the_last_flush_survives_every_power_loss() -> None:
    """And a write that was forced to the medium does too; the rest comes and goes."""
    log = entries(0, 0, FLUSH, 0, FUA, 0, FLUSH)
    kept = [{entry.sector for entry in state_at(log, 6, Random(seed)).kept} for seed in range(50)]
    assert set.intersection(*kept) == {0, 1, 2, 4}
    assert set.union(*kept) == {0, 1, 2, 3, 4, 5}


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Data follows its head; a flush and a discard have none."""
    log = tmp_path / "log"
    sector = 512
    heads: Sequence[tuple[int, int, int, int]] = [(8, 2, 0, 0), (0, 0, FLUSH, 0), (16, 4, 4, 0), (9, 1, 0, 0)]
    pieces = [struct.pack("<QQQI", MAGIC, 1, len(heads), sector).ljust(sector, b"\0")]
    for head in heads:
        pieces.append(struct.pack("<QQQQ", *head).ljust(sector, b"\0"))
        pieces.append(b"x" * (0 if head[2] == 4 else head[1] * sector))
    log.write_bytes(b"".join(pieces))
    assert read_entries(log) == [
        Entry(8, 1024, 0, 1024),
        Entry(0, 0, FLUSH, 2560),
        Entry(16, 0, 4, 3072),
        Entry(9, 512, 0, 3584),
    ]


needs_disks = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("qemu-storage-daemon"), reason="it needs root and qemu-storage-daemon"
)


def test_a_log_that_lacks_a_write_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    """Such a log would show the loss of files that no program has lost."""
    disk, sector = ServedDisk(tmp_path), 512
    disk.pristine.write_bytes(bytes(4 * sector))
    disk.image.write_bytes(bytes(2 * sector) + b"x" * sector + bytes(sector))
    head = struct.pack("<QQQQ", 2, 1, 0, 0).ljust(sector, b"\0")
    for count in (0, 1):
        disk.log.write_bytes(struct.pack("<QQQI", MAGIC, 1, count, sector).ljust(sector, b"\0") + head + b"x" * sector)
        assert row_power.is_faithful(disk, tmp_path / "whole") == bool(count)


@needs_disks
@pytest.mark.slow
def test_a_sound_program_survives_a_power_loss(tmp_path: Path) -> None:
    """That the flawed ones do not is what the controls of the row show; a row that failed them all would show nothing."""
    bed = Bed(tmp_path, 1)
    assert row_power.replay(row_power.record(standin("sound"), bed, "ext4"), bed, 8).bad == 0


@needs_disks
def test_a_sound_program_gives_no_receipt_from_a_dead_disk(tmp_path: Path) -> None:
    """The same for a disk that is gone."""
    assert row_disks.disk_dies(standin("sound"), Bed(tmp_path, 1)).held


@pytest.mark.slow
def test_a_reader_sees_a_file_that_is_written_in_place(tmp_path: Path) -> None:
    """A row that finds nothing partial must have looked where it would be."""
    assert not row_connections.reads_during_puts(standin("in-place"), Bed(tmp_path, 1)).held


def test_a_put_under_way_counts_as_space_held(tmp_path: Path) -> None:
    """Else nothing could ever be found to leak."""
    with (
        Daemon(node(), tmp_path / "store", tmp_path / "daemon") as daemon,
        socket.create_connection(daemon.address) as connection,
    ):
        connection.sendall(talk.head("/f", 200_000) + bytes(100_000))
        assert until(lambda: row_connections.held_bytes(daemon.pid, daemon.root) >= 98_304, 10.0)
