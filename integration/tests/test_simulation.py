"""The simulated world is what it says: one order of events, a network that holds back and breaks, a disk that forgets."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from integration.simulation.disk import Disk
from integration.simulation.wires import Network
from integration.simulation.world import Process, World


@pytest.fixture
def world() -> Iterator[World]:
    world = World(1)
    world.network = Network(world)
    yield world
    world.network.close()


@pytest.mark.parametrize("seed", ["3", "11"])
def test_a_seed_decides_the_whole_run(seed: str) -> None:
    def run() -> str:
        command = (sys.executable, "-m", "integration.simulation", seed)
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.rpartition(" in ")[0]

    first = run()
    assert "trace" in first
    assert run() == first


def test_events_happen_in_the_order_of_their_times(world: World) -> None:
    happened: list[float] = []
    process = Process(world, "p", "127.0.3.1")
    for delay in (3.0, 1.0, 2.0):
        process.reactor.callLater(delay, happened.append, delay)
    later = process.reactor.callLater(0.5, happened.append, 2.5)
    later.reset(2.5)
    process.reactor.callLater(1.5, happened.append, 1.5).cancel()
    world.run(lambda: False, 10)
    assert happened == [1.0, 2.0, 2.5, 3.0]


def test_a_frozen_process_does_later_what_was_due_and_a_dead_one_never(world: World) -> None:
    happened: list[object] = []
    frozen, dead = Process(world, "f", "127.0.3.1"), Process(world, "d", "127.0.3.2")
    frozen.reactor.callLater(1, lambda: happened.append(("frozen", world.now)))
    dead.reactor.callLater(1, happened.append, "dead")
    frozen.freeze()
    dead.kill()
    world.run(lambda: False, 5)
    assert happened == []
    frozen.thaw()
    assert happened == [("frozen", 5.0)]


class Talk(Protocol):
    """Keeps what it gets."""

    transport: Any  # a Wire

    def __init__(self) -> None:
        self.received = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Pair:
    """Two processes and a connection between them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server, self.client = Process(world, "server", "127.0.3.1"), Process(world, "client", "127.0.3.2")
        world.network.hosts["127.0.3.1"] = self.server
        self.near, self.far = Talk(), Talk()
        with socket.socket() as bound:
            bound.bind(("127.0.3.1", 0))
            self.port = bound.getsockname()[1]
            self.server.reactor.adoptStreamPort(bound.fileno(), socket.AF_INET, Factory.forProtocol(lambda: self.far))
        self.failure: Failure | None = None

    def connect(self) -> None:
        def failed(failure: Failure) -> None:
            self.failure = failure

        def begin() -> None:
            endpoint = TCP4ClientEndpoint(self.client.reactor, "127.0.3.1", self.port, timeout=2)
            connectProtocol(endpoint, self.near).addErrback(failed)

        self.client.do(begin)
        self.world.run(lambda: self.near.transport is not None or self.failure is not None, 5)


def test_bytes_arrive_in_order_whatever_the_pieces_and_the_end_after_them(world: World) -> None:
    pair = Pair(world)
    pair.connect()
    body = random.Random(1).randbytes(700_000)
    pair.client.do(lambda: (pair.near.transport.write(body), pair.near.transport.loseConnection(), None)[2])
    assert world.run(lambda: pair.far.lost is not None, 5)
    assert pair.far.received == body
    assert pair.near.lost is not None


def test_a_sender_that_is_not_read_is_blocked(world: World) -> None:
    pair = Pair(world)
    pair.connect()
    pair.server.do(pair.far.transport.pauseProducing)
    handle = pair.near.transport.getHandle()
    sent = 0
    for _ in range(200):
        with suppress(BlockingIOError):
            sent += handle.send(bytes(65536))
        world.network.stir(pair.client)
        world.run(lambda: False, 0.01)
    assert 0 < sent < 200 * 65536
    assert pair.far.received == b""
    pair.server.do(pair.far.transport.resumeProducing)
    assert world.run(lambda: len(pair.far.received) == sent, 5)


def test_between_parted_processes_nothing_moves_until_they_are_joined(world: World) -> None:
    pair = Pair(world)
    pair.connect()
    world.network.part(pair.client, pair.server)
    pair.client.do(lambda: pair.near.transport.write(b"hello"))
    world.run(lambda: False, 5)
    assert pair.far.received == b""
    world.network.join(pair.client, pair.server)
    assert world.run(lambda: pair.far.received == b"hello", 5)


@pytest.mark.parametrize(("fault", "expected", "after_s"), [("killed", "refused", 0.1), ("no power", "time", 2.0)])
def test_a_dead_machine_is_silent_and_a_dead_daemon_refuses(
    world: World, fault: str, expected: str, after_s: float
) -> None:
    pair = Pair(world)
    pair.server.kill(has_no_power=fault == "no power")
    began = world.now
    pair.connect()
    assert pair.failure is not None
    assert expected in str(pair.failure.value).lower()
    assert after_s <= world.now - began + 0.1 <= after_s + 0.6


def test_the_peer_of_a_killed_process_is_told_and_that_of_a_powerless_one_is_not(world: World) -> None:
    for has_no_power in (False, True):
        pair = Pair(world)
        pair.connect()
        pair.server.kill(has_no_power=has_no_power)
        world.run(lambda: False, 5)
        assert (pair.near.lost is None) is has_no_power


def test_power_takes_what_was_not_synced_and_nothing_else(tmp_path: Path) -> None:
    calls = (os.link, os.mkdir, os.fsync, os.fdatasync)
    disk = Disk()
    disk.watch()
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for n in range(40):
            fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640, dir_fd=root)
            os.write(fd, b"x" * 1000)
            if n % 2:
                os.fdatasync(fd)
            os.link(f"/proc/self/fd/{fd}", f"{n}", dst_dir_fd=root, follow_symlinks=True)
            os.close(fd)
            if n == 19:
                os.fsync(root)
        disk.cut(str(tmp_path), random.Random(3))
    finally:
        os.close(root)
        os.link, os.mkdir, os.fsync, os.fdatasync = calls
    left = {int(path.name): path.read_bytes() for path in tmp_path.iterdir()}
    assert set(range(20)) <= left.keys()  # their names were synced
    assert not set(range(20, 40)) <= left.keys()
    assert set(range(20, 40)) & left.keys()
    assert all(body == b"x" * 1000 for n, body in left.items() if n % 2)
    assert any(body != b"x" * 1000 for n, body in left.items() if not n % 2)
