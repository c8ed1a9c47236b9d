"""S4 to S6: peers that drip a head or a body, that do not read, and that take all the connections."""

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program, node
from integration.faults.gullible import STOCK
from integration.faults.row_requests import rss_bytes
from integration.faults.waiting import pause

DRIP_S = 0.5
PER_ADDRESS = 250  # of the harness's own: a node lets 256 of one address in
HEAD_CLOSED_S = 11.0  # 10 and the node's interval of looking
BODY_CLOSED_S = 35.0
READER_CLOSED_S = 62.0
OTHERS_P99_S = 0.1
SLOW_RSS_MAX = 64 << 20
LARGE_BYTES = 64 << 20
SHARE = 256


def sources(count: int) -> Iterator[str]:
    """Yield *count* addresses of this machine, no more than PER_ADDRESS times each."""
    for number in range(count):
        yield f"127.0.1.{1 + number // PER_ADDRESS}"


def drip(connections: list[socket.socket], piece: bytes, watch_s: float) -> tuple[list[float], list[int]]:
    """Send *piece* on each of *connections* every DRIP_S for *watch_s*, until the other side ends it.

    Return after how many seconds each was ended, and the statuses that were said before.
    """
    began = time.monotonic()
    open_ = {connection.fileno(): connection for connection in connections}
    poll = select.poll()
    for descriptor in open_:
        poll.register(descriptor, select.POLLIN)
    ended, said, due = [], [], 0.0
    while open_ and (now := time.monotonic() - began) < watch_s:
        if now >= due and piece:
            due = now + DRIP_S
            for connection in open_.values():
                with suppress(OSError):
                    connection.send(piece, socket.MSG_DONTWAIT)
        for descriptor, _ in poll.poll(50):
            came = b""
            with suppress(OSError):
                came = open_[descriptor].recv(4096)
            if came.startswith(b"HTTP/1.1 "):
                said.append(int(came[9:12]))
            if not came:
                poll.unregister(descriptor)
                del open_[descriptor]
                ended.append(time.monotonic() - began)
    return ended, said


@contextmanager
def _asking(address: talk.Address) -> Iterator[list[float]]:
    """Ask for something small all the while; give the times that the answers took."""
    took: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        with talk.Line(address) as line:
            while not stop.wait(0.02):
                began = time.monotonic()
                try:
                    answered = line.get("/__healthz").status == 200
                except talk.UNANSWERED:
                    answered = False
                took.append(time.monotonic() - began if answered else talk.ANSWER_S)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield took
    finally:
        stop.set()
        asker.join()


def _p99(took: list[float]) -> float:
    return sorted(took)[int(len(took) * 0.99)] if took else talk.ANSWER_S


def _head_drips(program: Program, bed: Bed) -> Outcome:
    """Send heads byte by byte, on many connections."""
    count = bed.amount(200, 1000)
    with Daemon(program, bed.directory / "store", bed.directory / "daemon") as daemon, ExitStack() as held:
        drips = [
            held.enter_context(socket.create_connection(daemon.address, 5.0, (source, 0))) for source in sources(count)
        ]
        for connection in drips:
            connection.sendall(b"GET /f HTTP/1.1\r\nA: ")
        with _asking(daemon.address) as took:
            ended, said = drip(drips, b"a", HEAD_CLOSED_S + 1)
    p99, last = _p99(took), max(ended, default=0.0)
    figure = (
        f"closed {len(ended)}/{count}, the last after {last:.1f} s, answered 408 {said.count(408)}; "
        f"others p99 {p99 * 1000:.0f} ms"
    )
    return Outcome(len(ended) == said.count(408) == count and last <= HEAD_CLOSED_S and p99 <= OTHERS_P99_S, figure)


@row(
    "S4",
    figure="each closed <= 10 s (+1), others p99 <= 100 ms",
    control={"stock twisted.web": partial(_head_drips, STOCK)},
)
def head_drips(bed: Bed) -> Outcome:
    """Drip heads at a node."""
    return _head_drips(node(), bed)


