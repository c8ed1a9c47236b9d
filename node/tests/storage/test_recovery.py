"""Opening a store that was relaxed: what may be torn is read, and only what is whole is served."""

import errno
import os
from pathlib import Path

import pytest

from granum.wire.errors import AlreadyStored, Corrupt
from granum.wire.paths import ClusterPath
from granum_node.storage.digest import ATTRIBUTE
from granum_node.storage.digestlog import Records, read_records
from granum_node.storage.recovery import Recovered
from granum_node.storage.store import Store


def put(store: Store, name: str, body: bytes) -> None:
    file = store.spool()
    file.write(body)
    file.publish(store.tree, ClusterPath.parse(name))
    store.published(ClusterPath.parse(name), file)


def tear(file: Path) -> None:
    """Leave of *file* what a power failure leaves of one that was not synced."""
    os.truncate(file, file.stat().st_size // 2)


def crashed(root: Path, *, relaxed: bool = True) -> None:
    """Have a node put files into *root*, the first two of which it has recorded, and crash."""
    store = Store.open(str(root))
    store.recover(relaxed=relaxed)
    put(store, "d/kept", b"hello")
    put(store, "kept", b"hello")
    store.log.write(store.log.take())
    put(store, "d/whole", b"hello")
    put(store, "d/e/torn", b"hello")
    store.close()


def test_after_an_unclean_stop_what_has_no_record_is_read_and_what_is_torn_is_quarantined(tmp_path: Path) -> None:
    crashed(tmp_path)
    tear(tmp_path / "d" / "e" / "torn")
    store = Store.open(str(tmp_path))
    assert store.recover(relaxed=True) == Recovered(read=2, quarantined=("d/e/torn",))
    assert sorted(str(each.relative_to(tmp_path)) for each in tmp_path.glob("[!.]*/**/*") if each.is_file()) == [
        "d/kept",
        "d/whole",
    ]
    (note,) = store.quarantine.notes
    assert (tmp_path / ".granum" / "quarantine" / note.id).read_bytes() == b"he"
    assert (note.path, note.size, note.cause) == ("d/e/torn", 2, "not whole after a power failure")
    store.close()
    again = Store.open(str(tmp_path))
    assert again.recover(relaxed=True) == Recovered()  # what was whole has its record now
    again.close()


def test_a_file_that_was_recorded_is_not_read(tmp_path: Path) -> None:
    """Else opening a large store would take days; finding rot is the scrub's business."""
    crashed(tmp_path)
    tear(tmp_path / "kept")
    store = Store.open(str(tmp_path))
    assert store.recover(relaxed=True) == Recovered(read=2)
    store.close()


def test_a_file_without_a_digest_of_its_own_is_quarantined(tmp_path: Path) -> None:
    crashed(tmp_path)
    (tmp_path / "d" / "whole").chmod(0o640)
    os.removexattr(tmp_path / "d" / "whole", ATTRIBUTE)
    store = Store.open(str(tmp_path))
    assert store.recover(relaxed=True).quarantined == ("d/whole",)
    store.close()


@pytest.mark.parametrize("relaxed", [False, True])
def test_a_node_that_commits_now_still_looks_at_what_a_relaxed_one_left(tmp_path: Path, relaxed: bool) -> None:
    crashed(tmp_path)
    tear(tmp_path / "d" / "e" / "torn")
    store = Store.open(str(tmp_path))
    assert store.recover(relaxed=relaxed).quarantined == ("d/e/torn",)
    store.close()


def test_after_a_crash_of_a_node_that_commits_nothing_is_read(tmp_path: Path) -> None:
    crashed(tmp_path, relaxed=False)
    store = Store.open(str(tmp_path))
    assert store.recover(relaxed=False) == Recovered()
    store.close()


def test_after_a_clean_stop_nothing_is_read(tmp_path: Path) -> None:
    crashed(tmp_path)
    store = Store.open(str(tmp_path))
    store.recover(relaxed=True)
    (tmp_path / "by-hand").write_bytes(b"hello")
    store.mark_closed()
    store.close()
    again = Store.open(str(tmp_path))
    assert again.recover(relaxed=True) == Recovered(taken=1)
    again.close()


def test_what_was_there_at_a_clean_stop_is_not_quarantined_after_a_crash_later(tmp_path: Path) -> None:
    """It was on the disk, or placed by hand before the node that crashed had begun: that one cannot have torn it."""
    crashed(tmp_path)
    store = Store.open(str(tmp_path))
    store.recover(relaxed=True)
    (tmp_path / "while-it-ran").write_bytes(b"hello")
    store.mark_closed()
    store.close()
    (tmp_path / "while-it-did-not").write_bytes(b"hello")
    crashed_later = Store.open(str(tmp_path))
    assert crashed_later.recover(relaxed=True) == Recovered(taken=2)
    crashed_later.close()
    again = Store.open(str(tmp_path))
    assert again.recover(relaxed=True) == Recovered()
    again.close()


def test_files_whose_log_the_node_may_not_read_are_read_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is root's, for example; passing over the directory would serve what is torn in it."""
    crashed(tmp_path)
    tear(tmp_path / "d" / "e" / "torn")

    def closed(state: int, directory: str) -> Records:
        if directory == "d/e":
            raise PermissionError(errno.EACCES, "closed")
        return read_records(state, directory)

    monkeypatch.setattr("granum_node.storage.recovery.read_records", closed)
    store = Store.open(str(tmp_path))
    assert store.recover(relaxed=True).quarantined == ("d/e/torn",)
    store.close()


@pytest.mark.parametrize("before", ["nobody", "commit"])
def test_what_is_there_when_a_store_becomes_relaxed_is_taken_as_it_is(tmp_path: Path, before: str) -> None:
    """Files from elsewhere have no digest, and those of a node that committed were on the disk before they had a name."""
    if before == "commit":
        crashed(tmp_path, relaxed=False)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "f").write_bytes(b"hello")
    store = Store.open(str(tmp_path))
    assert store.recover(relaxed=True) == Recovered(taken={"nobody": 1, "commit": 3}[before])
    store.close()
    again = Store.open(str(tmp_path))
    assert again.recover(relaxed=True) == Recovered()  # it was not stopped in order, and all files have records
    again.close()


