"""Streams in a simulated run, with every setting that a program may choose, and the readers that follow them.

A stream ends in one of three ways: finalised, finalised with a list of what is lost, or aborted on the way. In all of them its
account must be right at every moment, and what lay in the overflow must be receipted or still lie there.
"""

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from granum.arrays.series import SeriesReader
from granum.streaming.pending import Place, Token
from granum.streaming.series import SeriesWriter, frame_name
from granum.streaming.survey import directories, read_record, scan
from granum.transfer import Receipt
from granum.wire import frame
from granum.wire.errors import GranumError, NodeBusy, NotReceipted
from granum.wire.pzf import Compression
from integration.history import Outcome, Put, Streamed
from integration.simulation.machines import ClientMachine

if TYPE_CHECKING:
    from integration.simulation.scenario import Run

FINALISE_TRIES = 6  # a node that is away for a while comes back meanwhile
FOLLOW_TIMEOUT_S = 40.0  # longer than any fault, and shorter than a run


@dataclass(slots=True)
class Settings:
    """What a program chose for one stream."""

    side: int
    pace: float
    compression: Compression
    options: dict[str, Any]  # those of `SeriesWriter.create`

    @property
    def refuses(self) -> bool:
        """Whether a frame may be refused because nothing has room."""
        return "raise" in {self.options["on_full"], self.options.get("overflow_full")}

    @classmethod
    def by_chance(cls, run: "Run", overflow_dir: str) -> "Settings":
        """Return settings that the seed decides; half of them make windows and memory so small that there is no room."""
        chance = run.world.random
        side = chance.choice((4, 32, 200, 400))
        on_full: Literal["wait", "overflow", "raise"] = chance.choice(("wait", "wait", "overflow", "overflow", "raise"))
        options: dict[str, Any] = {
            "on_full": on_full,
            "placement": chance.choice((None, None, None, "round-robin", "hash", "space", "chunk:3")),
        }
        if chance.random() < 0.5:
            options["window_puts_max"] = chance.choice((1, 2, 5))
        if chance.random() < 0.3:
            options["memory_bytes_max"] = chance.choice((1, 5)) * side * side * 2
        if on_full == "overflow":
            options["overflow_dir"] = overflow_dir
            options["overflow_full"] = chance.choice(("wait", "wait", "raise"))
            frames = chance.choice((4, 1000))
            options["overflow_options"] = {
                "bytes_max": frames * (side * side * 2 + 200),
                "reserve_bytes": 0,
                "sync": chance.choice(("window", "each")),
            }
        compression: Compression = chance.choice(("raw", "huffman", "chunks")) if side < 200 else "raw"
        return cls(side, chance.choice((0.001, 0.05, 0.5, 1.0)), compression, options)


