"""Quotas of directories and addresses: what they count, when they end, and by how much they are overshot."""

import pytest

from granum.wire.errors import GranumError, NoSpace, OverQuota
from granum.wire.paths import ClusterPath
from granum_node.sizes import Size
from granum_node.storage import quota as quota_module
from granum_node.storage.quota import DirectoryQuota, Quotas
from granum_node.storage.space import Claim, Room, Space

FIRST, SECOND = ClusterPath.parse("/lab/a/f"), ClusterPath.parse("/lab/b/g")
ELSEWHERE = ClusterPath.parse("/other/f")


class Node:
    """A node on a large disk with quotas for `/lab` and for each address."""

    def __init__(self, limit: int | None = None, files: int | None = None, per_address: int | None = None) -> None:
        self.now = 0.0
        limits = {} if limit is None else {"lab": limit}
        limits_files = {} if files is None else {"lab": files}
        self.quotas = Quotas.of(limits, limits_files, per_address, lambda: self.now)
        room = Room(10**9, 0, 10**9, 10**6, 10**6)
        self.space = Space(lambda: room, lambda: self.now, Size(0), 0, self.quotas)

    @property
    def lab(self) -> DirectoryQuota:
        return self.quotas.directories["lab"]

    def put(self, size: int, path: ClusterPath = FIRST, peer: str = "10.0.0.1") -> bool:
        """Store *size* bytes; return whether they were admitted."""
        try:
            claim = self.space.admit(path, size, peer)
        except GranumError:
            return False
        claim.arrived(size)
        claim.settle(stored=True)
        return True

    def admits(self, size: int, path: ClusterPath = FIRST, peer: str = "10.0.0.1") -> bool:
        """Begin to store *size* bytes; return whether that was admitted."""
        try:
            self.space.admit(path, size, peer)
        except GranumError:
            return False
        return True


def claim_of(node: Node, size: int) -> Claim:
    return node.space.admit(FIRST, size, "10.0.0.1")


# -- bytes of a directory --------------------------------------------------------------------------------------------


def test_a_quota_is_overshot_by_one_put_at_most_also_by_many_at_once() -> None:
    node = Node(1000)
    assert [node.admits(999, FIRST), node.admits(900, SECOND), node.admits(1, FIRST)] == [True, True, False]


def test_a_quota_names_itself_and_its_directory() -> None:
    with pytest.raises(NoSpace, match="the directory /lab has used up its quota of 0 bytes on this node"):
        claim_of(Node(0), 1)


def test_a_quota_is_of_its_directory_alone() -> None:
    node = Node(0)
    assert [node.admits(1, ELSEWHERE), node.admits(1, ClusterPath.parse("/lab"))] == [True, True]


def test_a_put_that_was_not_stored_does_not_count() -> None:
    node = Node(1000, 1, 1000)
    claim_of(node, 1000).settle(stored=False)
    assert node.admits(1)


def test_a_body_of_unknown_length_ends_at_its_quota() -> None:
    claim = claim_of(Node(1000), 0)
    claim.arrived(1000)
    with pytest.raises(NoSpace, match="quota"):
        claim.arrived(1001)


def test_what_is_stored_while_a_directory_is_measured_counts() -> None:
    node = Node(1000, 10)
    node.lab.begin_measuring()
    node.put(300)
    node.lab.measured(700, 4)
    assert (node.lab.used, node.lab.files) == (1000, 5)
    node.lab.begin_measuring()
    node.lab.measured(200, 1)  # somebody has removed files
    assert node.admits(1)


def test_a_claim_is_settled_once() -> None:
    node = Node(1000, 2)
    claim = claim_of(node, 300)
    claim.settle(stored=False)
    claim.settle(stored=False)
    assert (node.lab.arriving, node.lab.arriving_files) == (0, 0)


# -- files of a directory --------------------------------------------------------------------------------------------


def test_a_number_of_files_is_exact_also_for_empty_ones_and_many_at_once() -> None:
    node = Node(files=2)
    assert [node.put(0), node.admits(0, SECOND), node.admits(0)] == [True, True, False]


def test_the_last_file_that_is_admitted_may_still_grow() -> None:
    claim = Node(files=1).space.admit(FIRST, 0)
    claim.arrived(10**6)
    claim.settle(stored=True)


def test_a_number_of_files_is_named() -> None:
    with pytest.raises(NoSpace, match="the directory /lab has used up its quota of 0 files on this node"):
        claim_of(Node(files=0), 1)


# -- addresses -------------------------------------------------------------------------------------------------------


def test_an_address_overshoots_its_quota_by_one_put_and_others_are_not_concerned() -> None:
    node = Node(per_address=1000)
    assert [node.put(999), node.admits(5000, ELSEWHERE), node.admits(0)] == [True, True, False]
    assert node.admits(1, peer="10.0.0.2")


def test_an_address_is_told_what_it_has_put() -> None:
    node = Node(per_address=1000)
    node.put(1000)
    with pytest.raises(OverQuota, match="has put the 1000 bytes that this node takes of one address in an hour"):
        claim_of(node, 1)


def test_an_address_is_forgiven_its_limit_in_an_hour() -> None:
    node = Node(per_address=1000)
    node.put(1500)
    node.now = 1800
    assert not node.admits(1)  # 1500 - 500
    node.now = 1804
    assert node.admits(1)


def test_what_is_still_arriving_is_not_forgiven() -> None:
    node = Node(per_address=1000)
    node.admits(1000)
    node.now = 7200
    assert not node.admits(1)


def test_a_body_of_unknown_length_ends_at_the_quota_of_its_address() -> None:
    claim = claim_of(Node(per_address=1000), 0)
    claim.arrived(1000)
    with pytest.raises(OverQuota):
        claim.arrived(1001)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [("fd00::1", "fd00::2:0:0:9", True), ("fd00::1", "fd00:0:0:1::1", False), ("10.0.0.1", "10.0.0.2", False)],
)
def test_a_host_that_takes_a_new_address_for_each_put_stays_one_host(first: str, second: str, same: bool) -> None:
    node = Node(per_address=1000)
    node.put(1000, peer=first)
    assert node.admits(1, peer=second) is not same


def test_addresses_are_forgotten_and_beyond_a_number_share_one_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """So their memory is bounded whoever comes."""
    monkeypatch.setattr(quota_module, "ADDRESSES_MAX", 2)
    node = Node(per_address=1000)
    assert [node.put(1000, peer=f"10.0.0.{host}") for host in range(1, 5)] == [True, True, True, False]
    node.now = 3600
    assert [node.put(1000, peer=f"10.0.0.{host}") for host in range(5, 8)] == [True, True, True]
    assert len(node.quotas._addresses) == 3
