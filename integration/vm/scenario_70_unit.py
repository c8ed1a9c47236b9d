"""How the daemon is confined, what the machines listen on, and what happens when the data disk is not there."""

import re

from integration.vm.board import expect, scenario
from integration.vm.lab import Lab
from integration.vm.places import PORT, STORE, UNIT

SCORE_MAX = 1.5  # of systemd's own rating of a unit: 0 is confined, 10 open
RETURN_S = 30.0  # for systemd to look for the disk again, and for the daemon to start
NO_CAPABILITY = "0000000000000000"

# What may listen on addresses that others reach, by inventory group: protocol and port.
EVERYWHERE = frozenset({"tcp/22", "udp/68"})  # the second is how vagrant gives the machine its address
DECLARED = {
    "storage_nodes": frozenset({f"tcp/{PORT}", "udp/5353", "tcp/2049"}),
    "gateways": frozenset({"tcp/445"}),
    "clients": frozenset[str](),
}


@scenario(
    "confined", claims="the unit runs as granum, without capabilities, with seccomp and no new privileges", bound_s=90
)
def confined(lab: Lab) -> str:
    """As the kernel tells it of the process, and systemd of the unit."""
    scores = []
    for node in lab.nodes:
        pid = lab.run(node, f"systemctl show --property=MainPID --value {UNIT}").strip()
        status = dict(re.findall(r"^(\w+):\s*(.*)$", lab.run(node, f"cat /proc/{pid}/status"), re.MULTILINE))
        user = lab.run(node, "id -u granum").strip()
        expect(set(status["Uid"].split()) == {user}, f"{node.name}: runs as {status['Uid']}, granum is {user}")
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            expect(status[kind] == NO_CAPABILITY, f"{node.name}: {kind} {status[kind]}")
        expect(
            status["Seccomp"] == "2" and status["NoNewPrivs"] == "1",
            f"{node.name}: {status['Seccomp']}, {status['NoNewPrivs']}",
        )
        rated = lab.run(node, f"sudo systemd-analyze security --no-pager {UNIT} | tail -n 1")
        found = re.search(r"level for \S+: ([0-9.]+)", rated)
        expect(found is not None, f"{node.name}: no rating in {rated!r}")
        assert found is not None
        scores.append(float(found[1]))
        expect(scores[-1] <= SCORE_MAX, f"{node.name}: rated {scores[-1]}")
    return f"uid {user}, no capabilities, seccomp, rated {max(scores)}"


@scenario("declared listeners", claims="nothing listens that is not declared", bound_s=60)
def declared_listeners(lab: Lab) -> str:
    """On addresses that other machines reach; what listens on loopback alone is of no concern to them."""
    for machine in lab.topology.machines:
        surplus = listeners(lab.run(machine, "ss -Hltun")) - EVERYWHERE - DECLARED[machine.group]
        expect(not surplus, f"{machine.name} listens on {', '.join(sorted(surplus))}")
    return f"{len(lab.topology.machines)} machines"


def listeners(printed: str) -> set[str]:
    """Return the protocols and ports in what `ss -Hltun` *printed* that are reached from elsewhere."""
    found = set()
    for line in printed.splitlines():
        protocol, _, _, _, local = line.split()[:5]
        address, _, port = local.rpartition(":")
        if not address.startswith(("127.", "[::1]")):
            found.add(f"{protocol}/{port}")
    return found


@scenario("disk missing", claims="without its data disk a node does not start, and fills no other disk", bound_s=180)
def disk_missing(lab: Lab) -> str:
    """Unmount the disk so that it cannot come back, as when it has died."""
    node = lab.nodes[0]
    hide = "sudo sed -i 's|^LABEL=granum|#&|' /etc/fstab && sudo systemctl daemon-reload"
    show = "sudo sed -i 's|^#LABEL=granum|LABEL=granum|' /etc/fstab && sudo systemctl daemon-reload"
    # The export holds the disk; who takes a disk out stops both.
    lab.run(node, f"sudo systemctl stop {UNIT} nfs-server && sudo umount /srv/granum && {hide}")
    try:
        lab.try_run(node, f"sudo systemctl start {UNIT}", timeout_s=60)
        state = lab.try_run(node, f"systemctl is-active {UNIT}").stdout.strip()
        expect(state != "active", f"{node.name} serves without its disk")
        expect(
            lab.try_run(node, f"sudo test -e {STORE}").returncode != 0,
            f"{node.name} has made {STORE} on the system's disk",
        )
    finally:
        lab.run(node, f"{show} && sudo mount /srv/granum && sudo systemctl start nfs-server")
    seconds = lab.wait_for(node, f"systemctl is-active {UNIT}", RETURN_S, "it serves with its disk", prints="active")
    return f"the unit was {state}; with the disk it serves by itself, after {seconds:.1f} s"
