"""R39: a second daemon on one store, an end with a client that is stuck, and a file system that turns read-only."""

import os
import signal
import socket
import subprocess
import time
from collections import Counter

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, node
from integration.faults.disks import Image, run
from integration.faults.load import body_of
from integration.faults.waiting import until

EXIT_LOCKED = 75
SECOND_S = 1.0
STOP_S = 15.0
GIVE_UP_S = 30.0
PUTS = 20


@row(
    "R39",
    figure="second daemon exits 75 <= 1 s; SIGTERM with a stuck client exits 0 <= 15 s; read-only: 503, reads 100 %",
    root=True,
    programs=["mkfs.ext4", "losetup"],
)
def ends_and_read_only(bed: Bed) -> Outcome:
    """Check the three ends of a node's life that are not crashes."""
    with Daemon(node(), bed.directory / "store", bed.directory / "daemon") as daemon:
        status, second_s = _second(daemon, bed)
        answered = talk.serves(daemon.address)
        stopped, stop_s = _stop_with_stuck_client(daemon)
    refusals, read = _read_only(bed.below("read-only"))
    refused = refusals[503]
    figure = (
        f"second daemon exits {status} in {second_s:.2f} s; SIGTERM with a stuck client exits {stopped} in {stop_s:.1f} s; "
        f"read-only: 503 for {refused}/{PUTS} puts, {read}/{PUTS} reads"
    )
    held = status == EXIT_LOCKED and second_s <= SECOND_S and answered and stopped == 0 and stop_s <= STOP_S
    return Outcome(held and refused == read == PUTS, figure, (f"read-only: puts answered {dict(refusals)}",))


def _second(first: Daemon, bed: Bed) -> tuple[int | None, float]:
    """Start another node on the store of *first*; return its exit status, None while it runs on, and how long it took.

    What it waited for a processor that other programs had is not its own time and does not count.
    """
    second = Daemon(node(), first.root, bed.directory / "second")
    began = time.monotonic()
    second.launch()
    try:
        if not until(lambda: _has_ended(second.pid), GIVE_UP_S):
            return None, GIVE_UP_S
        took = time.monotonic() - began - second.queued_s
        return second.process.wait(GIVE_UP_S), took
    finally:
        second.kill()


def _has_ended(pid: int) -> bool:
    """Whether the child *pid* has ended; the kernel still knows it afterwards."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _stop_with_stuck_client(daemon: Daemon) -> tuple[int | None, float]:
    """Send SIGTERM while a put has stopped half-way; return the exit status and how long the node took to end."""
    with socket.create_connection(daemon.address, GIVE_UP_S) as stuck:
        stuck.sendall(talk.head("/stuck", 1000) + b"half")
        talk.serves(daemon.address)  # by now the node has read what came before
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        try:
            return daemon.process.wait(GIVE_UP_S), time.monotonic() - began
        except subprocess.TimeoutExpired:
            return None, GIVE_UP_S


def _read_only(bed: Bed) -> tuple[Counter[int], int]:
    """Turn the file system under a node read-only; return the statuses of puts and how many reads were right."""
    body = body_of("/old", 10_000)
    with (
        Image(bed.directory / "disk") as disk,
        Daemon(node(), disk.mount, bed.directory / "daemon") as daemon,
    ):
        talk.put(daemon.address, "/old", body)
        run("mount", "-o", "remount,abort", str(disk.mount))
        puts = [talk.put(daemon.address, f"/new{number}", body) for number in range(PUTS)]
        gets = [talk.get(daemon.address, "/old") for _ in range(PUTS)]
    refusals = Counter(answer.status if answer else 0 for answer in puts)
    return refusals, sum(answer is not None and answer.body == body for answer in gets)
