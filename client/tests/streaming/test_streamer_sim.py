"""The streamer on simulated nodes: whatever breaks, each put ends once, and no frame is lost or differs from its copy."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from granum.placement import Ledger, by_hash
from granum.roster import Node
from granum.streaming.streamer import Streamer
from granum.testing.simulated import SimNode, endpoint_to
from granum.wire.errors import NodeBusy, NotReceipted
from granum.wire.paths import ClusterPath


class Sim:
    """A streamer to *n* simulated nodes 'a', 'b', ..., and what its puts came to."""

    def __init__(self, n: int, **options: Any) -> None:
        self.clock = Clock()
        self.nodes = {key: SimNode(self.clock, key) for key in "abcdef"[:n]}
        self.roster = set(self.nodes)
        self.streamer = Streamer(
            lambda: [self.nodes[key].node for key in sorted(self.roster)],
            reactor=self.clock,
            ledger=Ledger(),
            endpoint=endpoint_to(self.nodes),
            **options,
        )
        self.bodies: dict[str, bytes] = {}
        self.accepted: dict[str, Node | None] = {}
        self.refused: dict[str, BaseException] = {}

    def put(self, size: int = 10) -> Deferred[Any]:
        name = f"/f{len(self.bodies)}"
        self.bodies[name] = (b"%d " % len(self.bodies) * size)[:size]

        def accepted(node: Node | None) -> None:
            assert name not in self.accepted
            self.accepted[name] = node

        def refused(failure: Any) -> None:
            self.refused[name] = failure.value

        put = self.streamer.put(ClusterPath.parse(name), [self.bodies[name]], len(self.bodies))
        return put.addCallbacks(accepted, refused)

    def run(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass; nodes answer what they get."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            for node in self.nodes.values():
                node.answer()

    def close(self, seconds: float = 60.0) -> list[Any]:
        """Close the streamer within *seconds*; return the summary, or the error."""
        outcome: list[Any] = []
        self.streamer.close().addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
        while not outcome and seconds > 0:
            self.run(0.5)
            seconds -= 0.5
        return outcome

    @property
    def copies(self) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for node in self.nodes.values():
            for name, body in node.files.items():
                found.setdefault(name, []).append(body)
        return found


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_a_frozen_node_never_makes_the_caller_wait_while_another_has_room() -> None:
    sim = Sim(3)
    sim.run(0.5)
    sim.nodes["b"].is_frozen = True
    longest = 0.0
    for _ in range(400):
        put, begun = sim.put(2000), sim.clock.seconds()
        while not put.called:
            sim.run(0.05)
        longest = max(longest, sim.clock.seconds() - begun)
        sim.run(0.05)
    assert longest < 0.2
    (summary,) = sim.close()
    assert summary.puts == 400
    assert {name for name, bodies in sim.copies.items() if bodies == [sim.bodies[name]]} == set(sim.bodies)


def test_a_node_that_is_silent_for_two_seconds_gets_no_more_frames() -> None:
    sim = Sim(2)
    for _ in range(4):
        sim.put()
    sim.run(0.2)
    sim.nodes["a"].is_frozen = True
    for _ in range(4):
        sim.put()
    sim.run(2.1)
    sim.accepted.clear()
    for _ in range(4):
        sim.put()
        sim.run(0.1)
    assert [node and node.key for node in sim.accepted.values()] == ["b"] * 4


def test_what_never_left_for_a_frozen_node_is_not_counted_as_moved() -> None:
    sim = Sim(2)
    sim.nodes["a"].is_frozen = True
    for _ in range(20):
        sim.put(2000)
    (summary,) = sim.close()
    assert summary.puts == 20
    assert len(summary.moved) == 1  # two fit the buffer of the frozen node but for their heads
    assert {node.key for moved in summary.moved for node in moved.maybe} == {"a"}


# -- nodes that come and go --------------------------------------------------------------------------------------------


def test_a_node_that_appears_joins_a_running_stream() -> None:
    sim = Sim(2)
    sim.roster = {"a"}
    sim.put()
    sim.run(0.1)
    sim.roster = {"a", "b"}
    for _ in range(10):
        sim.run(0.3)
        sim.put()
    sim.run(0.3)
    assert len(sim.nodes["b"].files) >= 4


def test_a_node_that_says_goodbye_leaves_when_it_has_receipted() -> None:
    sim = Sim(2)
    for _ in range(10):
        sim.put()
    sim.roster = {"b"}
    sim.run(1.0)
    sim.accepted.clear()
    for _ in range(5):
        sim.put()
        sim.run(0.3)
    assert {node and node.key for node in sim.accepted.values()} == {"b"}
    assert sim.nodes["a"].wires == []
    assert sim.close()[0].moved == ()


def test_a_node_that_returns_on_another_port_is_found_again() -> None:
    sim = Sim(1)
    sim.put()
    sim.run(0.2)
    sim.put()
    sim.nodes["a"].is_up = False
    sim.nodes["a"].break_off()
    sim.run(3)
    sim.nodes["a"].port, sim.nodes["a"].is_up = 2, True
    sim.run(1.0)
    assert sim.streamer.outstanding == 0
    assert sim.close()[0].puts == 2


# -- memory and room ---------------------------------------------------------------------------------------------------


def test_unreceipted_puts_hold_no_more_than_the_bound() -> None:
    sim = Sim(3, memory_bytes_max=10_000)
    for _ in range(30):
        sim.put(1000)
    sim.clock.advance(0.01)
    assert len(sim.accepted) == 10
    sim.run(0.5)
    assert len(sim.accepted) == 30


def test_what_no_window_takes_is_kept_in_memory_and_refused_beyond_when_the_caller_chose_so() -> None:
    sim = Sim(1, on_full="raise", window_puts_max=2, memory_bytes_max=5_000)
    for _ in range(7):
        sim.put(1000)
        sim.clock.advance(0.01)
    assert [node and node.key for node in sim.accepted.values()] == ["a", "a", None, None, None]
    assert [(name, type(error)) for name, error in sim.refused.items()] == [("/f5", NodeBusy), ("/f6", NodeBusy)]
    assert sim.streamer.outstanding == 5
    sim.run(0.1)
    sim.put(1000)
    assert sim.close()[0].puts == 6
    assert list(sim.nodes["a"].files) == ["/f0", "/f1", "/f2", "/f3", "/f4", "/f7"]
    assert sim.streamer.summary.refused == 2


def test_a_camera_that_cannot_be_slowed_loses_nothing_while_all_nodes_are_away_for_ten_seconds() -> None:
    sim = Sim(2, on_full="raise", window_puts_max=2)
    sim.put()
    sim.run(0.5)
    for node in sim.nodes.values():
        node.is_up = False
    for _ in range(200):
        sim.put()
        sim.run(0.05)
    for node in sim.nodes.values():
        node.is_up = True
    sim.run(15.0)
    assert (len(sim.accepted), sim.streamer.outstanding) == (201, 0)
    assert sim.close()[0].puts == 201


def test_a_put_that_was_kept_and_finds_no_node_until_patience_ends_is_named() -> None:
    sim = Sim(1, on_full="raise", window_puts_max=1, patience=4.0)
    sim.nodes["a"].is_frozen = True
    for _ in range(3):
        sim.put()
    (error,) = sim.close()
    assert isinstance(error, NotReceipted)
    assert sorted(error.paths) == ["/f0", "/f1", "/f2"]


def test_kept_puts_go_to_the_nodes_of_their_placement_in_pieces_of_the_queue() -> None:
    sim = Sim(3, on_full="raise", placement=by_hash, window_puts_max=1)
    for _ in range(300):
        sim.put()
    assert sim.close()[0].puts == 300
    assert sim.streamer.summary.refused == 0


def test_a_put_with_memory_of_its_own_is_accepted_at_once() -> None:
    sim = Sim(1, on_full="raise", window_puts_max=1, memory_bytes_max=40)
    for number in range(3):
        assert sim.streamer.has_memory(10)
        sim.streamer.take(ClusterPath.parse(f"/t{number}"), [b"0123456789"], number)
    assert sim.streamer.accepted == sim.streamer.outstanding == 3
    assert [sim.streamer.has_memory(size) for size in (10, 11)] == [True, False]
    assert sim.close()[0].puts == 3
    assert not sim.streamer.has_memory(10)


def test_small_puts_are_kept_as_long_as_they_themselves_fit_into_memory() -> None:
    sim = Sim(1, on_full="raise", window_puts_max=1, memory_bytes_max=8 << 20)
    sim.nodes["a"].is_frozen = True
    for _ in range(2200):
        sim.put(10)
    assert (len(sim.refused), sim.streamer.summary.refused) == (2200 - 2048, 2200 - 2048)
    assert not sim.streamer.has_memory(10)


def test_an_on_receipt_that_fails_keeps_no_put_from_its_end() -> None:
    def fails(_: object) -> None:
        raise ZeroDivisionError

    sim = Sim(1, on_receipt=fails)
    sim.put()
    assert sim.close()[0].puts == 1


def test_a_placement_by_hash_waits_for_its_node() -> None:
    sim = Sim(3, placement=by_hash, window_puts_max=1)
    for _ in range(30):
        sim.put()
    assert sim.close()[0].puts == 30
    alone = Sim(3, placement=by_hash)
    for _ in range(30):
        alone.put()
    alone.close()
    assert {k: set(node.files) for k, node in sim.nodes.items()} == {
        k: set(node.files) for k, node in alone.nodes.items()
    }


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [0.0, 0.0005, 0.02, 0.3])
def test_a_cancelled_or_aborted_streamer_leaves_no_call_and_no_connection(moment: float) -> None:
    for verb in ("close", "abort"):
        sim = Sim(3)
        sim.nodes["a"].is_frozen = True
        sim.nodes["b"].is_up = False
        for _ in range(100):
            sim.put(1000)
        sim.clock.advance(moment)
        ending = getattr(sim.streamer, verb)()
        ending.addErrback(lambda _: None)
        if verb == "close":
            ending.cancel()
        for _ in range(20):
            sim.clock.advance(0.001)
        assert sim.clock.getDelayedCalls() == []
        assert [node.wires for node in sim.nodes.values()] == [[], [], []]
        streamer = sim.streamer
        assert streamer.outstanding == 0
        assert streamer.accepted == streamer.summary.puts + len(streamer.failed)


# -- anything, in any order --------------------------------------------------------------------------------------------


class AnyFaults(RuleBasedStateMachine):
    """Puts, breaks, freezes, refusals, restarts, joins; then all is well again, and every put must have ended once."""

    @initialize(n=st.integers(1, 3), spare=st.booleans(), on_full=st.sampled_from(["wait", "raise"]))
    def begin(self, n: int, spare: bool, on_full: str) -> None:
        self.sim = Sim(n + spare, window_puts_max=4, memory_bytes_max=30_000, on_full=on_full)
        if spare:
            self.sim.roster.discard("abcdef"[n])
        self.may_fail = False

    @rule(count=st.integers(1, 8), size=st.sampled_from([0, 10, 3000]))
    def put(self, count: int, size: int) -> None:
        for _ in range(count):
            self.sim.put(size)

    @rule(milliseconds=st.sampled_from([0, 1, 30, 700, 2500, 6000]))
    def wait(self, milliseconds: int) -> None:
        for _ in range(10):
            self.sim.clock.advance(milliseconds / 10_000)

    @rule(key=st.sampled_from("abcd"), most=st.integers(1, 5))
    def answer(self, key: str, most: int) -> None:
        if key in self.sim.nodes:
            self.sim.nodes[key].answer(most)

    @rule(key=st.sampled_from("abcd"), stores=st.integers(0, 3))
    def break_off(self, key: str, stores: int) -> None:
        if key in self.sim.nodes:
            self.sim.nodes[key].break_off(stores=stores)

    @rule(key=st.sampled_from("abcd"))
    def freeze_or_thaw(self, key: str) -> None:
        if key in self.sim.nodes:
            self.sim.nodes[key].is_frozen ^= True

    @rule(key=st.sampled_from("abcd"), status=st.sampled_from([503, 507, 500, None]))
    def refuse(self, key: str, status: int | None) -> None:
        if key in self.sim.nodes:
            self.sim.nodes[key].refusal = status
            self.may_fail = self.may_fail or status in {500, 507}

    @rule(key=st.sampled_from("abcd"), port=st.integers(1, 2))
    def stop_or_start(self, key: str, port: int) -> None:
        node = self.sim.nodes.get(key)
        if node is not None:
            node.is_up ^= True
            if node.is_up:
                node.port = port
            else:
                node.break_off()

    @rule(key=st.sampled_from("abcd"))
    def join_or_leave(self, key: str) -> None:
        if key in self.sim.nodes:
            self.sim.roster ^= {key}

    @precondition(lambda self: hasattr(self, "sim"))
    @invariant()
    def the_account_is_in_order(self) -> None:
        streamer = self.sim.streamer
        assert len(self.sim.accepted) == streamer.accepted
        assert streamer.accepted == streamer.summary.puts + len(streamer.failed) + streamer.outstanding
        assert streamer.outstanding >= 0

    def teardown(self) -> None:
        sim = self.sim
        away = sim.clock.seconds() > 29  # then patience may have ended for some
        for node in sim.nodes.values():
            node.is_up, node.is_frozen, node.refusal = True, False, None
        sim.roster = set(sim.nodes)
        (ended,) = sim.close(100)
        self.the_account_is_in_order()
        streamer = sim.streamer
        assert streamer.outstanding == 0
        assert len(sim.accepted) + len(sim.refused) == len(sim.bodies)
        failed = [str(failed.path) for failed in streamer.failed]
        assert len(failed) == len(set(failed))
        assert isinstance(ended, NotReceipted) == bool(failed)
        assert not failed or self.may_fail or away
        moved = {str(moved.path) for moved in streamer.summary.moved}
        for name in sim.accepted:
            copies = sim.copies.get(name, [])
            assert set(copies) <= {sim.bodies[name]}
            assert copies or name in failed, "lost in silence"
            assert len(copies) < 2 or name in moved or name in failed, "stored twice in silence"
        for name in sim.refused:
            assert name not in sim.copies
        assert sim.clock.getDelayedCalls() == []
        assert all(node.wires == [] for node in sim.nodes.values())


AnyFaults.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestAnyFaults = AnyFaults.TestCase
