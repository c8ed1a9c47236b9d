"""Faults: a node's machine loses its power, its daemon is killed, its daemon freezes; the others go on."""

import time

from integration.vm.board import expect, scenario
from integration.vm.filming import Filming, verify_over_http
from integration.vm.lab import Lab, wait_until
from integration.vm.places import UNION, UNIT, branch, serves
from integration.vm.scenario_10_reading import SERIES
from integration.vm.topology import Machine

ANSWERS_S = 10.0  # for the union to list while a node's machine is dead
BACK_S = 60.0  # for all to be as before once the machine answers again
RESTART_S = 5.0  # for systemd to have a killed daemon serving again
FREEZE_S = 90.0  # for the watchdog, thirty seconds, to notice, and for the daemon to die and start


@scenario(
    "power cut",
    claims="no frame lost, the union lists within 10 s, all back within 60 s of the machine's return",
    bound_s=600,
)
def power_cut(lab: Lab) -> str:
    """Cut the machine off in the middle of a series, with its write cache."""
    dies, lives = lab.nodes[-1], lab.nodes[0]
    other = lab.run(lab.gateway, f"sudo ls {branch(lives)}{SERIES}.pcs | grep ^frame | head -n 1").strip()
    with Filming(lab, "/proof/power-cut", 300, 0.1) as filming:
        lab.cut_power(dies)
        listed_s = _seconds(lab, lab.gateway, f"sudo ls {UNION}/proof", ANSWERS_S, "the union does not list")
        read_s = _seconds(
            lab,
            lab.gateway,
            f"sudo cat {UNION}{SERIES}.pcs/{other} > /dev/null",
            ANSWERS_S,
            "another node's file cannot be read",
        )
        film = filming.finish(240)
    expect(
        len(film["nodes"]) == len(lab.nodes),
        f"only {film['nodes']} were found, so no frame was on its way to {dies.name}",
    )
    lab.start(dies)
    lab.wait_for_boot(dies)
    begun = time.monotonic()
    lab.wait_for(lab.client, serves(dies), BACK_S, f"{dies.name} serves")
    expected = lab.stored[f"{SERIES}.pcs"]
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


@scenario("daemon killed", claims="a daemon that dies serves again within 5 s", bound_s=60)
def daemon_killed(lab: Lab) -> str:
    """SIGKILL, as the kernel does when memory runs out."""
    node = lab.nodes[0]
    before = _main_pid(lab, node)
    seconds = float(lab.run(node, _until_served(node, "KILL")))
    expect(_main_pid(lab, node) not in {before, "0"}, f"{node.name}: it is still process {before}")
    expect(seconds <= RESTART_S, f"{node.name} served again after {seconds:.1f} s")
    return f"served again after {seconds:.1f} s"


@scenario("daemon frozen", claims="the watchdog restarts a daemon that stands still", bound_s=200)
def daemon_frozen(lab: Lab) -> str:
    """SIGSTOP: it neither answers nor ends."""
    node = lab.nodes[0]
    before = _main_pid(lab, node)
    lab.run(node, f"sudo kill -STOP {before}")
    seconds = wait_until(lambda: _main_pid(lab, node) not in {before, "0"}, FREEZE_S, f"{node.name}: a new process")
    seconds += lab.wait_for(lab.client, serves(node), FREEZE_S, f"{node.name} serves again")
    journal = lab.run(node, f"sudo journalctl --boot --no-pager --lines=100 -u {UNIT}")
    expect("atchdog" in journal, f"{node.name}: it was not the watchdog that restarted it")
    return f"served again after {seconds:.0f} s"


def _until_served(node: Machine, signal: str) -> str:
    """Return a script that sends *signal* and prints after how many seconds the node serves again; it measures on the node."""
    served = serves(node, 1)
    return (
        f"begun=$(date +%s.%N); sudo systemctl kill --signal={signal} --kill-who=main {UNIT}; "
        f"while {served}; do :; done; until {served}; do sleep 0.1; done; "
        "awk -v begun=$begun -v now=$(date +%s.%N) 'BEGIN { print now - begun }'"
    )


def _main_pid(lab: Lab, node: Machine) -> str:
    return lab.run(node, f"systemctl show --property=MainPID --value {UNIT}").strip()


def _seconds(lab: Lab, machine: Machine, script: str, bound_s: float, otherwise: str) -> float:
    begun = time.monotonic()
    done = lab.try_run(machine, script)
    seconds = time.monotonic() - begun
    expect(done.returncode == 0 and seconds <= bound_s, f"{otherwise}: {done.stderr.strip()} ({seconds:.1f} s)")
    return seconds
