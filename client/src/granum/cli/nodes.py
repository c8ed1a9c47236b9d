"""`granum nodes`: which nodes there are, how they do, and how much room they have."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from granum.cli.options import Choices, Command, pass_choices
from granum.cli.output import print_json, print_table, size_text
from granum.cli.rates import number, part
from granum.cli.session import Session, opened
from granum.wire.errors import GranumError

if TYPE_CHECKING:
    from granum.roster import NodeState

ID_SHOWN = 8  # characters of a node id: enough to tell the nodes of a lab apart

Row = dict[str, Any]  # what JSON holds


@click.command(cls=Command, example="granum nodes -c lab")
@pass_choices
def nodes(choices: Choices) -> None:
    """Show the nodes of the cluster: address, state, free space, version."""
    with opened(choices) as session:
        states = session.cluster.nodes()
        rows = [_row(state, answer) for state, answer in zip(states, _ask(session, states), strict=True)]
        session.missing({row["name"]: GranumError(row["cause"]) for row in rows if row["cause"]})
        if choices.json:
            print_json(rows)
        else:
            print_table(
                ("NAME", "ADDRESS", "CLUSTER", "STATE", "FREE", "SIZE", "FREE %", "VERSION", "ID"),
                [_cells(row) for row in rows],
                right=[4, 5, 6],
            )


def _ask(session: Session, states: "Sequence[NodeState]") -> "list[Mapping[str, Any] | GranumError]":
    """Return each node's answer to GET /__status, all asked at once; the error of one that does not answer."""
    transfer = session.transfer
    answers: list[Mapping[str, Any] | GranumError] = []
    for future in [session.submit(partial(transfer.status, state.node)) for state in states]:
        try:
            answers.append(future.result())
        except GranumError as error:
            answers.append(error)
    return answers


def _row(state: "NodeState", answer: "Mapping[str, Any] | GranumError") -> Row:
    """Return what is known of a node; a PYME node tells neither version nor node id."""
    node = state.node
    status = {} if isinstance(answer, GranumError) else answer
    own = part(status, "Granum")
    disk = part(status, "Disk")
    return {
        "name": node.name,
        "address": node.address,
        "port": node.port,
        "cluster": node.cluster,
        "state": "missing" if isinstance(answer, GranumError) else "ok",
        "cause": str(answer) if isinstance(answer, GranumError) else None,
        "free": number(disk, "free"),
        "size": number(disk, "total"),
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
