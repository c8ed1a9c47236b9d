"""The scrub: finds every damaged file and no other, goes on where it was, and rests as long as it should."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from granum.wire.errors import Corrupt
from granum.wire.paths import ClusterPath
from granum_node.storage import scrub as scrubbing
from granum_node.storage.digest import ATTRIBUTE
from granum_node.storage.scrub import Progress, Scrub
from granum_node.storage.store import Store
from granum_node.storage.verify import State, Verdict
from node.tests.storage.test_verify import fill
from node.tests.watching import until

AT_ONCE_S = 0.01  # of a cycle: no rest at all
MONTH_S = 30 * 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    fill(tmp_path, {f"d{number % 3}/f{number}": bytes([number]) * 100 for number in range(12)}, logged=True)
    opened = Store.open(str(tmp_path))
    yield opened
    opened.close()


def spoil(file: Path) -> None:
    file.chmod(0o640)
    file.write_bytes(b"x" * 100)
    file.chmod(0o440)


def one_cycle(store: Store, told: list[Verdict] | None = None) -> Scrub:
    scrub = store.scrub(AT_ONCE_S, ([] if told is None else told).append)
    scrub.start()
    assert until(lambda: scrub.progress.cycles >= 1)
    scrub.stop()
    return scrub


def test_damage_is_found_and_moved_and_nothing_else_is(store: Store, tmp_path: Path) -> None:
    for name in ("d0/f3", "d2/f11"):
        spoil(tmp_path / name)
    told: list[Verdict] = []
    scrub = one_cycle(store, told)
    assert sorted(told, key=lambda each: each.name) == [
        Verdict("d0/f3", State.DAMAGED),
        Verdict("d2/f11", State.DAMAGED),
    ]
    assert sorted(note.path for note in store.quarantine.notes) == ["d0/f3", "d2/f11"]
    assert (scrub.found.damaged, scrub.found.bare, scrub.found.unreadable) == (2, 0, 0)
    with pytest.raises(Corrupt):
        store.quarantine.check(ClusterPath.parse("d0/f3"))


def test_a_lost_attribute_is_told_and_the_file_stays(store: Store, tmp_path: Path) -> None:
    (tmp_path / "d0" / "f3").chmod(0o640)
    os.removexattr(tmp_path / "d0" / "f3", ATTRIBUTE)
    told: list[Verdict] = []
    one_cycle(store, told)
    assert told[0] == Verdict("d0/f3", State.BARE)
    assert (tmp_path / "d0" / "f3").exists()


def test_a_file_that_was_moved_gets_a_record_at_its_new_place(store: Store, tmp_path: Path) -> None:
    (tmp_path / "d0").rename(tmp_path / "moved")
    (tmp_path / "by-hand").write_bytes(b"hello")
    one_cycle(store)
    store.log.write(store.log.take())
    assert len(store.log.read("moved")) == 4
    assert (len(store.log.read("d0")), len(store.log.read(""))) == (0, 0)


def test_damage_that_is_gone_at_a_second_look_was_none(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory and cables make mistakes too."""
    real = scrubbing.examine

    def examine(*arguments: object) -> Iterator[Verdict]:
        for verdict in real(*arguments):  # type: ignore[arg-type]
            yield Verdict(verdict.name, State.DAMAGED, inode=verdict.inode)

    monkeypatch.setattr(scrubbing, "examine", examine)
    assert one_cycle(store).found.damaged == 0
    assert len(store.quarantine) == 0


def test_a_scrub_goes_on_where_it_was(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = scrubbing.examine

    def examine(*arguments: object) -> Iterator[Verdict]:
        for verdict in real(*arguments):  # type: ignore[arg-type]
            seen.append(verdict.name)
            if len(seen) == 6 and first._thread.is_alive():
                first._stopped.set()
                first._read(1)  # as the reading of the next file does
            yield verdict

    monkeypatch.setattr(scrubbing, "examine", examine)
    first = store.scrub(AT_ONCE_S, print)
    first.start()
    first._thread.join()
    first.stop()
    assert first.progress.after == seen[4]
    one_cycle(store)
    assert seen[5] == seen[6]
    assert len(seen) == 13
    assert sorted(set(seen)) == sorted(str(each.relative_to(tmp_path)) for each in tmp_path.glob("d*/*"))


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"after": 1}', '{"afterwards": ""}', '{"after": "a", "cycles": "1"}']
)
def test_a_progress_that_cannot_be_read_means_the_beginning(store: Store, tmp_path: Path, text: str) -> None:
    (tmp_path / ".granum" / "scrub").write_text(text)
    scrub = store.scrub(AT_ONCE_S, print)
    scrub.stop()
    assert scrub.progress == Progress()


@pytest.mark.parametrize(
    ("cycle_s", "used", "busy", "took_s", "rest_s"),
    [
        (100.0, 1_000_000, False, 0.001, 50.0),  # a megabyte of one, at twice the speed that would be enough
        (1.0, 1 << 40, False, 0.01, 0.09),
        (1.0, 1 << 40, True, 0.01, 0.99),
    ],
)
def test_it_rests_for_the_cycle_and_for_those_who_work(
    store: Store, monkeypatch: pytest.MonkeyPatch, cycle_s: float, used: int, busy: bool, took_s: float, rest_s: float
) -> None:
    rests: list[float] = []
    now = 1000.0
    monkeypatch.setattr(scrubbing.time, "monotonic", lambda: now)
    scrub = store.scrub(cycle_s, print)
    monkeypatch.setattr(scrub, "_wait", rests.append)
    scrub._rate = 2 * used / cycle_s
    scrub.busy = busy
    now += took_s
    scrub._rest(1_000_000)
    assert rests == [pytest.approx(rest_s)]
    scrub.stop()


def test_it_ends_at_once_although_it_rests_for_days(store: Store) -> None:
    scrub = store.scrub(MONTH_S, print)
    scrub.start()
    assert until(lambda: scrub.found.files >= 1)
    scrub.stop()
    assert not scrub._thread.is_alive()
    assert threading.active_count() >= 1


def test_damage_that_the_disk_takes_no_note_of_is_told_and_what_is_behind_it_is_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the same file would be read for ever, and nobody would know."""
    spoil(tmp_path / "d0" / "f3")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(store.quarantine, "_write", full)
    told: list[Verdict] = []
    assert one_cycle(store, told).found.files == 12
    assert told == [Verdict("d0/f3", State.DAMAGED)]
    assert (tmp_path / "d0" / "f3").exists()
