"""Listing, locating and describing what is stored, on real nodes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.tests.cli.conftest import Granum, placed
from integration.lab import ProcessLab

TREE = {
    "node1/look/a.txt": b"one",
    "node2/look/b/c.bin": bytes(2000),
    "node1/look/run.pcs/metadata.json": b"{}",
    "node2/look/run.pcs/frame00000.pzf": b"f",
    "node2/look/done.pcs/metadata.json": b"{}",
    "node2/look/done.pcs/events.json": b"[]",
}


@pytest.fixture(scope="module")
def stored(lab: ProcessLab) -> Iterator[dict[str, str]]:
    """TREE, put into the stores; 'node1' and 'node2' -> where the node listens."""
    with placed(lab, TREE) as hosts:
        yield hosts


def names(granum: Granum, stored: dict[str, str]) -> dict[str, str]:
    rows = granum.json("nodes")
    by_host = {f"{row['address']}:{row['port']}": row["name"] for row in rows}
    return {node: by_host[host] for node, host in stored.items()}


def test_nodes_are_shown_with_state_and_room(granum: Granum, lab: ProcessLab) -> None:
    lines = granum.ok("nodes").splitlines()
    assert lines[0].split() == ["NAME", "ADDRESS", "CLUSTER", "STATE", "FREE", "SIZE", "FREE", "%", "VERSION", "ID"]
    for node in lab.nodes:
        (line,) = [line for line in lines if node.host in line]
        assert [line.split()[index] for index in (1, 2, 3, -2, -1)] == [
            node.host,
            "test",
            "ok",
            "0.1.0",
            node.node_id[:8],
        ]


def test_nodes_as_json(granum: Granum, lab: ProcessLab) -> None:
    rows = {row["port"]: row for row in granum.json("nodes")}
    row = rows[lab.nodes[0].port]
    assert (row["cluster"], row["state"], row["cause"], row["version"]) == ("test", "ok", None, "0.1.0")
    assert row["node_id"] == lab.nodes[0].node_id
    assert 0 < row["free"] <= row["size"]


def test_ls_merges_the_nodes_and_tells_what_a_series_is(granum: Granum, stored: dict[str, str]) -> None:
    assert granum.ok("ls", "/look").splitlines() == [
        "a.txt",
        "b/",
        "done.pcs/  series, complete, 2 entries",
        "run.pcs/  series, incomplete, 2 entries",
    ]


def test_ls_long_shows_sizes_and_nodes(granum: Granum, stored: dict[str, str]) -> None:
    node = names(granum, stored)
    lines = granum.ok("ls", "-l", "look").splitlines()
    assert lines[0].split() == ["KIND", "SIZE", "NODES", "NAME"]
    assert lines[1].split() == ["file", "3", "B", node["node1"], "a.txt"]
    assert lines[2].split() == ["directory", "1", "entry", node["node2"], "b/"]
    assert lines[3].split() == ["series,", "complete", "2", "entries", node["node2"], "done.pcs/"]


def test_ls_as_json(granum: Granum, stored: dict[str, str]) -> None:
    node = names(granum, stored)
    rows: dict[str, Any] = {row["name"]: row for row in granum.json("ls", "granum://test/look")}
    assert rows["a.txt"] == {
        "path": "/look/a.txt",
        "name": "a.txt",
        "kind": "file",
        "complete": None,
        "size": 3,
        "entries": None,
        "nodes": [node["node1"]],
    }
    assert (rows["run.pcs"]["kind"], rows["run.pcs"]["complete"], rows["run.pcs"]["entries"]) == ("series", False, 2)
    assert sorted(rows["run.pcs"]["nodes"]) == sorted(node.values())


def test_ls_of_a_file_lists_that_file(granum: Granum, stored: dict[str, str]) -> None:
    assert granum.ok("ls", "/look/a.txt") == "a.txt\n"


def test_tree_counts_frames_and_shows_the_rest(granum: Granum, stored: dict[str, str]) -> None:
    assert granum.ok("tree", "/look").splitlines() == [
        "/look",
        "├── a.txt",
        "├── b/",
        "│   └── c.bin",
        "├── done.pcs/  series, complete, 2 entries",
        "└── run.pcs/  series, incomplete, 2 entries",
    ]


def test_tree_goes_no_deeper_than_asked(granum: Granum, stored: dict[str, str]) -> None:
    assert [row["path"] for row in granum.json("tree", "--depth", "1", "/look")] == [
        "/look/a.txt",
        "/look/b",
        "/look/done.pcs",
        "/look/run.pcs",
    ]


def test_stat_of_a_file(granum: Granum, stored: dict[str, str], lab: ProcessLab) -> None:
    node = names(granum, stored)["node2"]
    assert granum.ok("stat", "/look/b/c.bin").splitlines() == [
        "path     /look/b/c.bin",
        "kind     file",
        "size     2,000 bytes",
        f"nodes    {node} at {lab.nodes[1].host}",
        "locator  granum://test/look/b/c.bin",
    ]


def test_stat_as_json(granum: Granum, stored: dict[str, str]) -> None:
    row = granum.json("stat", "/look/run.pcs")
    assert (row["kind"], row["entries"], row["size"], len(row["nodes"])) == ("series", 2, None, 2)


def test_locate_gives_the_address_of_the_file(granum: Granum, stored: dict[str, str], lab: ProcessLab) -> None:
    node = names(granum, stored)["node2"]
    url = f"http://{lab.nodes[1].host}/look/b/c.bin"
    assert granum.ok("locate", "/look/b/c.bin").splitlines()[1].split() == [node, url]
    assert granum.json("locate", "/look/b/c.bin") == [
        {"node": node, "node_id": lab.nodes[1].node_id, "cluster": "test", "url": url}
    ]


@pytest.mark.parametrize("command", ["ls", "tree", "stat", "locate"])
def test_what_is_not_stored_is_status_1_and_one_line(granum: Granum, command: str) -> None:
    done = granum.run(command, "/absent")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("granum: /absent")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("path", ["a/../b", "/.granum/x", "granum:/lab/x/../y", "http://host/x"])
def test_a_bad_path_is_status_2_and_one_line(granum: Granum, path: str) -> None:
    done = granum.run("ls", path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("granum: ")


def test_the_cluster_in_a_locator_wins_over_the_option(granum: Granum, stored: dict[str, str]) -> None:
    assert granum.ok("-c", "other", "ls", "granum://test/look/b") == "c.bin\n"


def test_no_node_says_where_was_looked(granum: Granum, lab: ProcessLab) -> None:
    done = granum.run("-c", "other", "ls", "/")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no node of cluster 'other' was found" in done.stderr
    assert lab.nodes[0].host in done.stderr
    assert "granum serve DIR" in done.stderr


def test_fewer_nodes_than_expected_is_partial(granum: Granum, stored: dict[str, str]) -> None:
    done = granum.run("--wait", "3", "ls", "/look/b")
    assert (done.returncode, done.stdout) == (3, "c.bin\n")
    assert "1 of the 3 expected" in done.stderr


def test_config_names_the_origin_of_each_value(tmp_path: Path) -> None:
    (tmp_path / ".config" / "granum").mkdir(parents=True)
    file = tmp_path / ".config" / "granum" / "config.yaml"
    file.write_text("nodes: [a:1, b:2]\n")
    granum = Granum(tmp_path, environment={"GRANUM_PORT": "15349"})
    rows = {row["key"]: row for row in granum.json("config", "show", "--origin", "-c", "lab")}
    assert rows["cluster"] == {"key": "cluster", "value": "lab", "origin": "command line"}
    assert rows["nodes"] == {"key": "nodes", "value": ["a:1", "b:2"], "origin": str(file)}
    assert rows["port"] == {"key": "port", "value": 15349, "origin": "GRANUM_PORT"}
    lines = [line.split() for line in granum.ok("config", "show", "--origin").splitlines()]
    assert ["nodes", "a:1,", "b:2", str(file)] in lines


def test_a_bad_configuration_is_status_2(tmp_path: Path) -> None:
    done = Granum(tmp_path, environment={"GRANUM_PORT": "x"}).run("ls")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "GRANUM_PORT" in done.stderr


def test_completion_as_json(tmp_path: Path) -> None:
    document = json.loads(Granum(tmp_path).run("completion", "zsh", "--json").stdout)
    assert document["shell"] == "zsh"
    assert document["script"].startswith("#compdef granum")
