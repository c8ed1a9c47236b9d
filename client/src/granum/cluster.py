"""The cluster: every verb of a client, on a reactor that its user runs.

A `Cluster` is a Twisted service. Started, it listens to its sources and keeps the roster; its verbs return Deferreds and may
be called at once, they wait until the sources have settled. Reads go to the nearest holder and from one holder to the next;
writes go to the least recently written node. A node that fails costs a few seconds once: then it is missing, is named as
such, and is asked again only by a probe of its own until it answers.

For plain threads there is `granum.blocking`.
"""

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, fail

from granum.bypass import LocalStores, is_own_address, marker_directories
from granum.directory import Directory, absent
from granum.discovery import Source, ZeroconfSource
from granum.gathering import Gathering
from granum.listed import RegistrySource, StaticSource
from granum.placement import Ledger, least_recently_written
from granum.roster import Node, NodeState, Roster
from granum.transfer import Receipt, Transfer
from granum.union import UnionView
from granum.wire.advert import PORT
from granum.wire.errors import (
    AlreadyStored,
    BadPath,
    Closed,
    GranumError,
    IsADirectory,
    NodeBusy,
    NodeUnreachable,
    NoNode,
    NoSpace,
    NotStored,
    OnSomeNodes,
    Partial,
)
from granum.wire.listing import Flags, flags_of_directory
from granum.wire.paths import ROOT, ClusterPath

T = TypeVar("T")
Path = str | ClusterPath


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


