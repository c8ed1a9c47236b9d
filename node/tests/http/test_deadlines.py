"""Who is late, and who is not to blame."""

import pytest

from granum_node.http.deadlines import Deadlines, Late

START = 1000.0


def looks(deadlines: Deadlines, seconds: float, *, sent: int = 0, blocked: bool = False, unanswered: int = 0) -> Late:
    """Look every second for *seconds*; return the first that is late."""
    for second in range(1, int(seconds) + 1):
        late = deadlines.look(START + second, sent, reading=True, blocked=blocked, unanswered=unanswered)
        if late is not Late.NOBODY:
            return late
    return Late.NOBODY


@pytest.fixture
def deadlines() -> Deadlines:
    return Deadlines(START)


def test_a_head_is_due_from_its_first_byte_on(deadlines: Deadlines) -> None:
    deadlines.head_waits(START)
    deadlines.head_waits(START + 9)  # more of it has come
    assert looks(deadlines, 9) is Late.NOBODY
    assert looks(deadlines, 10) is Late.REQUEST


def test_a_head_that_has_ended_is_not_due(deadlines: Deadlines) -> None:
    deadlines.head_waits(START)
    deadlines.head_ends()
    assert looks(deadlines, 60) is Late.NOBODY


def test_a_body_must_move(deadlines: Deadlines) -> None:
    deadlines.body_begins(START)
    deadlines.body_arrived(30 * 1024 - 1)
    assert looks(deadlines, 29) is Late.NOBODY
    assert looks(deadlines, 30) is Late.REQUEST


def test_what_arrived_of_one_body_does_not_count_for_the_next(deadlines: Deadlines) -> None:
    deadlines.body_begins(START)
    deadlines.body_arrived(1 << 20)
    deadlines.body_ends()
    assert looks(deadlines, 60) is Late.NOBODY
    deadlines.body_begins(START + 60)
    assert (
        deadlines.look(START + 90, 0, reading=True, blocked=False, unanswered=0) is Late.NOBODY
    )  # the node stood still
    assert deadlines.look(START + 92, 0, reading=True, blocked=False, unanswered=0) is Late.NOBODY
    for second in range(93, 121):
        late = deadlines.look(START + second, 0, reading=True, blocked=False, unanswered=0)
    assert late is Late.REQUEST


def test_a_reader_must_take_what_is_ready(deadlines: Deadlines) -> None:
    assert looks(deadlines, 60, blocked=True) is Late.NOBODY
    assert looks(deadlines, 61, blocked=True) is Late.PEER


def test_a_reader_that_takes_something_is_not_late(deadlines: Deadlines) -> None:
    late = {
        deadlines.look(START + second, second // 50, reading=True, blocked=True, unanswered=3)
        for second in range(1, 200)
    }
    assert late == {Late.NOBODY}


def test_what_the_node_owes_may_take_its_time(deadlines: Deadlines) -> None:
    assert looks(deadlines, 5000, unanswered=1) is Late.NOBODY


def test_a_silent_peer_is_late_after_ten_minutes(deadlines: Deadlines) -> None:
    assert looks(deadlines, 600) is Late.NOBODY
    assert looks(deadlines, 601) is Late.PEER


def test_requests_that_are_not_read_any_more_are_not_late(deadlines: Deadlines) -> None:
    deadlines.head_waits(START)
    late = {deadlines.look(START + s, 0, reading=False, blocked=False, unanswered=1) for s in range(1, 100)}
    assert late == {Late.NOBODY}
