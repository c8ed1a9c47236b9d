"""Reading a directory of the store as a listing.

What cannot be reached through the node is not listed: links, devices and names that no cluster path can have. The size of a
directory is the number of names in it, found by reading it once; its flags follow from two of these names.
"""

import os

from granum.wire.errors import BadPath
from granum.wire.listing import Entry, Flags, flags_of_directory
from granum.wire.paths import HIDDEN_NAME, RESERVED_PREFIX, ClusterPath, check_name
from granum_node.storage.tree import Tree, mapped


def read_listing(tree: Tree, path: ClusterPath) -> list[Entry]:
    """Return the entries of the directory *path*, in no order; raise NotStored when there is none. May take long."""
    directory = tree.open_directory(path)
    try:
        with mapped(path), os.scandir(directory) as found:
            entries = [_entry(item, directory) for item in found if _is_listed(item.name, top=not path.parts)]
    finally:
        os.close(directory)
    return [entry for entry in entries if entry is not None]


def _is_listed(name: str, *, top: bool) -> bool:
    if name == HIDDEN_NAME or (top and name.startswith(RESERVED_PREFIX)):
        return False
    try:
        check_name(name)
    except BadPath:
        return False
    return True


def _entry(item: "os.DirEntry[str]", directory: int) -> Entry | None:
    try:
        if item.is_dir(follow_symlinks=False):
            return _subdirectory(item.name, directory)
        if item.is_file(follow_symlinks=False):
            return Entry(item.name, Flags.FILE, item.stat(follow_symlinks=False).st_size)
    except (FileNotFoundError, NotADirectoryError):  # changed behind the node's back since the name was read
        return None
    return None


def _subdirectory(name: str, directory: int) -> Entry:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:  # closed to the node: there, and nothing known of it
        return Entry(name, Flags.DIRECTORY, 0)
    try:
        names = [name for name in os.listdir(fd) if name != HIDDEN_NAME]
    finally:
        os.close(fd)
    return Entry(name, flags_of_directory(names), len(names))
