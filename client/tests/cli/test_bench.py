"""`granum bench stream`: what it measures is stored, counted, and said."""

import re
from pathlib import Path

import pytest

from client.tests.cli.conftest import Granum
from granum.blocking import Cluster
from granum.cli.bench import _quantiles
from integration.lab import ProcessLab

QUICK = ("--size", "64K", "--seconds", "0.2")


@pytest.fixture
def roots(lab: ProcessLab) -> list[Path]:
    return [node.root for node in lab.nodes]


def test_it_tells_rates_shares_receipts_and_how_to_remove_what_it_stored(granum: Granum, roots: list[Path]) -> None:
    said = granum.ok("bench", "stream", *QUICK)
    fields = dict(re.findall(r"^(\S+) {2,}(.*)$", said, re.MULTILINE))
    name = fields["series"]
    assert re.fullmatch(r"/granum-bench-\d{4}-\d\d-\d\d-\d{6}\.pcs", name)
    assert re.fullmatch(r"[\d,.]+ MB/s, [\d,.]+ frames/s", fields["rate"])
    assert fields["nodes"].count("%") == 2
    assert re.fullmatch(r"p50 [\d.]+ ms, p99 [\d.]+ ms, max [\d.]+ ms", fields["receipts"])
    assert (fields["refused"], fields["lost"], fields["durability"]) == ("0", "0", "commit")
    assert f"rm -r STORE{name}" in said
    assert all((root / name[1:]).is_dir() for root in roots)


def test_a_camera_hands_over_as_many_frames_as_its_rate_says(granum: Granum, roots: list[Path]) -> None:
    row = granum.json("bench", "stream", "/b/paced", *QUICK, "--rate", "100")
    assert (row["path"], row["frames"] + row["refused"], row["lost"]) == ("/b/paced.pcs", 20, 0)
    frames = [file for root in roots for file in (root / "b" / "paced.pcs").glob("*.pzf")]
    assert (len(frames), {file.stat().st_size for file in frames}) == (row["frames"], {65536 + 64})
    assert sum(row["per_node"].values()) == row["frames"]
    assert set(row["receipt_s"]) == {"p50", "p99", "max"}


def test_a_series_that_is_there_is_left_as_it_is(granum: Granum) -> None:
    granum.ok("--quiet", "bench", "stream", "/b/there", *QUICK)
    done = granum.run("bench", "stream", "/b/there", *QUICK)
    assert (done.returncode, "is stored already" in done.stderr) == (1, True)


def test_a_frame_that_no_node_lists_in_the_end_is_lost(granum: Granum, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(list[str]):
        partial = False

    whole = Cluster.listdir
    monkeypatch.setattr(
        Cluster, "listdir", lambda self, path: Short(n for n in whole(self, path) if n != "frame00003.pzf")
    )
    done = granum.run("bench", "stream", "/b/lost", *QUICK)
    assert (done.returncode, done.stderr) == (1, "granum: /b/lost.pcs: taken in and not stored: 1 frame\n")


@pytest.mark.parametrize("size", ["1000", "8G", "0", "x", "2048M"])
def test_a_size_that_no_frame_has_is_bad_usage(granum: Granum, size: str) -> None:
    done = granum.run("bench", "stream", "--size", size)
    assert done.returncode == 2
    assert "write 64K" in done.stderr


def test_quantiles_are_of_the_samples() -> None:
    from array import array

    assert _quantiles(array("d", range(100, 0, -1))) == {"p50": 51.0, "p99": 100.0, "max": 100.0}
    assert _quantiles(array("d")) == {}
