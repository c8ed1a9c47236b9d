"""The cluster: one tree over several nodes, honest when one of them is away."""

import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.task import deferLater

from granum import patience
from granum.cluster import Cluster
from granum.discovery import Sink
from granum.placement import by_hash, least_recently_written, pinned
from granum.roster import Node
from granum.testing import FakeNode, MemoryCluster
from granum.transfer import Receipt
from granum.wire.advert import Advertisement
from granum.wire.errors import (
    AlreadyStored,
    BadConfig,
    BadPath,
    BadRequest,
    Closed,
    IsADirectory,
    NodeError,
    NodeUnreachable,
    NoNode,
    NotADirectory,
    NotReceipted,
    NotStored,
    OnSomeNodes,
    Partial,
)
from granum.wire.listing import Flags
from granum.wire.paths import ROOT, ClusterPath


async def until(met: Callable[[], bool]) -> None:
    """Let the reactor turn until *met*; the test's own time-out ends a wait in vain."""
    while not met():
        await deferLater(reactor, 0.01, lambda: None)  # type: ignore[arg-type]


class Told:
    """A source that says what the test tells it to, and settles when the test says so."""

    name = "mdns"

    def __init__(self, *advertisements: Advertisement, settled: bool = True) -> None:
        self._advertisements = advertisements
        self.settled: Deferred[None] = succeed(None) if settled else Deferred()
        self.stopped = False

    def start(self, sink: Sink) -> Deferred[None]:
        self.sink = sink
        for advertisement in self._advertisements:
            sink.heard(advertisement, self.name)
        return self.settled

    def stop(self) -> Deferred[None]:
        self.stopped = True
        return succeed(None)

    def describe(self) -> str:
        return "what the test says"


class World:
    """Three fake nodes a, b, c, in the order of their keys, and a started cluster that knows them."""

    def __init__(self, memory: MemoryCluster) -> None:
        self.fakes = sorted(memory.nodes, key=lambda fake: fake.node_id)
        self.a, self.b, self.c = self.fakes
        self.source = Told(*memory.advertisements)
        self.cluster = Cluster("test", reactor=reactor, sources=[self.source], bypass=False)

    def names(self, *fakes: FakeNode) -> list[str]:
        return [f"{fake.computer}:{fake.port}" for fake in fakes]


@pytest_twisted.async_yield_fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(patience, "STALL_TIMEOUT_S", 1.0)
    memory = MemoryCluster(reactor)
    await memory.start()
    world = World(memory)
    world.cluster.startService()
    yield world
    await world.cluster.stopService()
    await memory.stop()


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_directories_of_all_nodes_are_one(world: World) -> None:
    world.a.files["/run/f1"] = b"1"
    world.b.files["/run/f2"] = b"22"
    view = await world.cluster.listdir("/run")
    assert [(name, view[name].size, view.holders(name)[0].node_id) for name in view] == [
        ("f1", 1, world.a.node_id),
        ("f2", 2, world.b.node_id),
    ]
    assert not view.partial


@pytest_twisted.ensureDeferred
async def test_a_file_is_found_on_whichever_node_it_lies(world: World) -> None:
    world.c.files["/run/f"] = b"frame"
    assert await world.cluster.get("/run/f") == b"frame"
    assert [node.node_id for node in await world.cluster.locate("/run/f")] == [world.c.node_id]


@pytest_twisted.ensureDeferred
async def test_what_is_nowhere_is_not_stored(world: World) -> None:
    for question in (world.cluster.get, world.cluster.listdir, world.cluster.locate, world.cluster.stat):
        with pytest.raises(NotStored):
            await question("/absent")
    assert (await world.cluster.exists("/absent"), await world.cluster.isdir("/absent")) == (False, False)


@pytest_twisted.ensureDeferred
async def test_files_and_directories_are_told_apart(world: World) -> None:
    world.a.files["/run/f"] = b"12345"
    assert [await world.cluster.isdir(path) for path in ("/", "/run", "/run/f")] == [True, True, False]
    assert await world.cluster.exists("/run/f") is True
    with pytest.raises(NotADirectory):
        await world.cluster.listdir("/run/f")
    with pytest.raises(IsADirectory):
        await world.cluster.get("/run")


