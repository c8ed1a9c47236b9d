"""The upkeep of a store while a node serves it: its check before, its digest log, syncs in durability `relaxed`, the scrub.

Threads of their own do the work, since a disk that hangs must not take those that answer requests. What they find is told in
the log, on the reactor.
"""

from collections.abc import Callable

from twisted.logger import Logger

from granum_node.config import NodeConfig
from granum_node.storage.keeper import COMMIT_ROUND_S, Keeper
from granum_node.storage.publish import Publisher, Relaxed
from granum_node.storage.store import Store
from granum_node.storage.verify import State, Verdict

DAY_S = 86_400.0
NAMED_MAX = 100  # files that are named in the log when a store is opened; `granum-node quarantine list` names them all
BUSY_BYTES = 4 << 20  # moved between two looks: the node has much to do
_log = Logger()


def recover(store: Store, *, relaxed: bool) -> None:
    """Check *store* before it is served and log what came of it; raise StoreUnusable when its disk fails. May take long."""
    found = store.recover(relaxed=relaxed)
    if found.taken:
        _log.info("{number} files that were in the store are taken as they are", number=found.taken)
    if found.read:
        _log.warn(
            "the node was not stopped in order: {read} files were read that may not have been on the disk, "
            "{torn} of them were not whole and are in quarantine",
            read=found.read,
            torn=len(found.quarantined),
        )
    for name in found.quarantined[:NAMED_MAX]:
        _log.warn("{name!r} was not whole and is in quarantine", name=name)


class Upkeep:
    """Keeps *store* while *publisher* publishes in it; *in_reactor* makes a call on the reactor, from any thread."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        config: NodeConfig,
        in_reactor: Callable[..., object],
        synced: Callable[[float], None],
    ) -> None:
        """Tell *synced*, in a thread, how many seconds each sync took."""
        self._store = store
        self._publisher = publisher
        self._in_reactor = in_reactor
        self._moved = 0
        if isinstance(publisher, Relaxed):
            self._keeper = Keeper(
                store.log,
                config.relaxed_window_s / 2,
                sync=store.sync,
                failed=publisher.fail,
                unwritten=self._tell_unwritten,
                synced=synced,
            )
        else:
            self._keeper = Keeper(store.log, COMMIT_ROUND_S, unwritten=self._tell_unwritten)
        self.scrub = store.scrub(config.scrub_days * DAY_S, self._tell_found) if config.scrub_days else None

    def start(self) -> None:
        """Begin."""
        self._keeper.start()
        if self.scrub is not None:
            self.scrub.start()

    def watch(self, moved_bytes: int) -> None:
        """Let the scrub rest longer when much was moved since the last call: *moved_bytes* is the sum of all so far."""
        moved, self._moved = moved_bytes - self._moved, moved_bytes
        if self.scrub is not None:
            self.scrub.busy = moved > BUSY_BYTES

    def end(self) -> None:
        """Write what is left and end, in a thread; the store is marked as stopped in order only if all of it is on the disk."""
        if self.scrub is not None:
            self.scrub.stop()
        if not self._keeper.finish() or not isinstance(self._publisher, Relaxed):
            return
        try:
            self._store.mark_closed()
        except OSError as error:
            self._tell_unwritten(error)

    def _tell_unwritten(self, error: OSError) -> None:
        self._in_reactor(lambda: _log.warn("the digest log could not be written: {error}", error=error))

    def _tell_found(self, verdict: Verdict) -> None:
        def tell() -> None:
            if verdict.state is State.DAMAGED:
                is_moved = verdict.name in self._store.quarantine
                where = "was moved into quarantine" if is_moved else "is still served: the disk took no note of it"
                _log.error("{name!r} is damaged and {where}", name=verdict.name, where=where)
            elif verdict.state is State.BARE:
                _log.warn("{name!r} has lost the digest beside it; its bytes are good", name=verdict.name)
            else:
                _log.error("{name!r} cannot be read", name=verdict.name)

        self._in_reactor(tell)
