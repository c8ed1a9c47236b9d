"""Publishing: what is on the disk before a receipt, and what happens when the disk fails."""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from granum.wire.errors import AlreadyStored, NodeBusy, NodeError, NoSpace, NotADirectory
from granum.wire.paths import ClusterPath
from granum_node.storage.commit import Commit
from granum_node.storage.publish import Relaxed
from granum_node.storage.store import Store
from node.tests.watching import until

WAIT_S = 20.0
Outcome = Exception | None


class Bench:
    """A store with a publisher that commits; outcomes are told at once, on the thread that has them."""

    def __init__(self, root: Path) -> None:
        self.store = Store.open(str(root))
        self.commit = Commit(self.store.tree, lambda call: call())
        self._threads: list[threading.Thread] = []
        self.commit.start(self._in_thread)

    def _in_thread(self, work: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()

    def close(self) -> None:
        self.commit.close()
        for thread in self._threads:
            thread.join(WAIT_S)
        self.store.close()

    def put(self, *names: str, body: bytes = b"hello") -> list[Outcome]:
        """Put *names* at once and return the outcomes in their order."""
        outcomes: dict[str, Outcome] = {}
        told = threading.Semaphore(0)

        def done(name: str, error: Outcome) -> None:
            outcomes[name] = error
            told.release()

        for name in names:
            if name.endswith("/"):
                self.commit.make_directory(ClusterPath.parse(name), lambda error, name=name: done(name, error))
                continue
            file = self.store.spool()
            file.write(body)
            self.commit.publish(file, ClusterPath.parse(name), lambda error, name=name: done(name, error))
        for _ in names:
            assert told.acquire(timeout=WAIT_S), "a put was never answered"
        return [outcomes[name] for name in names]

    def put_in_order(self, name: str, *bodies: bytes) -> list[Outcome]:
        """Put *bodies* under one name, one behind the other without waiting; return the outcomes in this order."""
        outcomes: list[Outcome] = [None] * len(bodies)
        told = threading.Semaphore(0)

        def done(index: int, error: Outcome) -> None:
            outcomes[index] = error
            told.release()

        for index, body in enumerate(bodies):
            file = self.store.spool()
            file.write(body)
            self.commit.publish(file, ClusterPath.parse(name), partial(done, index))
        for _ in bodies:
            assert told.acquire(timeout=WAIT_S), "a put was never answered"
        return outcomes


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def path_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The calls that decide about durability, in their order; directories by their path in the store."""
    made: list[str] = []
    real_sync, real_link, real_fsync = os.fdatasync, os.link, os.fsync

    def fdatasync(fd: int) -> None:
        made.append("sync file")
        real_sync(fd)

    def link(*arguments: object, **options: object) -> None:
        made.append(f"link {arguments[1]}")
        real_link(*arguments, **options)  # type: ignore[arg-type]

    def fsync(fd: int) -> None:
        made.append(f"sync {os.path.relpath(path_of(fd), tmp_path)}")
        real_fsync(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "fsync", fsync)
    return made


def test_the_file_is_synced_before_it_has_a_name_and_the_directory_before_the_receipt(
    bench: Bench, calls: list[str]
) -> None:
    assert bench.put("f") == [None]
    assert calls == ["sync file", "link f", "sync ."]


def test_every_new_parent_is_synced_once_from_the_top(bench: Bench, calls: list[str]) -> None:
    bench.put("a/b/f")
    assert calls == ["sync file", "sync .", "sync a", "link f", "sync a/b"]
    calls.clear()
    bench.put("a/b/g")
    assert calls == ["sync file", "link g", "sync a/b"]


def test_a_directory_made_by_somebody_else_is_synced_too(bench: Bench, calls: list[str], tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    bench.put("x/f")
    assert calls == ["sync file", "sync .", "link f", "sync x"]


def test_a_made_directory_is_durable_when_it_is_told(bench: Bench, calls: list[str], tmp_path: Path) -> None:
    assert bench.put("a/b/") == [None]
    assert (tmp_path / "a/b").is_dir()
    assert calls == ["sync .", "sync a"]


def test_many_puts_into_one_directory_share_its_syncs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("d/first")
    syncs = 0
    real = os.fsync

    def slow(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        threading.Event().wait(0.05)
        real(fd)

    monkeypatch.setattr(os, "fsync", slow)
    names = [f"d/{number}" for number in range(64)]
    assert bench.put(*names) == [None] * 64
    assert syncs < 32


def test_of_many_puts_of_one_name_one_wins(bench: Bench, tmp_path: Path) -> None:
    told: list[Outcome] = []
    all_told = threading.Event()

    def done(error: Outcome) -> None:
        told.append(error)
        if len(told) == 64:
            all_told.set()

    for number in range(64):
        file = bench.store.spool()
        file.write(b"%d" % number)
        bench.commit.publish(file, ClusterPath.parse("one"), done)
    assert all_told.wait(WAIT_S)
    assert [type(error) for error in told if error is not None] == [AlreadyStored] * 63
    assert int((tmp_path / "one").read_bytes()) in range(64)


def test_the_first_of_two_puts_of_one_name_wins_though_its_sync_takes_longer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On one connection the second is answered after the first, so the first must have the name."""
    real = os.fdatasync
    first = threading.Event()

    def slow_once(fd: int) -> None:
        if not first.is_set():
            first.set()
            threading.Event().wait(0.2)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", slow_once)
    won, lost = bench.put_in_order("f", b"first", b"second")
    assert won is None
    assert isinstance(lost, AlreadyStored)
    assert (tmp_path / "f").read_bytes() == b"first"


def test_a_put_below_a_file_is_refused_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.put("f")
    [error] = bench.put("f/below")
    assert isinstance(error, NotADirectory)
    assert bench.commit.failure is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [".granum", "f"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_a_failed_sync_of_the_file_ends_writing_for_good(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    syncs = 0

    def fail(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        [error] = bench.put("f")
    assert isinstance(error, NodeBusy)
    assert not (tmp_path / "f").exists()
    [error, made] = bench.put("g", "d/")
    assert isinstance(error, NodeBusy)
    assert isinstance(made, NodeBusy)
    assert syncs == 1, "a failed sync was tried again"
    assert bench.commit.failure is error
    assert [path.name for path in tmp_path.iterdir()] == [".granum"]


def test_a_failed_sync_of_the_directory_is_no_receipt_and_no_refusal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("d/first")

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        [error] = bench.put("d/f")
    assert type(error) is NodeError
    assert "may or may not be stored" in str(error)
    assert isinstance(bench.put("d/g")[0], NodeBusy)


def test_a_disk_that_is_full_at_the_sync_refuses_this_put_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        [error] = bench.put("f")
    assert isinstance(error, NoSpace)
    assert bench.put("f") == [None]


def test_no_descriptor_is_left_open_whatever_becomes_of_a_put(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("d/first")
    before = len(os.listdir("/proc/self/fd"))
    bench.put("d/first", "d/second", "d/first/below", "e/", "d/")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "")))
        bench.put("d/third", "d/fourth")
    # The outcome is told before the thread has let go of the directory.
    assert until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert bench.commit.pending == 0


def test_relaxed_publishes_at_once_and_syncs_nothing(tmp_path: Path, calls: list[str]) -> None:
    store = Store.open(str(tmp_path))
    calls.clear()
    relaxed = Relaxed(store.tree)
    told: list[Outcome] = []
    file = store.spool()
    file.write(b"x")
    relaxed.publish(file, ClusterPath.parse("a/f"), told.append)
    relaxed.make_directory(ClusterPath.parse("a/d"), told.append)
    relaxed.make_directory(ClusterPath.parse("a/d"), told.append)
    assert told[:2] == [None, None]
    assert isinstance(told[2], AlreadyStored)
    assert calls == ["link f"]
    store.close()


def test_a_stored_file_is_confirmed_only_when_it_and_its_directories_are_on_the_disk(
    bench: Bench, calls: list[str], tmp_path: Path
) -> None:
    """It may be that of a put whose own receipt still waits for the disk."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_bytes(b"hello")
    told = threading.Event()
    outcomes: list[Outcome] = []
    for _ in range(2):
        told.clear()
        bench.commit.confirm(ClusterPath.parse("a/f"), lambda error: (outcomes.append(error), told.set()))  # type: ignore[func-returns-value]
        assert told.wait(WAIT_S)
    assert (outcomes, bench.commit.pending) == ([None, None], 0)
    assert calls == ["sync file", "sync .", "sync a", "sync file", "sync a"]


def test_a_disk_that_fails_while_a_stored_file_is_confirmed_is_no_receipt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("f")

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    told = threading.Event()
    outcomes: list[Outcome] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        bench.commit.confirm(ClusterPath.parse("f"), lambda error: (outcomes.append(error), told.set()))  # type: ignore[func-returns-value]
        assert told.wait(WAIT_S)
    assert [type(error) for error in outcomes] == [NodeBusy]
    assert isinstance(bench.commit.failure, NodeBusy)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_has_no_room_for_a_digest_refuses_this_put_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "setxattr", full)
        [error] = bench.put("f")
    assert isinstance(error, NoSpace)
    assert not (tmp_path / "f").exists()
    assert bench.put("f") == [None]


def test_the_digest_is_beside_the_file_before_the_file_is_synced(
    bench: Bench, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.setxattr

    def setxattr(*arguments: object) -> None:
        calls.append("digest")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "setxattr", setxattr)
    bench.put("f")
    assert calls == ["digest", "sync file", "link f", "sync ."]


def test_a_directory_made_anew_is_made_durable_anew(bench: Bench, calls: list[str], tmp_path: Path) -> None:
    """Another one may get the inode of one that was removed, and its own name is on no disk."""
    assert bench.put("d/f") == [None]
    inode = (tmp_path / "d").stat().st_ino
    shutil.rmtree(tmp_path / "d")
    calls.clear()
    assert bench.put("d/f") == [None]
    if (tmp_path / "d").stat().st_ino != inode:
        pytest.skip("the file system gave the new directory another inode")
    assert "sync ." in calls
