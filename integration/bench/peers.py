"""The servers that are compared: granum's node, its ceiling, nginx and PYME's node, each over a directory of its own.

A `Peer` says what a row must know: how to start it, where its files lie, and in which durability and digest mode it works. What
it needs of the machine is asked for when it starts, so that a peer that is absent costs its rows and not the run.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from integration.bench import programs
from integration.lab import NodeProcess

START_S = 60.0  # PYME's node imports half of SciPy before it listens
POLL_S = 0.02
_NGINX = """\
daemon off;
master_process off;
worker_processes 1;
pid {scratch}/pid;
error_log {scratch}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 10000000;
  client_max_body_size 0;
  client_body_buffer_size 64k;
  client_body_temp_path {root}/.spool;
  proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi;
  scgi_temp_path {scratch}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {root};
    dav_methods PUT DELETE;
    create_full_put_path on;
    dav_access user:rw group:r all:r;
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Mode:
    """How a peer treats a put: whether a receipt follows a sync, and which digest it computes."""

    durability: str
    digest: str


class Peer(AbstractContextManager["Peer"]):
    """A server over *root*, started on entry and ended on exit; *scratch* takes what is not data."""

    mode = Mode("none", "none")

    def __init__(self, root: Path, scratch: Path) -> None:
        """Describe the server; nothing is started."""
        self.root = root
        self.scratch = scratch
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pids(self) -> list[int]:
        """Its process and what that has started."""
        assert self._process is not None, "the peer is not running"
        return _tree(self._process.pid)

    @abstractmethod
    def start(self) -> None:
        """Start the server and wait until it answers; raise Absent when this machine lacks it."""

    def stop(self) -> None:
        """End the server and all it has started."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _launch(self, *command: str, says_port: bool = False) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "HOME": str(self.scratch), "TMPDIR": str(self.scratch)}
        with open(self.scratch / "log", "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if says_port else log,
                stderr=log,
                env=environment,
                cwd=self.scratch,
                start_new_session=True,
            )
        if says_port:
            assert self._process.stdout is not None
            self.port = int(self._process.stdout.readline())
        deadline = time.monotonic() + START_S
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                lines = (self.scratch / "log").read_text(errors="replace").strip().splitlines()
                raise programs.Absent(f"it did not start: {lines[-1] if lines else 'it said nothing'}")
            select.select([], [], [], POLL_S)

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class Granum(Peer):
    """The node of this checkout, in one *mode*; of the options that it does not have, the mode says 'none'."""

    def __init__(self, root: Path, scratch: Path, mode: Mode) -> None:
        """Run the node with the durability and digest of *mode*."""
        super().__init__(root, scratch)
        self.mode = mode
        settings = {"GRANUM_NODE_DURABILITY": mode.durability, "GRANUM_NODE_DIGEST": mode.digest}
        self._node = NodeProcess(root, environment={name: value for name, value in settings.items() if value != "none"})

    @property
    def pids(self) -> list[int]:
        """Its process and what that has started."""
        return _tree(self._node.pid)

    def start(self) -> None:
        """Start the daemon; raise Absent when it says that it works in another durability than the row will claim."""
        self._node.start()
        self.port = self._node.port
        with urllib.request.urlopen(f"{self._node.url}/__status") as answer:
            durability = json.load(answer)["Granum"]["durability"]
        if self.mode.durability not in {durability, "none"}:
            self.stop()
            raise programs.Absent(f"this granum-node runs with durability {durability!r} instead")

    def stop(self) -> None:
        """End the daemon in order."""
        self._node.stop()


class Ceiling(Peer):
    """What one Python process can do that only receives, writes and links."""

    def start(self) -> None:
        """Start it; it says its port."""
        self._launch(sys.executable, str(programs.HERE / "ceiling.py"), str(self.root), says_port=True)


class Nginx(Peer):
    """One nginx process with its DAV module; a body is spooled inside the root, so that publishing is a rename."""

    def start(self) -> None:
        """Write its configuration and start it."""
        program = programs.nginx(fetch=False)
        self.port = _free_port()
        self.scratch.mkdir(parents=True, exist_ok=True)
        configuration = self.scratch / "nginx.conf"
        configuration.write_text(_NGINX.format(root=self.root, scratch=self.scratch, port=self.port))
        self._launch(str(program), "-p", str(self.scratch), "-c", str(configuration), "-e", f"{self.scratch}/error.log")


class Pyme(Peer):
    """PYME's own data server, advertised to nobody but this machine."""

    def start(self) -> None:
        """Start it; slow, because of what it imports."""
        python = programs.pyme(fetch=False)
        self.port = _free_port()
        options = ("-r", str(self.root), "-f", "bench", "-p", str(self.port), "-a", "local")
        self._launch(str(python), "-m", "PYME.cluster.HTTPDataServer", *options)


def node_options() -> str:
    """Return what `granum-node --help` says: the options of the node being measured."""
    command = (sys.executable, "-m", "granum_node", "--help")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _tree(pid: int) -> list[int]:
    """Return *pid* and every process below it."""
    found = [pid]
    for parent in found:  # grows while it is walked
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found.extend(int(child) for child in children.read_text().split())
    return found


def peak_mib(pids: Sequence[int]) -> float:
    """Return the peak resident memory of *pids* since `forget_peak`, in MiB."""
    kib = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            rows = Path(f"/proc/{pid}/status").read_text().splitlines()
            kib += sum(int(row.split()[1]) for row in rows if row.startswith("VmHWM:"))
    return kib / 1024


def forget_peak(pids: Sequence[int]) -> None:
    """Let the peak memory of *pids* begin again at what they hold now."""
    for pid in pids:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")
