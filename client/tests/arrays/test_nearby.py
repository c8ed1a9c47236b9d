"""Frames in stores on this machine are read there, in their place among the others, and only when they are the right ones."""

import gc
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from twisted.internet.task import Clock

from granum import blocking
from granum.arrays.nearby import Nearby
from granum.blocking.thread import reactor_thread
from granum.bypass import LocalStores
from granum.roster import Node
from granum.testing import MemoryCluster
from granum.union import UnionView
from granum.wire import frame
from granum.wire.errors import BadFrame, NotStored, WrongFrame
from granum.wire.listing import Entry, Flags
from granum.wire.paths import ClusterPath

PATH = ClusterPath.parse("/run.pcs")
Array = NDArray[Any]


def image(n: int) -> Array:
    return np.full((3, 4), n, "u2")


def pzf(n: int, **options: Any) -> bytes:
    return b"".join(frame.encode(image(n), frame_number=n, **options))


class Lab:
    """Two nodes in memory, and directories on the disk that are their stores."""

    def __init__(self, memory: MemoryCluster, base: Path) -> None:
        self.nodes = sorted(memory.nodes, key=lambda fake: fake.node_id)
        self.roots = [base / fake.node_id for fake in self.nodes]
        for fake, root in zip(self.nodes, self.roots, strict=True):
            (root / ".granum").mkdir(parents=True)
            (root / ".granum" / "node-id").write_text(fake.node_id)
            (root / "run.pcs").mkdir()
        self.nodes[0].files["/run.pcs/metadata.json"] = json.dumps({}).encode()

    def holds(self, fake: int, n: int, body: bytes | None = None, *, on_disk: bytes | None = None) -> None:
        """Let a node hold frame *n*; *on_disk* is what its store says, if not the same."""
        body = pzf(n) if body is None else body
        self.nodes[fake].files[f"/run.pcs/frame{n:05d}.pzf"] = body
        self.file(fake, n).write_bytes(body if on_disk is None else on_disk)

    def file(self, fake: int, n: int) -> Path:
        return self.roots[fake] / "run.pcs" / f"frame{n:05d}.pzf"

    def asked(self) -> list[str]:
        """The frames that the nodes were asked for since the last call, in order of their names."""
        found = sorted(t for fake in self.nodes for verb, t in fake.requests if verb == "GET" and t.endswith(".pzf"))
        for fake in self.nodes:
            fake.requests.clear()
        return [target.rpartition("/")[2] for target in found]

    @contextmanager
    def series(self, *local: int, bypass: bool = True) -> Iterator[blocking.SeriesReader]:
        """Open the series where the stores of the nodes *local* are on this machine."""
        hosts = [f"127.0.0.1:{fake.port}" for fake in self.nodes]
        stores = [str(self.roots[number]) for number in local]
        with blocking.connect(
            "test", nodes=hosts, expect=2, discover=False, local_stores=stores, bypass=bypass
        ) as cluster:
            series = cluster.series("run")
            self.asked()
            yield series


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lab]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("granum.bypass.SYSTEM_MARKERS", str(tmp_path / "none"))
    thread = reactor_thread()
    memory = MemoryCluster(thread.reactor, 2)
    thread.run(memory.start)
    yield Lab(memory, tmp_path)
    thread.run(memory.stop)


def numbers_in(pairs: Any) -> list[tuple[int, int]]:
    return [(n, int(array[0, 0])) for n, array in pairs]


def test_frames_of_a_local_store_are_not_asked_for(lab: Lab) -> None:
    for n in range(40):
        lab.holds(0, n)
    with lab.series(0) as series:
        assert numbers_in(series.frames()) == [(n, n) for n in range(40)]
        assert lab.asked() == []


def test_local_and_other_frames_come_in_the_order_that_was_wanted(lab: Lab) -> None:
    for n in range(60):
        lab.holds(n % 2, n)
    wanted = [*range(0, 60, 3), 5, 5, 4, 4]
    with lab.series(1) as series:
        assert numbers_in(series.frames(wanted)) == [(n, n) for n in wanted]
        assert set(lab.asked()) == {f"frame{n:05d}.pzf" for n in wanted if n % 2 == 0}


