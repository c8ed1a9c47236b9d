"""The channel sends every byte once and in order, and gives each put exactly one outcome."""

# ruff: noqa: N802 - the double of a transport has the names that Twisted gives it

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error as network
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from granum.request import was_sent
from granum.roster import Node
from granum.streaming.channel import Channel, connect
from granum.streaming.window import Window
from granum.testing import FakeNode
from granum.wire.digest import Digest
from granum.wire.errors import AlreadyStored, NodeError, NodeTimeout, NodeUnreachable, NoSpace
from granum.wire.paths import ClusterPath

NODE = Node("id", "fake:1", "127.0.0.1", 15348, "test", "id")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nGranum-Durability: relaxed\r\n\r\n"
FULL = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 8\r\n\r\nno room\n"


class ScriptedWire:
    """A transport and its socket. *script* says what each sendmsg takes: a number of bytes, or an error; then everything."""

    def __init__(self, script: Sequence[int | OSError] = ()) -> None:
        self.script = list(script)
        self.sent = b""
        self.calls: list[int] = []  # the number of pieces of each sendmsg
        self.wants_writing = False
        self.producer: Any = None
        self.closed = ""

    def sendmsg(self, pieces: Sequence[memoryview]) -> int:
        self.calls.append(len(pieces))
        joined = b"".join(pieces)
        step = self.script.pop(0) if self.script else len(joined)
        if isinstance(step, OSError):
            raise step
        taken = min(step, len(joined))
        self.sent += joined[:taken]
        return taken

    def getHandle(self) -> "ScriptedWire":
        return self

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.nodelay = enabled

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert not streaming
        self.producer = producer
        producer.resumeProducing()  # Twisted does so inside the call

    def unregisterProducer(self) -> None:
        self.producer = None

    def startWriting(self) -> None:
        self.wants_writing = True

    def become_writable(self) -> None:
        """Do as the reactor does when the socket takes bytes, if it was asked to watch for that."""
        assert self.wants_writing
        self.wants_writing = False
        self.producer.resumeProducing()

    def send_all(self) -> None:
        while self.wants_writing:
            self.become_writable()

    def loseConnection(self) -> None:
        assert self.producer is None, "Twisted would wait for the producer for ever"
        self.closed = "lost"

    def abortConnection(self) -> None:
        self.closed = "aborted"


def opened(wire: ScriptedWire, clock: Clock | None = None, window: Window[Any] | None = None) -> Channel:
    channel = Channel(NODE, clock=clock or Clock(), window=window)
    channel.makeConnection(wire)
    return channel


def lose(channel: Channel) -> None:
    channel.connectionLost(Failure(network.ConnectionLost()))


def request(name: str, body: bytes) -> bytes:
    head = f"PUT /{name} HTTP/1.1\r\nHost: 127.0.0.1:15348\r\nContent-Length: {len(body)}\r\nConnection: keep-alive\r\n\r\n"
    return head.encode() + body


def outcome_of(put: Deferred[Any]) -> list[Any]:
    """Return a list that holds what *put* fires or fails with, as soon as it has."""
    outcomes: list[Any] = []
    put.addCallbacks(outcomes.append, lambda failure: outcomes.append(failure.value))
    return outcomes


# -- bytes out ---------------------------------------------------------------------------------------------------------


STEPS = st.one_of(st.integers(0, 400), st.just(BlockingIOError()), st.just(InterruptedError()))
BODIES = st.lists(st.lists(st.binary(max_size=150), max_size=4), min_size=1, max_size=12)


@given(BODIES, st.lists(STEPS, max_size=30))
def test_whatever_the_socket_takes_every_byte_is_sent_once_and_in_order(
    bodies: list[list[bytes]], script: list[int | OSError]
) -> None:
    wire = ScriptedWire(script)
    channel = opened(wire)
    for number, pieces in enumerate(bodies):
        channel.put(ClusterPath((str(number),)), pieces)
        if number % 3 == 0:
            wire.become_writable()
    wire.send_all()
    assert wire.sent == b"".join(request(str(n), b"".join(pieces)) for n, pieces in enumerate(bodies))


