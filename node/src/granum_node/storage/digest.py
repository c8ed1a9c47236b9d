"""The digest of a stored file: computed while it arrives, kept beside it as an extended attribute.

The attribute is set before the file has its name and never changed. A file that somebody placed in the store by hand has none,
and a file system may be unable to keep any: such files are served without. What a digest is for, nothing here knows.
"""

import errno
import hashlib
import os
from collections.abc import Callable
from typing import Protocol

import xxhash

from granum.wire.digest import SHA256, XXH3, Digest, parse_digest

ATTRIBUTE = "user.granum.digest"
READ_BYTES = 1 << 20  # at a time, of a file that is hashed; the largest piece in memory

_NONE_RECORDED = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


class Hasher(Protocol):
    """What is fed bytes and says their digest."""

    def update(self, piece: bytes | memoryview, /) -> object:
        """Take *piece*, which follows what came before."""

    def hexdigest(self) -> str:
        """Return the digest of all that came."""


def new_hasher(algorithm: str) -> Hasher:
    """Return an empty hasher of *algorithm*, one of those that a `Digest` may name."""
    return xxhash.xxh3_128() if algorithm == XXH3 else hashlib.sha256()


def record(fd: int, digest: Digest) -> None:
    """Keep *digest* with the file *fd*, which its owner may still write; raise OSError where that cannot be."""
    os.setxattr(fd, ATTRIBUTE, str(digest).encode())


def recorded(fd: int) -> Digest | None:
    """Return the digest kept with the file *fd*; None when there is none that can be read."""
    try:
        text = os.getxattr(fd, ATTRIBUTE)
    except OSError as error:
        if error.errno in _NONE_RECORDED:
            return None
        raise
    return parse_digest(text.decode("ascii", "replace"))


def digest_of(fd: int, algorithm: str = XXH3, pace: Callable[[int], None] = lambda _: None) -> Digest:
    """Return the digest of the bytes in the file *fd*, read from its beginning; takes as long as the disk does.

    *pace* is told the size of each piece that was read, and may wait.
    """
    hasher = new_hasher(algorithm)
    at = 0
    while piece := os.pread(fd, READ_BYTES, at):
        hasher.update(piece)
        at += len(piece)
        pace(len(piece))
    return Digest(algorithm, hasher.hexdigest())


def is_same(fd: int, digests: tuple[Digest, ...]) -> bool:
    """Whether the file *fd* has all *digests*: by the recorded one where it can tell, else by reading the file."""
    known = recorded(fd)
    return all(
        digest
        == (known if known is not None and known.algorithm == digest.algorithm else digest_of(fd, digest.algorithm))
        for digest in digests
    )


__all__ = ["ATTRIBUTE", "SHA256", "XXH3", "Hasher", "digest_of", "is_same", "new_hasher", "record", "recorded"]
