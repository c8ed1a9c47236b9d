"""Movies to real nodes as series, and back as files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from client.tests.cli.conftest import Granum
from granum.arrays.movies import open_movie
from integration.lab import ProcessLab

MOVIES = Path(__file__).parent.parent / "data" / "movies"


@pytest.fixture(scope="module")
def pixels() -> "np.ndarray[tuple[int, ...], np.dtype[np.uint16]]":
    """The frames of test.dax."""
    return np.fromfile(MOVIES / "test.dax", ">u2").reshape(10, 256, 256).astype("u2")


def test_a_dax_comes_back_pixel_for_pixel(granum: Granum, tmp_path: Path, pixels: np.ndarray) -> None:
    done = granum.ok("series", "put", MOVIES / "test.dax", "/series/trip/")
    assert done.startswith("put 10 frames, 1.3 MB: /series/trip/test.pcs (")
    assert granum.ok("series", "get", "/series/trip/test.pcs", "t.npy") == "got 10 frames, 1.3 MB: t.npy\n"
    granum.ok("series", "get", "/series/trip/test", "t.tif")
    assert np.load(tmp_path / "t.npy").dtype == np.dtype("u2")
    assert np.array_equal(np.load(tmp_path / "t.npy"), pixels)
    assert np.array_equal(tifffile.imread(tmp_path / "t.tif"), pixels)


@pytest.mark.parametrize("compression", ["huffman", "chunks"])
def test_compression_changes_the_size_alone(
    granum: Granum, tmp_path: Path, pixels: np.ndarray, compression: str
) -> None:
    row = granum.json("series", "put", "--compression", compression, MOVIES / "test.dax", f"/series/{compression}")
    assert row["path"] == f"/series/{compression}.pcs"
    assert row["frames"] == sum(row["per_node"].values()) == 10
    assert row["size"] < 10 * 256 * 256 * 2
    granum.ok("series", "get", f"/series/{compression}", "t.npy")
    assert np.array_equal(np.load(tmp_path / "t.npy"), pixels)


@pytest.mark.parametrize(("placement", "most"), [("chunk:10", 10), ("round-robin", 5)])
def test_frames_go_where_the_configured_placement_says(granum: Granum, placement: str, most: int) -> None:
    granum = replace(granum, environment={**granum.environment, "GRANUM_PLACEMENT": placement})
    path = f"/series/placed-{placement.replace(':', '')}"
    row = granum.json("series", "put", MOVIES / "test.dax", path)
    assert max(row["per_node"].values()) == most


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_every_kind_of_movie_is_taken(granum: Granum, tmp_path: Path, suffix: str) -> None:
    frames = np.arange(3 * 4 * 5, dtype="u1").reshape(3, 4, 5)
    if suffix == ".npy":
        np.save(tmp_path / "m.npy", frames)
    else:
        tifffile.imwrite(tmp_path / "m.tif", frames, photometric="minisblack")
    granum.ok("series", "put", f"m{suffix}", f"/series/kind{suffix[1:]}/")
    granum.ok("series", "get", f"/series/kind{suffix[1:]}/m", "back.tif")
    with open_movie(tmp_path / "back.tif") as back:
        assert np.array_equal(np.stack(list(back)), frames)


def test_the_name_is_that_of_the_file_unless_given(granum: Granum, tmp_path: Path) -> None:
    np.save(tmp_path / "my-run.npy", np.zeros((1, 2, 2), "u2"))
    assert granum.json("series", "put", "my-run.npy")["path"] == "/my-run.pcs"


def test_info_describes_a_series(granum: Granum, lab: ProcessLab) -> None:
    granum.ok("series", "put", MOVIES / "test.dax", "/series/described")
    row = granum.json("series", "info", "/series/described.pcs")
    assert (row["path"], row["complete"], row["shape"], row["dtype"]) == (
        "/series/described.pcs",
        True,
        [10, 256, 256],
        "uint16",
    )
    assert (row["frames"], row["first"], row["last"], row["size"]) == (10, 0, 9, 10 * (64 + 131072))
    assert sorted(row["per_node"].values()) == [5, 5]
    assert row["metadata"]["Source.Filename"] == "test.dax"
    lines = granum.ok("series", "info", "/series/described").splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines[:5]] == [
        "/series/described.pcs",
        "complete",
        "10, 0 to 9",
        "256 x 256 uint16",
        "1.3 MB",
    ]


def test_a_movie_cut_short_names_its_frame_and_stays_incomplete(granum: Granum, tmp_path: Path) -> None:
    shutil.copy(MOVIES / "test.inf", tmp_path / "cut.inf")
    (tmp_path / "cut.dax").write_bytes((MOVIES / "test.dax").read_bytes()[: 4 * 131072 + 100])
    done = granum.run("series", "put", "cut.dax", "/series/cut")
    assert (done.returncode, done.stdout) == (1, "")
    assert "granum: cut.dax: the movie ends at frame 4" in done.stderr
    assert "granum: /series/cut.pcs stays incomplete\n" in done.stderr
    row = granum.json("series", "info", "/series/cut")
    assert (row["complete"], row["frames"] <= 4) == (False, True)


def test_what_an_incomplete_series_has_can_be_had(granum: Granum, tmp_path: Path, lab: ProcessLab) -> None:
    """And the two things that the file cannot tell are said."""
    granum.ok("series", "put", MOVIES / "test.dax", "/series/holes")
    for node in lab.nodes:
        for name in ("events.json", "frame00003.pzf"):
            (node.root / "series" / "holes.pcs" / name).unlink(missing_ok=True)
    done = granum.run("series", "get", "/series/holes", "t.npy")
    assert (done.returncode, len(np.load(tmp_path / "t.npy"))) == (0, 9)
    assert "/series/holes.pcs is incomplete" in done.stderr
    assert "frames 0 to 9, 1 of them not stored" in done.stderr


def test_a_damaged_frame_leaves_no_file(granum: Granum, tmp_path: Path, lab: ProcessLab) -> None:
    granum.ok("series", "put", MOVIES / "test.dax", "/series/damaged")
    for node in lab.nodes:
        for file in (node.root / "series" / "damaged.pcs").glob("frame00007.pzf"):
            file.chmod(0o640)  # a published file is read-only, which stops everyone but root
            file.write_bytes(file.read_bytes()[:1000])
    done = granum.run("series", "get", "/series/damaged", "t.tif")
    assert (done.returncode, done.stdout) == (1, "")
    assert "frame00007.pzf on " in done.stderr
    assert "is damaged: its bytes do not have the digest" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_is_missing_leaves_no_file(tmp_path: Path) -> None:
    """Half of the frames, closed up, would look like a whole series for ever."""
    with ProcessLab(tmp_path / "lab", 2) as lab:
        hosts = [word for node in lab.nodes for word in ("-n", node.host)]
        own = Granum(tmp_path, ("--no-discovery", *hosts))
        own.ok("series", "put", MOVIES / "test.dax", "/run")
        lab.nodes[1].kill()
        done = own.run("series", "get", "/run.pcs", "t.npy")
        assert (done.returncode, (tmp_path / "t.npy").exists()) == (3, False)
        assert "frames may be lacking" in done.stderr
        assert lab.nodes[1].host in done.stderr


def test_get_never_overwrites(granum: Granum, tmp_path: Path) -> None:
    (tmp_path / "t.npy").write_text("mine")
    done = granum.run("series", "get", "/series/any", "t.npy")
    assert (done.returncode, done.stderr) == (1, "granum: t.npy: exists already; --force replaces it\n")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["get", "/series/x", "t.png"], 2),
        (["get", "/series/absent", "t.npy"], 1),
        (["info", "/series/absent"], 1),
        (["info", "/a/../b"], 2),
        (["put", "absent.dax"], 2),
        (["put", str(MOVIES / "test.inf"), "/series/inf"], 1),
        (["put", "--compression", "zip", str(MOVIES / "test.dax")], 2),
    ],
)
def test_failures_have_their_status(granum: Granum, arguments: list[str], status: int) -> None:
    done = granum.run("series", *arguments)
    assert (done.returncode, done.stdout) == (status, "")


def test_a_name_that_is_taken_is_refused(granum: Granum) -> None:
    granum.ok("series", "put", MOVIES / "test.dax", "/series/taken")
    done = granum.run("series", "put", MOVIES / "test.dax", "/series/taken.pcs")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert json.loads(granum.run("series", "info", "--json", "/series/taken").stdout)["complete"] is True
