"""`granum doctor` on a network: machines in namespaces, real nodes, real mDNS; each fault is found and named, and no other."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from integration import namespaces
from integration.lab import START_S, first_line
from integration.namespaces import NET, Host, Network

TIMEOUT_S = 60.0

pytestmark = pytest.mark.skipif(bool(namespaces.obstacle()), reason="needs root and network namespaces")


class Lab:
    """A network with one machine for the command; nodes are added by `node`, each on a machine of its own."""

    def __init__(self, running: ExitStack, home: Path) -> None:
        self.cluster = f"doctor-{uuid.uuid4().hex[:8]}"
        self._running = running
        self._network = running.enter_context(Network())
        self._home = home
        self.here = self._network.host()

    def node(self, *options: str, allow: str = f"{NET}.0/24=rw", name: str = "", store: Path | None = None) -> Host:
        """Start a node on a machine called *name*, over *store* when that is given."""
        host = self._network.host()
        root = store or self._home / host.space
        root.mkdir(exist_ok=True)
        command = [*host.prefix, sys.executable, "-m", "granum_node", "--root", str(root), "--cluster", self.cluster]
        command += ["--bind", host.address, "--allow", allow, "--advertise", "mdns", *options]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self._environment({"PYME_COMPUTERNAME": name or host.port}),
        )
        self._running.callback(end, process)
        assert "serves" in first_line(process, START_S)
        return host

    def doctor(self, *arguments: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
        """Return the exit status on the machine of the command, and the findings by check."""
        command = [*self.here.prefix, sys.executable, "-c", "from granum.cli import main; main()", "-c", self.cluster]
        done = subprocess.run(
            [*command, "--json", *arguments, "doctor"],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            env=self._environment({}),
        )
        assert done.stderr == ""
        found: dict[str, list[dict[str, str]]] = {}
        for finding in json.loads(done.stdout):
            found.setdefault(finding["check"], []).append(finding)
        return done.returncode, found

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return {**os.environ, "HOME": str(self._home), "TMPDIR": str(self._home), **more}


def end(process: "subprocess.Popen[Any]") -> None:
    process.kill()
    process.communicate()


def wrong(found: dict[str, list[dict[str, str]]]) -> dict[str, list[str]]:
    return {
        check: [finding["text"] for finding in several]
        for check, several in found.items()
        if several[0]["state"] == "wrong"
    }


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as running:
        yield Lab(running, tmp_path)


def test_a_lab_that_is_well_has_nothing_wrong(lab: Lab) -> None:
    lab.node()
    lab.node()
    status, found = lab.doctor()
    assert (status, wrong(found)) == (0, {})
    assert found["multicast"][0]["text"] == "2 nodes heard by mDNS"


def test_a_node_that_is_not_heard_is_told_from_one_that_is_gone(lab: Lab) -> None:
    lab.node()
    unheard = lab.node("--advertise", "off")
    _, found = lab.doctor("-n", unheard.address, "-n", f"{NET}.99")
    assert set(wrong(found)) == {"multicast", "addresses"}
    assert [f"{unheard.address}:15348" in text for text in wrong(found)["multicast"]] == [True]
    assert [f"{NET}.99" in text for text in wrong(found)["addresses"]] == [True]


def test_a_machine_without_multicast_is_told(lab: Lab) -> None:
    node = lab.node("--advertise", "off")
    subprocess.run([*lab.here.prefix, "ip", "link", "set", "eth0", "multicast", "off"], check=True)
    status, found = lab.doctor("-n", node.address)
    assert status == 1
    assert wrong(found) == {"multicast": ["no interface of this machine has multicast, so no node can be heard"]}


def test_allow_lists_are_seen_from_outside(lab: Lab) -> None:
    """One node lets this machine write, one read, one closes the connection."""
    lab.node()
    reading = lab.node(allow=f"{lab.here.address}=ro", name="reading")
    closed = lab.node(allow=f"{NET}.200=rw", name="closed")
    status, found = lab.doctor()
    assert status == 1
    assert wrong(found)["puts"] == [
        f"reading:15348 at {reading.address}:15348 lets this machine read only, where other nodes take its puts"
    ]
    assert [f"{closed.address}:15348" in text for text in wrong(found)["addresses"]] == [True]
    assert "setting 'allow'" in found["addresses"][0]["remedy"]


def test_a_copied_store_and_a_name_that_two_machines_have_are_found(lab: Lab, tmp_path: Path) -> None:
    one = lab.node(name="disk")
    passing = shutil.ignore_patterns("*.new")  # the node runs, and they come and go
    shutil.copytree(tmp_path / one.space, tmp_path / "copy", ignore=passing)
    other = lab.node(name="disk", store=tmp_path / "copy")
    status, found = lab.doctor()
    assert status == 1
    assert set(wrong(found)) == {"names"}
    both = [f"{one.address}:15348", f"{other.address}:15348"]
    assert wrong(found)["names"][0] == f"2 nodes are called disk:15348: {', '.join(both)}"
    assert wrong(found)["names"][1].startswith(f"one store is served at {' and at '.join(both)}")
