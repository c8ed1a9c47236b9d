"""Which puts a node admits: the reserve, what is on its way and recovery, on a disk and a clock that are made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.wire.errors import NoSpace
from granum.wire.paths import ClusterPath
from granum_node.sizes import Size
from granum_node.storage.space import Claim, Room, Space

PATH = ClusterPath.parse("/d/f")


class Disk:
    """A disk of 10,000 bytes and 100 inodes with a reserve of 1,000 and 10, read when the clock says so."""

    def __init__(self, free: int = 5000, inodes: int = 50, total_inodes: int = 100) -> None:
        self.free = free
        self.inodes = inodes
        self.total_inodes = total_inodes
        self.now = 0.0
        self.readings = 0
        self.space = Space(self.read, lambda: self.now, Size(1000), 10)

    def read(self) -> Room:
        self.readings += 1
        return Room(10_000, 10_000 - self.free, self.free, self.total_inodes, self.inodes)

    def later(self) -> None:
        """Let the last reading grow old."""
        self.now += 1

    def admits(self, size: int, path: ClusterPath = PATH) -> bool:
        try:
            self.space.admit(path, size)
        except NoSpace:
            return False
        return True


def test_a_put_that_would_touch_the_reserve_is_refused_and_a_smaller_one_is_not() -> None:
    disk = Disk()
    assert [disk.admits(4001), disk.admits(4000)] == [False, True]


def test_a_put_that_is_too_large_does_not_make_the_node_full() -> None:
    disk = Disk()
    assert not disk.admits(9000)
    assert disk.space.full is None


def test_what_other_puts_have_announced_is_not_promised_twice() -> None:
    disk = Disk()
    assert [disk.admits(1500) for _ in range(3)] == [True, True, False]
    disk.later()  # nothing of it has arrived, so the new reading shows as much as before
    assert not disk.admits(1500)


def test_what_has_arrived_is_taken_from_the_reading_and_not_once_more() -> None:
    disk = Disk()
    claim = disk.space.admit(PATH, 1500)
    claim.arrived(1500)
    disk.free -= 1500
    disk.later()
    assert disk.admits(2500)


def test_a_put_that_was_cut_gives_back_what_it_announced() -> None:
    disk = Disk()
    disk.space.admit(PATH, 4000).settle(stored=False)
    disk.later()
    assert disk.admits(4000)


def test_the_disk_is_read_a_few_times_a_second_and_not_for_each_put() -> None:
    disk = Disk()
    for _ in range(20):
        disk.space.admit(PATH, 1)
    assert disk.readings == 1
    disk.now += 0.25
    disk.space.admit(PATH, 1)
    assert disk.readings == 2


def test_a_body_of_unknown_length_is_refused_while_it_grows() -> None:
    disk = Disk()
    claim = disk.space.admit(PATH, 0)
    claim.arrived(4000)
    with pytest.raises(NoSpace):
        claim.arrived(4001)


def test_a_full_node_says_how_full_and_takes_puts_again_above_the_reserve_by_a_fifth() -> None:
    disk = Disk(free=999)
    assert disk.space.full == (
        "the node has no room left: 999 bytes are free, and it takes puts again when 1.2 KiB are; free some or add a node"
    )
    disk.free = 1199
    disk.later()
    assert not disk.admits(0)
    disk.free = 1200
    disk.later()
    assert disk.admits(0)
    assert disk.space.full is None


def test_a_disk_that_fills_up_behind_the_nodes_back_is_noticed() -> None:
    disk = Disk()
    assert disk.admits(1)
    disk.free = 10
    disk.later()
    assert not disk.admits(1)


def test_inodes_have_a_reserve_of_their_own() -> None:
    disk = Disk(inodes=12)
    assert [disk.admits(0) for _ in range(3)] == [True, True, False]
    assert "inodes are free" in str(disk.space.full)


def test_a_file_system_that_does_not_count_inodes_has_no_lack_of_them() -> None:
    assert Disk(inodes=0, total_inodes=0).admits(1)


def test_a_disk_that_cannot_be_read_is_taken_to_be_as_it_was() -> None:
    disk = Disk()

    def broken() -> Room:
        raise OSError(5, "")

    disk.space._read = broken
    disk.later()
    assert disk.admits(1)


@given(
    st.lists(
        st.tuples(st.sampled_from(["admit", "arrive", "cut", "finish", "look"]), st.integers(0, 3000)), max_size=60
    )
)
def test_whatever_happens_the_reserve_is_never_touched(steps: list[tuple[str, int]]) -> None:
    disk = Disk(inodes=10**6, total_inodes=10**6)
    arriving: list[tuple[Claim, int]] = []
    for step, number in steps:
        if step == "admit":
            try:
                arriving.append((disk.space.admit(PATH, number), number))
            except NoSpace:
                continue
        elif step == "look":
            disk.later()
        elif arriving:
            claim, size = arriving.pop(number % len(arriving))
            more = {"arrive": min(number, size - claim.size), "cut": 0, "finish": size - claim.size}[step]
            disk.free -= more
            claim.arrived(claim.size + more)
            if step == "arrive":
                arriving.append((claim, size))
            elif step == "cut":
                disk.free += claim.size
                claim.settle(stored=False)
            else:
                claim.settle(stored=True)
        assert disk.free >= 1000
