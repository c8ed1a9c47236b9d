"""The keeper: a record is written only once its file is on the disk."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from granum.wire.digest import Digest
from granum.wire.errors import NodeBusy
from granum.wire.paths import ClusterPath
from granum_node.storage.digestlog import DigestLog
from granum_node.storage.keeper import Keeper
from granum_node.storage.publish import Relaxed
from granum_node.storage.store import Store
from node.tests.watching import until

ONE = Digest("xxh3-128", "1" * 32)
HOUR = 3600.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DigestLog]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield DigestLog(fd)
    os.close(fd)


def add(log: DigestLog, name: str) -> None:
    log.add(ClusterPath((name,)), ONE, 5)


def test_what_arrives_during_a_sync_waits_for_the_next(log: DigestLog) -> None:
    """It may not be on the disk when that sync is over."""
    seen: list[int] = []

    def sync() -> None:
        seen.append(len(log.read("")))
        add(log, f"late{len(seen)}")

    keeper = Keeper(log, HOUR, sync=sync)
    add(log, "f")
    assert keeper.round()
    assert (seen, "f" in log.read(""), "late1" in log.read("")) == ([0], True, False)


def test_nothing_is_synced_when_nothing_was_stored(log: DigestLog) -> None:
    syncs: list[None] = []
    keeper = Keeper(log, HOUR, sync=lambda: syncs.append(None))
    assert keeper.round()
    assert syncs == []
    log.touched = True
    assert keeper.round()
    assert syncs == [None]


def test_after_a_sync_that_failed_nothing_is_recorded_any_more(log: DigestLog) -> None:
    told: list[OSError] = []
    syncs: list[None] = []

    def sync() -> None:
        syncs.append(None)
        raise OSError(errno.EIO, "Input/output error")

    keeper = Keeper(log, HOUR, sync=sync, failed=told.append)
    for name in ("f", "g"):
        add(log, name)
        assert not keeper.round()
    assert not keeper.finish()
    assert (len(syncs), [error.errno for error in told], len(log.read(""))) == (1, [errno.EIO], 0)


def test_a_publisher_that_was_told_of_a_failed_sync_takes_nothing_more(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    relaxed = Relaxed(store.tree)
    relaxed.fail(OSError(errno.EIO, "Input/output error"))
    told: list[Exception | None] = []
    relaxed.publish(store.spool(), ClusterPath(("f",)), told.append)
    store.close()
    assert [type(each) for each in told] == [NodeBusy]
    assert (type(relaxed.failure), (tmp_path / "f").exists()) == (NodeBusy, False)


def test_the_end_writes_what_is_left_and_syncs_it(log: DigestLog) -> None:
    syncs: list[int] = []
    keeper = Keeper(log, HOUR, sync=lambda: syncs.append(len(log.read(""))))
    keeper.start()
    add(log, "f")
    assert keeper.finish()
    assert syncs == [0, 1]


def test_rounds_come_by_themselves_and_early_when_much_has_come(log: DigestLog) -> None:
    keeper = Keeper(log, 0.01)
    keeper.start()
    add(log, "f")
    assert until(lambda: "f" in log.read(""))
    keeper.finish()
    slow = Keeper(log, HOUR)
    slow.start()
    add(log, "g")
    log.wake()
    assert until(lambda: "g" in log.read(""))
    slow.finish()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_keeper_that_ends_by_a_defect_says_so(log: DigestLog) -> None:
    told: list[OSError] = []

    def sync() -> None:
        raise RuntimeError

    keeper = Keeper(log, 0.01, sync=sync, failed=told.append)
    add(log, "f")
    keeper.start()
    assert until(lambda: bool(told))
    assert not keeper.finish()
