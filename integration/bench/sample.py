"""One sample: one load on one server for a second or so, and what came of it.

A cell is what is asked of every server alike: verb, size of the files, shape of the load. A row of the table is one cell on one
server; each of its repetitions is a `Sample`.
"""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from integration.bench import programs
from integration.bench.peers import Peer, forget_peak, peak_mib

SIZES: Mapping[str, int] = {"8M": 8 << 20, "1M": 1 << 20, "64K": 64 << 10, "1K": 1 << 10}
# Files that a put leaves behind it before it removes them; warm-up as long, so that every page is an old one. Against a disk that
# syncs, pages do not matter and patience does.
WINDOW_OF_MEMORY: Mapping[str, int] = {"8M": 24, "1M": 128, "64K": 2000, "1K": 2000}
WINDOW_OF_DISK: Mapping[str, int] = {"8M": 16, "1M": 32, "64K": 64, "1K": 64}
FILES_TO_GET: Mapping[str, int] = {"8M": 8, "1M": 32, "64K": 256, "1K": 1024}
SAMPLE_MAX_S = 300.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How many connections, and how many requests outstanding on each."""

    connections: int
    depth: int

    def __str__(self) -> str:
        return f"c{self.connections}d{self.depth}"

    @property
    def in_flight(self) -> int:
        """Requests on their way at any moment."""
        return self.connections * self.depth


SHAPES = (Shape(4, 1), Shape(1, 8))


@dataclass(frozen=True, slots=True)
class Cell:
    """What is asked of every server alike; *verb* is 'put' or 'get', *size* a key of SIZES."""

    verb: str
    size: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.verb} {self.size} {self.shape}"

    @property
    def bytes(self) -> int:
        """Of one file."""
        return SIZES[self.size]


CELLS = tuple(Cell(verb, size, shape) for verb in ("put", "get") for size in SIZES for shape in SHAPES)


class Failed(Exception):
    """A load that did not end well; the text is what the generator said."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one load came to; latencies are of whole requests, CPU is the server's."""

    requests_per_s: float
    megabytes_per_s: float
    cpu_us_per_request: float
    cpu_s_per_gb: float
    client_us_per_request: float
    peak_mib: float
    p50_ms: float
    p99_ms: float
    errors: int
    requests: int

    def as_json(self) -> dict[str, float]:
        """Return it as JSON wants it."""
        return asdict(self)


def load_peer(cell: Cell, peer: Peer, name: str, body: Path, seconds: float, *, on_disk: bool) -> Sample:
    """Load *peer* with *cell* for *seconds*; its files lie in the directory *name*, those of a get are there already."""
    pids = peer.pids
    forget_peak(pids)
    window = (WINDOW_OF_DISK if on_disk else WINDOW_OF_MEMORY)[cell.size]
    directory = peer.root / name
    directory.mkdir(exist_ok=True)
    said = run(
        "load",
        **_target(cell, peer, name, body),
        seconds=seconds,
        pids=",".join(map(str, pids)),
        **({"files": FILES_TO_GET[cell.size], "warm": FILES_TO_GET[cell.size]} if cell.verb == "get" else {}),
        **({"window": window, "warm": window, "directory": directory} if cell.verb == "put" else {}),
    )
    if cell.verb == "put":
        directory.rmdir()
    return _sample(said, peak_mib(pids))


def fill(size: str, peer: Peer, name: str, body: Path) -> None:
    """Put the files of a get into the directory *name*."""
    directory = peer.root / name
    directory.mkdir()
    cell, count = Cell("put", size, Shape(1, 1)), FILES_TO_GET[size]
    _count(run("load", **_target(cell, peer, name, body), count=count, keep=1, directory=directory), count)


def verify(size: str, peer: Peer, name: str, body: Path) -> None:
    """Compare every byte of what `fill` left on the disk, and of what comes back; raise Failed when one is wrong."""
    cell, count = Cell("get", size, Shape(2, 2)), FILES_TO_GET[size]
    _count(run("load", **_target(cell, peer, name, body), count=count, files=count, verify=1), count)
    expected = body.read_bytes()[: SIZES[size]]
    if not all(file.read_bytes() == expected for file in (peer.root / name).iterdir()):
        raise Failed("what it stored is not what was put")


def load_disk(cell: Cell, directory: Path, body: Path, seconds: float) -> Sample:
    """Write and sync files below *directory* from as many threads as *cell* has requests in flight; no server."""
    window = WINDOW_OF_DISK[cell.size]
    sizes = {"size": cell.bytes, "threads": cell.shape.in_flight, "window": window, "warm": window}
    return _sample(run("sync", directory=directory, body=body, seconds=seconds, **sizes), 0.0)


def _target(cell: Cell, peer: Peer, name: str, body: Path) -> dict[str, object]:
    shape = {"connections": cell.shape.connections, "depth": cell.shape.depth}
    return {"verb": cell.verb, "port": peer.port, "base": f"/{name}/", "size": cell.bytes, "body": body, **shape}


def run(program: str, **settings: object) -> Mapping[str, float]:
    """Run the C *program* with *settings*; return what it said, raise Failed when it ended badly."""
    command = [str(programs.compiled(program)), *(f"{key}={value}" for key, value in settings.items())]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SAMPLE_MAX_S)
    if done.returncode:
        raise Failed(done.stderr.strip() or f"{program} ended with {done.returncode}")
    said: Mapping[str, float] = json.loads(done.stdout)
    return said


def _count(said: Mapping[str, float], wanted: int) -> None:
    if said["errors"] or said["done"] != wanted:
        raise Failed(f"{said['done']} of {wanted} requests done, {said['errors']} errors")


def _sample(said: Mapping[str, float], peak: float) -> Sample:
    requests = said["requests"]
    if not requests:
        raise Failed("nothing was done in time")
    megabytes = said["bytes"] / 1e6
    return Sample(
        requests_per_s=requests / said["seconds"],
        megabytes_per_s=megabytes / said["seconds"],
        cpu_us_per_request=said["server_cpu_s"] / requests * 1e6,
        cpu_s_per_gb=said["server_cpu_s"] / megabytes * 1e3,
        client_us_per_request=said["client_cpu_s"] / requests * 1e6,
        peak_mib=peak,
        p50_ms=said["p50_us"] / 1e3,
        p99_ms=said["p99_us"] / 1e3,
        errors=int(said["errors"]),
        requests=int(requests),
    )
