"""What a user of the client sees on real nodes: whole series, honest answers while nodes die, freeze and come back."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import granum
from granum import blocking
from granum.arrays.movies import open_movie
from granum.wire.errors import BadMovie, NodeTimeout, NoNode, Partial, WrongFrame
from integration.faults.waiting import pause, until
from integration.lab import NodeProcess, ProcessLab

SHAPE = (32, 48)
RUN = "run.pcs"


def image(number: int, shape: tuple[int, int] = SHAPE) -> Any:
    """Return a frame that no other number has."""
    return (np.arange(shape[0] * shape[1], dtype="u4") * 7 + number * 1009).astype("u2").reshape(shape)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No configuration and no registry of this machine reach the test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


@pytest.fixture
def lab(home: Path) -> Iterator[ProcessLab]:
    with ProcessLab(home, 3) as lab:
        yield lab


def connected(lab: ProcessLab, **options: Any) -> blocking.Cluster:
    hosts = [node.host for node in lab.nodes]
    return granum.connect("test", nodes=hosts, expect=len(hosts), discover=False, **options)


@pytest.fixture
def cluster(lab: ProcessLab) -> Iterator[blocking.Cluster]:
    with connected(lab) as cluster:
        yield cluster


def on_disk(nodes: Sequence[NodeProcess], directory: str = RUN) -> dict[str, list[int]]:
    """Return the files in the stores of *nodes*: name -> the places of the nodes that have it."""
    found: dict[str, list[int]] = {}
    for place, node in enumerate(nodes):
        below = node.root / directory
        for name in os.listdir(below) if below.is_dir() else ():
            found.setdefault(name, []).append(place)
    return found


def computer_and_port(node: NodeProcess) -> str:
    """Return the end of the name by which views call *node*."""
    return f":{node.port}"


# -- a series ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bypass", [False, True])
@pytest.mark.parametrize("compression", ["raw", "huffman"])
def test_a_series_is_spread_over_all_nodes_and_comes_back_equal(
    lab: ProcessLab, bypass: bool, compression: str
) -> None:
    with connected(lab, bypass=bypass) as cluster:
        with cluster.create_series("run", metadata={"Camera": {"Name": "A"}}, compression=compression) as series:
            for n in range(30):
                series.store_frame(n, image(n))
            summary = series.finalise([("laser", "on", 1.5)], metadata={"Stage.z": 2})
        assert (summary.puts, sorted(summary.per_node.values())) == (30, [10, 10, 10])
        back = cluster.series("run")
        assert (back.shape, back.dtype, back.complete, dict(back.missing)) == ((30, *SHAPE), np.dtype("u2"), True, {})
        for n, frame in enumerate(back):
            assert np.array_equal(frame, image(n)), f"frame {n}"
        assert (back.metadata["Camera.Name"], back.metadata["Stage.z"], back.metadata["SizeT"]) == ("A", 2, 30)
        assert json.loads(cluster.get("run.pcs/events.json")) == [["laser", "on", 1.5]]
    stored = on_disk(lab.nodes)
    assert sorted(stored) == [
        "events.json",
        "final_metadata.json",
        *(f"frame{n:05d}.pzf" for n in range(30)),
        "metadata.json",
    ]
    assert {len(places) for places in stored.values()} == {1}
    frames = [places[0] for name, places in stored.items() if name.endswith(".pzf")]
    assert [frames.count(place) for place in range(3)] == [10, 10, 10]


def test_a_frame_of_the_wrong_shape_or_dtype_is_named_and_the_series_goes_on(cluster: blocking.Cluster) -> None:
    with cluster.create_series("run") as series:
        series.store_frame(0, image(0))
        with pytest.raises(WrongFrame) as shape:
            series.store_frame(1, image(1, (48, 32)))
        with pytest.raises(WrongFrame) as dtype:
            series.store_frame(1, image(1).astype("u1"))
        series.store_frame(1, image(1))
    expected = "the series /run.pcs has (32, 48) and uint16"
    assert str(shape.value) == f"frame 1 has shape (48, 32) and dtype uint16; {expected}"
    assert str(dtype.value) == f"frame 1 has shape (32, 48) and dtype uint8; {expected}"
    back = cluster.series("run")
    assert (len(back), back.complete) == (2, True)
    assert np.array_equal(back[1], image(1))


def test_the_frames_ahead_of_where_a_movie_was_cut_are_streamed(cluster: blocking.Cluster, home: Path) -> None:
    np.save(home / "cut.npy", np.stack([image(n) for n in range(5)]))
    os.truncate(home / "cut.npy", os.path.getsize(home / "cut.npy") - 2 * image(0).nbytes - 1)
    movie = open_movie(home / "cut.npy")
    series = cluster.create_series("run")

    def stream() -> None:
        for n, frame in enumerate(movie):
            series.store_frame(n, frame)

    with pytest.raises(
        BadMovie, match=r"cut\.npy: the movie ends at frame 2: the file has .* bytes, 5 frames of .* need"
    ):
        stream()
    assert series.finalise().puts == 2
    assert np.array_equal(cluster.series("run")[1], image(1))


# -- nodes that die ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("advertise", ["mdns", "local"])
def test_a_node_that_dies_is_named_until_it_is_back_on_another_port(home: Path, advertise: str) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    with ProcessLab(home, 3, cluster=name, advertise=advertise) as lab, granum.connect(name, expect=3) as cluster:
        assert until(lambda: len(cluster.ready(3)) == 3, 15, 0.1)  # a node enters the registry behind its first words
        nodes = {node.node_id: node for node in cluster.ready(3)}
        for number, process in enumerate(lab.nodes):
            for directory in ("shared", f"own{number}"):
                cluster.put(f"/{directory}/f{number}", b"%d" % number, node=nodes[process.node_id])
        dead, lost = lab.nodes[1], nodes[lab.nodes[1].node_id].name
        walk = cluster.walk("/")
        path, view = next(walk)
        assert (str(path), list(view), view.partial) == ("/", ["own0", "own1", "own2", "shared"], False)
        dead.kill()
        walked = {str(path): (list(view), list(view.missing)) for path, view in walk}
        assert walked == {
            "/own0": (["f0"], [lost]),
            "/own1": ([], [lost]),
            "/own2": (["f2"], [lost]),
            "/shared": (["f0", "f2"], [lost]),
        }
        with pytest.raises(Partial, match=lost):
            cluster.exists("/never")
        assert cluster.get("/shared/f2") == b"2"
        dead.port = 0
        dead.start()
        assert until(lambda: not cluster.listdir("/").partial, 15, 0.1)
        assert list(cluster.listdir("/shared")) == ["f0", "f1", "f2"]
        assert cluster.get("/own1/f1") == b"1"
        assert cluster.exists("/never") is False
        assert sorted(state.node.port for state in cluster.nodes()) == sorted(node.port for node in lab.nodes)


@pytest.mark.slow
def test_every_frame_accepted_while_a_node_dies_is_receipted(lab: ProcessLab) -> None:
    struck = [kill_in_mid_stream(lab, trial) for trial in range(20)]
    assert sum(struck) >= 5, "too few kills struck a stream to prove anything"


def kill_in_mid_stream(lab: ProcessLab, trial: int) -> bool:
    """Stream 120 frames, kill a node at a moment that *trial* seeds, hold the client to its word; tell whether it struck."""
    chance = random.Random(trial)
    victim = lab.nodes[chance.randrange(3)]
    directory = f"trial{trial}.pcs"
    ready = threading.Event()
    delay = chance.uniform(0, 0.06)

    def kill() -> None:
        ready.wait()
        pause(delay)
        victim.kill()

    with connected(lab, bypass=False) as cluster, ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill)
        series = cluster.create_series(directory)
        ready.set()
        for n in range(120):
            series.store_frame(n, image(n, (256, 256)))
        killed.result()
        summary = series.finalise()
        stored = on_disk(lab.nodes, directory)
        twice = {f"/{directory}/{name}" for name, places in stored.items() if len(places) > 1}
        assert summary.puts == 120
        assert {f"frame{n:05d}.pzf" for n in range(120)} <= stored.keys(), f"trial {trial}: a frame is on no node"
        assert twice <= {str(moved.path) for moved in summary.moved}, f"trial {trial}: stored twice in silence"
    victim.start()
    with connected(lab, bypass=False) as cluster:
        back = cluster.series(directory)
        assert back.complete
        assert not cluster.listdir(f"/{directory}").collisions, f"trial {trial}: two copies differ"
        for n in range(120):
            assert np.array_equal(back.frame(n), image(n, (256, 256))), f"trial {trial}: frame {n}"
    name = next(name for name in summary.per_node if name.endswith(computer_and_port(victim)))
    return bool(summary.per_node[name] < 40)


def test_a_frozen_node_costs_its_deadline_once_and_is_back_when_it_thaws(
    lab: ProcessLab, cluster: blocking.Cluster
) -> None:
    cluster.put("/run/f", b"x", node=cluster.ready()[0])
    frozen = lab.nodes[1]
    frozen.signal(signal.SIGSTOP)
    pause(1.1)  # until what was listed before has expired
    begun = time.monotonic()
    view = cluster.listdir("/")
    first = time.monotonic() - begun
    assert [isinstance(cause, NodeTimeout) for cause in view.missing.values()] == [True]
    assert 4.5 < first < 6.5
    begun = time.monotonic()
    for number in range(5):
        cluster.put(f"/run/g{number}", b"x")
    assert cluster.listdir("/").partial
    assert time.monotonic() - begun < 1.0
    frozen.signal(signal.SIGCONT)
    assert until(lambda: not cluster.listdir("/").partial, 5)


def test_a_stream_goes_on_when_a_node_freezes_and_loses_nothing(lab: ProcessLab, cluster: blocking.Cluster) -> None:
    series = cluster.create_series("run")
    for n in range(30):
        series.store_frame(n, image(n))
    assert until(lambda: len(on_disk(lab.nodes)) == 31, 5)
    lab.nodes[2].signal(signal.SIGSTOP)
    longest = 0.0
    for n in range(30, 600):
        begun = time.monotonic()
        series.store_frame(n, image(n))
        longest = max(longest, time.monotonic() - begun)
    summary = series.finalise()
    assert longest < 5.5
    assert summary.puts == 600
    lab.nodes[2].signal(signal.SIGCONT)
    assert {f"frame{n:05d}.pzf" for n in range(600)} <= on_disk(lab.nodes).keys()
    assert until(lambda: not cluster.listdir("/").partial, 5)
    back = cluster.series("run")
    assert all(np.array_equal(back.frame(n), image(n)) for n in range(600))


# -- who is there ------------------------------------------------------------------------------------------------------


def test_when_no_node_is_found_the_error_says_where_was_looked_and_how_to_start_one(home: Path) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    with ProcessLab(home, 1) as lab, pytest.raises(NoNode) as caught:
        granum.connect(name, nodes=[lab.nodes[0].host])
    said = str(caught.value)
    assert said.startswith(f"no node of cluster {name!r} was found; looked at mDNS on ")
    assert "127.0.0.1" in said
    assert f"the registry {home / 'tmp' / '_pyme-http.sqlite'}; the list {lab.nodes[0].host}" in said
    assert "'test'" in said.partition("There are nodes of ")[2]
    assert said.endswith("Start a node with 'granum serve DIR'")


def test_another_node_at_the_address_of_a_known_one_is_refused_by_name(lab: ProcessLab, home: Path) -> None:
    """Heard by the list, a new node is believed to be new; what must not happen is to take it for the one before."""
    with connected(lab) as cluster:
        old = cluster.ready()
        process = lab.nodes[0]
        gone = next(node for node in old if node.node_id == process.node_id)
        series = cluster.create_series("run")
        process.kill()
        with NodeProcess(home / "stranger", port=process.port, environment=lab.environment) as stranger:
            with pytest.raises(granum.errors.GranumError, match=f"not {process.node_id} but {stranger.node_id}"):
                cluster.get("/f", nodes=[gone])
            for n in range(9):
                series.store_frame(n, image(n))
            summary = series.finalise()
            taken = {name: number for name, number in summary.per_node.items() if number}
            assert (summary.puts, len(taken)) == (9, 2)  # what the stranger took is receipted by those that were meant


def test_of_two_files_of_one_name_every_client_reads_the_same_and_is_told(lab: ProcessLab) -> None:
    first, second = sorted(lab.nodes[:2], key=lambda node: node.node_id)
    for process, body in ((first, b"one"), (second, b"other")):
        (process.root / "f").write_bytes(body)
    for order in (lab.nodes, lab.nodes[::-1]):
        hosts = [node.host for node in order]
        for bypass in (False, True):
            with granum.connect("test", nodes=hosts, expect=3, discover=False, bypass=bypass) as cluster:
                (collision,) = cluster.listdir("/").collisions
                assert str(collision).startswith("'f': 3 bytes on ")
                assert [node.node_id for node, _ in collision.entries] == [first.node_id, second.node_id]
                assert (cluster.get("/f"), cluster.stat("/f").size) == (b"one", 3)


# -- the blocking face -------------------------------------------------------------------------------------------------


def test_threads_stream_a_series_each(cluster: blocking.Cluster) -> None:
    def stream(number: int) -> int:
        with cluster.create_series(f"run{number}") as series:
            for n in range(50):
                series.store_frame(n, image(n + number))
        back = cluster.series(f"run{number}")
        return sum(np.array_equal(frame, image(n + number)) for n, frame in enumerate(back))

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(stream, range(6))) == [50] * 6


SCRIPT = """
import os, signal, sys, threading
import numpy as np
import granum
cluster = granum.connect("test", nodes=sys.argv[2:], expect=3, discover=False)
frame = np.zeros((512, 512), "u2")


