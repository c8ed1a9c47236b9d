"""`granum put`, `get`, `mkdir`: whole files and directories, to the cluster and from it.

Several files travel at a time. One that fails is reported and the others go on; the exit status then says so.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import click

from granum.cli.landing import landing
from granum.cli.options import Choices, Command, pass_choices
from granum.cli.output import count_text, print_json, say, size_text
from granum.cli.place import Place, to_place
from granum.cli.plan import Copy, Plan, Row
from granum.cli.progress import Bar, is_wanted
from granum.cli.session import opened
from granum.wire.errors import AlreadyStored, GranumError, Partial

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from granum import Cluster
    from granum.transfer import Receipt

STDOUT = "-"


@click.command(cls=Command, example="granum put run1.tif notes /2026-10-01/")
@click.argument("sources", metavar="LOCAL...", nargs=-1, required=True, type=click.Path(exists=True))
@click.argument("place", metavar="REMOTE", callback=to_place)
@pass_choices
def put(choices: Choices, sources: Sequence[str], place: Place) -> None:
    """Store local files and directories in the cluster.

    REMOTE is the name of the copy. When it ends in '/', or several LOCAL are given, or it is a directory and LOCAL is a
    file, the copies go below it under their own names. A directory is copied with all that is in it, into the one of that
    name if there is one. What is stored already never changes.
    """
    with opened(choices, [place], writes=True) as session:
        below = place.slash or len(sources) > 1 or not place.path.parts
        if not below and not os.path.isdir(sources[0]):
            with suppress(Partial):  # a node that does not answer keeps nobody from writing
                below = session.cluster.isdir(place.path)
        plan = Plan(session)
        copies = plan.to_put(sources, place.path, below=below)
        with (
            _bar(choices, "put", copies) as bar,
            closing(session.in_parallel(_loaded(plan, copies), _store, lambda job: len(job[1]))) as stored,
        ):
            for (copy, body), future in stored:
                try:
                    receipt = future.result()
                except GranumError as error:
                    plan.failed(copy.local, copy.path, error)
                else:
                    if receipt is not None:
                        kind = "directory" if copy.is_directory else "file"
                        plan.rows.append({"local": copy.local, "kind": kind, **receipt_row(receipt)})
                bar.add(len(body), files=0 if copy.is_directory else 1)
        _report(choices, "put", plan.rows)


@click.command(cls=Command, example="granum get /2026-10-01/run1.tif /2026-10-01/notes .")
@click.argument("places", metavar="REMOTE...", nargs=-1, required=True, callback=to_place)
@click.argument("target", metavar="LOCAL", type=click.Path())
@click.option("--force", is_flag=True, help="Replace local files of the same name.")
@pass_choices
def get(choices: Choices, places: Sequence[Place], target: str, *, force: bool) -> None:
    """Fetch files and directories from the cluster.

    LOCAL is the name of the copy. When it is a directory or ends in '/', or several REMOTE are given, the copies go below it
    under their own names. '-' writes one file to standard output. A local file is there whole or not at all.
    """
    if target == STDOUT:
        _get_to_stdout(choices, places)
        return
    with opened(choices, places) as session:
        below = len(places) > 1 or target.endswith("/") or os.path.isdir(target)
        plan = Plan(session)
        copies = plan.to_get(places, target, below=below, force=force)
        files = list(_with_directories(plan, copies, target if below else ""))
        with (
            _bar(choices, "get", files) as bar,
            closing(session.in_parallel(files, _fetch, lambda copy: copy.size)) as fetched,
        ):
            for copy, future in fetched:
                try:
                    with landing(copy.local, force=force) as temporary, open(temporary, "xb") as file:
                        body = future.result()
                        file.write(body)
                except (GranumError, OSError) as error:
                    plan.failed(copy.local, copy.path, error)
                else:
                    plan.rows.append({"local": copy.local, "path": str(copy.path), "kind": "file", "size": len(body)})
                bar.add(copy.size)
        _report(choices, "got", plan.rows)


@click.command(cls=Command, example="granum mkdir /2026-10-01")
@click.argument("place", metavar="PATH", callback=to_place)
@pass_choices
def mkdir(choices: Choices, place: Place) -> None:
    """Make a directory, with those above it."""
    with opened(choices, [place], writes=True) as session:
        receipt = session.cluster.mkdir(place.path)
        if choices.json:
            print_json(receipt_row(receipt))
        elif not choices.quiet:
            say(f"made {receipt.path} on {receipt.node.name}")


def receipt_row(receipt: "Receipt") -> Row:
    """Return what JSON says of a receipt."""
    return {
        "path": str(receipt.path),
        "node": receipt.node.name,
        "size": receipt.size,
        "when": receipt.when,
        "durability": receipt.durability,
    }


def _loaded(plan: Plan, copies: Sequence[Copy]) -> Iterator[tuple[Copy, bytes]]:
    """Yield each copy with the bytes of its local file; one that cannot be read is reported."""
    for copy in copies:
        try:
            body = b""
            if not copy.is_directory:
                with open(copy.local, "rb") as file:
                    body = file.read()
        except OSError as error:
            plan.failed(copy.local, None, error)
        else:
            yield copy, body


def _store(cluster: "Cluster", job: tuple[Copy, bytes]) -> "Deferred[Receipt | None]":
    """Store one file, or make one directory; fires with None for a directory that is there."""
    from twisted.internet.defer import Deferred  # noqa: PLC0415

    copy, body = job

    async def make() -> "Receipt | None":
        try:
            return await cluster.mkdir(copy.path)
        except AlreadyStored:
            if await cluster.isdir(copy.path):
                return None
            raise

    if copy.is_directory:
        return Deferred.fromCoroutine(make())
    return cluster.put(copy.path, body)  # type: ignore[return-value]  # a Deferred of less, and nobody else adds to it


def _fetch(cluster: "Cluster", copy: Copy) -> "Deferred[bytes]":
    return cluster.get(copy.path, nodes=copy.nodes)


def _with_directories(plan: Plan, copies: Sequence[Copy], target: str) -> Iterator[Copy]:
    """Make the local directories, *target* too unless it is ''; yield the files."""
    if target and copies:
        os.makedirs(target, exist_ok=True)
    for copy in copies:
        if not copy.is_directory:
            yield copy
            continue
        try:
            os.makedirs(copy.local, exist_ok=True)
        except OSError as error:
            plan.failed(copy.local, copy.path, error)


def _get_to_stdout(choices: Choices, places: Sequence[Place]) -> None:
    if len(places) > 1 or choices.json:
        raise click.UsageError("'-' takes one file, and --json has no room for it")
    with opened(choices, places) as session:
        body = session.cluster.get(places[0].path)
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()


def _bar(choices: Choices, title: str, copies: Sequence[Copy]) -> Bar:
    files = [copy for copy in copies if not copy.is_directory]
    shown = is_wanted(json=choices.json, quiet=choices.quiet)
    return Bar(title, len(files), sum(copy.size for copy in files), shown=shown)


def _report(choices: Choices, verb: str, rows: Sequence[Row]) -> None:
    """Print what was copied."""
    if choices.json:
        print_json(rows)
        return
    done = [row for row in rows if "error" not in row and row["kind"] == "file"]
    if done and not choices.quiet:
        size = sum(row["size"] for row in done)
        only = f": {done[0]['path']}" if len(done) == 1 else ""
        say(f"{verb} {count_text(len(done), 'files')}, {size_text(size)}{only}")
