"""PYME as a peer, from its own package: our client on its nodes, its client on ours, and both kinds in one cluster.

PYME runs in an environment of its own below build/, which `make pyme` makes; without it these tests skip. Each test is named
for what PYME does that a client or a node must live with.
"""

import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import Deferred, succeed

import granum
from granum import blocking
from granum.wire.errors import AlreadyStored, BadPath, GranumError, NotADirectory, NotStored, Partial
from integration.bench import programs
from integration.bench.peers import Pyme
from integration.faults.waiting import until
from integration.lab import NodeProcess
from integration.pyme import PymeClient, PymeError

CLUSTER = "bench"  # the name under which `Pyme` advertises
MOVIE = (np.arange(24 * 32 * 48, dtype="u4") * 7 % 60013).astype("u2").reshape(24, 32, 48)


def _absent() -> str:
    try:
        programs.pyme(fetch=False)
    except programs.Absent as error:
        return f"PYME is {error}"
    return ""


ABSENT = _absent()
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "-")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home, registry and stores of everything in this module."""
    return tmp_path_factory.mktemp("pyme")


@pytest.fixture(scope="module")
def pyme_node(home: Path) -> Iterator[Pyme]:
    """One node of PYME."""
    with Pyme(home / "pyme", home) as node:
        yield node


@pytest.fixture(scope="module")
def own_nodes(home: Path) -> Iterator[list[NodeProcess]]:
    """Two nodes of ours in the same cluster and registry."""
    with ExitStack() as running:
        yield [running.enter_context(_own(home, f"own{number}")) for number in (1, 2)]


@pytest.fixture(scope="module")
def pyme_client(home: Path, pyme_node: Pyme, own_nodes: list[NodeProcess]) -> Iterator[PymeClient]:
    """PYME's client in the mixed cluster."""
    with PymeClient(home, CLUSTER) as client:
        yield client


@pytest.fixture(scope="module")
def on_ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PymeClient, NodeProcess]]:
    """PYME's client, and one node of ours that is all it can find."""
    alone = tmp_path_factory.mktemp("ours")
    with _own(alone, "own") as node, PymeClient(alone, CLUSTER) as client:
        yield client, node


@pytest.fixture(scope="module")
def on_pyme(pyme_node: Pyme) -> Iterator[blocking.Cluster]:
    """Our client on the PYME node alone."""
    with _connected(pyme_node) as cluster:
        yield cluster


@pytest.fixture
def cluster(on_pyme: blocking.Cluster) -> blocking.Cluster:
    """The same, its node there: a connection that PYME closes makes it missing until it is probed, a second later."""
    assert until(lambda: on_pyme.nodes()[0].cause is None, 5)
    return on_pyme


@pytest.fixture(scope="module")
def mixed(pyme_node: Pyme, own_nodes: list[NodeProcess]) -> Iterator[blocking.Cluster]:
    """Our client on all three."""
    with _connected(pyme_node, *own_nodes) as cluster:
        yield cluster


def _own(home: Path, name: str) -> NodeProcess:
    environment = {"TMPDIR": str(home), "XDG_RUNTIME_DIR": str(home)}
    return NodeProcess(home / name, cluster=CLUSTER, advertise="local", environment=environment)


def _connected(*nodes: Pyme | NodeProcess) -> blocking.Cluster:
    hosts = [f"127.0.0.1:{node.port}" for node in nodes]
    return granum.connect("", nodes=hosts, expect=len(hosts), discover=False, bypass=False)


def _frames_below(*roots: Path) -> int:
    return sum(len(list(root.rglob("*.pzf"))) for root in roots if root.is_dir())


class Relay(socketserver.ThreadingTCPServer):
    """Passes bytes on to *port*, counts connections, and cuts the first one once it has passed *cut_at* bytes of it."""

    daemon_threads = True

    def __init__(self, port: int, cut_at: int = 0) -> None:
        self.opened, self.cut_at, self._to = 0, cut_at, port
        super().__init__(("127.0.0.1", 0), _Relayed)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def dial(self) -> socket.socket:
        """Connect to what is behind it."""
        self.opened += 1
        return socket.create_connection(("127.0.0.1", self._to))


