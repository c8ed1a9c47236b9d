"""The client under load: one program that streams or reads with granum's client as told, then prints one line of JSON.

A process of its own for each sample, so that its CPU and memory are the client's and nobody else's. What it measures begins
behind a warm-up in which nothing is counted, and ends when everything handed over has its receipt.

    python -m integration.bench.camera '{"verb": "stream", ...}'
"""

import itertools
import json
import resource
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from twisted.internet.defer import Deferred

import granum
from granum.blocking import Cluster as BlockingCluster
from granum.cluster import Cluster
from granum.streaming.series import SeriesWriter, frame_name
from granum.streaming.streamer import Streamer
from granum.wire.errors import NodeBusy
from granum.wire.paths import ClusterPath

Measures = dict[str, Any]  # JSON
Ring = npt.NDArray[np.uint16]


class Meter:
    """Wall time and CPU of this process and of *pids* since it was made; the peak of memory begins again then."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        Path("/proc/self/clear_refs").write_text("5")
        self._began = time.monotonic()
        self._own, self._theirs = _own_cpu_s(), _cpu_s(pids)

    @property
    def elapsed(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._began

    def read(self) -> Measures:
        """Return what has passed."""
        rows = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(row.split()[1]) for row in rows if row.startswith("VmHWM:"))
        return {
            "seconds": self.elapsed,
            "client_cpu_s": _own_cpu_s() - self._own,
            "node_cpu_s": _cpu_s(self._pids) - self._theirs,
            "client_peak_mib": peak / 1024,
        }


def stream(asked: Mapping[str, Any]) -> Measures:
    """Stream *warm* frames into the first of *directories*, then measure *seconds* of it into the second.

    *by* is 'frames' for the series writer, from an array to the marker of completeness, or 'files' for the streamer beneath
    it, which is handed bodies that are encoded already.
    """
    ring = _ring(asked)
    bodies = [Path(asked["encoded"]).read_bytes()] if asked["by"] == "files" else []
    size = asked["encoded_size"]
    bodies = [body[at : at + size] for body in bodies for at in range(0, len(body), size)]
    with _connected(asked) as blocking:

        async def run(cluster: Cluster) -> Measures:
            warm, timed = asked["directories"]
            if asked["by"] == "frames":
                await _frames(cluster, warm, ring, lambda n: n < asked["warm"])
                return await _frames(cluster, timed, ring, None, asked)
            streamer = Streamer(cluster.roster.nodes, reactor=cluster.reactor, ledger=cluster.ledger)
            await _files(streamer, warm, bodies, lambda n: n < asked["warm"])
            await streamer.flush()
            receipted, meter = streamer.summary.puts, Meter(asked["pids"])
            frames = await _files(streamer, timed, bodies, lambda _: meter.elapsed < asked["seconds"])
            await streamer.flush()
            measures = {"frames": frames, "receipted": streamer.summary.puts - receipted, **meter.read()}
            await streamer.close()
            return measures

        return blocking.call(lambda cluster: Deferred.fromCoroutine(run(cluster)))


def store(asked: Mapping[str, Any]) -> Measures:
    """Store the series *directory* of so many *frames*; nothing is measured."""
    ring = _ring(asked)
    with _connected(asked) as cluster, cluster.create_series(asked["directory"]) as series:
        for number in range(asked["frames"]):
            series.store_frame(number, ring[number % len(ring)], copy=False)
        summary = series.finalise()
    return {"frames": asked["frames"], "receipted": summary.puts}


def paced(asked: Mapping[str, Any]) -> Measures:
    """Be a camera that cannot be slowed: *rate* frames a second for *seconds*, each handed over when it is due.

    What the client refuses is counted and gone. The buffer of a frame is the camera's again when `store_frame` returns, so
    the client copies it.
    """
    ring, due_in, waits, refused, late = _ring(asked), 1 / asked["rate"], [], 0, 0.0
    clock = threading.Event()
    with _connected(asked) as cluster:
        series = cluster.create_series(asked["directories"][1], shape=ring.shape[1:], dtype=ring.dtype, on_full="raise")
        meter = Meter(asked["pids"])
        for number in range(int(asked["seconds"] * asked["rate"])):
            ahead = number * due_in - meter.elapsed
            if ahead > 0:
                clock.wait(ahead)
            late = max(late, -ahead)
            began = time.perf_counter()
            try:
                series.store_frame(number, ring[number % len(ring)])
            except NodeBusy:
                refused += 1
            waits.append(time.perf_counter() - began)
        streamed = meter.read()
        summary = series.finalise()
    waits.sort()
    return {
        **streamed,
        "frames": len(waits),
        "refused": refused,
        "receipted": summary.puts,
        "late_max_ms": late * 1e3,
        **{f"p{q}_ms": waits[min(len(waits) * q // 100, len(waits) - 1)] * 1e3 for q in (50, 99)},
        "max_ms": waits[-1] * 1e3,
    }


def read(asked: Mapping[str, Any]) -> Measures:
    """Read the series *directory* from end to end, again and again for *seconds*, by HTTP or from *local_stores*."""
    with _connected(asked) as cluster:
        series = cluster.series(asked["directory"])
        # `id` lets a frame go before the next one is read, as `plain` does; who holds one reads into two buffers in turn.
        return _rounds(lambda: sum(1 for _ in map(id, series)), asked)


def plain(asked: Mapping[str, Any]) -> Measures:
    """Read the same files with open and read, in the order of frames: what the disk and the interpreter leave to a bypass."""
    files = sorted(file for root in asked["roots"] for file in Path(root, asked["directory"]).glob("*.pzf"))
    files.sort(key=lambda file: file.name)
    header = asked["encoded_size"] - asked["size"]

    def all_of_them() -> int:
        for file in files:
            with open(file, "rb") as opened:
                np.frombuffer(opened.read(), np.uint16, offset=header)
        return len(files)

    return _rounds(all_of_them, asked)


VERBS: Mapping[str, Callable[[Mapping[str, Any]], Measures]] = {
    "stream": stream,
    "store": store,
    "paced": paced,
    "read": read,
    "plain": plain,
}


def _rounds(once: Callable[[], int], asked: Mapping[str, Any]) -> Measures:
    once()
    meter, frames = Meter(asked["pids"]), 0
    while meter.elapsed < asked["seconds"]:
        frames += once()
    return {"frames": frames, "receipted": frames, **meter.read()}


async def _frames(
    cluster: Cluster,
    directory: str,
    ring: Ring,
    wanted: Callable[[int], bool] | None,
    asked: Mapping[str, Any] | None = None,
) -> Measures:
    writer = await SeriesWriter.create(cluster, directory)
    meter = Meter(asked["pids"] if asked else ())
    if wanted is None:
        seconds = asked["seconds"] if asked else 0.0
        wanted = lambda _: meter.elapsed < seconds  # noqa: E731
    frames = await _each(wanted, lambda n: writer.store_frame(n, ring[n % len(ring)], copy=False))
    summary = await writer.finalise()
    return {"frames": frames, "receipted": summary.puts, **meter.read()}


async def _files(streamer: Streamer, directory: str, bodies: Sequence[bytes], wanted: Callable[[int], bool]) -> int:
    below = ClusterPath.parse(directory)
    return await _each(wanted, lambda n: streamer.put(below / frame_name(n), (bodies[n % len(bodies)],), n))


async def _each(wanted: Callable[[int], bool], put: Callable[[int], Awaitable[object]]) -> int:
    for number in itertools.count():
        if not wanted(number):
            return number
        await put(number)
    raise AssertionError("numbers do not end")


def _connected(asked: Mapping[str, Any]) -> BlockingCluster:
    hosts = asked["hosts"]
    stores = asked.get("local_stores", ())
    return granum.connect("", nodes=hosts, expect=len(hosts), discover=False, local_stores=stores, bypass=bool(stores))


def _ring(asked: Mapping[str, Any]) -> Ring:
    return np.fromfile(asked["ring"], np.uint16).reshape(-1, *asked["shape"])


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _cpu_s(pids: Sequence[int]) -> float:
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)  # the kernel's number of a process's CPU clock


def main() -> None:
    """Do what the one argument says; print what came of it."""
    asked = json.loads(sys.argv[1])
    print(json.dumps(VERBS[asked["verb"]](asked)))


if __name__ == "__main__":
    main()
