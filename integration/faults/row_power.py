"""R3 and R4: power loss at any write, by replaying the disk's log of writes and flushes."""

import filecmp
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from integration.faults import talk
from integration.faults.blocklog import DISCARD, State, read_entries, restore, states
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program, node, standin
from integration.faults.disks import STORAGE_DAEMON, Image, ServedDisk
from integration.faults.load import Receipt, Streams, digest, judge

STREAMS = 4
PUTS = 50  # of each stream
BYTES = 64 * 1024
RECORDINGS = 3  # tries to get a log that holds all: once in some hundred, on a busy machine, it does not
CONTROL_STATES = 20
CONTROL_SHARE = 0.5  # of its states in which a control without one of the two syncs must be found out
KINDS = ("ext4", "xfs", "btrfs")
PROGRAMS = (*STORAGE_DAEMON, "mkfs.ext4")
ALL_PROGRAMS = (*PROGRAMS, "mkfs.xfs", "mkfs.btrfs")

WINDOW_S = 2.0  # of receipts that durability `relaxed` may lose
# Between the puts of a stream: a run lasts several windows, and longer than ext4 keeps names to itself.
RELAXED_PACE_S = 0.14
RELAXED_STATES = 12
SAMPLE_S = 0.02
# In place of the node's own syncs somebody syncs a small file on the same file system, as programs do: then names reach the
# disk long before the bytes.
CARELESS = """
import os
from granum_node import cli, service
from granum_node.storage.keeper import Keeper

def round(keeper):
    fd = os.open("another-program", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=keeper._log._state)
    os.write(fd, b"x")
    os.fsync(fd)
    os.close(fd)
    return True

service.recover = lambda store, relaxed: None
Keeper.round = round
cli.main()
"""


def _flat(stream: int, number: int) -> str:
    return f"/s{stream}/f{number:06}"


def _deep(stream: int, number: int) -> str:
    return f"/s{stream}n{number}/b/c/d/e/f"


