"""How many, how slow, how much."""

import pytest

from granum.wire.errors import BodyTooLarge
from granum_node.http.limits import Budget, Pace, check_expansion, connections_max

MIB = 1 << 20


@pytest.mark.parametrize(
    ("descriptors", "found"), [(64, (8, 6)), (256, (96, 72)), (1024, (480, 256)), (65_536, (4096, 256)), (20, (8, 6))]
)
def test_connections_leave_descriptors_and_room_for_others(descriptors: int, found: tuple[int, int]) -> None:
    assert connections_max(descriptors) == found


@pytest.mark.parametrize(
    ("coded", "decoded"), [(1, 32 * MIB), (MIB, 100 * MIB), (0, 0), (10 * MIB, 1000 * MIB), (1 << 36, 1 << 40)]
)
def test_what_a_gzip_body_may_come_to(coded: int, decoded: int) -> None:
    check_expansion(coded, decoded, 1 << 40)


@pytest.mark.parametrize(("coded", "decoded"), [(1, 32 * MIB + 1), (MIB, 100 * MIB + 1), (1 << 39, (1 << 40) + 1)])
def test_what_a_gzip_body_may_not_come_to(coded: int, decoded: int) -> None:
    with pytest.raises(BodyTooLarge):
        check_expansion(coded, decoded, 1 << 40)


def test_the_pace_is_an_average_over_each_window() -> None:
    pace = Pace(100.0)
    pace.arrived = 30 * 1024
    assert [pace.is_too_slow(now) for now in (129.9, 130.0)] == [False, False]
    pace.arrived += 30 * 1024 - 1  # what came too early does not count again
    assert [pace.is_too_slow(now) for now in (159.9, 160.0)] == [False, True]


def test_the_budget_is_over_all() -> None:
    budget = Budget(most=100)
    budget.change(0, 60)
    budget.change(0, 41)
    assert budget.is_spent
    budget.change(41, 40)
    assert not budget.is_spent