def test_a_put_is_sent_before_the_receipt_of_the_one_ahead() -> None:
    wire = ScriptedWire()
    channel = opened(wire)
    channel.put(ClusterPath(("a",)), [b"1"])
    wire.send_all()
    channel.put(ClusterPath(("b",)), [b"2"])
    wire.send_all()
    assert wire.sent == request("a", b"1") + request("b", b"2")


def test_no_more_than_sixteen_pieces_go_into_one_call() -> None:
    wire = ScriptedWire()
    channel = opened(wire)
    for number in range(20):
        channel.put(ClusterPath((str(number),)), [b"1"])
    wire.become_writable()
    assert wire.calls == [16, 16, 8]


def test_nothing_is_asked_of_the_reactor_when_all_is_sent() -> None:
    wire = ScriptedWire()
    opened(wire).put(ClusterPath(("a",)), [b"1"])
    wire.become_writable()
    assert not wire.wants_writing


def test_an_array_is_sent_as_its_bytes_without_a_copy_of_it() -> None:
    wire = ScriptedWire()
    channel = opened(wire)
    array = np.arange(6, dtype="<u2").reshape(2, 3)
    channel.put(ClusterPath(("a",)), [array.data])
    array[0, 0] = 9  # the caller promises not to; that it shows proves that there is no copy
    wire.become_writable()
    assert wire.sent == request("a", b"\x09\0\x01\0\x02\0\x03\0\x04\0\x05\0")


def test_small_writes_are_not_delayed() -> None:
    wire = ScriptedWire()
    opened(wire)
    assert wire.nodelay


# -- answers in --------------------------------------------------------------------------------------------------------


def test_a_receipt_names_path_node_size_time_and_durability() -> None:
    channel = Channel(NODE, clock=Clock(), wall_clock=lambda: 1000.0)
    wire = ScriptedWire()
    channel.makeConnection(wire)
    outcome = outcome_of(channel.put(ClusterPath(("a",)), [b"12", b"345"]))
    wire.send_all()
    channel.dataReceived(OK)
    (receipt,) = outcome
    assert (str(receipt.path), receipt.node, receipt.size) == ("/a", NODE, 5)
    assert (receipt.when, receipt.durability) == (1000.0, "relaxed")


def test_a_refusal_concerns_its_own_put_only() -> None:
    wire = ScriptedWire()
    channel = opened(wire)
    outcomes = [outcome_of(channel.put(ClusterPath((name,)), [b"1"])) for name in "abc"]
    wire.send_all()
    channel.dataReceived(OK + FULL + OK)
    assert [str(outcome[0].path) for outcome in (outcomes[0], outcomes[2])] == ["/a", "/c"]
    assert isinstance(outcomes[1][0], NoSpace)
    assert str(outcomes[1][0]) == "no room"
    assert channel.is_open


def test_an_answer_makes_room_in_the_window() -> None:
    wire = ScriptedWire()
    channel = opened(wire, window=Window(bytes_max=10))
    channel.put(ClusterPath(("a",)), [b"1" * 10])
    wire.send_all()
    assert not channel.room(1)
    channel.dataReceived(OK)
    assert channel.room(10)


def test_a_put_may_follow_from_inside_a_receipt() -> None:
    wire = ScriptedWire()
    channel = opened(wire, window=Window(puts_max=1))
    first = channel.put(ClusterPath(("a",)), [b"1"])
    first.addCallback(lambda _: outcome_of(channel.put(ClusterPath(("b",)), [b"2"])))
    wire.send_all()
    channel.dataReceived(OK)
    wire.send_all()
    assert wire.sent.endswith(request("b", b"2"))


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", OK + OK])
def test_an_answer_that_cannot_be_paired_ends_the_channel_and_gives_back_every_put(answer: bytes) -> None:
    wire = ScriptedWire()
    channel = opened(wire)
    outcome = outcome_of(channel.put(ClusterPath(("a",)), [b"1"]))
    wire.send_all()
    channel.dataReceived(answer)
    assert wire.closed == "aborted"
    lose(channel)
    assert isinstance(outcome[0], NodeError)


