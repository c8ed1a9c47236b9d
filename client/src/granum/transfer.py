"""Whole files to and from one node: get, put, mkdir, listing, head, status.

Every answer is checked before it is believed: it comes from the node that was meant, with the length that it announced. A
put is sent once; when its answer is lost it is reported as not receipted, because it may or may not be stored.

This module knows one node at a time. Which node to ask, and what to do when it fails, its callers decide; whether a node
answered is reported to them.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import xxhash
from twisted.internet.defer import Deferred, DeferredSemaphore

from granum.request import NeverBegun, Reply, Requester, was_sent
from granum.roster import Node
from granum.wire.digest import HEADER as DIGEST_HEADER
from granum.wire.digest import XXH3, Digest, parse_header
from granum.wire.errors import (
    WORD,
    BadListing,
    BadRequest,
    Corrupt,
    GranumError,
    IsADirectory,
    NodeError,
    NodeUnreachable,
    NotReceipted,
    error_for,
)
from granum.wire.exchange import DURABILITY
from granum.wire.listing import UNKNOWN_SIZE, Entry, Flags, Listing, decode_listing
from granum.wire.parts import is_behind, is_that_part, range_of
from granum.wire.paths import ClusterPath

NODE_HEADER = "granum-node"  # carries the id of the node that answers; PYME's nodes have none
PARALLEL_PER_NODE = 4  # bodies, and again as many questions, at once: a PYME node accepts five connections at a time
FILE_BYTES_MAX = 1 << 34  # 16 GiB: a get holds the whole file in memory
LISTING_BYTES_MAX = 1 << 28  # 256 MiB: some five million entries
STATUS_BYTES_MAX = 1 << 20
MOVED = frozenset({301, 308})  # a node's answer to the name of a directory without its final slash


@dataclass(frozen=True, slots=True)
class Receipt:
    """A node's acknowledgement of one put: *size* in bytes, *when* in unix time by this machine's clock.

    *durability* is 'commit' (synced before it was sent), 'relaxed', or '' from a PYME node, which does not say.
    """

    path: ClusterPath
    node: Node
    size: int
    when: float
    durability: str


@dataclass(slots=True)
class _Lane:
    """What goes on with one node: *failures* counts, so that those who wait in turn need not find out one by one."""

    bodies: DeferredSemaphore = field(default_factory=lambda: DeferredSemaphore(PARALLEL_PER_NODE))
    questions: DeferredSemaphore = field(default_factory=lambda: DeferredSemaphore(PARALLEL_PER_NODE))
    failures: int = 0
    failure: NodeUnreachable = field(default_factory=NodeUnreachable)

    @property
    def is_idle(self) -> bool:
        """Whether nothing goes on with the node, nor waits to."""
        return self.bodies.tokens == self.bodies.limit and self.questions.tokens == self.questions.limit


class Transfer:
    """Transfers with any node. *answered* and *failed* are told what each exchange showed of its node.

    *wall_clock* gives the unix time that receipts carry.
    """

    def __init__(
        self,
        reactor: Any,  # Any: see Requester
        *,
        answered: Callable[[Node], None] = lambda _: None,
        failed: Callable[[Node, GranumError], None] = lambda *_: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._requester = Requester(reactor)
        self._answered = answered
        self._failed = failed
        self._wall_clock = wall_clock
        self._lanes: dict[str, _Lane] = {}

    async def get(self, node: Node, path: ClusterPath) -> bytes:
        """Return the bytes of the file *path*.

        Raises NotStored, IsADirectory, NodeUnreachable, NodeTimeout, Corrupt when the bytes do not have the digest that
        the node names, or what else its status means.
        """
        reply = await self._request("GET", node, path.target(), is_body=True, body_bytes_max=FILE_BYTES_MAX)
        if reply.status in MOVED:
            raise IsADirectory(f"{path} is a directory")
        body = _checked(reply, node, path).body
        _check_digest(reply, body, node, path)
        return body

    async def part(self, node: Node, path: ClusterPath, start: int, length: int | None) -> bytes:
        """Return *length* bytes of the file *path* from byte *start* on, all the rest for None; fewer where it ends.

        Not compared with a digest, which is of the whole file. A PYME node knows no parts: it sends the file, which is cut
        here. Raises as `get`, and NodeError when the node sends another part than was asked for.
        """
        if length == 0:
            return (await self.part(node, path, start, 1))[:0]  # there is no way to ask for nothing
        headers = {"Range": range_of(start, length)}
        target = path.target()
        reply = await self._request("GET", node, target, headers=headers, is_body=True, body_bytes_max=FILE_BYTES_MAX)
        if reply.status in MOVED:
            raise IsADirectory(f"{path} is a directory")
        named = reply.header("content-range")
        if reply.status == 416 and is_behind(named, start):
            return b""
        body = _checked(reply, node, path).body
        if reply.status != 206:
            _check_digest(reply, body, node, path)
            return body[start : None if length is None else start + length]
        if not is_that_part(named, len(body), start, length):
            raise NodeError(
                f"node {node} sent another part of {path} than was asked for: {named or 'it does not say which'}"
            )
        return body

    async def listing(self, node: Node, path: ClusterPath) -> Listing | None:
        """Return the listing of the directory *path*; None when the node has none. Raises BadListing and as `get`."""
        target = path.target(directory=True)
        reply = await self._request("GET", node, target, body_bytes_max=LISTING_BYTES_MAX)
        if reply.status == 404:
            return None
        try:
            return decode_listing(_checked(reply, node, path).body)
        except BadListing as error:
            raise BadListing(f"{path} on {node.name}: {error}") from error

    async def head(self, node: Node, path: ClusterPath) -> Entry | None:
        """Return what the node has under *path*, None when nothing.

        The size of a file is exact, or -1 where the node does not say; that of a directory is always -1.
        """
        reply = await self._request("HEAD", node, path.target(), body_bytes_max=0)
        if reply.status == 404:
            return None
        if reply.status in MOVED or not path.parts:
            return Entry(path.name, Flags.DIRECTORY, UNKNOWN_SIZE)
        return Entry(path.name, Flags.FILE, _checked(reply, node, path).length)

    async def digest(self, node: Node, path: ClusterPath) -> Digest | None:
        """Return the digest that *node* names for the file *path*, None when it names none; raises as `get`."""
        reply = await self._request("HEAD", node, path.target(), body_bytes_max=0)
        try:
            return next(iter(parse_header(_checked(reply, node, path).header(DIGEST_HEADER))), None)
        except BadRequest:
            return None

    async def put(self, node: Node, path: ClusterPath, body: bytes) -> Receipt:
        """Store *body* as the file *path*; return the receipt. The same bytes may be put again.

        Raises AlreadyStored or what else the node's status means, NodeUnreachable when no connection was made, and
        NotReceipted when the answer was lost.
        """
        return await self._write(node, path, path.target(), body, {DIGEST_HEADER.title(): _digest_of(body).member})

    async def mkdir(self, node: Node, path: ClusterPath) -> Receipt:
        """Make the directory *path*; as `put`."""
        return await self._write(node, path, path.target(directory=True), b"")

    async def status(self, node: Node) -> Mapping[str, object]:
        """Return what the node says of itself; 'node_id' is added from the answer's header when the node has one."""
        reply = await self._request("GET", node, "/__status", body_bytes_max=STATUS_BYTES_MAX)
        try:
            status = json.loads(_checked(reply, node, ClusterPath()).body)
        except (ValueError, RecursionError):
            status = None
        if not isinstance(status, dict):
            raise NodeError(f"node {node} does not answer with its status; is it really a node?")
        node_id = reply.header(NODE_HEADER)
        return {**status, "node_id": node_id} if node_id else status

    async def metrics(self, node: Node) -> str:
        """Return the page of metrics of *node*, in the text format of Prometheus; raises as `get`, for a node without any."""
        reply = await self._request("GET", node, "/__metrics", body_bytes_max=STATUS_BYTES_MAX)
        return _checked(reply, node, ClusterPath()).body.decode("utf-8", "replace")

    async def reach(self, node: Node) -> None:
        """Make a connection to *node*, which was silent, and close it. Waits longer than a request would; NodeUnreachable."""
        await self._requester.reach(node)

    def close(self) -> Deferred[None]:
        """Close the kept connections; fires when they are closed."""
        return self._requester.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _write(
        self, node: Node, path: ClusterPath, target: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> Receipt:
        try:
            reply = await self._request(
                "PUT", node, target, body, headers=headers, is_body=True, body_bytes_max=STATUS_BYTES_MAX
            )
        except NodeUnreachable as error:
            if not was_sent(error):
                raise
            raise NotReceipted(f"{path} may or may not be stored", [str(path)], {node.name: error}) from error
        durability = _checked(reply, node, path).header(DURABILITY)
        return Receipt(path, node, len(body), self._wall_clock(), durability)

    async def _request(
        self,
        verb: str,
        node: Node,
        target: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        is_body: bool = False,
        body_bytes_max: int,
    ) -> Reply:
        """Send in turn; raise NodeUnreachable when another node answers or this one does not."""
        lane = self._lanes.setdefault(node.host, _Lane())
        turn = lane.bodies if is_body else lane.questions
        failures = lane.failures
        await turn.acquire()
        try:
            if lane.failures != failures:
                raise _without_frames(lane.failure) from NeverBegun()
            reply = await self._requester.request(
                verb, node, target, body, headers=headers, body_bytes_max=body_bytes_max
            )
            found = reply.header(NODE_HEADER)
            if node.node_id and found != node.node_id:
                answered = found or "one without an id"
                raise NodeUnreachable(f"another node answers at {node.host}: not {node.node_id} but {answered}")
        except NodeUnreachable as error:
            if lane.failures == failures:  # else it is known already
                lane.failures, lane.failure = failures + 1, _without_frames(error)
                self._failed(node, lane.failure)
            raise
        finally:
            turn.release()
            if lane.is_idle and self._lanes.get(node.host) is lane:  # else each address ever heard of would keep one
                del self._lanes[node.host]
        self._answered(node)
        return reply


def _without_frames(error: NodeUnreachable) -> NodeUnreachable:
    """Return *error* anew: it is kept for minutes, and its traceback would keep the body of the request as long."""
    return type(error)(str(error))


def _digest_of(body: bytes) -> Digest:
    return Digest(XXH3, xxhash.xxh3_128_hexdigest(body))


def _check_digest(reply: Reply, body: bytes, node: Node, path: ClusterPath) -> None:
    """Raise Corrupt when *body* is not what the node stored; a PYME node and a file placed by hand name no digest."""
    named = reply.header(DIGEST_HEADER)
    try:
        is_same = not named or all(digest == _digest_of(body) for digest in parse_header(named))
    except BadRequest:
        is_same = False
    if not is_same:
        raise Corrupt(
            f"{path} on {node.name} is damaged: its bytes do not have the digest that they were stored with; "
            "'granum-node verify' on that machine finds what else is"
        )


def _checked(reply: Reply, node: Node, path: ClusterPath) -> Reply:
    """Return *reply* when it is a success, else raise what its status means, with the node's own sentence if it has one."""
    if 200 <= reply.status < 300:
        return reply
    is_text = reply.header("content-type").startswith("text/plain")
    sentence = reply.body.decode("utf-8", "replace").strip() if is_text else ""
    word = reply.header(WORD)
    raise error_for(reply.status, f"{path} on {node.name}: {sentence or error_for(reply.status, word=word)}", word)
