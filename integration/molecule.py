"""`make molecule`: the roles in containers with systemd, one scenario of `ansible/extensions/molecule` after the other.

The root file system is that of the virtual machines' box, made once. The last line counts the scenarios that hold; the exit
status is 0 only when all do. Whatever happens, an error, Ctrl-C or SIGTERM included, containers, disks and network are destroyed
at the end. What a scenario printed is in build/molecule; of one that fails, the error is shown, with its machines' journals.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from integration.vm.host import Unfit, install
from tools.deploy_tools import tools
from tools.environments import NotMade
from tools.wheelhouse import wheelhouse

ROOT = Path(__file__).parents[1]
COLLECTION = ROOT / "ansible"
SCENARIOS = COLLECTION / "extensions" / "molecule"
BOX = ROOT / "build" / "box"
WHEELS = ROOT / "build" / "wheelhouse"
LOGS = ROOT / "build" / "molecule"
IMAGE = "localhost/granum-molecule"  # as in the inventory of the scenarios
NEWER = "molecule"  # the label of the build that `upgrade` moves to
PACKAGES = ("iproute2", "iptables", "mmdebstrap", "openssh-client", "podman", "runc")
SCENARIO_S = 900.0  # for one scenario; the longest takes four minutes on two busy cores
SHOWN_LINES = 200  # of what a failed scenario printed, from its error on: that, and journals


@click.command()
@click.option("--only", metavar="NAME,…", help="These scenarios only.  [default: all]")
def main(only: str | None) -> None:
    """Prove the roles in containers."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is undone in order then too
    chosen = names(only)
    if os.geteuid() != 0:
        sys.exit("molecule: containers that boot take root")
    try:
        install(PACKAGES)
        commands = tools()
        prepare()
    except (Unfit, NotMade, subprocess.CalledProcessError) as reason:
        sys.exit(f"molecule: {reason}")
    try:
        held = [holds(commands, name) for name in chosen]
    finally:
        destroy(commands)
    print(f"molecule: {sum(held)}/{len(held)} scenarios hold")
    sys.exit(0 if all(held) else 1)


def names(only: str | None) -> list[str]:
    """Return the scenarios called *only*, separated by commas, else all."""
    there = sorted(file.parent.name for file in SCENARIOS.glob("*/molecule.yml"))
    chosen = there if only is None else [name.strip() for name in only.split(",")]
    if unknown := [name for name in chosen if name not in there]:
        raise click.BadParameter(f"no scenario {', '.join(unknown)}; there are {', '.join(there)}", param_hint="--only")
    return chosen


def prepare() -> None:
    """Make the image, when the root file system is another than before, and pack granum as it is now, twice."""
    subprocess.run((str(ROOT / "vagrant" / "root.sh"), str(BOX)), check=True, stdin=subprocess.DEVNULL)
    recipe = (BOX / "root.recipe").read_text().strip()
    if _podman("image", "inspect", "--format", "{{ .Config.Labels.recipe }}", IMAGE, check=False).strip() != recipe:
        print("molecule: making the image of the containers", flush=True)
        former = _podman("images", "--quiet", IMAGE).split()
        _podman("import", "--quiet", "--change", f"LABEL recipe={recipe}", str(BOX / "root.tar"), IMAGE)
        if former:
            _podman("rmi", "--force", *former)
    for label in ("", NEWER):
        for archive in wheelhouse(("3.11",), "x86_64", label, tree=True, into=WHEELS):
            print(f"molecule: {archive.name}", flush=True)


def holds(commands: Path, name: str) -> bool:
    """Run the scenario *name* with the *commands* of ansible, say how it went, and return whether it holds."""
    log = LOGS / f"{name}.log"
    LOGS.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    # The directory decides: from any other, molecule finds no settings, reaches no machine and is content.
    status = _run(commands, log, "molecule", "test", "--scenario-name", name, "--no-command-borders")
    held = status == 0
    if not held:
        print("\n".join(shown(log.read_text(errors="replace").splitlines())))
    print(f"molecule: {name} {'holds' if held else 'FAILS'} after {time.monotonic() - begun:.0f} s; {log}", flush=True)
    return held


def shown(lines: list[str]) -> list[str]:
    """Return those of a failed scenario's *lines* that say why: from its first error on, else the last ones."""
    first = next((number for number, line in enumerate(lines) if line.startswith(("[ERROR]", "fatal:"))), -SHOWN_LINES)
    return lines[first:][:SHOWN_LINES]


def destroy(commands: Path) -> None:
    """Destroy what a scenario was not let to."""
    playbook = str(SCENARIOS / "destroy.yml")
    if _run(
        commands, LOGS / "destroy.log", "ansible-playbook", "--inventory=localhost,", "--connection=local", playbook
    ):
        print(f"molecule: not all was destroyed; see {LOGS / 'destroy.log'}", flush=True)


def _run(commands: Path, log: Path, name: str, *arguments: str) -> int:
    """Run one of *commands* in the collection, with what it prints in *log*; return its status, 1 when it takes too long."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
    environment |= {"PATH": f"{commands}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "NO_COLOR": "1"}
    with open(log, "w") as file:
        process = subprocess.Popen(
            (str(commands / name), *arguments), cwd=COLLECTION, env=environment, stdin=subprocess.DEVNULL,
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(SCENARIO_S)
        except subprocess.TimeoutExpired:
            return 1
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # ansible, too; its machines are destroyed behind it
                process.wait()


def _podman(*arguments: str, check: bool = True) -> str:
    return subprocess.run(("podman", *arguments), check=check, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
