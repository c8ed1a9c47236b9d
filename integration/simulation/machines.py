"""The machines of a simulated cluster: nodes and clients, each the real thing on a simulated reactor.

What is replaced are threads, and what would be chance: the pool of a node, the queue of those who commit, node ids and image ids.
Everything else is what `granum-node` and `import granum` run.
"""

import os
import queue
import random
import secrets
import uuid
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed

import granum.streaming.series
import granum_node.service
from granum import Cluster
from granum.streaming.encoding import Encoders
from granum.wire.advert import Advertisement, instance_name
from granum.wire.paths import HIDDEN_NAME
from granum_node.config import Allowed, NodeConfig
from granum_node.service import NodeService
from granum_node.sizes import Size
from integration.simulation.world import Pool, Process, World

CLUSTER = "simulated"
GOODBYE_WAIT_S = 12.0  # of simulated time: a node's own limit is ten


class Tasks:
    """The queue of a committing publisher, whose threads are events: whoever takes from it is told to end."""

    def __init__(self) -> None:
        self._process = _running()

    def put(self, task: Callable[[], None] | None) -> None:
        """Do *task* some time later."""
        if task is not None:
            self._process.world.soon(self._process, task, most_s=self._process.world.sync_s)

    def get(self) -> None:
        """Return what ends a thread."""


class NoUpkeep:
    """The digest log and the scrub, left out: both are threads that only look at what is stored."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:  # Any: whatever a service asks of its upkeep
        return lambda *_, **__: None


class TurnEncoders(Encoders):
    """Encoders whose threads are events: as many as the seed says, since cores are not of the run."""

    def __init__(self, reactor: Any, count: int | None = None) -> None:
        self._process = _running()
        super().__init__(reactor, count or self._process.world.random.choice((1, 2, 4)))

    def run(self, job: Callable[[], Any]) -> Deferred[Any]:
        """Do *job* some time later."""
        done: Deferred[Any] = Deferred()
        self._busy += 1
        self._process.world.soon(self._process, lambda: self._tell(done, job()), most_s=0.1)
        return done


def replace_seams(world: World) -> None:
    """Replace threads and chance by those of *world*, for the life of this process."""
    chance = random.Random(world.seed ^ 0x5EED)
    seams: tuple[tuple[Any, str, object], ...] = (  # Any: modules
        (granum_node.service, "ThreadPool", lambda *_: Pool(_running())),
        (granum_node.service, "Upkeep", NoUpkeep),
        (granum.streaming.series, "Encoders", TurnEncoders),
        (queue, "SimpleQueue", Tasks),
        (uuid, "uuid4", lambda: uuid.UUID(int=chance.getrandbits(128), version=4)),
        (secrets, "randbelow", chance.randrange),
    )
    for module, name, substitute in seams:
        setattr(module, name, substitute)
    World.current = world


def _running() -> Process:
    running = World.current.running
    assert running is not None
    return running


class Ether:
    """What is advertised: clients hear of it a little later, and of a node that is dead only that it was once there."""

    name = "ether"

    def __init__(self, world: World) -> None:
        self.world = world
        self.heard: dict[str, Advertisement] = {}
        self.sources: list[Source] = []

    def announce(self, advertisement: Advertisement) -> None:
        """Tell every client of *advertisement*."""
        self.heard[advertisement.instance] = advertisement
        for source in self.sources:
            source.tell(advertisement)

    def withdraw(self, instance: str) -> None:
        """Say goodbye for *instance*."""
        if self.heard.pop(instance, None) is not None:
            for source in self.sources:
                source.forget(instance)


class Source:
    """How one client hears the ether."""

    name = "mdns"

    def __init__(self, ether: Ether, process: Process) -> None:
        self._ether = ether
        self._process = process
        self._sink: Any = None  # Any: a Sink
        self._arrives = 0.0
        ether.sources.append(self)

    def start(self, sink: Any) -> Deferred[None]:
        """Hear of what is there, and settle."""
        self._sink = sink
        for advertisement in self._ether.heard.values():
            sink.heard(advertisement, self.name)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Hear nothing more."""
        self._sink = None
        return succeed(None)

    def describe(self) -> str:
        """Say where was looked."""
        return "the ether"

    def tell(self, advertisement: Advertisement) -> None:
        """Bring *advertisement* some time later."""
        self._bring(lambda: self._sink and self._sink.heard(advertisement, self.name))

    def forget(self, instance: str) -> None:
        """Bring a goodbye some time later."""
        self._bring(lambda: self._sink and self._sink.gone(instance, self.name))

    def _bring(self, call: Callable[[], object]) -> None:
        """Make *call* some time later, behind what was said before."""
        world = self._ether.world
        self._arrives = max(self._arrives, world.now + world.random.uniform(0.0, 0.5))
        world.at(self._arrives, self._process, lambda: (call(), None)[1])


