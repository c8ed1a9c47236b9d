"""The command: its spellings, and how it refuses to start: one line that says what to do, and nothing made."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from granum.testing.conformance.talk import ask
from node.tests.conftest import StartNode, private

TIMEOUT_S = 20


def run(directory: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command to its end; return status, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "granum_node", *arguments],
        env={**os.environ, **private(directory), **environment},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def tree(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return everything below *directory*: name -> mode, time of change, bytes."""
    return {
        str(found): (found.lstat().st_mode, found.lstat().st_mtime_ns, found.read_bytes() if found.is_file() else b"")
        for found in sorted(directory.rglob("*"))
    }


@pytest.fixture
def store(tmp_path: Path) -> Path:
    private(tmp_path)
    made = tmp_path / "store"
    made.mkdir()
    return made


# -- a node that cannot start ----------------------------------------------------------------------------------------


def test_a_taken_port(tmp_path: Path, store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        before = tree(tmp_path)
        found = run(tmp_path, "--root", str(store), "--port", str(port), "--advertise", "off")
    sentence = "is taken by another program; stop that one or choose another with --port (0 = any free one)"
    assert found == (2, "", f"granum-node: port {port} on 127.0.0.1 {sentence}\n")
    assert tree(tmp_path) == before


def test_a_missing_store(tmp_path: Path, store: Path) -> None:
    before = tree(tmp_path)
    found = run(tmp_path, "--root", str(store / "missing"), "--port", "0", "--advertise", "off")
    sentence = "does not exist; create it with 'mkdir' or name another with --root"
    assert found == (2, "", f"granum-node: the store {store}/missing {sentence}\n")
    assert tree(tmp_path) == before


def test_a_store_that_is_a_file(tmp_path: Path, store: Path) -> None:
    (store / "f").write_bytes(b"hello")
    before = tree(tmp_path)
    found = run(tmp_path, "--root", str(store / "f"), "--port", "0", "--advertise", "off")
    sentence = "is not a directory; create it with 'mkdir' or name another with --root"
    assert found == (2, "", f"granum-node: the store {store}/f {sentence}\n")
    assert tree(tmp_path) == before


def test_a_read_only_store(tmp_path: Path, store: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(store)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("mounting a read-only file system needs root")
    try:
        before = tree(tmp_path)
        found = run(tmp_path, "--root", str(store), "--port", "0", "--advertise", "off")
        sentence = "is read-only or closed for this user; make it writable or use another one"
        assert found == (2, "", f"granum-node: the store {store} {sentence}\n")
        assert tree(tmp_path) == before
    finally:
        subprocess.run(["umount", str(store)], check=True)


def test_a_store_that_another_node_serves(tmp_path: Path, store: Path, start_node: StartNode) -> None:
    start_node(store)
    before = tree(store)
    found = run(tmp_path, "--root", str(store), "--port", "0", "--advertise", "off")
    sentence = "stop that one or name another store with --root"
    assert found == (75, "", f"granum-node: another node already serves the store {store}; {sentence}\n")
    assert tree(store) == before


def test_a_store_whose_hidden_directory_is_something_else(tmp_path: Path, store: Path) -> None:
    (store / ".granum").write_bytes(b"a file")
    before = tree(tmp_path)
    status, out, error = run(tmp_path, "--root", str(store), "--port", "0", "--advertise", "off")
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert re.match(r"granum-node: \.granum in the store \S+ cannot be used: Not a directory; ", error)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--bind", "0.0.0.0"], "bind: 0.0.0.0 would open the node to every network of this machine; name one address"),
        (["--bind", "::"], "bind: :: would open the node to every network of this machine; name one address"),
        (["--bind", "192.0.2.1"], "say which with --allow, for example --allow 10.0.0.0/24=rw"),
        (["--bind", "192.0.2.1", "--allow", "0.0.0.0/0=rw"], "0.0.0.0/0 is every host in the world"),
        (["--allow", "10.0.0.0/24"], "write NETWORK=rw, or =ro for reading only"),
        (
            ["--bind", "127.0.0.1", "--bind", "192.0.2.1", "--allow", "192.0.2.0/24=rw"],
            "this machine does not have the address; choose one that it has with --bind",
        ),
        (["--bind", "192.0.2.1", "--advertise", "local"], "with it --bind must be a loopback address"),
        (["--advertise", "loud"], "advertise: 'loud' is not one of mdns, local, off"),
        (["--cluster", "a b"], "cluster: 'a b' cannot be a cluster name"),
        (["--port", "70000"], "port: '70000' is not a port; ports are 0 (any) to 65535"),
        (["--config", "missing.yaml"], "missing.yaml cannot be read: No such file or directory"),
        (["--root", ""], "root: '' is not the name of a directory"),
    ],
)
def test_a_setting_that_is_refused(tmp_path: Path, store: Path, arguments: list[str], sentence: str) -> None:
    before = tree(tmp_path)
    status, out, error = run(tmp_path, "--root", str(store), "--port", "0", *arguments)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert error.startswith("granum-node: ")
    assert sentence in error
    assert tree(tmp_path) == before


