"""GET and HEAD: files, whole or a part, under the conditions of the request; directories as listings."""

import os
from email.utils import formatdate
from functools import lru_cache, partial

from granum.wire.digest import HEADER, Digest
from granum.wire.errors import GranumError, IsADirectory, NotStored, PreconditionFailed
from granum.wire.paths import ClusterPath, Target
from granum_node.http.conditions import Decision, Unsatisfiable, Version, decide, select
from granum_node.http.pool import Pool
from granum_node.http.reply import Reply
from granum_node.storage.digest import recorded
from granum_node.storage.directory import Listed
from granum_node.storage.store import Store
from granum_node.storage.tree import mapped

# By extension, as PYME answers them; no type that a browser would run as a page of this origin.
_TYPES = {"json": "application/json", "txt": "text/plain", "log": "text/plain", "csv": "text/csv"}
_TYPE_OF_THE_REST = "application/octet-stream"
DATES_KEPT = 1024  # many frames are stored in one second, and read one behind the other
_LAST_SECOND = 253_402_300_799  # of the year 9999; what a file system says beyond it, HTTP has no date for


class Reader:
    """Answers reads from *store*; listings are made by *pool*, because a large one takes seconds."""

    def __init__(self, store: Store, pool: Pool) -> None:
        self._store = store
        self._pool = pool

    def begin(self, reply: Reply, target: Target) -> None:
        """Answer a GET or HEAD for *target*."""
        path = target.path
        if target.slash or not path.parts:
            self._list(reply, path)
            return
        try:
            fd, status = self._store.tree.open_file(path)
        except IsADirectory:
            reply.send(301, {"Location": path.target(directory=True)})
            return
        except NotStored:
            self._store.quarantine.check(path)
            raise
        try:
            with mapped(path):
                digest = recorded(fd)
        except GranumError:
            os.close(fd)
            raise
        _answer(reply, path, fd, status, digest)

    def _list(self, reply: Reply, path: ClusterPath) -> None:
        self._pool.run(lambda: self._store.listing(path), partial(_answer_listing, reply, path), reply.refuse)


def _answer_listing(reply: Reply, path: ClusterPath, listed: Listed) -> None:
    """Answer with *listed*, unless the client has it already; a listing has no date, so conditions of time do not count."""
    asked = {name: tags for name, tags in reply.request.headers.items() if name in {b"if-match", b"if-none-match"}}
    headers = {"ETag": listed.tag}
    match decide(asked, Version(listed.tag.encode(), 0)):
        case Decision.FAILED:
            reply.refuse(PreconditionFailed(f"{path} is not what the request made its condition"))
        case Decision.NOT_MODIFIED:
            reply.send_not_modified(headers)
        case Decision.PROCEED:
            reply.send(200, headers | {"Content-Type": "application/json; charset=utf-8"}, listed.body)


def _answer(reply: Reply, path: ClusterPath, fd: int, status: os.stat_result, digest: Digest | None) -> None:
    """Answer with the file *fd*, or the part of it that is asked for, unless a condition says otherwise."""
    modified = min(max(int(status.st_mtime), 0), _LAST_SECOND)
    tag = digest.entity_tag if digest is not None else f'W/"{status.st_size:x}-{status.st_mtime_ns:x}"'
    version = Version(tag.encode(), modified)
    size = status.st_size
    headers = {"ETag": tag, "Last-Modified": _date(modified)}
    if digest is not None:
        headers[HEADER.title()] = digest.member
    asked = reply.request.headers
    match decide(asked, version):
        case Decision.FAILED:
            os.close(fd)
            raise PreconditionFailed(f"{path} is not what the request made its condition")
        case Decision.NOT_MODIFIED:
            os.close(fd)
            reply.send_not_modified(headers)
            return
    headers |= {
        "Content-Type": content_type(path.name),
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    try:
        part = select(asked, version, size) if b"range" in asked and reply.request.verb == "GET" else None
    except Unsatisfiable:
        os.close(fd)
        more = {"Content-Range": f"bytes */{size}", "Content-Type": "text/plain; charset=utf-8"}
        reply.send(416, headers | more, f"{path} has {size} bytes, and the range lies behind them\n".encode())
        return
    if part is None:
        reply.send_file(fd, size, headers)
    else:
        start, length = part
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
        reply.send_file(fd, length, headers, start=start, status=206)


@lru_cache(DATES_KEPT)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def content_type(name: str) -> str:
    """Return the media type that the file *name* is served as."""
    _, dot, extension = name.rpartition(".")
    return _TYPES.get(extension.lower(), _TYPE_OF_THE_REST) if dot else _TYPE_OF_THE_REST
