"""Two real nodes for all tests of the command, and the command itself as a process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from granum.cli import app
from integration.lab import ProcessLab

COMMAND = str(Path(sys.executable).with_name("granum"))
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Granum:
    """Runs the command in *home*, which has no configuration, with *arguments* before its own."""

    home: Path
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GRANUM_", "XDG_"))}
        return {**kept, "HOME": str(self.home), "TERM": "xterm", **self.environment}

    def line(self, *arguments: str | Path) -> list[str]:
        return [COMMAND, *self.arguments, *map(str, arguments)]

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run the command in this process, which saves the time to import it."""
        line = self.line(*arguments)
        emptied = {key: None for key in os.environ if key.startswith(("GRANUM_", "XDG_"))}
        before = os.getcwd()
        os.chdir(self.home)
        try:
            done = CliRunner().invoke(app, line[1:], prog_name="granum", env={**emptied, **self.settings()})
        finally:
            os.chdir(before)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(line, done.exit_code, done.stdout, done.stderr)

    def process(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run the command as a process, as a person does."""
        return subprocess.run(
            self.line(*arguments),
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=self.settings(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
        )

    def ok(self, *arguments: str | Path) -> str:
        """Return what a command prints that succeeds, and that has nothing to remark."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.ok("--json", *arguments))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessLab]:
    """Two nodes of the cluster 'test', which advertise nowhere."""
    with ProcessLab(tmp_path_factory.mktemp("lab"), 2) as lab:
        yield lab


@pytest.fixture
def granum(lab: ProcessLab, tmp_path: Path) -> Granum:
    """The command, told about the nodes of `lab`."""
    return Granum(tmp_path, static(lab))


def static(lab: ProcessLab) -> tuple[str, ...]:
    return ("--no-discovery", *(word for node in lab.nodes for word in ("-n", node.host)))


@contextmanager
def placed(lab: ProcessLab, tree: Mapping[str, bytes]) -> Iterator[dict[str, str]]:
    """Put *tree* into the stores as the plain files that they are, 'node1/TOP/name'; give 'node1' -> where it listens."""
    stores = lab.nodes[0].root.parent
    for name, body in tree.items():
        (stores / name).parent.mkdir(parents=True, exist_ok=True)
        (stores / name).write_bytes(body)
    yield {f"node{number}": node.host for number, node in enumerate(lab.nodes, start=1)}
    for top in {"/".join(name.split("/")[:2]) for name in tree}:
        shutil.rmtree(stores / top)


def files(top: Path) -> dict[str, bytes]:
    """Return every file below *top* by its name there."""
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
