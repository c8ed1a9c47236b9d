"""R35 and R36: what the nodes cannot take: a slow disk under a fast camera, and no node at all, and then no client either."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from granum.wire.errors import NotStored
from integration.actor import Actor, put_of
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, node
from integration.faults.disks import ServedDisk
from integration.faults.filming import CLUSTER, Stage, names_on_disk, stage
from integration.faults.row_requests import rss_bytes
from integration.faults.waiting import pause

MIB = 1 << 20
SIDE = 362  # pixels: 256 KiB a frame
# The short form has less room everywhere, so that the same things happen within seconds.
DISK_MIB_S, CAMERA_MIB_S = 10, 100
FILM_S, FILM_LONG_S = 3, 60
MEMORY_MIB, MEMORY_LONG_MIB = 64, 256
OVERFLOW_MIB, OVERFLOW_LONG_MIB = 48, 2048
RSS_MIB, RSS_LONG_MIB = 2 * MEMORY_MIB, 2 * MEMORY_LONG_MIB  # the budget of a client is twice what is unreceipted
RSS_MORE = 1.1
STALL_P99_S = 0.005
SLOW = "store_frame is quick"  # the only check that another program can make fail
TRIES = 3
DOWN_S, DOWN_LONG_S = 2, 60
RATE_HZ = 60
RESUME_S = 120.0

_RESUME = "from granum.cli.app import main; main()"


def _client(bed: Bed, ground: Stage, name: str = "client") -> Actor:
    hosts = ground.hosts
    return Actor(
        ground.recorder,
        bed.directory / name,
        name=name,
        cluster=CLUSTER,
        nodes=hosts,
        discover=False,
        expect=len(hosts),
    )


@row(
    "R35",
    figure="lost 0; RSS within the budget + 10 %; store_frame p99 <= 5 ms while there is room; refusals counted exactly",
    root=True,
    programs=["losetup", "qemu-storage-daemon", "fusermount3", "mkfs.ext4"],
)
def slow_disk(bed: Bed) -> Outcome:
    """Film ten times as fast as the node's disk is, until the overflow is full and beyond; again when only a time is missed."""
    for turn in range(TRIES):
        outcome = _slow_disk(bed.below(f"try{turn}"))
        if outcome.held or outcome.details[:1] != (SLOW,):
            break
    return outcome


def _slow_disk(bed: Bed) -> Outcome:
    memory, room = bed.amount(MEMORY_MIB, MEMORY_LONG_MIB), bed.amount(OVERFLOW_MIB, OVERFLOW_LONG_MIB)
    rate = CAMERA_MIB_S * MIB / (2 * SIDE * SIDE)
    frames = int(rate * bed.amount(FILM_S, FILM_LONG_S))
    budget = bed.amount(RSS_MIB, RSS_LONG_MIB)
    options = {
        "on_full": "overflow",
        "overflow_full": "raise",
        "overflow_dir": str(bed.directory / "overflow"),
        "overflow_options": {"bytes_max": room * MIB},
        "memory_bytes_max": memory * MIB,
        "patience": 60.0,
    }
    disk_mib = bed.amount(512, 8192)
    with (
        ServedDisk(bed.directory / "disk", size_mib=disk_mib, bytes_per_s=DISK_MIB_S * MIB) as disk,
        Daemon(node(), disk.mount / "store", bed.directory / "daemon") as daemon,
    ):
        ground = Stage([daemon])
        with _client(bed, ground) as client:
            client.ask("begin", path="/run.pcs", **options)
            idle_s = client.ask("idle", turns=300)
            before = rss_bytes(client.pid)
            client.ask("film", frames=frames, side=SIDE, rate_hz=rate)
            ended = client.ask("finalise")
            grown = rss_bytes(client.pid, "VmHWM") - before
            client.collect()
        there = sum(name.startswith("frame") for name in names_on_disk([daemon.root], "run.pcs"))
        lost = ended["accepted"] - there
        p99_s = max(0.0, ended["p99_s"] - idle_s)
        figure = (
            f"lost {lost} of {ended['accepted']}, refused {ended['refused']} and counted {ended['counted']}, "
            f"RSS +{grown / MIB:.0f} of {budget} MiB, store_frame p99 {p99_s * 1000:.1f} ms over idle"
        )
        held = {
            "nothing is lost": not lost and not ended["lost"],
            "bounded memory": grown <= budget * MIB * RSS_MORE,
            "counted": ended["refused"] == ended["counted"] > 0 and there + ended["refused"] == frames,
            SLOW: p99_s <= STALL_P99_S,
        }
        outcome = ground.verdict("R35", figure, held)
    return Outcome(outcome.held, outcome.figure, (*outcome.details, *ended["errors"]))