@pytest.mark.parametrize("answer", [OK, FULL])
def test_an_answer_to_what_was_not_sent_is_no_receipt(answer: bytes) -> None:
    channel = opened(ScriptedWire())
    outcome = outcome_of(channel.put(ClusterPath(("a",)), [b"1"]))
    channel.dataReceived(answer)
    lose(channel)
    assert str(outcome[0]) == "the node answered a put before it was sent"


def test_a_node_may_refuse_a_body_before_it_has_all_of_it() -> None:
    wire = ScriptedWire([100])
    channel = opened(wire)
    outcome = outcome_of(channel.put(ClusterPath(("a",)), [b"1" * 1000]))
    wire.become_writable()
    channel.dataReceived(FULL)
    wire.become_writable()
    assert isinstance(outcome[0], NoSpace)
    assert wire.sent == request("a", b"1" * 1000)


# -- the end -----------------------------------------------------------------------------------------------------------


def test_the_end_of_the_connection_gives_back_every_put_without_an_answer_in_order() -> None:
    wire = ScriptedWire()
    channel = opened(wire)
    given_back: list[str] = []
    for name in "abc":
        put = channel.put(ClusterPath((name,)), [b"1"])
        put.addErrback(lambda failure, name=name: given_back.append(f"{name} {failure.type.__name__}"))
    wire.send_all()
    channel.dataReceived(OK)
    lose(channel)
    assert given_back == ["b NodeUnreachable", "c NodeUnreachable"]
    assert channel.outstanding == 0


def test_a_channel_that_gives_back_puts_takes_no_more() -> None:
    """Whoever puts again from inside a failure must not choose the broken channel."""
    channel = opened(ScriptedWire())
    room: list[bool] = []
    channel.put(ClusterPath(("a",)), [b"1"]).addErrback(lambda _: room.append(channel.room(1)))
    lose(channel)
    assert room == [False]


def test_the_end_is_told_behind_all_outcomes_with_its_cause() -> None:
    channel = opened(ScriptedWire())
    order: list[str] = []
    channel.ended.addCallback(lambda cause: order.append(f"ended with {type(cause).__name__}"))
    channel.put(ClusterPath(("a",)), [b"1"]).addErrback(lambda _: order.append("given back"))
    lose(channel)
    assert order == ["given back", "ended with NodeUnreachable"]


def test_a_put_that_had_not_left_as_a_whole_is_known_not_to_be_stored() -> None:
    wire = ScriptedWire([len(request("a", b"1")) + 10, BlockingIOError()])
    channel = opened(wire)
    outcomes = [outcome_of(channel.put(ClusterPath((name,)), [b"1"])) for name in "ab"]
    wire.become_writable()
    lose(channel)
    assert [was_sent(outcome[0]) for outcome in outcomes] == [True, False]


def test_a_put_names_its_digest_when_it_is_sent_again() -> None:
    wire = ScriptedWire()
    channel = opened(wire)
    channel.put(ClusterPath(("a",)), [b"1"], Digest("xxh3-128", "0" * 32))
    wire.send_all()
    assert b"\r\nGranum-Digest: xxh3-128=00000000000000000000000000000000\r\n" in wire.sent


def test_a_node_is_quiet_from_its_last_progress_while_it_owes_a_receipt() -> None:
    clock, wire = Clock(), ScriptedWire()
    channel = opened(wire, clock)
    clock.advance(10)
    quiet = [channel.quiet]
    channel.put(ClusterPath(("a",)), [b"1"])
    wire.send_all()
    clock.advance(3)
    quiet.append(channel.quiet)
    channel.dataReceived(OK)
    quiet.append(channel.quiet)
    assert quiet == [0.0, 3.0, 0.0]


def test_the_end_of_an_idle_channel_has_no_cause() -> None:
    channel = opened(ScriptedWire())
    ended = outcome_of(channel.ended)
    lose(channel)
    assert ended == [None]


