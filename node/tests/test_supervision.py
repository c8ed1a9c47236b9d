"""What systemd is told, on a real socket; and when its watchdog is fed."""

import os
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from granum_node.supervision import Supervisor, Watchdog
from node.tests.conftest import MAIN, StartNode


class Listener:
    """The end of systemd."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self._socket.settimeout(10)

    def word(self) -> str:
        return self._socket.recv(1000).decode()

    def words(self) -> list[str]:
        """Return what has come already."""
        found = []
        self._socket.setblocking(False)
        try:
            while True:
                found.append(self.word())
        except BlockingIOError:
            return found
        finally:
            self._socket.settimeout(10)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    made = Listener(str(tmp_path / "notify") if request.param == "file" else f"@granum-test-{uuid.uuid4()}")
    yield made
    made.close()


class Publisher:
    """Answers as often as it is told to."""

    answers = 0
    probes = 0

    def probe(self) -> None:
        self.probes += 1


def test_a_word_arrives_at_a_socket_of_either_kind(listener: Listener) -> None:
    Supervisor({"NOTIFY_SOCKET": listener.address}, 1).tell("READY=1")
    assert listener.word() == "READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_a_supervisor_that_is_not_there_is_no_failure(environment: dict[str, str]) -> None:
    Supervisor(environment, 1).tell("READY=1")


@pytest.mark.parametrize(
    ("variables", "beat_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "7"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_bites(variables: dict[str, str], beat_s: float | None) -> None:
    assert Supervisor({"NOTIFY_SOCKET": "/x", **variables}, 7).beat_s == beat_s


def test_the_watchdog_starves_while_the_publisher_does_not_answer_and_is_fed_when_it_does(listener: Listener) -> None:
    publisher = Publisher()
    watchdog = Watchdog(Supervisor({"NOTIFY_SOCKET": listener.address}, 1), publisher)
    watchdog.beat()  # nothing was asked before
    assert (listener.words(), publisher.probes) == (["WATCHDOG=1"], 1)
    watchdog.beat()
    assert (listener.words(), publisher.probes) == ([], 2)
    publisher.answers += 1
    watchdog.beat()
    assert listener.words() == ["WATCHDOG=1"]


# -- the daemon ------------------------------------------------------------------------------------------------------


def test_a_node_says_that_it_is_ready_lives_and_stops(listener: Listener, start_node: StartNode) -> None:
    environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "200000"}
    node = start_node(environment=environment)
    assert listener.word() == "READY=1"
    assert [listener.word() for _ in range(3)] == ["WATCHDOG=1"] * 3
    assert node.stop() == 0
    assert [word for word in listener.words() if word != "WATCHDOG=1"] == ["STOPPING=1"]


def test_the_watchdog_of_a_node_whose_commit_threads_hang_starves(tmp_path: Path, start_node: StartNode) -> None:
    """The reactor still turns: it answers. That alone must not feed the watchdog."""
    listener = Listener(str(tmp_path / "notify"))
    hanging = (
        "import threading, granum_node.storage.commit as commit\n"
        "commit.Commit._work = lambda self: threading.Event().wait()\n"
    )
    environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "200000"}
    node = start_node(program=("-c", hanging + MAIN), environment=environment)
    assert [listener.word(), listener.word()] == ["READY=1", "WATCHDOG=1"]
    listener._socket.settimeout(1.0)
    with pytest.raises(TimeoutError):
        listener.word()
    listener.close()
    os.kill(node.pid, signal.SIGKILL)
