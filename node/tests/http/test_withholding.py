"""Answers to PYME's streams wait for its silence, so that it is never reset with files on the way."""

from collections.abc import Iterator

import pytest

from granum_node.http import channel, outbox
from node.tests.http.test_channel import BY_PYME, GET_SMALL, HELLO, Line, parse_replies


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.lose()
    made.wire.close()


def answers(line: Line) -> int:
    return len(parse_replies(line.wire.take()))


def test_no_answer_leaves_while_puts_without_host_keep_coming(line: Line) -> None:
    for _ in range(50):
        line.receive(BY_PYME)
        line.clock.advance(0.2)
    assert (answers(line), len(line.bodies)) == (0, 50)


def test_all_answers_leave_a_quarter_of_a_second_after_the_last_byte(line: Line) -> None:
    line.receive(BY_PYME * 3 + BY_PYME[:20])
    line.clock.advance(0.24)
    line.receive(BY_PYME[20:30])
    line.clock.advance(0.24)
    assert answers(line) == 0
    line.clock.advance(0.02)
    assert answers(line) == 3


def test_a_node_that_does_not_read_does_not_take_that_for_silence(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "UNANSWERED_MAX", 2)
    line.receive(BY_PYME + 3 * BY_PYME.replace(b"//f", b"/later"))
    line.clock.advance(5)
    assert (answers(line), len(line.later)) == (0, 2)
    for reply in line.later:
        reply.send(200, {})
    line.clock.advance(0.2)
    assert (answers(line), len(line.later)) == (0, 3)
    line.clock.advance(0.3)
    assert answers(line) == 3


def test_bytes_that_waited_while_the_node_stood_still_are_read_before_it_answers(line: Line) -> None:
    line.receive(BY_PYME)
    line.clock.callLater(0.25, line.receive, BY_PYME)  # as a reactor that is late has it: timers first, then sockets
    line.clock.advance(0.25)
    assert answers(line) == 0
    line.clock.advance(0.25)
    assert answers(line) == 2


def test_an_answer_that_comes_after_the_silence_leaves_at_once(line: Line) -> None:
    line.receive(BY_PYME.replace(b"//f", b"/later"))
    line.clock.advance(1)
    assert answers(line) == 0
    line.later[0].send(200, {})
    assert answers(line) == 1


def test_one_answer_leaves_every_twenty_seconds(line: Line) -> None:
    for _ in range(450):  # 45 s
        line.receive(BY_PYME)
        line.clock.advance(0.1)
    assert answers(line) == 2


@pytest.mark.parametrize("last", [HELLO, GET_SMALL, BY_PYME.replace(b"keep-alive", b"close")])
def test_another_request_is_answered_at_once_and_in_order(line: Line, last: bytes) -> None:
    line.receive(BY_PYME * 2 + last)
    assert [status for status, _ in parse_replies(line.wire.take())] == [200, 200, 200]


def test_a_peer_that_has_closed_its_half_is_answered_at_once(line: Line) -> None:
    line.receive(BY_PYME * 2)
    line.channel.readConnectionLost()
    assert answers(line) == 2


def test_a_node_that_stops_answers_at_once(line: Line) -> None:
    line.receive(BY_PYME * 2)
    line.channel.close_when_idle()
    assert answers(line) == 2


def test_a_connection_that_is_gone_leaves_nothing_behind(line: Line) -> None:
    line.receive(BY_PYME * 2)
    line.lose()
    assert line.clock.getDelayedCalls() == []


def test_what_is_withheld_is_bounded(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "WITHHELD_BYTES_MAX", 10_000)
    for _ in range(10):
        line.receive(BY_PYME * 100)
    left = answers(line)
    assert 800 < left < 1000
    line.clock.advance(0.3)
    assert left + answers(line) == 1000
