"""`granum overflow`: what streams of this machine have left on its disk, and delivering it.

A stream that runs delivers its overflow by itself. What a program left that ended before that is found here, and delivered
by anybody who may read it: the overflow says which cluster it is for.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from granum.cli.options import Choices, Section, pass_choices
from granum.cli.output import count_text, print_json, print_table, say, size_text
from granum.cli.progress import Bar, is_wanted
from granum.cli.session import Account, Session, opened
from granum.wire.errors import (
    AlreadyStored,
    GranumError,
    NodeUnreachable,
    NoNode,
    OnSomeNodes,
    OverflowUnusable,
)
from granum.wire.paths import ClusterPath

if TYPE_CHECKING:
    from granum import Cluster
    from granum.streaming.overflow import Overflow
    from granum.streaming.pending import Token
    from granum.streaming.survey import Leftover

_AGES = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))

Row = dict[str, Any]  # what JSON holds
File = tuple["Token", ClusterPath, bytes]


@click.group(cls=Section)
def overflow() -> None:
    """Show, deliver or drop what streams left on this machine's disk."""


@overflow.command(alone=True, example="granum overflow status")
@pass_choices
def status(choices: Choices) -> None:
    """Show every overflow on this machine: of which series, how much, how old, and whether a program uses it."""
    account = Account(choices)
    found = _looked_at(_directories(()), account)
    if choices.json:
        print_json([_row(each) for each in found])
    else:
        head = ("NAME", "SERIES", "CLUSTER", "FRAMES", "SIZE", "AGE", "STATE")
        print_table(head, [_cells(each) for each in found], right=[3, 4, 5])
    account.end()


@overflow.command(example="granum overflow resume")
@click.argument("directories", metavar="[NAME...]", nargs=-1)
@pass_choices
def resume(choices: Choices, directories: Sequence[str]) -> None:
    """Deliver what programs left that ended before they could.

    NAME is an overflow as 'granum overflow status' shows it, or its directory; without any, all that no program uses. Each goes
    to the cluster that its stream was for, unless you name another. What arrived before counts as delivered. An overflow that
    is delivered is gone from the disk; run the command again for one that is not.
    """
    account = Account(choices)
    found = [each for each in _looked_at(_directories(directories), account) if directories or not each.held]
    found.sort(key=lambda each: each.header.cluster)
    rows: list[Row] = []
    with _bar(choices, found) as bar:
        for cluster, group in groupby(found, key=lambda each: each.header.cluster):
            leftovers = list(group)
            try:
                with opened(_as_noted(choices, cluster, leftovers), writes=True, account=account) as session:
                    rows += [_deliver(session, each, bar) for each in leftovers]
            except (NoNode, NodeUnreachable) as error:
                account.failed(cluster or "any cluster", error)
    if choices.json:
        print_json(rows)
    elif not choices.quiet:
        for row in rows:
            left = f", {row['left']:,} left" if row["left"] else ""
            say(f"delivered {count_text(row['delivered'], 'frames')}, {size_text(row['size'])}{left}: {row['series']}")
        if not found:
            say("nothing to deliver")
    account.end()


