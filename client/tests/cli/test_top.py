"""`granum top`: a table of what the nodes do, which neither a silent node nor the end of the program spoils."""

import os
import pty
import signal
import subprocess
from concurrent.futures import Future
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from client.tests.cli.conftest import TIMEOUT_S, Granum
from granum.cli.rates import Look, Watch
from granum.cli.top import HEAD, Watching, lines
from granum.roster import Node, NodeState
from granum.wire.errors import NodeUnreachable
from integration.lab import ProcessLab

NODE = Node("key", "disk1:15348", "10.0.0.1", 15348, "lab", "id")
PYME = Node("pyme", "disk2:15348", "10.0.0.2", 15348, "lab")


def state(node: Node) -> NodeState:
    return NodeState(node, ("list",), 0.0, None, None)


class Session:
    """Stands for a session: keeps what is asked, so that a test answers."""

    def __init__(self) -> None:
        self.transfer = SimpleNamespace(status=None, metrics=None)
        self.asked: list[Future[Look]] = []

    def submit(self, begin: Any) -> "Future[Look]":
        self.asked.append(Future())
        return self.asked[-1]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def watching() -> tuple[Watching, Session, Clock]:
    session, clock = Session(), Clock()
    return Watching(session, clock), session, clock  # type: ignore[arg-type]


def test_a_node_is_asked_again_once_it_has_answered() -> None:
    top, session, clock = watching()
    top.turn([state(NODE)])
    top.turn([state(NODE)])
    assert len(session.asked) == 1
    session.asked[0].set_result(Look(0.5, puts=10.0))
    clock.now = 1.0
    assert top.turn([state(NODE)])[0]["puts_per_s"] is None
    session.asked[1].set_result(Look(1.5, puts=40.0))
    clock.now = 2.0
    assert top.turn([state(NODE)])[0]["puts_per_s"] == 30.0


def test_a_silent_node_does_not_hide_another() -> None:
    top, session, clock = watching()
    top.turn([state(NODE), state(PYME)])
    for second in range(1, 8):
        session.asked[-1 if second > 1 else 0].set_result(Look(float(second)))
        clock.now = float(second)
        rows = top.turn([state(NODE), state(PYME)])
    assert [row["state"] for row in rows] == ["ok", "missing"]
    assert rows[1]["silent_s"] == 7.0
    assert len(session.asked) == 2 + 7  # the silent one was asked once


def test_a_node_that_refuses_is_asked_again() -> None:
    top, session, _ = watching()
    top.turn([state(NODE)])
    session.asked[0].set_exception(NodeUnreachable("it refuses"))
    (row,) = top.turn([state(NODE)])
    assert (row["state"], row["cause"]) == ("missing", "it refuses")
    assert len(session.asked) == 2


def test_a_node_that_left_is_no_longer_shown() -> None:
    top, _, _ = watching()
    top.turn([state(NODE), state(PYME)])
    assert [row["name"] for row in top.turn([state(PYME)])] == [PYME.name]


def test_a_line_has_a_cell_for_each_column() -> None:
    watch = Watch(PYME, 0.0)
    watch.answered(Look(1.0, free=5_000_000_000))
    head, line = lines([watch.row(1.0)])
    assert line.split() == ["disk2:15348", "10.0.0.2:15348", "ok", "-", "5.0", "GB", *"-------"]
    assert [word for name in HEAD for word in name.split()] == head.split()


def test_what_happens_is_counted(granum: Granum, lab: ProcessLab) -> None:
    rows = {row["port"]: row for row in granum.json("top")}
    row = rows[lab.nodes[0].port]
    assert (row["state"], row["durability"], row["silent_s"]) == ("serving", "commit", None)
    assert (row["puts_per_s"], row["receipt_p50_s"]) == (0.0, None)
    assert row["in_per_s"] > 0  # the questions of top itself
    assert row["connections"] >= 1
    assert 0 <= row["lag_p99_s"] < 5
    assert 0 < row["free"] <= row["size"]


def test_in_a_pipe_it_prints_until_it_is_interrupted(granum: Granum, lab: ProcessLab) -> None:
    process = subprocess.Popen(
        granum.line("top"), stdout=subprocess.PIPE, text=True, env=granum.settings(), cwd=granum.home
    )
    assert process.stdout is not None
    assert process.stdout.readline().split()[0] == "NODE"
    seen = [process.stdout.readline().split()[1] for _ in lab.nodes]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT_S)
    assert (sorted(seen), process.returncode) == (sorted(node.host for node in lab.nodes), 0)


@pytest.mark.parametrize("ending", ["q", "interrupt"])
def test_on_a_terminal_it_has_a_screen_of_its_own_and_gives_it_back(
    granum: Granum, lab: ProcessLab, ending: str
) -> None:
    try:
        master, slave = pty.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminal is to be had here: {error}")
    process = subprocess.Popen(
        granum.line("top"),
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        env={**granum.settings(), "COLUMNS": "150", "LINES": "20"},
        cwd=granum.home,
    )
    os.close(slave)
    shown = b""
    with os.fdopen(master, "r+b", buffering=0) as terminal, suppress(OSError):  # EIO: the other end is closed
        while lab.nodes[0].host.encode() not in shown:
            shown += terminal.read(65536)
        if ending == "q":
            terminal.write(b"q")
        else:
            process.send_signal(signal.SIGINT)
        while piece := terminal.read(65536):
            shown += piece
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, b"")
    assert shown.index(b"\x1b[?1049h") < shown.index(b"DURABILITY") < shown.index(b"\x1b[?1049l")
