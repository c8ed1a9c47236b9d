"""The pipelined put exchange: requests out, answers in, without waiting for either.

`PutExchange` is the client's half of one connection, on bytes alone: it makes request heads, is fed what arrives, in pieces
of any size, and pairs each answer with its put by order, which HTTP/1.1 guarantees. It never sees a body: the channel sends
the pieces of a frame behind their head without copying them.

An answer that cannot be understood breaks the exchange (`NodeError`): nothing behind it can be paired, so the channel must
close, and every put still outstanding has no receipt.
"""

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from granum.wire.digest import HEADER, Digest
from granum.wire.errors import WORD, GranumError, NodeError, error_for
from granum.wire.paths import ClusterPath

HEAD_BYTES_MAX = 65536  # of one answer; PYME's own client allows as much
BODY_BYTES_MAX = 1 << 20  # of one answer to a put; it is normally empty, an error's is a sentence
DURABILITY = "granum-durability"  # header that names how safe a receipt is: 'commit' or 'relaxed'

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Answer(Generic[Key]):
    """A node's answer to one put: *error* is None for a receipt. *headers* have lower-case names."""

    key: Key
    error: GranumError | None
    headers: Mapping[str, str]


def put_head(path: ClusterPath, length: int, host: str, digest: Digest | None = None) -> bytes:
    """Return the request head of a put of *length* bytes, to be followed by exactly these bytes.

    It carries Host: a node holds back its answers to keep-alive puts without one, for the sake of PYME's streaming client.
    With *digest* a node that has these very bytes already answers with a receipt.
    """
    named = f"{HEADER.title()}: {digest.member}\r\n" if digest is not None else ""
    return (
        f"PUT {path.target()} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{named}"
        "Connection: keep-alive\r\n\r\n"
    ).encode("ascii")


@dataclass(slots=True)
class PutExchange(Generic[Key]):
    """Pairs answers with puts on one connection. *host* is 'address:port' of the node."""

    host: str
    _outstanding: deque[Key] = field(default_factory=deque)
    _buffer: bytearray = field(default_factory=bytearray)
    _broken: bool = False

    @property
    def outstanding(self) -> tuple[Key, ...]:
        """The keys of puts that have no answer yet, oldest first."""
        return tuple(self._outstanding)

    def put(self, key: Key, path: ClusterPath, length: int, digest: Digest | None = None) -> bytes:
        """Note a put and return its request head, which names *digest* when it is given."""
        self._outstanding.append(key)
        return put_head(path, length, self.host, digest)

    def receive(self, arrived: bytes) -> list[Answer[Key]]:
        """Return the answers that *arrived* completes, in order; raise NodeError when it is no HTTP answer to a put.

        Answers completed before the offending bytes are lost to the caller's list but not to the node: their puts stay
        outstanding, as unreceipted ones do.
        """
        if self._broken:
            raise NodeError("the connection is out of step")
        self._buffer += arrived
        answers: list[Answer[Key]] = []
        try:
            while (reply := _take_reply(self._buffer)) is not None:
                status, headers, body = reply
                if status < 200:
                    continue
                if len(answers) == len(self._outstanding):
                    raise NodeError("the node sent an answer that nobody asked for")
                said = body.decode("utf-8", "replace").strip()
                error = None if status < 300 else error_for(status, said, headers.get(WORD, ""))
                answers.append(Answer(self._outstanding[len(answers)], error, headers))
        except NodeError:
            self._broken = True
            raise
        for _ in answers:
            self._outstanding.popleft()
        return answers


def _take_reply(buffer: bytearray) -> tuple[int, Mapping[str, str], bytes] | None:
    """Remove one whole reply from the front of *buffer*; None while it is incomplete."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > HEAD_BYTES_MAX:
            raise NodeError(f"the node's answer has a head of more than {HEAD_BYTES_MAX} bytes")
        return None
    status, headers = _parse_head(bytes(buffer[:end]))
    length = 0 if status < 200 or status in {204, 304} else _content_length(headers)
    whole = end + 4 + length
    if len(buffer) < whole:
        return None
    body = bytes(buffer[end + 4 : whole])
    del buffer[:whole]
    return status, headers, body


def _parse_head(head: bytes) -> tuple[int, Mapping[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if not version.startswith("HTTP/1.") or len(code) != 3 or not (code.isascii() and code.isdigit()):
        raise NodeError(f"the node's answer is not HTTP: {first[:60]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise NodeError(f"the node's answer has a bad header line: {line[:60]!r}")
        headers[name.strip().lower()] = value.strip()
    return int(code), headers


def _content_length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise NodeError("the node's answer to a put is chunked, which no node does")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > BODY_BYTES_MAX:
        raise NodeError(f"the node's answer has a bad length: {text[:20]!r}")
    return int(text)
