"""What is to be done with each file is decided by a look at both ends."""

import itertools
from collections.abc import Iterator, Mapping

import pytest

from granum.cli.ends import Found, Names, Spot
from granum.cli.plan import Verdict, goes_below, planned, verdict
from granum.wire.errors import BadPath, NotStored, Partial

FILE, OTHER, UNKNOWN, DIRECTORY = Found(3), Found(4), Found(-1), Found(0, is_directory=True)


class End:
    """An end that holds *files*, by name; what raises is raised."""

    def __init__(self, files: Mapping[str, Found | Exception]) -> None:
        self.files = files

    def look(self, spot: Spot) -> Found | None:
        found = self.files.get(str(spot))
        if isinstance(found, Exception):
            raise found
        return found

    look_beside = look

    def below(self, top: Spot, names: Names) -> str:
        if (top, names[-1]) == ("/t", "bad"):
            raise BadPath("bad")
        return "/".join((str(top).rstrip("/"), *names))

    def name_of(self, spot: Spot) -> str:
        return str(spot).rpartition("/")[2]

    def tree(self, top: Spot) -> Iterator[tuple[Names, Found]]:
        for name, found in self.files.items():
            if name.startswith(f"{top}/") and isinstance(found, Found):
                yield tuple(name.removeprefix(f"{top}/").split("/")), found


@pytest.mark.parametrize(
    ("found", "there", "expected"),
    [
        (FILE, None, Verdict.NEW),
        (DIRECTORY, None, Verdict.NEW),
        (FILE, FILE, Verdict.ALIKE),
        (FILE, OTHER, Verdict.DIFFERS),
        (FILE, UNKNOWN, Verdict.ALIKE),
        (UNKNOWN, OTHER, Verdict.ALIKE),
        (FILE, DIRECTORY, Verdict.DIFFERS),
        (DIRECTORY, FILE, Verdict.DIFFERS),
        (DIRECTORY, DIRECTORY, Verdict.SAME),
    ],
)
def test_verdicts(found: Found, there: Found | None, expected: Verdict) -> None:
    assert verdict(found, there) is expected


def test_nothing_that_is_there_is_new() -> None:
    """Whatever lies at the target: only where there is nothing is something written."""
    for found, there in itertools.product((FILE, OTHER, UNKNOWN, DIRECTORY), repeat=2):
        assert verdict(found, there) is not Verdict.NEW


@pytest.mark.parametrize(
    ("tops", "into", "slash", "below"),
    [
        (["/s/file"], "/t/new", False, False),
        (["/s/file"], "/t/new", True, True),
        (["/s/file"], "/t/dir", False, True),
        (["/s/file"], "/t/file", False, False),
        (["/s/dir"], "/t/dir", False, False),  # else a copy that is repeated would go elsewhere
        (["/s/dir"], "/t/dir", True, True),
        (["/s/dir", "/s/file"], "/t/new", False, True),
        (["/s/dir"], "/", False, True),
        (["/s/file"], "/t/silent", False, False),
    ],
)
def test_where_copies_go(tops: list[str], into: str, slash: bool, below: bool) -> None:
    source = End({"/s/file": FILE, "/s/dir": DIRECTORY})
    target = End({"/t/dir": DIRECTORY, "/t/file": FILE, "/t/silent": Partial("no answer", {})})
    assert goes_below(source, target, tops, into, slash=slash) is below


def test_a_tree_is_planned_file_by_file() -> None:
    source = End({"/s": DIRECTORY, "/s/a": FILE, "/s/d/b": OTHER, "/s/d/bad": FILE, "/s/empty": DIRECTORY})
    failed: list[Spot] = []
    target = End({"/t/a": FILE})
    copies = list(planned(source, target, ["/s"], "/t", below=False, failed=lambda spot, _: failed.append(spot)))
    assert [(copy.source, copy.target, copy.found, copy.there) for copy in copies] == [
        ("/s/a", "/t/a", FILE, FILE),
        ("/s/d/b", "/t/d/b", OTHER, None),
        ("/s/empty", "/t/empty", DIRECTORY, None),
    ]
    assert failed == ["/s/d/bad"]


def test_a_source_that_is_not_there_ends_the_command_before_anything_is_copied() -> None:
    with pytest.raises(NotStored, match="/s/absent"):
        list(planned(End({}), End({}), ["/s/absent"], "/t", below=False, failed=lambda *_: None))
