"""Copies of frames lie in memory that is used again, and never while anything refers to it."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from granum.streaming import buffers
from granum.streaming.buffers import Buffers

IMAGE = np.arange(1 << 16, dtype="u2").reshape(256, 256)  # 128 KiB


@pytest.mark.parametrize(
    "image", [IMAGE, IMAGE.astype(">u2"), np.asfortranarray(IMAGE), IMAGE[::2, ::2], IMAGE[:3, :4], IMAGE[None]]
)
def test_a_copy_is_equal_native_and_in_the_order_that_it_had(image: NDArray[np.uint16]) -> None:
    copy = Buffers(0).copied(image)
    assert np.array_equal(copy, image)
    assert copy.dtype == image.dtype.newbyteorder("=")
    assert not np.shares_memory(copy, image)
    assert copy.flags.f_contiguous == image.flags.f_contiguous
    assert copy.flags.contiguous or copy.flags.f_contiguous


def test_memory_is_used_again_when_nothing_refers_to_it() -> None:
    kept = Buffers(0)
    address = kept.copied(IMAGE).ctypes.data
    copy = kept.copied(IMAGE + 1)
    assert copy.ctypes.data == address
    assert np.array_equal(copy, IMAGE + 1)


def test_a_view_of_any_kind_keeps_the_memory_in_use() -> None:
    kept = Buffers(0)
    piece = kept.copied(np.asfortranarray(IMAGE)).T.data.cast("B")[7:]
    before = bytes(piece)
    others = [kept.copied(np.zeros_like(IMAGE)) for _ in range(3)]
    assert bytes(piece) == before
    assert len(kept.free) == 0
    del piece, others
    assert len(kept.free) == 4


def test_no_more_is_kept_than_the_bound_and_nothing_of_another_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "KEPT_BYTES_MAX", 3 * IMAGE.nbytes)
    kept = Buffers(0)
    copies = [kept.copied(IMAGE) for _ in range(5)]
    del copies
    assert len(kept.free) == 3
    larger = kept.copied(np.zeros((512, 512), "u2"))
    assert len(kept.free) == 0
    del larger
    assert len(kept.free) == 0  # four times the size: beyond the bound


def test_buffers_are_touched_ahead_in_another_thread_and_used_by_the_next_copies() -> None:
    kept = Buffers(4 * IMAGE.nbytes)
    first = kept.copied(IMAGE)
    with kept._touching:  # which the thread holds until it is done
        assert len(kept.free) == 4
    ready = {memory.ctypes.data for memory in kept.free}
    copies = [kept.copied(IMAGE) for _ in range(2)]
    assert {copy.ctypes.data for copy in copies} <= ready
    assert np.array_equal(first, IMAGE)


def test_memory_may_be_prepared_before_the_first_copy() -> None:
    kept = Buffers(2 * IMAGE.nbytes)
    kept.prepare(IMAGE.nbytes)
    with kept._touching:
        ready = [memory.ctypes.data for memory in kept.free]
    assert len(ready) == 2
    assert kept.copied(IMAGE).ctypes.data in ready
    kept.prepare(1000)  # so small that the allocator keeps it
    assert not kept._touching.locked()


def test_a_copy_is_made_though_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    kept = Buffers()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert np.array_equal(kept.copied(IMAGE), IMAGE)
    kept.prepare(IMAGE.nbytes)
    with kept._touching:
        assert kept.free


def test_what_is_touched_while_it_ends_is_given_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    is_touching, may_go = threading.Event(), threading.Event()

    def empty(size: int, dtype: str) -> NDArray[np.uint8]:
        is_touching.set()
        may_go.wait()
        return np.zeros(size, dtype)

    kept = Buffers()
    with monkeypatch.context() as patched:
        patched.setattr(buffers.np, "empty", empty)
        kept.prepare(IMAGE.nbytes)
        is_touching.wait()
        kept.end()
        may_go.set()
        with kept._touching:
            assert not kept.free


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_copies_that_are_held_never_change(steps: list[tuple[bool, int]]) -> None:
    kept, held = Buffers(0), {}
    for number, (is_made, place) in enumerate(steps):
        if is_made:
            held[place] = number, kept.copied(np.full((256, 256), number, "u2"))
        else:
            held.pop(place, None)
        assert all((copy == value).all() for value, copy in held.values())
