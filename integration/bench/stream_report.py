"""The tables and the goals of `make bench-stream`: results in, Markdown out. Pure.

Ratios are of medians, with the least and greatest of a single repetition, as in `report`, which has what both share.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from integration.bench.report import Measured, median_of, ratio_of, table
from integration.bench.stream_cells import (
    BYPASS,
    CLIENTS,
    FILES,
    PLAIN,
    PREFETCH,
    PYME,
    PYME_READ,
    PYME_STREAM,
    RELAXED,
    StreamCell,
    StreamResults,
    StreamSample,
    mode_of,
    place_of,
)

CAMERA_GB_PER_S = 0.84  # 100 frames of 8 MiB a second
CAMERA_CORE, CAMERA_CORE_STRETCH = 0.5, 0.3
STORE_P99_MS = 5.0
# client, against, cell: verb and target, size, goal, stretch
RATIOS = (
    (FILES, PYME_STREAM, "stream", "sink", "64K", 3.0, 4.0),
    (FILES, PYME_STREAM, "stream", "sink", "8M", 1.1, 1.3),
    (RELAXED, PYME, "stream", "1 node", "64K", 2.0, 3.0),
    (RELAXED, PYME, "stream", "3 nodes", "64K", 2.0, 3.0),
    *((PREFETCH, PYME_READ, "read", "3 nodes", size, 1.5, 1.5) for size in ("8M", "512K", "64K")),
    *((BYPASS, PLAIN, "read", "3 nodes", size, 0.9, 0.9) for size in ("8M", "512K", "64K")),
)


def frames(sample: StreamSample) -> float:
    """Return the figure that clients are compared by."""
    return sample.frames_per_s


def rows(results: StreamResults, cells: Sequence[StreamCell], systems: Mapping[str, str]) -> str:
    """Return the table of figures; *systems* gives the file system of each place."""
    titles = (
        *("verb", "size", "to", "client", "durability", "digest", "files on", "MB/s", "frames/s", "min-max %"),
        *("client s/GB", "nodes s/GB", "client MiB", "nodes MiB", "lost", "lost on closing at once"),
    )
    lines = []
    for cell in cells:
        for client in CLIENTS:
            samples = results.samples.get((str(cell), client.name))
            if not samples or not client.takes_part(cell):
                continue
            mode, system = mode_of(client), "-" if cell.to == "sink" else systems[place_of(client)]
            known = results.verified.get((str(cell), client.name))
            lines.append(
                [
                    *(cell.verb, cell.size, cell.to, client.name, mode.durability, mode.digest, system),
                    *_figures(samples),
                    f"{known[0]:,} of {known[1]:,}" if known else "-",
                ]
            )
    return table(titles, lines, left=7)


def _figures(samples: Mapping[int, StreamSample]) -> list[str]:
    def mid(figure: Callable[[StreamSample], float]) -> float:
        return median_of(samples, figure)

    rates = [sample.frames_per_s for sample in samples.values()]
    total, lost = (sum(figure) for figure in zip(*((each.frames, each.lost) for each in samples.values()), strict=True))
    return [
        f"{mid(lambda s: s.megabytes_per_s):,.0f}",
        f"{mid(frames):,.0f}",
        f"{min(rates) / mid(frames) * 100 - 100:+.0f} {max(rates) / mid(frames) * 100 - 100:+.0f}",
        f"{mid(lambda s: s.client_s_per_gb):.2f}",
        f"{mid(lambda s: s.node_s_per_gb):.2f}",
        f"{mid(lambda s: s.client_peak_mib):.0f}" if mid(lambda s: s.client_peak_mib) else "-",
        f"{mid(lambda s: s.node_peak_mib):.0f}",
        f"{lost:,} of {total:,}",
    ]


def camera_rows(cameras: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int]) -> str:
    """Return the table of the cameras that could not be slowed."""
    titles = (
        *("size", "frames/s", "MB/s", "of the limit", "s", "frames", "refused", "lost"),
        *("p50 ms", "p99 ms", "max ms", "latest ms", "client cores", "client MiB"),
    )
    lines = [
        [
            *(size, f"{said['rate']:,.0f}", f"{said['rate'] * sizes[size] / 1e6:,.0f}"),
            *(
                f"{said['rate'] / said['limit']:.0%}",
                f"{said['seconds']:.0f}",
                f"{said['frames']:,}",
                f"{said['refused']:,}",
            ),
            f"{said['frames'] - said['refused'] - said['receipted']:,}",
            *(f"{said[key]:.2f}" for key in ("p50_ms", "p99_ms", "max_ms", "late_max_ms")),
            *(f"{said['client_cpu_s'] / said['seconds']:.2f}", f"{said['client_peak_mib']:.0f}"),
        ]
        for size, said in cameras.items()
    ]
    return table(titles, lines, left=1)


def measured(results: StreamResults) -> Iterator[Measured]:
    """Yield every goal of which the run has what it needs."""
    for ours, theirs, verb, to, size, goal, stretch in RATIOS:
        cell = str(StreamCell(verb, size, to))
        one, other = (results.samples.get((cell, name)) for name in (ours, theirs))
        if one and other and one.keys() & other.keys():
            yield Measured(f"{cell} frames/s, {ours}", theirs, *ratio_of(one, other, frames), goal, stretch)
    yield from _losses(results)
    for to in ("1 node", "3 nodes"):
        samples = results.samples.get((str(StreamCell("stream", "8M", to)), RELAXED))
        if samples:
            cores = [sample.client_s_per_gb * CAMERA_GB_PER_S for sample in samples.values()]
            middle = median_of(samples, lambda sample: sample.client_s_per_gb) * CAMERA_GB_PER_S
            name = f"client at 840 MB/s of 8M to {to}, from its s/GB"
            yield _at_most(name, middle, min(cores), max(cores), CAMERA_CORE, CAMERA_CORE_STRETCH, "cores")
    for size, said in results.cameras.items():
        refused, p99 = float(said["refused"]), said["p99_ms"]
        yield _at_most(f"camera {size}, frames refused", refused, refused, refused, 0.0, 0.0, "frames")
        yield _at_most(f"camera {size}, store_frame p99", p99, p99, p99, STORE_P99_MS, STORE_P99_MS, "ms")


def _losses(results: StreamResults) -> Iterator[Measured]:
    own = [name for _, name in results.samples if name.startswith("granum")]
    if own:
        counted = [
            sample.lost for (_, name), each in results.samples.items() if name in own for sample in each.values()
        ]
        verified = [lost for (_, name), (lost, _) in results.verified.items() if name in own]
        lost = float(sum(counted) + sum(verified))
        yield _at_most("frames lost, all rows of granum", lost, lost, lost, 0.0, 0.0, "frames")


def _at_most(metric: str, value: float, low: float, high: float, goal: float, stretch: float, unit: str) -> Measured:
    return Measured(metric, "-", value, low, high, goal, stretch, at_most=True, unit=unit)
