"""The demo does what it says, says so when it does not hold, and cleans up."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from granum.wire import frame as pzf
from integration.camera import OFFSET, Camera
from integration.demo import Outcome, is_same, report
from integration.faults.waiting import until

ROOT = Path(__file__).parents[2]
LIMIT_S = 120


def start(directory: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "integration.demo", "--directory", str(directory), *options]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def nodes_below(directory: Path) -> list[str]:
    """The processes that serve a store below *directory*."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode().replace("\0", " ")
            except OSError:
                continue
            if "granum_node" in command and str(directory) in command:
                found.append(command)
    return found


def test_every_frame_of_two_movies_and_the_camera_is_verified_on_three_nodes(tmp_path: Path) -> None:
    demo = start(tmp_path, "--frames", "9", "--size", "64")
    out, err = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 0, err
    assert out.splitlines()[-1] == "verified 39/39 frames on 3 nodes"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_ends_its_nodes_and_removes_their_stores(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    demo = start(tmp_path, "--frames", "4000", "--size", "256")
    assert until(lambda: len(list(tmp_path.glob("*/node*/.granum/node-id"))) == 3, LIMIT_S)
    os.kill(demo.pid, number)
    demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == status
    assert nodes_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_one_other_bit_is_not_the_same() -> None:
    image = Camera(3, (16, 16)).frame(2)
    file = bytearray(b"".join(map(bytes, pzf.encode(image, frame_number=2, sequence_id=5))))
    assert is_same(bytes(file), image, 2, 5)
    assert not is_same(bytes(file), image, 1, 5)
    file[-1] ^= 1
    assert not is_same(bytes(file), image, 2, 5)


@pytest.mark.parametrize(
    ("verified", "nodes", "held"),
    [(10, {"a": 5, "b": 5}, True), (9, {"a": 5, "b": 5}, False), (10, {"a": 10}, False)],
    ids=["all", "a frame differs", "a node got nothing"],
)
def test_the_demo_fails_unless_every_frame_held_on_every_node(verified: int, nodes: dict[str, int], held: bool) -> None:
    assert report([Outcome("s", 10, 1000, 1.0, 1.0, Counter(nodes), verified, "commit")], 2) is held


def test_the_camera_has_photon_statistics_and_makes_each_frame_again() -> None:
    camera = Camera(40, (256, 256))
    first = camera.frame(0)
    background = first[1:][first[1:] < OFFSET + 45].astype(float) - OFFSET
    assert first.dtype == np.uint16
    assert 19 < background.mean() < 21
    assert 0.9 < background.var() / background.mean() < 1.1
    assert not np.array_equal(first, camera.frame(1))
    assert not np.array_equal(camera.frame(0), camera.frame(16)), "the frame number is stamped into repeated exposures"
    assert np.array_equal(Camera(40, (256, 256)).frame(39), camera.frame(39))
