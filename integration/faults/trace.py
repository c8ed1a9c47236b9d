"""Faults at a chosen system call of a running program, by strace.

Calls are counted by thread from the moment of attaching, so 'the second fsync' is the second of some thread.
"""

import re
import subprocess
from collections import Counter
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from integration.faults.waiting import until

ATTACH_S = 10.0
_CALL = re.compile(r"^(\d+)\s+(\w+)\(", re.MULTILINE)


class Trace(AbstractContextManager["Trace"]):
    """strace on *pid* and its threads while entered; records *calls*, and injects *fault* (strace's own words) at *call*."""

    def __init__(self, pid: int, directory: Path, calls: str, call: str = "", fault: str = "") -> None:
        directory.mkdir(exist_ok=True)
        self._log = directory / "trace"
        self._complaints = directory / "trace.stderr"
        inject = ["-e", f"inject={call}:{fault}"] if call else []
        self._command = ["strace", "-f", "-o", str(self._log), "-e", f"trace={calls}", *inject, "-p", str(pid)]
        self._process: subprocess.Popen[bytes] | None = None

    def lines(self) -> list[str]:
        """Return what has been recorded, one call a line."""
        return self._log.read_text(errors="replace").splitlines()

    def most_of_one_thread(self) -> dict[str, int]:
        """Return for each call the number of times that the thread with most of them made it."""
        made = Counter(_CALL.findall("\n".join(self.lines())))
        calls: dict[str, int] = {}
        for (_, call), number in made.items():
            calls[call] = max(number, calls.get(call, 0))
        return calls

    def __enter__(self) -> Self:
        self._log.write_text("")
        with self._complaints.open("wb") as complaints:
            self._process = subprocess.Popen(self._command, stderr=complaints, start_new_session=True)
        if not until(lambda: b"attached" in self._complaints.read_bytes(), ATTACH_S):
            self._end()
            raise RuntimeError(f"strace: {self._complaints.read_text()[-200:].strip()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()  # strace lets go of a program that still runs
        try:
            process.wait(ATTACH_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
