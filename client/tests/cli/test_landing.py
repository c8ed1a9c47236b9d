"""A fetched file lies there whole or not at all."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from granum.cli.landing import landing


def land(target: Path, text: str, *, force: bool = False, then: Callable[[], object] = lambda: None) -> None:
    """Write *text*, do what is to happen *then*, and land."""
    with landing(str(target), force=force) as temporary:
        Path(temporary).write_text(text)
        then()


def raising(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


def test_the_file_appears_under_its_name_and_nothing_else(tmp_path: Path) -> None:
    land(tmp_path / "f", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"f": "new"}


def test_until_then_it_is_in_the_same_directory_under_another_name(tmp_path: Path) -> None:
    with landing(str(tmp_path / "f"), force=False) as temporary:
        assert os.path.dirname(temporary) == str(tmp_path)
        assert not (tmp_path / "f").exists()
        Path(temporary).touch()


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_error_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        land(tmp_path / "f", "half", then=raising(error))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    with pytest.raises(FileExistsError, match="exists already; --force replaces it"):
        land(tmp_path / "f", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"f": "old"}


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on file systems that have no hard links."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(FileExistsError):
        land(tmp_path / "f", "new", then=lambda: (tmp_path / "f").write_text("other"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"f": "other"}


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    land(tmp_path / "f", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"f": "new"}


def test_force_replaces(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    land(tmp_path / "f", "new", force=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"f": "new"}


def test_force_after_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        land(tmp_path / "f", "half", force=True, then=raising(OSError("disk full")))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"f": "old"}


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        land(tmp_path / "none" / "f", "new")
    assert caught.value.filename == str(tmp_path / "none")


def no_links(source: str, target: str) -> None:
    raise OSError(errno.EPERM, "Operation not permitted", source)