@overflow.command(alone=True, example="granum overflow drop 20261122T120102Z-run1.pcs")
@click.argument("directories", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_choices
def drop(choices: Choices, directories: Sequence[str], *, yes: bool) -> None:
    """Delete overflows without delivering them, after asking: what is in them is in no other place.

    NAME is an overflow as 'granum overflow status' shows it, or its directory.
    """
    from granum.streaming.segments import drop as delete  # noqa: PLC0415 - not before it is needed

    account = Account(choices)
    rows: list[Row] = []
    for each in _looked_at(_directories(directories), account):
        what = f"{count_text(each.frames, 'frames')}, {size_text(each.size)}, of {each.header.series}"
        if not yes and not click.confirm(f"Delete {what}, which were not delivered?", err=True):
            continue
        try:
            delete(each.directory)
        except OSError as error:
            account.failed(each.directory, error)
        else:
            rows.append(_row(each))
            if not choices.json and not choices.quiet:
                say(f"dropped {what}")
    if choices.json:
        print_json(rows)
    account.end()


# -- which -----------------------------------------------------------------------------------------------------------------


def _directories(names: Sequence[str]) -> list[str]:
    """Return the directories that *names* mean, or all of this user's."""
    from granum.config import load  # noqa: PLC0415 - reads YAML, which --help need not know of
    from granum.streaming.survey import directories  # noqa: PLC0415 - likewise

    top = load().overflow_dir
    if not names:
        return directories(top)
    return [name if os.path.isdir(name) else os.path.join(top, name) for name in dict.fromkeys(names)]


def _looked_at(directories: Iterable[str], account: Account) -> "list[Leftover]":
    """Return what lies in *directories*; one that cannot be understood is reported."""
    from granum.streaming.survey import leftover  # noqa: PLC0415 - not before it is needed

    found = []
    for directory in directories:
        try:
            found.append(leftover(directory))
        except OSError as error:
            account.failed(directory, error)
    return found


def _as_noted(choices: Choices, cluster: str, leftovers: "Sequence[Leftover]") -> Choices:
    """Return *choices* with what the overflows say where the user said nothing."""
    nodes = dict.fromkeys(node for each in leftovers for node in each.header.nodes)
    return replace(
        choices,
        cluster=choices.cluster if choices.cluster is not None else cluster,
        nodes=choices.nodes or tuple(nodes),
        discovery=choices.discovery,
    )


# -- delivering ------------------------------------------------------------------------------------------------------------


def _deliver(session: Session, left: "Leftover", bar: Bar) -> Row:
    """Deliver all that *left* holds; return what became of it."""
    from granum.blocking.thread import reactor_thread  # noqa: PLC0415 - not before there is a cluster
    from granum.streaming.overflow import Overflow  # noqa: PLC0415

    reactor = reactor_thread().reactor
    row: Row = {**_row(left), "delivered": 0, "size": 0, "left": left.frames}
    try:
        held = session.submit(
            lambda: Overflow.reopen(left.directory, reactor=reactor, pool=reactor.getThreadPool())
        ).result()
    except OverflowUnusable as error:
        session.failed(left.directory, error)
        return row
    try:
        files = session.in_parallel(_files(session, held), _storing(session, held), lambda file: len(file[2]))
        with closing(files) as stored:
            for (_, path, body), future in stored:
                bar.add(len(body))
                try:
                    future.result()
                except (NoNode, NodeUnreachable, OnSomeNodes) as error:  # so would all the others
                    session.failed(str(path), error)
                    break
                except GranumError as error:
                    session.failed(str(path), error)
                else:
                    row["delivered"] += 1
                    row["size"] += len(body)
        if held.unreadable:
            session.failed(
                left.directory,
                OverflowUnusable(
                    f"{left.directory}: {held.unreadable:,} bytes are damaged and stay there; 'drop' ends that"
                ),
            )
    finally:
        row["left"] = left.frames - row["delivered"]
        session.submit(held.close).result()
    return row


def _files(session: Session, held: "Overflow") -> Iterator[File]:
    """Yield what is pending, oldest first; what is damaged is reported."""
    while True:
        try:
            taken = session.submit(held.next).result()
        except OverflowUnusable as error:
            session.failed(held.directory, error)
            continue
        if taken is None:
            return
        token, path, body, _ = taken
        yield token, path, bytes(body)


def _storing(session: Session, held: "Overflow") -> Any:  # Any: a function whose types only the checker needs
    transfer = session.transfer

    async def store(cluster: "Cluster", file: File) -> None:
        token, path, body = file
        try:
            await cluster.put(path, body)
        except AlreadyStored:
            (holder, *_) = await cluster.locate(path)
            try:
                await transfer.put(holder, path, body)  # with its digest: receipted when these are the bytes it has
            except AlreadyStored:  # another file, or a PYME node, which compares nothing
                if await cluster.get(path) != body:
                    raise
        held.delivered(token)

    return store


# -- how it is said --------------------------------------------------------------------------------------------------------


def _row(left: "Leftover") -> Row:
    return {
        "directory": left.directory,
        "series": str(left.header.series),
        "cluster": left.header.cluster,
        "nodes": list(left.header.nodes),
        "frames": left.frames,
        "size": left.size,
        "created": left.header.created,
        "unreadable": left.unreadable,
        "in_use": left.held,
        "pid": left.pid,
    }


def _cells(left: "Leftover") -> tuple[str, ...]:
    state = "left behind"
    if left.held:
        state = "in use" if left.pid is None else f"in use by process {left.pid}"
    elif left.unreadable:
        state = f"left behind, {size_text(left.unreadable)} damaged"
    return (
        os.path.basename(left.directory),
        str(left.header.series),
        left.header.cluster or "?",
        f"{left.frames:,}",
        size_text(left.size),
        _age_text(time.time() - left.header.created),
        state,
    )


def _age_text(seconds: float) -> str:
    """Return how long ago something was, in the largest unit that fits."""
    for unit, length in _AGES:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "0 s"


def _bar(choices: Choices, found: "Sequence[Leftover]") -> Bar:
    shown = is_wanted(json=choices.json, quiet=choices.quiet)
    return Bar("deliver", sum(each.frames for each in found), sum(each.size for each in found), shown=shown)
