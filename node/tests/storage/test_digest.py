"""Digests: computed while a file arrives, kept beside it, compared without being believed where there is none."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.wire.digest import Digest
from granum.wire.paths import ClusterPath
from granum_node.storage import spool as spools
from granum_node.storage.digest import ATTRIBUTE, digest_of, new_hasher, recorded
from granum_node.storage.store import Found, Store

OF_HELLO = Digest("xxh3-128", "b5e9c1ad071b3e7fc779cfaa5e523818")
SHA_OF_HELLO = Digest("sha-256", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
F = ClusterPath.parse("f")


def put(store: Store, *pieces: bytes, hashed: bool = False) -> spools.SpooledFile:
    file = store.spool(hashed=hashed)
    for piece in pieces:
        file.write(piece)
    file.publish(store.tree, F)
    return file


def test_a_stored_file_carries_its_digest_and_is_read_only(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    assert put(store, b"hel", b"", b"lo").recorded == OF_HELLO
    assert os.getxattr(tmp_path / "f", "user.granum.digest") == b"xxh3-128:b5e9c1ad071b3e7fc779cfaa5e523818"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o440
    store.close()


def test_the_umask_takes_from_a_file_what_it_took_before(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        store = Store.open(str(tmp_path))
        put(store, b"hello")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o400
    store.close()


def test_without_digests_nothing_is_kept(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), digests=False)
    file = put(store, b"hello")
    assert (file.digest, file.recorded, store.records) == (None, None, False)
    assert os.listxattr(tmp_path / "f") == []
    store.close()


def test_where_attributes_cannot_be_kept_files_are_stored_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    store = Store.open(str(tmp_path))
    assert not store.records
    file = put(store, b"hello", hashed=True)
    assert (file.digest, file.recorded) == (OF_HELLO, None)
    assert store.compare(F, (OF_HELLO,)) == Found(is_same=True)
    store.close()


@given(st.lists(st.binary(max_size=100)))
def test_a_digest_does_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    whole, parts = new_hasher("xxh3-128"), new_hasher("xxh3-128")
    whole.update(b"".join(pieces))
    for piece in pieces:
        parts.update(memoryview(piece))
    assert whole.hexdigest() == parts.hexdigest()


@pytest.mark.parametrize("text", [b"", b"nonsense", b"xxh3-128:00", b"\xff\xfe"])
def test_an_attribute_that_is_no_digest_counts_as_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    os.setxattr(tmp_path / "f", ATTRIBUTE, text)
    with open(tmp_path / "f", "rb") as file:
        assert recorded(file.fileno()) is None
        assert digest_of(file.fileno()) == OF_HELLO


@pytest.mark.parametrize("digests", [True, False], ids=["recorded", "not recorded"])
def test_comparing(tmp_path: Path, digests: bool) -> None:
    store = Store.open(str(tmp_path), digests=digests)
    put(store, b"hello")
    other = Digest("sha-256", "0" * 64)
    known = OF_HELLO if digests else None
    assert store.compare(F, (OF_HELLO,)) == Found(is_same=True, recorded=known)
    assert store.compare(F, (SHA_OF_HELLO,)) == Found(is_same=True, recorded=known)
    assert store.compare(F, (SHA_OF_HELLO, OF_HELLO)) == Found(is_same=True, recorded=known)
    assert store.compare(F, (OF_HELLO, other)) == Found(is_same=False, recorded=known)
    assert store.compare(ClusterPath.parse("absent"), (OF_HELLO,)) == Found(is_same=False)
    (tmp_path / "d").mkdir()
    assert store.compare(ClusterPath.parse("d"), (OF_HELLO,)) == Found(is_same=False)
    store.close()


def test_a_known_digest_is_compared_without_reading_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path))
    put(store, b"hello")
    monkeypatch.delattr(os, "pread")
    assert store.compare(F, (OF_HELLO,)).is_same
    store.close()