@row(
    "R36", figure="lost 0: all is delivered after the restart; lost 0 of what overflowed when the client is killed too"
)
def nothing_up(bed: Bed) -> Outcome:
    """Kill all nodes while a camera streams, and start them again; once more, and kill the client while they are down."""
    down_s = bed.amount(DOWN_S, DOWN_LONG_S)
    top = bed.directory / "overflow"
    options = {"on_full": "overflow", "overflow_dir": str(top), "patience": 30.0}
    with stage(bed, 2) as ground:
        with _client(bed, ground) as client:
            client.ask("begin", path="/one.pcs", **options)
            client.ask("film", frames=0, side=SIDE, rate_hz=RATE_HZ)
            _down(ground, down_s)
            ended = client.ask("finalise", stop=True)
            client.collect()
        lost = ended["accepted"] - _frames(ground, "one.pcs")
        log = bed.directory / "overflowed"
        with _client(bed, ground, "killed") as client:
            client.ask("begin", path="/two.pcs", **options)
            client.ask("film", frames=0, side=SIDE, rate_hz=RATE_HZ, log=str(log))
            pause(0.5)
            for daemon in ground.daemons:
                daemon.kill()
            pause(down_s)
            client.kill()
        for daemon in ground.daemons:
            daemon.start()
        overflowed = [put_of(json.loads(line)) for line in log.read_text().splitlines()]
        ground.recorder.puts += overflowed
        said = _resume(top, bed.directory)
        lacking = []
        with ground.client("reader") as reader:
            for put in overflowed:
                try:
                    reader.get(put.path)
                except NotStored:
                    lacking.append(put.path)
        figure = (
            f"lost {lost} of {ended['accepted']} when nodes were down {down_s} s, {len(lacking)} of {len(overflowed)} "
            "overflowed when the client was killed too"
        )
        held = {
            "nothing is lost": not lost and not ended["lost"] and not ended["errors"],
            "nothing that overflowed is lost": not lacking,
            "something overflowed": len(overflowed) > RATE_HZ // 2,
            "nothing is left": not any(top.iterdir()),
        }
        outcome = ground.verdict("R36", figure, held)
    return Outcome(outcome.held, outcome.figure, (*outcome.details, *ended["errors"], *lacking[:3], said))


def _down(ground: Stage, seconds: float) -> None:
    """Kill every node, and start them again after *seconds*."""
    pause(0.5)
    for daemon in ground.daemons:
        daemon.kill()
    pause(seconds)
    for daemon in ground.daemons:
        daemon.start()
    pause(0.5)


def _frames(ground: Stage, series: str) -> int:
    return sum(name.startswith("frame") for name in names_on_disk((each.root for each in ground.daemons), series))


def _resume(top: Path, home: Path) -> str:
    """Deliver what lies in *top*; return what the command said."""
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home), "GRANUM_OVERFLOW_DIR": str(top)}
    began = time.monotonic()
    done = subprocess.run(
        (sys.executable, "-c", _RESUME, "overflow", "resume", "--no-discovery"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=RESUME_S,
    )
    return f"resumed in {time.monotonic() - began:.1f} s with status {done.returncode}: {(done.stdout + done.stderr)[-300:]}"
