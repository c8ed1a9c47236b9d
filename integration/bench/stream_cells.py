"""The cells of `make bench-stream`, who takes part in each, and what is kept of it: values alone.

A cell is what is asked of every client alike: to stream frames of one size to a sink or to so many nodes, or to read them back.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from integration.bench.contest import DIGEST
from integration.bench.fleets import kinds
from integration.bench.peers import Mode

SIZES: Mapping[str, int] = {"8M": 8 << 20, "512K": 512 << 10, "64K": 64 << 10}
SHAPES: Mapping[str, tuple[int, int]] = {"8M": (2048, 2048), "512K": (512, 512), "64K": (128, 256)}
# Frames that stay behind the newest, and that go ahead of the clock; see `sample`. A disk that syncs needs patience, not pages.
WINDOW_OF_MEMORY: Mapping[str, int] = {"8M": 24, "512K": 256, "64K": 2000}
WINDOW_OF_DISK: Mapping[str, int] = {"8M": 16, "512K": 48, "64K": 96}
STORED: Mapping[str, int] = {"8M": 32, "512K": 256, "64K": 1024}  # frames of a series that is verified and read back
TARGETS = ("sink", "1 node", "3 nodes")


@dataclass(frozen=True, slots=True)
class StreamCell:
    """What is asked of every client alike; *verb* is 'stream' or 'read', *to* one of TARGETS."""

    verb: str
    size: str
    to: str

    def __str__(self) -> str:
        return f"{self.verb} {self.size} {self.to}"

    @property
    def bytes(self) -> int:
        """Of the pixels of one frame."""
        return SIZES[self.size]

    @property
    def nodes(self) -> int:
        """How many there are; a sink is one."""
        return 3 if self.to == "3 nodes" else 1


CELLS = (
    *(StreamCell("stream", size, to) for to in TARGETS for size in SIZES),
    *(StreamCell("read", size, "3 nodes") for size in SIZES),
)


@dataclass(frozen=True, slots=True)
class Client:
    """One line of the table in the cells of *verb* to *to*: *by* says how it works, *fleet* what kind of nodes it has."""

    name: str
    verb: str
    to: tuple[str, ...]
    fleet: str
    by: str

    def takes_part(self, cell: StreamCell) -> bool:
        """Whether it has a line in *cell*."""
        return cell.verb == self.verb and cell.to in self.to


FRAMES, FILES, PYME_STREAM = "granum store_frame", "granum files", "PYME Stream"
RELAXED, COMMIT, PYME = "granum relaxed", "granum commit", "PYME Streamer"
PREFETCH, BYPASS, PYME_READ, PLAIN = "granum prefetch", "granum bypass", "PYME data source", "limit: plain files"
LIMIT_SEND, LIMIT_NODE = "limit: writev", "limit: recv+write"
_NODES = ("1 node", "3 nodes")
CLIENTS = (
    Client(FRAMES, "stream", ("sink",), "sink", "frames"),
    Client(FILES, "stream", ("sink",), "sink", "files"),
    Client(PYME_STREAM, "stream", ("sink",), "sink", "pyme"),
    Client(LIMIT_SEND, "stream", ("sink",), "sink", "load"),
    Client(RELAXED, "stream", _NODES, "relaxed", "frames"),
    Client(COMMIT, "stream", _NODES, "commit", "frames"),
    Client(PYME, "stream", _NODES, "pyme", "pyme"),
    Client(LIMIT_NODE, "stream", ("1 node",), "ceiling", "load"),
    Client(PREFETCH, "read", ("3 nodes",), "relaxed", "read"),
    Client(PYME_READ, "read", ("3 nodes",), "pyme", "pyme-read"),
    Client(BYPASS, "read", ("3 nodes",), "relaxed", "bypass"),
    Client(PLAIN, "read", ("3 nodes",), "relaxed", "plain"),
)


@dataclass(frozen=True, slots=True)
class StreamSample:
    """What one stream, or one time of reading, came to. *lost* counts frames handed over that have no good reply."""

    frames_per_s: float
    megabytes_per_s: float
    client_s_per_gb: float
    node_s_per_gb: float
    client_peak_mib: float
    node_peak_mib: float
    lost: int
    frames: int

    def as_json(self) -> dict[str, float]:
        """Return it as JSON wants it."""
        return asdict(self)


@dataclass(slots=True)
class StreamResults:
    """Samples by (cell, client) and repetition; (lost, stored) of the series verified; what cameras met; what is absent."""

    samples: dict[tuple[str, str], dict[int, StreamSample]] = field(default_factory=dict)
    verified: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    cameras: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def median_rate(self, cell: str, client: str) -> float:
        """Return the median of frames/s, 0 when it was not measured."""
        rates = sorted(each.frames_per_s for each in self.samples.get((cell, client), {}).values())
        return rates[len(rates) // 2] if rates else 0.0


def mode_of(client: Client) -> Mode:
    """Return what the nodes of *client* do for a put."""
    return kinds(DIGEST)[client.fleet][3]


def place_of(client: Client) -> str:
    """Return where the stores of *client* lie."""
    return kinds(DIGEST)[client.fleet][2]
