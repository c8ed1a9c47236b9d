"""Who may talk to a node, and what they may ask: one pure question in front of every request.

It is put before the first byte of a body is taken and before 100 Continue, and has three answers: nothing, which lets the
request in, Misdirected for a name that is not the node's, and NotAllowed. `Asked` carries all that a rule may look at, also
what those of today do not need: a rule for certificates and capability tokens is a second function over the same value.

A browser on a machine that may talk to the node would carry any web page's requests to it; hence the rules for Host (a name
that a stranger points at our address), Origin and Sec-Fetch-Site. Programs send none of them, or the right ones.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from granum.wire.errors import Misdirected, NotAllowed
from granum_node.config import Allowed

READS = frozenset({"GET", "HEAD", "OPTIONS"})  # every other verb counts as a write
HTTP_PORT = 80  # what an origin without a port means
AUTHORITY_MAX = 300  # characters; a host name has 253, and the caches are to stay small
ANSWERS_KEPT = 1024  # each: reading an address costs more than all the rest of a small request's checks

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/ \t]+)(?::([0-9]{0,5}))?")
_RARE = frozenset({b"origin", b"sec-fetch-site", b"authorization"})
_ABSOLUTE_FORM = re.compile(rb"(?i)http://([^/?#]*)")


class Asked(NamedTuple):
    """A request as the gate sees it. *target* is the text of a cluster path, or of an endpoint, '/__status'.

    *identity* is what a certificate says of the peer, *credentials* the Authorization it sent, *length* the number of body
    bytes it announced; each None when there is none, as are the three headers.
    """

    peer: str
    verb: str
    target: str
    length: int | None = None
    host: str | None = None
    origin: str | None = None
    fetch_site: str | None = None
    identity: str | None = None
    credentials: str | None = None


@dataclass(frozen=True, slots=True, eq=False)  # told apart by identity: it is the key of caches
class Rules:
    """What the gate goes by: the *names* and the *port* a node answers to, and who is *allowed*, the narrowest net first."""

    names: frozenset[str]
    port: int
    allowed: tuple[Allowed, ...]

    @classmethod
    def of(cls, names: Iterable[str], port: int, allowed: Iterable[Allowed]) -> "Rules":
        """Return the rules of a node that is called *names* (host names or addresses, in any spelling)."""
        by_size = sorted(allowed, key=lambda each: each.network.prefixlen, reverse=True)
        return cls(frozenset(_normal(name) for name in names), port, tuple(by_size))

    def place_of(self, peer: str) -> Allowed | None:
        """Return the entry that speaks for the address *peer*; None when it may not talk to the node at all."""
        return _place(self, peer)


def check(rules: Rules, asked: Asked) -> None:
    """Let the request *asked* in, or raise Misdirected or NotAllowed."""
    if asked.host and not _is_own(rules, asked.host, default_port=None):
        raise Misdirected(f"this node is not called {asked.host[:100]!r}; ask it by a name or an address of its own")
    place = rules.place_of(asked.peer)
    if place is None:
        raise NotAllowed("this node does not talk to your address; have it added to the setting 'allow'")
    if asked.verb in READS:
        return
    if not place.writes:
        raise NotAllowed("your address may only read from this node; its setting 'allow' says 'ro' for it")
    if asked.origin is not None and not _is_own_origin(rules, asked.origin):
        raise NotAllowed("a page of another site may not write here")
    if asked.fetch_site is not None and "cross-site" in asked.fetch_site.lower():
        raise NotAllowed("a page of another site may not write here")


def asked_by(
    peer: str, verb: str, target: str, raw: bytes, length: int | None, headers: Mapping[bytes, bytes]
) -> Asked:
    """Return what the gate must know of a request with the raw request target *raw* and these *headers*."""
    found = _ABSOLUTE_FORM.match(raw) if not raw.startswith(b"/") else None
    host = headers.get(b"host")
    if found is None and host is not None and headers.keys().isdisjoint(_RARE):  # nearly all, and at half the price
        return Asked(peer, verb, target, length, host.decode("latin-1"))
    return Asked(
        peer,
        verb,
        target,
        length,
        # RFC 9112 section 3.2.2: the host in the target counts, whatever Host says; an empty one is a name of nobody.
        host=(found[1].decode("latin-1") or "?") if found else _text(headers, b"host"),
        origin=_text(headers, b"origin"),
        fetch_site=_text(headers, b"sec-fetch-site"),
        credentials=_text(headers, b"authorization"),
    )


@lru_cache(maxsize=ANSWERS_KEPT)
def _place(rules: Rules, peer: str) -> Allowed | None:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return None
    return next((entry for entry in rules.allowed if address in entry.network), None)


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _is_own_origin(rules: Rules, origin: str) -> bool:
    scheme, colon, authority = origin.lower().partition("://")
    return bool(colon) and scheme == "http" and _is_own(rules, authority, default_port=HTTP_PORT)


def _is_own(rules: Rules, authority: str, *, default_port: int | None) -> bool:
    """Whether *authority*, 'name:port', is the node's; where it names no port, *default_port* counts, None for any."""
    return len(authority) <= AUTHORITY_MAX and _is_own_name(rules, authority, default_port)


@lru_cache(maxsize=ANSWERS_KEPT)
def _is_own_name(rules: Rules, authority: str, default_port: int | None) -> bool:
    found = _AUTHORITY.fullmatch(authority)
    if found is None or _normal(found[1]) not in rules.names:
        return False
    port = int(found[2]) if found[2] else default_port
    return port is None or port == rules.port


def _normal(name: str) -> str:
    """Return *name* as names are compared: lower case, without the final dot, an address in its one canonical form."""
    bare = name[1:-1] if name.startswith("[") else name
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return name.lower().removesuffix(".")
