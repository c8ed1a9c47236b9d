"""The union view: one directory of the cluster, merged from the listings of all its nodes.

Directories merge: flags are joined, sizes (numbers of entries) are added up. A file is on one node, or on several as equal
copies. Anything else under one name is a collision: the entry of the lowest node key is shown, which is what every other
reader does too, and the collision is reported. Listings tell sizes alone; whoever has asked for digests tells `narrowed`. A
view is complete, or names the nodes missing.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from granum.roster import Node
from granum.wire.listing import UNKNOWN_SIZE, Entry, Flags, Listing


@dataclass(frozen=True, slots=True)
class Collision:
    """One name that means different things on different nodes; *entries* by node key, the first is the one shown.

    With *same_size* the files are told apart by their digests alone.
    """

    name: str
    entries: tuple[tuple[Node, Entry], ...]
    same_size: bool = False

    def __str__(self) -> str:
        found = ", ".join(f"{_kind(entry)} on {node.name}" for node, entry in self.entries)
        return f"{self.name!r}: {found}{', of different bytes' if self.same_size else ''}"


class UnionView(Mapping[str, Entry]):
    """A directory of the cluster: name -> entry, iterated in the order of names. Made by `merge`.

    *stored* tells whether any node has the directory at all; *missing*, by node name, why a node could not be asked.
    """

    def __init__(
        self,
        found: Mapping[str, tuple[Entry, tuple[Node, ...]]],
        collisions: Iterable[Collision],
        missing: Mapping[str, BaseException],
        *,
        stored: bool,
    ) -> None:
        self._found = dict(sorted(found.items()))
        self.collisions = tuple(collisions)
        self.missing = dict(missing)
        self.stored = stored

    @property
    def partial(self) -> bool:
        """Whether a known node did not answer, so that names may be lacking."""
        return bool(self.missing)

    def holders(self, name: str) -> tuple[Node, ...]:
        """Return the nodes that hold *name* as it is shown, by key; KeyError when no node does."""
        return self._found[name][1]

    @property
    def copies(self) -> tuple[str, ...]:
        """The names of the files that several nodes hold, as far as their sizes tell."""
        return tuple(name for name, (entry, nodes) in self._found.items() if len(nodes) > 1 and not entry.is_directory)

    def narrowed(self, holders: Mapping[str, tuple[Node, ...]]) -> "UnionView":
        """Return this view with other *holders* of some files: those whose bytes are those of the lowest key's."""
        found = {**self._found, **{name: (self[name], nodes) for name, nodes in holders.items()}}
        more = [
            Collision(name, tuple((node, self[name]) for node in self.holders(name)), same_size=True)
            for name, nodes in holders.items()
            if nodes != self.holders(name)
        ]
        return UnionView(found, (*self.collisions, *more), self.missing, stored=self.stored)

    def __getitem__(self, name: str) -> Entry:
        return self._found[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        partial = f", partial: {', '.join(sorted(self.missing))} missing" if self.missing else ""
        return f"<UnionView of {len(self._found)} entries{partial}>"


def merge(listings: Mapping[Node, Listing | None], missing: Mapping[Node, BaseException]) -> UnionView:
    """Return the union of *listings*; None stands for a node that answered and does not have the directory."""
    rows: dict[str, list[tuple[Node, Entry]]] = {}
    for node in sorted(listings, key=lambda node: node.key):
        for name, entry in (listings[node] or {}).items():
            rows.setdefault(name, []).append((node, entry))
    found: dict[str, tuple[Entry, tuple[Node, ...]]] = {}
    collisions: list[Collision] = []
    for name, row in rows.items():
        if len(row) == 1:
            node, entry = row[0]
            found[name] = (entry, (node,))
            continue
        shown = _alike(row)
        found[name] = (_join([entry for _, entry in shown]), tuple(node for node, _ in shown))
        if len(shown) < len(row):
            collisions.append(Collision(name, tuple(row)))
    stored = any(listing is not None for listing in listings.values())
    names = {node.name: cause for node, cause in missing.items()}
    return UnionView(found, sorted(collisions, key=lambda collision: collision.name), names, stored=stored)


def _alike(row: list[tuple[Node, Entry]]) -> list[tuple[Node, Entry]]:
    """Return those of *row* that hold the same thing as its first node does: directories, or files of one size."""
    is_directory = row[0][1].is_directory
    same_kind = [(node, entry) for node, entry in row if entry.is_directory == is_directory]
    if is_directory:
        return same_kind
    size = next((entry.size for _, entry in same_kind if entry.size != UNKNOWN_SIZE), UNKNOWN_SIZE)
    return [(node, entry) for node, entry in same_kind if entry.size in {size, UNKNOWN_SIZE}]


def _join(entries: list[Entry]) -> Entry:
    flags = Flags.FILE
    for entry in entries:
        flags |= entry.flags
    sizes = [entry.size for entry in entries if entry.size != UNKNOWN_SIZE]
    if flags & Flags.DIRECTORY:
        return Entry(entries[0].name, flags, sum(sizes))
    return Entry(entries[0].name, flags, max(sizes, default=UNKNOWN_SIZE))


def _kind(entry: Entry) -> str:
    return "a directory" if entry.is_directory else f"{entry.size} bytes"
