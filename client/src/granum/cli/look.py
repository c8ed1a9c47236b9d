"""`granum ls`, `tree`, `stat`, `locate`: what is stored, and where."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from granum.cli.options import Choices, Command, pass_choices
from granum.cli.output import count_text, print_fields, print_json, print_table, say, size_text
from granum.cli.place import Place, to_place
from granum.cli.session import Session, opened
from granum.wire.errors import NotADirectory
from granum.wire.listing import UNKNOWN_SIZE, Entry
from granum.wire.locator import Locator
from granum.wire.paths import ClusterPath

if TYPE_CHECKING:
    from granum.roster import Node
    from granum.union import UnionView

Row = dict[str, Any]  # what JSON holds
BRANCH_CELLS = 4  # width of one level of the tree


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of the tree: what leads to the entry, what leads to those below it, the entry."""

    lead: str
    below: str
    row: Row


@click.command(cls=Command, example="granum ls -l /2026-10-01")
@click.argument("place", metavar="[PATH]", callback=to_place, default="/")
@click.option("-l", "--long", "is_long", is_flag=True, help="Also kind, size and nodes.")
@pass_choices
def ls(choices: Choices, place: Place, *, is_long: bool) -> None:
    """List a directory of the cluster, merged over its nodes."""
    with opened(choices, [place]) as session:
        rows = _rows(session, place.path)
        if choices.json:
            print_json(rows)
        elif is_long:
            print_table(
                ("KIND", "SIZE", "NODES", "NAME"),
                [(_kind_text(row), _size_text(row), ", ".join(row["nodes"]), _name_text(row)) for row in rows],
                right=[1],
            )
        else:
            for row in rows:
                say(_line(row))


@click.command(cls=Command, example="granum tree --depth 2 /2026-10-01")
@click.argument("place", metavar="[PATH]", callback=to_place, default="/")
@click.option("--depth", type=click.IntRange(min=1), metavar="N", help="Go down N levels only.")
@pass_choices
def tree(choices: Choices, place: Place, depth: int | None) -> None:
    """Show a directory and everything below it; the frames of a series are counted, not shown."""
    with opened(choices, [place]) as session:
        branches = _walk(session, _branches(session, place.path, ""), depth)
        if choices.json:
            print_json([branch.row for branch in branches])
            return
        say(str(place.path))
        for branch in branches:
            say(branch.lead + _line(branch.row))


@click.command(cls=Command, example="granum stat /2026-10-01/run1")
@click.argument("place", metavar="PATH", callback=to_place)
@pass_choices
def stat(choices: Choices, place: Place) -> None:
    """Tell what is stored under a path: kind, size, nodes."""
    with opened(choices, [place]) as session:
        found = session.cluster.stat(place.path)
        session.note_missing_nodes()
        row = entry_row(found.path, Entry(found.path.name, found.flags, found.size), found.nodes)
        if choices.json:
            print_json(row)
            return
        size = f"{found.size:,} bytes" if row["size"] is not None else count_text(found.size, "entries")
        clusters = {node.cluster for node in found.nodes}
        locator = Locator(next(iter(clusters)) if len(clusters) == 1 else "", found.path)
        nodes = ", ".join(str(node) for node in found.nodes)
        print_fields(
            {"path": str(found.path), "kind": _kind_text(row), "size": size, "nodes": nodes, "locator": str(locator)}
        )


@click.command(cls=Command, example="granum locate /2026-10-01/run1/frame00000.pzf")
@click.argument("place", metavar="PATH", callback=to_place)
@pass_choices
def locate(choices: Choices, place: Place) -> None:
    """Name the nodes that hold a file or directory, the nearest first, with its address there."""
    with opened(choices, [place]) as session:
        nodes = session.cluster.locate(place.path)
        session.note_missing_nodes()
        target = place.path.target()
        rows = [
            {"node": node.name, "node_id": node.node_id, "cluster": node.cluster, "url": node.url_base + target}
            for node in nodes
        ]
        if choices.json:
            print_json(rows)
        else:
            print_table(("NODE", "URL"), [(row["node"], row["url"]) for row in rows])


def _rows(session: Session, path: ClusterPath) -> list[Row]:
    """Return the entries of the directory *path*, or *path* itself when it is a file."""
    try:
        return _rows_of(path, _view(session, path))
    except NotADirectory:
        found = session.cluster.stat(path)
        session.note_missing_nodes()
        return [entry_row(path, Entry(path.name, found.flags, found.size), found.nodes)]


def _view(session: Session, path: ClusterPath) -> "UnionView":
    """Return the view of *path*; its missing nodes and collisions are noted."""
    view = session.cluster.listdir(path)
    session.missing(view.missing)
    for collision in view.collisions:
        session.warn(f"{path}: one name, several contents: {collision}")
    return view


def _rows_of(path: ClusterPath, view: "UnionView") -> list[Row]:
    return [entry_row(path / name, entry, view.holders(name)) for name, entry in view.items()]


def entry_row(path: ClusterPath, entry: Entry, nodes: "tuple[Node, ...]") -> Row:
    """Return what JSON says of an entry."""
    size = None if entry.size == UNKNOWN_SIZE else entry.size
    return {
        "path": str(path),
        "name": entry.name,
        "kind": "series" if entry.is_series else "directory" if entry.is_directory else "file",
        "complete": entry.is_complete if entry.is_series else None,
        "size": None if entry.is_directory else size,
        "entries": size if entry.is_directory else None,
        "nodes": [node.name for node in nodes],
    }


def _branches(session: Session, path: ClusterPath, lead: str) -> list[Branch]:
    """Return the entries of the directory *path*, the last first; *lead* leads to each of them."""
    rows = _rows_of(path, _view(session, path))
    branches = [Branch(lead + "├── ", lead + "│   ", row) for row in rows[:-1]]
    branches += [Branch(lead + "└── ", lead + "    ", row) for row in rows[-1:]]
    return branches[::-1]


def _walk(session: Session, waiting: list[Branch], depth: int | None) -> Iterator[Branch]:
    """Yield those in *waiting*, from its end, each followed by what is below it, down to *depth* levels."""
    while waiting:
        branch = waiting.pop()
        yield branch
        if branch.row["kind"] == "directory" and (depth is None or len(branch.below) // BRANCH_CELLS < depth):
            waiting += _branches(session, ClusterPath.parse(branch.row["path"]), branch.below)


def _line(row: Row) -> str:
    """Return the name, and what a series is."""
    if row["kind"] != "series":
        return _name_text(row)
    return f"{_name_text(row)}  {_kind_text(row)}, {_size_text(row)}"


def _name_text(row: Row) -> str:
    return f"{row['name']}{'' if row['kind'] == 'file' else '/'}"


def _kind_text(row: Row) -> str:
    if row["kind"] != "series":
        return str(row["kind"])
    return "series, complete" if row["complete"] else "series, incomplete"


def _size_text(row: Row) -> str:
    size: int | None = row["size"]
    if row["kind"] == "file":
        return size_text(UNKNOWN_SIZE if size is None else size)
    entries: int | None = row["entries"]
    return "? entries" if entries is None else count_text(entries, "entries")
