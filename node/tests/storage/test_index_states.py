"""Whatever this node and others do to a store, in any order, every listing says what a reading of its own says."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from granum.wire.errors import AlreadyStored, NotADirectory, NotStored
from granum.wire.paths import ClusterPath
from granum_node.storage.directory import YOUNG_NS
from granum_node.storage.index import Index
from granum_node.storage.store import Store
from node.tests.storage.elsewhere import elsewhere, oracle

NAMES = st.sampled_from(["f", "g", "metadata.json", "events.json", "d", "e", "größe"])
DIRECTORIES = st.sampled_from(["", "d", "e", "d/e", "d/d", "e/d"])
SIZES = st.integers(0, 3)


class TheIndex(RuleBasedStateMachine):
    """A store that its node and others change; every change may be followed by any listings, or none."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="granum-index-"))
        self.store = Store.open(str(self.root))
        self.seconds = 0.0

    @initialize(entries_max=st.sampled_from([3, 10, 1_000_000]), settled=st.booleans())
    def begin(self, entries_max: int, settled: bool) -> None:
        late_ns = 2 * YOUNG_NS if settled else 0
        self.store.tree.index = Index(entries_max, lambda: time.time_ns() + late_ns, lambda: self.seconds)

    @rule(directory=DIRECTORIES, name=NAMES, size=SIZES)
    def put(self, directory: str, name: str, size: int) -> None:
        file = self.store.spool()
        file.write(b"x" * size)
        with suppress(AlreadyStored, NotADirectory):
            file.publish(self.store.tree, ClusterPath.parse(f"{directory}/{name}"))

    @rule(directory=DIRECTORIES, name=NAMES)
    def make_directory(self, directory: str, name: str) -> None:
        with suppress(AlreadyStored, NotADirectory):
            self.store.tree.make_new_directory(ClusterPath.parse(f"{directory}/{name}"))

    @rule(directory=DIRECTORIES, name=NAMES, size=SIZES)
    def others_place(self, directory: str, name: str, size: int) -> None:
        self._elsewhere(lambda: self._place(self.root / directory / name, size), directory)

    @rule(directory=DIRECTORIES, name=NAMES)
    def others_remove(self, directory: str, name: str) -> None:
        path = self.root / directory / name
        remove = shutil.rmtree if path.is_dir() else os.unlink
        self._elsewhere(lambda: remove(path), directory)

    @rule(directory=DIRECTORIES, name=NAMES, to=DIRECTORIES, new=NAMES)
    def others_move(self, directory: str, name: str, to: str, new: str) -> None:
        self._elsewhere(lambda: os.rename(self.root / directory / name, self.root / to / new), directory, to)

    @rule(directory=DIRECTORIES)
    def list_one(self, directory: str) -> None:
        try:
            body = self.store.listing(ClusterPath.parse(directory)).body
        except NotStored:
            assert not (self.root / directory).is_dir()
            return
        pairs = json.loads(body, object_pairs_hook=list)
        expected = oracle(self.root / directory)
        expected.pop(".granum/", None)
        assert dict(pairs) == expected
        assert len(pairs) == len(expected)

    @rule()
    def list_all(self) -> None:
        for directory in ("", "d", "e", "d/e"):
            self.list_one(directory)

    @rule(seconds=st.sampled_from([0.5, 10.0]))
    def wait(self, seconds: float) -> None:
        self.seconds += seconds

    def teardown(self) -> None:
        self.list_all()
        self.store.close()
        shutil.rmtree(self.root)

    @staticmethod
    def _place(path: Path, size: int) -> None:
        temporary = path.with_name("being copied")
        temporary.write_bytes(b"x" * size)
        try:
            temporary.rename(path)
        except OSError:
            temporary.unlink()
            raise

    def _elsewhere(self, change: Callable[[], object], *directories: str) -> None:
        paths = [self.root / directory for directory in directories]
        if all(path.is_dir() for path in paths):
            with suppress(OSError):
                elsewhere(change, *paths)


TheIndex.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
test_the_index = TheIndex.TestCase
