"""Carrying: copies are made, several at a time, or compared with what is there; the one engine behind put, get, cp and sync.

Files are written at their target whole or not at all, and never over others. Equal is what has the same digest; where no node
tells one (PYME's do not), what has the same size, unless bytes are to be compared whatever it costs. One copy that fails is
reported and the others go on.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from granum.cli.ends import ClusterEnd, End
from granum.cli.landing import landing
from granum.cli.parts import Checking, Part, cut, fetched, told_digest
from granum.cli.plan import Copy, Verdict, verdict
from granum.cli.progress import Bar
from granum.cli.session import Session
from granum.cli.tally import Tally
from granum.wire.digest import XXH3, Digest
from granum.wire.errors import AlreadyStored, GranumError
from granum.wire.listing import UNKNOWN_SIZE
from granum.wire.paths import ClusterPath

if TYPE_CHECKING:
    from granum.roster import Node
    from granum.transfer import Receipt

HASHED_BYTES = 1 << 20  # of a local file, at a time

Rest = Callable[[], None]  # what remains to be done on this thread once the nodes have answered


@dataclass(frozen=True, slots=True)
class Way:
    """How copies are made. *force* replaces local files; *writes* off only looks; *deep* reads what has no digest.

    *hint* is what one can do about a local file that differs.
    """

    force: bool = False
    hint: str = "choose another name"
    writes: bool = True
    deep: bool = False


@dataclass(frozen=True, slots=True)
class _Job:
    copy: Copy
    is_new: bool
    body: bytes | None = None  # of a local file
    parts: Sequence[Part] = ()  # of a file that goes to one


class Carrier:
    """Makes copies from *source* to *target*, of which one at least is a cluster; *tally* learns what became of each."""

    def __init__(self, source: End, target: End, tally: Tally, way: Way) -> None:
        self._source = _Remote(source.session, deep=way.deep) if isinstance(source, ClusterEnd) else None
        self._target = _Remote(target.session, deep=way.deep) if isinstance(target, ClusterEnd) else None
        self._tally = tally
        self._way = way

    def carry(self, copies: Sequence[Copy], bar: Bar) -> None:
        """Make all of *copies*, or look only."""
        remote = self._target or self._source
        assert remote is not None
        begun = remote.session.in_parallel(self._jobs(copies, bar), lambda _, job: self._ask(job), self._weight)
        with closing(begun):
            for job, future in begun:
                with self._tally.catching(job.copy):
                    future.result()()
                _advance(bar, job.copy)

    # -- on this thread ------------------------------------------------------------------------------------------------

    def _jobs(self, copies: Sequence[Copy], bar: Bar) -> Iterator[_Job]:
        """Yield what nodes must be asked for; settle the rest at once."""
        for copy in copies:
            with self._tally.catching(copy):
                is_replaced = self._way.force and copy.there is not None and not copy.there.is_directory
                found = Verdict.NEW if is_replaced else verdict(copy.found, copy.there)
                if found is Verdict.NEW and self._way.writes:
                    _make_directories(copy)
                    if not (copy.found.is_directory and self._target is None):
                        yield self._job(copy)
                        continue
                elif found is Verdict.ALIKE:
                    yield _Job(copy, is_new=False)
                    continue
                self._settle(copy, found)
            _advance(bar, copy)

    def _job(self, copy: Copy) -> _Job:
        if self._target is None:
            parts = cut(ClusterPath.parse(copy.source), copy.found.size, copy.found.nodes)
            return _Job(copy, is_new=True, parts=tuple(parts))
        return _Job(copy, is_new=True, body=_local_body(copy))

    def _settle(self, copy: Copy, found: Verdict) -> None:
        if found is Verdict.SAME:
            self._tally.add_same(copy)
        elif found is Verdict.DIFFERS:
            self._tally.add_difference(copy, difference(copy, self._way.hint))
        elif self._way.writes:
            self._tally.add_copied(copy, size=0)
        else:
            self._tally.add_new(copy)

    def _weight(self, job: _Job) -> int:
        """Return the bytes that *job* holds in memory."""
        if job.body is not None:
            return len(job.body)
        is_held = self._way.deep or (job.is_new and len(job.parts) < 2)
        return job.copy.size if is_held else 0

    def _land(self, copy: Copy, bodies: Iterable[bytes]) -> None:
        with landing(str(copy.target), force=self._way.force) as temporary, open(temporary, "xb") as file:
            size = sum(file.write(body) for body in bodies)
        self._tally.add_copied(copy, size=size)

    def _land_parts(self, copy: Copy, parts: Sequence[Part]) -> None:
        """Fetch a large file part by part."""
        assert self._source is not None
        session = self._source.session
        checking = Checking(session)

        def bodies() -> Iterator[bytes]:
            with closing(fetched(session, parts)) as coming:
                for part, future in coming:
                    body = future.result()
                    checking.add(part, body)
                    yield body

        self._land(copy, bodies())

    def _compare(self, copy: Copy, digests: Sequence[Digest | None]) -> None:
        """Count *copy* by the *digests* of its ends in clusters, and that of its local end, which is read only for that."""
        known = list(digests)
        if None not in known:
            known += [digest_of_file(spot) for spot in (copy.source, copy.target) if isinstance(spot, str)]
        if None in known or len(set(known)) == 1:
            self._tally.add_same(copy)
        else:
            self._tally.add_difference(copy, difference(copy, self._way.hint))

    # -- on the reactor's thread ---------------------------------------------------------------------------------------

    async def _ask(self, job: _Job) -> Rest:
        copy = job.copy
        if not job.is_new:
            ends = ((self._source, copy.source, copy.found), (self._target, copy.target, copy.there))
            digests = [await end.digest(spot, found.nodes) for end, spot, found in ends if end is not None and found]
            return lambda: self._compare(copy, digests)
        if len(job.parts) > 1:
            return lambda: self._land_parts(copy, job.parts)
        if self._target is None:
            body = await self._body(job)
            return lambda: self._land(copy, [body])
        receipt = await self._put(self._target, job)
        if receipt is None:
            return lambda: self._tally.add_same(copy)
        return lambda: self._tally.add_copied(copy, **receipt_row(receipt))

    async def _body(self, job: _Job) -> bytes:
        if job.body is not None:
            return job.body
        assert self._source is not None
        return await self._source.cluster.get(ClusterPath.parse(job.copy.source), nodes=job.copy.found.nodes)

    async def _put(self, target: "_Remote", job: _Job) -> "Receipt | None":
        """Store a file, or make a directory; return None when it is there by now, as it is here."""
        path = ClusterPath.parse(job.copy.target)
        if job.copy.found.is_directory:
            try:
                return await target.cluster.mkdir(path)
            except AlreadyStored:
                if await target.cluster.isdir(path):
                    return None
                raise
        body = await self._body(job)
        try:
            return await target.cluster.put(path, body)
        except AlreadyStored:
            if await target.digest(path, await target.cluster.locate(path)) == digest_of(body):
                return None
            raise


class _Remote:
    """A cluster at one end, for use on the reactor's thread."""

    def __init__(self, session: Session, *, deep: bool) -> None:
        self.session = session
        self.cluster = session.on_reactor()
        self._transfer = session.transfer
        self._deep = deep

    async def digest(self, spot: "str | ClusterPath", nodes: "Sequence[Node]") -> Digest | None:
        """Return the digest of a file on *nodes*, None when no node tells it, and it is not to be read for that."""
        path = ClusterPath.parse(spot)
        told = await told_digest(self._transfer, path, nodes)
        if told is None and self._deep:
            return digest_of(await self.cluster.get(path, nodes=nodes))
        return told


