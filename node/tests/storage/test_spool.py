"""Spooled files get their name exclusively and whole, or leave nothing, with and without a name in the spool."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from granum.wire.errors import AlreadyStored, NotADirectory, StoreUnusable
from granum.wire.paths import ClusterPath
from granum_node.storage import spool as spools
from granum_node.storage.spool import SpooledFile, keeps_attributes, probe
from granum_node.storage.tree import Tree
from node.tests.watching import open_files


class Place:
    """A root and a spool beside it; *named* as the file system were without unnamed files."""

    def __init__(self, directory: Path, *, named: bool) -> None:
        self.root, self.spool = directory / "root", directory / "spool"
        self.named = named
        for made in (self.root, self.spool):
            made.mkdir()
        self.fds = [os.open(made, os.O_RDONLY | os.O_DIRECTORY) for made in (self.root, self.spool)]
        self.tree = Tree(self.fds[0])

    def file(self, *pieces: bytes) -> SpooledFile:
        spooled = SpooledFile(self.fds[1], named=self.named)
        for piece in pieces:
            spooled.write(piece)
        return spooled


@pytest.fixture(params=[False, True], ids=["unnamed", "named"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    before = open_files()
    made = Place(tmp_path, named=request.param)
    yield made
    for fd in made.fds:
        os.close(fd)
    assert os.listdir(made.spool) == [], "something was left in the spool"
    assert open_files() == before, "a descriptor was left open"


def path(text: str) -> ClusterPath:
    return ClusterPath.parse(text)


def test_a_published_file_is_whole_read_only_and_has_one_name(place: Place) -> None:
    spooled = place.file(b"hel", b"", b"lo")
    assert os.listdir(place.root) == []
    spooled.publish(place.tree, path("a/b/f"))
    status = (place.root / "a" / "b" / "f").stat()
    assert (place.root / "a" / "b" / "f").read_bytes() == b"hello"
    assert (oct(status.st_mode), status.st_nlink, spooled.size) == ("0o100440", 1, 5)


def test_a_discarded_file_is_gone(place: Place) -> None:
    spooled = place.file(b"hello")
    spooled.discard()
    spooled.discard()
    assert os.listdir(place.root) == []


def test_an_empty_file_is_published(place: Place) -> None:
    place.file().publish(place.tree, path("f"))
    assert (place.root / "f").read_bytes() == b""


@pytest.mark.parametrize("taken", ["file", "directory", "link", "dangling"])
def test_a_taken_name_is_never_replaced(place: Place, taken: str) -> None:
    outside = place.root.parent / "outside"
    outside.write_bytes(b"outside")
    at = place.root / "f"
    match taken:
        case "file":
            at.write_bytes(b"first")
        case "directory":
            at.mkdir()
        case "link":
            at.symlink_to(outside)
        case "dangling":
            at.symlink_to(place.root.parent / "nowhere")
    before = at.lstat()
    with pytest.raises(AlreadyStored):
        place.file(b"second").publish(place.tree, path("f"))
    assert at.lstat().st_ino == before.st_ino
    assert outside.read_bytes() == b"outside"
    assert not (place.root.parent / "nowhere").exists()


def test_a_file_below_a_file_or_a_link_is_refused(place: Place) -> None:
    (place.root / "f").write_bytes(b"first")
    (place.root / "link").symlink_to(place.spool)
    for name in ("f/x", "f/x/y", "link/x"):
        with pytest.raises(NotADirectory):
            place.file(b"second").publish(place.tree, path(name))


def test_of_64_threads_that_publish_one_name_exactly_one_wins(place: Place) -> None:
    together = threading.Barrier(64)
    won: list[int] = []
    lost: list[int] = []

    def publish(number: int) -> None:
        spooled = place.file(b"%02d" % number * 1000)
        together.wait()
        try:
            spooled.publish(place.tree, path("d/f"))
        except AlreadyStored:
            lost.append(number)
        else:
            won.append(number)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 63)
    assert (place.root / "d" / "f").read_bytes() == b"%02d" % won[0] * 1000


def test_a_short_write_is_continued(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    spooled = place.file()
    monkeypatch.setattr(os, "write", lambda fd, piece: write(fd, bytes(piece)[:3]))
    spooled.write(b"hello world")
    monkeypatch.undo()
    spooled.publish(place.tree, path("f"))
    assert (place.root / "f").read_bytes() == b"hello world"


def test_a_spool_on_another_file_system_cannot_publish(place: Place) -> None:
    """Said as a fault of the store, not as a name that does not exist."""
    memory = "/dev/shm"
    if not os.path.isdir(memory) or os.stat(memory).st_dev == os.stat(place.root).st_dev:
        pytest.skip("no second file system here")
    fd = os.open(memory, os.O_RDONLY | os.O_DIRECTORY)
    spooled = SpooledFile(fd, named=place.named)
    with pytest.raises(StoreUnusable):
        spooled.publish(place.tree, path("f"))
    os.close(fd)


def test_the_probe_finds_unnamed_files_where_there_are_some(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    assert probe(fd) is False
    assert os.listdir(tmp_path) == []
    os.close(fd)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_the_probe_falls_back_to_named_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    opened = os.open

    def without_unnamed(name: str, flags: int, *more: int, **where: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return opened(name, flags, *more, **where)

    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    monkeypatch.setattr(os, "open", without_unnamed)
    assert probe(fd) is True
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []
    os.close(fd)


def test_a_file_system_without_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*names: str, **where: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    monkeypatch.setattr(os, "link", no_link)
    with pytest.raises(StoreUnusable, match="has no hard links"):
        probe(fd)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []
    os.close(fd)


def test_a_spool_name_that_cannot_be_removed_does_not_hide_the_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is published; its second name goes when the store is opened again."""
    place = Place(tmp_path, named=True)
    spooled = place.file(b"hello")

    def refuse(*names: str, **where: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(spools.os, "unlink", refuse)
    spooled.publish(place.tree, path("f"))
    monkeypatch.undo()
    assert (place.root / "f").read_bytes() == b"hello"
    for fd in place.fds:
        os.close(fd)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_without_room_says_nothing_of_what_its_file_system_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Else a node that was killed on a full disk could not be started to read from it."""
    real = os.open

    def full(path: str, flags: int, *rest: int, **options: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE or flags & os.O_CREAT:
            raise OSError(number, "no room")
        return real(path, flags, *rest, **options)

    spool = real(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(os, "open", full)
    found = (probe(spool), keeps_attributes(spool, named=False))
    os.close(spool)
    assert found == (False, True)


def test_a_disk_that_complains_when_a_file_is_let_go_does_not_end_who_lets_go(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that ended here would leave all that is put into the same directory without an answer, for ever."""
    file = place.file(b"hello")
    real = os.close

    def complain(fd: int) -> None:
        real(fd)
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as failing:
        failing.setattr(os, "close", complain)
        file.discard()
