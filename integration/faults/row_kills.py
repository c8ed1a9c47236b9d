"""R1 and R2: a node killed at a chosen system call of a put, and at random moments under load."""

import os
import signal
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program, node, standin
from integration.faults.load import Receipt, Streams, body_of, digest, judge
from integration.faults.trace import Trace
from integration.faults.waiting import pause, until

STEPS = "write,pwrite64,fdatasync,fsync,linkat,mkdir,mkdirat,sendmsg,sendto"
SIZES = (0, 70_000, 8 << 20)
CASES_MIN = 60
LANES = 2  # sweeps at a time, each with a daemon and a store of its own
DEATH_S = 10.0  # for the fault to strike: beyond it the put did not come by that call

STREAMS = 8
PAUSES_S = (0.2, 2.0)
OLD_FILES = 10_000
READY_P95_S = 2.0
NEVER_S = 30.0


@dataclass(frozen=True, slots=True)
class Case:
    """Kill at the *n*-th *call* of a put of *size* bytes."""

    size: int
    call: str
    n: int


@dataclass(slots=True)
class Sweep:
    """What the cases came to."""

    killed: int = 0
    torn: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    leaked_bytes: int = 0
    missed: int = 0

    def add(self, other: "Sweep") -> None:
        """Count *other* too."""
        self.killed += other.killed
        self.torn += other.torn
        self.lost += other.lost
        self.leaked_bytes += other.leaked_bytes
        self.missed += other.missed


def _kill_at_every_step(program: Program, bed: Bed) -> Outcome:
    """Kill *program* at every step of a put; the path must be absent or whole, and nothing spooled remain."""
    cases = _cases(program, bed.below("count"), bed.amount(CASES_MIN, 4 * CASES_MIN))
    total = Sweep()
    with ThreadPoolExecutor(LANES) as lanes:
        beds = [bed.below(f"lane{number}") for number in range(LANES)]
        for sweep in lanes.map(partial(_sweep, program), beds, [cases[lane::LANES] for lane in range(LANES)]):
            total.add(sweep)
    good = total.killed - len(total.torn) - len(total.lost)
    figure = (
        f"{good}/{total.killed} cases absent or whole, leaked {total.leaked_bytes} B"
        f" ({len(total.torn)} torn, {len(total.lost)} receipts lost, {total.missed} calls not reached)"
    )
    held = good == total.killed >= CASES_MIN and not total.leaked_bytes
    return Outcome(held, figure, tuple(total.torn + total.lost))


@row(
    "R1",
    figure="100 % of >= 60 cases absent or whole, leaked 0 B",
    control={"create under the final name, then write": partial(_kill_at_every_step, standin("in-place"))},
    root=True,
    programs=["strace"],
)
def kill_at_every_step(bed: Bed) -> Outcome:
    """Kill the node at every system call of a put that changes something."""
    return _kill_at_every_step(node(), bed)


