"""Sizes as people write them: '500MB', '1 GiB', '2%' of a disk, or a plain number of bytes. Pure."""

import re
from dataclasses import dataclass

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
    "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
}  # fmt: skip
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,3}|%)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Size:
    """At least *bytes*, and at least the part *share* (0 to 1) of a whole."""

    bytes: int
    share: float = 0.0

    def of(self, whole_bytes: int) -> int:
        """Return the bytes that this is for a disk of *whole_bytes*."""
        return max(self.bytes, int(self.share * whole_bytes))


def parse_size(text: str) -> Size:
    """Return what *text* says; raise ValueError, saying how sizes are written."""
    found = _SIZE.fullmatch(text.strip())
    unit = found[2].lower() if found else ""
    if found and unit == "%" and float(found[1]) <= 100:
        return Size(0, float(found[1]) / 100)
    if found is None or unit not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write 500MB, 1GiB or 2%")
    return Size(int(float(found[1]) * _UNITS[unit]))


def show_size(number: int) -> str:
    """Return *number* of bytes for people: '1.5 GiB'."""
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"
