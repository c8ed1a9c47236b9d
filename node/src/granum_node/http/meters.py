"""What a node counts while it works, for `/__status` and `/__metrics`.

Counting is on the path of every request, so it is a few additions; what can be computed from something that is kept anyway
(connections, requests under way, space) is computed when somebody asks.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from granum_node.http.metrics import LAG_BOUNDS_S, REQUEST_BOUNDS_S, SYNC_BOUNDS_S, Histogram

TICK_S = 0.1  # how often the lag of the reactor is measured; each time costs some 20 µs
# A peer can make up as many verbs as it likes; the table must not grow with them.
VERBS = frozenset({"GET", "HEAD", "OPTIONS", "PUT"})


class Connection(Protocol):
    """What is counted of a connection while it is open."""

    @property
    def received_bytes(self) -> int: ...  # noqa: D102
    @property
    def sent_bytes(self) -> int: ...  # noqa: D102
    @property
    def unanswered(self) -> int: ...  # noqa: D102


class Meters:
    """The counts of one node; *seconds* is monotonic time."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()  # by verb and status
        self.durations = {verb: Histogram(REQUEST_BOUNDS_S) for verb in ("GET", "PUT")}
        self.syncs = Histogram(SYNC_BOUNDS_S)
        self.lag = Histogram(LAG_BOUNDS_S)
        self._seconds = seconds
        self._syncing = threading.Lock()
        self._received = self._sent = 0  # on connections that are gone

    def count(self, verb: str, status: int) -> None:
        """Count an answer."""
        self.answers[verb if verb in VERBS else "other", status] += 1

    def answered(self, began: float, verb: str, status: int) -> None:
        """Count the answer to a request whose head had arrived at the time *began*."""
        histogram = self.durations.get(verb)
        if histogram is None:
            self.count(verb, status)
            return
        self.answers[verb, status] += 1
        # Written out, not called: this is on the path of every request.
        seconds = self._seconds() - began
        histogram.counts[bisect_left(histogram.bounds, seconds)] += 1
        histogram.sum += seconds

    def synced(self, seconds: float) -> None:
        """Count a sync; may be called by any thread."""
        with self._syncing:
            self.syncs.observe(seconds)

    def left(self, connection: Connection) -> None:
        """Keep the bytes of a connection that is gone."""
        self._received += connection.received_bytes
        self._sent += connection.sent_bytes

    def bytes_moved(self, connections: Iterable[Connection]) -> tuple[int, int]:
        """Return the bytes received and sent so far, *connections* being open."""
        received, sent = self._received, self._sent
        for each in connections:
            received += each.received_bytes
            sent += each.sent_bytes
        return received, sent


class LagTicker:
    """Measures in *lag* how late the reactor makes its calls, until it is stopped."""

    def __init__(self, clock: IReactorTime, lag: Histogram) -> None:
        self._clock = clock
        self._lag = lag
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin."""
        self._due = self._clock.seconds() + TICK_S
        self._call = self._clock.callLater(TICK_S, self._tick)

    def _tick(self) -> None:
        self._lag.observe(max(0.0, self._clock.seconds() - self._due))
        self.start()

    def stop(self) -> None:
        """End."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
