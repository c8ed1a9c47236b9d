"""Following a series: every frame once, until it is complete; who is missing is named."""

from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from granum.arrays.follow import Follow
from granum.arrays.prefetch import Prefetch
from granum.wire.errors import BadFrame, NodeTimeout, NodeUnreachable, Partial
from granum.wire.paths import ClusterPath


class Series:
    """A reader of a series that the test lets grow; it finds what was stored when it looks."""

    path = ClusterPath.of(["run.pcs"])

    def __init__(self, *numbers: int) -> None:
        self.stored = list(numbers)
        self.is_over = False
        self.away: dict[str, BaseException] = {}
        self.failure: Exception | None = None
        self.damaged: set[int] = set()
        self.looks = 0
        self._take()

    def _take(self) -> None:
        self.numbers = tuple(sorted(self.stored))
        self.complete, self.missing, self.partial = self.is_over, dict(self.away), bool(self.away)

    def refresh(self) -> Deferred[None]:
        self.looks += 1
        done: Deferred[None] = succeed(None)
        if self.failure is not None:
            done = Deferred()
            done.errback(self.failure)
        else:
            self._take()
        return done

    def frame(self, n: int) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        if n in self.damaged:
            result.errback(BadFrame(f"frame {n}: damaged"))
        else:
            result.callback(np.full((2, 2), n))
        return result


class Following:
    def __init__(self, series: Series, **options: Any) -> None:
        self.clock = Clock()
        self.series = series
        frames: Prefetch[Any] = Prefetch(series.frame, lambda n: 8)
        self.follow = Follow(series, frames, self.clock, **options)  # type: ignore[arg-type]
        self.numbers: list[int] = []
        self.errors: list[BaseException] = []

    def run(self, seconds: float) -> list[int]:
        """Take frames for *seconds* of the clock; return the numbers that came."""
        self.numbers, self.errors = [], []
        waiting = self.follow.next()
        ends = self.clock.seconds() + seconds
        while True:
            if waiting.called:
                results: list[Any] = []
                waiting.addBoth(results.append)
                if results[0] is None:
                    self.numbers.append(-1)  # the end
                    return self.numbers
                if hasattr(results[0], "raiseException"):
                    self.errors.append(results[0].value)
                    return self.numbers
                self.numbers.append(results[0][0])
                waiting = self.follow.next()
            elif self.clock.seconds() >= ends:
                waiting.addErrback(lambda _: None)
                waiting.cancel()
                return self.numbers
            else:
                self.clock.advance(0.25)


def test_frames_that_are_there_come_at_once_and_the_end_of_a_complete_series_too() -> None:
    series = Series(0, 1, 2)
    series.is_over = True
    series._take()
    following = Following(series)
    assert (following.run(0), series.looks) == ([0, 1, 2, -1], 0)


def test_frames_come_as_they_are_receipted_and_once_each() -> None:
    series = Series(0)
    following = Following(series, poll_s=1.0)
    first = following.follow.next()
    assert first.called
    following.clock.callLater(2.5, series.stored.extend, [1, 3])
    following.clock.callLater(4.5, series.stored.append, 2)
    following.clock.callLater(6.5, setattr, series, "is_over", True)
    assert following.run(60) == [1, 3, 2, -1]
    assert following.clock.seconds() == 7.0


def test_it_looks_no_more_often_than_it_was_told() -> None:
    following = Following(Series(), poll_s=2.0)
    following.run(20)
    assert following.series.looks == 10


def test_a_stall_says_so_after_the_time_allowed_and_the_next_call_waits_anew() -> None:
    following = Following(Series(), timeout_s=3.0)
    following.run(60)
    [error] = following.errors
    assert isinstance(error, NodeTimeout)
    assert "no frame of /run.pcs came within 3 s, and it is not complete" in str(error)
    following.series.stored.append(0)
    following.series.is_over = True
    assert following.run(60) == [0, -1]


def test_the_end_is_not_believed_while_a_node_is_missing_which_is_named() -> None:
    series = Series(0)
    series.away, series.is_over = {"scope2:1": NodeUnreachable("scope2 is off")}, True
    following = Following(series, timeout_s=5.0)
    assert following.run(60) == [0]
    [error] = following.errors
    assert isinstance(error, Partial)
    assert (list(error.causes), "complete, but nodes are missing" in str(error)) == (["scope2:1"], True)
    series.away = {}
    series.stored.append(1)  # was on that node
    assert following.run(60) == [1, -1]


def test_while_nobody_answers_it_goes_on_looking() -> None:
    series = Series(0)
    following = Following(series)
    series.failure = NodeUnreachable("the network is down")
    following.clock.callLater(5, setattr, series, "failure", None)
    following.clock.callLater(4, series.stored.append, 1)
    following.clock.callLater(6, setattr, series, "is_over", True)
    assert following.run(60) == [0, 1, -1]


def test_a_frame_that_cannot_be_read_raises_at_its_place_and_following_goes_on() -> None:
    series = Series(0, 1, 2)
    series.damaged, series.is_over = {1}, True
    following = Following(series)
    assert following.run(10) == [0]
    assert [type(error) for error in following.errors] == [BadFrame]
    assert following.run(10) == [2, -1]


def test_cancelling_a_wait_leaves_no_timer() -> None:
    following = Following(Series())
    waiting = following.follow.next()
    waiting.cancel()
    with pytest.raises(CancelledError):
        waiting.result.raiseException()  # type: ignore[attr-defined]
    waiting.addErrback(lambda _: None)
    assert following.clock.getDelayedCalls() == []


def test_closing_ends_a_wait_and_leaves_no_timer() -> None:
    following = Following(Series())
    waiting = following.follow.next()
    following.follow.close()
    assert waiting.result is None
    assert following.clock.getDelayedCalls() == []
    assert following.follow.next().result is None
    assert following.series.looks == 0
