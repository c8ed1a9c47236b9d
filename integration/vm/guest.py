"""What runs inside the machines of the lab: a camera that streams a series, and a reader of one; each prints JSON.

It needs the granum that is installed there and nothing of the harness but the synthetic camera.
"""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any  # what goes out as JSON

import click

import granum
from granum.wire import frame as pzf
from integration.camera import Camera

SHAPE = (256, 256)
FILMING = "filming"  # printed on a line of its own once the series is under way


@click.group()
def main() -> None:
    """Stream or read a series of the lab."""


@main.command()
@click.argument("path")
@click.option("--frames", default=200)
@click.option("--interval", default=0.0, help="Seconds between frames.")
@click.option("--begun", default=20, help="Say so when that many frames are handed over.")
@click.option("--expect", default=2, help="Nodes to find first.")
@click.option("--until", type=click.Path(path_type=Path), help="End early once this file exists.")
def film(path: str, frames: int, interval: float, begun: int, expect: int, until: Path | None) -> None:
    """Stream a camera to PATH; print how many frames are receipted."""
    camera = Camera(frames, SHAPE)
    started = time.monotonic()
    with granum.connect(expect=expect) as cluster:
        found = {"nodes": sorted(node.node.name for node in cluster.nodes()), "found_s": time.monotonic() - started}
        started = time.monotonic()
        with cluster.create_series(path) as series:
            for number in range(frames):
                if until is not None and until.exists():
                    frames = number
                    break
                due = started + number * interval
                time.sleep(max(0.0, due - time.monotonic()))
                series.store_frame(number, camera.frame(number))
                if number == min(begun, frames - 1):
                    print(FILMING, flush=True)
            summary = series.finalise()
        seconds = time.monotonic() - started
    say({**found, "seconds": seconds, "durability": sorted(summary.durability), "frames": frames})


@main.command()
@click.argument("path")
@click.option("--expect", default=2, help="Nodes to find first.")
def read(path: str, expect: int) -> None:
    """Read every frame of PATH over HTTP; print its SHA-256 and the one it must have, and how many frames each node holds."""
    with granum.connect(expect=expect, bypass=False) as cluster:
        series = cluster.series(path)
        view = cluster.listdir(path)
        camera = Camera(len(series), SHAPE)
        digests: dict[str, str] = {}
        expected: dict[str, str] = {}
        holders: dict[str, int] = {}
        for number in series.numbers:
            name = f"frame{number:05d}.pzf"
            digests[name] = hashlib.sha256(series.file(number)).hexdigest()
            expected[name] = digest_of(camera, number, series.metadata["imageID"])
            for node in view.holders(name):
                holders[node.name] = holders.get(node.name, 0) + 1
        found = {"complete": series.complete, "partial": view.partial, "holders": holders}
        say({**found, "digests": digests, "expected": expected})


def digest_of(camera: Camera, number: int, image_id: int) -> str:
    """Return the SHA-256 of the file that frame *number* must be."""
    digest = hashlib.sha256()
    for piece in pzf.encode(camera.frame(number), frame_number=number, sequence_id=image_id):
        digest.update(piece)
    return digest.hexdigest()


def say(document: Any) -> None:
    """Print *document* as JSON on one line."""
    json.dump(document, sys.stdout)
    print(flush=True)


if __name__ == "__main__":
    main()
