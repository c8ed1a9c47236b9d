"""The index says what a fresh reading would say, without reading."""

import errno
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from granum_node.storage import directory as directories
from granum_node.storage import index as indexes
from granum_node.storage.directory import TICK_NS, TRUST_S, YOUNG_NS
from granum_node.storage.index import Index
from node.tests.storage.elsewhere import elsewhere, oracle
from node.tests.watching import open_files

LATE_NS = 10 * YOUNG_NS  # for this long, all has been quiet


class Place:
    """A directory with an index that takes all files for old, and whose monotonic clock stands still."""

    def __init__(self, root: Path, entries_max: int = 1_000_000) -> None:
        self.root = root
        self.seconds = 0.0
        self.late_ns = LATE_NS
        self.index = Index(entries_max, lambda: time.time_ns() + self.late_ns, lambda: self.seconds)

    def open(self, name: str = "") -> int:
        return os.open(self.root / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def body(self, name: str = "") -> bytes:
        fd = self.open(name)
        try:
            return self.index.listing(fd, top=not name).body
        finally:
            os.close(fd)

    def listing(self, name: str = "") -> dict[str, list[int]]:
        pairs: list[tuple[str, list[int]]] = json.loads(self.body(name), object_pairs_hook=list)
        assert len(dict(pairs)) == len(pairs), "a name stands there twice"
        return dict(pairs)

    def put(self, name: str, body: bytes = b"hello") -> None:
        """Add a file as the node does: whole, under its own name, seen by the index."""
        self.add(name, len(body), lambda: (self.root / name).write_bytes(body))

    def mkdir(self, name: str) -> None:
        self.add(name, None, (self.root / name).mkdir)

    def add(self, name: str, size: int | None, make: Callable[[], object]) -> None:
        parent, _, last = name.rpartition("/")
        fd = self.open(parent)
        try:
            self.index.add(fd, last, size, lambda: (make(), None)[1])
        finally:
            os.close(fd)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    before = open_files()
    yield Place(tmp_path)
    assert open_files() == before, "a descriptor was left open"


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, no directory may be read."""

    def read(*_: object) -> NoReturn:
        raise OSError(errno.EIO, "a directory was read")

    def forbid() -> None:
        monkeypatch.setattr(os, "scandir", read)
        monkeypatch.setattr(os, "listdir", read)

    return forbid


def freeze_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all that happens to a directory fall into one tick of the clock of files."""
    monkeypatch.setattr(directories, "stamp_of", lambda status: 1)
    monkeypatch.setattr(indexes, "stamp_of", lambda status: 1)


def test_what_was_added_is_listed_without_reading(place: Place, unread: Callable[[], None]) -> None:
    place.put("old")
    assert place.listing() == {"old": [0, 5]}
    unread()
    place.put("new", b"hi")
    assert place.listing() == {"old": [0, 5], "new": [0, 2]}


def test_an_unchanged_listing_is_the_same_bytes(place: Place) -> None:
    place.put("f")
    place.mkdir("d")
    first = place.body()
    assert place.body() is first
    place.put("d/x")
    assert place.body() is not first


def test_the_tag_is_that_of_the_bytes(place: Place) -> None:
    place.put("f")
    fd = place.open()
    first, again = place.index.listing(fd), Index().listing(fd)
    place.put("g")
    other = place.index.listing(fd)
    os.close(fd)
    assert first.tag == again.tag != other.tag
    assert first.tag.startswith('"xxh3-128:')


def test_a_name_below_changes_the_listing_above_without_reading(place: Place, unread: Callable[[], None]) -> None:
    place.mkdir("series")
    place.put("series/f")
    assert place.listing() == {"series/": [1, 1]}
    unread()
    place.put("series/metadata.json")
    assert place.listing() == {"series/": [3, 2]}
    place.put("series/events.json")
    assert place.listing() == {"series/": [7, 3]}


def test_a_new_directory_is_listed_with_what_it_holds(place: Place) -> None:
    assert place.listing() == {}
    place.mkdir("a")
    place.mkdir("a/b")
    place.put("a/b/f")
    assert (place.listing(), place.listing("a")) == ({"a/": [1, 1]}, {"b/": [1, 1]})


def test_what_could_not_be_added_is_not_listed(place: Place) -> None:
    place.listing()

    def fail() -> NoReturn:
        raise FileExistsError

    with pytest.raises(FileExistsError):
        place.add("f", 5, fail)
    assert place.listing() == {}


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (lambda root: (root / "new").write_bytes(b"xyz"), {"f": [0, 5], "d/": [1, 0], "new": [0, 3]}),
        (lambda root: (root / "f").unlink(), {"d/": [1, 0]}),
        (lambda root: (root / "d").rmdir(), {"f": [0, 5]}),
        (lambda root: (root / "d").rename(root / "e"), {"f": [0, 5], "e/": [1, 0]}),
        (lambda root: (root / "d" / "x").touch(), {"f": [0, 5], "d/": [1, 1]}),
        (lambda root: ((root / "f").unlink(), (root / "f").mkdir()), {"f/": [1, 0], "d/": [1, 0]}),
        (lambda root: ((root / "d").rmdir(), (root / "d").write_bytes(b"d")), {"f": [0, 5], "d": [0, 1]}),
        (lambda root: ((root / "f").unlink(), (root / "f").symlink_to("d")), {"d/": [1, 0]}),
        (
            lambda root: ((root / "d" / "x").write_bytes(b"22"), (root / "d" / "x").rename(root / "f")),
            {"f": [0, 2], "d/": [1, 0]},
        ),
    ],
    ids=["placed", "removed", "emptied", "moved", "below", "file to directory", "to file", "to link", "replaced"],
)
def test_what_others_change_is_noticed_at_once(
    place: Place, change: Callable[[Path], object], after: dict[str, list[int]]
) -> None:
    place.put("f")
    place.mkdir("d")
    assert place.listing() == {"f": [0, 5], "d/": [1, 0]}
    place.listing("d")
    elsewhere(lambda: change(place.root), place.root, place.root / "d")
    assert place.listing() == after
    assert place.listing() == oracle(place.root)


