"""R17 and R37: a connection that breaks in the middle of a pipeline, and a series closed while its windows are full."""

import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from granum.streaming.channel import Channel
from granum.streaming.streamer import Streamer
from granum.wire.errors import NotReceipted
from integration.bench.peers import Pyme
from integration.faults import original
from integration.faults.board import Bed, Outcome, row
from integration.faults.daemon import Daemon
from integration.faults.filming import disturbed, film, names_on_disk, planted, stage
from integration.faults.proxy import NAMES, Proxy
from integration.faults.talk import Address
from integration.faults.waiting import pause, until
from integration.recorder import Recorded

PUTS = 200  # of each trial
SIDE = 32  # pixels: 2 KiB of samples
ORIGINALS, ORIGINAL_BYTES = 400, 50_000  # of which PYME's client is known to lose some
FROZEN_S = 0.1  # while the series is closed already
PATIENCE_S = 1.0  # for a node that is gone for good
SETTLED_S = 5.0  # for what was sent last to be stored, behind a client that is gone


class _OneCut:
    """Loses one answer to a put of a frame: the one behind *after* of them."""

    def __init__(self, after: int) -> None:
        self._left = after
        self.is_over = False

    def __call__(self, verb: str, path: str) -> bool:
        if verb != "PUT" or "/f" not in path or "/final" in path or self.is_over:
            return False
        self._left -= 1
        self.is_over = self._left < 0
        return self.is_over


def _missing_of_original(bed: Bed, servers: Sequence[Address], root: Path, top: str, count: int, size: int) -> int:
    """Let PYME's client put *count* files and close; return how many never arrive at *root*."""
    original.stream(servers, top, count, size, bed.directory)
    until(lambda: len(names_on_disk([root], top)) == count, SETTLED_S)
    return count - len(names_on_disk([root], top))


def _original_cut(bed: Bed) -> Outcome:
    """Do the same to PYME's client, with PYME's node: ours waits with its answers for that client's sake."""
    with (
        Pyme(bed.directory / "store", bed.directory / "scratch") as peer,
        Proxy(("127.0.0.1", peer.port), _OneCut(bed.random("R17").randrange(PUTS))) as proxy,
    ):
        missing = _missing_of_original(bed, [proxy.address], peer.root, "t", ORIGINALS, ORIGINAL_BYTES)
    return Outcome(not missing, f"missing {missing}/{ORIGINALS}")


def _original_close(bed: Bed) -> Outcome:
    """Do the same with PYME's client and PYME's node."""
    with Pyme(bed.directory / "store", bed.directory / "scratch") as peer:
        where = [("127.0.0.1", peer.port)]
        missing = sum(
            _missing_of_original(bed, where, peer.root, f"t{trial}", ORIGINALS, ORIGINAL_BYTES) for trial in range(2)
        )
    return Outcome(not missing, f"missing {missing}/{2 * ORIGINALS}")


def _freed_when_sent(bed: Bed) -> Outcome:
    with planted("9", Channel, "put"):
        return _cut(bed, 4, row="")


def _dropped_at_close(bed: Bed) -> Outcome:
    with planted("10", Streamer, "_flush"):
        return _close(bed, 4, 0, row="")


@row(
    "R17",
    figure="missing 0 of all puts, no error for the caller",
    control={"a put is done when it is sent": _freed_when_sent, **original.controls(_original_cut)},
)
def cut(bed: Bed) -> Outcome:
    """Reset the connection behind k of 200 pipelined puts, at a random k, over and over."""
    return _cut(bed, bed.amount(20, 100))


def _cut(bed: Bed, trials: int, row: str = "R17") -> Outcome:
    random = bed.random("R17")
    errors: list[str] = []
    cuts = 0
    with stage(bed, 1, NAMES) as ground, Proxy(ground.daemons[0].address, lambda *_: False) as proxy:
        with ground.client(hosts=[proxy.host]) as client:
            for trial in range(trials):
                series = client.create_series(f"/t{trial}.pcs")
                proxy.fate = _OneCut(random.randrange(PUTS))
                errors += film(series, range(PUTS), SIDE).errors
                try:
                    series.finalise()
                except NotReceipted as error:
                    errors.append(str(error))
            cuts = proxy.lost
        missing = sum(PUTS - _frames(ground.daemons[0].root, trial) for trial in range(trials))
        figure = f"missing {missing}/{trials * PUTS} in {cuts} cuts, {len(errors)} errors for the caller"
        held = {"nothing is missing": not missing, "no error": not errors, "every cut struck": cuts == trials}
        outcome = ground.verdict(row, figure, held)
    return Outcome(outcome.held, outcome.figure, (*outcome.details, *errors))


@row(
    "R37",
    figure="lost 0: drained, or every frame without a receipt is named",
    control={
        "what is in the windows is dropped": _dropped_at_close,
        **original.controls(_original_close),
    },
)
def close(bed: Bed) -> Outcome:
    """Finalise while the windows are full, over and over."""
    return _close(bed, bed.amount(20, 100), bed.amount(2, 10))


def _close(bed: Bed, trials: int, deaths: int, row: str = "R37") -> Outcome:
    """Finalise while the windows are full: the node is frozen until they are; then it is thawed or, in some trials, dies."""
    accepted = named = lost = 0
    with stage(bed, 1) as ground:
        daemon = ground.daemons[0]
        with ground.client() as client:
            for trial in range(trials):
                dies = trial < deaths
                series = client.create_series(f"/t{trial}.pcs", patience=PATIENCE_S, on_full="raise")
                daemon.process.send_signal(signal.SIGSTOP)
                film(series, range(PUTS), SIDE)
                accepted += series.accepted
                unnamed = series.accepted
                with disturbed(partial(_end_freeze, daemon, dies=dies)):
                    try:
                        series.finalise()
                    except NotReceipted as error:
                        named += len(error.paths)
                        unnamed -= len(error.paths)
                lost += max(0, unnamed - _frames(daemon.root, trial))
                if dies:
                    daemon.start()
                    until(partial(_takes_puts, client), SETTLED_S)
        figure = f"lost {lost} of {accepted} frames in {trials} closes, {named} named in {deaths} with a dead node"
        return ground.verdict(row, figure, {"nothing is lost": not lost, "windows were full": accepted >= 2 * trials})


def _end_freeze(daemon: Daemon, *, dies: bool) -> None:
    pause(FROZEN_S)
    if dies:
        daemon.kill()
    else:
        daemon.process.send_signal(signal.SIGCONT)


def _takes_puts(client: Recorded) -> bool:
    return all(state.cause is None for state in client.cluster.nodes())


def _frames(root: Path, trial: int) -> int:
    return sum(name.startswith("frame") for name in names_on_disk([root], f"t{trial}.pcs"))