@pytest.mark.parametrize("bypass", [True, False])
def test_without_a_local_store_all_are_asked_for(lab: Lab, bypass: bool) -> None:
    for n in range(3):
        lab.holds(0, n)
    with lab.series(bypass=bypass) as series:
        assert numbers_in(series.frames()) == [(0, 0), (1, 1), (2, 2)]
        assert len(lab.asked()) == 3


def test_single_frames_slices_and_arrays_are_read_locally_too(lab: Lab) -> None:
    for n in range(4):
        lab.holds(0, n)
    with lab.series(0) as series:
        assert int(series.frame(2)[0, 0]) == 2
        assert series[1:3][:, 0, 0].tolist() == [1, 2]
        assert np.asarray(series)[:, 0, 0].tolist() == [0, 1, 2, 3]
        assert [int(array[0, 0]) for array in series] == [0, 1, 2, 3]
        assert lab.asked() == []


def test_an_array_from_the_disk_is_as_one_by_http(lab: Lab) -> None:
    lab.holds(0, 0)
    with lab.series(0) as near, lab.series(bypass=False) as far:
        one, other = near.frame(0), far.frame(0)
        assert (one.dtype, one.shape, one.flags.writeable) == (other.dtype, other.shape, other.flags.writeable)
        assert one.tobytes() == other.tobytes()


def test_a_file_that_is_gone_from_the_store_is_asked_of_the_node_at_its_place(lab: Lab) -> None:
    for n in range(5):
        lab.holds(0, n)
    with lab.series(0) as series:
        lab.file(0, 2).unlink()
        assert numbers_in(series.frames()) == [(n, n) for n in range(5)]
        assert lab.asked() == ["frame00002.pzf"]


def test_a_store_that_becomes_another_nodes_is_left_in_the_middle(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("granum.bypass.BELIEVED_S", 0.0)
    for n in range(30):
        lab.holds(0, n)
    with lab.series(0) as series:
        frames = series.frames(ahead=1)
        assert numbers_in([next(frames), next(frames)]) == [(0, 0), (1, 1)]
        (lab.roots[0] / ".granum" / "node-id").write_text("another")
        for n in range(30):
            lab.file(0, n).write_bytes(pzf(99))
        assert numbers_in(frames) == [(n, n) for n in range(2, 30)]


def test_of_files_that_differ_the_lowest_key_is_read_though_the_other_one_is_local(lab: Lab) -> None:
    lab.holds(0, 0, pzf(7))
    lab.holds(1, 0, pzf(8))
    with lab.series(1) as series:
        assert numbers_in(series.frames()) == [(0, 7)]


def test_of_equal_copies_the_local_one_is_read(lab: Lab) -> None:
    lab.holds(0, 0)
    lab.holds(1, 0)
    with lab.series(1) as series:
        assert numbers_in(series.frames()) == [(0, 0)]
        assert lab.asked() == []


def test_what_one_node_of_several_holds_is_never_decided_here(lab: Lab) -> None:
    """Files of one size may differ; only digests tell, and those are asked for by the reactor's side."""
    node, other = (Node(fake.node_id, "x:1", "127.0.0.1", 1, "test", fake.node_id) for fake in lab.nodes)
    entry = Entry("frame00000.pzf", Flags.FILE, 88)
    lab.holds(0, 0)
    for holders, here in (((node,), True), ((node, other), False)):
        view = UnionView({"frame00000.pzf": (entry, holders)}, (), {}, stored=True)
        stores = LocalStores([str(root) for root in lab.roots], (), Clock())
        assert (Nearby(stores, PATH, view, [0], lambda n, file: image(n)).elsewhere == []) is here


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        (b"BD" + bytes(20), BadFrame, r"frame 1: a PZF header has at least 48 bytes.*; it is in /run.pcs on \S+"),
        (
            pzf(1)[:-1],
            BadFrame,
            r"frame 1: the header promises 24 bytes of samples, the file has 23; it is in /run.pcs",
        ),
        (b"".join(frame.encode(np.zeros((3, 5), "u2"))), WrongFrame, r"frame 1 of /run.pcs has shape \(3, 5\)"),
    ],
)
def test_what_cannot_be_an_array_of_the_series_fails_at_its_place(
    lab: Lab, body: bytes, error: type[Exception], text: str
) -> None:
    for n in range(3):
        lab.holds(0, n, body if n == 1 else None)
    with lab.series(0) as series, series.frames() as frames:
        assert numbers_in([next(frames)]) == [(0, 0)]
        with pytest.raises(error, match=text):
            next(frames)
        assert numbers_in(frames) == [(2, 2)]
        assert lab.asked() == []


