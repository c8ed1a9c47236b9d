"""Check `ansible/` without a machine: ansible-lint's production profile, the syntax of every playbook, the unit's hardening.

It runs with the tools of `make deploy-tools`. The unit is scored as systemd would run it, rendered with the roles' own
defaults; where there is no systemd-analyze that part is left out, saying so.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.deploy_tools import ROOT, tools
from tools.environments import NotMade

COLLECTION = ROOT / "ansible"
UNIT = "granum-node.service"
EXPOSURE_MAX = 15  # tenths: 1.5, of a scale where a plain service has 9.2
_DEFAULTS = ("granum_address=192.0.2.1", "granum_cluster_name=lab", "granum_networks=[]", "ansible_managed=granum")


def main() -> None:
    """Run every check; end with 1 when one fails."""
    try:
        commands = tools()
    except NotMade as reason:
        sys.exit(f"check-deploy: {reason}")
    failed = [
        name
        for name, holds in (("lint", _lint(commands)), ("syntax", _syntax(commands)), ("unit", _unit(commands)))
        if not holds
    ]
    if failed:
        sys.exit(f"check-deploy: FAILED: {', '.join(failed)}")


def _lint(commands: Path) -> bool:
    print("check-deploy: ansible-lint", flush=True)
    return _succeeds(commands, "ansible-lint", "--offline", "--profile", "production", "-q")


def _syntax(commands: Path) -> bool:
    print("check-deploy: syntax", flush=True)
    playbooks = ["site.yml", *(f"playbooks/{file.name}" for file in sorted((COLLECTION / "playbooks").glob("*.yml")))]
    return _succeeds(commands, "ansible-playbook", "--inventory", "inventory/sample", "--syntax-check", *playbooks)


def _unit(commands: Path) -> bool:
    if shutil.which("systemd-analyze") is None:
        print("check-deploy: the unit's hardening is not looked at, because there is no systemd-analyze here")
        return True
    print("check-deploy: hardening of the unit", flush=True)
    with tempfile.TemporaryDirectory(prefix="granum-unit-") as scratch:
        unit = Path(scratch) / UNIT
        render = f"src=roles/node/templates/etc/systemd/system/{UNIT}.j2 dest={unit}"
        known = [option for fact in _DEFAULTS for option in ("--extra-vars", fact)]
        known += ["--extra-vars", "@roles/node/defaults/main.yml"]
        if not _succeeds(
            commands, "ansible", "localhost", "-i", "localhost,", "-c", "local", *known, "-m", "template", "-a", render
        ):
            return False
        score = ("systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={EXPOSURE_MAX}", str(unit))
        done = subprocess.run(score, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        print(f"check-deploy: {(done.stdout.strip().splitlines() or [done.stderr.strip()])[-1].strip('→ ')}")
        return done.returncode == 0


def _succeeds(commands: Path, name: str, *arguments: str) -> bool:
    """Run one of *commands* in the collection, its output shown only when it fails."""
    # ansible-lint starts the other commands by name, and reads no file but those here
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_NOCOLOR": "1",
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        (commands / name, *arguments),
        check=False,
        cwd=COLLECTION,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        print(done.stdout)
    return done.returncode == 0


if __name__ == "__main__":
    main()
