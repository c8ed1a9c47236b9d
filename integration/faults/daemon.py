"""A program under test: the node or a stand-in for it, started so that faults can be put on it, and ended for certain.

The command begins with the interpreter itself, so the pid is that of the program, also behind `prlimit` or a shell that
replaces itself. Its standard error is kept in a file and searched for tracebacks.
"""

import functools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from integration.lab import START_S, STOP_S, first_line

REPOSITORY = Path(__file__).parents[2]
SPACE_RESERVE_BYTES = 1 << 20  # of stores on small images: the default reserve is larger than they are

_SERVES = re.compile(r"granum-node \S+ serves .* at http://([0-9.]+):([0-9]+)")


@dataclass(frozen=True, slots=True)
class Program:
    """Something that serves a store: its name, the command without the store and the port, and where its modules are.

    *modules* are directories; () for those of this checkout.
    """

    name: str
    command: tuple[str, ...]
    modules: tuple[Path, ...] = ()

    def with_options(self, *options: str) -> "Program":
        """Return this program with more *options*."""
        return replace(self, command=(*self.command, *options))


@functools.cache
def node_options() -> frozenset[str]:
    """Return the long options that this version of the node knows."""
    shown = subprocess.run(
        [sys.executable, "-m", "granum_node", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return frozenset(re.findall(r"--[a-z][a-z-]+", shown.stdout))


def node(durability: str = "commit") -> Program:
    """Return the node with a space reserve that leaves room on an image of a few MiB.

    A version without `--durability` runs as it is, and its rows show it.
    """
    command = ("-m", "granum_node", "--cluster", "faults", "--advertise", "off")
    program = Program("node", command)
    if "--durability" in node_options():
        program = program.with_options("--durability", durability)
    # Images are small, and a reserve of their size would refuse every put.
    for option in sorted(option for option in node_options() if "reserve" in option):
        program = program.with_options(option, "1" if "inode" in option else str(SPACE_RESERVE_BYTES))
    return program


def standin(flaw: str) -> Program:
    """Return the stand-in with *flaw*, one of `integration.faults.standin.FLAWS`."""
    return Program(f"stand-in, {flaw}", ("-m", "integration.faults.standin", "--flaw", flaw))


class Daemon(AbstractContextManager["Daemon"]):
    """*program* over the store *root*; started on entry, terminated on exit, by its own pid."""

    def __init__(
        self,
        program: Program,
        root: Path,
        directory: Path,
        *,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Keep log and temporary files in *directory*; *prefix* is a command that replaces itself with the program."""
        self.root = root
        self.address = ("127.0.0.1", 0)
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "stderr"
        own = {"TMPDIR": str(directory), "XDG_RUNTIME_DIR": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
        self._environment = {**os.environ, **own, **(environment or {})}
        self._prefix = prefix
        self.program = program  # what the next start runs
        self._process: subprocess.Popen[str] | None = None

    @property
    def process(self) -> "subprocess.Popen[str]":
        """The running program."""
        assert self._process is not None, "the daemon is not running"
        return self._process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def queued_s(self) -> float:
        """How long its first thread has been ready to run while other programs had the processors; 0.0 if nobody counts."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def launch(self) -> None:
        """Start the program without waiting for it; on the same port again after a restart."""
        self.root.mkdir(parents=True, exist_ok=True)
        command = [*self._prefix, sys.executable, *self.program.command, "--root", str(self.root)]
        modules = {"PYTHONPATH": os.pathsep.join(map(str, self.program.modules))} if self.program.modules else {}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.address[1])],
                cwd=REPOSITORY,
                env={**self._environment, **modules},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C reaches the scoreboard, which then ends things in order
            )

    def start(self) -> Self:
        """Start the program and wait until it serves; raise RuntimeError with its last words when it does not."""
        self.launch()
        line = first_line(self.process, START_S)
        found = _SERVES.match(line)
        if found is None:
            self.kill()
            raise RuntimeError(f"the daemon did not start: {self.log()[-400:].strip()}")
        self.address = (found[1], int(found[2]))
        return self

    def kill(self) -> None:
        """End the program with SIGKILL: a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End the program with SIGTERM; return its exit status."""
        return self._end(signal.SIGTERM)

    def log(self) -> str:
        """Return everything it wrote to its standard error, over all its starts."""
        return self._log.read_text(errors="replace")

    def tracebacks(self) -> int:
        """Return how many tracebacks it has logged."""
        return self.log().count("Traceback (most recent call last)")

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(STOP_S)
        finally:
            assert process.stdout is not None
            process.stdout.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