def test_a_number_that_is_not_stored_fails_at_its_place(lab: Lab) -> None:
    lab.holds(0, 0)
    with lab.series(0) as series, series.frames([0, 5, 0]) as frames:
        next(frames)
        with pytest.raises(NotStored, match=r"there is no frame 5 in /run.pcs"):
            next(frames)
        assert numbers_in(frames) == [(0, 0)]


def test_compressed_frames_are_left_to_threads_that_decode(lab: Lab) -> None:
    for n in range(2):
        lab.holds(0, n, pzf(n, compression="huffman"))
    with lab.series(0) as series:
        assert type(series.frames()) is blocking.reader.Frames
        assert numbers_in(series.frames()) == [(0, 0), (1, 1)]
        assert lab.asked() == []


def test_a_compressed_frame_among_others_is_decoded_all_the_same(lab: Lab) -> None:
    for n in range(3):
        lab.holds(0, n, pzf(n, compression="huffman") if n == 1 else None)
    with lab.series(0) as series:
        assert numbers_in(series.frames()) == [(0, 0), (1, 1), (2, 2)]


def open_frames() -> list[str]:
    """The names of the frames that this process has open."""
    found = (Path(f"/proc/self/fd/{fd}").resolve().name for fd in os.listdir("/proc/self/fd"))
    return [name for name in found if name.endswith(".pzf")]


def test_an_iterator_that_is_dropped_leaves_nothing_open(lab: Lab) -> None:
    for n in range(20):
        lab.holds(0, n)
    with lab.series(0) as series:
        gc.collect()
        gc.disable()
        try:
            frames = series.frames()
            next(frames)
            assert open_frames() != []
            del frames
            assert open_frames() == []
        finally:
            gc.enable()


def test_however_many_are_wanted_ahead_descriptors_are_left_for_others(lab: Lab) -> None:
    for n in range(40):
        lab.holds(0, n)
    with lab.series(0) as series, series.frames(ahead=1000) as frames:
        next(frames)
        assert len(open_frames()) == 15


def near(lab: Lab, count: int, decode: Callable[[int, bytes], Array], ahead: int) -> Nearby:
    node = Node(lab.nodes[0].node_id, "x:1", "127.0.0.1", 1, "test", lab.nodes[0].node_id)
    names = [f"frame{n:05d}.pzf" for n in range(count)]
    view = UnionView({name: (Entry(name, Flags.FILE, 88), (node,)) for name in names}, (), {}, stored=True)
    for n in range(count):
        lab.holds(0, n)
    return Nearby(LocalStores([str(lab.roots[0])], (), Clock()), PATH, view, range(count), decode, ahead=ahead)


def refuse(*_: Any) -> Any:
    raise AssertionError("nobody is to be asked")


def test_files_are_read_in_the_thread_that_wants_them(lab: Lab) -> None:
    threads = []

    def decode(n: int, file: bytes) -> Array:
        threads.append(threading.current_thread())
        return image(n)

    assert near(lab, 1, decode, 4).next(refuse, refuse) is not None
    assert threads == [threading.current_thread()]


def test_no_more_files_are_opened_ahead_than_was_said_and_none_is_open_after_close(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    monkeypatch.setattr("granum.bypass.os.posix_fadvise", lambda fd, *_: opened.append(fd))
    frames = near(lab, 9, lambda n, file: image(n), 4)
    counts = []
    for _ in range(7):
        frames.next(refuse, refuse)
        counts.append(len(opened))
    assert counts == [4, 5, 6, 7, 8, 9, 9]
    left = {Path(f"/proc/self/fd/{fd}").resolve().name for fd in opened[-2:]}
    assert left == {"frame00007.pzf", "frame00008.pzf"}
    frames.close()
    assert not [fd for fd in opened if "frame" in str(Path(f"/proc/self/fd/{fd}").resolve())]
    assert frames.next(refuse, refuse) is None
