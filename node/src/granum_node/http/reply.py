"""Replies: heads that PYME's parser and every other one accept, and the one object through which a verb answers.

Every reply is delimited by Content-Length, with header lines 'name: value' and no ': ' inside a value, because PYME's raw
client splits there. Head and small body leave in one piece; in two, delayed acknowledgements cost 40 ms a request.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

from granum.wire.errors import WORD, word_of
from granum_node.http.errors import status_and_text
from granum_node.http.outbox import FilePart, Item, Slot
from granum_node.http.parser import Request

INLINE_BYTES_MAX = 32 * 1024  # a smaller file is read and sent with its head; opening a sendfile for it costs more
RETRY_AFTER_S = 5  # what a 503 or 429 proposes: long enough to matter, short enough for a drain or a burst to be over
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n" for status in HTTPStatus}


class HeadMaker:
    """Makes reply heads; keeps the lines that are the same for a whole second."""

    def __init__(self, server: str, node_id: str, wall_clock: Callable[[], float] = time.time) -> None:
        """Name *server* and *node_id* in every head; *wall_clock* gives Unix time."""
        self._common = f"Server: {server}\r\nGranum-Node: {node_id}\r\n"
        self._clock = wall_clock
        self._second = -1
        self._lines = ""

    def head(self, status: int, length: int | None, headers: Mapping[str, str], *, closes: bool) -> bytes:
        """Return the head of a reply whose body has *length* bytes; None when its status allows no body."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._lines = f"{self._common}Date: {formatdate(second, usegmt=True)}\r\n"
        more = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        last = "Connection: close\r\n\r\n" if closes else "\r\n"
        delimiter = "" if length is None else f"Content-Length: {length}\r\n"
        return f"{_STATUS_LINES[status]}{self._lines}{delimiter}{more}{last}".encode("latin-1")


@dataclass(slots=True)
class Reply:
    """The answer to one request, given exactly once, now or later."""

    request: Request
    slot: Slot
    heads: HeadMaker
    count: Callable[[str, int], None]  # told verb and status of every answer
    peer: str = ""  # the address of who asks
    is_whole: bool = False  # the body of the request has arrived, all of it, with the head

    @property
    def _closes(self) -> bool:
        return self.slot.closes or not self.request.keep_alive

    def send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Answer with *body*; a HEAD request gets the head that says its length."""
        head = self.heads.head(status, len(body), headers, closes=self._closes)
        if self.request.verb == "HEAD":
            self._fill(status, [head])
        elif len(body) > INLINE_BYTES_MAX:  # a listing of megabytes: the outbox sends both at once, without a copy
            self._fill(status, [head, body])
        else:
            self._fill(status, [head + body])

    def send_file(self, fd: int, size: int, headers: Mapping[str, str], *, start: int = 0, status: int = 200) -> None:
        """Answer with *size* bytes of the file *fd* from *start* on; it is closed when they have left."""
        head = self.heads.head(status, size, headers, closes=self._closes)
        if self.request.verb == "HEAD" or not size:
            os.close(fd)
            self._fill(status, [head])
        elif size > INLINE_BYTES_MAX:
            self._fill(status, [head, FilePart(fd, start, size)])
        else:
            try:
                body = os.pread(fd, size, start)
            finally:
                os.close(fd)
            if len(body) < size:  # cut short behind the node's back; what the head promised cannot be sent
                raise OSError("a published file became shorter")
            self._fill(status, [head + body])

    def send_not_modified(self, headers: Mapping[str, str]) -> None:
        """Answer 304; it has no body and names no length, which would be that of the file."""
        self._fill(304, [self.heads.head(304, None, headers, closes=self._closes)])

    def refuse(self, error: BaseException, *, closes: bool = False) -> None:
        """Answer with the status and the sentence of *error*; *closes* when the end of the request is unknown."""
        self.slot.closes = self.slot.closes or closes
        status, text = status_and_text(error)
        more = {"Retry-After": str(RETRY_AFTER_S)} if status in {429, 503} else {}
        word = word_of(error)
        if word:
            more[WORD.title()] = word
        headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
        self.send(status, headers | more, text)

    def _fill(self, status: int, items: list[Item]) -> None:
        self.count(self.request.verb, status)
        self.slot.fill(items, closes=self._closes)
