"""A node that does not answer: what is known is shown, who is missing is named, and the status is 3."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.tests.cli.conftest import Granum, static
from integration.lab import ProcessLab


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessLab]:
    """Two nodes with one file each, the second of which was killed."""
    with ProcessLab(tmp_path_factory.mktemp("half"), 2) as lab:
        for node, name in zip(lab.nodes, ("here", "gone"), strict=True):
            (node.root / "d").mkdir()
            (node.root / "d" / name).write_text(name)
        lab.nodes[1].kill()
        yield lab


@pytest.fixture
def granum(half: ProcessLab, tmp_path: Path) -> Granum:
    return Granum(tmp_path, static(half))


def names_the_missing(stderr: str, half: ProcessLab) -> bool:
    return half.nodes[1].host in stderr and "refuses the connection" in stderr and half.nodes[0].host not in stderr


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["ls", "/d"], "here\n"),
        (["tree", "/d"], "/d\n└── here\n"),
        (["find", "/d"], "/d/here\n"),
        (["du", "/d"], "    4 B            1  /d\n"),
    ],
)
def test_what_is_there_is_listed(granum: Granum, half: ProcessLab, arguments: list[str], answer: str) -> None:
    done = granum.run(*arguments)
    assert (done.returncode, done.stdout) == (3, answer)
    assert names_the_missing(done.stderr, half)


def test_json_is_whole_all_the_same(granum: Granum, half: ProcessLab) -> None:
    done = granum.run("ls", "--json", "/d")
    assert done.returncode == 3
    assert [row["path"] for row in json.loads(done.stdout)] == ["/d/here"]


def test_nodes_shows_it_as_missing(granum: Granum, half: ProcessLab) -> None:
    done = granum.run("nodes", "--json")
    rows = {row["port"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 3
    assert {port: row["state"] for port, row in rows.items()} == {
        half.nodes[0].port: "ok",
        half.nodes[1].port: "missing",
    }
    assert "refuses" in rows[half.nodes[1].port]["cause"]
    assert names_the_missing(done.stderr, half)


@pytest.mark.parametrize("command", ["stat", "locate"])
def test_what_the_others_hold_is_found(granum: Granum, half: ProcessLab, command: str) -> None:
    done = granum.run(command, "/d/here")
    assert done.returncode == 3
    assert half.nodes[0].host in done.stdout
    assert names_the_missing(done.stderr, half)


@pytest.mark.parametrize(
    "arguments",
    [
        ["stat", "/d/gone"],
        ["ls", "/e"],
        ["get", "/d/gone", "."],
        ["get", "/d/gone", "-"],
        ["cp", "granum://test/d/gone", "."],
        ["cat", "/d/gone"],
        ["find", "/e"],
        ["du", "/e"],
    ],
)
def test_absence_cannot_be_told(granum: Granum, half: ProcessLab, arguments: list[str]) -> None:
    """It is not status 1, 'not stored': the file may be on the node that is missing."""
    done = granum.run(*arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert names_the_missing(done.stderr, half)


def test_get_of_a_directory_fetches_what_there_is(granum: Granum, half: ProcessLab, tmp_path: Path) -> None:
    done = granum.run("get", "/d", "copy")
    assert done.returncode == 3
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["here"]
    assert names_the_missing(done.stderr, half)


def test_a_whole_file_is_a_whole_answer(granum: Granum, tmp_path: Path) -> None:
    granum.ok("get", "/d/here", "here")
    assert (tmp_path / "here").read_text() == "here"


def test_put_goes_to_a_node_that_answers(granum: Granum, half: ProcessLab, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    granum.ok("put", "new", "/e2/new")
    assert (half.nodes[0].root / "e2" / "new").read_text() == "new"


def test_a_tree_may_differ_from_what_cannot_be_seen(granum: Granum, half: ProcessLab, tmp_path: Path) -> None:
    """What lacks may lie on the missing node: it is told as new, and that not every node was asked."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "gone").write_text("gone")
    done = granum.run("sync", "--dry-run", "d", "granum://test/d")
    assert (done.returncode, done.stdout.splitlines()[0]) == (3, "new      /d/gone")
    assert names_the_missing(done.stderr, half)


def test_cat_of_several_writes_what_there_is(granum: Granum) -> None:
    done = granum.run("cat", "/d/gone", "/d/here")
    assert (done.returncode, done.stdout) == (1, "here")
    assert "/d/gone" in done.stderr


def test_top_shows_how_long_a_node_is_silent(granum: Granum, half: ProcessLab) -> None:
    done = granum.run("top", "--once")
    assert done.returncode == 3
    (line,) = [line for line in done.stdout.splitlines() if half.nodes[1].host in line]
    assert "silent for 2 s" in line
    assert "refuses the connection" in line
    (line,) = [line for line in done.stdout.splitlines() if half.nodes[0].host in line]
    assert "serving" in line
    assert names_the_missing(done.stderr, half)