@dataclass(slots=True)
class Film:
    """One series on its way: *accepted* puts by path, *spilled* those that only the overflow had, *receipts* by path."""

    run: "Run"
    client: ClientMachine
    settings: Settings
    writer: SeriesWriter
    accepted: dict[str, Put] = field(default_factory=dict)
    spilled: set[str] = field(default_factory=set)
    receipts: dict[str, int] = field(default_factory=dict)

    def check(self) -> None:
        """Look whether the account is right and memory is bounded."""
        streamer = self.writer._streamer  # noqa: SLF001 - an invariant of the inside
        summary, failed = streamer.summary, len(streamer.failed)
        parts = (summary.puts, failed, streamer.outstanding, streamer.overflowed)
        if streamer.accepted != sum(parts) or min(parts) < 0:
            self.run.broken.append(f"F {self.writer.path}: accepted {streamer.accepted}, and the parts are {parts}")
        held, most = streamer._account.held, self.settings.options.get("memory_bytes_max")  # noqa: SLF001
        one = self.settings.side**2 * 2 + 200
        if held < 0 or (most is not None and held > max(most, one) + one):
            self.run.broken.append(f"F {self.writer.path}: {held} bytes are held, and {most} may be")

    async def store(self, n: int) -> None:
        """Hand over frame *n*; sometimes change the mind about it and hand over another one under its number."""
        world = self.run.world
        value = n
        if world.random.random() < 0.1:
            value = n + 1000
            storing = self._store(n, n)
            deferLater(self.client.process.reactor, world.random.uniform(0.0, 0.2), storing.cancel)
            try:
                await storing
            except (CancelledError, GranumError):
                pass
            else:
                return
        try:
            await self._store(n, value)
        except NodeBusy as error:
            if not self.settings.refuses:
                self.run.broken.append(f"F {self.writer.path}: a caller that waits was refused: {error}")
        except GranumError:
            pass

    def _store(self, n: int, value: int) -> Deferred[Any]:
        settings, world = self.settings, self.run.world
        samples = np.full((settings.side, settings.side), value, "u2")
        samples[0, 0] = n
        body = b"".join(
            frame.encode(samples, frame_number=n, sequence_id=self.writer.image_id, compression=settings.compression)
        )
        path, invoked = f"{self.writer.path}/{frame_name(n)}", world.now

        def taken_in(node: object) -> None:
            self.accepted[path] = Put(path, digest_of(body), len(body), invoked, invoked, Outcome.INFO)
            if node is None and settings.compression == "raw" and settings.options["on_full"] == "overflow":
                self.spilled.add(path)

        return self.writer.store_frame(n, samples).addCallback(taken_in)

    async def finalise(self) -> None:
        """Finalise, again where the files behind the frames could not be stored, and note what became of each frame."""
        world, lost = self.run.world, set[str]()
        outcome = Outcome.OK
        for _ in range(FINALISE_TRIES):
            try:
                await self.writer.finalise()
            except NotReceipted as error:
                lost = set(error.paths)
                if not lost & self.accepted.keys():  # of the files behind the frames
                    lost = set()
                    await deferLater(self.client.process.reactor, 10.0)
                    continue
            except GranumError:
                await deferLater(self.client.process.reactor, 10.0)
                continue
            break
        else:
            outcome = Outcome.INFO
        self.check()
        self._note_doubled(lost)
        if outcome is Outcome.OK:
            delivered = self.accepted.keys() - lost
            strange = lost - self.accepted.keys()
            self.run.broken += [f"F {path}: reported as lost, and was never accepted" for path in sorted(strange)]
            self.run.streams.append(Streamed(tuple(self.accepted), tuple(delivered), tuple(lost)))
        for path, put in self.accepted.items():
            told = Outcome.INFO if path in lost else outcome
            self.run.puts.append(Put(path, put.digest, put.size, put.invoked, world.now, told, put.node))

    async def abort(self) -> None:
        """Stop before the end; what has no receipt may be stored or not."""
        await self.writer.abort()
        self.check()
        self._note_doubled(self.accepted.keys() - self.receipts.keys())
        self.run.puts += self.accepted.values()

    def _note_doubled(self, unknown: Collection[str]) -> None:
        """Note what the summary says, and that nothing is said of copies of what has no receipt."""
        self.run.doubled |= {str(path) for path in self.writer.summary.doubled} | set(unknown)

    def check_overflow(self, top: str) -> None:
        """Look whether each frame that only the overflow had was receipted, or still lies there."""
        kept = {path for directory in directories(top) for path in _records(directory)}
        lost = self.spilled - self.receipts.keys() - kept
        self.run.broken += [
            f"F {path}: accepted by the overflow, not receipted, and not there" for path in sorted(lost)
        ]


async def film(run: "Run", client: ClientMachine, number: int) -> None:
    """Write the series *number* of *client*, frame by frame."""
    world = run.world
    await deferLater(client.process.reactor, world.random.uniform(0.0005, 3.0))
    top = os.path.join(run.directory, f"overflow-{client.name}-{number}")
    settings = Settings.by_chance(run, top)
    receipts: dict[str, int] = {}

    def receipted(receipt: Receipt) -> None:
        receipts[str(receipt.path)] = receipts.get(str(receipt.path), 0) + 1

    try:
        writer = await SeriesWriter.create(
            client.cluster,
            series_path(client, number),
            compression=settings.compression,
            on_receipt=receipted,
            **settings.options,
        )
    except GranumError:
        return
    film = Film(run, client, settings, writer, receipts=receipts)
    frames = world.random.choice((10, 30, 80))
    stops_at = world.random.randrange(frames) if world.random.random() < 0.1 else frames
    for n in range(stops_at):
        await deferLater(client.process.reactor, world.random.uniform(0.0005, settings.pace))
        await film.store(n)
        film.check()
    if stops_at < frames:
        await film.abort()
    else:
        await film.finalise()
    film.check_overflow(top)
    run.broken += [f"F {path}: receipted {times} times" for path, times in receipts.items() if times > 1]


