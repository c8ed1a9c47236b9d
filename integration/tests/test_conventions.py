"""The conventions that import-linter cannot state: who may touch the reactor, the clock, threads, the system."""

import ast
import os
import sys
from collections.abc import Iterator

import pytest

from tools import tree

SOURCES = ("client/src/", "node/src/")
MODULES = [name for name in tree.files(".py") if name.startswith(SOURCES)]

REACTOR_OWNERS = (
    "client/src/granum/blocking.py",
    "client/src/granum/cli/",
    "client/src/granum/cli.py",
    "node/src/granum_node/cli.py",
    "node/src/granum_node/__main__.py",
)
WIRE = "client/src/granum/wire/"
PURE = (
    WIRE,
    "client/src/granum/roster.py",
    "client/src/granum/room.py",
    "client/src/granum/union.py",
    "client/src/granum/locality.py",
    "client/src/granum/placement.py",
    "client/src/granum/cli/diagnosis.py",
    "client/src/granum/cli/exposition.py",
    "client/src/granum/cli/finding.py",
    "client/src/granum/cli/gateway.py",
    "client/src/granum/cli/rates.py",
    "client/src/granum/cli/seen.py",
    "client/src/granum/cli/smb.py",
    "client/src/granum/streaming/pace.py",
    "client/src/granum/streaming/pending.py",
    "client/src/granum/streaming/record.py",
    "client/src/granum/streaming/window.py",
    "node/src/granum_node/http/parser.py",
    "node/src/granum_node/http/gate.py",
    "node/src/granum_node/http/limits.py",
    "node/src/granum_node/storage/quota.py",
    "node/src/granum_node/storage/space.py",
)
NODE_COMMAND = "node/src/granum_node/cli.py"
# Dates are for people and for HTTP: the Date of a reply, the row of PYME's registry. The index compares the stamps of a file
# system, which are of the wall clock, with it: to know only how young they are, and for no timer.
WALL_CLOCKS = (
    "node/src/granum_node/http/reply.py",
    "node/src/granum_node/advertise.py",
    "node/src/granum_node/storage/index.py",
)
WALL_CLOCK_NAMES = {"time.time", "time.time_ns", "time.localtime", "datetime.now", "datetime.utcnow", "datetime.today"}
# What decides without a socket, a clock, a disk or a die may not even import them.
IMPURE = {
    *(
        "asyncio",
        "concurrent",
        "fcntl",
        "glob",
        "http.client",
        "http.server",
        "io",
        "logging",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
    ),
    *(
        "random",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
        "subprocess",
    ),
    *("tempfile", "threading", "time", "treq", "twisted", "urllib.request", "zeroconf"),
}


def imports(source: str) -> Iterator[str]:
    """Yield the dotted name of everything that *source* imports, at any depth: module, and module.name for `from` imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, packages: set[str]) -> bool:
    """Tell whether the dotted *name* is one of *packages* or inside of one."""
    parts = name.split(".")
    return any(".".join(parts[:end]) in packages for end in range(1, len(parts) + 1))


def sleeps(source: str) -> bool:
    """Tell whether *source* imports or names `time.sleep`."""
    attributes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    named = any(
        node.attr == "sleep" and isinstance(node.value, ast.Name) and node.value.id == "time" for node in attributes
    )
    return named or "time.sleep" in imports(source)


def wall_clocks(source: str) -> list[str]:
    """Return the wall clocks that *source* names, in its order."""
    attributes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    named = [ast.unparse(node) for node in attributes]
    return [name for name in (*named, *imports(source)) if name in WALL_CLOCK_NAMES]


def repeated_calls(source: str) -> tuple[int, int]:
    """Return how many LoopingCalls *source* makes, and how many clocks it sets."""
    nodes = list(ast.walk(ast.parse(source)))
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("LoopingCall")]
    targets = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    clocks = [target for target in targets if isinstance(target, ast.Attribute) and target.attr == "clock"]
    return len(calls), len(clocks)


def read(name: str) -> str:
    """Return the text of a file of this repository."""
    with open(os.path.join(tree.ROOT, name), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(REACTOR_OWNERS)])
def test_only_the_owners_import_the_global_reactor(name: str) -> None:
    """A module that is given its reactor can be tested with a clock; one that imports it cannot."""
    assert not [found for found in imports(read(name)) if within(found, {"twisted.internet.reactor"})]


@pytest.mark.parametrize("name", MODULES)
def test_nothing_sleeps(name: str) -> None:
    """Sleeping stops every connection of the process; waiting is the clock's business."""
    assert not sleeps(read(name))


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(PURE)])
def test_pure_modules_import_nothing_that_acts(name: str) -> None:
    """Path rules, listings, placement, window and parsers decide; adapters bring them bytes and time."""
    assert not [found for found in imports(read(name)) if within(found, IMPURE)]


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(WIRE)])
def test_the_wire_needs_the_standard_library_alone(name: str) -> None:
    """The contract of both sides installs anywhere; only its frames know numpy."""
    allowed = {"granum.wire", *sys.stdlib_module_names} | ({"numpy"} if name == f"{WIRE}frame.py" else set())
    assert not [found for found in imports(read(name)) if found != "granum" and not within(found, allowed)]


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("node/") and name not in WALL_CLOCKS])
def test_nothing_of_the_node_goes_by_the_wall_clock(name: str) -> None:
    """A step of the system's clock must not fire, starve or expire anything."""
    assert not wall_clocks(read(name))


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("node/")])
def test_every_repeated_call_of_the_node_gets_the_clock_it_is_given(name: str) -> None:
    """A LoopingCall that is given none goes by the global reactor's."""
    calls, clocks = repeated_calls(read(name))
    assert calls == clocks


def test_the_reactor_of_the_node_goes_by_monotonic_time() -> None:
    """Twisted's own is wall time."""
    assert "reactor.seconds = time.monotonic" in map(ast.unparse, ast.walk(ast.parse(read(NODE_COMMAND))))


# -- the rules must be able to fail ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "from twisted.internet import reactor",
        "import twisted.internet.reactor",
        "def late():\n    from twisted.internet import defer, reactor",
        "from twisted.internet.reactor import callLater",
    ],
)
def test_an_import_of_the_reactor_is_seen_in_every_form(source: str) -> None:
    """The rule above is not blind."""
    assert [found for found in imports(source) if within(found, {"twisted.internet.reactor"})]


@pytest.mark.parametrize("source", ["import time\ntime.sleep(1)", "from time import monotonic, sleep"])
def test_a_sleep_is_seen_in_every_form(source: str) -> None:
    """The rule above is not blind."""
    assert sleeps(source)


def test_a_module_that_reads_the_clock_is_not_pure() -> None:
    """The rule above is not blind."""
    assert [found for found in imports("from time import monotonic") if within(found, IMPURE)]


@pytest.mark.parametrize("source", ["import time\ntime.time()", "from time import time", "datetime.now(UTC)"])
def test_a_wall_clock_is_seen_in_every_form(source: str) -> None:
    """The rule above is not blind."""
    assert wall_clocks(source)


def test_a_repeated_call_without_a_clock_is_seen() -> None:
    """The rule above is not blind."""
    assert repeated_calls("a = LoopingCall(f)\nb = task.LoopingCall(g)\nb.clock = reactor") == (2, 1)
