"""S10 to S13 and S36: names that lead outside, that are no files, that are hard to show, and that reach the log."""

import ctypes
import json
import os
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program, node, node_options
from integration.faults.gullible import gullible
from integration.faults.row_requests import statuses

CANARY = b"canary: outside the store\n"
ODD_FILE_S = 0.1
FORGED = "granum-node: all is well"
LOG_BYTES_PER_MIN = 1 << 20
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def traversals(beside: Path) -> list[bytes]:
    """Return request targets that lead to 'canary' in *beside*, where the store is, in spellings that servers have followed.

    None leads anywhere else: the rows run as root, and a server that fails them would write there.
    """
    ups = [
        b"..", b"%2e%2e", b"%2E.", b".%2e", b"%252e%252e", b"%c0%ae%c0%ae", b"%e0%80%ae%e0%80%ae", b"..%00", b"...",
        b"..;", b"%2e%2e%3b", b".. ", b"%20..", b"..%20", b"\xc0\xae\xc0\xae", b"%u002e%u002e", b"..%0a", b"..%09",
    ]  # fmt: skip
    separators = [b"/", b"%2f", b"%2F", b"%5c", b"\\", b"%252f", b"%c0%af", b"//", b"/./"]
    found = [b"/" + up + separator + b"canary" for up in ups for separator in separators]
    found += [b"/d/" + up + separator + up + separator + b"canary" for up in ups[:6] for separator in separators]
    away = os.fsencode(beside).lstrip(b"/") + b"/canary"
    found += [b"/" + (b"../" * depth) + away for depth in range(1, 16)]
    found += [
        b"/" + away, b"//" + away, b"/%2f" + away.replace(b"/", b"%2f"), b"file:///" + away, b"/C:/canary", b"/C:%5ccanary",
        b"//host/share/canary", b"\\\\host\\share\\canary", b"/~root/canary", b"/$HOME/canary", b"/proc/self/root/" + away,
        b"/__glob?pattern=../canary", b"/__glob/../canary", b"/x.h5/../../canary", b"/__aggregate_txt/../../canary",
        b"/f?MirrorSource=file:///" + away, b"/d/..", b"/..", b"/../", b"/.granum/../../canary",
    ]  # fmt: skip
    return found


def _traversed(program: Program, bed: Bed) -> Outcome:
    """Read and put by every traversal; the file beside the store must neither be seen nor changed."""
    (bed.directory / "canary").write_bytes(CANARY)
    store = bed.directory / "store"
    (store / "d").mkdir(parents=True)
    escapes, odd = [], []
    targets = traversals(bed.directory)
    with Daemon(program, store, bed.directory / "daemon") as daemon:
        for target in targets:
            for request in (
                b"GET " + target + b" HTTP/1.1\r\nConnection: close\r\n\r\n",
                b"PUT " + target + b" HTTP/1.1\r\nConnection: close\r\nContent-Length: 7\r\n\r\nplanted",
            ):
                answer = _all(daemon.address, request)
                if CANARY in answer:
                    escapes.append(f"read by {target!r}")
                if answer[9:10] not in {b"2", b"4"} and answer[9:12] not in {b"301", b"501"}:
                    odd.append(f"{request[:60]!r}: {answer[:40]!r}")
        tracebacks = daemon.tracebacks()
    if (bed.directory / "canary").read_bytes() != CANARY:
        escapes.append("the canary was changed")
    if sorted(os.listdir(bed.directory)) != ["canary", "daemon", "store"]:
        escapes.append(f"planted beside the store: {os.listdir(bed.directory)}")
    figure = f"escapes {len(escapes)} of {len(targets)} names, answers of no kind {len(odd)}, tracebacks {tracebacks}"
    return Outcome(not escapes and not odd and not tracebacks, figure, (*escapes, *odd))


def _all(address: talk.Address, request: bytes) -> bytes:
    came = b""
    with suppress(OSError), socket.create_connection(address, talk.ANSWER_S) as connection:
        connection.sendall(request)
        while piece := connection.recv(65_536):
            came += piece
    return came


@row("S10", figure="escapes 0", control={"decoded join": partial(_traversed, gullible("decoded-join"))})
def traversed(bed: Bed) -> Outcome:
    """Try to leave the store of a node by name."""
    return _traversed(node(), bed)


