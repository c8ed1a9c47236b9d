"""A series is written in order, is complete only when every frame is stored, and refuses frames that do not fit."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_twisted
from numpy.typing import NDArray
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail

from granum.cluster import Cluster
from granum.streaming.series import SeriesWriter
from granum.testing import FakeNode, MemoryCluster
from granum.wire import frame
from granum.wire.errors import (
    AlreadyStored,
    BadConfig,
    Closed,
    NodeBusy,
    NotReceipted,
    OnSomeNodes,
    OverflowUnusable,
    WrongFrame,
)

IMAGE = np.arange(12, dtype="u2").reshape(3, 4)


@dataclass
class Lab:
    cluster: Cluster
    fakes: list[FakeNode]

    @property
    def files(self) -> dict[str, bytes]:
        """What all nodes store."""
        return {name: body for fake in self.fakes for name, body in fake.files.items()}


@pytest_twisted.async_yield_fixture
async def lab() -> AsyncIterator[Lab]:
    """A cluster of two nodes in memory."""
    memory = MemoryCluster(reactor, 2)
    await memory.start()
    hosts = [f"{fake.address}:{fake.port}" for fake in memory.nodes]
    cluster = Cluster("test", reactor=reactor, sources=(), nodes=hosts, bypass=False)
    cluster.startService()
    yield Lab(cluster, memory.nodes)
    await cluster.stopService()
    await memory.stop()


def decoded(file: bytes) -> NDArray[Any]:
    return frame.decode(file).array[:, :, 0]


# -- the layout --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_series_has_metadata_frames_final_metadata_and_events(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "/day/run", metadata={"Camera": {"Name": "A"}})
    for n in range(3):
        await series.store_frame(n, IMAGE + n)
    summary = await series.finalise([("start", "laser on", 5.0)], metadata={"Stage.z": np.float64(1.5)})
    files = lab.files
    assert sorted(files) == [
        f"/day/run.pcs/{name}"
        for name in [
            "events.json",
            "final_metadata.json",
            "frame00000.pzf",
            "frame00001.pzf",
            "frame00002.pzf",
            "metadata.json",
        ]
    ]
    first = {"Camera.Name": "A", "DimOrder": "XYCZT", "SizeC": 1, "SizeZ": 1, "SizeT": -1, "imageID": series.image_id}
    assert json.loads(files["/day/run.pcs/metadata.json"]) == first
    final = json.loads(files["/day/run.pcs/final_metadata.json"])
    assert final == {**first, "SizeT": 3, "Stage.z": 1.5}
    assert json.loads(files["/day/run.pcs/events.json"]) == [["start", "laser on", 5.0]]
    assert (summary.puts, sum(summary.per_node.values())) == (3, 3)


@pytest_twisted.ensureDeferred
async def test_frames_carry_their_number_and_the_id_of_the_series(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run.pcs")
    await series.store_frame(7, IMAGE)
    await series.finalise()
    back = frame.decode(lab.files["/run.pcs/frame00007.pzf"])
    assert (back.header.frame_number, back.header.sequence_id) == (7, series.image_id)
    assert 0 < series.image_id < 2**63
    assert np.array_equal(back.array[:, :, 0], IMAGE)


@pytest_twisted.ensureDeferred
async def test_each_part_is_receipted_before_the_next_is_sent(lab: Lab) -> None:
    requests: list[str] = []
    for fake in lab.fakes:
        fake.requests.clear()
    series = await SeriesWriter.create(lab.cluster, "run")
    before = [target for fake in lab.fakes for verb, target in fake.requests if verb == "PUT"]
    for n in range(20):
        await series.store_frame(n, IMAGE)
    await series.finalise()
    requests = [target for fake in lab.fakes for verb, target in fake.requests if verb == "PUT"]
    assert before == ["/run.pcs/metadata.json"]
    assert len(requests) == 23
    for fake in lab.fakes:
        names = [target.removeprefix("/run.pcs/") for verb, target in fake.requests if verb == "PUT"]
        last = [name for name in names if "frame" not in name and name != "metadata.json"]
        assert names[len(names) - len(last) :] == last == sorted(last, reverse=True)


@pytest.mark.parametrize("compression", ["huffman", "chunks"])
@pytest_twisted.ensureDeferred
async def test_compressed_frames_come_back(lab: Lab, compression: str) -> None:
    series = await SeriesWriter.create(lab.cluster, "run", compression=compression)  # type: ignore[arg-type]
    await DeferredList([series.store_frame(n, IMAGE + n) for n in range(9)], fireOnOneErrback=True)
    await series.finalise()
    files = lab.files
    assert all(np.array_equal(decoded(files[f"/run.pcs/frame0000{n}.pzf"]), IMAGE + n) for n in range(9))


@pytest_twisted.ensureDeferred
async def test_frames_are_compressed_while_the_caller_goes_on(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run", compression="huffman", encoders=1)
    handed = [series.store_frame(n, IMAGE + n) for n in range(3)]
    assert [one.called for one in handed] == [True, True, False]  # one encodes, one waits for it, one has no room
    assert (await series.finalise()).puts == 3
    assert [await one for one in handed[:2]] == [None, None]


@pytest_twisted.ensureDeferred
async def test_a_caller_who_waits_for_each_frame_waits_when_encoders_are_quicker_than_nodes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = await SeriesWriter.create(lab.cluster, "run", compression="huffman", encoders=1)
    waiting: list[Deferred[None]] = []

    def put(*_: Any) -> Deferred[None]:
        waiting.append(Deferred())
        return waiting[-1]

    monkeypatch.setattr(series._streamer, "put", put)
    handed = []
    for n in range(3):
        handed.append(series.store_frame(n, IMAGE))
        await series._encoders.run(lambda: None)  # the one thread has done with the frame
    assert [one.called for one in handed] == [True, True, False]
    for one in waiting:
        one.callback(None)
    await handed[2]
    await series.abort()


@pytest_twisted.ensureDeferred
async def test_large_frames_are_taken_in_only_while_another_one_may_be_handed_over(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("granum.streaming.series.PENDING_BYTES_MAX", 2 * IMAGE.nbytes)
    series = await SeriesWriter.create(lab.cluster, "run", compression="huffman", encoders=4)
    handed = [series.store_frame(n, IMAGE) for n in range(2)]
    assert [one.called for one in handed] == [True, False]
    assert (await series.finalise()).puts == 2


@pytest_twisted.ensureDeferred
async def test_a_frame_that_may_be_refused_is_not_taken_in_before_it_is_in_a_window(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run", compression="huffman", on_full="raise")
    handed = series.store_frame(0, IMAGE)
    assert not handed.called
    assert await handed is not None
    await series.finalise()


@pytest_twisted.ensureDeferred
async def test_a_frame_taken_in_that_is_not_sent_is_named_at_the_end(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run", compression="huffman")
    for fake in lab.fakes:
        await fake.stop()
    assert await series.store_frame(0, IMAGE) is None
    with pytest.raises(NotReceipted, match="no node takes puts") as caught:
        await series.finalise()
    assert caught.value.paths == ["/run.pcs/frame00000.pzf"]


@pytest_twisted.ensureDeferred
async def test_the_placement_may_be_named(lab: Lab) -> None:
    name = f"fake1:{lab.fakes[1].port}"
    series = await SeriesWriter.create(lab.cluster, "run", placement=f"pinned:{lab.fakes[1].node_id}")
    for n in range(4):
        await series.store_frame(n, IMAGE)
    summary = await series.finalise()
    assert {node for node, puts in summary.per_node.items() if puts} <= {name, f"127.0.0.1:{lab.fakes[1].port}"}


@pytest_twisted.ensureDeferred
async def test_a_reader_of_this_program_sees_the_series_at_once(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    await lab.cluster.listdir("/run.pcs")
    await series.store_frame(0, IMAGE)
    await series.finalise()
    assert "events.json" in await lab.cluster.listdir("/run.pcs")
    assert (await lab.cluster.listdir("/"))["run.pcs"].is_complete


# -- what a camera hands over ------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_buffer_of_the_camera_may_change_after_store_frame_returns(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run", window_puts_max=1)
    buffer = IMAGE.copy()
    handed = [series.store_frame(n, buffer) for n in range(4)]
    buffer[:] = 0
    await DeferredList(handed, fireOnOneErrback=True)
    await series.finalise()
    files = lab.files
    assert all(np.array_equal(decoded(files[f"/run.pcs/frame0000{n}.pzf"]), IMAGE) for n in range(4))


@pytest_twisted.ensureDeferred
async def test_an_array_that_is_handed_over_is_not_copied(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    array = IMAGE.copy()
    handed = series.store_frame(0, array, copy=False)  # waits for its channel to open
    array[0, 0] = 99
    await handed
    await series.finalise()
    assert decoded(lab.files["/run.pcs/frame00000.pzf"])[0, 0] == 99


@pytest.mark.parametrize(
    "image", [IMAGE.astype(">u2"), IMAGE.T, IMAGE[::2, ::2], IMAGE.astype("u1"), IMAGE.astype(">f4")]
)
@pytest_twisted.ensureDeferred
async def test_arrays_of_any_order_come_back(lab: Lab, image: NDArray[Any]) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    await series.store_frame(0, image)
    await series.store_frame(1, image, copy=False)
    await series.finalise()
    for n in range(2):
        back = decoded(lab.files[f"/run.pcs/frame0000{n}.pzf"])
        assert back.dtype == image.dtype.newbyteorder("=")
        assert np.array_equal(back, image)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((4, 3), "u2"), r"frame 5 has shape \(4, 3\) and dtype uint16; .* has \(3, 4\) and uint16"),
        (np.zeros((3, 4), "u1"), r"frame 5 has shape \(3, 4\) and dtype uint8; .* has \(3, 4\) and uint16"),
        (np.zeros((3, 4), "i8"), "the samples are int64; uint8, uint16 and float32 can be stored"),
        (np.zeros(12, "u2"), r"frame 5 has shape \(12,\); \(height, width\) is expected"),
        (np.zeros((0, 4), "u2"), r"frame 5 has shape \(0, 4\); \(height, width\) is expected"),
    ],
)
@pytest.mark.parametrize("stated", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_frame_that_does_not_fit_is_refused_by_number(
    lab: Lab, array: NDArray[Any], complaint: str, stated: bool
) -> None:
    kind: dict[str, Any] = {"shape": (3, 4), "dtype": "u2"} if stated else {}
    series = await SeriesWriter.create(lab.cluster, "run", **kind)
    if not stated:
        await series.store_frame(0, IMAGE)
    with pytest.raises(WrongFrame, match=complaint):
        await series.store_frame(5, array)
    await series.store_frame(5, IMAGE)
    assert (await series.finalise()).puts == (1 if stated else 2)


@pytest_twisted.ensureDeferred
async def test_a_number_is_used_once(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    await series.store_frame(0, IMAGE)
    with pytest.raises(AlreadyStored, match=r"frame 0 of /run\.pcs was stored before"):
        await series.store_frame(0, IMAGE + 1)
    with pytest.raises(ValueError, match="frame -1: frames are counted from 0"):
        await series.store_frame(-1, IMAGE)
    await series.finalise()
    assert np.array_equal(decoded(lab.files["/run.pcs/frame00000.pzf"]), IMAGE)


@pytest_twisted.ensureDeferred
async def test_a_caller_that_never_waits_is_stopped_before_memory_fills(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run", compression="huffman")
    handed = [series.store_frame(n, IMAGE) for n in range(65)]
    with pytest.raises(NodeBusy, match="64 frames wait for room already"):
        await handed.pop()
    await DeferredList(handed, fireOnOneErrback=True)
    assert (await series.finalise()).puts == 64


# -- refused at the start ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", ["/run.pcs/frame00000.pzf", "/run.pcs/metadata.json", "/run.pcs"])
@pytest_twisted.ensureDeferred
async def test_a_name_that_is_taken_anywhere_is_refused(lab: Lab, taken: str) -> None:
    lab.fakes[1].files[taken] = b""
    with pytest.raises(AlreadyStored, match=r"/run\.pcs is stored already"):
        await SeriesWriter.create(lab.cluster, "run")
    assert lab.fakes[0].files == {}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"metadata": {"not a name": 1}}, ValueError),
        ({"dtype": "f8"}, WrongFrame),
        ({"shape": (3,)}, WrongFrame),
        ({"compression": "zip"}, BadConfig),
        ({"quantise": frame.Quantisation(0, 1)}, BadConfig),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_setting_that_cannot_work_is_refused_before_anything_is_stored(
    lab: Lab, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await SeriesWriter.create(lab.cluster, "run", **options)
    assert lab.files == {}


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_series_that_lost_a_frame_is_never_marked_complete(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    lab.fakes[0].files["/run.pcs/frame00000.pzf"] = lab.fakes[1].files["/run.pcs/frame00000.pzf"] = b"of another"
    for n in range(4):
        await series.store_frame(n, IMAGE)
    with pytest.raises(NotReceipted) as caught:
        await series.finalise()
    assert caught.value.paths == ["/run.pcs/frame00000.pzf"]
    files = lab.files
    assert "/run.pcs/frame00003.pzf" in files
    assert not {"/run.pcs/final_metadata.json", "/run.pcs/events.json"} & set(files)


@pytest_twisted.ensureDeferred
async def test_finalise_waits_for_frames_that_are_still_being_encoded(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run", compression="huffman")
    for n in range(10):
        series.store_frame(n, IMAGE)
    assert (await series.finalise()).puts == 10


@pytest_twisted.ensureDeferred
async def test_an_aborted_series_is_left_without_the_marker(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    await series.store_frame(0, IMAGE)
    await series.abort()
    with pytest.raises(Closed):
        await series.finalise()
    assert "/run.pcs/events.json" not in lab.files


@pytest_twisted.ensureDeferred
async def test_an_abort_while_finalise_waits_leaves_no_marker(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run", compression="huffman")
    handed = series.store_frame(0, IMAGE)
    finalised = series.finalise()
    await series.abort()
    results = await DeferredList([handed, finalised], consumeErrors=True)
    assert results[0] == (True, None)  # taken in, to be compressed
    assert results[1][1].type is Closed
    assert list(lab.files) == ["/run.pcs/metadata.json"]


@pytest_twisted.ensureDeferred
async def test_a_finalised_series_takes_nothing_more(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    await series.finalise()
    with pytest.raises(Closed, match=r"the series /run\.pcs is closed"):
        await series.store_frame(0, IMAGE)
    with pytest.raises(Closed):
        await series.finalise()


@pytest_twisted.ensureDeferred
async def test_bad_events_leave_the_series_open(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    with pytest.raises(ValueError, match="of an event"):
        await series.finalise([("n" * 33, "", 0.0)])
    await series.store_frame(0, IMAGE)
    assert (await series.finalise([("n", "", 0.0)])).puts == 1


@pytest_twisted.ensureDeferred
async def test_an_abort_between_the_final_files_leaves_no_marker(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    await series.store_frame(0, IMAGE)
    put = lab.cluster.put
    aborts = []

    def put_and_abort(path: Any, body: bytes) -> Any:
        aborts.append(series.abort())
        return put(path, body)

    monkeypatch.setattr(lab.cluster, "put", put_and_abort)
    with pytest.raises(Closed, match="was aborted"):
        await series.finalise()
    await DeferredList(aborts)
    assert sorted(lab.files) == [
        f"/run.pcs/{name}" for name in ("final_metadata.json", "frame00000.pzf", "metadata.json")
    ]


@pytest_twisted.ensureDeferred
async def test_a_misspelt_option_is_refused_before_anything_is_stored(lab: Lab) -> None:
    with pytest.raises(TypeError, match="window_byte_max"):
        await SeriesWriter.create(lab.cluster, "run", window_byte_max=5)
    assert lab.files == {}


@pytest_twisted.ensureDeferred
async def test_a_first_frame_that_was_not_stored_does_not_decide_the_shape(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    with pytest.raises(WrongFrame):
        await series.store_frame(2**32, np.zeros((7, 7), "u2"))
    withdrawn = series.store_frame(0, np.zeros((5, 5), "u2"))  # waits for its channel to open
    withdrawn.cancel()
    with pytest.raises(CancelledError):
        await withdrawn
    await series.store_frame(0, IMAGE)
    assert (await series.finalise()).puts == 1
    assert np.array_equal(decoded(lab.files["/run.pcs/frame00000.pzf"]), IMAGE)


@pytest_twisted.ensureDeferred
async def test_a_cancelled_finalise_leaves_no_connection_and_no_marker(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    for fake in lab.fakes:
        fake.fail_next("silent", verb="PUT")
    await series.store_frame(0, IMAGE)
    finalised = series.finalise()
    finalised.cancel()
    with pytest.raises(CancelledError):
        await finalised
    assert "/run.pcs/events.json" not in lab.files
    assert [lane.channel for lane in series._streamer._lanes.values()] == [None, None]


@pytest_twisted.ensureDeferred
async def test_a_finalise_that_is_cancelled_when_all_receipts_are_there_leaves_no_marker(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    await series.store_frame(0, IMAGE)
    await series._streamer.flush()
    finalised = series.finalise()
    finalised.cancel()
    with pytest.raises(CancelledError):
        await finalised
    assert "/run.pcs/events.json" not in lab.files


@pytest_twisted.ensureDeferred
async def test_finalise_called_twice_at_once_completes_the_series_once(lab: Lab) -> None:
    series = await SeriesWriter.create(lab.cluster, "run", compression="huffman")
    for n in range(5):
        series.store_frame(n, IMAGE)
    first, second = series.finalise(), series.finalise()
    with pytest.raises(Closed):
        await second
    assert (await first).puts == 5
    assert (
        sum(target.endswith("events.json") for fake in lab.fakes for verb, target in fake.requests if verb == "PUT")
        == 1
    )


@pytest_twisted.ensureDeferred
async def test_a_finalise_that_failed_behind_the_frames_goes_on_where_it_stopped(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    for n in range(3):
        await series.store_frame(n, IMAGE)
    put = lab.cluster.put
    tries: list[str] = []

    async def put_and_fail(path: Any, body: bytes) -> Any:
        tries.append(path.name)
        if len(tries) == 1:  # stored, and the answer is lost
            await put(path, body)
            raise NotReceipted("the answer was lost", [str(path)], {})
        if len(tries) == 3:
            raise OnSomeNodes("nobody is there", {})
        return await put(path, body)

    monkeypatch.setattr(lab.cluster, "put", lambda path, body: Deferred.fromCoroutine(put_and_fail(path, body)))
    events = [("start", "", 1.0)]
    with pytest.raises(NotReceipted, match="the answer was lost"):
        await series.finalise(events, {"a": 1})
    with pytest.raises(Closed):
        await series.store_frame(3, IMAGE)
    with pytest.raises(OnSomeNodes):
        await series.finalise(events, {"a": 1})
    assert (await series.finalise(events, {"a": 1})).puts == 3
    assert tries[:3] == ["final_metadata.json", "final_metadata.json", "events.json"]
    assert json.loads(lab.files["/run.pcs/events.json"]) == [["start", "", 1.0]]
    frames = [target for fake in lab.fakes for verb, target in fake.requests if verb == "PUT" and ".pzf" in target]
    assert len(frames) == 3
    with pytest.raises(Closed):
        await series.finalise(events)


@pytest_twisted.ensureDeferred
async def test_a_series_that_was_aborted_behind_the_frames_is_not_finalised_any_more(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = await SeriesWriter.create(lab.cluster, "run")
    await series.store_frame(0, IMAGE)
    with monkeypatch.context() as patch:
        patch.setattr(lab.cluster, "put", lambda *_: fail(OnSomeNodes("nobody is there", {})))
        with pytest.raises(OnSomeNodes):
            await series.finalise()
    await series.abort()
    with pytest.raises(Closed):
        await series.finalise()
    assert "/run.pcs/events.json" not in lab.files


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_failing_disk_of_the_overflow_hides_neither_what_is_lost_nor_that_all_is_there(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_lost: bool
) -> None:
    series = await SeriesWriter.create(lab.cluster, "run", on_full="overflow", overflow_dir=str(tmp_path))
    if is_lost:
        lab.fakes[0].files["/run.pcs/frame00000.pzf"] = lab.fakes[1].files["/run.pcs/frame00000.pzf"] = b"of another"
    monkeypatch.setattr(series._overflow, "close", lambda: fail(OverflowUnusable("the disk has failed")))
    await series.store_frame(0, IMAGE)
    if is_lost:
        with pytest.raises(NotReceipted) as caught:
            await series.finalise()
        assert caught.value.paths == ["/run.pcs/frame00000.pzf"]
    else:
        assert (await series.finalise()).puts == 1
        assert "/run.pcs/events.json" in lab.files
