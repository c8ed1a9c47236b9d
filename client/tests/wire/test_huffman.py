"""The Huffman stream: exact bytes, any tree, no trust in what is read."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.wire import huffman
from granum.wire.errors import BadFrame

GOLDEN = Path(__file__).parents[1] / "data" / "pzf"
WHOLE_STREAMS = [
    entry
    for entry in json.loads((GOLDEN / "index.json").read_text())["frames"]
    if entry["compression"] == "huffman" and entry["written_by"].startswith("PYME")
]

# 0 to 11 as little-endian u2
TWELVE_SAMPLES = bytes.fromhex("00000100020003000400050006000700080009000a000b00")
TWELVE_SAMPLES_STREAM = bytes.fromhex("082c11078310140e044261085c2a01a575461395b65f74")

# A tree is a symbol or a pair of trees.
Tree = int | tuple["Tree", "Tree"]


def packed(bits: str) -> bytes:
    return bytes(int(bits[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(bits), 8))


def tree_bits(tree: Tree) -> str:
    return f"1{tree:08b}" if isinstance(tree, int) else "0" + tree_bits(tree[0]) + tree_bits(tree[1])


def leaves(tree: Tree, code: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(tree, int):
        yield code, tree
    else:
        yield from leaves(tree[0], code + "0")
        yield from leaves(tree[1], code + "1")


def read_tree(bits: Iterator[str]) -> Tree:
    """Read a tree recursively; ValueError says that it has too many inner nodes."""
    inner = itertools.count(1)

    def read() -> Tree:
        if next(bits) == "1":
            return int("".join([next(bits) for _ in range(8)]), 2)
        if next(inner) > 255:
            raise ValueError
        return read(), read()

    return read()


def slow_decode(stream: bytes, length: int) -> bytes:
    """Decode bit by bit along nested pairs; StopIteration and ValueError say that the stream is refused."""
    bits = iter("".join(f"{byte:08b}" for byte in stream))
    tree = read_tree(bits) if length else 0
    symbols = bytearray()
    for _ in range(length):
        node = tree
        while not isinstance(node, int):
            node = node[next(bits) == "1"]
        symbols.append(node)
    return bytes(symbols)


def comb(leaf_count: int) -> Tree:
    """Return the deepest tree of that many leaves: symbol n hangs at depth n + 1."""
    tree: Tree = leaf_count - 1
    for symbol in reversed(range(leaf_count - 1)):
        tree = (symbol, tree)
    return tree


# A strategy by st.recursive keeps trees small; splitting a list of symbols gives up to 256 leaves and any shape.
@st.composite
def trees(draw: st.DrawFn) -> Tree:
    forest: list[Tree] = list(draw(st.lists(st.integers(0, 255), min_size=1, max_size=60, unique=True)))
    while len(forest) > 1:
        at = draw(st.integers(0, len(forest) - 2))
        forest[at : at + 2] = [(forest[at], forest[at + 1])]
    return forest[0]


def test_worked_example_is_encoded_byte_for_byte() -> None:
    assert huffman.encode(TWELVE_SAMPLES) == TWELVE_SAMPLES_STREAM


def test_worked_example_is_decoded() -> None:
    assert huffman.decode(TWELVE_SAMPLES_STREAM, 24) == TWELVE_SAMPLES


@pytest.mark.parametrize("entry", WHOLE_STREAMS, ids=lambda entry: entry["file"])
def test_encoding_what_pymes_stream_holds_gives_that_stream(entry: dict[str, Any]) -> None:
    """Also the quantised files: their levels are PYME's, so their stream can be compared exactly."""
    stream = (GOLDEN / entry["file"]).read_bytes()[64:]
    width, height, depth = entry["shape"]
    sample_bytes = 1 if entry["quantisation"] == "sqrt" else int(entry["dtype"][1])
    assert huffman.encode(huffman.decode(stream, width * height * depth * sample_bytes)) == stream


@pytest.mark.parametrize(
    ("data", "stream"),
    [
        (b"", ""),
        (b"\x00", "8000"),
        (b"\xff", "ff80"),
        (b"aaaaaaa", "b080"),  # 9 bits of tree and 7 zero bits fill two bytes exactly
        (b"aaaaaaaa", "b08000"),
        (b"ab", "58ac30"),  # at equal counts the later leaf, b, becomes branch 0: 0 1·62 1·61, a = 1, b = 0
    ],
)
def test_small_streams_are_exact(data: bytes, stream: str) -> None:
    assert huffman.encode(data) == bytes.fromhex(stream)


@given(st.binary(max_size=3000))
def test_any_bytes_come_back(data: bytes) -> None:
    stream = huffman.encode(data)
    assert stream is not None
    assert huffman.decode(stream, len(data)) == data


