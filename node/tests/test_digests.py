"""A real daemon and digests: what it computes, checks, compares and answers; and conditional reads of parts."""

import base64
import gzip
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import xxhash

from granum.testing.conformance.talk import Reply, Talk, ask, chunked, fresh, put, request
from integration.lab import NodeProcess
from node.tests.conftest import StartNode, private
from node.tests.watching import files

HELLO_TAG = '"xxh3-128:b5e9c1ad071b3e7fc779cfaa5e523818"'
HELLO_MEMBER = "xxh3-128=b5e9c1ad071b3e7fc779cfaa5e523818"
STORED = (200, HELLO_TAG, HELLO_MEMBER)


def own(body: bytes) -> Mapping[str, str]:
    return {"Granum_Digest": f"xxh3-128={xxhash.xxh3_128_hexdigest(body)}"}


def standard(body: bytes, name: str = "Repr_Digest") -> Mapping[str, str]:
    return {name: f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"}


def told(reply: Reply) -> tuple[int, str | None, str | None]:
    return reply.status, reply.headers.get("etag"), reply.headers.get("granum-digest")


# -- what is told of a file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["commit", "relaxed"])
def test_receipt_and_reads_name_the_digest_of_the_file(start_node: StartNode, durability: str) -> None:
    node = start_node(environment={"GRANUM_NODE_DURABILITY": durability})
    receipts = [
        ask(node, "PUT", "/plain", b"hello"),
        ask(node, "PUT", "/gzip", gzip.compress(b"hello"), Content_Encoding="gzip"),
    ]
    with Talk(node) as talk:
        talk.send(
            b"PUT /chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", chunked([b"hel", b"lo"])
        )
        receipts.append(talk.reply("PUT"))
    assert [told(receipt) for receipt in receipts] == [STORED] * 3
    for name in ("plain", "gzip", "chunked"):
        for verb in ("GET", "HEAD"):
            assert told(ask(node, verb, f"/{name}")) == STORED


def test_a_file_placed_by_hand_has_a_weak_tag_and_no_digest(shared: NodeProcess) -> None:
    file = shared.root / f"by-hand-{fresh()[1:]}"
    file.write_bytes(b"hello")
    os.utime(file, ns=(0, 255))
    assert told(ask(shared, "GET", f"/{file.name}")) == (200, 'W/"5-ff"', None)


def test_with_digests_off_nothing_is_computed_but_what_is_sent_is_checked(start_node: StartNode) -> None:
    node = start_node(environment={"GRANUM_NODE_DIGEST": "off"})
    assert told(ask(node, "PUT", "/f", b"hello")) == (200, None, None)
    assert ask(node, "GET", "/__status").listing()["Granum"]["digest"] == "off"
    assert ask(node, "PUT", "/g", b"hello", **own(b"other")).status == 422
    assert ask(node, "PUT", "/f", b"hello", **own(b"hello")).status == 200
    assert ask(node, "PUT", "/f", b"hello", **standard(b"hello")).status == 200
    assert ask(node, "PUT", "/f", b"other", **own(b"other")).status == 405


def test_the_status_names_the_digest(shared: NodeProcess) -> None:
    assert ask(shared, "GET", "/__status").listing()["Granum"]["digest"] == "xxh3-128"


# -- what a put says of its bytes ------------------------------------------------------------------------------------

HEADERS = {
    "own": own,
    "Repr-Digest": standard,
    "Content-Digest": lambda body: standard(body, "Content_Digest"),
    "both": lambda body: {**own(body), **standard(body)},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_body_with_its_digest_is_stored(shared: NodeProcess, kind: str) -> None:
    target = f"{fresh()}/f"
    assert told(ask(shared, "PUT", target, b"hello", **HEADERS[kind](b"hello"))) == STORED
    assert ask(shared, "GET", target).body == b"hello"


@pytest.mark.parametrize("kind", HEADERS)
def test_a_body_with_another_digest_is_422_and_leaves_nothing(start_node: StartNode, kind: str) -> None:
    node = start_node()
    with Talk(node) as talk:
        talk.send(request("PUT", "/a/f", b"hellO", **HEADERS[kind](b"hello")))
        talk.send(request("PUT", "/g", b"next"))
        first, second = talk.reply("PUT"), talk.reply("PUT")
    assert (first.status, second.status) == (422, 200)
    assert first.body.startswith(b"The bytes do not have the digest that was sent with them")
    assert {name for name in files(node.root) if not name.startswith(".granum/")} == {"g"}
    assert ask(node, "PUT", "/a/f", b"hello", **HEADERS[kind](b"hello")).status == 200


def test_one_wrong_digest_of_two_is_422(shared: NodeProcess) -> None:
    target = f"{fresh()}/f"
    assert ask(shared, "PUT", target, b"hello", **own(b"hello"), **standard(b"other")).status == 422
    assert ask(shared, "PUT", target, b"hello", **own(b"other"), **standard(b"hello")).status == 422
    assert ask(shared, "GET", target).status == 404


@pytest.mark.parametrize("headers", [{"Granum_Digest": "xxh3-128=1"}, {"Repr_Digest": "sha-256=:AAAA:"}])
def test_a_digest_that_cannot_be_read_is_400(shared: NodeProcess, headers: Mapping[str, str]) -> None:
    target = f"{fresh()}/f"
    assert ask(shared, "PUT", target, b"hello", **headers).status == 400
    assert ask(shared, "GET", target).status == 404


def test_standard_digests_of_a_coded_body_are_of_the_coded_bytes_and_our_own_of_the_file(shared: NodeProcess) -> None:
    top, coded = fresh(), gzip.compress(b"hello")
    for number, (headers, status) in enumerate(
        [
            (standard(coded), 200),
            (standard(coded, "Content_Digest"), 200),
            (standard(b"hello"), 422),
            (own(b"hello"), 200),
            (own(coded), 422),
        ]
    ):
        assert ask(shared, "PUT", f"{top}/{number}", coded, Content_Encoding="gzip", **headers).status == status


# -- a name that is taken --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["commit", "relaxed"])
def test_answers_to_a_put_of_a_name_that_is_taken(start_node: StartNode, durability: str) -> None:
    """The table of the protocol."""
    node = start_node(environment={"GRANUM_NODE_DURABILITY": durability})
    put(node, "/f", b"hello")
    put(node, "/d/")
    before = (node.root / "f").stat()
    exclusive = {"If_None_Match": "*"}
    coded = gzip.compress(b"hello")
    asked = [
        (b"hello", {}, 405),
        (b"hello", exclusive, 412),
        (b"hello", own(b"hello"), 200),
        (b"hello", standard(b"hello"), 200),
        (b"hello", {**own(b"hello"), **exclusive}, 200),
        (b"hello", {**standard(b"hello"), **exclusive}, 200),
        (b"other", own(b"other"), 405),
        (b"other", standard(b"other"), 405),
        (b"other", {**own(b"other"), **exclusive}, 412),
        (b"other", {**own(b"hello"), **standard(b"other")}, 405),
        (coded, {**standard(coded), "Content_Encoding": "gzip"}, 200),
        (coded, {**own(b"hello"), "Content_Encoding": "gzip"}, 200),
        (gzip.compress(b"other"), {**standard(gzip.compress(b"other", mtime=0)), "Content_Encoding": "gzip"}, 422),
        (b"hello", {"Repr_Digest": "sha-512=:AAAA:"}, 405),
    ]
    with Talk(node) as talk:
        replies = [talk.ask("PUT", "/f", body, **headers) for body, headers, _ in asked]
        assert [reply.status for reply in replies] == [status for *_, status in asked]
        assert {told(reply) for reply in replies if reply.status == 200} == {STORED}
        assert {reply.headers["granum-durability"] for reply in replies if reply.status == 200} == {durability}
        assert talk.ask("PUT", "/d", b"hello", **own(b"hello")).status == 405
        assert talk.ask("PUT", "/f/below", b"hello", **own(b"hello")).status == 409
    after = (node.root / "f").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_nlink) == (before.st_ino, before.st_mtime_ns, 1)


def test_a_condition_on_a_name_that_is_free(shared: NodeProcess) -> None:
    top = fresh()
    assert ask(shared, "PUT", f"{top}/f", b"hello", If_None_Match="*").status == 200
    assert ask(shared, "PUT", f"{top}/g", b"hello", If_Match=HELLO_TAG).status == 412
    assert ask(shared, "GET", f"{top}/g").status == 404


def test_a_repeated_put_that_asks_first_need_not_send_its_body(shared: NodeProcess) -> None:
    target = f"{fresh()}/f"
    put(shared, target, b"hello")
    with Talk(shared) as talk:
        talk.send(request("PUT", target, b"hello", Expect="100-continue", **own(b"hello"))[: -len(b"hello")])
        reply = talk.reply("PUT")
        assert (reply.status, reply.interim, talk.is_closed()) == (200, (), True)


def test_a_file_placed_by_hand_is_compared_by_its_bytes(shared: NodeProcess) -> None:
    name = f"by-hand-{fresh()[1:]}"
    (shared.root / name).write_bytes(b"hello")
    assert ask(shared, "PUT", f"/{name}", b"hello", **own(b"hello")).status == 200
    assert ask(shared, "PUT", f"/{name}", b"hello", **standard(b"hello")).status == 200
    assert ask(shared, "PUT", f"/{name}", b"other", **own(b"other")).status == 405


@pytest.mark.parametrize("durability", ["commit", "relaxed"])
def test_of_writers_that_race_with_the_same_bytes_all_get_a_receipt(start_node: StartNode, durability: str) -> None:
    node = start_node(environment={"GRANUM_NODE_DURABILITY": durability})
    statuses = race(node, [b"hello"] * 16)
    assert statuses == [200] * 16
    assert (node.root / "f").stat().st_nlink == 1


def test_of_writers_that_race_with_different_bytes_one_gets_a_receipt(start_node: StartNode) -> None:
    statuses = race(start_node(), [b"body %d" % number for number in range(16)])
    assert sorted(statuses) == [200] + [405] * 15


def race(node: NodeProcess, bodies: list[bytes]) -> list[int]:
    """Put *bodies* as /f, none of them sent before the node has agreed to take all; return the statuses."""
    barrier = threading.Barrier(len(bodies))
    statuses = [0] * len(bodies)

    def write(number: int, body: bytes) -> None:
        with Talk(node) as talk:
            talk.send(request("PUT", "/f", body, Expect="100-continue", **standard(body))[: -len(body)])
            assert talk.interim() == 100  # so it was not told from the head
            barrier.wait(10)
            talk.send(body)
            statuses[number] = talk.reply("PUT").status

    threads = [threading.Thread(target=write, args=each) for each in enumerate(bodies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return statuses


# -- reading ---------------------------------------------------------------------------------------------------------


def test_parts_of_a_file(shared: NodeProcess) -> None:
    target = f"{fresh()}/f"
    body = bytes(range(256)) * 512  # too large for one piece with its head
    put(shared, target, body)
    with Talk(shared) as talk:
        for asked, first, last in [
            ("0-0", 0, 0),
            ("100000-", 100_000, 131_071),
            ("-5", 131_067, 131_071),
            ("5-70004", 5, 70_004),
        ]:
            reply = talk.ask("GET", target, Range=f"bytes={asked}")
            assert (reply.status, reply.headers["content-range"]) == (206, f"bytes {first}-{last}/131072")
            assert reply.body == body[first : last + 1]
        for asked in ("0-1,3-4", "x", "5-4"):
            reply = talk.ask("GET", target, Range=f"bytes={asked}")
            assert (reply.status, reply.body == body, reply.headers["accept-ranges"]) == (200, True, "bytes")
            assert "content-range" not in reply.headers
        reply = talk.ask("GET", target, Range="bytes=131072-")
        assert (reply.status, reply.headers["content-range"]) == (416, "bytes */131072")
        reply = talk.ask("HEAD", target, Range="bytes=0-0")
        assert (reply.status, reply.headers["content-length"]) == (200, "131072")


def test_a_part_is_never_coded(shared: NodeProcess) -> None:
    target = f"{fresh()}/f"
    put(shared, target, b"hello" * 100)
    reply = ask(shared, "GET", target, Range="bytes=0-4", Accept_Encoding="gzip")
    assert (reply.status, reply.body, "content-encoding" in reply.headers) == (206, b"hello", False)


def test_a_part_is_only_for_the_version_it_continues(shared: NodeProcess) -> None:
    target = f"{fresh()}/f"
    put(shared, target, b"hello")
    assert ask(shared, "GET", target, Range="bytes=1-1", If_Range=HELLO_TAG).body == b"e"
    assert ask(shared, "GET", target, Range="bytes=1-1", If_Range='"other"').body == b"hello"


def test_what_a_client_has_is_not_sent_again(shared: NodeProcess) -> None:
    target = f"{fresh()}/f"
    put(shared, target, b"hello")
    with Talk(shared) as talk:
        modified = talk.ask("HEAD", target).headers["last-modified"]
    for headers in ({"If_None_Match": HELLO_TAG}, {"If_Modified_Since": modified}):
        for verb in ("GET", "HEAD"):
            head, rest = raw(shared, request(verb, target, Connection="close", **headers))
            assert head[0] == "HTTP/1.1 304 Not Modified"
            assert f"ETag: {HELLO_TAG}" in head
            assert not [line for line in head if line.lower().startswith("content-")]
            assert rest == b""
    for headers in ({"If_Match": '"other"'}, {"If_Unmodified_Since": "Thu, 01 Jan 1970 00:00:00 GMT"}):
        assert ask(shared, "GET", target, **headers).status == 412


def test_a_304_is_followed_by_the_next_reply(shared: NodeProcess) -> None:
    target = f"{fresh()}/f"
    put(shared, target, b"hello")
    both = request("GET", target, If_None_Match=HELLO_TAG) + request("GET", target, Connection="close")
    _, rest = raw(shared, both)
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    assert rest.endswith(b"\r\n\r\nhello")


def raw(node: NodeProcess, asked: bytes) -> tuple[list[str], bytes]:
    """Send *asked*, whose end closes the connection; return the lines of the first head and everything behind it."""
    with socket.create_connection((node.address, node.port), 10) as connection:
        connection.sendall(asked)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, rest = received.partition(b"\r\n\r\n")
    return head.decode().split("\r\n"), rest


@pytest.mark.parametrize("target", ["*", "/", "/no/such", "/__status"])
def test_options_names_the_verbs_and_no_stranger(shared: NodeProcess, target: str) -> None:
    reply = ask(shared, "OPTIONS", target)
    assert (reply.status, reply.headers["allow"], reply.body) == (200, "GET, HEAD, PUT, OPTIONS", b"")
    assert not [name for name in reply.headers if name.startswith("access-control")]


# -- verifying -------------------------------------------------------------------------------------------------------


def verify(directory: Path, root: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "granum_node", "verify", "--root", str(root)]
    done = subprocess.run(
        command, env={**os.environ, **private(directory)}, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_verify_beside_a_running_node(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node()
    put(node, "/d/good", b"hello")
    put(node, "/d/rotten", b"hello")
    (node.root / "by hand\x1b").write_bytes(b"x")
    told_before = verify(tmp_path, node.root)
    assert told_before == (
        0,
        "no digest: by hand\\x1b\n3 files: 2 good, 0 damaged, 0 attribute lost, 1 no digest, 0 cannot be read\n",
    )
    rotten = node.root / "d" / "rotten"
    status = rotten.stat()
    rotten.chmod(0o640)
    rotten.write_bytes(b"hellO")
    rotten.chmod(0o440)
    os.utime(rotten, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert verify(tmp_path, node.root) == (
        1,
        (
            "no digest: by hand\\x1b\ndamaged: d/rotten\n"
            "3 files: 1 good, 1 damaged, 0 attribute lost, 1 no digest, 0 cannot be read\n"
        ),
    )
    reply = ask(node, "GET", "/d/rotten")
    assert reply.headers["granum-digest"] != f"xxh3-128={xxhash.xxh3_128_hexdigest(reply.body)}"