@pytest_twisted.ensureDeferred
async def test_stat_gives_the_size_of_a_file_and_the_entries_of_a_directory(world: World) -> None:
    world.a.files["/run/metadata.json"] = b"{}"
    world.b.files["/run/f"] = b"12345"
    file, directory = await world.cluster.stat("/run/f"), await world.cluster.stat("/run")
    assert (file.size, file.flags, file.is_directory) == (5, Flags.FILE, False)
    assert (directory.size, directory.flags) == (2, Flags.DIRECTORY | Flags.SERIES)
    assert [node.node_id for node in directory.nodes] == [world.a.node_id, world.b.node_id]
    assert (await world.cluster.stat("/")).size == 2  # 'run', once on each of two nodes


@pytest_twisted.ensureDeferred
async def test_walk_yields_parents_before_children_in_order(world: World) -> None:
    for fake, name in ((world.a, "/b/x"), (world.b, "/a/y/z"), (world.c, "/a/q")):
        fake.files[name] = b""
    walked = [(str(path), list(view)) async for path, view in world.cluster.walk("/")]
    assert walked == [("/", ["a", "b"]), ("/a", ["q", "y"]), ("/a/y", ["z"]), ("/b", ["x"])]


@pytest_twisted.ensureDeferred
async def test_of_colliding_files_every_reader_gets_that_of_the_lowest_node_id(world: World) -> None:
    world.b.files["/f"] = b"b"
    world.a.files["/f"] = b"aa"
    view = await world.cluster.listdir("/")
    assert [collision.name for collision in view.collisions] == ["f"]
    assert await world.cluster.get("/f") == b"aa"


@pytest_twisted.ensureDeferred
async def test_a_copy_is_read_when_the_first_holder_fails(world: World) -> None:
    for fake in (world.a, world.b):
        fake.files["/f"] = b"same"
    holders = await world.cluster.locate("/f")
    world.a.fail_next("cut", verb="GET")
    assert await world.cluster.get("/f", nodes=holders) == b"same"


@pytest_twisted.ensureDeferred
async def test_when_every_holder_fails_each_is_named_with_its_cause(world: World) -> None:
    for fake in (world.a, world.b):
        fake.files["/f"] = b"same"
    holders = await world.cluster.locate("/f")
    world.a.fail_next("cut", verb="GET")
    world.b.fail_next(500, verb="GET")
    with pytest.raises(OnSomeNodes) as caught:
        await world.cluster.get("/f", nodes=holders)
    assert sorted(caught.value.causes) == sorted(world.names(world.a, world.b))


@pytest_twisted.ensureDeferred
async def test_a_cut_body_is_never_a_short_file(world: World) -> None:
    world.a.files["/f"] = b"x" * 50_000
    world.a.fail_next("cut", verb="GET")
    with pytest.raises(NodeUnreachable, match="before its answer was complete"):
        await world.cluster.get("/f")


# -- nodes that are away -----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_node_that_dies_while_listing_makes_the_view_partial_and_is_named(world: World) -> None:
    world.a.files["/run/f"] = b"1"
    world.b.files["/run/g"] = b"2"
    world.b.fail_next("silent", verb="GET")
    listing = world.cluster.listdir("/run")
    reactor.callLater(0.05, world.b.die)
    view = await listing
    assert (list(view), view.partial, list(view.missing)) == (["f"], True, world.names(world.b))


@pytest_twisted.ensureDeferred
async def test_a_silent_node_costs_its_deadline_once(world: World) -> None:
    world.a.files["/run/f"] = b"1"
    world.b.fail_next("silent", count=1000)
    await world.cluster.listdir("/run")
    before = reactor.seconds()
    for _ in range(5):
        world.cluster.forget_listing("/run/f")
        assert (await world.cluster.listdir("/run")).partial
    assert reactor.seconds() - before < 1.0


@pytest_twisted.ensureDeferred
async def test_absence_is_not_claimed_while_a_node_is_silent(world: World) -> None:
    world.b.die()
    for question in (world.cluster.get, world.cluster.listdir, world.cluster.exists, world.cluster.isdir):
        with pytest.raises(Partial, match=world.names(world.b)[0]):
            await question("/absent")


