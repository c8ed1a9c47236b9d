"""Directory listings: what a node says a directory holds, as JSON that PYME's clients and ours both read.

On the wire a listing is one JSON object, name -> [flags, size], where the name of a directory ends in '/' and its size is
the number of its entries. Exactly two elements: PYME's clients unpack them and take every key for a file.

Decoding is tolerant of what real PYME nodes send (flags without the directory bit, sizes of -1, doubled or off by two,
escaped slashes) and intolerant of what could harm the reader: a name that is not a valid name is dropped.
"""

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import TypeAlias

from granum.wire.errors import BadListing, BadPath
from granum.wire.paths import check_name

UNKNOWN_SIZE = -1  # PYME says so while its cache is warm and an append made the file


class Flags(enum.IntFlag):
    """What an entry is; the values are PYME's."""

    FILE = 0
    DIRECTORY = 1
    SERIES = 2  # a directory that holds metadata.json
    COMPLETE = 4  # a directory that holds events.json


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in one directory: *size* is bytes for a file, number of entries for a directory, -1 when unknown."""

    name: str
    flags: Flags
    size: int

    @property
    def is_directory(self) -> bool:
        """Whether the entry can be listed."""
        return bool(self.flags & Flags.DIRECTORY)

    @property
    def is_series(self) -> bool:
        """Whether the entry is a directory of frames with metadata."""
        return self.is_directory and bool(self.flags & Flags.SERIES)

    @property
    def is_complete(self) -> bool:
        """Whether the series has been finalised."""
        return self.is_directory and bool(self.flags & Flags.COMPLETE)


_KINDS = tuple(
    Flags(value) for value in range(8)
)  # a table, because making a flag takes longer than all else of an entry

Listing: TypeAlias = Mapping[str, Entry]  # name, without a final slash -> entry


def flags_of_directory(names: Iterable[str]) -> Flags:
    """Return the flags of a directory that holds *names*."""
    held = {"metadata.json", "events.json"}.intersection(names)
    flags = Flags.DIRECTORY
    if "metadata.json" in held:
        flags |= Flags.SERIES
    if "events.json" in held:
        flags |= Flags.COMPLETE
    return flags


def encode_listing(entries: Iterable[Entry]) -> bytes:
    """Return the JSON body that lists *entries*."""
    return f"{{{','.join(encode_entry(entry.name, entry.flags, entry.size) for entry in entries)}}}".encode()


def encode_entry(name: str, flags: int, size: int) -> str:
    """Return the member of a listing that says what *name* is: a listing is these between braces, with commas, in ASCII."""
    key = encode_basestring_ascii(f"{name}/" if flags & 1 else name)
    return f"{key}:[{int(flags)},{size}]"


def decode_listing(body: bytes) -> Listing:
    """Return the listing in *body*; raise BadListing when it is none."""
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError) as error:
        hint = " (a PYME node shows index.html instead)" if body.lstrip()[:1] == b"<" else ""
        raise BadListing(f"the node's answer is not a listing{hint}") from error
    if not isinstance(rows, dict):
        raise BadListing("the node's answer is not a listing: a JSON object is expected")
    entries = (_entry(key, value) for key, value in rows.items())
    return {entry.name: entry for entry in entries if entry is not None}


def _entry(key: str, value: object) -> Entry | None:
    name = key.removesuffix("/")
    try:
        check_name(name)
    except BadPath:
        return None
    match value:
        case [int(flags), int(size), *_] if not isinstance(flags, bool) and not isinstance(size, bool):
            pass
        case _:
            raise BadListing(f"the listing has no flags and size for {name!r}")
    # A PYME node with a warm cache leaves out the directory bit; the slash never lies.
    known = flags & 6 | 1 if key.endswith("/") else flags & 6
    return Entry(name, _KINDS[known], max(size, UNKNOWN_SIZE))
