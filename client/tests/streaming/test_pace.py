"""The pace grows a window that starves a committing node, shrinks that of a slow one, and stays within its bounds."""

from hypothesis import given
from hypothesis import strategies as st

from granum.streaming.pace import PACE_BYTES_MAX, PACE_BYTES_MIN, PACE_PUTS_MAX, PACE_PUTS_MIN, Pace, paced


def receipts(pace: Pace, count: int, took: float, *, short: bool) -> None:
    for _ in range(count):
        pace.receipt(took, short=short)


def test_a_window_with_too_few_puts_for_the_commit_doubles() -> None:
    pace = paced()
    receipts(pace, 1, 0.04, short=True)
    assert (pace.window.bytes_max, pace.window.puts_max) == (32 << 20, 128)


def test_quick_receipts_do_not_make_it_grow() -> None:
    pace = paced()
    receipts(pace, 100, 0.002, short=True)
    assert (pace.window.bytes_max, pace.window.puts_max) == (32 << 20, 64)


def test_a_window_with_room_does_not_grow() -> None:
    pace = paced()
    receipts(pace, 100, 0.04, short=False)
    assert pace.window.puts_max == 64


def test_receipts_that_take_longer_than_a_second_halve_it() -> None:
    pace = paced()
    receipts(pace, 1, 1.5, short=True)
    assert (pace.window.bytes_max, pace.window.puts_max) == (16 << 20, 32)
    receipts(pace, 1, 0.04, short=True)
    assert (pace.window.bytes_max, pace.window.puts_max) == (32 << 20, 64)


def test_it_is_judged_once_for_each_window_of_receipts() -> None:
    pace = paced()
    for key in range(10):
        pace.window.accept(key, 1)
    receipts(pace, 1, 1.5, short=False)
    receipts(pace, 9, 1.5, short=False)
    assert pace.window.puts_max == 32
    receipts(pace, 1, 1.5, short=False)
    assert pace.window.puts_max == 16


def test_bounds_below_the_usual_ones_hold_from_the_start() -> None:
    pace = paced(1000, 2)
    assert (pace.window.bytes_max, pace.window.puts_max) == (1000, 2)


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=200))
def test_whatever_receipts_show_the_window_stays_within_its_bounds(seen: list[tuple[float, bool]]) -> None:
    pace = paced()
    for took, short in seen:
        pace.receipt(took, short=short)
        assert PACE_BYTES_MIN <= pace.window.bytes_max <= PACE_BYTES_MAX
        assert PACE_PUTS_MIN <= pace.window.puts_max <= PACE_PUTS_MAX
