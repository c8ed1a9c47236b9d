"""Nodes are found without being named, and a write knows its cluster."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from client.tests.cli.conftest import Granum
from integration.lab import NodeProcess

# Unlike any other that this machine's network may have at the moment: mDNS reaches them all.
ONE, OTHER = f"cli-one-{os.getpid()}", f"cli-other-{os.getpid()}"


@pytest.fixture(scope="module")
def granum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Granum]:
    """Two clusters of one node: ONE in the registry of this machine, which is a private one, OTHER in mDNS."""
    home = tmp_path_factory.mktemp("discovery")
    environment = {"TMPDIR": str(home), "XDG_RUNTIME_DIR": str(home)}
    with ExitStack() as running:
        for cluster, advertise in ((ONE, "local"), (OTHER, "mdns")):
            node = NodeProcess(home / cluster, cluster=cluster, advertise=advertise, environment=environment)
            running.enter_context(node)
        yield Granum(home, environment=environment)


@pytest.mark.parametrize("cluster", [ONE, OTHER])
def test_a_cluster_is_found_by_its_name(granum: Granum, cluster: str) -> None:
    done = granum.process("-c", cluster, "nodes")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[2] for line in done.stdout.splitlines()] == ["CLUSTER", cluster]


def test_without_a_name_all_are_seen(granum: Granum) -> None:
    stdout = granum.process("nodes").stdout
    assert f" {ONE} " in stdout
    assert f" {OTHER} " in stdout


@pytest.mark.parametrize("arguments", [["put", "f", "/f"], ["mkdir", "/d"]])
def test_a_write_without_a_name_is_refused(granum: Granum, arguments: list[str]) -> None:
    """The error lists the clusters; nothing is written anywhere."""
    (granum.home / "f").touch()
    done = granum.process(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert ONE in done.stderr
    assert OTHER in done.stderr
    assert "-c NAME" in done.stderr
    assert not [path for path in granum.home.glob("cli-*/*") if path.name != ".granum"]


def test_a_write_with_a_locator_goes_to_its_cluster(granum: Granum, tmp_path: Path) -> None:
    (tmp_path / "g").write_text("g")
    done = granum.process("put", str(tmp_path / "g"), f"granum://{ONE}/g")
    assert (done.returncode, done.stdout) == (0, "put 1 file, 1 B: /g\n")
    assert (granum.home / ONE / "g").read_text() == "g"
