"""Looking at a daemon and its store from outside."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def until(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until *holds*; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.01)
    return True


def files(directory: Path) -> set[str]:
    """Return the relative name of everything below *directory* that is no directory, but what the node writes in its own time.

    That is the digest log, and how far the scrub is.
    """
    found = {str(found.relative_to(directory)) for found in directory.rglob("*") if not found.is_dir()}
    return {name for name in found if not name.removeprefix(".granum/").startswith(("digests/", "scrub"))}


def resident_mib(pid: int) -> int:
    """Return the greatest memory that the process *pid* ever had."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def open_files(pid: int | str = "self") -> int:
    """Return how many files and directories the process *pid* has open; pipes and sockets do not count."""
    return sum(_is_file(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd"))


def _is_file(link: str) -> bool:
    with suppress(FileNotFoundError):
        return os.readlink(link).startswith("/")
    return False
