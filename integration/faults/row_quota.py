"""S28: many writers at once against the quotas of a node: bytes and files of a directory, bytes of an address."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, node
from integration.faults.load import body_of

WRITERS = 16
OBJECT_BYTES = 50_000  # does not divide the limits, so that a quota is crossed and not just met
BYTES_MAX = 1 << 20
FILES_MAX = 37
PUTS = 60  # of each kind by all writers: more than any quota here admits
HOUR_S = 3600.0
CONFIG = f"quota: {{bytes: {BYTES_MAX}}}\nquota_files: {{files: {FILES_MAX}}}\nquota_per_address: {BYTES_MAX}\n"


@row("S28", figure="bytes, files, per address: overshoot <= 1 object; 507 for a directory, 429 for an address")
def quotas(bed: Bed) -> Outcome:
    """Put more than each quota admits, at once, with and without a length in the head."""
    store = bed.directory / "store"
    config = bed.directory / "node.yaml"
    config.write_text(CONFIG)
    rounds = bed.amount(1, 10)
    figures, wrong = [], []
    with Daemon(node().with_options("--config", str(config)), store, bed.directory / "daemon") as daemon:
        # Each of these puts comes from an address of its own, so that only the quota of the directory is in its way.
        hosts = (f"127.0.{high}.{low}" for high, low in itertools.product(range(4, 250), range(1, 250)))
        for name, limit, status in (("bytes", BYTES_MAX // OBJECT_BYTES, 507), ("files", FILES_MAX, 507)):
            answers = _put_all(daemon, name, PUTS * rounds, hosts)
            stored = _files(store / name)
            most = limit + (name == "bytes")
            figures.append(f"{name}: {len(stored)} objects stored, {most} may be, {talk.shown(answers)}")
            if not limit <= len(stored) <= most or answers[200] != len(stored) or set(answers) - {200, status}:
                wrong.append(f"/{name}: {talk.shown(answers)}, {len(stored)} stored")
        began = time.monotonic()
        answers = _put_all(daemon, "address", PUTS * rounds, itertools.repeat("127.0.3.1"))
        stored = _files(store / "address")
        # An address is forgiven its quota within an hour: a little of it while the puts ran.
        most = int(BYTES_MAX * (1 + (time.monotonic() - began) / HOUR_S)) // OBJECT_BYTES + 1
        figures.append(f"address: {len(stored)} objects stored, {most} may be, {talk.shown(answers)}")
        if not most - 2 < len(stored) <= most or answers[200] != len(stored) or set(answers) - {200, 429}:
            wrong.append(f"/address: {talk.shown(answers)}, {len(stored)} stored")
        wrong += [f"{path} is not whole" for path in stored if path.stat().st_size != OBJECT_BYTES]
        wrong += _others(daemon)
        tracebacks = daemon.tracebacks()
    return Outcome(not wrong and not tracebacks, f"{'; '.join(figures)}; tracebacks {tracebacks}", tuple(wrong))


def _put_all(daemon: Daemon, directory: str, number: int, hosts: Iterator[str]) -> Counter[int]:
    """Put *number* objects into *directory* from WRITERS threads, each from the next of *hosts*; return the statuses."""

    def put(plan: tuple[int, str]) -> int:
        count, host = plan
        path = f"/{directory}/d{count % 3}/f{count}"
        body = body_of(path, OBJECT_BYTES)
        with talk.Line(daemon.address, source=host) as line:
            if count % 2:
                line.send(_chunked(path, body))
                answer = line.receive()
            else:
                answer = line.put(path, body)
        return answer.status if answer.status != 429 or "retry-after" in answer.headers else 0

    with ThreadPoolExecutor(WRITERS) as writers:
        return Counter(writers.map(put, zip(range(number), hosts, strict=False)))


def _chunked(path: str, body: bytes) -> bytes:
    head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    half = len(body) // 2
    pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:half], body[half:], b"")]
    return head + b"".join(pieces)


def _files(directory: Path) -> list[Path]:
    return [file for file in directory.rglob("*") if file.is_file()]


def _others(daemon: Daemon) -> list[str]:
    """Return what a spent quota stands in the way of that is none of its business."""
    wrong = []
    with talk.Line(daemon.address, source="127.0.3.2") as other, talk.Line(daemon.address, source="127.0.3.1") as spent:
        if not other.put("/free/f", b"x").stored:
            wrong.append("another address or directory is refused, too")
        if spent.get("/free/f").body != b"x":
            wrong.append("an address that has put its share cannot read")
    return wrong