@dataclass(frozen=True, slots=True)
class Recording:
    """A load of puts and the log of the disk under it; *clock* has (monotonic seconds, entries) pairs, in order.

    *thrown_away* logs before it did not hold what their disks did.
    """

    disk: ServedDisk
    offered: Mapping[str, bytes]
    receipts: list[Receipt]
    clock: list[tuple[float, int]]
    thrown_away: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of *states* had receipts lost or files torn, and the first of each kind; see `Recording` for *thrown_away*."""

    states: int
    lossy: int
    torn: int
    bad: int
    details: tuple[str, ...]
    thrown_away: int

    def __str__(self) -> str:
        """Return it as a figure."""
        figure = f"lost in {self.lossy}, torn in {self.torn} of {self.states} states"
        return f"{figure} ({self.thrown_away} logs of the disk thrown away)" if self.thrown_away else figure


class Unfaithful(RuntimeError):
    """The log of a disk is wrong: the fault is with what keeps it, not with the program."""


def record(
    program: Program, bed: Bed, kind: str, path_of: Callable[[int, int], str] = _flat, pace_s: float = 0.0
) -> Recording:
    """Let *program* serve a logged disk, put the load, and unmount in order: the log then holds everything.

    A log that does not hold what the disk does is thrown away and made again; raises Unfaithful when that happens each time.
    """
    for attempt in range(RECORDINGS):
        made = _record(program, bed.below(f"recording{attempt}"), kind, path_of, pace_s)
        if is_faithful(made.disk, bed.directory / "whole"):
            return replace(made, thrown_away=attempt)
    raise Unfaithful(f"the log of the disk lacked something {RECORDINGS} times: nothing can be judged by it")


def _record(program: Program, bed: Bed, kind: str, path_of: Callable[[int, int], str], pace_s: float) -> Recording:
    clock: list[tuple[float, int]] = []
    ended = threading.Event()

    def keep_time() -> None:
        while not ended.wait(SAMPLE_S):
            clock.append((time.monotonic(), disk.entries()))

    with (
        ServedDisk(bed.directory / "disk", kind, logged=True) as disk,
        Daemon(program, disk.mount, bed.directory / "daemon") as daemon,
    ):
        keeper = threading.Thread(target=keep_time, daemon=True)
        keeper.start()
        try:
            with Streams(
                daemon.address,
                bed.random(f"load {kind}"),
                count=STREAMS,
                sizes=(BYTES, BYTES),
                puts=PUTS,
                path_of=path_of,
                mark=disk.entries,
                pace_s=pace_s,
            ) as streams:
                streams.join()
        finally:
            ended.set()
            keeper.join()
    if len(streams.receipts) < STREAMS * PUTS // 2:
        raise RuntimeError(f"too few receipts to judge by: {dict(streams.answers)}")
    return Recording(disk, streams.offered, streams.receipts, clock)


def is_faithful(disk: ServedDisk, scratch: Path) -> bool:
    """Whether the log of *disk*, replayed whole to *scratch*, gives the disk as it was left; True where it discarded."""
    entries = read_entries(disk.log)
    if any(entry.flags & DISCARD for entry in entries):  # what a discarded sector holds is nobody's promise
        return True
    restore(State(len(entries), tuple(entries)), disk.pristine, disk.log, scratch)
    try:
        return filecmp.cmp(scratch, disk.image, shallow=False)
    finally:
        scratch.unlink()


def replay(recording: Recording, bed: Bed, number: int) -> Tally:
    """Judge *number* states of the recorded disk after a power loss."""
    entries = read_entries(recording.disk.log)
    lossy = torn = bad = 0
    details: list[str] = []
    for state in states(entries, number, bed.random("cuts")):
        image = _restored(recording, state, bed)
        receipted = [receipt.path for receipt in recording.receipts if receipt.mark <= state.cut]
        try:
            with image:
                found = judge(image.mount, recording.offered, receipted)
        except (RuntimeError, OSError) as error:
            bad += 1
            torn += 1
            details.append(f"cut {state.cut}: {error}")
            continue
        lossy += bool(found.lost)
        torn += bool(found.torn)
        bad += not found.clean
        if not found.clean:
            details.append(f"cut {state.cut}: lost {found.lost[:3]}, torn {found.torn[:3]}")
    return Tally(number, lossy, torn, bad, tuple(details), recording.thrown_away)


def _restored(recording: Recording, state: State, bed: Bed) -> Image:
    image = Image(bed.directory / "replay", recording.disk.kind)
    restore(state, recording.disk.pristine, recording.disk.log, image.image)
    return image


def _power_loss(bed: Bed, path_of: Callable[[int, int], str], plan: Mapping[str, int]) -> Outcome:
    """Record and replay the node in durability `commit` on each kind of file system in *plan*, with that many states."""
    figures, details = [], []
    bad = 0
    for kind, number in plan.items():
        below = bed.below(kind)
        tally = replay(record(node(), below, kind, path_of), below, number)
        figures.append(f"{kind} {tally}")
        details += [f"{kind} {detail}" for detail in tally.details]
        bad += tally.bad
    return Outcome(not bad, "; ".join(figures), tuple(details))


def _control(flaw: str, share: float, bed: Bed) -> Outcome:
    """Hold while fewer than *share* of the states of the stand-in with *flaw* show it."""
    figures = []
    escaped = False
    for kind in KINDS if bed.long else KINDS[:1]:
        below = bed.below(kind)
        tally = replay(record(standin(flaw), below, kind), below, CONTROL_STATES)
        figures.append(f"{kind} {tally}")
        escaped |= tally.bad < max(1, share * tally.states)
    return Outcome(escaped, "; ".join(figures))


def _careless_control(bed: Bed) -> Outcome:
    """Hold while in most states the node that neither syncs nor checks serves nothing torn."""
    outcome = _relaxed(bed, careless_node(), RELAXED_STATES)
    torn = sum("torn served []" not in detail for detail in outcome.details)
    return Outcome(torn < CONTROL_SHARE * RELAXED_STATES, outcome.figure)


def careless_node() -> Program:
    """Return the node in durability `relaxed` without its syncs, and without its look at the store when it opens it."""
    careful = node("relaxed").command
    return Program("node, careless", ("-c", CARELESS, *careful[2:], "--relaxed-window-s", "0.3"))


@row(
    "R3",
    figure="lost 0, torn 0 in every state; relaxed: only receipts of the last 2 s lost, torn served 0",
    control={
        "no fsync(file)": partial(_control, "no-file-sync", CONTROL_SHARE),
        "no fsync(dir)": partial(_control, "no-directory-sync", CONTROL_SHARE),
        "in place, no sync": partial(_control, "in-place", 0.0),
        "relaxed, never synced or checked": _careless_control,
    },
    root=True,
    programs=PROGRAMS,
)
def power_loss(bed: Bed) -> Outcome:
    """Cut the power at random moments of a load of puts."""
    plan = {"ext4": 500, "xfs": 200, "btrfs": 200} if bed.long else {"ext4": 60}
    commit = _power_loss(bed, _flat, plan)
    relaxed = _relaxed(bed.below("relaxed"), node("relaxed"), bed.amount(RELAXED_STATES, 200))
    return Outcome(
        commit.held and relaxed.held, f"{commit.figure}; {relaxed.figure}", (*commit.details, *relaxed.details)
    )


@row("R4", figure="lost 0 in every state", root=True, programs=PROGRAMS)
def new_parents(bed: Bed) -> Outcome:
    """Cut the power while every put makes five directories on its way: with the receipt all of them are durable."""
    return _power_loss(bed, _deep, {"ext4": bed.amount(30, 200)})


def _relaxed(bed: Bed, program: Program, number: int) -> Outcome:
    """Start *program*, which is relaxed, on each state: it may have lost the last window and serves nothing torn."""
    recording = record(program, bed, "ext4", pace_s=RELAXED_PACE_S)
    entries = read_entries(recording.disk.log)
    lossy = torn = 0
    details: list[str] = []
    for count, state in enumerate(states(entries, number, bed.random("relaxed cuts"))):
        before = max((when for when, entries_then in recording.clock if entries_then <= state.cut), default=0.0)
        due = [each.path for each in recording.receipts if each.mark <= state.cut and each.when < before - WINDOW_S]
        with (
            _restored(recording, state, bed) as image,
            Daemon(program, image.mount, bed.directory / f"after{count}") as daemon,
            talk.Line(daemon.address) as line,
        ):
            answers = {path: line.get(path) for path in recording.offered}
        served = {path: answer for path, answer in answers.items() if answer.status == 200}
        wrong = [path for path, answer in served.items() if digest(answer.body) != recording.offered[path]]
        lost = [path for path in due if path not in served]
        lossy += bool(lost)
        torn += bool(wrong)
        if lost or wrong:
            details.append(f"relaxed, cut {state.cut}: lost {lost[:3]}, torn served {wrong[:3]}")
    figure = f"relaxed lost before the window in {lossy}, torn served in {torn} of {number} states"
    return Outcome(not lossy and not torn, figure, tuple(details))
