"""`granum find`: the paths below a place that fit what is asked for, printed as the walk comes to them."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import translate
from typing import TYPE_CHECKING

import click

from granum.cli.look import entry_row
from granum.cli.options import Choices, Command, pass_choices
from granum.cli.output import JsonArray, say
from granum.cli.place import Place, to_place
from granum.cli.session import Session, opened
from granum.cli.walk import walk
from granum.wire.errors import NoNode, NotADirectory
from granum.wire.listing import Entry
from granum.wire.paths import ClusterPath

if TYPE_CHECKING:
    from granum.roster import Node

KINDS = {"f": False, "d": True}
_SIZE = re.compile(r"([+-]?)([0-9]{1,15})([KMGT]?)(I?)B?", re.IGNORECASE)

SizeTest = Callable[[int], bool]


def to_size_test(_: click.Context | None, __: click.Parameter | None, value: str | None) -> SizeTest | None:
    """Return the test on a number of bytes that *value* means: '+1M' is more than, '-64K' less than, '512' exactly so many.

    K is 1000, Ki is 1024. A size that is not known (-1) passes no test. click's callback.
    """
    if value is None:
        return None
    found = _SIZE.fullmatch(value)
    if found is None or (found[4] and not found[3]):
        raise click.BadParameter(
            f"{value!r} is no size; write +1M for more than a megabyte, -64K for less, 512 for exactly"
        )
    sign, number, unit, binary = found.groups()
    bound = int(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " ")
    if sign == "+":
        return lambda size: size > bound
    if sign == "-":
        return lambda size: 0 <= size < bound
    return lambda size: size == bound


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; None where anything will do. *on* is the name, address or id of a node, or how the id begins."""

    name: "re.Pattern[str] | None" = None
    size: SizeTest | None = None
    is_directory: bool | None = None
    on: str | None = None

    def fits(self, entry: Entry, nodes: "tuple[Node, ...]") -> bool:
        """Whether *entry*, which lies on *nodes*, is one."""
        return (
            (self.is_directory is None or entry.is_directory == self.is_directory)
            and (self.name is None or self.name.match(entry.name) is not None)
            and (self.size is None or (not entry.is_directory and self.size(entry.size)))
            and (self.on is None or any(is_called(node, self.on) for node in nodes))
        )


def is_called(node: "Node", name: str) -> bool:
    """Whether *name* means *node*: its name, where it listens, or how its id begins."""
    return name in {node.name, node.host} or bool(name and node.node_id.startswith(name))


@click.command(cls=Command, example="granum find /2026-10-01 --name '*.tif' --size +1G")
@click.argument("place", metavar="[PATH]", callback=to_place, default="/")
@click.option("--name", metavar="GLOB", help="Those whose name matches; quote it from the shell.")
@click.option(
    "--size", callback=to_size_test, metavar="[+-]N[KMGT]", help="Files of more than (+), less than (-) or N bytes."
)
@click.option("--type", "kind", type=click.Choice(list(KINDS)), help="Files or directories only.")
@click.option("--on", metavar="NODE", help="Those that lie on a node: its name, its address or how its id begins.")
@click.option("-0", "--print0", "is_print0", is_flag=True, help="End each path with a NUL, for 'xargs -0'.")
@pass_choices
def find(
    choices: Choices,
    place: Place,
    name: str | None,
    size: SizeTest | None,
    kind: str | None,
    on: str | None,
    *,
    is_print0: bool,
) -> None:
    """Print the path of every file and directory below PATH that fits all that is asked for.

    A path is printed as soon as it is found. With none of the options, these are all paths.
    """
    wanted = Wanted(
        None if name is None else re.compile(translate(name)), size, None if kind is None else KINDS[kind], on
    )
    with opened(choices, [place]) as session, ExitStack() as stack:
        known = [state.node for state in session.cluster.nodes()]
        if on is not None and not any(is_called(node, on) for node in known):
            raise NoNode(f"no node is called {on!r}; there are {', '.join(map(str, known))}")
        array = stack.enter_context(JsonArray()) if choices.json else None
        for path, entry, nodes in _entries(session, place.path):
            if not wanted.fits(entry, nodes):
                continue
            if array is not None:
                array.add(entry_row(path, entry, nodes))
            elif is_print0:
                click.echo(f"{path}\0", nl=False)
            else:
                say(str(path))


def _entries(session: Session, top: ClusterPath) -> Iterator[tuple[ClusterPath, Entry, "tuple[Node, ...]"]]:
    """Yield everything below *top*, or *top* itself when it is a file."""
    try:
        for path, view in walk(session, top):
            for name, entry in view.items():
                yield path / name, entry, view.holders(name)
    except NotADirectory:
        found = session.cluster.stat(top)
        session.note_missing_nodes()
        yield top, Entry(top.name, found.flags, found.size), found.nodes
