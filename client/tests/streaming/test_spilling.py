"""What no window takes goes to the overflow and from there to the nodes, each put once."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock, deferLater

from granum.cluster import Cluster
from granum.placement import Ledger
from granum.streaming.account import Account, Piece, Put
from granum.streaming.series import SeriesWriter
from granum.streaming.spilling import Spill
from granum.streaming.streamer import Streamer
from granum.testing import MemoryCluster
from granum.testing.simulated import SimNode, endpoint_to
from granum.wire.errors import BadConfig, NodeBusy, NotReceipted, OverflowUnusable
from granum.wire.paths import ClusterPath


class MemoryOverflow:
    """An overflow of *records_max* records, in memory; *delay* seconds pass before one is written, or read."""

    def __init__(self, clock: Clock, records_max: int = 1000, delay: float = 0.0) -> None:
        self.clock, self.records_max, self.delay = clock, records_max, delay
        self.records: dict[int, tuple[ClusterPath, bytes, int | None]] = {}
        self.out: set[int] = set()
        self.damaged: set[int] = set()
        self.written = 0

    @property
    def pending(self) -> int:
        return len(self.records) - len(self.damaged)

    def room(self, size: int) -> bool:
        return len(self.records) < self.records_max

    def append(self, path: ClusterPath, pieces: Sequence[Piece], number: int | None) -> Deferred[int]:
        self.written += 1
        self.records[self.written] = (path, b"".join(pieces), number)
        return self._later(self.written)

    def next(self) -> Deferred[Any]:
        for token, record in self.records.items():
            if token in self.out or token in self.damaged:
                continue
            if record[1] == b"damaged":
                self.damaged.add(token)
                return fail(OverflowUnusable("a record is damaged"))
            self.out.add(token)
            return self._later((token, *record))
        return succeed(None)

    def delivered(self, token: int) -> None:
        del self.records[token]
        self.out.discard(token)

    def _later(self, result: Any) -> Deferred[Any]:
        return deferLater(self.clock, self.delay, lambda: result) if self.delay else succeed(result)


class Spilled:
    """A streamer to one simulated node, with windows of two puts and a small overflow."""

    def __init__(self, *, records_max: int = 1000, delay: float = 0.0, **options: Any) -> None:
        self.clock = Clock()
        self.node = SimNode(self.clock, "a")
        self.overflow = MemoryOverflow(self.clock, records_max, delay)
        self.streamer = Streamer(
            [self.node.node],
            reactor=self.clock,
            ledger=Ledger(),
            endpoint=endpoint_to({"a": self.node}),
            window_puts_max=2,
            on_full="overflow",
            overflow=self.overflow,
            **options,
        )
        self.outcomes: dict[int, Any] = {}

    def put(self, n: int, body: bytes | None = None) -> None:
        put = self.streamer.put(ClusterPath.parse(f"/f{n}"), [b"%d" % n if body is None else body], n)
        put.addCallbacks(
            lambda node: self.outcomes.__setitem__(n, node),
            lambda failure: self.outcomes.__setitem__(n, failure.value),
        )
        self.check()

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            self.node.answer()
            self.check()

    def check(self) -> None:
        streamer = self.streamer
        settled = streamer.summary.puts + len(streamer.failed)
        assert streamer.accepted == settled + streamer.outstanding + streamer.overflowed
        assert min(streamer.outstanding, streamer.overflowed) >= 0

    def close(self, seconds: float = 60) -> Any:
        outcome: list[Any] = []
        self.streamer.close().addBoth(outcome.append)
        while not outcome and seconds > 0:
            self.run(0.5)
            seconds -= 0.5
        return getattr(outcome[0], "value", outcome[0])


def test_what_no_window_takes_is_accepted_by_the_overflow_and_delivered() -> None:
    spilled = Spilled()
    spilled.put(0)
    spilled.run(0.1)
    for n in range(1, 20):
        spilled.put(n)
    assert [spilled.outcomes[n] for n in range(3, 20)] == [None] * 17
    assert spilled.streamer.overflowed == 17
    assert spilled.close().puts == 20
    assert spilled.node.files == {f"/f{n}": b"%d" % n for n in range(20)}
    assert spilled.overflow.records == {}


def test_frames_are_taken_in_while_no_node_was_ever_reached() -> None:
    spilled = Spilled()
    spilled.node.is_up = False
    for n in range(10):
        spilled.put(n)
    spilled.run(40)
    assert [spilled.outcomes[n] for n in range(10)] == [None] * 10
    spilled.node.is_up = True
    assert spilled.close().puts == 10


def test_a_close_without_nodes_names_what_is_left_and_leaves_it_in_the_overflow() -> None:
    spilled = Spilled(patience=2.0)
    spilled.node.is_up = False
    for n in range(3):
        spilled.put(n)
    spilled.run(1)
    error = spilled.close()
    assert isinstance(error, NotReceipted)
    assert sorted(error.paths) == ["/f0", "/f1", "/f2"]
    assert len(spilled.overflow.records) == 3


def test_a_full_overflow_makes_the_caller_wait_or_refuses_as_he_chose() -> None:
    for choice in ("wait", "raise"):
        spilled = Spilled(records_max=2, overflow_full=choice)
        spilled.put(0)
        spilled.run(0.1)
        for n in range(1, 6):
            spilled.put(n)
        assert isinstance(spilled.outcomes.get(5), NodeBusy) == (choice == "raise")
        assert spilled.streamer.summary.refused == (1 if choice == "raise" else 0)
        assert spilled.close().puts == (5 if choice == "raise" else 6)


def test_a_damaged_record_is_named_and_the_others_are_delivered() -> None:
    spilled = Spilled()
    spilled.put(0)
    spilled.run(0.1)
    for n in range(1, 9):
        spilled.put(n, b"damaged" if n == 5 else None)
    error = spilled.close()
    assert isinstance(error, NotReceipted)
    assert (error.paths, spilled.streamer.summary.puts) == (["/f5"], 8)


def test_records_of_a_former_run_are_delivered_too() -> None:
    spilled = Spilled()
    spilled.overflow.append(ClusterPath.parse("/old"), [b"old"], None)
    spilled.put(0)
    assert spilled.close().puts == 2
    assert spilled.node.files["/old"] == b"old"


def test_an_overflow_is_wanted_when_and_only_when_it_is_chosen() -> None:
    for options in ({"on_full": "overflow"}, {"overflow": MemoryOverflow(Clock())}):
        with pytest.raises(BadConfig, match="needs an overflow"):
            Streamer([], reactor=Clock(), ledger=Ledger(), **options)  # type: ignore[arg-type]


STEPS = st.lists(st.sampled_from(["put", "put", "put", "run", "tick", "break", "lose", "toggle"]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.sampled_from([0.0, 0.03]), st.sampled_from([3, 1000]))
def test_whatever_breaks_each_put_is_delivered_once_or_named(steps: list[str], delay: float, records_max: int) -> None:
    spilled = Spilled(delay=delay, records_max=records_max)
    node, count = spilled.node, 0
    for step in steps:
        match step:
            case "put":
                spilled.put(count)
                count += 1
            case "run":
                spilled.run(0.3)
            case "tick":
                spilled.clock.advance(0.01)
            case "break" | "lose":
                node.break_off(stores=step == "lose")
            case "toggle":
                node.is_up = not node.is_up
                if not node.is_up:
                    node.break_off()
        spilled.check()
    node.is_up = True
    spilled.close()
    assert len(spilled.outcomes) == count
    accepted = {n for n, outcome in spilled.outcomes.items() if not isinstance(outcome, BaseException)}
    assert spilled.streamer.failed == ()
    assert node.files == {f"/f{n}": b"%d" % n for n in accepted}
    assert spilled.overflow.records == {}
    assert spilled.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_series_overflows_to_the_disk_and_is_whole(tmp_path: Path) -> None:
    memory = MemoryCluster(reactor, 2)
    await memory.start()
    hosts = [f"{fake.address}:{fake.port}" for fake in memory.nodes]
    cluster = Cluster("test", reactor=reactor, sources=(), nodes=hosts, bypass=False)
    cluster.startService()
    try:
        series = await SeriesWriter.create(
            cluster, "run", on_full="overflow", overflow_dir=str(tmp_path), window_puts_max=1
        )
        image = np.arange(12, dtype="u2").reshape(3, 4)
        places = [await series.store_frame(n, image) for n in range(50)]
        assert None in places
        assert (await series.finalise()).puts == 50
        stored = {name for fake in memory.nodes for name in fake.files if "frame" in name}
        assert len(stored) == 50
        assert os.listdir(tmp_path) == []
    finally:
        await cluster.stopService()
        await memory.stop()


class Told:
    """An overflow that writes, and reads, when the test says so."""

    def __init__(self) -> None:
        self.pending = 0
        self.writing: list[Deferred[int]] = []
        self.reading: Deferred[Any] = Deferred()
        self.gone: list[int] = []

    def room(self, size: int) -> bool:
        return True

    def append(self, path: ClusterPath, pieces: Sequence[Piece], number: int | None) -> Deferred[int]:
        self.pending += 1
        self.writing.append(Deferred())
        return self.writing[-1]

    def next(self) -> Deferred[Any]:
        self.reading = Deferred()
        return self.reading

    def delivered(self, token: int) -> None:
        self.pending -= 1
        self.gone.append(token)


class Spilling:
    def __init__(self) -> None:
        self.account, self.overflow = Account(), Told()
        self.came_back: list[Put] = []
        self.spill = Spill(
            self.overflow,
            self.account,
            self.came_back.append,
            lambda: None,
            lambda put, error: self.refused.append(put),
        )
        self.refused: list[Put] = []

    def append(self, name: str) -> Put:
        put = self.account.begin(ClusterPath.parse(name), (b"x",), None, 0.0)
        put.accepted.addErrback(lambda _: None)
        self.spill.append(put)
        return put


def test_a_record_that_was_withdrawn_while_it_was_read_is_nobodys() -> None:
    spilling = Spilling()
    put = spilling.append("/a")
    spilling.spill.take()
    spilling.account.withdraw(put)
    spilling.overflow.writing[0].callback(1)
    spilling.overflow.reading.callback((1, put.path, b"x", None))
    assert (spilling.account.accepted, spilling.came_back, spilling.overflow.gone) == (0, [], [1])
    spilling.append("/b")
    assert spilling.spill.has_more


def test_one_that_was_withdrawn_after_its_record_was_read_hides_no_other() -> None:
    spilling = Spilling()
    put = spilling.append("/a")
    spilling.spill.take()
    spilling.overflow.reading.callback((1, put.path, b"x", None))
    spilling.account.withdraw(put)
    spilling.overflow.writing[0].callback(1)
    assert (spilling.account.accepted, spilling.came_back) == (0, [])
    spilling.append("/b")
    assert spilling.spill.has_more


def test_a_damaged_record_is_named_though_the_last_one_is_never_delivered() -> None:
    spilling = Spilling()
    damaged, whole = spilling.append("/damaged"), spilling.append("/whole")
    for token, writing in enumerate(spilling.overflow.writing):
        writing.callback(token)
    spilling.spill.take()
    spilling.overflow.pending -= 1
    spilling.overflow.reading.errback(OverflowUnusable("a record is damaged"))
    assert spilling.account.failed == []
    spilling.spill.take()
    spilling.overflow.reading.callback((1, whole.path, b"x", None))
    assert [failed.path for failed in spilling.account.failed] == [damaged.path]
    assert spilling.came_back == [whole]


@pytest.mark.parametrize(("overflow_full", "outcome"), [("wait", "delivered"), ("raise", "refused")])
def test_a_put_that_the_overflow_failed_to_take_waits_or_is_refused_as_the_caller_chose(
    overflow_full: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spilled = Spilled(overflow_full=overflow_full)
    monkeypatch.setattr(spilled.overflow, "append", lambda *_: fail(OverflowUnusable("the disk is full")))
    for n in range(3):
        spilled.put(n)
    spilled.run(2)
    spilled.close()
    refused = isinstance(spilled.outcomes[2], OverflowUnusable)
    assert ("refused" if refused else "delivered", spilled.streamer.summary.puts) == (outcome, 2 + (not refused))
    assert spilled.streamer.summary.refused == refused


def test_settling_the_oldest_of_many_puts_looks_at_no_other() -> None:
    """The first key of a dict is behind the gaps of all that were deleted: with a million records that took minutes."""

    class Looked(dict[int, Put]):
        looks = 0

        def __iter__(self) -> Any:
            Looked.looks += 1
            return super().__iter__()

    account = Account()
    account.unsettled = Looked()
    puts = [account.begin(ClusterPath.parse(f"/f{n}"), (b"x",), n, 0.0) for n in range(100)]
    flushed = account.flushed()
    for put in puts:
        assert not flushed.called
        account.accept(put)
        account.fail(put, None, OverflowUnusable("gone"))
    assert (flushed.called, Looked.looks) == (True, 0)
