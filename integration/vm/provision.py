"""The playbook, run on the lab: as the environment of `make deploy-tools` has it, with what it printed in a log."""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # ansible's variables

ROOT = Path(__file__).parents[2]
PLAYBOOK_S = 1200.0  # for one run; the first one installs everything, under emulation

_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


class NotProvisioned(Exception):
    """A playbook failed; the text is the end of what it printed."""


@dataclass(frozen=True, slots=True)
class Recap:
    """What ansible says of one host at the end of a run."""

    ok: int
    changed: int
    unreachable: int
    failed: int


def recaps(printed: str) -> dict[str, Recap]:
    """Return what the last table in *printed* says, by host."""
    _, _, last = printed.rpartition("PLAY RECAP")
    return {found[1]: Recap(*map(int, found.groups()[1:])) for found in _RECAP.finditer(last)}


class Ansible:
    """Runs playbooks of ansible/ over *inventory*; *commands* is the directory that ansible-playbook is in."""

    def __init__(self, commands: Path, inventory: Path, logs: Path, variables: Mapping[str, Any]) -> None:
        self._commands = commands
        self._inventory = inventory
        self._logs = logs
        self._variables = variables
        self._runs = 0

    def play(self, playbook: str, *, options: Sequence[str] = (), **variables: Any) -> dict[str, Recap]:
        """Run *playbook* with *variables* over those of the lab; return the recap, or raise NotProvisioned."""
        self._runs += 1
        log = self._logs / f"ansible-{self._runs}-{Path(playbook).stem}.log"
        given = json.dumps({**self._variables, **variables})
        command = (
            str(self._commands / "ansible-playbook"),
            "-i",
            str(self._inventory),
            "-e",
            given,
            *options,
            playbook,
        )
        with open(log, "w") as file:
            done = subprocess.run(
                command, check=False, cwd=ROOT / "ansible", env=self._environment(), stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT, timeout=PLAYBOOK_S,
            )  # fmt: skip
        printed = log.read_text()
        found = recaps(printed)
        if done.returncode or not found:
            raise NotProvisioned(f"{playbook} ended with {done.returncode}; the end of {log}:\n{printed[-3000:]}")
        return found

    def _environment(self) -> dict[str, str]:
        """Return ansible's: one that nothing of the caller's configuration reaches, with mitogen where the tools have it."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        environment |= {"ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        environment |= {
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_TIMEOUT": "120",  # an interpreter takes its time to start in four guests at once under emulation
        }
        strategies = sorted(self._commands.parent.glob("lib/python*/site-packages/ansible_mitogen/plugins/strategy"))
        if strategies:  # compiles each module once in a guest, where that takes seconds, and not at every task
            environment |= {"ANSIBLE_STRATEGY_PLUGINS": str(strategies[0]), "ANSIBLE_STRATEGY": "mitogen_linear"}
        return environment
