"""A real daemon under hostile names, broken uploads, races, kills and floods."""

import ctypes
import gzip
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from granum.testing.conformance.talk import Talk, ask, fresh, put, request
from integration.lab import NodeProcess
from node.tests.conftest import MAIN, NAMED, StartNode, starting
from node.tests.watching import files, open_files, resident_mib, until

SECRET = b"outside the store"
MIB = 1 << 20


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node whose store holds everything that could lead outside, where there are files to be found."""
    directory = tmp_path_factory.mktemp("besieged")
    outside, store = directory / "outside", directory / "store"
    for made in (outside, store, store / "d"):
        made.mkdir()
    (outside / "secret").write_bytes(SECRET)
    (directory / "secret").write_bytes(SECRET)
    (store / "f").write_bytes(b"hello")
    (store / "to-file").symlink_to(outside / "secret")
    (store / "to-directory").symlink_to(outside)
    (store / "d" / "up").symlink_to("../..")
    (store / "dangling").symlink_to(outside / "new")
    (store / "magic").symlink_to("/proc/self/root")
    os.mkfifo(store / "fifo")

    def all_outside() -> dict[str, bytes]:
        found = {str(file): file.read_bytes() for file in outside.rglob("*")}
        return found | {file.name: file.read_bytes() for file in directory.glob("secret*")}

    before = all_outside()
    for start in starting(directory):
        yield start(store)
        assert all_outside() == before
        assert sorted(os.listdir(store)) == sorted(
            ["d", "dangling", "f", "fifo", "magic", "to-directory", "to-file", ".granum"]
        )
        assert os.listdir(store / "d") == ["up"]


BAD_NAMES = [
    b"/..", b"/../secret", b"/../../secret", b"/d/..", b"/d/../f", b"/d/../../secret", b"//../secret", b"/./../secret",
    b"/%2e%2e/secret", b"/%2e./secret", b"/.%2E/secret", b"/d/%2e%2e/%2e%2e/secret", b"/%2e%2e%2fsecret",
    b"/..%2fsecret", b"/..%5csecret", b"/..\\secret", b"/d\\f", b"/%2f", b"/d%2ff", b"/%2Fetc%2Fpasswd",
    b"/%00", b"/f%00", b"/f%00.txt", b"/d/%00/x", b"/%0a", b"/f%0d%0aX:%20y", b"/%7f", b"/%01", b"/%c2%85", b"/%e2%80%a8",
    b"/%", b"/%z", b"/%zz", b"/%2", b"/f%",
    b"/.granum", b"/.granum/node-id", b"/%2egranum/node-id", b"/d/.granum/x", b"/./.granum/lock", b"//.granum/spool/x",
    b"/__x", b"/__x/y", b"/__status/x", b"/__aggregate_txt/x", b"/__pyramid/x", b"/__glob", b"/%5f_x", b"//__x",
    b"f", b"d/f", b"*", b"?", b"file:///nonexistent/x", b"https://x/f", b"http:/f",
]  # fmt: skip


@pytest.mark.parametrize("target", BAD_NAMES)
def test_a_bad_name_is_400_whatever_is_asked(besieged: NodeProcess, target: bytes) -> None:
    asked = [("GET", target, None), ("HEAD", target, None), ("PUT", target, b"planted"), ("GET", target + b"/", None)]
    asked.append(("PUT", target + b"/", b""))
    replies = [ask(besieged, verb, raw, body) for verb, raw, body in asked]
    assert [reply.status for reply in replies] == [400] * 5
    assert not any(SECRET in reply.body for reply in replies)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/" + b"x" * 256, 414),
        (b"/" + b"%C3%B6" * 128, 414),
        (b"/" + b"/".join([b"x" * 250] * 16), 414),
        (b"/" + b"/".join([b"d"] * 65), 414),
        (b"/" + b"x" * 20_000, 414),
    ],
    ids=["name", "name in bytes", "path", "levels", "target"],
)
def test_a_name_that_is_too_long_is_414_whatever_is_asked(besieged: NodeProcess, target: bytes, status: int) -> None:
    for verb, body in (("GET", None), ("HEAD", None), ("PUT", b"planted")):
        assert ask(besieged, verb, target, body).status == status


@pytest.mark.parametrize("link", ["to-file", "to-directory", "d/up", "dangling", "magic", "fifo"])
def test_a_link_is_never_followed_nor_replaced(besieged: NodeProcess, link: str) -> None:
    asked = [
        ("GET", f"/{link}", None, 404), ("HEAD", f"/{link}", None, 404), ("GET", f"/{link}/", None, 404),
        ("GET", f"/{link}/secret", None, 404), ("GET", f"/{link}/outside/secret", None, 404),
        ("GET", f"/{link}/outside/", None, 404), ("PUT", f"/{link}", b"planted", 405), ("PUT", f"/{link}/", b"", 405),
        ("PUT", f"/{link}/secret", b"planted", 409), ("PUT", f"/{link}/new", b"planted", 409),
        ("PUT", f"/{link}/a/b/new", b"planted", 409), ("PUT", f"/{link}/new/", b"", 409),
        ("PUT", f"/{link}/a/b/new/", b"", 409), ("PUT", f"/{link}/tmp/planted-by-granum-test", b"planted", 409),
    ]  # fmt: skip
    replies = [ask(besieged, verb, target, body) for verb, target, body, _ in asked]
    assert [reply.status for reply in replies] == [status for *_, status in asked]
    assert not any(SECRET in reply.body for reply in replies)


def test_links_are_not_listed(besieged: NodeProcess) -> None:
    assert ask(besieged, "GET", "/").listing() == {"d/": [1, 1], "f": [0, 5]}
    assert ask(besieged, "GET", "/d/").listing() == {}


def exchange(one: Path, other: Path) -> None:
    """Swap two names in one step, renameat2(RENAME_EXCHANGE): neither is ever missing."""
    here = -100  # AT_FDCWD
    assert ctypes.CDLL(None).renameat2(here, os.fsencode(one), here, os.fsencode(other), 2) == 0


def test_a_directory_swapped_for_a_link_while_it_is_used_leads_nowhere(tmp_path: Path, start_node: StartNode) -> None:
    """Between any check and any use the name may come to mean something else."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    node = start_node()
    place, link = node.root / "d", node.root / "link"
    place.mkdir()
    (place / "secret").write_bytes(b"inside")
    link.symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            exchange(place, link)
            exchange(place, link)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        with Talk(node) as talk:
            for number in range(80):
                targets = (f"/d/f{number}", f"/d/n{number}/f", f"/d/m{number}/")
                statuses = [talk.ask("PUT", target, b"" if target[-1] == "/" else b"x").status for target in targets]
                assert set(statuses) <= {200, 404, 405, 409}
                assert talk.ask("GET", "/d/secret").body != SECRET
                assert talk.ask("GET", "/d/").status in {200, 404}
    finally:
        stop.set()
        swapper.join()
    assert os.listdir(outside) == ["secret"]
    assert any(name.startswith("f") for name in os.listdir(place))


