"""Planted bugs, the controls of the simulation: each is one that storage systems have had, and each must be found.

They are planted in the real classes, in a process that ends with its run. The numbers are those of the list of planted bugs:
1 a file is not synced, 4 the receipt goes out before the commit, 5 a file is renamed over another, 7 a put that came back goes to
another node and nobody notes where it was, 8 a node that does not answer is taken to have nothing, 9 a put leaves its window when
it is sent, 10 a stream is closed with its windows full.
"""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from granum.streaming.channel import Channel, Piece
from granum.streaming.rerouting import Rerouting
from granum.streaming.streamer import Streamer
from granum.transfer import Receipt, Transfer
from granum.wire.errors import NodeUnreachable
from granum.wire.paths import ClusterPath
from granum_node.storage.commit import Commit
from granum_node.storage.publish import Done
from granum_node.storage.spool import SpooledFile


def plant(bug: str) -> None:
    """Plant the bug of that name in this process."""
    BUGS[bug]()


def _replace(kind: type, name: str, flawed: object) -> None:
    setattr(kind, name, flawed)


def _no_sync() -> None:
    _replace(SpooledFile, "sync", lambda _: None)


def _early_receipt() -> None:
    publish = Commit.publish

    def publish_and_forget(self: Commit, file: SpooledFile, path: ClusterPath, done: Done) -> None:
        publish(self, file, path, lambda _: None)
        done(None)

    _replace(Commit, "publish", publish_and_forget)


def _rename_over() -> None:
    link = SpooledFile.link

    def rename(self: SpooledFile, directory: int, name: str) -> None:
        aside = f"{name}.{id(self)}"
        link(self, directory, aside)
        os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)

    _replace(SpooledFile, "link", rename)


def _silence_is_absence() -> None:
    def guess(ask: Callable[..., Any]) -> Callable[..., Any]:
        async def asked(*arguments: Any) -> Any:
            try:
                return await ask(*arguments)
            except NodeUnreachable:
                return None

        return asked

    for verb in ("listing", "head"):
        setattr(Transfer, verb, guess(getattr(Transfer, verb)))


def _freed_when_sent() -> None:
    put = Channel.put

    def sent(self: Channel, path: ClusterPath, pieces: Iterable[Piece], *more: Any, **named: Any) -> Deferred[Receipt]:
        kept = tuple(pieces)
        put(self, path, kept, *more, **named).addErrback(lambda _: None)
        size = sum(memoryview(piece).nbytes for piece in kept)
        return succeed(Receipt(path, self.node, size, time.time(), "commit"))

    _replace(Channel, "put", sent)


def _closed_with_full_windows() -> None:
    async def at_once(_: Streamer) -> None:
        return None

    _replace(Streamer, "_flush", at_once)


def _elsewhere_at_once() -> None:
    def given_back(self: Rerouting, put: Any, _lane: object, _error: BaseException) -> None:
        self.returned.append(put)

    _replace(Rerouting, "_given_back", given_back)


BUGS: dict[str, Callable[[], None]] = {
    "1": _no_sync,
    "4": _early_receipt,
    "5": _rename_over,
    "7": _elsewhere_at_once,
    "8": _silence_is_absence,
    "9": _freed_when_sent,
    "10": _closed_with_full_windows,
}