def test_a_change_between_two_own_ones_is_noticed(place: Place) -> None:
    place.listing()
    place.put("a")
    elsewhere((place.root / "foreign").touch, place.root)
    place.put("b")
    assert place.listing() == {"a": [0, 5], "b": [0, 5], "foreign": [0, 0]}


def test_an_mtime_that_is_set_back_hides_nothing(place: Place) -> None:
    """As rsync and tar set those of directories."""
    before = place.root.stat()
    place.listing()
    elsewhere((place.root / "f").touch, place.root)
    os.utime(place.root, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert place.listing() == {"f": [0, 0]}


def test_an_own_file_that_others_replaced_has_the_size_of_what_is_there(place: Place) -> None:
    place.put("f", b"hello")
    assert place.listing() == {"f": [0, 5]}
    place.put("g", b"hello")  # known by what was put, never read
    (place.root / "g").unlink()
    elsewhere(lambda: (place.root / "g").write_bytes(b"replaced"), place.root)
    assert place.listing() == oracle(place.root) == {"f": [0, 5], "g": [0, 8]}


def test_a_name_that_others_removed_can_be_added_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir("d")
    place.put("d/f", b"first")
    place.put("d/g")
    freeze_stamps(monkeypatch)  # so that nothing tells of the removal
    place.listing("d")
    (place.root / "d" / "f").unlink()
    place.put("d/f", b"second, and longer")
    assert place.listing() == {"d/": [1, 2]}
    assert place.listing("d") == {"f": [0, 18], "g": [0, 5]}


def test_a_change_in_the_tick_of_an_own_one_is_noticed_a_second_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze_stamps(monkeypatch)
    place.listing()
    place.put("a")
    (place.root / "foreign").touch()
    (place.root / "a").unlink()
    place.seconds = TRUST_S - 0.1
    assert place.listing() == {"a": [0, 5]}, "the clock that stands still is not what it should be"
    place.seconds = TRUST_S
    assert place.listing() == {"foreign": [0, 0]}


def test_a_change_in_the_tick_of_the_first_reading_is_noticed_a_second_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze_stamps(monkeypatch)
    place.index = Index(wall_ns=lambda: 1 + TICK_NS, seconds=lambda: place.seconds)
    assert place.listing() == {}
    (place.root / "foreign").touch()
    assert place.listing() == {}
    place.seconds = TRUST_S
    assert place.listing() == {"foreign": [0, 0]}


def test_a_directory_that_has_been_quiet_is_not_read_again(
    place: Place, unread: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze_stamps(monkeypatch)
    place.put("f")
    place.mkdir("d")
    first = place.listing()
    unread()
    place.seconds = 1e9
    assert place.listing() == first == {"f": [0, 5], "d/": [1, 0]}


def test_a_file_that_grows_has_its_present_size_until_it_has_been_left_alone(place: Place) -> None:
    place.late_ns = 0
    file = place.root / "copied"
    file.write_bytes(b"1")
    assert place.listing() == {"copied": [0, 1]}
    file.write_bytes(b"22")
    assert place.listing() == {"copied": [0, 2]}
    place.late_ns = LATE_NS
    file.write_bytes(b"333")
    assert place.listing() == {"copied": [0, 3]}
    assert place.listing() == {"copied": [0, 3]}
    file.write_bytes(b"4444")
    assert place.listing() == {"copied": [0, 3]}, "documented: a rewrite of an old file is not noticed"


def test_of_many_young_files_only_the_last_to_change_are_looked_at_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "YOUNG_MAX", 2)
    place.late_ns = 0
    for number, name in enumerate("abcd"):
        elsewhere((place.root / name).touch, place.root)
        while number and (place.root / name).stat().st_ctime_ns == (place.root / "abcd"[number - 1]).stat().st_ctime_ns:
            (place.root / name).touch()
    assert place.listing() == {name: [0, 0] for name in "abcd"}
    for name in "abcd":
        (place.root / name).write_bytes(b"grown")
    assert place.listing() == {"a": [0, 0], "b": [0, 0], "c": [0, 5], "d": [0, 5]}


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(tmp_path: Path) -> None:
    place = Place(tmp_path, entries_max=24)
    for name in "abc":
        place.mkdir(name)
        for number in range(9):
            place.put(f"{name}/{number}")
    for name in "aabac":
        assert len(place.listing(name)) == 9
        assert place.index.entries <= 24
    assert place.index.entries == 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", None)
        assert len(place.listing("a")) == 9


def test_what_is_added_and_never_listed_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "ADDED_MAX", 5)
    place = Place(tmp_path, entries_max=24)
    place.listing()
    for number in range(40):
        place.put(f"{number}")
    assert place.index.entries == 0
    assert len(place.listing()) == 40


