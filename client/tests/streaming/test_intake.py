"""What other threads hand over is taken in order and counted at every moment, or not added at all."""

import threading
from collections.abc import Callable
from typing import Any

from granum.streaming.intake import Intake


class Reactor:
    """Calls what threads asked for when it is told to."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def callFromThread(self, call: Callable[[], None]) -> None:  # noqa: N802
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Memory:
    """A bound of ten bytes, and what was taken."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.reactor = Reactor()
        self.intake: Intake[Any] = Intake(self.reactor, lambda size: size + len(self.taken) <= 10, self.taken.append)


def test_items_are_taken_in_order_in_one_turn_for_which_the_reactor_is_woken_once() -> None:
    memory = Memory()
    for item in range(5):
        assert memory.intake.reserve(1)
        assert memory.intake.add(item, 1)
    assert len(memory.reactor.calls) == 1
    memory.reactor.turn()
    assert memory.taken == [0, 1, 2, 3, 4]
    assert memory.intake.reserve(1)
    assert memory.intake.add(5, 1)
    memory.reactor.turn()
    assert memory.taken == [0, 1, 2, 3, 4, 5]


def test_what_is_reserved_waits_or_was_taken_counts_against_the_memory() -> None:
    memory = Memory()
    assert [memory.intake.reserve(4) for _ in range(3)] == [True, True, False]
    memory.intake.give_back(4)
    assert memory.intake.reserve(6)
    memory.intake.add("a", 4)
    assert not memory.intake.reserve(1)
    memory.reactor.turn()  # counts one byte from now on
    assert [memory.intake.reserve(size) for size in (4, 3)] == [False, True]


def test_closing_takes_what_was_added_and_nothing_is_added_behind_it() -> None:
    memory = Memory()
    memory.intake.reserve(2)
    memory.intake.add("a", 1)
    memory.intake.close()
    assert memory.taken == ["a"]
    assert not memory.intake.add("b", 1)
    assert not memory.intake.reserve(1)
    memory.reactor.turn()
    assert memory.taken == ["a"]


def test_a_camera_that_hands_over_faster_than_is_taken_does_not_hold_the_reactor() -> None:
    taken: list[int] = []
    reactor = Reactor()

    def take(item: int) -> None:
        taken.append(item)
        if item < 100:
            intake.add(item + 1, 0)

    intake: Intake[int] = Intake(reactor, lambda _: True, take)
    intake.add(0, 0)
    for count in (1, 2, 3):
        reactor.turn()
        assert taken == list(range(count))


def test_nothing_is_lost_or_doubled_between_threads() -> None:
    taken: list[int] = []
    reactor = Reactor()
    intake: Intake[int] = Intake(reactor, lambda _: True, taken.append)

    def hand_over(first: int) -> None:
        for number in range(first, first + 500):
            intake.reserve(1)
            intake.add(number, 1)

    threads = [threading.Thread(target=hand_over, args=(first,)) for first in (0, 500, 1000)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        reactor.turn()
    reactor.turn()
    assert sorted(taken) == list(range(1500))
    assert [number for number in taken if number < 500] == list(range(500))
