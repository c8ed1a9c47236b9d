"""A series comes back as it was written, while it grows and afterwards; what is damaged or lacking is named."""

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

from granum.arrays.movies import open_movie
from granum.arrays.series import SeriesReader
from granum.cluster import Cluster
from granum.streaming.series import SeriesWriter
from granum.testing import FakeNode, MemoryCluster
from granum.wire import frame
from granum.wire.errors import BadFrame, NotStored, Partial, WrongFrame
from granum.wire.paths import ClusterPath

MOVIE = Path(__file__).parent.parent / "data" / "movies" / "test.dax"
IMAGE = np.arange(12, dtype="u2").reshape(3, 4)


@dataclass
class Lab:
    cluster: Cluster
    fakes: list[FakeNode]

    def store(self, fake: int, name: str, body: bytes) -> None:
        """Let a node have a file of the series '/run.pcs' without a put."""
        self.fakes[fake].files[f"/run.pcs/{name}"] = body


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


def pzf(array: NDArray[Any], **options: Any) -> bytes:
    return b"".join(frame.encode(array, **options))


# -- there and back ----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_movie_streamed_to_two_nodes_comes_back_frame_by_frame(lab: Lab) -> None:
    movie = open_movie(MOVIE)
    writer = await SeriesWriter.create(lab.cluster, "run", metadata=movie.metadata)
    for n, image in enumerate(movie):
        await writer.store_frame(n, image)
    await writer.finalise()
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    assert (reader.shape, reader.dtype, reader.numbers) == ((10, 256, 256), np.dtype("u2"), tuple(range(10)))
    assert all([np.array_equal(await reader.frame(n), movie.frame(n)) for n in range(10)])
    assert reader.complete
    assert not reader.partial
    assert reader.metadata["Source.Filename"] == "test.dax"
    assert reader.metadata["SizeT"] == 10


@pytest.mark.parametrize(
    "array", [IMAGE, IMAGE.T, IMAGE.astype("u1"), IMAGE.astype("f4"), IMAGE[:1], IMAGE[:, :1], IMAGE.reshape(3, 2, 2)]
)
@pytest.mark.parametrize("compression", ["raw", "huffman"])
@pytest_twisted.ensureDeferred
async def test_frames_of_any_kind_come_back(lab: Lab, array: NDArray[Any], compression: Any) -> None:
    writer = await SeriesWriter.create(lab.cluster, "run", compression=compression)
    await writer.store_frame(0, array)
    await writer.finalise()
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    back = await reader.frame(0)
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert np.array_equal(back, array)
    assert reader.shape == (1, *array.shape)


@pytest_twisted.ensureDeferred
async def test_a_series_is_found_without_its_suffix(lab: Lab) -> None:
    lab.store(0, "metadata.json", b"{}")
    assert str((await SeriesReader.open(lab.cluster, "run")).path) == "/run.pcs"


@pytest_twisted.ensureDeferred
async def test_the_file_of_a_frame_is_given_as_it_is(lab: Lab) -> None:
    lab.store(0, "metadata.json", b"{}")
    lab.store(1, "frame00000.pzf", pzf(IMAGE))
    lab.store(1, "frame00001.pzf", b"not a frame")
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    assert await reader.file(1) == b"not a frame"


@pytest_twisted.ensureDeferred
async def test_a_frame_is_asked_of_its_own_node_only(lab: Lab) -> None:
    lab.store(0, "metadata.json", b"{}")
    lab.store(1, "frame00000.pzf", pzf(IMAGE))
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    lab.fakes[0].requests.clear()
    lab.fakes[1].requests.clear()
    lab.cluster.forget_listing("/run.pcs/frame00000.pzf")  # else a cached listing would save the question as well
    await reader.frame(0)
    assert lab.fakes[0].requests == []
    assert lab.fakes[1].requests == [("GET", "/run.pcs/frame00000.pzf")]


@pytest_twisted.ensureDeferred
async def test_numbers_may_have_gaps_and_other_files_are_not_frames(lab: Lab) -> None:
    lab.store(0, "metadata.json", b"{}")
    for name in ["frame00007.pzf", "frame00002.pzf", "frame100000.pzf"]:
        lab.store(1, name, pzf(IMAGE))
    for name in ["frame3.pzf", "frame000004.pzf", "frame00005.pzf.bak", "notes.txt"]:
        lab.store(1, name, b"")
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    assert reader.numbers == (2, 7, 100000)
    assert (len(reader), reader.shape) == (3, (3, 3, 4))
    with pytest.raises(NotStored, match=r"there is no frame 3 in /run\.pcs"):
        await reader.frame(3)


# -- while it grows ----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_series_without_frames_has_no_dtype_yet(lab: Lab) -> None:
    writer = await SeriesWriter.create(lab.cluster, "run")
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    assert (reader.shape, reader.dtype, reader.complete) == ((0,), None, False)
    await writer.abort()


@pytest_twisted.ensureDeferred
async def test_refresh_shows_new_frames_and_the_end(lab: Lab) -> None:
    writer = await SeriesWriter.create(lab.cluster, "run")
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    await writer.store_frame(0, IMAGE)
    summary = await writer.finalise(metadata={"Stage.z": 1})
    assert (reader.numbers, summary.puts) == ((), 1)
    await reader.refresh()
    assert (reader.shape, reader.complete, reader.metadata["Stage.z"]) == ((1, 3, 4), True, 1)
    assert np.array_equal(await reader.frame(0), IMAGE)


