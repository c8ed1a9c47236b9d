"""Waiting in a test program of threads: for a moment, or for something to become true within a bound."""

import threading
import time
from collections.abc import Callable

_never = threading.Event()


def pause(seconds: float) -> None:
    """Let *seconds* pass."""
    _never.wait(seconds)


def until(condition: Callable[[], bool], within_s: float, every_s: float = 0.01) -> bool:
    """Look at *condition* every *every_s* until it is true; return whether it became so *within_s*."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        pause(every_s)
    return True
