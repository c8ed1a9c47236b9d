"""Cluster paths: the names of files and directories in a cluster, and how they travel in an HTTP request.

A `ClusterPath` is valid by construction, so code that holds one never checks it again. A name that is not acceptable is
refused with `BadPath`, never repaired: two spellings must not meet in one file. What is folded is only what PYME's clients
rely on: empty and '.' segments vanish, so '//a//b' is '/a/b'.

Nothing here knows a file system; that a path cannot leave the store is assured a second time where it is opened.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from granum.wire.errors import BadPath, PathTooLong

NAME_BYTES_MAX = 255  # the limit of every Linux file system that a store may lie on
PATH_BYTES_MAX = 4000  # below PATH_MAX (4,096), with room for the separators and a final NUL
DEPTH_MAX = 64  # deeper trees are loops of some program; each level costs a directory sync
RESERVED_PREFIX = "__"  # first component of a node's own endpoints: /__status, /__aggregate_txt/...
HIDDEN_NAME = ".granum"  # the node's own state inside the store, at no depth a user's name

_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, surrogates, line and paragraph separators
_PERCENT = re.compile(rb"%(?:([0-9A-Fa-f]{2})|)")
_ABSOLUTE_FORM = re.compile(rb"(?i)http://[^/?#]*")
# A target that says what it means, as nearly all do: letters, digits and a few signs, no name that begins with '.' or '__'.
_PLAIN_TARGET = re.compile(rb"(?!/__)(?:/[0-9A-Za-z_~=+,@-][0-9A-Za-z_.~=+,@-]{0,254}){1,64}")
_UNRESERVED = re.compile(r"[0-9A-Za-z_.~/-]+")  # what quoting leaves as it is, in paths whose names have no '/'


@dataclass(frozen=True, slots=True, order=True)
class ClusterPath:
    """An absolute, normalised name in the cluster; the root has no parts.

    `str` gives the familiar form '/a/b'. Build one with `parse`, `of` or the `/` operator, which check every name.
    """

    parts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: "str | ClusterPath") -> "ClusterPath":
        """Return the path that *text* names; slashes at either end and empty segments do not matter.

        Raises BadPath or PathTooLong, naming the offending part.
        """
        if isinstance(text, ClusterPath):
            return text
        return cls.of(part for part in text.split("/") if part not in {"", "."})

    @classmethod
    def of(cls, names: Iterable[str]) -> "ClusterPath":
        """Return the path made of *names*, checking each and the whole."""
        parts = tuple(names)
        for name in parts:
            check_name(name)
        if len(parts) > DEPTH_MAX:
            raise PathTooLong(f"the path has {len(parts)} levels; at most {DEPTH_MAX} are possible")
        if sum(len(name.encode()) + 1 for name in parts) > PATH_BYTES_MAX:
            raise PathTooLong(f"the path is longer than {PATH_BYTES_MAX} bytes")
        if parts and parts[0].startswith(RESERVED_PREFIX):
            raise BadPath(f"{parts[0]!r}: names at the top that begin with '{RESERVED_PREFIX}' belong to the node")
        return cls(parts)

    @property
    def name(self) -> str:
        """The last part; empty for the root."""
        return self.parts[-1] if self.parts else ""

    @property
    def parent(self) -> "ClusterPath":
        """The directory that holds this path; the root is its own parent."""
        return ClusterPath(self.parts[:-1])

    @property
    def relative(self) -> str:
        """The path below the root, 'a/b'; '.' for the root itself. Fit for openat(2)."""
        return "/".join(self.parts) or "."

    def __truediv__(self, name: str) -> "ClusterPath":
        return ClusterPath.of((*self.parts, *(part for part in name.split("/") if part)))

    def __str__(self) -> str:
        return "/" + "/".join(self.parts)

    def target(self, *, directory: bool = False) -> str:
        """Return the percent-encoded HTTP request target; with a final slash when *directory*."""
        text = "/" + "/".join(self.parts)
        if not _UNRESERVED.fullmatch(text):
            text = "/" + "/".join(quote(part, safe="") for part in self.parts)
        return text + "/" if directory and self.parts else text


ROOT = ClusterPath()


class Target(NamedTuple):
    """What an HTTP request target names: a cluster path, or one of the node's endpoints.

    *slash* tells whether the target ended in '/': PYME's way to say directory. *endpoint* is '' or a reserved name such as
    '__status'; *path* is then what follows it. *query* is the raw text behind '?'.
    """

    path: ClusterPath
    slash: bool
    endpoint: str = ""
    query: str = ""


def parse_target(raw: bytes) -> Target:
    """Return what the request target *raw* names, from the bytes of the request line.

    Bytes are split at '/' before they are decoded, so an encoded slash can never separate (BadPath). Each part is
    percent-decoded once and read as UTF-8, or as Latin-1 where it is not UTF-8, which is what PYME's raw clients mean.
    """
    if len(raw) <= PATH_BYTES_MAX and _PLAIN_TARGET.fullmatch(raw):
        return Target(ClusterPath(tuple(raw[1:].decode("ascii").split("/"))), slash=False)
    if not raw.startswith(b"/"):
        found = _ABSOLUTE_FORM.match(raw)
        if found is None:
            raise BadPath("the request target must begin with '/'")
        raw = raw[found.end() :]
    raw, _, _ = raw.partition(b"#")
    raw, _, query = raw.partition(b"?")
    names = [_decode(part) for part in raw.split(b"/") if part]
    slash = raw.endswith((b"/", b"/.")) or raw == b""
    endpoint = ""
    if names and names[0].startswith(RESERVED_PREFIX):
        endpoint = names.pop(0)
        check_name(endpoint)
    path = ClusterPath.of(name for name in names if name != ".")
    return Target(path, slash, endpoint, query.decode("latin-1"))


def check_name(name: str) -> None:
    """Raise BadPath or PathTooLong unless *name* may stand between two slashes of a cluster path."""
    if name.isascii() and name.isprintable():
        size = len(name)
    else:
        bad = next((char for char in name if unicodedata.category(char) in _REFUSED_CATEGORIES), "")
        if bad:
            raise BadPath(f"{name!r}: the character {bad!r} cannot stand in a name")
        size = len(name.encode())
    if not name or name in {".", ".."} or "/" in name:
        raise BadPath(f"{name!r} is not a name; paths are written without '..'")
    if "\\" in name:
        raise BadPath(f"{name!r}: a backslash cannot stand in a name, because Windows reads it as '/'")
    if name == HIDDEN_NAME:
        raise BadPath(f"{HIDDEN_NAME!r} belongs to the node")
    if size > NAME_BYTES_MAX:
        raise PathTooLong(f"a name has {size} bytes; at most {NAME_BYTES_MAX} are possible: {name[:32]!r}...")


def _decode(part: bytes) -> str:
    if b"%" in part:
        part = _PERCENT.sub(_percent, part)
    if b"/" in part:
        raise BadPath("an encoded slash cannot stand in a name")
    try:
        return part.decode()
    except UnicodeDecodeError:
        return part.decode("latin-1")


def _percent(found: re.Match[bytes]) -> bytes:
    if found[1] is None:
        raise BadPath("'%' must be followed by two hexadecimal digits")
    return bytes.fromhex(found[1].decode())
