"""Placement by default: the node left unwritten longest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.placement import Ledger, least_recently_written
from granum.roster import Node
from granum.wire.errors import NoNode

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
