"""The lab of processes: real node daemons on loopback, each over a directory of its own.

A lab ends what it started and nothing else, also when the program that uses it fails or is interrupted.
"""

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

START_S = 30.0  # for a daemon to say where it serves; a second on an idle machine
STOP_S = 20.0  # for a daemon to end after SIGTERM, its drain of 10 s included

_SERVES = re.compile(r"granum-node (\S+) serves (.*) at http://([0-9.]+):([0-9]+) \(cluster (\S+)\)")


class NodeProcess(AbstractContextManager["NodeProcess"]):
    """One `granum-node` over *root*, which is made when it is missing; started on entry, terminated on exit."""

    def __init__(
        self,
        root: Path,
        *,
        cluster: str = "test",
        advertise: str = "off",
        port: int = 0,
        environment: Mapping[str, str] | None = None,
        stderr: IO[str] | None = None,
        program: Sequence[str] = ("-m", "granum_node"),
    ) -> None:
        """Describe the node.

        *environment* is added to the current one. Its log goes to *stderr*, by default this process's own. *program* is
        what the interpreter runs: a test may put something around the daemon.
        """
        self.root = root
        self.port = port
        self.address = "127.0.0.1"
        self.node_id = ""
        self._arguments = ["--root", str(root), "--cluster", cluster, "--advertise", advertise]
        self._environment = {**os.environ, **(environment or {})}
        self._stderr = stderr
        self._program = program
        self._process: subprocess.Popen[str] | None = None

    @property
    def process(self) -> "subprocess.Popen[str]":
        """The running daemon."""
        assert self._process is not None, "the node is not running"
        return self._process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def host(self) -> str:
        """Where it answers, 'address:port'."""
        return f"{self.address}:{self.port}"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}"

    def start(self) -> "NodeProcess":
        """Start the daemon and wait until it serves; on the same port again after a restart."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, *self._program, *self._arguments, "--port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            stdin=subprocess.DEVNULL,
            env=self._environment,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the program that uses the lab, which then ends the nodes in order
        )
        try:
            found = _SERVES.match(first_line(self._process, START_S))
        except BaseException:  # Ctrl-C while it starts: nobody else would end it
            self.kill()
            raise
        if found is None:
            self.kill()
            raise RuntimeError(f"granum-node over {self.root} did not start; its message stands above")
        self.node_id, self.port = found[1], int(found[4])
        return self

    def signal(self, number: int) -> None:
        """Send the signal *number*."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the daemon with SIGKILL: a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End the daemon with SIGTERM, in order; return its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            assert process.stdout is not None
            process.stdout.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class ProcessLab(AbstractContextManager["ProcessLab"]):
    """*count* nodes of one cluster under *directory*, in 'node1', 'node2', …"""

    def __init__(self, directory: Path, count: int, *, cluster: str = "test", advertise: str = "off") -> None:
        """Describe the nodes; TMPDIR inside *directory* keeps PYME's registry of this machine untouched."""
        temporary = directory / "tmp"
        self.environment = {"TMPDIR": str(temporary), "XDG_RUNTIME_DIR": str(directory / "run")}
        self.nodes = [
            NodeProcess(directory / f"node{number}", cluster=cluster, advertise=advertise, environment=self.environment)
            for number in range(1, count + 1)
        ]
        self._directory = directory
        self._running = ExitStack()

    def __enter__(self) -> Self:
        for below in ("tmp", "run"):
            (self._directory / below).mkdir(parents=True, exist_ok=True)
        with ExitStack() as starting:
            for node in self.nodes:
                starting.enter_context(node)
            self._running = starting.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._running.close()


def first_line(process: "subprocess.Popen[str]", timeout_s: float) -> str:
    """Return the first line that *process* prints, or '' when it ends or stays silent for *timeout_s*."""
    assert process.stdout is not None
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if selector.select(left):
                return process.stdout.readline()
    return ""
