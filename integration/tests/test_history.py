"""The history checker finds each kind of broken promise when one is planted, and nothing in histories that are right."""

import hashlib
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.history import Final, History, Listed, Outcome, Put, Read, Streamed, anomalies

OK, REFUSED, FAIL, INFO = Outcome.OK, Outcome.REFUSED, Outcome.FAIL, Outcome.INFO
STORED = Put("/a/f", "one", 3, 1.0, 2.0, OK, "n1")


def rules(history: History) -> list[str]:
    return [sentence.split()[0] for sentence in anomalies(history)]


@pytest.mark.parametrize(
    ("history", "broken"),
    [
        (History([STORED, replace(STORED, digest="two", node="n2")]), ["W1"]),
        (History([STORED], [Read("/a/f", "two", 3, 4)]), ["W1", "W2"]),
        (History([replace(STORED, outcome=INFO)], [Read("/a/f", "one", 0, 1)]), ["W2"]),
        (History([replace(STORED, outcome=FAIL)], [Read("/a/f", "one", 3, 4)]), ["W2"]),
        (History([], [Read("/a/f", "torn", 3, 4)]), ["W2"]),
        (History([STORED], [Read("/a/f", None, 2.5, 3)]), ["W3"]),
        (History([replace(STORED, outcome=INFO)], [Read("/a/f", "one", 3, 4), Read("/a/f", None, 5, 6)]), ["W4"]),
        (
            History(
                [STORED, replace(STORED, digest="two", outcome=INFO)],
                [Read("/a/f", "two", 3, 4), Read("/a/f", "one", 5, 6)],
            ),
            ["W1", "W4"],
        ),
        (History([replace(STORED, outcome=REFUSED)]), ["W5"]),
        (History([replace(STORED, outcome=REFUSED, completed=2.0), replace(STORED, invoked=2.5, completed=3)]), ["W5"]),
        (History([STORED], [], [Listed("/a/", {}, 4.5, 5)]), ["W6"]),
        (History([STORED], [], [Listed("/a/", {"f": 2}, 4.5, 5)]), ["W6"]),
        (History([STORED], [], [Listed("/a/", {"f": 3, "g": 1}, 4.5, 5, complete=False)]), ["W6"]),
        (
            History(
                [replace(STORED, outcome=INFO)],
                [Read("/a/f", None, 8, 9, "b"), Read("/a/f", "one", 8, 9, "a")],
                final=Final(since=7, copies={}),
            ),
            ["W7"],
        ),
        (History([STORED], final=Final(since=7)), ["W8"]),
        (History([STORED], final=Final(since=7, copies={"/a/f": {"n1": "one", "n2": "one"}})), ["W8"]),
        (History([STORED], final=Final(since=7, copies={"/a/f": {"n1": "one", "n2": "two"}}, copies_max=2)), ["W8"]),
        (History(streams=[Streamed(["/f", "/g"], ["/f"], [])]), ["F"]),
        (History(streams=[Streamed(["/f"], ["/f"], ["/f"])]), ["F"]),
        (History(streams=[Streamed([], ["/f"], [])]), ["F"]),
    ],
)
def test_each_broken_promise_is_found_and_named(history: History, broken: list[str]) -> None:
    assert rules(history) == broken


@pytest.mark.parametrize(
    "history",
    [
        History([STORED], [Read("/a/f", None, 1.9, 2.5)]),  # begun before the receipt
        History([STORED, replace(STORED, digest="two", outcome=REFUSED)], [Read("/a/f", "one", 3, 4)]),
        History([STORED, replace(STORED, digest="two", outcome=FAIL)]),
        History([STORED], [], [Listed("/a/", {}, 3.9, 4)]),  # within the two seconds
        History([STORED], [], [Listed("/a/", {}, 9, 9.5, complete=False)]),  # says itself that it may lack something
        History(
            [STORED], final=Final(since=7, copies={"/a/f": {"n1": "one", "n2": "one"}}), doubled=frozenset({"/a/f"})
        ),
        History([STORED, replace(STORED, digest="two", node="n2")], collisions=frozenset({"/a/f"})),
        History(streams=[Streamed(["/f", "/g"], ["/f"], ["/g"])]),
    ],
)
def test_what_the_promises_allow_is_no_anomaly(history: History) -> None:
    assert anomalies(history) == []


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 60))
def test_the_history_of_a_right_store_has_no_anomaly(seed: int, paths: int, operations: int) -> None:
    """Operations take effect at one instant inside their time, or never or later when their outcome is not known."""
    seeded = random.Random(seed)
    stored: dict[str, tuple[str, float]] = {}
    history = History(puts := [], reads := [], listings := [])
    effects = sorted(seeded.uniform(0, 60) for _ in range(operations))
    for at in effects:
        began, ended = at - seeded.uniform(0, 3), at + seeded.uniform(0.001, 3)
        path = f"/d/{seeded.randrange(paths)}"
        kind = seeded.random()
        if kind < 0.5:
            digest = hashlib.sha256(seeded.randbytes(2)).hexdigest()
            taken = path in stored
            if not taken:
                stored[path] = (digest, at)
            known = Outcome.REFUSED if taken else Outcome.OK
            puts.append(Put(path, digest, len(digest), began, ended, known if seeded.random() < 0.8 else Outcome.INFO))
        elif kind < 0.8:
            reads.append(Read(path, stored[path][0] if path in stored else None, began, ended))
        else:
            listings.append(Listed("/d/", {each.split("/")[2]: 64 for each in stored}, began, ended))
    assert anomalies(history) == []


@given(st.integers(0, 2**32))
def test_a_content_that_nobody_put_is_always_found(seed: int) -> None:
    seeded = random.Random(seed)
    puts = [Put(f"/d/{n}", f"{n}", 1, n, n + 1, OK) for n in range(20)]
    reads = [Read(put.path, put.digest, put.completed, put.completed + 1) for put in puts]
    victim = seeded.randrange(20)
    reads[victim] = replace(reads[victim], digest="torn")
    assert any(sentence.startswith(f"W2 /d/{victim}:") for sentence in anomalies(History(puts, reads)))
