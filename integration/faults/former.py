"""The version before this one, taken from the history of the repository: what nodes run when an upgrade of theirs begins."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from integration.faults.daemon import REPOSITORY, Program

# Until there is a release: a state of the main branch that wrote stores. Move it with each release.
FORMER = "1308a4ed3c971e04194781d951896fee026ddb30"
SOURCES = ("client/src", "node/src")


class NoHistory(Exception):
    """The repository does not have the version before this one; the text says why."""


def former(program: Program, directory: Path) -> Program:
    """Return *program* as it was before this version, unpacked below *directory*; raise NoHistory."""
    git = shutil.which("git")
    if git is None:
        raise NoHistory("git is not installed")
    archived = subprocess.run(
        [git, "archive", "--format=tar", FORMER, *SOURCES], cwd=REPOSITORY, capture_output=True, check=False
    )
    if archived.returncode:
        raise NoHistory(f"git archive: {archived.stderr.decode(errors='replace').strip()}")
    directory.mkdir(parents=True, exist_ok=True)
    # By tar, because the module of the first releases of Python 3.11 cannot unpack by the rules that later ones insist on.
    subprocess.run(["tar", "-x", "-C", str(directory)], input=archived.stdout, check=True)
    return replace(program, name=f"{program.name} of {FORMER[:8]}", modules=tuple(directory / name for name in SOURCES))
