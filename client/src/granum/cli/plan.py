"""Plans: what goes where, decided before the first byte moves.

A plan is a list of copies, one for each file and each directory that must be made. What cannot be copied is reported to the
session and left out, so that the rest can go on.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from granum.cli.landing import check_free
from granum.cli.place import Place
from granum.cli.session import Session, error_text
from granum.wire.errors import GranumError
from granum.wire.paths import ClusterPath

if TYPE_CHECKING:
    from granum.roster import Node

Row = dict[str, Any]  # what JSON holds


@dataclass(frozen=True, slots=True)
class Copy:
    """One file to copy, of *size* bytes (0 when not known), from one of *nodes*; or a directory to make."""

    local: str
    path: ClusterPath
    size: int = 0
    is_directory: bool = False
    nodes: "tuple[Node, ...]" = ()


class Plan:
    """The copies of one command, and the *rows* that JSON tells about them: those that failed have an 'error'."""

    def __init__(self, session: Session) -> None:
        self.rows: list[Row] = []
        self._session = session

    def failed(self, local: str, path: ClusterPath | None, error: BaseException) -> None:
        """Report a copy that could not be made."""
        is_remote = path is not None and isinstance(error, GranumError)
        self._session.failed(str(path) if is_remote else local, error)
        self.rows.append({"local": local, "path": path and str(path), "error": error_text(error)})

    def to_put(self, sources: Sequence[str], path: ClusterPath, *, below: bool) -> list[Copy]:
        """Return what to store under *path*, or *below* it: all files of *sources* and those directories that are empty."""
        copies = []
        for source in sources:
            own = (os.path.basename(os.path.abspath(source)),) if below else ()
            for local, names, is_directory in self._local_tree(source):
                try:
                    there = ClusterPath.of((*path.parts, *own, *names))
                    copies.append(Copy(local, there, 0 if is_directory else os.stat(local).st_size, is_directory))
                except (GranumError, OSError) as error:
                    self.failed(local, None, error)
        return copies

    def to_get(self, places: Sequence[Place], target: str, *, below: bool, force: bool) -> list[Copy]:
        """Return what to fetch as *target*, or *below* it: all files of *places*, each directory before what lies in it.

        Nothing is fetched that exists locally, unless *force*.
        """
        copies = []
        for place in places:
            for copy in self._remote_tree(place.path, os.path.join(target, place.path.name) if below else target):
                try:
                    if not copy.is_directory:
                        check_free(copy.local, force=force)
                    copies.append(copy)
                except OSError as error:
                    self.failed(copy.local, copy.path, error)
        return copies

    def _local_tree(self, source: str) -> Iterator[tuple[str, tuple[str, ...], bool]]:
        """Yield (file or empty directory, its names below *source*, whether it is a directory), in the order of names."""
        if not os.path.isdir(source):
            yield source, (), False
            return
        for directory, directories, files in os.walk(source, onerror=lambda error: self.failed(source, None, error)):
            directories.sort()
            relative = os.path.relpath(directory, source)
            names = () if relative == os.curdir else tuple(relative.split(os.sep))
            for name in directories:
                if os.path.islink(os.path.join(directory, name)):  # may lead anywhere, even back
                    self._session.warn(f"{os.path.join(directory, name)}: left out, a link to a directory")
            for name in sorted(files):
                local = os.path.join(directory, name)
                if os.path.isfile(local) or not os.path.exists(local):  # a dangling link fails, with its cause
                    yield local, (*names, name), False
                else:
                    self._session.warn(f"{local}: left out, neither a file nor a directory")
            if not directories and not files:
                yield directory, names, True

    def _remote_tree(self, top: ClusterPath, target: str) -> Iterator[Copy]:
        found = self._session.cluster.stat(top)
        if not found.is_directory:
            yield Copy(target, top, max(found.size, 0), nodes=found.nodes)
            return
        for path, view in self._session.cluster.walk(top):
            self._session.missing(view.missing)
            directory = os.path.join(target, *path.parts[len(top.parts) :])
            yield Copy(directory, path, is_directory=True)
            for name, entry in view.items():
                if not entry.is_directory:
                    local = os.path.join(directory, name)
                    yield Copy(local, path / name, max(entry.size, 0), nodes=view.holders(name))