def test_a_directory_larger_than_the_bound_is_listed_all_the_same(tmp_path: Path) -> None:
    place = Place(tmp_path, entries_max=3)
    for number in range(9):
        place.put(f"{number}")
    assert place.listing() == place.listing() == {f"{number}": [0, 5] for number in range(9)}
    assert place.index.entries == 0


def test_a_listing_that_begins_while_a_name_is_added_does_not_keep_it_out_of_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory was not kept when the put looked; and the clock of files does not tell."""
    freeze_stamps(monkeypatch)

    def make() -> None:
        assert place.listing() == {}
        (place.root / "f").touch()

    place.add("f", 0, make)
    assert place.listing() == {"f": [0, 0]}


def test_a_directory_forgotten_while_a_name_is_added_has_it_in_its_next_listing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze_stamps(monkeypatch)
    place.listing()

    def make() -> None:
        place.index._directories.clear()
        assert place.listing() == {}
        (place.root / "f").touch()

    place.add("f", 0, make)
    assert place.listing() == {"f": [0, 0]}


def while_reading(monkeypatch: pytest.MonkeyPatch, come: Callable[[], None], *, late: bool = True) -> None:
    """Have *come* called in the next reading, before its first name or after its last."""
    real = os.scandir

    class Reading:
        def __init__(self, fd: int) -> None:
            monkeypatch.setattr(os, "scandir", real)
            if not late:
                come()
            self._real = real(fd)

        def __enter__(self) -> "Iterator[os.DirEntry[str]]":
            return iter(self)

        def __exit__(self, *_: object) -> None:
            self._real.close()

        def __iter__(self) -> "Iterator[os.DirEntry[str]]":
            yield from self._real
            if late:
                come()

    monkeypatch.setattr(os, "scandir", Reading)


@pytest.mark.parametrize("own", [True, False], ids=["own", "foreign"])
@pytest.mark.parametrize("late", [True, False], ids=["after its last name", "before its first"])
def test_what_comes_while_a_directory_is_read_is_in_the_next_listing_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, own: bool, late: bool
) -> None:
    place.mkdir("s")
    place.put("s/f")

    def come() -> None:
        if own:
            place.put("s/new")
            place.mkdir("s/d")
        else:
            root = place.root / "s"
            elsewhere(lambda: ((root / "new").write_bytes(b"hello"), (root / "d").mkdir()), root)

    while_reading(monkeypatch, come, late=late)
    place.listing("s")
    assert place.listing() == {"s/": [1, 3]}
    assert place.listing("s") == {"f": [0, 5], "new": [0, 5], "d/": [1, 0]}


def test_what_own_changes_hide_while_a_directory_is_read_is_noticed_a_second_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze_stamps(monkeypatch)

    def come() -> None:
        (place.root / "foreign").touch()
        place.put("own")

    while_reading(monkeypatch, come)
    assert place.listing() == {"own": [0, 5]}
    place.seconds = TRUST_S
    assert place.listing() == {"own": [0, 5], "foreign": [0, 0]}


def test_a_directory_that_is_being_read_is_not_counted_by_what_was_known_before(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("f")
    held: list[object] = []

    def come() -> None:
        (known,) = place.index._directories.values()
        held.append(known.held(place.root.stat().st_ctime_ns))

    while_reading(monkeypatch, come)
    place.listing()
    assert held == [None]


def test_a_reading_that_fails_leaves_nothing_that_is_believed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("f")
    place.mkdir("d")
    real = os.scandir

    def fail(fd: int) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match="Input/output"):
        place.listing()
    monkeypatch.setattr(os, "scandir", real)
    assert place.listing() == {"f": [0, 5], "d/": [1, 0]}


def test_a_directory_that_lies_in_itself_can_be_listed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a bind mount; here its key is the same."""
    place.mkdir("d")
    real = indexes.os.stat
    root = place.root.stat()
    monkeypatch.setattr(indexes.os, "stat", lambda name, **how: root if name == "d" else real(name, **how))
    assert place.listing() == {"d/": [1, 1]}


