"""Verifying a store: damage is found where size and times say nothing, and only there."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from granum.wire.digest import Digest
from granum.wire.errors import StoreUnusable
from granum.wire.paths import ClusterPath
from granum_node.storage import verify as verifying
from granum_node.storage.digest import ATTRIBUTE
from granum_node.storage.store import Store
from granum_node.storage.verify import State, Verdict, examine, judge, verify

ONE, OTHER = Digest("xxh3-128", "0" * 32), Digest("xxh3-128", "0" * 31 + "1")


def fill(root: Path, bodies: dict[str, bytes], *, logged: bool = False) -> None:
    store = Store.open(str(root))
    for name, body in bodies.items():
        file = store.spool()
        file.write(body)
        file.publish(store.tree, ClusterPath.parse(name))
        store.published(ClusterPath.parse(name), file)
    if logged:
        store.log.write(store.log.take())
    store.close()


def flip(file: Path, random: random.Random) -> None:
    """Flip one bit and keep mode, size and times."""
    status = file.stat()
    body = bytearray(file.read_bytes())
    body[random.randrange(len(body))] ^= 1 << random.randrange(8)
    file.chmod(0o640)
    file.write_bytes(body)
    file.chmod(status.st_mode)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_mode) == (status.st_size, status.st_mtime_ns, status.st_mode)


def test_the_judgement() -> None:
    assert [judge(ONE, ONE), judge(ONE, OTHER), judge(None, ONE)] == [State.GOOD, State.DAMAGED, State.WITHOUT]


@pytest.mark.parametrize(
    ("beside", "found", "logged", "state"),
    [
        (None, ONE, ONE, State.BARE),
        (None, OTHER, ONE, State.DAMAGED),
        (OTHER, ONE, ONE, State.BARE),  # it is the attribute that is damaged
        (ONE, ONE, OTHER, State.GOOD),  # removed by hand and put again: the later record was lost
        (ONE, Digest("xxh3-128", "2" * 32), OTHER, State.DAMAGED),
    ],
)
def test_the_judgement_with_a_record(beside: Digest | None, found: Digest, logged: Digest, state: State) -> None:
    assert judge(beside, found, logged) == state


def test_a_lost_attribute_is_noticed_by_the_log(tmp_path: Path) -> None:
    bodies = {"d/a": b"1", "d/b": b"2", "d/c": b"3"}
    fill(tmp_path, bodies, logged=True)
    (tmp_path / "d" / "by-hand").write_bytes(b"4")
    for name in ("a", "b"):
        os.chmod(tmp_path / "d" / name, 0o640)
        os.removexattr(tmp_path / "d" / name, ATTRIBUTE)
    (tmp_path / "d" / "b").write_bytes(b"x")
    states = {verdict.name: verdict.state for verdict in verify(str(tmp_path))}
    assert states == {"d/a": State.BARE, "d/b": State.DAMAGED, "d/c": State.GOOD, "d/by-hand": State.WITHOUT}


def test_verifying_goes_on_behind_any_name(tmp_path: Path) -> None:
    bodies = dict.fromkeys(("a", "b/c/d", "b/c/e", "b/f", "b.g", "h"), b"1")
    fill(tmp_path, bodies)
    top = os.open(tmp_path, os.O_RDONLY)
    try:
        order = [verdict.name for verdict in examine(top)]
        for number, name in enumerate(order):
            assert [verdict.name for verdict in examine(top, after=name)] == order[number + 1 :]
        assert [verdict.name for verdict in examine(top, at_once=1)] == order
        assert [verdict.name for verdict in examine(top, after="b/c/d", at_once=2)] == order[2:]
        assert [verdict.name for verdict in examine(top, after="b/c/dd")] == ["b/c/e", "b/f", "b.g", "h"]
    finally:
        os.close(top)
    assert sorted(order) == sorted(bodies)


def test_every_flipped_bit_is_found_and_nothing_else(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    choice = random.Random(seed)
    bodies = {f"d{number % 7}/f{number}": choice.randbytes(choice.choice([1, 100, 70_000])) for number in range(200)}
    fill(tmp_path, bodies)
    damaged = set(choice.sample(sorted(bodies), 20))
    for name in damaged:
        flip(tmp_path / name, choice)
    found = {verdict.name: verdict.state for verdict in verify(str(tmp_path))}
    assert found == {name: State.DAMAGED if name in damaged else State.GOOD for name in bodies}, f"seed {seed}"


def test_a_check_of_size_and_time_would_find_nothing(tmp_path: Path) -> None:
    """The control: what `flip` does is invisible without reading."""
    fill(tmp_path, {"f": b"hello"})
    before = (tmp_path / "f").stat()
    flip(tmp_path / "f", random.Random(1))
    after = (tmp_path / "f").stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    assert (tmp_path / "f").read_bytes() != b"hello"


def test_what_is_no_file_of_the_store_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, {"d/f": b"hello"})
    (tmp_path / "by-hand").write_bytes(b"hello")
    (tmp_path / "link").symlink_to("d/f")
    os.mkfifo(tmp_path / "fifo")
    assert list(verify(str(tmp_path))) == [Verdict("by-hand", State.WITHOUT), Verdict("d/f", State.GOOD)]


def test_a_file_that_the_disk_does_not_give_is_told_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, {"a": b"1", "b": b"2", "c": b"3"})
    real = verifying.digest_of

    def digest_of(fd: int, algorithm: str, pace: Callable[[int], None]) -> Digest:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/b"):
            raise OSError(5, "Input/output error")
        return real(fd, algorithm, pace)

    monkeypatch.setattr(verifying, "digest_of", digest_of)
    assert [verdict.state for verdict in verify(str(tmp_path))] == [State.GOOD, State.UNREADABLE, State.GOOD]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable):
        list(verify(str(tmp_path / "no")))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    fill(tmp_path, {"a/b/c/f": b"hello", "g": b""})
    before = len(os.listdir("/proc/self/fd"))
    assert len(list(verify(str(tmp_path)))) == 2
    assert len(os.listdir("/proc/self/fd")) == before
