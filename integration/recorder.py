"""The recorder: a client whose every operation becomes part of a history, for `integration.history` to judge.

It wraps the blocking face and changes nothing of what the caller sees: results and errors come through as they are. Where an
outcome is not known it says so, and never guesses. What lies in the stores in the end is swept from the disks themselves.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xxhash

from granum import blocking
from granum.roster import Node
from granum.streaming.account import Summary
from granum.streaming.series import EVENTS, FINAL_METADATA, METADATA, frame_name
from granum.transfer import Receipt
from granum.union import UnionView
from granum.wire import frame as pzf
from granum.wire.errors import (
    AlreadyStored,
    GranumError,
    NodeBusy,
    NodeUnreachable,
    NoNode,
    NoSpace,
    NotReceipted,
    NotStored,
    OnSomeNodes,
    Partial,
    PreconditionFailed,
)
from integration.history import Final, History, Listed, Outcome, Put, Read, Streamed, anomalies, kept

HISTORIES = Path(__file__).parents[1] / "build" / "histories"
REFUSED = (AlreadyStored, PreconditionFailed)
NOTHING_STORED = (NodeBusy, NodeUnreachable, NoNode, NoSpace, OnSomeNodes, Partial)
NOT_OURS = frozenset({".granum", "lost+found"})


def digest_of(body: bytes) -> str:
    """Return what *body* is recognised by."""
    return xxhash.xxh3_128_hexdigest(body)


def outcome_of(error: BaseException) -> Outcome:
    """Return what *error*, which a put ended with, says of what is stored."""
    if isinstance(error, REFUSED):
        return Outcome.REFUSED
    is_unknown = isinstance(error, NotReceipted) or not isinstance(error, NOTHING_STORED)
    return Outcome.INFO if is_unknown else Outcome.FAIL


class Recorder:
    """Collects what all clients of a run see; usable from any thread."""

    def __init__(self) -> None:
        self.puts: list[Put] = []
        self.reads: list[Read] = []
        self.listings: list[Listed] = []
        self.streams: list[Streamed] = []
        self.doubled: set[str] = set()
        self.collisions: set[str] = set()

    @property
    def operations(self) -> int:
        """How many there are."""
        return len(self.puts) + len(self.reads) + len(self.listings)

    def history(self, final: Final) -> History:
        """Return all that was seen, with what was found in the end."""
        collisions, doubled = frozenset(self.collisions), frozenset(self.doubled)
        return History(self.puts, self.reads, self.listings, self.streams, final, collisions, doubled)

    def judged(self, name: str, stores: Mapping[str, Path] | None = None, since: float = float("inf")) -> list[str]:
        """Sweep *stores* and return every anomaly of the row *name*; its history is kept, and the last line replays it.

        That of a control, which has no *name*, is not.
        """
        history = self.history(Final(since, swept(stores) if stores else {}))
        found = anomalies(history)
        if found and name:
            found.append(kept(history, HISTORIES / f"{name}-{os.getpid()}-{time.time_ns()}.json"))
        return found


def swept(stores: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Return the digests of all files in *stores*: cluster path -> name of the store -> digest."""
    found: dict[str, dict[str, str]] = {}
    for name, root in stores.items():
        for directory, below, files in os.walk(root):
            if Path(directory) == root:
                below[:] = [each for each in below if each not in NOT_OURS]
            for each in files:
                file = Path(directory, each)
                found.setdefault(f"/{file.relative_to(root)}", {})[name] = digest_of(file.read_bytes())
    return found


class Recorded:
    """*cluster*, whose verbs are recorded as those of the client *name*."""

    def __init__(self, cluster: blocking.Cluster, recorder: Recorder, name: str = "client") -> None:
        self.cluster = cluster
        self.recorder = recorder
        self.name = name

    def put(self, path: str, body: bytes, *, node: Node | None = None) -> Receipt:
        """Put; as `granum.blocking.Cluster.put`."""
        began = time.monotonic()

        def note(outcome: Outcome, host: str = "") -> None:
            put = Put(path, digest_of(body), len(body), began, time.monotonic(), outcome, host)
            self.recorder.puts.append(put)

        try:
            receipt = self.cluster.put(path, body, node=node)
        except BaseException as error:
            note(outcome_of(error))
            raise
        note(Outcome.OK, receipt.node.host)
        return receipt

    def get(self, path: str) -> bytes:
        """Get; as `granum.blocking.Cluster.get`."""
        began = time.monotonic()
        try:
            body = self.cluster.get(path)
        except NotStored:
            self.recorder.reads.append(Read(path, None, began, time.monotonic(), self.name))
            raise
        self.recorder.reads.append(Read(path, digest_of(body), began, time.monotonic(), self.name))
        return body

    def listdir(self, directory: str) -> UnionView:
        """List *directory*, '/' or '/a/'; as `granum.blocking.Cluster.listdir`."""
        began = time.monotonic()
        view = self.cluster.listdir(directory)
        sizes = {name: view[name].size for name in view if not view[name].is_directory}
        listed = Listed(directory, sizes, began, time.monotonic(), complete=not view.partial)
        self.recorder.listings.append(listed)
        return view

    def note_collisions(self) -> set[str]:
        """Take in, and return, the paths of the collisions that this client has reported."""
        found = {str(directory / collision.name) for directory, collision in self.cluster.collisions()}
        self.recorder.collisions |= found
        return found

    def create_series(self, path: str, **options: Any) -> "RecordedSeries":  # Any: those of the client
        """Begin a series; as `granum.blocking.Cluster.create_series`."""
        began = time.monotonic()
        writer = self.cluster.create_series(path, **options)
        image_id = json.loads(self._noted(f"{path}/{METADATA}", began))["imageID"]

        def complete(since: float) -> None:
            for name in (FINAL_METADATA, EVENTS):
                self._noted(f"{path}/{name}", since)

        return RecordedSeries(writer, path, image_id, self.recorder, options.get("compression", "raw"), complete)

    def _noted(self, path: str, began: float) -> bytes:
        """Note as put what the client itself has stored as *path* since *began*; return it."""
        body = self.cluster.get(path)
        put = Put(path, digest_of(body), len(body), began, time.monotonic(), Outcome.OK)
        self.recorder.puts.append(put)
        return body


