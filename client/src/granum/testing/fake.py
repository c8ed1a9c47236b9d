"""Fake nodes: everything a client can see of a node, over real TCP on the loopback address, with files in memory.

They answer as `granum-node` does, byte for byte where a client looks, and can be told to fail. They know nothing of
durability, discovery or disk space. Nothing here imports the daemon.
"""

import uuid
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.protocol import Factory

from granum.testing.answer import Answerer
from granum.testing.connection import Fault, NodeConnection, Service
from granum.testing.store import MemoryStore, StoredFiles
from granum.wire.advert import Advertisement, instance_name

LOOPBACK = "127.0.0.1"
VERSION = "fake"  # what the advertisement and the Server header say


class FakeNode:
    """A node that keeps its files in memory and listens on a free port of the loopback address.

    *reactor* must be running when requests come. *node_id* is a new one unless given; *computer* is the machine name in the
    advertisement. Attributes:

    - ``files``: cluster path -> bytes, '/a/b'; read it, or assign to it to store without a put (directories are made)
    - ``directories``: the cluster paths of all directories but the root
    - ``requests``: (verb, target) of every request in order of arrival, the target as it stood in the request line
    - ``port``: 0 before the first `start`; a node started again listens on the port it had
    """

    address = LOOPBACK

    def __init__(
        self, reactor: Any, *, cluster: str = "test", computer: str = "fake", node_id: str | None = None
    ) -> None:  # Any: a reactor; zope's interfaces are opaque to mypy
        self.cluster = cluster
        self.computer = computer
        self.node_id = node_id or uuid.uuid4().hex
        self.port = 0
        self._reactor = reactor
        self._store = MemoryStore()
        status: dict[str, object] = {"node_id": self.node_id, "cluster": cluster, "computer": computer}
        answerer = Answerer(self._store, status, reactor.seconds())
        always = [("Server", f"granum/{VERSION}"), ("Granum-Node", self.node_id)]
        self._service = Service(reactor, answerer, always, self._note_closed)
        self._listening: Any = None
        self._freed: Deferred[None] = succeed(None)  # when the port may be taken again
        self._on_closed: Deferred[None] | None = None

    @property
    def files(self) -> StoredFiles:
        """The stored files, cluster path -> bytes."""
        return self._store.files

    @property
    def directories(self) -> set[str]:
        """The cluster paths of all directories but the root."""
        return self._store.directories

    @property
    def requests(self) -> list[tuple[str, str]]:
        """(verb, target) of every request, in order of arrival."""
        return self._service.requests

    @property
    def advertisement(self) -> Advertisement:
        """The node as discovery would report it; known once it was started."""
        instance = instance_name(self.cluster, self.computer, self.port)
        return Advertisement(instance, self.address, self.port, self.node_id, VERSION)

    def start(self) -> Deferred[None]:
        """Listen; fires when it does. Fails with CannotListenError when the port that the node had is taken meanwhile."""
        freed, self._freed = self._freed, succeed(None)
        return freed.addCallback(lambda _: self._listen())

    def stop(self) -> Deferred[None]:
        """Do as `die` does; fires when the port and every connection are closed."""
        stopped: Deferred[None] = Deferred()
        self._on_closed = stopped
        waited = [stopped, self._close()]
        self._note_closed()
        return gatherResults(waited, consumeErrors=True).addCallback(lambda _: None)

    def die(self) -> None:
        """Stop listening and drop every connection, as a node does that crashes; what it stores stays readable in `files`."""
        self._close()

    def fail_next(self, fault: Fault, *, verb: str | None = None, count: int = 1) -> None:
        """Let the next *count* requests fail, or those with *verb*; faults asked for earlier strike first.

        *fault* is an HTTP status of 400 or more (nothing is done, the connection stays), "drop" (nothing is done, closed
        without a reply), "silent" (nothing is done, this connection is never answered again) or "cut" (the request is carried
        out, half of the reply's body is sent, or half of its head when it has no body, and the connection is closed: a put
        is then stored but has no receipt). A fault strikes when the whole request has arrived.
        """
        if fault not in {"drop", "silent", "cut"} and not (isinstance(fault, int) and 400 <= fault <= 599):
            raise ValueError(f"{fault!r} is no fault; use a status of 400 to 599, 'drop', 'silent' or 'cut'")
        self._service.faults += [(fault, verb)] * count

    def _listen(self) -> None:
        factory = Factory.forProtocol(lambda: NodeConnection(self._service))
        factory.noisy = False
        self._listening = self._reactor.listenTCP(self.port, factory, backlog=128, interface=self.address)
        self.port = self._listening.getHost().port

    def _close(self) -> Deferred[None]:
        if self._listening is not None:
            listening, self._listening = self._listening, None
            self._freed = maybeDeferred(listening.stopListening)
        for connection in tuple(self._service.connections):
            connection.transport.abortConnection()
        return self._freed

    def _note_closed(self) -> None:
        if self._on_closed is not None and not self._service.connections:
            stopped, self._on_closed = self._on_closed, None
            stopped.callback(None)


class MemoryCluster:
    """*n* fake nodes of one cluster, on computers 'fake0', 'fake1', ...

    ``nodes`` holds them; each is started, stopped and told to fail alone, or all together here.

        cluster = MemoryCluster(reactor, n=2)
        await cluster.start()
        cluster.nodes[0].files["/a.txt"] = b"one"
        cluster.nodes[1].die()
    """

    def __init__(self, reactor: Any, n: int = 3, cluster: str = "test") -> None:  # Any: a reactor
        self.nodes = [FakeNode(reactor, cluster=cluster, computer=f"fake{number}") for number in range(n)]

    @property
    def advertisements(self) -> tuple[Advertisement, ...]:
        """The nodes as discovery would report them; known once they were started."""
        return tuple(node.advertisement for node in self.nodes)

    def start(self) -> Deferred[None]:
        """Start every node."""
        return gatherResults([node.start() for node in self.nodes], consumeErrors=True).addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        """Stop every node; fires when all are closed."""
        return gatherResults([node.stop() for node in self.nodes], consumeErrors=True).addCallback(lambda _: None)