# -- puts that are always answered -------------------------------------------------------------------------------------


def test_every_put_gets_its_answer_and_a_stored_file_stays_as_it_is(shared: NodeProcess) -> None:
    top = fresh()
    put(shared, f"{top}/f", b"first")
    put(shared, f"{top}/d/f", b"1")
    stored = shared.root / top[1:] / "f"
    before = (stored.stat().st_ino, stored.stat().st_mtime_ns, stored.stat().st_mode)
    assert [
        ask(shared, "PUT", f"{top}/f", b"second").status,
        ask(shared, "PUT", f"{top}/f", b"").status,
        ask(shared, "PUT", f"{top}/f", gzip.compress(b"second"), Content_Encoding="gzip").status,
        ask(shared, "PUT", f"{top}/f/below", b"second").status,
        ask(shared, "PUT", f"{top}/f/", b"").status,
        ask(shared, "PUT", f"{top}/d", b"second").status,
        ask(shared, "PUT", f"{top}/d/", b"").status,
        ask(shared, "PUT", "/", b"").status,
        ask(shared, "PUT", f"{top}/unsized").status,
        ask(shared, "PUT", f"{top}/new?MirrorSource=http://127.0.0.1:1/f", b"").status,
        ask(shared, "PUT", f"{top}/coded", b"x", Content_Encoding="br").status,
    ] == [405, 405, 405, 409, 405, 405, 405, 405, 411, 501, 415]
    assert (stored.stat().st_ino, stored.stat().st_mtime_ns, stored.stat().st_mode) == before
    assert (stored.read_bytes(), oct(before[2])) == (b"first", "0o100440")
    assert files(shared.root / top[1:]) == {"f", "d/f"}


def test_a_gzip_body_that_expands_eightyfold_takes_little_memory(shared: NodeProcess) -> None:
    top = fresh()
    before = resident_mib(shared.pid)
    noise = os.urandom(13_000)
    squeezed = gzip.compress((noise + bytes(MIB - len(noise))) * 256, 1)
    assert ask(shared, "PUT", f"{top}/f", squeezed, Content_Encoding="gzip").status == 200
    assert (shared.root / top[1:] / "f").stat().st_size == 256 * MIB
    assert resident_mib(shared.pid) - before < 16


def test_a_date_that_http_cannot_say_does_not_matter(shared: NodeProcess) -> None:
    top = fresh()
    for name, when in {"late": 300_000_000_000, "early": -1_000_000}.items():
        put(shared, f"{top}/{name}", b"hello")
        os.utime(shared.root / top[1:] / name, (when, when))
    dates = [ask(shared, "GET", f"{top}/{name}").headers["last-modified"] for name in ("late", "early")]
    assert dates[1] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert dates[0].endswith(" GMT")


