"""Cluster paths, and how they travel in a request target."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from granum.wire.errors import BadPath, PathTooLong
from granum.wire.paths import ROOT, ClusterPath, Target, check_name, parse_target

PLAIN = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/\\")
NAMES = st.text(PLAIN, min_size=1, max_size=60).filter(lambda name: name not in {".", "..", ".granum"})
PATHS = st.lists(NAMES, max_size=6).filter(lambda names: not names or not names[0].startswith("__")).map(ClusterPath.of)

BAD_NAMES = [
    "", ".", "..", "a/b", "/", "a\\b", "\\", ".granum", "a\x00b", "\n", "a\rb", "\x1b[31m", "\x7f", "\x85", "\x9f",
    "\u2028", "\u2029", "\ud800", "a\udfff", "\udce4.txt",
]  # fmt: skip
GOOD_NAMES = [
    "a", "...", "..a", "a..", ".a", " ", "a b", "-", "~", "%", "%2e%2e", "?", "#", ":", "*", "CON", "a.", ".granum2",
    ".Granum", "__x", "ö", "o\u0308", "細胞", "😀", "\u00a0", "\u202e", "\ufeff", "x" * 255, "ö" * 127,
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(BadPath):
        check_name(name)


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_good_name_is_kept_as_it_is(name: str) -> None:
    check_name(name)
    assert ClusterPath.of(["d", name]).parts == ("d", name)


@pytest.mark.parametrize("name", ["x" * 256, "ö" * 128, "細" * 86])
def test_a_name_of_more_than_255_bytes_is_too_long(name: str) -> None:
    with pytest.raises(PathTooLong):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("/", ()),
        ("//", ()),
        ("/.", ()),
        ("a", ("a",)),
        ("/a/b", ("a", "b")),
        ("//a//b/", ("a", "b")),
        ("./a/./b/.", ("a", "b")),
        ("a/__x", ("a", "__x")),
        ("/%2e", ("%2e",)),
    ],
)
def test_empty_and_dot_segments_vanish(text: str, parts: tuple[str, ...]) -> None:
    assert ClusterPath.parse(text).parts == parts


@pytest.mark.parametrize(
    "text", ["..", "/a/../b", "/__status", "__x/y", "//__x", "/./__x", "a\\b", "/.granum/x", "a/.granum"]
)
def test_a_path_with_a_bad_part_is_refused(text: str) -> None:
    with pytest.raises(BadPath):
        ClusterPath.parse(text)


def test_a_path_has_at_most_64_levels() -> None:
    assert len(ClusterPath.parse("d/" * 64).parts) == 64
    with pytest.raises(PathTooLong):
        ClusterPath.parse("d/" * 65)


def test_a_path_has_at_most_4000_bytes() -> None:
    assert len(str(ClusterPath.parse(("x" * 249 + "/") * 16))) == 4000
    with pytest.raises(PathTooLong):
        ClusterPath.parse(("x" * 249 + "/") * 16 + "y")


def test_a_path_tells_its_name_parent_and_place() -> None:
    path = ClusterPath.parse("/a/b/c.pzf")
    assert (path.name, str(path.parent), path.relative, str(path)) == ("c.pzf", "/a/b", "a/b/c.pzf", "/a/b/c.pzf")


def test_the_root_has_no_name_and_is_its_own_parent() -> None:
    assert (ROOT.name, ROOT.parent, ROOT.relative, str(ROOT), ROOT.target()) == ("", ROOT, ".", "/", "/")


def test_a_path_grows_by_names() -> None:
    assert str(ROOT / "a" / "b/c") == "/a/b/c"


@pytest.mark.parametrize("name", ["..", "b/../c", "\x00"])
def test_a_path_does_not_grow_by_bad_names(name: str) -> None:
    with pytest.raises(BadPath):
        ROOT / "a" / name


def test_parsing_a_path_again_changes_nothing() -> None:
    path = ClusterPath.parse("/a/b")
    assert ClusterPath.parse(path) is path


@given(PATHS)
@example(ROOT)
def test_text_form_is_inverse_to_parse(path: ClusterPath) -> None:
    assert ClusterPath.parse(str(path)) == path


@given(PATHS, st.booleans())
@example(ROOT, True)
@example(ClusterPath(("%2e%2e", "a b", "q?x#y", "~", "Ã¤")), False)
def test_target_is_inverse_to_parse_target(path: ClusterPath, directory: bool) -> None:
    target = path.target(directory=directory)
    assert target.isascii()
    assert parse_target(target.encode()) == Target(path, directory or path == ROOT)


@given(PATHS.filter(lambda path: path != ROOT))
def test_raw_utf8_names_the_same_path(path: ClusterPath) -> None:
    """PYME's raw clients do not percent-encode."""
    assume(not set(str(path)) & set("%?#"))
    assert parse_target(str(path).encode()).path == path