@pytest_twisted.ensureDeferred
async def test_a_node_that_returns_is_found_by_its_probe(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.b.files["/run/g"] = b"2"
    world.b.die()
    with pytest.raises(Partial):
        await world.cluster.listdir("/run")
    await world.b.start()
    found: Deferred[None] = Deferred()

    def look() -> None:
        if world.cluster.roster.missing():
            reactor.callLater(0.02, look)
        else:
            found.callback(None)

    look()
    await found
    assert list(await world.cluster.listdir("/run")) == ["g"]


@pytest_twisted.ensureDeferred
async def test_another_node_at_a_known_address_is_not_taken_for_it(world: World) -> None:
    world.a.files["/run/f"] = b"1"
    instance = "PYMEDataServer [test]:ghost - PID:1"
    world.source.sink.heard(Advertisement(instance, world.a.address, world.a.port, "id-of-ghost"), "mdns")
    view = await world.cluster.listdir("/run")
    assert list(view.missing) == [f"ghost:{world.a.port}"]
    assert "another node answers" in str(next(iter(view.missing.values())))


@pytest_twisted.ensureDeferred
async def test_nodes_are_reported_with_what_ails_them(world: World) -> None:
    world.b.die()
    await world.cluster.listdir("/")
    states = {state.node.node_id: state for state in await world.cluster.nodes()}
    assert isinstance(states[world.b.node_id].cause, NodeUnreachable)
    assert [states[fake.node_id].cause for fake in (world.a, world.c)] == [None, None]
    assert states[world.a.node_id].sources == ("mdns",)


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_puts_take_turns_over_the_nodes(world: World) -> None:
    for number in range(6):
        await world.cluster.put(f"/run/f{number}", b"x")
    assert [sorted(fake.files) for fake in world.fakes] == [
        ["/run/f0", "/run/f3"],
        ["/run/f1", "/run/f4"],
        ["/run/f2", "/run/f5"],
    ]


@pytest_twisted.ensureDeferred
async def test_an_own_put_shows_at_once(world: World) -> None:
    await world.cluster.put("/run/f", b"x")
    assert list(await world.cluster.listdir("/run")) == ["f"]
    await world.cluster.put("/run/g", b"x")
    assert list(await world.cluster.listdir("/run")) == ["f", "g"]


@pytest_twisted.ensureDeferred
async def test_a_put_to_a_named_node_goes_there(world: World) -> None:
    node = (await world.cluster.ready())[2]
    receipt = await world.cluster.put("/f", b"x", node=node)
    assert (receipt.node, receipt.size, str(receipt.path), receipt.durability) == (node, 1, "/f", "relaxed")
    assert world.c.files == {"/f": b"x"}


@pytest_twisted.ensureDeferred
async def test_a_name_on_any_node_is_taken_and_its_holder_named(world: World) -> None:
    world.c.files["/f"] = b"old"
    with pytest.raises(AlreadyStored, match=f"/f is stored already, on {world.names(world.c)[0]}"):
        await world.cluster.put("/f", b"new")
    assert ([fake.files for fake in (world.a, world.b)], world.c.files) == ([{}, {}], {"/f": b"old"})


@pytest_twisted.ensureDeferred
async def test_a_directory_is_made_once(world: World) -> None:
    await world.cluster.mkdir("/run")
    assert await world.cluster.isdir("/run") is True
    with pytest.raises(AlreadyStored):
        await world.cluster.mkdir("/run")
    assert [fake.directories for fake in world.fakes] == [{"/run"}, set(), set()]


@pytest.mark.parametrize("fault", [503, 507])
@pytest_twisted.ensureDeferred
async def test_a_node_that_takes_no_writes_is_passed_over(world: World, fault: int) -> None:
    world.a.fail_next(fault, verb="PUT")
    assert (await world.cluster.put("/f", b"x")).node.node_id == world.b.node_id


@pytest_twisted.ensureDeferred
async def test_a_dead_node_is_passed_over_by_writes(world: World) -> None:
    world.a.die()
    assert (await world.cluster.put("/f", b"x")).node.node_id == world.b.node_id


@pytest_twisted.ensureDeferred
async def test_a_put_whose_answer_is_lost_is_not_put_elsewhere(world: World) -> None:
    world.a.fail_next("cut", verb="PUT", count=2)
    with pytest.raises(NotReceipted, match=world.names(world.a)[0]):
        await world.cluster.put("/f", b"x")
    assert [dict(fake.files) for fake in world.fakes] == [{"/f": b"x"}, {}, {}]


@pytest.mark.parametrize("fault", ["drop", "cut"])
@pytest_twisted.ensureDeferred
async def test_a_put_whose_answer_is_lost_is_put_again_on_the_same_node(world: World, fault: str) -> None:
    world.a.fail_next(fault, verb="PUT")
    assert (await world.cluster.put("/f", b"x")).node.node_id == world.a.node_id
    assert [dict(fake.files) for fake in world.fakes] == [{"/f": b"x"}, {}, {}]


@pytest_twisted.ensureDeferred
async def test_a_put_that_is_not_answered_in_time_is_not_waited_for_twice(world: World) -> None:
    world.a.fail_next("silent", verb="PUT", count=2)
    with pytest.raises(NotReceipted):
        await world.cluster.put("/f", b"x")
    assert [verb for verb, _ in world.a.requests].count("PUT") == 1


@pytest_twisted.ensureDeferred
async def test_when_no_node_takes_a_put_each_is_named(world: World) -> None:
    world.a.die()
    for fake in (world.b, world.c):
        fake.fail_next(507, verb="PUT")
    with pytest.raises(OnSomeNodes) as caught:
        await world.cluster.put("/f", b"x")
    assert sorted(caught.value.causes) == sorted(world.names(*world.fakes))


@pytest_twisted.ensureDeferred
async def test_the_root_and_bad_names_cannot_be_put(world: World) -> None:
    for path in ("/", "/a/../b", "/__status"):
        with pytest.raises(BadPath):
            await world.cluster.put(path, b"x")


# -- who is there ------------------------------------------------------------------------------------------------------


def started(*sources: Told, name: str = "test") -> Cluster:
    cluster = Cluster(name, reactor=reactor, sources=sources, bypass=False)
    cluster.startService()
    return cluster


@pytest_twisted.ensureDeferred
async def test_without_a_node_the_error_says_where_was_looked() -> None:
    cluster = started(Told(), name="lab")
    for verb in (cluster.ready, cluster.nodes, lambda: cluster.listdir("/")):
        with pytest.raises(NoNode, match="no node of cluster 'lab' was found; looked at what the test says"):
            await verb()
    await cluster.stopService()


@pytest_twisted.ensureDeferred
async def test_verbs_wait_until_the_sources_have_settled(world: World) -> None:
    world.a.files["/f"] = b"1"
    world.b.files["/g"] = b"2"
    source = Told(world.a.advertisement, settled=False)
    cluster = started(source)
    listing = cluster.listdir("/")
    source.sink.heard(world.b.advertisement, "mdns")
    assert not listing.called
    source.settled.callback(None)
    assert list(await listing) == ["f", "g"]
    await cluster.stopService()


@pytest_twisted.ensureDeferred
async def test_ready_fires_as_soon_as_enough_nodes_are_known(world: World) -> None:
    source = Told(world.a.advertisement, settled=False)
    cluster = started(source)
    ready = cluster.ready(2)
    assert not ready.called
    source.sink.heard(world.b.advertisement, "mdns")
    assert len(await ready) == 2
    assert list(await cluster.listdir("/")) == []  # and verbs wait for no others
    await cluster.stopService()


@pytest_twisted.ensureDeferred
async def test_fewer_nodes_than_expected_are_told_when_all_has_settled(world: World) -> None:
    cluster = started(Told(world.a.advertisement))
    assert len(await cluster.ready(5)) == 1
    await cluster.stopService()


@pytest_twisted.ensureDeferred
async def test_stopping_cancels_who_waits_and_stops_the_sources() -> None:
    source = Told(settled=False)
    cluster = started(source)
    listing = cluster.listdir("/")
    await cluster.stopService()
    with pytest.raises(CancelledError):
        await listing
    assert source.stopped


@pytest_twisted.ensureDeferred
async def test_a_list_of_nodes_is_enough_of_a_source(world: World) -> None:
    world.a.files["/f"] = b"1"
    cluster = Cluster("test", reactor=reactor, sources=(), nodes=[f"127.0.0.1:{world.a.port}"])
    cluster.startService()
    assert await cluster.get("/f") == b"1"
    assert [state.node.node_id for state in await cluster.nodes()] == [world.a.node_id]
    await cluster.stopService()


# -- the bypass --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_file_in_a_local_store_is_read_without_http(world: World, tmp_path: Path) -> None:
    (tmp_path / ".granum").mkdir()
    (tmp_path / ".granum" / "node-id").write_text(f"{world.a.node_id}\n")
    (tmp_path / "f").write_bytes(b"from disk")
    (tmp_path / "markers").mkdir()
    (tmp_path / "markers" / f"{world.a.node_id}.json").write_text(json.dumps({"store": str(tmp_path)}))
    world.a.files["/f"] = b"from node"
    world.a.files["/g"] = b"node alone"
    cluster = Cluster("test", reactor=reactor, sources=[world.source], markers=[str(tmp_path / "markers")])
    cluster.startService()
    assert await cluster.get("/f") == b"from disk"
    assert await cluster.get("/g") == b"node alone"
    assert ("GET", "/f") not in world.a.requests
    await cluster.stopService()


@pytest_twisted.ensureDeferred
async def test_holders_on_this_machine_are_read_first(world: World) -> None:
    far = Node("0", "far:1", "192.0.2.199", 1, "test", "0")
    near = (await world.cluster.ready())[0]
    world.a.files["/f"] = b"near"
    assert await world.cluster.get("/f", nodes=[far, near]) == b"near"


# -- the end of the service ---------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_stopping_ends_a_request_on_its_way(world: World) -> None:
    world.a.files["/f"] = b"1"
    world.a.fail_next("silent", verb="GET")
    get = world.cluster.get("/f")
    await until(lambda: ("GET", "/f") in world.a.requests)
    await world.cluster.stopService()
    assert get.called
    with pytest.raises(CancelledError):
        await get
    await until(lambda: not world.a._service.connections)


@pytest_twisted.ensureDeferred
async def test_a_stopped_cluster_refuses_and_can_be_started_again(world: World) -> None:
    await world.cluster.stopService()
    for verb in (world.cluster.ready, world.cluster.nodes, lambda: world.cluster.get("/f")):
        with pytest.raises(Closed, match="was stopped"):
            await verb()
    world.cluster.startService()
    assert len(await world.cluster.ready()) == 3


@pytest_twisted.ensureDeferred
async def test_walk_goes_on_where_the_only_holder_of_a_directory_died(world: World) -> None:
    world.a.files["/a/f"] = b""
    world.b.files["/b/f"] = b""
    world.c.files["/c/f"] = b""
    walked = {}
    async for path, view in world.cluster.walk("/"):
        walked[str(path)] = (list(view), list(view.missing))
        if path == ROOT:
            world.b.die()
            world.cluster.forget_listing("/b")
    lost = world.names(world.b)
    assert walked == {"/": (["a", "b", "c"], []), "/a": (["f"], lost), "/b": ([], lost), "/c": (["f"], lost)}


@pytest_twisted.ensureDeferred
async def test_walk_of_a_directory_that_no_node_can_answer_for_fails(world: World) -> None:
    world.b.files["/b/f"] = b""
    await world.cluster.ready()
    world.b.die()
    with pytest.raises(Partial):
        await anext(world.cluster.walk("/b"))


@pytest_twisted.ensureDeferred
async def test_puts_that_wait_for_their_turn_at_a_node_that_freezes_go_to_another(world: World) -> None:
    """Only those that were sent may be stored there; the others were not, so nobody need wonder about them."""
    nodes = await world.cluster.ready()
    world.a.fail_next("silent", verb="PUT", count=100)
    for node in nodes[1:]:
        world.cluster.ledger.wrote(node.key, 0.0)
    puts = [world.cluster.put(f"/{number}", b"x") for number in range(10)]
    results: list[tuple[bool, Any]] = await DeferredList(puts, consumeErrors=True)  # Any: a receipt, or a failure
    receipts = [result for is_receipt, result in results if is_receipt]
    sent = [target for verb, target in world.a.requests if verb == "PUT"]
    assert (len(sent), len(receipts)) == (4, 6)
    assert sorted(result.value.paths[0] for is_receipt, result in results if not is_receipt) == sorted(sent)


@pytest_twisted.ensureDeferred
async def test_what_is_kept_of_a_failure_does_not_keep_the_body(world: World) -> None:
    world.a.fail_next("drop", verb="PUT", count=2)
    with pytest.raises(NotReceipted):
        await world.cluster.put("/f", b"x" * 1000)
    (cause,) = world.cluster.roster.missing().values()
    assert (str(cause).endswith("before its answer was complete"), cause.__traceback__) == (True, None)


@pytest_twisted.ensureDeferred
async def test_who_misspelt_the_name_of_the_cluster_is_told_of_the_others(world: World) -> None:
    cluster = started(Told(world.a.advertisement), name="tset")
    with pytest.raises(NoNode, match="There are nodes of 'test'; if one of these is meant, give its name"):
        await cluster.ready()
    await cluster.stopService()


# -- parts of files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "length", "part"),
    [(6, 5, b"light"), (6, None, b"light\n"), (6, 99, b"light\n"), (0, 5, b"first"), (12, 1, b""), (3, 0, b"")],
)
@pytest_twisted.ensureDeferred
async def test_a_part_of_a_file_is_given(world: World, start: int, length: int | None, part: bytes) -> None:
    world.b.files["/run/f"] = b"first light\n"
    assert await world.cluster.get("/run/f", start=start, length=length) == part


