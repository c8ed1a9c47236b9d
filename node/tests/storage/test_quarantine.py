"""The quarantine: nothing is deleted, nothing is lost by a crash, and a person can end it while the node serves."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from granum.wire.errors import AlreadyStored, Corrupt, DigestMismatch, NotADirectory, NotStored
from granum.wire.listing import Entry, Flags, decode_listing
from granum.wire.paths import ROOT, ClusterPath
from granum_node.storage.digest import recorded
from granum_node.storage.quarantine import Quarantine, opened_quarantine
from granum_node.storage.store import Store
from granum_node.storage.verify import State, verify

F = ClusterPath.parse("d/f")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(str(tmp_path))
    file = opened.spool()
    file.write(b"hello")
    file.publish(opened.tree, F)
    yield opened
    opened.close()


def quarantine(store: Store, tmp_path: Path) -> None:
    status = (tmp_path / "d" / "f").stat()
    fd, _ = store.tree.open_file(F)
    digest = recorded(fd)
    os.close(fd)
    assert store.quarantine.take("d/f", "damaged", digest, None, status.st_ino, status.st_size)


def lying(tmp_path: Path) -> Path:
    (found,) = (each for each in (tmp_path / ".granum" / "quarantine").iterdir() if not each.suffix)
    return found


def test_a_file_is_moved_and_its_name_kept(store: Store, tmp_path: Path) -> None:
    quarantine(store, tmp_path)
    assert not (tmp_path / "d" / "f").exists()
    assert lying(tmp_path).read_bytes() == b"hello"
    with pytest.raises(Corrupt):
        store.quarantine.check(F)
    with pytest.raises(AlreadyStored):
        store.quarantine.check_put(F)
    with pytest.raises(NotADirectory):
        store.quarantine.check_put(F / "g")
    for other in (ROOT, F.parent, F.parent / "g"):
        store.quarantine.check(other)
        store.quarantine.check_put(other)
    assert store.quarantine.below(F.parent) == {"f": 5}
    assert store.quarantine.below(ROOT) == {}


def test_a_listing_names_what_is_in_quarantine(store: Store, tmp_path: Path) -> None:
    """Its name is taken, and a copy of the directory that left it out would look complete."""
    before = store.listing(F.parent)
    quarantine(store, tmp_path)
    alone = store.listing(F.parent)
    (tmp_path / "d" / "g").write_bytes(b"")
    assert [decode_listing(each.body) for each in (before, alone)] == [{"f": Entry("f", Flags.FILE, 5)}] * 2
    assert sorted(decode_listing(store.listing(F.parent).body)) == ["f", "g"]
    assert alone.tag == before.tag


def test_another_file_under_the_name_is_left_alone(store: Store, tmp_path: Path) -> None:
    """It was replaced behind the node's back since it was read."""
    assert not store.quarantine.take("d/f", "damaged", None, None, inode=1, size=5)
    assert not store.quarantine.take("d/gone", "damaged", None, None, inode=1, size=5)
    assert (tmp_path / "d" / "f").read_bytes() == b"hello"
    assert len(store.quarantine) == 0


def test_a_move_that_a_crash_cut_is_finished(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as crash:
        crash.setattr(Quarantine, "_move", lambda *_: None)
        quarantine(store, tmp_path)
    assert (tmp_path / "d" / "f").exists()
    found = Quarantine(store.tree, store._state)
    found.finish()
    assert not (tmp_path / "d" / "f").exists()
    assert lying(tmp_path).read_bytes() == b"hello"


def test_a_note_that_a_crash_cut_holds_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / ".granum" / "quarantine").mkdir()
    (tmp_path / ".granum" / "quarantine" / "0.json").write_text('{"id": "0", "pa')
    assert len(Quarantine(store.tree, store._state)) == 0


def test_a_file_that_was_repaired_gets_its_name_back_while_the_node_serves(store: Store, tmp_path: Path) -> None:
    quarantine(store, tmp_path)
    lying(tmp_path).chmod(0o640)
    lying(tmp_path).write_bytes(b"hellx")
    with opened_quarantine(str(tmp_path)) as other:
        with pytest.raises(DigestMismatch):
            other.restore("d/f")
        lying(tmp_path).write_bytes(b"hello")
        other.restore("d/f")
    assert (tmp_path / "d" / "f").read_bytes() == b"hello"
    store.quarantine.check(F)
    assert len(store.quarantine) == 0
    assert [verdict.state for verdict in verify(str(tmp_path))] == [State.GOOD]
    assert (tmp_path / "d" / "f").stat().st_mode & 0o777 == 0o440


