"""PUT: a whole file, once, or a directory.

A put that names its digest may be repeated: when the same bytes are stored already, the answer is a receipt and nothing is
written. Which digests are checked where: `digests`.

What the head of the request already condemns is refused before a byte of the body is taken. The decision that counts is the
exclusive link at the end: of any number of puts of one name, one wins.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from granum.wire.digest import HEADER, SHA256, Digest
from granum.wire.errors import (
    AlreadyStored,
    BadRequest,
    DigestMismatch,
    GranumError,
    LengthRequired,
    NoSpace,
    OverQuota,
    PreconditionFailed,
    UnsupportedCoding,
    UnsupportedVerb,
)
from granum.wire.exchange import DURABILITY
from granum.wire.paths import ClusterPath, Target
from granum_node.http.digests import NOTHING, Expected, check, read_expected
from granum_node.http.limits import check_expansion
from granum_node.http.parser import BODY_BYTES_MAX
from granum_node.http.pool import Pool
from granum_node.http.reply import Reply
from granum_node.http.sink import Sink
from granum_node.http.state import States
from granum_node.storage.digest import new_hasher
from granum_node.storage.publish import Done, Publisher
from granum_node.storage.space import Claim, Space
from granum_node.storage.spool import SpooledFile
from granum_node.storage.store import Found, Store
from granum_node.storage.tree import error_of

DECODED_PIECE_BYTES = 256 * 1024  # of a gzip body in memory at a time, whatever it expands to


class Writer:
    """Answers puts into *store*; *publisher* gives files their names, and its mode of durability is named in each receipt."""

    def __init__(self, store: Store, publisher: Publisher, pool: Pool, space: Space, states: States) -> None:
        self._store = store
        self._space = space
        self._states = states
        self._publisher = publisher
        self._pool = pool
        self._receipt = {DURABILITY.title(): publisher.durability}

    def begin(self, reply: Reply, target: Target) -> Sink | None:
        """Return the sink for the body of a PUT to *target*; raise GranumError to refuse it."""
        path = target.path
        self._states.check_put()
        try:
            self._store.quarantine.check_put(path)
        except AlreadyStored as error:
            raise PreconditionFailed(str(error)) if _is_exclusive(reply.request.headers) else error from None
        if target.slash or not path.parts:
            put = Put(reply, path, exclusive=_is_exclusive(reply.request.headers))
            self._admit(put, 0).settle(stored=False)
            self._publisher.make_directory(path, partial(self._made, put))
            return None
        if target.query.startswith("MirrorSource="):
            # Storing the empty body of such a request under the name of the file it asks for would be worse than this.
            raise UnsupportedVerb("this node does not copy files from other nodes; put the bytes themselves")
        request = reply.request
        if request.length is None and not request.chunked:
            raise LengthRequired
        gzip = _is_gzip(request.headers.get(b"content-encoding", b"identity"))
        put = Put(reply, path, read_expected(request.headers, coded=gzip), _is_exclusive(request.headers))
        # What has arrived whole costs less to refuse at the link, which decides anyway, than to look for first.
        looks = not reply.is_whole or bool(put.expected) or b"if-match" in request.headers
        if looks and self._store.tree.is_taken(path):
            if put.expected.file:
                self._compare(put, put.expected.file)  # decided without the body, which is dropped
                return None
            if not put.expected:
                raise put.refusal()
            # What a coded body comes to is known when it has arrived; it loses the link then.
        elif b"if-match" in request.headers:
            raise PreconditionFailed(f"{path} is not stored on this node")
        claim = self._admit(put, request.length or 0, reply.peer, looked=looks)
        return Upload(self._store, self._publisher, put, claim, partial(self._published, put), gzip=gzip)

    def _admit(self, put: "Put", size: int, peer: str = "", *, looked: bool = False) -> Claim:
        """Return the claim of *put*; raise what says why there is none. *looked*: what the taking of its name means is done."""
        try:
            return self._space.admit(put.path, size, peer)
        except GranumError:
            if not looked and self._store.tree.is_taken(put.path):  # that it is stored already is the better answer
                raise put.refusal() from None
            raise

    def _made(self, put: "Put", error: Exception | None) -> None:
        if error is None:
            self._store.log.touched = True
        self._answer(put, None, error)

    def _published(self, put: "Put", file: SpooledFile, error: Exception | None) -> None:
        if isinstance(error, AlreadyStored) and put.expected and file.digest is not None:
            self._compare(put, (file.digest,))
        else:
            if error is None:
                self._store.published(put.path, file)
            self._answer(put, file.recorded, error)

    def _compare(self, put: "Put", digests: tuple[Digest, ...]) -> None:
        """Answer a put whose name is taken: with a receipt when what is stored has all of *digests*."""

        def compared(found: Found) -> None:
            if found.is_same:
                self._publisher.confirm(put.path, partial(self._answer, put, found.recorded))
            else:
                put.reply.refuse(put.refusal())

        self._pool.run(lambda: self._store.compare(put.path, digests), compared, put.reply.refuse)

    def _answer(self, put: "Put", digest: Digest | None, error: Exception | None) -> None:
        if error is None:
            own = {} if digest is None else {"ETag": digest.entity_tag, HEADER.title(): digest.member}
            put.reply.send(200, self._receipt | own)
        else:
            put.reply.refuse(put.refusal() if isinstance(error, AlreadyStored) else error)


class Put(NamedTuple):
    """One put: its *reply*, what it names, the digests that it *expected*, and whether it is *exclusive*: If-None-Match: *."""

    reply: Reply
    path: ClusterPath
    expected: Expected = NOTHING
    exclusive: bool = False

    def refusal(self) -> GranumError:
        """Return why it is refused when its name is taken."""
        if self.exclusive:
            return PreconditionFailed(f"{self.path} is already stored on this node")
        return AlreadyStored(f"{self.path} is already stored on this node")


class Upload:
    """The sink of one put: spools the body, publishes it when it is whole, and answers."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        put: Put,
        claim: Claim,
        done: Callable[[SpooledFile, Exception | None], None],
        *,
        gzip: bool,
    ) -> None:
        """Store the body as *put* says, within *claim*; *done* is told the file and None when it is stored, or why not."""
        self._publisher = publisher
        self._claim = claim
        self._path = put.path
        self._expected = put.expected
        self._received = new_hasher(SHA256) if put.expected.body else None
        self._gzip = zlib.decompressobj(wbits=31) if gzip else None
        self._coded = 0
        self._failure: Exception | None = None
        try:
            self._file = store.spool(hashed=bool(put.expected))
        except OSError as error:
            claim.settle(stored=False)
            raise error_of(error, put.path) from error
        self._done: Done = partial(self._tell, done)

    def write(self, piece: bytes | memoryview) -> None:
        """Spool *piece*; after a failure the rest is dropped, so that the connection stays in step."""
        if self._failure is not None:
            return
        if self._received is not None:
            self._received.update(piece)
        try:
            if self._gzip is None:
                self._file.write(piece)
                self._claim.arrived(self._file.size)
            else:
                self._coded += len(piece)
                for decoded in _decode(self._gzip, piece):
                    self._file.write(decoded)
                    self._claim.arrived(self._file.size)
                    check_expansion(self._coded, self._file.size, BODY_BYTES_MAX)
        except (BadRequest, NoSpace, OverQuota) as error:
            self._fail(error)
        except OSError as error:
            self._fail(error_of(error, self._path))

    @property
    def is_dropping(self) -> bool:
        """Whether the put has failed already."""
        return self._failure is not None

    def finish(self) -> None:
        """Publish the file and answer."""
        if self._failure is None and self._gzip is not None and not self._gzip.eof:
            self._fail(BadRequest("the gzip body is not complete"))
        if self._failure is None and self._expected:
            self._check()
        if self._failure is None:
            self._publisher.publish(self._file, self._path, self._done)
        else:
            self._done(self._failure)

    def abort(self) -> None:
        """Forget what has arrived: the rest will not."""
        self._file.discard()
        self._claim.settle(stored=False)

    def _tell(self, done: Callable[[SpooledFile, Exception | None], None], error: Exception | None) -> None:
        self._claim.settle(stored=error is None)
        done(self._file, error)

    def _check(self) -> None:
        try:
            if self._received is not None:
                check(self._expected.body, Digest(SHA256, self._received.hexdigest()))
            if self._file.digest is not None:
                check(self._expected.file, self._file.digest)
        except DigestMismatch as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._file.discard()  # its space is free again before the rest of the body has arrived
        self._claim.settle(stored=False)


def _is_exclusive(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"if-none-match", b"").strip() == b"*"


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
