"""The pace: how large the window of one node is, from what its receipts show.

A window must cover what the node takes while a receipt is under way, rate times commit time, and not more: what is on its way
to a slow node is memory that the fast ones could use, and frames that are late when it dies. So the window doubles while
everything in it was sent, still somebody waited for room, and every receipt took as long as a commit; it is halved while
receipts take long. Each judgement is made over one window of receipts, since the effect of the last change shows no sooner.

Pure: the window is the only thing it touches.
"""

from dataclasses import dataclass, field
from typing import Any

from granum.streaming.window import WINDOW_BYTES_MAX, WINDOW_PUTS_MAX, Window

# Rate x commit time is 3 MiB for a node that takes 84 MB/s and commits in 40 ms. Windows of 64 MiB and more were a third slower
# with frames of 8 MiB: their memory is cold when its turn comes. So it is the number of small puts that may grow.
PACE_BYTES_MAX = WINDOW_BYTES_MAX
PACE_PUTS_MAX = 256  # at a commit of 40 ms 6,400 a second, more than a node does
PACE_BYTES_MIN = 1 << 20  # a put larger than this still enters alone
PACE_PUTS_MIN = 2  # one on its way while the other is committed
SLOW_S = 1.0  # a receipt that takes longer tells of more in the window than the node can take in
QUICK_S = 0.25  # growth ends here, far from SLOW_S, or the window would swing between the two
COMMIT_S = 0.01  # the quickest commits; receipts that are quicker wait for none, and a deeper window would gain nothing


@dataclass(slots=True)
class Pace:
    """Sets the bounds of *window*, which starts as it is, never above *bytes_max* and *puts_max*."""

    window: Window[Any]
    bytes_max: int = PACE_BYTES_MAX
    puts_max: int = PACE_PUTS_MAX
    _left: int = 0  # receipts before the next judgement
    _was_short: bool = field(default=False)
    _longest: float = 0.0
    _shortest: float = QUICK_S

    def receipt(self, took: float, *, short: bool) -> None:
        """Note a receipt that came *took* seconds behind its put; *short*: all was sent, and a put found no room."""
        self._was_short = self._was_short or short
        if took > self._longest:
            self._longest = took
        if took < self._shortest:
            self._shortest = took
        self._left -= 1
        if self._left > 0:
            return
        if self._longest > SLOW_S:
            self._set(self.window.bytes_max // 2, self.window.puts_max // 2)
        elif self._was_short and self._shortest >= COMMIT_S and self._longest < QUICK_S:
            self._set(self.window.bytes_max * 2, self.window.puts_max * 2)
        self._left, self._was_short, self._longest, self._shortest = len(self.window), False, 0.0, QUICK_S

    def _set(self, size: int, puts: int) -> None:
        self.window.bytes_max = min(max(size, PACE_BYTES_MIN), self.bytes_max)
        self.window.puts_max = min(max(puts, PACE_PUTS_MIN), self.puts_max)


def paced(bytes_max: int = PACE_BYTES_MAX, puts_max: int = PACE_PUTS_MAX) -> Pace:
    """Return the pace of a new window that will stay below the two bounds."""
    window: Window[Any] = Window(min(WINDOW_BYTES_MAX, bytes_max), min(WINDOW_PUTS_MAX, puts_max))
    return Pace(window, bytes_max, puts_max)