def test_answers_that_came_before_the_break_still_count() -> None:
    wire = ScriptedWire()
    channel = opened(wire)
    outcome = outcome_of(channel.put(ClusterPath(("a",)), [b"1"]))
    wire.send_all()
    wire.script = [ConnectionResetError(104, "Connection reset by peer")]
    lost = outcome_of(channel.put(ClusterPath(("b",)), [b"2"]))
    wire.send_all()
    assert not channel.room(0)
    channel.dataReceived(OK)
    lose(channel)
    assert str(outcome[0].path) == "/a"
    assert str(lost[0]) == "the connection broke: Connection reset by peer"


def test_a_node_that_does_nothing_for_five_seconds_has_timed_out() -> None:
    clock, wire = Clock(), ScriptedWire()
    channel = opened(wire, clock)
    outcome = outcome_of(channel.put(ClusterPath(("a",)), [b"1"]))
    clock.advance(4.9)
    assert not wire.closed
    clock.advance(0.2)
    assert wire.closed == "aborted"
    lose(channel)
    assert isinstance(outcome[0], NodeTimeout)


def wait_for_an_answer(channel: Channel, wire: ScriptedWire) -> None:
    channel.dataReceived(b"HTTP/1.1 ")


def wait_for_much_to_leave(channel: Channel, wire: ScriptedWire) -> None:
    wire.become_writable()


@pytest.mark.parametrize("progress", [wait_for_an_answer, wait_for_much_to_leave])
def test_an_answer_or_much_that_leaves_counts_as_progress(progress: Callable[[Channel, ScriptedWire], None]) -> None:
    clock, wire = Clock(), ScriptedWire([10, 65_536, 65_536])
    channel = opened(wire, clock)
    channel.put(ClusterPath(("a",)), [b"1" * 200_000])
    wire.become_writable()
    for _ in range(2):
        clock.advance(3)
        progress(channel, wire)
    clock.advance(3)
    assert not wire.closed


def test_an_idle_channel_does_not_time_out() -> None:
    clock, wire = Clock(), ScriptedWire()
    channel = opened(wire, clock)
    channel.put(ClusterPath(("a",)), [b"1"])
    wire.send_all()
    channel.dataReceived(OK)
    clock.advance(3600)
    outcome_of(channel.put(ClusterPath(("b",)), [b"1"]))
    clock.advance(4)
    assert not wire.closed


def test_a_closed_channel_leaves_no_timer() -> None:
    clock, wire = Clock(), ScriptedWire()
    channel = opened(wire, clock)
    channel.put(ClusterPath(("a",)), [b"1"])
    wire.send_all()
    channel.dataReceived(OK)
    channel.close()
    assert wire.closed == "lost"
    lose(channel)
    assert clock.getDelayedCalls() == []


# -- real connections --------------------------------------------------------------------------------------------------


def node_at(fake: FakeNode) -> Node:
    return Node(fake.node_id, f"{fake.computer}:{fake.port}", fake.address, fake.port, fake.cluster, fake.node_id)


@pytest_twisted.ensureDeferred
async def test_frames_of_eight_mib_arrive_whole() -> None:
    fake = FakeNode(reactor)
    await fake.start()
    channel = await connect(node_at(fake), reactor=reactor)
    bodies = [bytes([n]) * (8 << 20) for n in range(3)]
    await gatherResults([channel.put(ClusterPath((f"f{n}",)), [b"head", body]) for n, body in enumerate(bodies)])
    assert all(fake.files[f"/f{n}"] == b"head" + body for n, body in enumerate(bodies))
    channel.close()
    await channel.ended
    await fake.stop()


@pytest_twisted.ensureDeferred
async def test_a_second_put_of_a_name_is_refused_and_the_connection_goes_on() -> None:
    fake = FakeNode(reactor)
    await fake.start()
    channel = await connect(node_at(fake), reactor=reactor)
    outcomes = [outcome_of(channel.put(ClusterPath((name,)), [b"1"])) for name in "aa"]
    await channel.put(ClusterPath(("b",)), [b"2"])
    assert isinstance(outcomes[1][0], AlreadyStored)
    assert fake.files == {"/a": b"1", "/b": b"2"}
    channel.close()
    await channel.ended
    await fake.stop()


