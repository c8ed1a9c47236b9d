"""The cluster for plain threads: every verb of `granum.cluster.Cluster`, waiting for its result.

One object may be used by several threads at once, and after a fork in the child too, where it finds the nodes anew. Errors
reach the caller as they are. It never decides anything: that is done in `granum.cluster`.
"""

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from twisted.internet.defer import Deferred, succeed

from granum.blocking.reader import SeriesReader
from granum.blocking.series import SeriesWriter
from granum.blocking.thread import ReactorThread, reactor_thread
from granum.cluster import Cluster as ReactorCluster
from granum.cluster import Path, Stat
from granum.config import load
from granum.locality import Locality
from granum.placement import AnyPlacement, least_recently_written
from granum.roster import Node, NodeState
from granum.transfer import Receipt
from granum.union import Collision, UnionView
from granum.wire.advert import PORT
from granum.wire.paths import ROOT, ClusterPath

T = TypeVar("T")


class Cluster:
    """The nodes of the cluster *name* ('' for all that can be found), usable from any thread but a reactor's.

    *nodes*, 'host:port', are known besides those discovered; with *discover* off they are all. *local_stores*, *bypass*,
    *port* and *placement* are those of `granum.cluster.Cluster`. A context manager; without one, `close` it or let the
    interpreter's exit.
    """

    def __init__(
        self,
        name: str = "",
        *,
        nodes: Sequence[str] = (),
        local_stores: Sequence[str] = (),
        discover: bool = True,
        bypass: bool = True,
        port: int = PORT,
        placement: AnyPlacement | str = least_recently_written,
    ) -> None:
        self._name = name
        self._options: dict[str, Any] = {  # Any: keyword arguments of different types
            "nodes": tuple(nodes),
            "local_stores": tuple(local_stores),
            "bypass": bypass,
            "port": port,
            "placement": placement,
            "sources": None if discover else (),
        }
        self._closed = False
        self._live: tuple[ReactorThread, ReactorCluster] | None = None

    def ready(self, expect: int = 1) -> tuple[Node, ...]:
        """Wait until *expect* nodes are known or every source has settled; return the nodes.

        *expect* above one is taken to be all there are. Raises NoNode, saying where was looked.
        """
        return self.call(lambda cluster: cluster.ready(expect))

    def nodes(self) -> tuple[NodeState, ...]:
        """Return every known node, missing or not, and how it does."""
        return self.call(lambda cluster: cluster.nodes())

    def listdir(self, path: Path) -> UnionView:
        """Return the union view of the directory *path*; it names the nodes missing.

        Raises NotStored, NotADirectory, Partial (not found, but a node did not answer) or NoNode.
        """
        return self.call(lambda cluster: cluster.listdir(path))

    def exists(self, path: Path) -> bool:
        """Whether *path* is stored; raises Partial when a node that might hold it did not answer."""
        return self.call(lambda cluster: cluster.exists(path))

    def isdir(self, path: Path) -> bool:
        """Whether *path* is a directory; raises Partial as `exists` does."""
        return self.call(lambda cluster: cluster.isdir(path))

    def stat(self, path: Path) -> Stat:
        """Return kind, size and nodes of *path*; raises NotStored or Partial."""
        return self.call(lambda cluster: cluster.stat(path))

    def locate(self, path: Path) -> tuple[Node, ...]:
        """Return the nodes that hold *path*, the nearest first; raises NotStored or Partial."""
        return self.call(lambda cluster: cluster.locate(path))

    def walk(self, top: Path = ROOT) -> Iterator[tuple[ClusterPath, UnionView]]:
        """Yield every directory at and below *top* with its view, parents before their children, in the order of names."""
        steps = self.call(lambda cluster: succeed(cluster.walk(top)))

        async def step() -> tuple[ClusterPath, UnionView] | None:
            return await anext(steps, None)

        while (found := self.call(lambda _: Deferred.fromCoroutine(step()))) is not None:
            yield found

    def locality(self, path: Path) -> Locality:
        """Return what of the series or directory *path* lies on which node, and on this machine; raises as `listdir`."""
        return self.call(lambda cluster: cluster.locality(path))

    def collisions(self) -> tuple[tuple[ClusterPath, Collision], ...]:
        """Return the collisions that this client has met, each with its directory."""
        return self.call(lambda cluster: succeed(cluster.collisions))

    def get(
        self, path: Path, *, start: int = 0, length: int | None = None, nodes: Sequence[Node] | None = None
    ) -> bytes:
        """Return the bytes of the file *path*, from the nearest of its holders, or of *nodes*, that gives them.

        With *start* or *length* come only *length* bytes (None: all the rest) from byte *start* on, fewer where the file
        ends, and these are not compared with a digest. Raises NotStored, IsADirectory, Partial, or what the holders failed
        with.
        """
        return self.call(lambda cluster: cluster.get(path, start=start, length=length, nodes=nodes))

    def put(self, path: Path, body: bytes, *, node: Node | None = None) -> Receipt:
        """Store *body* as *path*, on *node* or where the placement says; return the receipt.

        Raises AlreadyStored, which names the node, BadPath, NotReceipted, or the errors of the nodes that were tried.
        """
        return self.call(lambda cluster: cluster.put(path, body, node=node))

    def mkdir(self, path: Path) -> Receipt:
        """Make the directory *path*; otherwise as `put`."""
        return self.call(lambda cluster: cluster.mkdir(path))

    def create_series(self, path: Path, **options: Any) -> SeriesWriter:  # Any: those of the method named below
        """Begin the series *path* and return its writer; *options* are those of `streaming.series.SeriesWriter.create`.

        With *on_full* "overflow" the overflow lies where the configuration says, unless *overflow_dir* does.
        """
        from granum.streaming import series  # noqa: PLC0415 - a program that does not stream need not wait for it

        chosen = _with_overflow(options)
        begun = self.call(lambda cluster: series.SeriesWriter.create(cluster, ClusterPath.parse(path), **chosen))
        return SeriesWriter(reactor_thread(), begun)

    def series(self, path: Path) -> SeriesReader:
        """Return the series *path* for reading, complete or still being streamed."""
        from granum.arrays import series  # noqa: PLC0415 - as above

        parsed = ClusterPath.parse(path)
        return SeriesReader(lambda: self.call(lambda cluster: series.SeriesReader.open(cluster, parsed)))

    def call(self, verb: Callable[[ReactorCluster], Deferred[T]]) -> T:
        """Call *verb* with the cluster behind this one, on the reactor's thread, and wait for what it fires with."""
        if self._closed:
            raise RuntimeError("this cluster has been closed")
        thread = reactor_thread()
        return thread.run(lambda: verb(self._on(thread)))

    def close(self) -> None:
        """Stop looking for nodes and close every connection; later calls raise RuntimeError."""
        if not self._closed:
            self._closed = True
            thread = reactor_thread()
            thread.run(lambda: self._stop(thread))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cluster {self._name!r}{', closed' if self._closed else ''}>"

    def _on(self, thread: ReactorThread) -> ReactorCluster:
        """Return the started cluster on *thread*, which is the caller; in a forked child that is a new one."""
        if self._live is None or self._live[0] is not thread:
            cluster = ReactorCluster(self._name, reactor=thread.reactor, **self._options)
            cluster.startService()
            thread.services.add(cluster)
            self._live = (thread, cluster)
        return self._live[1]

    def _stop(self, thread: ReactorThread) -> Deferred[None]:
        if self._live is None or self._live[0] is not thread:
            return succeed(None)
        thread.services.discard(self._live[1])
        return self._live[1].stopService()


