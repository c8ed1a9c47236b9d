"""Which frames belong to a series, and that the file of each is what the wire format says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.streaming.frames import Frames
from granum.streaming.layout import frame_name, series_path
from granum.wire import frame
from granum.wire.errors import AlreadyStored, BadConfig, PathTooLong, WrongFrame
from granum.wire.paths import ClusterPath

RUN = ClusterPath(("run.pcs",))
IMAGE = np.arange(12, dtype="u2").reshape(3, 4)


def frames(**options: Any) -> Frames:
    return Frames(RUN, 77, **{"compression": "raw", "quantise": None, **options})


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["u1", "u2", "f4"]),
    st.sampled_from([(1, 1), (3, 4), (4, 1), (2, 3, 4), (3, 4, 1)]),
    st.sampled_from(["C", "F", "strided"]),
)
def test_a_raw_file_is_the_one_that_the_wire_format_makes(
    number: int, dtype: str, shape: tuple[int, ...], order: str
) -> None:
    image = np.arange(np.prod(shape) * 2, dtype=dtype)
    image = image[::2].reshape(shape) if order == "strided" else image[: np.prod(shape)].reshape(shape, order=order)  # type: ignore[call-overload]
    series = frames()
    series.encoded(5, image)  # so that its head is known
    made = b"".join(series.encoded(number, image))
    assert made == b"".join(frame.encode(image, frame_number=number, sequence_id=77))


def test_raw_samples_are_not_copied() -> None:
    image = IMAGE.copy()
    _, samples = frames().encoded(0, image)
    image[0, 0] = 99
    assert samples[0] == 99


def test_files_of_both_orders_in_one_series_are_told_apart() -> None:
    series = frames()
    for image in (IMAGE, np.asfortranarray(IMAGE), IMAGE):
        back = frame.decode(b"".join(series.encoded(1, image))).array[:, :, 0]
        assert np.array_equal(back, IMAGE)


def test_each_number_is_claimed_once_until_it_is_released() -> None:
    series = frames()
    series.claim(3, IMAGE)
    with pytest.raises(AlreadyStored, match="each number is used once"):
        series.claim(3, IMAGE)
    series.release(3)
    series.claim(3, IMAGE)
    assert series.path(3) == RUN / "frame00003.pzf"


def test_the_first_frame_decides_what_the_others_are_like_unless_it_is_released() -> None:
    series = frames()
    series.claim(0, IMAGE.astype(">u2"))
    series.claim(1, IMAGE)
    for other in (IMAGE[:2], IMAGE.astype("u1")):
        with pytest.raises(WrongFrame, match="frame 2 has shape"):
            series.claim(2, other)
    series.release(0)
    series.release(1)
    series.claim(2, IMAGE[:2])


def test_what_was_stated_holds_for_the_first_frame_and_after_a_release() -> None:
    series = frames(shape=(3, 4), dtype="u2")
    for _ in range(2):
        with pytest.raises(WrongFrame):
            series.claim(0, IMAGE[:2])
        series.claim(0, IMAGE)
        series.release(0)


@pytest.mark.parametrize(
    ("number", "image", "error"),
    [
        (-1, IMAGE, ValueError),
        (2**32, IMAGE, WrongFrame),
        (0, IMAGE[0], WrongFrame),
        (0, IMAGE.astype("i4"), WrongFrame),
        (0, IMAGE[:0], WrongFrame),
    ],
)
def test_a_frame_that_does_not_belong_leaves_nothing_behind(number: int, image: Any, error: type[Exception]) -> None:
    series = frames()
    with pytest.raises(error):
        series.claim(number, image)
    series.claim(0, np.zeros((9, 9), "f4"))


def test_settings_that_no_frame_could_be_stored_with_are_refused() -> None:
    for options in ({"dtype": "i8"}, {"shape": (3,)}):
        with pytest.raises(WrongFrame):
            frames(**options)
    with pytest.raises(BadConfig):
        frames(quantise=frame.Quantisation(0, 1))
    with pytest.raises(PathTooLong):
        Frames(ClusterPath(("x" * 200,) * 20), 1, compression="raw", quantise=None)


def test_a_series_has_the_suffix_and_frames_have_five_digits_or_more() -> None:
    assert series_path("/a/b") == series_path("/a/b.pcs") == ClusterPath(("a", "b.pcs"))
    assert (frame_name(7), frame_name(123456)) == ("frame00007.pzf", "frame123456.pzf")
