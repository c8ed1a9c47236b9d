"""The node put together; read `startService` for the order of its life, `stopService` for its end."""

import os
from functools import partial
from threading import Thread

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from granum.wire.advert import Advertisement, instance_name
from granum.wire.digest import XXH3
from granum_node import __version__
from granum_node.advertise import computer_name, make_advertiser
from granum_node.config import NodeConfig
from granum_node.http.gate import Rules
from granum_node.http.meters import LagTicker, Meters
from granum_node.http.pool import ReactorPool
from granum_node.http.server import Server
from granum_node.http.state import State
from granum_node.http.status import Identity
from granum_node.listening import endpoints, listen, own_names
from granum_node.presence import Presence
from granum_node.reactor import Reactor
from granum_node.storage.commit import COMMIT_THREADS, Commit
from granum_node.storage.publish import Publisher, Relaxed
from granum_node.storage.quota import Quotas
from granum_node.storage.space import Space
from granum_node.storage.store import Store, check_directory
from granum_node.storage.usage import measure
from granum_node.supervision import READY, STOPPING, Supervisor, Watchdog
from granum_node.upkeep import Upkeep, recover

CHECK_S = 0.5  # how often connections are looked at for deadlines
MEASURE_S = 600.0  # between measurements of directories with a quota; puts are counted in between
GOODBYE_S = 5.0  # for the network and the registry; a goodbye takes a second
DRAIN_S = 10.0  # for what is in flight when the node is told to stop
DRAIN_POLL_S = 0.02
THREADS = 4  # listings and advertising, beside those of the publisher
_log = Logger()


