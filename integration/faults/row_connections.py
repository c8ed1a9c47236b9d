"""R11 to R14: puts that break off, readers during puts, and writers that race for one name."""

import base64
import hashlib
import os
import socket
import stat
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from random import Random

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program, node, standin
from integration.faults.load import body_of, digest, judge
from integration.faults.waiting import pause, until

CUT_LANES = 8
CUT_BYTES = 300_000
LEAK_MAX_BYTES = 1 << 20
CLOSE_S = 5.0

SLOW_LANES = 20
SLOW_PIECES = 6
SLOW_PAUSE_S = 0.1
READ_HZ = 50
LOOKS_MIN = 100  # of each kind: on a busy machine they come slower, but fewer would not have looked

WRITERS = 64
RACE_BYTES = 2_000
SETTLE_S = 0.01  # for the node to take what it has been sent before the end


@row("R11", figure="published 0, leaked <= 1 MiB, a wrong digest 422 for 100 %")
def broken_off(bed: Bed) -> Outcome:
    """Cut puts at a random byte: by an orderly close, a reset, or a half-close; then put with wrong digests."""
    cuts, flips = bed.amount(300, 1000), bed.amount(40, 200)
    random = bed.random("R11")
    plans = [(number, random.randrange(CUT_BYTES), _ENDS[number % len(_ENDS)]) for number in range(cuts)]
    store = bed.directory / "store"
    with Daemon(node(), store, bed.directory / "daemon") as daemon:
        with ThreadPoolExecutor(CUT_LANES) as lanes:
            answered = list(lanes.map(lambda plan: _cut(daemon.address, *plan), plans))
        refused = sum(_wrong_digest(daemon.address, number, random) for number in range(flips))
        until(lambda: held_bytes(daemon.pid, store) == 0, CLOSE_S)
        leaked = held_bytes(daemon.pid, store)
        published = judge(store, {}, []).torn
        tracebacks = daemon.tracebacks()
    cut_published = [path for path in published if path.startswith("/cut")]
    figure = (
        f"published {len(cut_published)} of {cuts}, 2xx {sum(answered)}, leaked {leaked} B; "
        f"wrong digest 422 for {refused}/{flips}, published {len(published) - len(cut_published)}; tracebacks {tracebacks}"
    )
    held = not published and not any(answered) and leaked <= LEAK_MAX_BYTES and refused == flips and not tracebacks
    return Outcome(held, figure, tuple(published))


def _close(connection: socket.socket) -> None:
    connection.close()


def _half_close(connection: socket.socket) -> None:
    """Say that nothing more comes, and wait for the node to hang up."""
    connection.shutdown(socket.SHUT_WR)


_ENDS: tuple[Callable[[socket.socket], None], ...] = (_close, talk.reset, _half_close)


def _cut(address: talk.Address, number: int, sent: int, end: Callable[[socket.socket], None]) -> bool:
    """Send *sent* bytes of a longer body and *end* the connection; return whether that was answered with 2xx."""
    path = f"/cut{number % 7}/f{number}"
    with socket.create_connection(address, CLOSE_S) as connection:
        connection.sendall(talk.head(path, CUT_BYTES) + body_of(path, CUT_BYTES)[:sent])
        end(connection)
        with suppress(OSError):
            return connection.recv(4096).startswith(b"HTTP/1.1 2")
    return False


def _repr_digest(body: bytes) -> dict[str, str]:
    return {"Repr-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"}


def _wrong_digest(address: talk.Address, number: int, random: Random) -> bool:
    """Whether a body with one bit flipped on its way is refused with 422."""
    body = bytearray(body_of(f"/flip{number}", RACE_BYTES))
    headers = _repr_digest(bytes(body))
    body[random.randrange(len(body))] ^= 1 << random.randrange(8)
    answer = talk.put(address, f"/flip/f{number}", bytes(body), headers)
    return answer is not None and answer.status == 422


def held_bytes(pid: int, store: Path) -> int:
    """Return the space taken by spooled files: open ones without a name, and what lies in the spool directory."""
    device = store.stat().st_dev
    held = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            status = descriptor.stat()
            if stat.S_ISREG(status.st_mode) and not status.st_nlink and status.st_dev == device:
                held += status.st_blocks * 512
    return held + sum(file.stat().st_size for file in (store / ".granum" / "spool").iterdir())


@row("R12", figure="partial 0, listed sizes final 100 %")
def reader_during_puts(bed: Bed) -> Outcome:
    """Read a node in all ways while slow puts arrive."""
    return reads_during_puts(node(), bed)


