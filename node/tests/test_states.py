"""The states of a real daemon: full, over quota, draining; what each answers, what it says of itself, how it ends."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from granum.testing.conformance.talk import Talk, ask, chunked, put, request
from integration.lab import NodeProcess
from node.tests.conftest import MAIN, StartNode
from node.tests.watching import files, until

OPTIONS = ("-m", "granum_node")
SLOW_TO_FORGET = "import granum_node.storage.space as space; space.READING_S = 0.01\n"


def own(node: NodeProcess) -> dict[str, object]:
    found: dict[str, object] = ask(node, "GET", "/__status").listing()["Granum"]
    return found


# -- full ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(start_node: StartNode) -> NodeProcess:
    """A node that keeps the whole of its disk in reserve, over a store that holds a file."""
    node = start_node(program=(*OPTIONS, "--reserve-bytes", "100%"))
    (node.root / "f").write_bytes(b"hello")
    return node


def test_a_full_node_refuses_a_put_before_its_body(full: NodeProcess) -> None:
    with Talk(full) as talk:
        raw = request("PUT", "/d/f", b"hello", Expect="100-continue")
        talk.send(raw[:-5])
        reply = talk.reply("PUT")
    assert (reply.status, reply.interim) == (507, ())
    assert files(full.root) == {"f", ".granum/lock", ".granum/node-id"}
    assert not (full.root / "d").exists()


def test_what_a_full_node_has_stored_is_stored_whether_or_not_the_body_came_along(full: NodeProcess) -> None:
    """With its body, a put is not looked for before it is linked, except where it would get another answer."""
    assert ask(full, "PUT", "/f", b"hello").status == 405
    with Talk(full) as talk:
        talk.send(request("PUT", "/f", b"hello", Expect="100-continue")[:-5])
        assert talk.reply("PUT").status == 405
    assert ask(full, "PUT", "/f", b"hello", If_None_Match="*").status == 412
    assert ask(full, "PUT", "/g", b"hello", If_Match="*").status == 412


def test_a_full_node_makes_no_directory(full: NodeProcess) -> None:
    assert ask(full, "PUT", "/d/", b"").status == 507
    assert not (full.root / "d").exists()


def test_a_directory_that_a_full_node_has_is_there(full: NodeProcess) -> None:
    (full.root / "d").mkdir()
    assert ask(full, "PUT", "/d/", b"").status == 405
    assert ask(full, "PUT", "/d/", b"", If_None_Match="*").status == 412
    assert ask(full, "PUT", "/f/", b"").status == 405


def test_a_full_node_serves_reads_and_says_what_it_is(full: NodeProcess, tmp_path: Path) -> None:
    assert ask(full, "GET", "/f").body == b"hello"
    said = own(full)
    assert (said["state"], said["writable"]) == ("full", False)
    assert "the node has no room left" in str(said["reason"])
    ready = ask(full, "GET", "/__readyz")
    assert (ready.status, "no room left" in ready.body.decode(), ready.headers["retry-after"]) == (503, True, "5")
    assert "puts are refused, reading goes on: the node has no room left" in (tmp_path / "stderr").read_text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_refuses_puts_and_heals_by_itself(small_disk: Path, start_node: StartNode) -> None:
    program = ("-c", SLOW_TO_FORGET + MAIN, "--reserve-bytes", "8MiB", "--reserve-inodes", "10")
    node = start_node(small_disk, program=program)
    mib = bytes(1 << 20)
    assert ask(node, "PUT", "/d/small", bytes(64 << 10)).status == 200
    statuses = [ask(node, "PUT", f"/d/{number:02}", mib).status for number in range(40)]
    taken = statuses.count(200)
    assert statuses == [200] * taken + [507] * (40 - taken)
    assert 20 <= taken <= 24  # of 32 MiB less the reserve
    os.unlink(small_disk / "d/small")  # less than a mebibyte above the reserve is free, and a fifth more is asked for
    assert ask(node, "PUT", "/d/more", b"").status == 507
    for number in range(4):
        os.unlink(small_disk / f"d/{number:02}")
    assert until(lambda: ask(node, "PUT", "/d/again", mib).status in {200, 405}, 5)
    assert node.stop() == 0


def test_a_chunked_body_that_meets_the_reserve_is_refused_and_leaves_nothing(
    small_disk: Path, start_node: StartNode
) -> None:
    program = ("-c", SLOW_TO_FORGET + MAIN, "--reserve-bytes", "8MiB", "--reserve-inodes", "10")
    node = start_node(small_disk, program=program)
    with Talk(node) as talk:
        talk.send(request("PUT", "/f", None, Transfer_Encoding="chunked") + chunked([bytes(1 << 20)] * 30))
        assert talk.reply("PUT").status == 507
    assert until(lambda: ask(node, "PUT", "/g", bytes(1 << 20)).status == 200)
    assert files(small_disk) == {"g", ".granum/lock", ".granum/node-id"}
    assert node.stop() == 0


# -- quota -----------------------------------------------------------------------------------------------------------


def test_a_quota_counts_what_was_there_and_what_comes(tmp_path: Path, start_node: StartNode) -> None:
    (tmp_path / "store/lab/a").mkdir(parents=True)
    (tmp_path / "store/lab/a/old").write_bytes(bytes(600))
    config = tmp_path / "node.yaml"
    config.write_text("quota:\n  lab: 1000\n")
    node = start_node(program=(*OPTIONS, "--config", str(config)))
    # One put may overshoot; whether the first measurement was earlier or not, the third is too much.
    statuses = [ask(node, "PUT", f"/lab/{number}", bytes(500)).status for number in range(2)]
    assert statuses[0] == 200
    assert until(lambda: ask(node, "PUT", "/lab/last", b"x").status == 507)
    reply = ask(node, "PUT", "/lab/other", b"x")
    assert b"the directory /lab has used up its quota of 1000 bytes" in reply.body
    assert ask(node, "PUT", "/free/f", b"x").status == 200
    assert ask(node, "GET", "/__readyz").status == 200


def test_an_address_that_has_put_its_share_is_told_when_to_come_again(tmp_path: Path, start_node: StartNode) -> None:
    config = tmp_path / "node.yaml"
    config.write_text("quota_per_address: 1000\n")
    node = start_node(program=(*OPTIONS, "--config", str(config)))
    assert ask(node, "PUT", "/first", bytes(5000)).status == 200
    reply = ask(node, "PUT", "/second", b"x")
    assert (reply.status, reply.headers["retry-after"]) == (429, "5")
    assert ask(node, "GET", "/first").body == bytes(5000)


# -- draining --------------------------------------------------------------------------------------------------------


def test_a_drained_node_refuses_puts_finishes_what_has_begun_and_serves_reads(start_node: StartNode) -> None:
    node = start_node()
    put(node, "/old", b"hello")
    with Talk(node) as begun:
        raw = request("PUT", "/begun", b"hello", Expect="100-continue")
        begun.send(raw[:-5])
        assert begun.interim() == 100
        assert ask(node, "PUT", "/__drain").listing() == {"draining": True}
        refused = ask(node, "PUT", "/new", b"hello")
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert ask(node, "PUT", "/new/", b"").status == 503
        begun.send(raw[-5:])
        assert begun.reply("PUT").status == 200
    assert ask(node, "GET", "/old").body == b"hello"
    assert ask(node, "GET", "/__healthz").status == 200
    assert ask(node, "GET", "/__readyz").status == 503
    assert (own(node)["state"], own(node)["writable"]) == ("draining", False)
    assert ask(node, "GET", "/__drain").listing() == {"draining": True}
    assert ask(node, "PUT", "/__undrain").listing() == {"draining": False}
    assert ask(node, "PUT", "/new", b"hello").status == 200
    assert ask(node, "GET", "/__readyz").body == b"ok\n"


def test_only_what_is_meant_to_be_put_can_be_put_at_an_endpoint(start_node: StartNode) -> None:
    node = start_node()
    asked = ["/__status", "/__metrics", "/__readyz", "/__drain/x", "/__x"]
    assert [ask(node, "PUT", target).status for target in asked] == [400] * 5
    assert ask(node, "GET", "/__undrain").status == 400


def test_a_node_is_drained_from_its_own_machine_only(start_node: StartNode) -> None:
    elsewhere = "import granum_node.http.endpoints as endpoints; endpoints._is_loopback = lambda peer: peer == ''\n"
    node = start_node(program=("-c", elsewhere + MAIN))
    assert ask(node, "PUT", "/__drain").listing() == {"draining": True}  # the address that it serves on is its own
    elsewhere_asks = HTTPConnection("127.0.0.1", node.port, timeout=5, source_address=("127.0.0.2", 0))
    with closing(elsewhere_asks):
        elsewhere_asks.request("PUT", "/__undrain")
        assert elsewhere_asks.getresponse().status == 403


# -- metrics ---------------------------------------------------------------------------------------------------------


def sample(page: str, name: str) -> float:
    return float(next(line for line in page.splitlines() if line.startswith(f"{name} ")).split()[-1])


def test_metrics_say_what_happened_and_name_no_path(start_node: StartNode) -> None:
    node = start_node()
    put(node, "/secret-name/f", bytes(5000))
    assert ask(node, "PUT", "/secret-name/f", b"x").status == 405
    assert ask(node, "GET", "/secret-name/f").status == 200
    reply = ask(node, "GET", "/__metrics")
    page = reply.body.decode()
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "secret-name" not in page
    assert sample(page, 'granum_requests_total{method="PUT",code="200"}') == 1
    assert sample(page, "granum_put_conflicts_total") == 1
    assert sample(page, 'granum_request_duration_seconds_count{method="PUT"}') == 2
    assert sample(page, "granum_inflight_requests") == 1  # this one
    assert sample(page, "granum_open_connections") >= 1
    assert sample(page, "granum_received_bytes_total") > 5000
    assert sample(page, "granum_sent_bytes_total") > 5000
    assert sample(page, "granum_fsync_duration_seconds_count") >= 3  # file, root, directory
    assert 0 < sample(page, "granum_disk_free_bytes") <= sample(page, "granum_disk_size_bytes")
    assert (sample(page, "granum_writable"), sample(page, "granum_draining")) == (1, 0)
    ask(node, "PUT", "/__drain")
    page = ask(node, "GET", "/__metrics").body.decode()
    assert (sample(page, "granum_writable"), sample(page, "granum_draining")) == (0, 1)
    assert until(lambda: sample(ask(node, "GET", "/__metrics").body.decode(), "granum_reactor_lag_seconds_count") > 0)


# -- the log ---------------------------------------------------------------------------------------------------------


def test_answers_are_logged_when_asked_for_in_lines_that_no_name_can_forge(
    tmp_path: Path, start_node: StartNode
) -> None:
    node = start_node(program=(*OPTIONS, "--log-requests", "--log", "json"))
    assert ask(node, "GET", b"/\xe2\x80\xa8x\x1b[2J%0aforged").status == 400
    put(node, "/f", b"hello")
    assert node.stop() == 0
    events = [json.loads(line) for line in (tmp_path / "stderr").read_text().splitlines()]
    found = [event["message"] for event in events if " PUT /f 200 in " in event["message"]]
    assert len(found) == 1
    assert found[0].startswith("127.0.0.1 PUT /f 200 in ")


def test_answers_are_not_logged_by_default_and_no_log_is_in_the_store(tmp_path: Path, start_node: StartNode) -> None:
    node = start_node()
    put(node, "/f", b"hello")
    assert node.stop() == 0
    assert "/f" not in (tmp_path / "stderr").read_text()
    assert files(node.root) == {"f", ".granum/lock", ".granum/node-id"}


def test_the_log_is_json_under_systemd(tmp_path: Path, start_node: StartNode) -> None:
    node = start_node(program=(*OPTIONS, "--reserve-bytes", "100%"), environment={"INVOCATION_ID": "x"})
    assert node.stop() == 0
    events = [json.loads(line) for line in (tmp_path / "stderr").read_text().splitlines()]
    assert [event["level"] for event in events] == ["warn"]


def test_a_hangup_changes_nothing(tmp_path: Path, start_node: StartNode) -> None:
    node = start_node()
    node.signal(signal.SIGHUP)
    assert until(lambda: "SIGHUP is ignored" in (tmp_path / "stderr").read_text())
    assert ask(node, "GET", "/__healthz").status == 200
    assert node.stop() == 0


# -- a killed node ---------------------------------------------------------------------------------------------------

MANY = 10_000
OPENS_S = 2.0


def test_a_killed_node_opens_its_store_at_once_however_much_it_holds(
    start_node: StartNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing at the start may look at every file."""
    from time import monotonic

    from granum_node.storage.store import Store

    node = start_node()
    directory = node.root / "d"
    directory.mkdir()
    for number in range(MANY):
        (directory / f"{number:05}").write_bytes(b"")
    stop = threading.Event()

    def keep_putting() -> None:
        try:
            with Talk(node) as talk:
                for number in range(100_000):
                    if stop.is_set():
                        return
                    talk.ask("PUT", f"/d/new{number}", bytes(10_000))
        except (AssertionError, OSError):
            return

    putting = threading.Thread(target=keep_putting)
    putting.start()
    assert until((directory / "new3").exists)
    node.kill()
    stop.set()
    putting.join()
    began = monotonic()
    Store.open(str(node.root)).close()
    opened_s = monotonic() - began
    began = monotonic()
    node.start()
    assert ask(node, "GET", "/__healthz").status == 200
    with capsys.disabled():
        print(
            f" [{MANY} files: store opened in {opened_s * 1000:.1f} ms, node answered after {monotonic() - began:.2f} s]"
        )
    assert opened_s < OPENS_S