@pytest_twisted.ensureDeferred
async def test_a_node_that_drops_the_connection_gives_back_what_it_did_not_answer() -> None:
    fake = FakeNode(reactor)
    await fake.start()
    channel = await connect(node_at(fake), reactor=reactor)
    await channel.put(ClusterPath(("a",)), [b"1"])
    fake.fail_next("drop")
    outcomes = [outcome_of(channel.put(ClusterPath((name,)), [b"1"])) for name in "bc"]
    await channel.ended
    assert [type(outcome[0]) for outcome in outcomes] == [NodeUnreachable, NodeUnreachable]
    await fake.stop()


@pytest_twisted.ensureDeferred
async def test_a_node_that_does_not_listen_is_unreachable() -> None:
    fake = FakeNode(reactor)
    await fake.start()
    await fake.stop()
    with pytest.raises(NodeUnreachable, match=r"no connection: .*refused"):
        await connect(node_at(fake), reactor=reactor)


def test_a_node_that_does_not_accept_within_two_seconds_has_timed_out() -> None:
    memory = MemoryReactorClock()
    outcome = outcome_of(connect(NODE, reactor=memory))
    (*_, timeout, _bind) = memory.tcpClients[0]
    assert timeout == 2.0
    _, _, factory, *_ = memory.tcpClients[0]
    factory.clientConnectionFailed(None, Failure(network.TimeoutError()))
    assert isinstance(outcome[0], NodeTimeout)


@pytest_twisted.ensureDeferred
async def test_a_cancelled_connect_leaves_nothing() -> None:
    memory = MemoryReactorClock()
    connecting = connect(NODE, reactor=memory)
    connecting.cancel()
    with pytest.raises(CancelledError):
        await connecting
    assert memory.getDelayedCalls() == []
    assert memory.connectors[0].stoppedConnecting


def test_a_receipt_of_another_node_at_the_address_is_none() -> None:
    """The port of a node that ended may be another's by now: what went there is not where the roster says it is."""
    wire = ScriptedWire()
    channel = opened(wire)
    put = outcome_of(channel.put(ClusterPath(("f",)), [b"x"]))
    wire.send_all()
    channel.dataReceived(OK.replace(b"\r\n\r\n", b"\r\nGranum-Node: id-2\r\n\r\n"))
    assert wire.closed == "aborted"
    lose(channel)
    assert (type(put[0]), str(put[0])) == (
        NodeUnreachable,
        "another node answers at 127.0.0.1:15348: not id but id-2",
    )


@pytest.mark.parametrize("header", [b"", b"\r\nGranum-Node: id"])
def test_a_receipt_of_the_node_itself_is_one_also_when_it_does_not_sign(header: bytes) -> None:
    wire = ScriptedWire()
    channel = opened(wire)
    put = outcome_of(channel.put(ClusterPath(("f",)), [b"x"]))
    wire.send_all()
    channel.dataReceived(OK.replace(b"\r\n\r\n", header + b"\r\n\r\n"))
    assert put[0].node == NODE


def test_a_node_that_takes_single_bytes_is_as_good_as_frozen() -> None:
    """What a kernel out of room does with the bytes for a stopped process, for minutes."""
    clock, wire = Clock(), ScriptedWire([1] * 1000)
    channel = opened(wire, clock)
    outcome = outcome_of(channel.put(ClusterPath.parse("/f"), [bytes(10_000)]))
    for _ in range(49):
        wire.become_writable()
        clock.advance(0.1)
    assert wire.closed == ""
    for _ in range(3):
        wire.become_writable()
        clock.advance(0.1)
    assert wire.closed == "aborted"
    lose(channel)
    assert [str(error) for error in outcome] == ["the node took and sent nothing to speak of for 5 s"]


def test_a_slow_node_is_not_given_up() -> None:
    clock, wire = Clock(), ScriptedWire([70_000] * 1000)
    channel = opened(wire, clock)
    channel.put(ClusterPath.parse("/f"), [bytes(2_000_000)])
    while wire.wants_writing:
        wire.become_writable()
        clock.advance(4.0)
    assert wire.closed == ""
