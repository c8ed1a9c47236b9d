"""Replies leave in order, whole, through sockets that take little at a time, and no file stays open."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from granum_node.http.outbox import FilePart, Item, Outbox
from node.tests.http.wire import Wire
from node.tests.watching import open_files

LARGE = bytes(range(256)) * 4096  # 1 MiB, far above the socket's buffers


class Line:
    """An outbox on a wire; `closed` counts calls of *finished*."""

    def __init__(self, buffer_bytes: int = 8192) -> None:
        self.wire = Wire(buffer_bytes)
        self.closed = self.drained = 0
        self.outbox = Outbox(self.wire, self._finished, self._drained)  # type: ignore[arg-type]

    def _finished(self) -> None:
        self.closed += 1

    def _drained(self) -> None:
        self.drained += 1


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.outbox.stopProducing()
    made.wire.close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    return file


def part(file: Path) -> FilePart:
    return FilePart(os.open(file, os.O_RDONLY), 0, file.stat().st_size)


def test_replies_leave_in_the_order_of_their_requests(line: Line) -> None:
    first, second, third = (line.outbox.reserve() for _ in range(3))
    third.fill([b"3"])
    first.fill([b"1"])
    assert line.wire.take() == b"1"
    second.fill([b"2"])
    assert line.wire.take() == b"23"


def test_a_large_reply_leaves_whole_in_parts(line: Line) -> None:
    line.outbox.reserve().fill([b"head", LARGE, b"tail"])
    assert line.wire.writing
    assert line.wire.take() == b"head" + LARGE + b"tail"


def test_files_and_small_pieces_leave_in_order(line: Line, large: Path) -> None:
    before = open_files()
    line.outbox.reserve().fill([b"head1", part(large)])
    line.outbox.reserve().fill([b"head2", b"body2"])
    line.outbox.reserve().fill([b"head3", part(large)])
    line.outbox.reserve().fill([b"head4"])
    assert line.wire.take() == b"head1" + LARGE + b"head2body2head3" + LARGE + b"head4"
    assert open_files() == before


def test_more_pieces_than_one_call_takes_leave_in_order(line: Line) -> None:
    line.outbox.corked = True
    for number in range(1000):
        line.outbox.reserve().fill([b"%04d" % number])
    line.outbox.corked = False
    line.outbox.flush()
    assert line.wire.take() == b"".join(b"%04d" % number for number in range(1000))


@given(st.lists(st.tuples(st.integers(0, 40_000), st.booleans(), st.integers(0, 9)), max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_replies_filled_in_any_order_leave_in_order(
    tmp_path_factory: pytest.TempPathFactory, replies: list[tuple[int, bool, int]]
) -> None:
    directory = tmp_path_factory.mktemp("files")
    line = Line(4096)
    before = open_files()
    slots = [line.outbox.reserve() for _ in replies]
    bodies = [bytes([65 + number]) * (size + 1) for number, (size, _, _) in enumerate(replies)]
    taken = b""
    for number in sorted(range(len(replies)), key=lambda at: replies[at][2]):
        items: list[Item] = [bodies[number]]
        if replies[number][1]:
            file = directory / str(number)
            file.write_bytes(bodies[number])
            items = [part(file)]
        slots[number].fill(items)
        taken += line.wire.take(1000)
    taken += line.wire.take()
    assert taken == b"".join(bodies)
    assert (open_files(), line.outbox.files, line.outbox.queued_bytes) == (before, 0, 0)
    line.wire.close()


def test_a_reply_that_closes_ends_the_connection_once_behind_it(line: Line) -> None:
    line.outbox.reserve().fill([LARGE])
    line.outbox.reserve().fill([b"last"], closes=True)
    assert line.closed == 0
    assert line.wire.take() == LARGE + b"last"
    assert line.closed == 1


def test_an_outbox_told_to_close_waits_for_what_was_asked(line: Line) -> None:
    slot = line.outbox.reserve()
    line.outbox.close_after_last()
    assert line.closed == 0
    slot.fill([b"1"])
    assert (line.wire.take(), line.closed) == (b"1", 1)


def test_an_idle_outbox_told_to_close_closes(line: Line) -> None:
    line.outbox.close_after_last()
    assert line.closed == 1


def test_an_interim_reply_waits_for_its_turn(line: Line) -> None:
    first, second = line.outbox.reserve(), line.outbox.reserve()
    line.outbox.send_interim(second, b"100 ")
    assert line.wire.take() == b""
    first.fill([b"1 "])
    assert line.wire.take() == b"1 100 "
    second.fill([b"2"])
    assert line.wire.take() == b"2"


def test_a_withdrawn_reply_is_not_waited_for(line: Line, large: Path) -> None:
    before = open_files()
    first, cut = line.outbox.reserve(), line.outbox.reserve()
    line.outbox.withdraw(cut)
    line.outbox.close_after_last()
    first.fill([b"1"])
    cut.fill([part(large)])
    assert (line.wire.take(), line.closed, open_files()) == (b"1", 1, before)


def test_only_the_first_filling_counts(line: Line, large: Path) -> None:
    before = open_files()
    first, slot = line.outbox.reserve(), line.outbox.reserve()
    slot.fill([b"once"])
    slot.fill([part(large)])
    first.fill([b"1"])
    assert (line.wire.take(), open_files()) == (b"1once", before)


def test_a_lost_connection_closes_every_file(line: Line, large: Path) -> None:
    before = open_files()
    line.outbox.reserve().fill([b"head", part(large)])
    line.outbox.reserve().fill([b"head", part(large)])
    unknown = line.outbox.reserve()
    line.outbox.reserve().fill([b"head", part(large)])
    line.wire.take(100_000)
    assert open_files() == before + 3
    line.outbox.stopProducing()
    unknown.fill([part(large)])  # a thread that came too late
    assert open_files() == before


def test_replies_that_wait_for_an_earlier_one_count(line: Line, large: Path) -> None:
    """What bounds open files and memory is asked before the earlier reply is known."""
    line.outbox.reserve()
    line.outbox.reserve().fill([b"head", part(large)])
    line.outbox.reserve().fill([b"listing"])
    assert (line.outbox.files, line.outbox.queued_bytes, line.outbox.unanswered) == (1, 11, 3)


def test_a_peer_that_is_gone_ends_the_connection(line: Line) -> None:
    line.wire.peer.close()
    line.outbox.reserve().fill([b"1"])
    assert line.wire.aborted


def test_a_file_cut_short_behind_the_nodes_back_ends_the_connection(line: Line, large: Path) -> None:
    line.outbox.reserve().fill([b"head", part(large)])
    line.wire.take(100_000)
    os.truncate(large, 4096)
    line.wire.take()
    assert line.wire.aborted


def test_what_is_left_of_a_large_reply_is_not_copied(line: Line) -> None:
    """Copying the rest at every partial send takes quadratic time: seconds for a listing of a million names."""
    line.outbox.reserve().fill([LARGE])
    left = line.outbox._ready[0]
    assert isinstance(left, memoryview)
    assert left.obj is LARGE
