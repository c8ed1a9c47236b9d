"""The roster: identity is the node id, hints are merged, and a crash is not a goodbye."""

from hypothesis import given
from hypothesis import strategies as st

from granum.roster import MISSING_KEEP_S, Node, Roster
from granum.wire.advert import Advertisement
from granum.wire.errors import NodeTimeout

INSTANCE = "PYMEDataServer [lab]:scope1 - PID:7"
CAUSE = NodeTimeout("no answer")


def advert(
    instance: str = INSTANCE, address: str = "10.0.0.5", port: int = 15348, node_id: str = "id-1"
) -> Advertisement:
    return Advertisement(instance, address, port, node_id)


def test_an_advertised_node_is_known_by_its_id_and_named_for_people() -> None:
    roster = Roster("lab")
    roster.heard(advert(), "mdns", 0.0)
    assert roster.nodes() == (Node("id-1", "scope1:15348", "10.0.0.5", 15348, "lab", "id-1"),)


def test_only_nodes_of_exactly_the_wanted_cluster_count() -> None:
    roster = Roster("lab")
    roster.heard(advert("PYMEDataServer [lab2]:scope1 - PID:7"), "mdns", 0.0)
    assert roster.nodes() == ()


def test_without_a_cluster_name_every_node_counts() -> None:
    roster = Roster("")
    roster.heard(advert("PYMEDataServer [x]:scope1 - PID:7"), "mdns", 0.0)
    assert [node.cluster for node in roster.nodes()] == ["x"]


def test_mdns_and_registry_advertising_one_instance_are_one_node() -> None:
    for order in (("mdns", "registry"), ("registry", "mdns")):
        roster = Roster("lab")
        for source in order:
            roster.heard(advert(node_id="id-1" if source == "mdns" else ""), source, 0.0)
        assert [node.key for node in roster.nodes()] == ["id-1"], order


def test_a_listed_host_and_an_advertised_node_on_one_port_are_one_node() -> None:
    roster = Roster("lab")
    roster.heard(advert(node_id=""), "mdns", 0.0)
    roster.heard(Advertisement("10.0.0.5:15348", "10.0.0.5", 15348), "list", 0.0)
    assert [node.key for node in roster.nodes()] == [INSTANCE]


def test_a_node_without_id_is_known_by_its_instance_name() -> None:
    roster = Roster("lab")
    roster.heard(advert(node_id=""), "mdns", 0.0)
    assert [(node.key, node.node_id) for node in roster.nodes()] == [(INSTANCE, "")]


def test_a_new_address_for_a_known_id_replaces_the_old_one() -> None:
    roster = Roster("lab")
    roster.heard(advert(), "mdns", 0.0)
    roster.heard(advert(address="10.0.0.9", port=4000), "mdns", 1.0)
    assert [node.host for node in roster.nodes()] == ["10.0.0.9:4000"]


def test_a_restarted_node_with_a_new_process_is_the_same_node() -> None:
    roster = Roster("lab")
    roster.heard(advert(), "mdns", 0.0)
    roster.heard(advert("PYMEDataServer [lab]:scope1 - PID:8", port=4000), "mdns", 1.0)
    assert [node.host for node in roster.nodes()] == ["10.0.0.5:4000"]
    roster.gone(INSTANCE, "mdns", 120.0)  # the old record runs out
    assert [node.host for node in roster.nodes()] == ["10.0.0.5:4000"]


def test_hearing_the_same_again_does_not_bring_back_an_old_address() -> None:
    roster = Roster("lab")
    roster.heard(advert(node_id="", address="127.0.0.1"), "registry", 0.0)
    roster.heard(advert(), "mdns", 1.0)
    roster.heard(advert(node_id="", address="127.0.0.1"), "registry", 2.0)
    assert [node.address for node in roster.nodes()] == ["10.0.0.5"]


def test_a_goodbye_removes_a_node_at_once() -> None:
    roster = Roster("lab")
    roster.heard(advert(), "mdns", 0.0)
    roster.answered("id-1", 1.0)
    roster.gone(INSTANCE, "mdns", 2.0)
    assert roster.states() == ()


def test_a_node_stays_while_one_source_still_advertises_it() -> None:
    roster = Roster("lab")
    roster.heard(advert(), "mdns", 0.0)
    roster.heard(advert(node_id=""), "registry", 0.0)
    roster.gone(INSTANCE, "mdns", 1.0)
    assert len(roster.nodes()) == 1


