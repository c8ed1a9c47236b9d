"""How digests are written down, and what is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.wire.digest import Digest, parse_digest, parse_header, parse_standard_header
from granum.wire.errors import BadRequest

XXH3_OF_HELLO = "b5e9c1ad071b3e7fc779cfaa5e523818"
SHA_OF_HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
BASE64_OF_HELLO = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="


def test_how_a_digest_is_written() -> None:
    digest = Digest("xxh3-128", XXH3_OF_HELLO)
    assert str(digest) == f"xxh3-128:{XXH3_OF_HELLO}"
    assert digest.member == f"xxh3-128={XXH3_OF_HELLO}"
    assert digest.entity_tag == f'"xxh3-128:{XXH3_OF_HELLO}"'


@given(
    st.sampled_from([("xxh3-128", 16), ("sha-256", 32)]).flatmap(
        lambda kind: st.tuples(st.just(kind[0]), st.binary(min_size=kind[1], max_size=kind[1]))
    )
)
def test_what_is_kept_beside_a_file_is_read_back(made: tuple[str, bytes]) -> None:
    digest = Digest(made[0], made[1].hex())
    assert parse_digest(str(digest)) == digest


@pytest.mark.parametrize(
    "text", ["", "xxh3-128", "xxh3-128:", "xxh3-128:" + "0" * 31, "md5:" + "0" * 32, "xxh3-128:" + "G" * 32]
)
def test_what_is_no_digest(text: str) -> None:
    assert parse_digest(text) is None


@pytest.mark.parametrize(
    "text",
    [f"xxh3-128={XXH3_OF_HELLO}", f"XXH3-128 = {XXH3_OF_HELLO.upper()} ", f"other=1, xxh3-128={XXH3_OF_HELLO};q=1"],
)
def test_own_header(text: str) -> None:
    assert parse_header(text) == [Digest("xxh3-128", XXH3_OF_HELLO)]


@pytest.mark.parametrize("text", [f"sha-256=:{BASE64_OF_HELLO}:", f"unixsum=:1:, SHA-256=:{BASE64_OF_HELLO}: "])
def test_standard_header(text: str) -> None:
    assert parse_standard_header(text) == [Digest("sha-256", SHA_OF_HELLO)]


def test_an_unknown_algorithm_is_passed_over() -> None:
    assert parse_header("md5=abc") == []
    assert parse_standard_header("sha-512=:AAAA:") == []


@pytest.mark.parametrize(
    "text", ["xxh3-128", "xxh3-128=", "xxh3-128=xyz", f"xxh3-128={XXH3_OF_HELLO}0", f"xxh3-128=:{XXH3_OF_HELLO}:"]
)
def test_an_own_digest_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_header(text)


@pytest.mark.parametrize(
    "text",
    [
        "sha-256",
        "sha-256=",
        "sha-256=:",
        "sha-256=::",
        f"sha-256={BASE64_OF_HELLO}",
        "sha-256=:AAAA:",
        "sha-256=:%%%%:",
        f"sha-256=:{BASE64_OF_HELLO}",
    ],
)
def test_a_standard_digest_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_standard_header(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_header, parse_standard_header):
        with suppress(BadRequest):
            assert all(digest == parse_digest(str(digest)) for digest in parse(text))
