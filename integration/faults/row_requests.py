"""S1, S7 to S9 and S26: requests that are malformed, many, too long, condemned by their head, or a bomb."""

import functools
import gzip
import io
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program, node
from integration.faults.gullible import STOCK, gullible
from integration.faults.row_connections import held_bytes
from integration.faults.waiting import until
from node.tests.http.malformed import FRAMING, REFUSED

ANSWER_S = 2.0  # for an answer to a bad request; a server that waits for more gives none
PROBE = b"GET /__healthz HTTP/1.1\r\nConnection: close\r\n\r\n"
PIPELINED = 10_000
PIPELINE_RSS_MAX = 8 << 20
BOMB_MIB = 1024
BOMB_RSS_MAX = 16 << 20
BOMB_S = 1.0
BOMB_MEMORY = ("prlimit", f"--data={512 << 20}")  # so that the control does not take the machine's memory
ENOUGH = 1  # wrong answers of a control, and one more: each takes as long as an answer may
KNOCKS = (b"", b"x" * 65_536)  # what a peer sends behind the head without being asked


def statuses(address: talk.Address, request: bytes, answer_s: float = ANSWER_S) -> tuple[list[int], bool]:
    """Send *request*; return the statuses of what comes back, and whether the connection ended in time."""
    came, ended = b"", False
    with suppress(OSError), socket.create_connection(address, answer_s) as connection:
        with suppress(ConnectionError):  # it may have been refused before it was sent whole
            connection.sendall(request)
        try:
            while piece := connection.recv(65_536):
                came += piece
            ended = True
        except ConnectionError:
            ended = True
    return [int(line[:3]) for line in came.split(b"HTTP/1.1 ")[1:]], ended


