"""What a user may write for a place in a cluster."""

import pytest

from granum.cli.place import Place, one_cluster
from granum.wire.errors import BadLocator, BadPath
from granum.wire.paths import ClusterPath


@pytest.mark.parametrize("text", ["/a/b", "a/b", "granum://lab/a/b", "pyme-cluster://lab/a/b", "PYME-CLUSTER:///a/b"])
def test_every_spelling_names_the_path(text: str) -> None:
    assert Place.parse(text).path == ClusterPath(("a", "b"))


@pytest.mark.parametrize(("text", "cluster"), [("/a", None), ("granum://lab/a", "lab"), ("granum:///a", "")])
def test_only_a_locator_names_a_cluster(text: str, cluster: str | None) -> None:
    assert Place.parse(text).cluster == cluster


@pytest.mark.parametrize(("text", "slash"), [("a", False), ("a/", True), ("/", True), ("granum://lab/a/", True)])
def test_a_final_slash_is_remembered(text: str, slash: bool) -> None:
    assert Place.parse(text).slash is slash


@pytest.mark.parametrize(
    ("text", "error"),
    [("a/../b", BadPath), ("/__status", BadPath), ("ftp://a/b", BadLocator), ("GRANUM://a", BadLocator)],
)
def test_what_is_no_place_is_refused(text: str, error: type[Exception]) -> None:
    """A misspelt scheme is not taken for a directory 'ftp:'."""
    with pytest.raises(error):
        Place.parse(text)


def test_the_cluster_of_a_locator_wins() -> None:
    assert one_cluster([Place.parse("granum://lab/a"), Place.parse("b")], "other") == "lab"


def test_an_empty_cluster_in_a_locator_means_any() -> None:
    assert one_cluster([Place.parse("granum:///a")], "other") == ""


def test_without_a_locator_the_option_holds() -> None:
    assert one_cluster([Place.parse("a")], "other") == "other"


def test_two_clusters_in_one_command_are_refused() -> None:
    with pytest.raises(BadLocator, match="one cluster; these name 'a', 'b'"):
        one_cluster([Place.parse("granum://a/x"), Place.parse("granum://b/x")], "")
