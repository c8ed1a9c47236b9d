"""What the rows inject is what they say: an answer that is lost, a network that is parted."""

import subprocess
import sys
from pathlib import Path

import pytest

from integration import namespaces
from integration.faults import talk
from integration.faults.daemon import Daemon, node
from integration.faults.proxy import NAMES, Proxy
from integration.namespaces import Host, Network

CONNECTS_S = 3.0


def test_a_lost_answer_is_that_of_a_put_that_is_stored(tmp_path: Path) -> None:
    with (
        Daemon(node(), tmp_path / "store", tmp_path / "daemon", environment=NAMES) as daemon,
        Proxy(daemon.address, lambda verb, path: (verb, path) == ("PUT", "/lost")) as proxy,
        talk.Line(proxy.address) as line,
    ):
        assert line.get("/lost").status == 404
        with pytest.raises(talk.UNANSWERED):
            line.put("/lost", b"body")
        assert (tmp_path / "store" / "lost").read_bytes() == b"body"
        answer = talk.put(proxy.address, "/kept", b"body")
        assert (proxy.lost, answer and answer.stored) == (1, True)


_LISTEN = "import socket; s = socket.create_server(('', 7)); print(flush=True); s.accept(); input()"
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 7), float(sys.argv[2]))"


def reaches(host: Host, other: Host, within_s: float) -> bool:
    command = (*host.prefix, sys.executable, "-c", _CONNECT, other.address, str(within_s))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode or "TimeoutError" in done.stderr, done.stderr  # parted is silent, not refused
    return not done.returncode


def test_what_is_parted_hears_nothing_of_the_others_until_it_heals() -> None:
    if namespaces.obstacle():
        pytest.skip(namespaces.obstacle())
    with Network() as network:
        one, two = network.host(), network.host()
        command = (*two.prefix, sys.executable, "-c", _LISTEN)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listening:
            assert listening.stdout is not None
            listening.stdout.readline()
            network.part([two])
            assert not reaches(one, two, 0.3)
            network.heal()
            assert reaches(one, two, CONNECTS_S)
            listening.kill()
        spaces = subprocess.run(("ip", "netns", "list"), capture_output=True, text=True, check=True).stdout
        assert one.space in spaces
    spaces = subprocess.run(("ip", "netns", "list"), capture_output=True, text=True, check=True).stdout
    assert one.space not in spaces
