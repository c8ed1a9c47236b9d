"""What `make bench-stream` counts, keeps small and judges; and that its clients really stream."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from granum.wire import frame
from integration.bench import stream_report
from integration.bench.fleets import Fleet, Sink, Sweeper
from integration.bench.peers import Granum, Mode
from integration.bench.stream import chosen
from integration.bench.stream_cells import (
    CELLS,
    CLIENTS,
    FILES,
    PYME,
    PYME_STREAM,
    RELAXED,
    StreamResults,
    StreamSample,
)
from integration.bench.streams import Streams, rotated

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the sink is written in C")
SAMPLE = StreamSample(100.0, 6.5, 0.4, 0.8, 70.0, 40.0, 0, 100)
SHAPE = (16, 32)


@pytest.fixture
def ring(tmp_path: Path) -> dict[str, Any]:
    """Three small frames, as `streams` makes them."""
    images = np.random.default_rng(1).integers(0, 1 << 12, (3, *SHAPE), dtype=np.uint16)
    encoded = [b"".join(frame.encode(image)) for image in images]
    images.tofile(tmp_path / "ring")
    (tmp_path / "encoded").write_bytes(b"".join(encoded))
    files = {"ring": str(tmp_path / "ring"), "encoded": str(tmp_path / "encoded"), "encoded_size": len(encoded[0])}
    return {**files, "size": images[0].nbytes, "shape": SHAPE, "pids": [os.getpid()]}


def work(verb: str, **asked: Any) -> Any:
    command = (sys.executable, "-m", "integration.bench.camera", json.dumps({"verb": verb, **asked}))
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Granum]:
    with Granum(tmp_path / "node", tmp_path / "scratch", Mode("relaxed", "none")) as node:
        yield node


@needs_compiler
def test_the_sink_answers_every_put_whatever_pieces_it_comes_in(tmp_path: Path) -> None:
    with Sink(tmp_path / "root", tmp_path / "scratch") as sink:
        asking = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=10)
        for size in (0, 1, 100, 70_000, 3_000_000):
            asking.request("PUT", "/f", bytes(size))
            answer = asking.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
        for path, status in (("/__status", 200), ("/f", 404), ("/", 404)):
            asking.request("GET", path)
            answer = asking.getresponse()
            assert (answer.status, len(answer.read())) == (status, 2 if status == 200 else 0)
        asking.close()


def test_the_sweeper_leaves_the_newest_of_all_directories(tmp_path: Path) -> None:
    for directory, numbers in (("a", range(5)), ("b", range(3))):
        (tmp_path / directory).mkdir()
        for number in numbers:
            (tmp_path / directory / f"frame{number:05d}.pzf").touch()
    (tmp_path / "b" / "metadata.json").touch()
    Sweeper([tmp_path], ["a", "b"], 4).sweep()
    assert sorted(os.listdir(tmp_path / "a")) == ["frame00004.pzf"]
    assert sorted(os.listdir(tmp_path / "b")) == [*(f"frame{n:05d}.pzf" for n in range(3)), "metadata.json"]


def test_the_sweeper_counts_beyond_five_digits(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in (99_998, 99_999, 100_000, 100_001):
        (tmp_path / "a" / f"frame{number:05d}.pzf").touch()
    with Sweeper([tmp_path], ["a"], 2):
        threading.Event().wait(0.1)
    assert sorted(os.listdir(tmp_path / "a")) == ["frame100000.pzf", "frame100001.pzf"]


@pytest.mark.parametrize("by", ["frames", "files"])
def test_what_the_client_streams_is_stored_and_receipted(node: Granum, ring: dict[str, Any], by: str) -> None:
    hosts = [f"127.0.0.1:{node.port}"]
    said = work("stream", **ring, by=by, hosts=hosts, directories=["/a.pcs", "/b.pcs"], warm=7, seconds=0.05)
    assert said["receipted"] == said["frames"] > 0
    stored = {name: len(list((node.root / f"{name}.pcs").glob("*.pzf"))) for name in "ab"}
    assert stored == {"a": 7, "b": said["frames"]}
    assert said["client_cpu_s"] > 0
    assert said["node_cpu_s"] >= 0


def test_a_camera_hands_over_every_frame_and_reading_returns_as_many(node: Granum, ring: dict[str, Any]) -> None:
    hosts = [f"127.0.0.1:{node.port}"]
    said = work("paced", **ring, hosts=hosts, directories=["/a.pcs", "/b.pcs"], rate=200, seconds=0.1)
    assert (said["frames"], said["receipted"] + said["refused"]) == (20, 20)
    assert said["p50_ms"] <= said["p99_ms"] <= said["max_ms"]
    common = {**ring, "hosts": hosts, "seconds": 0.01}
    for read in (
        work("read", **common, directory="/b.pcs"),
        work("read", **common, directory="/b.pcs", local_stores=[str(node.root)]),
        work("plain", **common, directory="b.pcs", roots=[str(node.root)]),
    ):
        assert read["frames"] % said["receipted"] == 0
        assert read["frames"] > 0


def test_cells_are_chosen_by_their_words() -> None:
    assert [str(cell) for cell in chosen(CELLS, ["64K sink", "3 nodes read 8M"])] == [
        "stream 64K sink",
        "read 8M 3 nodes",
    ]


def test_what_is_read_is_stored_before_also_when_no_stream_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = []
    monkeypatch.setattr(Streams, "_store", lambda _, cell, client, **options: stored.append((str(cell), client.name)))
    streams = Streams(chosen(CELLS, ["read 64K"]), {"memory": tmp_path}, 0.01, {}, lambda _: None)
    streams._fleets = {"relaxed": Fleet(Sink, 1, tmp_path, tmp_path), "pyme": Fleet(Sink, 1, tmp_path, tmp_path)}
    streams._store_all(verify=False)
    assert stored == [("read 64K 3 nodes", RELAXED), ("read 64K 3 nodes", PYME)]


def test_every_cell_has_a_peer_of_another_program_or_a_limit() -> None:
    for cell in CELLS:
        names = [client.name for client in CLIENTS if client.takes_part(cell)]
        assert any(name.startswith("granum") for name in names)
        assert any(name.startswith("PYME") for name in names)


def test_who_comes_first_changes() -> None:
    assert {rotated("abc", turn)[0] for turn in range(3)} == {"a", "b", "c"}


def test_a_goal_without_its_peer_is_not_judged() -> None:
    results = StreamResults(samples={("stream 64K sink", FILES): {0: SAMPLE}})
    assert [each.metric for each in stream_report.measured(results)] == ["frames lost, all rows of granum"]


@pytest.mark.parametrize(("rate", "met"), [(290.0, "no"), (300.0, "yes"), (400.0, "stretch")])
def test_the_client_is_compared_with_the_stream_of_pyme(rate: float, met: str) -> None:
    cell = "stream 64K sink"
    samples = {(cell, FILES): {0: replace(SAMPLE, frames_per_s=rate)}, (cell, PYME_STREAM): {0: SAMPLE}}
    goals = {each.metric: each for each in stream_report.measured(StreamResults(samples=samples))}
    assert goals["stream 64K sink frames/s, granum files"].met == met


def test_one_lost_frame_of_ours_misses_the_goal_and_those_of_others_do_not_count() -> None:
    cell = "stream 64K 3 nodes"
    both = StreamResults(samples={(cell, RELAXED): {0: SAMPLE}, (cell, PYME): {0: replace(SAMPLE, lost=9)}})
    lost = {each.metric: each.met for each in stream_report.measured(both)}
    assert lost["frames lost, all rows of granum"] == "stretch"
    both.verified[cell, RELAXED] = (1, 32)
    lost = {each.metric: each.met for each in stream_report.measured(both)}
    assert lost["frames lost, all rows of granum"] == "no"


def test_a_camera_is_judged_by_what_was_refused_and_how_long_it_waited() -> None:
    said = {"refused": 1, "p99_ms": 4.0}
    goals = {each.metric: each.met for each in stream_report.measured(StreamResults(cameras={"8M": said}))}
    assert goals == {"camera 8M, frames refused": "no", "camera 8M, store_frame p99": "stretch"}


def test_the_core_of_a_camera_of_840_mb_is_reckoned_from_the_cost_of_a_gigabyte() -> None:
    results = StreamResults(samples={("stream 8M 3 nodes", RELAXED): {0: replace(SAMPLE, client_s_per_gb=0.5)}})
    (cores,) = [each for each in stream_report.measured(results) if each.unit == "cores"]
    assert (round(cores.value, 3), cores.met) == (0.42, "yes")
