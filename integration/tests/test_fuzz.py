"""The readers of foreign bytes withstand mutated input, and what fuzzes them would notice if they did not.

`make fuzz` runs the same checks under a fuzzer that looks at what an input reaches.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from granum.wire import huffman, listing
from granum.wire.paths import ClusterPath
from granum_node.http import parser
from integration.fuzz import run
from integration.fuzz.targets import PLANTED_TARGET, TARGETS, Wrong

SEED_BYTES_MAX = 2000  # a longer seed is a limit of a parser, which a mutation of a few bytes does not tell more about


def mutated(name: str) -> st.SearchStrategy[bytes]:
    """Return inputs for the target *name*: a seed, cut somewhere, with tokens and noise put in."""
    target = TARGETS[name]
    seeds = [seed for seed in target.seeds() if len(seed) <= SEED_BYTES_MAX]
    noise = st.one_of(st.sampled_from(target.tokens), st.binary(max_size=4))

    def mutate(seed: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
        for at, length, piece in cuts:
            seed = seed[: at % (len(seed) + 1)] + piece + seed[at % (len(seed) + 1) + length :]
        return seed

    cut = st.tuples(st.integers(0, SEED_BYTES_MAX), st.integers(0, 8), noise)
    return st.one_of(st.binary(max_size=200), st.builds(mutate, st.sampled_from(seeds), st.lists(cut, max_size=4)))


def check_seeds(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].check(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_is_withstood(name: str) -> None:
    check_seeds(name)


@given(st.one_of(*(st.tuples(st.just(name), mutated(name)) for name in TARGETS)))
@settings(max_examples=800)
def test_every_mutation_of_a_seed_is_read_as_it_should_be_or_refused(drawn: tuple[str, bytes]) -> None:
    name, data = drawn
    TARGETS[name].check(data)


# -- the checks can fail ---------------------------------------------------------------------------------------------


def greedy_feed(self: parser.ChunkedBody, data: bytes, start: int) -> Iterator[memoryview | int]:
    """Take whatever comes in one piece for the body."""
    yield memoryview(data)[start:]
    self.done = True
    yield len(data)


@pytest.mark.parametrize(
    ("name", "defect"),
    [
        ("head", mock.patch.object(parser, "_HEADER_LINE", re.compile(rb"([!-~]+):([^\n]*)"))),
        ("head", mock.patch.object(parser, "_DIGITS", re.compile(rb"[0-9x-]+"))),
        ("chunks", mock.patch.object(parser.ChunkedBody, "feed", greedy_feed)),
        ("listing", mock.patch.object(listing, "check_name", ClusterPath)),
        ("pzf", mock.patch.object(huffman, "decode", side_effect=IndexError)),
    ],
    ids=["control characters", "a length that is no number", "pieces", "names", "a stream that ends early"],
)
def test_a_defect_of_a_reader_is_seen(name: str, defect: "mock._patch[object]") -> None:
    with defect, pytest.raises((Wrong, ValueError, LookupError)):
        check_seeds(name)


def test_the_planted_defect_is_not_found_by_chance() -> None:
    """Every byte of it must be right."""
    for near in (b"PZ\x7f", b"PZ\x7f?", b"PZ\x00!", b"P"):
        PLANTED_TARGET.check(near)
    with pytest.raises(Wrong):
        PLANTED_TARGET.check(b"PZ\x7f!")


def test_the_coverage_guided_fuzzer_finds_the_planted_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So what it does not find in the readers means something; `make fuzz` begins with the same."""
    libraries = sorted(run.BUILD.glob("atheris-*/atheris"))
    if not libraries:
        pytest.skip("atheris is not here; make fuzz fetches it")
    monkeypatch.setattr(run, "BUILD", tmp_path)
    found = run.fuzz("planted", PLANTED_TARGET, run.PLANTED_S, libraries[-1].parent)
    assert "planted defect" in found.failure
    assert found.input is not None
    assert found.input.read_bytes()[:4] == b"PZ\x7f!"


def test_a_fuzzer_that_could_not_even_start_has_not_passed(tmp_path: Path) -> None:
    """Silence must not look like success."""
    seen = run.fuzz("head", TARGETS["head"], 1, tmp_path)  # no atheris there
    assert "atheris" in seen.failure
