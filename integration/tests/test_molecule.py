"""The scenarios of containers, as far as no container is needed to see it."""

import importlib.util
import ipaddress
import re
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import yaml

from integration import molecule

SCENARIOS = sorted(file.parent for file in molecule.SCENARIOS.glob("*/molecule.yml"))
WATCHDOG = molecule.COLLECTION / "roles/union_gateway/files/branch_watchdog.py"


def read(path: Path) -> Any:
    """What a file of YAML holds."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def program(path: Path) -> ModuleType:
    """The program at *path*, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machines(scenario: Path) -> dict[str, str]:
    """The addresses of the machines of *scenario*, by name."""
    groups = read(scenario / "inventory" / "hosts.yml")
    return {name: facts["ansible_host"] for group in groups.values() for name, facts in group.get("hosts", {}).items()}


def test_all_scenarios_run_unless_some_are_named() -> None:
    """In the order of their names."""
    assert molecule.names(None) == ["default", "gateway", "upgrade"]
    assert molecule.names("upgrade, default") == ["upgrade", "default"]
    with pytest.raises(click.BadParameter, match="no scenario node"):
        molecule.names("node,default")


def test_a_failed_scenario_is_shown_from_its_error_on() -> None:
    """The journals come behind it; without an error, such as when the time was up, the last lines say most."""
    many = [str(number) for number in range(1000)]
    assert molecule.shown(["ok: [node1]", "fatal: [node2]: FAILED!", "journal"]) == [
        "fatal: [node2]: FAILED!",
        "journal",
    ]
    assert molecule.shown(many) == many[-200:]
    assert molecule.shown(["fatal: no", *many]) == ["fatal: no", *many[:199]]
    assert molecule.shown(["one line"]) == ["one line"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_first_counts_its_machines(scenario: Path) -> None:
    """On the controller, where a play always runs: a run that reaches no machine is otherwise a green one."""
    first = read(scenario / "verify.yml")[0]
    assert first["hosts"] == "localhost"
    counted = first["tasks"][0]["ansible.builtin.assert"]["that"]
    assert counted == f"groups['granum'] | default([]) | length == {len(machines(scenario))}"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_looks_at_units_and_runs_again(scenario: Path) -> None:
    """Before it does anything of its own."""
    played = [play.get("ansible.builtin.import_playbook") for play in read(scenario / "verify.yml")]
    assert played[1:4] == ["../units.yml", "../again.yml", "granum.cluster.verify"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_machines_may_talk_to_nodes_and_the_controller_may_not(scenario: Path) -> None:
    """It plays the stranger."""
    settings = read(molecule.SCENARIOS / "inventory" / "group_vars" / "all.yml")
    network = ipaddress.ip_network(settings["molecule_subnet"])
    (allowed,) = (ipaddress.ip_network(entry["cidr"]) for entry in settings["granum_networks"])
    addresses = {ipaddress.ip_address(address) for address in machines(scenario).values()}
    controller = ipaddress.ip_interface(settings["molecule_controller"])
    assert len(addresses) == len(machines(scenario))
    assert all(address in network and address in allowed for address in addresses)
    assert controller.network == network
    assert controller.ip not in allowed


def test_the_controller_knows_image_and_label_as_the_scenarios_do() -> None:
    """They stand in the inventory for those who run molecule by hand."""
    settings = read(molecule.SCENARIOS / "inventory" / "group_vars" / "all.yml")
    assert settings["molecule_image"].replace("{{ molecule_name }}", settings["molecule_name"]) == molecule.IMAGE
    (play,) = read(molecule.SCENARIOS / "destroy.yml")
    assert play["vars"]["molecule_name"] == settings["molecule_name"]
    newer = read(molecule.SCENARIOS / "upgrade" / "inventory" / "hosts.yml")["all"]["vars"]["molecule_newer"]
    assert re.fullmatch(r"\{\{ molecule_older \}\}\+(.*)", newer)[1] == molecule.NEWER  # type: ignore[index]


def test_the_stand_in_for_nfs_gives_the_signs_of_life_that_the_watchdog_asks_for() -> None:
    """Again and again on one connection; its end is that of the watchdog's probe."""
    watchdog, answering = program(WATCHDOG), program(molecule.SCENARIOS / "gateway/files/answering.py")
    with answering.Server(("127.0.0.1", 0), answering.Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        branch = watchdog.Branch("node1", "/nowhere", "none.mount", *server.server_address)
        assert [watchdog.probe(branch), watchdog.probe(branch)] == [True, True]
        server.shutdown()
    assert watchdog.probe(branch) is False
