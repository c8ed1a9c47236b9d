"""The blocking client works from any thread, after a fork, and leaves quietly."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import CancelledError, Deferred

from granum import blocking
from granum.blocking.thread import reactor_thread
from granum.testing import MemoryCluster
from granum.wire.errors import AlreadyStored, BadConfig, Closed, NoNode, NotStored


@pytest.fixture
def memory() -> Iterator[MemoryCluster]:
    """Three fake nodes on the reactor thread of this process."""
    thread = reactor_thread()
    memory = MemoryCluster(thread.reactor)
    thread.run(memory.start)
    yield memory
    thread.run(memory.stop)


def hosts(memory: MemoryCluster) -> list[str]:
    return [f"127.0.0.1:{fake.port}" for fake in memory.nodes]


@pytest.fixture
def cluster(memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[blocking.Cluster]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with blocking.connect("test", nodes=hosts(memory), expect=3, discover=False) as cluster:
        yield cluster


def test_every_verb_waits_for_its_result(cluster: blocking.Cluster, memory: MemoryCluster) -> None:
    receipt = cluster.put("/run/f", b"frame")
    cluster.mkdir("/empty")
    assert (str(receipt.path), receipt.size) == ("/run/f", 5)
    assert list(cluster.listdir("/")) == ["empty", "run"]
    assert (cluster.exists("/run/f"), cluster.isdir("/run"), cluster.stat("/run/f").size) == (True, True, 5)
    assert cluster.locate("/run/f") == (receipt.node,)
    assert (cluster.get("/run/f"), cluster.get("/run/f", nodes=[receipt.node])) == (b"frame", b"frame")
    assert len(cluster.nodes()) == len(cluster.ready(3)) == 3
    assert [str(path) for path, _ in cluster.walk("/")] == ["/", "/empty", "/run"]


def test_walk_is_lazy(cluster: blocking.Cluster, memory: MemoryCluster) -> None:
    memory.nodes[0].files["/a/f"] = b""
    walk = cluster.walk()
    next(walk)
    assert not [target for fake in memory.nodes for _, target in fake.requests if target == "/a/"]


def test_errors_keep_type_and_text(cluster: blocking.Cluster) -> None:
    cluster.put("/f", b"x")
    with pytest.raises(AlreadyStored, match=r"/f is stored already, on \S+; choose another name"):
        cluster.put("/f", b"y")
    with pytest.raises(NotStored, match="/absent is not stored in the cluster"):
        cluster.get("/absent")


def test_threads_share_one_cluster(cluster: blocking.Cluster, memory: MemoryCluster) -> None:
    def work(number: int) -> bytes:
        for turn in range(5):
            cluster.put(f"/{number}/{turn}", b"%d" % number)
        return cluster.get(f"/{number}/4")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [b"%d" % number for number in range(8)]
    assert sum(len(fake.files) for fake in memory.nodes) == 40


def in_child(work: Callable[[], None]) -> int:
    """Run *work* in a forked child; return its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the child must end here
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_goes_on_with_connections_of_its_own(cluster: blocking.Cluster) -> None:
    cluster.put("/f", b"before")

    def work() -> None:
        assert cluster.get("/f") == b"before"
        cluster.put("/child", b"from the child")

    assert in_child(work) == 0
    assert cluster.get("/child") == b"from the child"
    cluster.put("/parent", b"goes on too")


def test_an_interruption_cancels_what_was_begun() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    def work() -> Deferred[None]:
        begun.set()
        return Deferred(lambda _: cancelled.set())

    def interrupt() -> None:
        begun.wait(5)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            reactor_thread().run(work)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert cancelled.wait(5)


def test_a_cancelled_deferred_is_an_error_like_any_other() -> None:
    def work() -> Deferred[None]:
        never: Deferred[None] = Deferred()
        never.cancel()
        return never

    with pytest.raises(CancelledError):
        reactor_thread().run(work)


def test_a_call_from_the_reactors_own_thread_is_refused_and_does_not_hang(cluster: blocking.Cluster) -> None:
    def call_back() -> Deferred[Any]:
        cluster.listdir("/")
        raise AssertionError("unreachable")

    with pytest.raises(RuntimeError, match="would wait for itself"):
        reactor_thread().run(call_back)


def test_time_on_the_reactor_is_monotonic() -> None:
    assert abs(reactor_thread().reactor.seconds() - time.monotonic()) < 1


def test_a_closed_cluster_refuses_and_may_be_closed_again(cluster: blocking.Cluster) -> None:
    cluster.close()
    cluster.close()
    with pytest.raises(RuntimeError, match="closed"):
        cluster.listdir("/")


