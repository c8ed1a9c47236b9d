"""R8 and R9: a node short of descriptors, and short of memory over a slow disk."""

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, node
from integration.faults.disks import STORAGE_DAEMON, ServedDisk
from integration.faults.waiting import pause, until

DESCRIPTORS = 64
CONNECTIONS = 200
WATCH_S = 3.0
CPU_MAX = 0.2  # of one core: more means that the reactor spins on accept
RELEASE_S = 2.0

CAP_BYTES = 256 << 20
RSS_MAX_BYTES = 200 << 20
BODY_BYTES = 64 << 20
WRITERS = 32
SLOW_BYTES_PER_S = 20 << 20
SLOW_PUT_S = 600.0
CGROUPS = Path("/sys/fs/cgroup/memory")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@row("R8", figure="up 100 %, CPU <= 20 %, serves <= 2 s after release", programs=["prlimit"])
def descriptors_exhausted(bed: Bed) -> Outcome:
    """Open more connections, each with a put begun, than the node has descriptors."""
    limited = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
    with Daemon(node(), bed.directory / "store", bed.directory / "daemon", prefix=limited) as daemon:
        with contextlib.ExitStack() as held:
            for number in range(CONNECTIONS):
                connection = held.enter_context(socket.create_connection(daemon.address, 5.0))
                with contextlib.suppress(OSError):  # it may have been closed at once; that is one way to cope
                    connection.sendall(talk.head(f"/d{number}", 100) + b"half")
            pause(0.5)
            before, began = _cpu_s(daemon.pid), time.monotonic()
            pause(WATCH_S)
            share = (_cpu_s(daemon.pid) - before) / (time.monotonic() - began)
            used = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        released = time.monotonic()
        serves = until(lambda: talk.serves(daemon.address), 4 * RELEASE_S, 0.05)
        took = time.monotonic() - released
        up = daemon.process.poll() is None
        answer = talk.put(daemon.address, "/after", b"after") if up else None
        tracebacks = daemon.tracebacks()
    figure = (
        f"{'up' if up else 'ended'} with {used}/{DESCRIPTORS} descriptors in use, CPU {share:.0%}, "
        f"{f'serves after {took:.2f} s' if serves else 'serves no more'}, tracebacks {tracebacks}"
    )
    stored = answer is not None and answer.stored
    held_up = up and serves and stored and took <= RELEASE_S and share <= CPU_MAX and not tracebacks
    return Outcome(held_up, figure, (daemon.log()[-500:],))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


@row(
    "R9",
    figure="OOM kills 0, RSS peak <= 200 MiB, only 2xx or 503 with Retry-After",
    root=True,
    programs=STORAGE_DAEMON,
    long_only=True,
)
def memory_cap(bed: Bed) -> Outcome:
    """Put 32 bodies of 64 MiB at once into a node under a memory cap, on a slow disk."""
    body = os.urandom(1 << 20) * (BODY_BYTES >> 20)
    with (
        _memory_group(f"granum-r9-{os.getpid()}") as group,
        ServedDisk(bed.directory / "disk", size_mib=3072, bytes_per_s=SLOW_BYTES_PER_S) as disk,
        Daemon(
            node(),
            disk.mount,
            bed.directory / "daemon",
            prefix=("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"),
        ) as daemon,
    ):

        def put(number: int) -> tuple[int, bool]:
            try:
                with talk.Line(daemon.address, SLOW_PUT_S) as line:
                    answer = line.put(f"/big{number}", body)
            except talk.UNANSWERED:
                return 0, False
            return answer.status, "retry-after" in answer.headers

        with ThreadPoolExecutor(WRITERS) as writers:
            answers = list(writers.map(put, range(WRITERS)))
        up = daemon.process.poll() is None
        peak = _peak_bytes(daemon.pid) if up else 0
    allowed = sum(200 <= status < 300 or (status == 503 and retry) for status, retry in answers)
    statuses = dict(Counter(status for status, _ in answers))
    figure = (
        f"{'not killed' if up else 'killed'}, RSS peak {peak >> 20} MiB, {allowed}/{WRITERS} answers allowed {statuses}"
    )
    return Outcome(up and peak <= RSS_MAX_BYTES and allowed == WRITERS, figure)


@contextlib.contextmanager
def _memory_group(name: str) -> Iterator[Path]:
    """Make a memory cgroup with the cap; its processes must have ended when it is left."""
    group = CGROUPS / name
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(CAP_BYTES))
        yield group
    finally:
        until(lambda: not (group / "cgroup.procs").read_text().strip(), 10.0)
        group.rmdir()


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