def _swapped(program: Program, bed: Bed) -> Outcome:
    """Swap a directory and a link that leads outside, all the time, while both are used."""
    count = bed.amount(2000, 10_000)
    outside = bed.below("outside").directory
    (outside / "secret").write_bytes(CANARY)
    store = bed.directory / "store"
    place, link = store / "d", store / "link"
    place.mkdir(parents=True)
    (place / "secret").write_bytes(b"inside")
    link.symlink_to(outside)
    stop, swaps = threading.Event(), 0
    exchange = ctypes.CDLL(None).renameat2

    def swap() -> None:
        nonlocal swaps
        one, other = os.fsencode(place), os.fsencode(link)
        while not stop.is_set():
            swaps += not exchange(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE)

    read_outside = inside = 0
    with Daemon(program, store, bed.directory / "daemon") as daemon, talk.Line(daemon.address) as line:
        swapper = threading.Thread(target=swap)
        swapper.start()
        try:
            for number in range(count):
                body = line.get("/d/secret").body if number % 2 else b""
                read_outside += body == CANARY
                inside += body == b"inside"
                if number % 4 == 0:
                    line.put(f"/d/f{number}", b"planted")
                elif number % 4 == 2:
                    line.put(f"/d/n{number}/f", b"planted")
        finally:
            stop.set()
            swapper.join()
    planted = len(os.listdir(outside)) - 1
    figure = f"escapes {read_outside + planted} of {count} ({swaps} swaps, {inside} reads of the file inside)"
    return Outcome(not read_outside and not planted and swaps >= count and inside > 0, figure)


@row("S11", figure="escapes 0", control={"check, then open": partial(_swapped, gullible("check-then-open"))})
def swapped(bed: Bed) -> Outcome:
    """Swap names under a node."""
    return _swapped(node(), bed)


