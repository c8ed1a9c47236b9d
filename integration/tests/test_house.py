"""Lock, neutrality and bootstrap: what each check refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools import bootstrap, check_lock, check_neutral

HASH = "--hash=sha256:" + "0" * 64
PINNED = f"twisted==26.4.0 \\\n    {HASH}\n"


def test_a_lock_that_pins_what_is_asked_for_passes() -> None:
    """Comments and markers of other systems do not matter, nor how a name is spelt."""
    lock = f"# made\n{PINNED}colorama==0.4 ; sys_platform == 'win32' \\\n    {HASH}\n"
    assert list(check_lock.complaints([Requirement("Twisted>=26.4"), Requirement("x; python_version<'3'")], lock)) == []


@pytest.mark.parametrize(
    ("wanted", "lock", "complaint"),
    [
        ("treq", PINNED, "asks for treq, and for Python 3.11 the lock has nothing"),
        ("twisted>=26.10", PINNED, "asks for twisted>=26.10, and for Python 3.11 the lock has 26.4.0"),
        ("numpy", f"numpy==2.5 ; python_version >= '3.12' \\\n {HASH}\n", "for Python 3.11 the lock has nothing"),
        ("twisted", "twisted==26.4.0\n", "has no hash"),
        ("twisted", f"twisted>=26.4.0 \\\n {HASH}\n", "no exact version"),
        ("twisted", PINNED + "--index-url x\n", "is an option or an address"),
        ("twisted", PINNED + f"treq @ https://example.org/treq.whl \\\n {HASH}\n", "is an option or an address"),
    ],
)
def test_a_lock_that_is_behind_or_open_is_refused(wanted: str, lock: str, complaint: str) -> None:
    """`make check` says what is missing, without the network."""
    assert any(complaint in problem for problem in check_lock.complaints([Requirement(wanted)], lock))


@pytest.mark.parametrize(
    "line",
    ["see https://py" + "pi.org/simple", "deb http://deb.deb" + "ian.org/x", "cd /wo" + "rk/main", "'/ro" + "ot/.x'"],
)
def test_a_line_that_names_a_build_place_is_refused(line: str) -> None:
    """With its file, its line and the name."""
    problems = list(check_neutral.complaints("a.md", f"fine\n{line}\n"))
    assert len(problems) == 1
    assert problems[0].startswith("a.md:2 names ")


@pytest.mark.parametrize(
    "line", ["a Debian 12 machine", "pip install granum", "granum:///work/x.pzf", "$HOME/work/x", "~/root/", "network/"]
)
def test_a_line_that_names_none_passes(line: str) -> None:
    """Cluster paths and a reader's own directories are not build machines."""
    assert list(check_neutral.complaints("a.md", line)) == []


def test_the_first_source_that_has_a_pip_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """ensurepip, an installed pip, the system's wheel, Debian's archive: the later ones are not even asked."""
    monkeypatch.setattr(bootstrap, "pip_of_ensurepip", lambda scratch: None)
    monkeypatch.setattr(bootstrap, "pip_of_interpreter", lambda scratch: ["pip", "--python", "x"])
    monkeypatch.setattr(bootstrap, "pip_of_system_wheel", pytest.fail)
    assert bootstrap.find_pip("scratch") == ["pip", "--python", "x"]


def test_a_machine_without_any_pip_gets_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence that says what to install."""
    for source in ("pip_of_ensurepip", "pip_of_interpreter", "pip_of_system_wheel", "pip_of_debian_archive"):
        monkeypatch.setattr(bootstrap, source, lambda scratch: None)
    with pytest.raises(bootstrap.SetupFailed, match="apt-get install python3-venv"):
        bootstrap.find_pip("scratch")


def test_a_wheel_of_pip_is_run_as_it_lies(tmp_path: Path) -> None:
    """Python imports from the wheel; nothing is unpacked or installed for it."""
    wheels = tmp_path / "usr" / "share" / "python-wheels"
    wheels.mkdir(parents=True)
    (wheels / "pip-23.0.1-py3-none-any.whl").touch()
    assert bootstrap.pip_of_wheel_below(str(tmp_path)) == [
        bootstrap.VENV_PYTHON,
        str(wheels / "pip-23.0.1-py3-none-any.whl" / "pip"),
    ]


def test_a_fresh_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the stamps say is made is not made again; what a new pyproject.toml changes is only the editable install."""
    made: list[str] = []
    for name in ("ENVIRONMENT_STAMP", "PROJECT_STAMP", "LOCK", "PYPROJECT"):
        monkeypatch.setattr(bootstrap, name, str(tmp_path / name))
    (tmp_path / "LOCK").write_text("lock 1")
    (tmp_path / "PYPROJECT").write_text("project 1")
    monkeypatch.setattr(bootstrap, "make_environment", lambda: made.append("environment"))
    monkeypatch.setattr(bootstrap, "install_project", lambda: made.append("project"))
    for change in ("", "", "PYPROJECT", "LOCK"):
        if change:
            (tmp_path / change).write_text("2")
        bootstrap.bring_up_to_date()
        made.append("|")
    assert made == ["environment", "project", "|", "|", "project", "|", "environment", "project", "|"]


def test_the_bootstrap_needs_nothing_but_the_interpreter() -> None:
    """It is imported with site packages switched off, as on a machine that has none."""
    command = (
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import runpy; runpy.run_path({bootstrap.__file__!r}, run_name='imported')",
    )
    assert subprocess.run(command, check=False, env={"PATH": os.defpath}).returncode == 0