@pytest_twisted.ensureDeferred
async def test_a_part_is_all_that_is_sent(world: World) -> None:
    world.b.files["/run/f"] = bytes(10**6)
    asked: list[str] = []
    real = world.cluster._transfer._requester.request

    async def spy(verb: str, *arguments: Any, **options: Any) -> Any:
        reply = await real(verb, *arguments, **options)
        asked.append(f"{verb} {reply.status} {len(reply.body)}")
        return reply

    world.cluster._transfer._requester.request = spy  # type: ignore[method-assign]
    await world.cluster.get("/run/f", start=1000, length=7)
    assert asked[-1] == "GET 206 7"


@pytest_twisted.ensureDeferred
async def test_a_node_that_knows_no_parts_sends_the_file_and_it_is_cut_here(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("granum.testing.answer._RANGE", re.compile("never"))
    world.b.files["/run/f"] = b"first light\n"
    assert await world.cluster.get("/run/f", start=6, length=5) == b"light"


@pytest_twisted.ensureDeferred
async def test_a_node_that_sends_another_part_is_not_believed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("granum.transfer.range_of", lambda start, length: "bytes=0-4")
    world.b.files["/run/f"] = b"first light\n"
    with pytest.raises(NodeError, match=r"sent another part of /run/f than was asked for: bytes 0-4/12"):
        await world.cluster.get("/run/f", start=6, length=5)


@pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1)])
@pytest_twisted.ensureDeferred
async def test_a_part_before_the_file_is_refused(world: World, start: int, length: int | None) -> None:
    with pytest.raises(BadRequest, match="no part of a file"):
        await world.cluster.get("/run/f", start=start, length=length)


