"""What is pending: handed out oldest first, again when it comes back, and never once it is delivered."""

from array import array

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from granum.streaming.pending import Pending, Place, Token


def place(seq: int, segment: int = 1, offset: int | None = None) -> Place:
    return Place(Token(seq), segment, 10 * seq if offset is None else offset, 10)


def of(*places: Place) -> Pending:
    pending = Pending()
    for each in places:
        pending.written(each)
    return pending


def taken(pending: Pending) -> list[Place]:
    found = []
    while (each := pending.take()) is not None:
        found.append(each)
    return found


def test_records_are_handed_out_in_the_order_of_writing_and_once() -> None:
    places = [place(0), place(1), place(2, 2, 17), place(3, 2, 27)]
    assert taken(of(*places)) == places


def test_what_comes_back_goes_out_before_what_was_never_out() -> None:
    pending = of(place(0), place(1), place(2))
    first, second = pending.take(), pending.take()
    assert first is not None
    assert second is not None
    pending.returned(second.token)
    pending.returned(first.token)
    assert [each.token for each in taken(pending)] == [0, 1, 2]


def test_a_segment_is_finished_when_it_is_sealed_and_all_delivered() -> None:
    pending = of(place(0), place(1))
    pending.delivered(Token(0))
    assert (pending.is_idle, pending.finished()) == (False, [])
    pending.delivered(Token(1))
    assert (pending.is_idle, pending.finished()) == (True, [])
    pending.seal()
    assert (pending.is_idle, pending.finished()) == (False, [1])
    assert pending.take_unnoted() == {1: [0, 1]}
    pending.deleted([1])
    assert (pending.is_done, len(pending), pending.size) == (True, 0, 0)


def test_a_damaged_record_is_not_pending_and_keeps_its_segment() -> None:
    pending = of(place(0), place(1))
    pending.damaged(Token(0))
    pending.delivered(Token(1))
    pending.seal()
    assert (len(pending), pending.finished(), pending.take()) == (0, [], None)


def test_what_was_found_on_disk_is_pending_unless_its_docket_names_it() -> None:
    pending = Pending()
    pending.found(4, 10, array("Q", [17, 30, 45]), 50, {11}, is_damaged=False)
    assert taken(pending) == [Place(Token(10), 4, 17, 13), Place(Token(12), 4, 45, 5)]
    assert len(pending) == 2


def test_a_segment_that_is_damaged_behind_its_last_record_stays() -> None:
    pending = Pending()
    pending.found(1, 0, array("Q", [17]), 50, {0}, is_damaged=True)
    assert (len(pending), pending.finished(), pending.is_done) == (0, [], False)


def test_what_could_not_be_noted_is_noted_the_next_time() -> None:
    pending = of(place(0), place(1))
    pending.delivered(Token(0))
    pending.not_noted(pending.take_unnoted())
    pending.delivered(Token(1))
    assert pending.take_unnoted() == {1: [0, 1]}


class Model(RuleBasedStateMachine):
    """Against three sets: waiting, out, delivered."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = Pending()
        self.waiting: set[int] = set()
        self.out: set[int] = set()
        self.seq = 0
        self.segment = 1
        self.deleted: set[int] = set()
        self.of_segment: dict[int, set[int]] = {}

    @rule(new_segment=st.booleans())
    def write(self, new_segment: bool) -> None:
        self.segment += new_segment
        self.pending.written(place(self.seq, self.segment))
        self.of_segment.setdefault(self.segment, set()).add(self.seq)
        self.waiting.add(self.seq)
        self.seq += 1

    @rule()
    def take(self) -> None:
        found = self.pending.take()
        if found is None:
            assert not self.waiting
        else:
            assert found.token == min(self.waiting)
            self.waiting.remove(found.token)
            self.out.add(found.token)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), is_delivered=st.booleans())
    def end(self, data: st.DataObject, is_delivered: bool) -> None:
        token = data.draw(st.sampled_from(sorted(self.out)))
        self.out.remove(token)
        if is_delivered:
            assert self.pending.delivered(Token(token))
            assert not self.pending.delivered(Token(token))
        else:
            self.pending.returned(Token(token))
            self.waiting.add(token)

    @rule()
    def delete(self) -> None:
        finished = self.pending.finished()
        for number in finished:
            assert not self.of_segment[number] & (self.waiting | self.out)
        self.pending.deleted(finished)

    @invariant()
    def counts(self) -> None:
        assert len(self.pending) == len(self.waiting) + len(self.out)
        assert {each.token for each in self.pending.places} == self.waiting | self.out


Model.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestPending = Model.TestCase
