"""Frames as arrays: the golden files, every dtype, order and shape, and quantisation."""

import contextlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from granum.wire import frame, huffman, pzf
from granum.wire.errors import BadConfig, BadFrame, WrongFrame

GOLDEN = Path(__file__).parents[1] / "data" / "pzf"
INDEX = json.loads((GOLDEN / "index.json").read_text())
FRAMES = INDEX["frames"]
EXACT = [entry for entry in FRAMES if entry["bit_exact_encoder_output"]]
QUANTISED = [entry for entry in FRAMES if "source" in entry]
EVERY_CUT_BYTES = 4_000  # a larger file is cut at about 800 places: each cut of a large one decodes for milliseconds

Array = NDArray[Any]


def by_file(entry: dict[str, Any]) -> str:
    return str(entry["file"])


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def written(array: Array, **settings: Any) -> bytes:
    return b"".join(frame.encode(array, **settings))


def same(left: Array, right: Array) -> bool:
    """Equal in dtype, shape and every bit, so that NaN equals itself and -0 differs from 0."""
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


# -- golden files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", FRAMES, ids=by_file)
def test_golden_frames_decode_to_their_arrays(entry: dict[str, Any]) -> None:
    assert same(frame.decode(golden(entry["file"])).array, np.load(GOLDEN / entry["expected"]))


@pytest.mark.parametrize("entry", EXACT, ids=by_file)
def test_golden_frames_are_written_byte_for_byte(entry: dict[str, Any]) -> None:
    array = np.asarray(np.load(GOLDEN / entry["expected"]), order=entry["dim_order_byte"])
    file = written(
        array,
        frame_number=entry["frame_number"],
        sequence_id=entry["sequence_id"],
        timestamp=entry["timestamp"],
        compression=entry["compression"],
    )
    assert file == golden(entry["file"])


@pytest.mark.parametrize("entry", QUANTISED, ids=by_file)
def test_quantised_levels_differ_from_pymes_by_1_at_most(entry: dict[str, Any]) -> None:
    settings = frame.Quantisation(entry["quant_offset"], entry["quant_scale"])
    ours = written(np.load(GOLDEN / entry["source"]), compression="huffman", quantise=settings)
    levels = [
        np.frombuffer(pzf.payload(pzf.parse_header(file), file), "u1").astype(int)
        for file in (ours, golden(entry["file"]))
    ]
    assert np.abs(levels[0] - levels[1]).max() <= 1


@pytest.mark.parametrize("entry", QUANTISED, ids=by_file)
def test_quantised_headers_are_written_as_pyme_writes_them(entry: dict[str, Any]) -> None:
    ours = written(
        np.load(GOLDEN / entry["source"]),
        frame_number=entry["frame_number"],
        sequence_id=entry["sequence_id"],
        compression="huffman",
        quantise=frame.Quantisation(entry["quant_offset"], entry["quant_scale"]),
    )
    assert ours[:64] == golden(entry["file"])[:64]


@pytest.mark.parametrize("entry", INDEX["must_be_refused"], ids=by_file)
def test_damaged_golden_files_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(BadFrame):
        frame.decode(golden(entry["file"]))


def assert_cuts_are_refused(name: str, lengths: list[int]) -> None:
    """No golden file ends in bytes that do not count, save for the single leaf, whose codes are never read."""
    file = golden(name)
    needed = 64 + 2 if name == "v3_huff_u1_const.pzf" else len(file)
    whole = frame.decode(file).array
    for length in lengths:
        if length < needed:
            with pytest.raises(BadFrame):
                frame.decode(file[:length])
        else:
            assert same(frame.decode(file[:length]).array, whole)