@pytest_twisted.ensureDeferred
async def test_a_part_of_what_is_not_there_or_a_directory_fails_as_the_whole_does(world: World) -> None:
    world.a.files["/run/f"] = b"1"
    with pytest.raises(NotStored):
        await world.cluster.get("/absent", start=1)
    with pytest.raises(IsADirectory):
        await world.cluster.get("/run", start=1)


# -- collisions, receipts, placement, locality -------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_of_different_files_under_one_name_every_reader_gets_that_of_the_lowest_node_id(world: World) -> None:
    world.a.files["/run/f"], world.b.files["/run/f"], world.c.files["/run/f"] = b"one", b"two", b"one"
    nodes = await world.cluster.ready()
    assert await world.cluster.get("/run/f") == b"one"
    assert await world.cluster.get("/run/f", nodes=nodes[::-1]) == b"one"
    assert [node.node_id for node in (await world.cluster.listdir("/run")).holders("f")] == [
        world.a.node_id,
        world.c.node_id,
    ]
    [(where, collision)] = world.cluster.collisions
    assert (str(where), collision.name, collision.same_size) == ("/run", "f", True)


@pytest_twisted.ensureDeferred
async def test_a_receipt_of_a_stream_shows_at_once_without_asking(world: World) -> None:
    for fake in world.fakes:
        fake.files[f"/run/{fake.computer}"] = b"1"
    await world.cluster.listdir("/run")
    node = (await world.cluster.ready())[1]
    world.b.files["/run/g"] = b"22"
    for fake in world.fakes:
        fake.requests.clear()
    world.cluster.noted(Receipt(ClusterPath.parse("/run/g"), node, 2, 0.0, "commit"))
    assert list(await world.cluster.listdir("/run")) == ["fake0", "fake1", "fake2", "g"]
    assert [fake.requests for fake in world.fakes] == [[], [], []]


