"""Who gets a connection, and when the node stops to accept."""

# ruff: noqa: N802 - the names are Twisted's

from ipaddress import ip_network

import pytest

from granum_node.config import Allowed
from granum_node.http.door import Door, TurnedAway
from granum_node.http.gate import Rules
from granum_node.http.reply import HeadMaker


class Port:
    """A port that is read or not."""

    reading = True

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True


@pytest.fixture
def door() -> Door:
    """A door with room for 8, 6 of one address."""
    return Door(Rules.of([], 80, [Allowed(ip_network("10.0.0.0/24"), writes=True)]), 64)


def test_a_stranger_is_counted_and_not_let_in(door: Door) -> None:
    assert [door.knows(peer) for peer in ("10.0.0.1", "10.0.1.1", "127.0.0.1")] == [True, False, False]
    assert door.strangers == 2


def test_one_address_never_gets_all_the_room(door: Door) -> None:
    assert [door.enter("10.0.0.1") for _ in range(8)] == [True] * 6 + [False] * 2
    assert [door.enter("10.0.0.2") for _ in range(3)] == [True, True, False]
    assert door.crowded_out == 3


def test_who_leaves_makes_room(door: Door) -> None:
    for _ in range(6):
        door.enter("10.0.0.1")
    door.leave("10.0.0.1")
    assert [door.enter("10.0.0.1") for _ in range(2)] == [True, False]


def test_a_full_node_accepts_nothing_until_somebody_leaves(door: Door) -> None:
    ports = [Port(), Port()]
    door.accept_from(list(ports))
    reading = []
    for number in range(8):
        door.enter(f"10.0.0.{number}")
        reading.append(ports[1].reading)
    assert reading == [True] * 7 + [False]
    door.leave("10.0.0.3")
    assert [port.reading for port in ports] == [True, True]


def test_a_stopping_node_does_not_accept_again(door: Door) -> None:
    port = Port()
    door.accept_from([port])
    for number in range(8):
        door.enter(f"10.0.0.{number}")
    door.accept_from([])
    door.leave("10.0.0.3")
    assert not port.reading


def test_who_is_turned_away_is_told_why() -> None:
    class Transport:
        written = b""
        closed = False

        def write(self, data: bytes) -> None:
            self.written += data

        def loseConnection(self) -> None:
            self.closed = True

    transport = Transport()
    TurnedAway(HeadMaker("test", "id", lambda: 0.0)).makeConnection(transport)  # type: ignore[arg-type]
    assert transport.written.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 1\r\n" in transport.written
    assert b"Connection: close\r\n" in transport.written
    assert transport.written.endswith(b"\r\n\r\nyour address has too many connections to this node; close some\n")
    assert transport.closed
