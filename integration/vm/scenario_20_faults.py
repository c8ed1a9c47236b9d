"""Faults: a node's machine loses its power, its daemon is killed, its daemon freezes; the others go on."""

import tempfile
import time
from pathlib import Path

from integration.lab import NodeProcess
from integration.vm.board import expect, scenario
from integration.vm.filming import Filming, verify_over_http
from integration.vm.lab import Lab, wait_until
from integration.vm.places import UNION, UNIT, branch, serves
from integration.vm.scenario_10_reading import SERIES, stored_series
from integration.vm.topology import Machine

ANSWERS_S = 10.0  # for the union to list while a node's machine is dead
DEAD_S = 40.0  # that it is asked for, until long after the dead node is dropped
BACK_S = 60.0  # for all to be as before once the machine answers again
RESTART_S = 5.0  # for systemd to have a killed daemon serving again
KILLED_S = 60.0  # for that to be waited for
# When systemd saw the daemon dead, when it began the next one, and when it heard that this one serves; the dead one's own times
# are gone by then.
LEFT, BEGAN, ENTERED = (
    "ActiveExitTimestampMonotonic",
    "ExecMainStartTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
)
FREEZE_S = 90.0  # for the watchdog, thirty seconds, to notice, and for the daemon to die and start


@scenario(
    "power cut",
    claims="no frame lost, the union lists within 10 s, all back within 60 s of the machine's return",
    bound_s=600,
)
def power_cut(lab: Lab) -> str:
    """Cut the machine off in the middle of a series, with its write cache."""
    expected = stored_series(lab)
    dies, lives = lab.nodes[-1], lab.nodes[0]
    other = lab.run(lab.gateway, f"sudo ls {branch(lives)}{SERIES}.pcs | grep ^frame | head -n 1").strip()
    with Filming(lab, "/proof/power-cut", 300, 0.1) as filming:
        lab.cut_power(dies)
        listed_s, read_s = _slowest_answers(lab, f"{UNION}{SERIES}.pcs", other)
        film = filming.finish(240)
    expect(
        len(film["nodes"]) == len(lab.nodes),
        f"only {film['nodes']} were found, so no frame was on its way to {dies.name}",
    )
    lab.start(dies)
    lab.wait_for_boot(dies)
    begun = time.monotonic()
    lab.wait_for(lab.client, serves(dies), BACK_S, f"{dies.name} serves")
    count = f"sudo ls {UNION}{SERIES}.pcs | grep -c '^frame'"
    left = BACK_S - (time.monotonic() - begun)
    lab.wait_for(lab.gateway, count, left, "the union is whole", prints=str(len(expected)))
    back_s = time.monotonic() - begun
    holders = verify_over_http(lab, "/proof/power-cut.pcs", film["frames"])
    verify_over_http(lab, f"{SERIES}.pcs", len(expected))
    return (
        f"{sum(holders.values())}/{film['frames']} frames ({' + '.join(map(str, holders.values()))}), "
        f"listed in {listed_s:.1f} s, read in {read_s:.1f} s, back in {back_s:.1f} s"
    )


@scenario("daemon killed", claims="a daemon that dies serves again within 5 s", bound_s=150)
def daemon_killed(lab: Lab) -> str:
    """SIGKILL, as the kernel does when memory runs out; the times are systemd's, whom the daemon tells that it serves."""
    node = lab.nodes[0]
    before = _main_pid(lab, node)
    lab.run(node, f"sudo systemctl kill --signal=KILL --kill-who=main {UNIT}")
    # Asked from elsewhere: to be asked over ssh would cost the node's machine what it needs for the start.
    lab.wait_for(lab.client, serves(node), KILLED_S, f"{node.name} serves again")
    expect(_main_pid(lab, node) not in {before, "0"}, f"{node.name}: it is still process {before}")
    moments = lab.run(node, f"systemctl show --property={LEFT} --property={BEGAN} --property={ENTERED} {UNIT}")
    micros = {name: int(value) for name, value in (line.split("=") for line in moments.split())}
    seconds, start_s = (micros[ENTERED] - micros[LEFT]) / 1e6, (micros[ENTERED] - micros[BEGAN]) / 1e6
    said, slower_s = f"served again after {seconds:.1f} s", 0.0
    if lab.emulated:  # a start is all computation, which emulation slows down by an order of magnitude
        here_s = min(_start_s() for _ in range(3))
        slower_s = start_s - here_s
        said += f", of which emulation costs {slower_s:.1f} s (a start takes {start_s:.1f} s, and {here_s:.1f} s without it)"
    expect(0 < seconds <= RESTART_S + slower_s, f"{node.name} {said}")
    return said


@scenario("daemon frozen", claims="the watchdog restarts a daemon that stands still", bound_s=200)
def daemon_frozen(lab: Lab) -> str:
    """SIGSTOP: it neither answers nor ends."""
    node = lab.nodes[0]
    before = _main_pid(lab, node)
    lab.run(node, f"sudo kill -STOP {before}")
    seconds = wait_until(lambda: _main_pid(lab, node) not in {before, "0"}, FREEZE_S, f"{node.name}: a new process")
    seconds += lab.wait_for(lab.client, serves(node), FREEZE_S, f"{node.name} serves again")
    journal = lab.run(node, f"sudo journalctl --boot --no-pager --since=-5min -u {UNIT}")
    expect("Watchdog timeout" in journal, f"{node.name}: it was not the watchdog that restarted it")
    return f"served again after {seconds:.0f} s"


def _start_s() -> float:
    """Return how many seconds the daemon takes on this machine until it serves."""
    with tempfile.TemporaryDirectory(prefix="granum-lab-") as directory:
        node = NodeProcess(Path(directory) / "store")
        begun = time.monotonic()
        with node:
            return time.monotonic() - begun


def _main_pid(lab: Lab, node: Machine) -> str:
    return lab.run(node, f"systemctl show --property=MainPID --value {UNIT}").strip()


def _slowest_answers(lab: Lab, directory: str, name: str) -> tuple[float, float]:
    """List *directory* of the union and read *name* in it again and again; return how long each took at most, in seconds."""
    listed_s = read_s = 0.0
    until = time.monotonic() + DEAD_S
    while time.monotonic() < until:
        listed_s = max(listed_s, _seconds(lab, lab.gateway, f"sudo ls {directory}", "the union does not list"))
        read = f"sudo dd if={directory}/{name} iflag=direct bs=1M of=/dev/null"  # from the node, not from memory
        read_s = max(read_s, _seconds(lab, lab.gateway, read, "another node's file cannot be read"))
    return listed_s, read_s


def _seconds(lab: Lab, machine: Machine, script: str, otherwise: str) -> float:
    begun = time.monotonic()
    done = lab.try_run(machine, script)
    seconds = time.monotonic() - begun
    expect(done.returncode == 0 and seconds <= ANSWERS_S, f"{otherwise}: {done.stderr.strip()} ({seconds:.1f} s)")
    return seconds
