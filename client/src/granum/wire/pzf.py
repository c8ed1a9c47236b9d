"""The PZF file: a header of 64 bytes, then the samples of one frame, raw or compressed.

Everything is little-endian. `parse_header` accepts all versions that PYME has written, `Header.pack` writes version 3
with the samples at byte 64. `payload` undoes the compression and nothing else.

The rule: whatever the bytes, reading gives exactly the samples that the header promises, at most `FRAME_BYTES_MAX`, or
raises BadFrame. This module knows bytes only; arrays and what quantisation means are in `frame`.
"""

import struct
from dataclasses import dataclass
from math import prod
from typing import Final, Literal, TypeVar, get_args

from granum.wire import huffman
from granum.wire.errors import BadFrame, WrongFrame
from granum.wire.huffman import Bytes

SampleType = Literal["u1", "u2", "f4"]
Compression = Literal["raw", "huffman", "chunks"]
QuantisationKind = Literal["none", "sqrt"]
Order = Literal["C", "F"]

VERSION = 3
HEADER_BYTES = 64
LEGACY_HEADER_BYTES = 48  # versions 0 to 2, whose samples always start there

# A stream of two bytes can promise any number of equal samples, so the size is bounded before anything is decoded.
# The largest sCMOS frames have 64 MiB; a whole stack of 2048 x 2048 x 128 u2 samples has exactly this size.
FRAME_BYTES_MAX = 1 << 30

# Short enough that no code is ever too long, and 1 GiB needs 4,096 of the 65,535 chunks that a file can count.
CHUNK_BYTES = 1 << 18

_MAGIC = b"BD"
# magic, version, sample type, compression, quantisation, order, reserved, sequence id, frame number, width, height,
# depth, timestamp, quantisation offset and scale
_LEGACY = struct.Struct("<2s4BcBqIIIIQff")
_SEQUENCE_ID_AT, _SHAPE_AT, _TIMESTAMP_AT, _QUANTISATION_AT = 8, 20, 32, 40  # bytes of _LEGACY before each
_FRAME_NUMBER_AT = 16
_DATA_OFFSET = struct.Struct("<I12x")
_CHUNK_COUNT = struct.Struct("<H")
_CHUNK = struct.Struct("<II")  # length of the stream, length of what it holds

# The code of each is its place.
SAMPLE_TYPES: Final[tuple[SampleType, ...]] = get_args(SampleType)
COMPRESSIONS: Final[tuple[Compression, ...]] = get_args(Compression)
_QUANTISATIONS: Final[tuple[QuantisationKind, ...]] = get_args(QuantisationKind)
_SAMPLE_BYTES: Final[dict[SampleType, int]] = {"u1": 1, "u2": 2, "f4": 4}

