"""`granum bench`: what a cluster takes from this machine, measured with frames that are then there.

The measurement is a series like any other, streamed as an acquisition program streams it, from a thread that waits for each
`store_frame`. It is marked by its name alone and removed by nobody: a client cannot remove anything.
"""

import re
import shlex
import time
from array import array
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from granum.cli.options import Choices, Section, pass_choices
from granum.cli.output import count_text, print_fields, print_json, say, size_text
from granum.cli.place import Place, to_place
from granum.cli.progress import Bar, is_wanted
from granum.cli.session import Session, opened
from granum.wire.errors import GranumError, NodeBusy, NotReceipted
from granum.wire.paths import ClusterPath

if TYPE_CHECKING:
    from granum.transfer import Receipt

ROW_SAMPLES = 256  # of 16 bits in a row of a frame: every power of two from 512 bytes on is a number of such rows
ROW_BYTES = 2 * ROW_SAMPLES
FRAME_BYTES_MAX = 1 << 30
SUFFIX = ".pcs"
RING = 4  # distinct frames, sent in turn
SAMPLES_MAX = 10_000_000  # times kept, 80 MB: an hour of the smallest frames

_SIZE = re.compile(r"([0-9]+)([KM]?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}

Row = dict[str, Any]  # what JSON holds


class FrameSize(click.ParamType[int]):
    """A number of bytes, '65536', '64K' or '8M' (of 1024), that whole rows make up."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(value)
        size = int(found[1]) * _UNITS[found[2].upper()] if found else 0
        if not 0 < size <= FRAME_BYTES_MAX or size % ROW_BYTES:
            self.fail(
                f"{value!r} is no size of a frame; write 64K, 512K, 8M or another multiple of {ROW_BYTES}", param, ctx
            )
        return size


@dataclass(slots=True)
class Times:
    """When each frame was handed over, by name, until it is receipted; then how long that took. In seconds."""

    handed_over: dict[str, float] = field(default_factory=dict)
    calls: "array[float]" = field(default_factory=lambda: array("d"))
    receipts: "array[float]" = field(default_factory=lambda: array("d"))

    def receipted(self, receipt: "Receipt") -> None:
        """Take note of a receipt."""
        began = self.handed_over.pop(receipt.path.name, None)
        if began is not None and len(self.receipts) < SAMPLES_MAX:
            self.receipts.append(time.perf_counter() - began)


@click.group(cls=Section)
def bench() -> None:
    """Measure a cluster."""


@bench.command(example="granum bench stream --size 8M --rate 100 --seconds 60")
@click.argument("place", metavar="[REMOTE]", callback=to_place, default="/")
@click.option("--size", type=FrameSize(), default="8M", show_default=True, help="Bytes of one frame: 64K, 512K, 8M.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Frames a second, of a camera that cannot be slowed.  [default: as many as are taken in]",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="How long."
)
@pass_choices
def stream(choices: Choices, place: Place, size: int, rate: float | None, seconds: float) -> None:
    """Stream frames to the nodes for a while and say how fast they were taken, and how evenly.

    With --rate a frame for which neither a node nor this program's memory has room when it is due is refused and counted, as a
    camera would lose it. The frames stay stored, as the series REMOTE, or '/granum-bench-DATE.pcs', below REMOTE where that ends
    in '/'. The exit status is 1 when a frame was lost that had been taken in.
    """
    with opened(choices, [place], writes=True) as session:
        row = _streamed(session, _name(place), size, rate, seconds)
        if choices.json:
            print_json(row)
        else:
            _print(row)
        if row["lost"]:
            session.failed(row["path"], GranumError(f"taken in and not stored: {count_text(row['lost'], 'frames')}"))


def _name(place: Place) -> ClusterPath:
    if place.slash:
        return place.path / f"granum-bench-{datetime.now():%Y-%m-%d-%H%M%S}{SUFFIX}"  # noqa: DTZ005 - the user's own time
    return place.path if place.path.name.endswith(SUFFIX) else place.path.parent / (place.path.name + SUFFIX)


def _streamed(session: Session, path: ClusterPath, size: int, rate: float | None, seconds: float) -> Row:
    import numpy as np  # noqa: PLC0415 - costs time that --help and completion do not have

    images = np.random.default_rng().integers(0, 1 << 12, (RING, size // ROW_BYTES, ROW_SAMPLES), dtype=np.uint16)
    times = Times()
    series = session.cluster.create_series(
        path,
        metadata={"Source": "granum bench stream"},
        shape=images.shape[1:],
        dtype=images.dtype,
        on_full="wait" if rate is None else "raise",
        on_receipt=times.receipted,
    )
    due, refused, number, lost = Event(), 0, 0, 0
    expected = round(rate * seconds) if rate else 0
    began = time.perf_counter()
    with (
        series,
        _bar(session.choices, expected, size) as bar,
    ):
        while (number < expected) if rate else (time.perf_counter() - began < seconds):
            if rate and (ahead := began + number / rate - time.perf_counter()) > 0:
                due.wait(ahead)
            refused += not _handed_over(series, number, images[number % RING], times)
            bar.add(size)
            number += 1
        try:
            summary = series.finalise()
            receipted, per_node, durability = summary.puts, summary.per_node, summary.durability
        except NotReceipted as error:
            lost = len(error.paths)
            receipted, per_node, durability = number - refused - lost, {}, frozenset[str]()
    elapsed = time.perf_counter() - began
    taken_in = number - refused
    view = session.cluster.listdir(path)
    if not view.partial:  # else what a missing node has cannot be told from what is lost
        lost = max(lost, taken_in - sum(name.endswith(".pzf") for name in view))
    session.note_missing_nodes()
    return {
        "path": str(path),
        "frames": taken_in,
        "frame_bytes": size,
        "seconds": elapsed,
        "frames_per_s": receipted / elapsed,
        "bytes_per_s": receipted * size / elapsed,
        "per_node": dict(sorted(per_node.items())),
        "durability": sorted(durability),
        "store_frame_s": _quantiles(times.calls),
        "receipt_s": _quantiles(times.receipts),
        "refused": refused,
        "lost": lost,
    }


def _handed_over(series: Any, number: int, image: Any, times: Times) -> bool:  # Any: as these modules are imported late
    """Store the frame; False when it was refused."""
    from granum.streaming.series import frame_name  # noqa: PLC0415 - as above

    name, began = frame_name(number), time.perf_counter()
    times.handed_over[name] = began
    try:
        series.store_frame(number, image)
    except NodeBusy:
        del times.handed_over[name]
        return False
    finally:
        if len(times.calls) < SAMPLES_MAX:
            times.calls.append(time.perf_counter() - began)
    return True


def _quantiles(samples: "array[float]") -> dict[str, float]:
    if not samples:
        return {}
    ordered = sorted(samples)
    at = {"p50": len(ordered) // 2, "p99": len(ordered) * 99 // 100, "max": len(ordered) - 1}
    return {name: ordered[place] for name, place in at.items()}


def _print(row: Row) -> None:
    total = sum(row["per_node"].values()) or 1
    shares = ", ".join(f"{name}: {puts:,} ({puts / total:.0%})" for name, puts in row["per_node"].items())
    fields = {
        "series": row["path"],
        "frames": f"{row['frames']:,} of {size_text(row['frame_bytes'])} in {row['seconds']:.1f} s",
        "rate": f"{row['bytes_per_s'] / 1e6:,.1f} MB/s, {row['frames_per_s']:,.1f} frames/s",
        "nodes": shares or "-",
        "durability": ", ".join(row["durability"]) or "-",
        "store_frame": _times_text(row["store_frame_s"]),
        "receipts": _times_text(row["receipt_s"]),
        "refused": f"{row['refused']:,}",
        "lost": f"{row['lost']:,}",
    }
    print_fields(fields)
    say(
        "\nThe series stays stored. To remove it, on the machine of each node, STORE being the directory that it serves:"
    )
    say(f"  rm -r STORE{shlex.quote(row['path'])}")


def _times_text(quantiles: dict[str, float]) -> str:
    return ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in quantiles.items()) or "-"


def _bar(choices: Choices, frames: int, size: int) -> Bar:
    return Bar("stream", frames, frames * size, shown=is_wanted(json=choices.json, quiet=choices.quiet))