class RecordedSeries:
    """A series being streamed: each frame becomes a put, whose outcome is known when the series ends."""

    def __init__(
        self,
        writer: blocking.SeriesWriter,
        path: str,
        image_id: int,
        recorder: Recorder,
        compression: Literal["raw", "huffman"],
        complete: Callable[[float], None],
    ) -> None:
        self.refused = 0  # frames that `store_frame` did not take
        self.summary: Summary | None = None
        self._writer = writer
        self._path = path
        self._image_id = image_id
        self._recorder = recorder
        self._compression: Literal["raw", "huffman"] = compression
        self._complete = complete
        self._taken: dict[str, tuple[str, int, float]] = {}  # digest, size, when it was handed over
        self._lock = threading.Lock()

    @property
    def accepted(self) -> int:
        """How many frames were taken."""
        return len(self._taken)

    def unknown(self, number: int) -> Put:
        """Return the put of frame *number*, which was taken, as it stands while nothing is known of its outcome."""
        path = f"{self._path}/{frame_name(number)}"
        digest, size, began = self._taken[path]
        return Put(path, digest, size, began, time.monotonic(), Outcome.INFO)

    def store_frame(self, number: int, frame: npt.NDArray[Any]) -> Node | None:
        """Hand over one frame; as `granum.blocking.SeriesWriter.store_frame`."""
        pieces = pzf.encode(frame, frame_number=number, sequence_id=self._image_id, compression=self._compression)
        body = b"".join(bytes(piece) for piece in pieces)
        path = f"{self._path}/{frame_name(number)}"
        taken = digest_of(body), len(body), time.monotonic()
        try:
            node = self._writer.store_frame(number, frame)
        except GranumError:
            self.refused += 1
            self._note(path, taken, Outcome.FAIL)
            raise
        self._taken[path] = taken
        return node

    def finalise(self) -> Summary:
        """Finalise; as `granum.blocking.SeriesWriter.finalise`."""
        began = time.monotonic()
        try:
            self.summary = self._writer.finalise()
        except NotReceipted as error:
            self._end(delivered=len(self._taken), reported=set(error.paths))
            raise
        except BaseException:
            self.lost()
            raise
        self._recorder.doubled |= {str(moved.path) for moved in self.summary.moved}
        self._end(delivered=self.summary.puts, reported=set())
        self._complete(began)
        return self.summary

    def abort(self) -> None:
        """Abort; nothing is said of any frame."""
        self._writer.abort()
        self.lost()

    def lost(self) -> None:
        """Note that nobody said what became of the frames."""
        for path, taken in self._taken.items():
            self._note(path, taken, Outcome.INFO)

    def _end(self, delivered: int, reported: set[str]) -> None:
        """Note the outcome of every frame; *delivered* is how many the summary counts, of which those that failed are none."""
        told = [path for path in self._taken if path not in reported][:delivered]
        self._recorder.streams.append(Streamed(list(self._taken), told, sorted(reported)))
        for path, taken in self._taken.items():
            self._note(path, taken, Outcome.INFO if path in reported else Outcome.OK)

    def _note(self, path: str, taken: tuple[str, int, float], outcome: Outcome) -> None:
        digest, size, began = taken
        self._recorder.puts.append(Put(path, digest, size, began, time.monotonic(), outcome))


def noise(shape: tuple[int, int], seed: int = 1) -> npt.NDArray[np.uint16]:
    """Return an image to stamp frames from."""
    return np.random.default_rng(seed).integers(90, 400, shape, dtype=np.uint16)
