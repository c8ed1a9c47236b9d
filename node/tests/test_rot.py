"""A damaged file is taken out of the way, its name says so for as long as nobody has seen to it, and a person can end that."""

import json
import os
import subprocess
import sys
from pathlib import Path

from granum.testing.conformance.talk import Reply, ask
from granum.wire.errors import WORD
from integration.lab import NodeProcess
from node.tests.conftest import StartNode, private
from node.tests.watching import until

AT_ONCE = {"GRANUM_NODE_SCRUB_DAYS": "0.0000001"}
NEVER = {"GRANUM_NODE_SCRUB_DAYS": "0"}
RELAXED = {"GRANUM_NODE_DURABILITY": "relaxed"}


def spoil(file: Path, body: bytes) -> None:
    """Change the bytes of *file* and leave its times as they were."""
    status = file.stat()
    file.chmod(0o640)
    file.write_bytes(body)
    file.chmod(0o440)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def is_corrupt(reply: Reply) -> bool:
    return (reply.status, reply.headers.get(WORD)) == (500, "corrupt")


def quarantine(directory: Path, node: NodeProcess, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "granum_node", "quarantine", *words, "--root", str(node.root)]
    environment = {**os.environ, **private(directory)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_scrub_takes_a_damaged_file_away_and_a_person_brings_it_back(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(environment=NEVER)
    for name in ("good", "bad"):
        assert ask(node, "PUT", f"/d/{name}", b"hello").status == 200
    node.stop()
    spoil(node.root / "d" / "bad", b"hellO")
    node = start_node(environment=AT_ONCE)
    assert until(lambda: is_corrupt(ask(node, "GET", "/d/bad")))
    assert ask(node, "GET", "/d/good").body == b"hello"
    assert json.loads(ask(node, "GET", "/__status").body)["Granum"]["quarantined"] == 1
    assert "granum_quarantined_files 1\n" in ask(node, "GET", "/__metrics").body.decode()
    node.stop()
    node = start_node(environment=NEVER)
    assert is_corrupt(ask(node, "GET", "/d/bad"))
    assert json.loads(ask(node, "GET", "/d/").body) == {"good": [0, 5], "bad": [0, 5]}
    assert [
        ask(node, "PUT", "/d/bad", b"hello").status,
        ask(node, "PUT", "/d/bad", b"hello", **{"If-None-Match": "*"}).status,
        ask(node, "PUT", "/d/bad/", b"").status,
        ask(node, "PUT", "/d/bad/f", b"").status,
    ] == [405, 412, 405, 409]
    status, told = quarantine(tmp_path, node, "list")
    assert (status, told.startswith("/d/bad: damaged; 5 bytes; should have xxh3-128:")) == (0, True)
    assert quarantine(tmp_path, node, "restore", "/d/bad")[0] == 2
    spoil(node.root / told.strip().rpartition("; ")[2], b"hello")
    assert quarantine(tmp_path, node, "restore", "/d/bad") == (0, "")
    assert ask(node, "GET", "/d/bad").body == b"hello"


def test_a_name_that_was_dropped_is_free(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(environment=NEVER)
    assert ask(node, "PUT", "/f", b"hello").status == 200
    node.stop()
    spoil(node.root / "f", b"hellO")
    node = start_node(environment=AT_ONCE)
    assert until(lambda: is_corrupt(ask(node, "GET", "/f")))
    assert quarantine(tmp_path, node, "drop", "f") == (0, "")
    assert ask(node, "GET", "/f").status == 404
    assert ask(node, "PUT", "/f", b"new").status == 200
    assert ask(node, "GET", "/f").body == b"new"


def test_a_relaxed_node_that_was_killed_serves_nothing_torn(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(environment=RELAXED | NEVER | {"GRANUM_NODE_RELAXED_WINDOW_S": "3600"})
    for name in ("whole", "torn"):
        assert ask(node, "PUT", f"/d/{name}", b"hello").status == 200
    node.kill()
    os.truncate(node.root / "d" / "torn", 2)
    node = start_node(environment=RELAXED | NEVER)
    assert is_corrupt(ask(node, "GET", "/d/torn"))
    assert ask(node, "GET", "/d/whole").body == b"hello"
    assert "1 of them were not whole" in (tmp_path / "stderr").read_text()


def test_a_relaxed_node_that_was_stopped_in_order_reads_nothing(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(environment=RELAXED | NEVER | {"GRANUM_NODE_RELAXED_WINDOW_S": "3600"})
    assert ask(node, "PUT", "/f", b"hello").status == 200
    assert node.stop() == 0
    start_node(environment=RELAXED)
    assert "not stopped in order" not in (tmp_path / "stderr").read_text()
    start_node(tmp_path / "other", environment=RELAXED).kill()
    (tmp_path / "other" / "by-hand").write_bytes(b"x")
    start_node(tmp_path / "other", environment=RELAXED)
    assert "not stopped in order" in (tmp_path / "stderr").read_text()


def test_what_a_disk_refuses_a_person_is_one_line(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(environment=NEVER)
    assert ask(node, "PUT", "/f", b"hello").status == 200
    node.stop()
    spoil(node.root / "f", b"hellO")
    node = start_node(environment=AT_ONCE)
    assert until(lambda: is_corrupt(ask(node, "GET", "/f")))
    (file,) = (each for each in (node.root / ".granum" / "quarantine").iterdir() if not each.suffix)
    file.unlink()
    assert quarantine(tmp_path, node, "restore", "f") == (2, "granum-node: /f: No such file or directory\n")
