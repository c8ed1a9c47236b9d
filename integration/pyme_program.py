"""PYME's own client, doing what it is told: a request on each line of standard input, an answer on each line of output.

Run by the interpreter of PYME's environment (`integration.bench.programs.pyme`), so that it imports nothing of this project;
`integration.pyme` is the other side. Bodies are in base64, arrays in files.
"""

import base64
import itertools
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PYME.IO import acquisition_backends, cluster_streaming, clusterIO
from PYME.IO.DataSources import ClusterPZFDataSource

REPLY_WAIT_S = 120.0  # for the replies to all that was streamed
Address = Sequence[Any]  # [address, port], as JSON has it


class Replies:
    """Counts the replies that PYME's streams read, which they tell nobody about."""

    def __init__(self) -> None:
        self.good = self.bad = 0
        self._changed = threading.Condition()
        self._parse = clusterIO._parse_response  # noqa: SLF001 - the one place that every reply passes
        clusterIO._parse_response = self._counted  # noqa: SLF001

    def _counted(self, *arguments: Any) -> Any:
        parsed = self._parse(*arguments)
        with self._changed:
            if int(parsed[0]) == 200:
                self.good += 1
            else:
                self.bad += 1
            self._changed.notify_all()
        return parsed

    def wait(self, total: int) -> None:
        """Wait until *total* replies have come, or none for REPLY_WAIT_S."""
        with self._changed:
            while self.good + self.bad < total:
                if not self._changed.wait(REPLY_WAIT_S):
                    raise RuntimeError(f"{total - self.good - self.bad} replies never came")


replies = Replies()


def put(name: str, body: str, cluster: str) -> None:
    """Store one file."""
    clusterIO.put_file(name, base64.b64decode(body), cluster)


def put_files(files: dict[str, str], cluster: str) -> None:
    """Store several on one connection."""
    clusterIO.put_files([(name, base64.b64decode(body)) for name, body in files.items()], cluster)


def get(name: str, cluster: str) -> str:
    """Fetch one file."""
    body = clusterIO.get_file(name, cluster, use_file_cache=False)
    return base64.b64encode(body).decode()


def listdirectory(name: str, cluster: str) -> dict[str, list[int]]:
    """Return name -> [flags, size]."""
    return {key: [int(each.type), int(each.size)] for key, each in clusterIO.listdirectory(name, cluster).items()}


def listdir(name: str, cluster: str) -> list[str]:
    """Return the sorted names."""
    names: list[str] = clusterIO.listdir(name, cluster)
    return names


def walk(name: str, cluster: str) -> list[Any]:
    """Return all of an `os.walk` below *name*."""
    return [[top, sorted(below), sorted(files)] for top, below, files in clusterIO.walk(name, serverfilter=cluster)]


def status(cluster: str) -> list[dict[str, Any]]:
    """Return what each node says of itself, as far as PYME's programs need it."""
    wanted = ("Responsive", "Disk", "ComputerName")
    return [{key: node.get(key) for key in wanted} for node in clusterIO.get_status(cluster)]


def stream(servers: Sequence[Address], files: dict[str, str], cluster: str, idle_s: float = 0.0) -> None:
    """Stream *files* round robin, then close *idle_s* later, as PYME's programs do: at once."""
    streamer = cluster_streaming.Streamer(cluster, servers=_tuples(servers))
    for number, (name, body) in enumerate(files.items()):
        streamer.put(name, base64.b64decode(body), i=number)
    threading.Event().wait(idle_s)
    streamer.close()


def stream_many(
    servers: Sequence[Address], ring: str, size: int, directory: str, frames: int, *, wait: bool = False
) -> None:
    """Stream *frames* bodies of *size* bytes from the file *ring* into *directory*; close at once, or behind all replies."""
    before = replies.good + replies.bad
    streamer = cluster_streaming.Streamer("", servers=_tuples(servers))
    bodies = _ring(ring, size)
    for number in range(frames):
        streamer.put(f"{directory}/frame{number:05d}.pzf", bodies[number % len(bodies)], i=number)
    if wait:
        replies.wait(before + frames)
    streamer.close()


