"""Digests of whole files as they are written down: in headers, in entity tags, beside the file.

Two algorithms have a place: `xxh3-128`, which nodes compute for every file and own headers carry in hexadecimal, and `sha-256`,
which RFC 9530 carries in base64. A member of a header whose algorithm is another one is passed over, as that RFC asks; one of
ours that cannot be read is refused, since its sender believes that it is checked. Nothing here computes a digest.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

from granum.wire.errors import BadRequest

XXH3 = "xxh3-128"
SHA256 = "sha-256"
HEADER = "granum-digest"  # carries the xxh3-128 of the file: 'xxh3-128=<32 hexadecimal digits>'

_HEXADECIMAL = {XXH3: re.compile(r"[0-9a-f]{32}"), SHA256: re.compile(r"[0-9a-f]{64}")}


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest: the name of its *algorithm* and its value in lower-case hexadecimal digits."""

    algorithm: str
    value: str

    def __str__(self) -> str:
        """Return how it is kept beside a file: 'xxh3-128:<digits>'."""
        return f"{self.algorithm}:{self.value}"

    @property
    def member(self) -> str:
        """How it stands in the header Granum-Digest."""
        return f"{self.algorithm}={self.value}"

    @property
    def entity_tag(self) -> str:
        """The strong entity tag of a file that has it."""
        return f'"{self.algorithm}:{self.value}"'


def parse_digest(text: str) -> Digest | None:
    """Return the digest that `str` made *text* of; None when it is none."""
    algorithm, _, value = text.partition(":")
    return Digest(algorithm, value) if _is_value(algorithm, value) else None


def parse_header(text: str) -> list[Digest]:
    """Return the digests in a header Granum-Digest; raise BadRequest for an xxh3-128 that is not 32 digits."""
    found = []
    for algorithm, written in _members(text):
        if algorithm == XXH3:
            if not _is_value(algorithm, written.lower()):
                raise BadRequest("Granum-Digest is written 'xxh3-128=' and 32 hexadecimal digits")
            found.append(Digest(algorithm, written.lower()))
    return found


def parse_standard_header(text: str) -> list[Digest]:
    """Return the digests in a header Content-Digest or Repr-Digest; raise BadRequest for a sha-256 that is not one."""
    found = []
    for algorithm, written in _members(text):
        if algorithm == SHA256:
            value = _from_base64(written)
            if not _is_value(algorithm, value):
                raise BadRequest("a digest header is written 'sha-256=:' and 32 bytes in base64 and ':'")
            found.append(Digest(algorithm, value))
    return found


def _members(text: str) -> Iterator[tuple[str, str]]:
    for member in text.split(","):
        algorithm, _, value = member.partition(";")[0].strip().partition("=")
        yield algorithm.strip().lower(), value.strip()


def _from_base64(written: str) -> str:
    if len(written) < 2 or written[0] != ":" or written[-1] != ":":
        return ""
    try:
        return base64.b64decode(written[1:-1], validate=True).hex()
    except (binascii.Error, ValueError):
        return ""


def _is_value(algorithm: str, value: str) -> bool:
    pattern = _HEXADECIMAL.get(algorithm)
    return pattern is not None and pattern.fullmatch(value) is not None
