"""What a fake node answers: one request in, one reply out, on a store in memory.

The statuses are those of `granum.wire.errors`; the headers and bodies are those of `granum-node`. Faults, connections and
the order of replies are not known here.
"""

import gzip
import json
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus

import xxhash

from granum.testing.request import Head
from granum.testing.store import MemoryStore
from granum.wire.digest import HEADER, XXH3, Digest, parse_header
from granum.wire.errors import (
    BadPath,
    BadRequest,
    DigestMismatch,
    GranumError,
    NotStored,
    UnmetExpectation,
    UnsupportedCoding,
    UnsupportedVerb,
    status_of,
)
from granum.wire.exchange import DURABILITY
from granum.wire.paths import ClusterPath, Target, parse_target

CONTENT_TYPES = {".json": "application/json", ".txt": "text/plain"}  # the two that PYME's clients look at
OTHER_CONTENT_TYPE = "application/octet-stream"
_TEXT = ("Content-Type", "text/plain; charset=utf-8")
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?", re.ASCII)

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A final answer. *headers* are those beside Content-Length, Server, Date and Granum-Node, which every answer has."""

    status: int
    body: bytes = b""
    headers: Headers = ()
    hides_body: bool = False  # an answer to HEAD: the length of a body that is not sent

    def head(self, common: Headers) -> bytes:
        """Return the status line and the headers, with *common* ahead of its own, up to the blank line."""
        reason = HTTPStatus(self.status).phrase if self.status in _KNOWN else "Unknown"
        lines = [
            f"{name}: {value}" for name, value in (*common, ("Content-Length", str(len(self.body))), *self.headers)
        ]
        return "\r\n".join([f"HTTP/1.1 {self.status} {reason}", *lines, "", ""]).encode("latin-1")

    def sent_body(self) -> bytes:
        """Return the bytes that follow the head."""
        return b"" if self.hides_body else self.body


_KNOWN = frozenset(int(status) for status in HTTPStatus)


def error_reply(status: int, sentence: str) -> Reply:
    """Return the answer that says in one sentence what went wrong."""
    return Reply(status, f"{sentence}\n".encode("utf-8", "replace"), [_TEXT])


def refusal(error: GranumError) -> Reply:
    """Return the answer that says *error*."""
    return error_reply(status_of(error), str(error))


@dataclass(frozen=True, slots=True)
class Answerer:
    """Answers requests from *store*.

    *status* is what '/__status' says; *modified*, in unix time, is what Last-Modified says of every file.
    """

    store: MemoryStore
    status: dict[str, object]
    modified: float

    def check(self, head: Head) -> None:
        """Raise what condemns a put before its body is seen; the answer to 'Expect: 100-continue' hangs on it."""
        if head.headers.get("expect", "100-continue").lower() != "100-continue":
            raise UnmetExpectation
        if head.verb != "PUT":
            return
        target = parse_target(head.target)
        if target.endpoint:
            raise BadPath(f"{target.endpoint!r} is the node's own; nothing can be put there")
        if head.headers.get("content-encoding", "identity").lower() not in {"identity", "gzip"}:
            raise UnsupportedCoding
        if not self._is_stored(target.path, head):
            self.store.check_free(target.path)

    def _is_stored(self, path: ClusterPath, head: Head) -> bool:
        """Whether *path* is there already, with the digest that the put names."""
        digests, stored = parse_header(head.headers.get(HEADER, "")), self.store.files.get(str(path))
        return stored is not None and digests == [_digest_of(stored)]

    def answer(self, head: Head, body: bytes) -> Reply:
        """Carry out one request and return its answer; an error is an answer too."""
        try:
            self.check(head)
            if head.verb == "PUT":
                return self._put(head, body)
            if head.verb not in {"GET", "HEAD"}:
                raise UnsupportedVerb
            reply = self._get(parse_target(head.target), head)
        except GranumError as error:
            reply = refusal(error)
        return replace(reply, hides_body=head.verb == "HEAD")

    def _put(self, head: Head, body: bytes) -> Reply:
        target = parse_target(head.target)
        if target.slash:
            self.store.mkdir(target.path)
        elif not self._is_stored(target.path, head):
            file = _decoded(head, body)
            if any(digest != _digest_of(file) for digest in parse_header(head.headers.get(HEADER, ""))):
                raise DigestMismatch
            self.store.put(target.path, file)
        return Reply(200, headers=[(DURABILITY.title(), "relaxed")])

    def _get(self, target: Target, head: Head) -> Reply:
        path = target.path
        match target.endpoint:
            case "__status":
                return Reply(200, json.dumps(self.status).encode(), [("Content-Type", "application/json")])
            case "__healthz":
                return Reply(200, b"ok\n", [("Content-Type", "text/plain")])
            case "":
                pass
            case unknown:
                raise BadPath(f"{unknown!r} is no endpoint of a node")
        if self.store.is_directory(path):
            if not target.slash:
                return Reply(301, headers=[("Location", path.target(directory=True))])
            return Reply(200, self.store.listing(path), [("Content-Type", "application/json; charset=utf-8")])
        if target.slash:
            raise NotStored(f"there is no directory {path}")
        content_type = CONTENT_TYPES.get(os.path.splitext(path.name)[1].lower(), OTHER_CONTENT_TYPE)
        modified = formatdate(self.modified, usegmt=True)
        file = self.store.get(path)
        always = [("Content-Type", content_type), ("Last-Modified", modified), ("Accept-Ranges", "bytes")]
        always += [(HEADER.title(), _digest_of(file).member), ("ETag", _digest_of(file).entity_tag)]
        part = _RANGE.fullmatch(head.headers.get("range", "")) if head.verb == "GET" else None
        if part is None or int(part[2] or len(file)) < int(part[1]):
            return Reply(200, file, always)
        start, end = int(part[1]), min(int(part[2] or len(file)) + 1, len(file))
        if start >= len(file):
            sentence = f"{path} has {len(file)} bytes, and the range lies behind them"
            return replace(
                error_reply(416, sentence), headers=[*always[1:], ("Content-Range", f"bytes */{len(file)}"), _TEXT]
            )
        return Reply(206, file[start:end], [*always, ("Content-Range", f"bytes {start}-{end - 1}/{len(file)}")])


def _digest_of(file: bytes) -> Digest:
    return Digest(XXH3, xxhash.xxh3_128_hexdigest(file))


def _decoded(head: Head, body: bytes) -> bytes:
    if head.headers.get("content-encoding", "identity").lower() != "gzip":
        return body
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise BadRequest("the body is not gzip") from error
