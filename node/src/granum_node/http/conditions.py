"""Whether a read is to be answered at all, and with how much of the file: RFC 9110 sections 13 and 14, without input or output.

`decide` keeps the precedence of section 13.2.2. A date or a range that cannot be understood is passed over, as that RFC asks:
the whole file is the answer that is always right.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum

_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_RANGE = re.compile(rb"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE)

_CONDITIONS = frozenset({b"if-match", b"if-unmodified-since", b"if-none-match", b"if-modified-since"})

Headers = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one state of a file from another: its entity tag as it is sent, and its Last-Modified in unix seconds."""

    tag: bytes
    modified: int

    @property
    def is_strong(self) -> bool:
        """Whether the same tag means the same bytes."""
        return not self.tag.startswith(b"W/")


class Decision(Enum):
    """What the conditions of a read come to."""

    PROCEED = "answer as if there were none"
    NOT_MODIFIED = "the client has it already"
    FAILED = "what the client asks about is not what is stored"


class Unsatisfiable(Exception):
    """The range lies wholly behind the end of the file."""


def decide(headers: Headers, version: Version) -> Decision:
    """Return what the conditions in the *headers* of a GET or HEAD come to for a file of *version*."""
    if headers.keys().isdisjoint(_CONDITIONS):
        return Decision.PROCEED
    if (tags := headers.get(b"if-match")) is not None:
        if not _has(tags, version, weakly=False):
            return Decision.FAILED
    elif (since := _seconds(headers.get(b"if-unmodified-since"))) is not None and version.modified > since:
        return Decision.FAILED
    if (tags := headers.get(b"if-none-match")) is not None:
        if _has(tags, version, weakly=True):
            return Decision.NOT_MODIFIED
    elif (since := _seconds(headers.get(b"if-modified-since"))) is not None and version.modified <= since:
        return Decision.NOT_MODIFIED
    return Decision.PROCEED


def select(headers: Headers, version: Version, size: int) -> tuple[int, int] | None:
    """Return the first byte and the number of bytes that a GET asks for of a file of *size* bytes; None for all of it.

    Of several ranges, and of one that is not understood or is for another version, comes all of it too. Raises Unsatisfiable.
    """
    text = headers.get(b"range")
    if text is None or not _is_for(headers.get(b"if-range"), version):
        return None
    found = _RANGE.fullmatch(text)
    if found is None or found[1] == found[2] == b"":
        return None
    if not found[1]:
        if not int(found[2]):
            raise Unsatisfiable
        length = min(int(found[2]), size)
        return (size - length, length) if size else None  # there is no way to write the range of nothing
    first = int(found[1])
    last = int(found[2]) if found[2] else size - 1
    if found[2] and last < first:
        return None
    if first >= size:
        raise Unsatisfiable
    return first, min(last, size - 1) - first + 1


def _is_for(condition: bytes | None, version: Version) -> bool:
    """Whether If-Range allows a part: only when the client's other parts are certainly of the same bytes."""
    if condition is None:
        return True
    if not version.is_strong:
        return False
    return condition == version.tag or _seconds(condition) == version.modified


def _has(tags: bytes, version: Version, *, weakly: bool) -> bool:
    if tags.strip() == b"*":
        return True
    if weakly:
        return _opaque(version.tag) in map(_opaque, _TAG.findall(tags))
    return version.is_strong and version.tag in _TAG.findall(tags)


def _opaque(tag: bytes) -> bytes:
    return tag.removeprefix(b"W/")


def _seconds(text: bytes | None) -> int | None:
    """Return the unix time of an HTTP date; None for what is no date."""
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text.decode("latin-1"))
        return int(date.replace(tzinfo=UTC).timestamp() if date.tzinfo is None else date.timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