def interrupted(work):
    '''Interrupt the main thread while it is in *work*, as Ctrl-C does; tell whether that came through.'''
    timer = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        timer.join()
    return False


def store_for_ever():
    n = 0
    while True:
        series.store_frame(n, frame)
        n += 1


def fork():
    child = os.fork()
    if child == 0:
        assert cluster.get("/f") == b"x"
        with cluster.create_series("/child") as series:
            series.store_frame(0, frame)
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print(cluster.series("/child").complete)


def stop(verb):
    os.kill(int(sys.argv[1]), signal.SIGSTOP)
    try:
        print(interrupted(verb))
    finally:
        os.kill(int(sys.argv[1]), signal.SIGCONT)

"""

STORE = """
series = cluster.create_series("/run")
print(interrupted(store_for_ever))
series.abort()
print(cluster.series("/run").complete)
"""

FINALISE = """
series = cluster.create_series("/run")
for n in range(6):
    series.store_frame(n, frame)
stop(series.finalise)
print(cluster.series("/run").complete)
"""

GET = """
cluster.put("/f", b"x")
frozen = [node for node in cluster.ready() if node.host == sys.argv[2]]
stop(lambda: cluster.get("/none", nodes=frozen))
print(cluster.get("/f") == b"x")
"""

IN_BLOCK = """
series = cluster.create_series("/run")
def work():
    with series:
        for n in range(6):
            series.store_frame(n, frame)