def rss_bytes(pid: int, field: str = "VmRSS") -> int:
    """Return the memory of the process *pid*; *field* VmHWM gives the most it ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _malformed(program: Program, bed: Bed) -> Outcome:
    """Send each request of the corpus on a connection of its own, a good one behind it."""
    wrong = []
    with Daemon(program, bed.directory / "store", bed.directory / "daemon") as daemon:
        for raw, *expected in [*((raw, status, True) for raw, status in FRAMING), *REFUSED]:
            status, closes = expected
            found, ended = statuses(daemon.address, raw + PROBE)
            if found != ([status] if closes else [status, 200]) or not ended:
                wrong.append(f"{raw[:60]!r}: {found}, not {status}{'' if ended else ', not closed'}")
            if len(wrong) > ENOUGH and program is STOCK:
                break
        tracebacks = daemon.tracebacks()
    total = len(FRAMING) + len(REFUSED)
    figure = f"{total} requests, answered otherwise {len(wrong)}, tracebacks {tracebacks}"
    return Outcome(not wrong and not tracebacks, figure, tuple(wrong))


@row(
    "S1",
    figure="expected status 100 %, tracebacks 0, closed after every framing error",
    control={"stock twisted.web": functools.partial(_malformed, STOCK)},
)
def malformed(bed: Bed) -> Outcome:
    """Send the corpus of malformed requests to a node."""
    return _malformed(node(), bed)


@row("S7", figure="order errors 0, RSS +<= 8 MiB")
def pipelined(bed: Bed) -> Outcome:
    """Send 10,000 requests on one connection before the first answer is read."""
    requests = b"".join(b"GET /n%d HTTP/1.1\r\n\r\n" % number for number in range(PIPELINED))
    with (
        Daemon(node(), bed.directory / "store", bed.directory / "daemon") as daemon,
        socket.create_connection(daemon.address, talk.ANSWER_S) as connection,
    ):
        talk.get(daemon.address, "/n")
        before = rss_bytes(daemon.pid)
        sender = threading.Thread(target=connection.sendall, args=(requests,), daemon=True)
        sender.start()
        began = time.monotonic()
        disorder = 0
        with connection.makefile("rb") as answers:
            for number in range(PIPELINED):
                disorder += f"/n{number}".encode() not in _body(answers).split()
        took = time.monotonic() - began
        sender.join()
        grown = rss_bytes(daemon.pid, "VmHWM") - before
    figure = (
        f"order errors {disorder} in {PIPELINED}, RSS +{grown / (1 << 20):.1f} MiB, "
        f"{took / PIPELINED * 1e6:.0f} us for each 404"
    )
    return Outcome(not disorder and grown <= PIPELINE_RSS_MAX, figure)


def _body(answers: io.BufferedReader) -> bytes:
    length = 0
    while (line := answers.readline()) not in {b"\r\n", b""}:
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return answers.read(length)


_LENGTHS = {
    b"Content-Length: 1099511627777": 413,
    b"Content-Length: 1000000000000000000": 413,
    b"Content-Length: " + b"9" * 5000: 400,
    b"Transfer-Encoding: chunked\r\n\r\n10000000001": 413,
    b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF": 413,
    b"Transfer-Encoding: chunked\r\n\r\n10000000000000003": 400,
}


def _too_long(program: Program, bed: Bed) -> Outcome:
    """Announce bodies that no node takes, and send nothing or 64 KiB of them."""
    wrong = []
    store = bed.directory / "store"
    (store / ".granum" / "spool").mkdir(parents=True)
    with Daemon(program, store, bed.directory / "daemon") as daemon:
        for header, status in _LENGTHS.items():
            for knock in KNOCKS:
                found, ended = statuses(daemon.address, b"PUT /f HTTP/1.1\r\n" + header + b"\r\n\r\n" + knock)
                if found != [status] or not ended:
                    wrong.append(f"{header[:40]!r}: {found}, not {status}{'' if ended else ', not closed'}")
            if len(wrong) > ENOUGH and program is STOCK:
                break
        leaked = held_bytes(daemon.pid, store)
        tracebacks = daemon.tracebacks()
    figure = f"answered otherwise {len(wrong)} of {len(_LENGTHS) * 2}, leaked {leaked} B, tracebacks {tracebacks}"
    return Outcome(not wrong and not leaked and not tracebacks, figure, tuple(wrong))


@row(
    "S8",
    figure="413 or 400 for 100 % before the body, leaked 0",
    control={"stock twisted.web": functools.partial(_too_long, STOCK)},
)
def too_long(bed: Bed) -> Outcome:
    """Announce bodies that are longer than a node takes."""
    return _too_long(node(), bed)


_CONDEMNED = [
    (b"/taken", b"Content-Length: 5", 405),
    (b"/taken", b"Transfer-Encoding: chunked", 405),
    (b"/taken/below", b"Content-Length: 5", 409),
    (b"/../f", b"Content-Length: 5", 400),
    (b"/__status", b"Content-Length: 5", 400),
    (b"/" + b"x" * 256, b"Content-Length: 5", 414),
    (b"/f", b"Content-Length: 1000000000000000", 413),
    (b"/f", b"Content-Length: 5\r\nContent-Encoding: br", 415),
    (b"/f", b"Content-Length: 5\r\nHost: evil.example", 421),
    (b"/f", b"Content-Length: 5\r\nOrigin: http://evil.example", 403),
    (b"/f", b"Content-Length: 5\r\nSec-Fetch-Site: cross-site", 403),
]


def _condemned(program: Program, bed: Bed) -> Outcome:
    """Ask with Expect whether a body may come that the head already rules out."""
    wrong, told_to_go_on = [], 0
    with Daemon(program, bed.directory / "store", bed.directory / "daemon") as daemon:
        talk.put(daemon.address, "/taken", b"hello")
        for target, headers, status in _CONDEMNED:
            found, ended = statuses(
                daemon.address, b"PUT " + target + b" HTTP/1.1\r\nExpect: 100-continue\r\n" + headers + b"\r\n\r\n"
            )
            told_to_go_on += 100 in found
            if found != [status] or not ended:
                wrong.append(f"{target[:30]!r} {headers!r}: {found}, not {status}")
            if len(wrong) > ENOUGH and program is STOCK:
                break
    figure = f"told to go on {told_to_go_on}/{len(_CONDEMNED)}, otherwise than by the final status {len(wrong)}"
    return Outcome(not wrong, figure, tuple(wrong))


@row(
    "S9",
    figure="final status 100 %, 100 Continue 0, body bytes taken 0",
    control={"stock twisted.web": functools.partial(_condemned, STOCK)},
)
def condemned(bed: Bed) -> Outcome:
    """Ask a node whether bodies may come that it will not take."""
    return _condemned(node(), bed)


@functools.cache  # it takes seconds to make, and the control gets the same
def _bomb() -> bytes:
    coded = io.BytesIO()
    with gzip.GzipFile(fileobj=coded, mode="wb") as file:
        for _ in range(BOMB_MIB):
            file.write(bytes(1 << 20))
    return coded.getvalue()


def _bombed(program: Program, bed: Bed) -> Outcome:
    """Put 1 MiB of gzip that expands to 1 GiB; then the same packed once more, which is to be stored unpacked once."""
    bomb = _bomb()
    nested = gzip.compress(bomb)
    coded = {"Content-Encoding": "gzip"}
    with Daemon(program, bed.directory / "store", bed.directory / "daemon", prefix=BOMB_MEMORY) as daemon:
        talk.get(daemon.address, "/__healthz")
        before, began = rss_bytes(daemon.pid), time.monotonic()
        answer = talk.put(daemon.address, "/bomb", bomb, coded)
        took = time.monotonic() - began
        twice = talk.put(daemon.address, "/nested", nested, coded)
        grown = rss_bytes(daemon.pid, "VmHWM") - before
        inner = talk.get(daemon.address, "/nested")
        until(lambda: talk.serves(daemon.address), talk.ANSWER_S)
        stored = (bed.directory / "store" / "bomb").exists()
    status = answer.status if answer else 0
    once = twice is not None and twice.stored and inner is not None and inner.body == bomb
    figure = (
        f"{len(bomb) >> 10} KiB for 1 GiB: {status} after {took:.2f} s, RSS +{grown >> 20} MiB, "
        f"nested {'unpacked once' if once else 'not stored'}"
    )
    return Outcome(status == 413 and took <= BOMB_S and grown <= BOMB_RSS_MAX and once and not stored, figure)


@row(
    "S26",
    figure="413, RSS +<= 16 MiB, <= 1 s",
    control={"unbounded gunzip": functools.partial(_bombed, gullible("unbounded-gunzip"))},
    programs=["prlimit"],
)
def bombed(bed: Bed) -> Outcome:
    """Put a gzip bomb to a node."""
    return _bombed(node(), bed)
