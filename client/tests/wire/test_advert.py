"""Advertisements, ours and PYME's."""

import sqlite3

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from granum.wire.advert import (
    REGISTRY_DELETE,
    REGISTRY_INSERT,
    REGISTRY_SCHEMA,
    REGISTRY_SELECT,
    Advertisement,
    from_mdns,
    instance_name,
    properties,
)

CLUSTERS = st.from_regex(r"[A-Za-z0-9_.\-]{1,32}", fullmatch=True)
NUMBERS = st.integers(0, 10**10 - 1)


def test_an_instance_name_follows_pymes_grammar() -> None:
    assert instance_name("lab", "scope1", 4711) == "PYMEDataServer [lab]:scope1 - PID:4711"


def test_a_long_computer_name_is_cut() -> None:
    name = instance_name("lab", "a-very-long-name-of-a-computer-in-the-basement", 4711)
    assert name == "PYMEDataServer [lab]:a-very-long-name-of-a-computer-in-PID:4711"
    assert len(name) == 63


@given(CLUSTERS, st.text(max_size=80), NUMBERS)
@example("x" * 32, "scope1", 4194304)
@example("x" * 32, "scope1", 9999999999)
@example("lab", "ö" * 60, 1)
def test_an_instance_name_fits_a_dns_label_and_keeps_the_cluster(cluster: str, computer: str, number: int) -> None:
    name = instance_name(cluster, computer, number)
    assert len(name.encode()) <= 63
    assert name.endswith(f"PID:{number}")
    assert Advertisement(name, "10.0.0.1", 1).cluster == cluster


@pytest.mark.parametrize(
    ("instance", "cluster", "computer"),
    [
        ("PYMEDataServer [lab]:scope1 - PID:4711", "lab", "scope1"),
        ("PYMEDataServer [lab]:scope1 - PID:4711 (2)", "lab", "scope1"),
        ("PYMEDataServer [lab]:scope1 - PID:4711-2", "lab", "scope1"),
        ("PYMEDataServer [lab]:scope-1 - PID:4711", "lab", "scope-1"),
        ("PYMEDataServer [lab]:a-very-long-name-of-a-computer-in-PID:4711", "lab", "a-very-long-name-of-a-computer-in"),
        ("PYMEDataServer [lab]:scope1 -PID:4711", "lab", "scope1"),
        ("PYMEDataServer [lab]PID:4711", "lab", ""),
        ("PYMEDataServer []:scope1 - PID:4711", "", "scope1"),
        ("PYMEDataServer [my lab]:scope1 - ", "my lab", "scope1"),
        ("Something else", "", "Something else"),
        ("", "", ""),
    ],
)
def test_cluster_and_computer_are_read_from_the_instance_name(instance: str, cluster: str, computer: str) -> None:
    advertisement = Advertisement(instance, "10.0.0.1", 15348)
    assert (advertisement.cluster, advertisement.computer) == (cluster, computer)


@given(st.text(max_size=60) | st.text(max_size=40).map("PYMEDataServer [".__add__))
def test_any_instance_name_can_be_read(instance: str) -> None:
    advertisement = Advertisement(instance, "10.0.0.1", 1)
    assert advertisement.cluster in instance
    assert advertisement.computer in instance


def test_the_txt_record_is_read_back_from_mdns() -> None:
    txt = {name.encode(): value.encode() for name, value in properties("4f2a", "0.1.0").items()}
    found = from_mdns("PYMEDataServer [lab]:scope1 - PID:1._pyme-http._tcp.local.", "10.0.0.1", 15348, txt)
    assert found == Advertisement("PYMEDataServer [lab]:scope1 - PID:1", "10.0.0.1", 15348, "4f2a", "0.1.0")


@pytest.mark.parametrize("txt", [{}, {b"id": None}, {b"id": b"", b"other": b"\xff"}])
def test_a_pyme_node_has_no_node_id(txt: dict[bytes, bytes | None]) -> None:
    assert from_mdns("x._pyme-http._tcp.local.", "10.0.0.1", 1, txt) == Advertisement("x", "10.0.0.1", 1)


def test_a_txt_record_that_is_not_ascii_does_no_harm() -> None:
    assert from_mdns("x", "10.0.0.1", 1, {b"id": b"\xff\x00"}).node_id == "\ufffd\x00"


def test_the_registry_gives_back_what_was_put_in_and_no_more_after_delete() -> None:
    rows = sqlite3.connect(":memory:")
    rows.execute(REGISTRY_SCHEMA)
    rows.execute(REGISTRY_SCHEMA)
    rows.execute(REGISTRY_INSERT, ("b", "127.0.0.1", 2, 20.0))
    rows.execute(REGISTRY_INSERT, ("a", "127.0.0.1", 1, 10.0))
    before = rows.execute(REGISTRY_SELECT).fetchall()
    rows.execute(REGISTRY_DELETE, ("a",))
    after = rows.execute(REGISTRY_SELECT).fetchall()
    rows.close()
    assert (before, after) == ([("a", "127.0.0.1", 1), ("b", "127.0.0.1", 2)], [("b", "127.0.0.1", 2)])
