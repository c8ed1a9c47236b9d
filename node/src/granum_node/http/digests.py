"""What a put says about its bytes: the digests in its head, and whether what arrives has them.

`Content-Digest` and `Repr-Digest` (RFC 9530, sha-256) are about the bytes as they travel, so about the coded ones of a gzip
body; `Granum-Digest` (xxh3-128) is about the file that they become.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from granum.wire.digest import HEADER, Digest, parse_header, parse_standard_header
from granum.wire.errors import DigestMismatch

_OWN = HEADER.encode()
_STANDARD = (b"content-digest", b"repr-digest")
_ALL = frozenset({_OWN, *_STANDARD})


@dataclass(frozen=True, slots=True)
class Expected:
    """Digests that a request names: *body* of its body as it travels, *file* of the file, as far as the head tells."""

    body: tuple[Digest, ...] = ()
    file: tuple[Digest, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.body or self.file)


NOTHING = Expected()


def read_expected(headers: Mapping[bytes, bytes], *, coded: bool) -> Expected:
    """Return the digests in the head of a put; raise BadRequest for a digest that cannot be read.

    *coded* when the file is not the body itself: a digest of the one then says nothing about the other.
    """
    if headers.keys().isdisjoint(_ALL):
        return NOTHING
    own = headers.get(_OWN)
    standard = [headers[name] for name in _STANDARD if name in headers]
    file = tuple(parse_header(own.decode("latin-1"))) if own is not None else ()
    body = tuple(digest for text in standard for digest in parse_standard_header(text.decode("latin-1")))
    return Expected(body, file if coded else file + body)


def check(expected: tuple[Digest, ...], found: Digest) -> None:
    """Raise DigestMismatch unless every one of *expected* of the same algorithm is *found*."""
    if any(digest != found for digest in expected if digest.algorithm == found.algorithm):
        raise DigestMismatch
