"""Prefetch: in order, within its bounds, errors at their place, and nothing left on its way."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from granum.arrays.prefetch import Prefetch


class Things:
    """Things that come when the test says so; *size* bytes each."""

    def __init__(self, size: int = 1, **options: Any) -> None:
        self.on_their_way: dict[int, Deferred[str]] = {}
        self.cancelled: list[int] = []
        self.asked: list[int] = []
        self.frames = Prefetch(self._fetch, lambda n: size, **options)

    def _fetch(self, n: int) -> Deferred[str]:
        self.asked.append(n)

        def cancel(_: Deferred[str]) -> None:
            self.cancelled.append(n)
            del self.on_their_way[n]

        result: Deferred[str] = Deferred(cancel)
        self.on_their_way[n] = result
        return result

    def come(self, *numbers: int) -> None:
        for n in numbers:
            self.on_their_way.pop(n).callback(f"thing {n}")


def got(deferred: Deferred[Any]) -> Any:
    """Return what *deferred* has fired with, or raise it."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "it has not fired"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


def test_things_come_in_the_order_of_asking_whatever_comes_first() -> None:
    things = Things()
    things.frames.add([5, 3, 9])
    first = things.frames.next()
    things.come(9, 3)
    assert not first.called
    things.come(5)
    assert [got(first), got(things.frames.next()), got(things.frames.next()), got(things.frames.next())] == [
        (5, "thing 5"),
        (3, "thing 3"),
        (9, "thing 9"),
        None,
    ]


def test_only_so_many_are_asked_for_ahead() -> None:
    things = Things(ahead=3)
    things.frames.add(range(10))
    first = things.frames.next()
    assert things.asked == [0, 1, 2]
    things.come(0)
    got(first)
    assert things.asked == [0, 1, 2, 3]


def test_only_so_many_bytes_are_asked_for_ahead() -> None:
    things = Things(size=40, bytes_max=100)
    things.frames.add(range(10))
    first = things.frames.next()
    assert things.asked == [0, 1]
    things.come(0)
    got(first)
    assert things.asked == [0, 1, 2]


def test_one_that_is_larger_than_all_bytes_allowed_comes_alone() -> None:
    things = Things(size=1000, bytes_max=100)
    things.frames.add(range(3))
    first = things.frames.next()
    assert things.asked == [0]
    things.come(0)
    assert got(first) == (0, "thing 0")


def test_one_that_fails_raises_at_its_place_and_the_next_goes_on() -> None:
    things = Things()
    things.frames.add(range(3))
    first = things.frames.next()
    things.on_their_way.pop(1).errback(ValueError("damaged"))
    things.come(0, 2)
    assert got(first) == (0, "thing 0")
    with pytest.raises(ValueError, match="damaged"):
        got(things.frames.next())
    assert got(things.frames.next()) == (2, "thing 2")


def test_closing_cancels_all_that_is_on_its_way_and_ends_the_iteration() -> None:
    things = Things(ahead=4)
    things.frames.add(range(10))
    first = things.frames.next()
    things.come(0, 2)
    got(first)
    things.frames.close()
    assert (sorted(things.cancelled), things.on_their_way) == ([1, 3, 4], {})
    assert got(things.frames.next()) is None


def test_cancelling_the_one_who_waits_leaves_nothing_on_its_way() -> None:
    things = Things(ahead=4)
    things.frames.add(range(10))
    first = things.frames.next()
    first.cancel()
    with pytest.raises(CancelledError):
        got(first)
    assert (sorted(things.cancelled), things.on_their_way) == ([0, 1, 2, 3], {})


def test_what_failed_and_was_never_asked_for_is_not_complained_about() -> None:
    """An error that nobody takes would otherwise be logged when it is collected."""
    things = Things()
    things.frames.add(range(2))
    first = things.frames.next()
    failed = things.on_their_way.pop(1)
    failed.errback(ValueError("damaged"))
    things.frames.close()
    assert got(failed) is None
    first.addErrback(lambda _: None)


def test_all_that_has_come_is_given_out_together_up_to_a_failure() -> None:
    things = Things(ahead=8)
    things.frames.add(range(6))
    first = things.frames.next_ready()
    things.come(1, 2)
    things.on_their_way.pop(3).errback(ValueError("damaged"))
    things.come(4, 0)
    assert got(first) == [(0, "thing 0"), (1, "thing 1"), (2, "thing 2")]
    with pytest.raises(ValueError, match="damaged"):
        got(things.frames.next_ready())
    assert [n for n, _ in got(things.frames.next_ready())] == [4]


@given(st.integers(1, 5), st.integers(1, 50), st.lists(st.integers(1, 40), max_size=12), st.data())
def test_it_stays_within_its_bounds_and_in_order_whenever_things_come(
    ahead: int, bytes_max: int, sizes: list[int], data: Any
) -> None:
    waiting: dict[int, Deferred[int]] = {}

    def fetch(n: int) -> Deferred[int]:
        waiting[n] = Deferred()
        return waiting[n]

    frames = Prefetch(fetch, lambda n: sizes[n], ahead=ahead, bytes_max=bytes_max)
    frames.add(range(len(sizes)))
    come: set[int] = set()
    given_out = []
    for _ in sizes:
        following = frames.next()
        while not following.called:
            n = data.draw(st.sampled_from(sorted(set(waiting) - come)))
            come.add(n)
            waiting[n].callback(n)
        given_out.append(got(following)[0])
        held = [n for n in waiting if n not in given_out]
        assert len(held) <= ahead
        assert len(held) <= 1 or sum(sizes[n] for n in held) <= bytes_max
    assert given_out == list(range(len(sizes)))


def test_closing_while_somebody_waits_cancels_that_too_and_tells_him_that_it_is_over() -> None:
    things = Things(ahead=2)
    things.frames.add(range(10))
    first = things.frames.next()
    things.frames.close()
    assert got(first) is None
    assert (sorted(things.cancelled), things.on_their_way) == ([0, 1], {})