async def follow(run: "Run", client: ClientMachine, other: ClientMachine) -> None:
    """Follow a series of *other* while it is written; then read parts of it, and look where it lies."""
    reactor = client.process.reactor
    for _ in range(10):
        await deferLater(reactor, run.world.random.uniform(0.0005, 2.0))
        try:
            reader = await SeriesReader.open(client.cluster, series_path(other, 0))
        except GranumError:
            continue
        break
    else:
        return
    seen: list[int] = []
    frames = reader.follow(timeout_s=FOLLOW_TIMEOUT_S, ahead=run.world.random.choice((1, 3, 16)))
    invoked, failures, is_over = run.world.now, 0, False
    while not is_over and failures < 5:
        try:
            found = await frames.next()
        except GranumError:
            failures += 1
            continue
        if found is None:
            is_over = True
        else:
            seen.append(found[0])
            if found[1][0, 0] != found[0]:
                run.broken.append(f"R {reader.path}: frame {found[0]} is frame {found[1][0, 0]}")
    frames.close()
    if len(set(seen)) < len(seen):
        run.broken.append(f"R {reader.path}: a frame came twice to who followed it: {seen}")
    stated = reader.metadata.get("SizeT")
    if is_over and not failures and len(seen) != stated and not run.may_lack(invoked, run.world.now):
        run.broken.append(f"R {reader.path}: {len(seen)} frames came to who followed it, and it has {stated}")
    if reader.numbers:
        await _look_closely(run, client, reader)


async def change_minds(run: "Run", client: ClientMachine) -> None:
    """Begin reads and cancel them at any moment; each must end at once."""
    world, cluster = run.world, client.cluster
    for _ in range(world.random.randrange(5, 30)):
        await deferLater(client.process.reactor, world.random.uniform(0.0005, 1.0))
        path = world.random.choice(("/shared/1", "/race/2", "/", "/shared", series_path(client, 0)))
        verb = world.random.choice((cluster.get, cluster.listdir, cluster.stat, cluster.exists, cluster.locality))
        asking: Deferred[Any] = verb(path)
        asking.addErrback(lambda failure: failure.trap(GranumError, CancelledError) and None)
        await deferLater(client.process.reactor, world.random.choice((0.0, 0.001, 0.01, 3.0)))
        asking.cancel()
        if not asking.called:
            run.broken.append(f"C {path}: {verb.__name__} was cancelled and goes on")


def series_path(client: ClientMachine, number: int) -> str:
    """Return the path of the series *number* of *client*."""
    return f"/{client.name}.{number}.pcs"


def digest_of(body: bytes) -> str:
    """Return what the history calls the digest of *body*."""
    return hashlib.sha256(body).hexdigest()


async def _look_closely(run: "Run", client: ClientMachine, reader: SeriesReader) -> None:
    """Read a part of a frame, and compare where the frames are with which there are."""
    path = reader.path / frame_name(run.world.random.choice(reader.numbers))
    start, length = run.world.random.randrange(3000), run.world.random.choice((0, 1, 700, None))
    invoked = run.world.now
    try:
        whole = await client.cluster.get(path)
        part = await client.cluster.get(path, start=start, length=length)
    except GranumError:
        pass
    else:
        if part != whole[start : None if length is None else start + length]:
            run.broken.append(f"R {path}: {length} bytes from {start} on are not those of the file")
    try:
        locality = await reader.locality()
    except GranumError:
        return
    lie = {number for share in locality.shares for number in share.frames}
    lacks = set(reader.numbers) - lie
    if lacks and not locality.missing and not run.may_lack(invoked, run.world.now):
        run.broken.append(f"R {reader.path}: frames {sorted(lacks)} are there, and lie nowhere")


def _records(directory: str) -> list[str]:
    """Return the paths of the records in the overflow *directory* that its dockets do not name."""
    found = []
    for segment in scan(directory):
        ends = [*segment.offsets[1:], segment.size]
        for index, (begin, end) in enumerate(zip(segment.offsets, ends, strict=True)):
            if segment.first + index not in segment.delivered:
                place = Place(Token(segment.first + index), segment.number, begin, end - begin)
                found.append(str(read_record(directory, place)[0].path))
    return found
