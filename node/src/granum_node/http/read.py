"""GET and HEAD: files whole, directories as listings."""

from email.utils import formatdate

from granum.wire.errors import IsADirectory
from granum.wire.listing import encode_listing
from granum.wire.paths import ClusterPath, Target
from granum_node.http.pool import Pool
from granum_node.http.reply import Reply
from granum_node.storage.store import Store

# By extension, as PYME answers them; no type that a browser would run as a page of this origin.
_TYPES = {"json": "application/json", "txt": "text/plain", "log": "text/plain", "csv": "text/csv"}
_TYPE_OF_THE_REST = "application/octet-stream"
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
        headers = {
            "Content-Type": content_type(path.name),
            "Last-Modified": formatdate(min(max(status.st_mtime, 0), _LAST_SECOND), usegmt=True),
            "X-Content-Type-Options": "nosniff",
        }
        reply.send_file(fd, status.st_size, headers)

    def _list(self, reply: Reply, path: ClusterPath) -> None:
        def answer(body: bytes) -> None:
            reply.send(200, {"Content-Type": "application/json; charset=utf-8"}, body)

        self._pool.run(lambda: encode_listing(self._store.listing(path)), answer, reply.refuse)


def content_type(name: str) -> str:
    """Return the media type that the file *name* is served as."""
    _, dot, extension = name.rpartition(".")
    return _TYPES.get(extension.lower(), _TYPE_OF_THE_REST) if dot else _TYPE_OF_THE_REST