stop(work)
print(cluster.series("/run").complete)
"""

FORK = """
cluster.put("/f", b"x")
fork()
"""

LEFT_OPEN = """
series = cluster.create_series("/run")
for n in range(10):
    series.store_frame(n, frame)
print(cluster.exists("/run.pcs"), True)
"""

CLOSED_FIRST = """
series = cluster.create_series("/run")
for n in range(10):
    series.store_frame(n, frame)
cluster.close()
try:
    series.finalise()
except granum.errors.Closed as error:
    print(error)
"""

NO_GLOBAL_REACTOR = """
with cluster.create_series("/run", compression="huffman") as series:
    series.store_frame(0, frame)
print(cluster.series("/run")[0].shape, "twisted.internet.reactor" in sys.modules)
"""

WHILE_FROZEN = """
series = cluster.create_series("/run")
for n in range(6):
    series.store_frame(n, frame)
os.kill(int(sys.argv[1]), signal.SIGSTOP)
for work in (series.finalise, lambda: cluster.listdir("/"), lambda: cluster.put("/f", b"x")):
    threading.Thread(target=work, daemon=True).start()
threading.Event().wait(0.3)
print(True)
"""

IN_THREADS = """
series = cluster.create_series("/run")
threading.Thread(target=store_for_ever, daemon=True).start()
threading.Event().wait(0.3)
print(True, True)
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (STORE, "True\nFalse\n"),
        (FINALISE, "True\nFalse\n"),
        (GET, "True\nTrue\n"),
        (IN_BLOCK, "True\nFalse\n"),
        (FORK, "True\n"),
        (LEFT_OPEN, "True True\n"),
        (CLOSED_FIRST, "this cluster was stopped; start it or make another\n"),
        (NO_GLOBAL_REACTOR, "(512, 512) False\n"),
        (WHILE_FROZEN, "True\n"),
        (IN_THREADS, "True True\n"),
    ],
    ids=[
        "store_frame",
        "finalise",
        "get",
        "block",
        "fork",
        "left open",
        "closed first",
        "no global reactor",
        "while frozen",
        "in threads",
    ],
)
def test_a_program_that_is_interrupted_forks_or_just_ends_goes_on_and_exits_quietly(
    lab: ProcessLab, script: str, said: str
) -> None:
    arguments = [str(lab.nodes[0].pid), *(node.host for node in lab.nodes)]
    begun = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", SCRIPT + script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", said)
    assert time.monotonic() - begun < 20
