"""Spooled files: bodies that are still arriving, and how they get their name.

A spooled file has no visible name. Where the file system can (O_TMPFILE) it has no name at all, so a killed node leaves
nothing behind; elsewhere it has one in the hidden spool directory, which is emptied when the store is opened. Publishing
links it under its name exclusively: of several writers one wins, and nothing is ever replaced.
"""

import errno
import itertools
import os
from contextlib import suppress
from functools import partial

from granum.wire.digest import XXH3, Digest
from granum.wire.errors import AlreadyStored, StoreUnusable
from granum.wire.paths import ClusterPath
from granum_node.storage.digest import new_hasher, record
from granum_node.storage.tree import Tree, mapped

FILE_MODE = 0o440  # PYME's: a published file is never changed, not even by its owner
SPOOLED_MODE = 0o640  # an attribute is set by the rules of the file's mode, not of the descriptor's
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})  # says nothing of what the file system can do
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})
_numbers = itertools.count()


class SpooledFile:
    """A body on its way into the store: written in pieces, then published or discarded, exactly once."""

    __slots__ = ("_fd", "_hasher", "_name", "_records", "_spool", "recorded", "size")

    def __init__(self, spool: int, *, named: bool, hashed: bool = False, records: bool = False) -> None:
        """Make an empty file in the directory *spool*; *named* where the file system has no unnamed ones.

        When it is *hashed*, its digest is computed as it is written; when it *records*, `seal` keeps it beside the file.
        """
        self._spool = spool
        self._name = ""
        self._hasher = new_hasher(XXH3) if hashed or records else None
        self._records = records
        self.recorded: Digest | None = None  # what `seal` has put beside the file
        mode = SPOOLED_MODE if records else FILE_MODE
        self.size = 0
        if named:
            self._name = f"{os.getpid()}-{next(_numbers)}"
            self._fd = os.open(self._name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=spool)
        else:
            self._fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=spool)

    def write(self, piece: bytes | memoryview) -> None:
        """Append *piece* whole; raise OSError when the disk cannot take it."""
        if self._hasher is not None:
            self._hasher.update(piece)
        written = os.write(self._fd, piece)
        self.size += written
        rest = memoryview(piece)[written:]
        while rest:
            written = os.write(self._fd, rest)
            self.size += written
            rest = rest[written:]

    @property
    def digest(self) -> Digest | None:
        """The digest of what was written; None when it was not to be hashed."""
        return None if self._hasher is None else Digest(XXH3, self._hasher.hexdigest())

    def seal(self) -> None:
        """Keep the digest beside the file, if that is asked for; to be called when it is whole, before it is synced or named.

        Raises OSError when the disk cannot take it.
        """
        digest = self.digest
        if self._records and digest is not None:
            record(self._fd, digest)
            self.recorded = digest
            os.fchmod(self._fd, os.fstat(self._fd).st_mode & FILE_MODE)  # less the umask, which the kernel has applied

    def sync(self) -> None:
        """Have the disk write what was spooled; raise OSError when it cannot. May take long."""
        os.fdatasync(self._fd)

    def publish(self, tree: Tree, path: ClusterPath) -> None:
        """Give the file the name *path* and let go of it; raise AlreadyStored when the name is taken."""
        try:
            with mapped(path, below=True):
                self.seal()
                directory = tree.make_directories(path.parent)
                try:
                    self.link_under(tree, directory, path)
                finally:
                    os.close(directory)
        finally:
            self.discard()

    def link_under(self, tree: Tree, directory: int, path: ClusterPath) -> None:
        """Give the file the name *path*, whose parent is open as *directory*; raise AlreadyStored when it is taken."""
        with mapped(path, below=True), tree.naming(path):
            try:
                tree.check_kept(path)
                tree.index.add(directory, path.name, self.size, partial(self.link, directory, path.name))
            except FileExistsError:
                raise AlreadyStored(f"{path} is already stored on this node") from None

    def link(self, directory: int, name: str) -> None:
        """Link the file as *name* in *directory*; raise FileExistsError when there is one."""
        if self._name:
            os.link(self._name, name, src_dir_fd=self._spool, dst_dir_fd=directory, follow_symlinks=False)
        else:
            # With a dir fd CPython calls linkat(AT_SYMLINK_FOLLOW); without, plain link(2), which cannot do this.
            os.link(f"/proc/self/fd/{self._fd}", name, dst_dir_fd=directory, follow_symlinks=True)

    def discard(self) -> None:
        """Let go of the file; what was not published is gone. May be called again."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        with suppress(OSError):  # it is closed whatever the disk says; what it must keep was synced before
            os.close(fd)
        if self._name:
            with suppress(OSError):  # what cannot be removed now is removed when the store is opened again
                os.unlink(self._name, dir_fd=self._spool)


def probe(spool: int) -> bool:
    """Return whether spooled files need a name on this file system; raise StoreUnusable when nothing atomic works."""
    try:
        _try_publishing(spool, named=False)
    except OSError as error:
        if error.errno in _NO_ROOM:  # unnamed files are known to it, and the node is needed to read
            return False
        if error.errno not in _NO_TMPFILE:
            raise StoreUnusable(f"the store's file system cannot publish a file: {error.strerror}") from error
    else:
        return False
    try:
        _try_publishing(spool, named=True)
    except OSError as error:
        if error.errno in _NO_ROOM:
            return True
        raise StoreUnusable(
            f"the store's file system has no hard links ({error.strerror}); use ext4, xfs, btrfs or another that has"
        ) from error
    return True


def keeps_attributes(spool: int, *, named: bool) -> bool:
    """Return whether a digest can be kept beside a file on this file system."""
    try:
        file = SpooledFile(spool, named=named, records=True)
        try:
            file.seal()
        finally:
            file.discard()
    except OSError as error:
        return error.errno in _NO_ROOM  # then it is taken to: what cannot be kept later is refused
    return True


def _try_publishing(spool: int, *, named: bool) -> None:
    file = SpooledFile(spool, named=named)
    try:
        file.link(spool, "probe")
        os.unlink("probe", dir_fd=spool)
    finally:
        file.discard()
