"""`granum top`: what the nodes do, second by second.

All nodes are asked at once, every second, each by itself: one that does not answer neither delays nor hides the others.
"""

import os
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from itertools import count
from select import select
from typing import TYPE_CHECKING

import click

from granum.cli.exposition import parse
from granum.cli.options import Choices, Command, pass_choices
from granum.cli.output import print_json, say, size_text, table
from granum.cli.rates import Look, Row, Watch, look
from granum.cli.session import Session, opened
from granum.wire.errors import GranumError

if TYPE_CHECKING:
    from granum.roster import Node, NodeState

PERIOD_S = 1.0
QUIT_KEYS = frozenset({b"q", b"Q"})
HEAD = ("NODE", "ADDRESS", "STATE", "DURABILITY", "FREE", "PUTS/S", "IN MB/S", "OUT MB/S", "P50", "P99", "LAG", "CONN")
RIGHT = range(4, len(HEAD))


@click.command(cls=Command, example="granum top -c lab")
@click.option("--once", is_flag=True, help="Print one table, of one second, and end.")
@pass_choices
def top(choices: Choices, *, once: bool) -> None:
    """Show what the nodes do: puts, bytes, receipts, and how they do; anew every second, until 'q' or Ctrl-C.

    P50 and P99 are how long a put took, from its head to its receipt; LAG is how late the node's loop was (99th percentile).
    They are of the last second. A node that does not answer is shown with how long it has been silent; a PYME node tells its
    free space alone. In a pipe a table is printed every second; with --json one document, as with --once.
    """
    with opened(choices) as session:
        watching = Watching(session)
        if once or choices.json:
            _print_once(session, watching)
            return
        is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        show = _on_terminal if is_terminal else _in_pipe
        try:
            show(watching)
        except KeyboardInterrupt:  # how it is meant to end
            return


class Watching:
    """Asks all nodes of *session* for their status and metrics, each again once it has answered."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._transfer = session.transfer
        self._clock = clock
        self._watches: dict[str, Watch] = {}
        self._asked: dict[str, Future[Look]] = {}

    def turn(self, states: "Sequence[NodeState]") -> list[Row]:
        """Take in the answers that have come, ask the nodes in *states* anew; return a row for each."""
        now = self._clock()
        self._watches = {state.node.key: self._watch(state.node, now) for state in states}
        for key, watch in self._watches.items():
            future = self._asked.get(key)
            if future is not None and future.done():
                del self._asked[key]
                try:
                    watch.answered(future.result())
                except GranumError as error:
                    watch.failed(str(error))
            if key not in self._asked:
                self._asked[key] = self._session.submit(partial(self._look, watch.node))
        return [watch.row(now) for watch in self._watches.values()]

    def step(self) -> list[Row]:
        """Do a turn over the nodes that are known now."""
        return self.turn(self._session.cluster.nodes())

    def _watch(self, node: "Node", now: float) -> Watch:
        watch = self._watches.get(node.key) or Watch(node, now)
        watch.node = node
        return watch

    async def _look(self, node: "Node") -> Look:
        status: Mapping[str, object] = await self._transfer.status(node)
        metrics = parse(await self._transfer.metrics(node)) if node.node_id else None  # PYME's nodes have none
        return look(self._clock(), status, metrics)


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table of *rows*; a node that does not answer has the cause behind its line."""
    shown = table(HEAD, [_cells(row) for row in rows], right=RIGHT)
    return [shown[0], *(f"{line}  {row['cause'] or ''}".rstrip() for line, row in zip(shown[1:], rows, strict=True))]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row["name"],
        f"{row['address']}:{row['port']}",
        f"silent for {row['silent_s']:.0f} s" if row["silent_s"] is not None else row["state"] or "...",
        row["durability"] or "-",
        "-" if row["free"] is None else size_text(row["free"]),
        _number_text(row["puts_per_s"], 1),
        _number_text(row["in_per_s"], 1e-6),
        _number_text(row["out_per_s"], 1e-6),
        _duration_text(row["receipt_p50_s"]),
        _duration_text(row["receipt_p99_s"]),
        _duration_text(row["lag_p99_s"]),
        "-" if row["connections"] is None else f"{row['connections']:,}",
    )


def _number_text(value: float | None, factor: float) -> str:
    if value is None:
        return "-"
    value *= factor
    return f"{value:,.1f}" if 0 < value < 10 else f"{value:,.0f}"


def _duration_text(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"


# -- showing ---------------------------------------------------------------------------------------------------------


def _print_once(session: Session, watching: Watching) -> None:
    """Print what happened in one second."""
    rows = watching.step()
    for _ in range(2):  # the answers, which are asked for again; the answers to that
        _is_quit_within(PERIOD_S, None)
        rows = watching.step()
    session.missing({row["name"]: GranumError(row["cause"]) for row in rows if row["cause"]})
    if session.choices.json:
        print_json(rows)
    else:
        for line in lines(rows):
            say(line)


def _in_pipe(watching: Watching) -> None:
    for number in count():
        for line in lines(watching.step())[min(number, 1) :]:  # the head once
            say(line)
        sys.stdout.flush()
        _is_quit_within(PERIOD_S, None)


def _on_terminal(watching: Watching) -> None:
    from rich.console import Console  # noqa: PLC0415 - costs time that --help and completion do not have
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with _keyboard() as keyboard, Live(console=Console(), auto_refresh=False, screen=True) as live:
        while True:
            head, *others = lines(watching.step())
            text = Text("\n".join(["", *others]), no_wrap=True, overflow="crop")
            live.update(Text(head, style="bold", no_wrap=True, overflow="crop") + text, refresh=True)
            if _is_quit_within(PERIOD_S, keyboard):
                return


@contextmanager
def _keyboard() -> Iterator[int | None]:
    """Have keys come one by one and unseen; give the descriptor they come from, None where there is no keyboard."""
    if not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _is_quit_within(seconds: float, keyboard: int | None) -> bool:
    """Wait so long; return whether one of QUIT_KEYS was pressed meanwhile, at once when it is."""
    end = time.monotonic() + seconds
    keys = [] if keyboard is None else [keyboard]
    while (left := end - time.monotonic()) > 0:
        ready, _, _ = select(keys, [], [], left)
        if ready and os.read(ready[0], 1) in {*QUIT_KEYS, b""}:  # b'': the terminal is gone
            return True
    return False
