"""The topology of the virtual-machine lab: which machines there are, and what ansible is told of them.

It is the same file that the Vagrantfile reads. This module is pure: it turns text into machines and machines into an
inventory; it starts nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # what YAML holds before it is checked, and what ansible's variables may be

import yaml

GROUPS = ("storage_nodes", "gateways", "clients", "monitoring")


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine: its *name*, the inventory *group*, its *address* in the lab's network, whether it has a data disk."""

    name: str
    group: str
    address: str
    has_disk: bool


@dataclass(frozen=True, slots=True)
class Topology:
    """All machines; *prefix* begins the names that libvirt has for them, *variables* are ansible's for all of them."""

    prefix: str
    machines: tuple[Machine, ...]
    variables: Mapping[str, Any]

    def of_group(self, group: str) -> tuple[Machine, ...]:
        """Return the machines of *group*, in the order of the file."""
        return tuple(machine for machine in self.machines if machine.group == group)

    def domain(self, machine: Machine) -> str:
        """Return what libvirt calls *machine*."""
        return f"{self.prefix}-{machine.name}"


def parse(text: str) -> Topology:
    """Return the topology in *text*; raise ValueError saying what is wrong with it."""
    found = yaml.safe_load(text)
    machines = tuple(
        Machine(name, each["group"], each["address"], "disk_gib" in each) for name, each in found["machines"].items()
    )
    for machine in machines:
        if machine.group not in GROUPS:
            raise ValueError(f"{machine.name}: there is no group {machine.group!r}; there are {', '.join(GROUPS)}")
    if len({machine.address for machine in machines}) < len(machines):
        raise ValueError("two machines have one address")
    topology = Topology(found["prefix"], machines, found.get("vars", {}))
    for group, least in (("storage_nodes", 2), ("gateways", 1), ("clients", 1)):
        if len(topology.of_group(group)) < least:
            raise ValueError(f"{group}: the scenarios need {least} of them")
    return topology


def inventory(topology: Topology, ssh_config: str, python: str = "/usr/bin/python3") -> str:
    """Return an inventory in YAML that reaches each machine by its name in *ssh_config*."""
    shared = {
        # A connection that is kept for the next task must not outlive a machine that loses its power.
        "ansible_ssh_common_args": f"-F {ssh_config} -o ServerAliveInterval=5 -o ServerAliveCountMax=4",
        "ansible_python_interpreter": python,
        "ansible_become": True,
    }
    groups: dict[str, Any] = {
        group: {"hosts": {machine.name: {} for machine in topology.of_group(group)}}
        for group in GROUPS
        if topology.of_group(group)
    }
    tree = {"all": {"vars": {**shared, **topology.variables}, "children": {"granum": {"children": groups}}}}
    return yaml.safe_dump(tree, sort_keys=False)