def reads_during_puts(program: Program, bed: Bed) -> Outcome:
    """Read over HTTP, list, and read the store directly at 50 Hz while slow puts arrive at *program*."""
    puts = bed.amount(200, 1000)
    paths = [f"/r/f{number}" for number in range(puts)]
    sizes = {path: 20_000 + 997 * number for number, path in enumerate(paths)}
    offered = {path: digest(body_of(path, size)) for path, size in sizes.items()}
    store = bed.directory / "store"
    partial_seen: Counter[str] = Counter()
    looked: Counter[str] = Counter()
    ended = threading.Event()

    def look(what: str, once: Callable[[Random], int]) -> None:
        random = bed.random(what)
        while not ended.wait(1 / READ_HZ):
            looked[what] += 1
            partial_seen[what] += once(random)

    with (
        Daemon(program, store, bed.directory / "daemon") as daemon,
        talk.Line(daemon.address) as by_http,
        talk.Line(daemon.address) as by_list,
    ):

        def get(random: Random) -> int:
            path = random.choice(paths)
            answer = by_http.get(path)
            return answer.status not in {200, 404} or (answer.status == 200 and digest(answer.body) != offered[path])

        def list_all(_: Random) -> int:
            return sum(sizes[f"/r/{name}"] != size for name, size in by_list.listing("/r/").items())

        def read_store(random: Random) -> int:
            names = os.listdir(store / "r") if (store / "r").exists() else []
            chosen = random.sample(names, min(10, len(names)))
            return sum(digest((store / "r" / name).read_bytes()) != offered[f"/r/{name}"] for name in chosen)

        looks = {"GET": get, "listing": list_all, "store": read_store}
        threads = [threading.Thread(target=look, args=each, daemon=True) for each in looks.items()]
        for thread in threads:
            thread.start()
        with ThreadPoolExecutor(SLOW_LANES) as lanes:
            stored = sum(lanes.map(lambda path: _slow_put(daemon.address, path, sizes[path]), paths))
        ended.set()
        for thread in threads:
            thread.join()
    figure = (
        f"partial {sum(partial_seen.values())} in {sum(looked.values())} looks during {stored}/{puts} slow puts "
        f"({', '.join(f'{what} {looked[what]}' for what in looks)})"
    )
    watched = all(looked[what] >= LOOKS_MIN for what in looks)
    return Outcome(not partial_seen.total() and stored == puts and watched, figure, (str(dict(partial_seen)),))


def _slow_put(address: talk.Address, path: str, size: int) -> bool:
    """Put in pieces with pauses between them; return whether there was a receipt."""
    body = body_of(path, size)
    step = size // SLOW_PIECES + 1
    with socket.create_connection(address, talk.ANSWER_S) as connection:
        connection.sendall(talk.head(path, size))
        for start in range(0, size, step):
            pause(SLOW_PAUSE_S)
            connection.sendall(body[start : start + step])
        return connection.recv(4096).startswith(b"HTTP/1.1 2")


def _race(
    address: talk.Address, paths: list[str], body_of_writer: Callable[[str, int], bytes], *, digests: bool = False
) -> dict[str, list[int]]:
    """Let all writers put each of *paths* at the same moment; return the statuses by path, in the order of the writers.

    All hold back the end of their request and then send it in one go: of every second path the end of the head, so that they
    meet in the checks before the body, of the others the last byte, so that they meet behind those checks.
    """
    statuses: dict[str, list[int]] = {}
    with ExitStack() as open_lines:
        lines = [open_lines.enter_context(talk.Line(address)) for _ in range(WRITERS)]
        for number, path in enumerate(paths):
            requests = []
            for writer in range(WRITERS):
                body = body_of_writer(path, writer)
                more = [f"{name}: {value}" for name, value in _repr_digest(body).items()] if digests else []
                head = talk.head(path, len(body), *more)
                requests.append((head + body, len(head) - 1 if number % 2 else -1))
            for line, (request, end) in zip(lines, requests, strict=True):
                line.send(request[:end])
            pause(SETTLE_S)
            for line, (request, end) in zip(lines, requests, strict=True):
                line.send(request[end:])
            statuses[path] = [line.receive().status for line in lines]
    return statuses


def _one_winner(program: Program, bed: Bed) -> Outcome:
    """Race with different bytes on *program*: exactly one receipt for each path, and its bytes are what is read."""
    paths = [f"/race{number % 5}/f{number}" for number in range(bed.amount(50, 500))]

    def body(path: str, writer: int) -> bytes:
        return body_of(f"{path} {writer}", RACE_BYTES)

    with Daemon(program, bed.directory / "store", bed.directory / "daemon") as daemon:
        statuses = _race(daemon.address, paths, body)
        with talk.Line(daemon.address) as line:
            read = {path: line.get(path).body for path in paths}
    one = sum(sum(200 <= status < 300 for status in each) == 1 for each in statuses.values())
    right = sum(
        read[path] == body(path, next((writer for writer, status in enumerate(each) if status == 200), 0))
        for path, each in statuses.items()
    )
    others = Counter(status for each in statuses.values() for status in each if not 200 <= status < 300)
    figure = (
        f"exactly one 2xx {one}/{len(paths)}, the winner is read {right}/{len(paths)}, losers answered {dict(others)}"
    )
    return Outcome(one == right == len(paths) and set(others) <= {405, 412}, figure)


@row(
    "R13",
    figure="exactly one 2xx for 100 %, losers 405 or 412, readers see the winner only",
    control={"exists, then open for writing": partial(_one_winner, standin("exists-then-open"))},
)
def race_with_different_bytes(bed: Bed) -> Outcome:
    """Let 64 writers put different bytes under one name at the same moment."""
    return _one_winner(node(), bed)


@row("R14", figure="2xx 100 %, one inode for each path")
def race_with_same_bytes(bed: Bed) -> Outcome:
    """Let 64 writers put the same bytes, with their digest, under one name at the same moment."""
    paths = [f"/same{number % 5}/f{number}" for number in range(bed.amount(50, 500))]
    store = bed.directory / "store"
    with Daemon(node(), store, bed.directory / "daemon") as daemon:
        statuses = _race(daemon.address, paths, lambda path, _: body_of(path, RACE_BYTES), digests=True)
    found = judge(store, {path: digest(body_of(path, RACE_BYTES)) for path in paths}, paths)
    answers = Counter(status for each in statuses.values() for status in each)
    links = sum((store / path[1:]).stat().st_nlink == 1 for path in paths if path not in found.lost)
    wanted = WRITERS * len(paths)
    figure = f"2xx {answers[200]}/{wanted}, whole with one inode {links}/{len(paths)}, answers {dict(answers)}"
    return Outcome(answers[200] == wanted and found.clean and links == len(paths), figure)
