"""This machine as `granum doctor` sees it: a dead mount blocks nobody, and a share is known by what it answers."""

import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from granum.cli.machine import ask_share, gateway, look, mount_points, multicast_interfaces
from granum.cli.seen import Mount
from granum.wire.errors import BadConfig
from integration.faults.waiting import until

TABLE = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
41 22 0:45 / /srv/granum/branches/disk1 rw,nosuid shared:9 - nfs4 10.0.0.1:/data ro,vers=4.2,addr=10.0.0.1
42 22 0:46 / /srv/granum/union ro,nosuid shared:8 - fuse.mergerfs granum rw,user_id=0
43 22 0:47 / /srv/with\040space rw - tmpfs tmpfs rw,size=1k
44 43 0:48 / /srv/with\040space ro - tmpfs tmpfs rw
"""


def test_the_table_of_the_kernel_tells_mounts_and_what_may_be_written() -> None:
    assert mount_points(TABLE) == {
        "/": False,
        "/srv/granum/branches/disk1": True,
        "/srv/granum/union": True,
        "/srv/with space": True,
    }


def test_this_machine_has_no_multicast_on_loopback() -> None:
    assert "lo" not in multicast_interfaces()


def test_every_interface_named_is_one_of_this_machine() -> None:
    assert set(multicast_interfaces()) <= {name for _, name in socket.if_nameindex()}


# -- mounts --------------------------------------------------------------------------------------------------------------


def test_entries_of_what_is_mounted_are_counted_and_others_not_touched(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    found = look([str(tmp_path / "a"), str(tmp_path / "b")], {str(tmp_path / "a"): True})
    assert found == [
        Mount(str(tmp_path / "a"), is_mounted=True, is_read_only=True, entries=1),
        Mount(str(tmp_path / "b"), is_mounted=False),
    ]


def test_a_mount_that_fails_says_how(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    (found,) = look([gone], {gone: False})
    assert (found.entries, found.failure) == (None, f"No such file or directory: '{gone}'")


def test_a_silent_mount_costs_its_time_alone_and_its_child_is_ended(tmp_path: Path) -> None:
    """Two of them are asked at once; the living one beside them is seen."""
    note = tmp_path / "pids"
    script = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(60)"
    dead = [sys.executable, "-S", "-c", script, str(note)]
    begun = time.monotonic()
    found = look(["/one", "/two"], {"/one": True, "/two": True}, 1.0, dead)
    assert time.monotonic() - begun < 3.0
    assert [mount.failure for mount in found] == ["nothing came within 1 s"] * 2
    for pid in map(int, note.read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIG_DFL)


@contextmanager
def dead_mount(point: Path) -> Iterator[None]:
    """Mount a file system on *point* whose server never answers; whoever touches it waits until it goes."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    try:
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if libc.mount(b"dead", bytes(point), b"fuse", 0, options):
            pytest.skip(f"no FUSE here: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        os.close(device)
        libc.umount2(bytes(point), 2)  # MNT_DETACH


def union_of(tmp_path: Path, *names: str) -> str:
    """Describe a union of *names* as the gateway's role does; return the file."""
    branches = [
        {"name": name, "path": str(tmp_path / "branches" / name), "address": f"10.0.0.{number}"}
        for number, name in enumerate(names, start=1)
    ]
    (tmp_path / "union.json").write_text(
        json.dumps({"base": str(tmp_path / "branches" / ".base"), "branches": branches})
    )
    return str(tmp_path / "union.json")


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse")
def test_a_dead_mount_of_the_kernel_blocks_nobody(tmp_path: Path) -> None:
    for name in ("union", "branches/disk1", "branches/disk2"):
        (tmp_path / name).mkdir(parents=True)
    with dead_mount(tmp_path / "branches" / "disk1"):
        begun = time.monotonic()
        found = gateway(union_of(tmp_path, "disk1", "disk2"), wait_s=1.0)
        assert time.monotonic() - begun < 3.0
    assert found is not None
    assert [(os.path.basename(mount.path), mount.is_mounted, mount.failure) for mount in found.branches] == [
        ("disk1", True, "nothing came within 1 s"),
        ("disk2", False, ""),
    ]
    assert found.union == Mount(str(tmp_path / "union"), is_mounted=False)
    assert found.addresses == {"10.0.0.1", "10.0.0.2"}


def test_a_machine_without_a_union_is_no_gateway(tmp_path: Path) -> None:
    assert gateway(str(tmp_path / "union.json")) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"base": "/x/y", "branches": [1]}'])
