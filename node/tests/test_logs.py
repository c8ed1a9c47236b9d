"""The log: one line for an event, none that a name could forge, not too many alike."""

import io
import json

import pytest
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from granum_node.logs import LineObserver, choose_form

HOSTILE = "x\n2026-01-01T00:00:00Z critical the disk failed\r\x1b[2J\x85\u2028\x00"


class Log:
    """A logger, an observer and a clock."""

    def __init__(self, form: str) -> None:
        self.stream = io.StringIO()
        self.now = 0.0
        self.log = Logger("test", observer=LineObserver(self.stream, form, lambda: self.now))

    def lines(self) -> list[str]:
        return self.stream.getvalue().split("\n")[:-1]


@pytest.mark.parametrize(
    ("setting", "environment", "terminal", "form"),
    [
        ("auto", {}, False, "text"),
        ("auto", {"INVOCATION_ID": "x"}, False, "json"),
        ("auto", {"JOURNAL_STREAM": "8:1"}, False, "json"),
        ("auto", {"INVOCATION_ID": "x"}, True, "text"),
        ("json", {}, True, "json"),
        ("text", {"INVOCATION_ID": "x"}, False, "text"),
    ],
)
def test_the_form_is_json_where_systemd_reads_and_no_person(
    setting: str, environment: dict[str, str], terminal: bool, form: str
) -> None:
    assert choose_form(setting, environment, terminal=terminal) == form


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_name_forges_no_line_and_sends_no_control_character(form: str) -> None:
    log = Log(form)
    log.log.info("stored {name}", name=HOSTILE)
    (line,) = log.stream.getvalue().splitlines()  # splits at every kind of line end
    assert line.isascii() or form == "text"
    assert not any(char < " " or "\x7f" <= char <= "\x9f" for char in line)


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_under_a_traceback_begins_like_an_event(form: str) -> None:
    log = Log(form)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.log.failure("a request failed", failure=Failure())
    first, *others = log.stream.getvalue().splitlines()
    assert "a request failed" in first
    assert all(line.startswith("    ") for line in others)
    assert "ValueError" in log.stream.getvalue()


def test_an_event_in_json_says_when_how_grave_who_and_what() -> None:
    log = Log("json")
    log.log.emit(LogLevel.warn, "low on {what}", what="space", log_time=0.0)
    found = json.loads(log.stream.getvalue())
    assert (found["level"], found["logger"], found["message"]) == ("warn", "test", "low on space")
    assert found["time"].endswith("+00:00")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_hundred_thousand_errors_are_less_than_a_mebibyte(form: str) -> None:
    log = Log(form)
    try:
        raise ValueError("x" * 4000)
    except ValueError:
        failure = Failure()
    for number in range(100_000):
        log.log.failure("{name} failed", failure=failure, name=f"{HOSTILE}{number}" * 100)
    assert 0 < len(log.stream.getvalue()) < 1 << 20


def test_how_many_were_left_out_is_said_when_the_minute_is_over() -> None:
    log = Log("text")
    for _ in range(25):
        log.log.emit(LogLevel.warn, "low on space")
    log.log.emit(LogLevel.warn, "something else")
    assert len(log.lines()) == 11
    assert log.lines()[9].endswith("low on space (others like it are left out for a while)")
    log.now = 60.0
    log.log.emit(LogLevel.warn, "low on space")
    assert log.lines()[-1].endswith("low on space (15 like it were left out)")


def test_what_is_no_warning_is_never_left_out() -> None:
    log = Log("text")
    for _ in range(100):
        log.log.info("answered")
    assert len(log.lines()) == 100
