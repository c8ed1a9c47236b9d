"""A node is found where it was advertised, under PYME's name, and forgotten when it stops."""

import queue
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from zeroconf import NonUniqueNameException, ServiceBrowser, ServiceStateChange, Zeroconf

from granum.testing.conformance.talk import ask
from granum.wire.advert import SERVICE_TYPE, Advertisement
from granum_node import advertise
from granum_node.advertise import MdnsAdvertiser, RegistryAdvertiser, computer_name, make_advertiser
from node.tests.conftest import StartNode
from node.tests.watching import until

NODE = Advertisement("PYMEDataServer [lab]:pc - PID:7", "127.0.0.1", 15348, "some-id", "0.1.0")


# -- the registry of one machine -----------------------------------------------------------------------------------------


def rows(file: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as registry:
        return registry.execute("SELECT name, address, port, creation_time, URI FROM dns").fetchall()


def test_the_registry_has_one_row_for_a_node_and_none_when_it_stopped(tmp_path: Path) -> None:
    file = tmp_path / "registry"
    advertiser = RegistryAdvertiser(NODE, str(file), lambda: 1000.0)
    advertiser.announce()
    advertiser.announce()
    assert rows(file) == [("PYMEDataServer [lab]:pc - PID:7", "127.0.0.1", 15348, 1000.0, "")]
    advertiser.withdraw()
    advertiser.withdraw()
    assert rows(file) == []


def test_rows_of_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "registry"
    other = RegistryAdvertiser(Advertisement("PYMEDataServer [x]:pc - PID:8", "127.0.0.1", 1), str(file), lambda: 1.0)
    other.announce()
    mine = RegistryAdvertiser(NODE, str(file), lambda: 2.0)
    mine.announce()
    mine.withdraw()
    assert [row[0] for row in rows(file)] == ["PYMEDataServer [x]:pc - PID:8"]


def test_a_registry_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error):
        RegistryAdvertiser(NODE, str(tmp_path / "missing" / "registry")).announce()


# -- mDNS ------------------------------------------------------------------------------------------------------------------


class Network:
    """Stands for zeroconf: refuses the names in *taken*, or everything with *broken*."""

    def __init__(self, taken: int = 0, broken: Exception | None = None) -> None:
        self.taken = taken
        self.broken = broken
        self.names: list[str] = []
        self.closed = False

    def __call__(self, interfaces: list[str]) -> "Network":
        assert interfaces == ["127.0.0.1"]
        return self

    def register_service(self, service: object) -> None:
        self.names.append(service.name)  # type: ignore[attr-defined]
        if self.broken is not None:
            raise self.broken
        if len(self.names) <= self.taken:
            raise NonUniqueNameException

    def unregister_all_services(self) -> None:
        self.names.clear()

    def close(self) -> None:
        self.closed = True


def test_a_taken_name_is_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(taken=2)
    monkeypatch.setattr(advertise, "Zeroconf", network)
    monkeypatch.setattr(advertise.os, "getpid", lambda: 7)
    advertiser = MdnsAdvertiser(NODE)
    advertiser.announce()
    assert [name.removesuffix("." + SERVICE_TYPE) for name in network.names] == [
        "PYMEDataServer [lab]:pc - PID:7",
        "PYMEDataServer [lab]:pc - PID:10000007",
        "PYMEDataServer [lab]:pc - PID:20000007",
    ]
    assert not network.closed
    advertiser.withdraw()
    assert network.closed


@pytest.mark.parametrize(
    ("network", "error"), [(Network(taken=99), OSError), (Network(broken=ValueError()), ValueError)]
)
def test_what_could_not_be_advertised_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, network: Network, error: type[Exception]
) -> None:
    """Neither its sockets nor its thread."""
    monkeypatch.setattr(advertise, "Zeroconf", network)
    advertiser = MdnsAdvertiser(NODE)
    with pytest.raises(error):
        advertiser.announce()
    assert network.closed
    advertiser.withdraw()


def test_ways_to_advertise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(advertise.tempfile, "gettempdir", lambda: str(tmp_path))
    made = [type(make_advertiser(how, NODE)) for how in ("mdns", "local", "off")]
    assert made == [MdnsAdvertiser, RegistryAdvertiser, type(None)]
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_the_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advertise.socket, "gethostname", lambda: "scope.lab.example")
    assert computer_name({}) == "scope"
    assert computer_name({"PYME_COMPUTERNAME": "other.name"}) == "other.name"


# -- the daemon ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def heard() -> Iterator[tuple[Zeroconf, "queue.Queue[tuple[ServiceStateChange, str]]"]]:
    """What a browser on loopback hears."""
    changes: queue.Queue[tuple[ServiceStateChange, str]] = queue.Queue()

    def hear(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        changes.put((state_change, name))

    network = Zeroconf(interfaces=["127.0.0.1"])
    browser = ServiceBrowser(network, SERVICE_TYPE, handlers=[hear])
    yield network, changes
    browser.cancel()
    network.close()


def next_change(
    changes: "queue.Queue[tuple[ServiceStateChange, str]]", change: ServiceStateChange, cluster: str, seconds: float
) -> str:
    """Return the name of the next service of *cluster* that changes in this way."""
    deadline = time.monotonic() + seconds
    while True:
        found, name = changes.get(timeout=max(0.01, deadline - time.monotonic()))
        if found is change and f"[{cluster}]" in name:
            return name


def test_a_node_is_found_by_mdns_and_says_goodbye(
    start_node: StartNode, heard: tuple[Zeroconf, "queue.Queue[tuple[ServiceStateChange, str]]"]
) -> None:
    network, changes = heard
    cluster = f"test-{time.monotonic_ns() % 10**9}"  # other nodes may run on this machine
    node = start_node(cluster=cluster, advertise="mdns", environment={"PYME_COMPUTERNAME": "scope"})
    name = next_change(changes, ServiceStateChange.Added, cluster, 15)
    assert name == f"PYMEDataServer [{cluster}]:scope - PID:{node.pid}.{SERVICE_TYPE}"
    found = network.get_service_info(SERVICE_TYPE, name)
    assert found is not None
    assert (found.parsed_addresses(), found.port) == (["127.0.0.1"], node.port)
    assert found.properties == {b"txtvers": b"1", b"id": node.node_id.encode(), b"version": b"0.1.0"}
    node.signal(15)
    assert next_change(changes, ServiceStateChange.Removed, cluster, 2) == name
    assert node.process.wait(10) == 0


def test_a_node_is_in_the_registry_while_it_runs(tmp_path: Path, start_node: StartNode) -> None:
    node = start_node(cluster="lab", advertise="local")
    file = tmp_path / "tmp" / "_pyme-http.sqlite"
    assert until(lambda: file.exists() and "advertised" in (tmp_path / "stderr").read_text())
    found = [(row[0], *row[1:3]) for row in rows(file)]
    computer = computer_name({})
    assert found == [(f"PYMEDataServer [lab]:{computer} - PID:{node.pid}", "127.0.0.1", node.port)]
    assert node.stop() == 0
    assert rows(file) == []


def test_a_node_that_cannot_be_advertised_serves_and_says_so(tmp_path: Path, start_node: StartNode) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "_pyme-http.sqlite").write_bytes(b"this is no database, " * 100)
    node = start_node(advertise="local")
    assert until(lambda: "cannot be found" in (tmp_path / "stderr").read_text())
    assert ask(node, "GET", "/__healthz").body == b"ok\n"
    assert node.stop() == 0
