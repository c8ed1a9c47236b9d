"""The conformance suite fails where a node is wrong: each planted bug is caught by the test that claims the opposite."""

from collections.abc import Callable
from typing import Any

import pytest

from granum.testing import FakeNode, connection
from granum.testing.answer import Reply
from granum.testing.conformance import NodeConformance
from granum.testing.connection import NodeConnection
from granum.testing.request import Body, Head, SizedBody, body_of
from granum.testing.store import MemoryStore

Plant = Callable[[pytest.MonkeyPatch], None]
_head, _listing = Reply.head, MemoryStore.listing


def _overwrites(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryStore, "check_free", lambda store, path: None)


def _stores_what_arrived_before_the_end(patch: pytest.MonkeyPatch) -> None:
    def keep(served: Any) -> None:
        if served._head is not None:
            served._finish(served._head, bytes(served._body.received))
        served.transport.loseConnection()

    patch.setattr(NodeConnection, "readConnectionLost", keep)


def _does_not_drain(patch: pytest.MonkeyPatch) -> None:
    def forget(head: Head) -> Body:
        return SizedBody(0) if (head.length or 0) > 100_000 else body_of(head)

    patch.setattr(connection, "body_of", forget)


def _lists_a_third_element(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryStore, "listing", lambda store, path: _listing(store, path).replace(b"]", b",0]"))


def _sends_a_header_with_two_colons(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Reply, "head", lambda reply, common: _head(reply, [*common, ("X-Note", "a: b")]))


def _sends_a_body_to_head(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Reply, "sent_body", lambda reply: reply.body)


def _tells_a_path_of_the_host(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Reply, "sent_body", lambda reply: reply.body and b"/srv/store/" + reply.body[11:])


@pytest.mark.parametrize(
    ("plant", "claim"),
    [
        (_overwrites, "test_a_taken_name_is_405_and_its_bytes_stay"),
        (_overwrites, "test_of_four_puts_at_once_one_is_stored_and_three_are_405"),
        (_stores_what_arrived_before_the_end, "test_a_body_cut_short_leaves_nothing_and_a_retry_succeeds"),
        (_does_not_drain, "test_an_error_with_its_body_read_keeps_the_connection"),
        (_lists_a_third_element, "test_a_listing_maps_names_to_exactly_flags_and_size"),
        (_sends_a_header_with_two_colons, "test_a_file_is_answered_with_its_bytes_and_length"),
        (_sends_a_body_to_head, "test_head_of_a_file_has_the_headers_of_get"),
        (_tells_a_path_of_the_host, "test_no_error_tells_a_path_of_the_host"),
    ],
)
def test_a_planted_bug_is_caught(node: FakeNode, monkeypatch: pytest.MonkeyPatch, plant: Plant, claim: str) -> None:
    getattr(NodeConformance(), claim)(node)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        getattr(NodeConformance(), claim)(node)