@pytest_twisted.ensureDeferred
async def test_puts_go_where_the_placement_says(world: World) -> None:
    world.cluster._placement = pinned(world.c.node_id)
    for n in range(3):
        await world.cluster.put(f"/run/{n}", b"x")
    assert sorted(world.c.files) == ["/run/0", "/run/1", "/run/2"]
    world.c.die()
    with pytest.raises(OnSomeNodes, match=f"no node named {world.c.node_id} can be written now"):
        await world.cluster.put("/run/3", b"x")


@pytest_twisted.ensureDeferred
async def test_a_placement_by_space_asks_the_nodes_for_their_room_first(world: World) -> None:
    for fake, free in zip(world.fakes, (0, 1 << 40, 0), strict=True):
        fake._service.answerer.status["Disk"] = {"total": 1 << 41, "free": free}
        fake._service.answerer.status["Granum"] = {"writable": free > 0}
    world.cluster._placement = world.cluster._named("space")
    await world.cluster.put("/run/f", b"x")
    assert list(world.b.files) == ["/run/f"]
    assert [state.room and state.room.free for state in await world.cluster.nodes()] == [0, 1 << 40, 0]


@pytest_twisted.ensureDeferred
async def test_a_placement_can_be_had_by_name_and_a_wrong_name_is_refused(world: World) -> None:
    assert (await world.cluster.placement("hash"), await world.cluster.placement()) == (by_hash, least_recently_written)
    with pytest.raises(BadConfig, match="there is no placement 'hsah'"):
        await world.cluster.placement("hsah")