def test_verbs_that_a_peer_makes_up_are_counted_as_one(shared: NodeProcess) -> None:
    """A table that grows with what peers send is memory that they own."""
    for number in range(50):
        assert ask(shared, f"VERB{number}", "/").status == 501
    counted = ask(shared, "GET", "/__status").listing()["Granum"]["requests"]
    assert counted["other 501"] >= 50
    assert not any(name.startswith("VERB") for name in counted)


def test_a_store_that_reaches_over_two_file_systems_says_so(tmp_path: Path, start_node: StartNode) -> None:
    node = start_node()
    (node.root / "disk2").mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs none {node.root}/disk2 2>/dev/null") != 0:
        pytest.skip("mounting a file system needs root")
    try:
        assert ask(node, "PUT", "/disk2/f", b"hello").status == 500
    finally:
        os.system(f"umount {node.root}/disk2")


# -- puts that are cut short ---------------------------------------------------------------------------------------------

FIN, RST, HALF = "FIN", "RST", "half"


def send_and_cut(node: NodeProcess, data: bytes, how: str) -> None:
    connection = socket.create_connection((node.address, node.port), 10)
    try:
        connection.sendall(data)
        if how == HALF:
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        if how == RST:
            reset(connection)
    finally:
        connection.close()


@pytest.mark.parametrize("how", [FIN, RST, HALF])
def test_a_small_put_cut_off_at_any_byte_leaves_nothing_and_a_retry_succeeds(shared: NodeProcess, how: str) -> None:
    top = fresh()
    put(shared, f"{top}/old", b"1")
    idle = open_files(shared.pid)
    whole = {"plain": request("PUT", f"{top}/NAME", b"hello")}
    whole["chunked"] = (
        request("PUT", f"{top}/NAME", None, Transfer_Encoding="chunked") + b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"
    )
    retried = []
    for kind, raw in whole.items():
        for cut in range(len(raw)):
            name = f"{kind}{cut:03}"
            # The name keeps its length, so that every cut falls elsewhere.
            data = raw.replace(b"NAME", name.encode())
            send_and_cut(shared, data[: cut + len(name) - 4] if cut > raw.index(b"NAME") else data[:cut], how)
            retried.append(name)
    assert ask(shared, "GET", f"{top}/").listing() == {"old": [0, 1]}
    assert until(lambda: open_files(shared.pid) <= idle), "a spooled file was left open"
    with Talk(shared) as talk:
        assert {talk.ask("PUT", f"{top}/{name}", b"again").status for name in retried} == {200}
    assert files(shared.root / ".granum") == {"lock", "node-id"}


@pytest.mark.parametrize("seed", range(3))
def test_a_large_put_cut_off_anywhere_leaves_nothing_and_a_retry_succeeds(shared: NodeProcess, seed: int) -> None:
    chance = random.Random(seed)
    top = fresh()
    put(shared, f"{top}/")
    idle = open_files(shared.pid)
    body = chance.randbytes(MIB)
    raw = request("PUT", f"{top}/f", body)
    for _ in range(12):
        send_and_cut(shared, raw[: chance.randrange(len(raw))], chance.choice([FIN, RST, HALF]))
    assert ask(shared, "GET", f"{top}/").listing() == {}
    assert until(lambda: open_files(shared.pid) <= idle), "a spooled file was left open"
    put(shared, f"{top}/f", body)
    assert ask(shared, "GET", f"{top}/f").body == body
    assert files(shared.root / ".granum") == {"lock", "node-id"}


@pytest.mark.parametrize("spool", ["unnamed", "named"])
def test_a_node_killed_during_a_put_leaves_nothing_and_a_retry_succeeds(start_node: StartNode, spool: str) -> None:
    node = start_node(program=("-c", NAMED if spool == "named" else MAIN))
    chance = random.Random(spool)
    body = chance.randbytes(2 * MIB)
    for number in range(6):
        target = f"/d{number}/f"
        raw = request("PUT", target, body, Expect="100-continue")
        head = len(raw) - len(body)
        with Talk(node) as talk:
            talk.send(raw[:head])
            assert talk.interim() == 100
            talk.send(raw[head : chance.randrange(head, len(raw))])
            if number == 0:  # the sanity of this test: a name is there while the body arrives, or none
                assert bool(files(node.root / ".granum" / "spool")) is (spool == "named")
            node.kill()
        if spool == "unnamed":
            assert files(node.root / ".granum") == {"lock", "node-id"}
        node.start()
        assert files(node.root / ".granum") == {"lock", "node-id"}
        assert (ask(node, "GET", target).status, ask(node, "GET", f"/d{number}/").status) == (404, 404)
        put(node, target, body)
    assert files(node.root) == {".granum/lock", ".granum/node-id", *(f"d{number}/f" for number in range(6))}
    assert {(node.root / f"d{number}" / "f").read_bytes() == body for number in range(6)} == {True}


