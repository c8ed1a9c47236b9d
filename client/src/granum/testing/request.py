"""Requests as a fake node reads them: heads and bodies, taken from the front of a buffer.

The rule: a request whose end cannot be told with certainty is refused (`BadRequest`), and nothing behind it is read. Small
and strict rather than fast; bodies are kept in memory whole. What a request asks for is not known here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from granum.wire.errors import BadRequest, HeadTooLarge, LengthRequired, UnsupportedVersion

HEAD_BYTES_MAX = 16384  # room for the longest path, percent-encoded, and ordinary headers
LINE_BYTES_MAX = 4096  # of a chunk's size line or one trailer
LENGTH_DIGITS_MAX = 18  # beyond any disk, and far below what `int` refuses

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) (HTTP/\d\.\d)")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body. *headers* have lower-case names; *length* is None without a Content-Length."""

    verb: str
    target: bytes
    version: str
    headers: Mapping[str, str]
    length: int | None
    chunked: bool

    @property
    def closes(self) -> bool:
        """Whether the connection ends with the answer to this request."""
        return self.version == "HTTP/1.0" or "close" in _tokens(self.headers.get("connection", ""))


def take_head(buffer: bytearray) -> Head | None:
    """Remove one whole head from the front of *buffer*; None while it is incomplete.

    Raises BadRequest, HeadTooLarge or UnsupportedVersion; the connection is then of no more use.
    """
    end = buffer.find(b"\r\n\r\n")
    if len(buffer) > HEAD_BYTES_MAX and not 0 <= end <= HEAD_BYTES_MAX:
        raise HeadTooLarge(f"the head of the request is longer than {HEAD_BYTES_MAX} bytes")
    if _BARE_LINE_FEED.search(buffer, 0, end if end >= 0 else len(buffer)):
        raise BadRequest("a line of the request does not end in CR LF")
    if end < 0:
        return None
    first, *lines = bytes(buffer[:end]).split(b"\r\n")
    del buffer[: end + 4]
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise BadRequest("the request line is not HTTP")
    version = found[3].decode()
    if version not in {"HTTP/1.0", "HTTP/1.1"}:
        raise UnsupportedVersion
    headers = _headers(lines)
    chunked = _is_chunked(headers, version)
    return Head(found[1].decode(), found[2], version, headers, _length(headers), chunked)


class SizedBody:
    """A body of a known number of bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.received = bytearray()

    def take(self, buffer: bytearray) -> bool:
        """Remove what belongs to the body from the front of *buffer*; True when the body is whole."""
        piece = buffer[: self._left]
        del buffer[: len(piece)]
        self.received += piece
        self._left -= len(piece)
        return self._left == 0


class ChunkedBody:
    """A body in chunked transfer coding; extensions and trailers are read and forgotten."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._chunk: SizedBody | None = None
        self._in_trailers = False

    def take(self, buffer: bytearray) -> bool:
        """Remove what belongs to the body from the front of *buffer*; True when the body is whole.

        Raises BadRequest when this is not chunked transfer coding.
        """
        while self._chunk is None or self._chunk.take(buffer):
            if self._chunk is not None:
                if not self._chunk.received.endswith(b"\r\n"):
                    raise BadRequest("a chunk is longer than it says")
                self.received += self._chunk.received[:-2]
                self._chunk = None
            line = _take_line(buffer)
            if line is None:
                return False
            if not self._in_trailers:
                self._begin_chunk(line)
            elif not line:
                return True
        return False

    def _begin_chunk(self, line: bytes) -> None:
        found = _CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise BadRequest("a chunk begins without its size")
        size = int(found[1], 16)
        self._in_trailers = size == 0
        self._chunk = SizedBody(size + 2) if size else None  # with the CR LF behind it


Body: TypeAlias = SizedBody | ChunkedBody


def body_of(head: Head) -> Body:
    """Return the reader of the body behind *head*; raise LengthRequired for a put that does not say where it ends."""
    if head.chunked:
        return ChunkedBody()
    if head.length is None and head.verb == "PUT":
        raise LengthRequired
    return SizedBody(head.length or 0)


def _headers(lines: list[bytes]) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise BadRequest("a header line is not 'name: value'")
        name = found[1].decode().lower()
        if name in headers and name in {"content-length", "host", "transfer-encoding"}:
            raise BadRequest(f"the header {name} is given twice")
        value = found[2].decode("latin-1").rstrip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > LENGTH_DIGITS_MAX:
        raise BadRequest("the Content-Length is not a number of bytes")
    return int(text)


def _is_chunked(headers: Mapping[str, str], version: str) -> bool:
    coding = headers.get("transfer-encoding")
    if coding is None:
        return False
    if coding.lower() != "chunked" or "content-length" in headers or version == "HTTP/1.0":
        raise BadRequest("the end of the body cannot be told; send Content-Length, or chunked in HTTP/1.1, not both")
    return True


def _tokens(value: str) -> set[str]:
    return {token.strip().lower() for token in value.split(",")}


def _take_line(buffer: bytearray) -> bytes | None:
    end = buffer.find(b"\n")
    if end > LINE_BYTES_MAX or (end < 0 and len(buffer) > LINE_BYTES_MAX):
        raise BadRequest(f"a line of the body is longer than {LINE_BYTES_MAX} bytes")
    if end < 0:
        return None
    line = bytes(buffer[: end + 1])
    del buffer[: end + 1]
    if not line.endswith(b"\r\n"):
        raise BadRequest("a line of the body does not end in CR LF")
    return line[:-2]
