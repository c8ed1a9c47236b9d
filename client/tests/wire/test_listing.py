"""Directory listings, ours and PYME's."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from granum.wire.errors import BadListing
from granum.wire.listing import Entry, Flags, decode_listing, encode_listing, flags_of_directory
from granum.wire.paths import check_name

PLAIN = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/\\")
NAMES = st.text(PLAIN, min_size=1, max_size=60).filter(lambda name: name not in {".", "..", ".granum"})
SIZES = st.integers(-1, 2**63)
FILES = st.builds(Entry, NAMES, st.just(Flags.FILE), SIZES)
DIRECTORIES = st.builds(Entry, NAMES, st.sampled_from([Flags(1), Flags(3), Flags(5), Flags(7)]), SIZES)


def test_a_listing_is_one_json_object_of_pairs() -> None:
    entries = [Entry("f.txt", Flags.FILE, 12), Entry("one", Flags(3), 2), Entry("ö", Flags.DIRECTORY, 0)]
    assert json.loads(encode_listing(entries)) == {"f.txt": [0, 12], "one/": [3, 2], "ö/": [1, 0]}


def test_an_empty_directory_is_an_empty_object() -> None:
    assert encode_listing([]) == b"{}"


@given(st.lists(st.one_of(FILES, DIRECTORIES), unique_by=lambda entry: entry.name))
def test_decoding_is_inverse_to_encoding(entries: list[Entry]) -> None:
    assert decode_listing(encode_listing(entries)) == {entry.name: entry for entry in entries}


@pytest.mark.parametrize(
    ("names", "flags"),
    [
        ([], 1),
        (["frame00000.pzf"], 1),
        (["metadata.json"], 3),
        (["events.json"], 5),
        (["events.json", "metadata.json", "x"], 7),
        (["Metadata.json", "final_metadata.json"], 1),
    ],
)
def test_flags_follow_what_a_directory_holds(names: list[str], flags: int) -> None:
    assert flags_of_directory(names) == flags


@pytest.mark.parametrize(
    ("body", "entry"),
    [
        (b'{"LOGS\\/":[1,3]}', Entry("LOGS", Flags(1), 3)),
        (b'{"run\\/":[2,5]}', Entry("run", Flags(3), 5)),  # a warm cache leaves the directory bit out
        (b'{"run\\/":[4,5]}', Entry("run", Flags(5), 5)),
        (b'{"run/":[0,5]}', Entry("run", Flags(1), 5)),
        (b'{"big.bin":[0,200000]}', Entry("big.bin", Flags(0), 200000)),
        (b'{"log.txt":[0,-1]}', Entry("log.txt", Flags(0), -1)),
        (b'{"log.txt":[0,-7]}', Entry("log.txt", Flags(0), -1)),
        (b'{"r.h5":[6,9]}', Entry("r.h5", Flags(6), 9)),
        (b'{"r.h5":[2,9]}', Entry("r.h5", Flags(2), 9)),
        (b'{"f":[1,9]}', Entry("f", Flags(0), 9)),  # without a slash it is a file, whatever the flags
        (b'{"f":[8,9]}', Entry("f", Flags(0), 9)),
        (b'{"f":[0,9,"more"]}', Entry("f", Flags(0), 9)),
        (b' {"f" : [0, 9]}\n', Entry("f", Flags(0), 9)),
        (b'{"\\u00e4":[0,9]}', Entry("ä", Flags(0), 9)),
        ('{"ä":[0,9]}'.encode(), Entry("ä", Flags(0), 9)),
    ],
)
def test_what_pyme_nodes_send_is_understood(body: bytes, entry: Entry) -> None:
    assert decode_listing(body) == {entry.name: entry}


def test_a_bare_flag_on_a_file_makes_it_no_series() -> None:
    entry = decode_listing(b'{"r.h5":[6,9]}')["r.h5"]
    assert (entry.is_directory, entry.is_series, entry.is_complete) == (False, False, False)


def test_a_complete_series_is_one_of_all_three() -> None:
    entry = decode_listing(b'{"run/":[7,9]}')["run"]
    assert (entry.is_directory, entry.is_series, entry.is_complete) == (True, True, True)


@pytest.mark.parametrize(
    "name",
    ["", "/", "//", ".", "..", "../", "../x", "a/b", "/a", "a//", ".granum", ".granum/", "a\\b", "\x00", "a\nb",
     "\u2028", "\ud800", "x" * 256],
)  # fmt: skip
def test_a_name_that_could_harm_the_reader_is_dropped_alone(name: str) -> None:
    body = json.dumps({name: [0, 1], "good": [0, 2]}).encode()
    assert decode_listing(body) == {"good": Entry("good", Flags.FILE, 2)}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"1", b'"x"', b"{", b'{"a":[0,1]', b"\xff", b'{"a":1}', b'{"a":[0]}', b'{"a":[]}', b'{"a":{}}',
        b'{"a":["0",1]}', b'{"a":[0,1.5]}', b'{"a":[0,null]}', b'{"a":[0,true]}', b'{"a":[true,0]}',
        b'{"a":[0,' + b"9" * 5000 + b"]}", b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_listing_is_refused(body: bytes) -> None:
    with pytest.raises(BadListing):
        decode_listing(body)


def test_an_html_page_is_told_apart() -> None:
    with pytest.raises(BadListing, match=r"index\.html"):
        decode_listing(b"<!DOCTYPE html><p>hello")


@given(st.binary(max_size=80))
@example(b"\xef\xbb\xbf{}")
@example(b"\xff\xfe{\x00}\x00")
def test_arbitrary_bytes_are_a_listing_or_a_bad_listing(body: bytes) -> None:
    try:
        listing = decode_listing(body)
    except BadListing:
        return
    for name in listing:
        check_name(name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_arbitrary_json_is_a_listing_or_a_bad_listing(value: object) -> None:
    try:
        listing = decode_listing(json.dumps(value).encode())
    except BadListing:
        return
    for name, entry in listing.items():
        check_name(name)
        assert (entry.name, entry.size >= -1) == (name, True)
