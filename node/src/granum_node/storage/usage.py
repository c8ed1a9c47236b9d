"""Measuring what a directory at the top of the store holds: a walk over everything in it, which may take minutes.

What vanishes, or cannot be read, during the walk counts nothing; links are not followed and other file systems not entered
differently, since a store lies on one.
"""

import os
import stat
from contextlib import suppress

from granum.wire.errors import GranumError
from granum.wire.paths import ClusterPath
from granum_node.storage.tree import Tree


def measure(tree: Tree, name: str) -> tuple[int, int]:
    """Return bytes and number of all files below the directory *name* at the top of *tree*; 0 when there is none. Blocks."""
    try:
        top = tree.open_directory(ClusterPath.of([name]))
    except GranumError:
        return 0, 0
    total = files = 0
    try:
        for _, _, names, directory in os.fwalk(".", dir_fd=top):
            for each in names:
                with suppress(OSError):
                    status = os.stat(each, dir_fd=directory, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        total += status.st_size
                        files += 1
    finally:
        os.close(top)
    return total, files
