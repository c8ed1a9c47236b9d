"""The overflow keeps what it took: across crashes, damage, full disks, and until the docket says that it is delivered."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from granum.streaming import overflow as overflow_module
from granum.streaming import segments as segments_module
from granum.streaming.overflow import Overflow
from granum.streaming.survey import directories, leftover
from granum.wire.errors import Closed, OverflowInUse, OverflowUnusable
from granum.wire.paths import ClusterPath

SERIES = ClusterPath.parse("/2026/run1.pcs")
SMALL = 5_000  # bytes of a segment


def create(top: Path, **options: Any) -> Overflow:
    settings = {
        "cluster": "lab",
        "nodes": ["10.0.0.1:15348"],
        "series": SERIES,
        "reserve_bytes": 0,
        "reactor": reactor,
        "pool": reactor.getThreadPool(),
        "wall_clock": lambda: 1_790_000_000.0,
    }
    return Overflow.create(str(top), **{**settings, **options})


async def reopen(directory: str | Path) -> Overflow:
    return await Overflow.reopen(str(directory), reactor=reactor, pool=reactor.getThreadPool())


def path(n: int) -> ClusterPath:
    return SERIES / f"frame{n:05}.pzf"


def body(n: int, size: int = 1000) -> bytes:
    return bytes([n % 256]) * size


async def append(overflow: Overflow, numbers: Sequence[int], size: int = 1000) -> list[Any]:
    return [await overflow.append(path(n), [body(n, size)], n) for n in numbers]


async def drain(overflow: Overflow, *, deliver: bool = True) -> dict[str, bytes]:
    """Take all that waits."""
    found = {}
    while (taken := await overflow.next()) is not None:
        token, name, view, number = taken
        assert name == path(number or 0)
        found[name.name] = bytes(view)
        if deliver:
            overflow.delivered(token)
    return found


def inside(directory: str | Path, suffix: str = "") -> list[str]:
    return sorted(name for name in os.listdir(directory) if name.endswith(suffix))


def frames(numbers: Sequence[int], size: int = 1000) -> dict[str, bytes]:
    return {path(n).name: body(n, size) for n in numbers}


def abandon(overflow: Overflow) -> None:
    """Leave all as a process does that ends here: no close, no sync."""
    if overflow._tick is not None:
        overflow._tick.cancel()
        overflow._tick = None
    overflow._segments.release()


class AtOnce(Clock):
    """A reactor and a pool that do everything in the caller's thread, so that nothing is waited for."""

    def callFromThread(self, work: Any, *arguments: Any) -> None:  # noqa: N802 - Twisted's name
        work(*arguments)

    def callInThreadWithCallback(self, report: Any, work: Any, *arguments: Any) -> None:  # noqa: N802
        try:
            outcome = work(*arguments)
        except Exception:  # noqa: BLE001 - the pool reports whatever it is
            report(False, Failure())
        else:
            report(True, outcome)


def result(done: Deferred[Any]) -> Any:
    """Return what *done* has fired with."""
    found: list[Any] = []
    done.addBoth(found.append)
    (outcome,) = found
    if isinstance(outcome, Failure):
        outcome.raiseException()
    return outcome


def until(condition: Any) -> Deferred[None]:
    async def wait() -> None:
        while not condition():
            await deferLater(reactor, 0.005)

    return Deferred.fromCoroutine(wait()).addTimeout(10, reactor)


# -- in one process --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_goes_in_comes_out_in_order_with_its_number_and_then_nothing(tmp_path: Path) -> None:
    overflow = create(tmp_path)
    await overflow.append(path(0), [b"ab", memoryview(b"cd")], 0)
    await overflow.append(path(1), [], None)
    taken = [await overflow.next() for _ in range(3)]
    assert [each and (each[1], bytes(each[2]), each[3]) for each in taken] == [
        (path(0), b"abcd", 0),
        (path(1), b"", None),
        None,
    ]
    assert overflow.pending == 2
    await overflow.close()


