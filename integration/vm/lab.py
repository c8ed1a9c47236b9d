"""The lab itself: its machines made and destroyed by vagrant, reached by ssh, cut off and started by libvirt."""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any  # Any: what guests print as JSON

from integration.vm.host import short_directory, virsh
from integration.vm.provision import ROOT, Ansible
from integration.vm.topology import Machine, Topology

BUILD = ROOT / "build" / "lab"
UP_S = 900.0  # for vagrant; two minutes and a half for three machines under emulation
COMMAND_S = 120.0  # for one command in a guest, unless told
BOOT_S = 240.0  # for a guest to answer after a power cut
SHORT_S = 15.0  # for a question that is asked again and again
POLL_S = 0.2
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"

# What goes to the guests: a program, with the packages it says it lies in.
GUEST_FILES = (
    "integration/__init__.py",
    "integration/camera.py",
    "integration/vm/__init__.py",
    "integration/vm/guest.py",
)
GUEST_DIRECTORY = "lab"  # below the home of the user
GRANUM_PYTHON = "/opt/granum/current/bin/python"

# What is collected of each machine when something failed.
EVIDENCE = "; ".join(
    f"echo; echo '# {command}'; {command} 2>&1"
    for command in (
        "systemctl --failed --no-pager",
        "ip -brief address",
        "findmnt",
        "df -h",
        "ss -Hltnup",
        "nft list ruleset",
        "ls -lR /etc/granum /srv/granum --ignore='frame*' | head -n 200",
        "journalctl --no-pager --boot --lines=3000",
    )
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of the one user of the share."""

    user: str
    password: str


class Lab:
    """The machines of *topology*, from `begin_machines` to `end_machines`, which may be called whatever has become of the first.

    *environment* is added to vagrant's. Logs go below *logs*. *newer* is the label of the build that nodes are upgraded to.
    """

    def __init__(self, topology: Topology, environment: Mapping[str, str], logs: Path, newer: str = "") -> None:
        self.topology = topology
        self.nodes = topology.of_group("storage_nodes")
        self.gateway = topology.of_group("gateways")[0]
        self.client = topology.of_group("clients")[0]
        self.logs = logs
        self.stored: dict[
            str, dict[str, str]
        ] = {}  # by series, the SHA-256 of each frame's file, as the camera's program says
        self.newer = newer
        self.ansible: Ansible | None = None  # once the playbook can be run
        self.credentials = Credentials("microscopist", secrets.token_urlsafe(12))
        self.ssh_config = BUILD / "ssh_config"
        self.emulated = environment.get("GRANUM_DRIVER") == "qemu"
        self._environment = {**os.environ, **environment}
        self._sockets = short_directory()

    def begin_machines(self) -> None:
        """Make the machines anew, and boot them."""
        self._vagrant("destroy", "--force", log="vagrant-destroy.log")  # what an earlier run was not let to
        self._vagrant("up", "--provision-with", "disk", log="vagrant-up.log")
        self._write_ssh_config()

    def end_machines(self) -> None:
        """Destroy machines and networks: by vagrant, and behind it by libvirt, whatever vagrant does not know of or fails at."""
        for machine in self.topology.machines:
            self._forget_connection(machine)
        shutil.rmtree(self._sockets, ignore_errors=True)
        with suppress(subprocess.SubprocessError):  # its log says why
            self._vagrant("destroy", "--force", log="vagrant-destroy.log")
        for machine in self.topology.machines:
            virsh("destroy", self.topology.domain(machine), check=False)
            virsh("undefine", "--remove-all-storage", self.topology.domain(machine), check=False)
        for network in (self.topology.prefix, f"{self.topology.prefix}-access"):  # vagrant leaves the second one
            virsh("net-destroy", network, check=False)
            virsh("net-undefine", network, check=False)

    # -- machines -----------------------------------------------------------------------------------------------------

    def cut_power(self, machine: Machine) -> None:
        """Stop *machine* as a power cut does."""
        virsh("destroy", self.topology.domain(machine))
        self._forget_connection(machine)

    def start(self, machine: Machine) -> None:
        """Give *machine* its power back; it may take a minute until it answers."""
        virsh("start", self.topology.domain(machine))

    def reboot(self, machines: Sequence[Machine]) -> None:
        """Let *machines* boot again, in order, and wait until all answer."""
        before = {machine: self.run(machine, BOOT_ID) for machine in machines}
        for machine in machines:
            self.try_run(machine, "sudo systemctl reboot")
            self._forget_connection(machine)
        for machine in machines:
            wait_until(partial(self._booted_since, machine, before[machine]), BOOT_S, f"{machine.name} boots")

    def wait_for_boot(self, machine: Machine) -> None:
        """Wait until *machine* answers."""
        self.wait_for(machine, "true", BOOT_S, "it answers")

    # -- commands -----------------------------------------------------------------------------------------------------

    def command(self, machine: Machine, script: str) -> list[str]:
        """Return the command that runs the shell *script* on *machine*, as the user vagrant, who may sudo."""
        sharing = ("ControlMaster=auto", f"ControlPath={self._sockets}/%n", "ControlPersist=600")
        alive = ("ServerAliveInterval=5", "ServerAliveCountMax=4", "ConnectTimeout=10", "LogLevel=ERROR")
        options = [part for option in (*sharing, *alive) for part in ("-o", option)]
        return ["ssh", "-F", str(self.ssh_config), *options, machine.name, script]

    def try_run(
        self, machine: Machine, script: str, *, timeout_s: float = COMMAND_S, stdin: bytes | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run the shell *script* on *machine*; return how it ended and what it said."""
        done = subprocess.run(
            self.command(machine, script), check=False, input=stdin or b"", capture_output=True, timeout=timeout_s
        )
        return subprocess.CompletedProcess(
            script, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def run(self, machine: Machine, script: str, *, timeout_s: float = COMMAND_S, stdin: bytes | None = None) -> str:
        """Run the shell *script* on *machine* and return what it printed; raise RuntimeError when it fails."""
        done = self.try_run(machine, script, timeout_s=timeout_s, stdin=stdin)
        if done.returncode:
            raise RuntimeError(
                f"{machine.name}: '{script[:200]}' ended with {done.returncode}: {done.stderr.strip()[-600:]}"
            )
        return done.stdout

    def begin(self, machine: Machine, script: str) -> "subprocess.Popen[str]":
        """Start the shell *script* on *machine* and return at once; its output is the ssh's."""
        return subprocess.Popen(
            self.command(machine, script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def guest(*arguments: str) -> str:
        """Return the script that runs `integration.vm.guest` with the client that is installed on the machine."""
        return f"cd {GUEST_DIRECTORY} && {GRANUM_PYTHON} -m integration.vm.guest {' '.join(arguments)}"

    def ask(self, machine: Machine, *arguments: str, timeout_s: float = COMMAND_S) -> Any:
        """Run `integration.vm.guest` on *machine* and return the JSON document it prints at its end."""
        return json.loads(self.run(machine, self.guest(*arguments), timeout_s=timeout_s).splitlines()[-1])

    def send_guest_program(self, machine: Machine) -> None:
        """Put `integration.vm.guest` on *machine*."""
        packed = subprocess.run(("tar", "-C", str(ROOT), "-c", *GUEST_FILES), check=True, capture_output=True).stdout
        self.run(machine, f"mkdir -p {GUEST_DIRECTORY} && tar -C {GUEST_DIRECTORY} -x", stdin=packed)

    def wait_for(self, machine: Machine, script: str, timeout_s: float, what: str, prints: str | None = None) -> float:
        """Run *script* on *machine* until it succeeds, and *prints* that; return after how many seconds it did.

        Raises TimeoutError naming *what* did not come true within *timeout_s*.
        """

        def came_true() -> bool:
            done = self._tried_shortly(machine, script)
            return done is not None and done.returncode == 0 and prints in {None, done.stdout.strip()}

        return wait_until(came_true, timeout_s, f"{machine.name}: {what}")

    def collect_logs(self) -> None:
        """Write what each machine can say of its state below `logs`; a machine that is down says nothing."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._collect_logs_of, self.topology.machines))

    def _collect_logs_of(self, machine: Machine) -> None:
        try:
            said = self.try_run(machine, f"sudo sh -c {_quoted(EVIDENCE)}", timeout_s=60).stdout
        except subprocess.TimeoutExpired:
            said = "it does not answer\n"
        (self.logs / f"{machine.name}.log").write_text(said)

    def _vagrant(self, *arguments: str, log: str) -> None:
        with open(self.logs / log, "ab") as file:
            subprocess.run(
                ("vagrant", *arguments), check=True, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, timeout=UP_S,
            )  # fmt: skip

    def _write_ssh_config(self) -> None:
        done = subprocess.run(
            ("vagrant", "ssh-config"), check=True, cwd=ROOT, env=self._environment, capture_output=True, text=True
        )
        self.ssh_config.write_text(done.stdout)

    def _tried_shortly(self, machine: Machine, script: str) -> "subprocess.CompletedProcess[str] | None":
        """Run *script* on *machine* and return how it ended; None when the machine does not answer."""
        try:
            return self.try_run(machine, script, timeout_s=SHORT_S)
        except subprocess.TimeoutExpired:
            self._forget_connection(machine)
            return None

    def _booted_since(self, machine: Machine, boot_id: str) -> bool:
        done = self._tried_shortly(machine, BOOT_ID)
        if done is None or done.returncode:
            return False
        if done.stdout == boot_id:
            self._forget_connection(machine)  # it still goes down
        return done.stdout != boot_id

    def _forget_connection(self, machine: Machine) -> None:
        if self.ssh_config.exists():
            command = self.command(machine, "true")
            subprocess.run((*command[:-2], "-O", "exit", machine.name), check=False, capture_output=True)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Wait until *condition* returns true, asking it again and again; return after how many seconds it did.

    Raises TimeoutError naming *what* did not come true within *timeout_s*.
    """
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout_s:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - begun


def _quoted(script: str) -> str:
    return "'" + script.replace("'", "'\\''") + "'"
