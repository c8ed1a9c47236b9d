"""A listing shows what can be reached through the node, and nothing else."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from granum.wire.errors import NotAllowed, NotStored, StoreUnusable
from granum.wire.listing import decode_listing
from granum.wire.paths import ROOT, ClusterPath
from granum_node.storage import directory as directories
from granum_node.storage.tree import Tree, mapped
from node.tests.watching import open_files


def read_listing(tree: Tree, path: ClusterPath) -> dict[str, tuple[int, int]]:
    directory = tree.open_directory(path)
    try:
        with mapped(path):
            entries = decode_listing(tree.index.listing(directory, top=not path.parts).body)
    finally:
        os.close(directory)
    return {name: (int(entry.flags), entry.size) for name, entry in entries.items()}


@pytest.fixture
def listed(tmp_path: Path) -> Iterator[Callable[[str], dict[str, tuple[int, int]]]]:
    """List a directory below tmp_path as {name: (flags, size)}."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = open_files()

    def read(name: str = "") -> dict[str, tuple[int, int]]:
        return read_listing(Tree(fd), ClusterPath.parse(name))

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
    monkeypatch.setattr(directories, "is_listed", lambda name, *, top: _replace(tmp_path / "d"))
    assert listed("") == {"f": (0, 5)}


def _replace(directory: Path) -> bool:
    if directory.is_dir():
        directory.rmdir()
        directory.touch()
    return True


def test_a_directory_closed_to_the_node_is_listed(
    tmp_path: Path, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    monkeypatch.setattr(os, "open", _refuse)
    assert listed("") == {"d": (1, 0)}


def test_a_file_whose_status_cannot_be_had_is_the_nodes_fault_and_no_short_listing(
    tmp_path: Path, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed:
        """A directory entry of a directory that may be read and not be searched."""

        name = "f"

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            return False

        def is_file(self, *, follow_symlinks: bool) -> bool:
            return True

        def inode(self) -> int:
            return 7

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            return _refuse()

    monkeypatch.setattr(os, "scandir", lambda fd: nullcontext([Closed()]))
    with pytest.raises(NotAllowed):
        listed("")


def _refuse(*names: object, **where: object) -> NoReturn:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_disk_that_fails_is_the_nodes_fault_and_no_short_listing(
    tmp_path: Path, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()

    def fail(fd: int) -> list[str]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(StoreUnusable):
        listed("")
    monkeypatch.undo()


def test_the_root_is_listed() -> None:
    fd = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    assert "status" in read_listing(Tree(fd), ROOT)
    os.close(fd)
