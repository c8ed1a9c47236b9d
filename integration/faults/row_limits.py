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
from integration.faults.row_requests import rss_bytes
from integration.faults.waiting import pause, until

DESCRIPTORS = 64
CONNECTIONS = 200
WATCH_S = 3.0
CPU_MAX = 0.2  # of one core: more means that the reactor spins on accept
RELEASE_S = 2.0

CAP_BYTES = 256 << 20
RSS_MAX_BYTES = 200 << 20
WRITERS = 32  # together they put twice the cap in the short form, eight times in the long one
SLOW_PUT_S = 600.0
CGROUPS = Path("/sys/fs/cgroup")
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


def _groups_and_cap() -> tuple[Path, str]:
    """Return where memory groups are made on this machine, and what the file of their cap is called."""
    return (CGROUPS / "memory", "memory.limit_in_bytes") if (CGROUPS / "memory").is_dir() else (CGROUPS, "memory.max")


def _no_memory_groups() -> str:
    """Return why no memory group can be made here, '' when one can."""
    try:
        with _memory_group(f"granum-trial-{os.getpid()}"):
            return ""
    except OSError as error:
        return f"this machine lets nobody cap the memory of a process by a control group: {error.strerror}"


@contextlib.contextmanager
def _memory_group(name: str) -> Iterator[Path]:
    """Make a memory cgroup with the cap; its processes must have ended when it is left."""
    groups, cap = _groups_and_cap()
    group = groups / name
    group.mkdir()
    try:
        (group / cap).write_text(str(CAP_BYTES))
        yield group
    finally:
        until(lambda: not (group / "cgroup.procs").read_text().strip(), 10.0)
        group.rmdir()


@row(
    "R9",
    figure="OOM kills 0, RSS peak <= 200 MiB, only 2xx or 503 with Retry-After",
    root=True,
    programs=STORAGE_DAEMON,
    unless=_no_memory_groups,
)
def memory_cap(bed: Bed) -> Outcome:
    """Put 32 bodies of 16 MiB (64 MiB in the long form) at once into a node under a memory cap, on a slow disk."""
    body = os.urandom(1 << 20) * bed.amount(16, 64)
    with (
        _memory_group(f"granum-r9-{os.getpid()}") as group,
        ServedDisk(bed.directory / "disk", size_mib=3072, bytes_per_s=bed.amount(40, 20) << 20) as disk,
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
        peak = rss_bytes(daemon.pid, "VmHWM") if up else 0
    allowed = sum(200 <= status < 300 or (status == 503 and retry) for status, retry in answers)
    statuses = dict(Counter(status for status, _ in answers))
    figure = (
        f"{'not killed' if up else 'killed'}, RSS peak {peak >> 20} MiB, {allowed}/{WRITERS} answers allowed {statuses}"
    )
    return Outcome(up and peak <= RSS_MAX_BYTES and allowed == WRITERS, figure)
