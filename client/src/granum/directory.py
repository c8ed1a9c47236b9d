"""The directory of the cluster: listings merged into views, and where a path is stored.

Listings are cached for LISTING_EXPIRY_S, so that a program which looks at a thousand names does not ask a thousand times; an
answer is never older than that, and a write of this client drops what it changes at once. All nodes are asked at the same
time. 'Not stored' is said only when every known node has answered, else the silent ones are named.

Where several nodes list a file of one size, they are asked for its digest once, because only equal bytes are copies; of
others every reader takes the one on the lowest node key, and the collision is reported.

PYME's nodes answer listings from caches of their own, up to 30 s old, so what they hold is always asked by HEAD.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from granum.roster import Node, Roster
from granum.transfer import Transfer
from granum.union import Collision, UnionView, merge
from granum.wire.errors import GranumError, NoNode, NotADirectory, NotStored, Partial
from granum.wire.listing import UNKNOWN_SIZE, Entry, Flags, Listing
from granum.wire.paths import ClusterPath

LISTING_EXPIRY_S = 0.8  # another client's write must show within a second, asking the nodes included
LISTING_NAMES_MAX = 200_000  # in all cached listings: some 60 MB
REPORTED_MAX = 1000  # collisions remembered as reported; beyond, they are reported anew
COPIES_ASKED_MAX = 256  # files of one view whose digests are asked for: a fraction of a second; the next view goes on
DIGESTS_MAX = 50_000  # digests remembered, some 20 MB; they never change

MARKS = frozenset({"metadata.json", "events.json"})  # they change what the directory above says of a series

log = Logger()
T = TypeVar("T")


class Directory:
    """Views and locations over the nodes of *roster*. *seconds* is a monotonic clock."""

    def __init__(self, transfer: Transfer, roster: Roster, seconds: Callable[[], float]) -> None:
        self._transfer = transfer
        self._roster = roster
        self._cache = ListingCache(seconds)
        self._reported: set[tuple[ClusterPath, Collision]] = set()
        self._digests: OrderedDict[tuple[ClusterPath, str], str] = OrderedDict()  # path and node key -> '' without one

    async def view(self, path: ClusterPath) -> UnionView:
        """Return the union of all listings of *path*.

        Raises NotStored when no node has the directory, NotADirectory when it is a file, Partial when no node has it but
        not all answered, NoNode when none is known.
        """

        async def listing(node: Node) -> Listing | None:
            return await self._listing(node, path)

        view = await self._ask(listing)
        if view.stored:
            return await self._told_apart(path, view)
        found = await self.find(path) if path.parts else view
        if found.stored and not found[path.name].is_directory:
            raise NotADirectory(f"{path} is a file, not a directory")
        raise absent(path, view)

    async def find(self, path: ClusterPath, *, fresh: bool = False) -> UnionView:
        """Return a view of the one name *path*, empty when no node that answered has it.

        The size of a directory is not looked for. *fresh* asks the nodes even where a cached listing knows the name; that it
        is nowhere is never said from listings alone. The root is stored on every node. Missing nodes do not raise; look at the
        view's `partial`.
        """
        is_cached = False

        async def entry(node: Node) -> Listing | None:
            nonlocal is_cached
            cached = None if fresh or not node.node_id else self._cache.get(path.parent, node)
            is_cached |= cached is not None
            found = cached.get(path.name) if cached is not None else await self._transfer.head(node, path)
            return None if found is None else {path.name: found}

        if not path.parts:
            root = Entry("", Flags.DIRECTORY, UNKNOWN_SIZE)
            return merge({node: {"": root} for node in self._roster.nodes()}, self._roster.missing())
        view = await self._told_apart(path.parent, await self._ask(entry))
        if is_cached and not view.stored:  # another client may have stored it since
            return await self.find(path, fresh=True)
        return view

    async def locate(self, path: ClusterPath) -> tuple[Node, ...]:
        """Return the nodes that hold *path* as every reader sees it, by key.

        Raises NotStored when every known node has answered, else Partial, which names those that did not.
        """
        view = await self.find(path)
        if view.stored:
            return view.holders(path.name)
        raise absent(path, view)

    async def alike(self, path: ClusterPath, holders: Sequence[Node]) -> tuple[Node, ...]:
        """Return those of *holders*, by key, whose file *path* has the bytes that it has on the first of them.

        One that names no digest, or does not answer, is believed to have a copy.
        """
        nodes = sorted(holders, key=lambda node: node.key)
        digests = await _all_of([self._digest(path, node) for node in nodes])
        first = next(filter(None, digests), "")
        return tuple(node for node, digest in zip(nodes, digests, strict=True) if digest in {first, ""})

    @property
    def collisions(self) -> tuple[tuple[ClusterPath, Collision], ...]:
        """The collisions that were found and reported, each with its directory; at most REPORTED_MAX."""
        return tuple(self._reported)

    def stored(self, path: ClusterPath, size: int, node: Node) -> None:
        """Note that *node* has receipted *size* bytes as *path*, so that views show it at once.

        Cheap enough for every frame of a stream: listings are kept, the name is added to them.
        """
        shows_above = self._cache.add(path, Entry(path.name, Flags.FILE, size), node)
        if len(path.parts) > 1 and (path.name in MARKS or not shows_above):
            self.forget(path.parent.parent)

    def forget(self, path: ClusterPath) -> None:
        """Drop every cached listing that a write to *path* changes: its own and those of the directories above it."""
        for depth in range(len(path.parts) + 1):
            self._cache.drop(ClusterPath(path.parts[:depth]))

    async def _listing(self, node: Node, path: ClusterPath) -> Listing | None:
        cached = self._cache.get(path, node)
        if cached is not None:
            return cached
        question = self._cache.asking(path, node)
        try:
            listing = await self._transfer.listing(node, path)
        finally:
            self._cache.answered(question)
        if question.added:
            listing = {**(listing or {}), **question.added}
        if listing is not None:
            self._cache.put(question, node, listing)
        return listing

    async def _ask(self, question: Callable[[Node], Coroutine[Any, Any, Listing | None]]) -> UnionView:
        """Put *question* to all nodes at once; those that fail join the missing."""
        nodes, missing = self._roster.nodes(), dict(self._roster.missing())
        if not nodes and not missing:
            raise NoNode
        answers = await _all_of([_or_error(question(node)) for node in nodes])
        listings: dict[Node, Listing | None] = {}
        for node, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, GranumError):
                missing[node] = answer
            else:
                listings[node] = answer
        return merge(listings, missing)

    async def _digest(self, path: ClusterPath, node: Node) -> str:
        known = self._digests.get((path, node.key))
        if known is not None:
            return known
        answer = await _or_error(self._transfer.digest(node, path))
        if isinstance(answer, GranumError):
            return ""
        self._digests[path, node.key] = digest = "" if answer is None else str(answer)
        while len(self._digests) > DIGESTS_MAX:
            self._digests.popitem(last=False)
        return digest

    async def _told_apart(self, directory: ClusterPath, view: UnionView) -> UnionView:
        """Return *view* with holders that have the same bytes; report its collisions."""

        def is_known(name: str) -> bool:
            return all((directory / name, node.key) in self._digests for node in view.holders(name))

        names = view.copies
        unknown = set([name for name in names if not is_known(name)][COPIES_ASKED_MAX:]) if names else set()
        asked = [name for name in names if name not in unknown]
        if asked:
            found = await _all_of([self.alike(directory / name, view.holders(name)) for name in asked])
            view = view.narrowed(dict(zip(asked, found, strict=True)))
        return self._report(directory, view)

    def _report(self, directory: ClusterPath, view: UnionView) -> UnionView:
        for collision in view.collisions:
            if (directory, collision) not in self._reported:
                if len(self._reported) == REPORTED_MAX:
                    self._reported.clear()
                self._reported.add((directory, collision))
                log.warn(  # noqa: G010 - Twisted has no other name for it
                    "collision in {directory}: {collision}; the first is read", directory=directory, collision=collision
                )
        return view


async def _or_error(question: Awaitable[T]) -> T | GranumError:
    """Await *question*; return its error when it is one of ours."""
    try:
        return await question
    except GranumError as error:
        return error


async def _all_of(questions: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all of *questions* at once; raise the first error, or that this was cancelled."""
    answers: list[tuple[bool, Any]] = await DeferredList(  # Any: a T, or a failure
        [Deferred.fromCoroutine(question) for question in questions], consumeErrors=True
    )
    for is_answer, answer in answers:
        if not is_answer:  # cancelled, which the list of Deferreds takes for an answer, or a defect of ours
            raise CancelledError if answer.check(CancelledError) else answer.value
    return [answer for _, answer in answers]


