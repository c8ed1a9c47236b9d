"""Transfers believe an answer only when it comes from the right node and is whole, and never wait for ever."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol

from granum import patience
from granum.roster import Node
from granum.testing import FakeNode
from granum.transfer import Receipt, Transfer
from granum.wire.digest import XXH3, Digest
from granum.wire.errors import (
    AlreadyStored,
    BadListing,
    GranumError,
    IsADirectory,
    NodeBusy,
    NodeError,
    NodeTimeout,
    NodeUnreachable,
    NotReceipted,
    NotStored,
)
from granum.wire.listing import Entry, Flags
from granum.wire.paths import ClusterPath

FILE = ClusterPath.of(["run", "f"])


class World:
    """One fake node, a transfer, and what the transfer said of the node."""

    def __init__(self, fake: FakeNode) -> None:
        self.fake = fake
        self.node = Node(fake.node_id, "fake:1", fake.address, fake.port, "test", fake.node_id)
        self.said: list[str] = []
        self.transfer = Transfer(
            reactor,
            answered=lambda node: self.said.append("answered"),
            failed=lambda node, error: self.said.append(type(error).__name__),
            wall_clock=lambda: 1234.5,
        )


@pytest_twisted.async_yield_fixture
async def world() -> AsyncIterator[World]:
    fake = FakeNode(reactor)
    await fake.start()
    world = World(fake)
    yield world
    await world.transfer.close()
    await fake.stop()


@pytest_twisted.ensureDeferred
async def test_a_put_file_is_got_back_with_its_receipt(world: World) -> None:
    body = bytes(range(256)) * 4000
    receipt = await world.transfer.put(world.node, FILE, body)
    assert receipt == Receipt(FILE, world.node, 1_024_000, 1234.5, "relaxed")
    assert await world.transfer.get(world.node, FILE) == body
    assert world.said == ["answered", "answered"]


@pytest_twisted.ensureDeferred
async def test_an_empty_file_is_a_file(world: World) -> None:
    await world.transfer.put(world.node, FILE, b"")
    assert (world.fake.files["/run/f"], await world.transfer.get(world.node, FILE)) == (b"", b"")


@pytest.mark.parametrize("name", ["a b", "100%", "ü", "a:b", "x?y#z", "a&b=c;d", "[s]", "~", "'", "+"])
@pytest_twisted.ensureDeferred
async def test_any_valid_name_arrives_as_it_is(world: World, name: str) -> None:
    await world.transfer.put(world.node, ClusterPath.of([name, name]), b"x")
    assert list(world.fake.files) == [f"/{name}/{name}"]
    assert await world.transfer.get(world.node, ClusterPath.of([name, name])) == b"x"


@pytest_twisted.ensureDeferred
async def test_a_listing_is_decoded_and_an_absent_directory_is_none(world: World) -> None:
    world.fake.files["/run/f"] = b"12345"
    assert await world.transfer.listing(world.node, FILE.parent) == {"f": Entry("f", Flags.FILE, 5)}
    assert await world.transfer.listing(world.node, ClusterPath.of(["absent"])) is None


@pytest_twisted.ensureDeferred
async def test_head_tells_file_directory_and_nothing(world: World) -> None:
    world.fake.files["/run/f"] = b"12345"
    found = [await world.transfer.head(world.node, path) for path in (FILE, FILE.parent, ClusterPath.of(["absent"]))]
    assert found == [Entry("f", Flags.FILE, 5), Entry("run", Flags.DIRECTORY, -1), None]


@pytest_twisted.ensureDeferred
async def test_status_carries_the_node_id_of_the_header(world: World) -> None:
    assert (await world.transfer.status(world.node))["node_id"] == world.fake.node_id


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [(FILE, NotStored, "/run/f on fake:1"), (ClusterPath.of(["d"]), IsADirectory, "/d is a directory")],
)
@pytest_twisted.ensureDeferred
async def test_a_get_of_no_file_says_which(world: World, path: ClusterPath, error: type[Exception], text: str) -> None:
    world.fake.directories.add("/d")
    with pytest.raises(error, match=text):
        await world.transfer.get(world.node, path)


@pytest_twisted.ensureDeferred
async def test_a_second_put_is_refused_and_the_node_counts_as_answering(world: World) -> None:
    await world.transfer.put(world.node, FILE, b"one")
    with pytest.raises(AlreadyStored, match="/run/f on fake:1"):
        await world.transfer.put(world.node, FILE, b"two")
    assert (world.fake.files["/run/f"], world.said) == (b"one", ["answered", "answered"])


@pytest_twisted.ensureDeferred
async def test_a_status_becomes_the_error_that_it_means(world: World) -> None:
    world.fake.fail_next(503)
    with pytest.raises(NodeBusy):
        await world.transfer.get(world.node, FILE)


@pytest_twisted.ensureDeferred
async def test_a_body_cut_short_is_an_error_and_not_a_short_file(world: World) -> None:
    world.fake.files["/run/f"] = b"x" * 100_000
    world.fake.fail_next("cut")
    with pytest.raises(NodeUnreachable, match="closed the connection before its answer was complete"):
        await world.transfer.get(world.node, FILE)


@pytest_twisted.ensureDeferred
async def test_another_node_at_the_address_is_found_out(world: World) -> None:
    world.fake.files["/run/f"] = b"x"
    expected = Node("id-1", "fake:1", world.fake.address, world.fake.port, "test", "id-1")
    with pytest.raises(NodeUnreachable, match=f"another node answers at {expected.host}"):
        await world.transfer.get(expected, FILE)
    assert world.said == ["NodeUnreachable"]


@pytest_twisted.ensureDeferred
async def test_a_node_of_unknown_id_may_be_any(world: World) -> None:
    world.fake.files["/run/f"] = b"x"
    assert await world.transfer.get(Node("pyme", "p:1", world.fake.address, world.fake.port, "test"), FILE) == b"x"


@pytest_twisted.ensureDeferred
async def test_a_silent_node_is_given_up_with_its_name_and_address(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "STALL_TIMEOUT_S", 0.1)
    world.fake.fail_next("silent")
    with pytest.raises(NodeTimeout, match=f"node fake:1 at {world.node.host} did not answer within 0.1 s"):
        await world.transfer.get(world.node, FILE)
    assert world.said == ["NodeTimeout"]


@pytest_twisted.ensureDeferred
async def test_those_who_wait_in_turn_for_a_silent_node_fail_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "STALL_TIMEOUT_S", 0.2)
    world.fake.fail_next("silent", count=100)
    gets = [Deferred.fromCoroutine(world.transfer.get(world.node, FILE)) for _ in range(40)]
    before = reactor.seconds()
    for get in gets:
        with pytest.raises(NodeTimeout):
            await get
    assert reactor.seconds() - before < 1.0  # not ten turns of 0.2 s


@pytest_twisted.ensureDeferred
async def test_a_node_that_does_not_listen_is_unreachable(world: World) -> None:
    await world.fake.stop()
    with pytest.raises(NodeUnreachable, match="refuses the connection"):
        await world.transfer.put(world.node, FILE, b"x")


@pytest.mark.parametrize("fault", ["drop", "cut"])
@pytest_twisted.ensureDeferred
async def test_a_put_whose_answer_is_lost_is_not_receipted_and_not_sent_again(world: World, fault: str) -> None:
    await world.transfer.status(world.node)  # a kept connection is where clients are tempted to try again
    world.fake.fail_next(fault, verb="PUT")
    with pytest.raises(NotReceipted, match="/run/f may or may not be stored; fake:1: ") as caught:
        await world.transfer.put(world.node, FILE, b"x")
    assert caught.value.paths == ["/run/f"]
    assert [verb for verb, _ in world.fake.requests].count("PUT") == 1


@pytest_twisted.ensureDeferred
async def test_cancelling_ends_the_request(world: World) -> None:
    world.fake.fail_next("silent")
    get = Deferred.fromCoroutine(world.transfer.get(world.node, FILE))
    reactor.callLater(0.05, get.cancel)
    with pytest.raises(CancelledError):
        await get
    assert world.said == []


class Canned(Protocol):
    """Answers everything that arrives with the same bytes."""

    answer = b""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self.answer)
        if b"\r\n\r\n" not in self.answer or b"Content-Length" not in self.answer:
            self.transport.loseConnection()


async def answered_with(answer: bytes, ask: Callable[[Transfer, Node], Any]) -> Any:
    """Return what *ask* gives, of a node that answers *answer*."""
    factory = Factory.forProtocol(type("_", (Canned,), {"answer": answer}))
    factory.noisy = False
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    transfer = Transfer(reactor)
    try:
        return await ask(transfer, Node("x", "odd:1", "127.0.0.1", port.getHost().port, "test"))
    finally:
        await transfer.close()
        await port.stopListening()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: "


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", NodeUnreachable, "does not answer in HTTP|closed the connection"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", NodeError, "does not say how long its answer is"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", GranumError, "node odd:1"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n", GranumError, "302"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
            NodeError,
            "does not say how long",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_that_cannot_be_checked_is_not_believed(
    answer: bytes, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await answered_with(answer, lambda transfer, node: transfer.get(node, FILE))


OF_HELLO = b"b5e9c1ad071b3e7fc779cfaa5e523818"


@pytest.mark.parametrize("named", [b"", b"Granum-Digest: xxh3-128=%b\r\n" % OF_HELLO, b"Granum-Digest: new=1\r\n"])
@pytest_twisted.ensureDeferred
async def test_bytes_that_have_the_digest_that_the_node_names_are_taken(named: bytes) -> None:
    answer = OK + b"5\r\n" + named + b"\r\nhello"
    assert await answered_with(answer, lambda transfer, node: transfer.get(node, FILE)) == b"hello"


@pytest.mark.parametrize("named", [b"xxh3-128=%b" % OF_HELLO, b"xxh3-128=1"])
@pytest_twisted.ensureDeferred
async def test_bytes_that_have_another_digest_are_refused_with_node_and_path(named: bytes) -> None:
    answer = OK + b"5\r\nGranum-Digest: " + named + b"\r\n\r\nhellO"
    with pytest.raises(NodeError, match=r"^/run/f on odd:1 is damaged"):
        await answered_with(answer, lambda transfer, node: transfer.get(node, FILE))


@pytest.mark.parametrize(
    ("named", "digest"),
    [
        (b"Granum-Digest: xxh3-128=%b\r\n" % OF_HELLO, Digest(XXH3, OF_HELLO.decode())),
        (b"Granum-Digest: xxh3-128=1\r\n", None),
        (b"Granum-Digest: new=1\r\n", None),
        (b"", None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_digest_that_the_node_names_without_its_bytes(named: bytes, digest: Digest | None) -> None:
    answer = OK + b"5\r\n" + named + b"\r\n"
    assert await answered_with(answer, lambda transfer, node: transfer.digest(node, FILE)) == digest


@pytest_twisted.ensureDeferred
async def test_what_is_not_stored_has_no_digest(world: World) -> None:
    with pytest.raises(NotStored):
        await world.transfer.digest(world.node, FILE)


@pytest_twisted.ensureDeferred
async def test_metrics_are_a_page_of_text_that_not_every_node_has() -> None:
    page = OK + b"5\r\n\r\nup 1\n"
    assert await answered_with(page, lambda transfer, node: transfer.metrics(node)) == "up 1\n"
    absent = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(NotStored):
        await answered_with(absent, lambda transfer, node: transfer.metrics(node))


@pytest_twisted.ensureDeferred
async def test_the_same_bytes_may_be_put_again(world: World) -> None:
    first = await world.transfer.put(world.node, FILE, b"one")
    assert await world.transfer.put(world.node, FILE, b"one") == first


@pytest_twisted.ensureDeferred
async def test_who_answers_without_the_id_of_the_node_is_not_that_node() -> None:
    """A web server, say, that somebody advertised as one."""

    async def ask(transfer: Transfer, node: Node) -> bytes:
        return await transfer.get(replace(node, node_id="id-1"), FILE)

    with pytest.raises(NodeUnreachable, match="not id-1 but one without an id"):
        await answered_with(OK + b"5\r\n\r\nhello", ask)


@pytest_twisted.ensureDeferred
async def test_a_web_page_is_no_listing() -> None:
    with pytest.raises(BadListing, match="/run/f on odd:1"):
        await answered_with(OK + b"6\r\n\r\n<html>", lambda transfer, node: transfer.listing(node, FILE))


@pytest_twisted.ensureDeferred
async def test_a_page_without_json_is_no_status() -> None:
    with pytest.raises(NodeError, match="is it really a node"):
        await answered_with(OK + b"2\r\n\r\nok", lambda transfer, node: transfer.status(node))


@pytest_twisted.ensureDeferred
async def test_a_page_of_a_pyme_node_is_not_quoted() -> None:
    page = b"<html>Error 404: File not found /srv/data</html>"
    answer = b"HTTP/1.1 404 x\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b" % (len(page), page)
    with pytest.raises(NotStored, match=r"^/run/f on odd:1: There is no such file") as caught:
        await answered_with(answer, lambda transfer, node: transfer.get(node, FILE))
    assert "/srv" not in str(caught.value)
