"""Real daemons for the tests that need one: on loopback, in directories of their own, with a log that is looked at."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

pytest.register_assert_rewrite("granum.testing.conformance")  # before anything imports it

from integration.lab import NodeProcess  # noqa: E402

MAIN = "from granum_node.cli import main; main()"
# The daemon on a file system without unnamed files: what the probe would find there.
NAMED = f"import granum_node.storage.store as store; store.probe = lambda spool: True\n{MAIN}"


class StartNode(Protocol):
    """Start a daemon over a store; what `NodeProcess` takes goes to it."""

    def __call__(self, root: Path | None = None, **settings: object) -> NodeProcess: ...


def private(directory: Path) -> dict[str, str]:
    """Return an environment whose temporary, runtime and home directories lie in *directory*."""
    for name in ("tmp", "run", "home"):
        (directory / name).mkdir(exist_ok=True)
    return {
        "TMPDIR": str(directory / "tmp"),
        "XDG_RUNTIME_DIR": str(directory / "run"),
        "HOME": str(directory / "home"),
    }


def starting(directory: Path) -> Iterator[StartNode]:
    log = directory / "stderr"
    with open(log, "w+") as stderr, ExitStack() as running:

        def start(root: Path | None = None, **settings: object) -> NodeProcess:
            environment = private(directory) | settings.pop("environment", {})  # type: ignore[operator]
            settings |= {"environment": environment, "stderr": stderr}
            return running.enter_context(NodeProcess(root or directory / "store", **settings))  # type: ignore[arg-type]

        yield start
    text = log.read_text()
    assert "Traceback" not in text, text


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[StartNode]:
    """Starts nodes over tmp_path/'store' or another root; in the end their log must hold no traceback."""
    yield from starting(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One node for all tests of a module; each takes names of its own."""
    for start in starting(tmp_path_factory.mktemp("shared")):
        yield start()