class Cluster(Service):
    """The nodes of the cluster *name* ('' for all that can be found).

    *sources* tell of nodes; by default mDNS and the registry of this machine. *nodes*, 'host:port', are known besides. Files
    of nodes on this machine are read from their stores unless *bypass* is off: from those in *local_stores*, and from those
    that nodes make known in *markers*, directories (by default where nodes do). *port* is that of hosts in *nodes* without one.
    """

    def __init__(
        self,
        name: str = "",
        *,
        reactor: Any,  # Any: a reactor with TCP, names, threads and monotonic time
        sources: Sequence[Source] | None = None,
        nodes: Sequence[str] = (),
        local_stores: Sequence[str] = (),
        markers: Sequence[str] | None = None,
        bypass: bool = True,
        port: int = PORT,
    ) -> None:
        self.reactor = reactor
        self.roster = Roster(name)
        self.ledger = Ledger()
        self._transfer = Transfer(reactor, answered=self._answered, failed=self._failed)
        self._directory = Directory(self._transfer, self.roster, reactor.seconds)
        marked = marker_directories(os.environ) if markers is None else markers
        self._local = LocalStores(local_stores, marked, reactor) if bypass else None
        if sources is None:
            sources = (ZeroconfSource(reactor), RegistrySource(reactor, self._transfer.status))
        listed = (StaticSource(nodes, reactor, self._transfer.status, port),) if nodes else ()
        self._gathering = Gathering(self.roster, (*sources, *listed), self._transfer.status, reactor)
        self._verbs: set[Deferred[Any]] = set()  # on their way; Any: each fires with something else
        self._stopped = False

    # -- life ----------------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Listen to the sources."""
        super().startService()  # type: ignore[no-untyped-call]
        self._stopped = False
        self._gathering.start()

    def stopService(self) -> Deferred[None]:
        """End every source and connection; verbs on their way are cancelled. Fires when all is closed."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopped = True
        for verb in tuple(self._verbs):
            verb.cancel()
        stopped = DeferredList([self._gathering.stop(), self._transfer.close()], consumeErrors=True)
        return stopped.addCallback(lambda _: None)

    def ready(self, expect: int = 1) -> Deferred[tuple[Node, ...]]:
        """Fire with the nodes as soon as *expect* of them are known, or when every source has settled.

        *expect* above one is taken to be all: verbs then wait for no others. Fails with NoNode, which says where was
        looked, when there is none.
        """
        return self._track(self._gathering.ready(expect))

    # -- reading -------------------------------------------------------------------------------------------------------

    def nodes(self) -> Deferred[tuple[NodeState, ...]]:
        """Fire with every known node, missing or not, and how it does."""
        return self._verb(self._states)

    def listdir(self, path: Path) -> Deferred[UnionView]:
        """Fire with the union view of the directory *path*; it names the nodes missing.

        Fails with NotStored, NotADirectory, Partial (not found, but a node did not answer) or NoNode.
        """
        return self._verb(self._directory.view, path)

    def exists(self, path: Path) -> Deferred[bool]:
        """Fire with whether *path* is stored; fails with Partial when a node that might hold it did not answer."""
        return self._verb(self._exists, path)

    def isdir(self, path: Path) -> Deferred[bool]:
        """Fire with whether *path* is a directory; fails as `exists` does."""
        return self._verb(self._is_directory, path)

    def stat(self, path: Path) -> Deferred[Stat]:
        """Fire with kind, size and nodes of *path*; fails with NotStored or Partial."""
        return self._verb(self._stat, path)

    def locate(self, path: Path) -> Deferred[tuple[Node, ...]]:
        """Fire with the nodes that hold *path*, the nearest first; fails with NotStored or Partial."""
        return self._verb(self._locate, path)

    def get(self, path: Path, *, nodes: Sequence[Node] | None = None) -> Deferred[bytes]:
        """Fire with the bytes of the file *path*, from the nearest of its holders, or of *nodes*, that gives them.

        Fails with NotStored, IsADirectory, Partial, or when every holder failed with that one's error, or OnSomeNodes.
        """

        async def get(path: ClusterPath) -> bytes:
            return await self._get(path, nodes)

        return self._verb(get, path)

    async def walk(self, top: Path = ROOT) -> AsyncIterator[tuple[ClusterPath, UnionView]]:
        """Yield every directory at and below *top* with its view, parents before their children, in the order of names.

        A directory whose only holder died on the way has an empty view that names it; for *top* that fails, as `listdir`.
        """
        start = ClusterPath.parse(top)
        waiting = [start]
        while waiting:
            path = waiting.pop()
            try:
                view = await self.listdir(path)
            except Partial as error:
                if path == start:
                    raise
                view = UnionView({}, (), error.causes, stored=False)
            yield path, view
            waiting += [path / name for name in reversed(tuple(view)) if view[name].is_directory]

    # -- writing -------------------------------------------------------------------------------------------------------

    def put(self, path: Path, body: bytes, *, node: Node | None = None) -> Deferred[Receipt]:
        """Store *body* as *path*, on *node* or on the least recently written one; fire with the receipt.

        All nodes are asked first whether they have that name. Fails with AlreadyStored, which names the node, BadPath,
        NotReceipted when the answer was lost, or the errors of the nodes that were tried.
        """

        async def put(path: ClusterPath) -> Receipt:
            return await self._write(path, node, lambda chosen: self._transfer.put(chosen, path, body))

        return self._verb(put, path)

    def mkdir(self, path: Path) -> Deferred[Receipt]:
        """Make the directory *path* on the least recently written node; otherwise as `put`."""

        async def mkdir(path: ClusterPath) -> Receipt:
            return await self._write(path, None, lambda chosen: self._transfer.mkdir(chosen, path))

        return self._verb(mkdir, path)

    def forget_listing(self, path: Path) -> None:
        """Drop the cached listings that a write to *path*, made elsewhere in this program, changes."""
        self._directory.forget(ClusterPath.parse(path))

    # -- inside: nodes ----------------------------------------------------------------------------------------------

    def _verb(self, work: Callable[..., Coroutine[Any, Any, T]], *paths: Path) -> Deferred[T]:
        async def run() -> T:
            parsed = [ClusterPath.parse(path) for path in paths]
            await self._gathering.ready()
            return await work(*parsed)

        return self._track(run())

    def _track(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Begin *work*, which ends at the latest with the service."""
        if self._stopped:
            work.close()
            return fail(Closed("this cluster was stopped; start it or make another"))
        verb = Deferred.fromCoroutine(work)
        self._verbs.add(verb)

        def ended(result: T) -> T:
            self._verbs.discard(verb)
            return result

        return verb.addBoth(ended)

    async def _states(self) -> tuple[NodeState, ...]:
        return self.roster.states()

    def _answered(self, node: Node) -> None:
        self.roster.answered(node.key, self.reactor.seconds())

    def _failed(self, node: Node, cause: GranumError) -> None:
        if self.roster.is_advertised(node):  # else the cause lies with an address that it no longer has
            self.roster.failed(node.key, self.reactor.seconds(), cause)

    # -- inside: verbs -------------------------------------------------------------------------------------------------

    async def _exists(self, path: ClusterPath) -> bool:
        view = await self._directory.find(path)
        if not view.stored and view.partial:
            raise absent(path, view)
        return view.stored

    async def _is_directory(self, path: ClusterPath) -> bool:
        view = await self._directory.find(path)
        if not view.stored and view.partial:
            raise absent(path, view)
        return view.stored and view[path.name].is_directory

    async def _stat(self, path: ClusterPath) -> Stat:
        view = await self._directory.find(path)
        if not view.stored:
            raise absent(path, view)
        entry, nodes = view[path.name], view.holders(path.name)
        if not entry.is_directory:
            return Stat(path, entry.flags, entry.size, nodes)
        inside = await self._directory.view(path)
        return Stat(path, flags_of_directory(inside), sum(len(inside.holders(name)) for name in inside), nodes)

    async def _locate(self, path: ClusterPath) -> tuple[Node, ...]:
        return self._nearest_first(await self._directory.locate(path))

    def _nearest_first(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """Return *nodes* in the order to read from: those on this machine, the others, those that are missing."""
        missing = self.roster.missing()
        return tuple(sorted(nodes, key=lambda node: (node in missing, not is_own_address(node.address), node.key)))

    async def _get(self, path: ClusterPath, nodes: Sequence[Node] | None) -> bytes:
        holders = await self._locate(path) if nodes is None else self._nearest_first(nodes)
        for node in holders:
            if self._local is not None and (body := await self._local.read(node, path)) is not None:
                return body
        causes: dict[str, GranumError] = {}
        for node in holders:
            try:
                return await self._transfer.get(node, path)
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

    async def _write(
        self, path: ClusterPath, node: Node | None, write: Callable[[Node], Coroutine[Any, Any, Receipt]]
    ) -> Receipt:
        """Let *write* store *path* on *node*, or on one after the other until a node takes it."""
        if not path.parts:
            raise BadPath("the root is there already; name what is to be stored")
        view = await self._directory.find(path, fresh=True)
        if view.stored:
            holders = ", ".join(holder.name for holder in view.holders(path.name))
            raise AlreadyStored(f"{path} is stored already, on {holders}; choose another name")
        left = [node] if node is not None else list(self.roster.nodes())
        causes: dict[str, BaseException] = {known.name: cause for known, cause in self.roster.missing().items()}
        while left:
            chosen = least_recently_written(None, left, self.ledger)
            left.remove(chosen)
            try:
                receipt = await write(chosen)
            except (NodeUnreachable, NodeBusy, NoSpace) as error:  # nothing was stored, so another node may have it
                if node is not None:
                    raise
                causes[chosen.name] = error
                continue
            finally:
                self._directory.forget(path)
            self.ledger.wrote(chosen.key, self.reactor.seconds())
            return receipt
        raise OnSomeNodes(f"{path} could not be stored", causes)