def test_a_node_killed_at_any_moment_has_whole_files_or_none(start_node: StartNode) -> None:
    node = start_node()
    chance = random.Random(7)
    body = chance.randbytes(4 * MIB)
    for number in range(6):
        with Talk(node) as talk:
            sender = threading.Thread(target=talk.send, args=(request("PUT", f"/f{number}", body),))
            sender.start()
            threading.Event().wait(chance.uniform(0, 0.02))
            node.kill()
            sender.join()
        node.start()
        reply = ask(node, "GET", f"/f{number}")
        assert (reply.status, reply.body == body) in {(200, True), (404, False)}
    assert files(node.root / ".granum") == {"lock", "node-id"}


# -- many at once --------------------------------------------------------------------------------------------------------


def test_of_64_writers_of_one_name_one_wins_and_the_others_are_told(shared: NodeProcess) -> None:
    top = fresh()
    bodies = [b"%02d" % number * 10_000 for number in range(64)]
    statuses: dict[int, int] = {}
    together = threading.Barrier(64)

    def write(number: int) -> None:
        raw = request("PUT", f"{top}/race/f", bodies[number])
        with Talk(shared) as talk:
            talk.send(raw[:-1])
            together.wait()
            talk.send(raw[-1:])
            statuses[number] = talk.reply("PUT").status

    threads = [threading.Thread(target=write, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses.values()) == [200] + [405] * 63
    winner = next(number for number, status in statuses.items() if status == 200)
    assert ask(shared, "GET", f"{top}/race/f").body == bodies[winner]
    assert files(shared.root / ".granum") == {"lock", "node-id"}


def test_three_pipelined_gets_of_8_mib_arrive_whole(shared: NodeProcess) -> None:
    top = fresh()
    bodies = [random.Random(number).randbytes(8 * MIB) for number in range(3)]
    for number, body in enumerate(bodies):
        put(shared, f"{top}/{number}", body)
    with Talk(shared) as talk:
        talk.send(*(request("GET", f"{top}/{number}") for number in range(3)))
        assert [talk.reply().body == body for body in bodies] == [True, True, True]


def test_ten_thousand_pipelined_puts_are_stored_though_the_answers_are_read_last(start_node: StartNode) -> None:
    node = start_node()
    with Talk(node) as talk:
        talk.send(*(request("PUT", f"/d/{number:05}", b"%d" % number) for number in range(10_000)))
        assert [talk.reply("PUT").status for _ in range(10_000)] == [200] * 10_000
        talk.send(request("PUT", "/d/00000", b"x"), request("GET", "/d/09999"))
        assert [talk.reply("PUT").status, talk.reply().body] == [405, b"9999"]
    assert ask(node, "GET", "/").listing() == {"d/": [1, 10_000]}
    assert all((node.root / "d" / f"{number:05}").read_bytes() == b"%d" % number for number in range(0, 10_000, 97))
    print("memory after 10,000 pipelined puts:", resident_mib(node.pid), "MiB")
    assert resident_mib(node.pid) < 100


def test_a_client_that_pipelines_gets_and_does_not_read_takes_little_memory_and_then_gets_all(
    start_node: StartNode,
) -> None:
    node = start_node()
    put(node, "/large", bytes(MIB))
    put(node, "/small", b"hello")
    before = resident_mib(node.pid)
    idle = open_files(node.pid)
    requests = (request("GET", "/large") + request("GET", "/small", Padding="x" * 2000)) * 300
    with Talk(node) as talk:
        sender = threading.Thread(target=talk.send, args=(requests,))
        sender.start()
        assert until(lambda: open_files(node.pid) > idle)
        assert ask(node, "GET", "/small").body == b"hello"  # others are served meanwhile
        assert open_files(node.pid) - idle <= 16
        sizes = [len(talk.reply().body) for _ in range(600)]
        sender.join()
    print("memory after 300 MiB of pipelined gets:", resident_mib(node.pid), "MiB")
    assert sizes == [MIB, 5] * 300
    assert resident_mib(node.pid) - before < 24
    assert until(lambda: open_files(node.pid) <= idle)


def test_connections_reset_while_they_are_answered_leave_no_file_open(shared: NodeProcess) -> None:
    top = fresh()
    put(shared, f"{top}/large", bytes(8 * MIB))
    idle = open_files(shared.pid)
    for _ in range(50):
        connection = socket.create_connection((shared.address, shared.port), 10)
        connection.sendall(request("GET", f"{top}/large") * 20)
        connection.recv(1)
        reset(connection)
    assert until(lambda: open_files(shared.pid) <= idle)
