"""Make `.venv`: the locked packages, and granum itself as an editable install.

It runs on a bare `python3` (3.11 or newer), without pip, ensurepip or root, and imports nothing but the standard library. The
rule: what is in `.venv` is what `requirements/lock.txt` says, hash for hash, build backend and pip included; a pip found on the
machine only carries the locked one in. Two stamps in `.venv` say what it was made from, so that a fresh one costs no time: a
new lock or interpreter makes the environment anew, a new `pyproject.toml` only installs granum again.

It knows nothing of package indexes: pip and apt use those that the machine is configured for.
"""

import glob
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
LOCK = os.path.join(ROOT, "requirements", "lock.txt")
PYPROJECT = os.path.join(ROOT, "pyproject.toml")
ENVIRONMENT_STAMP = os.path.join(VENV, "made-from-lock")
PROJECT_STAMP = os.path.join(VENV, "made-from-pyproject")

PIP_WHEEL_PACKAGE = "python3-pip-whl"
PIP_WHEELS = "usr/share/python-wheels/pip-*.whl"  # where Debian and Ubuntu put that package's wheel

# Twice quiet is errors only.
PIP_OPTIONS = ("--quiet", "--quiet", "--disable-pip-version-check", "--no-input")
# Wheels only: a source distribution would build with a backend that no hash covers.
LOCKED_OPTIONS = ("--require-hashes", "--only-binary", ":all:", "--requirement", LOCK)


class SetupFailed(Exception):
    """One sentence for the person who ran make: what happened, what to do."""


def main() -> int:
    """Bring `.venv` up to date; the exit status."""
    try:
        bring_up_to_date()
    except SetupFailed as failure:
        print(f"setup: {failure}", file=sys.stderr)
        return 1
    return 0


def bring_up_to_date() -> None:
    """Do what the stamps say is missing, and nothing when they are fresh."""
    environment, project = fingerprints()
    if read(ENVIRONMENT_STAMP) != environment:
        started = time.monotonic()
        say(f"making .venv with Python {platform.python_version()} (once; may take a minute)")
        make_environment()
        write(ENVIRONMENT_STAMP, environment)
        say(f"locked packages installed in {time.monotonic() - started:.0f} s")
    if read(PROJECT_STAMP) != project:
        install_project()
        write(PROJECT_STAMP, project)
        say(".venv is ready")


def fingerprints() -> tuple[str, str]:
    """Return what the environment and the editable install are made from, as one hash each."""
    interpreter = f"{sys.version}|{sys.base_prefix}|{platform.machine()}|{ROOT}"
    environment = digest(interpreter.encode(), content(LOCK), content(os.path.abspath(__file__)))
    return environment, digest(environment.encode(), content(PYPROJECT))


def make_environment() -> None:
    """Make `.venv` from nothing and install the lock into it."""
    shutil.rmtree(VENV, ignore_errors=True)
    run(base_python(), "-m", "venv", "--without-pip", VENV, failure="python3 could not make .venv")
    with tempfile.TemporaryDirectory(prefix="granum-setup-") as scratch:
        pip = find_pip(scratch)
        say("installing the locked packages")
        run(*pip, "install", *PIP_OPTIONS, *LOCKED_OPTIONS, failure="pip could not install the locked packages")


def install_project() -> None:
    """Install granum into `.venv` so that it runs from the working tree, with the build backend of the lock."""
    options = ("--no-deps", "--no-build-isolation", "--editable", ROOT)
    run(VENV_PYTHON, "-m", "pip", "install", *PIP_OPTIONS, *options, failure="pip could not install granum itself")


# -- where pip comes from --------------------------------------------------------------------------------------------


def find_pip(scratch: str) -> list[str]:
    """Return a command that is pip acting on `.venv`, from the first source that has one; *scratch* may be filled."""
    sources: tuple[Callable[[str], list[str] | None], ...] = (
        pip_of_ensurepip,
        pip_of_interpreter,
        pip_of_system_wheel,
        pip_of_debian_archive,
    )
    for source in sources:
        command = source(scratch)
        if command is not None:
            return command
    raise SetupFailed(
        "found no pip to fill .venv with; install it (on Debian and Ubuntu: apt-get install python3-venv) and run make again"
    )


