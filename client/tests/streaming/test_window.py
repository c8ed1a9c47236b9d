"""The window bounds what is on its way, loses nothing and keeps the order."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.streaming.window import Window

STEPS = st.lists(st.one_of(st.integers(0, 60), st.none()), max_size=80)  # the size of a put, or None for a release


def step(window: Window[int], key: int, size: int | None) -> tuple[int | None, int | None]:
    """Offer a put of *size*, or release the oldest for None; return the key accepted and the key released."""
    if size is not None and window.room(size):
        window.accept(key, size)
        return key, None
    if size is None and window.outstanding:
        oldest = window.outstanding[0]
        window.release(oldest)
        return None, oldest
    return None, None


@given(STEPS, st.integers(1, 100), st.integers(1, 8))
def test_memory_stays_below_the_bound_unless_one_large_put_is_alone(
    steps: Sequence[int | None], bytes_max: int, puts_max: int
) -> None:
    window: Window[int] = Window(bytes_max, puts_max)
    for key, size in enumerate(steps):
        step(window, key, size)
        assert window.size <= bytes_max or len(window) == 1
        assert len(window) <= puts_max


@given(STEPS)
def test_every_put_accepted_is_either_released_or_outstanding_in_order(steps: Sequence[int | None]) -> None:
    window: Window[int] = Window(100, 4)
    outcomes = [step(window, key, size) for key, size in enumerate(steps)]
    accepted = [key for key, _ in outcomes if key is not None]
    released = [key for _, key in outcomes if key is not None]
    assert [*released, *window.outstanding] == accepted
    assert window.size == sum(steps[key] or 0 for key in window.outstanding)


def test_a_put_larger_than_the_window_enters_when_it_is_alone() -> None:
    window: Window[str] = Window(bytes_max=10)
    assert window.room(11)
    window.accept("large", 11)
    assert not window.room(0)


def test_a_window_of_32_mib_holds_four_frames_of_8_mib() -> None:
    window: Window[int] = Window()
    for key in range(4):
        window.accept(key, 8 << 20)
    assert not window.room(1)


def test_a_window_holds_64_small_puts() -> None:
    window: Window[int] = Window()
    for key in range(64):
        window.accept(key, 1)
    assert not window.room(1)


def test_any_put_may_leave_first() -> None:
    window: Window[str] = Window()
    for key in "abc":
        window.accept(key, 1)
    window.release("b")
    assert window.outstanding == ("a", "c")


@pytest.mark.parametrize("size", [1, 11])
def test_a_put_that_was_not_asked_for_is_refused(size: int) -> None:
    window: Window[str] = Window(bytes_max=10)
    window.accept("a", 10)
    with pytest.raises(ValueError, match="no room"):
        window.accept("b", size)


def test_a_put_cannot_leave_twice() -> None:
    window: Window[str] = Window()
    window.accept("a", 1)
    window.release("a")
    with pytest.raises(KeyError):
        window.release("a")
