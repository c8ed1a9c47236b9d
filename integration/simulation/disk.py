"""What a power failure does to a disk.

The stores of a simulation are real directories. What is written to them is there at once, as in a page cache; which of it a
disk would have is noted by watching the calls that make it so: fdatasync(2) or fsync(2) for the bytes of a file, fsync(2) on a
directory for its names. When power fails, each name that was never synced is taken away with even chances, and each file whose
bytes were not is torn. Names and bytes that were synced stay.
"""

import os
import random
import shutil
import stat
from collections.abc import Callable
from typing import Any


class Disk:
    """Watches the calls of this process; *error* may be set to make every sync fail with that number, as a dead disk does."""

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}  # directory -> errno of syncs below it
        self._names: list[tuple[str, str]] = []  # directory and name: in the cache only
        self._unsynced: dict[int, str] = {}  # by inode, files that have a name, and bytes in the cache only
        self._synced: set[int] = set()  # inodes of files whose bytes are on the disk

    def watch(self) -> None:
        """Put the watch into `os`, for the life of this process."""
        link, mkdir, fsync, fdatasync = os.link, os.mkdir, os.fsync, os.fdatasync

        def linking(source: Any, target: Any, *, dst_dir_fd: int | None = None, **more: Any) -> None:
            link(source, target, dst_dir_fd=dst_dir_fd, **more)
            self._named(target, dst_dir_fd)

        def making(name: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            mkdir(name, mode, dir_fd=dir_fd)
            self._named(name, dir_fd)

        def syncing(sync: Callable[[int], None]) -> Callable[[int], None]:
            def synced(fd: int) -> None:
                self._fail_if_dead(fd)
                sync(fd)
                self._note_sync(fd)

            return synced

        os.link, os.mkdir = linking, making  # type: ignore[assignment]
        os.fsync, os.fdatasync = syncing(fsync), syncing(fdatasync)  # type: ignore[assignment]

    def cut(self, root: str, chance: random.Random) -> None:
        """Leave of the store *root* what a power failure would."""
        inside = [entry for entry in self._names if entry[0] == root or entry[0].startswith(root + "/")]
        self._names = [entry for entry in self._names if entry not in inside]
        for directory, name in inside:
            path = os.path.join(directory, name)
            if chance.random() < 0.5:
                if os.path.isdir(path):
                    shutil.rmtree(path)
                elif os.path.lexists(path):
                    os.unlink(path)
        for inode, path in tuple(self._unsynced.items()):
            if path.startswith(root + "/"):
                del self._unsynced[inode]
                if os.path.isfile(path):
                    _tear(path, chance)

    def _named(self, name: str, directory: int | None) -> None:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if directory is not None:
            parent = os.readlink(f"/proc/self/fd/{directory}")
            self._names.append((parent, name))
            if stat.S_ISREG(status.st_mode) and status.st_ino not in self._synced:
                self._unsynced[status.st_ino] = os.path.join(parent, name)

    def _note_sync(self, fd: int) -> None:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            path = os.readlink(f"/proc/self/fd/{fd}")
            self._names = [entry for entry in self._names if entry[0] != path]
        else:
            self._synced.add(status.st_ino)
            self._unsynced.pop(status.st_ino, None)

    def _fail_if_dead(self, fd: int) -> None:
        if self.failing:
            path = os.readlink(f"/proc/self/fd/{fd}")
            for root, number in self.failing.items():
                if path.startswith(root):
                    raise OSError(number, os.strerror(number))


def _tear(path: str, chance: random.Random) -> None:
    size = os.path.getsize(path)
    os.chmod(path, 0o640)
    with open(path, "r+b") as file:
        file.truncate(chance.randrange(size + 1) if size else 0)
        file.truncate(size)  # with holes where bytes were, which is what journals leave of unwritten data
    os.chmod(path, 0o440)
