"""Parts of a file, as RFC 9110 section 14 writes them in the headers Range and Content-Range.

Only single parts that begin at a byte counted from the start, which is all that granum asks for.
"""

import re

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})", re.ASCII)


def range_of(start: int, length: int | None) -> str:
    """Return the value of Range that asks for *length* bytes, at least one, from byte *start* on; None for all the rest."""
    return f"bytes={start}-" if length is None else f"bytes={start}-{start + length - 1}"


def is_that_part(content_range: str, size: int, start: int, length: int | None) -> bool:
    """Whether a body of *size* bytes with the header *content_range* is what `range_of` with the same arguments asks for.

    It may be shorter than that only because the file ends.
    """
    found = _CONTENT_RANGE.fullmatch(content_range.strip())
    if found is None or int(found[1]) != start or int(found[2]) != start + size - 1:
        return False
    end = start + size
    if found[3] == "*":  # the node does not know how long the file is, and so may not send less than was asked for
        return length == size
    total = int(found[3])
    return end == (total if length is None else min(start + length, total))


def is_behind(content_range: str, start: int) -> bool:
    """Whether the *content_range* of a 416 says that the file ends at or before byte *start*."""
    found = _UNSATISFIED.fullmatch(content_range.strip())
    return found is not None and int(found[1]) <= start