def test_a_failed_node_is_missing_until_it_answers() -> None:
    roster = Roster("lab")
    roster.heard(advert(), "mdns", 0.0)
    roster.failed("id-1", 1.0, CAUSE)
    assert roster.nodes() == ()
    assert list(roster.missing().values()) == [CAUSE]
    roster.answered("id-1", 2.0)
    assert (len(roster.nodes()), dict(roster.missing())) == (1, {})


def test_a_node_that_failed_before_it_left_stays_missing_for_a_while() -> None:
    roster = Roster("lab")
    roster.heard(advert(), "mdns", 0.0)
    roster.failed("id-1", 10.0, CAUSE)
    roster.gone(INSTANCE, "mdns", 20.0)
    roster.forget_missing(10.0 + MISSING_KEEP_S - 1)
    assert [node.name for node in roster.missing()] == ["scope1:15348"]
    roster.forget_missing(10.0 + MISSING_KEEP_S)
    assert roster.states() == ()


def test_a_crashed_node_that_returns_is_not_counted_twice() -> None:
    roster = Roster("lab")
    roster.heard(advert(), "mdns", 0.0)
    roster.failed("id-1", 1.0, CAUSE)
    roster.gone(INSTANCE, "mdns", 2.0)
    roster.heard(advert("PYMEDataServer [lab]:scope1 - PID:8"), "mdns", 3.0)
    roster.answered("id-1", 3.0)
    assert [(state.node.key, state.cause) for state in roster.states()] == [("id-1", None)]


def test_a_listed_host_that_turns_out_to_be_a_node_leaves_no_ghost() -> None:
    roster = Roster("lab")
    roster.heard(Advertisement("10.0.0.5:15348", "10.0.0.5", 15348), "list", 0.0)
    roster.failed("10.0.0.5:15348", 0.0, CAUSE)
    roster.gone("10.0.0.5:15348", "list", 5.0)
    roster.heard(advert(), "list", 5.0)
    assert [(state.node.key, state.cause) for state in roster.states()] == [("id-1", None)]


def test_a_listed_host_is_known_by_its_name_while_it_does_not_answer() -> None:
    roster = Roster("lab")
    roster.heard(Advertisement("scope9:15348", "scope9", 15348), "list", 0.0)
    roster.failed("scope9:15348", 0.0, CAUSE)
    assert [node.name for node in roster.missing()] == ["scope9:15348"]


def test_two_nodes_with_one_name_can_be_told_apart() -> None:
    roster = Roster("lab")
    roster.heard(advert(), "mdns", 0.0)
    roster.heard(advert("PYMEDataServer [lab]:scope1 - PID:9", address="10.0.0.6", node_id="id-2"), "mdns", 0.0)
    assert [node.name for node in roster.nodes()] == ["scope1:15348 [id-1]", "scope1:15348 [id-2]"]


def test_the_key_of_an_instance_is_that_of_its_node() -> None:
    roster = Roster("lab")
    roster.heard(advert(), "mdns", 0.0)
    roster.heard(advert(node_id=""), "registry", 0.0)
    assert roster.key_of(INSTANCE, "registry") == "id-1"


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["heard", "gone", "failed", "answered"]),
        st.sampled_from(["mdns", "registry", "list"]),
        st.integers(0, 3),  # instance, and with it the process
        st.integers(0, 2),  # address
        st.sampled_from(["", "id-1", "id-2"]),
    ),
    max_size=30,
)


@given(EVENTS)
def test_whatever_is_heard_keys_are_unique_and_a_roster_without_records_has_only_crashed_nodes(events: list) -> None:
    roster = Roster("")
    records = set()
    for now, (event, source, instance, address, node_id) in enumerate(events):
        name = f"PYMEDataServer [lab]:c - PID:{instance}"
        if event == "heard":
            roster.heard(Advertisement(name, f"10.0.0.{address}", 1, node_id), source, now)
            records.add((source, name))
        elif event == "gone":
            roster.gone(name, source, now)
            records.discard((source, name))
        else:
            for key in {state.node.key for state in roster.states()}:
                getattr(roster, event)(*([key, now, CAUSE] if event == "failed" else [key, now]))
        keys = [state.node.key for state in roster.states()]
        assert keys == sorted(set(keys))
        if not records:
            assert roster.nodes() == ()
        elif event == "heard":
            assert roster.key_of(name, source) in keys
