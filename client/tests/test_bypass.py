"""The bypass reads what lies in the right store, and nothing else."""

import gc
import json
import os
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock

from granum.bypass import LocalStores, is_own_address, marker_directories
from granum.roster import Node
from granum.wire.paths import ClusterPath

NODE = Node("id-1", "scope1:1", "127.0.0.1", 1, "lab", "id-1")
FILE = ClusterPath.of(["run", "f"])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The store of NODE, with one file."""
    root = tmp_path / "store"
    (root / ".granum").mkdir(parents=True)
    (root / ".granum" / "node-id").write_text("id-1\n")
    (root / "run").mkdir()
    (root / "run" / "f").write_bytes(b"frame")
    return root


async def read(store: Path, path: ClusterPath = FILE, node: Node = NODE, markers: tuple[str, ...] = ()) -> bytes | None:
    return await LocalStores([str(store)], markers, reactor).read(node, path)


@pytest_twisted.ensureDeferred
async def test_a_file_in_the_store_of_the_node_is_read(store: Path) -> None:
    assert await read(store) == b"frame"


@pytest_twisted.ensureDeferred
async def test_a_store_with_another_node_id_is_not_believed(store: Path) -> None:
    (store / ".granum" / "node-id").write_text("id-2\n")
    assert await read(store) is None


@pytest_twisted.ensureDeferred
async def test_a_directory_without_a_node_id_is_no_store(store: Path) -> None:
    (store / ".granum" / "node-id").unlink()
    assert await read(store) is None


@pytest_twisted.ensureDeferred
async def test_a_pyme_node_is_never_bypassed(store: Path) -> None:
    (store / ".granum" / "node-id").write_text("\n")
    assert await read(store, node=Node("x", "x:1", "127.0.0.1", 1, "lab", "")) is None


def link_file(store: Path) -> None:
    (store / "run" / "f").unlink()
    (store / "run" / "f").symlink_to(store / "secret")


def link_directory(store: Path) -> None:
    (store / "run").rename(store / "moved")
    (store / "run").symlink_to(store / "moved")


def link_node_id(store: Path) -> None:
    (store / ".granum" / "node-id").rename(store / "elsewhere")
    (store / ".granum" / "node-id").symlink_to(store / "elsewhere")


def make_fifo(store: Path) -> None:
    (store / "run" / "f").unlink()
    os.mkfifo(store / "run" / "f")


def make_directory(store: Path) -> None:
    (store / "run" / "f").unlink()
    (store / "run" / "f").mkdir()


def remove(store: Path) -> None:
    (store / "run" / "f").unlink()


@pytest.mark.parametrize("spoil", [link_file, link_directory, link_node_id, make_fifo, make_directory, remove])
@pytest_twisted.ensureDeferred
async def test_whatever_is_odd_is_left_to_the_node(store: Path, spoil: Any) -> None:
    (store / "secret").write_bytes(b"secret")
    spoil(store)
    assert await read(store) is None


@pytest_twisted.ensureDeferred
async def test_the_root_is_no_file(store: Path) -> None:
    assert await read(store, ClusterPath()) is None


@pytest_twisted.ensureDeferred
async def test_a_marker_leads_to_the_store(store: Path, tmp_path: Path) -> None:
    (tmp_path / "id-1.json").write_text(json.dumps({"store": str(store)}))
    assert await read(tmp_path / "none", markers=(str(tmp_path),)) == b"frame"


@pytest.mark.parametrize("text", ["", "[]", '{"store": 5}', '{"store": "/no\u0000such"}', "null"])
@pytest_twisted.ensureDeferred
async def test_a_marker_that_makes_no_sense_is_ignored(store: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "id-1.json").write_text(text)
    assert await read(tmp_path / "none", markers=(str(tmp_path),)) is None


@pytest_twisted.ensureDeferred
async def test_a_marker_of_another_user_is_ignored(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner seen is changed where the module looks: no test may need root to make another user's file."""
    (tmp_path / "id-1.json").write_text(json.dumps({"store": str(store)}))
    real = os.fstat

    def fstat(fd: int) -> Any:
        found = list(real(fd))
        found[4] = 12345
        return os.stat_result(found)

    monkeypatch.setattr("granum.bypass.os.fstat", fstat)
    assert await read(tmp_path / "none", markers=(str(tmp_path),)) is None


@pytest_twisted.ensureDeferred
async def test_a_node_id_cannot_leave_the_directory_of_markers(store: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"store": str(store)}))
    (store / ".granum" / "node-id").write_text("../x")
    (tmp_path / "markers").mkdir()
    node = Node("../x", "x:1", "127.0.0.1", 1, "lab", "../x")
    assert await read(tmp_path / "none", node=node, markers=(str(tmp_path / "markers"),)) is None


