"""Files and directories to real nodes and back."""

import json
import os
from pathlib import Path

import pytest

from client.tests.cli.conftest import Granum, files
from integration.lab import ProcessLab

TREE = {
    "a.bin": bytes(range(256)) * 4096,  # a MiB
    "empty": b"",
    "deep/er/b.txt": b"b",
    "deep/with blank": b"blank",
    "deep/naïve µm.txt": b"\xc2\xb5",
}


def make(top: Path) -> Path:
    for name, body in TREE.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(body)
    (top / "hollow" / "dir").mkdir(parents=True)
    return top


def test_a_tree_comes_back_as_it_was(granum: Granum, tmp_path: Path) -> None:
    """Every byte, every name, and the empty directory."""
    make(tmp_path / "tree")
    assert granum.ok("put", "tree", "/copy/trip") == "put 5 files, 1.0 MB\n"
    assert granum.ok("get", "/copy/trip", "back") == "got 5 files, 1.0 MB\n"
    assert files(tmp_path / "back") == TREE
    assert (tmp_path / "back" / "hollow" / "dir").is_dir()


def test_files_are_spread_over_the_nodes(granum: Granum, lab: ProcessLab, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(64):
        (tmp_path / "many" / f"{number}").touch()
    granum.ok("put", "many", "/copy/spread")
    held = [len(list((node.root / "copy" / "spread").iterdir())) for node in lab.nodes]
    assert (sum(held), min(held) > 16) == (64, True)


@pytest.mark.parametrize(
    ("remote", "stored"),
    [
        ("/copy/name/as", "/copy/name/as"),
        ("/copy/below/", "/copy/below/f"),
        ("granum://test/copy/locator/", "/copy/locator/f"),
        ("copy/plain", "/copy/plain"),
    ],
)
def test_where_a_file_goes(granum: Granum, tmp_path: Path, remote: str, stored: str) -> None:
    (tmp_path / "f").write_text("text")
    (row,) = granum.json("put", "f", remote)
    assert (row["path"], row["local"], row["size"]) == (stored, "f", 4)
    assert row["node"]
    assert row["when"] > 0
    assert granum.ok("get", stored, "-") == "text"


def test_a_file_goes_into_a_directory_that_is_there(granum: Granum, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    granum.ok("mkdir", "/copy/there")
    assert granum.ok("put", "f", "/copy/there") == "put 1 file, 0 B: /copy/there/f\n"


def test_a_directory_keeps_its_name_below_a_slash(granum: Granum, tmp_path: Path) -> None:
    make(tmp_path / "tree")
    rows = granum.json("put", "tree/deep", "/copy/slash/")
    assert {row["path"] for row in rows} == {
        "/copy/slash/deep/er/b.txt",
        "/copy/slash/deep/with blank",
        "/copy/slash/deep/naïve µm.txt",
    }


def test_several_go_below(granum: Granum, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    make(tmp_path / "tree")
    granum.ok("put", "f", "tree/deep/er", "/copy/several")
    assert granum.ok("ls", "/copy/several").splitlines() == ["er/", "f"]
    granum.ok("get", "/copy/several/f", "/copy/several/er", "got")
    assert files(tmp_path / "got") == {"f": b"f", "er/b.txt": b"b"}


def test_what_is_stored_stays_and_the_rest_goes_on(granum: Granum, tmp_path: Path) -> None:
    """An interrupted put is simply repeated."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("first")
    granum.ok("put", "d", "/copy/again")
    (tmp_path / "d" / "a").write_text("second")
    (tmp_path / "d" / "b").write_text("new")
    done = granum.run("put", "--json", "d", "/copy/again")
    assert done.returncode == 1
    rows = {row["path"]: row for row in json.loads(done.stdout)}
    assert "stored already" in rows["/copy/again/a"]["error"]
    assert "error" not in rows["/copy/again/b"]
    assert done.stderr.startswith("granum: /copy/again/a is stored already")
    assert granum.ok("get", "/copy/again/a", "-") == "first"


def test_a_thousand_failures_are_not_a_thousand_lines(granum: Granum, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for number in range(50):
        (tmp_path / "d" / f"{number:02}").symlink_to("nowhere")
    done = granum.run("put", "d", "/copy/dangling")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 21
    assert done.stderr.endswith("granum: and 30 more\n")
    assert "d/00: No such file or directory" in done.stderr


def test_names_that_no_cluster_takes_are_reported(granum: Granum, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "back\\slash").touch()
    (tmp_path / "d" / os.fsdecode(b"raw\xff")).touch()
    (tmp_path / "d" / "good").touch()
    done = granum.run("put", "d", "/copy/names")
    assert (done.returncode, done.stdout) == (1, "put 1 file, 0 B: /copy/names/good\n")
    assert done.stderr.count("\n") == 2


def test_links_to_directories_are_left_out_loudly(granum: Granum, tmp_path: Path) -> None:
    make(tmp_path / "tree")
    (tmp_path / "tree" / "deep" / "loop").symlink_to(tmp_path / "tree")
    done = granum.run("put", "tree/deep", "/copy/loop")
    assert (done.returncode, done.stderr) == (0, "granum: tree/deep/loop: left out, a link to a directory\n")


def test_get_never_overwrites(granum: Granum, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("stored")
    granum.ok("put", "f", "/copy/keep/f")
    granum.ok("put", "f", "/copy/keep/g")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "f").write_text("mine")
    done = granum.run("get", "/copy/keep/f", "/copy/keep/g", "here")
    assert done.returncode == 1
    assert done.stderr == "granum: here/f: exists already, with other bytes (4 and not 6); --force replaces it\n"
    assert files(tmp_path / "here") == {"f": b"mine", "g": b"stored"}
    granum.ok("get", "--force", "/copy/keep/f", "here")
    assert files(tmp_path / "here") == {"f": b"stored", "g": b"stored"}


def test_get_as_json(granum: Granum, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("text")
    granum.ok("put", "f", "/copy/json/f")
    assert granum.json("get", "/copy/json/f", "g") == [
        {"path": "/copy/json/f", "local": "g", "kind": "file", "outcome": "copied", "size": 4}
    ]


def test_get_into_a_directory_that_is_not_there(granum: Granum, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    granum.ok("put", "f", "/copy/nodir")
    done = granum.run("get", "/copy/nodir", "none/f")
    assert (done.returncode, done.stderr) == (1, "granum: none: there is no such directory\n")


def test_dash_takes_one_file(granum: Granum) -> None:
    assert granum.run("get", "/a", "/b", "-").returncode == 2
    assert granum.run("get", "--json", "/a", "-").returncode == 2


def test_quiet_says_nothing(granum: Granum, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert granum.ok("-q", "put", "f", "/copy/quiet/f") == ""
    assert granum.ok("get", "-q", "/copy/quiet/f", "g") == ""
    assert granum.ok("mkdir", "-q", "/copy/quiet/d") == ""


def test_mkdir_once(granum: Granum) -> None:
    assert granum.json("mkdir", "/copy/made/dir")["path"] == "/copy/made/dir"
    done = granum.run("mkdir", "/copy/made/dir")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "stored already" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["put", "/dev/null", "/copy/../x"], ["put", "absent", "/x"], ["mkdir", "/__status"]]
)
def test_bad_names_are_status_2(granum: Granum, arguments: list[str]) -> None:
    assert granum.run(*arguments).returncode == 2
