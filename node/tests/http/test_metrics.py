"""Metrics as Prometheus reads them, and what is counted."""

from twisted.internet.task import Clock

from granum_node.http.meters import LagTicker, Meters
from granum_node.http.metrics import Exposition, Histogram


def test_every_kind_of_family_is_written_as_the_text_format_has_it() -> None:
    page = Exposition()
    page.gauge("build_info", "Always 1.", 1, {"version": 'a"b\\c\nd'})
    page.counter("sent_bytes_total", "Bytes.", 5)
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.1, 0.5, 7.0):
        histogram.observe(seconds)
    page.histograms("lag_seconds", "Lag.", [({"method": "GET"}, histogram)])
    assert page.encode().decode().splitlines() == [
        "# HELP granum_build_info Always 1.",
        "# TYPE granum_build_info gauge",
        'granum_build_info{version="a\\"b\\\\c\\nd"} 1',
        "# HELP granum_sent_bytes_total Bytes.",
        "# TYPE granum_sent_bytes_total counter",
        "granum_sent_bytes_total 5",
        "# HELP granum_lag_seconds Lag.",
        "# TYPE granum_lag_seconds histogram",
        'granum_lag_seconds_bucket{method="GET",le="0.1"} 1',
        'granum_lag_seconds_bucket{method="GET",le="1.0"} 2',
        'granum_lag_seconds_bucket{method="GET",le="+Inf"} 3',
        'granum_lag_seconds_sum{method="GET"} 7.6',
        'granum_lag_seconds_count{method="GET"} 3',
    ]


def test_an_answer_counts_with_its_duration_and_made_up_verbs_as_one() -> None:
    clock = Clock()
    meters = Meters(clock.seconds)
    clock.advance(2.0)
    meters.answered(0.5, "PUT", 200)
    meters.answered(2.0, "VERB1", 501)
    meters.answered(2.0, "VERB2", 501)
    assert meters.answers == {("PUT", 200): 1, ("other", 501): 2}
    assert (meters.durations["PUT"].sum, sum(meters.durations["PUT"].counts)) == (1.5, 1)


class Gone:
    received_bytes, sent_bytes, unanswered = 3, 4, 0


def test_the_bytes_of_a_connection_count_while_it_is_open_and_when_it_is_gone() -> None:
    meters = Meters(Clock().seconds)
    assert meters.bytes_moved([Gone()]) == (3, 4)
    meters.left(Gone())
    assert meters.bytes_moved([Gone()]) == (6, 8)


def test_the_lag_of_the_reactor_is_how_late_it_calls() -> None:
    clock = Clock()
    lag = Histogram((0.01, 1.0))
    ticker = LagTicker(clock, lag)
    ticker.start()
    clock.advance(0.1)
    clock.advance(0.6)  # half a second late
    ticker.stop()
    clock.advance(5)
    assert lag.counts == [1, 1, 0]
    assert round(lag.sum, 6) == 0.5
