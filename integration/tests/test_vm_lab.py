"""The rules of the virtual-machine lab, which need no machine: topology, recaps, listeners, bounds, the table."""

import threading
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import cast

import pytest
import yaml

from integration.vm import board, host, lab, topology
from integration.vm.filming import differing, digests
from integration.vm.provision import Recap, recaps
from integration.vm.scenario_70_unit import listeners

ROOT = Path(__file__).parents[2]
TEXT = """
prefix: lab
machines:
  a: {group: storage_nodes, address: 10.9.0.1, disk_gib: 4}
  b: {group: storage_nodes, address: 10.9.0.2, disk_gib: 4}
  g: {group: gateways, address: 10.9.0.3}
  c: {group: clients, address: 10.9.0.4}
vars: {granum_cluster_name: lab}
"""
NO_LAB = cast("lab.Lab", None)


def test_machines_keep_the_order_of_the_file_and_know_their_group() -> None:
    found = topology.parse(TEXT)
    assert [machine.name for machine in found.of_group("storage_nodes")] == ["a", "b"]
    assert found.domain(found.machines[2]) == "lab-g"
    assert [machine.has_disk for machine in found.machines] == [True, True, False, False]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("gateways", "gates", "no group 'gates'"),
        ("10.9.0.2", "10.9.0.1", "one address"),
        ("group: clients", "group: monitoring", "clients: the scenarios need 1"),
    ],
)
def test_a_topology_that_cannot_work_is_refused(old: str, new: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        topology.parse(TEXT.replace(old, new))


def test_the_topology_of_the_repository_is_one() -> None:
    found = topology.parse((ROOT / "vagrant" / "topology.yml").read_text())
    allowed = {entry["cidr"]: entry["access"] for entry in found.variables["granum_networks"]}
    gateway, client = found.of_group("gateways")[0], found.of_group("clients")[0]
    nodes = allowed.pop("192.168.61.8/29")
    assert nodes == "rw"
    assert all(ip_address(node.address) in ip_network("192.168.61.8/29") for node in found.of_group("storage_nodes"))
    assert allowed == {f"{gateway.address}/32": "ro", f"{client.address}/32": "rw"}


def test_the_inventory_has_every_machine_in_its_group_and_the_variables_for_all() -> None:
    tree = yaml.safe_load(topology.inventory(topology.parse(TEXT), "/some/config"))["all"]
    groups = tree["children"]["granum"]["children"]
    assert {name: list(group["hosts"]) for name, group in groups.items()} == {
        "storage_nodes": ["a", "b"],
        "gateways": ["g"],
        "clients": ["c"],
    }
    assert tree["vars"]["granum_cluster_name"] == "lab"
    assert tree["vars"]["ansible_ssh_common_args"].startswith("-F /some/config ")


def test_packages_are_listed_one_a_line_with_comments() -> None:
    assert host.listed("# why\nvagrant\n\nqemu-utils  # disks\n") == ["vagrant", "qemu-utils"]


def test_the_recap_of_a_playbook_is_read_for_each_host() -> None:
    printed = """
PLAY RECAP *********
a    : ok=9    changed=3    unreachable=0    failed=0    skipped=1    rescued=0    ignored=0
PLAY RECAP *********
a    : ok=9    changed=0    unreachable=0    failed=0    skipped=1    rescued=0    ignored=0
b    : ok=1    changed=0    unreachable=1    failed=2    skipped=1    rescued=0    ignored=0
"""
    assert recaps(printed) == {"a": Recap(9, 0, 0, 0), "b": Recap(1, 0, 1, 2)}


def test_a_playbook_that_reached_nobody_has_no_recap() -> None:
    assert recaps("skipping: no hosts matched\n\nPLAY RECAP *****\n") == {}


def test_what_listens_on_loopback_alone_is_not_counted() -> None:
    printed = """\
udp   UNCONN 0 0      0.0.0.0:5353  0.0.0.0:*
tcp   LISTEN 0 4096 127.0.0.1:9100  0.0.0.0:*
tcp   LISTEN 0 128       [::]:22       [::]:*
tcp   LISTEN 0 128      [::1]:631      [::]:*
tcp   LISTEN 0 50   10.9.0.1%eth1:445 0.0.0.0:*
"""
    assert listeners(printed) == {"udp/5353", "tcp/22", "tcp/445"}


def test_digests_are_those_of_sha256sum_and_a_missing_or_surplus_frame_differs() -> None:
    found = digests("aa  frame00000.pzf\nbb *here/frame00001.pzf\n")
    assert found == {"frame00000.pzf": "aa", "frame00001.pzf": "bb"}
    assert differing(
        {"frame00000.pzf": "aa", "frame00001.pzf": "xx", "frame00002.pzf": "cc"}, {**found, "more": "dd"}
    ) == [
        "frame00001.pzf",
        "frame00002.pzf",
        "more",
    ]


def test_a_scenario_that_takes_too_long_has_failed_and_the_next_one_runs() -> None:
    def hangs(_: lab.Lab) -> str:
        threading.Event().wait(30)
        return "never"

    late = board.judge(board.Scenario("hangs", "it ends", 0.05, hangs), NO_LAB)
    after = board.judge(board.Scenario("quick", "it ends", 5, lambda _: "fine"), NO_LAB)
    assert (late.held, late.said) == (False, "hangs took longer than 0 s")
    assert (after.held, after.said) == (True, "fine")


def test_a_scenario_gets_no_more_time_than_the_whole_run_has_left() -> None:
    def hangs(_: lab.Lab) -> str:
        threading.Event().wait(30)
        return "never"

    late = board.judge(board.Scenario("hangs", "it ends", 100, hangs), NO_LAB, left_s=0.05)
    assert late.said == "hangs took longer than 0 s"


def test_what_tidies_up_behind_a_scenario_that_took_too_long_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "RING_AGAIN_S", 0.02)
    tidied = []

    def hangs(_: lab.Lab) -> str:
        try:
            threading.Event().wait(30)
        finally:
            threading.Event().wait(0.2)
            tidied.append("all")
        return "never"

    assert not board.judge(board.Scenario("hangs", "it ends", 0.05, hangs), NO_LAB).held
    assert tidied == ["all"]


def test_a_broken_promise_is_said_in_its_own_words_and_an_error_with_its_kind() -> None:
    def breaks(_: lab.Lab) -> str:
        board.expect(held=False, otherwise="3 frames are lost")
        return "all there"

    def stumbles(_: lab.Lab) -> str:
        raise KeyError("holders")

    assert board.judge(board.Scenario("a", "", 5, breaks), NO_LAB).said == "3 frames are lost"
    assert board.judge(board.Scenario("a", "", 5, stumbles), NO_LAB).said == "KeyError: 'holders'"


def test_the_last_line_of_the_table_counts_what_holds() -> None:
    one = board.Scenario("stream", "all frames", 5, lambda _: "")
    held, broken = board.Verdict(one, True, 3.0, "200/200"), board.Verdict(one, False, 1.0, "lost 1")
    lines = board.table([("box", 85.0)], [held, broken]).splitlines()
    assert lines[0].split() == ["box", "85.0", "s"]
    assert "FAILS  all frames: lost 1" in lines[2]
    assert lines[-1] == "1/2 scenarios hold"
