"""PZF headers and payloads as bytes: what is written, what is accepted, what is refused."""

import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.wire import huffman, pzf
from granum.wire.errors import BadFrame, WrongFrame

GOLDEN = Path(__file__).parents[1] / "data" / "pzf"
INDEX = json.loads((GOLDEN / "index.json").read_text())

# The worked example: 3 x 4 u2 samples 0 to 11, sequence -5, frame 7, timestamp 99.
EXAMPLE_HEADER = bytes.fromhex(
    "4244030100004300fbffffffffffffff07000000030000000400000001000000"
    "6300000000000000000000000000000040000000000000000000000000000000"
)
EXAMPLE_SAMPLES = bytes.fromhex("00000100020003000400050006000700080009000a000b00")
EXAMPLE = EXAMPLE_HEADER + EXAMPLE_SAMPLES

EXAMPLE_AS_HEADER = pzf.Header(
    dtype="u2", shape=(3, 4, 1), order="C", sequence_id=-5, frame_number=7, timestamp=99, version=3, data_offset=64
)


def changed(at: int, value: bytes, file: bytes = EXAMPLE) -> bytes:
    return file[:at] + value + file[at + len(value) :]


def u4(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


@pytest.mark.parametrize("entry", INDEX["frames"] + INDEX["must_be_refused"], ids=lambda entry: entry["file"])
def test_golden_files_are_intact(entry: dict[str, Any]) -> None:
    file = (GOLDEN / entry["file"]).read_bytes()
    assert len(file) == entry["bytes"]
    assert hashlib.sha256(file).hexdigest() == entry.get("sha256", hashlib.sha256(file).hexdigest())


@pytest.mark.parametrize("entry", INDEX["frames"], ids=lambda entry: entry["file"])
def test_golden_headers_are_read_field_for_field(entry: dict[str, Any]) -> None:
    header = pzf.parse_header((GOLDEN / entry["file"]).read_bytes())
    assert header == pzf.Header(
        dtype=entry["dtype"],
        shape=tuple(entry["shape"]),
        order="C" if entry["version"] == 1 else entry["dim_order_byte"],
        compression={"huffman-chunks": "chunks"}.get(entry["compression"], entry["compression"]),
        quantisation=entry["quantisation"],
        quant_offset=entry["quant_offset"],
        quant_scale=entry["quant_scale"],
        sequence_id=entry["sequence_id"],
        frame_number=entry["frame_number"],
        timestamp=entry["timestamp"],
        version=entry["version"],
        data_offset=entry["data_offset"],
    )


def test_the_worked_example_is_packed_byte_for_byte() -> None:
    assert EXAMPLE_AS_HEADER.pack() == EXAMPLE_HEADER


def test_a_header_read_from_an_old_file_is_packed_as_version_3() -> None:
    old = replace(EXAMPLE_AS_HEADER, version=1, data_offset=48)
    assert old.pack() == EXAMPLE_HEADER


headers = st.builds(
    pzf.Header,
    dtype=st.sampled_from(pzf.SAMPLE_TYPES),
    shape=st.tuples(st.integers(0, 500), st.integers(0, 500), st.integers(1, 500)),
    order=st.sampled_from("CF"),
    compression=st.sampled_from(pzf.COMPRESSIONS),
    quantisation=st.sampled_from(["none", "sqrt"]),
    quant_offset=st.floats(0, 65_535, width=32),
    quant_scale=st.floats(0, 100, width=32),
    sequence_id=st.integers(-(2**63), 2**63 - 1),
    frame_number=st.integers(0, 2**32 - 1),
    timestamp=st.integers(0, 2**64 - 1),
)


@given(headers)
def test_every_header_comes_back(header: pzf.Header) -> None:
    assert pzf.parse_header(header.pack()) == header


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence_id", 2**63),
        ("sequence_id", -(2**63) - 1),
        ("frame_number", -1),
        ("frame_number", 2**32),
        ("timestamp", -1),
        ("timestamp", 2**64),
        ("shape", (3, 4, 0)),
        ("shape", (2**32, 0, 1)),
        ("shape", (32_768, 16_384, 2)),  # 2 GiB of u2
        ("shape", (0, 2**31, 2**31)),  # no bytes at all, and no array
    ],
)
def test_what_no_header_can_hold_is_not_packed(field: str, value: Any) -> None:
    with pytest.raises(WrongFrame):
        replace(EXAMPLE_AS_HEADER, **{field: value}).pack()


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (changed(0, b"DB"), "BD"),
        (changed(3, b"\x03"), "sample type"),
        (changed(4, b"\x03"), "compression"),
        (changed(5, b"\x02"), "quantisation"),
        (changed(6, b"c"), "order"),
        (changed(6, b"\x00", changed(2, b"\x02")), "order"),
        (changed(28, u4(0)), "depth"),
        (changed(20, u4(2**31, 2**31, 2**31)), "limit"),
        (changed(20, u4(32_768, 16_384, 2)), "limit"),
        (changed(20, u4(0, 2**31, 2**31)), "no array is that long"),
        (changed(48, u4(63)), "begin at byte"),
        (changed(48, u4(89)), "begin at byte"),
        (EXAMPLE[:63], "64 bytes"),
        (EXAMPLE[:47], "48 bytes"),
        (b"", "48 bytes"),
    ],
)
def test_a_wrong_header_is_refused_with_its_reason(file: bytes, why: str) -> None:
    with pytest.raises(BadFrame, match=why):
        pzf.parse_header(file)


def test_a_frame_of_exactly_the_limit_is_accepted() -> None:
    assert pzf.parse_header(changed(20, u4(32_768, 16_384, 1))).frame_bytes == 1_073_741_824


