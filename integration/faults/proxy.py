"""A proxy for one node that loses answers: it passes requests on, swallows an answer, and resets both connections.

It has the node's port on another address of this machine, so that a client which goes there names the node by a `Host` that
the node can be told of; `names` says which. What becomes of an answer the *fate* decides, from verb and path: True loses it.
"""

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Self

from integration.faults import talk

ADDRESS = "127.0.0.2"
NAMES = {"GRANUM_NODE_NAMES": ADDRESS}  # for the environment of a node behind a proxy

Fate = Callable[[str, str], bool]


class Proxy(AbstractContextManager["Proxy"]):
    """Listens before *node*, its address; *lost* counts the answers that were swallowed."""

    def __init__(self, node: talk.Address, fate: Fate) -> None:
        self.address = (ADDRESS, node[1])
        self.fate = fate
        self.lost = 0
        self._node = node
        self._listener = socket.create_server(self.address)
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def host(self) -> str:
        """Where it listens, 'address:port'."""
        return f"{self.address[0]}:{self.address[1]}"

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                node = socket.create_connection(self._node)
            except OSError:
                client.close()
                continue
            pair = _Pair(client, node, self._decide)
            self._pairs.add(pair)
            pair.start()

    def _decide(self, verb: str, path: str) -> bool:
        with self._lock:
            loses = self.fate(verb, path)
            self.lost += loses
            return loses

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for pair in self._pairs:
            pair.cut()


class _Pair:
    """One connection of a client, and its own to the node."""

    def __init__(self, client: socket.socket, node: socket.socket, loses: Fate) -> None:
        self._client = client
        self._node = node
        self._loses = loses
        self._asked: deque[tuple[str, str]] = deque()  # verb and path of what has no answer yet
        for end in (client, node):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        """Pass on what comes, in two threads."""
        for pump in (self._requests, self._answers):
            threading.Thread(target=self._run, args=(pump,), daemon=True).start()

    def cut(self) -> None:
        """Reset both connections."""
        for end in (self._client, self._node):
            with suppress(OSError):  # the other thread may have done so, or the other side
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
            end.close()

    def _run(self, pump: Callable[[], None]) -> None:
        with suppress(OSError):
            pump()
        self.cut()

    def _requests(self) -> None:
        stream = _Stream(self._client)
        while head := stream.head():
            verb, path = head.split(b" ", 2)[:2]
            self._asked.append((verb.decode(), path.decode()))
            stream.pass_on(self._node, head, _length(head))

    def _answers(self) -> None:
        stream = _Stream(self._node)
        while head := stream.head():
            if head.startswith(b"HTTP/1.1 100"):
                self._client.sendall(head)
                continue
            verb, path = self._asked.popleft()
            if self._loses(verb, path):
                return
            stream.pass_on(self._client, head, 0 if verb == "HEAD" else _length(head))


class _Stream:
    """What comes from one socket, message by message."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._come = b""

    def head(self) -> bytes:
        """Return the next head, b'' at the end."""
        while (end := self._come.find(b"\r\n\r\n")) < 0:
            if not self._more():
                return b""
        head, self._come = self._come[: end + 4], self._come[end + 4 :]
        return head

    def pass_on(self, sink: socket.socket, head: bytes, length: int) -> None:
        """Send *head* and the *length* bytes behind it to *sink*."""
        ready, self._come = self._come[:length], self._come[length:]
        sink.sendall(head + ready)
        left = length - len(ready)
        while left:
            piece = self._source.recv(min(left, 1 << 18))
            if not piece:
                raise ConnectionResetError
            sink.sendall(piece)
            left -= len(piece)

    def _more(self) -> bool:
        piece = self._source.recv(1 << 18)
        self._come += piece
        return bool(piece)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