class NodeService(Service):
    """One node: its store, its port, its advertisement. *reactor* has monotonic time."""

    def __init__(self, config: NodeConfig, reactor: Reactor, number: int | None = None) -> None:
        """Take port and store, in this order, so that a failure of the first leaves no trace in the second.

        *number*, by default the process id, tells nodes of one machine apart where they are advertised: several nodes of one
        process need one each.
        Raises StoreUnusable, StoreLocked, or BadConfig for an address or port that cannot be had.
        """
        check_directory(config.root)
        listening = listen(config.bind, config.port)
        try:
            self._store = _open_store(config)
        except BaseException:
            for each in listening:
                each.close()
            raise
        self._reactor = reactor
        self._listening = listening
        self._threads = ThreadPool(1, THREADS + COMMIT_THREADS, "granum-node")
        # A thread that hangs on a dead disk must not keep the process.
        self._threads.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]  # any callable will do
        self.identity = _identity(config, self._store, port=listening[0].getsockname()[1])
        number = os.getpid() if number is None else number
        self._meters = meters = Meters(reactor.seconds)
        self._publisher = _publisher(config, self._store, reactor, meters)
        self._upkeep = Upkeep(self._store, self._publisher, config, reactor.callFromThread, meters.synced)
        self._space = _space(config, self._store, reactor)
        self._server = Server(
            self._store,
            self._publisher,
            self._space,
            self.identity,
            reactor,
            ReactorPool(reactor, self._threads),
            Rules.of(own_names(config), self.identity.port, config.allow),
            meters,
            log_requests=config.log_requests,
        )
        self._presence = Presence(self._store.node_id, config.root, os.environ)
        self._advertiser = make_advertiser(config.advertise, _advertisement(self.identity, number))
        self._announced: Deferred[None] | None = None
        self._checks = LoopingCall(self._check)
        self._checks.clock = reactor
        self._measurements = LoopingCall(lambda: Deferred.fromCoroutine(self._measure_quotas()))
        self._measurements.clock = reactor
        self._lag = LagTicker(reactor, meters.lag)
        self._supervisor = Supervisor(os.environ, os.getpid())
        self._beats = LoopingCall(Watchdog(self._supervisor, self._publisher).beat)
        self._beats.clock = reactor
        self._state = State.SERVING  # as it was told last
        self._ports: list[IListeningPort] = []

    @property
    def url(self) -> str:
        """Where the node answers."""
        return f"http://{self.identity.address}:{self.identity.port}"

    def startService(self) -> None:
        """Serve, then tell the network."""
        super().startService()  # type: ignore[no-untyped-call]
        self._threads.start()
        self._publisher.start(self._threads.callInThread)
        self._upkeep.start()
        opened = [endpoint.listen(self._server) for endpoint in endpoints(self._reactor, self._listening)]
        gatherResults(opened).addCallback(self._serving)
        self._checks.start(CHECK_S, now=False)
        self._lag.start()
        self._tell_state()
        if self._space.quotas.directories:
            self._measurements.start(MEASURE_S).addErrback(
                lambda failure: _log.failure("quotas are not measured any more", failure=failure)
            )

    def _serving(self, ports: list[IListeningPort]) -> None:
        self._ports = ports
        self._supervisor.tell(READY)
        if self._supervisor.beat_s is not None:
            self._beats.start(self._supervisor.beat_s)
        self._server.door.accept_from(ports)  # type: ignore[arg-type]  # every port of a reactor can pause
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
        self._server.door.accept_from([])
        for port in self._ports:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped
        await self._drain()
        self._publisher.close()
        self._lag.stop()
        for call in (self._checks, self._measurements, self._beats):
            if call.running:
                call.stop()
        self._presence.remove()
        is_kept = await self._end_upkeep()
        self._threads.adjustPoolsize(0, 0)  # stop() would join them, on the reactor
        if self._publisher.pending:
            _log.warn("{number} puts were cut: the disk had not taken them in time", number=self._publisher.pending)
        elif is_kept:
            self._store.close()

    async def _end_upkeep(self) -> bool:
        """Have the upkeep of the store ended; False when it still uses the store, because its disk hangs."""
        try:
            ended = deferToThreadPool(self._reactor, self._threads, self._upkeep.end)
            await ended.addTimeout(GOODBYE_S, self._reactor)
        except Exception as error:  # noqa: BLE001 - a disk that hangs must not keep the process
            _log.warn("not everything was synced before the end: {error}", error=error)
            return False
        return True

    async def _say_goodbye(self) -> None:
        if self._advertiser is not None and self._announced is not None:
            await self._announced
            await deferToThreadPool(self._reactor, self._threads, self._advertiser.withdraw)

    def _check(self) -> None:
        self._server.check_channels()
        self._upkeep.watch(sum(self._meters.bytes_moved(self._server.channels)))
        self._tell_state()

    def _tell_state(self) -> None:
        """Say in the log what the node is fit for, when that has changed."""
        state, refusal = self._server.states.now()
        before, self._state = self._state, state
        if state is before:
            return
        if state is State.FAILED:
            _log.critical("{reason}", reason=refusal)
        elif state is State.SERVING:
            _log.info("puts are taken again")
        else:
            _log.warn("puts are refused, reading goes on: {reason}", reason=refusal)

    async def _measure_quotas(self) -> None:
        for name, quota in self._space.quotas.directories.items():
            quota.begin_measuring()
            quota.measured(*await deferToThreadPool(self._reactor, self._threads, measure, self._store.tree, name))

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
        self._supervisor.tell(STOPPING)
        return Deferred.fromCoroutine(self._stop())


def _open_store(config: NodeConfig) -> Store:
    store = Store.open(config.root, digests=config.digest != "off")
    recover(store, relaxed=config.durability == "relaxed")
    if config.digest != "off" and not store.records:
        _log.warn("files are kept and served without a digest: the store's file system keeps no attributes of users")
    return store


def _identity(config: NodeConfig, store: Store, port: int) -> Identity:
    return Identity(
        node_id=store.node_id,
        cluster=config.cluster,
        computer=computer_name(os.environ),
        address=config.bind[0],
        port=port,
        version=__version__,
        digest=XXH3 if store.records else "off",
    )


def _publisher(config: NodeConfig, store: Store, reactor: Reactor, meters: Meters) -> Publisher:
    if config.durability == "commit":
        return Commit(store.tree, reactor.callFromThread, meters.synced)
    return Relaxed(store.tree)


def _space(config: NodeConfig, store: Store, reactor: Reactor) -> Space:
    quotas = Quotas.of(config.quota, config.quota_files, config.quota_per_address, reactor.seconds)
    return Space(store.room, reactor.seconds, config.reserve_bytes, config.reserve_inodes, quotas)


def _advertisement(identity: Identity, number: int) -> Advertisement:
    return Advertisement(
        instance_name(identity.cluster, identity.computer, number),
        identity.address,
        identity.port,
        identity.node_id,
        identity.version,
    )