@given(st.lists(st.sampled_from(b"abcdefgh"), min_size=1, max_size=400).map(bytes), st.integers(1, 9))
def test_the_size_of_the_blocks_does_not_show(data: bytes, block_bytes: int) -> None:
    whole = huffman.encode(data)
    assert whole is not None
    with mock.patch.object(huffman, "_BLOCK_BYTES", block_bytes):
        assert huffman.encode(data) == whole
        assert huffman.decode(whole, len(data)) == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_bytes_is_taken(kind: type) -> None:
    assert huffman.encode(kind(TWELVE_SAMPLES)) == TWELVE_SAMPLES_STREAM
    assert huffman.decode(kind(TWELVE_SAMPLES_STREAM), 24) == TWELVE_SAMPLES


@given(trees(), st.data())
def test_a_stream_with_any_prefix_tree_is_decoded(tree: Tree, data: st.DataObject) -> None:
    coded = data.draw(st.lists(st.sampled_from(list(leaves(tree))), max_size=200))
    stream = packed(tree_bits(tree) + "".join(code for code, _ in coded))
    assert huffman.decode(stream, len(coded)) == bytes(symbol for _, symbol in coded)


def test_codes_of_255_bits_are_decoded() -> None:
    coded = [leaf for leaf in leaves(comb(256)) if leaf[1] in (0, 7, 254, 255)]
    stream = packed(tree_bits(comb(256)) + "".join(code for code, _ in coded) * 3)
    assert huffman.decode(stream, 12) == bytes([0, 7, 254, 255] * 3)


@given(trees(), st.binary(max_size=60), st.integers(0, 300))
def test_any_stream_is_read_as_the_slow_decoder_reads_it(tree: Tree, codes: bytes, length: int) -> None:
    """Good trees with arbitrary code bits after them: same bytes, or both refuse."""
    stream = packed(tree_bits(tree)) + codes
    try:
        expected = slow_decode(stream, length)
    except StopIteration:
        with pytest.raises(BadFrame):
            huffman.decode(stream, length)
    else:
        assert huffman.decode(stream, length) == expected


@given(st.binary(max_size=400), st.integers(0, 500))
def test_random_bytes_are_read_as_the_slow_decoder_reads_them(stream: bytes, length: int) -> None:
    try:
        expected = slow_decode(stream, length)
    except (StopIteration, ValueError):
        with pytest.raises(BadFrame):
            huffman.decode(stream, length)
    else:
        assert huffman.decode(stream, length) == expected


@given(st.binary(min_size=2, max_size=300).filter(lambda data: len(set(data)) > 1), st.data())
def test_a_shortened_stream_is_refused(data: bytes, draws: st.DataObject) -> None:
    stream = huffman.encode(data)
    assert stream is not None
    with pytest.raises(BadFrame):
        huffman.decode(stream[: draws.draw(st.integers(0, len(stream) - 1))], len(data))


def test_no_symbol_is_made_of_bits_that_are_not_there() -> None:
    """After 'ab' three zero bits are left, each of which would be a 'b'."""
    stream = bytes.fromhex("58ac30")
    assert huffman.decode(stream, 5) == b"abbbb"
    with pytest.raises(BadFrame, match="1 bytes too early"):
        huffman.decode(stream, 6)


def test_what_follows_the_codes_is_ignored() -> None:
    assert huffman.decode(TWELVE_SAMPLES_STREAM + b"\xa5" * 100, 24) == TWELVE_SAMPLES


def test_a_single_leaf_takes_no_bits() -> None:
    assert huffman.decode(bytes.fromhex("b080"), 1_000_000) == b"a" * 1_000_000


def test_an_empty_stream_holds_nothing() -> None:
    assert huffman.decode(b"", 0) == b""
    with pytest.raises(BadFrame):
        huffman.decode(b"", 1)


@pytest.mark.parametrize("size", [40, 320, 10_000_000])
def test_a_tree_without_leaves_is_refused(size: int) -> None:
    with pytest.raises(BadFrame):
        huffman.decode(bytes(size), 100)


def test_a_tree_of_257_leaves_is_refused() -> None:
    tree: Tree = 0
    for symbol in range(256):
        tree = (symbol, tree)
    with pytest.raises(BadFrame, match="more than 256 leaves"):
        huffman.decode(packed(tree_bits(tree)) + bytes(100), 1)


def fibonacci_histogram(symbol_count: int) -> bytes:
    """Return the fewest bytes whose longest code has symbol_count - 1 bits: counts 1, 1, 1, 2, 3, 5, …"""
    counts = [1, 1, 1]
    while len(counts) < symbol_count:
        counts.append(counts[-1] + counts[-2])
    return b"".join(bytes([symbol]) * count for symbol, count in enumerate(counts))


def test_codes_of_25_bits_are_written() -> None:
    data = fibonacci_histogram(26)
    stream = huffman.encode(data)
    assert stream is not None
    tree = read_tree(iter("".join(f"{byte:08b}" for byte in stream[:320])))
    assert max(len(code) for code, _ in leaves(tree)) == 25
    assert huffman.decode(stream, len(data)) == data


def test_codes_of_26_bits_are_left_to_be_stored_raw() -> None:
    """It takes one byte more than the length up to which `encode` never declines."""
    data = fibonacci_histogram(27)
    assert len(data) == 317_811 == huffman.SHORT_CODES_BYTES_MAX + 1
    assert huffman.encode(data) is None
