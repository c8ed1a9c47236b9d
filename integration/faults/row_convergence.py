"""R30: how soon what one client has stored shows in the listings of that client and of another, and that it stays there.

Also how many names were looked at: a name that was seen once must be in every later complete listing, which is the checker's
matter.
"""

import statistics
import threading
import time

from integration.faults.board import Bed, Outcome, row
from integration.faults.filming import stage
from integration.faults.waiting import pause
from integration.recorder import Recorded

PUTS, PUTS_LONG = 250, 2500
BEFORE = 400  # names that are there already
PAUSE_S = 0.01
LOOK_S = 0.02
OTHER_P99_S, OTHER_MAX_S = 1.0, 2.0
DIRECTORY = "/c/"


class _Watcher(threading.Thread):
    """Lists a directory over and over; *first* is when each name was seen first, *vanished* what was seen and then was not."""

    def __init__(self, client: Recorded) -> None:
        super().__init__(daemon=True)
        self.first: dict[str, float] = {}
        self.vanished: set[str] = set()
        self.names = 0
        self.stop = threading.Event()
        self._client = client

    def run(self) -> None:
        """Look until told to stop."""
        while not self.stop.wait(LOOK_S):
            view = self._client.listdir(DIRECTORY)
            now = time.monotonic()
            for name in view:
                self.first.setdefault(name, now)
            self.names += len(view)
            if not view.partial:
                self.vanished |= self.first.keys() - view.keys()


@row("R30", figure="own at once; other client p99 <= 1 s, max <= 2 s; vanished names 0 of 10^5")
def convergence(bed: Bed) -> Outcome:
    """Put by one client and list by it and by another."""
    puts = bed.amount(PUTS, PUTS_LONG)
    own_late = 0
    receipted: dict[str, float] = {}
    with stage(bed, 2) as ground:
        for daemon in ground.daemons:
            (daemon.root / "c").mkdir()
        with ground.client("writer") as writer, ground.client("reader") as reader:
            for number in range(BEFORE):
                writer.put(f"{DIRECTORY}old{number:04}", b"old")
            watcher = _Watcher(reader)
            watcher.start()
            for number in range(puts):
                name = f"new{number:04}"
                writer.put(DIRECTORY + name, b"new")
                receipted[name] = time.monotonic()
                own_late += number % 10 == 0 and name not in writer.listdir(DIRECTORY)
                pause(PAUSE_S)
            pause(OTHER_MAX_S)
            watcher.stop.set()
            watcher.join()
    late_s = [watcher.first.get(name, float("inf")) - when for name, when in receipted.items()]
    p99_s, longest_s = statistics.quantiles(late_s, n=100)[-1], max(late_s)
    figure = (
        f"own late {own_late}, other p99 {p99_s:.2f} s, max {longest_s:.2f} s, vanished {len(watcher.vanished)} "
        f"of {watcher.names} names looked at"
    )
    held = {
        "own at once": not own_late,
        "p99": p99_s <= OTHER_P99_S,
        "longest": longest_s <= OTHER_MAX_S,
        "none vanished": not watcher.vanished,
        "10^5 names": watcher.names >= 100_000,
    }
    return ground.verdict("R30", figure, held)