def receipt_row(receipt: "Receipt") -> dict[str, Any]:
    """Return what JSON says of a receipt."""
    return {
        "path": str(receipt.path),
        "node": receipt.node.name,
        "size": receipt.size,
        "when": receipt.when,
        "durability": receipt.durability,
    }


def digest_of(body: bytes) -> Digest:
    """Return the digest of *body*."""
    import xxhash  # noqa: PLC0415 - --help need not wait for it

    return Digest(XXH3, xxhash.xxh3_128_hexdigest(body))


def digest_of_file(filename: str) -> Digest:
    """Return the digest of a local file, read by parts."""
    import xxhash  # noqa: PLC0415 - as above

    state = xxhash.xxh3_128()
    with open(filename, "rb", buffering=0) as file:
        while part := file.read(HASHED_BYTES):
            state.update(part)
    return Digest(XXH3, state.hexdigest())


def difference(copy: Copy, hint: str) -> GranumError | FileExistsError:
    """Return the error that says that something else has the name of *copy*."""
    there = copy.there
    assert there is not None
    kind = "as a directory" if there.is_directory else "with other bytes"
    if not there.is_directory and UNKNOWN_SIZE not in {there.size, copy.found.size} and there.size != copy.found.size:
        kind += f" ({there.size:,} and not {copy.found.size:,})"
    if isinstance(copy.target, str):
        return FileExistsError(errno.EEXIST, f"exists already, {kind}; {hint}", copy.target)
    names = ", ".join(node.name for node in there.nodes)
    return AlreadyStored(
        f"{copy.target} is stored already, {kind}{f', on {names}' if names else ''}; choose another name"
    )


def _make_directories(copy: Copy) -> None:
    """Make the local directories that *copy* goes into, or is."""
    if isinstance(copy.target, str):
        if copy.found.is_directory:
            os.makedirs(copy.target, exist_ok=True)
        elif copy.is_inside and (parent := os.path.dirname(copy.target)):
            os.makedirs(parent, exist_ok=True)


def _local_body(copy: Copy) -> bytes | None:
    if not isinstance(copy.source, str) or copy.found.is_directory:
        return None
    with open(copy.source, "rb") as file:
        return file.read()


def _advance(bar: Bar, copy: Copy) -> None:
    bar.add(copy.size, files=0 if copy.found.is_directory else 1)
