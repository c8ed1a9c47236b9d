"""`granum cat`: the bytes of files, one after the other, on standard output."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing

import click

from granum.cli.options import Choices, Command, pass_choices
from granum.cli.parts import Checking, Part, cut, fetched
from granum.cli.place import Place, to_place
from granum.cli.session import Session, opened
from granum.wire.errors import GranumError, IsADirectory
from granum.wire.paths import ClusterPath

_RANGE = re.compile(r"(\d{0,18})-(\d{0,18})")

Range = tuple[int, int | None]  # from the first byte to before the second, None: to the end; (-n, None): the last n


def to_range(_: click.Context | None, __: click.Parameter | None, value: str | None) -> Range:
    """Return what 'a-b', 'a-' and '-n' mean, in HTTP's way: b is the last byte, n are the last ones. click's callback."""
    if value is None:
        return 0, None
    found = _RANGE.fullmatch(value)
    if found is None or value == "-":
        raise click.BadParameter(
            f"{value!r} is no range; write 0-99 for the first hundred bytes, 100- for the rest, -10 for the last"
        )
    first, last = found.groups()
    if not first:
        return -int(last), None
    if last and int(last) < int(first):
        raise click.BadParameter(f"{value!r} ends before it begins")
    return int(first), int(last) + 1 if last else None


@click.command(cls=Command, example="granum cat /2026-10-01/run1.pcs/metadata.json")
@click.argument("places", metavar="PATH...", nargs=-1, required=True, callback=to_place)
@click.option("--range", "span", metavar="A-B", callback=to_range, help="Of each file, bytes A to B; also A- and -N.")
@pass_choices
def cat(choices: Choices, places: Sequence[Place], span: Range) -> None:
    """Write files to standard output, one after the other.

    They are compared with their digests on the way; large ones travel by parts, so that memory does not grow with them.
    """
    if choices.json:
        raise click.UsageError("files are written as they are, for which --json has no room")
    with opened(choices, places) as session:
        write_files(session, [place.path for place in places], span)


def write_files(session: Session, paths: Sequence[ClusterPath], span: Range = (0, None)) -> None:
    """Write *span* of each of the files *paths* to standard output; of several, one that fails is reported."""
    failed: set[ClusterPath] = set()

    def fail(path: ClusterPath, error: GranumError) -> None:
        if len(paths) == 1:
            raise error
        failed.add(path)
        session.failed(str(path), error)

    def parts() -> Iterator[Part]:
        for path in paths:
            try:
                yield from _parts(session, path, span)
            except GranumError as error:
                fail(path, error)

    checking = Checking(session)
    with closing(fetched(session, parts())) as coming:
        for part, future in coming:
            if part.path in failed:
                continue
            try:
                body = future.result()
                sys.stdout.buffer.write(body)
                checking.add(part, body)
            except GranumError as error:
                fail(part.path, error)
    sys.stdout.buffer.flush()


def _parts(session: Session, path: ClusterPath, span: Range) -> Iterator[Part]:
    found = session.cluster.stat(path)
    if found.is_directory:
        raise IsADirectory(f"{path} is a directory; 'granum ls' lists it")
    start, stop = span
    if start < 0:
        start = max(found.size + start, 0)
    return cut(path, found.size, found.nodes, start, stop)
