"""A cluster of one in one command."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client.tests.cli.conftest import TIMEOUT_S, Granum
from granum.cli import serve

ANY_PORT = ("--port", "0", "--advertise", "off")


@contextmanager
def serving(granum: Granum, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """The running command; ended when the test failed to."""
    process = subprocess.Popen(
        granum.line("serve", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=granum.settings(),
        cwd=granum.home,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def until(process: "subprocess.Popen[str]", end: str) -> str:
    """Return what the process prints up to the line that begins with *end*."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(end):
            break
    return "".join(lines)


def children(process: "subprocess.Popen[str]") -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.fixture
def bare(tmp_path: Path) -> Granum:
    return Granum(tmp_path)


def test_it_says_how_to_reach_it_and_that_is_true(bare: Granum, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("text")
    with serving(bare, "store", *ANY_PORT) as process:
        said = until(process, "Ctrl-C")
        (host,) = re.findall(r"one node at http://(127\.0\.0\.1:\d+), seen by this machine alone", said)
        own = Granum(tmp_path, ("-n", host, "--no-discovery"))
        assert f"granum -n {host} --no-discovery put FILE /\n" in said
        own.ok("put", "f", "/")
        assert own.ok("ls", "/") == "f\n"
        snippet = "\n".join(line.strip() for line in said[said.index("import granum") :].splitlines()[:3])
        done = subprocess.run(
            [os.path.join(os.path.dirname(bare.line()[0]), "python"), "-c", snippet],
            check=False,
            capture_output=True,
            text=True,
            env=bare.settings(),
        )
        assert (done.returncode, done.stdout) == (0, "f\n"), done
    assert (tmp_path / "store" / "f").read_text() == "text"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_daemon_in_order(bare: Granum, number: signal.Signals) -> None:
    with serving(bare, "store", *ANY_PORT) as process:
        until(process, "Ctrl-C")
        (daemon,) = children(process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
        assert "Traceback" not in errors
        assert not Path(f"/proc/{daemon}").exists()


def test_a_daemon_that_crashes_gives_its_status(bare: Granum) -> None:
    with serving(bare, "store", *ANY_PORT) as process:
        until(process, "Ctrl-C")
        os.kill(children(process)[0], signal.SIGKILL)
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 128 + signal.SIGKILL


def test_the_directory_is_made_and_said(bare: Granum, tmp_path: Path) -> None:
    with serving(bare, "a/b", *ANY_PORT) as process:
        until(process, "Ctrl-C")
        assert process.stderr is not None
        assert process.stderr.readline() == "granum: made the directory a/b\n"
    assert (tmp_path / "a" / "b").is_dir()


def test_json_is_one_document(bare: Granum, tmp_path: Path) -> None:
    with serving(bare, "--json", "store", *ANY_PORT) as process:
        document = json.loads(until(process, "}"))
        assert document["cluster"] == "granum"
        assert document["url"] == f"http://127.0.0.1:{document['port']}"
        assert len(document["node_id"]) >= 32


@pytest.mark.parametrize(("before", "after"), [(("-c", "lab"), ()), ((), ("--cluster", "lab"))])
def test_the_cluster_has_the_name_that_was_asked_for(
    bare: Granum, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    with serving(Granum(bare.home, before), "store", *ANY_PORT, *after) as process:
        assert until(process, "Ctrl-C").startswith("Cluster lab is up: one node at ")


def test_a_store_that_is_served_already_is_status_75(bare: Granum) -> None:
    with serving(bare, "store", *ANY_PORT) as process:
        until(process, "Ctrl-C")
        done = bare.process("serve", "store", *ANY_PORT)
        assert (done.returncode, done.stdout) == (75, "")
        assert "already serves" in done.stderr


@pytest.mark.parametrize(
    "option", [("--bind", "nonsense"), ("--allow", "all=rw"), ("--cluster", "no good"), ("--port", "99999")]
)
def test_a_setting_that_the_daemon_refuses_is_status_2(bare: Granum, option: tuple[str, str]) -> None:
    assert bare.process("serve", "store", *option).returncode == 2


def test_a_file_is_no_store(bare: Granum, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert bare.run("serve", "f").returncode == 2


def test_without_the_daemon_it_says_what_to_install(bare: Granum, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    done = bare.run("serve", "store")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'granum[node]'" in done.stderr
    assert not (bare.home / "store").exists()
