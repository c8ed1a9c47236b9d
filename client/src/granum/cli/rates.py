"""Rates: what two looks at a node, some time apart, tell of what it does. Pure: time is an argument, of a monotonic clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from granum.cli.exposition import Buckets, Metrics

if TYPE_CHECKING:
    from granum.roster import Node

SILENT_S = 1.9  # without an answer; nodes are asked every second

Row = dict[str, Any]  # what JSON holds


@dataclass(frozen=True, slots=True)
class Look:
    """What a node said at the time *at*; None where it does not say. Counters only grow while the node runs."""

    at: float
    state: str = "ok"
    durability: str | None = None
    free: int | None = None
    size: int | None = None
    connections: int | None = None
    puts: float | None = None
    received: float | None = None
    sent: float | None = None
    receipts: Buckets | None = None
    lag: Buckets | None = None


def look(at: float, status: Mapping[str, Any], metrics: Metrics | None) -> Look:
    """Return what *status* and *metrics* say; a PYME node has no metrics, and of its status `Disk` alone is of use."""
    disk, own = part(status, "Disk"), part(status, "Granum")
    durability = own.get("durability")
    known = metrics if metrics is not None else Metrics({})
    connections = known.value("granum_open_connections")
    puts = known.value("granum_requests_total", method="PUT", code="200")
    return Look(
        at,
        state=str(own.get("state") or "ok"),
        durability=None if durability is None else str(durability),
        free=number(disk, "free"),
        size=number(disk, "total"),
        connections=None if connections is None else int(connections),
        puts=0.0 if puts is None and metrics is not None else puts,  # a node counts nothing that did not happen yet
        received=known.value("granum_received_bytes_total"),
        sent=known.value("granum_sent_bytes_total"),
        receipts=known.buckets("granum_request_duration_seconds", method="PUT"),
        lag=known.buckets("granum_reactor_lag_seconds"),
    )


class Watch:
    """What is known of one node that is looked at again and again, since the time *since*."""

    def __init__(self, node: "Node", since: float) -> None:
        self.node = node
        self._since = since
        self._before: Look | None = None
        self._last: Look | None = None
        self._cause = ""

    def answered(self, seen: Look) -> None:
        """Take in an answer."""
        # A rate over the time of its absence would be of another node.
        self._before, self._last, self._cause = None if self._cause else self._last, seen, ""

    def failed(self, cause: str) -> None:
        """Take in that it did not answer, and why."""
        self._cause = cause

    def row(self, now: float) -> Row:
        """Return what is to be shown at the time *now*; rates and quantiles are those between the last two answers."""
        node, last = self.node, self._last
        silent = now - (self._since if last is None else last.at)
        is_missing = bool(self._cause) or silent > SILENT_S
        row: Row = {
            "name": node.name,
            "address": node.address,
            "port": node.port,
            "cluster": node.cluster,
            "state": "missing" if is_missing else "" if last is None else last.state,
            "silent_s": round(silent, 1) if is_missing else None,
            "cause": (self._cause or "no answer yet") if is_missing else None,
            "durability": last and last.durability,
            "free": last and last.free,
            "size": last and last.size,
        }
        return {**row, **_activity(None if is_missing else self._before, None if is_missing else last)}


def _activity(before: Look | None, last: Look | None) -> Row:
    """Return what happened from *before* to *last*."""
    row: Row = dict.fromkeys(("puts_per_s", "in_per_s", "out_per_s", "receipt_p50_s", "receipt_p99_s", "lag_p99_s"))
    row["connections"] = last and last.connections
    if before is None or last is None:
        return row
    elapsed = last.at - before.at
    row["puts_per_s"] = per_second(before.puts, last.puts, elapsed)
    row["in_per_s"] = per_second(before.received, last.received, elapsed)
    row["out_per_s"] = per_second(before.sent, last.sent, elapsed)
    receipts = last.receipts and last.receipts.since(before.receipts)
    lag = last.lag and last.lag.since(before.lag)
    if receipts is not None:
        row["receipt_p50_s"], row["receipt_p99_s"] = receipts.quantile(0.5), receipts.quantile(0.99)
    if lag is not None:
        row["lag_p99_s"] = lag.quantile(0.99)
    return row


def per_second(before: float | None, now: float | None, elapsed: float) -> float | None:
    """Return how fast a counter grows; None when that cannot be told, as when it began anew."""
    if before is None or now is None or elapsed <= 0 or now < before:
        return None
    return (now - before) / elapsed


def part(status: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object *key* of *status*; nothing when the node sent something else."""
    found = status.get(key)
    return found if isinstance(found, dict) else {}


def number(told: Mapping[str, Any], key: str) -> int | None:
    """Return the number *key*; None when the node sent something else."""
    found = told.get(key)
    return int(found) if isinstance(found, int | float) else None