def test_a_store_must_be_named(tmp_path: Path) -> None:
    found = run(tmp_path, "--port", "0")
    assert found == (2, "", "granum-node: no store is named; say which directory with --root DIR\n")


def test_an_empty_variable_does_not_mean_the_current_directory(tmp_path: Path) -> None:
    status, _, error = run(tmp_path, "--port", "0", GRANUM_NODE_ROOT="")
    assert (status, error) == (2, "granum-node: the environment: root: '' is not the name of a directory\n")
    assert not (tmp_path / ".granum").exists()


def test_an_option_that_does_not_exist(tmp_path: Path) -> None:
    status, _, error = run(tmp_path, "--prot", "1")
    assert (status, "No such option" in error) == (2, True)


def test_version_and_help(tmp_path: Path) -> None:
    assert run(tmp_path, "--version") == (0, "granum-node 0.1.0\n", "")
    status, out, error = run(tmp_path, "-h")
    assert (status, error) == (0, "")
    assert all(
        name in out for name in ("--root", "--port", "--cluster", "--bind", "--allow", "--advertise", "--config", "75")
    )


# -- a node that starts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["-r", "{store}", "-p", "0", "-f", "lab", "-a", "local"],
        ["--root={store}", "--port=0", "--server-filter=lab", "--advertisements=zeroconf", "--bind=127.0.0.1"],
    ],
)
def test_the_spellings_of_pyme_start_a_node(tmp_path: Path, store: Path, arguments: list[str]) -> None:
    words = [word.format(store=store) for word in arguments]
    with subprocess.Popen(
        [sys.executable, "-m", "granum_node", *words],
        env={**os.environ, **private(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as node:
        assert node.stdout is not None
        line = node.stdout.readline()
        node.terminate()
        assert node.wait(TIMEOUT_S) == 0
    assert re.fullmatch(
        rf"granum-node [0-9a-f-]{{36}} serves {store} at http://127\.0\.0\.1:[0-9]+ \(cluster lab\)\n", line
    )


def test_a_configuration_file_starts_a_node_and_the_command_line_wins(tmp_path: Path, start_node: StartNode) -> None:
    file = tmp_path / "node.yaml"
    file.write_text(f"root: {tmp_path}/unused\nport: 15348\ncluster: lab\nadvertise: off\nbind: 127.0.0.2\n")
    node = start_node(program=("-m", "granum_node", "--config", str(file)))
    node.address = "127.0.0.2"
    status = ask(node, "GET", "/__status").listing()
    assert (status["Granum"]["cluster"], status["BindAddress"][0]) == ("test", "127.0.0.2")


def test_a_restarted_node_keeps_its_id_and_its_files(start_node: StartNode) -> None:
    node = start_node()
    before = node.node_id
    assert ask(node, "PUT", "/d/f", b"hello").status == 200
    assert node.stop() == 0
    node.start()
    assert node.node_id == before
    reply = ask(node, "GET", "/d/f")
    assert (reply.body, reply.headers["granum-node"]) == (b"hello", before)


def test_a_signal_sent_when_the_line_is_out_stops_the_node_in_order(start_node: StartNode) -> None:
    """Whoever reads the line may stop the node at once; it must not die of the signal."""
    for _ in range(3):
        assert start_node().stop() == 0