def _cases(program: Program, bed: Bed, wanted: int) -> list[Case]:
    """Return every call of a put of each size but for the writes of the largest, of which enough for *wanted* cases."""
    cases = []
    writes: list[Case] = []
    for size in SIZES:
        path = f"/count{size}/a/b/f"
        with Daemon(program, bed.directory / f"store{size}", bed.directory / f"daemon{size}") as daemon:
            with Trace(daemon.pid, bed.directory / f"trace{size}", STEPS) as trace:
                talk.put(daemon.address, path, body_of(path, size))
                pause(0.1)
            steps = trace.most_of_one_thread()
        for call, number in sorted(steps.items()):
            each = [Case(size, call, n) for n in range(1, number + 1)]
            if size == SIZES[-1] and call in {"write", "pwrite64"}:
                writes += each
            else:
                cases += each
    step = max(1, len(writes) // max(1, wanted + CASES_MIN // 10 - len(cases)))
    return cases + writes[::step]


def _sweep(program: Program, bed: Bed, cases: list[Case]) -> Sweep:
    """Run *cases* one after the other on one store; the restart after a case is the start of the next."""
    sweep = Sweep()
    daemon = Daemon(program, bed.directory / "store", bed.directory / "daemon")
    with daemon:
        for number, case in enumerate(cases):
            path = f"/c{number}/a/b/f"
            body = body_of(path, case.size)
            with Trace(daemon.pid, bed.directory / "trace", STEPS, case.call, f"signal=KILL:when={case.n}"):
                answer = talk.put(daemon.address, path, body)
                struck = answer is None or until(lambda: daemon.process.poll() is not None, 0.2)
                struck = struck and _died(daemon)
            if not struck:
                sweep.missed += 1
                if answer is None:
                    sweep.lost.append(f"{case}: neither an answer nor an end")
                continue
            sweep.killed += 1
            daemon.kill()
            daemon.start()
            found = talk.get(daemon.address, path)
            if found is not None and found.status == 404 and answer is not None and answer.stored:
                sweep.lost.append(f"{case}: receipt, then 404")
            elif found is None or found.status not in {200, 404} or (found.status == 200 and found.body != body):
                sweep.torn.append(f"{case}: {found and (found.status, len(found.body))} of {case.size} B")
            sweep.leaked_bytes += _spooled_bytes(daemon.root)
    return sweep


def _died(daemon: Daemon) -> bool:
    try:
        return daemon.process.wait(DEATH_S) == -signal.SIGKILL
    except subprocess.TimeoutExpired:
        return False


def _spooled_bytes(store: Path) -> int:
    return sum(max(1, file.stat().st_size) for file in (store / ".granum" / "spool").rglob("*") if file.is_file())


@row("R2", figure="lost 0, torn 0 of all receipts; ready again p95 <= 2 s with 10^4 files")
def kill_under_load(bed: Bed) -> Outcome:
    """Kill the node at random moments while eight streams put; no receipt may be lost and no file torn."""
    kills = bed.amount(20, 100)
    random = bed.random("R2")
    store = bed.directory / "store"
    old = _old_files(store)
    ready_s = []
    with Daemon(node(), store, bed.directory / "daemon") as daemon:
        with Streams(daemon.address, random, count=STREAMS, sizes=(1, 200_000)) as streams:
            for _ in range(kills):
                pause(random.uniform(*PAUSES_S))
                daemon.kill()
                killed = time.monotonic()
                daemon.start()
                if not until(partial(talk.serves, daemon.address), NEVER_S):
                    raise RuntimeError("the node does not serve after a restart")
                ready_s.append(time.monotonic() - killed - daemon.queued_s)  # what others took from it is not its time
            streams.stop()
        found = judge(store, {**old, **streams.offered}, [receipt.path for receipt in streams.receipts])
        served = _not_served(daemon.address, streams, random.sample(streams.receipts, min(200, len(streams.receipts))))
    p95 = statistics.quantiles(ready_s, n=20)[-1]
    figure = (
        f"lost {len(found.lost)}, torn {len(found.torn)} of {len(streams.receipts)} receipts, {kills} kills,"
        f" ready p95 {p95:.2f} s"
    )
    held = found.clean and not served and p95 <= READY_P95_S and len(streams.receipts) > kills
    return Outcome(held, figure, (*found.lost, *found.torn, *served))


def _old_files(store: Path) -> dict[str, bytes]:
    """Fill *store* with 10^4 small files of an earlier time; return their digests."""
    offered = {}
    for number in range(OLD_FILES):
        path = f"/old{number // 1000}/f{number}"
        file = store / path[1:]
        if number % 1000 == 0:
            file.parent.mkdir(parents=True)
        file.write_text(path)
        os.chmod(file, 0o440)
        offered[path] = digest(path.encode())
    return offered


def _not_served(address: talk.Address, streams: Streams, sample: list[Receipt]) -> list[str]:
    """Return the paths of *sample* that the node does not give back as they were put."""
    with talk.Line(address) as line:
        answers = {receipt.path: line.get(receipt.path) for receipt in sample}
    return [path for path, answer in answers.items() if digest(answer.body) != streams.offered[path]]
