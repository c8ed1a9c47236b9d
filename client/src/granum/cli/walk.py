"""Walking: every directory at and below a place with its view, in the order of names, parents before their children.

The directories that come next are asked for while the caller looks at this one, several at a time. What is held is bounded:
a walk over a million files keeps the views of a few directories, and the names of directories still to come.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from granum.cli.session import Session
from granum.wire.errors import GranumError, Partial
from granum.wire.paths import ClusterPath

if TYPE_CHECKING:
    from granum.union import UnionView

AHEAD_MAX = 8  # directories asked for; each node is asked four questions at a time
AHEAD_NAMES_MAX = 100_000  # in the views that wait to be looked at: some 30 MB

Asked: TypeAlias = "Future[UnionView]"


@dataclass(slots=True, eq=False)
class _Directory:
    path: ClusterPath
    names: int = 0  # how many it holds, as its parent's listing has it
    view: "Future[UnionView] | None" = None


def walk(session: Session, top: ClusterPath) -> Iterator[tuple[ClusterPath, "UnionView"]]:
    """Yield (path, view) for *top* and every directory below it; nodes that do not answer are noted in the account.

    Raises what listing *top* does: NotStored, NotADirectory, Partial. Another directory that cannot be listed is reported.
    """
    cluster = session.on_reactor()
    for path, asked in asking_ahead(lambda path: session.submit(lambda: cluster.listdir(path)), top):
        try:
            view = asked.result()
        except Partial as error:  # its only holder died on the way
            if path == top:
                raise
            session.missing(error.causes)
        except GranumError as error:
            if path == top:
                raise
            session.failed(str(path), error)
        else:
            session.missing(view.missing)
            yield path, view


def asking_ahead(ask: Callable[[ClusterPath], Asked], top: ClusterPath) -> Iterator[tuple[ClusterPath, Asked]]:
    """Yield every directory, *top* first, with what *ask* returned for it, which has a result or an error by then.

    Below a directory with an error nothing is looked for. When the caller stops early, what was asked for is cancelled.
    """
    waiting = [_Directory(top)]  # the next at the end
    asked: list[_Directory] = []  # those of them that were asked for
    try:
        while waiting:
            _ask_for_next(ask, waiting, asked)
            directory = waiting.pop()
            asked.remove(directory)
            assert directory.view is not None
            failed = directory.view.exception() is not None  # waits for it
            yield directory.path, directory.view
            if not failed:
                view = directory.view.result()
                below = [(name, entry.size) for name, entry in view.items() if entry.is_directory]
                waiting += [_Directory(directory.path / name, max(size, 0)) for name, size in reversed(below)]
    finally:
        for directory in asked:
            if directory.view is not None:
                directory.view.cancel()


def _ask_for_next(ask: Callable[[ClusterPath], Asked], waiting: list[_Directory], asked: list[_Directory]) -> None:
    """Ask for the next of *waiting*, and for those after it as far as what is held allows; add them to *asked*."""
    held = sum(directory.names for directory in asked)
    for directory in waiting[: -1 - AHEAD_MAX : -1]:
        has_room = len(asked) < AHEAD_MAX and held + directory.names <= AHEAD_NAMES_MAX
        if directory.view is None and (has_room or directory is waiting[-1]):
            directory.view = ask(directory.path)
            asked.append(directory)
            held += directory.names
