"""Reading everything in a store and comparing it with the digests recorded.

What was read before may still be in the machine's memory, where it does not rot, so each file is first dropped from there. A
file that is on its way has no name and is not met; a file without a digest was placed by hand or stored with digests off, and
nothing can be said of it. Sizes and times say nothing either: a damaged disk keeps both.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from granum.wire.digest import XXH3, Digest
from granum.wire.errors import StoreUnusable
from granum.wire.paths import HIDDEN_NAME
from granum_node.storage.digest import digest_of, recorded

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class State(Enum):
    """What became of a file."""

    GOOD = "good"
    DAMAGED = "damaged"
    WITHOUT = "no digest"
    UNREADABLE = "cannot be read"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One file, or a directory that cannot be read: its *name* below the root, and its *state*."""

    name: str
    state: State


def judge(known: Digest | None, found: Digest) -> State:
    """Return what a file is whose recorded digest is *known* and whose bytes have the digest *found*."""
    if known is None:
        return State.WITHOUT
    return State.GOOD if known == found else State.DAMAGED


def verify(root: str) -> Iterator[Verdict]:
    """Yield a verdict for every file of the store in the directory *root*, by their names; takes long.

    The store may be served meanwhile. Links and devices are passed over, and so is the node's own directory. Raises
    StoreUnusable when there is no such directory or it may not be read.
    """
    try:
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreUnusable(f"the store {root} cannot be read: {error.strerror}; is that its directory?") from error
    try:
        yield from _below(top, "")
    finally:
        os.close(top)


def _below(directory: int, prefix: str) -> Iterator[Verdict]:
    try:
        with os.scandir(directory) as found:
            entries = sorted((entry for entry in found if entry.name != HIDDEN_NAME), key=lambda entry: entry.name)
    except OSError:
        yield Verdict(prefix, State.UNREADABLE)
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _directory(directory, entry.name, f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield Verdict(prefix + entry.name, _state(directory, entry.name))
        except FileNotFoundError:  # removed behind the node's back since its name was read
            continue
        except OSError:
            yield Verdict(prefix + entry.name, State.UNREADABLE)


def _directory(parent: int, name: str, prefix: str) -> Iterator[Verdict]:
    directory = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=parent)
    try:
        yield from _below(directory, prefix)
    finally:
        os.close(directory)


def _state(directory: int, name: str) -> State:
    fd = os.open(name, _OPEN | os.O_NONBLOCK, dir_fd=directory)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        known = recorded(fd)
        state = judge(known, digest_of(fd, XXH3 if known is None else known.algorithm))
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # nor does what was read push out what others need
        return state
    finally:
        os.close(fd)
