"""R21 to R23: nodes that leave, with a goodbye and without, that come back elsewhere, that share a name, or belong to others.

All nodes are found by mDNS; each run has a cluster name of its own. A figure that is a time is tried again when it is missed,
since on a busy machine one try says little.
"""

import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import granum
from granum.wire.errors import GranumError
from integration import namespaces
from integration.actor import Actor
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program
from integration.faults.filming import Stage, host_of
from integration.faults.row_partitions import node_at
from integration.faults.waiting import pause, until
from integration.namespaces import Host, Network
from integration.recorder import Recorded

TRIES = 3
GOODBYE_S, CRASH_S, RETURN_S = 1.5, 5.0, 3.0
NEVER_S = 20.0
LOOK_S = 0.05
FILES = 12
WATCH_S, WATCH_LONG_S = 8, 60

State = dict[str, tuple[str, bool]]  # of each node by its key: where it is, and whether it answers


@contextmanager
def _found_by_mdns(bed: Bed, count: int) -> Iterator[tuple[Stage, Recorded]]:
    """Start *count* nodes on loopback and a client that has found them all."""
    cluster = f"roster-{uuid.uuid4().hex[:8]}"
    command = ("-m", "granum_node", "--cluster", cluster, "--advertise", "mdns")
    program = Program("node", (*command, "--reserve-bytes", "1", "--reserve-inodes", "1"))
    with ExitStack() as running:
        ground = Stage([])
        for number in range(1, count + 1):
            daemon = Daemon(program, bed.directory / f"store{number}", bed.directory / f"daemon{number}")
            ground.daemons.append(running.enter_context(daemon))
        client = running.enter_context(granum.connect(cluster, bypass=False))
        if not until(lambda: len(client.nodes()) == count, NEVER_S):
            raise RuntimeError(f"found only {client.nodes()}")
        yield ground, Recorded(client, ground.recorder)


def _state(client: Recorded) -> State:
    return {state.node.key: (state.node.host, state.cause is None) for state in client.cluster.nodes()}


def _answering(client: Recorded) -> set[str]:
    return {host for host, answers in _state(client).values() if answers}


def _after(act: Callable[[], object], condition: Callable[[], bool]) -> float:
    """Return how many seconds after *act* began *condition* became true; inf when it did not."""
    began = time.monotonic()
    act()
    return time.monotonic() - began if until(condition, NEVER_S, LOOK_S) else float("inf")


def _is_gone(client: Recorded, host: str, *, looks: bool) -> bool:
    """Whether *client* no longer counts on *host*; it *looks* at a directory first, as a program in use does."""
    if looks:
        with suppress(GranumError):
            client.listdir("/")
    return host not in _answering(client)


@row("R21", figure="left the roster <= 1.5 s after a goodbye, <= 5 s after a crash")
def leaving(bed: Bed) -> Outcome:
    """Let one node say goodbye, and another crash."""
    goodbye_s = crash_s = float("inf")
    with _found_by_mdns(bed, 3) as (ground, client):
        first, second = ground.daemons[:2]
        for _ in range(TRIES):
            host = host_of(first)
            terminate = partial(first.process.send_signal, signal.SIGTERM)
            goodbye_s = min(goodbye_s, _after(terminate, partial(_is_gone, client, host, looks=False)))
            whole = not client.listdir("/").partial
            first.stop()
            if goodbye_s <= GOODBYE_S:
                break
            first.start()
            until(lambda: len(_answering(client)) == 3, NEVER_S)
        there = len(_answering(client))
        for _ in range(TRIES):
            host = host_of(second)
            crash_s = min(crash_s, _after(second.kill, partial(_is_gone, client, host, looks=True)))
            partial_view = client.listdir("/").partial
            if crash_s <= CRASH_S:
                break
            second.start()
            until(partial(_is_back, client, there), NEVER_S)
        figure = f"{goodbye_s:.2f} s after a goodbye, {crash_s:.2f} s after a crash"
        held = {
            "goodbye": goodbye_s <= GOODBYE_S,
            "crash": crash_s <= CRASH_S,
            "whole without the one that left": whole,
            "partial without the one that crashed": partial_view,
        }
        return ground.verdict("R21", figure, held)