@given(st.lists(st.from_regex(rb"[.~_0-9A-Za-z=+,@-]{0,4}", fullmatch=True), max_size=4))
@example([b"__status", b"x"])
@example([b"a", b"__b", b".granum"])
@example([b"x" * 255])
@example([b"x" * 256])
@example([b"x"] * 64)
@example([b"x"] * 65)
@example([*[b"x" * 249] * 15, b"x" * 249])
@example([*[b"x" * 249] * 15, b"x" * 250])
def test_a_plain_target_means_what_it_means_when_written_in_another_way(names: list[bytes]) -> None:
    """Plain targets are read in a shorter way; a query that is empty keeps a target from being plain."""
    raw = b"/" + b"/".join(names)
    try:
        expected = parse_target(raw + b"?")
    except (BadPath, PathTooLong) as error:
        with pytest.raises(type(error)):
            parse_target(raw)
    else:
        assert parse_target(raw) == expected


@given(st.binary(max_size=80))
@example(b"")
@example(b"http://[")
@example(b"?http://a/..")
def test_arbitrary_bytes_are_a_valid_target_or_a_bad_path(raw: bytes) -> None:
    try:
        target = parse_target(raw)
    except BadPath:
        return
    for name in target.path.parts:
        check_name(name)
    assert target.endpoint == "" or target.endpoint.startswith("__")


@given(st.binary(max_size=40).map(lambda tail: b"/" + tail.replace(b"?", b"%").replace(b"#", b"/")))
def test_arbitrary_bytes_below_the_root_are_valid_names_or_a_bad_path(raw: bytes) -> None:
    try:
        path = parse_target(raw).path
    except BadPath:
        return
    assert ClusterPath.of(path.parts) == path


@pytest.mark.parametrize(
    ("raw", "text", "slash", "endpoint", "query"),
    [
        (b"/", "/", True, "", ""),
        (b"//", "/", True, "", ""),
        (b"/a", "/a", False, "", ""),
        (b"/a/", "/a", True, "", ""),
        (b"//a//b", "/a/b", False, "", ""),
        (b"/a/.", "/a", True, "", ""),
        (b"/a/%2E/b", "/a/b", False, "", ""),
        (b"/f%2Etxt", "/f.txt", False, "", ""),
        (b"/a%20b", "/a b", False, "", ""),
        (b"/a+b", "/a+b", False, "", ""),
        (b"/100%25", "/100%", False, "", ""),
        (b"/%252e%252e", "/%2e%2e", False, "", ""),
        (b"/q.txt?x=1/..", "/q.txt", False, "", "x=1/.."),
        (b"/a?x#y", "/a", False, "", "x"),
        (b"/a#y?x", "/a", False, "", ""),
        (b"/a?", "/a", False, "", ""),
        ("/ä.txt".encode(), "/ä.txt", False, "", ""),
        (b"/\xe4.txt", "/ä.txt", False, "", ""),
        (b"/%E4.txt", "/ä.txt", False, "", ""),
        (b"/%c3%b6/\xe4", "/ö/ä", False, "", ""),
        (b"/__status", "/", False, "__status", ""),
        (b"//__glob?pattern=*", "/", False, "__glob", "pattern=*"),
        (b"/__aggregate_txt//a/b", "/a/b", False, "__aggregate_txt", ""),
        (b"/a/__x", "/a/__x", False, "", ""),
        (b"http://node:1/a/b?c", "/a/b", False, "", "c"),
        (b"HTTP://node", "/", True, "", ""),
        (b"http://node?c", "/", True, "", "c"),
    ],
)
def test_a_target_names(raw: bytes, text: str, slash: bool, endpoint: str, query: str) -> None:
    assert parse_target(raw) == Target(ClusterPath.parse(text), slash, endpoint, query)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"a", b"*", b"?x", b"#x", b"..", b"/..", b"/a/../b", b"/%2e%2e/b", b"/.%2E", b"/a%2fb", b"/%2F", b"/%00", b"/a\x00",
        b"/%0d%0a",
        b"/%7f", b"/%C2%85", b"/\x85", b"/%E2%80%A8", b"/%5c", b"/a\\b", b"/.granum", b"/a/%2egranum/b", b"/%", b"/%4",
        b"/%zz", b"/%C0%AE%C0%AE/\x80", b"/./__x", b"/%2e/__status", b"/__aggregate_txt/__x", b"/__a\\b", b"https://node/a",
        b"node:80", b"xhttp://node/a", b"?http://node/a",
    ],
)  # fmt: skip
def test_a_bad_target_is_refused(raw: bytes) -> None:
    with pytest.raises(BadPath):
        parse_target(raw)


@pytest.mark.parametrize("raw", [b"/" + b"x" * 256, b"/" + b"%C3%B6" * 128, b"/d" * 65, (b"/" + b"x" * 250) * 16])
def test_a_target_that_is_too_long_is_refused_as_such(raw: bytes) -> None:
    with pytest.raises(PathTooLong):
        parse_target(raw)
