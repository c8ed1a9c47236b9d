"""The directory of the cluster: listings merged into views, and where a path is stored.

Listings are cached for LISTING_EXPIRY_S, so that a program which looks at a thousand names does not ask a thousand times; an
answer is never older than that, and a write of this client drops what it changes at once. All nodes are asked at the same
time. 'Not stored' is said only when every known node has answered, else the silent ones are named.

PYME's nodes answer listings from caches of their own, up to 30 s old, so what they hold is always asked by HEAD.
"""

from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from granum.roster import Node, Roster
from granum.transfer import Transfer
from granum.union import Collision, UnionView, merge
from granum.wire.errors import GranumError, NoNode, NotADirectory, NotStored, Partial
from granum.wire.listing import UNKNOWN_SIZE, Entry, Flags, Listing
from granum.wire.paths import ClusterPath

LISTING_EXPIRY_S = 1.0  # half of the time in which another client's write must show
LISTING_NAMES_MAX = 200_000  # in all cached listings: some 60 MB
REPORTED_MAX = 1000  # collisions remembered as reported; beyond, they are reported anew

log = Logger()


class Directory:
    """Views and locations over the nodes of *roster*. *seconds* is a monotonic clock."""

    def __init__(self, transfer: Transfer, roster: Roster, seconds: Callable[[], float]) -> None:
        self._transfer = transfer
        self._roster = roster
        self._cache = ListingCache(seconds)
        self._reported: set[tuple[ClusterPath, Collision]] = set()

    async def view(self, path: ClusterPath) -> UnionView:
        """Return the union of all listings of *path*.

        Raises NotStored when no node has the directory, NotADirectory when it is a file, Partial when no node has it but
        not all answered, NoNode when none is known.
        """

        async def listing(node: Node) -> Listing | None:
            return await self._listing(node, path)

        view = await self._ask(listing)
        if view.stored:
            return self._report(path, view)
        found = await self.find(path) if path.parts else view
        if found.stored and not found[path.name].is_directory:
            raise NotADirectory(f"{path} is a file, not a directory")
        raise absent(path, view)

    async def find(self, path: ClusterPath, *, fresh: bool = False) -> UnionView:
        """Return a view of the one name *path*, empty when no node that answered has it.

        The size of a directory is not looked for. *fresh* asks the nodes even where a cached listing knows. The root is
        stored on every node. Missing nodes do not raise; look at the view's `partial`.
        """

        async def entry(node: Node) -> Listing | None:
            cached = None if fresh or not node.node_id else self._cache.get(path.parent, node)
            found = cached.get(path.name) if cached is not None else await self._transfer.head(node, path)
            return None if found is None else {path.name: found}

        if not path.parts:
            root = Entry("", Flags.DIRECTORY, UNKNOWN_SIZE)
            return merge({node: {"": root} for node in self._roster.nodes()}, self._roster.missing())
        return self._report(path.parent, await self._ask(entry))

    async def locate(self, path: ClusterPath) -> tuple[Node, ...]:
        """Return the nodes that hold *path* as every reader sees it, by key.

        Raises NotStored when every known node has answered, else Partial, which names those that did not.
        """
        view = await self.find(path)
        if view.stored:
            return view.holders(path.name)
        raise absent(path, view)

    def forget(self, path: ClusterPath) -> None:
        """Drop every cached listing that a write to *path* changes: its own and those of the directories above it."""
        for depth in range(len(path.parts) + 1):
            self._cache.drop(ClusterPath(path.parts[:depth]))

    async def _listing(self, node: Node, path: ClusterPath) -> Listing | None:
        cached = self._cache.get(path, node)
        if cached is not None:
            return cached
        question = self._cache.asking(path)
        try:
            listing = await self._transfer.listing(node, path)
        finally:
            self._cache.answered(question)
        if listing is not None:
            self._cache.put(question, node, listing)
        return listing

    async def _ask(self, question: Callable[[Node], Coroutine[Any, Any, Listing | None]]) -> UnionView:
        """Put *question* to all nodes at once; those that fail join the missing."""
        nodes, missing = self._roster.nodes(), dict(self._roster.missing())
        if not nodes and not missing:
            raise NoNode
        answers: list[tuple[bool, Any]] = await DeferredList(  # Any: a listing, or a failure
            [Deferred.fromCoroutine(question(node)) for node in nodes], consumeErrors=True
        )
        listings: dict[Node, Listing | None] = {}
        for node, (is_answer, answer) in zip(nodes, answers, strict=True):
            if is_answer:
                listings[node] = answer
            elif answer.check(GranumError):
                missing[node] = answer.value
            else:  # cancelled, which the list of Deferreds takes for an answer, or a defect of ours
                raise CancelledError if answer.check(CancelledError) else answer.value
        return merge(listings, missing)

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


def absent(path: ClusterPath, view: UnionView) -> GranumError:
    """Return the error that says *path* was not found: NotStored only when nobody is missing from *view*."""
    if view.partial:
        return Partial(f"{path} was not found, but not every node answered", view.missing)
    return NotStored(f"{path} is not stored in the cluster")


@dataclass(slots=True, eq=False)
class Question:
    """A listing that was asked for at *asked*; *stale* once this client has written to *path*, because it may lack that write."""

    path: ClusterPath
    asked: float
    stale: bool = False


class ListingCache:
    """Listings by directory and node, each for LISTING_EXPIRY_S, at most LISTING_NAMES_MAX names; the oldest go first."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._listings: OrderedDict[tuple[ClusterPath, str], tuple[float, Listing]] = OrderedDict()
        self._keys: dict[ClusterPath, set[str]] = {}
        self._names = 0
        self._questions: set[Question] = set()

    def get(self, path: ClusterPath, node: Node) -> Listing | None:
        """Return the listing of *path* on *node*, None when it is not known or too old."""
        asked, listing = self._listings.get((path, node.key), (float("-inf"), None))
        return listing if self._seconds() - asked < LISTING_EXPIRY_S else None

    def asking(self, path: ClusterPath) -> Question:
        """Note that a listing of *path* is being asked for; `answered` must follow."""
        question = Question(path, self._seconds())
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
        self._listings[question.path, node.key] = (question.asked, listing)
        self._keys.setdefault(question.path, set()).add(node.key)
        self._names += len(listing) + 1
        while self._names > LISTING_NAMES_MAX:
            self._remove(*next(iter(self._listings)))

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
