"""R26 and R19: nodes that the network takes away without a word, in namespaces: a partition that heals, a node that is gone.

Three nodes and two clients sit on one switch. The nodes are found by mDNS, which crosses it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from integration import namespaces
from integration.actor import Actor, Failed
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program
from integration.faults.filming import Stage
from integration.faults.waiting import pause, until
from integration.namespaces import NET, Host, Network

CLUSTER = "netlab"
NODES, CLIENTS = 3, 2
FILES = 30
FOUND_S = 30.0
TURNS = 60  # of looking at everything while the nodes are parted: every file twice
HEAL_S = 5.0
OPERATION_S = 5.0  # with a node that is gone, once
AVOIDED_S = 1.0  # every operation after that
TRY_S = 10.0  # between two connections to a node that is gone
GONE_S, GONE_LONG_S = 12, 40  # of using the others
MARGIN_S = 0.5  # of a processor that others use


@dataclass(slots=True)
class Bench:
    """A network with nodes and clients on it; *hosts* are those of the nodes."""

    network: Network
    stage: Stage
    hosts: list[Host]
    clients: list[Actor]


def node_at(host: Host, cluster: str = CLUSTER) -> Program:
    """Return the node as it runs on *host*."""
    command = ("-m", "granum_node", "--cluster", cluster, "--advertise", "mdns", "--bind", host.address)
    return Program("node", (*command, "--allow", f"{NET}.0/24=rw", "--reserve-bytes", "1", "--reserve-inodes", "1"))


@contextmanager
def bench(bed: Bed) -> Iterator[Bench]:
    """Build the network and start everything on it; every client knows every node."""
    with ExitStack() as running:
        network = running.enter_context(Network())
        hosts = [network.host() for _ in range(NODES)]
        machines = [network.host() for _ in range(CLIENTS)]
        ground = Stage([])
        for number, host in enumerate(hosts, 1):
            names = {"PYME_COMPUTERNAME": f"host{number}"}
            store, scratch = bed.directory / f"store{number}", bed.directory / f"daemon{number}"
            daemon = Daemon(node_at(host), store, scratch, prefix=host.prefix, environment=names)
            ground.daemons.append(running.enter_context(daemon))
        clients = [
            running.enter_context(
                Actor(
                    ground.recorder,
                    bed.directory / f"client{number}",
                    machine.prefix,
                    f"client{number}",
                    cluster=CLUSTER,
                )
            )
            for number, machine in enumerate(machines, 1)
        ]
        for client in clients:
            if not until(partial(_knows_all, client), FOUND_S, 0.1):
                raise RuntimeError(f"found only {client.ask('nodes')}")
        yield Bench(network, ground, hosts, clients)


def _knows_all(client: Actor) -> bool:
    return len(client.ask("nodes")) == NODES


def _is_whole(client: Actor) -> bool:
    return bool(client.ask("listdir", path="/a/") == [FILES, 0])


def _timed(act: Callable[[], object]) -> tuple[float, str]:
    """Return how long *act* took, and the kind of what it failed with."""
    began = time.monotonic()
    try:
        act()
    except Failed as error:
        return time.monotonic() - began, error.kind
    return time.monotonic() - began, ""


def _connects(client: Actor) -> int:
    """Return how many connections were begun on the host of *client* since it is there."""
    names, values = (
        line.split()
        for line in Path(f"/proc/{client.pid}/net/snmp").read_text().splitlines()
        if line.startswith("Tcp:")
    )
    return int(values[names.index("ActiveOpens")])


def _fill(client: Actor) -> dict[str, str]:
    """Put FILES, and return the address of the node that each is on."""
    return {f"/a/f{n}": client.ask("put", path=f"/a/f{n}", body=f"file {n}") for n in range(FILES)}


@row(
    "R26",
    figure="404 for an existing file 0, complete while a node is missing 0, heal <= 5 s",
    root=True,
    programs=["ip"],
    unless=namespaces.obstacle,
)
def partition(bed: Bed) -> Outcome:
    """Cut one node off from two others and the clients, look at everything meanwhile, and heal."""
    with bench(bed) as ground:
        placed = _fill(ground.clients[0])
        pause(2.0)  # in which the other client must have learned of them
        cut_off = ground.hosts[0]
        kinds: list[str] = []
        complete = 0
        ground.network.part([cut_off])
        turns = bed.amount(TURNS, 10 * TURNS)
        for turn in range(turns):
            path = f"/a/f{turn % FILES}"
            for number, client in enumerate(ground.clients):
                kinds.append(_timed(partial(client.ask, "get", path=path))[1])
                names, missing = client.ask("listdir", path="/a/")
                complete += not missing and names < FILES
                _timed(partial(client.ask, "put", path=f"/b/{number}-{turn}", body="x"))
        ground.network.heal()
        healed = time.monotonic()
        whole = [until(partial(_is_whole, client), FOUND_S) for client in ground.clients]
        heal_s = time.monotonic() - healed
        since = time.monotonic()
        for path in placed:
            ground.clients[1].ask("get", path=path)
        for client in ground.clients:
            client.collect()
        absent, unknown = kinds.count("NotStored"), len(kinds) - kinds.count("")
        figure = (
            f"404 {absent} of {len(kinds)} looks, {unknown} answered by an error; complete {complete}, "
            f"healed in {heal_s:.1f} s"
        )
        held = {
            "no 404": not absent,
            "some could not be read": unknown > 0,
            "never complete": not complete,
            "healed": all(whole) and heal_s <= HEAL_S,
        }
        return ground.stage.verdict("R26", figure, held, since)


@row(
    "R19",
    figure="longest operation <= 5 s once, then <= 1 s, <= 1 connect in 10 s: the node is avoided",
    root=True,
    programs=["ip"],
    unless=namespaces.obstacle,
)
def silently_gone(bed: Bed) -> Outcome:
    """Unplug a node without a word, and go on using the others."""
    with bench(bed) as ground:
        client = ground.clients[0]
        placed = _fill(client)
        gone = ground.hosts[0]
        there = [path for path, host in placed.items() if not host.startswith(f"{gone.address}:")]
        ground.network.part([gone])
        began = avoided = time.monotonic()
        took_s: list[float] = []
        before = _connects(client)
        while time.monotonic() - began < bed.amount(GONE_S, GONE_LONG_S):
            path, new = there[len(took_s) % len(there)], f"/c/{len(took_s)}"
            took_s += (
                _timed(partial(client.ask, "listdir", path="/a/"))[0],
                _timed(partial(client.ask, "get", path=path))[0],
                _timed(partial(client.ask, "put", path=new, body="x"))[0],
            )
            if max(took_s[-3:]) > AVOIDED_S:
                avoided, before = time.monotonic(), _connects(client)
        tries, tries_max = _connects(client) - before, 1 + (time.monotonic() - avoided) / TRY_S
        slow = sum(each > AVOIDED_S for each in took_s)
        ground.network.heal()
        client.collect()
        figure = (
            f"longest {max(took_s):.1f} s, {slow} of {len(took_s)} operations > {AVOIDED_S:.0f} s, "
            f"{tries} connects after that"
        )
        held = {"longest": max(took_s) <= OPERATION_S + MARGIN_S, "once": slow <= 1, "left alone": tries <= tries_max}
        return ground.stage.verdict("R19", figure, held)
