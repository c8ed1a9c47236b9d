"""Copies between a disk and clusters: they resume when they are repeated, and never overwrite."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.tests.cli.conftest import TIMEOUT_S, Granum, files, static
from granum.cli import parts
from integration.lab import NodeProcess, ProcessLab

TREE = {"a": b"alpha", "deep/er/b": b"beta", "deep/c d": b"gamma", "empty": b""}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """The only node of another cluster, 'other'."""
    with NodeProcess(tmp_path_factory.mktemp("other"), cluster="other") as node:
        yield node


@pytest.fixture
def both(lab: ProcessLab, other: NodeProcess, tmp_path: Path) -> Granum:
    """The command, told about the nodes of both clusters, 'test' and 'other'."""
    return Granum(tmp_path, (*static(lab), "-n", other.host))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    for name, body in TREE.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(body)
    (top / "hollow").mkdir()
    return top


def outcomes(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {str(row.get("path") or row["local"]).rpartition("/")[2]: row["outcome"] for row in rows}


def test_there_across_and_back(both: Granum, tree: Path, other: NodeProcess, tmp_path: Path) -> None:
    """Every byte and name by way of two clusters, and the empty directory."""
    assert both.ok("cp", "tree", "granum://test/cp/there") == "copied 4 files, 14 B\n"
    assert both.ok("cp", "granum://test/cp/there", "granum://other/across") == "copied 4 files, 14 B\n"
    assert files(other.root / "across") == TREE
    assert both.ok("cp", "granum://other/across", "back") == "copied 4 files, 14 B\n"
    assert files(tmp_path / "back") == TREE
    assert (tmp_path / "back" / "hollow").is_dir()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("tree", "granum://test/cp/again"),
        ("granum://test/cp/source1", "again"),
        ("granum://test/cp/source2", "granum://other/again"),
    ],
    ids=["to", "from", "between"],
)
def test_a_copy_that_is_repeated_goes_on_where_it_ended(both: Granum, tree: Path, source: str, target: str) -> None:
    """To the same name, though the directory is there by then: what is equal is counted, what is new is copied."""
    stored = source if ":" in source else "granum://test/cp/source0"
    both.ok("cp", "tree", stored)
    both.ok("cp", source, target)
    assert both.ok("cp", source, target) == "copied 0 files, 0 B; 4 files there already\n"
    (tree / "new").write_bytes(b"new")
    both.ok("cp", "tree", stored)
    assert outcomes(both.json("cp", source, target)) == {
        "a": "same",
        "b": "same",
        "c d": "same",
        "empty": "same",
        "hollow": "same",
        "new": "copied",
    }


def test_equal_sizes_are_not_enough(both: Granum, tree: Path, other: NodeProcess, tmp_path: Path) -> None:
    """Other bytes are an error of that file in every direction; they stay, and the rest goes on."""
    both.ok("cp", "tree", "granum://test/cp/sizes")
    (other.root / "sizes").mkdir()
    (other.root / "sizes" / "placed").touch()
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "a").write_bytes(b"ALPHA")
    both.ok("cp", "changed", "granum://other/sizes")
    for source, target in (
        ("changed", "granum://test/cp/sizes"),
        ("granum://test/cp/sizes", "changed"),
        ("granum://test/cp/sizes", "granum://other/sizes"),
    ):
        done = both.run("cp", "--json", source, target)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "with other bytes" in done.stderr
        assert outcomes(json.loads(done.stdout))["a"] == "differs"
    assert (changed / "a").read_bytes() == b"ALPHA"
    assert (changed / "deep" / "er" / "b").read_bytes() == b"beta"
    assert both.ok("cat", "granum://test/cp/sizes/a") == "alpha"
    assert (other.root / "sizes" / "a").read_bytes() == b"ALPHA"
    assert (other.root / "sizes" / "deep" / "c d").read_bytes() == b"gamma"


def test_a_directory_is_no_file(both: Granum, tree: Path) -> None:
    both.ok("cp", "tree", "granum://test/cp/kinds")
    (tree / "hollow").rmdir()
    (tree / "hollow").write_bytes(b"now a file")
    done = both.run("cp", "tree", "granum://test/cp/kinds")
    assert (done.returncode, done.stdout) == (1, "copied 0 files, 0 B; 4 files there already\n")
    assert "/cp/kinds/hollow is stored already, as a directory" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "stored"),
    [
        (["tree/a", "granum://test/cp/where/as"], ["as"]),
        (["tree/a", "granum://test/cp/where/into/"], ["into/a"]),
        (["tree/a", "tree/empty", "granum://test/cp/where/two"], ["two/a", "two/empty"]),
        (["tree/deep/er", "granum://test/cp/where/below/"], ["below/er/b"]),
        (["-c", "test", "tree/a", "granum:///cp/where/any"], ["any"]),
    ],
)
def test_where_copies_go(both: Granum, tree: Path, arguments: list[str], stored: list[str]) -> None:
    rows = both.json("cp", *arguments)
    assert [row["path"] for row in rows] == [f"/cp/where/{name}" for name in stored]
    assert all(row["node"] and row["durability"] == "commit" for row in rows)


def test_a_dot_means_below_this_directory(both: Granum, tree: Path, tmp_path: Path) -> None:
    both.ok("cp", "tree", "granum://test/cp/dot")
    both.ok("cp", "granum://test/cp/dot/deep", ".")
    assert files(tmp_path / "deep") == {"er/b": b"beta", "c d": b"gamma"}


def test_what_was_placed_by_hand_has_no_digest_and_is_judged_by_its_size(
    both: Granum, other: NodeProcess, tmp_path: Path
) -> None:
    """As on PYME's nodes; `sync --check` reads it."""
    (other.root / "hand").mkdir()
    (other.root / "hand" / "f").write_bytes(b"stored")
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand" / "f").write_bytes(b"STORED")
    assert both.ok("cp", "hand", "granum://other/hand") == "copied 0 files, 0 B; 1 file there already\n"
    assert both.run("sync", "--check", "hand", "granum://other/hand").returncode == 1


