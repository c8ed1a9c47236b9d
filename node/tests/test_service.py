"""The end of a node: what is in flight is finished, what is idle does not delay it, nothing is left behind."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from granum.testing.conformance.talk import Reply, Talk, ask, request
from integration.lab import NodeProcess
from node.tests.conftest import MAIN, NAMED, StartNode
from node.tests.watching import files, until

HURRIED = "import granum_node.service as service; service.DRAIN_S = 0.3\n"


def begin_upload(talk: Talk, target: str, body: bytes) -> bytes:
    """Begin a put that the node is known to have taken up; return what is left to send."""
    raw = request("PUT", target, body, Expect="100-continue")
    talk.send(raw[: -len(body)])
    assert talk.interim() == 100
    talk.send(body[:-1])
    return body[-1:]


def is_refused(node: NodeProcess) -> bool:
    try:
        socket.create_connection((node.address, node.port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_an_upload_lets_it_finish_and_ends_the_node(start_node: StartNode, number: int) -> None:
    node = start_node()
    with Talk(node) as talk:
        rest = begin_upload(talk, "/f", b"hello")
        node.signal(number)
        assert until(lambda: is_refused(node)), "the port is still open"
        node.signal(number)  # a second one changes nothing, and leaves no traceback
        talk.send(rest)
        reply = talk.reply("PUT")
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert talk.is_closed()
    assert node.process.wait(10) == 0
    assert (node.root / "f").read_bytes() == b"hello"


def test_idle_connections_do_not_delay_the_end(start_node: StartNode) -> None:
    node = start_node()
    talks = [Talk(node) for _ in range(20)]
    assert talks[0].ask("GET", "/").status == 200
    started = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - started < 5  # ten seconds are what something in flight may take
    assert all(talk.is_closed() for talk in talks)
    for talk in talks:
        talk._arrived.close()
        talk._socket.close()


@pytest.mark.parametrize("spool", ["unnamed", "named"])
def test_an_upload_that_does_not_finish_is_cut_and_leaves_nothing(
    start_node: StartNode, spool: str, tmp_path: Path
) -> None:
    node = start_node(program=("-c", HURRIED + (NAMED if spool == "named" else MAIN)))
    with Talk(node) as talk:
        begin_upload(talk, "/f", b"hello")
        assert node.stop() == 0
        assert talk.is_closed()
    assert files(node.root) == {".granum/lock", ".granum/node-id"}
    assert "a connection was cut" in (tmp_path / "stderr").read_text()


def test_a_client_that_streams_without_a_gap_is_stopped_between_two_puts(start_node: StartNode, tmp_path: Path) -> None:
    """What has a receipt is stored, and the node does not wait for a gap that never comes."""
    node = start_node()
    body = bytes(256 * 1024)
    stop = threading.Event()
    with Talk(node) as talk:

        def stream() -> None:
            number = 0
            while not stop.is_set() and number < 100_000:
                talk.send(request("PUT", f"/d/{number:06}", body))
                number += 1

        sender = threading.Thread(target=stream)
        sender.start()
        receipts = 0
        reply = Reply(200, {}, b"")
        while reply.headers.get("connection") != "close":
            reply = talk.reply("PUT")
            assert reply.status == 200
            receipts += 1
            if receipts == 20:
                node.signal(signal.SIGTERM)
        stop.set()
        sender.join()
    assert node.process.wait(8) == 0
    stored = sorted(os.listdir(node.root / "d"))
    assert stored == [f"{number:06}" for number in range(receipts)]
    assert "was cut" not in (tmp_path / "stderr").read_text()


def test_a_goodbye_that_fails_does_not_cut_what_is_in_flight(start_node: StartNode, tmp_path: Path) -> None:
    broken = (
        "import granum_node.advertise as advertise\n"
        "def withdraw(self): raise RuntimeError('no network')\n"
        "advertise.RegistryAdvertiser.withdraw = withdraw\n"
    )
    node = start_node(program=("-c", broken + MAIN), advertise="local")
    with Talk(node) as talk:
        rest = begin_upload(talk, "/f", b"hello")
        node.signal(signal.SIGTERM)
        assert until(lambda: is_refused(node)), "the port is still open"
        talk.send(rest)
        assert talk.reply("PUT").status == 200
    assert node.process.wait(10) == 0
    assert "the advertisement could not be withdrawn: no network" in (tmp_path / "stderr").read_text()


def test_a_goodbye_that_hangs_does_not_keep_the_node(start_node: StartNode, tmp_path: Path) -> None:
    hanging = (
        "import threading, granum_node.advertise as advertise, granum_node.service as service\n"
        "advertise.RegistryAdvertiser.withdraw = lambda self: threading.Event().wait()\n"
        "service.GOODBYE_S = 0.3\n"
    )
    assert start_node(program=("-c", hanging + MAIN), advertise="local").stop() == 0
    assert "the advertisement could not be withdrawn" in (tmp_path / "stderr").read_text()


def test_a_thread_that_hangs_does_not_keep_the_node(start_node: StartNode) -> None:
    """As one does that reads a directory of a dead disk."""
    hanging = (
        "import threading, granum_node.storage.index as index\n"
        "index.Index.listing = lambda *_, **__: threading.Event().wait()\n"
    )
    node = start_node(program=("-c", HURRIED + hanging + MAIN))
    with Talk(node) as talk:
        talk.send(request("GET", "/"))
        assert ask(node, "GET", "/__healthz").status == 200
        node.signal(signal.SIGTERM)
        assert node.process.wait(8) == 0
        assert talk.is_closed()


def test_a_stopped_node_leaves_no_word_of_where_its_store_is(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node()
    word = tmp_path / "run" / "granum" / f"{node.node_id}.json"
    assert until(word.exists)
    assert word.read_text() == f'{{"store": "{node.root}"}}\n'
    assert node.stop() == 0
    assert not word.exists()
