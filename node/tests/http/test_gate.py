"""Who may ask what: by address, by the name they ask for, and by the page that made their browser ask."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.wire.errors import GranumError, Misdirected, NotAllowed
from granum_node.config import Allowed
from granum_node.http.gate import Asked, Rules, asked_by, check

RULES = Rules.of(
    ["10.0.0.5", "FD00::5", "Node1", "node1.local", "lab.example.org."],
    15348,
    [
        Allowed(ip_network("10.0.0.0/24"), writes=True),
        Allowed(ip_network("10.0.0.64/26"), writes=False),
        Allowed(ip_network("10.0.0.70/32"), writes=True),
        Allowed(ip_network("fd00::/64"), writes=False),
    ],
)


def answer(peer: str = "10.0.0.7", verb: str = "PUT", **headers: str) -> type[GranumError] | None:
    """Return what the gate raises, None when it lets in."""
    try:
        check(RULES, Asked(peer, verb, "/f", 5, **headers))
    except GranumError as error:
        return type(error)
    return None


@pytest.mark.parametrize(
    ("peer", "reads", "writes"),
    [
        ("10.0.0.7", None, None),
        ("10.0.0.65", None, NotAllowed),  # the narrowest network speaks for it
        ("10.0.0.70", None, None),
        ("fd00::1", None, NotAllowed),
        ("10.0.1.7", NotAllowed, NotAllowed),
        ("127.0.0.1", NotAllowed, NotAllowed),  # the list says all who may
        ("::ffff:10.0.0.7", NotAllowed, NotAllowed),
        ("", NotAllowed, NotAllowed),
        ("somewhere", NotAllowed, NotAllowed),
    ],
)
def test_who_may_read_and_write(peer: str, reads: type | None, writes: type | None) -> None:
    found = [answer(peer, verb) for verb in ("GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE", "put")]
    assert found == [reads] * 3 + [writes] * 4


OWN = [
    "10.0.0.5", "10.0.0.5:15348", "node1", "NODE1:15348", "node1.", "Node1.Local:15348", "lab.example.org",
    "lab.example.org.:15348", "[fd00::5]", "[FD00:0:0:0:0:0:0:5]:15348", "10.0.0.5:", "",
]  # fmt: skip
FOREIGN = [
    "evil.example", "10.0.0.6", "10.0.0.5:80", "10.0.0.5:15349", "node1.evil.example", "node1..", "evil.node1",
    "xnode1", "fd00::5", "[fd00::6]", "[fd00::5", "[fd00::5]x", "10.0.0.5:15348:15348", "10.0.0.5:x", "10.0.0.5:-1",
    "10.0.0.5:153480", "user@10.0.0.5", "10.0.0.5/", "10.0.0.5 ", "167772165", "0xa000005", "10.5", "010.0.0.5",
    "localhost", "127.0.0.1", ":15348", ".", "node1,node1", "[node1]", "10.0.0.5\x00", "node1" + "." * 300,
]  # fmt: skip


@pytest.mark.parametrize("host", OWN)
def test_a_name_of_its_own_is_answered_to(host: str) -> None:
    assert answer(verb="GET", host=host) is None


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("verb", ["GET", "PUT"])
def test_another_name_is_misdirected_whatever_is_asked(host: str, verb: str) -> None:
    assert answer(verb=verb, host=host) is Misdirected


def test_no_name_is_answered_to() -> None:
    """PYME's streaming client sends no Host."""
    assert answer() is None


OWN_ORIGINS = ["http://10.0.0.5:15348", "http://node1:15348", "HTTP://Node1.local:15348", "http://[fd00::5]:15348"]
FOREIGN_ORIGINS = [
    "null", "", "http://evil.example", "http://node1", "http://node1:80", "https://node1:15348", "http://node1:15349",
    "http://node1:15348, http://evil.example", "file://", "node1:15348", "http://node1:15348/", "http://",
]  # fmt: skip


@pytest.mark.parametrize(
    ("origin", "found"), [*((o, None) for o in OWN_ORIGINS), *((o, NotAllowed) for o in FOREIGN_ORIGINS)]
)
def test_a_page_writes_only_to_the_node_it_came_from(origin: str, found: type | None) -> None:
    assert answer(origin=origin) is found
    assert answer(verb="GET", origin=origin) is None


@pytest.mark.parametrize(
    ("site", "found"),
    [
        ("cross-site", NotAllowed),
        ("Cross-Site", NotAllowed),
        ("none, cross-site", NotAllowed),
        ("same-origin", None),
        ("none", None),
    ],
)
def test_a_browser_that_says_the_write_crosses_sites_is_believed(site: str, found: type | None) -> None:
    assert answer(fetch_site=site) is found
    assert answer(verb="GET", fetch_site=site) is None


def test_the_host_in_the_target_counts_and_not_the_header() -> None:
    headers = {b"host": b"node1", b"origin": b"null", b"sec-fetch-site": b"none", b"authorization": b"x"}
    asked = asked_by("10.0.0.7", "PUT", "/f", b"HTTP://evil.example:80/f", 5, headers)
    assert asked == Asked("10.0.0.7", "PUT", "/f", 5, "evil.example:80", "null", "none", None, "x")
    assert asked_by("10.0.0.7", "PUT", "/f", b"/http://evil", None, headers).host == "node1"
    assert asked_by("", "PUT", "/f", b"http:///f", None, {}).host == "?"
    assert asked_by("", "PUT", "/f", b"/f", None, {}) == Asked("", "PUT", "/f")


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_nothing_raises_but_the_two_answers(peer: str, host: str, origin: str, site: str) -> None:
    assert answer(peer, host=host, origin=origin, fetch_site=site) in {None, Misdirected, NotAllowed}
