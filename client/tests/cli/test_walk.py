"""The walk is in the order of names, asks ahead, and holds no more than it says."""

from concurrent.futures import Future

from hypothesis import given
from hypothesis import strategies as st

from granum.cli.walk import AHEAD_MAX, AHEAD_NAMES_MAX, asking_ahead
from granum.union import UnionView
from granum.wire.errors import NotStored
from granum.wire.listing import Entry, Flags
from granum.wire.paths import ROOT, ClusterPath


def view(directories: list[str], names: int = 0) -> UnionView:
    """Return the view of a directory with *directories*, each of which holds *names*."""
    return UnionView({name: (Entry(name, Flags.DIRECTORY, names), ()) for name in directories}, (), {}, stored=True)


class Cluster:
    """Answers at once with what *tree* says; *asked* is what it was asked for, in order."""

    def __init__(self, tree: dict[str, UnionView]) -> None:
        self.tree = tree
        self.asked: list[str] = []
        self.futures: dict[str, Future[UnionView]] = {}

    def ask(self, path: ClusterPath) -> "Future[UnionView]":
        self.asked.append(str(path))
        future = self.futures[str(path)] = Future()
        if str(path) in self.tree:
            future.set_result(self.tree[str(path)])
        else:
            future.set_exception(NotStored())
        return future


def test_parents_come_first_and_names_in_order() -> None:
    cluster = Cluster({"/": view(["b", "a"]), "/a": view(["z", "y"]), "/b": view([]), "/a/y": view([])})
    seen = [(str(path), asked.exception() is None) for path, asked in asking_ahead(cluster.ask, ROOT)]
    assert seen == [("/", True), ("/a", True), ("/a/y", True), ("/a/z", False), ("/b", True)]


def test_the_next_directories_are_asked_for_ahead_and_no_more() -> None:
    names = [f"{number:02}" for number in range(20)]
    cluster = Cluster({"/": view(names)} | {f"/{name}": view([]) for name in names})
    steps = asking_ahead(cluster.ask, ROOT)
    next(steps)
    assert cluster.asked == ["/"]
    next(steps)
    assert cluster.asked[1:] == [f"/{name}" for name in names[:AHEAD_MAX]]


def test_large_directories_are_not_held_beside_each_other() -> None:
    names = ["a", "b", "c"]
    cluster = Cluster({"/": view(names, AHEAD_NAMES_MAX * 2 // 3)} | {f"/{name}": view([]) for name in names})
    assert [len(cluster.asked) for _ in asking_ahead(cluster.ask, ROOT)] == [1, 2, 3, 4]


def test_stopping_early_cancels_what_was_asked_for() -> None:
    cluster = Cluster({"/": view(["a", "b", "c"]), "/a": view([])})
    never: Future[UnionView] = Future()
    ask = cluster.ask
    steps = asking_ahead(lambda path: never if path.name == "c" else ask(path), ROOT)
    next(steps), next(steps)
    steps.close()
    assert never.cancelled()


@given(st.recursive(st.just({}), lambda below: st.dictionaries(st.sampled_from("abcde"), below, max_size=4)))
def test_every_directory_is_visited_once_and_at_most_so_many_wait(tree: dict) -> None:
    listings: dict[str, UnionView] = {}

    def fill(path: ClusterPath, below: dict) -> None:
        listings[str(path)] = view(list(below))
        for name, deeper in below.items():
            fill(path / name, deeper)

    fill(ROOT, tree)
    cluster = Cluster(listings)
    seen = []
    for path, _ in asking_ahead(cluster.ask, ROOT):
        seen.append(str(path))
        assert len(cluster.asked) - len(seen) <= AHEAD_MAX
    assert sorted(seen) == sorted(listings)
    assert sorted(cluster.asked) == sorted(listings)