def test_large_files_come_by_parts(both: Granum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = os.urandom(1_000_003)
    (tmp_path / "large").write_bytes(body)
    both.ok("cp", "large", "granum://test/cp/large")
    monkeypatch.setattr(parts, "PART_BYTES", 100_000)
    both.ok("cp", "granum://test/cp/large", "copy")
    assert (tmp_path / "copy").read_bytes() == body


def test_a_large_file_that_is_damaged_does_not_land(
    both: Granum, lab: ProcessLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest is that of what was put: one changed byte on the disk of the node is found."""
    (tmp_path / "sound").write_bytes(bytes(300_000))
    both.ok("cp", "sound", "granum://test/cp/damaged")
    (stored,) = [node.root / "cp/damaged" for node in lab.nodes if (node.root / "cp/damaged").exists()]
    with stored.open("r+b") as file:
        file.seek(150_000)
        file.write(b"\1")
    monkeypatch.setattr(parts, "PART_BYTES", 100_000)
    done = both.run("cp", "granum://test/cp/damaged", "copy")
    assert (done.returncode, (tmp_path / "copy").exists()) == (1, False)
    assert "damaged" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["cp", "tree", "elsewhere"],
        ["cp", "tree", "granum://test/a", "granum://test/b"],
        ["cp", "granum://test/a", "granum://other/a", "here"],
        ["cp", "tree", "http://host/a"],
        ["sync", "tree/a", "granum://test/cp/f"],
        ["cat", "--json", "/a"],
        ["cat", "--range", "9-1", "/a"],
    ],
)
def test_bad_usage_is_status_2(both: Granum, tree: Path, arguments: list[str]) -> None:
    assert both.run(*arguments).returncode == 2


def test_an_absent_source_is_one_line(both: Granum) -> None:
    for source in ("nowhere", "granum://test/nowhere"):
        done = both.run("cp", source, "granum://test/cp/absent")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_verbose_names_every_file(both: Granum, tree: Path) -> None:
    assert both.ok("cp", "-v", "tree/deep", "granum://test/cp/verbose").splitlines() == [
        "copied   /cp/verbose/c d",
        "copied   /cp/verbose/er/b",
        "copied 2 files, 9 B",
    ]


def test_a_copy_that_was_killed_resumes(both: Granum, lab: ProcessLab, tmp_path: Path) -> None:
    """SIGKILL in the middle leaves whole files only; the second run copies the others."""
    (tmp_path / "many").mkdir()
    for number in range(150):
        (tmp_path / "many" / f"{number:03}").write_text(str(number))
    process = subprocess.Popen(
        both.line("-q", "cp", "many", "granum://test/cp/killed"), env=both.settings(), cwd=tmp_path
    )
    deadline = time.monotonic() + TIMEOUT_S
    tops = [node.root / "cp" / "killed" for node in lab.nodes]
    while sum(len(list(top.iterdir())) for top in tops if top.is_dir()) < 5:
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(TIMEOUT_S)
    done = both.ok("cp", "many", "granum://test/cp/killed")
    copied, there = (int(part.split()[int("copied" in part)]) for part in done.split("; "))
    assert (copied + there, there >= 5, copied > 0) == (150, True, True)
    assert {name: body for top in tops for name, body in files(top).items()} == files(tmp_path / "many")


# -- sync ------------------------------------------------------------------------------------------------------------


def test_sync_copies_what_is_new_and_names_what_differs(both: Granum, tree: Path) -> None:
    both.ok("sync", "tree", "granum://test/sync/tree")
    (tree / "a").write_bytes(b"changed")
    (tree / "new").write_bytes(b"new")
    looked = both.run("sync", "--dry-run", "tree", "granum://test/sync/tree")
    assert (looked.returncode, looked.stderr) == (1, "")
    assert looked.stdout.splitlines() == [
        "differs  /sync/tree/a",
        "new      /sync/tree/new",
        "3 files equal, 2 different",
    ]
    done = both.run("sync", "tree", "granum://test/sync/tree")
    assert (done.returncode, done.stdout) == (1, "copied 1 file, 3 B: /sync/tree/new; 3 files there already\n")
    assert "/sync/tree/a is stored already, with other bytes (5 and not 7)" in done.stderr
    assert both.ok("cat", "granum://test/sync/tree/a") == "alpha"


def test_a_dry_run_that_finds_only_new_files_is_status_0(both: Granum, tree: Path, lab: ProcessLab) -> None:
    assert both.ok("sync", "--dry-run", "tree/deep", "granum://test/sync/dry").splitlines()[:2] == [
        "new      /sync/dry/c d",
        "new      /sync/dry/er/b",
    ]
    assert not any((node.root / "sync" / "dry").exists() for node in lab.nodes)


def test_check_tells_every_difference_and_writes_nothing(both: Granum, tree: Path, tmp_path: Path) -> None:
    both.ok("sync", "tree", "granum://test/sync/check")
    assert both.ok("sync", "--check", "tree", "granum://test/sync/check") == "4 files, no difference\n"
    assert both.ok("sync", "--check", "granum://test/sync/check", "tree") == "4 files, no difference\n"
    (tree / "a").rename(tree / "z")
    (tree / "deep" / "c d").write_bytes(b"GAMMA")
    done = both.run("sync", "--check", "--json", "tree", "granum://test/sync/check")
    assert done.returncode == 1
    told = outcomes(json.loads(done.stdout))
    assert {name: outcome for name, outcome in told.items() if outcome != "same"} == {
        "z": "new",
        "a": "extra",
        "c d": "differs",
    }


def test_sync_between_clusters(both: Granum, tree: Path, other: NodeProcess) -> None:
    both.ok("sync", "tree", "granum://test/sync/between")
    both.ok("sync", "granum://test/sync/between", "granum://other/between")
    assert files(other.root / "between") == TREE
    (other.root / "between" / "surplus").touch()
    done = both.run("sync", "--check", "granum://test/sync/between", "granum://other/between")
    assert (done.returncode, done.stdout) == (1, "extra    /between/surplus\n4 files equal, 1 different\n")