def absent(path: ClusterPath, view: UnionView) -> GranumError:
    """Return the error that says *path* was not found: NotStored only when nobody is missing from *view*."""
    if view.partial:
        return Partial(f"{path} was not found, but not every node answered", view.missing)
    return NotStored(f"{path} is not stored in the cluster")


@dataclass(slots=True, eq=False)
class Question:
    """A listing that *node* was asked for at *asked*; *stale* once this client has written to *path*, for it may lack that.

    *added* are files that were receipted meanwhile, which belong to it.
    """

    path: ClusterPath
    node: Node
    asked: float
    stale: bool = False
    added: dict[str, Entry] = field(default_factory=dict)


class ListingCache:
    """Listings by directory and node, each for LISTING_EXPIRY_S, at most LISTING_NAMES_MAX names; the oldest go first."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._listings: OrderedDict[tuple[ClusterPath, str], tuple[float, dict[str, Entry]]] = OrderedDict()
        self._keys: dict[ClusterPath, set[str]] = {}
        self._names = 0
        self._questions: set[Question] = set()

    def get(self, path: ClusterPath, node: Node) -> Listing | None:
        """Return the listing of *path* on *node*, None when it is not known or too old."""
        asked, listing = self._listings.get((path, node.key), (float("-inf"), dict[str, Entry]()))
        return listing if self._seconds() - asked < LISTING_EXPIRY_S else None

    def asking(self, path: ClusterPath, node: Node) -> Question:
        """Note that *node* is being asked for its listing of *path*; `answered` must follow."""
        question = Question(path, node, self._seconds())
        self._questions.add(question)
        return question

    def answered(self, question: Question) -> None:
        """Note that *question* is no longer on its way."""
        self._questions.discard(question)

    def put(self, question: Question, node: Node, listing: Listing) -> None:
        """Keep *listing*, *node*'s answer to *question*, unless this client has written there since it asked."""
        if question.stale:
            return
        self._remove(question.path, node.key)
        self._listings[question.path, node.key] = (question.asked, dict(listing))
        self._keys.setdefault(question.path, set()).add(node.key)
        self._names += len(listing) + 1
        while self._names > LISTING_NAMES_MAX:
            self._remove(*next(iter(self._listings)))

    def add(self, path: ClusterPath, entry: Entry, node: Node) -> bool:
        """Add the file *path* to what is known of *node*; False when a directory above it may not show there yet."""
        for question in self._questions:
            if question.path == path.parent and question.node.key == node.key:
                question.added[path.name] = entry
        listing = self.get(path.parent, node)
        if listing is None:  # one that has expired must not grow as long as the stream goes on
            self._remove(path.parent, node.key)
        else:
            self._names += path.name not in listing
            self._listings[path.parent, node.key][1][path.name] = entry
        for depth in range(len(path.parts) - 1):
            above = ClusterPath(path.parts[:depth])
            listing = self.get(above, node)
            if listing is not None and path.parts[depth] not in listing:
                return False
            if any(question.path == above for question in self._questions):
                return False
        return True

    def drop(self, path: ClusterPath) -> None:
        """Forget every node's listing of *path*, also those on their way."""
        for question in self._questions:
            if question.path == path:
                question.stale = True
        for key in tuple(self._keys.get(path, ())):
            self._remove(path, key)

    def _remove(self, path: ClusterPath, key: str) -> None:
        _, listing = self._listings.pop((path, key), (0.0, None))
        if listing is not None:
            self._names -= len(listing) + 1
            self._keys[path].discard(key)
            if not self._keys[path]:
                del self._keys[path]
