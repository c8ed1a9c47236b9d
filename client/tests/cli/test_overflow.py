"""`granum overflow`: what a program left is shown, delivered once to where it was meant for, or dropped when told so."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from client.tests.cli.conftest import Granum
from granum.streaming.overflow import Overflow
from granum.wire.paths import ClusterPath
from integration.lab import ProcessLab


class AtOnce(Clock):
    """A reactor and a pool that do everything in the caller's thread."""

    def callFromThread(self, work: Any, *arguments: Any) -> None:  # noqa: N802 - Twisted's name
        work(*arguments)

    def callInThreadWithCallback(self, report: Any, work: Any, *arguments: Any) -> None:  # noqa: N802
        try:
            outcome = work(*arguments)
        except Exception:  # noqa: BLE001 - the pool reports whatever it is
            report(False, Failure())
        else:
            report(True, outcome)


Leave = Callable[..., Overflow]


@pytest.fixture
def leave(tmp_path: Path) -> Leave:
    """Make an overflow as a program leaves it that ends; by default with frames 0 to 2 of the series named."""

    def make(series: str, numbers: Sequence[int] = (0, 1, 2), *, held: bool = False, **options: Any) -> Overflow:
        at_once: Any = AtOnce()
        overflow = Overflow.create(
            str(tmp_path / ".local/state/granum/overflow"),
            **{"cluster": "test", "series": ClusterPath.parse(series), "reactor": at_once, "pool": at_once, **options},
        )
        for n in numbers:
            overflow.append(ClusterPath.parse(f"{series}/frame{n:05}.pzf"), [b"frame", b" %d" % n], n)
        if not held:
            overflow.close()
        return overflow

    return make


def test_nothing_left_is_nothing_to_do(granum: Granum) -> None:
    assert granum.ok("overflow", "status") == ""
    assert granum.json("overflow", "status") == []
    assert granum.ok("overflow", "resume") == "nothing to deliver\n"


def test_status_says_what_is_left_of_which_series(granum: Granum, leave: Leave) -> None:
    left = leave("/over/status.pcs", nodes=["10.0.0.1:15348"], wall_clock=lambda: 1_790_000_000.0)
    (row,) = granum.json("overflow", "status")
    assert {key: row[key] for key in ("directory", "series", "cluster", "nodes", "frames", "in_use", "created")} == {
        "directory": left.directory,
        "series": "/over/status.pcs",
        "cluster": "test",
        "nodes": ["10.0.0.1:15348"],
        "frames": 3,
        "in_use": False,
        "created": 1_790_000_000.0,
    }
    line = granum.ok("overflow", "status").splitlines()[1]
    assert line.split()[:4] == ["20260921T141320Z-status.pcs", "/over/status.pcs", "test", "3"]
    assert line.endswith("left behind")


def test_resume_delivers_all_and_leaves_nothing(granum: Granum, leave: Leave, lab: ProcessLab) -> None:
    left = leave("/over/resumed.pcs")
    assert granum.ok("overflow", "resume") == "delivered 3 frames, 21 B: /over/resumed.pcs\n"
    assert granum.ok("get", "/over/resumed.pcs/frame00002.pzf", "-") == "frame 2"
    assert not os.path.exists(left.directory)
    assert granum.json("overflow", "resume") == []


def test_resume_goes_to_the_nodes_that_the_overflow_names(tmp_path: Path, leave: Leave, lab: ProcessLab) -> None:
    """Where nothing can be discovered, and the user names no node."""
    leave("/over/named.pcs", nodes=[node.host for node in lab.nodes])
    assert len(Granum(tmp_path, ("--no-discovery",)).json("overflow", "resume")) == 1


def test_what_arrived_before_counts_as_delivered(granum: Granum, leave: Leave, lab: ProcessLab, tmp_path: Path) -> None:
    leave("/over/again.pcs")
    (tmp_path / "f").write_text("frame 1")
    granum.ok("put", "f", "/over/again.pcs/frame00001.pzf")
    (row,) = granum.json("overflow", "resume")
    assert (row["delivered"], row["left"]) == (3, 0)
    copies = [node.root / "over/again.pcs/frame00001.pzf" for node in lab.nodes]
    assert sum(copy.exists() for copy in copies) == 1


