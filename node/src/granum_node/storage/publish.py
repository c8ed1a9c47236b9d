"""Publishing: how a spooled file gets its name. What every publisher does, and the one that links and is done.

`Relaxed` syncs nothing: what it published survives the end of the process, not a power failure, unless a keeper has synced it
since; `commit` has the one whose receipts survive that too. Neither knows HTTP or the reactor.
"""

import os
from collections.abc import Callable
from typing import Protocol

from granum.wire.errors import GranumError, NodeBusy
from granum.wire.paths import ClusterPath
from granum_node.storage.spool import SpooledFile
from granum_node.storage.tree import Tree

Done = Callable[[Exception | None], None]


class Publisher(Protocol):
    """Publishes spooled files and makes directories; *done* gets None, or why not."""

    durability: str

    @property
    def failure(self) -> GranumError | None:
        """Why nothing can be written any more; None while it can."""

    @property
    def pending(self) -> int:
        """How many puts have not been told their outcome."""

    def publish(self, file: SpooledFile, path: ClusterPath, done: Done) -> None:
        """Give *file* the name *path*; let go of it whatever comes."""

    def make_directory(self, path: ClusterPath, done: Done) -> None:
        """Make the directory *path* and its parents; it is refused when the name is taken."""

    def confirm(self, path: ClusterPath, done: Done) -> None:
        """Make the stored file *path* as durable as one that was just published."""

    @property
    def answers(self) -> int:
        """How many outcomes and probes were answered so far: while it grows, those who publish live."""

    def probe(self) -> None:
        """Ask for one more answer."""

    def start(self, in_thread: Callable[[Callable[[], None]], object]) -> None:
        """Begin; *in_thread* runs a call in a thread of its own, for as long as it takes."""

    def close(self) -> None:
        """Take nothing more; what was taken is finished."""


class Relaxed:
    """Publishes at once, and syncs nothing."""

    durability = "relaxed"
    failure: GranumError | None = None
    pending = 0
    answers = 0

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def probe(self) -> None:
        """Answer at once: who asks is who publishes."""
        self.answers += 1

    def fail(self, error: OSError) -> None:
        """Stop writing for good: what was published could not be synced. May be called in any thread."""
        self.failure = disk_failed(error)

    def publish(self, file: SpooledFile, path: ClusterPath, done: Done) -> None:
        """Link *file* as *path*."""
        if self.failure is not None:
            file.discard()
            done(self.failure)
            return
        done(outcome_of(lambda: file.publish(self._tree, path)))

    def make_directory(self, path: ClusterPath, done: Done) -> None:
        """Make the directory *path*."""
        done(outcome_of(lambda: self._tree.make_new_directory(path)))

    def confirm(self, path: ClusterPath, done: Done) -> None:  # noqa: ARG002
        """Do nothing: the file is there."""
        done(None)

    def start(self, in_thread: Callable[[Callable[[], None]], object]) -> None:
        """Do nothing: no thread is needed."""

    def close(self) -> None:
        """Do nothing: nothing is under way."""


def disk_failed(error: OSError) -> GranumError:
    """Return what answers every write after a sync that failed with *error*."""
    return NodeBusy(
        f"the node takes no more writes, because its disk failed: {os.strerror(error.errno or 0)}; "
        "reading goes on; its log and its disk need a look"
    )


def outcome_of(work: Callable[[], None]) -> Exception | None:
    """Do *work* and return what it raised, if anything."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - a thread must go on, and every put has an answer, logged where it is made
        return error
    return None