_Name = TypeVar("_Name", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a PZF file says about its frame.

    `shape` is (width, height, depth); index 0 is the slow axis in order C and the fast one in order F. `timestamp` is
    the camera's, in units of its own. `quant_offset` and `quant_scale` are in counts and roots of counts, 0 when unused.
    """

    dtype: SampleType
    shape: tuple[int, int, int]
    order: Order = "C"
    compression: Compression = "raw"
    quantisation: QuantisationKind = "none"
    quant_offset: float = 0.0
    quant_scale: float = 0.0
    sequence_id: int = 0
    frame_number: int = 0
    timestamp: int = 0
    version: int = VERSION
    data_offset: int = HEADER_BYTES

    @property
    def frame_bytes(self) -> int:
        """Size of the frame in memory, in bytes."""
        return prod(self.shape) * _SAMPLE_BYTES[self.dtype]

    @property
    def extent(self) -> int:
        """Number of samples if no side were empty: an array without samples cannot have sides of any length either."""
        return prod(max(side, 1) for side in self.shape)

    @property
    def payload_bytes(self) -> int:
        """Size of the payload once decompressed, in bytes: that of the frame, or one for each quantised sample."""
        return self.frame_bytes if self.quantisation == "none" else prod(self.shape)

    def pack(self) -> bytes:
        """Return the 64 bytes of a version 3 header with the samples right after it, whatever this one was read from.

        Raises WrongFrame when a number does not fit its field, or the frame has no depth or exceeds `FRAME_BYTES_MAX`.
        """
        width, height, depth = self.shape
        for name, value, low, high in (
            ("width", width, 0, 2**32 - 1),
            ("height", height, 0, 2**32 - 1),
            ("depth", depth, 1, 2**32 - 1),
            ("size in bytes", self.frame_bytes, 0, FRAME_BYTES_MAX),
            ("extent", self.extent, 0, FRAME_BYTES_MAX),
            ("frame number", self.frame_number, 0, 2**32 - 1),
            ("sequence id", self.sequence_id, -(2**63), 2**63 - 1),
            ("timestamp", self.timestamp, 0, 2**64 - 1),
        ):
            if not low <= value <= high:
                raise WrongFrame(f"the {name} of the frame is {value}; PZF holds {low} to {high}")
        return _LEGACY.pack(
            _MAGIC,
            VERSION,
            SAMPLE_TYPES.index(self.dtype),
            COMPRESSIONS.index(self.compression),
            _QUANTISATIONS.index(self.quantisation),
            self.order.encode("ascii"),
            0,
            self.sequence_id,
            self.frame_number,
            width,
            height,
            depth,
            self.timestamp,
            self.quant_offset,
            self.quant_scale,
        ) + _DATA_OFFSET.pack(HEADER_BYTES)


def renumbered(header: bytes, frame_number: int) -> bytes:
    """Return what `Header.pack` makes, *header*, for the frame *frame_number* of the same series; 0 to 2**32 - 1."""
    return header[:_FRAME_NUMBER_AT] + frame_number.to_bytes(4, "little") + header[_FRAME_NUMBER_AT + 4 :]


def parse_header(data: Bytes) -> Header:
    """Return the header that *data*, a PZF file from its first byte on, begins with.

    Versions above 3 are read as 3, version 0 as 1, and order is C before version 2. Raises BadFrame when *data* is not
    a PZF file, ends before its samples begin, or promises something that no PZF file holds.
    """
    if len(data) < LEGACY_HEADER_BYTES:
        raise BadFrame(f"a PZF header has at least {LEGACY_HEADER_BYTES} bytes, here are {len(data)}")
    fields = _LEGACY.unpack_from(data)
    magic, version, sample_type, compression, quantisation, order, _reserved, sequence_id, frame_number = fields[:9]
    width, height, depth, timestamp, quant_offset, quant_scale = fields[9:]
    if magic != _MAGIC:
        raise BadFrame("the file does not begin with 'BD', so it is not a PZF frame")
    if version < 2:
        order = b"C"
    if order not in (b"C", b"F"):
        raise BadFrame(f"the order of the samples is {order!r}; C and F are known")
    if depth == 0:
        raise BadFrame("the frame has no depth")
    header = Header(
        dtype=_decoded("sample type", sample_type, SAMPLE_TYPES),
        shape=(width, height, depth),
        order="F" if order == b"F" else "C",
        compression=_decoded("compression", compression, COMPRESSIONS),
        quantisation=_decoded("quantisation", quantisation, _QUANTISATIONS),
        quant_offset=quant_offset,
        quant_scale=quant_scale,
        sequence_id=sequence_id,
        frame_number=frame_number,
        timestamp=timestamp,
        version=version,
        data_offset=_data_offset(data, version),
    )
    if header.frame_bytes > FRAME_BYTES_MAX:
        raise BadFrame(f"the header promises {header.frame_bytes:,} bytes of samples; the limit is {FRAME_BYTES_MAX:,}")
    if header.extent > FRAME_BYTES_MAX:
        raise BadFrame(
            f"the header promises a frame of {width:,} x {height:,} x {depth:,} samples; no array is that long"
        )
    return header


def kind(data: bytes) -> bytes:
    """Return what the header of the file *data* says of its samples, and nothing of which frame they are.

    Of two files of one length and kind, of which one is raw and whole, the samples have one type, shape, order and place.
    """
    return data[:_SEQUENCE_ID_AT] + data[_SHAPE_AT:_TIMESTAMP_AT] + data[_QUANTISATION_AT:HEADER_BYTES]


def payload(header: Header, data: Bytes) -> bytes | memoryview:
    """Return the `header.payload_bytes` bytes of samples in *data*, the whole file that *header* was parsed from.

    Raw samples are a view of *data*, not a copy. Raises BadFrame unless the file holds exactly that many raw samples,
    or a compressed payload that yields exactly that many; bytes after a compressed payload are ignored.
    """
    stored = memoryview(data)[header.data_offset :]
    if header.compression == "huffman":
        return huffman.decode(stored, header.payload_bytes)
    if header.compression == "chunks":
        return decode_chunks(stored, header.payload_bytes)
    if len(stored) != header.payload_bytes:
        raise BadFrame(f"the header promises {header.payload_bytes:,} bytes of samples, the file has {len(stored):,}")
    return stored


def encode_chunks(data: Bytes) -> bytes:
    """Return *data* as a count and that many Huffman streams of up to `CHUNK_BYTES` each.

    For programs that ask for chunks; PYME cannot write them, nor read them with NumPy 2.
    """
    view = memoryview(data).cast("B")
    starts = range(0, len(view), CHUNK_BYTES)
    pieces = [_CHUNK_COUNT.pack(len(starts))]
    for start in starts:
        chunk = view[start : start + CHUNK_BYTES]
        stream = huffman.encode(chunk)
        assert stream is not None  # CHUNK_BYTES is below SHORT_CODES_BYTES_MAX
        pieces += [_CHUNK.pack(len(stream), len(chunk)), stream]
    return b"".join(pieces)


def decode_chunks(stored: Bytes, length: int) -> bytes:
    """Return the *length* bytes that the chunks in *stored* hold together; whatever follows them is ignored.

    Raises BadFrame when they hold more or fewer, or *stored* ends inside one.
    """
    view = memoryview(stored)
    if len(view) < _CHUNK_COUNT.size:
        raise BadFrame("the file ends before its chunks")
    (count,) = _CHUNK_COUNT.unpack_from(view)
    position = _CHUNK_COUNT.size
    missing = length
    pieces = []
    for _ in range(count):
        if len(view) - position < _CHUNK.size:
            raise BadFrame("the file ends between two chunks")
        stream_bytes, chunk_bytes = _CHUNK.unpack_from(view, position)
        position += _CHUNK.size
        if len(view) - position < stream_bytes:
            raise BadFrame("the file ends inside a chunk")
        missing -= chunk_bytes
        if missing < 0:
            break
        pieces.append(huffman.decode(view[position : position + stream_bytes], chunk_bytes))
        position += stream_bytes
    if missing:
        raise BadFrame(f"the chunks do not hold exactly the {length:,} bytes of samples that the header promises")
    return b"".join(pieces)


def _decoded(field: str, code: int, names: tuple[_Name, ...]) -> _Name:
    """Return the name that *code* stands for."""
    if code >= len(names):
        raise BadFrame(f"the {field} has the unknown code {code}")
    return names[code]


def _data_offset(data: Bytes, version: int) -> int:
    """Return where the samples begin: fixed before version 3, stated since."""
    if version < 3:
        return LEGACY_HEADER_BYTES
    if len(data) < HEADER_BYTES:
        raise BadFrame(f"a PZF header of version {version} has {HEADER_BYTES} bytes, here are {len(data)}")
    (offset,) = _DATA_OFFSET.unpack_from(data, _LEGACY.size)
    if not HEADER_BYTES <= offset <= len(data):
        raise BadFrame(f"the samples should begin at byte {offset:,}, but the file has {len(data):,} bytes")
    return int(offset)