@pytest_twisted.ensureDeferred
async def test_a_node_without_a_store_here_is_not_looked_for_each_time(tmp_path: Path) -> None:
    stores = LocalStores([str(tmp_path)], (), reactor)
    assert stores.may_hold(NODE) is True
    await stores.read(NODE, FILE)
    assert stores.may_hold(NODE) is False


def test_markers_are_where_nodes_put_them() -> None:
    assert marker_directories({"XDG_RUNTIME_DIR": "/run/user/7"}) == ("/run/granum", "/run/user/7/granum")
    assert marker_directories({}) == ("/run/granum",)


def test_own_addresses_are_told_from_others() -> None:
    assert [is_own_address(address) for address in ("127.0.0.1", "192.0.2.199", "localhost")] == [True, False, False]


# -- the store of a service, whose node id is closed to others ---------------------------------------------------------


@pytest.mark.parametrize(
    ("marker_owner", "directory_owner", "directory_mode", "expected"),
    [
        (0, 0, 0o40755, b"frame"),
        (900, 900, 0o40755, b"frame"),
        (900, 900, 0o40775, None),  # others of the group may have written the marker
        (900, 900, 0o41777, None),
        (901, 900, 0o40755, None),
        (os.getuid() or 1, 900, 0o40755, None),  # a user's word is not enough for a store that he cannot look into
    ],
)
@pytest_twisted.ensureDeferred
async def test_of_a_closed_store_the_marker_of_the_service_is_believed(
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    marker_owner: int,
    directory_owner: int,
    directory_mode: int,
    expected: bytes | None,
) -> None:
    """Owners and the closed door are made where the module looks: no test may need root or another user."""
    (tmp_path / "id-1.json").write_text(json.dumps({"store": str(store)}))
    fstat, stat, open_ = os.fstat, os.stat, os.open

    def owned(found: os.stat_result, owner: int, mode: int) -> os.stat_result:
        return os.stat_result((mode, *found[1:4], owner, *found[5:]))

    def closed(path: str, *arguments: Any, **options: Any) -> int:
        if path == ".granum":
            raise PermissionError(13, "closed")
        return open_(path, *arguments, **options)

    monkeypatch.setattr("granum.bypass.SYSTEM_MARKERS", str(tmp_path))
    monkeypatch.setattr("granum.bypass.os.fstat", lambda fd: owned(fstat(fd), marker_owner, fstat(fd).st_mode))
    monkeypatch.setattr("granum.bypass.os.stat", lambda path: owned(stat(path), directory_owner, directory_mode))
    monkeypatch.setattr("granum.bypass.os.open", closed)
    monkeypatch.setattr("granum.bypass.os.getuid", lambda: os.geteuid() or 1)
    stores = LocalStores([], [str(tmp_path)], reactor)
    assert [await stores.read(NODE, FILE) for _ in range(1)] == [expected]


@pytest_twisted.ensureDeferred
async def test_a_closed_store_that_only_the_configuration_names_is_not_believed(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = os.open

    def closed(path: str, *arguments: Any, **options: Any) -> int:
        if path == ".granum":
            raise PermissionError(13, "closed")
        return open_(path, *arguments, **options)

    monkeypatch.setattr("granum.bypass.os.open", closed)
    assert await read(store) is None


@pytest_twisted.ensureDeferred
async def test_a_marker_of_root_does_not_help_a_store_with_another_node_id(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "id-1.json").write_text(json.dumps({"store": str(store)}))
    (store / ".granum" / "node-id").write_text("id-2\n")
    fstat = os.fstat
    monkeypatch.setattr("granum.bypass.os.fstat", lambda fd: os.stat_result((*fstat(fd)[:4], 0, *fstat(fd)[5:])))
    assert await read(tmp_path / "none", markers=(str(tmp_path),)) is None


# -- parts, and whether there is a store at all ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "length", "part"),
    [(0, None, b"frame"), (1, 3, b"ram"), (3, None, b"me"), (3, 99, b"me"), (5, 1, b""), (99, None, b""), (2, 0, b"")],
)
@pytest_twisted.ensureDeferred
async def test_a_part_of_a_file_is_read(store: Path, start: int, length: int | None, part: bytes) -> None:
    assert await LocalStores([str(store)], (), reactor).read(NODE, FILE, start, length) == part