def _is_back(client: Recorded, count: int) -> bool:
    return len(_answering(client)) == count


@row("R22", figure="found again <= 3 s, duplicates in the roster 0")
def another_port(bed: Bed) -> Outcome:
    """Restart a node on another port."""
    back_s: list[float] = []
    duplicates = 0
    with _found_by_mdns(bed, 2) as (ground, client):
        daemon = ground.daemons[0]
        paths = [f"/a/f{number}" for number in range(FILES)]
        for path in paths:
            client.put(path, path.encode())
        for attempt in range(TRIES):
            (daemon.kill if attempt % 2 else daemon.stop)()
            address, _ = daemon.address
            daemon.address = (address, 0)
            daemon.start()
            took_s = _after(lambda: None, lambda: host_of(daemon) in _answering(client))
            duplicates += len(_state(client)) - 2
            back_s.append(took_s)
        since = time.monotonic()
        for path in paths:
            client.get(path)
        figure = f"found again in {min(back_s):.2f} to {max(back_s):.2f} s, duplicates {duplicates}"
        held = {
            "every time": max(back_s) < NEVER_S,
            "in time": min(back_s) <= RETURN_S,
            "no duplicates": not duplicates,
        }
        return ground.verdict("R22", figure, held, since)


@row(
    "R23",
    figure="flaps 0, cross-cluster bytes 0, both nodes of one name used",
    root=True,
    programs=["ip", "unshare"],
    unless=namespaces.obstacle,
)
def one_name(bed: Bed) -> Outcome:
    """Start two nodes with one instance name, and one of a cluster whose name begins with that of theirs."""
    with ExitStack() as running:
        network = running.enter_context(Network())
        ground = Stage([])

        def start(number: int, cluster: str, host: Host) -> None:
            # Alone in its namespace of processes each has the id 1; with one computer name that is one instance name.
            alone = (*host.prefix, "unshare", "--pid", "--fork", "--kill-child")
            store, scratch = bed.directory / f"store{number}", bed.directory / f"daemon{number}"
            names = {"PYME_COMPUTERNAME": "twin"}
            daemon = Daemon(node_at(host, cluster), store, scratch, prefix=alone, environment=names)
            ground.daemons.append(running.enter_context(daemon))

        for number, cluster in enumerate(("lab", "lab", "lab2"), 1):
            start(number, cluster, network.host())
        clients = [
            running.enter_context(
                Actor(ground.recorder, bed.directory / cluster, network.host().prefix, cluster, cluster=cluster)
            )
            for cluster in ("lab", "lab2")
        ]
        lab, lab2 = clients
        until(lambda: (len(lab.ask("nodes")), len(lab2.ask("nodes"))) == (2, 1), NEVER_S, LOOK_S)
        used = [
            {client.ask("put", path=f"/{top}/f{n}", body=top) for n in range(FILES)}
            for top, client in zip(("one", "two"), clients, strict=True)
        ]
        flaps = _flaps(clients, bed.amount(WATCH_S, WATCH_LONG_S))
        for client in clients:
            client.collect()
        one, two, other = (daemon.root for daemon in ground.daemons)
        crossed = [root / top for root, top in ((one, "two"), (two, "two"), (other, "one")) if (root / top).exists()]
        figure = (
            f"flaps {flaps}, cross-cluster {len(crossed)}, nodes used {len(used[0])} of lab, {len(used[1])} of lab2"
        )
        held = {
            "no flap": not flaps,
            "nothing crossed": not crossed,
            "all used": [len(each) for each in used] == [2, 1],
        }
        return ground.verdict("R23", figure, held)


def _flaps(clients: list[Actor], seconds: float) -> int:
    """Return how often what *clients* know of nodes changes in the next *seconds*."""
    known = [client.ask("nodes") for client in clients]
    flaps = 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pause(LOOK_S)
        now = [client.ask("nodes") for client in clients]
        flaps += now != known
        known = now
    return flaps
