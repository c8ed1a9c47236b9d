#!/usr/bin/python3
"""Keep the union of a gateway to the nodes that answer: drop the branch of a dead node, take it back when it is alive again.

A call into the mount of a dead node blocks for half a minute, so nothing here touches a branch while it is mounted: whether a
node lives is asked of its NFS port, what is mounted is read from the kernel's table, a dead mount is detached by force, which
also frees whoever waits for it, and the union hears of branches through its control file. systemd mounts, by a unit for each
branch. Python 3.11's standard library and nothing else: a gateway needs no environment of its own.
"""

import ctypes
import errno
import fcntl
import json
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Event

PROBE_S = 2.0  # for a node to answer; half a millisecond on an idle network
PERIOD_S = 1.0  # between two rounds; a round with a dead node in it takes PROBE_S
TURNS = 2  # answers in a row that make a node alive, and silences in a row that make it dead
REMOUNT_S = 5.0  # between two attempts to mount a branch
METRICS_S = 10.0  # the oldest that the metrics get while nothing changes
PROBES = 32  # nodes asked at once

INTERRUPTIONS, INTERRUPTION_S = 10, 0.1  # of the calls into a dead mount, before it is detached

BRANCHES = "user.mergerfs.branches"  # of mergerfs' control file: the branches, as a list with colons
NFS_PROGRAM, NFS_VERSION = 100003, 4
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8  # umount(2)
# ioctl_iflags(2); the flag is a bit of the first byte
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE = 0x80086601, 0x40086602, 0x10

log = logging.getLogger("branch_watchdog")


@dataclass(frozen=True, slots=True)
class Branch:
    """One node's part of the union: where it is mounted, by which unit, and where its NFS answers."""

    name: str
    path: str
    unit: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration file. *control* is mergerfs' control file, empty for a union whose branches are fixed.

    *base* is an empty local directory, the first branch always: it answers for the root of the union, without any node.
    *mounts* are the units of the union itself.
    """

    branches: tuple[Branch, ...]
    base: str
    control: str
    mounts: tuple[str, ...]
    metrics_file: str


@dataclass(frozen=True, slots=True)
class Health:
    """What is believed of one node, *alive* (None: nothing yet), and its last answers: *run* times in a row *answered*."""

    alive: bool | None = None
    answered: bool | None = None
    run: int = 0


# -- what is decided, and how it is written ---------------------------------------------------------------------------


def settings_of(text: str) -> Settings:
    """Return the settings in *text*, JSON; raise ValueError, KeyError or TypeError for anything else."""
    found = json.loads(text)
    branches = tuple(Branch(**branch) for branch in found["branches"])
    return Settings(branches, found["base"], found["control"], tuple(found["mounts"]), found["metrics_file"])


def judged(health: Health, *, answered: bool) -> Health:
    """Return what is known of a node after one more probe: it takes TURNS that agree to change what is believed."""
    run = health.run + 1 if answered == health.answered else 1
    return Health(answered if run >= TURNS else health.alive, answered, run)


def mount_points(table: str) -> set[str]:
    """Return the paths in *table*, the text of /proc/self/mountinfo."""
    return {_unescaped(line.split(" ")[4]) for line in table.splitlines()}


def branch_list(base: str, paths: Sequence[str]) -> str:
    """Return the union's list of branches: the *base* and *paths*, none of which is ever written to."""
    return ":".join(f"{path}=RO" for path in (base, *paths))


def null_call(ticket: int) -> bytes:
    """Return an NFS call that does nothing (RFC 5531, procedure 0), as one record of a TCP stream."""
    call = struct.pack(">10I", ticket, 0, 2, NFS_PROGRAM, NFS_VERSION, 0, 0, 0, 0, 0)
    return struct.pack(">I", 1 << 31 | len(call)) + call


