"""What `granum doctor` finds wrong with nodes: each finding has a scene where it is made, and one where it is not."""

from dataclasses import replace
from typing import Any

import pytest

from granum.cli.diagnosis import CHECKS, diagnose
from granum.cli.finding import Finding
from granum.cli.seen import LIST, MDNS, REGISTRY, Answer, Found, Seen
from granum.wire.advert import Advertisement, instance_name

GB = 1_000_000_000


def found(number: int = 1, *sources: str, computer: str = "", cluster: str = "lab", **changes: Any) -> Found:
    """Return the node of machine *number*, which answers and is well."""
    address, node_id = changes.pop("address", f"10.0.0.{number}"), changes.pop("node_id", f"id-{number}")
    said = Advertisement(instance_name(cluster, computer or f"disk{number}", number), address, 15348, node_id)
    answer = changes.pop("answer", well(node_id, address))
    return Found(address, 15348, tuple((source, said) for source in sources or (MDNS,)), answer, **changes)


def well(node_id: str = "id-1", address: str = "10.0.0.1", **changes: Any) -> Answer:
    own = {"version": "1.0", "state": "serving", "writable": True, "quarantined": 0, **changes.pop("own", {})}
    disk = changes.pop("disk", {"total": 1000 * GB, "free": 500 * GB})
    status = {"IPAddress": address, "Port": 15348, "Disk": disk, "Granum": own}
    return Answer(status, node_id, **{"lead": (-0.4, 0.6), "may_put": True, **changes})


def told(**own: object) -> Found:
    return found(answer=well(own=own))


def seen(*nodes: Found, **changes: Any) -> Seen:
    return replace(Seen("lab", "1.0", nodes, interfaces=("eth0",)), **changes)


def wrong(scene: Seen, check: str) -> list[str]:
    return [finding.text for finding in diagnose(scene) if (finding.check, finding.state) == (check, "wrong")]


def only(scene: Seen, check: str) -> Finding:
    findings = [finding for finding in diagnose(scene) if finding.check == check]
    assert len(findings) == 1, findings
    return findings[0]


def test_a_cluster_that_is_well_has_one_line_for_each_check() -> None:
    findings = diagnose(seen(found(1), found(2), found(3)))
    assert [finding.check for finding in findings] == list(CHECKS)
    assert {finding.check: finding.state for finding in findings} == {
        **dict.fromkeys(CHECKS, "ok"),
        "mounts": "skipped",
        "share": "skipped",
    }
    assert not [finding for finding in findings if finding.remedy]


def test_everything_wrong_has_a_remedy_and_nothing_well_beside_it() -> None:
    findings = diagnose(seen(found(1), told(state="draining")))
    assert [finding.state for finding in findings if finding.check == "puts"] == ["wrong"]
    assert all(finding.remedy for finding in findings if finding.state == "wrong")


# -- multicast ---------------------------------------------------------------------------------------------------------


def test_a_machine_without_multicast_is_told() -> None:
    scene = seen(found(1, LIST), interfaces=())
    assert wrong(scene, "multicast") == ["no interface of this machine has multicast, so no node can be heard"]


def test_a_node_that_answers_and_is_not_heard_is_named() -> None:
    scene = seen(found(1), found(2, LIST))
    assert wrong(scene, "multicast") == ["disk2:15348 at 10.0.0.2:15348 answers, but is not heard by mDNS"]
    assert not wrong(seen(found(1), found(2, LIST, MDNS)), "multicast")


def test_nothing_heard_at_all_names_the_interfaces() -> None:
    assert wrong(seen(), "multicast") == ["no node of cluster 'lab' is heard by mDNS on eth0"]


def test_a_node_that_the_configuration_lists_need_not_be_heard() -> None:
    """The list is for networks that multicast does not reach; a node named on the command line is an experiment."""
    scene = seen(found(1, LIST), interfaces=())
    assert only(replace(scene, has_list=True), "multicast").state == "ok"
    assert only(replace(scene, found=(found(1), found(2, LIST)), has_list=True), "multicast").state == "ok"


def test_without_discovery_nobody_listens() -> None:
    assert only(seen(found(1, LIST), discovers=False), "multicast").state == "skipped"


def test_a_node_in_the_registry_needs_no_multicast() -> None:
    assert only(seen(found(1, REGISTRY), interfaces=()), "multicast").state == "ok"


# -- addresses -----------------------------------------------------------------------------------------------------------


def test_no_node_at_all_is_wrong() -> None:
    assert wrong(seen(discovers=False), "addresses") == ["no node of cluster 'lab' is known"]


