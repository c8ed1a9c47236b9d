"""Reading back from real nodes: ahead of its use, while it is acquired, in parts, and where it lies."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import granum
from granum import blocking
from granum.wire import frame
from granum.wire.errors import BadFrame, NodeTimeout, NodeUnreachable, OnSomeNodes, Partial
from integration.lab import ProcessLab

SHAPE = (32, 48)


def image(number: int) -> Any:
    """Return a frame that no other number has."""
    return (np.arange(SHAPE[0] * SHAPE[1], dtype="u4") * 7 + number * 1009).astype("u2").reshape(SHAPE)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessLab]:
    with ProcessLab(tmp_path_factory.mktemp("reading"), 3) as lab:
        yield lab


@pytest.fixture
def cluster(lab: ProcessLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[blocking.Cluster]:
    """No configuration and no registry of this machine reach the test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with connected(lab) as cluster:
        yield cluster


def connected(lab: ProcessLab, **options: Any) -> blocking.Cluster:
    return granum.connect("test", nodes=[node.host for node in lab.nodes], expect=3, discover=False, **options)


def acquire(cluster: blocking.Cluster, run: str, numbers: range, *, complete: bool = True) -> None:
    """Store frames of *run*, frame n on the n-th node in turn, as a camera elsewhere would."""
    nodes = cluster.ready()
    if 0 in numbers:
        cluster.put(f"{run}/metadata.json", b"{}")
    for n in numbers:
        cluster.put(f"{run}/frame{n:05d}.pzf", b"".join(frame.encode(image(n))), node=nodes[n % len(nodes)])
    if complete:
        cluster.put(f"{run}/events.json", b"[]")


def test_frames_read_ahead_come_in_order_and_from_all_nodes(lab: ProcessLab, cluster: blocking.Cluster) -> None:
    acquire(cluster, "ahead.pcs", range(30))
    with connected(lab, bypass=False) as reading, reading.series("ahead").frames() as frames:
        back = dict(frames)
    assert list(back) == list(range(30))
    assert all(np.array_equal(back[n], image(n)) for n in back)


def test_a_damaged_frame_raises_at_its_place_and_the_iteration_goes_on(
    lab: ProcessLab, cluster: blocking.Cluster
) -> None:
    acquire(cluster, "damaged.pcs", range(6))
    cluster.put("damaged.pcs/frame00006.pzf", b"not a frame")
    acquire(cluster, "damaged.pcs", range(7, 9), complete=False)
    frames = cluster.series("damaged").frames()
    assert [n for n, _ in (next(frames) for _ in range(6))] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(BadFrame, match="frame 6"):
        next(frames)
    assert [n for n, _ in frames] == [7, 8]


def test_the_frames_of_some_numbers_come_in_the_order_that_was_asked_for(cluster: blocking.Cluster) -> None:
    acquire(cluster, "some.pcs", range(6))
    assert [n for n, _ in cluster.series("some").frames([5, 0, 3])] == [5, 0, 3]


def test_a_running_acquisition_is_followed_to_its_end(lab: ProcessLab, cluster: blocking.Cluster) -> None:
    """The camera is another client, as it would be on another machine."""
    acquire(cluster, "live.pcs", range(3), complete=False)
    with connected(lab) as analysis, analysis.series("live").follow(poll_s=0.05, timeout_s=30) as frames:
        seen = [next(frames)[0] for _ in range(3)]
        acquire(cluster, "live.pcs", range(3, 8), complete=False)
        seen += [next(frames)[0] for _ in range(5)]
        acquire(cluster, "live.pcs", range(8, 12))
        found = list(frames)
    assert seen + [n for n, _ in found] == list(range(12))
    assert all(np.array_equal(array, image(n)) for n, array in found)


def test_a_series_that_stalls_says_so(cluster: blocking.Cluster) -> None:
    acquire(cluster, "stalled.pcs", range(1), complete=False)
    frames = cluster.series("stalled").follow(poll_s=0.05, timeout_s=0.2)
    next(frames)
    with pytest.raises(NodeTimeout, match=r"no frame of /stalled\.pcs came within 0\.2 s, and it is not complete"):
        next(frames)


