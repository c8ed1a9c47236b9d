"""Virtual environments below `build/`: for programs whose packages are no business of `.venv`.

Each is made with the interpreter of `.venv` and filled by its pip, by one process at a time, and made anew when what it is made
from, or the interpreter, is another. What goes in is the caller's affair.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

INTERPRETER: str = getattr(sys, "_base_executable", "") or sys.executable
PIP = (sys.executable, "-m", "pip", "-q", "-q", "--disable-pip-version-check", "--no-input")


class NotMade(Exception):
    """The environment cannot be made; the text says why."""


def is_made(directory: Path, made_from: str) -> bool:
    """Whether the environment *directory* is there, made from *made_from* with this interpreter."""
    stamp = directory / "made-from"
    return stamp.exists() and stamp.read_text() == _stamp(made_from)


def environment(directory: Path, made_from: str, installs: Iterable[Sequence[str]], imports: str = "json") -> Path:
    """Return the directory of the commands of the environment *directory*, which is made when `is_made` says no.

    Each of *installs* is what follows `pip install`, one run after the other; builds find the commands of the environment. It
    counts as made once the module *imports* can be imported in it. Raises NotMade.
    """
    commands = directory / "bin"
    with alone(directory.with_name(f"{directory.name}.lock")):
        if is_made(directory, made_from):  # perhaps by another process, while this one waited
            return commands
        print(f"making the environment {directory.name}, once", file=sys.stderr, flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        run(INTERPRETER, "-m", "venv", "--without-pip", str(directory))
        for what in installs:
            run(*PIP, "--python", str(commands / "python"), "install", *what, path=commands)
        run(str(commands / "python"), "-c", f"import {imports}")
        (directory / "made-from").write_text(_stamp(made_from))
    return commands


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds the file *lock*; hold it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def run(*command: str, path: Path | None = None) -> None:
    """Run *command* with *path* before all others in PATH; raise NotMade when it fails, the reason being on standard error."""
    search = os.environ.get("PATH", os.defpath)
    variables = {**os.environ, "PATH": f"{path}:{search}" if path else search}
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=variables)
    if done.returncode:
        raise NotMade(f"{Path(command[0]).name} {' '.join(command[1:4])} failed; the reason stands above")


def _stamp(made_from: str) -> str:
    return hashlib.sha256(f"{made_from}|{sys.version}|{INTERPRETER}".encode()).hexdigest()