def stream_timed(
    servers: Sequence[Address],
    ring: str,
    size: int,
    directories: Sequence[str],
    warm: int,
    seconds: float,
    pids: Sequence[int],
) -> dict[str, float]:
    """Stream *warm* bodies into the first of *directories*, then measure *seconds* of it into the other; count every reply."""
    bodies = _ring(ring, size)
    if len(servers) == 1:
        one = cluster_streaming.Stream(*_tuples(servers)[0])
        send: Callable[[str, bytes, int], None] = lambda name, body, _: one.put(name, body)  # noqa: E731
        close = one.close
    else:
        many = cluster_streaming.Streamer("", servers=_tuples(servers))
        send = lambda name, body, number: many.put(name, body, i=number)  # noqa: E731
        close = many.close
    before, refused = replies.good + replies.bad, replies.bad
    for number in range(warm):
        send(f"{directories[0]}/frame{number:05d}.pzf", bodies[number % len(bodies)], number)
    replies.wait(before + warm)
    good = replies.good
    began, own, theirs = time.monotonic(), _own_cpu_s(), _cpu_s(pids)
    frames = 0
    for number in itertools.count():
        send(f"{directories[1]}/frame{number:05d}.pzf", bodies[number % len(bodies)], number)
        frames += 1
        if time.monotonic() - began >= seconds:
            break
    replies.wait(before + warm + frames)
    ended, own_ended, theirs_ended = time.monotonic(), _own_cpu_s(), _cpu_s(pids)
    close()
    return {
        "frames": frames,
        "receipted": replies.good - good,
        "errors": replies.bad - refused,
        "seconds": ended - began,
        "client_cpu_s": own_ended - own,
        "node_cpu_s": theirs_ended - theirs,
    }


def record(name: str, frames: str, cluster: str) -> None:
    """Record the array in the file *frames*, its first axis the number, as the series *name*."""
    movie = np.load(frames)
    backend = acquisition_backends.ClusterBackend(name, serverfilter=cluster, dtype=str(movie.dtype))
    backend.mdh["Camera.Name"] = "PYME"
    backend.initialise()
    for number, frame in enumerate(movie):
        backend.store_frame(number, np.ascontiguousarray(frame))
    threading.Event().wait(2.0)  # its streams forget what they have not sent when they are closed at once
    backend.event_logger.logEvent("laser", "on")
    backend.finalise()


def read(url: str, into: str) -> dict[str, Any]:
    """Read the series *url*; save its frames to the file *into*, return its metadata."""
    source = ClusterPZFDataSource.DataSource(url)
    np.save(into, np.stack([np.array(source.getSlice(number)) for number in range(source.getNumSlices())]))
    return {"frames": int(source.getNumSlices())}


def read_timed(url: str, seconds: float, pids: Sequence[int]) -> dict[str, float]:
    """Read the series *url* frame by frame, again and again for *seconds*, after one round that is not measured."""
    source = ClusterPZFDataSource.DataSource(url)
    count, size, frames = source.getNumSlices(), 0, 0
    for number in range(count):
        size = np.array(source.getSlice(number)).nbytes
    began, own, theirs = time.monotonic(), _own_cpu_s(), _cpu_s(pids)
    while time.monotonic() - began < seconds:
        source.getSlice(frames % count)
        frames += 1
    ended = time.monotonic()
    cpu = {"client_cpu_s": _own_cpu_s() - own, "node_cpu_s": _cpu_s(pids) - theirs}
    return {"frames": frames, "size": size, "seconds": ended - began, **cpu}


VERBS: dict[str, Callable[..., Any]] = {
    "put": put,
    "put_files": put_files,
    "get": get,
    "listdirectory": listdirectory,
    "listdir": listdir,
    "exists": lambda name, cluster: bool(clusterIO.exists(name, cluster)),
    "isdir": lambda name, cluster: bool(clusterIO.isdir(name, cluster)),
    "size": lambda name, cluster: int(clusterIO.stat(name, cluster).st_size),
    "cglob": lambda pattern, cluster: sorted(clusterIO.cglob(pattern, cluster)),
    "locate": lambda name, cluster: [url for url, _ in clusterIO.locate_file(name, cluster)],
    "walk": walk,
    "status": status,
    "stream": stream,
    "stream_many": stream_many,
    "stream_timed": stream_timed,
    "record": record,
    "read": read,
    "read_timed": read_timed,
}


def _tuples(servers: Sequence[Address]) -> list[tuple[str, int]]:
    return [(str(address), int(port)) for address, port in servers]


def _ring(file: str, size: int) -> list[bytes]:
    with open(file, "rb") as opened:
        return list(iter(lambda: opened.read(size), b""))


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _cpu_s(pids: Sequence[int]) -> float:
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)  # the kernel's number of a process's CPU clock


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # PYME prints what it does
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            said = {"answer": VERBS[asked.pop("verb")](**asked)}
        except Exception as error:  # noqa: BLE001 - told to who asked
            said = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(said), file=answers)


if __name__ == "__main__":
    main()