def test_following_names_the_node_that_died_and_goes_on_when_it_is_back(
    lab: ProcessLab, cluster: blocking.Cluster
) -> None:
    acquire(cluster, "killed.pcs", range(6), complete=False)
    with connected(lab, bypass=False) as analysis:
        victim = next(node for node in lab.nodes if node.node_id == analysis.ready()[1].node_id)
        frames = analysis.series("killed.pcs").follow(poll_s=0.05, timeout_s=0.3)
        assert next(frames)[0] == 0
        victim.kill()
        try:
            stall: BaseException | None = None
            while stall is None:
                try:
                    next(frames)
                except (NodeUnreachable, OnSomeNodes) as error:  # a frame of that node, or that nothing more comes
                    stall = error if isinstance(error, Partial) and "came within" in str(error) else None
            assert str(victim.port) in str(stall)
        finally:
            victim.start()
        analysis.put("killed.pcs/frame00006.pzf", b"".join(frame.encode(image(6))), node=analysis.ready()[0])
        frames = analysis.series("killed.pcs").follow(poll_s=0.05, timeout_s=30)
        acquire(cluster, "killed.pcs", range(7, 9))
        assert sorted(n for n, _ in frames) == list(range(9))  # those of the node come when it is back


@pytest.mark.parametrize("bypass", [True, False])
def test_parts_of_a_file_are_those_of_the_whole(lab: ProcessLab, cluster: blocking.Cluster, bypass: bool) -> None:
    body = os.urandom(1000)
    name = f"parts-{bypass}"
    cluster.put(name, body)
    stores = [str(node.root) for node in lab.nodes] if bypass else []
    with connected(lab, bypass=bypass, local_stores=stores) as reading:
        parts = [(0, 10), (990, None), (990, 99), (1000, 5), (500, 0), (17, 900)]
        for start, length in parts:
            expected = body[start:] if length is None else body[start : start + length]
            assert reading.get(name, start=start, length=length) == expected


def test_locality_tells_nodes_frames_and_which_stores_are_on_this_machine(
    lab: ProcessLab, cluster: blocking.Cluster
) -> None:
    acquire(cluster, "where.pcs", range(6))
    with connected(lab, local_stores=[str(lab.nodes[0].root)]) as analysis:
        report = analysis.series("where").locality()
        nodes = analysis.ready()
    held = {share.node.node_id: share.frames for share in report.shares}
    assert held == {nodes[0].node_id: (0, 3), nodes[1].node_id: (1, 4), nodes[2].node_id: (2, 5)}
    assert [share.node.node_id for share in report.shares if share.is_local] == [lab.nodes[0].node_id]
    assert json.loads(json.dumps(report.as_json()))["path"] == "/where.pcs"


def test_different_bytes_under_one_name_are_reported_and_read_alike_by_everybody(
    lab: ProcessLab, cluster: blocking.Cluster
) -> None:
    """Stored as two clients would that cannot see each other's node: the same size, so that no listing shows it."""
    for node in lab.nodes:
        with granum.connect("test", nodes=[node.host], discover=False) as alone:
            alone.put("collision.txt", node.node_id.encode())
    lowest = min(node.node_id for node in lab.nodes)
    options = ({"bypass": False}, {"local_stores": [str(node.root) for node in lab.nodes]})
    for option in options:
        with connected(lab, **option) as reading:
            assert reading.get("collision.txt") == lowest.encode()
            assert [holder.node_id for holder in reading.listdir("/").holders("collision.txt")] == [lowest]
            assert [collision.name for _, collision in reading.collisions()] == ["collision.txt"]


def test_puts_by_hash_meet_on_one_node_whoever_puts(lab: ProcessLab, cluster: blocking.Cluster) -> None:
    chosen = []
    for n in range(2):
        with connected(lab, placement="hash") as writer:
            chosen.append([writer.put(f"hash{n}/{name}", b"x").node.key for name in "abcdefgh"])
    with connected(lab, placement="hash") as writer, pytest.raises(FileExistsError):
        writer.put("hash0/a", b"y")
    assert len(set(chosen[0])) > 1
