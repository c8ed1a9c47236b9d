"""The pipelined put exchange."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.wire.errors import AlreadyStored, GranumError, NodeError, NoSpace
from granum.wire.exchange import DURABILITY, PutExchange, put_head
from granum.wire.paths import ClusterPath

RECEIPT = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nGranum-Durability: commit\r\n\r\n"
REFUSAL = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 9\r\nContent-Type: text/plain\r\n\r\nit exists"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BARE = b"HTTP/1.0 200\r\n\r\n"  # no reason, no headers: PYME's client accepts it too
FULL = b"HTTP/1.1 507 Insufficient Storage\r\ncontent-length:4\r\n\r\nfull"
EMPTY = b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"  # a 204 has no body, whatever it says
STREAM = RECEIPT + REFUSAL + CONTINUE + BARE + FULL + EMPTY

Outcome = tuple[str, type[GranumError] | None, str]
ANSWERS: list[Outcome] = [
    ("a", None, "commit"),
    ("b", AlreadyStored, ""),
    ("c", None, ""),
    ("d", NoSpace, ""),
    ("e", None, ""),
]


def _waiting(keys: str = "abcde") -> PutExchange[str]:
    exchange = PutExchange[str]("10.0.0.1:15348")
    for key in keys:
        exchange.put(key, ClusterPath.parse(f"/run1/{key}"), 1)
    return exchange


def _fed(exchange: PutExchange[str], pieces: list[bytes]) -> list[Outcome]:
    answers = [answer for piece in pieces for answer in exchange.receive(piece)]
    return [
        (answer.key, None if answer.error is None else type(answer.error), answer.headers.get(DURABILITY, ""))
        for answer in answers
    ]


def test_a_head_names_the_path_percent_encoded_and_the_length() -> None:
    assert put_head(ClusterPath.parse("/run 1/ö.pzf"), 5, "10.0.0.1:15348") == (
        b"PUT /run%201/%C3%B6.pzf HTTP/1.1\r\nHost: 10.0.0.1:15348\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n"
    )


def test_a_put_waits_for_its_answer() -> None:
    exchange = _waiting("")
    head = exchange.put("a", ClusterPath.parse("/f"), 3)
    assert (head, exchange.outstanding) == (put_head(ClusterPath.parse("/f"), 3, "10.0.0.1:15348"), ("a",))


def test_answers_fed_whole_are_paired_in_order() -> None:
    exchange = _waiting()
    assert (_fed(exchange, [STREAM]), exchange.outstanding) == (ANSWERS, ())


def test_answers_fed_byte_by_byte_are_paired_in_order() -> None:
    exchange = _waiting()
    assert (_fed(exchange, [STREAM[i : i + 1] for i in range(len(STREAM))]), exchange.outstanding) == (ANSWERS, ())


@given(st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted))
def test_answers_fed_in_any_pieces_are_paired_in_order(cuts: list[int]) -> None:
    exchange = _waiting()
    pieces = [STREAM[start:end] for start, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    assert _fed(exchange, pieces) == ANSWERS


def test_an_answer_that_is_not_whole_leaves_its_put_waiting() -> None:
    exchange = _waiting("ab")
    assert (_fed(exchange, [RECEIPT + REFUSAL[:-1]]), exchange.outstanding) == ([("a", None, "commit")], ("b",))


def test_a_refusal_says_what_the_node_said() -> None:
    (answer,) = _waiting("a").receive(REFUSAL)
    assert str(answer.error) == "it exists"


def test_names_of_headers_have_lower_case() -> None:
    (answer,) = _waiting("a").receive(RECEIPT)
    assert answer.headers == {"content-length": "0", "granum-durability": "commit"}


def test_an_answer_that_nobody_asked_for_breaks_the_exchange() -> None:
    with pytest.raises(NodeError, match="nobody asked for"):
        _waiting("").receive(RECEIPT)


def test_junk_behind_an_answer_breaks_the_exchange_and_every_put_of_that_piece_has_no_receipt() -> None:
    exchange = _waiting("ab")
    with pytest.raises(NodeError):
        exchange.receive(RECEIPT + b"junk\r\n\r\n")
    assert exchange.outstanding == ("a", "b")


def test_a_broken_exchange_stays_broken() -> None:
    exchange = _waiting("a")
    with pytest.raises(NodeError):
        exchange.receive(b"junk\r\n\r\n")
    with pytest.raises(NodeError, match="out of step"):
        exchange.receive(RECEIPT)


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"junk\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 20\r\n\r\n",
        b"HTTP/1.1 2OO OK\r\n\r\n",
        b"HTTP/1.1 \xb2\xb2\xb2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000,
    ],
)
def test_what_is_no_answer_breaks_the_exchange(raw: bytes) -> None:
    exchange = _waiting("a")
    with pytest.raises(NodeError):
        exchange.receive(raw)
    assert exchange.outstanding == ("a",)


@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([RECEIPT, REFUSAL, CONTINUE, b"HTTP/1.1 ", b"\r\n\r\n", b"200"]))
)
def test_arbitrary_bytes_raise_only_a_node_error(pieces: list[bytes]) -> None:
    exchange = _waiting("abc")
    answered: list[str] = []
    try:
        for piece in pieces:
            answered += [answer.key for answer in exchange.receive(piece)]
    except NodeError:
        pass
    assert answered + list(exchange.outstanding) == ["a", "b", "c"]