@row("S5", figure="408 <= 35 s, readers ended <= 60 s (+2, long form), RSS +<= 64 MiB")
def slow_bodies(bed: Bed) -> Outcome:
    """Drip bodies at a node; in the long form also ask for large files and do not read them."""
    count, readers = bed.amount(200, 1000), bed.amount(0, 200)
    store = bed.directory / "store"
    store.mkdir()
    (store / "large").write_bytes(os.urandom(1 << 20) * (LARGE_BYTES >> 20))
    with Daemon(node(), store, bed.directory / "daemon") as daemon, ExitStack() as held:
        talk.get(daemon.address, "/__healthz")
        before = rss_bytes(daemon.pid)
        began = time.monotonic()
        idle = [
            held.enter_context(socket.create_connection(daemon.address, 5.0, ("127.0.2.1", 0))) for _ in range(readers)
        ]
        for connection in idle:
            connection.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        drips = [
            held.enter_context(socket.create_connection(daemon.address, 5.0, (source, 0))) for source in sources(count)
        ]
        for number, connection in enumerate(drips):
            connection.sendall(talk.head(f"/f{number}", 1_000_000))
        ended, said = drip(drips, b"a", BODY_CLOSED_S + 1)
        grown = rss_bytes(daemon.pid, "VmHWM") - before
        pause(max(0.0, READER_CLOSED_S - (time.monotonic() - began)) if readers else 0.0)
        stuck = sum(_still_sends(daemon.pid, connection) for connection in idle)
    last = max(ended, default=0.0)
    figure = (
        f"bodies closed {len(ended)}/{count}, the last after {last:.1f} s, answered 408 {said.count(408)}; "
        f"readers left {stuck}/{readers}; RSS +{grown / (1 << 20):.1f} MiB"
    )
    closed = len(ended) == said.count(408) == count and last <= BODY_CLOSED_S
    return Outcome(closed and not stuck and grown <= SLOW_RSS_MAX, figure)


def _still_sends(pid: int, connection: socket.socket) -> bool:
    """Whether the process *pid* still has its end of *connection*: the file behind it would arrive whole."""
    connection.settimeout(talk.ANSWER_S)
    came = 0
    try:
        while piece := connection.recv(1 << 20):
            came += len(piece)
    except OSError:
        return not os.path.exists(f"/proc/{pid}")
    return came >= LARGE_BYTES


def _flood(program: Program, bed: Bed) -> Outcome:
    """Open many connections from one address and keep them; then ask from another."""
    count, tries = bed.amount(1000, 5000), 100
    with Daemon(program, bed.directory / "store", bed.directory / "daemon") as daemon, ExitStack() as held:
        flood = []
        for _ in range(count):
            with suppress(OSError):
                flood.append(held.enter_context(socket.create_connection(daemon.address, 5.0, ("127.0.1.1", 0))))
        drip(flood, b"", 1.5)  # whoever is sent away learns it
        inside = sum(_is_open(connection) for connection in flood)
        served = sum(_asked_from(daemon.address, f"127.0.2.{1 + number % 200}") for number in range(tries))
    figure = f"{inside} of {count} connections of one address held, others served {served}/{tries}"
    return Outcome(inside == SHARE and served == tries, figure)


def _is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.0)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _asked_from(address: talk.Address, source: str) -> bool:
    with suppress(OSError), socket.create_connection(address, 2.0, (source, 0)) as connection:
        connection.sendall(b"GET /__healthz HTTP/1.1\r\n\r\n")
        return connection.recv(4096).startswith(b"HTTP/1.1 200")
    return False


@row(
    "S6",
    figure="256 of one address held, other addresses served 100 %",
    control={"stock twisted.web, no cap": partial(_flood, STOCK)},
)
def flood(bed: Bed) -> Outcome:
    """Flood a node with connections of one address."""
    return _flood(node(), bed)
