"""The log of a node on standard error: one line for each event, as text or as JSON.

Names that peers send are in it, so control characters are written as escapes: nobody can forge a line or move a terminal's
cursor. A warning that keeps coming back is written a few times a minute and counted after that, so that a peer cannot fill
the disk with it. No file is opened.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TextIO

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, formatEvent
from zope.interface import implementer

ALIKE_MAX = 10  # warnings and errors of one kind in a window
WINDOW_S = 60.0
KINDS_MAX = 256  # remembered; there are as many as calls of the log in the source
MESSAGE_CHARS_MAX = 2000  # a path has 4,000 bytes at most, and says nothing that its first half does not
TRACEBACK_CHARS_MAX = 8000

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNSAFE_BUT_NEWLINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def choose_form(setting: str, environment: Mapping[str, str], *, terminal: bool) -> str:
    """Return 'json' or 'text' for *setting* 'auto', 'json' or 'text': JSON where systemd reads it and no person does."""
    if setting != "auto":
        return setting
    supervised = "INVOCATION_ID" in environment or "JOURNAL_STREAM" in environment
    return "json" if supervised and not terminal else "text"


def text_line(event: LogEvent, message: str, traceback: str) -> str:
    """Return *event* for people: one line, and a traceback indented under it."""
    when = _when(event).strftime("%Y-%m-%dT%H:%M:%SZ")
    below = "".join(f"    {line}\n" for line in _escaped(traceback, _UNSAFE_BUT_NEWLINE).split("\n") if line)
    return f"{when} {_level(event)} {_escaped(message, _UNSAFE)}\n{below}"


def json_line(event: LogEvent, message: str, traceback: str) -> str:
    """Return *event* as one JSON object on one line, in ASCII."""
    found = {
        "time": _when(event).isoformat(timespec="milliseconds"),
        "level": _level(event),
        "logger": str(event.get("log_namespace", "")),
        "message": message,
    }
    return json.dumps(found | ({"traceback": traceback} if traceback else {})) + "\n"


@implementer(ILogObserver)
class LineObserver:
    """Writes events to *stream* in the *form* 'text' or 'json'; *seconds* is monotonic time."""

    def __init__(self, stream: TextIO, form: str, seconds: Callable[[], float]) -> None:
        self._stream = stream
        self._line = json_line if form == "json" else text_line
        self._seconds = seconds
        self._kinds: dict[tuple[object, object], _Kind] = {}

    def __call__(self, event: LogEvent) -> None:
        """Write *event*, unless it is one of too many alike."""
        left_out = ""
        if event.get("log_level", LogLevel.info) >= LogLevel.warn:
            counted = self._count(event)
            if counted is None:
                return
            left_out = counted
        message = (formatEvent(event) or eventAsText(event, includeTimestamp=False, includeSystem=False)) + left_out
        failure = event.get("log_failure")
        traceback = failure.getTraceback()[-TRACEBACK_CHARS_MAX:] if failure is not None else ""
        self._stream.write(self._line(event, message[:MESSAGE_CHARS_MAX], traceback))
        self._stream.flush()

    def _count(self, event: LogEvent) -> str | None:
        """Return what is to be said about others like *event*; None when it is not to be written itself."""
        now = self._seconds()
        key = (event.get("log_namespace"), event.get("log_format"))
        if key not in self._kinds and len(self._kinds) >= KINDS_MAX:
            self._kinds.clear()
        kind = self._kinds.setdefault(key, _Kind(now))
        left_out = ""
        if now - kind.since >= WINDOW_S:
            if kind.left_out:
                left_out = f" ({kind.left_out} like it were left out)"
            kind.since, kind.written, kind.left_out = now, 0, 0
        if kind.written >= ALIKE_MAX:
            kind.left_out += 1
            return None
        kind.written += 1
        return left_out + (" (others like it are left out for a while)" if kind.written == ALIKE_MAX else "")


class _Kind:
    """How often one call of the log was written and left out, in a window that began at *since*."""

    __slots__ = ("left_out", "since", "written")

    def __init__(self, since: float) -> None:
        self.since = since
        self.written = self.left_out = 0


def _when(event: LogEvent) -> datetime:
    return datetime.fromtimestamp(event.get("log_time", 0.0), UTC)


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    return level.name if level is not None else "info"


def _escaped(text: str, unsafe: re.Pattern[str]) -> str:
    return unsafe.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if ord(found[0]) < 256 else f"\\u{ord(found[0]):04x}", text
    )
