"""Reading: what is under a path, and which of its holders a file is read from, whole or in part.

Of equal copies the nearest is taken: a store on this machine without HTTP, then a node on it, then the others; whoever fails
is followed by the next one. Copies that are not equal are no choice: every reader takes the one on the lowest node key.

Whole files are compared with their digest. A part cannot be: it is believed when the node says that it is the part that was
asked for.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from granum.bypass import LocalStores, is_own_address
from granum.directory import Directory, absent
from granum.roster import Node, Roster
from granum.transfer import Transfer
from granum.wire.errors import BadRequest, GranumError, IsADirectory, NoNode, NotStored, OnSomeNodes
from granum.wire.listing import Flags, flags_of_directory
from granum.wire.paths import ClusterPath


@dataclass(frozen=True, slots=True)
class Stat:
    """What is stored under *path*: *size* in bytes, or the number of entries of a directory, summed over *nodes*."""

    path: ClusterPath
    flags: Flags
    size: int
    nodes: tuple[Node, ...]

    @property
    def is_directory(self) -> bool:
        """Whether it can be listed."""
        return bool(self.flags & Flags.DIRECTORY)


class Reading:
    """Looks for and reads files of the nodes of *roster*; from *local* stores where it can, None for never."""

    def __init__(self, transfer: Transfer, directory: Directory, roster: Roster, local: LocalStores | None) -> None:
        self._transfer = transfer
        self._directory = directory
        self._roster = roster
        self._local = local

    async def exists(self, path: ClusterPath) -> bool:
        """Return whether *path* is stored; raises Partial."""
        view = await self._directory.find(path)
        if not view.stored and view.partial:
            raise absent(path, view)
        return view.stored

    async def is_directory(self, path: ClusterPath) -> bool:
        """Return whether *path* is a directory; raises Partial."""
        view = await self._directory.find(path)
        if not view.stored and view.partial:
            raise absent(path, view)
        return view.stored and view[path.name].is_directory

    async def stat(self, path: ClusterPath) -> Stat:
        """Return kind, size and nodes of *path*; raises NotStored or Partial."""
        view = await self._directory.find(path)
        if not view.stored:
            raise absent(path, view)
        entry, nodes = view[path.name], view.holders(path.name)
        if not entry.is_directory:
            return Stat(path, entry.flags, entry.size, nodes)
        inside = await self._directory.view(path)
        return Stat(path, flags_of_directory(inside), sum(len(inside.holders(name)) for name in inside), nodes)

    async def locate(self, path: ClusterPath) -> tuple[Node, ...]:
        """Return the nodes that hold *path* as every reader sees it, the nearest first; raises NotStored or Partial."""
        return self._nearest_first(await self._directory.locate(path))

    async def get(self, path: ClusterPath, nodes: Sequence[Node] | None) -> bytes:
        """Return the bytes of the file *path*, from its holders or from *nodes*, as `granum.cluster.Cluster.get`."""
        return await self._read(path, nodes, 0, None, lambda node: self._transfer.get(node, path))

    async def part(self, path: ClusterPath, start: int, length: int | None, nodes: Sequence[Node] | None) -> bytes:
        """Return *length* bytes of the file *path* from byte *start* on, all the rest for None; fewer where it ends."""
        if start < 0 or (length is not None and length < 0):
            raise BadRequest(f"{length} bytes from byte {start} on are no part of a file")
        return await self._read(path, nodes, start, length, lambda node: self._transfer.part(node, path, start, length))

    async def local_nodes(self, nodes: Sequence[Node]) -> set[str]:
        """Return the keys of those of *nodes* whose stores can be read on this machine."""
        if self._local is None:
            return set()
        return {node.key for node in nodes if await self._local.has(node)}

    def _nearest_first(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """Return *nodes* in the order to read from: those on this machine, the others, those that are missing."""
        if len(nodes) < 2:
            return tuple(nodes)
        missing = self._roster.missing()
        return tuple(sorted(nodes, key=lambda node: (node in missing, not is_own_address(node.address), node.key)))

    async def _read(
        self,
        path: ClusterPath,
        nodes: Sequence[Node] | None,
        start: int,
        length: int | None,
        ask: Callable[[Node], Awaitable[bytes]],
    ) -> bytes:
        if nodes is None:
            holders = await self.locate(path)
        else:
            alike = nodes if len(nodes) < 2 else await self._directory.alike(path, nodes)
            holders = self._nearest_first(alike)
        for node in holders:
            if self._local is not None and (body := await self._local.read(node, path, start, length)) is not None:
                return body
        causes: dict[str, GranumError] = {}
        for node in holders:
            try:
                return await ask(node)
            except IsADirectory:
                raise
            except GranumError as error:
                causes[node.name] = error
        if not causes:
            raise NoNode(f"{path}: no node was named to read it from")
        different = {type(cause) for cause in causes.values()}
        if len(causes) == 1 or different == {NotStored}:
            raise next(iter(causes.values()))
        raise OnSomeNodes(f"{path} could not be read", causes)
