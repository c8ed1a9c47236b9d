"""The node's own endpoints: what it says about itself, and the one thing that can be asked of it, to drain."""

import ipaddress
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from granum.wire.errors import BadPath, NodeBusy, NotAllowed
from granum.wire.paths import Target
from granum_node.http.door import Door
from granum_node.http.meters import Connection, Meters
from granum_node.http.metrics import CONTENT_TYPE, Exposition
from granum_node.http.reply import Reply
from granum_node.http.state import State, States
from granum_node.http.status import Identity, status_body
from granum_node.storage.publish import Publisher
from granum_node.storage.space import Space
from granum_node.storage.store import Store

_JSON = {"Content-Type": "application/json; charset=utf-8"}
_TEXT = {"Content-Type": "text/plain; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Answers what is asked of the node itself; *connections* are the open ones and *started* is when it began."""

    identity: Identity
    store: Store
    publisher: Publisher
    space: Space
    states: States
    meters: Meters
    connections: Collection[Connection]
    door: Door
    clock: IReactorTime
    started: float

    def begin(self, reply: Reply, target: Target) -> None:
        """Answer a request for the endpoint that *target* names; raise BadPath when there is none."""
        table = self._puts if reply.request.verb == "PUT" else self._reads
        answer = table().get(target.endpoint)
        if answer is None or target.path.parts:
            raise BadPath(f"/{target.endpoint}: names that begin with '__' belong to the node, and it has no such one")
        answer(reply)

    def _reads(self) -> Mapping[str, Callable[[Reply], None]]:
        return {
            "__status": self._status,
            "__healthz": self._healthz,
            "__readyz": self._readyz,
            "__drain": self._draining,
            "__metrics": self._metrics,
        }

    def _puts(self) -> Mapping[str, Callable[[Reply], None]]:
        return {
            "__drain": lambda reply: self._drain(reply, on=True),
            "__undrain": lambda reply: self._drain(reply, on=False),
        }

    def _status(self, reply: Reply) -> None:
        answers = {f"{verb} {status}": number for (verb, status), number in sorted(self.meters.answers.items())}
        uptime_s = self.clock.seconds() - self.started
        reply.send(200, _JSON, status_body(self.identity, self.store, self.publisher, self.states, uptime_s, answers))

    def _healthz(self, reply: Reply) -> None:
        reply.send(200, _TEXT, b"ok\n")

    def _readyz(self, reply: Reply) -> None:
        _, refusal = self.states.now()
        if refusal is not None:
            raise NodeBusy(str(refusal))
        reply.send(200, _TEXT, b"ok\n")

    def _draining(self, reply: Reply) -> None:
        reply.send(200, _JSON, json.dumps({"draining": self.states.draining}).encode() + b"\n")

    def _drain(self, reply: Reply, *, on: bool) -> None:
        if not _is_loopback(reply.peer) and reply.peer != self.identity.address:
            raise NotAllowed("a node is drained from its own machine only; ask there, at an address that it serves on")
        self.states.draining = on
        self._draining(reply)

    def _metrics(self, reply: Reply) -> None:
        reply.send(200, {"Content-Type": CONTENT_TYPE}, self._page().encode())

    def _page(self) -> Exposition:
        page = Exposition()
        meters, room = self.meters, self.space.room
        state, _ = self.states.now()
        received, sent = meters.bytes_moved(self.connections)
        answers = sorted(meters.answers.items())
        conflicts = sum(number for (verb, status), number in answers if verb == "PUT" and status in {405, 412})
        labels = {"version": self.identity.version, "durability": self.publisher.durability}
        page.gauge("build_info", "Which program this is; always 1.", 1, labels)
        page.counters(
            "requests_total",
            "Answers by method and status.",
            [({"method": verb, "code": str(status)}, number) for (verb, status), number in answers],
        )
        page.histograms(
            "request_duration_seconds",
            "From the head of a request to its answer being ready to be sent.",
            [({"method": verb}, histogram) for verb, histogram in meters.durations.items()],
        )
        unanswered = sum(each.unanswered for each in self.connections)
        page.gauge("inflight_requests", "Requests that have no answer yet.", unanswered)
        page.gauge("open_connections", "Connections.", len(self.connections))
        page.counters(
            "refused_connections_total",
            "Connections closed at once: of an address that is not allowed, or beyond the number that is.",
            [({"reason": "address"}, self.door.strangers), ({"reason": "number"}, self.door.crowded_out)],
        )
        page.counter("received_bytes_total", "Bytes read from connections.", received)
        page.counter("sent_bytes_total", "Bytes written to connections.", sent)
        page.gauge("disk_free_bytes", "Free for the node on the file system of the store.", room.free_bytes)
        page.gauge("disk_size_bytes", "Size of the file system of the store.", room.total_bytes)
        page.histograms("fsync_duration_seconds", "Syncs of files and directories.", [({}, meters.syncs)])
        page.gauge("indexed_entries", "Entries that are kept for listings.", self.store.tree.index.entries)
        page.counter("put_conflicts_total", "Puts refused because the name is taken.", conflicts)
        self._add_scrub(page)
        page.gauge("draining", "1 while the node is being drained.", int(self.states.draining))
        page.gauge("writable", "1 while puts are taken.", int(state is State.SERVING))
        page.histograms("reactor_lag_seconds", "How late the node's loop was, sampled.", [({}, meters.lag)])
        return page

    def _add_scrub(self, page: Exposition) -> None:
        page.gauge("quarantined_files", "Files that are not what was put, out of the way.", len(self.store.quarantine))
        page.counter("digest_log_dropped_total", "Files without a record in the digest log.", self.store.log.dropped)
        scrub = self.store.scrubbing
        if scrub is None:
            return
        found = scrub.found
        page.counter("scrubbed_bytes_total", "Bytes read in search of damage.", found.bytes)
        page.counter("scrubbed_files_total", "Files read in search of damage.", found.files)
        states = {"damaged": found.damaged, "attribute_lost": found.bare, "unreadable": found.unreadable}
        page.counters(
            "scrub_found_total", "Files found not to be good.", [({"state": each}, n) for each, n in states.items()]
        )
        page.counter("scrub_cycles_total", "Complete readings of the store, over all its lives.", scrub.progress.cycles)
        age_s = scrub.age_s
        if age_s is not None:
            page.gauge("scrub_age_seconds", "Since the last complete reading, while the node ran.", age_s)


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
