"""Parts: large files are read part by part, so that memory does not grow with them.

A file that is read whole by parts is compared with the digest that its node names, at the end: by then the bytes have been
handed on. A file of a PYME node travels whole, because such a node would send all of it for every part.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from granum.cli.session import Session
from granum.wire.digest import XXH3, Digest
from granum.wire.errors import Corrupt, GranumError, NodeError, NotStored
from granum.wire.paths import ClusterPath

if TYPE_CHECKING:
    from granum.roster import Node
    from granum.transfer import Transfer

PART_BYTES = 8 << 20  # long enough that asking costs little; sixteen of them on their way fill a fast network


@dataclass(frozen=True, slots=True)
class Part:
    """*length* bytes from *start* on of the file *path*, which lies on *nodes*; a *length* of None means all the rest.

    *weight* is how many bytes come for it as far as is known. *is_last* is said of the last part of a file that is read from
    its first byte to its last.
    """

    path: ClusterPath
    nodes: "tuple[Node, ...]"
    start: int = 0
    length: int | None = None
    weight: int = 0
    is_last: bool = False


def cut(
    path: ClusterPath, size: int, nodes: "Sequence[Node]", start: int = 0, stop: int | None = None
) -> Iterator[Part]:
    """Yield the parts that make bytes *start* to *stop* (None: to the end) of a file of *size* bytes (-1: not known)."""
    holders = tuple(nodes)
    end = size if stop is None else min(stop, size)
    is_whole = start == 0 and end == size
    can_be_cut = size >= 0 and all(node.node_id for node in holders)
    if is_whole and (size <= PART_BYTES or not can_be_cut):
        yield Part(path, holders, weight=max(size, 0))
    elif not can_be_cut:
        yield Part(path, holders, start, None if stop is None else max(stop - start, 0), weight=max(size, 0))
    else:
        for begin in range(start, end, PART_BYTES):
            length = min(PART_BYTES, end - begin)
            yield Part(path, holders, begin, length, length, is_last=is_whole and begin + length == end)


def fetched(session: Session, parts: Iterable[Part]) -> Generator[tuple[Part, "Future[bytes]"], None, None]:
    """Yield *parts* in order with the futures of their bytes; close it when stopping early."""

    def begin(cluster: Any, part: Part) -> Any:  # Any: a Deferred of the cluster on the reactor
        if part.length is None and not part.start:
            return cluster.get(part.path, nodes=part.nodes)
        return cluster.get(part.path, start=part.start, length=part.length, nodes=part.nodes)

    return session.in_parallel(parts, begin, lambda part: part.weight)


class Checking:
    """Compares files that come by parts with what their nodes say of them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._state: Any = None  # of the hash of the file that is coming; xxhash has no types

    def add(self, part: Part, body: bytes) -> None:
        """Take in the bytes of a part, in order; raise Corrupt or NodeError when they are not what is stored."""
        import xxhash  # noqa: PLC0415 - --help need not wait for it

        if part.length is None or not all(node.node_id for node in part.nodes):  # compared already, or cannot be
            return
        if len(body) != part.length:
            raise NodeError(f"{part.path}: {len(body)} of {part.length} bytes came; is the file damaged?")
        if part.start == 0:
            self._state = xxhash.xxh3_128()
        if self._state is not None:
            self._state.update(body)
        if part.is_last:
            transfer = self._session.transfer
            told = self._session.submit(lambda: told_digest(transfer, part.path, part.nodes)).result()
            if told is not None and told != Digest(XXH3, self._state.hexdigest()):
                raise Corrupt(f"{part.path} is damaged: its bytes do not have the digest that it was stored with")


async def told_digest(transfer: "Transfer", path: ClusterPath, nodes: "Sequence[Node]") -> Digest | None:
    """Return the digest that the first of *nodes* which answers names, None when it names none; raise when none answers."""
    failure: GranumError = NotStored(f"{path}: no node holds it any longer")
    for node in nodes:
        try:
            return await transfer.digest(node, path)
        except GranumError as error:
            failure = error
    raise failure
