"""Blocking talk with a node, close to the bytes: what the conformance tests are written in.

Every reply is read by the rules of PYME's streaming client, the strictest reader that a node must serve: a header line
splits at ': ' into exactly two, there are at most 100 of them, the body is as long as Content-Length says. A reply that
breaks a rule fails the test that meets it.
"""

import contextlib
import json
import socket
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

TIMEOUT_S = 20.0  # far above any answer of a healthy node, also on a busy machine
HEADERS_MAX = 100  # what PYME's client reads
LINE_BYTES_MAX = 65536


class Reachable(Protocol):
    """Where the node under test listens; a `FakeNode` is one."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Reply:
    """One final reply: *headers* have lower-case names, *interim* the statuses of the 1xx replies ahead of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    interim: tuple[int, ...] = ()

    def listing(self) -> Any:  # Any: JSON, compared with a literal
        """Return the body as JSON."""
        return json.loads(self.body)


class Talk:
    """One connection to a node; a context manager."""

    def __init__(self, node: Reachable) -> None:
        self._socket = socket.create_connection((node.address, node.port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._arrived = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arrived.close()
        self._socket.close()

    def send(self, *pieces: bytes) -> None:
        """Send *pieces* as one; a node that closes meanwhile is no error here, its reply tells."""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(b"".join(pieces))

    def end_sending(self) -> None:
        """Close this direction: the node sees that nothing follows."""
        self._socket.shutdown(socket.SHUT_WR)

    def reply(self, verb: str = "GET") -> Reply:
        """Read the next reply; *verb* tells whether it has a body."""
        interim: list[int] = []
        while True:
            status, headers = self._head()
            if status >= 200:
                break
            interim.append(status)
        length = 0 if verb == "HEAD" else int(headers["content-length"])
        body = self._arrived.read(length)
        assert len(body) == length, "the body is shorter than its Content-Length"
        return Reply(status, headers, body, tuple(interim))

    def interim(self) -> int:
        """Read the next 1xx reply and return its status."""
        status, _ = self._head()
        assert status < 200, f"a final reply, {status}, came where an interim one was due"
        return status

    def ask(self, verb: str, target: str | bytes, body: bytes | None = None, **headers: str) -> Reply:
        """Send one ordinary request and read its reply; in names of *headers*, '_' stands for '-'."""
        self.send(request(verb, target, body, **headers))
        return self.reply(verb)

    def is_closed(self) -> bool:
        """Wait for the end of the connection; False when a byte comes, or nothing at all."""
        try:
            return self._arrived.read(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def _head(self) -> tuple[int, Mapping[str, str]]:
        first = self._line()
        assert first.startswith("HTTP/1."), f"not a status line: {first!r}"
        headers: dict[str, str] = {}
        while line := self._line():
            pair = line.split(": ")
            assert len(pair) == 2, f"PYME's client cannot read this header line: {line!r}"
            assert pair[0].lower() not in headers, f"a header is given twice: {line!r}"
            headers[pair[0].lower()] = pair[1]
            assert len(headers) <= HEADERS_MAX
        assert "transfer-encoding" not in headers, "PYME's client cannot read a chunked reply"
        return int(first.split()[1]), headers

    def _line(self) -> str:
        line = self._arrived.readline(LINE_BYTES_MAX + 1)
        assert line, "the node closed the connection where a reply was due"
        assert line.endswith(b"\r\n"), f"a line that is too long or does not end in CR LF: {line[:80]!r}"
        return line.decode("latin-1").strip()


def request(verb: str, target: str | bytes, body: bytes | None = None, **headers: str) -> bytes:
    """Return the bytes of a request with Host and, when there is a *body*, Content-Length."""
    raw = target.encode() if isinstance(target, str) else target
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {"Host": "localhost", **headers}.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return b" ".join([verb.encode(), raw, b"HTTP/1.1\r\n"]) + "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def ask(node: Reachable, verb: str, target: str | bytes, body: bytes | None = None, **headers: str) -> Reply:
    """Send one request on a connection of its own and return the reply."""
    with Talk(node) as talk:
        return talk.ask(verb, target, body, **headers)


def put(node: Reachable, target: str | bytes, body: bytes = b"") -> None:
    """Store a file that a test needs; with a final slash, a directory."""
    reply = ask(node, "PUT", target, body)
    assert reply.status == 200, (target, reply)


def chunked(pieces: Iterable[bytes], *, extension: str = "", trailer: str = "") -> bytes:
    """Return *pieces* in chunked transfer coding."""
    chunks = [f"{len(piece):x}{extension}\r\n".encode() + piece + b"\r\n" for piece in pieces]
    return b"".join(chunks) + f"0{extension}\r\n{trailer}\r\n".encode()


def fresh() -> str:
    """Return the name of a directory that no other test uses, '/conformance-...'; nothing is made."""
    return f"/conformance-{uuid.uuid4().hex[:12]}"