def test_a_file_that_describes_no_union_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "union.json").write_text(text)
    with pytest.raises(BadConfig, match="playbook"):
        gateway(str(tmp_path / "union.json"))


# -- the share -----------------------------------------------------------------------------------------------------------


@contextmanager
def server(serve: Callable[[socket.socket], object]) -> Iterator[str]:
    """Give 'address:port' of a server that treats its first connection by *serve*."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def run() -> None:
            connection, _ = listening.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def smb(dialect: int) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        (size,) = struct.unpack(">I", connection.recv(4))
        assert connection.recv(size, socket.MSG_WAITALL)[:4] == b"\xfeSMB"
        body = b"\xfeSMB" + struct.pack("<H", 64) + bytes(58) + struct.pack("<HHH", 65, 1, dialect) + bytes(58)
        connection.sendall(struct.pack(">I", len(body)) + body[:10])
        connection.sendall(body[10:])

    return serve


def test_the_dialect_of_a_share_is_told() -> None:
    with server(smb(0x0300)) as host:
        assert ask_share(host).dialect == 0x0300


def test_a_web_server_is_no_share() -> None:
    with server(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as host:
        assert ask_share(host).failure == "what answers there is no server of SMB"


def test_a_server_that_hangs_up_is_no_share() -> None:
    with server(lambda connection: connection.recv(4096)) as host:
        assert "closed" in ask_share(host).failure


def test_a_silent_server_is_given_up() -> None:
    done = threading.Event()
    with server(lambda _: done.wait(20)) as host:
        assert ask_share(host, 0.3).failure == "nothing came within 0.3 s"
        done.set()


def test_where_nothing_listens_the_connection_is_refused() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
    assert ask_share(f"127.0.0.1:{port}").failure == "Connection refused"


CONFIGURATION = """[global]
server role = standalone server
server min protocol = {least}
server max protocol = {most}
disable netbios = yes
load printers = no
smb ports = {port}
interfaces = lo
bind interfaces only = yes
""" + "".join(
    f"{key} = {{home}}/{key.replace(' ', '-')}\n"
    for key in ("private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir")
)


@contextmanager
def samba(home: Path, least: str, most: str) -> Iterator[str]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
    for line in CONFIGURATION.splitlines():
        if "{home}/" in line:
            (home / line.rpartition("/")[2]).mkdir(mode=0o755)
    (home / "smb.conf").write_text(CONFIGURATION.format(home=home, least=least, most=most, port=port))
    command = ["smbd", "--foreground", "--no-process-group", "-s", str(home / "smb.conf"), "-l", str(home)]
    with (home / "out").open("w") as out:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True)
    try:
        assert until(lambda: ask_share(f"127.0.0.1:{port}").failure != "Connection refused", 20.0), (
            home / "out"
        ).read_text()
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("smbd") is None, reason="needs root and smbd")
@pytest.mark.parametrize(
    ("least", "most", "dialect", "failure"),
    [("SMB3_00", "SMB3", 0x0302, ""), ("SMB2", "SMB2_10", None, "the server has no SMB 3")],
)
def test_samba_is_understood(tmp_path: Path, least: str, most: str, dialect: int | None, failure: str) -> None:
    with samba(tmp_path, least, most) as host:
        found = ask_share(host)
    assert (found.dialect, found.failure) == (dialect, failure)
