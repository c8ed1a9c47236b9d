"""The run of `make bench-stream`: which clients meet which nodes, in which order, and what is kept of each meeting.

As with the nodes (`contest`): every repetition starts all nodes afresh, takes every cell once with each client, one after the
other, and another one is first each time. In the first repetition, before anything is timed, each client stores a series
that is compared with what lies in the stores, byte by byte.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from granum.streaming.metadata import encode_metadata
from granum.streaming.series import frame_name
from granum.wire import frame
from integration.bench import programs, sample
from integration.bench.contest import DIGEST
from integration.bench.fleets import Fleet, Sweeper, kinds
from integration.bench.peers import Peer, forget_peak, peak_mib
from integration.bench.sample import Failed
from integration.bench.stream_cells import (
    CLIENTS,
    RELAXED,
    SHAPES,
    STORED,
    WINDOW_OF_DISK,
    WINDOW_OF_MEMORY,
    Client,
    StreamCell,
    StreamResults,
    StreamSample,
    place_of,
)
from integration.pyme import PymeClient, PymeError

DEPTH_OF_LIMIT: Mapping[str, int] = {"8M": 4, "512K": 16, "64K": 64}  # puts outstanding, as the clients' windows have
RING = 6  # frames made ahead and sent in turn: 48 MiB of the largest, more than a cache holds
WORKER_MAX_S = 300.0

K = TypeVar("K")


def rotated(order: Sequence[K], turn: int) -> list[K]:
    """Return *order* beginning *turn* places later."""
    start = turn % len(order) if order else 0
    return [*order[start:], *order[:start]]


class Streams:
    """All repetitions of all *cells*; stores lie below *places*. *say* is told what is under way."""

    def __init__(
        self,
        cells: Sequence[StreamCell],
        places: Mapping[str, Path],
        seconds: float,
        absent: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        """Take samples of *seconds*; the kinds of fleet in *absent* cannot be had, for the reasons given."""
        self.results = StreamResults(absent=dict(absent))
        self._cells = cells
        self._places = places
        self._seconds = seconds
        self._say = say
        self._frames = places["memory"] / "frames"
        self._clients = [client for client in CLIENTS if any(client.takes_part(cell) for cell in cells)]
        self._fleets: dict[str, Fleet] = {}
        self._pyme: PymeClient | None = None

    def run(self, repetitions: int) -> StreamResults:
        """Do it all; what cannot run is noted, and the rest goes on."""
        self._draw()
        for repetition in range(repetitions):
            self._say(f"repetition {repetition + 1} of {repetitions}")
            with self.started({client.fleet for client in self._clients}):
                self._store_all(verify=repetition == 0)
                for turn, cell in enumerate(self._cells):
                    taking_part = [client for client in self._clients if client.takes_part(cell)]
                    for client in rotated(taking_part, repetition + turn):
                        self._guarded(f"{client.name}, {cell}", partial(self._meet, cell, client, repetition))
        return self.results

    def camera(self, size: str, share: float, seconds: float) -> None:
        """Be a camera at *share* of the rate that `run` measured for three relaxed nodes, for *seconds*."""
        cell = StreamCell("stream", size, "3 nodes")
        limit = self.results.median_rate(str(cell), RELAXED)
        if not limit:
            return
        self._say(f"a camera of {size} frames for {seconds:g} s")

        def run() -> None:
            peers = self._peers(cell, "relaxed")
            with self._swept(cell, peers, "memory") as common:
                said = self._work("paced", **common, rate=limit * share, seconds=seconds)
            self.results.cameras[size] = {**said, "rate": limit * share, "limit": limit}
            if said["receipted"] != said["frames"] - said["refused"]:
                raise Failed(f"{said['receipted']} receipts for {said['frames'] - said['refused']} frames taken in")

        with self.started({"relaxed"}):
            self._guarded(f"camera, {size}", run)

    @contextlib.contextmanager
    def started(self, wanted: set[str]) -> Iterator[None]:
        """Run the fleets of the kinds *wanted*, and PYME's client."""
        with ExitStack() as running:
            for kind, (make, count, place, _) in kinds(DIGEST).items():
                if kind in wanted - self.results.absent.keys():
                    root, scratch = self._places[place] / kind, self._places["memory"] / f"{kind}.scratch"
                    try:
                        self._fleets[kind] = running.enter_context(Fleet(make, count, root, scratch))
                    except programs.Absent as error:
                        self.results.absent[kind] = str(error)
            if wanted & {"pyme", "sink"} and "pyme" not in self.results.absent:
                self._pyme = running.enter_context(PymeClient(self._places["memory"] / "pyme.scratch", "bench"))
            yield
        self._fleets.clear()
        self._pyme = None
        for kind, (_, _, place, _) in kinds(DIGEST).items():
            shutil.rmtree(self._places[place] / kind, ignore_errors=True)

    # -- ahead of the clock --------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        """Make the frames that all send: as arrays for cameras, and encoded, with a head, for those that send files."""
        self._frames.mkdir()
        noise = np.random.default_rng(1)
        for size in {cell.size for cell in self._cells}:
            ring = noise.integers(0, 1 << 12, (RING, *SHAPES[size]), dtype=np.uint16)
            ring.tofile(self._frames / f"{size}.ring")
            (self._frames / f"{size}.pzf").write_bytes(b"".join(b"".join(frame.encode(image)) for image in ring))

    def _encoded_size(self, size: str) -> int:
        return (self._frames / f"{size}.pzf").stat().st_size // RING

    def _store_all(self, *, verify: bool) -> None:
        """Store the series that are read back, and in the first repetition those that are only verified."""
        for cell in self._cells:
            for client in CLIENTS:  # who stores what is read back need not have a line of its own
                if (
                    client.verb != "stream"
                    or client.fleet not in self._fleets
                    or client.by == "load"
                    or cell.to == "sink"
                ):
                    continue
                is_read = cell.verb == "read" and client.fleet in {"relaxed", "pyme"}
                if is_read or (verify and client.takes_part(cell)):
                    self._guarded(
                        f"{client.name}, {cell}, before timing",
                        partial(self._store, cell, client, verify=verify),
                    )

    def _store(self, cell: StreamCell, client: Client, *, verify: bool) -> None:
        directory = "/" + f"{cell}.pcs".replace(" ", "-")
        peers, frames = self._peers(cell, client.fleet), STORED[cell.size]
        if client.by == "pyme":
            if self._pyme is None:
                return
            servers = [("127.0.0.1", peer.port) for peer in peers]
            ring = {"ring": str(self._frames / f"{cell.size}.pzf"), "size": self._encoded_size(cell.size)}
            # What is read back must be whole, so it is closed late; what is verified is closed as PYME's programs do.
            is_late = cell.verb == "read"
            marker = {"metadata.json": encode_metadata({"imageID": 1}), "events.json": b"[]"} if is_late else {}
            self._pyme.ask("stream_many", servers=servers, directory=directory, frames=frames, wait=is_late, **ring)
            for name, body in marker.items():
                self._pyme.put(f"{directory}/{name}", body)
        else:
            self._work("store", **self._common(cell, peers), directory=directory, frames=frames)
        if verify:
            good = self._good_frames(cell, peers, directory.lstrip("/"), frames)
            self.results.verified[str(cell), client.name] = frames - good, frames
            if good < frames and client.by != "pyme":
                raise Failed(f"{frames - good} of {frames} frames are not in the stores, or are damaged")
        if cell.verb != "read":
            for peer in peers:
                shutil.rmtree(peer.root / directory.lstrip("/"), ignore_errors=True)

    def _good_frames(self, cell: StreamCell, peers: Sequence[Peer], directory: str, frames: int) -> int:
        """Count the frames that lie in a store with all of their pixels; PYME may still be writing the last."""
        expected = [
            image.tobytes() for image in np.fromfile(self._frames / f"{cell.size}.ring", np.uint16).reshape(RING, -1)
        ]
        head, good = self._encoded_size(cell.size) - cell.bytes, 0
        for number in range(frames):
            for peer in peers:
                with contextlib.suppress(FileNotFoundError):
                    body = (peer.root / directory / frame_name(number)).read_bytes()
                    good += body[head:] == expected[number % RING]
                    break
        return good

    # -- samples -------------------------------------------------------------------------------------------------------

    def _meet(self, cell: StreamCell, client: Client, repetition: int) -> None:
        if client.fleet not in self._fleets or (client.by.startswith("pyme") and self._pyme is None):
            return
        peers = self._peers(cell, client.fleet)
        pids = [pid for peer in peers for pid in peer.pids]
        forget_peak(pids)
        if client.by == "load":
            found = self._load(cell, peers[0])
        elif cell.verb == "read":
            found = self._taken(cell, self._read(cell, client, peers), pids)
        else:
            with self._swept(cell, peers, place_of(client)) as common:
                found = self._taken(cell, self._stream(client, common), pids)
        if found.lost:
            self.results.failures.append(f"{client.name}, {cell}: {found.lost} of {found.frames} frames lost")
        self.results.samples.setdefault((str(cell), client.name), {})[repetition] = found

    def _stream(self, client: Client, common: Mapping[str, Any]) -> Mapping[str, Any]:
        if client.by != "pyme":
            return self._work("stream", **common, by=client.by, seconds=self._seconds)
        assert self._pyme is not None
        forget_peak([self._pyme.pid])
        said: dict[str, Any] = self._pyme.ask(
            "stream_timed",
            servers=[host.split(":") for host in common["hosts"]],
            ring=common["encoded"],
            size=common["encoded_size"],
            directories=common["directories"],
            warm=common["warm"],
            seconds=self._seconds,
            pids=common["pids"],
        )
        return {**said, "client_peak_mib": peak_mib([self._pyme.pid])}

    def _read(self, cell: StreamCell, client: Client, peers: Sequence[Peer]) -> Mapping[str, Any]:
        directory = "/" + f"{cell}.pcs".replace(" ", "-")
        common = {**self._common(cell, peers), "seconds": self._seconds}
        if client.by == "pyme-read":
            assert self._pyme is not None
            forget_peak([self._pyme.pid])
            url = f"pyme-cluster://bench{directory}"
            said: dict[str, Any] = self._pyme.ask("read_timed", url=url, seconds=self._seconds, pids=common["pids"])
            return {**said, "receipted": said["frames"], "client_peak_mib": peak_mib([self._pyme.pid])}
        roots = [str(peer.root) for peer in peers]
        if client.by == "plain":
            return self._work("plain", **common, directory=directory.lstrip("/"), roots=roots)
        return self._work("read", **common, directory=directory, local_stores=roots if client.by == "bypass" else [])

    def _load(self, cell: StreamCell, peer: Peer) -> StreamSample:
        """Let the C program send: what socket, kernel and, where there is one, file system leave to anybody."""
        directory = peer.root / "put"
        directory.mkdir(exist_ok=True)
        try:
            said = sample.run(
                "load",
                verb="put",
                port=peer.port,
                base="/put/",
                directory=directory,
                size=cell.bytes,
                body=self._frames / f"{cell.size}.ring",
                connections=1,
                depth=DEPTH_OF_LIMIT[cell.size],
                seconds=self._seconds,
                warm=WINDOW_OF_MEMORY[cell.size],
                window=WINDOW_OF_MEMORY[cell.size],
                pids=",".join(map(str, peer.pids)),
            )
        finally:
            shutil.rmtree(directory)
        gigabytes = said["bytes"] / 1e9
        rate = said["requests"] / said["seconds"]
        cpu = (said["client_cpu_s"] / gigabytes, said["server_cpu_s"] / gigabytes)
        return StreamSample(
            rate, rate * cell.bytes / 1e6, *cpu, 0.0, peak_mib(peer.pids), int(said["errors"]), int(said["requests"])
        )

    def _taken(self, cell: StreamCell, said: Mapping[str, Any], pids: Sequence[int]) -> StreamSample:
        rate = said["frames"] / said["seconds"]
        gigabytes = said["frames"] * cell.bytes / 1e9
        return StreamSample(
            frames_per_s=rate,
            megabytes_per_s=rate * cell.bytes / 1e6,
            client_s_per_gb=said["client_cpu_s"] / gigabytes,
            node_s_per_gb=said["node_cpu_s"] / gigabytes,
            client_peak_mib=said["client_peak_mib"],
            node_peak_mib=peak_mib(pids),
            lost=said["frames"] - said["receipted"],
            frames=said["frames"],
        )

    # -- what they share -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _swept(self, cell: StreamCell, peers: Sequence[Peer], place: str) -> Iterator[dict[str, Any]]:
        """Keep what is streamed in bounds, and remove it afterwards; gives what the client is to know."""
        window = (WINDOW_OF_DISK if place == "disk" else WINDOW_OF_MEMORY)[cell.size]
        directories = ["swept-a.pcs", "swept-b.pcs"]
        common = {**self._common(cell, peers), "directories": [f"/{name}" for name in directories], "warm": window}
        try:
            with Sweeper([peer.root for peer in peers], directories, max(window // len(peers), 1)):
                yield common
        finally:
            for peer in peers:
                for name in directories:
                    shutil.rmtree(peer.root / name, ignore_errors=True)

    def _peers(self, cell: StreamCell, fleet: str) -> list[Peer]:
        return self._fleets[fleet].peers[: cell.nodes]

    def _common(self, cell: StreamCell, peers: Sequence[Peer]) -> dict[str, Any]:
        return {
            "hosts": [f"127.0.0.1:{peer.port}" for peer in peers],
            "pids": [pid for peer in peers for pid in peer.pids],
            "ring": str(self._frames / f"{cell.size}.ring"),
            "encoded": str(self._frames / f"{cell.size}.pzf"),
            "encoded_size": self._encoded_size(cell.size),
            "size": cell.bytes,
            "shape": SHAPES[cell.size],
        }

    def _work(self, verb: str, **asked: Any) -> Mapping[str, Any]:
        """Run `camera` in a process of its own, in an environment without anybody's settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GRANUM_", "XDG_"))}
        done = subprocess.run(
            (sys.executable, "-m", "integration.bench.camera", json.dumps({"verb": verb, **asked})),
            check=False,
            capture_output=True,
            text=True,
            timeout=WORKER_MAX_S,
            env={**kept, "HOME": str(self._frames)},
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise Failed(lines[-1] if lines else f"the client ended with {done.returncode}")
        said: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said

    def _guarded(self, what: str, do: Callable[[], None]) -> None:
        try:
            do()
        except (Failed, PymeError, subprocess.TimeoutExpired) as error:
            self._say(f"FAILED {what}: {error}")
            self.results.failures.append(f"{what}: {error}")
