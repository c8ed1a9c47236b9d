"""Placement: by default the node left unwritten longest; by chunk, hash, room or name where somebody wants it so."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from granum.placement import (
    AnyPlacement,
    Ledger,
    Put,
    SpaceAware,
    by_chunk,
    by_hash,
    choose,
    least_recently_written,
    pinned,
    placement_named,
    pyme_distribution,
    round_robin,
)
from granum.room import Room, room_of
from granum.roster import Node
from granum.wire.errors import BadConfig, NoNode
from granum.wire.paths import ClusterPath

A, B, C = (Node(key, f"{key}:1", "10.0.0.1", 1, "lab", key) for key in "abc")


def test_nodes_never_written_come_first_by_key() -> None:
    assert least_recently_written(None, [C, B, A], Ledger()) == A


def test_the_least_recently_written_node_is_next() -> None:
    ledger = Ledger()
    for node in (B, C, A):
        ledger.wrote(node.key, 1.0)
    assert least_recently_written(7, [A, B, C], ledger) == B


def test_writes_within_one_tick_of_the_clock_still_take_turns() -> None:
    ledger, chosen = Ledger(), []
    for _ in range(6):
        chosen.append(least_recently_written(None, [A, B, C], ledger))
        ledger.wrote(chosen[-1].key, 5.0)
    assert chosen == [A, B, C, A, B, C]


def test_the_time_of_the_last_write_is_kept() -> None:
    ledger = Ledger()
    ledger.wrote("a", 2.5)
    assert (ledger.last_write("a"), ledger.last_write("b")) == (2.5, None)


def test_no_node_is_an_error() -> None:
    with pytest.raises(NoNode):
        least_recently_written(None, [], Ledger())


@given(st.lists(st.sampled_from([A, B, C])))
def test_placement_is_a_function_of_its_inputs(written: list[Node]) -> None:
    ledger = Ledger()
    for now, node in enumerate(written):
        ledger.wrote(node.key, now)
    chosen = {least_recently_written(None, nodes, ledger) for nodes in ([A, B, C], [C, A, B], [B, C, A])}
    assert len(chosen) == 1


# -- the other policies ------------------------------------------------------------------------------------------------

D = Node("d", "scope7:4", "10.0.0.4", 4, "lab", "d")
KEYS = st.sets(st.text("0123456789abcdef", min_size=1, max_size=8), min_size=1, max_size=8)


def nodes_of(keys: Iterable[str]) -> list[Node]:
    return [Node(key, f"{key}:1", "10.0.0.1", 1, "lab", key) for key in keys]


def frames_on(placement: AnyPlacement, nodes: Sequence[Node], count: int, ledger: Ledger | None = None) -> list[str]:
    """Return the keys of the nodes that the frames 0 … go to, each noted in the ledger."""
    ledger, chosen = ledger or Ledger(), []
    for n in range(count):
        node = choose(placement, frame(n), nodes, ledger)
        ledger.wrote(node.key, 0.0)
        chosen.append(node.key)
    return chosen


def frame(n: int, size: int = 1) -> Put:
    return Put(ClusterPath.of(["run.pcs", f"frame{n:05d}.pzf"]), size, n)


def test_fifty_frames_in_a_row_go_to_one_node_as_pyme_does_it() -> None:
    assert frames_on(by_chunk(), [B, C, A], 200) == ["a"] * 50 + ["b"] * 50 + ["c"] * 50 + ["a"] * 50


def test_round_robin_goes_by_the_number_of_the_frame() -> None:
    assert frames_on(round_robin, [C, A, B], 5) == ["a", "b", "c", "a", "b"]


def test_what_has_no_number_goes_to_the_least_recently_written_node() -> None:
    ledger = Ledger()
    ledger.wrote("a", 1.0)
    put = Put(ClusterPath.of(["run.pcs", "metadata.json"]), 10)
    assert choose(by_chunk(), put, [A, B], ledger) == B


def test_a_distribution_function_of_pyme_is_called_as_pyme_calls_it() -> None:
    calls = []

    def function(n_servers: int, i: int | None = None) -> int:
        calls.append((n_servers, i))
        return 1

    assert choose(pyme_distribution(function), frame(7), [C, B, A], Ledger()) == B
    assert calls == [(3, 7)]


@pytest.mark.parametrize("index", [-1, 3, "1", 0.5, None])
def test_a_distribution_function_that_leads_nowhere_is_named(index: Any) -> None:
    with pytest.raises(BadConfig, match=r"the distribution function gave .* for frame 0 and 3 nodes"):
        choose(pyme_distribution(lambda n, i: index), frame(0), [A, B, C], Ledger())


def test_a_placement_that_returns_none_of_the_nodes_is_named() -> None:
    with pytest.raises(BadConfig, match=r"/run\.pcs/frame00000\.pzf, which is none of the nodes"):
        choose(lambda *_: D, frame(0), [A, B], Ledger())


def test_without_nodes_no_placement_is_asked() -> None:
    with pytest.raises(NoNode):
        choose(by_hash, frame(0), [], Ledger())


@given(KEYS, st.integers(0, 10**6), st.randoms())
def test_the_hash_of_a_path_has_one_node_for_every_client(keys: set[str], n: int, random: Any) -> None:
    """Whatever order the nodes were found in, and whatever the client wrote before."""
    nodes, ledger = nodes_of(keys), Ledger()
    first = choose(by_hash, frame(n), nodes, ledger)
    random.shuffle(nodes)
    ledger.wrote(first.key, 1.0)
    assert choose(by_hash, frame(n), nodes, ledger) == first


@given(KEYS, st.text("0123456789abcdef", min_size=1, max_size=8))
def test_a_node_that_goes_moves_only_what_was_on_it(keys: set[str], gone: str) -> None:
    before = frames_on(by_hash, nodes_of(keys | {gone}), 50)
    left = keys - {gone} or {"0" * 9}
    after = frames_on(by_hash, nodes_of(left), 50)
    moved = [n for n in range(50) if before[n] != after[n] and before[n] in left]
    assert moved == []


def test_hashes_spread_evenly() -> None:
    counts = Counter(frames_on(by_hash, [A, B, C, D], 4000))
    assert all(850 < counts[key] < 1150 for key in "abcd")


def test_the_hash_is_the_one_that_other_languages_can_compute() -> None:
    """XXH3-64 of the node id, a zero byte and the path; the highest wins."""
    path = b"/run.pcs/frame00000.pzf"
    hashes = {key: xxhash.xxh3_64(key.encode() + b"\0" + path).intdigest() for key in "abcd"}
    assert choose(by_hash, frame(0), [A, B, C, D], Ledger()).key == max(hashes, key=lambda key: hashes[key])


@pytest.mark.parametrize("name", ["d", "scope7", "scope7:4", "10.0.0.4", "10.0.0.4:4"])
def test_a_pinned_put_goes_to_its_node_however_that_is_named(name: str) -> None:
    assert choose(pinned(name), frame(0), [A, B, C, D], Ledger()) == D


def test_pinned_nodes_take_turns_and_without_them_there_is_none() -> None:
    assert frames_on(pinned("a", "c"), [A, B, C], 4) == ["a", "c", "a", "c"]
    with pytest.raises(NoNode, match="no node named a or c can be written now"):
        choose(pinned("a", "c"), frame(0), [B], Ledger())


# -- room --------------------------------------------------------------------------------------------------------------

GIB = 1 << 30


def by_room(**rooms: Room) -> SpaceAware:
    return SpaceAware(lambda node: rooms.get(node.key))


def test_disks_fill_up_together_however_they_began() -> None:
    """Shares are about in proportion to the room, which is asked for again and again."""
    free, ledger = {"a": 6000, "b": 3000, "c": 1000}, Ledger()
    placement = SpaceAware(lambda node: Room(free[node.key]))
    for n in range(9000):
        node = choose(placement, frame(n), [A, B, C], ledger)
        ledger.wrote(node.key, 0.0)
        free[node.key] -= 1
    assert all(
        share == pytest.approx(0.1, abs=0.02) for share in (free["a"] / 6000, free["b"] / 3000, free["c"] / 1000)
    )


def test_nodes_with_equal_room_get_as_much() -> None:
    counts = Counter(frames_on(by_room(a=Room(5 * GIB), b=Room(5 * GIB)), [B, A], 1000))
    assert 430 < counts["a"] < 570


def test_a_node_with_its_reserve_left_gets_nothing_while_another_has_room() -> None:
    placement = by_room(a=Room(500 * GIB, takes_puts=False), b=Room(0), c=Room(2 * GIB))
    assert set(frames_on(placement, [A, B, C], 20)) == {"c"}


def test_a_put_larger_than_the_room_goes_elsewhere() -> None:
    assert choose(by_room(a=Room(10), b=Room(30)), frame(0, size=20), [A, B], Ledger()) == B


def test_when_all_are_full_one_is_asked_all_the_same() -> None:
    placement = by_room(a=Room(0), b=Room(0))
    assert frames_on(placement, [A, B], 2) == ["a", "b"]


def test_a_node_of_which_nothing_is_known_counts_as_the_least_roomy() -> None:
    counts = Counter(frames_on(by_room(a=Room(90), b=Room(10)), [A, B, C], 1100))
    assert (counts["b"], counts["c"]) == (pytest.approx(100, abs=30), pytest.approx(100, abs=30))


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 10**13)), st.lists(st.sampled_from("abcd")))
def test_space_is_a_function_of_its_inputs(rooms: dict[str, int], written: list[str]) -> None:
    ledger, placement = Ledger(), by_room(**{key: Room(free) for key, free in rooms.items()})
    for key in written:
        ledger.wrote(key, 0.0)
    orders = ([A, B, C, D], [D, C, B, A], [B, D, A, C])
    assert len({choose(placement, frame(0), nodes, ledger) for nodes in orders}) == 1


def test_a_node_of_granum_tells_whether_it_takes_puts() -> None:
    disk = {"total": 100 * GIB, "used": 0, "free": 7}
    assert room_of({"Disk": disk, "Granum": {"writable": False}}) == Room(7, takes_puts=False)
    assert room_of({"Disk": disk, "Granum": {"writable": True}}) == Room(7, takes_puts=True)


def test_a_node_of_pyme_is_left_the_reserve_that_it_does_not_keep() -> None:
    assert room_of({"Disk": {"total": 50 * GIB, "free": 3 * GIB}}) == Room(2 * GIB)
    assert room_of({"Disk": {"total": 500 * GIB, "free": 5 * GIB}}) == Room(0, takes_puts=False)


@pytest.mark.parametrize("status", [{}, {"Disk": None}, {"Disk": {"free": "1", "total": 2}}, {"Disk": {"free": 1}}])
def test_a_status_that_tells_no_room_is_no_room_known(status: dict[str, object]) -> None:
    assert room_of(status) is None


# -- by name -----------------------------------------------------------------------------------------------------------


def test_placements_have_names() -> None:
    named = [placement_named(text) for text in ("least-recently-written", "round-robin", "hash")]
    assert named == [least_recently_written, round_robin, by_hash]
    assert frames_on(placement_named("chunk:2"), [A, B], 5) == ["a", "a", "b", "b", "a"]
    assert frames_on(placement_named("chunk"), [A, B], 51)[-2:] == ["a", "b"]
    assert frames_on(placement_named("pinned:b, c"), [A, B, C], 2) == ["b", "c"]
    assert frames_on(placement_named("space", lambda node: Room(9 * (node == B))), [A, B], 1) == ["b"]


@pytest.mark.parametrize(
    "text", ["", "hsah", "chunk:0", "chunk:x", "chunk:-1", "pinned", "pinned:", "hash:1", "space:2"]
)
def test_an_unknown_placement_names_those_there_are(text: str) -> None:
    with pytest.raises(BadConfig):
        placement_named(text)