def _with_overflow(options: dict[str, Any]) -> dict[str, Any]:
    """Return *options* with what the configuration says of overflows, where one is wanted and nothing else is said."""
    if options.get("on_full") != "overflow" or options.get("overflow_dir") is not None:
        return options
    config = load()
    details = {"bytes_max": config.overflow_bytes_max, **(options.get("overflow_options") or {})}
    return {**options, "overflow_dir": config.overflow_dir, "overflow_options": details}


def connect(
    cluster: str | None = None,
    *,
    nodes: Sequence[str] = (),
    expect: int = 1,
    local_stores: Sequence[str] = (),
    discover: bool = True,
    bypass: bool = True,
    placement: AnyPlacement | str | None = None,
) -> Cluster:
    """Return the cluster named *cluster*, once *expect* of its nodes are known or all sources have settled.

    What is not given is taken from the configuration: None means the configured cluster, '' any cluster. *expect* above one
    is taken to be all nodes there are, which saves the wait for others. Raises NoNode, which says where was looked, and
    BadConfig.
    """
    given = {"cluster": cluster, "nodes": tuple(nodes) or None, "local_stores": tuple(local_stores) or None}
    config = load(given)
    connected = Cluster(
        config.cluster,
        nodes=config.nodes,
        local_stores=config.local_stores,
        discover=discover,
        bypass=bypass,
        port=config.port,
        placement=placement if placement is not None else config.placement,
    )
    try:
        connected.ready(expect)
    except BaseException:
        connected.close()
        raise
    return connected
