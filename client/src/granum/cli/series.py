"""`granum series`: movies of a camera to the cluster, and series of the cluster to files."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from math import prod
from typing import TYPE_CHECKING, Any

import click

from granum.cli.landing import check_free, landing
from granum.cli.options import Choices, Section, pass_choices
from granum.cli.output import count_text, print_fields, print_json, say, size_text
from granum.cli.place import Place, to_place
from granum.cli.progress import Bar, is_wanted
from granum.cli.session import Session, opened
from granum.wire.errors import BadConfig, NotStored, Partial
from granum.wire.paths import ClusterPath

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from granum.arrays.movies import Movie
    from granum.arrays.series import SeriesReader

SUFFIXES = (".npy", ".tif", ".tiff")
COMPRESSIONS = ("raw", "huffman", "chunks")
FRAME_SUFFIX = ".pzf"
TIFF_BYTES_MAX = (1 << 32) - (1 << 25)  # its offsets have 32 bits; beyond it is a BigTIFF, which fewer programs read
TIFF_PAGE_BYTES = 300  # of tags, at most

Row = dict[str, Any]  # what JSON holds


@click.group(cls=Section)
def series() -> None:
    """Store, fetch and describe series of frames."""


@series.command(example="granum series put run1.dax /2026-10-01/")
@click.argument("movie", metavar="MOVIE", type=click.Path(exists=True, dir_okay=False))
@click.argument("place", metavar="[REMOTE]", callback=to_place, default="/")
@click.option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    default="raw",
    show_default=True,
    help="How frames are stored. PYME can read 'raw' and 'huffman' but not 'chunks'.",
)
@pass_choices
def put(choices: Choices, movie: str, place: Place, compression: str) -> None:
    """Stream a movie (.dax with its .inf, .tif or .npy) to the nodes as a series.

    REMOTE is the name of the series, which ends in '.pcs' whether you say so or not. When it ends in '/', or is left out, the
    series has the name of the file.
    """
    from granum.arrays.movies import open_movie  # noqa: PLC0415 - NumPy and tifffile are imported when they are needed

    name = os.path.splitext(os.path.basename(movie))[0]
    path = place.path / name if place.slash or not place.path.parts else place.path
    with open_movie(movie) as frames, opened(choices, [place], writes=True) as session:
        row = _stream(session, frames, path, compression)
        if choices.json:
            print_json(row)
        elif not choices.quiet:
            spread = ", ".join(f"{name}: {number:,}" for name, number in sorted(row["per_node"].items()))
            say(f"put {count_text(row['frames'], 'frames')}, {size_text(row['size'])}: {row['path']} ({spread})")


@series.command(example="granum series get /2026-10-01/run1.pcs run1.tif")
@click.argument("place", metavar="REMOTE", callback=to_place)
@click.argument("target", metavar="LOCAL", type=click.Path(dir_okay=False))
@click.option("--force", is_flag=True, help="Replace a local file of the same name.")
@pass_choices
def get(choices: Choices, place: Place, target: str, *, force: bool) -> None:
    """Fetch all frames of a series into one file, .npy or .tif by its suffix."""
    suffix = os.path.splitext(target)[1].lower()
    if suffix not in SUFFIXES:
        raise click.UsageError(f"{target}: the suffix is {suffix!r}; {', '.join(SUFFIXES)} are expected")
    check_free(target, force=force)
    with opened(choices, [place]) as session:
        reader = _open(session, place.path)
        if reader.missing:
            raise Partial(f"{reader.path}: frames may be lacking, so nothing was written", reader.missing)
        write = _write_npy if suffix == ".npy" else _write_tiff
        size = _frame_bytes(reader)
        with landing(target, force=force) as temporary, _bar(choices, "get", len(reader), size * len(reader)) as bar:
            write(temporary, reader, _frames(session, reader, bar))
        _warn_of_gaps(session, reader)
        row = {"path": str(reader.path), "local": target, "frames": len(reader), "complete": reader.complete}
        if choices.json:
            print_json(row)
        elif not choices.quiet:
            say(f"got {count_text(len(reader), 'frames')}, {size_text(os.stat(target).st_size)}: {target}")


@series.command(name="info", example="granum series info /2026-10-01/run1.pcs")
@click.argument("place", metavar="REMOTE", callback=to_place)
@pass_choices
def show(choices: Choices, place: Place) -> None:
    """Describe a series: frames, shape, where they are, metadata."""
    with opened(choices, [place]) as session:
        reader = _open(session, place.path)
        session.missing(reader.missing)
        view = session.cluster.listdir(reader.path)
        frames = [name for name in view if name.endswith(FRAME_SUFFIX)]
        per_node = Counter(node.name for name in frames for node in view.holders(name))
        row: Row = {
            "path": str(reader.path),
            "complete": reader.complete,
            "shape": list(reader.shape),
            "dtype": reader.dtype and str(reader.dtype),
            "frames": len(reader),
            "first": reader.numbers[0] if reader.numbers else None,
            "last": reader.numbers[-1] if reader.numbers else None,
            "size": sum(max(view[name].size, 0) for name in frames),
            "per_node": dict(sorted(per_node.items())),
            "metadata": dict(reader.metadata),
        }
        if choices.json:
            print_json(row)
            return
        between = f", {row['first']} to {row['last']}" if reader.numbers else ""
        fields = {
            "path": row["path"],
            "state": "complete" if reader.complete else "incomplete",
            "frames": f"{len(reader):,}{between}",
            "frame": f"{' x '.join(map(str, reader.shape[1:]))} {reader.dtype}" if reader.numbers else "-",
            "size": size_text(row["size"]),
            "nodes": ", ".join(f"{name}: {number:,}" for name, number in row["per_node"].items()) or "-",
        }
        print_fields({**fields, **{key: str(value) for key, value in row["metadata"].items()}})


# -- to the cluster ------------------------------------------------------------------------------------------------------


def _stream(session: Session, movie: "Movie", path: ClusterPath, compression: Any) -> Row:
    """Store *movie* as the series *path*; return what was stored. After an error the series stays incomplete."""
    from granum.streaming.series import SeriesWriter  # noqa: PLC0415

    call = session.cluster.call
    writer = call(
        lambda cluster: SeriesWriter.create(
            cluster,
            path,
            metadata=movie.metadata,
            compression=compression,
            shape=movie.shape[1:],
            dtype=movie.dtype,
        )
    )
    frame_bytes = prod(movie.shape[1:]) * movie.dtype.itemsize
    try:
        with (
            _bar(session.choices, "put", len(movie), frame_bytes * len(movie)) as bar,
            closing(
                session.in_parallel(
                    enumerate(movie),
                    lambda _, job: writer.store_frame(*job, copy=False),
                    lambda job: job[1].nbytes,
                )
            ) as accepted,
        ):
            for _, future in accepted:
                future.result()
                bar.add(frame_bytes)
            summary = call(lambda _: writer.finalise())
    except BaseException:
        call(lambda _: writer.abort())
        session.warn(f"{writer.path} stays incomplete")
        raise
    return {
        "path": str(writer.path),
        "frames": summary.puts,
        "size": summary.bytes,
        "per_node": dict(summary.per_node),
        "durability": sorted(summary.durability),
    }


# -- from the cluster ----------------------------------------------------------------------------------------------------


def _open(session: Session, path: ClusterPath) -> "SeriesReader":
    from granum.arrays.series import SeriesReader  # noqa: PLC0415

    return session.cluster.call(lambda cluster: SeriesReader.open(cluster, path))


def _frames(session: Session, reader: "SeriesReader", bar: Bar) -> "Iterator[NDArray[Any]]":
    """Yield all frames in the order of their numbers."""
    size = _frame_bytes(reader)
    with closing(session.in_parallel(reader.numbers, lambda _, n: reader.frame(n), lambda _: size)) as fetched:
        for _, future in fetched:
            yield future.result()
            bar.add(size)


def _frame_bytes(reader: "SeriesReader") -> int:
    if reader.dtype is None:
        raise NotStored(f"{reader.path} has no frames yet")
    return prod(reader.shape[1:]) * reader.dtype.itemsize


def _write_npy(filename: str, reader: "SeriesReader", frames: "Iterator[NDArray[Any]]") -> None:
    # Written and not mapped: a full disk is then an error and not the end of the program.
    import numpy as np  # noqa: PLC0415

    assert reader.dtype is not None
    head = {"descr": np.lib.format.dtype_to_descr(reader.dtype), "fortran_order": False, "shape": reader.shape}
    with open(filename, "xb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        file.writelines(np.ascontiguousarray(frame).data for frame in frames)


def _write_tiff(filename: str, reader: "SeriesReader", frames: "Iterator[NDArray[Any]]") -> None:
    import tifffile  # noqa: PLC0415

    if len(reader.shape) != 3:
        raise BadConfig(f"the frames of {reader.path} have a depth, which TIFF has no place for; choose .npy")
    size = len(reader) * (_frame_bytes(reader) + TIFF_PAGE_BYTES)
    with open(filename, "xb") as file, tifffile.TiffWriter(file, bigtiff=size > TIFF_BYTES_MAX) as tiff:
        tiff.write(frames, shape=reader.shape, dtype=reader.dtype, photometric="minisblack")


def _warn_of_gaps(session: Session, reader: "SeriesReader") -> None:
    """Say what a file with all frames does not show: that there may be more, or that numbers are missing."""
    if not reader.complete:
        session.warn(f"{reader.path} is incomplete: these are the frames so far")
    gaps = reader.numbers[-1] - reader.numbers[0] + 1 - len(reader)
    if gaps or reader.numbers[0]:
        session.warn(f"{reader.path}: frames {reader.numbers[0]} to {reader.numbers[-1]}, {gaps:,} of them not stored")


def _bar(choices: Choices, title: str, frames: int, size: int) -> Bar:
    return Bar(title, frames, size, shown=is_wanted(json=choices.json, quiet=choices.quiet))
