"""Who may talk to a real daemon, and how much of it one peer may have."""

import gzip
import io
import socket
from contextlib import ExitStack

from granum.testing.conformance.talk import Talk, ask, fresh, request
from integration.lab import NodeProcess
from node.tests.conftest import StartNode
from node.tests.watching import open_files, resident_mib, until

DAEMON = ("-m", "granum_node")
MIB = 1 << 20


def greeting(node: NodeProcess, source: str) -> bytes:
    """Ask for the node's health from the address *source*; return the first line of the answer, b'' for none."""
    with socket.create_connection((node.address, node.port), 10, (source, 0)) as connection:
        try:
            connection.sendall(b"GET /__healthz HTTP/1.1\r\n\r\n")
            return connection.makefile("rb").readline()
        except ConnectionError:
            return b""


def test_an_address_that_is_not_allowed_is_closed_unheard_and_the_others_are_served(start_node: StartNode) -> None:
    node = start_node(program=(*DAEMON, "--allow", "127.0.0.2=rw", "--allow", "127.0.0.3=ro"))
    assert greeting(node, "127.0.0.1") == b""
    assert greeting(node, "127.0.0.2") == b"HTTP/1.1 200 OK\r\n"
    assert greeting(node, "127.0.0.3") == b"HTTP/1.1 200 OK\r\n"


def test_an_address_that_may_only_read_changes_nothing(start_node: StartNode) -> None:
    node = start_node(program=(*DAEMON, "--allow", "127.0.0.0/8=ro"))
    (node.root / "f").write_bytes(b"hello")
    assert ask(node, "GET", "/f").body == b"hello"
    refused = [ask(node, "PUT", "/g", b"x"), ask(node, "PUT", "/d/", b""), ask(node, "PUT", "/__status", b"x")]
    assert [reply.status for reply in refused] == [403, 403, 403]
    with Talk(node) as talk:
        talk.send(b"PUT /g HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert talk.reply("PUT").status == 403  # at once, and not 100
        assert talk.is_closed()
    assert sorted(path.name for path in node.root.iterdir()) == [".granum", "f"]


def test_a_node_on_several_addresses_has_one_port(start_node: StartNode) -> None:
    node = start_node(program=(*DAEMON, "--bind", "127.0.0.1,127.0.0.2", "--bind", "::1"))
    for address in ("127.0.0.1", "127.0.0.2", "::1"):
        node.address = address
        host = f"[{address}]" if ":" in address else address
        assert ask(node, "GET", "/__healthz", Host=f"{host}:{node.port}").status == 200


def test_names_that_a_node_answers_to_can_be_added(start_node: StartNode) -> None:
    node = start_node(environment={"GRANUM_NODE_NAMES": "scope.example.org, scope"})
    hosts = ("scope.example.org", f"SCOPE:{node.port}", "other.example.org", socket.gethostname())
    assert [ask(node, "GET", "/__healthz", Host=host).status for host in hosts] == [200, 200, 421, 200]


def test_a_page_of_another_site_can_neither_write_nor_read_an_answer(shared: NodeProcess) -> None:
    target = fresh() + "/f"
    foreign = {"Origin": "http://evil.example", "Sec_Fetch_Site": "cross-site"}
    assert ask(shared, "PUT", target, b"x", **foreign).status == 403
    for verb in ("GET", "OPTIONS"):
        reply = ask(shared, verb, "/", Access_Control_Request_Method="PUT", **foreign)
        assert not [name for name in reply.headers if name.startswith("access-control")]
    assert ask(shared, "PUT", target, b"x", Origin=f"http://localhost:{shared.port}").status == 200


def test_an_upgrade_is_not_taken_up(shared: NodeProcess) -> None:
    asked = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert ask(shared, "GET", "/__healthz", **asked).status == 200


def test_one_address_may_have_256_connections_and_is_told_so(start_node: StartNode) -> None:
    node = start_node()
    with ExitStack() as held:
        connections = [held.enter_context(socket.create_connection((node.address, node.port), 10)) for _ in range(257)]
        assert connections[256].makefile("rb").readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
        assert greeting(node, "127.0.0.2") == b"HTTP/1.1 200 OK\r\n"
        connections[7].close()
        assert until(lambda: greeting(node, "127.0.0.1") == b"HTTP/1.1 200 OK\r\n")


def test_a_gzip_bomb_is_413_and_costs_neither_memory_nor_disk(start_node: StartNode) -> None:
    coded = io.BytesIO()
    with gzip.GzipFile(fileobj=coded, mode="wb") as bomb:
        for _ in range(1024):
            bomb.write(bytes(MIB))
    node = start_node()
    before, opened = resident_mib(node.pid), open_files(node.pid)
    with Talk(node) as talk:
        talk.send(request("PUT", "/bomb", coded.getvalue(), Content_Encoding="gzip"))
        assert talk.reply("PUT").status == 413
        assert talk.ask("GET", "/bomb").status == 404
    assert resident_mib(node.pid) - before <= 16
    assert until(lambda: open_files(node.pid) <= opened), "a spooled file was left open"


def test_an_empty_image_of_a_large_camera_is_no_bomb(shared: NodeProcess) -> None:
    target = fresh() + "/dark"
    assert ask(shared, "PUT", target, gzip.compress(bytes(30 * MIB)), Content_Encoding="gzip").status == 200
    assert len(ask(shared, "GET", target).body) == 30 * MIB
