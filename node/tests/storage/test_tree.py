"""What can be opened below a root, and that nothing else can, with the kernel's resolver and with the one for old kernels."""

import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from granum.wire.errors import (
    GranumError,
    IsADirectory,
    NodeBusy,
    NoSpace,
    NotADirectory,
    NotAllowed,
    NotStored,
    PathTooLong,
    StoreUnusable,
)
from granum.wire.paths import ROOT, ClusterPath
from granum_node.storage import tree as trees
from granum_node.storage.tree import Tree, error_of
from node.tests.watching import open_files

SECRET = b"outside the store"


def kernel_has_openat2() -> bool:
    return trees.choose_opener(os.open("/", os.O_RDONLY | os.O_CLOEXEC)) is trees._openat2


OPENERS = [
    pytest.param(
        trees._openat2, id="openat2", marks=pytest.mark.skipif(not kernel_has_openat2(), reason="no openat2 here")
    ),
    pytest.param(trees._open_each, id="component-wise"),
]


class Place:
    """A root with something outside of it, and everything in it that could lead there."""

    def __init__(self, directory: Path, opener: Callable[[int, str, int], int]) -> None:
        self.root = directory / "root"
        self.outside = directory / "outside"
        for made in (self.root, self.outside, self.root / "d"):
            made.mkdir()
        (self.outside / "secret").write_bytes(SECRET)
        (self.root / "f").write_bytes(b"hello")
        (self.root / "to-file").symlink_to(self.outside / "secret")
        (self.root / "to-directory").symlink_to(self.outside)
        (self.root / "to-parent").symlink_to("..")
        (self.root / "to-inside").symlink_to("d")
        (self.root / "dangling").symlink_to("nowhere")
        (self.root / "to-itself").symlink_to("to-itself")
        (self.root / "magic").symlink_to("/proc/self/root")
        (self.root / "magic-fd").symlink_to("/proc/self/fd/0")
        os.mkfifo(self.root / "fifo")
        self._listener = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(self.root)  # the path of a socket may have no more than 107 bytes
        self._listener.bind("socket")
        os.chdir(here)
        self.fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        self.tree = Tree(self.fd, opener)

    def close(self) -> None:
        self._listener.close()
        os.close(self.fd)


