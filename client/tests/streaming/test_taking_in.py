"""A camera that cannot be slowed hands its frames to memory: its calls wait for nobody, and nothing is lost in silence."""

import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from granum import blocking
from granum.blocking.thread import reactor_thread
from granum.testing import MemoryCluster
from granum.wire import frame
from granum.wire.errors import AlreadyStored, Closed, NodeBusy, NotReceipted, WrongFrame

IMAGE = np.arange(12, dtype="u2").reshape(3, 4)
FILE_BYTES = 64 + IMAGE.nbytes


@pytest.fixture
def memory() -> Iterator[MemoryCluster]:
    """Two fake nodes on the reactor thread of this process."""
    thread = reactor_thread()
    memory = MemoryCluster(thread.reactor, 2)
    thread.run(memory.start)
    yield memory
    thread.run(memory.stop)


@pytest.fixture
def cluster(memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[blocking.Cluster]:
    monkeypatch.setenv("HOME", str(tmp_path))
    nodes = [f"127.0.0.1:{fake.port}" for fake in memory.nodes]
    with blocking.connect("test", nodes=nodes, expect=2, discover=False) as cluster:
        yield cluster


@contextmanager
def busy_reactor() -> Iterator[None]:
    """Keep the reactor's thread from doing anything for the body."""
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        is_held.set()
        may_go.wait()

    reactor_thread().reactor.callFromThread(hold)
    is_held.wait()
    try:
        yield
    finally:
        may_go.set()


def stored(memory: MemoryCluster) -> dict[str, Any]:
    files = {name: body for fake in memory.nodes for name, body in fake.files.items()}
    return {name: frame.decode(body).array[:, :, 0] for name, body in files.items() if name.endswith("pzf")}


def test_the_call_takes_no_turn_of_the_reactor_and_the_buffer_is_the_cameras_again(
    cluster: blocking.Cluster, memory: MemoryCluster
) -> None:
    series = cluster.create_series("run", on_full="raise")
    buffer = IMAGE.copy()
    with busy_reactor():
        for number in range(200):  # more than two windows hold
            buffer[:] = IMAGE + number
            assert series.store_frame(number, buffer) is None
        buffer[:] = 0
    assert series.finalise().puts == 200
    frames = stored(memory)
    assert all(np.array_equal(frames[f"/run.pcs/frame{n:05d}.pzf"], IMAGE + n) for n in range(200))


def test_a_frame_for_which_there_is_no_memory_is_refused_to_its_caller(
    cluster: blocking.Cluster, memory: MemoryCluster
) -> None:
    series = cluster.create_series("run", on_full="raise", memory_bytes_max=5 * FILE_BYTES)
    for fake in memory.nodes:
        fake.fail_next("silent", verb="PUT")
    for number in range(5):
        series.store_frame(number, IMAGE)
    for number in (5, 6):
        with pytest.raises(NodeBusy, match="nothing has room"):
            series.store_frame(number, IMAGE)
    series.abort()


def test_a_refused_frame_may_be_handed_over_again(cluster: blocking.Cluster, memory: MemoryCluster) -> None:
    series = cluster.create_series("run", on_full="raise", memory_bytes_max=FILE_BYTES)
    with busy_reactor():
        series.store_frame(0, IMAGE)
    taken = [0]
    while len(taken) < 20:
        try:
            series.store_frame(len(taken), IMAGE)
        except NodeBusy:
            continue
        taken.append(len(taken))
    assert series.finalise().puts == 20
    assert len(stored(memory)) == 20


def test_what_is_wrong_with_a_frame_is_told_at_once(cluster: blocking.Cluster) -> None:
    series = cluster.create_series("run", on_full="raise")
    with busy_reactor():
        series.store_frame(0, IMAGE)
        with pytest.raises(AlreadyStored):
            series.store_frame(0, IMAGE)
        with pytest.raises(WrongFrame):
            series.store_frame(1, IMAGE[:2])
        with pytest.raises(ValueError, match="counted from 0"):
            series.store_frame(-1, IMAGE)
        series.store_frame(1, IMAGE)
    assert series.finalise().puts == 2
    with pytest.raises(Closed):
        series.store_frame(2, IMAGE)


def test_a_frame_that_was_taken_in_and_then_has_no_node_is_named(
    cluster: blocking.Cluster, memory: MemoryCluster
) -> None:
    series = cluster.create_series("run", on_full="raise", patience=0.3)
    with busy_reactor():
        series.store_frame(0, IMAGE)
    for fake in memory.nodes:
        reactor_thread().run(fake.stop)
    with busy_reactor():
        series.store_frame(1, IMAGE)
    with pytest.raises(NotReceipted) as caught:
        series.finalise()
    assert "/run.pcs/frame00001.pzf" in caught.value.paths


@pytest.mark.parametrize("end", ["finalise", "abort"])
def test_a_series_that_has_ended_keeps_no_memory(cluster: blocking.Cluster, end: str) -> None:
    image = np.ones((512, 512), "u2")
    series = cluster.create_series("run", on_full="raise")
    tracemalloc.start()
    try:
        with busy_reactor():
            for number in range(20):
                series.store_frame(number, image)
        getattr(series, end)()
        with series._writer._frames._buffers._touching:  # until the thread that prepares has seen the end
            pass
        arrays = [trace for trace in tracemalloc.take_snapshot().traces if trace.domain == np.lib.tracemalloc_domain]
        assert [trace.size for trace in arrays if trace.size >= image.nbytes] == []
    finally:
        tracemalloc.stop()


def test_an_abort_ends_what_was_just_handed_over(cluster: blocking.Cluster, memory: MemoryCluster) -> None:
    series = cluster.create_series("run", on_full="raise")
    with busy_reactor():
        for number in range(10):
            series.store_frame(number, IMAGE)
        aborting = threading.Thread(target=series.abort)
        aborting.start()
    aborting.join()
    with pytest.raises(Closed):
        series.store_frame(10, IMAGE)
    assert cluster.series("/run").complete is False


def test_threads_share_a_series(cluster: blocking.Cluster, memory: MemoryCluster) -> None:
    series = cluster.create_series("run", on_full="raise", shape=IMAGE.shape, dtype="u2")
    taken: list[int] = []

    def film() -> None:
        for number in range(100):
            try:
                series.store_frame(number, IMAGE + number)
            except AlreadyStored:
                continue
            taken.append(number)

    threads = [threading.Thread(target=film) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(100))
    assert series.finalise().puts == 100
    assert all((image == IMAGE + int(name[-9:-4])).all() for name, image in stored(memory).items())


def test_a_frame_that_comes_too_late_is_not_counted_in_the_metadata(
    cluster: blocking.Cluster, memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = cluster.create_series("run", on_full="raise")
    series.store_frame(0, IMAGE)
    is_copying, may_go = threading.Event(), threading.Event()

    def copied(_: Any, samples: Any) -> Any:
        is_copying.set()
        may_go.wait()
        return samples.copy()

    monkeypatch.setattr("granum.streaming.frames.Frames.copied", copied)
    told: list[BaseException] = []

    def film() -> None:
        try:
            series.store_frame(1, IMAGE)
        except Closed as error:
            told.append(error)

    filming = threading.Thread(target=film)
    filming.start()
    is_copying.wait()
    try:
        assert series.finalise().puts == 1
    finally:
        may_go.set()
        filming.join()
    assert len(told) == 1
    assert cluster.series("/run").metadata["SizeT"] == 1


def test_a_caller_who_waits_for_room_is_told_the_node(cluster: blocking.Cluster) -> None:
    with cluster.create_series("run") as series:
        assert series.store_frame(0, IMAGE) is not None
