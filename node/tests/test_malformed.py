"""The corpus of bad requests against a real daemon, each on a connection of its own."""

import socket

import pytest

from integration.lab import NodeProcess
from node.tests.http.malformed import FRAMING, REFUSED

PROBE = b"GET /__healthz HTTP/1.1\r\nConnection: close\r\n\r\n"


def statuses(node: NodeProcess, raw: bytes) -> list[int]:
    """Return the statuses of the answers to *raw* and to the probe behind it, up to the end of the connection."""
    with socket.create_connection((node.address, node.port), 10) as connection:
        connection.sendall(raw + PROBE)
        with connection.makefile("rb") as answers:
            lines = answers.read().split(b"HTTP/1.1 ")[1:]
    return [int(line[:3]) for line in lines]


@pytest.mark.parametrize(("raw", "status"), FRAMING, ids=lambda value: repr(value)[:60])
def test_behind_a_framing_error_nothing_is_read(shared: NodeProcess, raw: bytes, status: int) -> None:
    assert statuses(shared, raw) == [status]


@pytest.mark.parametrize(("raw", "status", "closes"), REFUSED, ids=lambda value: repr(value)[:60])
def test_a_request_refused_whole_leaves_the_connection_in_step(
    shared: NodeProcess, raw: bytes, status: int, closes: bool
) -> None:
    assert statuses(shared, raw) == ([status] if closes else [status, 200])


def test_the_corpus_is_large_and_has_nothing_twice() -> None:
    found = [raw for raw, *_ in (*FRAMING, *REFUSED)]
    assert len(set(found)) == len(found) >= 200
