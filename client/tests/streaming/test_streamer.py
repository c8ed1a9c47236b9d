"""The streamer spreads puts, makes callers wait, and accounts for every put whatever the nodes do."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater

from granum.placement import Ledger
from granum.roster import Node
from granum.streaming.streamer import Streamer
from granum.testing import FakeNode, MemoryCluster
from granum.wire.errors import Closed, GranumError, NodeBusy, NotReceipted, OnSomeNodes
from granum.wire.paths import ClusterPath


def node_at(fake: FakeNode) -> Node:
    return Node(fake.node_id, f"{fake.computer}:{fake.port}", fake.address, fake.port, fake.cluster, fake.node_id)


def streamer_to(*fakes: FakeNode, **options: Any) -> Streamer:
    return Streamer([node_at(fake) for fake in fakes], reactor=reactor, ledger=Ledger(), **options)


def path(n: object) -> ClusterPath:
    return ClusterPath.parse(f"/run/{n}")


def on_cluster(n: int) -> Callable[[Callable[..., Any]], Callable[[], Any]]:
    """Run a test with the *n* nodes of a cluster, which are stopped behind it."""

    def decorate(test: Callable[..., Any]) -> Callable[[], Any]:
        @pytest_twisted.ensureDeferred
        async def run() -> None:
            cluster = MemoryCluster(reactor, n)
            await cluster.start()
            try:
                await test(*cluster.nodes)
            finally:
                await cluster.stop()

        run.__name__ = run.__qualname__ = test.__name__
        return run

    return decorate


# -- when all goes well ------------------------------------------------------------------------------------------------


@on_cluster(3)
async def test_puts_are_spread_over_the_nodes_in_turn(*fakes: FakeNode) -> None:
    streamer = streamer_to(*fakes)
    for n in range(9):
        await streamer.put(path(n), [b"frame", b" %d" % n], n)
    summary = await streamer.close()
    assert (summary.puts, summary.bytes, summary.durability) == (9, 63, {"relaxed"})
    assert summary.per_node == {f"fake{k}:{fake.port}": 3 for k, fake in enumerate(fakes)}
    stored = {name: body for fake in fakes for name, body in fake.files.items()}
    assert stored == {f"/run/{n}": b"frame %d" % n for n in range(9)}


@on_cluster(2)
async def test_the_placement_of_the_caller_is_asked_with_the_number(one: FakeNode, two: FakeNode) -> None:
    streamer = streamer_to(one, two, placement=lambda number, nodes, ledger: nodes[0 if number is None else 1])
    assert await streamer.put(path("a"), [b""]) == node_at(one)
    assert await streamer.put(path("b"), [b""], 7) == node_at(two)
    await streamer.close()


@on_cluster(1)
async def test_a_full_window_makes_the_caller_wait_for_a_receipt(fake: FakeNode) -> None:
    streamer = streamer_to(fake, window_puts_max=2)
    await streamer.put(path(0), [b"0"])
    await streamer.put(path(1), [b"1"])
    third = streamer.put(path(2), [b"2"])
    assert not third.called
    assert (streamer.accepted, streamer.outstanding) == (2, 2)
    await third
    await streamer.close()
    assert list(fake.files) == ["/run/0", "/run/1", "/run/2"]


@on_cluster(1)
async def test_puts_that_wait_keep_their_order(fake: FakeNode) -> None:
    streamer = streamer_to(fake, window_puts_max=1)
    await DeferredList([streamer.put(path(n), [b""]) for n in range(20)], fireOnOneErrback=True)
    await streamer.close()
    assert list(fake.files) == [f"/run/{n}" for n in range(20)]


@on_cluster(1)
async def test_flush_fires_when_everything_so_far_is_stored_and_the_streamer_goes_on(fake: FakeNode) -> None:
    streamer = streamer_to(fake)
    for n in range(5):
        streamer.put(path(n), [b"x" * 1000])
    await streamer.flush()
    assert len(fake.files) == 5
    await streamer.put(path(5), [b""])
    assert (await streamer.close()).puts == 6


@on_cluster(1)
async def test_an_unused_node_is_not_connected_to(fake: FakeNode) -> None:
    summary = await streamer_to(fake).close()
    assert (summary.puts, summary.durability, fake.requests) == (0, frozenset(), [])


@on_cluster(1)
async def test_a_connection_closed_while_idle_is_opened_again(fake: FakeNode) -> None:
    streamer = streamer_to(fake)
    await streamer.put(path(0), [b""])
    await streamer.flush()
    await fake.stop()
    await fake.start()
    for _ in range(3):  # turns of the reactor, in which the client sees the end of the connection
        await deferLater(reactor, 0, lambda: None)
    await streamer.put(path(1), [b""])
    assert (await streamer.close()).puts == 2


# -- refused before it is accepted -------------------------------------------------------------------------------------


@on_cluster(1)
async def test_more_waiting_puts_than_the_bound_are_refused(fake: FakeNode) -> None:
    streamer = streamer_to(fake, pending_max=3)
    waiting = [streamer.put(path(n), [b""]) for n in range(3)]  # the channel is not open yet
    with pytest.raises(NodeBusy, match="3 puts wait for room already"):
        await streamer.put(path(3), [b""])
    await DeferredList(waiting)
    assert (await streamer.close()).puts == 3


@on_cluster(1)
async def test_a_closed_streamer_takes_no_put(fake: FakeNode) -> None:
    streamer = streamer_to(fake)
    await streamer.close()
    with pytest.raises(Closed):
        await streamer.put(path(0), [b""])


@on_cluster(1)
async def test_a_put_that_waits_can_be_withdrawn_and_is_never_sent(fake: FakeNode) -> None:
    streamer = streamer_to(fake, window_puts_max=1)
    await streamer.put(path(0), [b""])
    second = streamer.put(path(1), [b""])
    second.cancel()
    with pytest.raises(CancelledError):
        await second
    assert (await streamer.close()).puts == 1
    assert list(fake.files) == ["/run/0"]


@on_cluster(1)
async def test_when_no_node_answers_the_put_fails_with_the_cause_of_each(fake: FakeNode) -> None:
    await fake.stop()
    streamer = streamer_to(fake)
    with pytest.raises(OnSomeNodes, match=rf"no node takes puts at the moment; fake0:{fake.port}: .*refused"):
        await streamer.put(path(0), [b""])
    assert (await streamer.close()).puts == 0


@on_cluster(2)
async def test_puts_that_wait_for_a_node_that_is_down_go_to_another(one: FakeNode, two: FakeNode) -> None:
    await one.stop()
    streamer = streamer_to(one, two)
    chosen = [await streamer.put(path(n), [b""]) for n in range(6)]
    assert {node.key for node in chosen} == {two.node_id}
    assert (await streamer.close()).puts == 6


@on_cluster(1)
async def test_a_placement_that_fails_is_told_to_the_caller(fake: FakeNode) -> None:
    streamer = streamer_to(fake, placement=lambda number, nodes, ledger: nodes[5])
    with pytest.raises(GranumError, match="the placement chose no node"):
        await streamer.put(path(0), [b""])
    await streamer.close()


# -- failed after it was accepted --------------------------------------------------------------------------------------


@on_cluster(1)
async def test_close_names_the_puts_that_have_no_receipt_and_the_cause(fake: FakeNode) -> None:
    fake.files["/run/1"] = b"taken"
    streamer = streamer_to(fake)
    for n in range(3):
        await streamer.put(path(n), [b""])
    with pytest.raises(
        NotReceipted, match=r"1 of 3 puts have no receipt: /run/1; fake0:.* is already stored"
    ) as caught:
        await streamer.close()
    assert caught.value.paths == ["/run/1"]
    assert streamer.summary.puts == 2


@on_cluster(1)
async def test_a_failure_is_told_again_at_every_flush_and_at_the_close(fake: FakeNode) -> None:
    fake.fail_next(507)
    streamer = streamer_to(fake)
    await streamer.put(path(0), [b""])
    for verb in (streamer.flush, streamer.flush, streamer.close):
        with pytest.raises(NotReceipted):
            await verb()


@on_cluster(1)
async def test_the_only_node_that_stays_away_longer_than_patience_gives_back_its_puts(fake: FakeNode) -> None:
    fake.fail_next("silent")
    streamer = streamer_to(fake, patience=0.3)
    for n in range(5):
        await streamer.put(path(n), [b""])
    fake.die()
    with pytest.raises(NotReceipted) as caught:
        await streamer.flush()
    assert sorted(caught.value.paths) == [f"/run/{n}" for n in range(5)]
    assert [failed.node and failed.node.key for failed in streamer.failed] == [fake.node_id] * 5
    await streamer.abort()


@on_cluster(2)
async def test_what_a_dead_node_had_goes_to_another_and_is_named_if_it_may_be_stored_twice(
    one: FakeNode, two: FakeNode
) -> None:
    one.fail_next("silent")
    streamer = streamer_to(one, two)
    for n in range(10):
        await streamer.put(path(n), [b"%d" % n])
    while not one.requests:
        await deferLater(reactor, 0.01, lambda: None)
    one.die()
    summary = await streamer.close()
    assert summary.puts == 10
    assert {name: two.files[name] for name in two.files} == {f"/run/{n}": b"%d" % n for n in range(10)}
    assert {moved.node.key for moved in summary.moved} == {two.node_id}
    assert {moved.maybe for moved in summary.moved} == {(node_at(one),)}
    assert {str(path) for path in summary.doubled} == {str(moved.path) for moved in summary.moved} != set()


@on_cluster(2)
async def test_a_put_whose_receipt_was_lost_goes_to_the_same_node_again_and_is_stored_once(
    one: FakeNode, two: FakeNode
) -> None:
    for fake in (one, two):
        fake.fail_next("cut")  # stored, and then the connection breaks
    streamer = streamer_to(one, two)
    for n in range(6):
        await streamer.put(path(n), [b"%d" % n])
    summary = await streamer.close()
    assert (summary.puts, summary.moved) == (6, ())
    assert sorted([*one.files, *two.files]) == [f"/run/{n}" for n in range(6)]


@on_cluster(1)
async def test_a_node_without_digests_is_asked_what_it_has_stored(fake: FakeNode) -> None:
    streamer = streamer_to(fake)
    fake.fail_next("cut")
    fake.fail_next(405)  # as a PYME node answers the same bytes again
    await streamer.put(path(0), [b"frame"])
    summary = await streamer.close()
    assert (summary.puts, summary.durability) == (1, {""})
    assert ("GET", "/run/0") in fake.requests


@on_cluster(1)
async def test_other_bytes_under_the_name_are_never_taken_for_the_put(fake: FakeNode) -> None:
    streamer = streamer_to(fake)
    fake.fail_next("drop")
    await streamer.put(path(0), [b"frame"])
    fake.files["/run/0"] = b"FRAME"
    with pytest.raises(NotReceipted, match=r"/run/0; fake0:.*already stored"):
        await streamer.close()
    assert fake.files == {"/run/0": b"FRAME"}


@on_cluster(2)
async def test_a_put_that_one_node_has_no_room_for_goes_to_another(one: FakeNode, two: FakeNode) -> None:
    one.fail_next(507, count=100)
    streamer = streamer_to(one, two)
    for n in range(6):
        await streamer.put(path(n), [b""])
    assert (await streamer.close()).puts == 6
    assert len(two.files) == 6


@on_cluster(1)
async def test_the_only_node_is_tried_again_when_it_broke_off(fake: FakeNode) -> None:
    fake.fail_next("drop")
    streamer = streamer_to(fake)
    await streamer.put(path(0), [b""])
    await streamer.flush()
    await streamer.put(path(1), [b""])
    assert (await streamer.close()).puts == 2
    assert sorted(fake.files) == ["/run/0", "/run/1"]


@on_cluster(1)
async def test_a_busy_node_is_tried_again(fake: FakeNode) -> None:
    fake.fail_next(503)
    streamer = streamer_to(fake)
    await streamer.put(path(0), [b""])
    assert (await streamer.close()).puts == 1


@on_cluster(1)
async def test_a_node_that_is_away_for_less_than_patience_loses_nothing(fake: FakeNode) -> None:
    fake.fail_next("silent")
    streamer = streamer_to(fake)
    for n in range(4):
        await streamer.put(path(n), [b"%d" % n])
    while not fake.requests:
        await deferLater(reactor, 0.01, lambda: None)
    await fake.stop()
    reactor.callLater(0.6, fake.start)  # type: ignore[attr-defined]
    waiting = streamer.put(path(4), [b"4"])
    assert (await streamer.close()).puts == 5
    await waiting
    assert fake.files == {f"/run/{n}": b"%d" % n for n in range(5)}


@on_cluster(1)
async def test_too_many_failures_stop_the_stream(fake: FakeNode) -> None:
    fake.fail_next(507, count=2)
    streamer = streamer_to(fake)
    await streamer.put(path(0), [b""])
    await streamer.put(path(1), [b""])
    await DeferredList([streamer.flush()], consumeErrors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("granum.streaming.streamer.FAILED_MAX", 2)
        with pytest.raises(NotReceipted, match="2 of 2 puts"):
            await streamer.put(path(2), [b""])
    await streamer.abort()


@on_cluster(1)
async def test_abort_returns_at_once_and_counts_what_was_on_its_way_as_failed(fake: FakeNode) -> None:
    fake.fail_next("silent")
    streamer = streamer_to(fake, window_puts_max=1)
    await streamer.put(path(0), [b""])
    waiting = streamer.put(path(1), [b""])
    await streamer.abort()
    with pytest.raises(Closed):
        await waiting
    assert [str(failed.path) for failed in streamer.failed] == ["/run/0"]
    assert streamer.outstanding == 0


# -- the account, under faults -----------------------------------------------------------------------------------------

Fault = int | Literal["drop", "silent", "cut", "die", "pause"] | None
FAULTS: st.SearchStrategy[Fault] = st.sampled_from(
    [None, None, None, None, 405, 503, 507, "drop", "cut", "die", "pause"]
)


async def stream(fakes: tuple[FakeNode, ...], faults: list[tuple[int, Fault]]) -> tuple[Streamer, list[str]]:
    """Put one file for each fault, which strikes a node first; return the streamer, closed, and the accepted paths."""
    streamer = streamer_to(*fakes, window_puts_max=3, patience=0.05)
    accepted: list[str] = []

    def note(name: str) -> Callable[[Node | None], None]:
        return lambda _: accepted.append(name)

    puts: list[Deferred[None]] = []
    for n, (victim, fault) in enumerate(faults):
        if fault == "die":
            fakes[victim].die()
        elif fault == "pause":
            await deferLater(reactor, 0, lambda: None)  # type: ignore[arg-type]
        elif fault is not None:
            fakes[victim].fail_next(fault)
        puts.append(streamer.put(path(n), [b"frame %d" % n]).addCallback(note(f"/run/{n}")))
        assert streamer.accepted == streamer.summary.puts + len(streamer.failed) + streamer.outstanding
    try:
        await streamer.close()
    except NotReceipted:
        assert streamer.failed
    refused = await DeferredList(puts, consumeErrors=True)
    assert len(accepted) == sum(succeeded for succeeded, _ in refused) == streamer.accepted
    return streamer, accepted


@settings(max_examples=60, deadline=None)
@given(faults=st.lists(st.tuples(st.integers(0, 1), FAULTS), min_size=1, max_size=40))
@pytest_twisted.ensureDeferred
async def test_whatever_nodes_do_every_accepted_put_is_receipted_or_failed_and_receipts_are_true(
    faults: list[tuple[int, Fault]],
) -> None:
    cluster = MemoryCluster(reactor, 2)
    await cluster.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("granum.streaming.channel.STALL_TIMEOUT_S", 0.05)  # what a silent node costs an example
            patch.setattr("granum.streaming.lanes.RECONNECT_S", 0.01)
            patch.setattr("granum.streaming.lanes.NODE_RETRY_S", 0.02)
            patch.setattr("granum.streaming.dispatch.TICK_S", 0.01)
            streamer, accepted = await stream(tuple(cluster.nodes), faults)
    finally:
        await cluster.stop()
    failed = [str(failed.path) for failed in streamer.failed]
    assert streamer.outstanding == 0
    assert len(accepted) == streamer.summary.puts + len(failed)
    stored = {name: body for fake in cluster.nodes for name, body in fake.files.items()}
    receipted = set(accepted) - set(failed)
    assert {name: stored.get(name) for name in receipted} == {
        name: b"frame %s" % name.removeprefix("/run/").encode() for name in receipted
    }


# -- nodes that come back ----------------------------------------------------------------------------------------------


@on_cluster(2)
async def test_a_node_that_froze_comes_back_with_one_put_until_that_is_receipted(one: FakeNode, two: FakeNode) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("granum.streaming.channel.STALL_TIMEOUT_S", 0.1)
        patch.setattr("granum.streaming.lanes.NODE_RETRY_S", 0.0)
        one.fail_next("silent", count=1000)
        streamer = streamer_to(one, two)
        for n in range(2):
            await streamer.put(path(n), [b""], n)
        await streamer.flush()
        seen = len(one.requests)
        for n in range(2, 40):
            await streamer.put(path(n), [b""], n)
        assert (await streamer.close()).puts == 40
        assert len(one.requests) - seen <= 1


@on_cluster(1)
async def test_the_only_node_is_not_refused_while_it_is_tried_again(fake: FakeNode) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("granum.streaming.channel.STALL_TIMEOUT_S", 0.1)
        patch.setattr("granum.streaming.lanes.NODE_RETRY_S", 0.0)
        fake.fail_next("silent")
        streamer = streamer_to(fake)
        await streamer.put(path(0), [b""])
        await streamer.flush()
        for n in range(1, 20):
            await streamer.put(path(n), [b""])
        assert (await streamer.close()).puts == 20


@on_cluster(1)
async def test_a_cancelled_wait_for_the_end_leaves_the_account_in_order(fake: FakeNode) -> None:
    streamer = streamer_to(fake)
    await streamer.put(path(0), [b""])
    await streamer.flush()
    closing = streamer.close()
    closing.cancel()
    with pytest.raises(CancelledError):
        await closing
    for _ in range(3):
        await deferLater(reactor, 0, lambda: None)
    assert [lane.channel for lane in streamer._lanes.values()] == [None]


@on_cluster(1)
async def test_a_put_that_no_node_takes_is_named(fake: FakeNode) -> None:
    await fake.stop()
    streamer = streamer_to(fake)
    with pytest.raises(OnSomeNodes, match=r"^/run/7 was not sent: no node takes puts at the moment"):
        await streamer.put(path(7), [b""])
    await streamer.close()
