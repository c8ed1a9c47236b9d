"""Nodes that are written down: rows of the registry count while they answer, listed hosts are known even when they do not."""

import sqlite3
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from granum import listed
from granum.listed import RegistrySource, StaticSource
from granum.roster import Node
from granum.testing import FakeNode
from granum.wire.advert import REGISTRY_DELETE, REGISTRY_INSERT, REGISTRY_SCHEMA, Advertisement
from granum.wire.errors import BadConfig, NodeTimeout

INSTANCE = "PYMEDataServer [lab]:scope1 - PID:7"


class Sink:
    """What was told, in order, and a Deferred that fires at the next telling."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self._next: list[Deferred[None]] = []

    def heard(self, advertisement: Advertisement, source: str) -> None:
        self._tell("heard", advertisement)

    def gone(self, instance: str, source: str) -> None:
        self._tell("gone", instance)

    def failed(self, instance: str, source: str, cause: BaseException) -> None:
        self._tell("failed", instance, type(cause).__name__)

    def next(self) -> Deferred[None]:
        told: Deferred[None] = Deferred()
        self._next.append(told)
        return told.addTimeout(10, reactor)  # type: ignore[arg-type]

    def _tell(self, *what: Any) -> None:
        self.told.append(what)
        waiting, self._next = self._next, []
        for told in waiting:
            told.callback(None)


async def tell_id(node: Node) -> Mapping[str, object]:
    return {"node_id": "id-1"}


@pytest_twisted.async_yield_fixture
async def fake(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeNode]:
    monkeypatch.setattr(listed, "REGISTRY_POLL_S", 0.02)
    monkeypatch.setattr(listed, "LIST_POLL_S", 0.02)
    fake = FakeNode(reactor)
    await fake.start()
    yield fake
    await fake.stop()


def registry(tmp_path: Path, *rows: tuple[str, object, object]) -> str:
    file = str(tmp_path / "registry.sqlite")
    with sqlite3.connect(file) as connection:
        connection.execute(REGISTRY_SCHEMA)
        for time, row in enumerate(rows):
            connection.execute(REGISTRY_INSERT, (*row, time))
    connection.close()
    return file


# -- the registry ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_row_that_answers_is_heard_with_the_id_of_its_node(fake: FakeNode, tmp_path: Path) -> None:
    sink, file = Sink(), registry(tmp_path, (INSTANCE, "127.0.0.1", fake.port))
    source = RegistrySource(reactor, tell_id, file)
    await source.start(sink)
    await source.stop()
    assert sink.told[0] == ("heard", Advertisement(INSTANCE, "127.0.0.1", fake.port, "id-1"))
    assert source.describe() == f"the registry {file}"


@pytest_twisted.ensureDeferred
async def test_the_latest_row_of_a_name_wins_and_stale_rows_are_not_heard(fake: FakeNode, tmp_path: Path) -> None:
    other = FakeNode(reactor)
    await other.start()
    await other.stop()
    rows = (INSTANCE, "127.0.0.1", other.port), (INSTANCE, "127.0.0.1", fake.port), ("stale", "127.0.0.1", other.port)
    sink, source = Sink(), RegistrySource(reactor, tell_id, registry(tmp_path, *rows))
    await source.start(sink)
    await source.stop()
    assert sink.told[0] == ("heard", Advertisement(INSTANCE, "127.0.0.1", fake.port, "id-1"))
    assert {what for what, *_ in sink.told} == {"heard"}


def test_of_too_many_rows_the_latest_are_tried(tmp_path: Path) -> None:
    """Rows of killed processes stay in the file for ever; one that was written again is as new as its last row."""
    rows = [(f"node {n}", "127.0.0.1", 1) for n in (*range(300), 0)]
    found = listed._read_registry(registry(tmp_path, *rows))
    assert list(found) == [f"node {n}" for n in (*range(45, 300), 0)]


@pytest_twisted.ensureDeferred
async def test_a_row_that_is_taken_away_is_gone(fake: FakeNode, tmp_path: Path) -> None:
    sink, file = Sink(), registry(tmp_path, (INSTANCE, "127.0.0.1", fake.port))
    source = RegistrySource(reactor, tell_id, file)
    await source.start(sink)
    with sqlite3.connect(file) as connection:
        connection.execute(REGISTRY_DELETE, (INSTANCE,))
    connection.close()
    while sink.told[-1] != ("gone", INSTANCE):
        await sink.next()
    assert "failed" not in {what for what, *_ in sink.told}
    await source.stop()


@pytest_twisted.ensureDeferred
async def test_a_node_that_dies_without_taking_its_row_away_has_failed(fake: FakeNode, tmp_path: Path) -> None:
    sink, source = Sink(), RegistrySource(reactor, tell_id, registry(tmp_path, (INSTANCE, "127.0.0.1", fake.port)))
    await source.start(sink)
    fake.die()
    while sink.told[-1] != ("gone", INSTANCE):
        await sink.next()
    assert sink.told[-2:] == [("failed", INSTANCE, "NodeUnreachable"), ("gone", INSTANCE)]
    await source.stop()


@pytest.mark.parametrize("text", [None, "", "this is no database, although it is long enough to look for one" * 20])
@pytest_twisted.ensureDeferred
async def test_no_registry_is_no_node(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "registry.sqlite").write_text(text)
    sink, source = Sink(), RegistrySource(reactor, tell_id, str(tmp_path / "registry.sqlite"))
    await source.start(sink)
    await source.stop()
    assert sink.told == []
    assert text is not None or not (tmp_path / "registry.sqlite").exists()


@pytest_twisted.ensureDeferred
async def test_rows_that_are_no_addresses_are_ignored(tmp_path: Path) -> None:
    rows = (
        ("a", "host", 1),
        ("b", "::1", 1),
        ("c", "127.0.0.1", 0),
        ("d", "127.0.0.1", "x"),
        ("e", None, None),
        ("f", 1, 1),
    )
    sink, source = Sink(), RegistrySource(reactor, tell_id, registry(tmp_path, *rows))
    await source.start(sink)
    await source.stop()
    assert sink.told == []


# -- the list ----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_listed_node_is_heard_with_what_it_says_of_itself() -> None:
    async def ask(node: Node) -> Mapping[str, object]:
        return {"node_id": "id-1", "ComputerName": "scope1", "Granum": {"cluster": "lab"}}

    sink, source = Sink(), StaticSource(["127.0.0.1:4000"], reactor, ask)
    await source.start(sink)
    await source.stop()
    [(_, heard)] = sink.told
    assert (heard.cluster, heard.computer, heard.node_id, heard.address, heard.port) == (
        "lab",
        "scope1",
        "id-1",
        "127.0.0.1",
        4000,
    )


@pytest_twisted.ensureDeferred
async def test_a_listed_pyme_node_has_its_computers_name_and_no_cluster() -> None:
    async def ask(node: Node) -> Mapping[str, object]:
        return {"ComputerName": "scope1"}

    sink, source = Sink(), StaticSource(["127.0.0.1"], reactor, ask)
    await source.start(sink)
    await source.stop()
    [(_, heard)] = sink.told
    assert (heard.cluster, heard.computer, heard.node_id, heard.port) == ("", "scope1", "", 15348)


@pytest_twisted.ensureDeferred
async def test_a_listed_host_that_does_not_answer_is_known_by_its_name() -> None:
    async def ask(node: Node) -> Mapping[str, object]:
        raise NodeTimeout("silent")

    sink, source = Sink(), StaticSource(["127.0.0.1:4000"], reactor, ask)
    await source.start(sink)
    await source.stop()
    host = "127.0.0.1:4000"
    assert sink.told == [("heard", Advertisement(host, "127.0.0.1", 4000)), ("failed", host, "NodeTimeout")]


@pytest_twisted.ensureDeferred
async def test_a_listed_host_becomes_its_node_once_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed, "LIST_POLL_S", 0.02)
    answers: list[Any] = [NodeTimeout("silent"), {"node_id": "id-1", "ComputerName": "scope1"}]

    async def ask(node: Node) -> Mapping[str, object]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, NodeTimeout):
            raise answer
        return answer

    sink, source = Sink(), StaticSource(["127.0.0.1:4000"], reactor, ask)
    await source.start(sink)
    while len(sink.told) < 4:
        await sink.next()
    await source.stop()
    assert [what for what, *_ in sink.told] == ["heard", "failed", "gone", "heard"]
    assert sink.told[3][1].node_id == "id-1"


@pytest_twisted.ensureDeferred
async def test_a_known_node_that_stops_answering_keeps_its_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed, "LIST_POLL_S", 0.02)
    answers: list[Any] = [{"node_id": "id-1", "ComputerName": "scope1"}, NodeTimeout("silent")]

    async def ask(node: Node) -> Mapping[str, object]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, NodeTimeout):
            raise answer
        return answer

    sink, source = Sink(), StaticSource(["127.0.0.1:4000"], reactor, ask)
    await source.start(sink)
    while sink.told[-1][0] != "failed":
        await sink.next()
    await source.stop()
    assert [what for what, *_ in sink.told[:3]] == ["heard", "heard", "failed"]
    assert sink.told[1][1].node_id == "id-1"


@pytest.mark.parametrize("host", ["", ":1", "a:", "a:b", "a:0", "a:65536", "a:99999999999999999999", "[::1]:5"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(BadConfig, match="is not a node; write host:port"):
        StaticSource([host], reactor, tell_id)


def test_the_list_names_its_nodes() -> None:
    assert StaticSource(["a:1", "b"], reactor, tell_id).describe() == "the list a:1, b:15348"


@pytest_twisted.ensureDeferred
async def test_a_row_whose_node_hangs_is_a_missing_node_and_asked_for_its_id_again(
    fake: FakeNode, tmp_path: Path
) -> None:
    answers: list[Mapping[str, object] | None] = [None, {"node_id": "id-1"}]

    async def ask(node: Node) -> Mapping[str, object]:
        answer = answers.pop(0)
        if answer is None:
            raise NodeTimeout("silent")
        return answer

    sink, source = Sink(), RegistrySource(reactor, ask, registry(tmp_path, (INSTANCE, "127.0.0.1", fake.port)))
    await source.start(sink)
    assert sink.told == [
        ("heard", Advertisement(INSTANCE, "127.0.0.1", fake.port)),
        ("failed", INSTANCE, "NodeTimeout"),
    ]
    await sink.next()
    await source.stop()
    assert sink.told[2] == ("heard", Advertisement(INSTANCE, "127.0.0.1", fake.port, "id-1"))
    assert answers == []
