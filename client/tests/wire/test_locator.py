"""Locators: the URIs of places in a cluster."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.wire.errors import BadLocator, BadPath
from granum.wire.locator import Locator, check_cluster_name, is_locator
from granum.wire.paths import ClusterPath

PLAIN = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/\\")
NAMES = st.text(PLAIN, min_size=1, max_size=30).filter(lambda name: name not in {".", "..", ".granum"})
PATHS = st.lists(NAMES, max_size=5).filter(lambda names: not names or not names[0].startswith("__")).map(ClusterPath.of)
CLUSTERS = st.from_regex(r"[A-Za-z0-9_.\-]{0,32}", fullmatch=True)


@given(CLUSTERS, PATHS)
def test_parsing_is_inverse_to_the_text_form(cluster: str, path: ClusterPath) -> None:
    assert Locator.parse(str(Locator(cluster, path))) == Locator(cluster, path)


@pytest.mark.parametrize(
    ("text", "cluster", "path"),
    [
        ("granum://lab/run1/frame00000.pzf", "lab", "/run1/frame00000.pzf"),
        ("granum:///run1", "", "/run1"),
        ("granum://lab", "lab", "/"),
        ("granum://lab/", "lab", "/"),
        ("granum://", "", "/"),
        ("pyme-cluster://lab/run1/", "lab", "/run1"),
        ("PYME-CLUSTER://lab//run1", "lab", "/run1"),
        ("pymecluster:///run1", "", "/run1"),
        ("granum://lab/a b?c#d%20", "lab", "/a b?c#d%20"),
    ],
)
def test_a_uri_names_a_place(text: str, cluster: str, path: str) -> None:
    assert Locator.parse(text) == Locator(cluster, ClusterPath.parse(path))


def test_granum_writes_its_own_scheme() -> None:
    assert str(Locator.parse("PYME-CLUSTER://lab//run1/")) == "granum://lab/run1"


@pytest.mark.parametrize(
    "text", ["", "/run1", "run1", "granum:/lab/run1", "granum:lab", "http://lab/run1", " granum://lab", "file:///run1"]
)
def test_other_texts_are_no_locators(text: str) -> None:
    assert not is_locator(text)
    with pytest.raises(BadLocator):
        Locator.parse(text)


@pytest.mark.parametrize(
    "text", ["granum://lab/../x", "granum://lab/__status", "granum://lab/a\x00", "granum:///.granum/x"]
)
def test_a_locator_of_a_bad_path_is_refused(text: str) -> None:
    with pytest.raises(BadPath):
        Locator.parse(text)


@given(st.text(max_size=60) | st.text(max_size=40).map("granum://lab/".__add__))
def test_arbitrary_text_is_a_locator_or_refused(text: str) -> None:
    try:
        assert Locator.parse(text).path.parts is not None
    except (BadLocator, BadPath):
        return
    assert is_locator(text)


@pytest.mark.parametrize("name", ["lab", "a", "Lab_2.b-c", "x" * 32])
def test_a_cluster_name_may_be_advertised(name: str) -> None:
    assert check_cluster_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 33, "a b", "a/b", "a]b", "[", "ä", "a\n", "a:b"])
def test_a_cluster_name_that_would_break_an_advertisement_is_refused(name: str) -> None:
    with pytest.raises(BadLocator):
        check_cluster_name(name)
