"""What happens in one simulated run, and what must hold in the end.

The seed decides how many nodes and clients there are, what they do, and which faults meet them: nodes are killed, lose power,
freeze, are stopped in order, are cut off, lose their connections, or get a disk that fails its syncs. Then everything heals,
what was begun must end, and every client looks at everything once more. What they saw goes through the history checker.
"""

import gc
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from errno import EIO
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher

from granum.wire.errors import AlreadyStored, GranumError, NotReceipted, NotStored
from granum.wire.paths import HIDDEN_NAME
from integration.history import Final, History, Listed, Outcome, Put, Read, Streamed, anomalies
from integration.simulation.disk import Disk
from integration.simulation.machines import ClientMachine, Ether, NodeMachine, replace_seams
from integration.simulation.streams import change_minds, digest_of, film, follow
from integration.simulation.wires import Network
from integration.simulation.world import World

SETTLE_S = 2.0  # before the first operation: every client has heard of every node
FAULTS_S = 20.0  # while faults happen
HEAL_S = 300.0  # by then everything that was begun has ended, one way or the other
KNOWN_AGAIN_S = 3.0  # after a node that said goodbye is back


@dataclass(slots=True)
class Run:
    """One run while it happens, and what was seen in it."""

    world: World
    nodes: list[NodeMachine]
    clients: list[ClientMachine]
    disk: Disk
    directory: str
    puts: list[Put] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    listings: list[Listed] = field(default_factory=list)
    streams: list[Streamed] = field(default_factory=list)
    collisions: set[str] = field(default_factory=set)
    doubled: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    away: list[list[float]] = field(default_factory=list)  # from when until when a node had said goodbye
    busy: int = 0
    broken: list[str] = field(default_factory=list)

    def may_lack(self, invoked: float, completed: float) -> bool:
        """Whether a node had left the cluster in order in that time, and taken its files along."""
        return any(left <= completed and invoked <= back for left, back in self.away)

    def fault(self, what: str) -> None:
        """Note a fault."""
        self.faults.append(f"{self.world.now:7.3f}  {what}")
        self.world.note(what)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one seed: *broken* are sentences, none when all held."""

    seed: int
    trace: str
    broken: list[str]
    faults: list[str]
    operations: int
    simulated_s: float


def simulate(seed: int, directory: str) -> Verdict:
    """Run *seed* in the empty *directory*, in a process of its own: the seams are replaced for good."""
    world = World(seed)
    world.network = Network(world)
    replace_seams(world)
    disk = Disk()
    disk.watch()
    logged: list[str] = []
    globalLogPublisher.addObserver(cast("Any", lambda event: _keep_failures(event, logged)))
    ether = Ether(world)
    chance = world.random
    nodes = [NodeMachine(world, ether, n + 1, directory) for n in range(chance.choice((1, 2, 3, 3)))]
    clients = [ClientMachine(world, ether, n + 1) for n in range(chance.choice((1, 2)))]
    run = Run(world, nodes, clients, disk, directory)
    for node in nodes:
        node.start()
    for client in clients:
        client.start()
    world.run(lambda: False, SETTLE_S)
    for client in clients:
        for work in chance.sample((_film, _film_two, _whole_files, _races), k=chance.choice((1, 2))):
            _begin(run, client, work)
        for work in chance.sample((_follow, change_minds), k=chance.choice((0, 0, 1))):
            _begin(run, client, work)
    _plan_faults(run)
    world.run(lambda: False, FAULTS_S)
    _heal(run)
    broken = []
    if not world.run(lambda: run.busy == 0, HEAL_S):
        broken.append(f"H {run.busy} of the clients' tasks had not ended {HEAL_S:g} s after everything was whole again")
    since = world.now
    for client in clients:
        _begin(run, client, _look_at_all)
    if not world.run(lambda: run.busy == 0, HEAL_S):
        broken.append("H the last look at everything did not end")
    history = History(
        run.puts,
        run.reads,
        run.listings,
        run.streams,
        Final(since, _copies(run.nodes)),
        frozenset(run.collisions),
        frozenset(run.doubled),
    )
    broken += run.broken
    broken += anomalies(history)
    broken += _end(run)
    gc.collect()  # a failure that nobody handled is told when its Deferred is collected
    broken += [f"E {error}" for error in (*world.errors, *logged)]
    return Verdict(seed, world.trace, broken, run.faults, len(run.puts) + len(run.reads) + len(run.listings), world.now)


def _keep_failures(event: dict[str, Any], kept: list[str]) -> None:
    failure = event.get("log_failure")
    if failure is not None:
        kept.append(f"{event.get('log_format') or event.get('why')}: {failure.getTraceback()}")


# -- what clients do --------------------------------------------------------------------------------------------------


Work = Callable[[Run, ClientMachine], Coroutine[Any, Any, None]]


def _begin(run: Run, client: ClientMachine, work: Work) -> None:
    run.busy += 1

    def ended(result: object) -> object:
        run.busy -= 1
        return result

    def begin() -> None:
        working = Deferred.fromCoroutine(work(run, client))
        working.addBoth(ended)
        working.addErrback(lambda failure: run.world.errors.append(f"{client.name}: {failure.getTraceback()}"))

    client.process.do(begin)


async def _sleep(run: Run, client: ClientMachine, most_s: float) -> None:
    await deferLater(client.process.reactor, run.world.random.uniform(0.0005, most_s))


async def _film(run: Run, client: ClientMachine) -> None:
    """Write a series."""
    await film(run, client, 0)


async def _film_two(run: Run, client: ClientMachine) -> None:
    """Write two series, both at once."""
    for number in (1, 2):
        _begin(run, client, partial(_film_numbered, number))


async def _film_numbered(number: int, run: Run, client: ClientMachine) -> None:
    await film(run, client, number)


async def _follow(run: Run, client: ClientMachine) -> None:
    """Follow a series that some client writes."""
    await follow(run, client, run.world.random.choice(run.clients))


async def _whole_files(run: Run, client: ClientMachine) -> None:
    """Put, read and list files in a directory that all clients share."""
    for _ in range(run.world.random.randrange(5, 40)):
        await _sleep(run, client, 1.0)
        path = f"/shared/{run.world.random.randrange(12)}"
        match run.world.random.randrange(4):
            case 0 | 1:
                await _put(run, client, path)
            case 2:
                await _read(run, client, path)
            case 3:
                await _list(run, client, "/shared")


async def _races(run: Run, client: ClientMachine) -> None:
    """Put names that another client puts at the same moment, with other bytes, on the same node."""
    world = run.world
    for n in range(8):
        await deferLater(client.process.reactor, max(0.0, SETTLE_S + 1.0 + 2.0 * n - world.now))
        await _put(run, client, f"/race/{n}", first_node=True)
        await _read(run, client, f"/race/{n}")


async def _put(run: Run, client: ClientMachine, path: str, *, first_node: bool = False) -> None:
    world = run.world
    body = world.random.randbytes(world.random.choice((0, 10, 5000, 100_000)))
    invoked = world.now
    chosen = client.cluster.roster.nodes()[:1] if first_node else ()
    try:
        receipt = await client.cluster.put(path, body, **({"node": chosen[0]} if chosen else {}))
        outcome, node = Outcome.OK, receipt.node.key
    except AlreadyStored:
        outcome, node = Outcome.REFUSED, ""
    except NotReceipted:
        outcome, node = Outcome.INFO, ""
    except GranumError:
        # What a put that was answered with an error of the node left behind is not said: a disk may fail behind the name.
        outcome, node = Outcome.INFO, ""
    run.puts.append(Put(path, digest_of(body), len(body), invoked, world.now, outcome, node))


async def _read(run: Run, client: ClientMachine, path: str) -> None:
    invoked = run.world.now
    try:
        digest: str | None = digest_of(await client.cluster.get(path))
    except NotStored:
        digest = None
    except GranumError:
        return
    if digest is not None or not run.may_lack(invoked, run.world.now):
        run.reads.append(Read(path, digest, invoked, run.world.now, client.name))


async def _list(run: Run, client: ClientMachine, directory: str) -> None:
    invoked = run.world.now
    try:
        view = await client.cluster.listdir(directory)
    except NotStored:
        sizes, complete = {}, True
    except GranumError:
        return
    else:
        # What a series says of itself is put by its writer, which tells nobody the bytes.
        files = (name for name in view if not view[name].is_directory and not name.endswith(".json"))
        sizes = {name: view[name].size for name in files}
        complete = not view.partial
        run.collisions |= {f"{directory}/{collision.name}" for collision in view.collisions}
    complete = complete and not run.may_lack(invoked, run.world.now)
    run.listings.append(Listed(directory.rstrip("/") + "/", sizes, invoked, run.world.now, complete))


async def _look_at_all(run: Run, client: ClientMachine) -> None:
    """Wait until a change is known everywhere, then list every directory and read every path."""
    await deferLater(client.process.reactor, 15.0)
    paths = sorted({put.path for put in run.puts})
    for directory in sorted({path.rpartition("/")[0] or "/" for path in paths}):
        await _list(run, client, directory)
    for path in paths:
        await _read(run, client, path)


# -- what happens to them ---------------------------------------------------------------------------------------------


def _plan_faults(run: Run) -> None:
    world = run.world
    faults = (_kill, _cut_power, _freeze, _part, _reset, _reset, _stop, _fail_disk)
    for _ in range(world.random.randrange(8)):
        fault = world.random.choice(faults)
        when = world.now + world.random.uniform(0.0, FAULTS_S - 5.0)
        world.at(when, world.network.process, partial(fault, run, world.random.choice(run.nodes)))


def _later(run: Run, call: Callable[[], None]) -> None:
    world = run.world
    world.at(world.now + world.random.uniform(0.01, 8.0), world.network.process, call)


def _kill(run: Run, node: NodeMachine) -> None:
    if node.is_up:
        run.fault(f"kill {node.name}")
        node.kill()
        _later(run, partial(_start, run, node))


def _cut_power(run: Run, node: NodeMachine) -> None:
    if node.is_up:
        run.fault(f"cut the power of {node.name}")
        node.kill(has_no_power=True)
        run.disk.cut(node.root, run.world.random)
        _later(run, partial(_start, run, node))


def _start(run: Run, node: NodeMachine) -> None:
    if not node.is_up:
        run.fault(f"start {node.name}")
        run.disk.failing.pop(node.root, None)
        node.start()


def _freeze(run: Run, node: NodeMachine) -> None:
    if node.is_up and node.process is not None and not node.process.is_frozen:
        run.fault(f"freeze {node.name}")
        node.process.freeze()
        _later(run, partial(_thaw, run, node))


def _thaw(run: Run, node: NodeMachine) -> None:
    if node.is_up and node.process is not None and node.process.is_frozen:
        run.fault(f"thaw {node.name}")
        node.process.thaw()


def _part(run: Run, node: NodeMachine) -> None:
    client = run.world.random.choice(run.clients)
    if node.process is not None:
        process = node.process
        run.fault(f"part {client.name} from {node.name}")
        run.world.network.part(client.process, process)
        _later(run, partial(_join, run, client, node, process))


def _reset(run: Run, node: NodeMachine) -> None:
    client = run.world.random.choice(run.clients)
    if node.process is not None and node.process.is_alive:
        run.fault(f"reset the connections of {client.name} and {node.name}")
        run.world.network.reset(client.process, node.process)


def _join(run: Run, client: ClientMachine, node: NodeMachine, process: Any) -> None:
    run.fault(f"join {client.name} and {node.name}")
    run.world.network.join(client.process, process)


def _stop(run: Run, node: NodeMachine) -> None:
    is_running = node.is_up and node.process is not None and not node.process.is_frozen and not node.is_stopping
    if is_running and len(run.nodes) > 1:
        run.fault(f"stop {node.name}")
        interval = [run.world.now, float("inf")]
        run.away.append(interval)
        node.stop()

        def again() -> None:
            if node.is_up:
                _later(run, again)
                return
            _start(run, node)
            interval[1] = run.world.now + KNOWN_AGAIN_S

        _later(run, again)


def _fail_disk(run: Run, node: NodeMachine) -> None:
    if node.is_up:
        run.fault(f"fail the disk of {node.name}")
        run.disk.failing[node.root] = EIO
        _later(run, partial(_kill, run, node))


def _heal(run: Run) -> None:
    run.fault("everything is whole again")
    run.disk.failing.clear()
    for node in run.nodes:
        _thaw(run, node)
        for client in run.clients:
            if node.process is not None:
                run.world.network.join(client.process, node.process)


# -- the end ----------------------------------------------------------------------------------------------------------


def _copies(nodes: list[NodeMachine]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for node in nodes:
        for directory, names, files in os.walk(node.root):
            if HIDDEN_NAME in names:
                names.remove(HIDDEN_NAME)
            for name in files:
                with open(os.path.join(directory, name), "rb") as file:
                    path = "/" + os.path.relpath(os.path.join(directory, name), node.root)
                    found.setdefault(path, {})[node.name] = digest_of(file.read())
    return found


def _end(run: Run) -> list[str]:
    """Stop everything in order; return a sentence for whatever stays behind."""
    over: list[str] = []
    left: list[str] = []
    for client in run.clients:
        client.process.do(partial(_stop_client, client, over))
    if not run.world.run(lambda: len(over) == len(run.clients), 30.0):
        left.append("L a client did not stop within 30 s")
    run.world.run(lambda: False, 1.0)
    for client in run.clients:
        behind = client.process.reactor.getDelayedCalls()
        left += [f"L {client.name} has stopped and left {call.func} behind" for call in behind]
    for node in run.nodes:
        if node.is_up:
            node.stop()
    if not run.world.run(lambda: not any(node.is_up for node in run.nodes), 30.0):
        left.append("L a node did not stop within 30 s")
    return left


def _stop_client(client: ClientMachine, over: list[str]) -> None:
    client.cluster.stopService().addBoth(lambda _: over.append(client.name))
