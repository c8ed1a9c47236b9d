"""What the keeper of the machines does: looks whether all is well, takes a node out for good, and takes a machine in."""

import json
import re

from integration.vm.board import expect, scenario
from integration.vm.filming import Filming, verify_over_http
from integration.vm.lab import Lab
from integration.vm.places import UNION, UNIT
from integration.vm.scenario_10_reading import stored_series

RETURN_S = 60.0  # for the union to show the files of the machine that was taken in


@scenario(
    "all is well", claims="`verify` and `granum doctor` find nothing wrong, `collect_logs` has it all", bound_s=400
)
def all_is_well(lab: Lab) -> str:
    """Ask the gateway for mounts and share, too, and all others for what every machine needs."""
    assert lab.ansible is not None
    lab.ansible.play("playbooks/verify.yml")
    asked = 0
    for machine in lab.topology.machines:
        done = lab.try_run(machine, "sudo granum --json doctor")
        findings = json.loads(done.stdout or "[]")
        wrong = [f"{each['check']}: {each['text']}" for each in findings if each["state"] == "wrong"]
        expect(done.returncode == 0 and not wrong, f"{machine.name}: {'; '.join(wrong) or done.stderr.strip()[-300:]}")
        asked += sum(each["state"] == "ok" for each in findings)
    into = lab.logs / "collected"
    lab.ansible.play("playbooks/collect_logs.yml", collect_logs_into=str(into))
    collected = {machine.name: (into / f"{machine.name}.txt").read_text() for machine in lab.topology.machines}
    silent = [name for name, text in collected.items() if re.search(r"^ok +versions ", text, re.MULTILINE) is None]
    expect(not silent, f"the logs lack what granum doctor says on {', '.join(silent)}")
    return f"{asked} checks on {len(lab.topology.machines)} machines"


@scenario(
    "node retired", claims="a node's files move to the others before it goes; scale.yml takes it in again", bound_s=600
)
def node_retired(lab: Lab) -> str:
    """Every frame that any scenario stored is read again while the node is gone."""
    assert lab.ansible is not None
    stored_series(lab)
    goes, stays = lab.nodes[-1], lab.nodes[0]
    lab.ansible.play("playbooks/remove_node.yml", remove_node_host=goes.name, remove_node_really=True)
    state = lab.try_run(goes, f"systemctl is-active {UNIT}").stdout.strip()
    expect(state == "inactive", f"{goes.name}: the daemon is {state}")
    before = {path: len(frames) for path, frames in lab.stored.items()}
    for path, frames in before.items():
        holders = verify_over_http(lab, path, frames)
        expect(len(holders) == 1, f"{path} without {goes.name} lies on {holders}, not on {stays.name} alone")
    lab.ansible.play("playbooks/scale.yml", scale_hosts=goes.name)
    with Filming(lab, "/proof/returned", 20, 0.0) as filming:
        film = filming.finish(120)
    expect(len(film["nodes"]) == len(lab.nodes), f"only {film['nodes']} were found behind scale.yml")
    holders = verify_over_http(lab, "/proof/returned.pcs", film["frames"])
    expect(len(holders) == len(lab.nodes), f"frames by node behind scale.yml: {holders}")
    count = f"sudo ls {UNION}/proof/returned.pcs | grep -c '^frame'"
    lab.wait_for(lab.gateway, count, RETURN_S, "the union is whole", prints=str(film["frames"]))
    return f"{sum(before.values())} frames right without {goes.name}; {film['frames']} more with it"
