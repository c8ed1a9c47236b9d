"""`granum nodes`: which nodes there are, how they do, and how much room they have."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from granum.cli.options import Choices, Command, pass_choices
from granum.cli.output import print_json, print_table, size_text
from granum.cli.session import opened
from granum.wire.errors import GranumError

if TYPE_CHECKING:
    from granum.roster import Node, NodeState

ID_SHOWN = 8  # characters of a node id: enough to tell the nodes of a lab apart

Row = dict[str, Any]  # what JSON holds


@click.command(cls=Command, example="granum nodes -c lab")
@pass_choices
def nodes(choices: Choices) -> None:
    """Show the nodes of the cluster: address, state, free space, version."""
    with opened(choices) as session:
        states = session.cluster.nodes()
        rows = [_row(state, answer) for state, answer in zip(states, _ask(states), strict=True)]
        session.missing({row["name"]: GranumError(row["cause"]) for row in rows if row["cause"]})
        if choices.json:
            print_json(rows)
        else:
            print_table(
                ("NAME", "ADDRESS", "CLUSTER", "STATE", "FREE", "SIZE", "FREE %", "VERSION", "ID"),
                [_cells(row) for row in rows],
                right=[4, 5, 6],
            )


def _ask(states: "Sequence[NodeState]") -> "list[Mapping[str, Any] | GranumError]":
    """Return each node's answer to GET /__status, all asked at once; the error of one that does not answer."""
    from twisted.internet.defer import Deferred  # noqa: PLC0415 - not before there is a cluster

    from granum.blocking.thread import reactor_thread  # noqa: PLC0415
    from granum.transfer import Transfer  # noqa: PLC0415

    thread = reactor_thread()
    transfer = Transfer(thread.reactor)

    def begin(node: "Node") -> Any:  # a Future of the answer
        return thread.submit(lambda: Deferred.fromCoroutine(transfer.status(node)))

    answers: list[Mapping[str, Any] | GranumError] = []
    for future in [begin(state.node) for state in states]:
        try:
            answers.append(future.result())
        except GranumError as error:
            answers.append(error)
    thread.run(transfer.close)
    return answers


def _row(state: "NodeState", answer: "Mapping[str, Any] | GranumError") -> Row:
    """Return what is known of a node; a PYME node tells neither version nor node id."""
    node = state.node
    status = {} if isinstance(answer, GranumError) else answer
    own = _part(status, "Granum")
    disk = _part(status, "Disk")
    return {
        "name": node.name,
        "address": node.address,
        "port": node.port,
        "cluster": node.cluster,
        "state": "missing" if isinstance(answer, GranumError) else "ok",
        "cause": str(answer) if isinstance(answer, GranumError) else None,
        "free": _number(disk, "free"),
        "size": _number(disk, "total"),
        "version": own.get("version"),
        "durability": own.get("durability"),
        "node_id": node.node_id,
        "sources": list(state.sources),
    }


def _cells(row: Row) -> tuple[str, ...]:
    known = row["free"] is not None and row["size"]
    return (
        row["name"],
        f"{row['address']}:{row['port']}",
        row["cluster"] or "?",
        row["state"],
        "?" if row["free"] is None else size_text(row["free"]),
        "?" if row["size"] is None else size_text(row["size"]),
        f"{100 * row['free'] / row['size']:.0f}" if known else "?",
        str(row["version"] or "?"),
        row["node_id"][:ID_SHOWN] or "-",
    )


def _part(status: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object *key* of *status*; nothing when the node sent something else."""
    found = status.get(key)
    return found if isinstance(found, dict) else {}


def _number(part: Mapping[str, Any], key: str) -> int | None:
    found = part.get(key)
    return int(found) if isinstance(found, int | float) else None
