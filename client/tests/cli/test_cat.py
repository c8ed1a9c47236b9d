"""Files on standard output, whole, in span, one after the other."""

import os
import subprocess
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from client.tests.cli.conftest import Granum, placed
from granum.cli import app, parts
from granum.cli.cat import Range, to_range
from granum.cli.parts import PART_BYTES, Part, cut
from granum.roster import Node
from granum.wire.paths import ClusterPath
from integration.lab import ProcessLab

PATH = ClusterPath.of(["f"])
NODE = Node("key", "disk1:1", "10.0.0.1", 1, "lab", "id")
PYME = Node("pyme", "disk2:1", "10.0.0.2", 1, "lab")
BODY = os.urandom(300_007)


@pytest.fixture(scope="module")
def stored(lab: ProcessLab) -> Iterator[None]:
    """Three files, put into a store."""
    tree = {"digits": b"0123456789", "large": BODY, "empty": b""}
    with placed(lab, {f"node1/cat/{name}": body for name, body in tree.items()}):
        yield


def bytes_of(granum: Granum, *arguments: str) -> bytes:
    """Return what a process writes: bytes need not be text."""
    return subprocess.run(granum.line("cat", *arguments), check=True, capture_output=True, env=granum.settings()).stdout


@pytest.mark.usefixtures("stored")
def test_several_files_in_the_order_given(granum: Granum) -> None:
    assert (
        bytes_of(granum, "/cat/large", "/cat/empty", "granum://test/cat/digits", "/cat/large")
        == BODY + b"0123456789" + BODY
    )


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("span", "text"),
    [("0-0", "0"), ("2-4", "234"), ("7-", "789"), ("-3", "789"), ("5-99", "56789"), ("10-", ""), ("-99", "0123456789")],
)
def test_ranges_are_those_of_http(granum: Granum, span: str, text: str) -> None:
    assert granum.ok("cat", "--range", span, "/cat/digits") == text


@pytest.mark.usefixtures("stored")
def test_large_files_are_read_by_parts(granum: Granum, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits follow the parts of the first file, not overtake them."""
    monkeypatch.setattr(parts, "PART_BYTES", 10_000)
    done = CliRunner().invoke(app, [*granum.arguments, "cat", "/cat/large", "/cat/digits"])
    assert done.stdout_bytes == BODY + b"0123456789"


@pytest.mark.usefixtures("stored")
def test_a_directory_is_an_error_that_says_so(granum: Granum) -> None:
    done = granum.run("cat", "/cat")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is a directory" in done.stderr


@pytest.mark.usefixtures("stored")
def test_one_of_several_that_is_absent_is_reported(granum: Granum) -> None:
    done = granum.run("cat", "/cat/absent", "/cat/digits")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "0123456789", 1)


@pytest.mark.parametrize("value", ["", "-", "a-b", "5", "4-2", "1-2-3", "0x1-"])
def test_what_is_no_range_is_refused(value: str) -> None:
    with pytest.raises(click.BadParameter):
        to_range(None, None, value)


@given(st.integers(0, 60), st.integers(-20, 80), st.none() | st.integers(0, 80))
def test_parts_make_the_part(size: int, first: int, last: int | None) -> None:
    """In order, none longer than a part, none left out or twice, whatever is asked for of whatever size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_BYTES", 7)
        body = bytes(range(size))
        span: Range = (max(size + first, 0), None) if first < 0 else (first, last and max(last, first))
        found = list(cut(PATH, size, [NODE], *span))
        assert all(part.length is None or 0 < part.length <= 7 for part in found)
        joined = b"".join(body[part.start :][: part.length] for part in found)
        assert joined == body[span[0] : span[1]]
        assert [part.is_last for part in found[:-1]] == [False] * (len(found) - 1) if found else True


def test_small_files_and_those_of_pyme_travel_whole() -> None:
    """PYME's nodes would send all of it for each part."""
    assert list(cut(PATH, PART_BYTES, [NODE])) == [Part(PATH, (NODE,), weight=PART_BYTES)]
    assert list(cut(PATH, 1 << 30, [PYME])) == [Part(PATH, (PYME,), weight=1 << 30)]
    assert list(cut(PATH, 1 << 30, [PYME], 5, 9)) == [Part(PATH, (PYME,), 5, 4, weight=1 << 30)]
    assert list(cut(PATH, -1, [NODE])) == [Part(PATH, (NODE,))]
