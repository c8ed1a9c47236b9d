"""Make the environment of the deployment tools: ansible-core, ansible-lint, molecule, and mitogen for the lab.

It lies below `build/deploy`, holds what `requirements/deploy.txt` pins, hash for hash, and is made anew when that file or the
interpreter changes. Nothing of it comes into `.venv`, and nothing of granum into it: a playbook needs granum on the machines
that it installs, not where it runs.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "deploy.txt"
BUILD = ROOT / "build" / "deploy"
ENVIRONMENT = BUILD / "tools"
PIP = (sys.executable, "-m", "pip", "-q", "-q", "--disable-pip-version-check", "--no-input")
LOCKED = ("--require-hashes", "--only-binary", ":all:", "--requirement", str(LOCK))


class Unavailable(Exception):
    """The tools cannot be had; the text says why."""


def tools() -> Path:
    """Return the directory of the commands, `ansible-playbook` among them, made when it is missing or another lock was.

    Raises Unavailable when pip cannot fetch them.
    """
    commands, made = ENVIRONMENT / "bin", ENVIRONMENT / "made-from"
    wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    with _alone(BUILD / "tools.lock"):
        if not (made.exists() and made.read_text() == wanted):
            shutil.rmtree(ENVIRONMENT, ignore_errors=True)
            print("deploy: making the environment of the deployment tools, once", file=sys.stderr, flush=True)
            _run(getattr(sys, "_base_executable", sys.executable), "-m", "venv", "--without-pip", str(ENVIRONMENT))
            _run(*PIP, "--python", str(commands / "python"), "install", *LOCKED)
            made.write_text(wanted)
    return commands


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds the file *lock*; hold it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _run(*command: str) -> None:
    if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode:
        raise Unavailable(f"{Path(command[0]).name} {' '.join(command[1:4])} failed; the reason stands above")


def main() -> None:
    """Make the environment and say where it is; end with 1 and the reason when it cannot be had."""
    try:
        print(tools())
    except Unavailable as reason:
        sys.exit(f"deploy-tools: {reason}")


if __name__ == "__main__":
    main()
