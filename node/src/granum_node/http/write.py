"""PUT: a whole file, once, or a directory.

What the head of the request already condemns is refused before a byte of the body is taken. The decision that counts is the
exclusive link at the end: of any number of puts of one name, one wins.
"""

import zlib
from collections.abc import Iterator
from functools import partial

from granum.wire.errors import AlreadyStored, BadRequest, LengthRequired, UnsupportedCoding, UnsupportedVerb
from granum.wire.exchange import DURABILITY
from granum.wire.paths import ClusterPath, Target
from granum_node.http.reply import Reply
from granum_node.http.sink import Sink
from granum_node.storage.publish import Done, Publisher
from granum_node.storage.store import Store
from granum_node.storage.tree import error_of

DECODED_PIECE_BYTES = 256 * 1024  # of a gzip body in memory at a time, whatever it expands to


class Writer:
    """Answers puts into *store*; *publisher* gives files their names, and its mode of durability is named in each receipt."""

    def __init__(self, store: Store, publisher: Publisher) -> None:
        self._store = store
        self._publisher = publisher
        self._receipt = {DURABILITY.title(): publisher.durability}

    def begin(self, reply: Reply, target: Target) -> Sink | None:
        """Return the sink for the body of a PUT to *target*; raise GranumError to refuse it."""
        path = target.path
        if self._publisher.failure is not None:
            raise self._publisher.failure
        if target.slash or not path.parts:
            self._publisher.make_directory(path, partial(self._answer, reply))
            return None
        if target.query.startswith("MirrorSource="):
            # Storing the empty body of such a request under the name of the file it asks for would be worse than this.
            raise UnsupportedVerb("this node does not copy files from other nodes; put the bytes themselves")
        request = reply.request
        if request.length is None and not request.chunked:
            raise LengthRequired
        gzip = _is_gzip(request.headers.get(b"content-encoding", b"identity"))
        if self._store.tree.is_taken(path):
            raise AlreadyStored(f"{path} is already stored on this node")
        return Upload(self._store, self._publisher, path, partial(self._answer, reply), gzip=gzip)

    def _answer(self, reply: Reply, error: Exception | None) -> None:
        if error is None:
            reply.send(200, self._receipt)
        else:
            reply.refuse(error)


class Upload:
    """The sink of one put: spools the body, publishes it when it is whole, and answers."""

    def __init__(self, store: Store, publisher: Publisher, path: ClusterPath, done: Done, *, gzip: bool) -> None:
        """Store the body as *path*; *done* is told when it is, or why not."""
        self._publisher = publisher
        self._path = path
        self._done = done
        self._gzip = zlib.decompressobj(wbits=31) if gzip else None
        self._failure: Exception | None = None
        try:
            self._file = store.spool()
        except OSError as error:
            raise error_of(error, path) from error

    def write(self, piece: bytes | memoryview) -> None:
        """Spool *piece*; after a failure the rest is dropped, so that the connection stays in step."""
        if self._failure is not None:
            return
        try:
            if self._gzip is None:
                self._file.write(piece)
            else:
                for decoded in _decode(self._gzip, piece):
                    self._file.write(decoded)
        except OSError as error:
            self._fail(error_of(error, self._path))
        except BadRequest as error:
            self._fail(error)

    def finish(self) -> None:
        """Publish the file and answer."""
        if self._failure is None and self._gzip is not None and not self._gzip.eof:
            self._fail(BadRequest("the gzip body is not complete"))
        if self._failure is None:
            self._publisher.publish(self._file, self._path, self._done)
        else:
            self._done(self._failure)

    def abort(self) -> None:
        """Forget what has arrived: the rest will not."""
        self._file.discard()

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._file.discard()  # its space is free again before the rest of the body has arrived


def _is_gzip(coding: bytes) -> bool:
    match coding.strip().lower():
        case b"gzip" | b"x-gzip":
            return True
        case b"identity" | b"":
            return False
        case _:
            raise UnsupportedCoding


def _decode(gzip: "zlib._Decompress", piece: bytes | memoryview) -> Iterator[bytes]:
    try:
        rest: bytes | memoryview = piece
        while rest and not gzip.eof:
            yield gzip.decompress(rest, DECODED_PIECE_BYTES)
            rest = gzip.unconsumed_tail
    except zlib.error as error:
        raise BadRequest("the body is not gzip, as its Content-Encoding says") from error
    if gzip.eof and (gzip.unused_data or (rest and rest is piece)):
        raise BadRequest("something follows the gzip body")
