"""Encoders work beside the reactor, as many at a time as there are threads, and leave no thread behind."""

import threading

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults

from granum.streaming.encoding import Encoders


@pytest_twisted.ensureDeferred
async def test_jobs_run_at_the_same_time_in_threads_of_their_own() -> None:
    encoders = Encoders(reactor, 3)
    together = threading.Barrier(3, timeout=5)

    def job() -> str:
        together.wait()  # returns only when three jobs are here
        return threading.current_thread().name

    names = await gatherResults([encoders.run(job) for _ in range(3)])
    assert sorted(names) == ["granum-encoder-0", "granum-encoder-1", "granum-encoder-2"]
    encoders.end()


@pytest_twisted.ensureDeferred
async def test_an_error_is_told_to_whoever_waits() -> None:
    encoders = Encoders(reactor, 1)
    with pytest.raises(ZeroDivisionError):
        await encoders.run(lambda: 1 // 0)
    assert await encoders.run(lambda: 1) == 1
    encoders.end()


@pytest_twisted.ensureDeferred
async def test_a_cancelled_job_is_forgotten_and_makes_room() -> None:
    encoders = Encoders(reactor, 1)
    go = threading.Event()
    jobs = [encoders.run(go.wait) for _ in range(2)]
    assert not encoders.has_room
    jobs[0].cancel()
    with pytest.raises(CancelledError):
        await jobs[0]
    go.set()
    assert await jobs[1] is True
    assert encoders.has_room
    encoders.end()


@pytest_twisted.ensureDeferred
async def test_threads_begin_with_the_first_job_and_end_with_the_encoders() -> None:
    encoders = Encoders(reactor, 2)
    before = threading.enumerate()
    thread = await encoders.run(threading.current_thread)
    assert thread not in before
    encoders.end()
    thread.join(5)
    assert not thread.is_alive()