@pytest_twisted.ensureDeferred
async def test_a_stream_that_never_overflows_leaves_nothing_on_disk(tmp_path: Path) -> None:
    overflow = create(tmp_path / "top")
    assert overflow.room(1000)
    assert await overflow.next() is None
    await overflow.close()
    assert inside(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_all_delivered_leaves_nothing_on_disk(tmp_path: Path) -> None:
    overflow = create(tmp_path)
    await append(overflow, range(20))
    assert await drain(overflow) == frames(range(20))
    await overflow.close()
    assert inside(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_returned_ones_are_handed_out_again(tmp_path: Path) -> None:
    overflow = create(tmp_path)
    await append(overflow, [0, 1])
    first = await overflow.next()
    await overflow.next()
    assert first is not None
    overflow.returned(first[0])
    again = await overflow.next()
    assert again is not None
    assert (again[0], again[1]) == (first[0], path(0))
    await overflow.close()


@pytest_twisted.ensureDeferred
async def test_many_appends_at_once_are_all_written(tmp_path: Path) -> None:
    overflow = create(tmp_path, segment_bytes_max=20_000)
    tokens = await DeferredList([overflow.append(path(n), [body(n)], n) for n in range(300)], fireOnOneErrback=True)
    assert len(set(tokens)) == 300
    assert await drain(overflow) == frames(range(300))
    await overflow.close()


@pytest_twisted.ensureDeferred
async def test_more_pieces_than_one_write_takes(tmp_path: Path) -> None:
    overflow = create(tmp_path)
    await overflow.append(path(0), [bytes([n % 256]) * 3 for n in range(3000)], 0)
    taken = await overflow.next()
    assert taken is not None
    assert bytes(taken[2]) == b"".join(bytes([n % 256]) * 3 for n in range(3000))
    await overflow.close()


@pytest_twisted.ensureDeferred
async def test_segments_are_bounded_and_go_when_they_are_delivered(tmp_path: Path) -> None:
    overflow = create(tmp_path, segment_bytes_max=SMALL)
    tokens = await append(overflow, range(12))
    segments = [Path(overflow.directory) / name for name in inside(overflow.directory, ".segment")]
    assert len(segments) == 3
    assert all(segment.stat().st_size <= SMALL for segment in segments)
    for token in tokens[:8]:
        overflow.delivered(token)
    await until(lambda: not segments[0].exists() and not segments[1].exists())
    assert segments[2].exists()
    await overflow.close()
    assert leftover(overflow.directory).frames == 4


@pytest_twisted.ensureDeferred
async def test_a_stream_that_goes_on_gets_the_room_back(tmp_path: Path) -> None:
    """The segment that is being written is given up too, once all in it is delivered."""
    overflow = create(tmp_path, bytes_max=8_000)
    tokens = await append(overflow, range(7))
    assert not overflow.room(1000)
    with pytest.raises(OverflowUnusable, match="is full"):
        await overflow.append(path(7), [body(7)], 7)
    for token in tokens:
        overflow.delivered(token)
    await until(lambda: overflow.room(1000))
    await append(overflow, [7])
    assert overflow.pending == 1
    await overflow.close()


@pytest_twisted.ensureDeferred
async def test_what_waits_to_be_written_takes_room_too(tmp_path: Path) -> None:
    overflow = create(tmp_path, bytes_max=8_000)
    outcomes = await DeferredList([overflow.append(path(n), [body(n)], n) for n in range(9)], consumeErrors=True)
    assert [success for success, _ in outcomes] == [True] * 7 + [False] * 2
    assert overflow.pending == 7
    await overflow.close()


@pytest_twisted.ensureDeferred
async def test_a_cancelled_append_is_not_handed_out(tmp_path: Path) -> None:
    """Neither one that waits nor one that is being written."""
    overflow = create(tmp_path)
    under_way, waiting, kept = (overflow.append(path(n), [body(n)], n) for n in range(3))
    under_way.cancel()
    waiting.cancel()
    for cancelled in (under_way, waiting):
        with pytest.raises(CancelledError):
            await cancelled
    await kept
    assert await drain(overflow) == frames([2])
    await overflow.close()


@pytest_twisted.ensureDeferred
async def test_a_cancelled_next_gives_the_file_back(tmp_path: Path) -> None:
    overflow = create(tmp_path)
    await append(overflow, [0])
    taking = overflow.next()
    taking.cancel()
    with pytest.raises(CancelledError):
        await taking
    await until(lambda: overflow._pending._returned)
    assert await drain(overflow) == frames([0])
    await overflow.close()


@pytest_twisted.ensureDeferred
async def test_close_writes_what_waits_and_nothing_goes_in_after_it(tmp_path: Path) -> None:
    overflow = create(tmp_path)
    waiting = [overflow.append(path(n), [body(n)], n) for n in range(5)]
    closing = overflow.close()
    assert not overflow.room(1)
    with pytest.raises(Closed):
        await overflow.append(path(9), [b""], 9)
    await closing
    assert [await each for each in waiting] == [0, 1, 2, 3, 4]
    await overflow.close()
    again = await reopen(overflow.directory)
    assert await drain(again) == frames(range(5))
    await again.close()


@pytest_twisted.ensureDeferred
async def test_pieces_that_are_no_bytes_fail_their_append_alone(tmp_path: Path) -> None:
    overflow = create(tmp_path)
    with pytest.raises(TypeError):
        await overflow.append(path(0), ["text"], 0)  # type: ignore[list-item]
    await append(overflow, [1])
    assert await drain(overflow) == frames([1])
    await overflow.close()


# -- syncs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is synced and deleted, in order, by kind of file."""
    done: list[str] = []
    sync, unlink = os.fdatasync, os.unlink

    def noted_sync(file: int) -> None:
        sync(file)
        done.append(f"sync {os.readlink(f'/proc/self/fd/{file}').rpartition('.')[2]}")

    def noted_unlink(name: str) -> None:
        unlink(name)
        done.append(f"unlink {name.rpartition('.')[2]}")

    monkeypatch.setattr(segments_module.os, "fdatasync", noted_sync)
    monkeypatch.setattr(segments_module.os, "unlink", noted_unlink)
    return done


@pytest_twisted.ensureDeferred
async def test_each_is_synced_before_it_counts(tmp_path: Path, syncs: list[str]) -> None:
    overflow = create(tmp_path, sync="each")
    await append(overflow, [0])
    assert syncs == ["sync segment"]
    await overflow.close()


@pytest_twisted.ensureDeferred
async def test_the_window_is_synced_soon_after(tmp_path: Path, syncs: list[str]) -> None:
    overflow = create(tmp_path)
    await append(overflow, [0])
    assert syncs == []
    await until(lambda: syncs)
    assert syncs == ["sync segment"]
    await overflow.close()


@pytest_twisted.ensureDeferred
async def test_many_bytes_are_synced_at_once(tmp_path: Path, syncs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflow_module, "SYNC_BYTES", 5_000)
    monkeypatch.setattr(overflow_module, "SYNC_S", 1000.0)
    overflow = create(tmp_path)
    await append(overflow, range(6))
    await until(lambda: syncs)
    await overflow.close()


@pytest_twisted.ensureDeferred
async def test_a_segment_is_deleted_behind_the_sync_of_its_docket(tmp_path: Path, syncs: list[str]) -> None:
    overflow = create(tmp_path)
    (token,) = await append(overflow, [0])
    overflow.delivered(token)
    await overflow.close()
    assert syncs[:4] == ["sync segment", "sync delivered", "unlink segment", "unlink delivered"]


@pytest_twisted.ensureDeferred
async def test_a_failed_sync_ends_writing_and_not_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overflow = create(tmp_path)
    await append(overflow, [0])

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(segments_module.os, "fdatasync", fail)
    await until(lambda: overflow.failure is not None)
    assert not overflow.room(1)
    with pytest.raises(OverflowUnusable, match="has failed"):
        await overflow.append(path(1), [b""], 1)
    monkeypatch.undo()  # a later sync says that all is well, as kernels do
    assert await drain(overflow, deliver=False) == frames([0])
    with pytest.raises(OverflowUnusable, match="has failed"):
        await overflow.close()
    assert leftover(overflow.directory).held is False


@pytest_twisted.ensureDeferred
async def test_with_each_a_failed_sync_fails_the_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(segments_module.os, "fdatasync", fail)
    overflow = create(tmp_path, sync="each")
    with pytest.raises(OverflowUnusable, match="has failed"):
        await append(overflow, [0])
    assert (overflow.pending, overflow.room(1)) == (0, False)
    with pytest.raises(OverflowUnusable):
        await overflow.close()


class Queued(AtOnce):
    """A pool whose work waits until it is told to go on, oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.work: list[Any] = []

    def callInThreadWithCallback(self, *arguments: Any) -> None:  # noqa: N802
        self.work.append(arguments)

    def go_on(self) -> None:
        super().callInThreadWithCallback(*self.work.pop(0))


def test_close_waits_for_a_sync_that_is_under_way_and_for_its_own(tmp_path: Path) -> None:
    """Descriptors are closed behind all that use them."""
    pool: Any = Queued()
    overflow = create(tmp_path, reactor=pool, pool=pool)
    appended = overflow.append(path(0), [body(0)], 0)
    pool.go_on()
    overflow.delivered(result(appended))
    pool.advance(1)
    closing = overflow.close()
    assert len(pool.work) == 1  # the sync that the clock began
    pool.go_on()
    assert [arguments[1].__name__ for arguments in pool.work] == ["settle"]
    pool.go_on()
    assert [arguments[1].__name__ for arguments in pool.work] == ["_release"]
    pool.go_on()
    assert result(closing) is None
    assert inside(tmp_path) == []


# -- full disks ------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_write_that_fails_half_way_leaves_nothing_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overflow = create(tmp_path)
    await append(overflow, [0])
    write = os.pwritev

    def half(file: int, pieces: Sequence[Any], offset: int) -> int:
        monkeypatch.setattr(segments_module.os, "pwritev", full)
        return write(file, [*pieces[:-1], memoryview(pieces[-1])[:900]], offset)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segments_module.os, "pwritev", half)
    with pytest.raises(OverflowUnusable, match=r"disk of the overflow .* is full"):
        await append(overflow, [1])
    monkeypatch.setattr(segments_module.os, "pwritev", write)
    assert (overflow.room(1), overflow.pending) == (False, 1)
    await until(lambda: overflow.room(1))  # the disk is looked at again
    await append(overflow, [2], 10)  # shorter than what was written of the other
    abandon(overflow)
    again = await reopen(overflow.directory)
    assert again.unreadable == 0
    assert await drain(again) == {**frames([0]), **frames([2], 10)}
    await again.close()


def test_a_docket_that_does_not_fit_is_written_later_and_keeps_no_finished_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleting is what makes room."""
    at_once: Any = AtOnce()
    overflow = create(tmp_path, reactor=at_once, pool=at_once, segment_bytes_max=SMALL)
    tokens = [result(overflow.append(path(n), [body(n)], n)) for n in range(6)]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(segments_module, "encode_entries", full)
        for token in tokens[:5]:
            overflow.delivered(token)
        at_once.advance(1)
    docket = Path(overflow.directory, "00000002.delivered")
    assert inside(overflow.directory) == [docket.name, "00000002.segment", "header.json", "lock"]
    assert docket.stat().st_size == 0
    at_once.advance(1)
    assert docket.stat().st_size == 16
    abandon(overflow)
    again = result(Overflow.reopen(overflow.directory, reactor=at_once, pool=at_once))
    assert again.pending == 1
    result(again.close())


@pytest_twisted.ensureDeferred
async def test_the_reserve_of_the_disk_is_left_free(tmp_path: Path) -> None:
    overflow = create(tmp_path, reserve_bytes=1 << 60)
    with pytest.raises(OverflowUnusable, match="is full"):
        await append(overflow, [0])
    assert not overflow.room(1)
    await overflow.close()
    assert inside(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "granum-test", str(disk)], stderr=subprocess.DEVNULL
    )
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.check_call(["umount", "--lazy", str(disk)])


@pytest_twisted.ensureDeferred
async def test_a_full_disk_refuses_and_takes_again_when_it_is_drained(small_disk: Path) -> None:
    overflow = create(small_disk, segment_bytes_max=1 << 20)
    taken: list[int] = []

    async def fill() -> None:
        while True:
            await append(overflow, [len(taken)], 100_000)
            taken.append(len(taken))

    with pytest.raises(OverflowUnusable):
        await fill()
    assert 30 < len(taken) < 42
    assert not overflow.room(100_000)
    assert await drain(overflow) == frames(taken, 100_000)
    await until(lambda: overflow.room(1 << 20))
    await append(overflow, [1])
    await overflow.close()


# -- another process -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_a_crash_leaves_is_pending_without_what_was_delivered(tmp_path: Path) -> None:
    overflow = create(tmp_path, segment_bytes_max=SMALL)
    tokens = await append(overflow, range(10))
    for token in (tokens[0], tokens[7]):
        overflow.delivered(token)
    await until(lambda: len(inside(overflow.directory, ".delivered")) == 2)
    await until(lambda: not overflow._is_settling)
    abandon(overflow)

    again = await reopen(overflow.directory)
    assert again.pending == 8
    assert (again.header.cluster, again.header.nodes, again.header.series) == ("lab", ("10.0.0.1:15348",), SERIES)
    assert await drain(again) == frames([1, 2, 3, 4, 5, 6, 8, 9])
    await again.close()
    assert inside(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_one_directory_has_one_user(tmp_path: Path) -> None:
    overflow = create(tmp_path)
    await append(overflow, [0])
    with pytest.raises(OverflowInUse):
        await reopen(overflow.directory)
    found = leftover(overflow.directory)
    assert (found.held, found.pid) == (True, os.getpid())
    await overflow.close()
    (found,) = map(leftover, directories(str(tmp_path)))
    assert (found.held, found.pid, found.frames) == (False, None, 1)
    assert Path(found.directory).name == "20260921T141320Z-run1.pcs"


@pytest_twisted.ensureDeferred
async def test_streams_of_one_name_and_second_get_a_directory_each(tmp_path: Path) -> None:
    overflows = [create(tmp_path, series=SERIES / ("µ" * 127)) for _ in range(3)]
    for overflow in overflows:
        await append(overflow, [0])
    assert len({overflow.directory for overflow in overflows}) == 3
    for overflow in overflows:
        await overflow.close()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("left", ["nothing", "no header", "no JSON", "later version"])
async def test_what_is_no_overflow_is_refused(tmp_path: Path, left: str) -> None:
    directory = tmp_path / "other"
    if left != "nothing":
        directory.mkdir()
        text = {"no header": None, "no JSON": "{", "later version": '{"version": 2}'}[left]
        if text is not None:
            (directory / "header.json").write_text(text)
    with pytest.raises(OverflowUnusable):
        await reopen(directory)


# -- damage ----------------------------------------------------------------------------------------------------------------

COUNT = 6


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """An overflow with COUNT records in one segment, as a crash leaves it."""
    at_once: Any = AtOnce()
    overflow = Overflow.create(
        str(tmp_path_factory.mktemp("pristine")), cluster="lab", series=SERIES, reactor=at_once, pool=at_once
    )
    for n in range(COUNT):
        result(overflow.append(path(n), [body(n, 40)], n))
    result(overflow.close())
    directory = Path(overflow.directory)
    return directory, {each.name: each.read_bytes() for each in directory.iterdir()}


def recovered(files: dict[str, bytes], directory: Path) -> tuple[dict[str, bytes], int, int]:
    """Return what is handed out of *files* in *directory*, how many failed, and the unreadable bytes."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    at_once: Any = AtOnce()
    overflow = result(Overflow.reopen(str(directory), reactor=at_once, pool=at_once))
    found, failed, was_pending = {}, 0, overflow.pending
    for _ in range(was_pending + 1):
        try:
            taken = result(overflow.next())
        except OverflowUnusable:
            failed += 1
            continue
        if taken is not None:
            found[taken[1].name] = bytes(taken[2])
    assert was_pending - failed == len(found) == overflow.pending
    result(overflow.close())
    return found, failed, overflow.unreadable


SEGMENT = "00000001.segment"
DAMAGE = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ends(raw: bytes) -> list[int]:
    """Where each record ends, from how long they are."""
    each = (len(raw) - 17) // COUNT
    assert 17 + COUNT * each == len(raw)
    return [17 + each * (n + 1) for n in range(COUNT)]


@DAMAGE
@given(data=st.data())
def test_a_segment_cut_anywhere_gives_every_record_before_and_invents_none(
    pristine: tuple[Path, dict[str, bytes]], data: st.DataObject
) -> None:
    directory, files = pristine
    at = data.draw(st.integers(0, len(files[SEGMENT])))
    whole = sum(end <= at for end in ends(files[SEGMENT]))
    found, failed, unreadable = recovered({**files, SEGMENT: files[SEGMENT][:at]}, directory)
    assert (found, failed, unreadable) == (frames(range(whole), 40), 0, 0)


@DAMAGE
@given(data=st.data())
def test_a_flipped_byte_anywhere_costs_none_before_and_invents_none(
    pristine: tuple[Path, dict[str, bytes]], data: st.DataObject
) -> None:
    directory, files = pristine
    raw = bytearray(files[SEGMENT])
    at = data.draw(st.integers(17, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    hit = sum(end <= at for end in ends(files[SEGMENT]))
    found, failed, unreadable = recovered({**files, SEGMENT: bytes(raw)}, directory)
    intact = frames(range(COUNT), 40)
    assert {**frames(range(hit), 40)}.items() <= found.items() <= intact.items()
    assert path(hit).name not in found
    if failed:  # in a body: it is lost alone
        assert (len(found), failed, unreadable) == (COUNT - 1, 1, 0)
    else:
        assert unreadable > 0


def test_a_tail_of_zeros_is_no_record(pristine: tuple[Path, dict[str, bytes]]) -> None:
    """What some file systems leave behind a power failure."""
    directory, files = pristine
    found, failed, unreadable = recovered({**files, SEGMENT: files[SEGMENT] + bytes(9000)}, directory)
    assert (found, failed, unreadable) == (frames(range(COUNT), 40), 0, 9000)


@pytest_twisted.ensureDeferred
async def test_a_segment_that_is_damaged_from_the_start_hides_none_of_the_others(tmp_path: Path) -> None:
    overflow = create(tmp_path, segment_bytes_max=SMALL)
    await append(overflow, range(12))
    await overflow.close()
    with (Path(overflow.directory) / "00000002.segment").open("r+b") as file:
        file.write(b"\xff" * 200)
    again = await reopen(overflow.directory)
    assert again.unreadable > 4000
    found = await drain(again)
    assert found == frames([0, 1, 2, 3, 8, 9, 10, 11])
    await again.close()
    assert inside(overflow.directory, ".segment") == ["00000002.segment"]


@pytest_twisted.ensureDeferred
async def test_what_is_damaged_is_named_and_stays(tmp_path: Path) -> None:
    overflow = create(tmp_path)
    await append(overflow, [0, 1])
    await overflow.close()
    segment = Path(overflow.directory) / SEGMENT
    raw = bytearray(segment.read_bytes())
    raw[-1] ^= 1
    segment.write_bytes(raw)
    again = await reopen(overflow.directory)
    taken = await again.next()
    assert taken is not None
    again.delivered(taken[0])
    with pytest.raises(OverflowUnusable, match=r"/2026/run1.pcs/frame00001.pzf is damaged"):
        await again.next()
    assert await again.next() is None
    assert again.pending == 0
    await again.close()
    assert segment.exists()


# -- SIGKILL ---------------------------------------------------------------------------------------------------------------

APPENDER = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from granum.streaming.overflow import Overflow
from granum.wire.paths import ClusterPath
overflow = Overflow.create(sys.argv[1], cluster="lab", series=ClusterPath.parse("/s"), reactor=reactor,
    pool=reactor.getThreadPool(), sync=sys.argv[2], segment_bytes_max=1 << 20, reserve_bytes=0)
async def run():
    n = 0
    while True:
        await overflow.append(ClusterPath.parse(f"/s/{n}"), [bytes([n % 256]) * 20000], n)
        print(n, flush=True)
        n += 1
reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()))
reactor.run()
"""


def killed(top: Path, sync: str) -> int:
    """Let a process append until it has said so often enough, kill it, and return the last append that was over."""
    with subprocess.Popen([sys.executable, "-c", APPENDER, str(top), sync], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 150:
                process.kill()
                break
        return int([line, *process.stdout.read().split(b"\n")[:-1]][-1])


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("sync", ["window", "each"])
async def test_sigkill_loses_nothing_that_was_appended(tmp_path: Path, sync: str) -> None:
    """The kernel has every write that was over; what a sync adds is for power failures."""
    last = killed(tmp_path, sync)
    (found,) = map(leftover, directories(str(tmp_path)))
    assert not found.held
    overflow = await reopen(found.directory)
    for n in range(last + 1):
        taken = await overflow.next()
        assert taken is not None
        assert (taken[1].name, taken[3], bytes(taken[2])) == (str(n), n, body(n, 20_000))
        overflow.delivered(taken[0])
    while (taken := await overflow.next()) is not None:  # at most the one that was being written
        overflow.delivered(taken[0])
    assert overflow.unreadable == 0
    await overflow.close()
    assert inside(tmp_path) == []
