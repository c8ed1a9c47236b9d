"""Several nodes in one process share nothing but the reactor."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from granum.testing.conformance.talk import ask
from granum.wire.advert import REGISTRY_FILE
from granum_node.config import resolve
from granum_node.service import NodeService

NODES = 10


class Where:
    def __init__(self, node: NodeService) -> None:
        self.address = node.identity.address
        self.port = node.identity.port


@pytest_twisted.ensureDeferred
async def test_ten_nodes_live_in_one_process_each_with_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where PYME's registry lies
    from twisted.internet import reactor

    nodes = []
    for number in range(NODES):
        root = tmp_path / str(number)
        root.mkdir()
        config = resolve([("the test", {"root": str(root), "port": 0, "advertise": "local"})])
        nodes.append(NodeService(config, reactor, number))  # type: ignore[arg-type]
    for node in nodes:
        node.startService()
    for number, node in enumerate(nodes):
        body = str(number).encode()
        assert (await deferToThread(ask, Where(node), "PUT", "/d/f", body)).status == 200
    for node in nodes:
        assert node._announced is not None
        await node._announced
    with closing(sqlite3.connect(tmp_path / REGISTRY_FILE)) as registry:
        rows = registry.execute("SELECT name FROM dns").fetchall()
    assert len(set(rows)) == NODES
    for node in nodes:
        await node.stopService()
    stored = [(tmp_path / str(number) / "d/f").read_bytes() for number in range(NODES)]
    assert stored == [str(number).encode() for number in range(NODES)]
    assert len({node.identity.port for node in nodes}) == NODES
    assert not [call for call in reactor.getDelayedCalls() if "granum_node" in repr(call)]  # type: ignore[attr-defined]
