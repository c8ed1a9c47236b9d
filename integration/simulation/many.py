"""Many seeds: each in a forked process of its own, as many at a time as there are cores.

A seed that does not hold is printed with what was broken, what had been done to it, and the command that runs it again.
"""

import argparse
import ctypes
import os
import pickle
import select
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from integration.simulation import bugs
from integration.simulation.scenario import Verdict, simulate

SEED_LIMIT_S = 60.0  # of real time: a run takes a fraction of a second
HASH_SEED = "0"  # the order of a set of texts is to be the same in every run
ADDR_NO_RANDOMIZE = 0x0040000  # of personality(2)


def run_seed(seed: int, bug: str = "") -> Verdict:
    """Simulate *seed*, with the planted *bug*, in this process and in a directory of its own, in memory where there is one."""
    shm = "/dev/shm"
    directory = tempfile.mkdtemp(prefix=f"granum-sim-{seed}-", dir=shm if os.access(shm, os.W_OK) else None)
    try:
        if bug:
            bugs.plant(bug)
        return simulate(seed, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def verdicts(seeds: Iterable[int], bug: str = "", workers: int = 0) -> Iterator[Verdict]:
    """Yield the verdict of each of *seeds*, in the order in which they end."""
    waiting = iter(seeds)
    running: dict[int, tuple[int, int, float]] = {}  # descriptor -> seed, process, since when
    workers = workers or os.cpu_count() or 1
    try:
        while True:
            while len(running) < workers and (seed := next(waiting, None)) is not None:
                pid, fd = _fork(seed, bug)
                running[fd] = (seed, pid, time.monotonic())
            if not running:
                return
            ready, _, _ = select.select(list(running), [], [], 1.0)
            for fd in ready:
                seed, pid, _ = running.pop(fd)
                yield _collect(seed, pid, fd)
            for fd, (seed, pid, since) in list(running.items()):
                if time.monotonic() - since > SEED_LIMIT_S:
                    os.kill(pid, 9)
                    del running[fd]
                    os.waitpid(pid, 0)
                    os.close(fd)
                    yield Verdict(seed, "", [f"X it had not ended after {SEED_LIMIT_S:g} s"], [], 0, 0.0)
    finally:
        for fd, (_, pid, _) in running.items():
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.close(fd)


def main() -> None:
    """Run the command."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        # The order of a set of objects follows from where they lie; the setting lasts over the exec. A sandbox may forbid it.
        ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)
        os.execve(
            sys.executable,
            [sys.executable, "-m", "integration.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": HASH_SEED},
        )
    parser = argparse.ArgumentParser(prog="integration.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="*", help="seeds to run, with all that was done to them")
    parser.add_argument("--seeds", type=int, default=200, help="how many, from --first on (default 200)")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--bug", default="", help="plant a bug first; the run is then to fail")
    parser.add_argument("--until", type=int, default=10, help="end when so many seeds did not hold (default 10)")
    options = parser.parse_args()
    seeds = options.seed or range(options.first, options.first + options.seeds)
    began, held, failed, operations, simulated = time.monotonic(), 0, 0, 0, 0.0
    for verdict in verdicts(seeds, options.bug):
        operations += verdict.operations
        simulated += verdict.simulated_s
        if verdict.broken:
            failed += 1
            print_verdict(verdict, options.bug)
        else:
            held += 1
        if options.seed and not verdict.broken:
            print_verdict(verdict, options.bug)
        if failed == options.until:
            break
    print(
        f"simulation: {held}/{held + failed} seeds hold; {operations} operations, "
        f"{simulated / 60:.0f} simulated minutes in {time.monotonic() - began:.0f} s"
    )
    sys.exit(1 if failed else 0)


def print_verdict(verdict: Verdict, bug: str = "") -> None:
    """Print what was done, what was broken, and how to see it again."""
    print(f"seed {verdict.seed}: {len(verdict.broken) or 'nothing'} broken; trace {verdict.trace[:16]}")
    for line in (*verdict.faults, *verdict.broken[:12]):
        print(f"  {line}")
    if verdict.broken:
        print(f"  again: python -m integration.simulation {verdict.seed}{f' --bug {bug}' if bug else ''}", flush=True)


def _fork(seed: int, bug: str) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    status = 1
    try:
        os.close(reading)
        with open(writing, "wb") as out:
            pickle.dump(run_seed(seed, bug), out)
        status = 0
    except BaseException:  # noqa: BLE001 - a child must not go on as its parent
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _collect(seed: int, pid: int, fd: int) -> Verdict:
    with open(fd, "rb") as result:
        written = result.read()
    _, status = os.waitpid(pid, 0)
    if not written or status:
        return Verdict(seed, "", [f"X the run itself ended with status {status}; see its traceback above"], [], 0, 0.0)
    verdict = pickle.loads(written)
    assert isinstance(verdict, Verdict)
    return replace(verdict)
