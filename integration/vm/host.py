"""The machine that runs the lab: its Debian packages, libvirt's services where no systemd starts them, and whether KVM works.

What this module started it ends, by handle and nothing else. A machine whose libvirt already serves is used as it is.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

ASK_AGAIN_S = 0.5  # between two questions whether libvirt answers
SERVES_S = 60.0  # for libvirt to answer; some seconds where KVM is hidden or works
KVM_BOOT_S = 15.0  # for a kernel to get as far as its missing root file system; two seconds where KVM works
STOP_S = 20.0  # for a service to end after SIGTERM
POOL = "/var/lib/libvirt/images"
URI = "qemu:///system"
# In place of /dev/kvm lies a file that root cannot write, either: what libvirt finds usable, it probes again at every step. A
# guest's own namespace cannot be made of a /dev with such a file in it, so guests get none. Nor do they get control groups:
# without systemd above them all guests together would weigh as much as any one process of this machine.
QEMU_CONF = "namespaces = []\ncgroup_controllers = []\n"
BEGIN_LIBVIRT = """
set -e
mount --bind "$1/qemu.conf" /etc/libvirt/qemu.conf
if [ -n "$2" ]; then
  mount --bind /etc/hostname /dev/kvm
  mount -o remount,bind,ro /dev/kvm
fi
exec libvirtd
"""


class Unfit(Exception):
    """This machine cannot run the lab; the text says what to do."""


def listed(text: str) -> list[str]:
    """Return the packages in *text*: one a line, comments behind '#'."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def install(packages: Sequence[str]) -> None:
    """Install those of *packages* that are missing; raise Unfit where that takes root."""
    missing = [package for package in packages if not _installed(package)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise Unfit(f"as root: apt-get install --no-install-recommends {' '.join(missing)}")
    print(f"lab: installing {' '.join(missing)}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ("apt-get", "-q=2", "-o", "DPkg::Lock::Timeout=300")
    subprocess.run((*apt, "update"), check=True, env=quiet, stdout=subprocess.DEVNULL)
    subprocess.run(
        (*apt, "install", "--no-install-recommends", *missing), check=True, env=quiet, stdout=subprocess.DEVNULL
    )


def runs_guests_under_kvm(kernel: Path) -> bool:
    """Whether a guest that boots *kernel* under KVM gets to its end: some machines have /dev/kvm, and guests hang in it."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    command = ("qemu-system-x86_64", "-accel", "kvm", "-m", "256", "-nodefaults", "-no-reboot", "-display", "none")
    console = ("-serial", "stdio", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1")
    try:
        done = subprocess.run(
            (*command, *console), check=False, capture_output=True, timeout=KVM_BOOT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return False
    return b"Unable to mount root fs" in done.stdout


class Services(AbstractContextManager["Services"]):
    """libvirt, serving; started in a mount namespace of its own, with *hide_kvm* without /dev/kvm.

    libvirt probes what KVM can do at every step, for minutes where guests do not run under it. Left at the end with *keep*.
    """

    def __init__(self, logs: Path, *, hide_kvm: bool) -> None:
        self.keep = False
        self._logs = logs
        self._hide_kvm = hide_kvm and os.path.exists("/dev/kvm")
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def process_ids(self) -> list[int]:
        """The services that were started here."""
        return [service.pid for service in self._started]

    def __enter__(self) -> Self:
        if not _answers():
            try:
                self._start()
            except BaseException:
                self._stop()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self.keep:
            self._stop()

    def _start(self) -> None:
        if os.path.isdir("/run/systemd/system"):
            raise Unfit("libvirt does not answer; as root: systemctl start libvirtd")
        if os.geteuid() != 0:
            raise Unfit("libvirt does not answer, and starting it takes root")
        self._service("virtlogd")
        (self._logs / "qemu.conf").write_text(QEMU_CONF)
        hide = "hide" if self._hide_kvm else ""
        self._service("unshare", "--mount", "sh", "-c", BEGIN_LIBVIRT, "libvirtd", str(self._logs), hide)
        deadline = time.monotonic() + SERVES_S
        while not _answers():
            if time.monotonic() > deadline:
                raise Unfit(f"libvirt does not answer after {SERVES_S:.0f} s; see {self._logs}")
            time.sleep(ASK_AGAIN_S)
        os.makedirs(POOL, exist_ok=True)
        if virsh("pool-info", "default", check=False).returncode:
            virsh("pool-define-as", "default", "dir", "--target", POOL)
        virsh("pool-start", "default", check=False)  # fails when it runs

    def _service(self, *command: str) -> None:
        name = "libvirtd" if "libvirtd" in command else command[0]
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        with open(self._logs / f"{name}.log", "ab") as log:
            self._started.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C ends the lab in order, and these behind it
                    env={**os.environ, "PATH": path},
                )
            )

    def _stop(self) -> None:
        while self._started:
            service = self._started.pop()
            service.terminate()
            try:
                service.wait(STOP_S)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()


def virsh(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run virsh; raise CalledProcessError when it fails, unless *check* is off."""
    return subprocess.run(
        ("virsh", "--quiet", "--connect", URI, *arguments), check=check, capture_output=True, text=True, timeout=120
    )


def short_directory() -> Path:
    """Return a new directory with a name short enough for sockets in it."""
    return Path(tempfile.mkdtemp(prefix="granum-lab-"))


def _installed(package: str) -> bool:
    if shutil.which("dpkg-query") is None:
        raise Unfit("the lab is made of Debian packages, and this machine has no dpkg")
    query = ("dpkg-query", "--show", "--showformat", "${db:Status-Status}", package)
    return subprocess.run(query, check=False, capture_output=True, text=True).stdout == "installed"


def _answers() -> bool:
    return shutil.which("virsh") is not None and virsh("version", check=False).returncode == 0
