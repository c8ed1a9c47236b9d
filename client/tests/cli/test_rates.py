"""What `granum top` shows is worked out from two looks and the time between them."""

import math
from typing import Any

import pytest

from granum.cli.exposition import Buckets, Metrics, parse
from granum.cli.rates import Look, Watch, look, per_second
from granum.roster import Node

NODE = Node("key", "disk1:15348", "10.0.0.1", 15348, "lab", "id")
STATUS = {"Disk": {"total": 1000, "free": 250}, "Granum": {"state": "full", "durability": "commit"}}


def watch(*looks: Look) -> Watch:
    watched = Watch(NODE, 0.0)
    for each in looks:
        watched.answered(each)
    return watched


def test_status_and_metrics_make_a_look() -> None:
    page = 'granum_requests_total{method="PUT",code="200"} 5\ngranum_received_bytes_total 70\ngranum_open_connections 2'
    seen = look(3.0, STATUS, parse(page))
    assert (seen.at, seen.state, seen.durability, seen.free, seen.size) == (3.0, "full", "commit", 250, 1000)
    assert (seen.puts, seen.received, seen.sent, seen.connections, seen.receipts) == (5.0, 70.0, None, 2, None)


def test_a_node_that_has_stored_nothing_yet_has_no_puts() -> None:
    assert look(0.0, STATUS, Metrics({})).puts == 0.0


@pytest.mark.parametrize("status", [{}, {"Disk": None, "Granum": []}, {"Disk": {"free": "much"}}])
def test_a_node_of_pyme_or_a_strange_one(status: dict[str, Any]) -> None:
    assert look(1.0, status, None) == Look(1.0, "ok")


def test_rates_are_differences_over_the_time_between_the_answers() -> None:
    row = watch(
        Look(10.0, puts=100.0, received=1000.0, sent=0.0), Look(12.0, puts=350.0, received=5000.0, sent=8.0)
    ).row(12.5)
    assert (row["puts_per_s"], row["in_per_s"], row["out_per_s"]) == (125.0, 2000.0, 4.0)
    assert (row["state"], row["silent_s"], row["cause"]) == ("ok", None, None)


def test_receipts_are_those_between_the_answers() -> None:
    """A slow hour ago is no news."""
    bounds = (0.001, 0.1, math.inf)
    slow_then_fast = watch(
        Look(1.0, receipts=Buckets(bounds, (0.0, 900.0, 900.0)), lag=Buckets(bounds, (0.0, 0.0, 0.0))),
        Look(2.0, receipts=Buckets(bounds, (100.0, 1000.0, 1000.0)), lag=Buckets(bounds, (0.0, 10.0, 10.0))),
    ).row(2.0)
    assert slow_then_fast["receipt_p50_s"] == pytest.approx(0.0005)
    assert slow_then_fast["receipt_p99_s"] == pytest.approx(0.00099)
    assert slow_then_fast["lag_p99_s"] == pytest.approx(0.001 + 0.99 * 0.099)


def test_one_answer_has_no_rates() -> None:
    row = watch(Look(1.0, puts=5.0, connections=3)).row(1.0)
    assert (row["puts_per_s"], row["receipt_p50_s"], row["connections"]) == (None, None, 3)


@pytest.mark.parametrize(
    ("before", "now", "elapsed"), [(None, 1.0, 1.0), (1.0, None, 1.0), (5.0, 4.0, 1.0), (1.0, 2.0, 0.0)]
)
def test_no_rate_where_none_can_be_told(before: float | None, now: float | None, elapsed: float) -> None:
    """Also after a restart: the counter began anew."""
    assert per_second(before, now, elapsed) is None


def test_a_node_that_fails_is_missing_with_the_cause_since_it_answered() -> None:
    watched = watch(Look(10.0, puts=1.0), Look(11.0, puts=2.0))
    watched.failed("node disk1 refuses the connection")
    row = watched.row(18.0)
    assert (row["state"], row["silent_s"], row["cause"]) == ("missing", 7.0, "node disk1 refuses the connection")
    assert row["puts_per_s"] is None


def test_a_node_that_says_nothing_is_missing_before_its_deadline() -> None:
    """A frozen node takes seconds to be given up; the table says so sooner."""
    watched = watch(Look(10.0))
    assert watched.row(11.8)["state"] == "ok"
    assert watched.row(12.0)["state"] == "missing"


def test_a_node_that_was_never_heard() -> None:
    never = watch()
    assert (never.row(1.0)["state"], never.row(1.0)["silent_s"]) == ("", None)
    assert (never.row(4.0)["state"], never.row(4.0)["silent_s"]) == ("missing", 4.0)


def test_no_rate_spans_an_absence() -> None:
    watched = watch(Look(10.0, puts=1.0))
    watched.failed("gone")
    watched.answered(Look(20.0, puts=1001.0))
    assert watched.row(20.0)["puts_per_s"] is None
    watched.answered(Look(21.0, puts=1005.0))
    assert watched.row(21.0)["puts_per_s"] == 4.0
