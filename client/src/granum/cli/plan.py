"""Plans: what goes where, decided before the first byte moves.

A plan is a list of copies, one for each file and each empty directory. Each knows what lies at its target, so that a copy
which was interrupted resumes when it is planned again. The rule: nothing is ever overwritten. What cannot be planned is
reported and left out, so that the rest can go on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from granum.cli.ends import End, Found, Spot
from granum.wire.errors import GranumError, NotStored, Partial
from granum.wire.listing import UNKNOWN_SIZE


class Verdict(Enum):
    """What a look at both ends tells of a copy, before any byte is read."""

    NEW = "new"
    SAME = "same"
    DIFFERS = "differs"
    ALIKE = "alike"  # as far as sizes tell


@dataclass(frozen=True, slots=True)
class Copy:
    """One file or empty directory to copy: *found* at *source*; *there* is at *target* now.

    *is_inside* says that it lies in a tree that is copied, so that directories are made for it.
    """

    source: Spot
    target: Spot
    found: Found
    there: Found | None = None
    is_inside: bool = False

    @property
    def size(self) -> int:
        """Bytes to copy as far as they are known."""
        return max(self.found.size, 0)


def verdict(found: Found, there: Found | None) -> Verdict:
    """Compare what was found at the source with what is at the target."""
    if there is None:
        return Verdict.NEW
    if found.is_directory or there.is_directory:
        return Verdict.SAME if found.is_directory and there.is_directory else Verdict.DIFFERS
    if UNKNOWN_SIZE not in {found.size, there.size} and found.size != there.size:
        return Verdict.DIFFERS
    return Verdict.ALIKE


def goes_below(source: End, target: End, tops: Sequence[Spot], into: Spot, *, slash: bool) -> bool:
    """Whether copies of *tops* go below *into* under their own names; else *into* is the name of the only copy.

    A directory is copied into the one that is there, not below it: a copy that is repeated finds what it copied before.
    """
    if slash or len(tops) > 1 or not target.name_of(into):
        return True
    try:
        at_target = target.look(into)
    except Partial:  # a node that does not answer keeps nobody from writing
        return False
    if at_target is None or not at_target.is_directory:
        return False
    at_source = source.look(tops[0])
    return at_source is not None and not at_source.is_directory


def planned(
    source: End,
    target: End,
    tops: Sequence[Spot],
    into: Spot,
    *,
    below: bool,
    failed: Callable[[Spot, Exception], object],
) -> Iterator[Copy]:
    """Yield the copies of *tops*, files and directories at *source*, as *into* or *below* it.

    *failed* is told of single files that cannot be planned. Raises what looking at one of *tops* does, and NotStored.
    """
    for top in tops:
        found = source.look(top)
        if found is None:
            raise NotStored(f"{top} is not there")
        try:
            name = source.name_of(top)  # '' for the root of a cluster
            at = target.below(into, (name,)) if below and name else into
            if not found.is_directory:
                yield Copy(top, at, found, _look(target, at), is_inside=below)
                continue
        except (GranumError, OSError) as error:
            failed(top, error)
            continue
        for names, each in source.tree(top):
            spot = source.below(top, names)
            try:
                there = target.below(at, names)
                yield Copy(spot, there, each, target.look_beside(there), is_inside=True)
            except (GranumError, OSError) as error:
                failed(spot, error)


def _look(target: End, spot: Spot) -> Found | None:
    try:
        return target.look(spot)
    except Partial:  # as above; the put finds out
        return None
