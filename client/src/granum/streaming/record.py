"""Records: files as they wait in a segment of the overflow, and how they are read back.

    [size 8][check 8][key 16][seq 8][number 8][length of path 2][its complement 2][path][body]    little-endian; size of the body

*key* is the XXH3-128 of the body, the digest under which nodes keep the file too; *check* is the XXH3-64 of everything before
the body, itself as zeros. The rule: what damage or a torn write left behind is never taken for a record. A head that does not
have its check ends the segment, since nothing says where the next record begins; a body that does not have its key is lost
alone, and by name.

Pure: bytes in, bytes out. Which file they lie in, and who has been given them, this module does not know.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import xxhash

from granum.wire.errors import BadPath
from granum.wire.paths import PATH_BYTES_MAX, ClusterPath

Piece = bytes | memoryview

MAGIC = b"granum segment 1\n"  # how a segment begins: for people who look into it, and for a later format
_FIELDS = struct.Struct("<QQ16sQqHH")
_COMPLEMENT = 0xFFFF
_NO_NUMBER = -1 << 63
HEAD_BYTES_MAX = _FIELDS.size + PATH_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before the body of *size* bytes: its *key*, the record's place *seq* in the stream, where the file goes."""

    size: int
    key: bytes
    seq: int
    number: int | None
    path: ClusterPath

    @classmethod
    def of(cls, pieces: Iterable[Piece], *, seq: int, number: int | None, path: ClusterPath) -> Self:
        """Return the head of the record of a file made of *pieces*, which are read once."""
        digest = xxhash.xxh3_128()
        size = 0
        for piece in pieces:
            digest.update(piece)
            size += memoryview(piece).nbytes
        return cls(size, digest.digest(), seq, number, path)

    @property
    def length(self) -> int:
        """The bytes of the whole record."""
        return record_length(self.path, self.size)

    def encode(self) -> bytes:
        """Return the bytes of the head; those of the body follow."""
        path = str(self.path).encode()
        number = _NO_NUMBER if self.number is None else self.number
        unchecked = _FIELDS.pack(self.size, 0, self.key, self.seq, number, len(path), len(path) ^ _COMPLEMENT) + path
        check = xxhash.xxh3_64_intdigest(unchecked)
        return unchecked[:8] + check.to_bytes(8, "little") + unchecked[16:]


def record_length(path: ClusterPath, size: int) -> int:
    """Return the bytes of the record of a file of *size* bytes under *path*."""
    return _FIELDS.size + len(str(path).encode()) + size


def decode_head(data: bytes) -> Head | None:
    """Return the head that *data* begins with; None when there is none whole and undamaged."""
    if len(data) < _FIELDS.size:
        return None
    size, check, key, seq, number, length, _ = _FIELDS.unpack_from(data)
    raw = data[: _FIELDS.size + length]
    if len(raw) < _FIELDS.size + length or xxhash.xxh3_64_intdigest(raw[:8] + bytes(8) + raw[16:]) != check:
        return None
    try:
        path = ClusterPath.parse(raw[_FIELDS.size :].decode())
    except (BadPath, UnicodeDecodeError):
        return None
    return Head(size, key, seq, None if number == _NO_NUMBER else number, path)


def is_cut(data: bytes) -> bool:
    """Whether *data*, the end of a segment, is too short for the head that it begins with: then no write of it was over."""
    if len(data) < _FIELDS.size:
        return True
    length, complement = _FIELDS.unpack_from(data)[-2:]
    # Without the second a damaged length could pass for a path that was cut off.
    return bool(length ^ complement == _COMPLEMENT and len(data) < _FIELDS.size + length)


def is_body(head: Head, body: memoryview) -> bool:
    """Whether *body* is the one that *head* was made for."""
    return len(body) == head.size and xxhash.xxh3_128_digest(body) == head.key


# -- the docket of a segment: which of its records are delivered ----------------------------------------------------------

_ENTRY = struct.Struct("<QQ")  # seq, its XXH3-64
ENTRY_BYTES = _ENTRY.size


def encode_entries(seqs: Iterable[int]) -> bytes:
    """Return the entries of a docket for the records *seqs*."""
    return b"".join(_ENTRY.pack(seq, xxhash.xxh3_64_intdigest(seq.to_bytes(8, "little"))) for seq in seqs)


def decode_entries(data: bytes) -> set[int]:
    """Return the records that a docket names; its entries are of one size, so a damaged one hides no other."""
    whole = len(data) - len(data) % _ENTRY.size
    entries = _ENTRY.iter_unpack(data[:whole])
    return {seq for seq, check in entries if check == xxhash.xxh3_64_intdigest(seq.to_bytes(8, "little"))}
