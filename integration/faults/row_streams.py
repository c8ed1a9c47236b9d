"""R18, R20 and R38: a node that is killed, frozen or restarted while a camera streams to it and two others."""

import signal
import time

from granum.wire.errors import NotReceipted
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, node
from integration.faults.filming import Film, Stage, disturbed, film, stage, while_alive
from integration.faults.former import NoHistory, former
from integration.faults.waiting import pause
from integration.recorder import RecordedSeries

NODES = 3
RATE_HZ, RATE_LONG_HZ = 100, 200
SIDE, SIDE_LONG = 181, 362  # pixels: 64 and 256 KiB
BEFORE_S = 1.0  # of undisturbed streaming
FROZEN_S, FROZEN_LONG_S = 8, 30  # longer than a stall may last
STALL_P99_S, STALL_MAX_S = 1.0, 3.0
RESTART_STALL_P99_S = 2.0
DRAIN_S = 10.0


def _ended(series: RecordedSeries, seen: Film) -> int:
    """Finalise; return how many frames are reported as lost."""
    try:
        series.finalise()
    except NotReceipted as error:
        seen.errors.append(str(error))
        return len(error.paths)
    return 0


def _camera(bed: Bed) -> tuple[int, int]:
    """Return the side of a frame in pixels, and frames per second."""
    return bed.amount(SIDE, SIDE_LONG), bed.amount(RATE_HZ, RATE_LONG_HZ)


@row("R18", figure="lost 0; producer stall p99 <= 1 s, max <= 3 s")
def killed(bed: Bed) -> Outcome:
    """Kill one of three nodes while a camera streams."""
    side, rate = _camera(bed)
    with stage(bed, NODES) as ground, ground.client() as client:
        series = client.create_series("/run.pcs")

        def disturb() -> None:
            pause(BEFORE_S)
            ground.daemons[0].kill()
            pause(BEFORE_S)

        with disturbed(disturb) as disturbance:
            seen = film(series, while_alive(disturbance, 3 * rate, rate), side, rate)
            lost = _ended(series, seen)
        held = {"stall p99": seen.p99_s <= STALL_P99_S, "longest stall": seen.longest_s <= STALL_MAX_S}
        return _verdict("R18", ground, series, seen, lost, "", held)


@row("R20", figure="lost 0; collisions with different bytes 0")
def frozen(bed: Bed) -> Outcome:
    """Freeze one of three nodes for longer than a stall may last while a camera streams, then thaw it."""
    side, rate = _camera(bed)
    with stage(bed, NODES) as ground, ground.client() as client:
        series = client.create_series("/run.pcs")
        frozen = ground.daemons[0].process

        def disturb() -> None:
            pause(BEFORE_S)
            frozen.send_signal(signal.SIGSTOP)
            pause(bed.amount(FROZEN_S, FROZEN_LONG_S))
            frozen.send_signal(signal.SIGCONT)
            pause(BEFORE_S)

        with disturbed(disturb) as disturbance:
            seen = film(series, while_alive(disturbance, rate), side, rate)
        lost = _ended(series, seen)
        client.listdir("/run.pcs/")
        client.note_collisions()
        different = len(ground.recorder.collisions)
        moved = len(series.summary.moved) if series.summary else 0
        text = f", {moved} moved, collisions {different}"
        return _verdict("R20", ground, series, seen, lost, text, {"no collision": not different})


@row("R38", figure="lost 0, caller errors 0, stall p99 <= 2 s, drain <= 10 s")
def rolling_restart(bed: Bed) -> Outcome:
    """Upgrade three nodes one after the other, then restart each, in order, while a camera streams."""
    side, rate = _camera(bed)
    drains_s: list[float] = []
    statuses: list[int] = []
    try:
        before, note = former(node(), bed.directory / "former"), ""
    except NoHistory as error:
        before, note = node(), f", no upgrade ({error})"
    with stage(bed, NODES, program=before) as ground, ground.client() as client:
        series = client.create_series("/run.pcs")

        def restart(daemon: Daemon) -> None:
            began = time.monotonic()
            statuses.append(daemon.stop())
            drains_s.append(time.monotonic() - began)
            daemon.program = node()
            daemon.start()
            pause(BEFORE_S)

        def disturb() -> None:
            pause(BEFORE_S)
            for daemon in ground.daemons * 2:
                restart(daemon)

        with disturbed(disturb) as disturbance:
            seen = film(series, while_alive(disturbance, rate), side, rate)
        lost = _ended(series, seen)
        held = {
            "stall p99": seen.p99_s <= RESTART_STALL_P99_S,
            "drain": max(drains_s) <= DRAIN_S,
            "exit status 0": not any(statuses),
        }
        return _verdict("R38", ground, series, seen, lost, f", longest drain {max(drains_s):.1f} s{note}", held)


def _verdict(
    name: str, ground: Stage, series: RecordedSeries, seen: Film, lost: int, more: str, held: dict[str, bool]
) -> Outcome:
    figure = (
        f"lost {lost} of {series.accepted}, errors {len(seen.errors)}, stall p99 {seen.p99_s * 1000:.0f} ms, max "
        f"{seen.longest_s * 1000:.0f} ms{more}"
    )
    outcome = ground.verdict(name, figure, {"no error": not seen.errors, **held})
    return Outcome(outcome.held, outcome.figure, (*outcome.details, *seen.errors))
