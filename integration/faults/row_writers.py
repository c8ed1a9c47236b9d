"""S14, S15, S17 and S18: attempts to change what is stored, to take the node's own names, and to write from a web page."""

import socket
from functools import partial
from pathlib import Path

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program, node
from integration.faults.gullible import gullible
from integration.faults.row_requests import statuses

READ_ONLY = ("--allow", "127.0.0.0/8=ro")
_END = b"Connection: close\r\nContent-Length: 7\r\n\r\nplanted"


def snapshot(store: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return everything a reader may see below *store*: name -> inode, mode, time of change, bytes."""
    found = {}
    for each in store.rglob("*"):
        if ".granum" not in each.parts:
            status = each.lstat()
            body = each.read_bytes() if each.is_file() else b""
            found[str(each.relative_to(store))] = (status.st_ino, status.st_mode, status.st_mtime_ns, body)
    return found


def _attacks(path: bytes) -> list[bytes]:
    """Return requests that would change the file *path* if a server let them."""
    attacks = [
        verb + b" " + path + b" HTTP/1.1\r\n" + headers + _END
        for verb, headers in (
            (b"PUT", b""), (b"PUT", b"If-Match: *\r\n"), (b"PUT", b"Overwrite: T\r\n"),
            (b"PUT", b"Content-Range: bytes 0-6/7\r\n"),
            (b"PUT", b"X-HTTP-Method-Override: DELETE\r\n"), (b"PATCH", b""), (b"POST", b""), (b"DELETE", b""),
            (b"MOVE", b"Destination: /elsewhere\r\n"), (b"COPY", b"Destination: " + path + b"\r\n"), (b"LOCK", b""),
            (b"TRUNCATE", b""), (b"put", b""),
        )
    ]  # fmt: skip
    chunked = b" HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nplanted\r\n0\r\n\r\n"
    below = (b"/", b"/below", b"/.", b"//")
    attacks += [b"PUT " + path + end + b" HTTP/1.1\r\n" + _END for end in below]
    return [*attacks, b"PUT " + path + chunked, b"PUT " + path.rpartition(b"/")[0] + b" HTTP/1.1\r\n" + _END]


def _changed(program: Program, bed: Bed) -> Outcome:
    """Try to change stored files by every verb and by puts of every kind."""
    count = bed.amount(50, 500)
    store = bed.directory / "store"
    attacked = 0
    with Daemon(program, store, bed.directory / "daemon") as daemon:
        for number in range(count):
            talk.put(daemon.address, f"/d{number}/f", b"first %d" % number)
        before = snapshot(store)
        for number in range(count):
            for attack in _attacks(b"/d%d/f" % number):
                statuses(daemon.address, attack)
                attacked += 1
        after = snapshot(store)
        tracebacks = daemon.tracebacks()
    files = {name: each for name, each in before.items() if each[3]}
    changed = [name for name, each in files.items() if after.get(name) != each]
    added = sorted(set(after) - set(before))
    figure = f"changed {len(changed)} of {len(files)} files by {attacked} attacks, tracebacks {tracebacks}"
    held = not changed and not added and len(files) == count and not tracebacks
    return Outcome(held, figure, (*changed, *added))


@row(
    "S14",
    figure="changed files 0",
    control={"open for writing": partial(_changed, gullible("open-for-writing"))},
)
def changed(bed: Bed) -> Outcome:
    """Try to change what a node has stored."""
    return _changed(node(), bed)


_RESERVED = [
    b"/__status", b"/__status/", b"/__healthz", b"/__metrics", b"/__new", b"/__new/f", b"/__aggregate_txt/f", b"/%5f%5fstatus",
    b"/.granum", b"/.granum/", b"/.granum/node-id", b"/d/.granum", b"/d/.granum/f", b"/%2egranum/lock", b"//__status",
]  # fmt: skip
_PLAIN = [b"/f", b"/new", b"/new/", b"/d/new", b"/"]


@row("S15", figure="refused 100 %")
def reserved(bed: Bed) -> Outcome:
    """Put under the node's own names; then put anything from an address that may only read."""
    wrong = []
    store = bed.directory / "store"
    with Daemon(node(), store, bed.directory / "writable") as daemon:
        talk.put(daemon.address, "/f", b"hello")
        before = snapshot(store)
        for target in _RESERVED:
            found, _ = statuses(daemon.address, b"PUT " + target + b" HTTP/1.1\r\n" + _END)
            if not found or not 400 <= found[0] < 500:
                wrong.append(f"put {target!r}: {found}")
        serves = talk.serves(daemon.address)
    with Daemon(node().with_options(*READ_ONLY), store, bed.directory / "read-only") as daemon:
        for target in (*_RESERVED, *_PLAIN):
            for verb in (b"PUT", b"POST", b"DELETE"):
                found, _ = statuses(daemon.address, verb + b" " + target + b" HTTP/1.1\r\n" + _END)
                if not found or not 400 <= found[0] <= 501:
                    wrong.append(f"read-only, {verb.decode()} {target!r}: {found}")
        answer = talk.get(daemon.address, "/f")
        reads = answer is not None and answer.body == b"hello"
    same = snapshot(store) == before
    figure = (
        f"refused otherwise {len(wrong)} of {len(_RESERVED) * 4 + len(_PLAIN) * 3}, "
        f"store {'unchanged' if same else 'CHANGED'}, reading {'goes on' if serves and reads else 'FAILS'}"
    )
    return Outcome(not wrong and same and serves and reads, figure, tuple(wrong))


@row("S17", figure="state changes 0, CORS headers 0")
def from_a_page(bed: Bed) -> Outcome:
    """Send what a browser would for a page of another site: forms, fetches without CORS, preflights, a WebSocket."""
    store = bed.directory / "store"
    marks = [
        b"Origin: http://evil.example\r\n", b"Origin: null\r\n", b"Sec-Fetch-Site: cross-site\r\n",
        b"Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
        b"Origin: http://localhost:1\r\nSec-Fetch-Site: same-site\r\n",
    ]  # fmt: skip
    asked = wrong = cors = 0
    requests = [
        (b"PUT", b""), (b"POST", b"Content-Type: application/x-www-form-urlencoded\r\n"),
        (b"POST", b"Content-Type: text/plain\r\n"),
        (b"OPTIONS", b"Access-Control-Request-Method: PUT\r\n"),
        (b"GET", b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"),
    ]  # fmt: skip
    with Daemon(node(), store, bed.directory / "daemon") as daemon:
        host = b"Host: 127.0.0.1:%d\r\n" % daemon.address[1]
        before = snapshot(store)
        for mark in marks:
            for verb, headers in requests:
                asked += 1
                answer = _whole(daemon.address, verb + b" /new HTTP/1.1\r\n" + host + mark + headers + _END)
                cors += b"access-control-" in answer.lower()
                refused = answer[9:10] == b"4" or answer[9:12] == b"501"
                wrong += answer[9:12] == b"101" or not (refused or verb == b"OPTIONS")
        state_changes = snapshot(store) != before
    figure = f"{asked} requests, state changes {int(state_changes)}, CORS headers {cors}, answered otherwise {wrong}"
    return Outcome(not state_changes and not cors and not wrong, figure)


def _whole(address: talk.Address, request: bytes) -> bytes:
    came = b""
    try:
        with socket.create_connection(address, talk.ANSWER_S) as connection:
            connection.sendall(request)
            while piece := connection.recv(65_536):
                came += piece
    except OSError:
        pass
    return came


@row("S18", figure="foreign names 421 for 100 %, own names 200")
def rebound(bed: Bed) -> Outcome:
    """Ask a node by names that a stranger may point at its address, and by its own in every spelling."""
    with Daemon(node(), bed.directory / "store", bed.directory / "daemon") as daemon:
        port = daemon.address[1]
        host = socket.gethostname()
        own = [
            "127.0.0.1",
            f"127.0.0.1:{port}",
            "localhost",
            f"LocalHost:{port}",
            f"localhost.:{port}",
            host,
            f"{host}:{port}",
        ]
        foreign = [
            "evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", f"localhost.evil.example:{port}", "127.0.0.1:80",
            f"127.0.0.1:{port + 1}", "localhost:0", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.2", "0.0.0.0",
            "[::1]", f"[::1]:{port}", "[::ffff:127.0.0.1]", "[::]", "::1", "localhost..", ".localhost", "local host",
            f"evil.example@127.0.0.1:{port}", "127.0.0.1:port", f"127.0.0.1:{port}:{port}", f"{host}.evil.example", "*",
        ]  # fmt: skip
        wrong = []
        for names, status in ((own, 200), (foreign, 421)):
            for name in names:
                for request in (
                    f"GET /__healthz HTTP/1.1\r\nHost: {name}",
                    f"GET http://{name}/__healthz HTTP/1.1\r\nHost: localhost",
                ):
                    if " " in name and "http://" in request:
                        continue
                    found, _ = statuses(daemon.address, f"{request}\r\nConnection: close\r\n\r\n".encode())
                    if found != [status]:
                        wrong.append(f"{request[:70]!r}: {found}, not {status}")
    figure = f"{len(own)} own and {len(foreign)} foreign names, answered otherwise {len(wrong)}"
    return Outcome(not wrong, figure, tuple(wrong))