def test_a_node_that_does_not_answer_is_named_with_the_cause() -> None:
    silent = found(1, answer=None, failure="node disk1:15348 at 10.0.0.1:15348 refuses the connection; is it running?")
    finding = only(seen(silent, found(2)), "addresses")
    assert finding.text == "node disk1:15348 at 10.0.0.1:15348 refuses the connection; is it running?"
    assert "systemctl status granum-node" in finding.remedy


def test_a_connection_that_is_closed_unread_points_to_the_allow_list() -> None:
    closed = found(1, answer=None, failure="node disk1 closed the connection", is_closed=True)
    assert "allow" in only(seen(closed), "addresses").remedy


def test_a_loopback_address_beside_nodes_of_a_network_is_wrong() -> None:
    here = found(1, address="127.0.0.1", answer=well(address="127.0.0.1"))
    assert wrong(seen(here, found(2)), "addresses") == [
        "disk1:15348 advertises 127.0.0.1, where its own machine alone reaches it"
    ]


def test_a_cluster_of_this_machine_alone_is_well() -> None:
    here = found(1, address="127.0.0.1", answer=well(address="127.0.0.1"))
    assert only(seen(here), "addresses").state == "ok"


def test_a_node_that_a_person_lists_by_loopback_advertises_nothing() -> None:
    here = found(1, LIST, address="127.0.0.1", answer=well(address="127.0.0.1"))
    assert only(seen(here, found(2)), "addresses").state == "ok"


def test_two_nodes_that_say_one_address_are_named() -> None:
    one, other = found(1), found(2, address="10.0.0.1")
    both = replace(one, advertisements=one.advertisements + other.advertisements)
    assert wrong(seen(both), "addresses") == ["2 nodes say that they listen at 10.0.0.1:15348: disk1, disk2"]


def test_one_node_that_two_sources_tell_of_is_one() -> None:
    assert only(seen(found(1, MDNS, LIST, REGISTRY)), "addresses").state == "ok"


def test_another_node_at_the_address_is_noticed() -> None:
    scene = seen(found(1, answer=well("id-9")))
    assert wrong(scene, "addresses") == ["another node than was advertised answers at 10.0.0.1:15348"]


# -- clocks --------------------------------------------------------------------------------------------------------------


def at(*leads: tuple[float, float]) -> Seen:
    return seen(*(found(number, answer=well(f"id-{number}", lead=lead)) for number, lead in enumerate(leads, start=1)))


def test_a_node_whose_clock_is_off_is_named() -> None:
    assert wrong(at((0, 1), (65.2, 66.3)), "clock") == ["the clock of disk2:15348 at 10.0.0.2:15348 is 65 s ahead"]
    assert wrong(at((0, 1), (-601, -600)), "clock") == ["the clock of disk2:15348 at 10.0.0.2:15348 is 10 min behind"]


def test_when_all_nodes_agree_against_this_machine_it_is_this_one() -> None:
    assert wrong(at((30, 31), (30.5, 31.5)), "clock") == ["the clock of this machine is 30 s behind all nodes"]
    assert wrong(at((-31, -30), (-31, -30)), "clock") == ["the clock of this machine is 30 s ahead of all nodes"]


def test_nodes_that_are_off_by_different_times_are_each_to_blame() -> None:
    assert len(wrong(at((30, 31), (500, 501)), "clock")) == 2


@pytest.mark.parametrize("lead", [(-0.5, 2.6), (-2.6, 0.5), (1.9, 2.9)])
def test_what_may_be_the_whole_second_of_a_date_is_no_skew(lead: tuple[float, float]) -> None:
    assert only(at(lead), "clock").state == "ok"


def test_a_node_without_a_date_is_no_clock() -> None:
    assert only(seen(found(1, answer=well(lead=None))), "clock").state == "skipped"


# -- names ---------------------------------------------------------------------------------------------------------------


def test_two_machines_of_one_name_are_told_apart() -> None:
    scene = seen(found(1, computer="disk"), found(2, computer="disk"))
    assert wrong(scene, "names") == ["2 nodes are called disk:15348: 10.0.0.1:15348, 10.0.0.2:15348"]


def test_a_copied_store_is_noticed() -> None:
    scene = seen(found(1), found(2, node_id="id-1", answer=well("id-1", "10.0.0.2")))
    assert wrong(scene, "names") == ["one store is served at 10.0.0.1:15348 and at 10.0.0.2:15348 (node id id-1)"]


def test_a_node_that_is_reached_at_two_addresses_is_one() -> None:
    scene = seen(found(1), found(2, LIST, computer="disk1", node_id="id-1", answer=well("id-1", "10.0.0.1")))
    assert not wrong(scene, "names")


