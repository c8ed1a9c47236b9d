"""A real daemon and its listings: conditional reads, and what is asked for while a directory grows."""

import json
from pathlib import Path

import pytest

from granum.testing.conformance.talk import Talk, ask, fresh, put, request
from integration.lab import NodeProcess
from node.tests.conftest import StartNode


def test_a_poller_gets_a_listing_again_only_when_it_has_changed(shared: NodeProcess) -> None:
    top = fresh()
    put(shared, f"{top}/d/f", b"hello")
    first = ask(shared, "GET", f"{top}/")
    tag = first.headers["etag"]
    with Talk(shared) as talk:
        talk.send(request("GET", f"{top}/", If_None_Match=tag))
        again = talk.reply("HEAD")  # as to a HEAD, there is no body
        assert talk.ask("GET", f"{top}/").body == first.body
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    put(shared, f"{top}/d/g", b"hello")
    changed = ask(shared, "GET", f"{top}/", If_None_Match=tag)
    assert (changed.status, changed.listing()) == (200, {"d/": [1, 2]})
    assert changed.headers["etag"] != tag


def test_a_condition_on_another_version_of_a_listing_fails(shared: NodeProcess) -> None:
    top = fresh()
    put(shared, f"{top}/f", b"hello")
    assert ask(shared, "GET", f"{top}/", If_Match='"other"').status == 412
    assert ask(shared, "GET", f"{top}/", If_Match="*").status == 200


def test_conditions_of_time_do_not_count_for_a_listing(shared: NodeProcess) -> None:
    """It has no date: what it says changes with what lies below."""
    top = fresh()
    put(shared, f"{top}/f", b"hello")
    late, early = "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"
    assert ask(shared, "GET", f"{top}/", If_Modified_Since=late).status == 200
    assert ask(shared, "GET", f"{top}/", If_Unmodified_Since=early).status == 200


@pytest.mark.parametrize("durability", ["commit", "relaxed"])
def test_a_receipt_is_in_every_listing_asked_for_after_it(start_node: StartNode, durability: str) -> None:
    node = start_node(environment={"GRANUM_NODE_DURABILITY": durability})
    with Talk(node) as writer, Talk(node) as reader:
        for number in range(1, 40):
            writer.send(request("PUT", f"/a/b/{number}", b"x"))
            assert writer.reply("PUT").status == 200
            reader.send(request("GET", "/a/b/"), request("GET", "/a/"))
            below, above = reader.reply().listing(), reader.reply().listing()
            assert (len(below), above) == (number, {"b/": [1, number]})


def test_a_listing_of_megabytes_arrives_whole_also_when_it_is_read_slowly(start_node: StartNode) -> None:
    node = start_node()
    directory: Path = node.root / "many"
    directory.mkdir()
    for number in range(5_000):
        (directory / f"a-name-that-makes-the-listing-long-{number:06}{'x' * 160}").touch()
    with Talk(node) as talk:
        talk.send(*[request("GET", "/many/")] * 8)
        bodies = {talk.reply().body for _ in range(8)}
    assert len(bodies) == 1
    assert len(json.loads(bodies.pop())) == 5_000
