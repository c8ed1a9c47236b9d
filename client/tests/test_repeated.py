"""Repeated work runs on the given clock, goes on after an error, and stops when told."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from granum.repeated import Repeated


class Work:
    def __init__(self) -> None:
        self.rounds = 0
        self.held: Deferred[None] | None = None

    async def __call__(self) -> None:
        self.rounds += 1
        if self.held is not None:
            await self.held


def test_it_runs_at_once_and_again_after_each_interval() -> None:
    clock, work = Clock(), Work()
    first = Repeated(work, 2.0, clock).start()
    assert (work.rounds, first.called) == (1, True)
    clock.pump([1.9, 0.2, 2.0])
    assert work.rounds == 3


def test_the_interval_begins_when_a_round_has_ended() -> None:
    clock, work = Clock(), Work()
    work.held = Deferred()
    first = Repeated(work, 2.0, clock).start()
    clock.advance(10)
    assert (work.rounds, first.called) == (1, False)
    work.held.callback(None)
    clock.advance(2)
    assert work.rounds == 2


def test_a_stopped_one_cancels_its_round_and_begins_no_other() -> None:
    clock, work = Clock(), Work()
    work.held = Deferred()
    repeated = Repeated(work, 2.0, clock)
    repeated.start()
    stopped = repeated.stop()
    clock.advance(10)
    assert (stopped.called, work.rounds, clock.getDelayedCalls()) == (True, 1, [])


def test_one_that_waits_is_stopped_without_a_trace() -> None:
    clock, work = Clock(), Work()
    repeated = Repeated(work, 2.0, clock)
    repeated.start()
    assert (repeated.stop().called, clock.getDelayedCalls()) == (True, [])


def test_a_round_that_fails_does_not_end_it() -> None:
    clock, rounds = Clock(), []

    async def fail() -> None:
        rounds.append(1)
        raise ValueError("once more")

    repeated = Repeated(fail, 2.0, clock)
    repeated.start()
    clock.advance(2)
    assert len(rounds) == 2