@pytest.fixture(params=OPENERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    before = open_files()
    made = Place(tmp_path, request.param)
    yield made
    made.close()
    assert open_files() == before, "a descriptor was left open"
    assert sorted(os.listdir(made.outside)) == ["secret"]
    assert (made.outside / "secret").read_bytes() == SECRET


LINKS = ["to-file", "to-directory", "to-parent", "to-inside", "dangling", "to-itself", "magic", "magic-fd"]
BELOW_LINKS = ["to-directory/secret", "to-parent/outside/secret", "to-inside/x", "magic/proc/version", "to-itself/x"]
ODD = ["fifo", "socket"]


def path(text: str) -> ClusterPath:
    return ClusterPath.parse(text)


def test_a_file_is_opened_with_its_status(place: Place) -> None:
    fd, status = place.tree.open_file(path("f"))
    assert (os.read(fd, 10), status.st_size) == (b"hello", 5)
    os.close(fd)


def test_a_directory_is_no_file(place: Place) -> None:
    with pytest.raises(IsADirectory):
        place.tree.open_file(path("d"))


@pytest.mark.parametrize("name", [*LINKS, *BELOW_LINKS, *ODD, "missing", "missing/x", "f/x", "fifo/x"])
def test_nothing_else_is_a_file(place: Place, name: str) -> None:
    with pytest.raises(NotStored):
        place.tree.open_file(path(name))


@pytest.mark.parametrize("name", [*LINKS, *BELOW_LINKS, *ODD, "f", "missing", "f/x"])
def test_nothing_but_a_directory_is_opened_as_one(place: Place, name: str) -> None:
    with pytest.raises(NotStored):
        place.tree.open_directory(path(name))


@pytest.mark.parametrize("name", ["f", "d", *LINKS, *ODD])
def test_whatever_is_there_takes_its_name(place: Place, name: str) -> None:
    assert place.tree.is_taken(path(name))


@pytest.mark.parametrize("name", ["missing", "d/missing", "missing/missing"])
def test_a_missing_name_is_free(place: Place, name: str) -> None:
    assert not place.tree.is_taken(path(name))


@pytest.mark.parametrize("name", ["f/x", "f/x/y", *BELOW_LINKS, "dangling/x", "fifo/x", "socket/x"])
def test_a_name_below_what_is_no_directory_is_refused(place: Place, name: str) -> None:
    with pytest.raises(NotADirectory):
        place.tree.is_taken(path(name))


@pytest.mark.parametrize("name", ["f", "f/x", *LINKS, *BELOW_LINKS, *ODD, "to-directory/new", "dangling/a/b"])
def test_no_directory_is_made_below_what_is_none(place: Place, name: str) -> None:
    with pytest.raises(NotADirectory):
        place.tree.make_directories(path(name))


def test_directories_are_made_with_their_parents(place: Place) -> None:
    fd = place.tree.make_directories(path("a/b/c"))
    assert os.path.samestat(os.fstat(fd), os.stat(place.root / "a" / "b" / "c"))
    os.close(fd)


def test_the_root_is_a_directory_that_is_there(place: Place) -> None:
    for fd in (place.tree.make_directories(ROOT), place.tree.open_directory(ROOT)):
        assert os.path.samestat(os.fstat(fd), os.fstat(place.fd))
        os.close(fd)
    assert place.tree.is_taken(ROOT)


def test_threads_that_make_the_same_directories_all_get_them(place: Place) -> None:
    together = threading.Barrier(16)
    found: list[os.stat_result] = []

    def make() -> None:
        together.wait()
        for number in range(30):
            fd = place.tree.make_directories(path(f"race/{number}/a/b"))
            found.append(os.fstat(fd))
            os.close(fd)

    threads = [threading.Thread(target=make) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16 * 30
    assert len({status.st_ino for status in found}) == 30


def test_two_dots_cannot_even_be_said_and_would_not_be_opened(tmp_path: Path) -> None:
    """The path type refuses them; should one slip through, the kernel's resolver refuses it too."""
    with pytest.raises(GranumError):
        path("../x")
    if not kernel_has_openat2():
        pytest.skip("no openat2 here")
    root = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "f").touch()
    with pytest.raises(NotStored):
        Tree(root, trees._openat2).open_file(ClusterPath(("..", tmp_path.name, "f")))
    os.close(root)


def test_a_name_that_the_file_system_finds_too_long(place: Place) -> None:
    name = ClusterPath(("x" * 256,))  # cannot be parsed; other file systems have lower limits
    for open_it in (place.tree.open_file, place.tree.open_directory, place.tree.is_taken, place.tree.make_directories):
        with pytest.raises(PathTooLong):
            open_it(name)


def test_a_device_is_no_file(place: Place) -> None:
    try:
        os.mknod(place.root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device needs root")
    with pytest.raises(NotStored):
        place.tree.open_file(path("null"))


@pytest.mark.parametrize("opener", OPENERS)
def test_what_is_closed_to_the_node_is_not_allowed(tmp_path: Path, opener: Callable[[int, str, int], int]) -> None:
    """In a child process of another user, since root may open everything."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    tmp_path.chmod(0o755)
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "f").touch(mode=0o600)
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setuid(65534)
            tree = Tree(root, opener)
            for call in (
                lambda: tree.open_file(path("f")),
                lambda: tree.open_file(path("d/x")),
                lambda: tree.open_directory(path("d")),
                lambda: tree.is_taken(path("d/x")),
                lambda: tree.make_directories(path("d/x")),
                lambda: tree.make_directories(path("new")),
            ):
                with pytest.raises(NotAllowed):
                    call()
            status = 0
        finally:
            os._exit(status)
    _, code = os.waitpid(child, 0)
    os.close(root)
    assert code == 0


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_without_the_call_is_served_component_by_component(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(root: int, relative: str, flags: int) -> int:
        raise OSError(number, "no such call")

    monkeypatch.setattr(trees, "_openat2", refuse)
    assert trees.choose_opener(0) is trees._open_each


@pytest.mark.parametrize(
    ("number", "below", "error"),
    [
        (errno.ENOENT, False, NotStored),
        (errno.ENOTDIR, False, NotStored),
        (errno.ELOOP, False, NotStored),
        (errno.ENXIO, False, NotStored),
        (errno.ENOTDIR, True, NotADirectory),
        (errno.ELOOP, True, NotADirectory),
        (errno.EXDEV, True, StoreUnusable),
        (errno.ENAMETOOLONG, True, PathTooLong),
        (errno.EACCES, False, NotAllowed),
        (errno.EPERM, True, NotAllowed),
        (errno.ENOSPC, True, NoSpace),
        (errno.EDQUOT, True, NoSpace),
        (errno.EROFS, True, NodeBusy),
        (errno.EIO, False, StoreUnusable),
        (errno.EMFILE, False, NodeBusy),
        (errno.ENFILE, True, NodeBusy),
        (errno.ENOMEM, True, NodeBusy),
    ],
)
def test_what_an_error_of_the_system_means(number: int, below: bool, error: type[GranumError]) -> None:
    found = error_of(OSError(number, "x", "/host/path"), path("a/f"), below=below)
    assert type(found) is error
    assert "/a/f" in str(found)
    assert "host" not in str(found)