@pytest_twisted.ensureDeferred
async def test_what_another_client_stored_since_shows_after_refresh(lab: Lab) -> None:
    lab.store(0, "metadata.json", b"{}")
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    lab.store(1, "frame00000.pzf", pzf(IMAGE))
    await reader.refresh()
    assert reader.numbers == (0,)


# -- damaged or lacking ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["run", "run.pcs", "/a/b/c"])
@pytest_twisted.ensureDeferred
async def test_a_series_that_is_not_there_is_not_stored(lab: Lab, path: str) -> None:
    with pytest.raises(NotStored):
        await SeriesReader.open(lab.cluster, path)


@pytest_twisted.ensureDeferred
async def test_a_directory_without_metadata_is_no_series(lab: Lab) -> None:
    lab.store(0, "notes.txt", b"")
    with pytest.raises(NotStored, match=r"/run\.pcs is not a series: it has no metadata\.json"):
        await SeriesReader.open(lab.cluster, "run.pcs")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
@pytest_twisted.ensureDeferred
async def test_metadata_that_cannot_be_read_are_named(lab: Lab, body: bytes) -> None:
    lab.store(0, "metadata.json", body)
    with pytest.raises(BadFrame, match=r"/run\.pcs/metadata\.json is not readable metadata"):
        await SeriesReader.open(lab.cluster, "run.pcs")


@pytest_twisted.ensureDeferred
async def test_a_damaged_frame_is_named_and_the_others_are_read(lab: Lab) -> None:
    lab.store(0, "metadata.json", b"{}")
    lab.store(0, "frame00000.pzf", pzf(IMAGE)[:-1])
    lab.store(1, "frame00001.pzf", pzf(IMAGE, compression="huffman")[:-2])
    lab.store(1, "frame00002.pzf", pzf(IMAGE))
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    assert reader.shape == (3, 3, 4)
    assert np.array_equal(await reader.frame(2), IMAGE)
    for n in (0, 1):
        with pytest.raises(BadFrame, match=rf"frame {n}: .*; it is in /run\.pcs on 127\.0\.0\.1:\d+$"):
            await reader.frame(n)


@pytest_twisted.ensureDeferred
async def test_a_series_of_damaged_frames_cannot_be_opened(lab: Lab) -> None:
    lab.store(0, "metadata.json", b"{}")
    for n in range(9):
        lab.store(0, f"frame0000{n}.pzf", b"damaged")
    with pytest.raises(BadFrame, match=r"frame 0: .*; it is in /run\.pcs on 127\.0\.0\.1:\d+$"):
        await SeriesReader.open(lab.cluster, "run.pcs")
    assert len([1 for verb, target in lab.fakes[0].requests if "frame" in target]) == 4


@pytest.mark.parametrize("other", [IMAGE.T, IMAGE.astype("u1")])
@pytest_twisted.ensureDeferred
async def test_a_frame_of_another_kind_is_named(lab: Lab, other: NDArray[Any]) -> None:
    lab.store(0, "metadata.json", b"{}")
    lab.store(0, "frame00000.pzf", pzf(IMAGE))
    lab.store(0, "frame00001.pzf", pzf(other))
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    with pytest.raises(WrongFrame, match=r"frame 1 of /run\.pcs has shape .*; the series has \(3, 4\) and uint16"):
        await reader.frame(1)


@pytest_twisted.ensureDeferred
async def test_while_a_node_is_missing_a_frame_is_not_said_to_be_absent(lab: Lab) -> None:
    lab.store(0, "metadata.json", json.dumps({"a": 1}).encode())
    lab.store(0, "frame00000.pzf", pzf(IMAGE))
    lab.store(1, "frame00001.pzf", pzf(IMAGE))
    await lab.cluster.listdir("/")  # both are known
    lab.fakes[1].die()
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    assert (reader.numbers, reader.partial) == ((0,), True)
    assert [name.endswith(f":{lab.fakes[1].port}") for name in reader.missing] == [True]
    with pytest.raises(Partial, match=r"frame 1 of /run\.pcs was not found"):
        await reader.frame(1)


@pytest_twisted.ensureDeferred
async def test_a_complete_series_lacks_no_frame_though_its_nodes_were_listed_at_different_times(lab: Lab) -> None:
    lab.store(0, "metadata.json", b"{}")
    lab.store(0, "frame00000.pzf", pzf(IMAGE))
    await lab.cluster.listdir("/run.pcs")
    lab.store(0, "frame00001.pzf", pzf(IMAGE))
    lab.store(1, "final_metadata.json", b'{"SizeT": 2}')
    lab.store(1, "events.json", b"[]")
    for node in await lab.cluster.ready():  # the listing of the second node alone has expired
        if node.port == lab.fakes[1].port:
            lab.cluster._directory._cache._remove(ClusterPath.parse("/run.pcs"), node.key)
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    assert (reader.complete, reader.numbers) == (True, (0, 1))


@pytest_twisted.ensureDeferred
async def test_a_complete_series_has_its_final_metadata_though_their_node_was_listed_before_they_came(lab: Lab) -> None:
    lab.store(0, "metadata.json", b'{"SizeT": -1}')
    lab.store(1, "frame00000.pzf", pzf(IMAGE))
    await lab.cluster.listdir("/run.pcs")
    lab.store(0, "final_metadata.json", b'{"SizeT": 1}')
    lab.store(1, "events.json", b"[]")
    for node in await lab.cluster.ready():  # the listing of the second node alone has expired
        if node.port == lab.fakes[1].port:
            lab.cluster._directory._cache._remove(ClusterPath.parse("/run.pcs"), node.key)
    reader = await SeriesReader.open(lab.cluster, "run.pcs")
    assert (reader.complete, reader.metadata) == (True, {"SizeT": 1})