def cuts(size: int) -> list[int]:
    """Return every length below *size*; of a large file those in its head, its tail and at intervals between."""
    if size <= EVERY_CUT_BYTES:
        return list(range(size))
    return [*range(500), *range(500, size - 20, size // 300), *range(size - 20, size)]


@pytest.mark.parametrize("entry", FRAMES, ids=by_file)
def test_a_golden_file_cut_short_is_refused(entry: dict[str, Any]) -> None:
    assert_cuts_are_refused(entry["file"], cuts(entry["bytes"]))


# -- arrays there and back -------------------------------------------------------------------------------------------

shapes = st.one_of(
    arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=7),
    st.sampled_from([(0,), (0, 5), (5, 0), (0, 0, 3), (1, 12), (12, 1), (1, 1, 1)]),
)
any_array = arrays.arrays(dtype=st.sampled_from(["u1", "<u2", ">u2", "<f4", ">f4"]), shape=shapes)
layouts: dict[str, Callable[[Array], Array]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda array: np.repeat(array, 2, axis=0)[::2],
    "reversed": lambda array: array[::-1],
    "transposed": lambda array: np.ascontiguousarray(array.T).T,
    "unaligned": lambda array: np.frombuffer(b"x" + array.tobytes(), array.dtype, offset=1).reshape(array.shape),
}


@given(any_array, st.sampled_from(sorted(layouts)), st.sampled_from(pzf.COMPRESSIONS))
def test_every_array_comes_back(array: Array, layout: str, compression: pzf.Compression) -> None:
    array = layouts[layout](array) if array.size or layout != "unaligned" else array
    expected = array.astype(array.dtype.newbyteorder("<")).reshape((*array.shape, 1, 1)[:3])
    assert same(frame.decode(written(array, compression=compression)).array, expected)


@given(st.integers(0, 2**32 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1))
def test_numbers_of_the_frame_come_back(frame_number: int, sequence_id: int, timestamp: int) -> None:
    file = written(np.zeros((2, 2), "u1"), frame_number=frame_number, sequence_id=sequence_id, timestamp=timestamp)
    header = frame.decode(file).header
    assert (header.frame_number, header.sequence_id, header.timestamp) == (frame_number, sequence_id, timestamp)


@pytest.mark.parametrize(
    ("array", "order", "shape", "samples"),
    [
        (np.array([[1, 2, 3], [4, 5, 6]], "u1"), b"C", (2, 3, 1), [1, 2, 3, 4, 5, 6]),
        (np.array([[1, 4], [2, 5], [3, 6]], "u1").T, b"F", (2, 3, 1), [1, 4, 2, 5, 3, 6]),
        (np.array([[1, 2, 3], [4, 5, 6]], "u1")[:, ::2], b"C", (2, 2, 1), [1, 3, 4, 6]),
        (np.array([[1, 2, 3]], "u1"), b"F", (1, 3, 1), [1, 2, 3]),
        (np.array([1, 2, 3], "u1"), b"F", (3, 1, 1), [1, 2, 3]),
        (np.array([1, 2, 3, 4], "u1")[::2], b"C", (2, 1, 1), [1, 3]),
        (np.arange(8, dtype="u1").reshape(2, 2, 2), b"C", (2, 2, 2), [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
    ids=["C", "F", "strided", "row", "1-D", "strided 1-D", "3-D"],
)
def test_width_is_the_first_axis_and_only_fortran_arrays_are_stored_in_order_f(
    array: Array, order: bytes, shape: tuple[int, int, int], samples: list[int]
) -> None:
    file = written(array)
    assert file[6:7] == order
    assert np.frombuffer(file, "<u4", 3, 20).tolist() == list(shape)
    assert list(file[64:]) == samples


def test_big_endian_samples_are_stored_little_endian() -> None:
    assert written(np.array([[1, 2], [3, 4]], ">u2"))[64:] == bytes.fromhex("0100020003000400")


def test_a_fortran_array_of_big_endian_samples_keeps_its_order() -> None:
    file = written(np.asfortranarray(np.array([[1, 2], [3, 4]], ">u2")))
    assert file[6:7] + file[64:] == b"F" + bytes.fromhex("0100030002000400")


@pytest.mark.parametrize("layout", ["C", "F"])
def test_raw_samples_are_sent_from_the_array_itself(layout: str) -> None:
    array = layouts[layout](np.arange(24, dtype="u2").reshape(2, 3, 4))
    header, samples = frame.encode(array)
    assert isinstance(samples, memoryview)
    assert (samples.nbytes, samples.format, samples.ndim) == (48, "B", 1)
    assert np.shares_memory(np.frombuffer(samples, "u1"), array)
    assert len(header) == 64


def test_raw_samples_are_read_from_the_file_itself() -> None:
    file = written(np.arange(24, dtype="u2").reshape(4, 6))
    assert np.shares_memory(frame.decode(file).array, np.frombuffer(file, "u1"))


@pytest.mark.parametrize("compression", pzf.COMPRESSIONS)
def test_decoded_arrays_cannot_be_written_to(compression: pzf.Compression) -> None:
    decoded = frame.decode(bytearray(written(np.arange(6, dtype="u1"), compression=compression)))
    with pytest.raises(ValueError, match="read-only"):
        decoded.array[0] = 1


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.zeros((2, 2), "i2"), "int16"),
        (np.zeros((2, 2), "f8"), "float64"),
        (np.zeros((2, 2), "u4"), "uint32"),
        (np.zeros((2, 2), bool), "bool"),
        (np.zeros((2, 2), "c8"), "complex64"),
        (np.zeros((2, 2), "S2"), r"\|S2"),
        (np.zeros((2, 2), [("x", "u2")]), "x"),
        (np.array(7, "u2"), "0 dimensions"),
        (np.zeros((1, 1, 1, 1), "u2"), "4 dimensions"),
        (np.zeros((2, 2, 0), "u2"), "depth"),
    ],
)
def test_other_arrays_are_refused_by_name(array: Array, named: str) -> None:
    with pytest.raises(WrongFrame, match=named):
        frame.encode(array)


def test_a_frame_above_the_limit_is_refused() -> None:
    with pytest.raises(WrongFrame, match="1073741824"):
        frame.encode(np.broadcast_to(np.uint8(0), (2**15, 2**15 + 1)))


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(BadConfig, match="zip"):
        frame.encode(np.zeros(4, "u1"), compression="zip")  # type: ignore[arg-type]


# -- quantisation ----------------------------------------------------------------------------------------------------


def levels_of(file: bytes) -> list[int]:
    return list(pzf.payload(pzf.parse_header(file), file))


def quantised(counts: list[int], offset: float, scale: float, compression: pzf.Compression = "huffman") -> bytes:
    return written(np.array(counts, "u2"), compression=compression, quantise=frame.Quantisation(offset, scale))


@pytest.mark.parametrize(
    ("offset", "scale", "counts", "levels"),
    [
        (0, 1, [0, 1, 2, 3, 4, 6, 7, 100, 65_025], [0, 1, 1, 2, 2, 2, 3, 10, 255]),
        (100, 1, [0, 99, 100, 101, 104], [0, 0, 0, 1, 2]),
        (0, 2, [1, 9, 25], [1, 2, 3]),  # halves round up
        (0, 0.5, [1, 4, 9], [2, 4, 6]),
    ],
)
def test_the_level_is_the_nearest_root(offset: float, scale: float, counts: list[int], levels: list[int]) -> None:
    assert levels_of(quantised(counts, offset, scale)) == levels


def test_levels_saturate_at_255_with_a_warning() -> None:
    with pytest.warns(frame.SaturatedFrame, match="up to 65535, .* holds 650 at most"):
        file = quantised([600, 651, 2_000, 65_535], 0, 0.1)
    assert levels_of(file) == [245, 255, 255, 255]


def test_the_warning_names_the_line_that_encodes() -> None:
    with pytest.warns(frame.SaturatedFrame) as caught:
        frame.encode(np.array([65_535], "u2"), compression="huffman", quantise=frame.Quantisation(0, 0.1))
    assert [warning.filename for warning in caught] == [__file__]


def test_samples_that_just_fit_give_no_warning() -> None:
    assert levels_of(quantised([65_025], 0, 1)) == [255]


def test_a_level_whose_sample_would_wrap_around_is_not_written() -> None:
    """With scale 2 the nearest level of 65,535 is 128, which decodes to 65,536: black in PYME."""
    file = quantised([65_535, 65_280, 64_516], 0, 2)
    assert levels_of(file) == [127, 127, 127]
    assert frame.decode(file).array.ravel().tolist() == [64_516, 64_516, 64_516]


@given(
    st.lists(st.integers(0, 65_535), min_size=1, max_size=30),
    st.floats(0, 65_535),
    st.floats(0.001, 100),
    st.sampled_from(["huffman", "chunks"]),
)
def test_a_quantised_sample_comes_back_within_half_a_level(
    counts: list[int], offset: float, scale: float, compression: pzf.Compression
) -> None:
    """Between saturation below and above, roots differ by half a scale at most; nothing ever wraps around."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", frame.SaturatedFrame)
        file = quantised(counts, offset, scale, compression)
    header = pzf.parse_header(file)
    largest = max(q for q in range(256) if int((q * scale) ** 2 * (1 + 1e-5) + offset) <= 65_535)
    for count, sample, level in zip(counts, frame.decode(file).array.ravel().tolist(), levels_of(file), strict=True):
        decoded = (level * header.quant_scale) ** 2 + header.quant_offset
        assert sample == pytest.approx(decoded, rel=1e-6, abs=1)
        root = max(count - offset, 0) ** 0.5
        assert abs(root - level * scale) <= scale / 2 + 1e-3 * (1 + root) or level >= largest


@pytest.mark.parametrize(
    ("offset", "scale"),
    [(-1, 1), (65_536, 1), (0, 0.0009), (0, 100.1), (float("nan"), 1), (0, float("nan")), (float("inf"), 1)],
)
def test_quantisation_outside_its_limits_is_refused(offset: float, scale: float) -> None:
    with pytest.raises(BadConfig, match="quantisation"):
        frame.Quantisation(offset, scale)


@pytest.mark.parametrize(("offset", "scale"), [(0, 0.001), (65_535, 100)])
def test_quantisation_at_its_limits_is_accepted(offset: float, scale: float) -> None:
    assert frame.decode(quantised([0], offset, scale)).array.ravel().tolist() == [offset]


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_only_u2_is_quantised(dtype: str) -> None:
    with pytest.raises(WrongFrame, match="only uint16"):
        frame.encode(np.zeros(4, dtype), compression="huffman", quantise=frame.Quantisation(0, 1))


def test_big_endian_samples_are_quantised_by_their_value() -> None:
    array = np.array([1, 256, 1024], ">u2")
    assert levels_of(written(array, compression="huffman", quantise=frame.Quantisation(0, 1))) == [1, 16, 32]


def test_a_quantised_raw_frame_is_not_written() -> None:
    with pytest.raises(BadConfig, match="choose huffman"):
        quantised([1, 2], 0, 1, "raw")


def quantised_by_hand(dtype: pzf.SampleType, levels: list[int], offset: float, scale: float) -> bytes:
    header = pzf.Header(
        dtype=dtype, shape=(len(levels), 1, 1), quantisation="sqrt", quant_offset=offset, quant_scale=scale
    )
    return header.pack() + bytes(levels)


@pytest.mark.parametrize(
    ("dtype", "offset", "scale", "levels", "samples"),
    [
        ("u2", 0.0, 1.0, [0, 1, 255], [0, 1, 65_025]),
        ("u2", 0.75, 0.5, [0, 1, 2, 3], [0, 1, 1, 3]),  # 0.75, 1.0, 1.75, 3.0
        ("u2", 0.0, 2.0, [127, 128, 129], [64_516, 0, 1_028]),
        ("u1", 0.0, 1.0, [15, 16, 17], [225, 0, 33]),
        ("f4", 0.75, 0.5, [0, 1, 2, 255], [0.0, 1.0, 1.0, 16_257.0]),
        ("u2", -1.5, 1.0, [0, 1, 2], [65_535, 0, 2]),
        ("u2", 0.0, 1000.0, [255], [49_152]),  # 255,000 squared is 65,024,999,424 in float32
    ],
    ids=["u2", "fraction cut off", "wraps as in PYME", "u1", "f4", "negative offset", "beyond 32 bits"],
)
def test_levels_are_squared_truncated_and_cast(
    dtype: pzf.SampleType, offset: float, scale: float, levels: list[int], samples: list[float]
) -> None:
    array = frame.decode(quantised_by_hand(dtype, levels, offset, scale)).array
    assert array.dtype == np.dtype(dtype)
    assert array.ravel().tolist() == samples


@pytest.mark.parametrize(("offset", "scale"), [(float("nan"), 1.0), (0.0, float("inf")), (0.0, 1e30), (-3e38, 1.0)])
@pytest.mark.parametrize("dtype", pzf.SAMPLE_TYPES)
def test_absurd_quantisation_is_refused(dtype: pzf.SampleType, offset: float, scale: float) -> None:
    with pytest.raises(BadFrame, match="no sample can be quantised"):
        frame.decode(quantised_by_hand(dtype, [1], offset, scale))


@pytest.mark.parametrize("quantise", [None, frame.Quantisation(0, 1)], ids=["exact", "quantised"])
def test_a_frame_whose_codes_are_too_long_is_stored_raw_and_exact(quantise: frame.Quantisation | None) -> None:
    """27 symbols in Fibonacci proportions need codes of 26 bits; both bytes of a sample are equal, which halves them."""
    counts = [1, 1, 1]
    while len(counts) < 27:
        counts.append(counts[-1] + counts[-2])
    symbols = np.arange(27) ** 2 if quantise else np.arange(27) * 257
    array = np.repeat(symbols.astype("u2"), counts)
    file = written(array, compression="huffman", quantise=quantise)
    header = pzf.parse_header(file)
    assert (header.compression, header.quantisation, header.quant_scale) == ("raw", "none", 0)
    assert same(frame.decode(file).array.ravel(), array)


def test_chunks_are_never_too_long_for_their_codes() -> None:
    array = np.zeros(huffman.SHORT_CODES_BYTES_MAX * 2, "u1")
    assert frame.decode(written(array, compression="chunks")).header.compression == "chunks"


# -- damage ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_read(file: bytes) -> None:
    with contextlib.suppress(BadFrame):
        frame.decode(file)


@given(
    header=st.tuples(
        st.integers(0, 5), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2), st.sampled_from(b"CFX")
    ),
    numbers=st.binary(min_size=12, max_size=12),
    shape=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)),
    quantisation=st.binary(min_size=8, max_size=8),
    data_offset=st.integers(0, 80),
    rest=st.binary(max_size=200),
)
def test_random_headers_are_refused_or_read(
    header: tuple[int, ...],
    numbers: bytes,
    shape: tuple[int, int, int],
    quantisation: bytes,
    data_offset: int,
    rest: bytes,
) -> None:
    """Random bytes seldom get past the magic; these get as far as the samples. A frame that is read has its shape."""
    file = b"".join(
        [
            b"BD",
            bytes([*header, 0]),
            numbers,
            np.array(shape, "<u4").tobytes(),
            bytes(8),
            quantisation,
            np.array([data_offset], "<u4").tobytes(),
            rest,
        ]
    )
    try:
        decoded = frame.decode(file)
    except BadFrame:
        return
    assert decoded.array.shape == shape


@given(st.sampled_from([entry["file"] for entry in FRAMES if entry["bytes"] <= EVERY_CUT_BYTES]), st.data())
def test_a_golden_file_with_changed_bytes_is_refused_or_read(name: str, draws: st.DataObject) -> None:
    file = bytearray(golden(name))
    for _ in range(draws.draw(st.integers(1, 4))):
        file[draws.draw(st.integers(0, len(file) - 1))] = draws.draw(st.integers(0, 255))
    with contextlib.suppress(BadFrame):
        frame.decode(file)


# -- one file after the other ------------------------------------------------------------------------------------------


def outcome(decode: Callable[[bytes], Array], file: bytes) -> Any:
    """The array as type, shape, order and bytes, or the error as text."""
    try:
        array = decode(file)
    except BadFrame as error:
        return str(error)
    return array.dtype, array.shape, array.strides, array.flags.writeable, array.tobytes()


few_shapes = st.sampled_from([(2, 3), (3, 2), (6,), (6, 1, 1), (2, 3, 1), (0, 3), (2, 0, 3)])
one_of_few = st.builds(
    lambda shape, dtype, order, numbers: written(
        np.arange(np.prod(shape), dtype=dtype).reshape(shape, order=order), frame_number=numbers, timestamp=numbers
    ),
    few_shapes,
    st.sampled_from(["u1", "<u2", "<f4"]),
    st.sampled_from(["C", "F"]),
    st.integers(0, 9),
)
small_golden = st.sampled_from([entry["file"] for entry in FRAMES if entry["bytes"] <= EVERY_CUT_BYTES]).map(golden)


@given(st.lists(one_of_few | small_golden, min_size=1, max_size=6), st.data())
def test_a_decoder_gives_what_decode_gives_whatever_came_before(files: list[bytes], draws: st.DataObject) -> None:
    """Also of a file like the one before, but for one byte of its header or its length."""
    decoder = frame.Decoder()
    for file in files:
        at, value = draws.draw(st.integers(0, 63)), draws.draw(st.integers(0, 255))
        changed = file[:at] + bytes([value]) + file[at + 1 :]
        for each in (file, changed, file, file[:-1], file, file + b"x", file):
            assert outcome(decoder.array, each) == outcome(lambda data: frame.decode(data).array, each)


def test_a_decoder_reads_the_header_of_frames_of_one_series_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parse, parsed = pzf.parse_header, []

    def noted(file: bytes) -> pzf.Header:
        parsed.append(file)
        return parse(file)

    monkeypatch.setattr("granum.wire.frame.pzf.parse_header", noted)
    decoder = frame.Decoder()
    image = np.arange(6, dtype="<u2").reshape(2, 3)
    for number in range(3):
        file = written(image + number, frame_number=number, sequence_id=number, timestamp=number)
        assert same(decoder.array(file), (image + number)[:, :, np.newaxis])
    assert len(parsed) == 1