@pytest_twisted.ensureDeferred
async def test_a_start_that_no_file_can_have_is_left_to_the_node(store: Path) -> None:
    assert await LocalStores([str(store)], (), reactor).read(NODE, FILE, 1 << 80, 1) is None


@pytest_twisted.ensureDeferred
async def test_it_is_known_which_stores_are_on_this_machine(store: Path) -> None:
    stores = LocalStores([str(store)], (), reactor)
    other = Node("id-2", "scope2:1", "127.0.0.1", 1, "lab", "id-2")
    assert [await stores.has(NODE), await stores.has(other)] == [True, False]


# -- folders: many files of one directory, in the thread that wants them -----------------------------------------------


def folder_read(store: Path, name: str = "f", clock: Clock | None = None) -> bytes | None:
    folder = LocalStores([str(store)], (), clock or Clock()).folder(NODE, ClusterPath.of(["run"]))
    wanted = folder.want(name) if folder is not None else None
    return wanted.read() if wanted is not None else None


def test_a_folder_gives_the_files_of_its_directory(store: Path) -> None:
    (store / "run" / "empty").write_bytes(b"")
    assert [folder_read(store), folder_read(store, "empty"), folder_read(store, "absent")] == [b"frame", b"", None]


def test_the_disk_is_asked_for_a_file_as_soon_as_it_is_wanted(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr("granum.bypass.os.posix_fadvise", lambda _, *arguments: asked.append(arguments))
    folder = LocalStores([str(store)], (), Clock()).folder(NODE, ClusterPath.of(["run"]))
    assert folder is not None
    wanted = folder.want("f")
    assert wanted is not None
    assert asked == [(0, 1 << 20, os.POSIX_FADV_WILLNEED)]


@pytest.mark.parametrize("spoil", [link_file, link_directory, link_node_id, make_fifo, make_directory, remove])
def test_a_folder_leaves_whatever_is_odd_to_the_node(store: Path, spoil: Any) -> None:
    (store / "secret").write_bytes(b"secret")
    spoil(store)
    assert folder_read(store) is None


@pytest.mark.parametrize("name", ["../secret", "deeper/f", "..", "."])
def test_a_name_cannot_leave_its_folder(store: Path, name: str) -> None:
    (store / "secret").write_bytes(b"secret")
    (store / "run" / "deeper").mkdir()
    (store / "run" / "deeper" / "f").write_bytes(b"deeper")
    assert folder_read(store, name) is None


def test_a_folder_of_another_nodes_store_is_not_had(store: Path) -> None:
    (store / ".granum" / "node-id").write_text("id-2\n")
    assert LocalStores([str(store)], (), Clock()).folder(NODE, ClusterPath.of(["run"])) is None


def test_a_folder_is_not_had_of_a_directory_that_is_not_there(store: Path) -> None:
    assert LocalStores([str(store)], (), Clock()).folder(NODE, ClusterPath.of(["run", "deeper"])) is None


def test_a_folder_is_believed_for_a_second_only(store: Path) -> None:
    """The store becomes another node's while it is being read: then nothing more is taken from it."""
    clock = Clock()
    folder = LocalStores([str(store)], (), clock).folder(NODE, ClusterPath.of(["run"]))
    assert folder is not None
    (store / ".granum" / "node-id").write_text("id-2\n")
    clock.advance(0.9)
    assert folder.want("f") is not None
    clock.advance(0.2)
    assert folder.want("f") is None


def test_a_folder_comes_back_with_its_store(store: Path) -> None:
    clock = Clock()
    folder = LocalStores([str(store)], (), clock).folder(NODE, ClusterPath.of(["run"]))
    assert folder is not None
    store.rename(store.with_name("unmounted"))
    clock.advance(1.1)
    assert folder.want("f") is None
    store.with_name("unmounted").rename(store)
    clock.advance(5.1)
    assert folder.want("f") is not None


def test_a_file_that_is_shorter_than_it_was_is_left_to_the_node(store: Path) -> None:
    folder = LocalStores([str(store)], (), Clock()).folder(NODE, ClusterPath.of(["run"]))
    assert folder is not None
    wanted = folder.want("f")
    assert wanted is not None
    os.truncate(store / "run" / "f", 3)
    assert wanted.read() is None


@pytest.mark.parametrize("spoil", [None, link_file, make_fifo, make_directory, remove, link_node_id, link_directory])
def test_nothing_stays_open(store: Path, spoil: Any) -> None:
    (store / "secret").write_bytes(b"secret")
    if spoil is not None:
        spoil(store)
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    folder_read(store)
    assert set(os.listdir("/proc/self/fd")) == before
