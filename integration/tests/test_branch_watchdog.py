"""The watchdog of a gateway's union: what it believes, what it does in which order, and a real union that it keeps.

The role installs it as a file of its own, so it is loaded from its path.
"""

import errno
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools import tree

SCRIPT = Path(tree.ROOT, "ansible/roles/union_gateway/files/branch_watchdog.py")


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("branch_watchdog", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


watchdog = _loaded()


class NfsDouble:
    """A port on loopback that answers every call on it, as nfsd does; *silent*, it takes calls and says nothing."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._kept: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._kept.append(connection)
            call = connection.recv(64)
            if not self.silent:
                connection.sendall(b"\x80\x00\x00\x18" + call[4:8] + b"\0\0\0\x01" + bytes(16))

    def close(self) -> None:
        """Cut the power."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._kept:
            connection.close()


@pytest.fixture
def nodes() -> Iterator[list[NfsDouble]]:
    """Doubles that a test starts; closed at its end."""
    started: list[NfsDouble] = []
    yield started
    for node in started:
        if node._thread.is_alive():
            node.close()


def branch(name: str, path: str = "", port: int = 2049) -> Any:
    """Return a branch named *name*."""
    return watchdog.Branch(name, path or f"/branches/{name}", f"branches-{name}.mount", "127.0.0.1", port)


# -- what it believes --------------------------------------------------------------------------------------------------


def believed(answers: list[bool]) -> list[bool | None]:
    """Return whether the node counts as alive, after each of *answers*."""
    health, found = watchdog.Health(), []
    for answered in answers:
        health = watchdog.judged(health, answered=answered)
        found.append(health.alive)
    return found


def test_two_answers_make_a_node_alive_and_two_silences_dead() -> None:
    """Before the second of them, what was believed stays."""
    assert believed([True, True, False, False, True, True]) == [None, True, True, False, False, True]


def test_one_lost_answer_drops_nobody() -> None:
    """An answer in between begins the count anew."""
    assert believed([True, True, False, True, False, True]) == [None, True, True, True, True, True]


@given(st.lists(st.booleans(), min_size=2, max_size=12))
def test_what_is_believed_is_always_what_the_last_agreeing_pair_said(answers: list[bool]) -> None:
    """Nothing older plays a part."""
    pairs = [one for one, next_one in pairwise(answers) if one == next_one]
    assert believed(answers)[-1] == (pairs[-1] if pairs else None)


def test_mount_points_are_read_from_the_kernels_table() -> None:
    """The fifth field is the path; blanks in it are written in octal."""
    table = (
        "22 28 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n"
        "91 28 0:55 / /srv/my\\040disk ro,noatime shared:9 - nfs4 10.0.0.1:/srv rw,vers=4.2\n"
    )
    assert watchdog.mount_points(table) == {"/proc", "/srv/my disk"}


def test_the_list_of_branches_begins_with_the_base_and_writes_to_none() -> None:
    """The base answers for the root of the union when every node is dead."""
    assert watchdog.branch_list("/base", ["/b/n1", "/b/n2"]) == "/base=RO:/b/n1=RO:/b/n2=RO"
    assert watchdog.branch_list("/base", []) == "/base=RO"


def test_the_call_is_the_null_procedure_of_nfs_4() -> None:
    """One record of 40 bytes: ticket, call, RPC 2, program 100003, version 4, procedure 0, no credentials."""
    assert watchdog.null_call(7).hex() == "80000028" + "000000070000000000000002000186a300000004" + "00" * 20


@pytest.mark.parametrize(
    ("reply", "is_one"),
    [
        ("80000018000000070000000100000000", True),
        ("80000018000000080000000100000000", False),  # somebody else's
        ("80000018000000070000000000000000", False),  # a call
        ("8000001800000007", False),  # cut off
        ("", False),
    ],
)
def test_only_a_reply_to_its_own_call_is_a_sign_of_life(reply: str, is_one: bool) -> None:
    """A port that merely talks is no NFS."""
    assert watchdog.is_answer(7, bytes.fromhex(reply)) is is_one


def test_metrics_count_branches_and_name_them() -> None:
    """Text of Prometheus, for node_exporter to hand on."""
    samples = [
        line for line in watchdog.exposition({"n2": False, "n1": True}, 1700000000.4).splitlines() if line[0] != "#"
    ]
    assert samples == [
        "granum_union_branches_up 1",
        "granum_union_branches_known 2",
        'granum_union_branch_up{branch="n1"} 1',
        'granum_union_branch_up{branch="n2"} 0',
        "granum_union_checked_timestamp_seconds 1700000000",
    ]


# -- how it asks -------------------------------------------------------------------------------------------------------


def test_a_node_whose_nfs_answers_is_alive(nodes: list[NfsDouble]) -> None:
    """A whole exchange over loopback."""
    nodes.append(NfsDouble())
    assert watchdog.probe(branch("n1", port=nodes[0].port)) is True


def test_a_node_that_takes_calls_and_answers_none_is_not(
    nodes: list[NfsDouble], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen machine's kernel may still accept connections."""
    monkeypatch.setattr(watchdog, "PROBE_S", 0.2)
    nodes.append(NfsDouble(silent=True))
    assert watchdog.probe(branch("n1", port=nodes[0].port)) is False


def test_a_closed_port_is_not_alive(nodes: list[NfsDouble]) -> None:
    """Refused at once."""
    nodes.append(NfsDouble())
    nodes[0].close()
    assert watchdog.probe(branch("n1", port=nodes[0].port)) is False


# -- what it does, and in which order ----------------------------------------------------------------------------------


class Scene:
    """A gateway without mounts: *answers* and *mounted* are what is the case, *done* is what the watchdog did."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, directory: Path, *, control: str = "/control/.mergerfs"
    ) -> None:
        self.answers = {"n1": True, "n2": True}
        self.mounted: set[str] = set()
        self.branches = b"/base=RO"
        self.done: list[str] = []
        self.now_s = 0.0
        monkeypatch.setattr(watchdog, "probe", lambda branch: self.answers[branch.name])
        monkeypatch.setattr(watchdog.Watchdog, "_mounted", staticmethod(lambda: set(self.mounted)))
        monkeypatch.setattr(watchdog, "interrupt", lambda path: self.done.append(f"interrupt {path}"))
        monkeypatch.setattr(watchdog, "detach", self._detach)
        monkeypatch.setattr(watchdog, "lock_mount_point", lambda path: None)
        monkeypatch.setattr(watchdog, "systemctl", lambda *words: self.done.append(" ".join(words)))
        monkeypatch.setattr(os, "getxattr", lambda path, name: self.branches)
        monkeypatch.setattr(os, "setxattr", self._list)
        self.metrics = directory / "textfile" / "granum_union.prom"
        settings = watchdog.Settings(
            (branch("n1"), branch("n2")), "/base", control, ("control.mount", "union.mount"), str(self.metrics)
        )
        self.watchdog = watchdog.Watchdog(settings)

    def _detach(self, path: str) -> None:
        self.mounted.discard(path)
        self.done.append(f"detach {path}")

    def _list(self, path: str, name: str, value: bytes) -> None:
        self.branches = value
        self.done.append(value.decode())

    def rounds(self, count: int) -> list[str]:
        """Do *count* rounds, a second apart; return what was done in them."""
        self.done = []
        for _ in range(count):
            self.watchdog.round(self.now_s)
            self.now_s += 1.0
        return self.done


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    """Two nodes that answer, mounted and in the union."""
    scene = Scene(monkeypatch, tmp_path)
    scene.mounted = {"/branches/n1", "/branches/n2"}
    scene.rounds(2)
    return scene


def test_branches_of_living_nodes_are_mounted_and_then_added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """systemd mounts; the union hears of a branch once it is there."""
    scene = Scene(monkeypatch, tmp_path)
    assert scene.rounds(2) == ["start branches-n1.mount", "start branches-n2.mount"]
    scene.mounted = {"/branches/n1", "/branches/n2"}
    assert scene.rounds(1) == ["/base=RO:/branches/n1=RO:/branches/n2=RO"]


def test_a_quiet_round_does_nothing(scene: Scene) -> None:
    """The list is written when it changes only."""
    assert scene.rounds(3) == []


def test_calls_into_a_dead_branch_fail_before_the_union_is_spoken_to_and_it_is_detached_behind_that(
    scene: Scene,
) -> None:
    """The union might be waiting for the dead node and not answer; and what it still lists, new calls still reach."""
    scene.answers["n1"] = False
    assert scene.rounds(2) == ["interrupt /branches/n1", "/base=RO:/branches/n2=RO", "detach /branches/n1"]


def test_a_node_that_is_back_is_mounted_again_and_added_in_its_old_place(scene: Scene) -> None:
    """The order of the branches stays that of the configuration, whatever happened."""
    scene.answers["n1"] = False
    scene.rounds(2)
    scene.answers["n1"] = True
    assert scene.rounds(2) == ["start branches-n1.mount"]
    scene.mounted.add("/branches/n1")
    assert scene.rounds(1) == ["/base=RO:/branches/n1=RO:/branches/n2=RO"]


def test_a_mount_that_fails_is_tried_every_five_seconds(scene: Scene) -> None:
    """The node answers, but exports nothing to us."""
    scene.mounted.discard("/branches/n2")
    assert scene.rounds(11) == [
        "start branches-n2.mount",
        "/base=RO:/branches/n1=RO",
        "start branches-n2.mount",
        "start branches-n2.mount",
    ]


def test_a_mount_that_comes_before_its_mount_point_is_locked_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[int] = []

    def read_only(descriptor: int, mode: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fchmod", read_only)
    monkeypatch.setattr(watchdog.fcntl, "ioctl", lambda descriptor, request, flags: asked.append(request))
    watchdog.lock_mount_point(str(tmp_path))
    assert asked == [watchdog.FS_IOC_GETFLAGS]


def test_a_watchdog_that_is_restarted_drops_nobody_before_it_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One silence in its first round is no news."""
    scene = Scene(monkeypatch, tmp_path)
    scene.mounted = {"/branches/n1", "/branches/n2"}
    scene.answers["n1"] = False
    assert scene.rounds(1) == ["/base=RO:/branches/n1=RO:/branches/n2=RO"]


def test_a_union_whose_program_ended_is_mounted_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """And meanwhile no branch counts as up."""

    def gone(path: str, name: str) -> bytes:
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(os, "getxattr", gone)
    assert scene.rounds(1) == ["restart control.mount union.mount"]
    assert "granum_union_branches_up 0\n" in scene.metrics.read_text()


def test_a_union_with_fixed_branches_is_served_by_mounts_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """unionfs-fuse has no control file; a branch that is not mounted is an empty directory to it."""
    scene = Scene(monkeypatch, tmp_path, control="")
    scene.mounted = {"/branches/n1", "/branches/n2"}
    scene.answers["n1"] = False
    assert scene.rounds(2) == ["interrupt /branches/n1", "detach /branches/n1"]
    assert "granum_union_branches_up 1\n" in scene.metrics.read_text()


def test_metrics_are_never_older_than_ten_seconds(scene: Scene) -> None:
    """Somebody may want to see that the watchdog lives."""
    scene.metrics.unlink()
    scene.rounds(10)
    assert "granum_union_branches_up 2\n" in scene.metrics.read_text()
    assert [name.name for name in scene.metrics.parent.iterdir()] == ["granum_union.prom"]


# -- a real union ------------------------------------------------------------------------------------------------------

MERGERFS = (
    "allow_other,cache.files=off,category.search=ff,func.getattr=ff,xattr=noattr,cache.negative_entry=0,minfreespace=0"
)


def run(*command: str) -> None:
    """Run *command*, which must succeed."""
    subprocess.run(command, check=True, capture_output=True)


class RealUnion:
    """A union over bind mounts, which stand for NFS, of the stores of doubles; mounted as the role does it."""

    def __init__(self, directory: Path, nodes: list[NfsDouble]) -> None:
        self.shown, self.control, base = (directory / name for name in ("union", "control", "base"))
        for made in (self.shown, self.control, base):
            made.mkdir()
        self.stores = {}
        branches = []
        for name in ("n1", "n2"):
            nodes.append(NfsDouble())
            path, store = directory / "branches" / name, directory / "stores" / name
            store.mkdir(parents=True)
            (store / f"of-{name}").write_text(name)
            self.stores[branch(name).unit] = (store, path)
            branches.append(branch(name, str(path), nodes[-1].port))
        run("mount", "-t", "fuse.mergerfs", "-o", f"{MERGERFS},threads=16", f"{base}=RO", str(self.control))
        run("mount", "-o", "bind,ro", str(self.control), str(self.shown))
        settings = watchdog.Settings(
            tuple(branches), str(base), str(self.control / ".mergerfs"), (), str(directory / "granum_union.prom")
        )
        self.watchdog = watchdog.Watchdog(settings)
        self.nodes = nodes
        self.now_s = 0.0

    def systemctl(self, verb: str, unit: str) -> None:
        """Mount as the unit would."""
        assert verb == "start"
        store, path = self.stores[unit]
        run("mount", "-o", "bind,ro", str(store), str(path))

    def round(self) -> list[str]:
        """Do one round; return what the union then shows."""
        self.watchdog.round(self.now_s)
        self.now_s += watchdog.REMOUNT_S
        return sorted(os.listdir(self.shown))

    def unmount(self) -> None:
        """Leave nothing behind."""
        for path in (self.shown, self.control, *(path for _, path in self.stores.values())):
            if str(path) in watchdog.Watchdog._mounted():
                run("umount", "-l", str(path))
        for _, path in self.stores.values():
            if path.exists():
                subprocess.run(["chattr", "-i", str(path)], check=False, capture_output=True)
                path.chmod(0o700)


@pytest.fixture
def union(tmp_path: Path, nodes: list[NfsDouble], monkeypatch: pytest.MonkeyPatch) -> Iterator[RealUnion]:
    """A union in which no branch is yet."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    if shutil.which("mergerfs") is None or not os.path.exists("/dev/fuse"):
        pytest.skip("mergerfs is not installed, or there is no /dev/fuse")
    union = RealUnion(tmp_path, nodes)
    monkeypatch.setattr(watchdog, "systemctl", union.systemctl)
    yield union
    union.unmount()


def test_the_union_loses_a_dead_nodes_files_and_gets_them_back(union: RealUnion) -> None:
    """What the other node holds stays readable all the time."""
    assert [union.round(), union.round(), union.round()][-1] == ["of-n1", "of-n2"]
    union.nodes[0].close()
    assert [union.round(), union.round()][-1] == ["of-n2"]
    assert (union.shown / "of-n2").read_text() == "n2"
    back = NfsDouble()
    union.nodes.append(back)
    first, *others = union.watchdog.health
    moved = branch(first.name, first.path, back.port)
    union.watchdog.health = {
        moved: union.watchdog.health[first],
        **{other: union.watchdog.health[other] for other in others},
    }
    assert [union.round(), union.round(), union.round()][-1] == ["of-n1", "of-n2"]


def test_nothing_can_be_written_through_the_union(union: RealUnion) -> None:
    """Neither into files that exist, which the union alone would let through, nor new ones."""
    for _ in range(3):
        union.round()
    held = union.shown / "of-n1"
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC, os.O_RDWR):
        with pytest.raises(OSError, match="Read-only file system"):
            os.open(held, flags)
    with pytest.raises(OSError, match="Read-only file system"):
        (union.shown / "new").write_text("x")
    assert held.read_text() == "n1"


def test_the_mount_point_of_a_dead_node_is_locked(union: RealUnion) -> None:
    """Nothing can be put where its files belong."""
    for _ in range(3):
        union.round()
    union.nodes[1].close()
    union.round()
    union.round()
    _, path = union.stores["branches-n2.mount"]
    assert os.stat(path).st_mode & 0o777 == 0
    with pytest.raises(OSError, match="Operation not permitted"):
        (path / "new").write_text("x")
