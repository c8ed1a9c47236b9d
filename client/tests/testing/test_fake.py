"""What the fake node does beyond the conformance suite: faults, records, and a life of its own."""

from typing import Any

import pytest

from granum.testing import FakeNode, MemoryCluster
from granum.testing.conformance.talk import Talk, ask, put, request
from granum.wire.advert import Advertisement


def test_a_fault_by_status_answers_it_and_does_nothing_and_keeps_the_connection(node: FakeNode) -> None:
    node.fail_next(507)
    with Talk(node) as talk:
        failed = talk.ask("PUT", "/f", b"hello")
        assert (failed.status, failed.body) == (507, b"The node has no room left; free some or add a node.\n")
        assert dict(node.files) == {}
        assert talk.ask("PUT", "/f", b"hello").status == 200


def test_a_dropped_request_is_not_answered_and_not_carried_out(node: FakeNode) -> None:
    node.fail_next("drop")
    with Talk(node) as talk:
        talk.send(request("PUT", "/f", b"hello"))
        assert talk.is_closed()
    assert dict(node.files) == {}


def test_a_drop_lets_the_answers_before_it_through(node: FakeNode) -> None:
    node.fail_next("drop", verb="GET")
    with Talk(node) as talk:
        talk.send(request("PUT", "/f", b"hello"), request("GET", "/f"), request("PUT", "/g", b"hello"))
        assert (talk.reply("PUT").status, talk.is_closed()) == (200, True)
    assert dict(node.files) == {"/f": b"hello"}


def test_a_silent_node_answers_nothing_more_on_that_connection(node: FakeNode, run: Any) -> None:
    node.fail_next("silent")
    with Talk(node) as deaf:
        deaf.send(request("PUT", "/f", b"hello"), request("PUT", "/g", b"hello"))
        while ("PUT", "/f") not in node.requests:
            assert ask(node, "GET", "/__healthz").status == 200
        run(node.stop)
        assert deaf.is_closed()
    assert dict(node.files) == {}


def test_a_cut_reply_ends_in_the_middle_of_the_body(node: FakeNode) -> None:
    node.files["/f"] = b"hello you"
    node.fail_next("cut")
    with Talk(node) as talk:
        talk.send(request("GET", "/f"))
        with pytest.raises(AssertionError, match="shorter than its Content-Length"):
            talk.reply()


def test_a_cut_receipt_is_none_but_the_file_is_stored(node: FakeNode) -> None:
    node.fail_next("cut")
    with Talk(node) as talk:
        talk.send(request("PUT", "/f", b"hello"))
        with pytest.raises(AssertionError):
            talk.reply("PUT")
    assert dict(node.files) == {"/f": b"hello"}


def test_a_fault_waits_for_its_verb(node: FakeNode) -> None:
    node.fail_next(503, verb="PUT")
    assert [ask(node, "GET", "/").status, ask(node, "PUT", "/f", b"").status, ask(node, "PUT", "/f", b"").status] == [
        200,
        503,
        200,
    ]


def test_a_fault_strikes_as_often_as_it_was_asked_for_and_earlier_ones_first(node: FakeNode) -> None:
    node.fail_next(503, count=2)
    node.fail_next(500)
    assert [ask(node, "GET", "/").status for _ in range(4)] == [503, 503, 500, 200]


@pytest.mark.parametrize("fault", [200, 301, 600, "explode"])
def test_a_fault_that_does_not_exist_is_refused(node: FakeNode, fault: Any) -> None:
    with pytest.raises(ValueError, match="is no fault"):
        node.fail_next(fault)


def test_requests_are_recorded_as_they_came(node: FakeNode) -> None:
    put(node, "//a b".replace(" ", "%20"), b"1")
    ask(node, "GET", "/a%20b?x")
    assert node.requests == [("PUT", "//a%20b"), ("GET", "/a%20b?x")]


def test_an_assigned_file_is_served_with_its_directories(node: FakeNode) -> None:
    node.files["/run1/a/f"] = b"hello"
    assert ask(node, "GET", "/run1/").listing() == {"a/": [1, 1]}
    assert node.directories == {"/run1", "/run1/a"}


def test_an_added_directory_is_served_with_those_above_it(node: FakeNode) -> None:
    node.directories.add("/a/b")
    assert (ask(node, "GET", "/").listing(), ask(node, "GET", "/a/").listing()) == ({"a/": [1, 1]}, {"b/": [1, 0]})


def test_what_was_put_can_be_read_from_the_node(node: FakeNode) -> None:
    put(node, "/run%201/f", b"hello")
    assert (dict(node.files), node.directories) == ({"/run 1/f": b"hello"}, {"/run 1"})


def test_a_dead_node_drops_its_connections_and_takes_no_more(node: FakeNode, run: Any) -> None:
    with Talk(node) as talk:
        assert talk.ask("PUT", "/f", b"hello").status == 200
        run(node.die)
        assert talk.is_closed()
    with pytest.raises(ConnectionRefusedError):
        Talk(node)


def test_a_node_started_again_has_its_port_and_its_files(node: FakeNode, run: Any) -> None:
    put(node, "/f", b"hello")
    before = node.port
    run(node.die)
    run(node.start)
    assert (node.port, ask(node, "GET", "/f").body) == (before, b"hello")


def test_a_node_may_be_stopped_twice(node: FakeNode, run: Any) -> None:
    run(node.stop)
    run(node.stop)


def test_a_node_is_advertised_as_a_real_one(node: FakeNode) -> None:
    port = node.port
    instance = f"PYMEDataServer [lab]:scope1 - PID:{port}"
    assert node.advertisement == Advertisement(instance, "127.0.0.1", port, "4f2a", "fake")


def test_the_nodes_of_a_cluster_are_different_ones(reactor: Any, run: Any) -> None:
    cluster = MemoryCluster(reactor, n=3, cluster="lab")
    run(cluster.start)
    known = cluster.advertisements
    put(cluster.nodes[0], "/f", b"hello")
    statuses = [ask(node, "GET", "/f").status for node in cluster.nodes]
    run(cluster.stop)
    assert [(each.cluster, each.computer) for each in known] == [("lab", "fake0"), ("lab", "fake1"), ("lab", "fake2")]
    assert (len({each.port for each in known}), len({each.node_id for each in known})) == (3, 3)
    assert statuses == [200, 404, 404]
