"""This machine, as `granum doctor` looks at it: interfaces, mounts, and whether a share answers. Nothing here judges.

A mount whose server is dead blocks whoever touches it, for good where it was mounted hard. So this process touches none: which
mounts there are the kernel's table says, and whether they answer children find out, which are left behind when they do not.
"""

import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from granum.cli import smb
from granum.cli.seen import Gateway, Mount, Share
from granum.wire.errors import BadConfig

UNION_FILE = "/etc/granum/union.json"  # what the gateway's watchdog of branches reads: it lists them
UNION = "union"  # beside the directory of the branches
MOUNT_TABLE = "/proc/self/mountinfo"
MOUNT_WAIT_S = 5.0  # a living NFS server answers in milliseconds; one that restarts is none yet
SHARE_WAIT_S = 3.0
SMB_PORT = 445

_ENTRIES_MAX = 1000
_LIST = f"import os, sys, itertools; print(sum(1 for _ in itertools.islice(os.scandir(sys.argv[1]), {_ENTRIES_MAX})))"
LISTING = (sys.executable, "-I", "-S", "-c", _LIST)
_GET_FLAGS, _IS_UP, _IS_LOOPBACK, _HAS_MULTICAST = 0x8913, 0x1, 0x8, 0x1000  # of Linux: SIOCGIFFLAGS, IFF_...
_ESCAPED = re.compile(r"\\([0-7]{3})")


def multicast_interfaces() -> tuple[str, ...]:
    """Return the names of the interfaces that are up and have multicast, but for loopback."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it went away
                told = fcntl.ioctl(probe, _GET_FLAGS, struct.pack("16sH14x", name.encode(), 0))
                flags = struct.unpack("16sH14x", told)[1]
                if flags & _IS_UP and flags & _HAS_MULTICAST and not flags & _IS_LOOPBACK:
                    found.append(name)
    return tuple(found)


# -- mounts ----------------------------------------------------------------------------------------------------------


def gateway(settings: str = UNION_FILE, table: str = MOUNT_TABLE, wait_s: float = MOUNT_WAIT_S) -> Gateway | None:
    """Return the mounts that the file *settings* describes; None where there is no such file: the machine is no gateway.

    Takes *wait_s* at most. Raises BadConfig for a file that describes none.
    """
    try:
        with open(settings, encoding="utf-8") as file:
            told = json.load(file)
        below = os.path.dirname(told["base"])
        branches = {str(branch["path"]): str(branch["address"]) for branch in told["branches"]}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BadConfig(f"{settings} describes no union; run the playbook 'site' on this gateway") from error
    with open(table, encoding="utf-8", errors="surrogateescape") as file:
        mounted = mount_points(file.read())
    union, *looked = look([os.path.join(os.path.dirname(below), UNION), *branches], mounted, wait_s)
    return Gateway(union, tuple(looked), frozenset(branches.values()))


def mount_points(table: str) -> dict[str, bool]:
    """Return the mount points in the text of MOUNT_TABLE, each with whether it is read-only; the last mount on one counts."""
    found = {}
    for line in table.splitlines():
        mount, _, source = line.partition(" - ")
        fields, options = mount.split(), source.split()[2:]
        if len(fields) >= 6:
            point = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
            found[point] = "ro" in fields[5].split(",") or "ro" in ",".join(options).split(",")
    return found


def look(
    paths: Iterable[str], mounted: Mapping[str, bool], wait_s: float = MOUNT_WAIT_S, listing: Sequence[str] = LISTING
) -> list[Mount]:
    """Return what *paths* are; those in *mounted* are asked for their entries, all at once, by the command *listing*."""
    paths = list(paths)
    end = time.monotonic() + wait_s
    children = {
        path: subprocess.Popen(  # noqa: S603 - this interpreter, with an argument that no shell reads
            [*listing, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for path in paths
        if path in mounted
    }
    return [
        _looked(path, mounted[path], children[path], end, wait_s) if path in mounted else Mount(path, is_mounted=False)
        for path in paths
    ]


def _looked(path: str, is_read_only: bool, child: "subprocess.Popen[str]", end: float, wait_s: float) -> Mount:  # noqa: FBT001
    try:
        told, error = child.communicate(timeout=max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        _leave(child)
        return Mount(path, is_mounted=True, is_read_only=is_read_only, failure=f"nothing came within {wait_s:g} s")
    if child.returncode == 0:
        return Mount(path, is_mounted=True, is_read_only=is_read_only, entries=int(told))
    failure = (error.strip().splitlines() or ["its listing ended early"])[-1]
    is_forbidden = failure.startswith("PermissionError")
    failure = re.sub(r"^\w+: (\[Errno \d+\] )?", "", failure)
    return Mount(path, is_mounted=True, is_read_only=is_read_only, failure=failure, is_forbidden=is_forbidden)


def _leave(child: "subprocess.Popen[str]") -> None:
    """Kill *child* and do not wait for its end: one that hangs in the kernel ends when the mount does."""
    child.kill()
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    with suppress(subprocess.TimeoutExpired):
        child.wait(0.2)


# -- the share -------------------------------------------------------------------------------------------------------


def ask_share(host: str, wait_s: float = SHARE_WAIT_S) -> Share:
    """Return what answers a request to negotiate SMB 3 at *host*, 'name' or 'name:port'. Takes *wait_s* for each step at most."""
    name, _, port = host.partition(":")
    try:
        with socket.create_connection((name, int(port or SMB_PORT)), wait_s) as connection:
            connection.sendall(smb.request(os.urandom(16)))
            return Share(host, smb.dialect(_exactly(connection, smb.length(_exactly(connection, 4)))))
    except TimeoutError:
        return Share(host, failure=f"nothing came within {wait_s:g} s")
    except OSError as error:
        return Share(host, failure=error.strerror or str(error))
    except ValueError as error:
        return Share(host, failure=str(error))


def _exactly(connection: socket.socket, count: int) -> bytes:
    pieces = b""
    while len(pieces) < count:
        piece = connection.recv(count - len(pieces))
        if not piece:
            raise ValueError("the connection was closed without an answer")
        pieces += piece
    return pieces
