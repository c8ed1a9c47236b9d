"""On what, and with what, a table was measured: a figure without these is a rumour."""

import os
import platform
import re
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from integration.bench import programs


def description(directories: dict[str, Path]) -> list[str]:
    """Return lines that name machine, versions and file systems; *directories* maps a place to where its stores lie."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    cores = len(os.sched_getaffinity(0))
    name = model[1] if model else platform.machine()
    gib = int(memory[1]) / 2**20 if memory else 0
    places = ", ".join(f"{place} on {file_system(path)}" for place, path in directories.items())
    # How an interpreter was built is worth a fifth of its speed.
    origin = "of the distribution" if sys.base_prefix == "/usr" else "from elsewhere"
    versions = (
        f"kernel {platform.release()}, Python {platform.python_version()} {origin}, Twisted {version('twisted')}, "
        f"granum {version('granum')}, {_nginx()}, {programs.PYME.replace('==', ' ')}"
    )
    return [f"{cores} cores of {name}, {gib:.0f} GiB; client and server share them, over loopback", versions, places]


def file_system(path: Path) -> str:
    """Return the type of the file system that holds *path*, as the kernel calls it."""
    best, kind = "", "?"
    for row in Path("/proc/self/mounts").read_text().splitlines():
        _, at, found, *_ = row.split()
        if os.path.commonpath((at, path.resolve())) == at and len(at) >= len(best):
            best, kind = at, found
    return kind


def cpu_ticks() -> dict[str, int]:
    """Return CPU time so far, in ticks: the machine's in all, idle, stolen by the host; and what this run has used."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(each.ru_utime + each.ru_stime for each in used) * os.sysconf("SC_CLK_TCK")
    return {"all": sum(ticks), "idle": ticks[3] + ticks[4], "stolen": ticks[7], "own": round(own)}


def busy(before: dict[str, int]) -> str:
    """Return which shares of the CPU went elsewhere since *before*, as `cpu_ticks` gave it."""
    after = cpu_ticks()
    passed = {key: after[key] - before[key] for key in after}
    everything = max(passed["all"], 1)
    others = max(passed["all"] - passed["idle"] - passed["stolen"] - passed["own"], 0) / everything
    return f"{passed['stolen'] / everything:.0%} of the CPU stolen by the host, {others:.0%} used by other programs"


def _nginx() -> str:
    try:
        program = programs.nginx(fetch=False)
    except programs.Absent:
        return "no nginx"
    said = subprocess.run((program, "-v"), check=True, capture_output=True, text=True).stderr
    return said.strip().rpartition(" ")[2].replace("/", " ")
