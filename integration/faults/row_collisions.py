"""R16: two clients that see different nodes put different bytes under the same names; then all nodes are seen by everybody.

Half of the pairs have one size, so that listings alone cannot tell them apart.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.filming import Stage, host_of, stage
from integration.recorder import Recorded, swept

PATHS, PATHS_LONG = 60, 200
FLAWED = 20  # paths of the control
DETECTED_S = 5.0

Reader = Callable[[str], bytes]


def _bodies(count: int) -> dict[str, tuple[bytes, bytes]]:
    """Return what is put under each path, by the one client and by the other."""
    return {
        f"/race/f{number:03}": (b"one %d" % number, b"two %d" % number + b"!" * (number % 2)) for number in range(count)
    }


def _race(ground: Stage, bodies: Mapping[str, tuple[bytes, bytes]]) -> None:
    """Put all of *bodies* by two clients, each of which knows one node."""

    def put(turn: int) -> None:
        with ground.client(f"writer{turn}", [host_of(ground.daemons[turn])]) as client:
            for path, both in bodies.items():
                client.put(path, both[turn])

    with ThreadPoolExecutor(2) as writers:
        list(writers.map(put, (0, 1)))


def _winner(ground: Stage) -> int:
    """Return which of the two nodes has the lowest node id."""
    ids = [str(talk.get(daemon.address, "/__healthz").headers["granum-node"]) for daemon in ground.daemons]  # type: ignore[union-attr]
    return ids.index(min(ids))


def _agreeing(readers: Iterable[Reader], bodies: Mapping[str, tuple[bytes, bytes]], winner: int) -> int:
    """Return for how many paths each of *readers* gets the bytes of the *winner*."""
    all_of_them = tuple(readers)
    return sum(all(read(path) == both[winner] for read in all_of_them) for path, both in bodies.items())


def _first_answer(bed: Bed) -> Outcome:
    """Read as clients that take what the first node has, each in the order in which it heard of them."""

    def reader(order: tuple[talk.Address, ...]) -> Reader:
        def read(path: str) -> bytes:
            answers = (talk.get(address, path) for address in order)
            return next(answer.body for answer in answers if answer is not None and answer.status == 200)

        return read

    bodies = _bodies(FLAWED)
    with stage(bed, 2) as ground:
        _race(ground, bodies)
        one, two = (daemon.address for daemon in ground.daemons)
        agreeing = _agreeing((reader((one, two)), reader((two, one))), bodies, _winner(ground))
    return Outcome(agreeing == FLAWED, f"readers agree {agreeing}/{FLAWED}")


def _newest(bed: Bed) -> Outcome:
    """Read as a client that takes the copy which was written last: now one writer's, now the other's."""
    bodies = _bodies(FLAWED)
    with stage(bed, 2) as ground:
        for number, (path, both) in enumerate(bodies.items()):
            for turn in (0, 1) if number % 2 else (1, 0):
                talk.put(ground.daemons[turn].address, path, both[turn])

        def read(path: str) -> bytes:
            copies = [daemon.root / path[1:] for daemon in ground.daemons]
            return max(copies, key=lambda copy: copy.stat().st_mtime_ns).read_bytes()

        agreeing = _agreeing((read,), bodies, _winner(ground))
    return Outcome(agreeing == FLAWED, f"readers agree {agreeing}/{FLAWED}")


def _reported(client: Recorded, paths: Iterable[str]) -> float:
    """Look at everything once; return how long that took until the collisions at all *paths* were reported, inf if never."""
    began = time.monotonic()
    client.listdir("/race/")
    if client.note_collisions() < set(paths):
        for path in paths:
            client.get(path)
    return time.monotonic() - began if client.note_collisions() >= set(paths) else float("inf")


@row(
    "R16",
    figure="every collision detected <= 5 s, all readers agree, silent 0",
    control={"the first answer is taken": _first_answer, "the newest copy is taken": _newest},
)
def race(bed: Bed) -> Outcome:
    """Race for names on two nodes, then read them by clients that see both, in either order."""
    bodies = _bodies(bed.amount(PATHS, PATHS_LONG))
    with stage(bed, 2) as ground:
        _race(ground, bodies)
        winner = _winner(ground)
        hosts = ground.hosts
        with ground.client("reader1", hosts) as one, ground.client("reader2", hosts[::-1]) as two:
            took_s = max(_reported(client, bodies) for client in (one, two))
            agreeing = _agreeing((one.get, two.get), bodies, winner)
        copies = swept(ground.stores)
        silent = sum(len(set(copies[path].values())) > 1 and path not in ground.recorder.collisions for path in bodies)
        figure = (
            f"detected all of {len(bodies)} in {took_s:.1f} s, readers agree {agreeing}/{len(bodies)}, silent {silent}"
        )
        held = {
            "detected in time": took_s <= DETECTED_S,
            "all agree": agreeing == len(bodies),
            "none is silent": not silent,
        }
        return ground.verdict("R16", figure, held)