class NodeMachine:
    """One node: its disk stays, its processes come and go."""

    def __init__(self, world: World, ether: Ether, number: int, directory: str) -> None:
        self.world = world
        self.name = f"node{number}"
        self.address = f"127.0.1.{number}"
        self.root = os.path.join(directory, self.name)
        os.makedirs(self.root)
        self._ether = ether
        self._number = number
        self._starts = 0
        self.is_stopping = False
        self.process: Process | None = None
        self.service: NodeService | None = None

    @property
    def is_up(self) -> bool:
        """Whether a process runs, frozen or not."""
        return self.process is not None and self.process.is_alive

    @property
    def instance(self) -> str:
        """The name it is advertised by."""
        return instance_name(CLUSTER, self.name, self._number)

    def start(self) -> None:
        """Start the daemon on a new port, which is advertised when it listens."""
        assert not self.is_up
        self._starts += 1
        process = self.process = Process(self.world, f"{self.name}.{self._starts}", self.address)
        self.world.network.hosts[self.address] = process
        config = NodeConfig(
            self.root,
            port=0,
            cluster=CLUSTER,
            bind=(self.address,),
            advertise="off",
            allow=(Allowed(ip_network("127.0.0.0/8"), writes=True),),
            reserve_bytes=Size(1),
            reserve_inodes=1,
        )

        def begin() -> None:
            self.service = NodeService(config, cast("Any", process.reactor), self._number)
            self.service.startService()
            identity = self.service.identity
            self._ether.announce(
                Advertisement(self.instance, identity.address, identity.port, identity.node_id, identity.version)
            )

        process.do(begin)

    def stop(self) -> None:
        """Tell it to end, as SIGTERM does; it does so in its own time."""
        process, service = self.process, self.service
        assert process is not None
        if self.is_stopping:
            return
        self.is_stopping = True
        self._ether.withdraw(self.instance)
        if service is None:  # it failed to start, and the run has failed by that
            self.kill()
            return

        def ended(_: object) -> None:
            self.world.soon(process, lambda: self._over(process))

        process.do(lambda: (service.stopService().addBoth(ended), None)[1])

    def kill(self, *, has_no_power: bool = False) -> None:
        """End it at once."""
        assert self.process is not None
        self.process.kill(has_no_power=has_no_power)
        self._let_go()

    def _over(self, process: Process) -> None:
        if process is self.process:
            process.kill()
            self._let_go()

    def _let_go(self) -> None:
        """Close what the kernel would, unless the node has done so itself: the lock of the store above all."""
        self.is_stopping = False
        service, self.service = self.service, None
        if service is None:
            return
        try:
            lock = os.readlink(f"/proc/self/fd/{service._store._lock}")  # noqa: SLF001 - what its process held
            has_lock = lock == os.path.join(self.root, HIDDEN_NAME, "lock")
        except FileNotFoundError:
            has_lock = False
        if has_lock:
            service._store.close()  # noqa: SLF001


class ClientMachine:
    """One client."""

    def __init__(self, world: World, ether: Ether, number: int) -> None:
        self.name = f"client{number}"
        self.process = Process(world, self.name, f"127.0.2.{number}")
        world.network.hosts[self.process.address] = self.process
        self._source = Source(ether, self.process)
        self.cluster: Cluster

    def start(self) -> None:
        """Make the cluster object and start it."""

        def begin() -> None:
            self.cluster = Cluster(CLUSTER, reactor=self.process.reactor, sources=[self._source], bypass=False)
            self.cluster.startService()

        self.process.do(begin)