def _odd_files(program: Program, bed: Bed) -> Outcome:
    """Ask for what is in the store and is no file."""
    store = bed.directory / "store"
    store.mkdir()
    os.mkfifo(store / "fifo")
    (bed.directory / "canary").write_bytes(CANARY)
    (store / "magic").symlink_to("/proc/self/cwd")
    (store / "root").symlink_to("/proc/self/root")
    names = ["fifo", "socket", "magic", "root", f"root{bed.directory}/canary"]
    with suppress(OSError):  # only root may
        os.mknod(store / "zero", 0o20666, os.makedev(1, 5))
        names.append("zero")
    wrong, slowest = [], 0.0
    with socket.socket(socket.AF_UNIX) as listening, Daemon(program, store, bed.directory / "daemon") as daemon:
        here = os.open(store, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        for name in names:
            for verb, length, expected in (("GET", "", {403, 404}), ("PUT", "Content-Length: 1\r\n", {405, 409})):
                began = time.monotonic()
                found, _ = statuses(
                    daemon.address, f"{verb} /{name} HTTP/1.1\r\n{length}Connection: close\r\n\r\nx".encode()
                )
                took = time.monotonic() - began
                slowest = max(slowest, took)
                if len(found) != 1 or found[0] not in expected or took > ODD_FILE_S:
                    wrong.append(f"{verb} {name}: {found} after {took:.2f} s")
        listed = talk.get(daemon.address, "/")
    shown = listed is not None and listed.status == 200 and json.loads(listed.body) != {}
    figure = f"{len(names)} names, answered otherwise {len(wrong)}, the slowest {slowest * 1000:.0f} ms, listed {shown}"
    return Outcome(not wrong and not shown, figure, tuple(wrong))


@row(
    "S12",
    figure="404 or 405 <= 100 ms, hangs 0",
    control={"plain open": partial(_odd_files, gullible("decoded-join"))},
)
def odd_files(bed: Bed) -> Outcome:
    """Ask a node for pipes, sockets, devices and links."""
    return _odd_files(node(), bed)


_NAMES: list[tuple[bytes, int]] = [
    *((b"/%%%02x" % code, 400) for code in (*range(32), 127)),  # control characters
    (b"/%c2%80", 400), (b"/%e2%80%a8", 400), (b"/%e2%80%a9", 400), (b"/x%2fy", 400), (b"/x%5cy", 400), (b"/x\\y", 400),
    (b"/%ff", 200), (b"/%e9t%e9", 200),  # not UTF-8: Latin-1, as PYME's clients mean it
    (b"/" + b"n" * 255, 200), (b"/" + b"n" * 256, 414), (b"/" + b"%c3%b6" * 127, 200), (b"/" + b"%c3%b6" * 128, 414),
    (b"/" + b"/".join([b"l"] * 64), 200), (b"/" + b"/".join([b"l"] * 65), 414),
    (b"/caf%c3%a9", 200), (b"/cafe%cc%81", 200), (b"/Case", 200), (b"/case", 200),  # twins that are two names
    (b"/CON", 200), (b"/nul.txt", 200), (b"/a.", 200), (b"/a%20", 200), (b"/%20", 200), (b"/%3c%3e%3a%22%7c%3f%2a", 200),
    (b"/-rf", 200), (b"/...", 200), (b"/%f0%9f%94%ac", 200), (b"/%e2%80%ae", 200), (b"/%25", 200), (b"/%252e", 200),
    (b"/.granum", 400), (b"/.granum/x", 400), (b"/x/.granum", 400), (b"/.GRANUM", 200), (b"/__x", 400), (b"/x/__x", 200),
    (b"/%5f_x", 400), (b"/_x", 200), (b"/%", 400), (b"/%g0", 400),
]  # fmt: skip


@row("S13", figure="one documented answer for 100 %, each stored name is listed and read as itself")
def strange_names(bed: Bed) -> Outcome:
    """Put under names that are hard to show or to tell apart; then list and read them all."""
    wrong = []
    with Daemon(node(), bed.directory / "store", bed.directory / "daemon") as daemon:
        for number, (target, status) in enumerate(_NAMES):
            body = b"%03d" % number
            found, _ = statuses(
                daemon.address, b"PUT " + target + b" HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\n\r\n" + body
            )
            if found != [status]:
                wrong.append(f"put {target[:40]!r}: {found}, not {status}")
            answer = _all(daemon.address, b"GET " + target + b" HTTP/1.1\r\nConnection: close\r\n\r\n")
            if status == 200 and not answer.endswith(b"\r\n\r\n" + body):
                wrong.append(f"read {target[:40]!r}: {answer[:60]!r}")
        stored = [target for target, status in _NAMES if status == 200]
        listed = talk.get(daemon.address, "/")
        names = json.loads(listed.body) if listed else {}
        for name, (flags, _) in names.items():
            again = talk.get(daemon.address, "/" + quote(name.rstrip("/")) + ("/" if flags & 1 else ""))
            if again is None or again.status != 200:
                wrong.append(f"listed but not read: {name!r}")
        tops = {target.split(b"/")[1] for target in stored}
        tracebacks = daemon.tracebacks()
    figure = f"{len(_NAMES)} names, answered otherwise {len(wrong)}, listed {len(names)}/{len(tops)}, tracebacks {tracebacks}"
    return Outcome(not wrong and len(names) == len(tops) and not tracebacks, figure, tuple(wrong))


@row("S36", figure="forged lines 0, raw control characters 0, log <= 1 MiB/min")
def forged_log(bed: Bed) -> Outcome:
    """Send names and headers made to be mistaken for lines of the log, and many errors."""
    count = bed.amount(20_000, 100_000)
    line = quote(f"\r\n\x1b[31m{FORGED}").encode()
    requests = [
        b"GET /" + line + b" HTTP/1.1\r\n\r\n",
        b"PUT /" + line + b" HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
        b"GET /x HTTP/1.1\r\nHost: " + FORGED.encode() + b"\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nOrigin: " + FORGED.encode() + b"\r\nContent-Length: 1\r\n\r\nx",
        b"GET /missing" + line[-20:] + b" HTTP/1.1\r\n\r\n",
    ]
    with Daemon(node(), bed.directory / "store", bed.directory / "daemon") as daemon:
        for raw in (b"GET /\x1b[31m\r\n" + FORGED.encode(), b"G\r\n" + FORGED.encode(), b"\x1b]0;x\x07 / HTTP/1.1"):
            statuses(daemon.address, raw + b"\r\n\r\n")
        began = time.monotonic()
        with socket.create_connection(daemon.address, talk.ANSWER_S) as connection:
            sender = threading.Thread(
                target=connection.sendall, args=(b"".join(requests) * (count // len(requests)),), daemon=True
            )
            sender.start()
            came = 0
            tail = b""
            while came < count // len(requests) * len(requests) and (piece := connection.recv(65_536)):
                came += (tail + piece).count(b"HTTP/1.1 ") - tail.count(b"HTTP/1.1 ")
                tail = piece[-8:]
            sender.join()
        minutes = max((time.monotonic() - began) / 60, 1.0)
        log = daemon.log()
        tracebacks = daemon.tracebacks()
    size = len(log)
    if "--log-requests" in node_options():  # off by default; then what is asked reaches the log
        with Daemon(
            node().with_options("--log-requests"), bed.directory / "store", bed.directory / "logging"
        ) as daemon:
            for request in (
                *requests,
                b"GET /x\xe2\x80\xa8" + FORGED.replace(" ", "_").encode() + b" HTTP/1.1\r\n\r\n",
            ):
                statuses(daemon.address, request + b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n")
            log += daemon.log()
            tracebacks += daemon.tracebacks()
    forged = sum(line.startswith((FORGED, FORGED.replace(" ", "_"))) for line in log.splitlines())
    raw_characters = sum(not character.isprintable() and character not in "\n\t" for character in log)
    figure = (
        f"forged lines {forged}, raw control characters {raw_characters}, log {size} B for {came} errors, "
        f"tracebacks {tracebacks}"
    )
    return Outcome(
        not forged
        and not raw_characters
        and not tracebacks
        and size <= LOG_BYTES_PER_MIN * minutes
        and came >= count - len(requests),
        figure,
    )