def test_several_clusters_and_no_choice_are_wrong() -> None:
    scene = seen(found(1), found(2, cluster="other"), cluster="")
    assert wrong(scene, "names") == ["there are nodes of several clusters, lab, other, and none is chosen"]


def test_a_cluster_that_is_not_there_is_told_beside_those_that_are() -> None:
    scene = seen(cluster="lap", other_clusters=frozenset({"lab"}))
    assert wrong(scene, "names") == ["there is no cluster 'lap', but lab"]


def test_another_cluster_beside_the_chosen_one_is_well() -> None:
    assert only(seen(found(1), other_clusters=frozenset({"lab2"})), "names").state == "ok"


def test_clusters_that_differ_in_capitals_alone_are_wrong() -> None:
    scene = seen(found(1), other_clusters=frozenset({"Lab"}))
    assert wrong(scene, "names") == ["the clusters Lab and lab differ in capital letters alone"]


def test_where_pyme_is_used_no_cluster_may_contain_the_name_of_another() -> None:
    pyme = found(2, node_id="", answer=Answer({"Disk": {"total": 1000 * GB, "free": 500 * GB}}))
    scene = seen(found(1), pyme, other_clusters=frozenset({"lab2"}))
    assert wrong(scene, "names") == ["PYME's programs take the cluster lab2 for a part of lab, whose name it contains"]


# -- what nodes say ------------------------------------------------------------------------------------------------------


def test_a_full_node_is_named() -> None:
    full = found(1, answer=well(own={"state": "full", "writable": False}, disk={"total": 1000 * GB, "free": 10 * GB}))
    assert wrong(seen(full), "space") == ["disk1:15348 at 10.0.0.1:15348 has 10 GB of 1.0 TB: only its reserve is left"]


@pytest.mark.parametrize(("free", "count"), [(50, 0), (49, 1)])
def test_a_node_with_less_than_a_twentieth_is_nearly_full(free: int, count: int) -> None:
    scene = seen(found(1, answer=well(disk={"total": 1000 * GB, "free": free * GB})))
    assert len(wrong(scene, "space")) == count


def test_a_pyme_node_keeps_no_reserve_and_is_full_all_the_same() -> None:
    pyme = found(1, node_id="", answer=Answer({"Disk": {"total": 1000 * GB, "free": 9 * GB}}))
    assert "only its reserve is left" in wrong(seen(pyme), "space")[0]


def test_free_space_is_summed() -> None:
    assert only(seen(found(1), found(2)), "space").text == "1.0 TB free of 2.0 TB on 2 nodes"


def test_a_draining_node_is_named_with_the_way_back() -> None:
    finding = only(seen(told(state="draining")), "puts")
    assert finding.text == "disk1:15348 at 10.0.0.1:15348 is being drained and takes no puts"
    assert finding.remedy.endswith("curl -X PUT http://10.0.0.1:15348/__undrain")


def test_a_failed_node_is_named_with_its_reason() -> None:
    scene = seen(told(state="failed", failure="the disk reports Input/output error"))
    assert wrong(scene, "puts") == ["disk1:15348 at 10.0.0.1:15348 is read-only: the disk reports Input/output error"]


def test_allow_lists_that_differ_are_wrong_and_reading_only_is_not() -> None:
    refusing = found(1, answer=well(may_put=False))
    assert wrong(seen(refusing, found(2)), "puts") == [
        "disk1:15348 at 10.0.0.1:15348 lets this machine read only, where other nodes take its puts"
    ]
    assert only(seen(refusing), "puts") == Finding("puts", "ok", "this machine may read only, on every node")


def test_versions_that_differ_are_listed() -> None:
    scene = seen(told(version="1.1"), found(2))
    assert wrong(scene, "versions") == [
        "there are several versions: 1.0 on disk2:15348, this machine; 1.1 on disk1:15348"
    ]
    assert wrong(seen(found(1), version="0.9"), "versions") == [
        "there are several versions: 0.9 on this machine; 1.0 on disk1:15348"
    ]


def test_damaged_files_are_counted() -> None:
    assert wrong(seen(told(quarantined=3)), "damage") == ["disk1:15348 at 10.0.0.1:15348 has 3 files in quarantine"]


def test_where_no_node_answers_what_nodes_say_is_not_looked_at() -> None:
    silent = seen(found(1, answer=None, failure="node disk1 is silent"))
    states = {finding.check: finding.state for finding in diagnose(silent)}
    assert {check for check, state in states.items() if state == "skipped"} == {
        *("clock", "space", "puts", "versions", "damage", "mounts", "share")
    }
