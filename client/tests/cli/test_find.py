"""What lies below a place, and how much of it there is."""

import json
from collections.abc import Iterator

import click
import pytest

from client.tests.cli.conftest import Granum, placed
from granum.cli.find import Wanted, is_called, to_size_test
from granum.roster import Node
from granum.wire.listing import Entry, Flags
from integration.lab import ProcessLab

TREE = {
    "node1/find/a.tif": 1000,
    "node1/find/run/b.tif": 200,
    "node2/find/run/c.txt": 30,
    "node2/find/run/deep/d.tif": 4,
    "node1/find/both": 5,
    "node2/find/both": 5,
}
NODE = Node("0123abcd", "disk1:15348", "10.0.0.1", 15348, "lab", "0123abcd-4567")


@pytest.fixture(scope="module")
def stored(lab: ProcessLab) -> Iterator[dict[str, str]]:
    """TREE, put into the stores; 'node1' and 'node2' -> where the node listens."""
    with placed(lab, {name: bytes(size) for name, size in TREE.items()}) as hosts:
        yield hosts


def test_everything_below_a_place(granum: Granum, stored: dict[str, str]) -> None:
    assert granum.ok("find", "/find").splitlines() == [
        "/find/a.tif",
        "/find/both",
        "/find/run",
        "/find/run/b.tif",
        "/find/run/c.txt",
        "/find/run/deep",
        "/find/run/deep/d.tif",
    ]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--name", "*.tif"], ["a.tif", "run/b.tif", "run/deep/d.tif"]),
        (["--name", "RUN"], []),
        (["--type", "d"], ["run", "run/deep"]),
        (["--type", "f", "--size", "+100"], ["a.tif", "run/b.tif"]),
        (["--size", "1K"], ["a.tif"]),
        (["--size", "-30"], ["both", "run/deep/d.tif"]),
        (["--on", "node2"], ["both", "run", "run/c.txt", "run/deep", "run/deep/d.tif"]),
        (["--on", "node1", "--type", "d"], ["run"]),
    ],
)
def test_what_fits_all_that_is_asked_for(
    granum: Granum, stored: dict[str, str], options: list[str], found: list[str]
) -> None:
    options = [stored.get(option, option) for option in options]
    assert granum.ok("find", "/find", *options).splitlines() == [f"/find/{name}" for name in found]


def test_a_file_is_found_at_itself(granum: Granum, stored: dict[str, str]) -> None:
    assert granum.ok("find", "/find/a.tif") == "/find/a.tif\n"


def test_print0_is_for_xargs(granum: Granum, stored: dict[str, str]) -> None:
    assert granum.ok("find", "-0", "--name", "?.tif", "/find/run") == "/find/run/b.tif\0/find/run/deep/d.tif\0"


def test_find_as_json(granum: Granum, stored: dict[str, str]) -> None:
    (row,) = granum.json("find", "/find", "--name", "a*")
    assert (row["path"], row["kind"], row["size"], len(row["nodes"])) == ("/find/a.tif", "file", 1000, 1)
    assert granum.json("find", "/find", "--name", "nothing") == []


@pytest.mark.parametrize("command", ["find", "du"])
def test_what_is_not_stored_is_status_1_and_one_line(granum: Granum, command: str) -> None:
    for options in ([], ["--json"]):
        done = granum.run(command, *options, "/absent")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_no_node_of_that_name(granum: Granum) -> None:
    done = granum.run("find", "--on", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert "'nobody'" in done.stderr


# -- sizes and names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "fitting", "not_fitting"),
    [
        ("+1M", [1_000_001], [1_000_000, 0, -1]),
        ("-64K", [0, 63_999], [64_000, -1]),
        ("512", [512], [511, 513]),
        ("1ki", [1024], [1000]),
        ("+2GiB", [(1 << 31) + 1], [1 << 31]),
        ("0B", [0], [1]),
    ],
)
def test_sizes(written: str, fitting: list[int], not_fitting: list[int]) -> None:
    """A size that is not known, -1, fits none."""
    fits = to_size_test(None, None, written)
    assert fits is not None
    assert [fits(size) for size in fitting + not_fitting] == [True] * len(fitting) + [False] * len(not_fitting)


@pytest.mark.parametrize("written", ["", "M", "1.5M", "+-1", "1X", "1i", "--1"])
def test_what_is_no_size_is_refused(written: str) -> None:
    with pytest.raises(click.BadParameter):
        to_size_test(None, None, written)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("disk1:15348", True),
        ("10.0.0.1:15348", True),
        ("0123", True),
        ("disk1", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_how_a_node_is_called(name: str, meant: bool) -> None:
    assert is_called(NODE, name) is meant


def test_directories_have_no_size() -> None:
    wanted = Wanted(size=lambda size: True)
    assert wanted.fits(Entry("f", Flags.FILE, 1), (NODE,))
    assert not wanted.fits(Entry("d", Flags.DIRECTORY, 1), (NODE,))


# -- du --------------------------------------------------------------------------------------------------------------


def test_du_adds_up(granum: Granum, stored: dict[str, str]) -> None:
    """A copy on a second node does not make a file larger."""
    assert [line.split() for line in granum.ok("du", "/find").splitlines()] == [
        ["234", "B", "3", "/find/run"],
        ["1.2", "kB", "5", "/find"],
    ]


@pytest.mark.parametrize(
    ("depth", "paths"),
    [("0", ["/find"]), ("1", ["/find/run", "/find"]), ("9", ["/find/run/deep", "/find/run", "/find"])],
)
def test_du_goes_down_so_far(granum: Granum, stored: dict[str, str], depth: str, paths: list[str]) -> None:
    rows = granum.json("du", "-d", depth, "/find")
    assert [row["path"] for row in rows] == paths
    assert (rows[-1]["size"], rows[-1]["files"], rows[-1]["unknown"]) == (1239, 5, 0)


def test_du_per_node(granum: Granum, stored: dict[str, str]) -> None:
    """There a copy counts on each."""
    (row,) = granum.json("du", "-d", "0", "/find")
    by_size = sorted(row["nodes"].values(), key=lambda usage: usage["size"])
    assert by_size == [{"size": 39, "files": 3}, {"size": 1205, "files": 3}]
    lines = granum.ok("du", "--nodes", "-d", "0", "/find").splitlines()
    assert [line.split()[:4] for line in lines if " on " in line] in (
        [["1.2", "kB", "3", "on"], ["39", "B", "3", "on"]],
        [["39", "B", "3", "on"], ["1.2", "kB", "3", "on"]],
    )


def test_du_of_a_file(granum: Granum, stored: dict[str, str]) -> None:
    assert granum.ok("du", "/find/a.tif").split() == ["1.0", "kB", "1", "/find/a.tif"]


def test_json_is_one_document_of_any_length(granum: Granum, stored: dict[str, str]) -> None:
    text = granum.ok("du", "--json", "-d", "9", "/find")
    assert len(json.loads(text)) == text.count('"path"') == 3
