"""R15: receipts that are lost behind the publish, by a proxy before one of two nodes that swallows the answer."""

from collections import Counter

from granum.wire.errors import GranumError, NotReceipted
from integration.faults import talk
from integration.faults.board import Bed, Outcome, row
from integration.faults.filming import Stage, film, host_of, stage
from integration.faults.proxy import NAMES, Proxy
from integration.recorder import swept

PUTS, PUTS_LONG = 150, 1000
FRAMES = 600
EVERY = 200  # of a stream's frames the answer is lost: never two in one window
WINDOW_PUTS = 32
SIDE = 32


class _FirstAnswers:
    """Loses the first answer to a put of every path, of a series' frames only to every EVERY-th."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, verb: str, path: str) -> bool:
        self._seen[path] += verb == "PUT"
        if verb != "PUT" or self._seen[path] > 1 or ".json" in path:
            return False
        return ".pcs" not in path or int(path[-9:-4]) % EVERY == 0


def _paths(count: int) -> dict[str, bytes]:
    return {f"/lost/f{number:04}": b"%08d" % number * 100 for number in range(count)}


def _copies(ground: Stage, top: str) -> int:
    copies = swept(ground.stores)
    return sum(len(nodes) for path, nodes in copies.items() if path.startswith(top) and not path.endswith(".json"))


def _elsewhere_without_digest(bed: Bed) -> Outcome:
    """Put as a client that puts what has no receipt on the other node, and sends no digest."""
    files = _paths(20)
    with stage(bed, 2, NAMES) as ground, Proxy(ground.daemons[0].address, _FirstAnswers()) as proxy:
        errors = 0
        for path, body in files.items():
            answers = (talk.put(address, path, body) for address in (proxy.address, ground.daemons[1].address))
            errors += not any(answer and answer.stored for answer in answers)
        copies = _copies(ground, "/lost/")
    return Outcome(copies == len(files) and not errors, f"success {len(files) - errors}/{len(files)}, copies {copies}")


@row(
    "R15",
    figure="every put succeeds, one copy of each, caller errors 0",
    control={"put elsewhere without a digest": _elsewhere_without_digest},
)
def lost(bed: Bed) -> Outcome:
    """Lose the receipt of every put to one of two nodes, and of some frames of a stream to both of them."""
    files = _paths(bed.amount(PUTS, PUTS_LONG))
    errors: list[str] = []
    with stage(bed, 2, NAMES) as ground, Proxy(ground.daemons[0].address, _FirstAnswers()) as proxy:
        with ground.client(hosts=[proxy.host, host_of(ground.daemons[1])]) as client:
            (behind,) = (node for node in client.cluster.ready(2) if node.host == proxy.host)
            for path, body in files.items():
                try:
                    client.put(path, body, node=behind)
                except GranumError as error:
                    errors.append(f"{path}: {error}")
            series = client.create_series("/run.pcs", window_puts_max=WINDOW_PUTS)
            errors += film(series, range(FRAMES), SIDE).errors
            try:
                series.finalise()
            except NotReceipted as error:
                errors.append(str(error))
        total = len(files) + FRAMES
        copies = _copies(ground, "/lost/") + _copies(ground, "/run.pcs/")
        figure = f"success {total - len(errors)}/{total}, copies {copies}, {proxy.lost} receipts lost"
        held = {"no error": not errors, "one copy": copies == total, "receipts were lost": proxy.lost >= len(files)}
        outcome = ground.verdict("R15", figure, held)
    return Outcome(outcome.held, outcome.figure, (*outcome.details, *errors))
