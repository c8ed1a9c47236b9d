"""The released PYME client, as a control: it streams files to given servers, in PYME's own environment.

That environment is the benchmark's (`integration.bench.programs`), which fetches it; without it a row has the other controls
only. Each run is a process that ends as soon as it has closed, as a program of PYME's user does.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from integration.bench import programs
from integration.faults.board import Check
from integration.faults.talk import Address

LIMIT_S = 30.0  # its `put` may wait for ever when a server has gone

_SCRIPT = """
import sys
from PYME.IO import cluster_streaming
count, size, top, *servers = sys.argv[1:]
streamer = cluster_streaming.Streamer("", servers=[(a, int(p)) for a, _, p in (s.partition(":") for s in servers)])
for number in range(int(count)):
    streamer.put("%s/f%05d" % (top, number), b"%08d" % number * (int(size) // 8), i=number)
streamer.close()
"""


def controls(check: Check) -> Mapping[str, Check]:
    """Return *check* as a control by PYME's client, none where that is not installed."""
    try:
        programs.pyme(fetch=False)
    except programs.Absent:
        return {}
    return {"the released PYME client": check}


def stream(servers: Sequence[Address], top: str, count: int, size: int, scratch: Path) -> None:
    """Put *count* files of *size* bytes below *top* and close at once; returns also when it hangs or fails."""
    arguments = [str(count), str(size), top, *(f"{address}:{port}" for address, port in servers)]
    environment = {**os.environ, "HOME": str(scratch), "TMPDIR": str(scratch)}
    command = [str(programs.pyme(fetch=False)), "-c", _SCRIPT, *arguments]
    process = subprocess.Popen(
        command, env=environment, cwd=scratch, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
