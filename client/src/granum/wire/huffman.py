"""The Huffman stream of PZF frames: one bit string, tree first, codes after it, no length and no end mark.

Bits are packed most significant first. The tree comes in pre-order: an inner node is a `0` followed by its two subtrees
(code bit 0, then code bit 1), a leaf is a `1` followed by the 8 bits of its symbol. The codes of the input bytes follow
without alignment, then zero bits to the end of the byte. When the tree is a single leaf, an encoder writes one `0` for
each byte and a decoder reads none of them.

The rule: `encode` writes byte for byte what PYME's encoder writes; `decode` never reads past its input, builds no tree
larger than 256 leaves and accepts codes of any length. Neither knows what the bytes mean or where their number is kept.
"""

import heapq
from collections import Counter
from collections.abc import Mapping

from granum.wire.errors import BadFrame

Bytes = bytes | bytearray | memoryview

# PYME's encoder may write longer codes wrongly, so `encode` leaves such input to be stored raw.
CODE_BITS_MAX = 25

# A code of L bits takes at least F(L + 2) input bytes (Fibonacci); F(28) = 317,811 would allow one of 26 bits.
SHORT_CODES_BYTES_MAX = 317_810

_INNER_NODES_MAX = 255  # joins 256 leaves, one for each symbol; a tree with more is not one of bytes
_TREE_BYTES_MAX = 320  # 255 inner nodes of 1 bit and 256 leaves of 9 bits are 2,559 bits
_BLOCK_BYTES = 1 << 16  # coded at a time, so that bits as text and lists of symbols stay below a few MiB

_Step = tuple[bytes, int]  # what one byte of codes completes, and the inner node where it stops


def encode(data: Bytes) -> bytes | None:
    """Return the stream that holds *data*, or None when a code would exceed `CODE_BITS_MAX` bits.

    Empty data give an empty stream. Up to `SHORT_CODES_BYTES_MAX` bytes never give None.
    """
    data = bytes(data)
    if not data:
        return b""
    tree, codes = _tree_and_codes(Counter(data))
    if len(codes) == 1:
        size = -(-(len(tree) + len(data)) // 8)
        return _packed(tree).ljust(size, b"\0")
    if max(map(len, codes.values())) > CODE_BITS_MAX:
        return None
    pieces = []
    bits = tree
    for start in range(0, len(data), _BLOCK_BYTES):
        bits += "".join(map(codes.__getitem__, data[start : start + _BLOCK_BYTES]))
        whole = len(bits) // 8 * 8
        pieces.append(_packed(bits[:whole]))
        bits = bits[whole:]
    pieces.append(_packed(bits))
    return b"".join(pieces)


def decode(stream: Bytes, length: int) -> bytes:
    """Return the *length* bytes that *stream* holds; whatever follows them is ignored.

    Raises BadFrame when the stream ends too early or its tree has more than 256 leaves. The result can be much longer
    than the stream (a single leaf takes no bits), so bound *length* before calling.
    """
    if length == 0:
        return b""
    stream = bytes(stream)
    root, nodes, position = _read_tree(stream[:_TREE_BYTES_MAX])
    if root < 0:
        return bytes([~root]) * length
    return _read_codes(stream, position, nodes, length)


def _packed(bits: str) -> bytes:
    """Return *bits* with zero bits up to the end of the last byte."""
    size = -(-len(bits) // 8)
    return int(bits.ljust(size * 8, "0") or "0", 2).to_bytes(size, "big")


def _tree_and_codes(counts: Mapping[int, int]) -> tuple[str, dict[int, str]]:
    """Return the tree as bits and the code of each symbol as bits.

    The order in which nodes are joined decides the bits, and PYME's is: the two first by ascending count, then by
    descending number; leaves are numbered by ascending symbol, joined nodes after them.
    """
    symbols = sorted(counts)
    trees = [f"1{symbol:08b}" for symbol in symbols]
    members = [[symbol] for symbol in symbols]
    codes = dict.fromkeys(symbols, "")
    heap = [(counts[symbol], -number) for number, symbol in enumerate(symbols)]
    heapq.heapify(heap)
    while len(heap) > 1:
        zero_count, zero = heapq.heappop(heap)
        one_count, one = heapq.heappop(heap)
        for symbol in members[-zero]:
            codes[symbol] = "0" + codes[symbol]
        for symbol in members[-one]:
            codes[symbol] = "1" + codes[symbol]
        heapq.heappush(heap, (zero_count + one_count, -len(trees)))
        trees.append("0" + trees[-zero] + trees[-one])
        members.append(members[-zero] + members[-one])
    return trees[-1], codes


def _read_tree(head: bytes) -> tuple[int, list[list[int]], int]:
    """Return the root, the two branches of each inner node, and the position of the first bit after the tree.

    The root and a branch are the number of an inner node, or ~symbol, which is negative, for a leaf.
    """
    bits = "".join(f"{byte:08b}" for byte in head)
    nodes: list[list[int]] = []
    growing: list[list[int]] = []  # inner nodes on the way to the current one that lack a branch
    position = 0
    while True:
        if bits.startswith("0", position):
            if len(nodes) == _INNER_NODES_MAX:
                raise BadFrame("the Huffman tree has more than 256 leaves; the frame is damaged")
            branch = len(nodes)
            nodes.append([])
            position += 1
        else:
            symbol = bits[position + 1 : position + 9]
            if len(symbol) < 8:
                raise BadFrame("the Huffman stream ends inside its tree; the frame is damaged or cut short")
            branch = ~int(symbol, 2)
            position += 9
        if growing:
            growing[-1].append(branch)
        if branch >= 0:
            growing.append(nodes[branch])
        while growing and len(growing[-1]) == 2:
            growing.pop()
        if not growing:
            return (0 if nodes else branch), nodes, position


def _read_codes(stream: bytes, position: int, nodes: list[list[int]], length: int) -> bytes:
    """Decode *length* symbols from bit *position* on, whole bytes at a time.

    An automaton with the inner nodes as states: the step for a state and a byte is found by walking the tree the first
    time that the pair is met, and looked up from then on.
    """
    steps: list[list[_Step | None]] = [[None] * 256 for _ in nodes]
    first = -(-position // 8)
    rest_of_byte = f"{stream[position // 8]:08b}"[position % 8 :] if position % 8 else ""
    symbols, state = _walk(nodes, 0, rest_of_byte)
    pieces = [symbols]
    missing = length - len(symbols)
    for start in range(first, len(stream), _BLOCK_BYTES):
        if missing <= 0:
            break
        block: list[bytes] = []
        append = block.append
        for byte in stream[start : start + _BLOCK_BYTES]:
            step = steps[state][byte]
            if step is None:
                step = steps[state][byte] = _walk(nodes, state, f"{byte:08b}")
            symbols, state = step
            append(symbols)
        pieces.append(b"".join(block))
        missing -= len(pieces[-1])
    if missing > 0:
        raise BadFrame(f"the Huffman stream ends {missing:,} bytes too early; the frame is damaged or cut short")
    return b"".join(pieces)[:length]


def _walk(nodes: list[list[int]], state: int, bits: str) -> _Step:
    """Return the symbols that *bits* complete when read from inner node *state* on, and the inner node reached."""
    symbols = bytearray()
    for bit in bits:
        branch = nodes[state][bit == "1"]
        if branch < 0:
            symbols.append(~branch)
            branch = 0
        state = branch
    return bytes(symbols), state
