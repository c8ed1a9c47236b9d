"""Records: what is written is read back, and what is damaged is never taken for one."""

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from granum.streaming.record import (
    Head,
    decode_entries,
    decode_head,
    encode_entries,
    is_body,
    is_cut,
    record_length,
)
from granum.wire.paths import ClusterPath

PATH = ClusterPath.parse("/run/naïve µm")
HEAD = Head.of([b"fra", memoryview(b"me")], seq=7, number=3, path=PATH)


def test_a_head_lies_on_disk_as_it_is_written_down() -> None:
    raw = HEAD.encode()
    unchecked = (
        b"\5\0\0\0\0\0\0\0"
        + bytes(8)
        + xxhash.xxh3_128_digest(b"frame")
        + b"\7\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\x0f\0\xf0\xff"
        + "/run/naïve µm".encode()
    )
    assert raw == unchecked[:8] + xxhash.xxh3_64_intdigest(unchecked).to_bytes(8, "little") + unchecked[16:]


@given(
    st.lists(st.binary(max_size=50), max_size=4),
    st.integers(0, 2**63),
    st.none() | st.integers(-(2**62), 2**62),
    st.sampled_from(["/a", "/run/frame00001.pzf", "/µ/" + "x" * 255]),
)
def test_what_is_encoded_is_decoded(pieces: list[bytes], seq: int, number: int | None, path: str) -> None:
    head = Head.of(pieces, seq=seq, number=number, path=ClusterPath.parse(path))
    body = b"".join(pieces)
    assert decode_head(head.encode() + body) == head
    assert is_body(head, memoryview(body))
    assert head.length == len(head.encode()) + len(body) == record_length(head.path, len(body))


@given(st.data())
def test_a_flipped_bit_of_a_head_is_seen(data: st.DataObject) -> None:
    raw = bytearray(HEAD.encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert decode_head(bytes(raw)) is None


@pytest.mark.parametrize("body", [b"Frame", b"fram", b"frame!", b""])
def test_another_body_is_seen(body: bytes) -> None:
    assert not is_body(HEAD, memoryview(body))


@pytest.mark.parametrize("at", range(48, 52))
@pytest.mark.parametrize("bit", range(8))
def test_a_damaged_length_does_not_pass_for_a_write_that_was_never_over(at: int, bit: int) -> None:
    raw = bytearray(HEAD.encode() + b"frame")
    raw[at] ^= 1 << bit
    assert not is_cut(bytes(raw))


def test_a_head_cut_off_anywhere_is_no_head_but_a_write_that_was_never_over() -> None:
    raw = HEAD.encode()
    assert [decode_head(raw[:size]) for size in range(len(raw))] == [None] * len(raw)
    assert all(is_cut(raw[:size]) for size in range(len(raw)))


@pytest.mark.parametrize("rest", [bytes(100), b"\xff" * 100])
def test_what_is_long_enough_and_no_head_is_damage(rest: bytes) -> None:
    assert decode_head(rest) is None
    assert not is_cut(rest)


@given(st.sets(st.integers(0, 2**64 - 1), min_size=1, max_size=9), st.data())
def test_a_damaged_entry_of_a_docket_hides_no_other(seqs: set[int], data: st.DataObject) -> None:
    ordered = sorted(seqs)
    raw = bytearray(encode_entries(ordered))
    assert decode_entries(bytes(raw)) == seqs
    hit = data.draw(st.integers(0, len(raw) - 1))
    raw[hit] ^= 1
    assert decode_entries(bytes(raw)) == seqs - {ordered[hit // 16]}
    assert decode_entries(bytes(raw[: len(raw) - 1])) <= seqs
