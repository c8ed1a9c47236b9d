"""Tallies: what became of every copy of a command, counted, and told as rows of JSON or lines when they are wanted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from granum.cli.ends import Spot
from granum.cli.output import JsonArray, count_text, say, size_text
from granum.cli.plan import Copy
from granum.cli.session import Account, error_text
from granum.wire.errors import GranumError
from granum.wire.paths import ClusterPath

WORD_CELLS = 7  # 'differs'

Row = dict[str, Any]  # what JSON holds


class Tally:
    """Counts copies. *array* takes a row for each; *verbose* prints a line for each, *names_differences* for what differs.

    In a *check* whatever is not equal is a failure.
    """

    def __init__(
        self,
        account: Account,
        array: JsonArray | None,
        *,
        verbose: bool = False,
        names_differences: bool = False,
        check: bool = False,
    ) -> None:
        self.copied = self.same = self.new = self.size = 0
        self.differences = 0
        self._account = account
        self._array = array
        self._verbose = verbose
        self._names_differences = names_differences
        self._is_check = check
        self._only = ""

    def add_copied(self, copy: Copy, size: int, **more: Any) -> None:
        """Count a copy that was made, of *size* bytes; JSON tells *more* about it."""
        if not copy.found.is_directory:
            self.copied += 1
            self.size += size
            self._only = str(copy.target if isinstance(copy.target, ClusterPath) else copy.source)
        self._tell(copy, "copied", self._verbose, {"size": size, **more})

    def add_same(self, copy: Copy) -> None:
        """Count what was there already."""
        if not copy.found.is_directory:
            self.same += 1
        self._tell(copy, "same", self._verbose, {"size": copy.size})

    def add_new(self, copy: Copy) -> None:
        """Count what would be copied, were this not only a look."""
        if not copy.found.is_directory:
            self.new += 1
            self.size += copy.size
        self.differences += 1
        if self._is_check:
            self._account.differed()
        self._tell(copy, "new", self._verbose or self._names_differences, {"size": copy.size})

    def add_difference(self, copy: Copy, error: Exception) -> None:
        """Count different bytes under one name: they stay as they are."""
        self.differences += 1
        if self._names_differences:
            self._account.differed()
        else:
            self._account.failed(str(copy.target), error)
        text = error_text(error)
        self._tell(copy, "differs", self._names_differences, {"size": copy.size, "error": text})

    def add_extra(self, spot: Spot) -> None:
        """Count what lies at the target alone."""
        self.differences += 1
        self._account.differed()
        if self._array is not None:
            self._array.add({_key(spot): str(spot), "outcome": "extra"})
        else:
            say(f"{'extra':<{WORD_CELLS}}  {spot}")

    def add_failed(self, spot: Spot, error: Exception) -> None:
        """Count a name of which no copy could be planned."""
        self._failed(spot, error, {_key(spot): str(spot)})

    @contextmanager
    def catching(self, copy: Copy) -> Iterator[None]:
        """Count *copy* as failed when the block raises an error that is no defect."""
        try:
            yield
        except (GranumError, OSError) as error:
            spots = (copy.target, copy.source)  # the cluster's errors are about the name there
            spot = next(
                (spot for spot in spots if isinstance(spot, str) != isinstance(error, GranumError)), copy.target
            )
            self._failed(spot, error, _spots(copy))

    def summary(self, verb: str) -> str:
        """Return the line that says what was done; '' for nothing."""
        if not self.copied and not self.same:
            return ""
        only = f": {self._only}" if self.copied == 1 else ""
        there = f"; {count_text(self.same, 'files')} there already" if self.same else ""
        return f"{verb} {count_text(self.copied, 'files')}, {size_text(self.size)}{only}{there}"

    def look_summary(self) -> str:
        """Return the line that says what a look found, in place of `summary`."""
        if not self.differences:
            return f"{count_text(self.same, 'files')}, no difference"
        return f"{count_text(self.same, 'files')} equal, {self.differences:,} different"

    def _failed(self, spot: Spot, error: Exception, row: Row) -> None:
        self._account.failed(str(spot), error)
        if self._array is not None:
            self._array.add({**row, "outcome": "failed", "error": error_text(error)})

    def _tell(self, copy: Copy, outcome: str, is_shown: bool, more: Row) -> None:  # noqa: FBT001
        if self._array is not None:
            kind = "directory" if copy.found.is_directory else "file"
            self._array.add({**_spots(copy), "kind": kind, "outcome": outcome, **more})
        elif is_shown:
            say(f"{outcome:<{WORD_CELLS}}  {copy.target}")


def _spots(copy: Copy) -> Row:
    """Return both ends by name; the source of a copy between clusters is 'from'."""
    target, source = _key(copy.target), _key(copy.source)
    return {"from" if source == target else source: str(copy.source), target: str(copy.target)}


def _key(spot: Spot) -> str:
    return "local" if isinstance(spot, str) else "path"