def test_another_file_of_that_name_is_reported_and_nothing_is_lost(
    granum: Granum, leave: Leave, tmp_path: Path
) -> None:
    left = leave("/over/other.pcs")
    (tmp_path / "f").write_text("another")
    granum.ok("put", "f", "/over/other.pcs/frame00001.pzf")
    done = granum.run("overflow", "resume")
    assert (done.returncode, done.stdout) == (1, "delivered 2 frames, 14 B, 1 left: /over/other.pcs\n")
    assert "/over/other.pcs/frame00001.pzf" in done.stderr
    assert granum.ok("get", "/over/other.pcs/frame00001.pzf", "-") == "another"
    (row,) = granum.json("overflow", "status")
    assert (row["directory"], row["frames"]) == (left.directory, 1)


def test_without_nodes_nothing_is_lost(tmp_path: Path, leave: Leave) -> None:
    leave("/over/nowhere.pcs")
    done = Granum(tmp_path, ("--no-discovery", "-n", "127.0.0.1:1")).run("overflow", "resume")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert Granum(tmp_path).json("overflow", "status")[0]["frames"] == 3


def test_what_a_program_uses_is_left_alone(granum: Granum, leave: Leave) -> None:
    held = leave("/over/held.pcs", held=True)
    assert granum.ok("overflow", "status").splitlines()[1].endswith(f"in use by process {os.getpid()}")
    assert granum.ok("overflow", "resume") == "nothing to deliver\n"
    for command in (("resume",), ("drop", "--yes")):
        done = granum.run("overflow", *command, held.directory)
        assert done.returncode == 1
        assert "in use by a running program" in done.stderr
    held.close()
    assert granum.json("overflow", "status")[0]["frames"] == 3


def test_what_is_damaged_is_reported_and_kept(granum: Granum, leave: Leave) -> None:
    left = leave("/over/damaged.pcs")
    segment = Path(left.directory, "00000001.segment")
    raw = bytearray(segment.read_bytes())
    raw[-1] ^= 1
    segment.write_bytes(raw)
    done = granum.run("overflow", "resume")
    assert (done.returncode, done.stdout) == (1, "delivered 2 frames, 14 B, 1 left: /over/damaged.pcs\n")
    assert "/over/damaged.pcs/frame00002.pzf is damaged" in done.stderr
    assert segment.exists()


def test_drop_asks_first(granum: Granum, leave: Leave) -> None:
    left = leave("/over/dropped.pcs")
    name = Path(left.directory).name
    refused = granum.process("overflow", "drop", name)  # nobody there to say yes
    assert refused.returncode == 1
    assert "Delete 3 frames" in refused.stderr
    assert os.path.exists(left.directory)
    assert granum.ok("overflow", "drop", "--yes", name).startswith("dropped 3 frames, ")
    assert not os.path.exists(left.directory)


def test_a_name_that_is_no_overflow_is_refused(granum: Granum, leave: Leave, tmp_path: Path) -> None:
    leave("/over/kept.pcs")
    (tmp_path / "mine").mkdir()
    for command in (("resume",), ("drop", "--yes")):
        done = granum.run("overflow", *command, "mine")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert (tmp_path / "mine").exists()


def test_the_overflow_may_lie_elsewhere(tmp_path: Path, leave: Leave) -> None:
    left = leave("/over/elsewhere.pcs")
    elsewhere = {"GRANUM_OVERFLOW_DIR": str(Path(left.directory).parent)}
    os.mkdir(tmp_path / "home")
    assert len(json.loads(Granum(tmp_path / "home", environment=elsewhere).ok("--json", "overflow", "status"))) == 1
    assert Granum(tmp_path / "home").json("overflow", "status") == []