def test_connecting_to_nothing_says_where_was_looked(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NoNode, match="no node of cluster 'x' was found; looked at nothing"):
        blocking.connect("x", discover=False)


def test_connecting_takes_what_is_not_given_from_the_configuration(
    memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GRANUM_NODES", ",".join(hosts(memory)))
    with blocking.connect(discover=False) as cluster:
        assert len(cluster.nodes()) == 3
    monkeypatch.setenv("GRANUM_PORT", "none")
    with pytest.raises(BadConfig):
        blocking.connect(discover=False)


# -- series ------------------------------------------------------------------------------------------------------------


def test_a_series_is_written_and_read_back_as_an_array(cluster: blocking.Cluster) -> None:
    frames = np.arange(10 * 6 * 4, dtype="u2").reshape(10, 6, 4)
    with cluster.create_series("/day/run", metadata={"Camera": "A"}) as writer:
        for number, frame in enumerate(frames):
            writer.store_frame(number, frame)
    series = cluster.series("/day/run")
    assert (len(series), series.shape, series.ndim, series.dtype, series.complete) == (10, (10, 6, 4), 3, "u2", True)
    assert np.array_equal(np.asarray(series), frames)
    assert np.array_equal(series[3], frames[3])
    assert np.array_equal(series[-1], frames[-1])
    assert np.array_equal(series[2:9:3], frames[2:9:3])
    assert all(np.array_equal(one, other) for one, other in zip(series, frames, strict=True))
    assert np.asarray(series, dtype="f4").dtype == "f4"
    with pytest.raises(IndexError):
        series[10]


def test_an_error_in_the_block_leaves_the_series_incomplete(cluster: blocking.Cluster) -> None:
    def interrupted() -> None:
        with cluster.create_series("/run") as writer:
            writer.store_frame(0, np.zeros((2, 2), "u2"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert cluster.series("/run").complete is False


def test_a_reader_sees_what_was_stored_since_after_a_refresh(cluster: blocking.Cluster) -> None:
    writer = cluster.create_series("/run")
    series = cluster.series("/run")
    writer.store_frame(0, np.ones((2, 2), "u2"))
    writer.finalise()
    assert len(series) == 0
    series.refresh()
    assert (len(series), series.complete) == (1, True)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_reader_works_in_a_forked_child(cluster: blocking.Cluster) -> None:
    with cluster.create_series("/run") as writer:
        writer.store_frame(0, np.ones((2, 2), "u2"))
    series = cluster.series("/run")

    def work() -> None:
        assert series[0].sum() == 4

    assert in_child(work) == 0


# -- the process -------------------------------------------------------------------------------------------------------


def run_python(script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_importing_the_package_imports_neither_twisted_nor_numpy() -> None:
    script = "import sys, granum; print(*(name for name in ('twisted', 'numpy', 'yaml') if name in sys.modules))"
    assert run_python(script).stdout == "\n"


EVERYTHING = """
import sys, granum
cluster = granum.connect("test", nodes=sys.argv[1:], expect=3, discover=%s)
cluster.put("/exit", b"x")
print(len(cluster.get("/exit")), "twisted.internet.reactor" in sys.modules)
%s
"""


@pytest.mark.parametrize("discover", [False, True])
@pytest.mark.parametrize("end", ["", "cluster.close()", "del cluster", "sys.exit(0)"])
def test_an_interpreter_exits_quietly_whatever_is_open(memory: MemoryCluster, discover: bool, end: str) -> None:
    begun = time.monotonic()
    ended = run_python(EVERYTHING % (discover, end), *hosts(memory))
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "1 False\n")
    assert time.monotonic() - begun < 20


def test_an_interpreter_exits_quietly_in_the_midst_of_an_error(memory: MemoryCluster) -> None:
    memory.nodes[0].die()
    ended = run_python(
        "import sys, granum; cluster = granum.connect('test', nodes=sys.argv[1:], discover=False); cluster.get('/no')",
        *hosts(memory),
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("granum.wire.errors.Partial: /no was not found")
    assert "Unhandled" not in ended.stderr


def test_a_block_in_which_finalise_failed_leaves_nothing_open(cluster: blocking.Cluster) -> None:
    writer = cluster.create_series("/run")

    def misuse() -> None:
        with writer:
            writer.finalise(events=[("n" * 33, "", 0.0)])

    with pytest.raises(ValueError, match="of an event"):
        misuse()
    with pytest.raises(Closed):
        writer.store_frame(1, np.zeros((2, 2), "u2"))
