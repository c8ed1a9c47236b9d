"""What others do to a store behind the node's back, and what is in it by a reading of their own."""

import os
from collections.abc import Callable
from pathlib import Path


def elsewhere(change: Callable[[], object], *changed: Path) -> None:
    """Make *change*, such that each of the directories *changed* has another ctime afterwards.

    On kernels before 6.13 a change may fall into the tick of the last one, which is another test's business.
    """
    before = {path: path.stat().st_ctime_ns for path in changed}
    change()
    for path, then in before.items():
        while path.is_dir() and path.stat().st_ctime_ns == then:
            os.utime(path)


def oracle(directory: Path) -> dict[str, list[int]]:
    """Return what a listing of *directory* must say, of files and directories with plain names."""
    listing = {}
    for name in os.listdir(directory):
        path = directory / name
        if path.is_symlink():
            continue
        if path.is_dir():
            held = os.listdir(path)
            flags = 1 + 2 * ("metadata.json" in held) + 4 * ("events.json" in held)
            listing[f"{name}/"] = [flags, len(held)]
        else:
            listing[name] = [0, path.stat().st_size]
    return listing
