"""R29: the node's clock steps by an hour and by ten years, forwards and backwards."""

import os
import select
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program, node
from integration.faults.load import body_of
from integration.faults.waiting import pause

STEPS = ("+3600", "-3600", "+3650d", "-3650d")
LINGER_S = 2.0  # between the node's last answer to a broken request and the reset of the connection
ERROR_MAX = 0.1  # of LINGER_S
STEP_AFTER_S = 0.5
FIRES_WITHIN_S = 6.0
TRIES = 3  # of a step whose timer is late by less than itself: a busy machine is, now and then, a wrong clock always
SLOW_BYTES = 100_000
STOCK_CLOCK = Program("stand-in, stock clock", ("-m", "integration.faults.stock_clock"))
_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/lib64")


@dataclass(frozen=True, slots=True)
class Step:
    """What happened around one step of the clock: did the put under way get its receipt, and when did the timer fire?"""

    by: str
    stored: bool
    fired_s: float

    @property
    def right(self) -> bool:
        """Whether the timer fired when it should."""
        return abs(self.fired_s - LINGER_S) <= ERROR_MAX * LINGER_S


def _clock_steps(program: Program, bed: Bed) -> Outcome:
    with ThreadPoolExecutor(len(STEPS)) as lanes:
        seen = list(lanes.map(lambda by: _step(program, bed.below(f"step{by}"), by), STEPS))
    aborted = sum(not each.stored for each in seen)
    timers = ", ".join(f"{each.by}: {each.fired_s:.2f} s" for each in seen)
    figure = f"aborted puts {aborted}/{len(seen)}, a timer of {LINGER_S:.0f} s fired after {timers}"
    return Outcome(not aborted and all(each.right for each in seen), figure)


@row(
    "R29",
    figure="aborted puts 0, timer error <= 10 %",
    control={"stock reactor clock": partial(_clock_steps, STOCK_CLOCK)},
    programs=["faketime"],
)
def clock_steps(bed: Bed) -> Outcome:
    """Step the clock of four nodes while a put is under way and a timer runs."""
    return _clock_steps(node(), bed)


def _step(program: Program, bed: Bed, by: str) -> Step:
    """Return what happened around a step; around the last of TRIES, unless a put was aborted before."""
    for number in range(TRIES):
        seen = _step_once(program, bed.below(f"try{number}"), by)
        if seen.right or not seen.stored or not LINGER_S < seen.fired_s < 2 * LINGER_S:
            break
    return seen


def _step_once(program: Program, bed: Bed, by: str) -> Step:
    clock = bed.directory / "clock"
    clock.write_text("+0\n")
    path = "/slow"
    body = body_of(path, SLOW_BYTES)
    with (
        Daemon(program, bed.directory / "store", bed.directory / "daemon", environment=_faked(clock)) as daemon,
        socket.create_connection(daemon.address, talk.ANSWER_S) as slow,
        socket.create_connection(daemon.address, talk.ANSWER_S) as broken,
    ):
        slow.sendall(talk.head(path, len(body)) + body[: len(body) // 2])
        broken.sendall(b"no request\r\n\r\n")
        while broken.recv(4096):
            pass
        began = time.monotonic()
        pause(STEP_AFTER_S)
        clock.write_text(by + "\n")
        fired_s = _reset_after(broken, began)
        try:
            slow.sendall(body[len(body) // 2 :])
            stored = slow.recv(4096).startswith(b"HTTP/1.1 2")
        except OSError:
            stored = False
    return Step(by, stored, fired_s)


def _reset_after(connection: socket.socket, began: float) -> float:
    """Return how long after *began* the peer resets *connection*, whose other half it has closed before."""
    poll = select.poll()
    poll.register(connection, 0)  # errors and hang-ups only
    poll.poll(FIRES_WITHIN_S * 1000)
    return time.monotonic() - began


def _faked(clock: Path) -> Mapping[str, str]:
    """Return the environment in which a program reads its wall clock through *clock*; its monotonic clock stays true."""
    library = next(
        path for path in (f"{each}/faketime/libfaketime.so.1" for each in _LIBRARIES) if os.path.exists(path)
    )
    return {
        "LD_PRELOAD": library,
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_TIMESTAMP_FILE": str(clock),
    }
