"""The main job on real input, from one command: stream two movies and a camera to three nodes, read back, verify all.

Three `granum-node` daemons run on loopback; the client is not told where, it finds them by mDNS. What is read back is
compared pixel by pixel with the source, and by the SHA-256 of the whole file with one encoded afresh from the source. The
exit status is 0 only if every frame held.
"""

import hashlib
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

import granum
from granum import blocking
from granum.arrays.movies import open_movie
from granum.wire import frame as pzf
from integration.camera import Camera
from integration.lab import ProcessLab

MOVIES = Path(__file__).parents[1] / "client/tests/data/movies"
SPACE_FACTOR = 1.2  # of the bytes to store; short of it the demo would end in an error that says less


class Source(Protocol):
    """Numbered images: a movie, or a camera. *shape* is (frames, height, width)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, height, width."""

    @property
    def dtype(self) -> "np.dtype[np.generic]":
        """The type of a pixel."""

    def frame(self, number: int) -> npt.NDArray[np.generic]:
        """Return one image."""


@dataclass(slots=True)
class Outcome:
    """What became of one series."""

    name: str
    frames: int
    bytes: int
    put_s: float
    get_s: float
    nodes: "Counter[str]"
    verified: int
    durability: str


@click.command()
@click.option("--frames", default=200, show_default=True, help="Frames of the synthetic camera.")
@click.option("--size", default=2048, show_default=True, help="Its width and height in pixels.")
@click.option("--nodes", "count", default=3, show_default=True, help="Node processes.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where the stores lie.  [default: a temporary one]")
def main(frames: int, size: int, count: int, directory: Path | None) -> None:
    """Stream two movies and a synthetic camera to node processes on loopback, read back, and verify every frame."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the nodes are ended in order then too
    scratch = Path(tempfile.mkdtemp(prefix="granum-demo-", dir=directory))
    try:
        held = run(scratch, frames, size, count)
    except KeyboardInterrupt:
        click.echo("interrupted; nodes stopped, stores removed", err=True)
        sys.exit(130)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(0 if held else 1)


def run(scratch: Path, frames: int, size: int, count: int) -> bool:
    """Do the job under *scratch*; return whether every frame held."""
    needed = int(SPACE_FACTOR * frames * size * size * 2)
    free = shutil.disk_usage(scratch).free
    if free < needed:
        raise click.ClickException(
            f"{scratch.parent} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed; name a larger --directory"
        )
    screen = Console(stderr=True)
    screen.print("camera: exposing")
    sources: list[tuple[str, Source]] = [
        (name, open_movie(MOVIES / f"{name}.dax")) for name in ("test", "test_spliner")
    ]
    sources.append(("camera", Camera(frames, (size, size))))
    cluster = f"demo-{uuid.uuid4().hex[:8]}"  # of its own: another demo may run in this network
    with ProcessLab(scratch, count, cluster=cluster, advertise="mdns"):
        started = time.monotonic()
        with granum.connect(cluster, expect=count, bypass=False) as lab:
            found = lab.nodes()
            screen.print(f"found {len(found)} nodes of cluster {cluster} in {time.monotonic() - started:.1f} s")
            outcomes = stream_and_verify(lab, sources, screen)
    return report(outcomes, count)


def stream_and_verify(lab: blocking.Cluster, sources: Sequence[tuple[str, Source]], screen: Console) -> list[Outcome]:
    """Put every source as a series, then read and compare every frame."""
    outcomes = []
    columns = (
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        for name, source in sources:
            outcome = put(lab, name, source, progress)
            get(lab, source, outcome, progress)
            outcomes.append(outcome)
            screen.print(f"{name}: {outcome.verified}/{outcome.frames} frames verified")
    return outcomes


def put(lab: blocking.Cluster, name: str, source: Source, progress: Progress) -> Outcome:
    """Stream *source* to all nodes; the time includes every receipt and the completion marker."""
    frames = source.shape[0]
    task = progress.add_task(f"put {name}", total=frames)
    started = time.monotonic()
    with lab.create_series(f"/demo/{name}", metadata={"Source": name}) as series:
        for number in progress_over(range(frames), progress, task):
            series.store_frame(number, source.frame(number), copy=False)
        summary = series.finalise()
    seconds = time.monotonic() - started
    durability = "+".join(sorted(summary.durability))
    return Outcome(name, frames, summary.bytes, seconds, 0.0, Counter(), 0, durability)


def get(lab: blocking.Cluster, source: Source, outcome: Outcome, progress: Progress) -> None:
    """Read every frame back through the union and compare it with *source*; the time is that of the reading alone."""
    series = lab.series(f"/demo/{outcome.name}.pcs")
    view = lab.listdir(f"/demo/{outcome.name}.pcs")
    if not series.complete or series.shape != source.shape or view.partial:
        return
    task = progress.add_task(f"get {outcome.name}", total=outcome.frames)
    for number in progress_over(range(outcome.frames), progress, task):
        started = time.monotonic()
        file = series.file(number)
        outcome.get_s += time.monotonic() - started
        outcome.nodes.update(node.name for node in view.holders(f"frame{number:05d}.pzf"))
        outcome.verified += is_same(file, source.frame(number), number, series.metadata["imageID"])


def is_same(file: bytes, image: npt.NDArray[np.generic], number: int, sequence_id: object) -> bool:
    """Whether *file* is, byte for byte, what *image* encodes to, and decodes to its pixels."""
    assert isinstance(sequence_id, int)
    expected = hashlib.sha256()
    for piece in pzf.encode(image, frame_number=number, sequence_id=sequence_id):
        expected.update(piece)
    decoded = pzf.decode(file).array[:, :, 0]
    return hashlib.sha256(file).digest() == expected.digest() and bool(np.array_equal(decoded, image))


def progress_over(numbers: Iterable[int], progress: Progress, task: int) -> Iterable[int]:
    """Yield *numbers*, advancing the bar."""
    for number in numbers:
        yield number
        progress.advance(task)  # type: ignore[arg-type]  # rich's TaskID is an int with a name


def report(outcomes: Sequence[Outcome], count: int) -> bool:
    """Print the table and the verdict; return whether every frame held, on every node."""
    table = Table(title=f"{count} nodes on loopback, frames read back over HTTP")
    for title in (
        "series",
        "frames",
        "MB",
        "put s",
        "put MB/s",
        "get s",
        "get MB/s",
        "frames per node",
        "verified",
        "durability",
    ):
        table.add_column(title, justify="left" if title in {"series", "durability"} else "right", overflow="fold")
    for each in outcomes:
        spread = " + ".join(str(number) for _, number in sorted(each.nodes.items()))
        megabytes = each.bytes / 1e6
        table.add_row(
            each.name,
            str(each.frames),
            f"{megabytes:.1f}",
            f"{each.put_s:.2f}",
            f"{megabytes / each.put_s:.0f}",
            f"{each.get_s:.2f}",
            f"{megabytes / each.get_s:.0f}" if each.get_s else "-",
            spread,
            f"{each.verified}/{each.frames}",
            each.durability,
        )
    console = Console()
    console.width = max(console.width, 120)  # a pipe has no width; a folded table cannot be read
    console.print(table)
    verified = sum(each.verified for each in outcomes)
    wanted = sum(each.frames for each in outcomes)
    nodes = len(set().union(*(each.nodes for each in outcomes)))
    click.echo(f"verified {verified}/{wanted} frames on {nodes} nodes")
    return verified == wanted and nodes == count


if __name__ == "__main__":
    main()
