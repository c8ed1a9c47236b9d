"""What is read as a request, and what is refused: the same whichever way the bytes are cut."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from granum.wire.errors import BadRequest, GranumError, error_for
from granum_node.http import parser
from granum_node.http.parser import ChunkedBody, Request, find_head, parse_head
from node.tests.http.malformed import CHUNKED, FRAMING, GET, PUT

MALFORMED = [(raw, type(error_for(status))) for raw, status in FRAMING]


def read(stream: list[bytes]) -> list[tuple[Request, bytes]]:
    """Return the requests in *stream*, which arrives in these pieces, each with its body; what is unfinished is left out."""
    found: list[tuple[Request, bytes]] = []
    data, at = b"", 0
    request: Request | None = None
    body, chunks = b"", ChunkedBody()
    for piece in stream:
        data, at = data[at:] + piece, 0
        while True:
            if request is None:
                end = find_head(data, at)
                if end < 0:
                    break
                request, at = parse_head(data[at : end - 4]), end
                body, chunks = b"", ChunkedBody()
            if request.chunked:
                for part in chunks.feed(data, at):
                    if isinstance(part, int):
                        at = part
                    else:
                        body += part
                if not chunks.done:
                    break
            else:
                part_size = min((request.length or 0) - len(body), len(data) - at)
                body += data[at : at + part_size]
                at += part_size
                if len(body) < (request.length or 0):
                    break
            found.append((request, body))
            request = None
    return found


@pytest.mark.parametrize(("raw", "error"), MALFORMED, ids=lambda value: repr(value)[:60])
def test_a_malformed_request_is_refused_with_its_error(raw: bytes, error: type[GranumError]) -> None:
    with pytest.raises(GranumError) as refused:
        read([raw])
    assert refused.type is error


@pytest.mark.parametrize(("raw", "error"), MALFORMED, ids=lambda value: repr(value)[:60])
def test_a_malformed_request_is_refused_when_it_arrives_in_pieces(raw: bytes, error: type[GranumError]) -> None:
    size = max(1, len(raw) // 200)
    with pytest.raises(GranumError):
        read([raw[at : at + size] for at in range(0, len(raw), size)])


@pytest.mark.parametrize(
    "raw",
    [
        GET + b"\r\n",
        GET + b"Host:\r\n\r\n",
        GET + b"Host: a b:c\r\n\r\n",
        GET + b"A:b\r\nA:\r\na: \tc \t\r\n\r\n",
        GET + b"X: caf\xe9\r\n\r\n",
        GET + b"A: b\r\n" * 100 + b"\r\n",
        GET + b"Content-Length: 0\r\n\r\n",
        b"GET /caf\xe9/\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET http://a/f HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n\r\n",
        b"M-SEARCH /f HTTP/1.1\r\n\r\n",
        b"GET /f HTTP/1.0\r\n\r\n",
        b"GET /" + b"x" * 16_383 + b" HTTP/1.1\r\n\r\n",
        PUT + b"Content-Length: 005\r\n\r\nhello",
        PUT + b"Content-Length:\t5 \r\n\r\nhello",
        PUT + b"Content-Length: 5\r\nExpect: 100-Continue\r\n\r\nhello",
        PUT + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
        CHUNKED + b"0005 \t;a=b\r\nhello\r\n000\r\nA: b\r\n\r\n",
    ],
    ids=lambda raw: repr(raw)[:60],
)
def test_an_unusual_request_is_read(raw: bytes) -> None:
    assert len(read([raw])) == 1


def test_what_a_request_says() -> None:
    head = b"PUT /a HTTP/1.1\r\nContent-Length: 7\r\nA: 1\r\nExpect: 100-continue\r\na:2\r\nConnection: x, Close"
    headers = {b"content-length": b"7", b"a": b"1, 2", b"expect": b"100-continue", b"connection": b"x, Close"}
    assert parse_head(head) == Request("PUT", b"/a", 1, headers, 7, False, False, True)


@pytest.mark.parametrize(
    ("raw", "keeps"),
    [
        (b"GET / HTTP/1.1", True),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive", True),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive\r\nConnection: close", False),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive", False),
    ],
)
def test_what_keeps_a_connection(raw: bytes, keeps: bool) -> None:
    assert parse_head(raw).keep_alive is keeps


def test_an_old_client_expects_nothing() -> None:
    """HTTP/1.0 has no interim replies: a 100 would be taken for the answer."""
    assert not parse_head(b"PUT /a HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue").expects_continue


def test_a_head_of_the_greatest_size_is_read_wherever_it_is_cut() -> None:
    """The bytes of the blank line do not count, not even while they are incomplete."""
    raw = (GET + b"A: ").ljust(32 * 1024, b"x") + b"\r\n\r\n"
    for cut in range(len(raw) - 6, len(raw)):
        assert len(read([raw[:cut], raw[cut:]])) == 1


def test_what_is_kept_of_header_lines_is_bounded() -> None:
    parser._known_header.cache_clear()
    for number in range(3000):
        parse_head(b"GET / HTTP/1.1\r\nA: %d\r\nB: %s" % (number, b"x" * 254))
    kept = parser._known_header.cache_info()
    assert (kept.currsize, kept.misses) == (1024, 3000)  # the longer lines were not even tried


def test_a_header_line_that_was_read_before_is_read_again() -> None:
    for _ in range(2):
        assert parse_head(b"GET / HTTP/1.1\r\nHOST: \t a \r\nx:").headers == {b"host": b"a", b"x": b""}
        with pytest.raises(BadRequest):
            parse_head(b"GET / HTTP/1.1\r\nhost: a\r\nhost: a")
        with pytest.raises(BadRequest):
            parse_head(b"GET / HTTP/1.1\r\nhost : a")


def test_a_hostile_header_line_is_refused_in_linear_time() -> None:
    """A repeat inside a repeat took six seconds for this line, and the whole node with it."""
    started = time.process_time()
    with pytest.raises(BadRequest):
        parse_head(b"GET / HTTP/1.1\r\nA:" + b" " * 32_000 + b"\x00")
    assert time.process_time() - started < 0.5


VALID = [
    GET + b"\r\n",
    PUT + b"Content-Length: 5\r\n\r\nhello",
    PUT + b"content-length: 0\r\n\r\n",
    PUT + b"Content-Length: 20\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n3;x=y\r\n\r\n0\r\n0\r\n\r\n",
    CHUNKED + b"12\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\nA: b\r\nB: c\r\n\r\n",
    b"HEAD /x%20y HTTP/1.0\r\nA: b\r\n\r\n",
]


@given(st.lists(st.sampled_from(VALID), max_size=5), st.data())
def test_requests_are_the_same_wherever_the_stream_is_cut(requests: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = read([stream])
    assert len(whole) == len(requests)
    assert read(pieces) == whole


@given(st.lists(st.sampled_from(VALID), max_size=5))
@settings(max_examples=20)
def test_requests_are_the_same_byte_by_byte(requests: list[bytes]) -> None:
    stream = b"".join(requests)
    assert read([stream[at : at + 1] for at in range(len(stream))]) == read([stream])


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=5), st.data())
def test_a_chunked_body_is_the_same_wherever_it_is_cut(parts: list[bytes], behind: bytes, data: st.DataObject) -> None:
    coded = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n" + behind
    cuts = sorted(data.draw(st.lists(st.integers(0, len(coded)), max_size=10)))
    body, rest, chunks = b"", b"", ChunkedBody()
    for a, b in zip([0, *cuts], [*cuts, len(coded)], strict=True):
        if chunks.done:
            rest += coded[a:b]
            continue
        for part in chunks.feed(coded[a:b], 0):
            if isinstance(part, int):
                rest += coded[a + part : b]
            else:
                body += part
    assert (body, rest, chunks.done) == (b"".join(parts), behind, True)


@given(st.one_of(st.binary(max_size=300), st.sampled_from([raw for raw, _ in MALFORMED if len(raw) < 300])), st.data())
def test_noise_raises_only_errors_of_the_family(noise: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(noise)))
    mutated = noise[:at] + data.draw(st.binary(max_size=4)) + noise[at:]
    for raw in (mutated, GET + mutated + b"\r\n\r\n", CHUNKED + mutated):
        with contextlib.suppress(GranumError):
            read([raw])
