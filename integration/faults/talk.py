"""The harness's side of HTTP: blocking, small, and independent of granum's own client.

A put has three outcomes: a status, which is exact; no answer, which means unknown; never a guess.
"""

import http.client
import json
import socket
import struct
import urllib.parse
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any  # a listing as JSON gives it

ANSWER_S = 20.0  # beyond it an answer counts as none
UNANSWERED = (OSError, http.client.HTTPException)
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a body, and the headers by their names in lower case."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def stored(self) -> bool:
        """Whether it is a receipt."""
        return 200 <= self.status < 300


class Line(AbstractContextManager["Line"]):
    """One persistent connection to *address*; every method raises one of UNANSWERED when no answer comes."""

    def __init__(self, address: Address, answer_s: float = ANSWER_S, source: str = "") -> None:
        """Speak from the address *source* of this machine, '' for any."""
        self._http = http.client.HTTPConnection(
            *address, timeout=answer_s, source_address=(source, 0) if source else None
        )

    def put(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Put *body* as *path*."""
        return self._ask("PUT", path, body, headers)

    def send(self, piece: bytes) -> None:
        """Send a piece of a request as it is."""
        if self._http.sock is None:
            self._http.connect()
        self._http.sock.sendall(piece)

    def receive(self) -> Answer:
        """Return the answer to a request that was sent in pieces."""
        response = http.client.HTTPResponse(self._http.sock)
        response.begin()
        return _answer(response)

    def get(self, path: str) -> Answer:
        """Get *path*, a listing when it ends in '/'."""
        return self._ask("GET", path, None, None)

    def listing(self, path: str) -> dict[str, int]:
        """Return the sizes of the entries of the directory *path*; empty when there is none."""
        answer = self.get(path)
        entries: dict[str, Any] = json.loads(answer.body) if answer.status == 200 else {}
        return {name: size for name, (_, size) in entries.items()}

    def _ask(self, verb: str, path: str, body: bytes | None, headers: Mapping[str, str] | None) -> Answer:
        try:
            self._http.request(verb, path, body, headers or {})
        except (BrokenPipeError, ConnectionResetError):
            if self._http.sock is None:
                raise
            # It did not want the body; the answer that says why may have arrived before.
        return _answer(self._http.getresponse())

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _answer(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, response.read(), headers)


def put(address: Address, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer | None:
    """Put *body* as *path* on a connection of its own; None when no answer came."""
    try:
        with Line(address) as line:
            return line.put(path, body, headers)
    except UNANSWERED:
        return None


def get(address: Address, path: str, answer_s: float = ANSWER_S) -> Answer | None:
    """Get *path* on a connection of its own; None when no answer came."""
    try:
        with Line(address, answer_s) as line:
            return line.get(path)
    except UNANSWERED:
        return None


def serves(address: Address) -> bool:
    """Whether the node answers at all."""
    answer = get(address, "/__healthz", 1.0)
    return answer is not None and answer.status == 200


def head(path: str, length: int, *more: str) -> bytes:
    """Return the head of a put of *length* bytes, with the header lines *more*."""
    lines = [f"PUT {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}", *more, "", ""]
    return "\r\n".join(lines).encode()


def first_line(address: Address, request: bytes, answer_s: float) -> bytes:
    """Send *request* and return the first line of what comes back; b'' when nothing does within *answer_s*."""
    try:
        with socket.create_connection(address, answer_s) as connection, connection.makefile("rb") as lines:
            connection.sendall(request)
            return lines.readline()
    except OSError:
        return b""


def shown(statuses: Counter[int]) -> str:
    """Return how often each of *statuses* came, for a person."""
    return " ".join(f"{status}x{number}" for status, number in sorted(statuses.items()))


def quoted(path: str) -> str:
    """Return *path* as it stands in a request."""
    return urllib.parse.quote(path)


def reset(connection: socket.socket) -> None:
    """Close *connection* with a reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