def test_the_name_of_what_was_torn_is_answered_with_corrupt_and_takes_no_put(tmp_path: Path) -> None:
    crashed(tmp_path)
    tear(tmp_path / "d" / "e" / "torn")
    for _ in range(2):
        store = Store.open(str(tmp_path))
        store.recover(relaxed=True)
        with pytest.raises(Corrupt):
            store.quarantine.check(ClusterPath.parse("d/e/torn"))
        with pytest.raises(AlreadyStored):
            store.quarantine.check_put(ClusterPath.parse("d/e/torn"))
        store.close()


def test_a_crash_while_the_store_is_checked_leaves_it_to_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed(tmp_path)
    tear(tmp_path / "d" / "e" / "torn")
    store = Store.open(str(tmp_path))
    with monkeypatch.context() as crash:
        crash.setattr("granum_node.storage.recovery.append", crash_at)
        with pytest.raises(KeyboardInterrupt):
            store.recover(relaxed=False)
    store.close()
    again = Store.open(str(tmp_path))
    found = again.recover(relaxed=False)
    assert (found.read, len(again.quarantine)) == (1, 1) or (found.read, len(again.quarantine)) == (2, 1)
    again.close()


def crash_at(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_is_whole_is_served_though_the_disk_has_no_room_for_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    store = Store.open(str(tmp_path))
    with monkeypatch.context() as crash:
        crash.setattr("granum_node.storage.recovery.append", full)
        assert store.recover(relaxed=True) == Recovered(read=2)
    store.close()
    again = Store.open(str(tmp_path))
    assert again.recover(relaxed=True) == Recovered(read=2)  # it has still no record
    again.close()