def pip_of_ensurepip(scratch: str) -> list[str] | None:
    """Use the pip that comes with the interpreter, when the distribution left it there, from an environment beside `.venv`."""
    beside = os.path.join(scratch, "beside")
    if not succeeds(base_python(), "-m", "venv", beside):
        return None
    return [os.path.join(beside, "bin", "python"), "-m", "pip", "--python", VENV_PYTHON]


def pip_of_interpreter(_scratch: str) -> list[str] | None:
    """Use a pip installed beside the interpreter, new enough (22.3) to act on another environment."""
    command = [base_python(), "-m", "pip", "--python", VENV_PYTHON]
    return command if succeeds(*command, "--version") else None


def pip_of_system_wheel(_scratch: str) -> list[str] | None:
    """Use the wheel that the distribution keeps for making environments."""
    return pip_of_wheel_below("/")


def pip_of_debian_archive(scratch: str) -> list[str] | None:
    """Fetch Debian's wheel of pip with apt into *scratch*: needs no root and changes nothing on the machine."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    say(f"no pip here; fetching the package {PIP_WHEEL_PACKAGE} with apt, for this setup only")
    lists, cache, unpacked = (os.path.join(scratch, name) for name in ("lists", "cache", "unpacked"))
    os.makedirs(os.path.join(lists, "partial"))
    os.makedirs(os.path.join(cache, "archives", "partial"))
    apt = ["apt-get", "-q=2"]
    apt += ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache}"]
    # apt drops its root rights to a user who may not enter scratch, and locks a state directory that only root can write.
    apt += ["-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=true"]
    for action in (["update"], ["download", PIP_WHEEL_PACKAGE]):
        run(
            *apt,
            *action,
            failure=f"apt could not fetch {PIP_WHEEL_PACKAGE}; try: apt-get install python3-venv",
            cwd=scratch,
        )
    for package in glob.glob(os.path.join(glob.escape(scratch), "*.deb")):
        run("dpkg-deb", "-x", package, unpacked, failure=f"{package} could not be unpacked")
    return pip_of_wheel_below(unpacked)


def pip_of_wheel_below(directory: str) -> list[str] | None:
    """Run pip straight from its wheel, which Python can import from."""
    wheels = sorted(glob.glob(os.path.join(directory, PIP_WHEELS)))
    return [VENV_PYTHON, os.path.join(wheels[-1], "pip")] if wheels else None


# -- small things ----------------------------------------------------------------------------------------------------


def base_python() -> str:
    """Return the interpreter outside of any environment: `.venv` may itself be active while it is made anew."""
    return getattr(sys, "_base_executable", "") or sys.executable


def run(*command: str, failure: str, cwd: str = ROOT) -> None:
    """Run *command* with its output shown; raise with the sentence *failure* when it fails."""
    if subprocess.run(command, cwd=cwd, check=False, stdin=subprocess.DEVNULL).returncode:
        raise SetupFailed(f"{failure} (the reason stands above)")


def succeeds(*command: str) -> bool:
    """Run *command* silently and tell whether it worked."""
    silent = subprocess.DEVNULL
    return subprocess.run(command, check=False, stdin=silent, stdout=silent, stderr=silent).returncode == 0


def digest(*parts: bytes) -> str:
    """Return one hash over *parts*."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def content(path: str) -> bytes:
    """Return the bytes of a file that must be there."""
    with open(path, "rb") as file:
        return file.read()


def read(path: str) -> str:
    """Return the text of a stamp, or nothing when it is not there."""
    try:
        return content(path).decode()
    except FileNotFoundError:
        return ""


def write(path: str, text: str) -> None:
    """Leave a stamp."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def say(text: str) -> None:
    """Show progress, at once."""
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
