"""Metrics are read as nodes write them, and what is no metric is passed over."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.cli.exposition import Buckets, parse
from granum_node.http.metrics import Exposition, Histogram

PAGE = r"""
# HELP granum_requests_total Answers by method and status.
# TYPE granum_requests_total counter
granum_requests_total{method="PUT",code="200"} 7
granum_requests_total{method="PUT",code="405"} 2
granum_requests_total{method="GET",code="200"} 40.0 1700000000000
granum_open_connections 3
up{job="a\"b\\c\nd", } 1
this is no metric
broken{label=unquoted} 1
broken NaN
broken one
"""


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("granum_open_connections", {}, 3.0),
        ("granum_requests_total", {"method": "PUT", "code": "200"}, 7.0),
        ("granum_requests_total", {"method": "PUT"}, 9.0),
        ("granum_requests_total", {}, 49.0),
        ("granum_requests_total", {"method": "HEAD"}, None),
        ("up", {"job": 'a"b\\c\nd'}, 1.0),
        ("broken", {}, None),
        ("absent", {}, None),
    ],
)
def test_values_by_name_and_labels(name: str, labels: dict[str, str], value: float | None) -> None:
    assert parse(PAGE).value(name, **labels) == value


@given(st.text())
def test_no_page_is_an_error(page: str) -> None:
    parse(page)


@given(st.text(), st.floats(allow_nan=False))
def test_what_a_node_writes_is_read_as_it_was(label: str, value: float) -> None:
    page = Exposition()
    page.gauge("thing", "A thing.", value, {"name": label})
    assert parse(page.encode().decode()).value("granum_thing", name=label) == value


def test_a_histogram_of_a_node() -> None:
    histogram = Histogram((0.001, 0.01, 0.1))
    for seconds in (0.0005, 0.002, 0.003, 5.0):
        histogram.observe(seconds)
    page = Exposition()
    page.histograms("d_seconds", "Durations.", [({"method": "PUT"}, histogram), ({"method": "GET"}, Histogram((1.0,)))])
    buckets = parse(page.encode().decode()).buckets("granum_d_seconds", method="PUT")
    assert buckets == Buckets((0.001, 0.01, 0.1, math.inf), (1.0, 3.0, 3.0, 4.0))


@pytest.mark.parametrize(("part", "seconds"), [(0.0, 0.0), (0.25, 0.001), (0.5, 0.0055), (0.75, 0.01), (0.99, 0.1)])
def test_quantiles(part: float, seconds: float) -> None:
    """Evenly within a bucket; at the last finite bound for what lies beyond it."""
    buckets = Buckets((0.001, 0.01, 0.1, math.inf), (1.0, 3.0, 3.0, 4.0))
    assert buckets.quantile(part) == pytest.approx(seconds)


def test_no_duration_has_no_quantile() -> None:
    assert Buckets((1.0, math.inf), (0.0, 0.0)).quantile(0.5) is None


@given(st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_grow_with_their_part(added: list[int], one: float, other: float) -> None:
    counts = (float(added[0]), float(added[0] + added[1]), float(sum(added)))
    buckets = Buckets((0.1, 1.0, math.inf), counts)
    low, high = buckets.quantile(min(one, other)), buckets.quantile(max(one, other))
    assert low is not None
    assert high is not None
    assert 0 <= low <= high <= 1.0


def test_what_was_added_since() -> None:
    before, now = Buckets((1.0, math.inf), (1.0, 4.0)), Buckets((1.0, math.inf), (3.0, 7.0))
    assert now.since(before) == Buckets((1.0, math.inf), (2.0, 3.0))


@pytest.mark.parametrize("before", [None, Buckets((2.0, math.inf), (0.0, 0.0)), Buckets((1.0, math.inf), (1.0, 9.0))])
def test_nothing_can_be_told_since_another_histogram(before: Buckets | None) -> None:
    """None yet, other bounds, or counts that are lower now: the node was restarted."""
    assert Buckets((1.0, math.inf), (1.0, 7.0)).since(before) is None
