"""`granum doctor` on real nodes: well is status 0, and what is done to a node is found, named and status 1."""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from client.tests.cli.conftest import TIMEOUT_S, Granum, static
from granum.cli.asking import HEARD_MAX, Ear, lead, sorted_out
from granum.wire.advert import Advertisement, instance_name
from integration.lab import NodeProcess, ProcessLab

DATE = "Sun, 22 Nov 2026 12:00:00 GMT"
NOON = 1795348800.0


def findings(granum: Granum, *arguments: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Return the exit status, and the findings by check."""
    done = granum.run("--json", "doctor", *arguments)
    assert done.stderr == ""
    found: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(done.stdout):
        found.setdefault(finding["check"], []).append(finding)
    return done.returncode, found


def wrong(found: Mapping[str, list[dict[str, str]]]) -> dict[str, list[str]]:
    """Return what is wrong, by check."""
    return {
        check: [finding["text"] for finding in several]
        for check, several in found.items()
        if several[0]["state"] == "wrong"
    }


def ask(node: NodeProcess, verb: str, target: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(node.url + target, method=verb)) as answer:
        return answer.read()


def named(node: NodeProcess) -> str:
    computer = json.loads(ask(node, "GET", "/__status"))["ComputerName"]
    return f"{computer}:{node.port} at {node.host}"


# -- a cluster that is well ----------------------------------------------------------------------------------------------


def test_all_is_well_and_nothing_is_stored(granum: Granum, lab: ProcessLab) -> None:
    """The question whether puts are taken leaves nothing behind."""
    before = [ask(node, "GET", "/") for node in lab.nodes]
    done = granum.run("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    said = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert {check: state for state, check, _ in said} == {
        **dict.fromkeys(("addresses", "clock", "names", "space", "puts", "versions", "damage"), "ok"),
        **dict.fromkeys(("multicast", "mounts", "share"), "skipped"),
    }
    assert ["ok", "addresses", "2 nodes found, each answers where it says"] in said
    assert ["ok", "puts", "puts of this machine are taken by 2 nodes"] in said
    assert [ask(node, "GET", "/") for node in lab.nodes] == before


def test_without_any_node_it_says_so_and_fails(tmp_path: Path) -> None:
    done = Granum(tmp_path).run("--no-discovery", "doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert "no node is known → start one with 'granum serve DIR'" in done.stdout


@pytest.mark.parametrize("host", ["", "gw:", "gw:smb", "gw:99999"])
def test_a_gateway_that_is_no_machine_is_bad_usage(granum: Granum, host: str) -> None:
    assert granum.run("doctor", "--gateway", host).returncode == 2


# -- nodes that are not well ---------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(tmp_path: Path) -> Iterator[tuple[ProcessLab, Granum]]:
    """Three nodes for one test, and the command that is told of them."""
    with ProcessLab(tmp_path / "spoilt", 3) as lab:
        yield lab, Granum(tmp_path, static(lab))


def test_nodes_that_drain_are_frozen_or_gone_are_each_found(spoilt: tuple[ProcessLab, Granum]) -> None:
    lab, granum = spoilt
    draining, frozen, gone = lab.nodes
    ask(draining, "PUT", "/__drain")
    frozen.signal(signal.SIGSTOP)
    gone.kill()
    status, found = findings(granum)
    assert status == 1
    assert set(wrong(found)) == {"addresses", "puts"}
    assert wrong(found)["puts"] == [f"{named(draining)} is being drained and takes no puts"]
    assert len(wrong(found)["addresses"]) == 2
    for node in (frozen, gone):
        assert [text for text in wrong(found)["addresses"] if node.host in text]
    assert found["versions"][0]["state"] == "ok"  # of the one that answers
    frozen.signal(signal.SIGCONT)
    ask(draining, "PUT", "/__undrain")
    assert "puts" not in wrong(findings(granum)[1])


def test_a_full_node_is_found(tmp_path: Path) -> None:
    """Its reserve is as large as its disk."""
    environment = {"GRANUM_NODE_RESERVE_BYTES": "100%", "TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    with NodeProcess(tmp_path / "store", environment=environment) as node:
        status, found = findings(Granum(tmp_path, ("--no-discovery", "-n", node.host)))
        assert status == 1
        assert set(wrong(found)) == {"space"}
        assert [text.endswith("only its reserve is left") for text in wrong(found)["space"]] == [True]


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_a_clock_that_is_off_is_found(granum: Granum) -> None:
    """That of this machine: both nodes agree against it."""
    line = ["faketime", "-f", "+90s", *granum.line("--json", "doctor")]
    done = subprocess.run(line, env=granum.settings(), capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    texts = [finding["text"] for finding in json.loads(done.stdout) if finding["check"] == "clock"]
    assert done.returncode == 1
    assert len(texts) == 1
    assert re.fullmatch(r"the clock of this machine is (89|90) s ahead of all nodes", texts[0])


def test_a_port_with_another_program_is_no_node(tmp_path: Path) -> None:
    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=serve)
        thread.start()
        _, found = findings(Granum(tmp_path, ("--no-discovery", "-n", host)))
        thread.join()
    assert wrong(found)["addresses"] == [f"what answers at {host} is no node"]


# -- finding each other --------------------------------------------------------------------------------------------------

CLUSTER = f"doctor-{os.getpid()}"  # unlike any other that this machine's network may have at the moment


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Granum]:
    """A node that mDNS tells of, on a machine whose registry is private."""
    environment = {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    with NodeProcess(tmp_path / "store", cluster=CLUSTER, advertise="mdns", environment=environment):
        yield Granum(tmp_path, environment=environment)


def test_a_node_is_heard_by_its_cluster_alone(alone: Granum) -> None:
    """Each run is a process of its own, since mDNS remembers."""
    done = alone.process("-c", CLUSTER, "--json", "doctor")
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert (done.returncode, done.stderr) == (0, "")
    assert found["multicast"]["text"] == "1 node heard by mDNS"
    done = alone.process("-c", CLUSTER.upper(), "--json", "doctor")
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 1
    assert CLUSTER in found["names"]["text"]


def test_nodes_that_the_configuration_lists_need_not_be_heard(lab: ProcessLab, tmp_path: Path) -> None:
    """Unlike those that the command line names, which are there to see whether they are heard."""
    hosts = [node.host for node in lab.nodes]
    (tmp_path / ".config" / "granum").mkdir(parents=True)
    (tmp_path / ".config" / "granum" / "config.yaml").write_text(json.dumps({"nodes": hosts}))
    alone = Granum(tmp_path, environment={"TMPDIR": str(tmp_path)})
    states = {}
    for arguments in ((), static(lab)[1:]):
        done = alone.process("-c", "test", *arguments, "--json", "doctor")
        texts = [each for each in json.loads(done.stdout) if each["check"] == "multicast"]
        states[bool(arguments)] = {each["state"] for each in texts}
    assert states == {False: {"ok"}, True: {"wrong"}}


# -- the share -----------------------------------------------------------------------------------------------------------


def test_a_gateway_that_is_named_is_asked_for_its_share(granum: Granum) -> None:
    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            (size,) = struct.unpack(">I", connection.recv(4))
            connection.recv(size, socket.MSG_WAITALL)
            body = b"\xfeSMB" + struct.pack("<H", 64) + bytes(58) + struct.pack("<HHH", 65, 1, 0x0302) + bytes(58)
            connection.sendall(struct.pack(">I", len(body)) + body)

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=serve)
        thread.start()
        status, found = findings(granum, "--gateway", host)
        thread.join()
    assert (status, found["share"][0]["text"]) == (0, f"{host} speaks SMB 3.0.2")
    status, found = findings(granum, "--gateway", host)
    assert (status, wrong(found)) == (1, {"share": [f"no SMB 3 at {host}: Connection refused"]})


# -- what it reckons -----------------------------------------------------------------------------------------------------


def test_a_date_of_whole_seconds_bounds_the_lead_on_both_sides() -> None:
    assert lead(DATE, NOON - 10.0, NOON - 9.5) == (9.5, 11.0)
    assert lead("nonsense", 0.0, 1.0) is None


def test_a_flood_of_advertisements_is_bounded_and_what_was_heard_before_it_stays_true() -> None:
    ear = Ear()
    for number in range(HEARD_MAX + 9):
        ear.heard(Advertisement(f"n{number}", "10.0.0.1", 1), "mdns")
    ear.heard(Advertisement("n0", "10.0.0.2", 1), "mdns")
    assert len(ear.heard_of) == HEARD_MAX
    assert ear.heard_of["mdns", "n0"].address == "10.0.0.2"
    ear.gone("n0", "mdns")
    assert ("mdns", "n0") not in ear.heard_of


def test_what_is_heard_is_sorted_by_place_and_cluster() -> None:
    one = Advertisement(instance_name("lab", "disk1", 1), "10.0.0.1", 1, "id-1")
    other = Advertisement(instance_name("else", "disk2", 1), "10.0.0.2", 1, "id-2")
    listed = Advertisement("10.0.0.3:1", "10.0.0.3", 1)
    heard = {("mdns", one.instance): one, ("registry", one.instance): one, ("mdns", other.instance): other}
    found, others = sorted_out({**heard, ("list", "10.0.0.3:1"): listed}, "lab")
    assert [(each.name, set(each.sources)) for each in found] == [
        ("10.0.0.3:1", {"list"}),
        ("disk1:1", {"mdns", "registry"}),
    ]
    assert others == {"else"}
    assert len(sorted_out(heard, "")[0]) == 2
