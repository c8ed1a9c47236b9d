"""`make lab-vm`: box, machines, the playbook twice, the scenarios, and nothing left behind.

The last line counts the scenarios that hold; the exit status is 0 only when all do. Whatever happens, an error, Ctrl-C or
SIGTERM included, machines and networks are destroyed and libvirt, where it was started here, is ended; what the machines
said of themselves is below build/lab/logs when something failed.
"""

import importlib
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import click

from integration import vm
from integration.vm import topology as topologies
from integration.vm.board import SCENARIOS, Late, Scenario, Verdict, judge, table, within
from integration.vm.host import Services, Unfit, install, listed, runs_guests_under_kvm
from integration.vm.lab import BUILD, Lab
from integration.vm.packages import LIST
from integration.vm.places import write_auth
from integration.vm.provision import ROOT, Ansible, NotProvisioned
from tools.deploy_tools import tools
from tools.environments import NotMade
from tools.wheelhouse import wheelhouse

WHOLE_S = 45 * 60.0  # for everything, under emulation on two cores
END_S = 150.0  # of that, for the logs and for destroying it all
BOX = ROOT / "build" / "box"
WHEELS = ROOT / "build" / "wheelhouse"
NEWER = "lab2"  # the label of the build that the machines are upgraded to


@dataclass(slots=True)
class Run:
    """What has been done so far, for the table, and until when all must be done."""

    deadline: float
    steps: list[tuple[str, float]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def left_s(self) -> float:
        """Seconds that are left of the whole run."""
        return self.deadline - time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure and announce what is done inside, within what is left of the run."""
        print(f"lab: {name}", flush=True)
        begun = time.monotonic()
        try:
            with within(self.left_s, name):
                yield
        finally:
            self.steps.append((name, time.monotonic() - begun))


@click.command()
@click.option("--keep", is_flag=True, help="Leave the machines up at the end, and print how to go on.")
@click.option("--only", metavar="NAME,…", help="These scenarios only.  [default: all]")
def main(keep: bool, only: str | None) -> None:  # noqa: FBT001 - click's way
    """Prove the deployment on virtual machines."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end_in_order)
    chosen = scenarios(only)
    run = Run(time.monotonic() + WHOLE_S - END_S)
    failure = ""
    try:
        prove(run, chosen, keep=keep)
    except (Unfit, NotMade, NotProvisioned, Late) as error:
        failure = str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the table tells how far the lab came
        traceback.print_exc()
        failure = f"{type(error).__name__}: {error}"
    unseen = [Verdict(each, held=False, seconds=0.0, said="not run") for each in chosen[len(run.verdicts) :]]
    print(
        table(run.steps, [*run.verdicts, *unseen])
        if not failure
        else f"{failure}\n{table(run.steps, [*run.verdicts, *unseen])}"
    )
    sys.exit(0 if not failure and all(each.held for each in [*run.verdicts, *unseen]) else 1)


def _end_in_order(number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that everything is undone, and let nobody call for the end twice."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def scenarios(only: str | None) -> list[Scenario]:
    """Return the scenarios called *only*, separated by commas, else all; in the order of their modules."""
    for module in sorted(pkgutil.iter_modules(vm.__path__), key=lambda module: module.name):
        if module.name.startswith("scenario_"):
            importlib.import_module(f"{vm.__name__}.{module.name}")
    names = list(SCENARIOS) if only is None else [name.strip() for name in only.split(",")]
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise click.BadParameter(
            f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}", param_hint="--only"
        )
    return [SCENARIOS[name] for name in names]


def prove(run: Run, chosen: list[Scenario], *, keep: bool) -> None:
    """Bring the lab up, run the *chosen* scenarios on it, and destroy it unless *keep*; what was done is in *run*."""
    logs = BUILD / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    with run.step("packages"):
        install(listed(LIST.read_text()))
    with run.step("box"):
        subprocess.run((str(ROOT / "vagrant" / "box.sh"), str(BOX)), check=True, stdin=subprocess.DEVNULL)
    with run.step("wheels and ansible"):
        commands = tools()
        for label in ("", NEWER):
            for archive in wheelhouse(("3.11",), "x86_64", label, tree=True, into=WHEELS):
                print(f"lab: {archive.name}", flush=True)
    with run.step("choice of KVM or emulation"):
        driver = os.environ.get("GRANUM_DRIVER") or ("kvm" if runs_guests_under_kvm(BOX / "vmlinuz") else "qemu")
        print(f"lab: the machines run under {driver}", flush=True)
    topology = topologies.parse((ROOT / "vagrant" / "topology.yml").read_text())
    with Services(logs, hide_kvm=driver != "kvm") as services:
        lab = Lab(topology, {"GRANUM_DRIVER": driver}, logs, NEWER)
        try:
            with run.step("vagrant up"):
                lab.begin_machines()
            services.keep = keep  # also when something fails: that is when a person wants to look
            prove_on(lab, commands, run, chosen)
        finally:
            try:
                if not all(each.held for each in run.verdicts) or len(run.verdicts) < len(chosen):
                    lab.collect_logs()
            finally:
                if services.keep:
                    print(next_commands(services, driver), flush=True)
                else:
                    print("lab: destroying", flush=True)
                    lab.end_machines()


def prove_on(lab: Lab, commands: Path, run: Run, chosen: list[Scenario]) -> None:
    """Run the playbook twice on the running *lab*, then the scenarios."""
    inventory = BUILD / "inventory.yml"
    inventory.write_text(topologies.inventory(lab.topology, str(lab.ssh_config)))
    ansible = lab.ansible = Ansible(commands, inventory, lab.logs, variables_of(lab))
    with run.step("site.yml"):
        ansible.play("site.yml")
    with run.step("site.yml again"):
        again = ansible.play("site.yml")
    changed = {host: recap.changed for host, recap in again.items() if recap.changed}
    if changed or len(again) != len(lab.topology.machines):
        raise NotProvisioned(
            f"the second run changed {changed} on {len(again)} machines; it must change nothing on all"
        )
    lab.send_guest_program(lab.client)
    write_auth(lab)
    for each in chosen:
        print(f"lab: scenario {each.name}", flush=True)
        verdict = judge(each, lab, run.left_s)
        run.verdicts.append(verdict)
        print(
            f"lab: {each.name} {'holds' if verdict.held else 'FAILS'} after {verdict.seconds:.0f} s: {verdict.said}",
            flush=True,
        )
        if verdict.details:
            (lab.logs / f"{each.name.replace(' ', '-')}.txt").write_text(verdict.details)


def variables_of(lab: Lab) -> dict[str, object]:
    """Return what ansible is told beside the topology."""
    user = {"name": lab.credentials.user, "password": lab.credentials.password}
    return {"granum_wheelhouse": str(WHEELS), "samba_share_users": [user]}


def next_commands(services: Services, driver: str) -> str:
    """Return what a person types to go on with machines that were left up."""
    ends = f"; kill {' '.join(map(str, services.process_ids))}" if services.process_ids else ""
    return (
        f"The machines are up. Go on in {ROOT}:\n"
        "  ssh -F build/lab/ssh_config gateway                          # or node1, node2, client\n"
        "  ssh -F build/lab/ssh_config client granum nodes\n"
        "  cd ansible && ../build/deploy/tools/bin/ansible-playbook -i ../build/lab/inventory.yml playbooks/verify.yml\n"
        f"  GRANUM_DRIVER={driver} vagrant destroy --force{ends}             # the end"
    )


if __name__ == "__main__":
    main()
