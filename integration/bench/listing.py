"""Listings of a large directory: how long the first one takes, how long the next ones, and what else waits meanwhile.

Cold is the first listing by a server that has just started, warm the median of those that follow. The directory is made behind
the server's back before it starts, so nothing about it is known to it.
"""

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from integration.bench import programs
from integration.bench.peers import Granum, Peer
from integration.bench.sample import Failed

NAME = "many"
PING_S = 3.0
WARM = 5


@dataclass(frozen=True, slots=True)
class Listed:
    """One server's listings; waits are of `/__healthz` while listings run back to back, 0 where the server has no such."""

    cold_ms: float
    warm_ms: float
    idle_p99_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    bytes: int


def make_directory(root: Path, entries: int) -> None:
    """Make a directory of *entries* small files below *root*."""
    directory = root / NAME
    directory.mkdir(parents=True)
    for number in range(entries):
        (directory / f"frame{number:06d}.pzf").write_bytes(b"x")


def measure(peer: Peer, entries: int, ping_s: float = PING_S) -> Listed:
    """Start *peer* and list its directory of *entries*; raise Failed when one listing is not whole."""
    idle: dict[str, float] = {}
    busy: dict[str, float] = {}
    with peer:
        if isinstance(peer, Granum):
            idle = _pinged(peer.port, ping_s / 3)
        cold_ms, body = _list(peer.port)
        if len(json.loads(body)) != entries:
            raise Failed(f"a listing of {len(json.loads(body))} entries instead of {entries}")
        warm_ms = statistics.median(_list(peer.port)[0] for _ in range(WARM))
    if isinstance(peer, Granum):
        with peer:  # once more from nothing, so that the first listing is among those that others wait for
            busy = _pinged(peer.port, ping_s, lambda: _list(peer.port))
    return Listed(
        cold_ms=cold_ms,
        warm_ms=warm_ms,
        idle_p99_ms=idle.get("p99_ms", 0.0),
        p50_ms=busy.get("p50_ms", 0.0),
        p99_ms=busy.get("p99_ms", 0.0),
        max_ms=busy.get("max_ms", 0.0),
        bytes=len(body),
    )


def _list(port: int) -> tuple[float, bytes]:
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", f"/{NAME}/")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise Failed(f"a listing was answered with {response.status}")
        return (time.perf_counter() - began) * 1e3, body
    finally:
        connection.close()


def _pinged(port: int, seconds: float, work: Callable[[], object] | None = None) -> dict[str, float]:
    """Return how long `/__healthz` took for *seconds*, in which *work* was done over and over."""
    command = (sys.executable, str(programs.HERE / "ping.py"), str(port), "/__healthz", str(seconds))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while process.poll() is None:
            if work is None:
                process.wait()
            else:
                work()
        said: dict[str, float] = json.loads(process.stdout.readline() or "{}")
    if process.returncode:
        raise Failed("the node did not answer /__healthz")
    return said
