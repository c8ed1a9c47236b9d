"""The load generator counts what it should, and the benchmark's arithmetic says what it claims."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from integration.bench import ceiling, programs, report, targets
from integration.bench.contest import Results, contestants, rotated
from integration.bench.node import _chosen
from integration.bench.peers import Ceiling, Granum, Mode, Peer, node_options
from integration.bench.report import Measured
from integration.bench.sample import (
    CELLS,
    FILES_TO_GET,
    SIZES,
    Cell,
    Failed,
    Sample,
    Shape,
    fill,
    load_disk,
    load_peer,
    verify,
)

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the load generator is written in C")
SAMPLE = Sample(100.0, 6.5, 50.0, 0.8, 10.0, 40.0, 1.0, 2.0, 0, 100)


@pytest.fixture
def body(tmp_path: Path) -> Path:
    """A file of noise that every body is a beginning of."""
    file = tmp_path / "body"
    file.write_bytes(os.urandom(SIZES["8M"]))
    return file


@pytest.fixture(params=["node", "ceiling"])
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    """A server that runs anywhere."""
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    made = Granum(root, scratch, Mode("none", "none")) if request.param == "node" else Ceiling(root, scratch)
    with made as running:
        yield running


@needs_compiler
@pytest.mark.parametrize("size", ["8M", "64K", "1K"])
def test_what_a_server_stores_and_returns_is_what_was_put(peer: Peer, body: Path, size: str) -> None:
    """Every byte on the disk, and every byte of the answer."""
    fill(size, peer, "stored", body)
    verify(size, peer, "stored", body)
    assert len(list((peer.root / "stored").iterdir())) == FILES_TO_GET[size]


@needs_compiler
@pytest.mark.parametrize("shape", [Shape(4, 1), Shape(1, 8)], ids=str)
def test_a_put_sample_leaves_no_file_and_counts_no_error(peer: Peer, body: Path, shape: Shape) -> None:
    """It removes what it put, so that a long run needs no large disk."""
    sample = load_peer(Cell("put", "64K", shape), peer, "sample", body, 0.05, on_disk=True)
    assert not (peer.root / "sample").exists()
    assert sample.errors == 0
    assert sample.requests > 0


@needs_compiler
def test_the_generator_sees_a_byte_that_is_wrong(peer: Peer, body: Path) -> None:
    """The check of the bytes that come back is not blind."""
    fill("1K", peer, "stored", body)
    file = peer.root / "stored" / "00000007"
    file.chmod(0o640)
    file.write_bytes(bytes(SIZES["1K"]))
    with pytest.raises(Failed, match=r"1024 of 1024 requests done, 1 errors"):
        verify("1K", peer, "stored", body)


@needs_compiler
def test_replies_that_refuse_are_counted_as_errors(tmp_path: Path, body: Path) -> None:
    """A server that refuses quickly must not win."""
    node = Granum(tmp_path / "root", tmp_path / "scratch", Mode("none", "none"))
    with node, pytest.raises(Failed, match="1024 errors"):
        fill("1K", node, "__reserved", body)


@needs_compiler
def test_the_synced_limit_leaves_no_file(tmp_path: Path, body: Path) -> None:
    """Each file of the window is removed, also those that a slow thread linked late."""
    directory = tmp_path / "synced"
    directory.mkdir()
    sample = load_disk(Cell("put", "1K", Shape(1, 8)), directory, body, 0.05)
    assert list(directory.iterdir()) == []
    assert sample.requests > 0


def test_a_node_in_another_mode_than_its_row_says_does_not_run(tmp_path: Path) -> None:
    """A row must not be named for a durability that the node does not have."""
    node = Granum(tmp_path / "root", tmp_path / "scratch", Mode("none", "none"))
    node.mode = Mode("eternal", "none")
    with pytest.raises(programs.Absent, match="runs with durability"), node:
        pass


def test_cells_are_chosen_by_their_words() -> None:
    """All words of one --only, in any order."""
    chosen = _chosen(CELLS, ["8M put", "c1d8 1K get"])
    assert [str(cell) for cell in chosen] == ["put 8M c4d1", "put 8M c1d8", "get 1K c1d8"]


def test_who_comes_first_changes() -> None:
    """A slow start of a cell falls on everyone in turn."""
    everyone = contestants("")
    firsts = {rotated(everyone, turn)[0].name for turn in range(len(everyone))}
    assert firsts == {each.name for each in everyone}


def test_modes_that_the_node_has_not_are_named() -> None:
    """The table says 'not run', with the reason, instead of showing the default twice."""
    absent = {each.name: each.absent for each in contestants("--root DIR") if each.absent}
    assert absent == {
        "granum relaxed, digest off": "this granum-node has no --digest; its goals are judged without one",
        "granum commit": "this granum-node has no --durability",
    }
    assert not [each for each in contestants("--durability MODE --digest NAME") if each.absent]


def test_the_ratio_is_of_medians_with_the_spread_of_single_repetitions() -> None:
    """One lucky repetition moves the spread and not the figure."""
    ours = {number: replace(SAMPLE, requests_per_s=rate) for number, rate in enumerate((50.0, 100.0, 900.0))}
    theirs = {number: replace(SAMPLE, requests_per_s=rate) for number, rate in enumerate((100.0, 200.0, 300.0))}
    assert report.ratio(ours, theirs) == (0.5, 0.5, 3.0)


@pytest.mark.parametrize(("value", "met"), [(0.79, "no"), (0.8, "yes"), (0.95, "stretch")])
def test_a_goal_is_met_from_its_figure_on(value: float, met: str) -> None:
    """At least so much."""
    assert Measured("m", "p", value, value, value, 0.8, 0.95).met == met


@pytest.mark.parametrize(("value", "met"), [(0.51, "no"), (0.5, "yes"), (0.4, "stretch")])
def test_a_bound_is_met_up_to_its_figure(value: float, met: str) -> None:
    """At most so much."""
    assert Measured("m", "p", value, value, value, 0.5, 0.4, at_most=True).met == met


def test_a_goal_without_its_peer_is_not_judged() -> None:
    """A peer that is absent must not look like a goal that was met."""
    results = Results(samples={("put 1K c4d1", "granum relaxed"): {0: SAMPLE}})
    assert list(targets.measured(results, {})) == []


def test_the_options_of_the_node_are_read_from_its_help() -> None:
    """The benchmark measures the modes that this node has."""
    assert "--root" in node_options()


def test_a_program_that_may_not_be_fetched_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A quick run installs nothing."""
    monkeypatch.setattr(programs, "BUILD", tmp_path)
    with pytest.raises(programs.Absent, match="not installed"):
        programs.pyme(fetch=False)


def test_the_ceiling_has_the_buffer_of_the_node() -> None:
    """Both make the same number of system calls for one file."""
    from granum_node.http.channel import CHUNK_BYTES

    assert ceiling.CHUNK_BYTES == CHUNK_BYTES
