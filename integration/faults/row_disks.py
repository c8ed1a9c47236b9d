"""R5, R6 and R7: a disk that reports errors, dies, fills up, or refuses a name."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon, Program, node, standin
from integration.faults.disks import STORAGE_DAEMON, Image, ServedDisk, run
from integration.faults.load import body_of, digest, judge
from integration.faults.trace import Trace
from integration.faults.waiting import until

SYNCS = "fdatasync,fsync,sync_file_range,syncfs"
PUTS = 5  # after each injected error; the first one meets it, the others a node that must have given up writing
SWITCH_S = 1.0
OLD = "/old"
LANES = 2

FILL_BYTES = 4 << 20
SMALL_BYTES = 64 * 1024
FULL_PUTS = 40  # of FILL_BYTES at most: twice what the image holds
EARLY = 5  # puts with a known length that cannot fit, in each of two ways
EARLY_S = 2.0
HEAL_S = 5.0


@row(
    "R5",
    figure="false receipts 0/50, read-only <= 1 s, no fsync after the first error, reads go on",
    control={"receipt after write, without fsync": lambda bed: disk_dies(standin("no-sync"), bed)},
    root=True,
    programs=["strace", *STORAGE_DAEMON],
)
def sync_errors(bed: Bed) -> Outcome:
    """Let fdatasync and fsync fail in a running node, then let its whole disk die."""
    rounds = bed.amount(5, 25)
    faults = [(call, number) for number in range(rounds) for call in ("fdatasync", "fsync")]
    with ThreadPoolExecutor(LANES) as lanes:
        problems = list(lanes.map(lambda fault: _sync_fails(fault[0], bed.below(f"{fault[0]}{fault[1]}")), faults))
    dead = disk_dies(node(), bed.below("dead"))
    kinds = Counter(kind for each in problems for kind in each)
    figure = (
        f"false receipts {kinds['false receipt']}/{len(faults) * PUTS}, fault not reached {kinds['not reached']}, "
        f"not read-only {kinds['not read-only']}, fsync again {kinds['fsync again']}, reads failed {kinds['read failed']}; "
        f"{dead.figure}"
    )
    return Outcome(not kinds and dead.held, figure, dead.details)


def _sync_fails(call: str, bed: Bed) -> list[str]:
    """Let every *call* of a node fail with EIO from one moment on; return what it did wrong."""
    problems = []
    body = body_of(OLD, SMALL_BYTES)
    with Daemon(node(), bed.directory / "store", bed.directory / "daemon") as daemon:
        talk.put(daemon.address, OLD, body)
        with Trace(daemon.pid, bed.directory / "trace", SYNCS, call, "error=EIO:when=1+") as trace:
            answers = [talk.put(daemon.address, "/first", body)]
            switched = time.monotonic()
            answers += [talk.put(daemon.address, f"/later{number}", body) for number in range(PUTS - 1)]
            took = time.monotonic() - switched
            injected = sum("(INJECTED)" in line for line in trace.lines())
        old = talk.get(daemon.address, OLD)
    problems += ["false receipt"] * sum(answer is not None and answer.stored for answer in answers)
    if not injected:
        problems.append("not reached")
    if injected > 1:
        problems.append("fsync again")
    if took > SWITCH_S or any(answer is None or answer.status != 503 for answer in answers[1:]):
        problems.append("not read-only")
    if old is None or old.body != body:
        problems.append("read failed")
    return problems


def disk_dies(program: Program, bed: Bed) -> Outcome:
    """Kill the disk under *program*: no put after that gets a receipt, and what it has in memory is still read."""
    body = body_of(OLD, SMALL_BYTES)
    with (
        ServedDisk(bed.directory / "disk") as disk,
        Daemon(program, disk.mount, bed.directory / "daemon") as daemon,
    ):
        talk.put(daemon.address, OLD, body)
        disk.unplug()
        answers = [talk.put(daemon.address, f"/dead{number}", body) for number in range(10)]
        old = talk.get(daemon.address, OLD)
    statuses = [answer.status if answer else 0 for answer in answers]
    false = sum(200 <= status < 300 for status in statuses)
    reads = old is not None and old.body == body
    held = not false and set(statuses[1:]) == {503} and reads
    return Outcome(
        held,
        f"disk gone: false receipts {false}/{len(answers)}, reads {'go on' if reads else 'fail'}",
        (f"disk gone: answers {statuses}",),
    )


@row(
    "R6",
    figure="507 before the body 100 % when the length is known, heals <= 5 s, false 2xx 0, partial 0",
    root=True,
    programs=["mkfs.ext4", "losetup"],
)
def disk_full(bed: Bed) -> Outcome:
    """Fill a small disk, then free half of it."""
    offered: dict[str, bytes] = {}
    receipted: list[str] = []
    statuses: Counter[int] = Counter()

    def put(path: str, size: int) -> bool:
        body = body_of(path, size)
        offered[path] = digest(body)
        answer = talk.put(daemon.address, path, body)
        statuses[answer.status if answer else 0] += 1
        if answer is not None and answer.stored:
            receipted.append(path)
        return answer is not None and answer.stored

    with (
        Image(bed.directory / "disk", size_mib=64) as disk,
        Daemon(node(), disk.mount, bed.directory / "daemon") as daemon,
    ):
        filled = sum(put(f"/fill/f{number}", FILL_BYTES) for number in range(FULL_PUTS))
        early = sum(_refused_early(daemon.address, f"/early{number}", number % 2 == 0) for number in range(2 * EARLY))
        for number in range(FULL_PUTS):
            put(f"/small/f{number}", SMALL_BYTES)
        served = talk.get(daemon.address, "/fill/f0")
        reads = served is not None and digest(served.body) == offered["/fill/f0"]
        found = judge(disk.mount, offered, receipted)
        for path in receipted[: filled // 2]:
            (disk.mount / path[1:]).unlink()
        freed = time.monotonic()
        healed = until(lambda: put(f"/healed{time.monotonic_ns()}", SMALL_BYTES), 2 * HEAL_S, 0.1)
        heal_s = time.monotonic() - freed
        tracebacks = daemon.tracebacks()
    other = {status for status in statuses if not 200 <= status < 300 and status != 507}
    figure = (
        f"507 before the body {early}/{2 * EARLY}, false 2xx {len(found.lost)}, partial {len(found.torn)}, "
        f"{f'heals in {heal_s:.1f} s' if healed else 'does not heal'}, reads {'go on' if reads else 'fail'}, "
        f"other statuses {sorted(other)}, tracebacks {tracebacks}"
    )
    held = early == 2 * EARLY and found.clean and reads and healed and heal_s <= HEAL_S and not other and not tracebacks
    return Outcome(held and filled > 0, figure, (f"{filled} puts filled the disk; answers {dict(statuses)}",))


def _refused_early(address: talk.Address, path: str, expects: bool) -> bool:  # noqa: FBT001 - one of two ways to ask
    """Whether a put of more than the disk holds is answered 507 while no byte of its body has been sent."""
    more = ["Expect: 100-continue"] if expects else []
    answer = talk.first_line(address, talk.head(path, 1 << 30, *more), EARLY_S)
    return answer.startswith(b"HTTP/1.1 507")


@row(
    "R7",
    figure="100 % answered 507, 400 or 414, never 500; tracebacks 0",
    root=True,
    programs=["mkfs.ext4", "mkfs.btrfs", "btrfs", "losetup"],
)
def no_room_for_a_name(bed: Bed) -> Outcome:
    """Use up the inodes of one disk and the quota of another, and put names that are too long."""
    figures = []
    wrong = tracebacks = 0
    for name, check in (("inodes full", _inodes), ("quota", _quota), ("name too long", _names)):
        below = bed.below(name.replace(" ", "-"))
        statuses, expected, lines = check(below)
        wrong += sum(number for status, number in statuses.items() if status not in expected)
        wrong += not expected <= set(statuses)
        tracebacks += lines
        figures.append(f"{name} {talk.shown(statuses)}")
    return Outcome(not wrong and not tracebacks, f"{'; '.join(figures)}; wrong {wrong}, tracebacks {tracebacks}")


def _statuses(daemon: Daemon, puts: list[tuple[str, int]]) -> Counter[int]:
    answers = [talk.put(daemon.address, path, body_of(path, size)) for path, size in puts]
    return Counter(answer.status if answer else 0 for answer in answers)


def _inodes(bed: Bed) -> tuple[Counter[int], set[int], int]:
    with (
        Image(bed.directory / "disk", options=("-N", "64")) as disk,
        Daemon(node(), disk.mount, bed.directory / "daemon") as daemon,
    ):
        statuses = _statuses(daemon, [(f"/d{number % 3}/f{number}", 100) for number in range(80)])
        return statuses, {200, 507}, daemon.tracebacks()


def _quota(bed: Bed) -> tuple[Counter[int], set[int], int]:
    with Image(bed.directory / "disk", "btrfs", 128) as disk:
        volume = disk.mount / "volume"
        run("btrfs", "quota", "enable", str(disk.mount))
        run("btrfs", "subvolume", "create", str(volume))
        run("btrfs", "qgroup", "limit", "4M", str(volume))
        with Daemon(node(), volume, bed.directory / "daemon") as daemon:
            statuses = _statuses(daemon, [(f"/f{number}", 1 << 20) for number in range(12)])
            return statuses, {200, 507}, daemon.tracebacks()


def _names(bed: Bed) -> tuple[Counter[int], set[int], int]:
    names = ["/" + "n" * 256, "/" + "n" * 5000, "/a/" + "n" * 300 + "/f", "/" + "d/" * 200 + "f", "/" + "ä" * 128]
    with Daemon(node(), bed.directory / "store", bed.directory / "daemon") as daemon:
        statuses = Counter[int]()
        for name in names:
            answer = talk.put(daemon.address, talk.quoted(name), b"x")
            statuses[answer.status if answer else 0] += 1
        return statuses, {414}, daemon.tracebacks()
