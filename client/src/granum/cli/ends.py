"""Ends: the two sides of a copy, a local disk or a cluster, each told in the same words.

An end says what lies under a name, and what lies in a tree. A spot is a place at an end: a file name, or a cluster path.
What is to be copied, and how, is decided elsewhere.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from granum.cli.session import Account, Session
from granum.cli.walk import walk
from granum.wire.errors import NotADirectory, NotStored, Partial
from granum.wire.paths import ClusterPath

if TYPE_CHECKING:
    from granum.roster import Node
    from granum.union import UnionView

Spot: TypeAlias = str | ClusterPath
Names = tuple[str, ...]  # below the top of a tree


@dataclass(frozen=True, slots=True)
class Found:
    """What lies somewhere: a directory, or a file of *size* bytes (-1 when not told); in a cluster on *nodes*."""

    size: int
    is_directory: bool = False
    nodes: "tuple[Node, ...]" = ()


class End(Protocol):
    """One side of a copy."""

    def look(self, spot: Spot) -> Found | None:
        """Return what lies there, None for nothing; raises what asking does."""

    def look_beside(self, spot: Spot) -> Found | None:
        """Do as `look`, for names that are asked for directory by directory."""

    def below(self, top: Spot, names: Names) -> Spot:
        """Return the spot *names* below *top*; raises BadPath for names that cannot be."""

    def tree(self, top: Spot) -> Iterator[tuple[Names, Found]]:
        """Yield all files in the directory *top*, and those directories that are empty."""

    def name_of(self, spot: Spot) -> str:
        """Return the last part of *spot*."""


class LocalEnd:
    """This machine's file systems; what is left out of a tree is reported to *account*."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def look(self, spot: Spot) -> Found | None:
        """Return what lies there; a link counts as what it leads to. Raises OSError."""
        try:
            found = os.stat(str(spot))
        except (FileNotFoundError, NotADirectoryError):
            if os.path.lexists(str(spot)):
                raise  # a link that leads nowhere is there all the same
            return None
        is_directory = stat.S_ISDIR(found.st_mode)
        return Found(0 if is_directory else found.st_size, is_directory)

    look_beside = look

    def below(self, top: Spot, names: Names) -> str:
        """Return the file name."""
        return os.path.join(str(top), *names)

    def name_of(self, spot: Spot) -> str:
        """Return the last part of the absolute name."""
        return os.path.basename(os.path.abspath(str(spot)))

    def tree(self, top: Spot) -> Iterator[tuple[Names, Found]]:
        """Yield files and empty directories in the order of names."""
        top = str(top)
        for directory, directories, files in os.walk(
            top, onerror=lambda error: self._account.failed(str(error.filename), error)
        ):
            directories.sort()
            relative = os.path.relpath(directory, top)
            names = () if relative == os.curdir else tuple(relative.split(os.sep))
            for name in directories:
                if os.path.islink(os.path.join(directory, name)):  # may lead anywhere, even back
                    self._account.warn(f"{os.path.join(directory, name)}: left out, a link to a directory")
            for name in sorted(files):
                local = os.path.join(directory, name)
                try:
                    found = os.stat(local)
                except OSError as error:  # a link that leads nowhere, or gone since
                    self._account.failed(local, error)
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield (*names, name), Found(found.st_size)
                else:
                    self._account.warn(f"{local}: left out, neither a file nor a directory")
            if not directories and not files:
                yield names, Found(0, is_directory=True)


class ClusterEnd:
    """The cluster of *session*."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._at: ClusterPath | None = None
        self._view: UnionView | None = None  # of the directory that was asked for last

    def look(self, spot: Spot) -> Found | None:
        """Return what lies there; raises Partial when that cannot be told, and NoNode."""
        path = ClusterPath.parse(spot)
        cluster = self.session.cluster
        try:
            is_directory = cluster.isdir(path)
            if is_directory:
                return Found(0, is_directory=True)
            found = cluster.stat(path)
        except NotStored:
            return None
        return Found(found.size, found.is_directory, found.nodes)

    def look_beside(self, spot: Spot) -> Found | None:
        """Do as `look`, from one listing of the directory, whose nodes that do not answer are noted."""
        path = ClusterPath.parse(spot)
        if self._at != path.parent:
            self._at, self._view = path.parent, self._listing(path.parent)
        if self._view is None or path.name not in self._view:
            return None
        entry = self._view[path.name]
        return Found(max(entry.size, -1), entry.is_directory, self._view.holders(path.name))

    def below(self, top: Spot, names: Names) -> ClusterPath:
        """Return the cluster path; raises BadPath."""
        return ClusterPath.of((*ClusterPath.parse(top).parts, *names))

    def name_of(self, spot: Spot) -> str:
        """Return the last part; '' for the root."""
        return ClusterPath.parse(spot).name

    def tree(self, top: Spot) -> Iterator[tuple[Names, Found]]:
        """Yield files and empty directories in the order in which a walk comes to them."""
        path = ClusterPath.parse(top)
        for directory, view in walk(self.session, path):
            names = directory.parts[len(path.parts) :]
            for name, entry in view.items():
                if not entry.is_directory:
                    yield (*names, name), Found(entry.size, nodes=view.holders(name))
            if view.stored and not view:
                yield names, Found(0, is_directory=True)

    def _listing(self, directory: ClusterPath) -> "UnionView | None":
        try:
            view = self.session.cluster.listdir(directory)
        except (NotStored, NotADirectory):  # the put will say what is wrong
            return None
        except Partial as error:
            self.session.missing(error.causes)
            return None
        self.session.missing(view.missing)
        return view
