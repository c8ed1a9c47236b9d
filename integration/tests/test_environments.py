"""The environments below build/ are made once, and again when they should be others."""

import subprocess
from pathlib import Path

import pytest

from tools.environments import NotMade, environment, is_made


def test_an_environment_is_made_once(tmp_path: Path) -> None:
    """What lies in it the second time was not made again."""
    commands = environment(tmp_path / "peer", "one", [])
    subprocess.run((str(commands / "python"), "-c", "import json"), check=True)
    (commands / "kept").touch()
    assert environment(tmp_path / "peer", "one", []) == commands
    assert (commands / "kept").exists()


def test_what_is_made_from_something_else_is_made_anew(tmp_path: Path) -> None:
    """A new pin must not meet the packages of the old one."""
    commands = environment(tmp_path / "peer", "one", [])
    (commands / "kept").touch()
    environment(tmp_path / "peer", "two", [])
    assert not (commands / "kept").exists()
    assert is_made(tmp_path / "peer", "two")
    assert not is_made(tmp_path / "peer", "one")


def test_an_environment_that_could_not_be_filled_is_not_taken_for_one(tmp_path: Path) -> None:
    """The next run makes it again."""
    with pytest.raises(NotMade, match="failed; the reason stands above"):
        environment(tmp_path / "peer", "one", [("--no-index", "there-is-no-such-package")])
    assert not is_made(tmp_path / "peer", "one")


def test_what_cannot_be_imported_is_not_made(tmp_path: Path) -> None:
    """Installed is not enough: the next run tries again."""
    with pytest.raises(NotMade):
        environment(tmp_path / "peer", "one", [], imports="there_is_no_such_module")
    assert not is_made(tmp_path / "peer", "one")