class _Relayed(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        with self.server.dial() as behind, suppress(OSError):
            back = threading.Thread(target=self._back, args=(behind,), daemon=True)
            back.start()
            passed = 0
            while body := self.request.recv(1 << 16):
                cut = self.server.cut_at
                if cut and passed + len(body) > cut:
                    self.server.cut_at = 0
                    behind.sendall(body[: cut - passed])
                    self.request.shutdown(socket.SHUT_RDWR)
                    break
                passed += len(body)
                behind.sendall(body)
            behind.shutdown(socket.SHUT_WR)
            back.join(10)

    def _back(self, behind: socket.socket) -> None:
        with suppress(OSError):
            while body := behind.recv(1 << 16):
                self.request.sendall(body)
            self.request.shutdown(socket.SHUT_WR)


@contextmanager
def _relayed(port: int, cut_at: int = 0) -> Iterator[Relay]:
    with Relay(port, cut_at) as relay:
        serving = threading.Thread(target=relay.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        yield relay
        relay.shutdown()


# -- our client on PYME's node -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
def test_listing_with_and_without_slash_where_pyme_answers_301(cluster: blocking.Cluster, slash: str) -> None:
    cluster.put(f"/slash{len(slash)}/f", b"abc")
    assert list(cluster.listdir(f"/slash{len(slash)}{slash}")) == ["f"]


def test_a_name_that_is_stored_is_refused_with_405_and_an_html_page(cluster: blocking.Cluster) -> None:
    cluster.put("/once/f", b"first")
    with pytest.raises(AlreadyStored):
        cluster.put("/once/f", b"second")
    assert cluster.get("/once/f") == b"first"


def test_a_404_with_an_html_body_is_not_stored_and_the_connection_is_used_again(pyme_node: Pyme) -> None:
    with (
        _relayed(pyme_node.port) as relay,
        granum.connect("", nodes=[f"127.0.0.1:{relay.port}"], expect=1, discover=False, bypass=False) as cluster,
    ):
        cluster.put("/kept/f", b"abc")
        cluster.get("/kept/f")
        before = relay.opened
        for _ in range(10):
            with pytest.raises(NotStored):
                cluster.get("/kept/never")
            assert cluster.get("/kept/f") == b"abc"
        assert relay.opened - before <= 1


def test_a_status_without_node_id_or_durability_tells_name_and_space(
    cluster: blocking.Cluster, pyme_node: Pyme
) -> None:
    (state,) = cluster.nodes()
    assert (state.cause, state.node.node_id, state.node.port) == (None, "", pyme_node.port)
    receipt = cluster.put("/status/f", b"abc")
    assert receipt.durability == ""
    with _connected(pyme_node) as by_space, by_space.create_series("/status/s", placement="space") as series:
        assert series.store_frame(0, MOVIE[0]) is not None


@pytest.mark.parametrize("name", ["ä ö.txt", "50%.txt", "q?x=1", "a#b", "x" * 99, "+&=;,'()!~"], ids=ascii)
def test_names_are_stored_and_listed_as_they_were_put(cluster: blocking.Cluster, pyme_node: Pyme, name: str) -> None:
    cluster.put(f"/names/{name}", name.encode())
    assert (pyme_node.root / "names" / name).read_bytes() == name.encode()
    assert cluster.get(f"/names/{name}") == name.encode()
    assert until(lambda: name in cluster.listdir("/names"), 5)  # PYME's nodes keep the text of a listing for a second


def test_a_name_beyond_latin_1_that_pyme_cannot_say_is_missing_harms_no_other_put(cluster: blocking.Cluster) -> None:
    """The reason of its 404 has the name in it, which it then cannot encode: it closes the connection instead."""
    with pytest.raises(Partial):
        cluster.exists("/tongues/日本.dat")
    assert until(lambda: cluster.nodes()[0].cause is None, 5)
    cluster.put("/tongues/f", b"def")
    assert cluster.get("/tongues/f") == b"def"


def test_aggregate_and_pyramid_names_are_refused_before_they_are_sent(cluster: blocking.Cluster) -> None:
    for path in ("/__aggregate_txt/x", "/__aggregate_csv/x", "/__pyramid_create/x", "/__status"):
        with pytest.raises(BadPath):
            cluster.put(path, b"x")


def test_sizes_that_a_warm_listing_doubles_are_corrected_by_a_get(cluster: blocking.Cluster) -> None:
    cluster.put("/doubled/big", bytes(100_000))
    assert cluster.stat("/doubled/big").size == 100_000
    assert len(cluster.get("/doubled/big")) == 100_000


def test_a_directory_that_a_warm_listing_lacks_is_found(cluster: blocking.Cluster, pyme_node: Pyme) -> None:
    cluster.listdir("/")
    with _connected(pyme_node) as other:
        other.put("/fresh/below/f", b"abc")
        assert list(other.listdir("/fresh/below")) == ["f"]
    assert cluster.get("/fresh/below/f") == b"abc"
    assert cluster.exists("/fresh/below/f")


def test_a_directory_hidden_by_index_html_is_named_as_such_and_its_files_are_read(cluster: blocking.Cluster) -> None:
    cluster.put("/hidden/index.html", b"<p>hello</p>")
    cluster.put("/hidden/f", b"abc")
    assert cluster.get("/hidden/f") == b"abc"
    assert cluster.isdir("/hidden")
    with pytest.raises(Partial, match=r"index\.html"):
        cluster.listdir("/hidden")


def test_a_connection_closed_without_a_reply_is_an_error_in_time_and_harms_no_other_put(
    cluster: blocking.Cluster,
) -> None:
    cluster.put("/closed/f", b"abc")
    began = time.monotonic()
    with pytest.raises(GranumError):
        cluster.put("/closed/f/below", b"x")
    assert time.monotonic() - began < 8
    assert until(lambda: cluster.nodes()[0].cause is None, 5)
    cluster.put("/closed/g", b"def")
    assert cluster.get("/closed/g") == b"def"


def test_ranges_that_pyme_ignores_come_back_cut_to_what_was_asked(cluster: blocking.Cluster) -> None:
    cluster.put("/ranges/f", bytes(range(256)) * 4)
    assert cluster.get("/ranges/f", start=10, length=5) == bytes(range(10, 15))
    assert cluster.get("/ranges/f", start=1020) == bytes(range(252, 256))
    assert cluster.get("/ranges/f", start=5000) == b""


def test_mkdir_and_the_kinds_of_entries(cluster: blocking.Cluster) -> None:
    cluster.mkdir("/kinds/below")
    cluster.put("/kinds/f", b"")
    with pytest.raises(NotADirectory):
        cluster.listdir("/kinds/f")
    assert cluster.isdir("/kinds/below")
    assert not cluster.isdir("/kinds/f")
    assert cluster.get("/kinds/f") == b""


def test_a_node_without_goodbye_is_missing_and_named(tmp_path: Path) -> None:
    with Pyme(tmp_path / "gone", tmp_path) as node, _connected(node) as cluster:
        cluster.put("/gone/f", b"abc")
        node.stop()
        began = time.monotonic()
        with pytest.raises(GranumError):
            cluster.get("/gone/f")
        assert time.monotonic() - began < 8
        (state,) = cluster.nodes()
        assert state.cause is not None


@pytest.mark.parametrize("compression", ["raw", "huffman"])
def test_a_series_streamed_to_a_node_that_holds_no_reply_back(
    cluster: blocking.Cluster, pyme_node: Pyme, compression: str
) -> None:
    with cluster.create_series(f"/streamed-{compression}", compression=compression) as series:
        for number, image in enumerate(MOVIE):
            series.store_frame(number, image)
        assert series.finalise().puts == len(MOVIE)
    assert _frames_below(pyme_node.root / f"streamed-{compression}.pcs") == len(MOVIE)
    assert np.array_equal(np.asarray(cluster.series(f"/streamed-{compression}")), MOVIE)


def test_a_put_cut_off_in_its_body_which_pyme_keeps_as_a_whole_file_is_never_taken_for_stored(pyme_node: Pyme) -> None:
    """PYME stores the part that came, and answers 405 from then on: the frame must be named as lost, or be elsewhere."""
    with (
        _relayed(pyme_node.port, cut_at=100_000) as relay,
        granum.connect("", nodes=[f"127.0.0.1:{relay.port}"], expect=1, discover=False, bypass=False) as cluster,
    ):
        big = np.arange(256 * 256, dtype="u2").reshape(256, 256)
        series = cluster.create_series("/cut")
        named: set[str] = set()
        try:
            for number in range(4):
                series.store_frame(number, big + number)
            series.finalise()
        except granum.errors.NotReceipted as error:
            named = {str(path).rpartition("/")[2] for path in error.paths}
            series.abort()
    for number in range(4):
        file = pyme_node.root / "cut.pcs" / f"frame{number:05d}.pzf"
        whole = file.exists() and file.read_bytes()[64:] == (big + number).tobytes()
        assert whole or file.name in named, f"{file.name} has a receipt and is not whole"


# -- PYME's client on our nodes ----------------------------------------------------------------------------------------


def test_pyme_puts_gets_and_lists_on_our_node(on_ours: tuple[PymeClient, NodeProcess]) -> None:
    client, node = on_ours
    bodies = {"/v/empty": b"", "/v/small": b"abc", "/v/deep/big": os.urandom(5_000_000)}
    for name, body in bodies.items():
        client.put(name, body)
        assert client.get(name) == body
        assert (node.root / name[1:]).read_bytes() == body
    assert client.of("listdir", "/v/") == ["deep/", "empty", "small"]
    assert client.of("listdirectory", "/v/") == {"deep/": [1, 1], "empty": [0, 0], "small": [0, 3]}
    assert [client.of("exists", name) for name in ("/v/small", "/v/never", "//v//small")] == [True, False, True]
    assert [client.of("isdir", name) for name in ("/v/deep", "/v/small", "/")] == [True, False, True]
    assert client.of("size", "/v/small") == 3
    assert client.of("locate", "/v/small") == [f"{node.url}//v/small"]
    assert client.of("listdir", "/never/") == []
    walked = {top: (below, files) for top, below, files in client.of("walk", "/v/")}
    assert walked["/v/"] == (["deep/"], ["empty", "small"])


def test_pyme_is_refused_a_second_put_and_what_is_missing(on_ours: tuple[PymeClient, NodeProcess]) -> None:
    client, _ = on_ours
    client.put("/twice/f", b"first")
    with pytest.raises(PymeError, match="405") as caught:
        client.put("/twice/f", b"second")
    assert caught.value.kind == "RuntimeError"
    with pytest.raises(PymeError) as missing:
        client.get("/twice/never")
    assert missing.value.kind == "OSError"
    assert client.get("/twice/f") == b"first"


def test_pyme_reads_our_status(on_ours: tuple[PymeClient, NodeProcess]) -> None:
    client, _ = on_ours
    (said,) = client.ask("status", cluster=CLUSTER)
    assert said["Responsive"]
    assert said["Disk"]["total"] >= said["Disk"]["free"] > 0


def test_put_files_of_pyme_arrive_all_on_one_connection(on_ours: tuple[PymeClient, NodeProcess]) -> None:
    client, node = on_ours
    files = {f"/many/f{number}": bytes([number % 251]) * 20_000 for number in range(300)}
    client.put_files(files)
    assert {f"/many/{file.name}": file.read_bytes() for file in (node.root / "many").iterdir()} == files


def test_a_streamer_of_pyme_that_is_closed_late_loses_nothing(on_ours: tuple[PymeClient, NodeProcess]) -> None:
    client, node = on_ours
    files = {f"/late/f{number}": bytes([number % 251]) * 50_000 for number in range(200)}
    client.stream([("127.0.0.1", node.port)], files, idle_s=2.0)
    assert {f"/late/{file.name}": file.read_bytes() for file in (node.root / "late").iterdir()} == files


@pytest.mark.parametrize(("count", "size"), [(400, 50_000), (1500, 500)])
def test_a_streamer_of_pyme_that_is_closed_at_once_loses_nothing(
    on_ours: tuple[PymeClient, NodeProcess], count: int, size: int
) -> None:
    """Its kernel drops what is not sent when a reply lies unread, so the node must not answer before it has all."""
    client, node = on_ours
    files = {f"/closed{size}/f{number}": bytes([number % 251]) * size for number in range(count)}
    client.stream([("127.0.0.1", node.port)], files)
    directory = node.root / f"closed{size}"
    assert until(lambda: directory.is_dir() and len(os.listdir(directory)) == count, 5)
    assert {f"/closed{size}/{file.name}": file.read_bytes() for file in directory.iterdir()} == files


def test_a_series_that_pyme_records_on_our_node_is_read_by_both(
    on_ours: tuple[PymeClient, NodeProcess], tmp_path: Path
) -> None:
    client, node = on_ours
    np.save(tmp_path / "movie.npy", MOVIE)
    client.ask("record", name="rec.pcs", frames=str(tmp_path / "movie.npy"), cluster=CLUSTER)
    assert until((node.root / "rec.pcs" / "events.json").exists, 5)
    with _connected(node) as cluster:
        back = cluster.series("/rec")
        assert (back.shape, back.dtype, back.complete) == (MOVIE.shape, MOVIE.dtype, True)
        assert np.array_equal(np.asarray(back), MOVIE)
        assert back.metadata["Camera.Name"] == "PYME"
    assert client.of("listdirectory", "/")["rec.pcs/"][0] == 7
    assert np.array_equal(_read_by_pyme(client, "rec.pcs", tmp_path), MOVIE)


# -- both kinds in one cluster -----------------------------------------------------------------------------------------


def test_a_series_of_ours_over_both_kinds_of_nodes_is_read_by_both(
    mixed: blocking.Cluster, pyme_client: PymeClient, pyme_node: Pyme, own_nodes: list[NodeProcess], tmp_path: Path
) -> None:
    with mixed.create_series("/both", metadata={"Camera": {"Name": "A"}}, compression="huffman") as series:
        for number, image in enumerate(MOVIE):
            series.store_frame(number, image)
        summary = series.finalise([("laser", "on", 1.5)])
    assert sorted(summary.per_node.values()) == [8, 8, 8]
    roots = [pyme_node.root, *(node.root for node in own_nodes)]
    assert [_frames_below(root / "both.pcs") for root in roots] == [8, 8, 8]
    assert np.array_equal(np.asarray(mixed.series("/both")), MOVIE)
    assert np.array_equal(_read_by_pyme(pyme_client, "both.pcs", tmp_path), MOVIE)
    for number in range(len(MOVIE)):
        name = f"/both.pcs/frame{number:05d}.pzf"
        assert pyme_client.get(name) == mixed.get(name)


def test_files_that_pyme_streams_over_both_kinds_are_read_by_ours(
    mixed: blocking.Cluster, pyme_client: PymeClient, pyme_node: Pyme, own_nodes: list[NodeProcess]
) -> None:
    files = {f"/spread/f{number}": os.urandom(10_000) for number in range(60)}
    servers = [("127.0.0.1", port) for port in (pyme_node.port, *(node.port for node in own_nodes))]
    pyme_client.stream(servers, files, idle_s=2.0)
    view = mixed.listdir("/spread")
    assert (len(view), view.partial, view.collisions) == (60, False, ())
    assert {name: mixed.get(name) for name in files} == files
    assert sorted(pyme_client.of("listdir", "/spread/")) == sorted(name.rpartition("/")[2] for name in files)


def test_a_name_that_one_kind_has_is_refused_for_the_other(
    mixed: blocking.Cluster, pyme_node: Pyme, own_nodes: list[NodeProcess]
) -> None:
    nodes: tuple[Pyme | NodeProcess, ...] = (pyme_node, *own_nodes)
    for number, node in enumerate(nodes):
        with _connected(node) as alone:
            alone.put(f"/taken/f{number}", b"x")
        _forget(mixed, f"/taken/f{number}")
        with pytest.raises(AlreadyStored):
            mixed.put(f"/taken/f{number}", b"y")


def test_a_node_of_pyme_that_dies_leaves_the_rest_of_a_listing_and_is_named(
    tmp_path: Path, own_nodes: list[NodeProcess]
) -> None:
    with Pyme(tmp_path / "dying", tmp_path) as dying, _connected(dying, own_nodes[0]) as cluster:
        nodes = {node.port: node for node in cluster.ready(2)}
        cluster.put("/part/a", b"a", node=nodes[dying.port])
        cluster.put("/part/b", b"b", node=nodes[own_nodes[0].port])
        dying.stop()
        _forget(cluster, "/part/a")
        view = cluster.listdir("/part")
        assert (list(view), len(view.missing)) == (["b"], 1)


def _forget(cluster: blocking.Cluster, path: str) -> None:
    """Let *cluster* ask anew, as it does of itself a second later."""

    def forget(reached: granum.Cluster) -> "Deferred[None]":
        reached.forget_listing(path)
        return succeed(None)

    cluster.call(forget)


def _read_by_pyme(client: PymeClient, series: str, scratch: Path) -> Any:
    client.ask("read", url=f"pyme-cluster://{CLUSTER}/{series}", into=str(scratch / "back.npy"))
    return np.load(scratch / "back.npy").reshape(MOVIE.shape)