@pytest.mark.parametrize("version", [3, 4, 255])
def test_versions_from_3_on_are_read_as_3(version: int) -> None:
    file = changed(2, bytes([version]))
    assert pzf.parse_header(file) == replace(EXAMPLE_AS_HEADER, version=version)


@pytest.mark.parametrize(("version", "order"), [(0, "C"), (1, "C"), (2, "F")])
def test_old_versions_begin_at_byte_48_and_know_order_from_2_on(version: int, order: pzf.Order) -> None:
    file = changed(6, b"F", changed(2, bytes([version])))[:48] + EXAMPLE_SAMPLES
    header = pzf.parse_header(file)
    assert header == replace(EXAMPLE_AS_HEADER, version=version, order=order, data_offset=48)
    assert pzf.payload(header, file) == EXAMPLE_SAMPLES


@pytest.mark.parametrize("version", [0, 1])
def test_an_order_byte_that_means_nothing_yet_may_be_anything(version: int) -> None:
    assert pzf.parse_header(changed(6, b"\x00", changed(2, bytes([version])))).order == "C"


def test_raw_samples_are_a_view_of_the_file() -> None:
    samples = pzf.payload(EXAMPLE_AS_HEADER, EXAMPLE)
    assert isinstance(samples, memoryview)
    assert samples.obj is EXAMPLE
    assert samples == EXAMPLE_SAMPLES


def test_samples_begin_where_the_header_says() -> None:
    file = changed(48, u4(96), EXAMPLE_HEADER) + bytes(32) + EXAMPLE_SAMPLES
    assert pzf.payload(pzf.parse_header(file), file) == EXAMPLE_SAMPLES


@pytest.mark.parametrize("file", [EXAMPLE[:-1], EXAMPLE + b"\x00"], ids=["one less", "one more"])
def test_raw_samples_of_another_length_are_refused(file: bytes) -> None:
    with pytest.raises(BadFrame, match="promises 24 bytes"):
        pzf.payload(pzf.parse_header(file), file)


def test_bytes_after_a_huffman_payload_are_ignored() -> None:
    header = replace(EXAMPLE_AS_HEADER, compression="huffman")
    stream = huffman.encode(EXAMPLE_SAMPLES)
    assert stream is not None
    assert pzf.payload(header, header.pack() + stream + b"junk") == EXAMPLE_SAMPLES


def test_a_quantised_payload_has_one_byte_for_each_sample_even_when_raw() -> None:
    header = replace(EXAMPLE_AS_HEADER, quantisation="sqrt", quant_scale=1.0)
    assert pzf.payload(header, header.pack() + bytes(range(12))) == bytes(range(12))
    with pytest.raises(BadFrame, match="promises 12 bytes"):
        pzf.payload(header, header.pack() + EXAMPLE_SAMPLES)


def chunked(*chunks: tuple[bytes, int]) -> bytes:
    """Return chunks given as stream and stated length."""
    framed = [u4(len(stream), length) + stream for stream, length in chunks]
    return struct.pack("<H", len(chunks)) + b"".join(framed)


THREE_AND_TWO = chunked((b"\xb0\x80", 3), (b"\xb1\x00", 2))  # aaa bb as single leaves


def test_chunks_are_joined() -> None:
    assert pzf.decode_chunks(THREE_AND_TWO, 5) == b"aaabb"


def test_bytes_after_the_last_chunk_are_ignored() -> None:
    assert pzf.decode_chunks(THREE_AND_TWO + b"junk", 5) == b"aaabb"


@pytest.mark.parametrize("length", [0, 3, 4, 6])
def test_chunks_that_hold_more_or_less_than_promised_are_refused(length: int) -> None:
    with pytest.raises(BadFrame, match="exactly"):
        pzf.decode_chunks(THREE_AND_TWO, length)


@pytest.mark.parametrize("length", range(len(THREE_AND_TWO)))
def test_shortened_chunks_are_refused(length: int) -> None:
    with pytest.raises(BadFrame):
        pzf.decode_chunks(THREE_AND_TWO[:length], 5)


def test_a_chunk_cannot_use_the_bytes_of_the_next() -> None:
    with pytest.raises(BadFrame, match="inside its tree"):
        pzf.decode_chunks(chunked((b"\xb0", 3), (b"\xb1\x00", 2)), 5)


def test_a_chunk_that_promises_4_gib_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(BadFrame, match="exactly"):
        pzf.decode_chunks(chunked((b"\xb0\x80", 2**32 - 1)), 5)


def test_chunks_are_written_as_count_lengths_and_streams() -> None:
    with mock.patch.object(pzf, "CHUNK_BYTES", 3):
        assert pzf.encode_chunks(b"aaabb") == chunked((b"\xb0\x80", 3), (b"\xb1\x00", 2))


@given(st.binary(max_size=200), st.integers(1, 40))
def test_any_bytes_come_back_from_chunks(data: bytes, chunk_bytes: int) -> None:
    with mock.patch.object(pzf, "CHUNK_BYTES", chunk_bytes):
        stored = pzf.encode_chunks(data)
    assert pzf.decode_chunks(stored, len(data)) == data


def test_no_chunk_is_long_enough_for_a_code_that_pyme_cannot_write() -> None:
    assert pzf.CHUNK_BYTES <= huffman.SHORT_CODES_BYTES_MAX


def test_the_largest_frame_needs_no_more_chunks_than_can_be_counted() -> None:
    assert pzf.FRAME_BYTES_MAX / pzf.CHUNK_BYTES == 4096


def test_reading_bytes_needs_no_numpy() -> None:
    """A node checks frames without it."""
    program = "import sys, granum.wire.pzf; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
