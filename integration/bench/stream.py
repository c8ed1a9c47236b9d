"""`make bench-stream`: one table of the streaming client, PYME's, and the limits of the machine, measured in turn in one run."""

import dataclasses
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from integration.bench import machine, programs, report, stream_report
from integration.bench.contest import DIGEST
from integration.bench.fleets import kinds
from integration.bench.stream_cells import CELLS, SIZES, StreamCell, StreamResults
from integration.bench.streams import Streams

FREE_BYTES_MIN = 6 << 30  # in memory: series to read back twice, the windows of all stores
CAMERA_SHARE = 0.7  # of the rate that the same run measured
CAMERA_S, CAMERA_QUICK_S = 60.0, 10.0
QUICK_S = 0.2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--repetitions", type=click.IntRange(min=1), default=5, show_default=True, help="Of everything but cameras."
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.01), default=1.0, show_default=True, help="Length of one sample."
)
@click.option(
    "--camera-seconds",
    type=click.FloatRange(min=0),
    default=CAMERA_S,
    show_default=True,
    help="Of each camera; 0 for none.",
)
@click.option(
    "--only", multiple=True, metavar="WORDS", help="Only cells with all WORDS, such as '64K sink', 'read' or '3 nodes'."
)
@click.option("--quick", is_flag=True, help="A smoke run: 0.2 s each, once, cameras of 10 s; installs nothing.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=programs.BUILD,
    help="Disk for the rows that sync.  [default: build/bench]",
)
@click.option(
    "--memory",
    type=click.Path(path_type=Path),
    default=Path("/dev/shm"),
    show_default=True,
    help="Stores of all other rows.",
)
def main(
    *,
    repetitions: int,
    seconds: float,
    camera_seconds: float,
    only: tuple[str, ...],
    quick: bool,
    directory: Path,
    memory: Path,
) -> None:
    """Compare the client's streaming and reading with PYME's and with the limits of this machine; print tables in Markdown.

    A full run takes about twenty minutes, the first one some more to install PYME. The tables are kept in
    build/bench/stream.md, every sample in build/bench/stream.json. The exit status is 1 when granum lost a frame or a client
    failed; a missed goal is a line of the last table.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the nodes are ended then too
    cells = chosen(CELLS, only)
    if not cells:
        raise click.UsageError(
            f"--only {' --only '.join(only)} leaves nothing; words are those of the first three columns"
        )
    if quick:
        repetitions, seconds, camera_seconds = 1, QUICK_S, min(camera_seconds, CAMERA_QUICK_S)
    for place in (directory, memory):
        place.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(memory).free < FREE_BYTES_MIN:
        raise click.ClickException(f"{memory} needs 6 GiB free; name another place with --memory")
    with ExitStack() as scratch:
        places = {}
        for name, parent in (("memory", memory), ("disk", directory)):
            places[name] = Path(tempfile.mkdtemp(prefix="granum-bench-", dir=parent))
            scratch.callback(shutil.rmtree, places[name], ignore_errors=True)
        sys.exit(run(cells, places, repetitions, seconds, camera_seconds, fetch=not quick))


def run(
    cells: Sequence[StreamCell],
    places: dict[str, Path],
    repetitions: int,
    seconds: float,
    camera_seconds: float,
    *,
    fetch: bool,
) -> int:
    """Measure *cells* in stores below *places*, print the tables and keep them; the exit status."""
    absent = _prepare(fetch=fetch)
    before, began = machine.cpu_ticks(), time.monotonic()
    streams = Streams(cells, places, seconds, absent, _say)
    results = streams.run(repetitions)
    for size in SIZES:
        if camera_seconds and StreamCell("stream", size, "3 nodes") in cells:
            streams.camera(size, CAMERA_SHARE, camera_seconds)
    how = f"{repetitions} repetitions of {seconds:g} s in rotated order; {(time.monotonic() - began) / 60:.1f} min"
    modes = ", ".join(f"{kind} {mode.durability}/{mode.digest}" for kind, (_, _, _, mode) in kinds(DIGEST).items())
    conditions = [
        *machine.description(places),
        f"{how}, {machine.busy(before)}",
        f"durability/digest of the nodes: {modes}; no compression, no TLS",
    ]
    _publish(conditions, cells, places, results)
    return 1 if results.failures else 0


def chosen(cells: Sequence[StreamCell], only: Sequence[str]) -> tuple[StreamCell, ...]:
    """Return the cells that hold all words of one of *only*, or all when there is none."""
    wanted = [set(words.split()) for words in only]
    return tuple(cell for cell in cells if not wanted or any(words <= set(str(cell).split()) for words in wanted))


def _prepare(*, fetch: bool) -> dict[str, str]:
    """Get what is needed before anything is timed; return which kinds of fleet are absent, and why."""
    absent = {}
    needed = (("pyme", programs.pyme), ("sink", lambda **how: programs.compiled("sink", **how)))
    for kind, get in (*needed, ("ceiling", lambda **how: programs.compiled("load", **how))):
        try:
            get(fetch=fetch)
        except programs.Absent as error:
            absent[kind] = str(error)
    return absent


def _publish(
    conditions: Sequence[str], cells: Sequence[StreamCell], places: dict[str, Path], results: StreamResults
) -> None:
    """Print the tables, keep them as stream.md and all samples as stream.json."""
    systems = {place: machine.file_system(path) for place, path in places.items()}
    parts = ["\n".join(f"- {line}" for line in conditions)]
    if results.samples:
        parts.append(stream_report.rows(results, cells, systems))
    if results.cameras:
        parts.append(f"Cameras that cannot be slowed\n\n{stream_report.camera_rows(results.cameras, SIZES)}")
    goals = list(stream_report.measured(results))
    if goals:
        parts.append(report.target_rows(goals))
    notes = [f"- not run: {name}: {reason}" for name, reason in results.absent.items()]
    notes += [f"- FAILED {failure}" for failure in results.failures]
    if notes:
        parts.append("\n".join(notes))
    text = "\n\n".join(parts)
    click.echo(text)
    programs.BUILD.mkdir(parents=True, exist_ok=True)
    (programs.BUILD / "stream.md").write_text(text + "\n")
    samples = [
        {"cell": cell, "client": name, "repetition": number, **sample.as_json()}
        for (cell, name), each in results.samples.items()
        for number, sample in each.items()
    ]
    kept = {
        "conditions": conditions,
        "samples": samples,
        "verified": [
            {"cell": cell, "client": name, "lost": lost, "frames": frames}
            for (cell, name), (lost, frames) in results.verified.items()
        ],
        "cameras": results.cameras,
        "goals": [{**dataclasses.asdict(each), "met": each.met} for each in goals],
        "absent": results.absent,
        "failures": results.failures,
    }
    (programs.BUILD / "stream.json").write_text(json.dumps(kept, indent=1) + "\n")


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
