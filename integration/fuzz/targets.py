"""What is fuzzed: for each reader of foreign bytes a check that takes any bytes and raises when the reader does wrong.

Wrong is: an error that is not the reader's own, a result that breaks its promise, or another result when the same bytes
arrive in other pieces. The checks know neither hypothesis nor the coverage-guided fuzzer; both run them.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from granum.wire import frame, pzf
from granum.wire.errors import BadFrame, BadListing, GranumError
from granum.wire.listing import UNKNOWN_SIZE, decode_listing, encode_listing
from granum.wire.paths import check_name
from granum_node.http.parser import BODY_BYTES_MAX, ChunkedBody, Request, find_head, parse_head

REPOSITORY = Path(__file__).parents[2]
FRAME_BYTES_MAX = 1 << 16  # in place of a GiB, which a few bytes may promise and a fuzzer would spend its time on


@dataclass(frozen=True, slots=True)
class Target:
    """A *check*, *seeds* to begin with, *tokens* that its input is made of, and the length of what the fuzzer makes."""

    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    tokens: tuple[bytes, ...] = ()
    bytes_max: int = 1024


class Wrong(Exception):
    """A reader broke its promise."""


def check_head(data: bytes) -> None:
    """Read *data* as the beginning of a stream of requests."""
    request = _head(data)
    if request is None:
        return
    if request.chunked and request.length is not None:
        raise Wrong("a request has two framings")
    if request.length is not None and not 0 <= request.length <= BODY_BYTES_MAX:
        raise Wrong(f"a length of {request.length}")
    for name, value in request.headers.items():
        if name != name.lower() or any(byte < 32 and byte != 9 for byte in name + value):
            raise Wrong(f"the header {name!r}: {value!r}")
    for cut in {len(data) // 3, len(data) // 2, len(data) - 1}:
        try:
            find_head(data[:cut], 0)
        except GranumError as error:
            raise Wrong(f"a request that is taken whole is refused after {cut} bytes") from error


def _head(data: bytes) -> Request | None:
    try:
        end = find_head(data, 0)
        return parse_head(data[: end - 4]) if end >= 0 else None
    except GranumError:
        return None


def check_chunks(data: bytes) -> None:
    """Read *data* as a chunked body: whole, byte by byte, and in pieces of a length that its first byte says."""
    size = data[0] % 16 + 2 if data else 1
    seen = [_unchunked(data, step) for step in (len(data) or 1, 1, size)]
    if not seen[0] == seen[1] == seen[2]:
        raise Wrong(f"in other pieces it is another body: {seen}")


def _unchunked(data: bytes, step: int) -> tuple[bytes, int, str]:
    """Return the body, how many bytes of *data* it took, and the error that ended it."""
    chunks, body, at = ChunkedBody(), b"", 0
    try:
        while at < len(data) and not chunks.done:
            for piece in chunks.feed(data[at : at + step], 0):
                if isinstance(piece, int):
                    at += piece
                else:
                    body += piece
    except GranumError as error:
        return b"", -1, type(error).__name__
    return body, at, "" if chunks.done else "not done"


def check_listing(data: bytes) -> None:
    """Read *data* as the listing of a directory."""
    try:
        listing = decode_listing(data)
    except BadListing:
        return
    for name, entry in listing.items():
        check_name(name)
        if entry.name != name or entry.size < UNKNOWN_SIZE:
            raise Wrong(f"{name!r}: {entry}")
    if decode_listing(encode_listing(listing.values())) != listing:
        raise Wrong("a listing does not come back from its own JSON")


def check_pzf(data: bytes) -> None:
    """Read *data* as a frame."""
    with mock.patch.object(pzf, "FRAME_BYTES_MAX", FRAME_BYTES_MAX):
        try:
            found = frame.decode(data)
        except BadFrame:
            return
    if found.array.shape != found.header.shape or found.array.nbytes > 4 * FRAME_BYTES_MAX:
        raise Wrong(f"an array of {found.array.shape} for a header of {found.header.shape}")


def check_planted(data: bytes) -> None:
    """Fail for one input in four thousand million, byte by byte: found only by who looks at what was reached."""
    if data[0:1] == b"P" and data[1:2] == b"Z" and data[2:3] == b"\x7f" and data[3:4] == b"!":
        raise Wrong("the planted defect")


def _requests() -> list[bytes]:
    from node.tests.http.malformed import FRAMING, REFUSED  # noqa: PLC0415 - a corpus, read when it is asked for

    good = b"PUT /a/b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"
    return [good, *(raw for raw, _ in FRAMING), *(raw for raw, *_ in REFUSED)]


def _chunked() -> list[bytes]:
    marker = b"Transfer-Encoding: chunked\r\n\r\n"
    bodies = [request.partition(marker)[2] for request in _requests() if marker in request]
    return [b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\nGET", *bodies]


def _listings() -> list[bytes]:
    return [
        b'{"a.pzf":[0,12],"d/":[7,3]}',
        b'{"a\\/":[1,-1],"\\u00e9":[0,0]}',
        b'{"..":[0,1],"b":[0,1,2]}',
        b"[]",
        b'{"a":[true,1e9]}',
        b'{"a":[0,true]}',
        b"<html>",
    ]


def _frames() -> list[bytes]:
    files = [path.read_bytes() for path in sorted((REPOSITORY / "client/tests/data/pzf").glob("*.pzf"))]
    empty = struct.pack("<2s4BcBqIIIIQffI12x", b"BD", 3, 0, 0, 0, b"C", 0, 0, 0, 0, 2**32 - 1, 2**32 - 1, 0, 0, 0, 64)
    return [*files, empty]


TARGETS = {
    "head": Target(
        check_head,
        _requests,
        (b"\r\n\r\n", b" HTTP/1.1\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"\r\n"),
    ),
    "chunks": Target(check_chunks, _chunked, (b"\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b";", b"A: b\r\n")),
    "listing": Target(check_listing, _listings, (b'":[0,1],"', b"/", b"-1", b"1e99", b"\\u0000", b"null", b"{", b"[", b"]}")),
    "pzf": Target(check_pzf, _frames, (b"BD\x03", b"BD\x00", b"\x00\x00\x00\x40")),
}  # fmt: skip
PLANTED_TARGET = Target(check_planted, lambda: [b"P"])
