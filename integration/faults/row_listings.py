"""R31: a directory of 10^5 entries is listed over and over while frames arrive in it, and a file is placed by hand.

How long a small request waits says how late the loop is; what it waits on the idle node, for a processor that other programs
have, is not the node's doing and is taken off.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from integration.bench import programs
from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program, node
from integration.faults.load import Streams
from integration.faults.waiting import pause, until

ENTRIES = 100_000
FEW = 1_000  # are enough for the control, which must lack names
LINKS = 10_000  # to one file; the file systems allow 65,000
LIST_EVERY_S = 0.05
STREAMS = 6
PACE_S = 0.016  # between puts of one stream, beside the few ms that a put takes: some 300 a second
LAG_P99_S = 0.05
NOTICED_S = 15.0  # the node's bound is 10 s in so large a directory; it is at once where the clock of files is fine
DIRECTORY = "/many/"

_ARRIVED = re.compile(rb'"(s[^"]+)"')

# The node with an index that is told nothing, on a kernel on which nothing else tells it either.
_DEAF = """
from granum_node.cli import main
from granum_node.storage import directory, index
directory.stamp_of = index.stamp_of = lambda status: 0
index.Index.add = lambda self, directory, name, size, make: make()
main()
"""


def deaf() -> Program:
    """Return the node with an index that does not learn what is put."""
    return Program("node, deaf index", ("-c", _DEAF, *node().command[2:]))


def _fill(directory: Path, entries: int) -> None:
    """Make *entries* names, of few files: what a name leads to does not matter here, and files take longer to make."""
    directory.mkdir(parents=True)
    source = directory
    for number in range(entries):
        name = directory / f"old{number:06}"
        if number % LINKS:
            os.link(source, name)
        else:
            source = name
            source.touch()


def _listed(line: talk.Line, streams: Streams, entries: int) -> tuple[int, int]:
    """List the directory and the one above; return how many receipts were out before, and how much of them is missing."""
    stored = [receipt.path for receipt in list(streams.receipts)]
    body = line.get(DIRECTORY).body
    counted = line.listing("/")[DIRECTORY[1:]]
    names = set(_ARRIVED.findall(body))  # to decode it would take this program longer than the node needs to make it
    missing = sum(path.removeprefix(DIRECTORY).encode() not in names for path in stored)
    old = body.count(b'"old')
    return len(stored), missing + (entries - old) + max(0, entries + len(stored) - counted)


@contextmanager
def _pinged(address: talk.Address, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    """Ask for something small a hundred times a second, from a process of its own."""
    command = (sys.executable, str(programs.HERE / "ping.py"), str(address[1]), "/__healthz", str(seconds))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def _p99_s(ping: "subprocess.Popen[str]") -> float:
    assert ping.stdout is not None
    said: dict[str, float] = json.loads(ping.stdout.readline() or '{"p99_ms": 1e6}')
    return said["p99_ms"] / 1e3


def _listings(program: Program, bed: Bed, entries: int) -> Outcome:
    """List a directory of *program* that has *entries* while more arrive in it."""
    store = bed.directory / "store"
    _fill(store / "many", entries)
    seconds = bed.amount(4, 30)
    listings = missing = stored = 0
    with Daemon(program, store, bed.directory / "daemon") as daemon:
        with _pinged(daemon.address, 1.0) as ping:
            idle_s = _p99_s(ping)
        with (
            talk.Line(daemon.address) as line,
            _streams(daemon.address, bed) as streams,
            _pinged(daemon.address, seconds) as ping,
        ):
            while ping.poll() is None:
                stored, lacking = _listed(line, streams, entries)
                missing += lacking
                listings += 1
                pause(LIST_EVERY_S)
            lag_s = _p99_s(ping)
        with talk.Line(daemon.address) as line:
            (store / "many" / "placed").touch()
            noticed = until(lambda: "placed" in line.listing(DIRECTORY), NOTICED_S)
    figure = (
        f"missing {missing} in {listings} listings while {stored / seconds:.0f} files/s arrived; loop lag p99 "
        f"{lag_s * 1e3:.0f} ms, idle {idle_s * 1e3:.0f} ms; a file placed by hand {'listed' if noticed else 'never listed'}"
    )
    held = not missing and noticed and lag_s - idle_s <= LAG_P99_S and stored > 0 and listings > 1
    return Outcome(held, figure)


def _streams(address: talk.Address, bed: Bed) -> Streams:
    path_of = (DIRECTORY + "s{}-{:06}").format
    return Streams(address, bed.random("sizes"), count=STREAMS, sizes=(100, 2000), pace_s=PACE_S, path_of=path_of)


@row(
    "R31",
    figure="missing 0, loop lag p99 <= 50 ms",
    control={"an index that is told nothing": lambda bed: _listings(deaf(), bed, FEW)},
)
def listings(bed: Bed) -> Outcome:
    """List a large directory of a node while files arrive in it."""
    return _listings(node(), bed, ENTRIES)