def test_acknowledged_names_are_listed_while_threads_add_and_others_interfere(tmp_path: Path) -> None:
    index = Index()
    (tmp_path / "d").mkdir()
    acknowledged: list[str] = []
    failures: list[str] = []
    over = threading.Event()

    def add(number: int) -> None:
        fd = os.open(tmp_path / "d", os.O_RDONLY | os.O_DIRECTORY)
        for count in range(150):
            name = f"{number}-{count}"
            index.add(fd, name, 0, (tmp_path / "d" / name).touch)
            acknowledged.append(name)
        os.close(fd)

    def interfere() -> None:
        chance = random.Random(7)
        while not over.wait(0.003):
            (tmp_path / "d" / f"foreign-{chance.randrange(20)}").touch()
            (tmp_path / "d" / f"foreign-{chance.randrange(20)}").unlink(missing_ok=True)
            if chance.random() < 0.1:
                index._directories.clear()

    def look() -> None:
        while not over.is_set():
            known = len(acknowledged)
            before = set(acknowledged[:known])
            fd = os.open(tmp_path / "d", os.O_RDONLY | os.O_DIRECTORY)
            above = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
            pairs = json.loads(index.listing(fd).body, object_pairs_hook=list)
            count = json.loads(index.listing(above).body)["d/"][1]
            os.close(fd)
            os.close(above)
            names = {name for name, _ in pairs}
            if len(names) != len(pairs) or before - names or count < known:
                failures.append(f"{len(pairs)} rows, missing {sorted(before - names)}, counted {count} of {known}")

    adders = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    others = [threading.Thread(target=each) for each in (interfere, look, look)]
    for thread in (*adders, *others):
        thread.start()
    for thread in adders:
        thread.join()
    over.set()
    for thread in others:
        thread.join()
    assert failures == []
    assert len(acknowledged) == 600
