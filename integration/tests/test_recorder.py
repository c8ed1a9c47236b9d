"""The recorder says of each operation what its client could know, and histories that it keeps can be checked again."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from granum.wire.errors import (
    AlreadyStored,
    Closed,
    NodeError,
    NodeTimeout,
    NotReceipted,
    NotStored,
    OnSomeNodes,
    Partial,
)
from integration import history
from integration.history import Final, History, Listed, Outcome, Put, Read, Streamed, anomalies, kept
from integration.recorder import Recorded, RecordedSeries, Recorder, digest_of, outcome_of, swept

FRAME = np.zeros((2, 2), np.uint16)
PATHS = ["/r.pcs/frame00000.pzf", "/r.pcs/frame00001.pzf"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (AlreadyStored("x"), Outcome.REFUSED),
        (NodeTimeout("x"), Outcome.FAIL),
        (OnSomeNodes("x", {}), Outcome.FAIL),
        (NotReceipted("x", [], {}), Outcome.INFO),
        (NodeError("x"), Outcome.INFO),
        (KeyboardInterrupt(), Outcome.INFO),
    ],
)
def test_a_put_that_failed_is_unknown_unless_its_error_says_that_nothing_was_stored(
    error: BaseException, outcome: Outcome
) -> None:
    assert outcome_of(error) is outcome


class Cluster:
    """Answers every verb with the next of *answers*."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    def __getattr__(self, verb: str) -> Any:
        def answer(*_: Any, **__: Any) -> Any:
            result = self._answers.pop(0)
            if isinstance(result, BaseException):
                raise result
            return result

        return answer


def test_only_what_a_whole_view_said_to_be_absent_is_noted_as_absent() -> None:
    recorder = Recorder()
    client = Recorded(Cluster(NotStored("x"), Partial("x", {}), b"body"), recorder)  # type: ignore[arg-type]
    for error in (NotStored, Partial):
        with pytest.raises(error):
            client.get("/f")
    client.get("/f")
    assert [read.digest for read in recorder.reads] == [None, digest_of(b"body")]


def series(end: Any) -> tuple[RecordedSeries, Recorder]:
    """Return a series of two frames, which ends with *end*."""
    recorder = Recorder()
    writer = Cluster(None, None, end)
    recorded = RecordedSeries(writer, "/r.pcs", 7, recorder, "raw", lambda _: None)  # type: ignore[arg-type]
    for number in range(2):
        recorded.store_frame(number, FRAME)
    return recorded, recorder


def test_frames_that_are_reported_are_unknown_and_the_others_receipted() -> None:
    recorded, recorder = series(NotReceipted("1 of 2", [PATHS[1]], {}))
    with pytest.raises(NotReceipted):
        recorded.finalise()
    assert [(put.path, put.outcome) for put in recorder.puts] == [(PATHS[0], Outcome.OK), (PATHS[1], Outcome.INFO)]
    assert anomalies(recorder.history(Final())) == []


def test_a_summary_that_counts_less_than_was_accepted_is_an_anomaly() -> None:
    recorded, recorder = series(SimpleNamespace(puts=1, moved=()))
    recorded.finalise()
    (sentence,) = anomalies(recorder.history(Final()))
    assert sentence == f"F {PATHS[1]}: accepted by stream 0, and neither delivered nor reported"


def test_a_frame_that_was_not_taken_must_not_be_found() -> None:
    recorder = Recorder()
    recorded = RecordedSeries(Cluster(Closed("x")), "/r.pcs", 7, recorder, "raw", lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(Closed):
        recorded.store_frame(0, FRAME)
    assert (recorded.refused, [put.outcome for put in recorder.puts]) == (1, [Outcome.FAIL])


def test_the_sweep_finds_every_copy_and_nothing_of_the_nodes_own(tmp_path: Path) -> None:
    for store in ("one", "two"):
        (tmp_path / store / "a").mkdir(parents=True)
        (tmp_path / store / ".granum").mkdir()
        (tmp_path / store / ".granum" / "id").write_text("x")
    (tmp_path / "one" / "a" / "f").write_bytes(b"1")
    (tmp_path / "two" / "a" / "f").write_bytes(b"2")
    found = swept({store: tmp_path / store for store in ("one", "two")})
    assert found == {"/a/f": {"one": digest_of(b"1"), "two": digest_of(b"2")}}


PUT = Put("/a/f", "one", 3, 1.0, 2.0, Outcome.OK, "n1")
BROKEN = History(
    [PUT, replace(PUT, path="/a/g", outcome=Outcome.INFO)],
    [Read("/a/f", None, 3.0, 4.0, "c")],
    [Listed("/a/", {"f": 3}, 5.0, 6.0)],
    [Streamed(["/a/f"], [], [])],
    Final(7.0, {"/a/f": {"n1": "one"}}),
    frozenset({"/a/h"}),
    frozenset({"/a/i"}),
)


def test_a_kept_history_comes_back_as_it_was(tmp_path: Path) -> None:
    kept(BROKEN, tmp_path / "below" / "h.json")
    assert history.read(tmp_path / "below" / "h.json") == BROKEN


@pytest.mark.parametrize(("what", "status", "last"), [(BROKEN, 1, "2 anomalies"), (History([PUT]), 0, "0 anomalies")])
def test_one_command_checks_it_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: History,
    status: int,
    last: str,
) -> None:
    command = kept(what, tmp_path / "h.json")
    monkeypatch.setattr(sys, "argv", command.split()[2:])
    with pytest.raises(SystemExit) as ended:
        history.main()
    assert (command.split()[:3], ended.value.code) == (["python", "-m", "integration.history"], status)
    assert capsys.readouterr().out.splitlines()[-1] == last
