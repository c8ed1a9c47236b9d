"""Reading HTTP/1.1 requests from bytes: the head, and the framing of the body behind it.

Strict where leniency lets two programs disagree about where a request ends (RFC 9112 sections 2.2, 5 and 6.3): one length,
in decimal digits; never a length beside a transfer coding; no folded lines; no bare line feeds. Lenient where PYME's raw
client needs it: Host may be missing, and the target may hold raw UTF-8.

An error raised here leaves the end of the request unknown, so the connection must close after the answer. The error says
what is wrong with the request; nothing here knows what the request asks for.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from granum.wire.errors import (
    BadRequest,
    BodyTooLarge,
    HeadTooLarge,
    PathTooLong,
    UnmetExpectation,
    UnsupportedVersion,
)

HEAD_BYTES_MAX = 32 * 1024  # PYME's heads have under 1 KiB, a percent-encoded path of the longest kind 12 KiB
TARGET_BYTES_MAX = 16 * 1024
HEADERS_MAX = 100
BODY_BYTES_MAX = 1 << 40  # 1 TiB; a file that large is one file of one node, and the disk refuses it long before
CHUNK_LINE_BYTES_MAX = 4096  # size, extensions
TRAILER_BYTES_MAX = 8192
LINES_KEPT = 1024  # header lines taken apart before: a client sends nearly the same ones with each request
KEPT_LINE_BYTES_MAX = 256  # so that what is kept of them stays below a megabyte, whatever is sent

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])")
# No blanks beside the value here: two repeats that can match the same bytes take quadratic time to fail.
_HEADER_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")
_DIGITS = re.compile(rb"[0-9]{1,19}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", b"content-encoding"})


class Request(NamedTuple):  # and no dataclass: one is made for every request, at a third of the price
    """A request head. Header names are in lower case; of a header that came twice the values are joined by a comma.

    *length* is the number of body bytes; None when the body is *chunked* or the request names no length at all.
    """

    verb: str
    target: bytes
    minor: int
    headers: Mapping[bytes, bytes]
    length: int | None
    chunked: bool
    keep_alive: bool
    expects_continue: bool

    @property
    def has_body(self) -> bool:
        """Whether body bytes follow the head."""
        return self.chunked or bool(self.length)


def find_head(data: bytes, start: int) -> int:
    """Return the index behind the blank line that ends the head which begins at *start* of *data*, or -1.

    Raises HeadTooLarge, PathTooLong or BadRequest as soon as what has arrived can no longer become a head.
    """
    end = data.find(b"\r\n\r\n", start)
    if end >= 0:
        if end - start > HEAD_BYTES_MAX:
            raise HeadTooLarge(f"the head of the request is longer than {HEAD_BYTES_MAX} bytes")
        return end + 4
    arrived = len(data) - start
    if arrived > TARGET_BYTES_MAX + 64 and data.find(b"\r\n", start) < 0:
        raise PathTooLong(f"the request target is longer than {TARGET_BYTES_MAX} bytes")
    if arrived > HEAD_BYTES_MAX + len(b"\r\n\r"):
        raise HeadTooLarge(f"the head of the request is longer than {HEAD_BYTES_MAX} bytes")
    if data.count(b"\n", start) != data.count(b"\r\n", start):
        raise BadRequest("lines of a request end in CR LF")
    return -1


def parse_head(head: bytes) -> Request:
    """Return the request whose head, without the blank line, is *head*."""
    lines = head.split(b"\r\n")
    found = _REQUEST_LINE.fullmatch(lines[0])
    if found is None:
        raise BadRequest("the request line is not 'VERB TARGET HTTP/1.1'")
    verb, target, major, minor = found.groups()
    if len(target) > TARGET_BYTES_MAX:
        raise PathTooLong(f"the request target is longer than {TARGET_BYTES_MAX} bytes")
    if major != b"1" or minor > b"1":
        raise UnsupportedVersion
    if len(lines) > HEADERS_MAX + 1:
        raise HeadTooLarge(f"the request has more than {HEADERS_MAX} headers")
    headers: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, value = _known_header(line) if len(line) <= KEPT_LINE_BYTES_MAX else _header(line)
        if name in headers:
            if name in _ONCE:
                raise BadRequest(f"the header {name.decode()} came twice")
            value = headers[name] + b", " + value
        headers[name] = value
    number = int(minor)
    length, chunked = _framing(headers, number)
    keep_alive, expects_continue = _keeps_alive(headers, number), _expects_continue(headers, number)
    return Request(verb.decode(), target, number, headers, length, chunked, keep_alive, expects_continue)


def _header(line: bytes) -> tuple[bytes, bytes]:
    found = _HEADER_LINE.fullmatch(line)
    if found is None:
        raise BadRequest("a header line is not 'name: value'")
    return found[1].lower(), found[2].strip(b" \t")


_known_header = lru_cache(LINES_KEPT)(_header)


def _framing(headers: Mapping[bytes, bytes], minor: int) -> tuple[int | None, bool]:
    text = headers.get(b"content-length")
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if text is not None:
            raise BadRequest("a request has a Content-Length or a Transfer-Encoding, not both")
        if minor == 0 or coding.lower() != b"chunked":
            raise BadRequest("the only transfer coding is 'chunked', in HTTP/1.1")
        return None, True
    if text is None:
        return None, False
    if _DIGITS.fullmatch(text) is None:
        raise BadRequest("Content-Length is a number of bytes in decimal digits")
    length = int(text)
    if length > BODY_BYTES_MAX:
        raise BodyTooLarge(f"the body is longer than {BODY_BYTES_MAX} bytes")
    return length, False


def _keeps_alive(headers: Mapping[bytes, bytes], minor: int) -> bool:
    text = headers.get(b"connection")
    if text is None:
        return minor > 0
    options = {option.strip() for option in text.lower().split(b",")}
    return b"close" not in options and minor > 0


def _expects_continue(headers: Mapping[bytes, bytes], minor: int) -> bool:
    text = headers.get(b"expect")
    if text is None or minor == 0:  # RFC 9110 section 10.1.1: an HTTP/1.0 client cannot know interim replies
        return False
    if text.lower() != b"100-continue":
        raise UnmetExpectation
    return True


class ChunkedBody:
    """The chunked transfer coding, taken apart as it arrives (RFC 9112 section 7.1); trailers are read and dropped."""

    __slots__ = ("_line", "_owed", "_state", "_trailer_bytes", "done")

    def __init__(self) -> None:
        self._state = "size"
        self._line = b""
        self._owed = 0
        self._trailer_bytes = 0
        self.done = False

    def feed(self, data: bytes, start: int) -> Iterator[memoryview | int]:
        """Yield the pieces of body in *data* from *start* on, then the index of the first byte not used.

        The index is below len(data) only when the body is *done*. Raises BadRequest when the framing is broken.
        """
        at = start
        while at < len(data) and not self.done:
            if self._state == "body":
                size = min(self._owed, len(data) - at)
                yield memoryview(data)[at : at + size]
                at += size
                self._owed -= size
                if not self._owed:
                    self._state = "end"
            else:
                line, at = self._take_line(data, at)
                if line is not None:
                    self._turn(line)
        yield at

    def _take_line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        end = data.find(b"\n", at)
        self._line += data[at:] if end < 0 else data[at : end + 1]
        if len(self._line) > CHUNK_LINE_BYTES_MAX:
            raise BadRequest("a line of the chunked body is too long")
        if end < 0:
            return None, len(data)
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise BadRequest("lines of a chunked body end in CR LF")
        return line[:-2], end + 1

    def _turn(self, line: bytes) -> None:
        if self._state == "size":
            found = _CHUNK_SIZE.fullmatch(line)
            if found is None:
                raise BadRequest("the size of a chunk is a number in hexadecimal digits")
            self._owed = int(found[1], 16)
            if self._owed > BODY_BYTES_MAX:
                raise BodyTooLarge(f"the body is longer than {BODY_BYTES_MAX} bytes")
            self._state = "body" if self._owed else "trailer"
        elif self._state == "end":
            if line:
                raise BadRequest("a chunk is longer than its size says")
            self._state = "size"
        elif line:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > TRAILER_BYTES_MAX or _HEADER_LINE.fullmatch(line) is None:
                raise BadRequest("the trailers of a chunked body are not headers")
        else:
            self.done = True
