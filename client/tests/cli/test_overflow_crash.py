"""A program that is killed while its frames go to the overflow, because the nodes are gone, loses none of these."""

import subprocess
import sys
from pathlib import Path

from client.tests.cli.conftest import Granum
from integration.lab import NodeProcess

CAMERA = """
import sys
import numpy
import granum
cluster = granum.connect("test", nodes=[sys.argv[1]], discover=False)
series = cluster.create_series("/crash/run", on_full="overflow")
for n in range(1_000_000):
    if series.store_frame(n, numpy.full((100, 100), n, "u2")) is None:  # it is in the overflow
        print(n, flush=True)
    elif n == 3:
        print("go on", flush=True)
"""


def killed(camera: "subprocess.Popen[str]", node: NodeProcess) -> list[int]:
    """Kill the node when frames come, and the camera when many have overflowed; return those."""
    assert camera.stdout is not None
    overflowed: list[int] = []
    for line in camera.stdout:
        if line == "go on\n":
            node.kill()
            continue
        overflowed.append(int(line))
        if len(overflowed) == 100:
            camera.kill()
    return overflowed


def test_sigkill_with_all_nodes_gone_loses_nothing_that_overflowed(tmp_path: Path) -> None:
    granum = Granum(tmp_path)
    node = NodeProcess(tmp_path / "store")
    with node:
        command = [sys.executable, "-c", CAMERA, node.host]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=granum.settings()) as camera:
            overflowed = killed(camera, node)
        assert len(overflowed) >= 100
    with node:
        (row,) = granum.json("overflow", "resume", "--no-discovery")
        assert (row["delivered"] >= len(overflowed), row["left"]) == (True, 0)
        stored = {path.name for path in (tmp_path / "store/crash/run.pcs").iterdir()}
        assert {f"frame{n:05}.pzf" for n in overflowed} <= stored
        assert granum.json("overflow", "status") == []
