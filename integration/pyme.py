"""PYME as a peer: its data server and its client, each a process in PYME's own environment, for tests and benchmarks.

They find each other, and nodes of granum that advertise locally, in the registry of one *home* directory, never in that of
this machine. What PYME's client answers or raises is passed on as it is.
"""

import base64
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from integration.bench import programs

PROGRAM = Path(__file__).with_name("pyme_program.py")
Server = tuple[str, int]


class PymeError(Exception):
    """What PYME's client raised; *kind* is the name of its class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class PymeClient(AbstractContextManager["PymeClient"]):
    """PYME's client for the cluster *cluster*, in one process with its home and registry in *home*."""

    def __init__(self, home: Path, cluster: str = "") -> None:
        """Describe it; raise Absent where PYME is not installed."""
        self._python = programs.pyme(fetch=False)
        self._home = home
        self._cluster = cluster
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "the client is not running"
        return self._process.pid

    def ask(self, verb: str, **arguments: Any) -> Any:  # Any: JSON values
        """Return what *verb* of `integration.pyme_program` answers; raise PymeError with what it raised."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise PymeError("Ended", f"PYME's client ended; its log is {self._home / 'client.log'}")
        said = json.loads(line)
        if "error" in said:
            raise PymeError(said["error"], said["text"])
        return said["answer"]

    def of(self, verb: str, name: str) -> Any:
        """Return what *verb* says of *name*."""
        return self.ask(verb, name=name, cluster=self._cluster)

    def put(self, name: str, body: bytes) -> None:
        """Store a file with `put_file`."""
        self.ask("put", name=name, body=_text(body), cluster=self._cluster)

    def put_files(self, files: Mapping[str, bytes]) -> None:
        """Store files with `put_files`."""
        self.ask("put_files", files={name: _text(body) for name, body in files.items()}, cluster=self._cluster)

    def get(self, name: str) -> bytes:
        """Return a file by `get_file`."""
        return base64.b64decode(self.of("get", name))

    def stream(self, servers: Sequence[Server], files: Mapping[str, bytes], *, idle_s: float = 0.0) -> None:
        """Stream files with `Streamer`, closed *idle_s* behind the last of them."""
        texts = {name: _text(body) for name, body in files.items()}
        self.ask("stream", servers=servers, files=texts, cluster=self._cluster, idle_s=idle_s)

    def __enter__(self) -> Self:
        self._home.mkdir(parents=True, exist_ok=True)
        with open(self._home / "client.log", "ab") as log:
            self._process = subprocess.Popen(
                (str(self._python), "-W", "ignore", str(PROGRAM)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "HOME": str(self._home), "TMPDIR": str(self._home)},
                cwd=self._home,
                text=True,
                start_new_session=True,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        process, self._process = self._process, None
        assert process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its threads wait for ever
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _text(body: bytes) -> str:
    return base64.b64encode(body).decode()
