"""The command as a person runs it: in a process of its own, interrupted, on a terminal and in a pipe."""

import json
import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from client.tests.cli.conftest import TIMEOUT_S, Granum
from granum.cli.parts import PART_BYTES
from integration.lab import ProcessLab

MOVIE = Path(__file__).parent.parent / "data" / "movies" / "test.dax"


def test_a_day_at_the_microscope(granum: Granum, lab: ProcessLab) -> None:
    """Every command, in the order of a user's day; the JSON of each parses."""
    (granum.home / "notes.txt").write_text("cells look happy")
    day = [
        ("nodes",),
        ("mkdir", "/day"),
        ("put", "notes.txt", "/day/"),
        ("series", "put", str(MOVIE), "/day/run"),
        ("series", "info", "/day/run.pcs"),
        ("ls", "-l", "/day"),
        ("tree", "/day"),
        ("stat", "/day/run.pcs"),
        ("locate", "/day/notes.txt"),
        ("get", "/day/notes.txt", "back.txt"),
        ("series", "get", "/day/run.pcs", "run.tif"),
        ("config", "show", "--origin"),
        ("completion", "bash"),
    ]
    for arguments in day:
        done = granum.process("--json", *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
        json.loads(done.stdout)
    assert (granum.home / "back.txt").read_text() == "cells look happy"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["ls", "/"], 0), (["ls", "/absent"], 1), (["ls", "/a/../b"], 2), (["--wait", "9", "ls"], 3)],
)
def test_the_exit_status(granum: Granum, arguments: list[str], status: int) -> None:
    done = granum.process(*arguments)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error_worth_a_traceback(granum: Granum) -> None:
    line = " ".join([*granum.line("completion", "bash"), "|", "true"])
    done = subprocess.run(
        ["bash", "-c", line], check=False, capture_output=True, text=True, env=granum.settings(), timeout=TIMEOUT_S
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- interrupted -----------------------------------------------------------------------------------------------------


class SlowNode(BaseHTTPRequestHandler):
    """A node with one file of three parts, of each of which it sends one half and then nothing, until the client goes away."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._head(3 * PART_BYTES)

    def do_GET(self) -> None:
        if self.path == "/__status":
            self._head(len(b"{}"))
            self.wfile.write(b"{}")
            return
        self._head(PART_BYTES)
        self.wfile.write(bytes(PART_BYTES // 2))
        with suppress(OSError):
            self.rfile.read(1)

    def _head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.send_header("Granum-Node", "slow")  # else it is taken for one of PYME's, which send no parts
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Granum]:
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowNode) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Granum(tmp_path, ("--no-discovery", "-n", f"127.0.0.1:{server.server_address[1]}"))
        server.shutdown()
        thread.join()


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds, at most TIMEOUT_S."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


@pytest.mark.parametrize("command", [("get", "/file"), ("cp", "granum:///file")], ids=["get", "cp"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_copy_leaves_nothing(
    slow: Granum, command: tuple[str, str], number: signal.Signals, status: int
) -> None:
    """The temporary file is there while the transfer runs, and gone afterwards; nothing is said."""
    target = slow.home / "target"
    target.mkdir()
    process = subprocess.Popen(
        slow.line(*command, "target"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=slow.settings(),
        cwd=slow.home,
    )
    wait_for(lambda: list(target.iterdir()))
    process.send_signal(number)
    output = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, output) == (status, ("", ""))
    assert list(target.iterdir()) == []


# -- on a terminal ---------------------------------------------------------------------------------------------------


def on_terminal(granum: Granum, *arguments: str) -> tuple[str, str]:
    """Return what the command prints on standard output, a pipe, and on standard error, a terminal."""
    try:
        master, slave = pty.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminal is to be had here: {error}")
    with os.fdopen(master, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            granum.line(*arguments),
            stdout=subprocess.PIPE,
            stderr=slave,
            env={**granum.settings(), "COLUMNS": "120"},
            cwd=granum.home,
        )
        os.close(slave)
        shown = b""
        with suppress(OSError):  # how Linux says that nobody has the other end any more
            while part := terminal.read(65536):
                shown += part
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, shown
    return output.decode(), shown.decode()


@pytest.mark.parametrize("name", ["put", "get", "series put", "series get"])
def test_a_bar_is_shown_on_a_terminal(granum: Granum, name: str) -> None:
    arguments = {
        "put": ("put", str(MOVIE), "/bar/plain"),
        "get": ("get", "/bar/plain", "copy.dax"),
        "series put": ("series", "put", str(MOVIE), "/bar/movie"),
        "series get": ("series", "get", "/bar/movie.pcs", "copy.npy"),
    }[name]
    output, shown = on_terminal(granum, *arguments)
    assert "━" in shown
    assert "1.3/1.3 MB" in shown
    assert "━" not in output


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_no_bar_where_it_is_not_wanted(granum: Granum, option: str) -> None:
    assert on_terminal(granum, option, "put", str(MOVIE), f"/bar/{option[2:]}")[1] == ""


def test_no_bar_in_a_pipe(granum: Granum) -> None:
    assert granum.process("put", str(MOVIE), "/bar/piped").stderr == ""


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_respected(granum: Granum, no_color: str, coloured: bool) -> None:
    own = Granum(granum.home, granum.arguments, {"NO_COLOR": no_color})
    _, shown = on_terminal(own, "put", str(MOVIE), f"/bar/colour{no_color}")
    assert ("\x1b[38;5;" in shown or "\x1b[3" in shown) is coloured
