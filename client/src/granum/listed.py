"""Nodes that are written down: in the registry that PYME keeps on one machine, or in a list that a person made.

Neither says whether a node is alive or which one it is, so both are asked again and again: a connection tells the first, the
node's own status the second.
"""

import ipaddress
import os
import sqlite3
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from granum.discovery import Sink
from granum.repeated import Repeated
from granum.roster import STATIC, Node
from granum.wire.advert import PORT, REGISTRY_FILE, REGISTRY_SELECT, Advertisement
from granum.wire.errors import BadConfig, BadLocator, GranumError, NodeUnreachable
from granum.wire.locator import check_cluster_name

REGISTRY_POLL_S = 2.0
REGISTRY_ROWS_MAX = 256  # the latest; rows of killed processes stay for ever, and each is connected to in every round
REGISTRY_WAIT_S = 1.0  # for another process that writes the registry at this moment
CONNECT_TIMEOUT_S = 1.0  # to a node in the registry, which is on this machine or in this building
LIST_POLL_S = 5.0

log = Logger()
Ask = Callable[[Node], Awaitable[Mapping[str, object]]]  # what a node says of itself: `Transfer.status`


class _Polled(ABC):
    """What both sources are: rounds of looking, for as long as there is a sink."""

    def __init__(self, reactor: Any, ask: Ask, interval_s: float) -> None:  # Any: a reactor with threads, TCP and time
        self._reactor = reactor
        self._ask = ask
        self._sink: Sink | None = None
        self._rounds = Repeated(self._poll, interval_s, reactor)

    def start(self, sink: Sink) -> Deferred[None]:
        """Look for nodes again and again; fires when each has answered or failed once."""
        self._sink = sink
        return self._rounds.start()

    def stop(self) -> Deferred[None]:
        """End the polling."""
        self._sink = None
        return self._rounds.stop()

    @abstractmethod
    async def _poll(self) -> None:
        """Look once."""


class RegistrySource(_Polled):
    """Nodes in the registry of this machine, an sqlite *file*; a row counts while a connection can be made.

    Rows carry no node id, so each node is asked for it by *ask*. Rows of processes that were killed stay in the file for
    ever; they are left alone, because they may be another user's.
    """

    name = "registry"

    def __init__(self, reactor: Any, ask: Ask, file: str = "") -> None:  # Any: a reactor with threads, TCP and time
        super().__init__(reactor, ask, REGISTRY_POLL_S)
        self._file = file or os.path.join(tempfile.gettempdir(), REGISTRY_FILE)
        self._believed: dict[str, Advertisement] = {}  # instance -> what the sink was told
        self._unasked: set[str] = set()  # those of them that take connections and have not told who they are

    def describe(self) -> str:
        """Name the file."""
        return f"the registry {self._file}"

    async def _poll(self) -> None:
        pool = self._reactor.getThreadPool()
        rows: dict[str, Advertisement] = await deferToThreadPool(self._reactor, pool, _read_registry, self._file)
        await _all(self._check(row) for row in rows.values())
        for instance in self._believed.keys() - rows.keys():
            self._forget(instance)
            if self._sink is not None:
                self._sink.gone(instance, self.name)

    async def _check(self, row: Advertisement) -> None:
        known = self._believed.get(row.instance)
        try:
            endpoint = TCP4ClientEndpoint(self._reactor, row.address, row.port, timeout=CONNECT_TIMEOUT_S)
            probe = await connectProtocol(endpoint, Protocol())
            if probe.transport is not None:
                probe.transport.loseConnection()
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - Twisted's network errors have no common base but this
            if known is not None and self._sink is not None:  # it crashed, else it had taken its row away
                self._forget(row.instance)
                gone = f"node {row.computer} at {row.address}:{row.port} no longer listens; has it crashed?"
                self._sink.failed(row.instance, self.name, NodeUnreachable(gone))
                self._sink.gone(row.instance, self.name)
            return
        cause: GranumError | None = None
        if known is None or (known.address, known.port) != (row.address, row.port) or row.instance in self._unasked:
            try:
                status = await self._ask(_node_to_ask(row.instance, row.address, row.port))
                known = replace(row, node_id=str(status.get("node_id", "")))
                self._unasked.discard(row.instance)
            except GranumError as error:  # it hangs: a node all the same, and asked again in the next round
                known, cause = row, error
                self._unasked.add(row.instance)
        self._believed[row.instance] = known
        if self._sink is not None:
            self._sink.heard(known, self.name)
            if cause is not None:
                self._sink.failed(row.instance, self.name, cause)

    def _forget(self, instance: str) -> None:
        del self._believed[instance]
        self._unasked.discard(instance)


