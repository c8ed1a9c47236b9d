"""The version before this one is what runs when it is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from integration.faults import former
from integration.faults.daemon import Program


def test_the_former_node_runs_its_own_modules(tmp_path: Path) -> None:
    try:
        program = former.former(Program("node", ("-m", "granum_node")), tmp_path)
    except former.NoHistory as error:
        pytest.skip(str(error))
    where = subprocess.run(
        [sys.executable, "-c", "import granum, granum_node; print(granum.__file__, granum_node.__file__)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, program.modules))},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert all(Path(file).is_relative_to(tmp_path) for file in where)


def test_a_history_without_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(former, "FORMER", "0" * 40)
    with pytest.raises(former.NoHistory, match="git archive"):
        former.former(Program("node", ()), tmp_path)
