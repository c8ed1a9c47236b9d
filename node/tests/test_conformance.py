"""The daemon keeps the contract that the conformance suite states."""

import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

pytest.register_assert_rewrite("granum.testing.conformance")

from granum.testing.conformance import NodeConformance  # noqa: E402
from granum.testing.conformance.talk import Reachable, ask, fresh, put  # noqa: E402

STOP_TIMEOUT_S = 15  # what the daemon may take to end


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    root = tmp_path_factory.mktemp("store")
    where = ["--root", str(root), "--port", "0", "--bind", "127.0.0.1", "--advertise", "off", "--cluster", "test"]
    # Its log goes to this process's stderr: a pipe that nobody reads would stop the daemon when it is full.
    with subprocess.Popen([sys.executable, "-m", "granum_node", *where], stdout=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stdout is not None
            line = daemon.stdout.readline()
            found = re.search(r"granum-node \S+ serves .* at http://127\.0\.0\.1:(\d+) \(cluster test\)", line)
            assert found is not None, line
            yield SimpleNamespace(address="127.0.0.1", port=int(found[1]), root=root)
        finally:
            daemon.terminate()
            daemon.wait(STOP_TIMEOUT_S)


class TestDaemon(NodeConformance):
    pass


def test_a_stored_file_is_a_plain_file_under_the_root(node: SimpleNamespace) -> None:
    top = fresh()
    put(node, f"{top}/a/f", b"hello")
    assert (node.root / top[1:] / "a" / "f").read_bytes() == b"hello"


def test_no_error_tells_the_root(node: SimpleNamespace) -> None:
    top = fresh()
    put(node, f"{top}/f", b"1")
    replies = [_ask_for_error(node, top, name) for name in ("f", "f/below", "%00", "x" * 256)]
    assert [reply for reply in replies if str(node.root).encode() in reply] == []


def _ask_for_error(node: Reachable, top: str, name: str) -> bytes:
    reply = ask(node, "PUT", f"{top}/{name}", b"2")
    assert reply.status >= 400
    return reply.body
