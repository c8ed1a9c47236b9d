"""`granum du`: how many bytes and files there are in directories, and on which nodes. It prints while it walks.

Only the directories between the top and where the walk is are kept.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from granum.cli.options import Choices, Command, pass_choices
from granum.cli.output import GAP, JsonArray, count_text, say, size_text
from granum.cli.place import Place, to_place
from granum.cli.session import Session, opened
from granum.cli.walk import walk
from granum.wire.errors import NotADirectory
from granum.wire.listing import UNKNOWN_SIZE, Entry
from granum.wire.paths import ClusterPath

if TYPE_CHECKING:
    from granum.roster import Node

SIZE_CELLS, FILES_CELLS = 7, 11  # '999 MB'; '100,000,000'

Row = dict[str, Any]  # what JSON holds


@dataclass(slots=True)
class Usage:
    """Bytes and files in a directory and below it, and the same by the name of the node.

    A file that lies on several nodes counts once, and once for each of them. *unknown* files have sizes that no node told.
    """

    path: ClusterPath
    size: int = 0
    files: int = 0
    unknown: int = 0
    node_sizes: Counter[str] = field(default_factory=Counter)
    node_files: Counter[str] = field(default_factory=Counter)

    def count(self, entry: Entry, nodes: "tuple[Node, ...]") -> None:
        """Count a file."""
        size = max(entry.size, 0)
        self.files += 1
        self.size += size
        self.unknown += entry.size == UNKNOWN_SIZE
        for node in nodes:
            self.node_files[node.name] += 1
            self.node_sizes[node.name] += size

    def add(self, below: "Usage") -> None:
        """Count all that was counted *below*."""
        self.size += below.size
        self.files += below.files
        self.unknown += below.unknown
        self.node_sizes.update(below.node_sizes)
        self.node_files.update(below.node_files)

    def row(self) -> Row:
        """Return what JSON says."""
        nodes = {
            name: {"size": self.node_sizes[name], "files": self.node_files[name]} for name in sorted(self.node_files)
        }
        return {"path": str(self.path), "size": self.size, "files": self.files, "unknown": self.unknown, "nodes": nodes}

    def lines(self, *, by_node: bool) -> Iterator[str]:
        """Yield the line of the directory, and one for each node."""
        yield _line(self.size, self.files, str(self.path))
        for name in sorted(self.node_files) if by_node else ():
            yield _line(self.node_sizes[name], self.node_files[name], f"{GAP}on {name}")


@click.command(cls=Command, example="granum du -d 2 /2026-10-01")
@click.argument("place", metavar="[PATH]", callback=to_place, default="/")
@click.option(
    "-d", "--depth", type=click.IntRange(min=0), metavar="N", default=1, show_default=True, help="Down to here."
)
@click.option("--nodes", "by_node", is_flag=True, help="Also how much of it lies on each node.")
@pass_choices
def du(choices: Choices, place: Place, depth: int, *, by_node: bool) -> None:
    """Tell how many bytes and files there are in directories: PATH, and those below it down to --depth.

    A directory is printed once all in it is counted, PATH last. --depth 0 is PATH alone.
    """
    with opened(choices, [place]) as session, ExitStack() as stack:
        array = stack.enter_context(JsonArray()) if choices.json else None
        for usage in _usages(session, place.path):
            if len(usage.path.parts) - len(place.path.parts) <= depth:
                if array is not None:
                    array.add(usage.row())
                else:
                    for line in usage.lines(by_node=by_node):
                        say(line)
        if usage.unknown:
            session.warn(
                f"{place.path}: no node tells the size of {count_text(usage.unknown, 'files')}; counted as 0 bytes"
            )


def _usages(session: Session, top: ClusterPath) -> Iterator[Usage]:
    """Yield the usage of every directory, each after those below it."""
    open_: list[Usage] = []  # from *top* to where the walk is
    try:
        for path, view in walk(session, top):
            yield from _closed(open_, path)
            open_.append(Usage(path))
            for name, entry in view.items():
                if not entry.is_directory:
                    open_[-1].count(entry, view.holders(name))
    except NotADirectory:
        found = session.cluster.stat(top)
        session.note_missing_nodes()
        open_.append(Usage(top))
        open_[-1].count(Entry(top.name, found.flags, found.size), found.nodes)
    yield from _closed(open_, None)


def _closed(open_: list[Usage], path: ClusterPath | None) -> Iterator[Usage]:
    """Yield those of *open_* that are complete because the walk has come to *path*, each added to the one above it."""
    while open_ and (path is None or open_[-1].path.parts != path.parts[: len(open_[-1].path.parts)]):
        usage = open_.pop()
        yield usage
        if open_:
            open_[-1].add(usage)


def _line(size: int, files: int, text: str) -> str:
    return f"{size_text(size):>{SIZE_CELLS}}{GAP}{files:>{FILES_CELLS},}{GAP}{text}"
