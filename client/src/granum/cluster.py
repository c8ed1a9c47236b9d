"""The cluster: every verb of a client, on a reactor that its user runs.

A `Cluster` is a Twisted service. Started, it listens to its sources and keeps the roster; its verbs return Deferreds and may
be called at once, they wait until the sources have settled. Reads go to the nearest holder and from one holder to the next;
writes go to the least recently written node. A node that fails costs a few seconds once: then it is missing, is named as
such, and is asked again only by a probe of its own until it answers.

For plain threads there is `granum.blocking`.
"""

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, fail

from granum.bypass import LocalStores, marker_directories
from granum.directory import Directory
from granum.discovery import Source, ZeroconfSource
from granum.gathering import Gathering
from granum.listed import RegistrySource, StaticSource
from granum.locality import Locality, locality_of
from granum.placement import AnyPlacement, Ledger, SpaceAware, least_recently_written, placement_named
from granum.reading import Reading, Stat
from granum.room import room_of
from granum.roster import Node, NodeState, Roster
from granum.transfer import Receipt, Transfer
from granum.union import Collision, UnionView
from granum.wire.advert import PORT
from granum.wire.errors import Closed, GranumError, Partial
from granum.wire.paths import ROOT, ClusterPath
from granum.writing import Writing

__all__ = ["Cluster", "Path", "Stat"]

T = TypeVar("T")
Path = str | ClusterPath


class Cluster(Service):
    """The nodes of the cluster *name* ('' for all that can be found).

    *sources* tell of nodes; by default mDNS and the registry of this machine. *nodes*, 'host:port', are known besides. Files
    of nodes on this machine are read from their stores unless *bypass* is off: from those in *local_stores*, and from those
    that nodes make known in *markers*, directories (by default where nodes do). *port* is that of hosts in *nodes* without one.
    *placement* says where puts go: a function of `granum.placement`, or a name as `placement_named` takes it.
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
        placement: AnyPlacement | str = least_recently_written,
    ) -> None:
        self.reactor = reactor
        self.roster = Roster(name)
        self.ledger = Ledger()
        self._transfer = Transfer(reactor, answered=self._answered, failed=self._failed)
        self._directory = Directory(self._transfer, self.roster, reactor.seconds)
        marked = marker_directories(os.environ) if markers is None else markers
        self.local = LocalStores(local_stores, marked, reactor) if bypass else None
        self._reading = Reading(self._transfer, self._directory, self.roster, self.local)
        self._writing = Writing(self._transfer, self._directory, self.roster, self.ledger, reactor.seconds)
        self._placement = self._named(placement)
        if sources is None:
            sources = (ZeroconfSource(reactor), RegistrySource(reactor, self._transfer.status))
        listed = (StaticSource(nodes, reactor, self._transfer.status, port),) if nodes else ()
        self._gathering = Gathering(self.roster, (*sources, *listed), self._status, self._transfer.reach, reactor)
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
        return self._verb(self._reading.exists, path)

    def isdir(self, path: Path) -> Deferred[bool]:
        """Fire with whether *path* is a directory; fails as `exists` does."""
        return self._verb(self._reading.is_directory, path)

    def stat(self, path: Path) -> Deferred[Stat]:
        """Fire with kind, size and nodes of *path*; fails with NotStored or Partial."""
        return self._verb(self._reading.stat, path)

    def locate(self, path: Path) -> Deferred[tuple[Node, ...]]:
        """Fire with the nodes that hold *path*, the nearest first; fails with NotStored or Partial."""
        return self._verb(self._reading.locate, path)

    def locality(self, path: Path) -> Deferred[Locality]:
        """Fire with what of the series or directory *path* lies on which node, and on this machine; fails as `listdir`."""
        return self._verb(self._locality, path)

    def get(
        self, path: Path, *, start: int = 0, length: int | None = None, nodes: Sequence[Node] | None = None
    ) -> Deferred[bytes]:
        """Fire with the bytes of the file *path*, from the nearest of its holders, or of *nodes*, that gives them.

        A whole file is compared with its digest. With *start* or *length* come only *length* bytes (None: all the rest) from
        byte *start* on, fewer where the file ends, and these are not: a digest is of the whole file.

        Fails with NotStored, IsADirectory, Partial, BadRequest for a negative *start* or *length*, or when every holder
        failed with that one's error, or OnSomeNodes.
        """

        async def get(path: ClusterPath) -> bytes:
            if start == 0 and length is None:
                return await self._reading.get(path, nodes)
            return await self._reading.part(path, start, length, nodes)

        return self._verb(get, path)

    @property
    def collisions(self) -> tuple[tuple[ClusterPath, Collision], ...]:
        """The collisions that this client has met, each with its directory; every one is logged once as well."""
        return self._directory.collisions

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
        """Store *body* as *path*, on *node* or where the placement says; fire with the receipt.

        All nodes are asked first whether they have that name. Where the answer is lost, the file is put once more on the same
        node. Fails with AlreadyStored, which names the node, BadPath, NotReceipted when that answer is lost too, or the
        errors of the nodes that were tried.
        """

        async def put(path: ClusterPath) -> Receipt:
            placement = await self._prepared(self._placement)
            return await self._writing.put(path, body, node, placement)

        return self._verb(put, path)

    def mkdir(self, path: Path) -> Deferred[Receipt]:
        """Make the directory *path* where the placement says; otherwise as `put`."""

        async def mkdir(path: ClusterPath) -> Receipt:
            return await self._writing.mkdir(path, await self._prepared(self._placement))

        return self._verb(mkdir, path)

    def placement(self, wanted: AnyPlacement | str | None = None) -> Deferred[AnyPlacement]:
        """Fire with the placement *wanted*, or the cluster's own for None, once what it needs of the nodes is known.

        *wanted* may be a name, as `placement_named` takes it. Call `granum.placement.choose` with what comes. Fails with
        BadConfig for another name, or NoNode.
        """

        async def resolved() -> AnyPlacement:
            return await self._prepared(self._placement if wanted is None else self._named(wanted))

        return self._verb(resolved)

    def noted(self, receipt: Receipt) -> None:
        """Let a *receipt* that came by another way than `put`, as those of a stream do, show in views at once; cheap."""
        self._directory.stored(receipt.path, receipt.size, receipt.node)

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

    def _named(self, placement: AnyPlacement | str) -> AnyPlacement:
        return placement_named(placement, self.roster.room) if isinstance(placement, str) else placement

    async def _prepared(self, placement: AnyPlacement) -> AnyPlacement:
        if isinstance(placement, SpaceAware):
            await self._gathering.watch_room()
        return placement

    async def _status(self, node: Node) -> Mapping[str, object]:
        status = await self._transfer.status(node)
        self.roster.told(node.key, room_of(status))
        return status

    def _answered(self, node: Node) -> None:
        self.roster.answered(node.key, self.reactor.seconds())

    def _failed(self, node: Node, cause: GranumError) -> None:
        if self.roster.is_advertised(node):  # else the cause lies with an address that it no longer has
            self.roster.failed(node.key, self.reactor.seconds(), cause)

    # -- inside: verbs -------------------------------------------------------------------------------------------------

    async def _locality(self, path: ClusterPath) -> Locality:
        view = await self._directory.view(path)
        holders = {node.key: node for name in view for node in view.holders(name)}
        return locality_of(path, view, await self._reading.local_nodes(tuple(holders.values())))
