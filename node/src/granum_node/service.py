"""The node put together; read `startService` for the order of its life, `stopService` for its end."""

import errno
import os
import socket
from functools import partial
from threading import Thread

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from granum.wire.advert import Advertisement, instance_name
from granum.wire.errors import BadConfig
from granum_node import __version__
from granum_node.advertise import computer_name, make_advertiser
from granum_node.config import NodeConfig
from granum_node.http.pool import ReactorPool
from granum_node.http.server import Server
from granum_node.http.status import Identity
from granum_node.presence import Presence
from granum_node.reactor import Reactor
from granum_node.storage.publish import COMMIT_THREADS, Commit, Publisher, Relaxed
from granum_node.storage.store import Store, check_directory

BACKLOG = 1024  # PYME's 5 makes a fifth of 200 clients wait a second
CHECK_S = 1.0  # how often connections are looked at for stalls
GOODBYE_S = 5.0  # for the network and the registry; a goodbye takes a second
DRAIN_S = 10.0  # for what is in flight when the node is told to stop
DRAIN_POLL_S = 0.02
THREADS = 4  # listings and advertising, beside those of the publisher
_log = Logger()


class NodeService(Service):
    """One node: its store, its port, its advertisement. *reactor* has monotonic time."""

    def __init__(self, config: NodeConfig, reactor: Reactor) -> None:
        """Take port and store, in this order, so that a failure of the first leaves no trace in the second.

        Raises StoreUnusable, StoreLocked, or BadConfig for an address or port that cannot be had.
        """
        check_directory(config.root)
        listening = _listen(config.bind, config.port)
        try:
            self._store = Store.open(config.root)
        except BaseException:
            listening.close()
            raise
        self._reactor = reactor
        self._listening = listening
        self._threads = ThreadPool(1, THREADS + COMMIT_THREADS, "granum-node")
        # A thread that hangs on a dead disk must not keep the process.
        self._threads.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]  # any callable will do
        self.identity = Identity(
            node_id=self._store.node_id,
            cluster=config.cluster,
            computer=computer_name(os.environ),
            address=config.bind,
            port=listening.getsockname()[1],
            version=__version__,
        )
        self._publisher: Publisher
        if config.durability == "commit":
            self._publisher = Commit(self._store.tree, reactor.callFromThread)
        else:
            self._publisher = Relaxed(self._store.tree)
        self._server = Server(self._store, self._publisher, self.identity, reactor, ReactorPool(reactor, self._threads))
        self._presence = Presence(self._store.node_id, config.root, os.environ)
        self._advertiser = make_advertiser(config.advertise, _advertisement(self.identity))
        self._announced: Deferred[None] | None = None
        self._checks = LoopingCall(self._check)
        self._failure_logged = False
        self._checks.clock = reactor
        self._port: IListeningPort | None = None

    @property
    def url(self) -> str:
        """Where the node answers."""
        return f"http://{self.identity.address}:{self.identity.port}"

    def startService(self) -> None:
        """Serve, then tell the network."""
        super().startService()  # type: ignore[no-untyped-call]
        self._threads.start()
        self._publisher.start(self._threads.callInThread)
        # The endpoint closes the descriptor that it is given and listens on a copy.
        endpoint = AdoptedStreamServerEndpoint(self._reactor, self._listening.detach(), socket.AF_INET)
        endpoint.listen(self._server).addCallback(self._serving)
        self._checks.start(CHECK_S, now=False)

    def _serving(self, port: IListeningPort) -> None:
        self._port = port
        try:
            self._presence.show()
        except OSError as error:
            _log.warn("programs on this machine will read by HTTP only: {error}", error=error)
        if self._advertiser is not None:
            self._announced = deferToThreadPool(self._reactor, self._threads, self._advertiser.announce)
            self._announced.addCallbacks(
                lambda _: _log.info("advertised in cluster {cluster!r}", cluster=self.identity.cluster),
                lambda failure: _log.error(
                    "this node serves but cannot be found, since advertising failed: {error}", error=failure.value
                ),
            )

    async def _stop(self) -> None:
        try:
            await Deferred.fromCoroutine(self._say_goodbye()).addTimeout(GOODBYE_S, self._reactor)
        except Exception as error:  # noqa: BLE001 - whatever it is, what is in flight must still be finished
            _log.warn("the advertisement could not be withdrawn: {error}", error=error)
        if self._port is not None:
            stopped = self._port.stopListening()
            if stopped is not None:
                await stopped
        await self._drain()
        self._publisher.close()
        self._checks.stop()
        self._presence.remove()
        self._threads.adjustPoolsize(0, 0)  # stop() would join them, on the reactor
        if self._publisher.pending:
            _log.warn("{number} puts were cut: the disk had not taken them in time", number=self._publisher.pending)
        else:
            self._store.close()

    async def _say_goodbye(self) -> None:
        if self._advertiser is not None and self._announced is not None:
            await self._announced
            await deferToThreadPool(self._reactor, self._threads, self._advertiser.withdraw)

    def _check(self) -> None:
        self._server.check_channels()
        if self._publisher.failure is not None and not self._failure_logged:
            self._failure_logged = True
            _log.critical("{failure}", failure=self._publisher.failure)

    async def _drain(self) -> None:
        """Let every connection finish what has begun, for a bounded time."""
        deadline = self._reactor.seconds() + DRAIN_S
        while self._server.channels and self._reactor.seconds() < deadline:
            for channel in tuple(self._server.channels):
                channel.close_when_idle()
            await deferLater(self._reactor, DRAIN_POLL_S)
        for channel in tuple(self._server.channels):
            _log.warn("a connection was cut: it had not finished within {seconds} s", seconds=DRAIN_S)
            channel.cut()
        while self._server.channels:  # each discards what it spooled, which needs the store
            await deferLater(self._reactor, 0)
        while self._publisher.pending and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, DRAIN_POLL_S)

    def stopService(self) -> "Deferred[None]":
        """Say goodbye, refuse new connections, finish what is in flight, let go of the store."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())


def _advertisement(identity: Identity) -> Advertisement:
    return Advertisement(
        instance_name(identity.cluster, identity.computer, os.getpid()),
        identity.address,
        identity.port,
        identity.node_id,
        identity.version,
    )


def _listen(address: str, port: int) -> socket.socket:
    """Return a socket that listens on *address* and *port* (0: any); raise BadConfig when that cannot be."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        match error.errno:
            case errno.EADDRINUSE:
                problem = "is taken by another program; stop that one or choose another with --port (0 = any free one)"
            case errno.EADDRNOTAVAIL:
                problem = "cannot be used: this machine does not have the address; choose one that it has with --bind"
            case errno.EACCES:
                problem = "cannot be used without privileges; choose one above 1023 with --port"
            case _:
                problem = f"cannot be used: {error.strerror}"
        raise BadConfig(f"port {port} on {address} {problem}") from error
    return listening
