"""A series being streamed from the client machine while the rest of the lab is disturbed."""

import json
import selectors
import subprocess
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self  # Any: what the guest prints as JSON

from integration.vm.board import Broken, expect
from integration.vm.lab import Lab

END = "/tmp/end-of-series"
READ_S = 300.0  # for a thousand frames and their digests under emulation
BEGIN_S = 90.0  # for the camera's program to start and find the nodes: python takes some seconds under emulation


class Filming(AbstractContextManager["Filming"]):
    """The series *path* of *frames*, one each *interval_s*; under way on entry. With *open_end* until `finish` is called."""

    def __init__(self, lab: Lab, path: str, frames: int, interval_s: float, *, open_end: bool = False) -> None:
        self.path = path
        self._frames = frames
        self._lab = lab
        self._open_end = open_end
        options = [f"--frames={frames}", f"--interval={interval_s}", f"--expect={len(lab.nodes)}"]
        if open_end:
            lab.run(lab.client, f"rm -f {END}")
            options.append(f"--until={END}")
        self._process = lab.begin(lab.client, lab.guest("film", path, *options))

    def __enter__(self) -> Self:
        with selectors.DefaultSelector() as selector:
            assert self._process.stdout is not None
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(BEGIN_S) or not self._process.stdout.readline():
                self._end()
                raise Broken(f"{self.path}: the camera did not begin within {BEGIN_S:.0f} s: {self._complaint()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    @property
    def running(self) -> bool:
        """Whether frames are still handed over, or waited for."""
        return self._process.poll() is None

    def finish(self, timeout_s: float) -> Any:
        """Wait for the end of the series, which must be without an error; return what the camera's program says of it."""
        if self._open_end:
            expect(self.running, f"{self.path}: the series was over before its end was called for")
            self._lab.run(self._lab.client, f"touch {END}")
        try:
            printed, complaint = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise Broken(f"{self.path}: not stored within {timeout_s:.0f} s") from None
        expect(
            self._process.returncode == 0, f"{self.path}: the client ended with an error: {complaint.strip()[-400:]}"
        )
        document = json.loads(printed.splitlines()[-1])
        taken = document["frames"]
        expect(taken == self._frames or (self._open_end and taken), f"{self.path}: {taken} of {self._frames} frames")
        return document

    def _complaint(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.read().strip()[-400:]

    def _end(self) -> None:
        if self._process.poll() is None:
            if self._open_end:  # killing ssh ends nothing on the machine
                self._lab.try_run(self._lab.client, f"touch {END}")
            self._process.kill()
            self._process.wait()


def verify_over_http(lab: Lab, path: str, frames: int) -> dict[str, int]:
    """Read every frame of the series *path* on the client machine; return how many each node holds. Raise Broken.

    There must be as many as *frames*. What each file must be is kept in `Lab.stored`, once all are that.
    """
    found = lab.ask(lab.client, "read", path, timeout_s=READ_S)
    expect(len(found["digests"]) == frames, f"{path} has {len(found['digests'])} of {frames} frames")
    expect(
        found["complete"] and not found["partial"], f"{path}: complete {found['complete']}, partial {found['partial']}"
    )
    wrong = differing(found["expected"], found["digests"])
    expect(not wrong, f"{path} over HTTP: {len(wrong)} frames differ or miss: {wrong[:3]}")
    lab.stored[path] = found["expected"]
    holders: dict[str, int] = found["holders"]
    return holders


def differing(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return the names whose digests are not those *expected*, or that are in one of the two only."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def digests(printed: str) -> dict[str, str]:
    """Return what sha256sum *printed*, by the last part of each name."""
    pairs = (line.split(maxsplit=1) for line in printed.splitlines() if line)
    return {name.rpartition("/")[2].lstrip("*"): digest for digest, name in pairs}
