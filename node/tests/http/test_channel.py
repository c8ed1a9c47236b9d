"""A connection: what is answered, held back, let go of and cut, with bytes and time under control."""

import itertools
import os
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from granum.wire.errors import AlreadyStored
from granum_node.http import arriving
from granum_node.http import channel as channels
from granum_node.http.channel import Channel
from granum_node.http.limits import Budget
from granum_node.http.reply import HeadMaker, Reply
from node.tests.http.wire import Wire
from node.tests.watching import open_files

LARGE = bytes(range(256)) * 1024  # 256 KiB
GET_LARGE = b"GET /large HTTP/1.1\r\n\r\n"
GET_SMALL = b"GET /small HTTP/1.1\r\n\r\n"
GET_LATER = b"GET /later HTTP/1.1\r\n\r\n"
HELLO = b"PUT /f HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\n\r\nhello"
BY_PYME = b"PUT //f HTTP/1.1\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"


class Body:
    """A sink that keeps what it gets and answers 200."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.got = b""
        self.ended = ""
        self.is_dropping = False

    def write(self, piece: bytes | memoryview) -> None:
        self.got += piece

    def finish(self) -> None:
        self.ended = "finished"
        self.reply.send(200, {})

    def abort(self) -> None:
        self.ended = "aborted"


class Line:
    """A channel on a wire with a responder of a few targets."""

    def __init__(self, large: Path | None = None) -> None:
        self.clock = Clock()
        self.wire = Wire(65536)
        self.heads = HeadMaker("test", "id", lambda: 0.0)
        self.budget = Budget()
        self.large = large
        self.bodies: list[Body] = []
        self.later: list[Reply] = []
        self.counted: list[tuple[str, int]] = []
        self.open = True
        self.channel = Channel(self, self.clock)  # type: ignore[arg-type]
        self.channel.makeConnection(self.wire)  # type: ignore[arg-type]

    def begin(self, reply: Reply) -> Body | None:
        target = reply.request.target
        if target == b"/taken":
            raise AlreadyStored
        if target == b"/broken":
            raise RuntimeError("a defect")
        if target == b"/later":
            self.later.append(reply)
        elif target == b"/large":
            assert self.large is not None
            reply.send_file(os.open(self.large, os.O_RDONLY), len(LARGE), {})
        elif reply.request.verb == "PUT":
            self.bodies.append(Body(reply))
            return self.bodies[-1]
        else:
            reply.send(200, {}, b"small")
        return None

    def count(self, verb: str, status: int) -> None:
        self.counted.append((verb, status))

    def joined(self, channel: Channel) -> None:
        pass

    def left(self, channel: Channel) -> None:
        self.open = False

    def lose(self) -> None:
        if self.open:
            self.channel.connectionLost()

    def receive(self, data: bytes) -> None:
        """Be the reactor that read *data*, unless reading is paused."""
        assert not self.wire.paused
        self.channel.dataReceived(data)

    def replies(self) -> list[tuple[int, bytes]]:
        """Read everything as the peer, letting what was held go on; return statuses and bodies."""
        data = b""
        while True:
            more = self.wire.take()
            self.clock.advance(0)
            if not more and not self.wire.writing:
                break
            data += more
        return parse_replies(data)


def parse_replies(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    at = 0
    while at < len(data):
        end = data.index(b"\r\n\r\n", at) + 4
        head = data[at:end]
        status = int(head.split()[1])
        size = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]) if status >= 200 else 0
        found.append((status, data[end : end + size]))
        at = end + size
    return found


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    large = tmp_path / "large"
    large.write_bytes(LARGE)
    before = open_files()
    made = Line(large)
    yield made
    made.lose()
    made.wire.close()
    assert open_files() == before, "a descriptor was left open"


# -- requests and answers ------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(line: Line) -> None:
    line.receive(GET_SMALL + HELLO + b"GET /taken HTTP/1.1\r\n\r\n" + GET_LATER + GET_LARGE)
    assert [status for status, _ in line.replies()] == [200, 200, 405]
    line.later[0].send(200, {}, b"now")
    line.clock.advance(0)
    assert line.replies() == [(200, b"now"), (200, LARGE)]


@given(st.lists(st.integers(0, 400), max_size=10))
@settings(max_examples=40, deadline=None)
def test_a_stream_cut_anywhere_gets_the_same_answers(cuts: list[int]) -> None:
    refused = b"PUT /taken HTTP/1.1\r\nContent-Length: 26\r\n\r\nGET /small HTTP/1.1\r\n\r\nabc"
    chunked = b"PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    bad = b"GET /f NOTHTTP\r\n\r\n"
    stream = HELLO + refused + chunked + GET_SMALL + refused + GET_SMALL + bad + GET_SMALL
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    line = Line()
    for a, b in itertools.pairwise(edges):
        line.channel.dataReceived(stream[a:b])
    assert [status for status, _ in line.replies()] == [200, 405, 200, 200, 405, 200, 400]
    assert [body.got for body in line.bodies] == [b"hello", b"hello"]
    line.lose()
    line.wire.close()


def test_a_defect_in_a_verb_is_500_and_the_connection_stays(line: Line) -> None:
    line.receive(b"PUT /broken HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello" + GET_SMALL)
    assert [status for status, _ in line.replies()] == [500, 200]


def test_a_request_that_closes_is_the_last(line: Line) -> None:
    line.receive(b"GET /small HTTP/1.1\r\nConnection: close\r\n\r\n" + GET_SMALL)
    data = line.wire.take()
    assert b"Connection: close\r\n" in data
    assert len(parse_replies(data)) == 1


def test_a_lost_connection_aborts_the_body(line: Line) -> None:
    line.receive(HELLO[:-1])
    line.lose()
    assert (line.bodies[0].got, line.bodies[0].ended) == (b"hell", "aborted")


# -- 100 Continue ----------------------------------------------------------------------------------------------------

EXPECTING = b"HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"


def test_a_put_that_may_come_is_told_to_continue(line: Line) -> None:
    line.receive(b"PUT /f " + EXPECTING)
    assert line.wire.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.receive(b"hello" + GET_SMALL)
    assert [status for status, _ in line.replies()] == [200, 200]


@pytest.mark.parametrize("request_line", [b"PUT /taken ", b"GET /small ", b"GET /later "])
def test_a_final_answer_instead_of_100_closes_because_the_body_may_never_come(line: Line, request_line: bytes) -> None:
    """What follows may be the body or the next request: it is neither read as the one nor as the other."""
    line.receive(request_line + EXPECTING)
    line.receive(GET_SMALL)
    for reply in line.later:
        reply.send(200, {})
    data = line.wire.take()
    assert b"Connection: close\r\n" in data
    assert len(parse_replies(data)) == 1


# -- bodies that nobody wants ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_line", [b"PUT /taken ", b"GET /small "])
def test_a_very_long_unwanted_body_is_not_waited_for(line: Line, request_line: bytes) -> None:
    line.receive(request_line + b"HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nabc")
    data = line.wire.take()
    assert b"Connection: close\r\n" in data
    assert len(parse_replies(data)) == 1


def test_an_endless_unwanted_chunked_body_ends_the_connection(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "DROPPED_BODY_BYTES_MAX", 100_000)
    line.receive(b"PUT /taken HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(11):
        line.receive(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
    assert [status for status, _ in line.replies()] == [405]
    assert line.wire.producer is None, "the connection is closing"


# -- a peer that does not read -----------------------------------------------------------------------------------------


def test_gets_that_are_not_read_hold_few_files_and_little_memory_and_are_answered_in_order(line: Line) -> None:
    before = open_files()
    requests = b"".join(b"GET /small HTTP/1.1\r\nN: %01000d\r\n\r\n" % n + GET_LARGE for n in range(200))
    for at in range(0, len(requests), 20_000):
        if line.wire.paused:
            rest = requests[at:]
            break
        line.receive(requests[at : at + 20_000])
    assert open_files() - before <= 16
    assert len(line.channel._kept) <= 64 * 1024 + 20_000
    answered = 0
    while rest or line.wire.writing:
        for status, body in line.replies():
            assert (status, body) == (200, LARGE if answered % 2 else b"small")
            answered += 1
        line.receive(rest[:20_000])
        rest = rest[20_000:]
    assert answered == 400


def test_files_behind_a_late_answer_are_few_too(line: Line) -> None:
    before = open_files()
    line.receive(GET_LATER + GET_LARGE * 100)
    assert open_files() - before <= 16
    line.later[0].send(200, {}, b"now")
    assert [len(body) for _, body in line.replies()] == [3, *[len(LARGE)] * 100]


def test_a_read_waits_until_what_came_before_it_is_answered(line: Line) -> None:
    """It must see what was put before it; and each may be a listing of many megabytes."""
    line.receive(GET_LATER * 100)
    for number in range(100):
        assert len(line.later) == number + 1
        line.later[number].send(200, {}, b"%d" % number)
        line.clock.advance(0)
    assert [body for _, body in line.replies()] == [b"%d" % number for number in range(100)]


def test_puts_are_stored_though_nobody_reads_the_answers(line: Line) -> None:
    """PYME's streaming client stops reading while it sends."""
    tracemalloc.start()
    for _ in range(100):
        line.receive(HELLO * 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(body.ended == "finished" for body in line.bodies) == 10_000
    assert peak < 32 << 20
    assert [status for status, _ in line.replies()] == [200] * 10_000


def test_unread_answers_to_puts_are_bounded_too(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "REPLY_BYTES_PENDING_MAX", 100_000)
    for _ in range(1000):
        if line.wire.paused:
            break
        line.receive(HELLO * 100)
    assert line.wire.paused
    assert len(line.bodies) < 3000  # the socket's own buffers included
    replies = line.replies()
    assert not line.wire.paused
    assert len(replies) == sum(body.ended == "finished" for body in line.bodies)


# -- a peer that ends its side ---------------------------------------------------------------------------------------


def test_a_peer_that_ends_sending_gets_every_answer_and_then_the_end(line: Line) -> None:
    line.receive(GET_LARGE * 50)  # more than are taken at once
    line.channel.readConnectionLost()
    assert not line.wire.lost
    assert line.replies() == [(200, LARGE)] * 50
    assert line.wire.lost


def test_a_peer_that_ends_sending_just_when_more_could_be_taken_gets_every_answer(line: Line) -> None:
    line.receive(GET_LARGE * 50)
    line.wire.take()  # everything has left, and the rest is about to be taken up
    line.channel.readConnectionLost()
    assert len(line.replies()) == 34
    assert line.wire.lost


def test_a_peer_that_ends_sending_gets_a_late_answer_and_then_the_end(line: Line) -> None:
    line.receive(GET_LATER)
    line.channel.readConnectionLost()
    assert not line.wire.lost
    line.later[0].send(200, {}, b"now")
    assert (line.replies(), line.wire.lost) == ([(200, b"now")], True)


def test_a_put_cut_short_by_the_end_is_aborted_and_the_connection_ends_at_once(line: Line) -> None:
    line.receive(GET_SMALL + HELLO[:-1])
    line.channel.readConnectionLost()
    assert line.bodies[0].ended == "aborted"
    assert (line.replies(), line.wire.lost) == ([(200, b"small")], True)


def test_an_idle_peer_that_ends_sending_is_let_go(line: Line) -> None:
    line.channel.readConnectionLost()
    assert line.wire.lost


# -- lingering ---------------------------------------------------------------------------------------------------------


def test_behind_the_last_answer_our_side_ends_and_the_rest_is_dropped_for_two_seconds(line: Line) -> None:
    line.receive(b"GET /small HTTP/1.1\r\nConnection: close\r\n\r\n")
    line.wire.take()
    assert line.wire.peer.recv(1) == b""
    line.clock.advance(1.9)
    assert not line.wire.aborted
    line.clock.advance(0.2)
    assert line.wire.aborted


def test_a_peer_that_still_sends_its_refused_body_is_given_time_but_not_for_ever(line: Line) -> None:
    """A reset would take the answer away from a peer that reads only when it has sent everything."""
    line.receive(b"PUT /taken HTTP/1.1\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n")
    for _ in range(19):
        line.clock.advance(1.5)
        line.receive(b"x")
    assert not line.wire.aborted
    for _ in range(3):
        line.clock.advance(1.5)
        line.receive(b"x")
    assert line.wire.aborted


# -- time ----------------------------------------------------------------------------------------------------------------


def wait(line: Line, seconds: int) -> bool:
    """Let time pass with the regular checks; return whether the connection was cut."""
    for _ in range(seconds):
        line.clock.advance(1)
        line.channel.check(line.clock.seconds())
    return line.wire.aborted


def statuses(line: Line) -> list[int]:
    return [status for status, _ in line.replies()]


def drip(line: Line, pieces: Iterable[bytes], every_s: int) -> None:
    """Send a piece every so often, until the node reads no more."""
    for piece in pieces:
        line.receive(piece)
        for _ in range(every_s):
            line.clock.advance(1)
            line.channel.check(line.clock.seconds())
        if line.channel._ending:
            return


def test_a_head_that_is_not_whole_within_10_seconds_is_408_and_the_end(line: Line) -> None:
    line.receive(GET_SMALL + b"GET /f HT")
    assert (wait(line, 9), statuses(line)) == (False, [200])
    assert (wait(line, 1), statuses(line)) == (False, [408])
    assert (wait(line, 2), line.wire.aborted) == (True, True)


def test_a_drip_does_not_extend_the_time_of_a_head(line: Line) -> None:
    drip(line, itertools.repeat(b"A: b\r\n", 100), 1)
    assert line.clock.seconds() == 10
    assert statuses(line) == [408]


def test_each_head_of_a_connection_has_its_own_ten_seconds(line: Line) -> None:
    for half in range(4):
        line.receive(GET_SMALL[:9] if half % 2 == 0 else GET_SMALL[9:])
        assert not wait(line, 7)
    assert statuses(line) == [200, 200]


def test_a_body_that_stops_is_408_after_30_seconds_and_is_not_stored(line: Line) -> None:
    line.receive(HELLO[:-1])
    assert (wait(line, 29), statuses(line)) == (False, [])
    assert (wait(line, 1), statuses(line)) == (False, [408])
    assert line.bodies[0].ended == "aborted"
    assert wait(line, 2)


def test_a_body_that_drips_is_408_after_30_seconds(line: Line) -> None:
    line.receive(b"PUT /f HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
    drip(line, itertools.repeat(bytes(1000), 100), 1)
    assert line.clock.seconds() == 30
    assert statuses(line) == [408]


def test_a_body_just_fast_enough_is_taken_whole(line: Line) -> None:
    line.receive(b"PUT /f HTTP/1.1\r\nContent-Length: 110000\r\n\r\n")
    drip(line, [bytes(11_000)] * 10, 10)
    assert statuses(line) == [200]


def test_an_unwanted_body_that_stops_ends_the_connection_behind_its_answer(line: Line) -> None:
    line.receive(b"PUT /taken HTTP/1.1\r\nHost: n\r\nContent-Length: 9\r\n\r\nx")
    assert statuses(line) == [405]
    assert (wait(line, 29), line.channel._ending) == (False, False)
    assert (wait(line, 3), statuses(line)) == (True, [])


def test_a_node_that_stood_still_does_not_blame_its_peers(line: Line) -> None:
    """After a stop of the process, or a disk that held it, what had arrived is still to be read."""
    line.receive(HELLO[:-1])
    other = Line()
    other.receive(GET_SMALL[:5])
    for each in (line, other):
        each.clock.advance(100)
        each.channel.check(each.clock.seconds())
    line.receive(HELLO[-1:])
    other.receive(GET_SMALL[5:])
    assert (statuses(line), statuses(other)) == ([200], [200])
    other.lose()
    other.wire.close()


def test_a_peer_that_stops_reading_is_cut_after_60_seconds(line: Line) -> None:
    line.receive(GET_LARGE)
    assert (wait(line, 60), wait(line, 2)) == (False, True)


# -- memory over all connections ---------------------------------------------------------------------------------------


def test_an_unfinished_head_that_there_is_no_memory_for_is_503_and_the_others_go_on(line: Line) -> None:
    line.budget.most = 20_000
    other = Line()
    other.budget = line.budget
    other.receive(b"GET /small HTTP/1.1\r\nA: " + bytes(15_000).replace(b"\0", b"a"))
    line.receive(b"GET /small HTTP/1.1\r\nA: " + b"a" * 15_000)
    assert statuses(line) == [503]
    other.receive(b"\r\n\r\n")
    assert statuses(other) == [200]
    assert line.budget.held == 0
    other.lose()
    other.wire.close()


def test_what_is_held_back_is_read_no_further_when_memory_is_short(line: Line) -> None:
    line.budget.most = 1000
    line.receive(GET_LATER + GET_SMALL * 100)
    assert line.wire.paused
    line.later[0].send(200, {}, b"now")
    line.clock.advance(0)
    assert (statuses(line), line.wire.paused, line.budget.held) == ([200] * 101, False, 0)


def test_a_lost_connection_gives_its_memory_back(line: Line) -> None:
    line.receive(GET_SMALL[:10])
    assert line.budget.held == 10
    line.lose()
    assert line.budget.held == 0


def test_a_put_that_failed_midway_is_read_no_further_than_an_unwanted_one(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving, "DROPPED_BODY_BYTES_MAX", 100_000)
    line.receive(b"PUT /f HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + bytes(10_000))
    assert not line.channel._ending
    line.bodies[0].is_dropping = True
    line.receive(bytes(10_000))
    assert (line.bodies[0].ended, line.channel._ending) == ("finished", True)


def test_a_chunked_put_that_failed_midway_is_not_read_for_ever(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "DROPPED_BODY_BYTES_MAX", 100_000)
    line.receive(b"PUT /f HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    line.bodies[0].is_dropping = True
    for _ in range(10):
        line.receive(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
    assert not line.channel._ending
    line.receive(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
    assert (line.bodies[0].ended, line.channel._ending) == ("finished", True)


def test_a_peer_that_reads_slowly_is_not_cut(line: Line) -> None:
    line.receive(GET_LARGE * 10)
    taken = 0
    for _ in range(20):
        assert not wait(line, 20)
        taken += len(line.wire.take(120_000))
        line.wire.turn()
    assert taken >= 10 * len(LARGE) - 262_144


def test_an_answer_that_takes_the_node_long_is_waited_for(line: Line) -> None:
    line.receive(GET_LATER)
    assert not wait(line, 900)
    line.later[0].send(200, {}, b"now")
    assert line.replies() == [(200, b"now")]


def test_an_idle_connection_is_cut_after_ten_minutes(line: Line) -> None:
    line.receive(GET_SMALL)
    line.wire.take()
    assert (wait(line, 600), wait(line, 2)) == (False, True)


# -- a node that stops -----------------------------------------------------------------------------------------------------


def test_a_connection_that_asked_nothing_closes_at_once(line: Line) -> None:
    line.channel.close_when_idle()
    assert line.wire.lost


def test_a_connection_that_was_quiet_for_long_closes_at_once(line: Line) -> None:
    line.receive(GET_SMALL)
    line.wire.take()
    line.clock.advance(5)
    line.channel.close_when_idle()
    assert line.wire.lost


def test_a_connection_that_was_just_answered_lingers(line: Line) -> None:
    line.receive(GET_SMALL)
    line.wire.take()
    line.channel.close_when_idle()
    assert not line.wire.lost
    assert line.wire.peer.recv(1) == b""


def test_a_put_in_flight_is_finished_and_the_next_one_is_not_begun(line: Line) -> None:
    """A client that streams puts without a gap would else keep the node until it is cut inside one of them."""
    line.receive(HELLO[:-1])
    line.channel.close_when_idle()
    line.receive(b"o" + HELLO)
    line.channel.close_when_idle()
    data = line.wire.take()
    assert b"Connection: close\r\n" in data
    assert [status for status, _ in parse_replies(data)] == [200]
    assert len(line.bodies) == 1
    assert line.wire.producer is None, "the connection is closing"


def test_a_refused_body_in_flight_is_dropped_to_its_end_before_the_connection_closes(line: Line) -> None:
    line.receive(b"PUT /taken HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell")
    line.channel.close_when_idle()
    assert line.wire.producer is not None
    line.receive(b"o" + GET_SMALL)
    line.channel.close_when_idle()
    assert ([status for status, _ in line.replies()], line.wire.producer) == ([405], None)


def test_a_node_that_stops_does_not_wait_for_the_rest_of_a_body_that_it_drops(line: Line) -> None:
    """The answer has left; the peer has the usual time to read it."""
    line.receive(b"PUT /taken HTTP/1.1\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n")
    line.channel.close_when_idle()
    for _ in range(3):
        line.receive(b"x")
        line.clock.advance(1)
    assert line.wire.aborted


def test_a_late_answer_is_given_before_the_connection_closes(line: Line) -> None:
    line.receive(GET_LATER)
    line.channel.close_when_idle()
    line.later[0].send(200, {}, b"now")
    assert (line.replies(), line.wire.producer) == ([(200, b"now")], None)