def test_a_file_can_be_taken_as_it_is(store: Store, tmp_path: Path) -> None:
    quarantine(store, tmp_path)
    lying(tmp_path).chmod(0o640)
    lying(tmp_path).write_bytes(b"other")
    with opened_quarantine(str(tmp_path)) as other:
        other.restore("d/f", as_it_is=True)
    assert [verdict.state for verdict in verify(str(tmp_path))] == [State.GOOD]


def test_a_file_that_is_dropped_is_gone_and_its_name_free(store: Store, tmp_path: Path) -> None:
    quarantine(store, tmp_path)
    with opened_quarantine(str(tmp_path)) as other:
        other.drop("d/f")
        with pytest.raises(NotStored):
            other.drop("d/f")
    assert os.listdir(tmp_path / ".granum" / "quarantine") == []
    store.quarantine.check(F)
    store.quarantine.check_put(F)


def test_nothing_is_restored_over_another_file(store: Store, tmp_path: Path) -> None:
    quarantine(store, tmp_path)
    (tmp_path / "d" / "f").write_bytes(b"new")
    with opened_quarantine(str(tmp_path)) as other, pytest.raises(AlreadyStored):
        other.restore("d/f")
    assert ((tmp_path / "d" / "f").read_bytes(), lying(tmp_path).read_bytes()) == (b"new", b"hello")


@pytest.mark.parametrize("name", ["d/f", "d/f/g"])
def test_a_put_that_had_begun_does_not_get_the_name(store: Store, tmp_path: Path, name: str) -> None:
    """It asked before the scrub came by, found nothing, and links when the name is free for a moment."""
    path = ClusterPath.parse(name)
    late = store.spool()
    late.write(b"other")
    quarantine(store, tmp_path)
    with pytest.raises((AlreadyStored, NotADirectory)):
        late.publish(store.tree, path)
    with pytest.raises((AlreadyStored, NotADirectory)):
        store.tree.make_new_directory(path)
    assert not os.path.lexists(tmp_path / "d" / "f")


def test_a_name_that_was_dropped_can_be_given_again(store: Store, tmp_path: Path) -> None:
    quarantine(store, tmp_path)
    store.quarantine.drop("d/f")
    file = store.spool()
    file.write(b"other")
    file.publish(store.tree, F)
    assert (tmp_path / "d" / "f").read_bytes() == b"other"


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../outside"},
        {"id": "x"},
        {"path": "../outside"},
        {"path": ".granum/node-id"},
        {"path": "d/../../outside"},
        {"path": "/d/f"},
        {"path": 7},
        {"size": "5"},
    ],
)
def test_a_note_that_no_node_has_written_is_passed_over(
    store: Store, tmp_path: Path, change: dict[str, object]
) -> None:
    """Root gives files back where the node's user may write notes; neither is to be led to other files."""
    quarantine(store, tmp_path)
    (note,) = (tmp_path / ".granum" / "quarantine").glob("*.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | change))
    with opened_quarantine(str(tmp_path)) as found:
        assert found.notes == []


def test_the_log_of_a_directory_that_root_begins_is_the_nodes(store: Store, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    quarantine(store, tmp_path)
    os.chown(tmp_path / ".granum", 1234, 1235)
    with opened_quarantine(str(tmp_path)) as found:
        found.restore("d/f")
    logs = tmp_path / ".granum" / "digests"
    assert [(each.stat().st_uid, each.stat().st_gid) for each in (logs, *logs.iterdir())] == [(1234, 1235)] * 2


@pytest.mark.parametrize("name", [b"caf\xe9", b"back\\slash", b"__own"])
def test_what_could_not_be_asked_for_before_is_not_listed_now(store: Store, tmp_path: Path, name: bytes) -> None:
    """A reader would refuse the whole listing for one such name."""
    file = os.path.join(os.fsencode(tmp_path), name)
    with open(file, "wb") as made:
        made.write(b"by hand")
    before = store.listing(ROOT).body
    assert store.quarantine.take(os.fsdecode(name), "damaged", None, None, os.stat(file).st_ino, 7)
    assert store.listing(ROOT).body == before == b'{"d/":[1,1]}'