@pytest_twisted.ensureDeferred
async def test_locality_tells_what_lies_where(world: World) -> None:
    world.a.files["/run.pcs/metadata.json"] = b"{}"
    for n, fake in enumerate((world.a, world.b, world.a)):
        fake.files[f"/run.pcs/frame0000{n}.pzf"] = b"12345"
    found = await world.cluster.locality("/run.pcs")
    assert [(share.node.node_id, share.frames, share.files, share.bytes) for share in found.shares] == [
        (world.a.node_id, (0, 2), ("metadata.json",), 12),
        (world.b.node_id, (1,), (), 5),
    ]


# -- a flood of advertisements -----------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_flood_of_advertisements_is_bounded_and_a_real_node_in_it_is_found(world: World) -> None:
    """Names that nobody answers to do not fill the roster, and who answers is let in all the same."""
    sink = world.source.sink
    await world.cluster.ready()
    sink.gone(world.c.advertisement.instance, "mdns")
    for n in range(2000):
        sink.heard(Advertisement(f"PYMEDataServer [test]:evil{n} - PID:{n}", "127.0.0.1", 1, f"evil{n}"), "mdns")
    sink.heard(world.c.advertisement, "mdns")
    gathering = world.cluster._gathering
    assert (len(world.cluster.roster.states()), len(gathering._untried) <= 256) == (32, True)
    await until(lambda: any(node.node_id == world.c.node_id for node in world.cluster.roster.nodes()))
    await until(lambda: not gathering._trials)
    assert len(world.cluster.roster.states()) == 33
    assert len(world.cluster._transfer._lanes) <= 33
    world.c.files["/run/f"] = b"1"
    assert await world.cluster.get("/run/f") == b"1"


@pytest_twisted.ensureDeferred
async def test_a_flood_that_goes_on_delays_nobody(world: World) -> None:
    """Strangers that accept connections and say nothing are waited for by none."""
    await world.cluster.ready()
    world.a.files["/run/f"] = b"1"
    silent = FakeNode(reactor, cluster="test")
    await silent.start()
    silent.fail_next("silent", count=1000)
    for n in range(100):
        name = f"PYMEDataServer [test]:evil{n} - PID:{n}"
        port = 1 if n < 40 else silent.port  # the first ones are believed and refuse
        world.source.sink.heard(Advertisement(name, "127.0.0.1", port, f"evil{n}"), "mdns")
    assert len(world.cluster._gathering._trials) > 10
    assert await world.cluster.get("/run/f") == b"1"
    assert len(world.cluster._gathering._trials) > 10
    await silent.stop()


@pytest_twisted.ensureDeferred
async def test_a_cluster_that_is_stopped_during_a_flood_leaves_nothing_behind(world: World) -> None:
    sink = world.source.sink
    await world.cluster.ready()
    for n in range(200):
        sink.heard(Advertisement(f"PYMEDataServer [test]:evil{n} - PID:{n}", "127.0.0.1", 1, f"evil{n}"), "mdns")
    await world.cluster.stopService()
    gathering = world.cluster._gathering
    assert (gathering._untried, gathering._trials) == ({}, set())
    world.cluster.startService()