def _read_registry(file: str) -> dict[str, Advertisement]:
    """Return the rows of the registry *file* that name an IPv4 address and a port; none where there is no file. Blocks."""
    rows: dict[str, Advertisement] = {}
    try:
        uri = f"file:{quote(file)}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=REGISTRY_WAIT_S)) as registry:
            for instance, address, port in registry.execute(REGISTRY_SELECT):
                if _is_ipv4(address) and isinstance(port, int) and 0 < port < 65536:
                    rows.pop(str(instance), None)  # so that it stands behind those that are older
                    rows[str(instance)] = Advertisement(str(instance), address, port)
                    if len(rows) > REGISTRY_ROWS_MAX:
                        del rows[next(iter(rows))]
    except sqlite3.Error as error:
        log.debug("the registry cannot be read: {error}", error=error)
    return rows


class StaticSource(_Polled):
    """Nodes named in a list of 'host:port' or 'host'. They are known even while they do not answer, by that name.

    A node is asked by *ask* for its node id, its cluster and its computer's name; a PYME node tells the last alone.
    *default_port* is that of hosts without one. Raises BadConfig for a host that is none.
    """

    name = STATIC

    def __init__(self, hosts: Sequence[str], reactor: Any, ask: Ask, default_port: int = PORT) -> None:
        super().__init__(reactor, ask, LIST_POLL_S)
        self._hosts = {f"{address}:{port}": (address, port) for address, port in _parsed(hosts, default_port)}
        self._told: dict[str, Advertisement] = {}  # host -> what the sink was told

    def describe(self) -> str:
        """Name the nodes."""
        return f"the list {', '.join(self._hosts)}"

    async def _poll(self) -> None:
        await _all(self._check(host, *where) for host, where in self._hosts.items())

    async def _check(self, host: str, name: str, port: int) -> None:
        cause: GranumError | None = None
        said = self._told.get(host, Advertisement(host, name, port))
        try:
            address = await self._reactor.resolve(name)
            status = await self._ask(_node_to_ask(host, address, port))
            said = _identified(host, address, port, status)
        except GranumError as error:
            cause = error
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - as Twisted's resolvers have it
            cause = NodeUnreachable(f"node {host}: there is no machine of that name ({error})")
        before = self._told.get(host)
        self._told[host] = said
        if self._sink is None:
            return
        if before is not None and before.instance != said.instance:
            self._sink.gone(before.instance, self.name)
        self._sink.heard(said, self.name)
        if cause is not None:
            self._sink.failed(said.instance, self.name, cause)


def _parsed(hosts: Sequence[str], default_port: int) -> list[tuple[str, int]]:
    found = []
    for host in hosts:
        name, colon, port = host.strip().partition(":")
        if not name or (colon and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536)):
            raise BadConfig(
                f"{host!r} is not a node; write host:port, with the name or the IPv4 address of its machine"
            )
        found.append((name, int(port) if colon else default_port))
    return found


def _identified(host: str, address: str, port: int, status: Mapping[str, object]) -> Advertisement:
    """Return the advertisement that the node listed as *host* would make, as far as its *status* tells."""
    computer, own = status.get("ComputerName"), status.get("Granum")
    cluster = own.get("cluster") if isinstance(own, dict) else None
    try:
        named = check_cluster_name(cluster) if isinstance(cluster, str) else ""
    except BadLocator:
        named = ""
    is_told = isinstance(computer, str) and computer
    instance = f"PYMEDataServer [{named}]:{computer} - {host}" if is_told else host
    return Advertisement(instance, address, port, str(status.get("node_id", "")))


def _node_to_ask(key: str, address: str, port: int) -> Node:
    return Node(key, f"{address}:{port}", address, port, "")


def _is_ipv4(address: object) -> bool:
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return isinstance(address, str)


async def _all(checks: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Await all of *checks* at once; raise the first error."""
    await DeferredList([Deferred.fromCoroutine(check) for check in checks], fireOnOneErrback=True, consumeErrors=True)
