"""Movies on disk: what they hold comes back exactly, and what is wrong with one is named."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from granum.arrays.movies import open_movie
from granum.wire.errors import BadMovie

MOVIES = Path(__file__).parent.parent / "data" / "movies"
FRAMES = np.arange(5 * 16 * 12, dtype="u2").reshape(5, 16, 12)


def write_dax(directory: Path, frames: NDArray[Any], *, inf: str | None = None) -> Path:
    count, height, width = frames.shape
    (directory / "m.dax").write_bytes(frames.astype(">u2").tobytes())
    text = f"frame dimensions = {width} x {height}\nnumber of frames = {count}\n" if inf is None else inf
    (directory / "m.inf").write_text(text)
    return directory / "m.dax"


def write_tiff(path: Path, **options: Any) -> Path:
    tifffile.imwrite(path, FRAMES, **options)
    return path


def write_pages(path: Path) -> Path:
    """Write each frame as an image of its own, without a word on how many there are."""
    with tifffile.TiffWriter(path) as tiff:
        for frame in FRAMES:
            tiff.write(frame, photometric="minisblack", contiguous=False)
    return path


def cut(path: Path, fraction: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


# -- .dax --------------------------------------------------------------------------------------------------------------


def test_the_first_sample_movie_is_read_as_described() -> None:
    movie = open_movie(MOVIES / "test.dax")
    assert movie.shape == (10, 256, 256)
    assert movie.dtype == np.dtype("=u2")
    assert movie.frame(0)[0, :6].tolist() == [144, 157, 149, 148, 141, 146]
    stack = np.array(list(movie))
    assert (stack.min(), stack.max(), round(float(stack.mean()), 1)) == (120, 989, 159.6)


def test_the_second_sample_movie_is_read_as_described() -> None:
    movie = open_movie(str(MOVIES / "test_spliner.dax"))
    assert len(movie) == 20
    assert movie.frame(0)[0, :6].tolist() == [148, 145, 152, 148, 161, 143]
    stack = np.array(list(movie))
    assert (stack.min(), stack.max(), round(float(stack.mean()), 1)) == (119, 1148, 156.9)


def test_the_frames_of_a_dax_come_in_native_byte_order() -> None:
    assert open_movie(MOVIES / "test.dax").frame(9).dtype.isnative


def test_the_width_comes_before_the_height_in_an_inf(tmp_path: Path) -> None:
    movie = open_movie(write_dax(tmp_path, FRAMES))
    assert movie.shape == (5, 16, 12)
    assert np.array_equal(movie.frame(3), FRAMES[3])


def test_little_endian_samples_are_read_when_the_inf_says_so(tmp_path: Path) -> None:
    inf = "data type = 16 bit integers (binary, little endian)\nframe dimensions = 12 x 16\nnumber of frames = 5\n"
    path = write_dax(tmp_path, FRAMES.byteswap(), inf=inf)
    assert np.array_equal(open_movie(path).frame(4), FRAMES[4])


def test_the_metadata_of_a_dax_are_dotted_identifiers() -> None:
    assert open_movie(MOVIES / "test.dax").metadata == {
        "Source.Filename": "test.dax",
        "Source.Lock_Target": "0.0",
        "Source.binning": "1 x 1",
        "Source.data_type": "16 bit integers (binary, big endian)",
        "Source.frame_dimensions": "256 x 256",
        "Source.number_of_frames": "10",
        "Source.x_start": "1",
        "Source.x_end": "256",
        "Source.y_start": "1",
        "Source.y_end": "256",
    }


def test_a_dax_cut_short_gives_the_frames_before_the_cut_and_names_where_it_ends(tmp_path: Path) -> None:
    movie = open_movie(cut(write_dax(tmp_path, FRAMES), 0.5))
    assert np.array_equal(movie.frame(1), FRAMES[1])
    with pytest.raises(BadMovie, match=r"m\.dax: the movie ends at frame 2: the file has 960 bytes, .* need 1,920"):
        movie.frame(2)


def test_a_dax_without_inf_is_refused(tmp_path: Path) -> None:
    path = write_dax(tmp_path, FRAMES)
    (tmp_path / "m.inf").unlink()
    with pytest.raises(BadMovie, match=r"m\.inf must lie beside it"):
        open_movie(path)


@pytest.mark.parametrize(
    ("inf", "complaint"),
    [
        ("number of frames = 5\n", "'frame dimensions' is missing; WIDTH x HEIGHT is expected"),
        ("frame dimensions = 12\nnumber of frames = 5\n", "'frame dimensions' is '12'; WIDTH x HEIGHT is expected"),
        ("frame dimensions = 12 x -16\nnumber of frames = 5\n", "'frame dimensions' is '12 x -16'"),
        ("frame dimensions = 12 x 16\n", "'number of frames' is missing; a number is expected"),
        ("frame dimensions = 0 x 16\nnumber of frames = 5\n", "5 frames of 0 x 16 pixels are not a movie"),
        ("frame dimensions = 90000 x 90000\nnumber of frames = 5\n", "exceeds 1,073,741,824 bytes"),
        ("frame dimensions = 12 x 16\nnumber of frames = 9999999999\n", "9999999999 frames"),
        ("data type = 32 bit floats\nframe dimensions = 12 x 16\nnumber of frames = 5\n", "16 bit integers"),
        ("", "is missing"),
    ],
)
def test_an_inf_that_describes_no_movie_is_refused_with_what_it_says(tmp_path: Path, inf: str, complaint: str) -> None:
    with pytest.raises(BadMovie, match=re.escape(complaint)):
        open_movie(write_dax(tmp_path, FRAMES, inf=inf))


# -- .tif --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "minisblack"},
        {"imagej": True},
        {"imagej": True, "byteorder": ">"},
        {"photometric": "minisblack", "compression": "zlib"},
        {"photometric": "minisblack", "bigtiff": True},
    ],
)
def test_the_frames_of_a_tiff_come_back(tmp_path: Path, options: dict[str, Any]) -> None:
    with open_movie(write_tiff(tmp_path / "m.tif", **options)) as movie:
        assert movie.shape == (5, 16, 12)
        assert all(frame.dtype.isnative for frame in movie)
        assert np.array_equal(np.array(list(movie)), FRAMES)


def test_a_tiff_of_single_images_is_a_movie(tmp_path: Path) -> None:
    with open_movie(write_pages(tmp_path / "m.tiff")) as movie:
        assert np.array_equal(np.array(list(movie)), FRAMES)


PLAIN: dict[str, Any] = {"photometric": "minisblack"}
CODED: dict[str, Any] = {"photometric": "minisblack", "compression": "zlib"}


@pytest.mark.parametrize(
    ("options", "fraction"),
    [(PLAIN, 0.5), ({"imagej": True}, 0.5), (CODED, 0.5), (CODED, 0.85), (None, 0.5), (None, 0.7), (None, 0.85)],
)
def test_a_tiff_cut_short_gives_whole_frames_and_then_names_where_it_ends(
    tmp_path: Path, options: dict[str, Any] | None, fraction: float
) -> None:
    path = tmp_path / "m.tif"
    whole = write_pages(path) if options is None else write_tiff(path, **options)
    read: list[NDArray[Any]] = []
    with open_movie(cut(whole, fraction)) as movie, pytest.raises(BadMovie, match=r"m\.tif: .*frame \d"):
        read.extend(movie)
    assert 1 <= len(read) < 5
    assert np.array_equal(np.array(read), FRAMES[: len(read)])


@pytest.mark.parametrize("options", [PLAIN, {"imagej": True}])
def test_a_tiff_cut_behind_its_last_sample_has_lost_no_frame(tmp_path: Path, options: dict[str, Any]) -> None:
    with open_movie(cut(write_tiff(tmp_path / "m.tif", **options), 0.85)) as movie:
        assert np.array_equal(np.array(list(movie)), FRAMES)


def test_a_page_of_another_shape_is_refused_by_number(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "m.tif") as tiff:
        for shape in [(16, 12), (16, 13)]:
            tiff.write(np.zeros(shape, "u2"), photometric="minisblack")
    with open_movie(tmp_path / "m.tif") as movie:
        assert movie.frame(0).shape == (16, 12)
        with pytest.raises(BadMovie, match=r"frame 1 has shape \(16, 13\); \(16, 12\) is expected"):
            movie.frame(1)


def test_a_colour_tiff_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((2, 16, 12, 3), "u1"), photometric="rgb")
    with pytest.raises(BadMovie, match="images of one colour are expected"):
        open_movie(tmp_path / "m.tif")


def test_a_tiff_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.tif").write_bytes(b"not a tiff at all")
    with pytest.raises(BadMovie, match=r"m\.tif: the file cannot be read: not a TIFF file"):
        open_movie(tmp_path / "m.tif")


def test_a_coding_that_needs_another_package_says_which(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "m.tif", photometric="minisblack", compression="zlib")
    # The compression tag of each page, from 8 (deflate) to 34887 (LERC), which tifffile cannot read alone.
    tag = bytes.fromhex("0301 0300 0100 0000".replace(" ", ""))
    content = path.read_bytes()
    assert content.count(tag + b"\x08\x00") == 5
    path.write_bytes(content.replace(tag + b"\x08\x00", tag + (34887).to_bytes(2, "little")))
    with open_movie(path) as movie, pytest.raises(BadMovie, match=r"frame 0 cannot be read: .*pip install imagecodecs"):
        movie.frame(0)


# -- .npy --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", [FRAMES, FRAMES.astype(">u2"), np.asfortranarray(FRAMES), FRAMES.astype("f4")])
def test_the_frames_of_an_npy_come_back(tmp_path: Path, array: NDArray[Any]) -> None:
    np.save(tmp_path / "m.npy", array)
    movie = open_movie(tmp_path / "m.npy")
    assert movie.shape == (5, 16, 12)
    assert movie.dtype == array.dtype.newbyteorder("=")
    assert all(frame.dtype.isnative for frame in movie)
    assert np.array_equal(np.array(list(movie)), FRAMES)


@pytest.mark.parametrize("array", [FRAMES[0], np.asfortranarray(FRAMES[0])])
def test_a_two_dimensional_npy_is_a_movie_of_one_frame(tmp_path: Path, array: NDArray[Any]) -> None:
    np.save(tmp_path / "m.npy", array)
    movie = open_movie(tmp_path / "m.npy")
    assert movie.shape == (1, 16, 12)
    assert np.array_equal(movie.frame(0), FRAMES[0])


def test_an_npy_cut_short_gives_the_frames_before_the_cut_and_names_where_it_ends(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", FRAMES)
    movie = open_movie(cut(tmp_path / "m.npy", 0.9))
    assert np.array_equal(movie.frame(3), FRAMES[3])
    with pytest.raises(BadMovie, match=r"m\.npy: the movie ends at frame 4: .* need 2,048"):
        movie.frame(4)


def test_an_npy_cut_short_in_column_order_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.asfortranarray(FRAMES))
    with pytest.raises(BadMovie, match=r"m\.npy: not a readable \.npy file"):
        open_movie(cut(tmp_path / "m.npy", 0.9))


@pytest.mark.parametrize("array", [np.zeros(4), np.zeros((2, 2, 2, 2)), np.array([["a"]]), np.array([[{}]])])
def test_an_npy_that_holds_no_movie_is_refused(tmp_path: Path, array: NDArray[Any]) -> None:
    np.save(tmp_path / "m.npy", array)
    with pytest.raises(BadMovie, match=r"m\.npy: "):
        open_movie(tmp_path / "m.npy")


def test_an_npy_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.npy").write_bytes(b"")
    with pytest.raises(BadMovie, match=r"m\.npy: not a readable \.npy file"):
        open_movie(tmp_path / "m.npy")


# -- all ---------------------------------------------------------------------------------------------------------------


def test_an_unknown_suffix_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "m.avi").write_bytes(b"")
    with pytest.raises(BadMovie, match=r"the suffix is '\.avi'; \.dax, \.tif, \.tiff, \.npy are expected"):
        open_movie(tmp_path / "m.avi")


def test_a_movie_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*m\.tif"):
        open_movie(tmp_path / "m.tif")


@pytest.mark.parametrize("n", [-1, 10])
def test_a_frame_outside_the_movie_is_an_index_error(n: int) -> None:
    with pytest.raises(IndexError, match="has 10 frames"):
        open_movie(MOVIES / "test.dax").frame(n)
