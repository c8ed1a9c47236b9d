"""A store belongs to one node, keeps its id, and is left untouched when it cannot be opened."""

import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from granum.wire.errors import AlreadyStored, NotADirectory, StoreLocked, StoreUnusable
from granum.wire.paths import ROOT, ClusterPath
from granum_node.storage.store import Store
from node.tests.watching import open_files


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before, "a descriptor was left open"


def names(directory: Path) -> list[str]:
    return sorted(str(found.relative_to(directory)) for found in directory.rglob("*"))


def test_opening_makes_the_hidden_directory_and_nothing_else(tmp_path: Path) -> None:
    Store.open(str(tmp_path)).close()
    assert names(tmp_path) == [".granum", ".granum/lock", ".granum/node-id", ".granum/spool"]
    assert oct((tmp_path / ".granum").stat().st_mode) == "0o40700"


def test_a_store_keeps_its_node_id(tmp_path: Path) -> None:
    first = Store.open(str(tmp_path))
    first.close()
    again = Store.open(str(tmp_path))
    again.close()
    assert again.node_id == first.node_id == str(uuid.UUID(first.node_id))


def test_two_stores_have_two_ids(tmp_path: Path) -> None:
    stores = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        stores.append(Store.open(str(tmp_path / name)))
    for store in stores:
        store.close()
    assert stores[0].node_id != stores[1].node_id


def test_a_store_is_opened_once_at_a_time(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    with pytest.raises(StoreLocked):
        Store.open(str(tmp_path))
    store.close()
    Store.open(str(tmp_path)).close()


def test_what_a_killed_node_left_in_the_spool_is_removed(tmp_path: Path) -> None:
    Store.open(str(tmp_path)).close()
    (tmp_path / ".granum" / "spool" / "123-4").write_bytes(b"half")
    (tmp_path / ".granum" / "spool" / "probe").touch()
    Store.open(str(tmp_path)).close()
    assert os.listdir(tmp_path / ".granum" / "spool") == []


@pytest.mark.parametrize("text", [b"", b"x", b"\xff\xff", b"1234\n", b"0" * 100])
def test_a_damaged_node_id_is_not_replaced(tmp_path: Path, text: bytes) -> None:
    """Another id would be another node; which one is right, only a person can tell."""
    Store.open(str(tmp_path)).close()
    file = tmp_path / ".granum" / "node-id"
    file.chmod(0o644)
    file.write_bytes(text)
    with pytest.raises(StoreUnusable, match="node-id holds no node id"):
        Store.open(str(tmp_path))
    assert file.read_bytes() == text


def test_a_node_id_half_written_by_a_killed_node_is_written_anew(tmp_path: Path) -> None:
    """The half is read-only, so writing over it fails for every user but root."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"outside")
    (tmp_path / "store" / ".granum").mkdir(parents=True)
    (tmp_path / "store" / ".granum" / "node-id.new").symlink_to(outside)
    Store.open(str(tmp_path / "store")).close()
    assert names(tmp_path / "store" / ".granum") == ["lock", "node-id", "spool"]
    assert outside.read_bytes() == b"outside"


@pytest.mark.parametrize("name", ["", "lock", "spool", "node-id"])
def test_a_hidden_name_that_is_a_link_is_refused(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "store").mkdir()
    if name:
        (tmp_path / "store" / ".granum").mkdir()
        (tmp_path / "store" / ".granum" / name).symlink_to(outside / "planted" if name != "spool" else outside)
    else:
        (tmp_path / "store" / ".granum").symlink_to(outside)
    with pytest.raises(StoreUnusable, match="cannot be used"):
        Store.open(str(tmp_path / "store"))
    assert names(outside) == []


def test_a_missing_directory_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="does not exist"):
        Store.open(str(tmp_path / "missing"))
    assert names(tmp_path) == []


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(StoreUnusable, match="is not a directory"):
        Store.open(str(tmp_path / "f"))
    assert names(tmp_path) == ["f"]


def test_a_hidden_name_that_is_a_file_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / ".granum").write_bytes(b"a file")
    with pytest.raises(StoreUnusable, match="cannot be used"):
        Store.open(str(tmp_path))
    assert (tmp_path / ".granum").read_bytes() == b"a file"


def test_a_read_only_file_system_is_refused(tmp_path: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(tmp_path)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("mounting a read-only file system needs root")
    try:
        with pytest.raises(StoreUnusable, match="is read-only"):
            Store.open(str(tmp_path))
        assert names(tmp_path) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("mode", [0o555, 0o333, 0o666, 0o000])
def test_a_directory_closed_to_the_nodes_user_is_refused(tmp_path: Path, mode: int) -> None:
    """In a child process of another user, since root may do everything."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    outer = [tmp_path, *tmp_path.parents]
    if any(not parent.stat().st_mode & 1 for parent in outer[1:]):
        store = Path(tempfile.gettempdir(), f"granum-test-{uuid.uuid4().hex}")
    else:
        store = tmp_path / "store"
    store.mkdir()
    os.chown(store, 65534, 65534)
    store.chmod(mode)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with pytest.raises(StoreUnusable, match="is read-only or closed"):
                Store.open(str(store))
            status = 0
        finally:
            os._exit(status)
    _, code = os.waitpid(child, 0)
    left = os.listdir(store)
    store.rmdir()
    assert (code, left) == (0, [])


# -- directories and space ---------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(str(tmp_path))
    yield opened
    opened.close()


def test_a_directory_is_made_once(tmp_path: Path, store: Store) -> None:
    store.tree.make_new_directory(ClusterPath.parse("a/b"))
    assert (tmp_path / "a" / "b").is_dir()
    for name in ("a/b", "a"):
        with pytest.raises(AlreadyStored):
            store.tree.make_new_directory(ClusterPath.parse(name))
    with pytest.raises(AlreadyStored):
        store.tree.make_new_directory(ROOT)


def test_a_directory_over_or_below_something_else_is_refused(tmp_path: Path, store: Store) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "link").symlink_to("/")
    for name, error in {
        "f": AlreadyStored,
        "link": AlreadyStored,
        "f/x": NotADirectory,
        "link/x": NotADirectory,
    }.items():
        with pytest.raises(error):
            store.tree.make_new_directory(ClusterPath.parse(name))


def test_space_is_that_of_the_file_system(tmp_path: Path, store: Store) -> None:
    room = store.room()
    assert room.total_bytes > 0
    assert 0 < room.free_bytes + room.used_bytes <= room.total_bytes
    assert 0 <= room.free_inodes <= room.inodes
