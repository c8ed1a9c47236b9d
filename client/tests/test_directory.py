"""The directory: answers are never older than their expiry, own writes show at once, absence is only said when it is known."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from granum import directory
from granum.directory import LISTING_NAMES_MAX, Directory, ListingCache
from granum.roster import Node, Roster
from granum.wire.advert import Advertisement
from granum.wire.digest import XXH3, Digest
from granum.wire.errors import NodeTimeout, NoNode, NotADirectory, NotStored, Partial
from granum.wire.listing import Entry, Flags, Listing
from granum.wire.paths import ROOT, ClusterPath

RUN = ClusterPath.of(["run"])
FILE = ClusterPath.of(["run", "f"])


def _computer(node: Node) -> str:
    return node.name.partition(":")[0]


class Files:
    """A transfer with nodes in memory: key -> path -> size. It counts what it is asked and can keep one waiting."""

    def __init__(self) -> None:
        self.sizes: dict[str, dict[str, int]] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.silent: set[str] = set()
        self.digests: dict[tuple[str, str], str] = {}
        self.held: Deferred[Any] = succeed(None)

    async def listing(self, node: Node, path: ClusterPath) -> Listing | None:
        self.asked.append(("listing", _computer(node), str(path)))
        found = self._below(node, path)
        await self.held
        return found

    async def head(self, node: Node, path: ClusterPath) -> Entry | None:
        self.asked.append(("head", _computer(node), str(path)))
        if _computer(node) in self.silent:
            raise NodeTimeout(f"node {node} is silent")
        if str(path) in self.sizes[_computer(node)]:
            return Entry(path.name, Flags.FILE, self.sizes[_computer(node)][str(path)])
        return Entry(path.name, Flags.DIRECTORY, -1) if self._below(node, path) else None

    async def digest(self, node: Node, path: ClusterPath) -> Digest | None:
        self.asked.append(("digest", _computer(node), str(path)))
        if _computer(node) in self.silent:
            raise NodeTimeout(f"node {node} is silent")
        value = self.digests.get((_computer(node), str(path)))
        return None if value is None else Digest(XXH3, value)

    def _below(self, node: Node, path: ClusterPath) -> Listing | None:
        if _computer(node) in self.silent:
            raise NodeTimeout(f"node {node} is silent")
        prefix = str(path).rstrip("/") + "/"
        below = {
            name[len(prefix) :]: size for name, size in self.sizes[_computer(node)].items() if name.startswith(prefix)
        }
        names = {name: Entry(name, Flags.FILE, size) for name, size in below.items() if "/" not in name}
        names |= {name.split("/")[0]: Entry(name.split("/")[0], Flags.DIRECTORY, 1) for name in below if "/" in name}
        return names if names or not path.parts else None


class World:
    """Nodes 'a', 'b' in a roster, what they store, and a directory over them."""

    def __init__(self, **sizes: dict[str, int]) -> None:
        self.clock = Clock()
        self.files = Files()
        self.files.sizes = sizes
        self.roster = Roster("lab")
        for number, key in enumerate(sizes):
            instance = f"PYMEDataServer [lab]:{key} - PID:{number}"
            node_id = "" if key.startswith("pyme") else key
            self.roster.heard(Advertisement(instance, "10.0.0.1", number + 1, node_id), "mdns", 0.0)
        self.directory = Directory(self.files, self.roster, self.clock.seconds)  # type: ignore[arg-type]

    def do(self, coroutine: Any) -> Any:
        """Run *coroutine*, which must end at once; return or raise what it gives."""
        results: list[Any] = []
        deferred = Deferred.fromCoroutine(coroutine)
        deferred.addBoth(results.append)
        [result] = results
        if hasattr(result, "raiseException"):
            result.raiseException()
        return result


def test_a_view_is_asked_of_all_nodes_and_answered_from_the_cache_within_its_expiry() -> None:
    world = World(a={"/run/f": 1}, b={"/run/g": 2})
    assert list(world.do(world.directory.view(RUN))) == ["f", "g"]
    world.clock.advance(0.79)
    world.files.sizes["a"]["/run/late"] = 3
    assert list(world.do(world.directory.view(RUN))) == ["f", "g"]
    assert world.files.asked == [("listing", "a", "/run"), ("listing", "b", "/run")]


def test_an_expired_listing_is_asked_for_anew() -> None:
    world = World(a={"/run/f": 1})
    world.do(world.directory.view(RUN))
    world.files.sizes["a"]["/run/late"] = 3
    world.clock.advance(0.8)
    assert list(world.do(world.directory.view(RUN))) == ["f", "late"]


def test_an_own_write_shows_at_once_in_its_directory_and_above() -> None:
    world = World(a={"/old/x": 1})
    world.do(world.directory.view(ROOT))
    world.files.sizes["a"]["/run/f"] = 1
    world.directory.forget(FILE)
    assert list(world.do(world.directory.view(ROOT))) == ["old", "run"]


def test_an_own_write_leaves_other_directories_in_the_cache() -> None:
    world = World(a={"/run/f": 1, "/other/g": 1})
    world.do(world.directory.view(ClusterPath.of(["other"])))
    world.directory.forget(FILE)
    world.do(world.directory.view(ClusterPath.of(["other"])))
    assert world.files.asked == [("listing", "a", "/other")]


def test_a_listing_that_was_on_its_way_during_an_own_write_is_not_kept() -> None:
    world = World(a={"/run/f": 1})
    world.files.held = Deferred()
    on_its_way = Deferred.fromCoroutine(world.directory.view(RUN))
    world.files.sizes["a"]["/run/own"] = 1
    world.directory.forget(RUN / "own")
    world.files.held.callback(None)
    assert list(on_its_way.result) == ["f"]  # type: ignore[attr-defined]
    assert list(world.do(world.directory.view(RUN))) == ["f", "own"]


def test_locate_answers_from_a_fresh_listing_without_asking() -> None:
    world = World(a={"/run/f": 1}, b={"/run/g": 2})
    world.do(world.directory.view(RUN))
    world.files.asked.clear()
    assert [node.key for node in world.do(world.directory.locate(FILE))] == ["a"]
    assert world.files.asked == []


def test_what_a_fresh_listing_lacks_is_asked_for_since_another_client_may_have_stored_it() -> None:
    world = World(a={"/run/f": 1}, b={"/run/g": 2})
    world.do(world.directory.view(RUN))
    world.files.sizes["b"]["/run/late"] = 3
    assert [node.key for node in world.do(world.directory.locate(RUN / "late"))] == ["b"]
    with pytest.raises(NotStored):
        world.do(world.directory.locate(RUN / "absent"))


def test_locate_asks_by_head_without_a_listing() -> None:
    world = World(a={"/run/f": 1}, b={"/run/g": 2})
    assert [node.key for node in world.do(world.directory.locate(FILE))] == ["a"]
    assert world.files.asked == [("head", "a", "/run/f"), ("head", "b", "/run/f")]


def test_a_listing_of_a_pyme_node_is_not_trusted_about_what_is_stored() -> None:
    world = World(pyme={"/run/f": 1})
    world.do(world.directory.view(RUN))
    world.files.asked.clear()
    world.do(world.directory.locate(FILE))
    assert [question for question, *_ in world.files.asked] == ["head"]


def test_a_fresh_answer_is_asked_for_even_where_a_listing_knows() -> None:
    world = World(a={"/run/f": 1})
    world.do(world.directory.view(RUN))
    world.files.sizes["a"]["/run/late"] = 3
    assert world.do(world.directory.find(RUN / "late", fresh=True)).stored is True


def test_copies_are_all_located_and_of_a_collision_the_lowest_key() -> None:
    world = World(a={"/run/f": 1}, b={"/run/f": 2}, c={"/run/f": 1})
    assert [node.key for node in world.do(world.directory.locate(FILE))] == ["a", "c"]


def test_a_silent_node_makes_a_view_partial_and_is_named() -> None:
    world = World(a={"/run/f": 1}, b={"/run/g": 2})
    world.files.silent.add("b")
    view = world.do(world.directory.view(RUN))
    assert (list(view), list(view.missing)) == (["f"], ["b:2"])


def test_not_stored_is_said_only_when_every_node_answered() -> None:
    world = World(a={"/run/f": 1}, b={"/run/g": 2})
    with pytest.raises(NotStored):
        world.do(world.directory.locate(RUN / "absent"))
    world.files.silent.add("b")
    with pytest.raises(Partial, match=r"b:2: node b:2 .*silent"):
        world.do(world.directory.locate(RUN / "absent2"))


def test_a_missing_node_is_not_asked_but_named() -> None:
    world = World(a={"/run/f": 1}, b={"/run/g": 2})
    world.roster.failed("b", 0.0, NodeTimeout("gone"))
    view = world.do(world.directory.view(RUN))
    assert (view.partial, {key for _, key, _ in world.files.asked}) == (True, {"a"})


def test_a_directory_on_one_node_is_an_empty_contribution_of_the_others() -> None:
    world = World(a={"/run/f": 1}, b={})
    view = world.do(world.directory.view(RUN))
    assert (list(view), view.partial) == (["f"], False)


def test_an_absent_directory_is_not_stored_or_partial_when_a_node_is_missing() -> None:
    world = World(a={"/run/f": 1}, b={})
    with pytest.raises(NotStored):
        world.do(world.directory.view(ClusterPath.of(["absent"])))
    world.files.silent.add("b")
    with pytest.raises(Partial):
        world.do(world.directory.view(ClusterPath.of(["absent"])))


def test_listing_a_file_says_that_it_is_no_directory() -> None:
    world = World(a={"/run/f": 1})
    with pytest.raises(NotADirectory):
        world.do(world.directory.view(FILE))


def test_an_empty_root_is_a_view_and_not_an_error() -> None:
    world = World(a={}, b={})
    assert list(world.do(world.directory.view(ROOT))) == []


def test_without_nodes_there_is_no_answer() -> None:
    world = World()
    with pytest.raises(NoNode):
        world.do(world.directory.view(ROOT))


def test_the_cache_holds_a_bounded_number_of_names_and_drops_the_oldest() -> None:
    clock, node = Clock(), Node("a", "a:1", "10.0.0.1", 1, "lab", "a")
    cache = ListingCache(clock.seconds)
    half = {str(n): Entry(str(n), Flags.FILE, 1) for n in range(LISTING_NAMES_MAX // 2)}
    paths = [ClusterPath.of([name]) for name in ("one", "two", "three")]
    for path in paths:
        question = cache.asking(path, node)
        cache.put(question, node, half)
        cache.answered(question)
    assert [cache.get(path, node) is not None for path in paths] == [False, False, True]


def test_the_age_of_a_listing_counts_from_the_question() -> None:
    """A node that answers slowly may have read its disk at once: what it says is as old as the question."""
    world = World(a={"/run/f": 1})
    world.files.held = Deferred()
    view = Deferred.fromCoroutine(world.directory.view(RUN))
    world.clock.advance(0.7)
    world.files.held.callback(None)
    assert view.called
    world.files.sizes["a"]["/run/g"] = 1
    world.clock.advance(0.2)
    assert list(world.do(world.directory.view(RUN))) == ["f", "g"]


# -- what this client has receipts for ---------------------------------------------------------------------------------


def _node(world: World, key: str) -> Node:
    return next(node for node in world.roster.nodes() if node.key == key)


def test_a_receipted_file_shows_at_once_and_nobody_is_asked_again() -> None:
    world = World(a={"/run/f": 1}, b={"/run/g": 2})
    world.do(world.directory.view(RUN))
    world.files.asked.clear()
    world.directory.stored(RUN / "own", 7, _node(world, "b"))
    view = world.do(world.directory.view(RUN))
    assert (list(view), view["own"].size, view.holders("own")[0].key) == (["f", "g", "own"], 7, "b")
    assert world.files.asked == []


def test_a_receipt_that_comes_while_a_listing_is_on_its_way_belongs_to_it() -> None:
    world = World(a={"/run/f": 1})
    world.files.held = Deferred()
    on_its_way = Deferred.fromCoroutine(world.directory.view(RUN))
    world.files.sizes["a"]["/run/own"] = 7
    world.directory.stored(RUN / "own", 7, _node(world, "a"))
    world.files.held.callback(None)
    assert list(on_its_way.result) == ["f", "own"]  # type: ignore[attr-defined]
    world.files.asked.clear()
    assert list(world.do(world.directory.view(RUN))) == ["f", "own"]
    assert world.files.asked == []


def test_the_first_receipt_in_a_new_directory_shows_the_directory_above() -> None:
    world = World(a={"/old/x": 1}, b={})
    world.do(world.directory.view(ROOT))
    world.files.sizes["b"]["/run/f"] = 1
    world.directory.stored(FILE, 1, _node(world, "b"))
    assert list(world.do(world.directory.view(ROOT))) == ["old", "run"]


def test_a_receipt_of_a_mark_shows_above_that_the_series_is_complete() -> None:
    world = World(a={"/run/f": 1})
    world.do(world.directory.view(ROOT))
    world.files.asked.clear()
    world.directory.stored(RUN / "events.json", 2, _node(world, "a"))
    world.do(world.directory.view(ROOT))
    assert world.files.asked == [("listing", "a", "/")]


def test_receipts_do_not_grow_a_listing_that_has_expired() -> None:
    world = World(a={"/run/f": 1})
    world.do(world.directory.view(RUN))
    world.clock.advance(1.0)
    for n in range(3):
        world.directory.stored(RUN / f"own{n}", 1, _node(world, "a"))
    assert world.directory._cache._names == 0


@given(st.lists(st.tuples(st.sampled_from(["f1", "f2", "f3", "f4"]), st.sampled_from("ab")), max_size=8), st.data())
def test_whatever_was_receipted_is_in_every_later_view(receipts: list[tuple[str, str]], data: Any) -> None:
    """In any interleaving of receipts, questions and the clock."""
    world = World(a={"/run/f0": 1}, b={"/run/f0": 1})
    world.files.digests = {}
    for name, key in receipts:
        if data.draw(st.booleans()):
            world.do(world.directory.view(RUN))
        world.clock.advance(data.draw(st.sampled_from([0.0, 0.4, 1.0])))
        world.files.sizes[key][f"/run/{name}"] = 5
        world.directory.stored(RUN / name, 5, _node(world, key))
        view = world.do(world.directory.view(RUN))
        assert key in [node.key for node in view.holders(name)]


# -- copies and collisions ---------------------------------------------------------------------------------------------


def test_files_of_one_size_and_different_digests_collide_and_the_lowest_key_is_read() -> None:
    world = World(a={"/run/f": 1}, b={"/run/f": 1}, c={"/run/f": 1})
    world.files.digests = {("a", "/run/f"): "1" * 32, ("b", "/run/f"): "2" * 32, ("c", "/run/f"): "1" * 32}
    view = world.do(world.directory.view(RUN))
    assert [node.key for node in view.holders("f")] == ["a", "c"]
    assert [node.key for node in world.do(world.directory.locate(FILE))] == ["a", "c"]
    [(where, collision)] = world.directory.collisions
    assert where == RUN
    assert str(collision) == "'f': 1 bytes on a:1, 1 bytes on b:2, 1 bytes on c:3, of different bytes"


def test_copies_are_asked_for_their_digests_once() -> None:
    world = World(a={"/run/f": 1}, b={"/run/f": 1})
    world.files.digests = {("a", "/run/f"): "1" * 32, ("b", "/run/f"): "1" * 32}
    for _ in range(3):
        world.do(world.directory.view(RUN))
        world.clock.advance(1.0)
    assert sorted(key for kind, key, _ in world.files.asked if kind == "digest") == ["a", "b"]
    assert world.directory.collisions == ()


def test_a_file_without_a_digest_is_believed_to_be_a_copy() -> None:
    world = World(a={"/run/f": 1}, b={"/run/f": 1})
    world.files.digests = {("b", "/run/f"): "1" * 32}
    assert [node.key for node in world.do(world.directory.locate(FILE))] == ["a", "b"]


def test_a_directory_full_of_copies_is_told_apart_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "COPIES_ASKED_MAX", 2)
    names = [f"/run/f{n}" for n in range(5)]
    world = World(a=dict.fromkeys(names, 1), b=dict.fromkeys(names, 1))
    world.files.digests = {(key, name): str(place) * 32 for place, key in enumerate("ab") for name in names}
    found = [len(world.do(world.directory.view(RUN)).collisions) for _ in range(4)]
    assert found == [2, 4, 5, 5]
