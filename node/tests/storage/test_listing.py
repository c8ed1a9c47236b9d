"""A listing shows what can be reached through the node, and nothing else."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from granum.wire.errors import NotStored, StoreUnusable
from granum.wire.listing import Entry, Flags
from granum.wire.paths import ROOT, ClusterPath
from granum_node.storage import listing as listings
from granum_node.storage.listing import read_listing
from granum_node.storage.tree import Tree
from node.tests.watching import open_files


@pytest.fixture
def listed(tmp_path: Path) -> Iterator[Callable[[str], dict[str, tuple[int, int]]]]:
    """List a directory below tmp_path as {name: (flags, size)}."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = open_files()

    def read(name: str = "") -> dict[str, tuple[int, int]]:
        return {entry.name: (int(entry.flags), entry.size) for entry in read_listing(Tree(fd), ClusterPath.parse(name))}

    yield read
    assert open_files() == before, "a descriptor was left open"
    os.close(fd)


Listed = Callable[[str], dict[str, tuple[int, int]]]


def test_files_have_their_size_and_directories_their_number_of_names(tmp_path: Path, listed: Listed) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    (tmp_path / "d" / "below").mkdir(parents=True)
    (tmp_path / "d" / "x").touch()
    (tmp_path / "empty").mkdir()
    assert listed("") == {"f": (0, 5), "d": (1, 2), "empty": (1, 0)}
    assert listed("d") == {"below": (1, 0), "x": (0, 0)}


def test_a_directory_says_whether_it_is_a_series(tmp_path: Path, listed: Listed) -> None:
    for name, held in {
        "series": ["metadata.json"],
        "whole": ["metadata.json", "events.json"],
        "e": ["events.json"],
    }.items():
        (tmp_path / name).mkdir()
        for file in held:
            (tmp_path / name / file).touch()
    assert listed("") == {"series": (3, 1), "whole": (7, 2), "e": (5, 1)}


def test_what_cannot_be_reached_is_not_listed(tmp_path: Path, listed: Listed) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "link-to-directory").symlink_to("/")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / ".granum").mkdir()
    (tmp_path / "__status").touch()
    for name in (b"\xff\xfe", b"line\nfeed", b"tab\t", b"del\x7f", b"back\\slash", "\u2028".encode()):
        (tmp_path / os.fsdecode(name)).touch()
    assert listed("") == {"f": (0, 0)}


def test_reserved_names_are_ordinary_below_the_top_and_the_hidden_one_is_not(tmp_path: Path, listed: Listed) -> None:
    (tmp_path / "d" / ".granum").mkdir(parents=True)
    (tmp_path / "d" / "__x").touch()
    (tmp_path / "d" / ".dot").touch()
    assert listed("d") == {"__x": (0, 0), ".dot": (0, 0)}
    assert listed("") == {"d": (1, 2)}


def test_names_of_other_languages_are_listed(tmp_path: Path, listed: Listed) -> None:
    (tmp_path / "größe 细胞").touch()
    assert listed("") == {"größe 细胞": (0, 0)}


@pytest.mark.parametrize("name", ["missing", "f", "link", "f/x"])
def test_what_is_no_directory_has_no_listing(tmp_path: Path, listed: Listed, name: str) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(NotStored):
        listed(name)


def test_a_directory_replaced_by_a_file_while_it_is_listed_is_left_out(
    tmp_path: Path, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    (tmp_path / "d").mkdir()
    monkeypatch.setattr(listings, "_is_listed", lambda name, *, top: _replace(tmp_path / "d"))
    assert listed("") == {"f": (0, 5)}


def _replace(directory: Path) -> bool:
    if directory.is_dir():
        directory.rmdir()
        directory.touch()
    return True


def test_a_directory_closed_to_the_node_is_listed_and_a_file_it_cannot_see_is_not() -> None:
    """A file must never be taken for a directory because its status cannot be had."""

    class Closed:
        def __init__(self, name: str, *, directory: bool) -> None:
            self.name = name
            self._directory = directory

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            return self._directory

        def is_file(self, *, follow_symlinks: bool) -> bool:
            return not self._directory

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            raise PermissionError(errno.EACCES, "Permission denied")

    def refuse(*names: object, **where: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert listings._entry(Closed("d", directory=True), 0) == Entry("d", Flags.DIRECTORY, 0)  # type: ignore[arg-type]
        with pytest.raises(PermissionError):
            listings._entry(Closed("f", directory=False), 0)  # type: ignore[arg-type]


def test_a_disk_that_fails_is_the_nodes_fault_and_no_short_listing(
    tmp_path: Path, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()

    def fail(fd: int) -> list[str]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(listings.os, "listdir", fail)
    with pytest.raises(StoreUnusable):
        listed("")
    monkeypatch.undo()


def test_the_root_is_listed() -> None:
    fd = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    assert "status" in {entry.name for entry in read_listing(Tree(fd), ROOT)}
    os.close(fd)
