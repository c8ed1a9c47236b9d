"""What comes while work is under way is worked on together, and told together."""

import threading
from collections.abc import Callable

import pytest

from granum_node.storage.rounds import Outcomes, Rounds

WAIT_S = 20.0


def test_whatever_comes_during_a_round_shares_the_next() -> None:
    begun, go_on = threading.Event(), threading.Event()
    worked: list[list[int]] = []

    def work(_: str, items: list[int]) -> None:
        worked.append(items)
        begun.set()
        assert go_on.wait(WAIT_S)

    rounds = Rounds(work)
    thread = threading.Thread(target=rounds.join, args=("a", 1))
    thread.start()
    assert begun.wait(WAIT_S)
    for item in (2, 3, 4):
        rounds.join("a", item)  # returns at once: the other thread does it
    go_on.set()
    thread.join(WAIT_S)
    assert worked == [[1], [2, 3, 4]]


def test_one_thing_does_not_wait_for_another() -> None:
    begun, go_on = threading.Event(), threading.Event()
    worked: list[str] = []

    def work(key: str, _: list[int]) -> None:
        if key == "slow":
            begun.set()
            assert go_on.wait(WAIT_S)
        worked.append(key)

    rounds = Rounds(work)
    thread = threading.Thread(target=rounds.join, args=("slow", 1))
    thread.start()
    assert begun.wait(WAIT_S)
    rounds.join("quick", 1)
    assert worked == ["quick"]
    go_on.set()
    thread.join(WAIT_S)


def test_a_round_that_is_over_is_forgotten() -> None:
    worked: list[list[int]] = []
    rounds: Rounds[str, int] = Rounds(lambda _, items: worked.append(items))
    rounds.join("a", 1)
    rounds.join("a", 2)
    assert worked == [[1], [2]]


def test_outcomes_that_come_before_they_are_told_take_one_report() -> None:
    reports: list[Callable[[], None]] = []
    told: list[int] = []
    outcomes = Outcomes(reports.append)
    outcomes.add([lambda: told.append(1), lambda: told.append(2)])
    outcomes.add([lambda: told.append(3)])
    assert len(reports) == 1
    reports[0]()
    outcomes.add([lambda: told.append(4)])
    reports[1]()
    assert told == [1, 2, 3, 4]


def test_an_outcome_that_fails_does_not_take_the_others_with_it() -> None:
    """Each is the answer to a put; one that is not told is a frame that its sender holds for ever."""
    reports: list[Callable[[], None]] = []
    told: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    outcomes = Outcomes(reports.append)
    outcomes.add([lambda: told.append(1), fail, lambda: told.append(2)])
    with pytest.raises(ZeroDivisionError):
        reports[0]()
    outcomes.add([lambda: told.append(3)])
    for report in reports[1:]:
        report()
    assert told == [1, 2, 3]
