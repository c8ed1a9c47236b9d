"""The union view: directories merge, copies are one file, and collisions are resolved alike by everybody and reported."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.roster import Node
from granum.union import merge
from granum.wire.errors import NodeTimeout
from granum.wire.listing import Entry, Flags, Listing

A, B, C = (Node(key, f"{key}:1", "10.0.0.1", 1, "lab", key) for key in "abc")


def listing(*entries: tuple[str, int, int]) -> Listing:
    return {name: Entry(name, Flags(flags), size) for name, flags, size in entries}


def test_names_of_all_nodes_are_there_in_order() -> None:
    view = merge({A: listing(("z", 0, 1)), B: listing(("a", 0, 2))}, {})
    assert [(name, view[name].size, view.holders(name)) for name in view] == [("a", 2, (B,)), ("z", 1, (A,))]


def test_directories_join_flags_and_add_sizes() -> None:
    view = merge({A: listing(("s", 3, 10)), B: listing(("s", 5, 7))}, {})
    assert (view["s"], view.holders("s")) == (Entry("s", Flags(7), 17), (A, B))


def test_equal_files_on_several_nodes_are_copies() -> None:
    view = merge({B: listing(("f", 0, 5)), A: listing(("f", 0, 5))}, {})
    assert (view["f"].size, view.holders("f"), view.collisions) == (5, (A, B), ())


def test_a_file_of_unknown_size_is_taken_for_a_copy() -> None:
    view = merge({A: listing(("f", 0, -1)), B: listing(("f", 0, 5))}, {})
    assert (view["f"].size, view.holders("f"), view.collisions) == (5, (A, B), ())


def test_files_of_different_sizes_collide_and_the_lowest_key_is_shown() -> None:
    view = merge({B: listing(("f", 0, 5)), A: listing(("f", 0, 6)), C: listing(("f", 0, 6))}, {})
    assert (view["f"].size, view.holders("f")) == (6, (A, C))
    assert [str(collision) for collision in view.collisions] == ["'f': 6 bytes on a:1, 5 bytes on b:1, 6 bytes on c:1"]


def test_a_file_against_a_directory_collides() -> None:
    view = merge({A: listing(("n", 1, 4)), B: listing(("n", 0, 9)), C: listing(("n", 1, 2))}, {})
    assert (view["n"], view.holders("n"), len(view.collisions)) == (Entry("n", Flags.DIRECTORY, 6), (A, C), 1)


def test_a_view_names_the_nodes_missing() -> None:
    cause = NodeTimeout("silent")
    view = merge({A: listing()}, {B: cause})
    assert (view.partial, view.missing) == (True, {"b:1": cause})


def test_an_empty_directory_is_stored_and_an_absent_one_is_not() -> None:
    assert merge({A: listing(), B: None}, {}).stored is True
    assert merge({A: None, B: None}, {}).stored is False


def test_holders_of_an_unknown_name_raise() -> None:
    with pytest.raises(KeyError):
        merge({A: listing()}, {}).holders("f")


ENTRIES = st.dictionaries(st.sampled_from("pqr"), st.tuples(st.sampled_from([0, 1, 3]), st.integers(-1, 3)))


@given(st.dictionaries(st.sampled_from([A, B, C]), ENTRIES), st.randoms())
def test_the_order_in_which_nodes_answer_does_not_matter(rows: dict, random) -> None:
    listings = {node: listing(*((name, *entry) for name, entry in found.items())) for node, found in rows.items()}
    shuffled = list(listings.items())
    random.shuffle(shuffled)
    one, other = merge(listings, {}), merge(dict(shuffled), {})
    assert [(name, one[name], one.holders(name)) for name in one] == [
        (name, other[name], other.holders(name)) for name in other
    ]
    assert one.collisions == other.collisions


@given(st.dictionaries(st.sampled_from([A, B, C]), ENTRIES))
def test_every_name_is_shown_as_its_lowest_holder_has_it(rows: dict) -> None:
    listings = {node: listing(*((name, *entry) for name, entry in found.items())) for node, found in rows.items()}
    view = merge(listings, {})
    assert set(view) == {name for found in rows.values() for name in found}
    for name in view:
        lowest = min((node for node in listings if name in listings[node]), key=lambda node: node.key)
        assert view.holders(name)[0] == lowest
        assert view[name].is_directory == listings[lowest][name].is_directory
