"""Sizes as people write them."""

import pytest

from granum_node.sizes import Size, parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", Size(0)),
        ("1000", Size(1000)),
        ("500MB", Size(500_000_000)),
        ("1GiB", Size(1_073_741_824)),
        ("1.5 kib", Size(1536)),
        ("2T", Size(2_199_023_255_552)),
        ("2%", Size(0, 0.02)),
        ("0.5 %", Size(0, 0.005)),
    ],
)
def test_a_size_is_understood(text: str, size: Size) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1e3", "101%", "1 GiB x", "1XB", "١GB", "1,5GB"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write 500MB, 1GiB or 2%"):
        parse_size(text)


def test_a_share_grows_with_the_disk_and_the_bytes_are_the_least() -> None:
    size = Size(1000, 0.01)
    assert (size.of(50_000), size.of(1_000_000)) == (1000, 10_000)


def test_sizes_are_shown_in_the_unit_that_fits() -> None:
    assert [show_size(number) for number in (0, 1023, 1536, 1 << 30)] == ["0 bytes", "1023 bytes", "1.5 KiB", "1.0 GiB"]
