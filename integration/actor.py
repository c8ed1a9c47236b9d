"""An actor: a recorded client in a process of its own, which may sit in another network namespace, and may be killed.

The process reads one request a line and answers each with a line, both JSON; `Actor` is the other side. What it has seen goes
into the recorder of its director at the end, on the clock that all processes of a machine share. A stream runs beside the
requests.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import granum
from granum.wire.errors import GranumError, NotReceipted
from integration.history import Listed, Outcome, Put, Read, Streamed
from integration.recorder import Recorded, RecordedSeries, Recorder, digest_of, noise

ANSWER_S = 90.0  # for one request; a stream is waited for that long at its end
Json = Any  # a value as JSON has it


class Failed(Exception):
    """What an actor was asked for failed: *kind* is the name of the error's class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Actor(AbstractContextManager["Actor"]):
    """A client started by *prefix*, a command that replaces itself; *connects* are the arguments of `granum.connect`."""

    def __init__(
        self, recorder: Recorder, directory: Path, prefix: Sequence[str] = (), name: str = "client", **connects: Json
    ) -> None:
        """Keep temporary files and what it says in *directory*."""
        directory.mkdir(parents=True, exist_ok=True)
        own = dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR"), str(directory))
        self._recorder = recorder
        self._log = directory / "stderr"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "integration.actor", json.dumps({"name": name, **connects})],
                cwd=Path(__file__).parents[1],
                env={**os.environ, **own},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, verb: str, **arguments: Json) -> Json:
        """Let it do *verb*, a method of `_Part`; return what that returns. Raises Failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([verb, arguments]) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the actor is gone: {self._log.read_text()[-1000:]}") from error
        if "failed" in answer:
            raise Failed(*answer["failed"])
        return answer["done"]

    def kill(self) -> None:
        """End it as a crash does; nothing of what it saw is known."""
        self._process.kill()
        self._close()

    def collect(self) -> None:
        """Take what it has seen into the recorder."""
        seen = self.ask("seen")
        self._recorder.puts += [put_of(put) for put in seen["puts"]]
        self._recorder.reads += [Read(**each) for each in seen["reads"]]
        self._recorder.listings += [Listed(**each) for each in seen["listings"]]
        self._recorder.streams += [Streamed(**each) for each in seen["streams"]]
        self._recorder.doubled |= set(seen["doubled"])

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process.returncode is None:
            self.kill()


def put_of(plain: Json) -> Put:
    """Return the put that `_plain` made *plain* of."""
    return Put(**{**plain, "outcome": Outcome(plain["outcome"])})


def _plain(put: Put) -> Json:
    return {**asdict(put), "outcome": put.outcome.value}


class _Part:
    """What an actor does."""

    def __init__(self, name: str, **connects: Json) -> None:
        self._recorder = Recorder()
        self._client = Recorded(granum.connect(bypass=False, **connects), self._recorder, name)
        self._series: RecordedSeries | None = None
        self._camera: threading.Thread | None = None
        self._off = threading.Event()
        self._stalls_s: list[float] = []
        self._errors: list[str] = []

    def put(self, path: str, body: str) -> str:
        """Put the text *body*; return the node's address."""
        return self._client.put(path, body.encode()).node.host

    def get(self, path: str) -> str:
        """Return the digest of *path*."""
        return digest_of(self._client.get(path))

    def listdir(self, path: str) -> Json:
        """Return the number of names in *path* and of the nodes that are missing."""
        view = self._client.listdir(path)
        return [len(view), len(view.missing)]

    def names(self, path: str) -> Json:
        """Return the names in *path*."""
        return list(self._client.listdir(path))

    def nodes(self) -> Json:
        """Return id, address and the cause of absence of every node that is known."""
        return [
            [state.node.key, state.node.host, None if state.cause is None else str(state.cause)]
            for state in self._client.cluster.nodes()
        ]

    def begin(self, path: str, **options: Json) -> None:
        """Begin the series *path*."""
        self._series = self._client.create_series(path, **options)

    def film(self, frames: int, side: int, rate_hz: float, log: str = "") -> None:
        """Store *frames*, 0 for as many as come until it is told to stop; beside other requests.

        Those that went to the overflow are kept in the file *log*, as puts, one a line, as soon as they have.
        """
        overflowed = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        def run() -> None:
            assert self._series is not None
            image = noise((side, side))
            due = time.monotonic()
            number = 0
            while not self._off.is_set() and (not frames or number < frames):
                image.flat[:2] = number & 0xFFFF, number >> 16
                began, queued_s = time.monotonic(), _queued_s()
                try:
                    if self._series.store_frame(number, image) is None:
                        os.write(overflowed, json.dumps(_plain(self._series.unknown(number))).encode() + b"\n")
                except GranumError as error:
                    self._errors.append(f"frame {number}: {error}")
                took_s = time.monotonic() - began
                self._stalls_s.append(max(0.0, took_s - (_queued_s() - queued_s)))  # what others took is not its time
                number += 1
                due += 1 / rate_hz
                self._off.wait(max(0.0, due - time.monotonic()))

        self._camera = threading.Thread(target=run, daemon=True)
        self._camera.start()

    def idle(self, turns: int) -> float:
        """Return what 99 % of round trips to the idle client took at most, in seconds."""
        took_s = []
        for _ in range(turns):
            began = time.monotonic()
            self._client.cluster.collisions()
            took_s.append(time.monotonic() - began)
            self._off.wait(0.002)
        return statistics.quantiles(took_s, n=100)[-1]

    def state(self) -> Json:
        """Return how many frames were accepted and refused so far."""
        assert self._series is not None
        return [self._series.accepted, self._series.refused]

    def finalise(self, *, stop: bool = False) -> Json:
        """Wait for the camera, or *stop* it, and finalise; return what came of it."""
        assert self._series is not None
        assert self._camera is not None
        if stop:
            self._off.set()
        self._camera.join(ANSWER_S)
        lost: list[str] = []
        try:
            self._series.finalise()
        except NotReceipted as error:
            lost = list(error.paths)
        summary = self._series.summary
        return {
            "accepted": self._series.accepted,
            "refused": self._series.refused,
            "counted": summary.refused if summary else None,
            "lost": lost,
            "errors": self._errors,
            "p99_s": statistics.quantiles(self._stalls_s, n=100)[-1],
            "max_s": max(self._stalls_s),
        }

    def seen(self) -> Json:
        """Return all that was recorded."""
        history = self._recorder
        return {
            "puts": [_plain(put) for put in history.puts],
            "reads": [asdict(each) for each in history.reads],
            "listings": [asdict(each) for each in history.listings],
            "streams": [asdict(each) for each in history.streams],
            "doubled": sorted(history.doubled),
        }


def _queued_s() -> float:
    """Return how long this thread and that of the client were ready to run while others had the processors; 0.0 unknown."""
    queued = 0
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.name == "granum":
            try:
                queued += int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[1])
            except (OSError, IndexError):
                return 0.0
    return queued / 1e9


def main() -> None:
    """Act until nobody asks."""
    part = _Part(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        verb, arguments = json.loads(line)
        try:
            answer = {"done": getattr(part, verb)(**arguments)}
        except GranumError as error:
            answer = {"failed": [type(error).__name__, str(error)]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
