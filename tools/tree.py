"""The files of this repository, as git sees them: committed ones and new ones, ignored ones left out."""

import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def files(suffix: str = "") -> list[str]:
    """Paths relative to the root, sorted, of the files whose name ends in *suffix*."""
    # A checkout that belongs to somebody else is still the checkout to look at; nothing of it is executed by listing it.
    command = ("git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode()
    names = set(listed.split("\0")) - {""}
    return sorted(name for name in names if name.endswith(suffix) and os.path.isfile(os.path.join(ROOT, name)))
