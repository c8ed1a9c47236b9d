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
    "client/src/granum/union.py",
    "client/src/granum/placement.py",
    "client/src/granum/streaming/window.py",
    "node/src/granum_node/http/parser.py",
)
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