def is_answer(ticket: int, reply: bytes) -> bool:
    """Tell whether *reply*, a record or its beginning, answers the call *ticket*: nfsd runs, whatever it thinks of the call."""
    return len(reply) >= 12 and struct.unpack(">2I", reply[4:12]) == (ticket, 1)


def exposition(up: Mapping[str, bool], now_s: float) -> str:
    """Return the metrics for *up*, whether each branch is in the union, checked at *now_s* (seconds since 1970)."""
    lines = [
        "# HELP granum_union_branches_up Nodes whose files the union shows.",
        "# TYPE granum_union_branches_up gauge",
        f"granum_union_branches_up {sum(up.values())}",
        "# HELP granum_union_branches_known Nodes whose files the union ought to show.",
        "# TYPE granum_union_branches_known gauge",
        f"granum_union_branches_known {len(up)}",
        "# HELP granum_union_branch_up 1 while the union shows the files of this node.",
        "# TYPE granum_union_branch_up gauge",
        *(f'granum_union_branch_up{{branch="{name}"}} {int(is_up)}' for name, is_up in sorted(up.items())),
        "# HELP granum_union_checked_timestamp_seconds When the branches were last looked at.",
        "# TYPE granum_union_checked_timestamp_seconds gauge",
        f"granum_union_checked_timestamp_seconds {now_s:.0f}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


# -- what is done -----------------------------------------------------------------------------------------------------


def probe(branch: Branch) -> bool:
    """Ask the NFS of *branch*'s node for a sign of life; return whether there was one."""
    ticket = int.from_bytes(os.urandom(4), "big")
    with suppress(OSError), socket.create_connection((branch.address, branch.port), PROBE_S) as connection:
        connection.settimeout(PROBE_S)
        connection.sendall(null_call(ticket))
        reply = b""
        while len(reply) < 12 and (piece := connection.recv(64)):
            reply += piece
        return is_answer(ticket, reply)
    return False


def interrupt(path: str) -> None:
    """Let every call fail that waits for the mount at *path* now; take the mount away when nobody uses it.

    umount(8) looks at the path first, and that look would wait for the dead node.
    """
    _unmount(path, MNT_FORCE, harmless=errno.EBUSY)


def detach(path: str) -> None:
    """Take the mount at *path* away.

    Who was let go goes on with its next call to the dead node, and a listing makes several, so calls are failed again and
    again before the mount loses its name: what waits in it behind that, nothing reaches.
    """
    for _ in range(INTERRUPTIONS):
        interrupt(path)
        time.sleep(INTERRUPTION_S)
    _unmount(path, MNT_FORCE | MNT_DETACH)


def _unmount(path: str, flags: int, harmless: int = 0) -> None:
    """Call umount(2); that nothing is mounted there any more is no error."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), flags | UMOUNT_NOFOLLOW) != 0 and ctypes.get_errno() not in {
        harmless,
        errno.EINVAL,
    }:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


def lock_mount_point(path: str) -> None:
    """Make the empty directory *path*, which nobody may enter or write into: a missing mount is no empty branch."""
    os.makedirs(path, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags = bytearray(8)
        with suppress(OSError):  # some file systems keep no flags; the mode must do there
            fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, flags)
        if flags[0] & FS_IMMUTABLE:
            return
        try:
            os.fchmod(descriptor, 0)
        except OSError as error:
            if error.errno == errno.EROFS:
                return  # the mount that was asked for before has just come
            raise
        flags[0] |= FS_IMMUTABLE
        with suppress(OSError):
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, flags)
    finally:
        os.close(descriptor)


def systemctl(*words: str) -> None:
    """Ask systemd for something without waiting for it."""
    done = subprocess.run(["systemctl", "--no-block", *words], check=False, timeout=20, capture_output=True, text=True)
    if done.returncode:
        log.warning("systemctl %s: %s", " ".join(words), done.stderr.strip())


def supervisor_hears(text: str) -> None:
    """Tell systemd *text*, when it listens."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if name:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(text.encode(), "\0" + name[1:] if name[0] == "@" else name)


class Watchdog:
    """Round after round: ask the nodes, drop the branches of the dead, mount and add those of the living, write metrics."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.health = {branch: Health() for branch in settings.branches}
        self.tried_s: dict[str, float] = {}
        self.up: dict[str, bool] = {}
        self.written_s = float("-inf")
        self.pool = ThreadPoolExecutor(PROBES)

    def round(self, now_s: float) -> None:
        """Do one round; *now_s* is a clock that never goes back."""
        for branch, answered in zip(self.health, self.pool.map(probe, self.health), strict=True):
            before = self.health[branch]
            self.health[branch] = judged(before, answered=answered)
            if self.health[branch].alive != before.alive:
                log.warning("%s %s", branch.name, "answers" if answered else "does not answer: dropped until it does")
        mounted = self._mounted()
        for branch, health in self.health.items():
            if health.alive is False and branch.path in mounted:
                self._attempt(
                    interrupt, branch.path
                )  # before the union is spoken to: its threads may wait for this node
            elif health.alive and branch.path not in mounted and self._due(branch.unit, now_s):
                self._attempt(lock_mount_point, branch.path)
                systemctl("start", branch.unit)
        mounted = self._mounted()
        shown = [
            branch for branch, health in self.health.items() if branch.path in mounted and health.alive is not False
        ]
        listed = self._list([branch.path for branch in shown], now_s)
        for branch, health in self.health.items():
            if health.alive is False and branch.path in mounted:
                self._attempt(detach, branch.path)  # behind the list, or new calls would go on reaching it
        self._measure({branch.name: listed and branch in shown for branch in self.health}, now_s)

    def _list(self, paths: Sequence[str], now_s: float) -> bool:
        """Make *paths* the branches of the union; return whether they are."""
        if not self.settings.control:
            return True
        wanted = branch_list(self.settings.base, paths).encode()
        try:
            if os.getxattr(self.settings.control, BRANCHES) != wanted:
                os.setxattr(self.settings.control, BRANCHES, wanted)
                log.info("the union's branches: %s", wanted.decode())
        except OSError as error:
            if self._due("union", now_s):
                log.warning("%s: %s", self.settings.control, error.strerror)
                if error.errno in {errno.ENOTCONN, errno.ENOENT}:  # its program ended, or nobody mounted it
                    systemctl("restart", *self.settings.mounts)
            return False
        return True

    def _measure(self, up: dict[str, bool], now_s: float) -> None:
        if up == self.up and now_s - self.written_s < METRICS_S:
            return
        self.up, self.written_s = up, now_s
        os.makedirs(os.path.dirname(self.settings.metrics_file), exist_ok=True)
        partial = f"{self.settings.metrics_file}.partial"  # its name must not end in .prom, or it would be read, too
        with open(partial, "w", encoding="utf-8") as file:
            file.write(exposition(up, time.time()))
        os.replace(partial, self.settings.metrics_file)

    def _due(self, what: str, now_s: float) -> bool:
        if now_s - self.tried_s.get(what, float("-inf")) < REMOUNT_S:
            return False
        self.tried_s[what] = now_s
        return True

    @staticmethod
    def _mounted() -> set[str]:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return mount_points(file.read())

    @staticmethod
    def _attempt(act: Callable[[str], None], path: str) -> None:
        try:
            act(path)
        except OSError as error:
            log.warning("%s: %s: %s", act.__name__, path, error.strerror)


def main() -> None:
    """Run until SIGTERM; mounts stay as they are."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with open(sys.argv[1], encoding="utf-8") as file:
        watchdog = Watchdog(settings_of(file.read()))
    ended = Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    supervisor_hears("READY=1")
    while not ended.is_set():
        began_s = time.monotonic()
        watchdog.round(began_s)
        supervisor_hears("WATCHDOG=1")
        ended.wait(max(0.0, PERIOD_S - (time.monotonic() - began_s)))


if __name__ == "__main__":
    main()
