"""Discovery: where advertisements come from, and how they come by mDNS.

Each source tells a sink what it hears; what that means the roster decides. A source *settles* once every node that it can
find at the moment has had time to be found. Whatever blocks runs in threads of the reactor's pool or of zeroconf. The
address is the one in the answer that carries the advertisement; names are never looked up elsewhere, PYME's are no host names.
"""

from collections.abc import Callable
from typing import Any, Protocol

import ifaddr
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zeroconf import InterfaceChoice, IPVersion, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from granum.wire.advert import SERVICE_TYPE, Advertisement, from_mdns

SETTLE_S = 1.5  # zeroconf asks within 0.12 s of its start and again 1 s later; an answer may take 0.12 s and one loss
TYPE_SRV, CLASS_IN = 33, 1  # of DNS (RFC 2782, RFC 1035)
RESOLVE_TIMEOUT_MS = 3000  # for the parts of an advertisement that did not come with its first packet
RESOLVERS_MAX = 4  # at once: each holds a thread, of ten that files and frames need too
UNRESOLVED_MAX = 64  # waiting for them; nodes advertise whole, so more are a flood

log = Logger()


class Sink(Protocol):
    """What a source reports to, on the reactor's thread."""

    def heard(self, advertisement: Advertisement, source: str) -> None:
        """Take in an advertisement that is new or has changed."""

    def gone(self, instance: str, source: str) -> None:
        """Take in that *instance* is advertised no longer."""

    def failed(self, instance: str, source: str, cause: BaseException) -> None:
        """Take in that *instance*, advertised still, does not answer."""


class Source(Protocol):
    """One way to hear of nodes."""

    def start(self, sink: Sink) -> Deferred[None]:
        """Begin to listen; fires when settled, and does not fail."""

    def stop(self) -> Deferred[None]:
        """End; fires when every socket and thread is released. The sink hears nothing more."""

    def describe(self) -> str:
        """Say where was looked, to stand in a sentence: 'mDNS on 127.0.0.1'."""


class ZeroconfSource:
    """Nodes that advertise by mDNS on any interface of this machine, loopback included."""

    name = "mdns"

    def __init__(self, reactor: Any) -> None:  # Any: a reactor with threads and time
        self._reactor = reactor
        self._sink: Sink | None = None
        self._zeroconf: Zeroconf | None = None
        self._opening: Deferred[None] | None = None
        self._settling: IDelayedCall | None = None
        self._unavailable = ""
        self._addresses: list[str] = []
        self._change = 0  # counts all changes
        self._changes: dict[str, int] = {}  # service that is being resolved -> its latest change
        self._ids: dict[str, str] = {}  # service -> the id of its node
        self._services: dict[str, set[str]] = {}  # the other way round: a node that crashed and came back has several
        self._resolvers = DeferredSemaphore(RESOLVERS_MAX)
        self._unresolved = 0

    def start(self, sink: Sink) -> Deferred[None]:
        """Browse; fires SETTLE_S after zeroconf is ready, at once when there is no multicast.

        Nodes that were heard of but not resolved by then delay it, for RESOLVE_TIMEOUT_MS at most.
        """
        self._sink = sink
        self._opening = Deferred.fromCoroutine(self._open())
        opened: Deferred[None] = Deferred()
        self._opening.addBoth(lambda _: opened.callback(None))
        return opened.addCallback(self._settle)

    def stop(self) -> Deferred[None]:
        """Close zeroconf; fires when its threads are told to end."""
        self._sink = None
        if self._settling is not None and self._settling.active():
            self._settling.cancel()
        return Deferred.fromCoroutine(self._close())

    def describe(self) -> str:
        """Say on which addresses, or why not at all."""
        if self._unavailable:
            return f"mDNS (not available: {self._unavailable})"
        return f"mDNS on {', '.join(self._addresses)}"

    async def _open(self) -> None:
        try:
            self._zeroconf, self._addresses = await self._in_thread(self._browse)
        except Exception as error:  # noqa: BLE001 - a machine without multicast raises whatever its kernel says
            self._unavailable = str(error) or type(error).__name__
            log.info("mDNS is not available: {error}", error=error)

    def _browse(self) -> tuple[Zeroconf, list[str]]:
        zeroconf = Zeroconf(interfaces=InterfaceChoice.All, ip_version=IPVersion.V4Only)
        ServiceBrowser(zeroconf, SERVICE_TYPE, handlers=[self._on_change])
        addresses = {address.ip for adapter in ifaddr.get_adapters() for address in adapter.ips if address.is_IPv4}
        return zeroconf, sorted(str(address) for address in addresses)

    def _settle(self, _: None) -> Deferred[None]:
        settled: Deferred[None] = Deferred()
        delay = 0 if self._unavailable else SETTLE_S
        self._settling = self._reactor.callLater(delay, self._try_to_settle, settled, RESOLVE_TIMEOUT_MS // 100)
        return settled

    def _try_to_settle(self, settled: Deferred[None], turns: int) -> None:
        if self._unresolved and turns:
            self._settling = self._reactor.callLater(0.1, self._try_to_settle, settled, turns - 1)
        else:
            settled.callback(None)

    async def _close(self) -> None:
        if self._opening is not None:
            await self._opening
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            await self._in_thread(zeroconf.close)

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:  # noqa: ARG002
        """Pass on a change; zeroconf calls this by keyword, in a thread of its own."""
        self._reactor.callFromThread(self._changed, zeroconf, name, state_change is not ServiceStateChange.Removed)

    def _changed(self, zeroconf: Zeroconf, service: str, is_there: bool) -> None:  # noqa: FBT001
        self._changes.pop(service, None)  # what is on its way is old
        if not is_there:
            self._forget(service)
            if self._sink is not None:
                self._sink.gone(service.removesuffix("." + SERVICE_TYPE), self.name)
            return
        advertisement = _from_cache(zeroconf, service)
        if advertisement is not None:
            self._tell(zeroconf, service, advertisement)
        elif self._unresolved < UNRESOLVED_MAX:
            self._unresolved += 1
            self._change += 1
            self._changes[service] = self._change
            asked = self._resolvers.run(self._in_thread, _resolve, zeroconf, service)
            asked.addErrback(lambda failure: log.debug("{service}: {error}", service=service, error=failure.value))
            asked.addCallback(self._resolved, zeroconf, service, self._change)

    def _resolved(self, advertisement: Advertisement | None, zeroconf: Zeroconf, service: str, change: int) -> None:
        self._unresolved -= 1
        if self._changes.get(service) != change:
            return
        del self._changes[service]
        if advertisement is not None:
            self._tell(zeroconf, service, advertisement)

    def _tell(self, zeroconf: Zeroconf, service: str, advertisement: Advertisement) -> None:
        """Tell the sink, unless the node has said since that it is elsewhere.

        What a node said before it crashed stays in zeroconf's cache, and changes with the address record that it shares with
        what the node has said after it came back.
        """
        node_id = advertisement.node_id
        if node_id:
            self._forget(service)
            self._ids[service] = node_id
            services = self._services.setdefault(node_id, set())
            services.add(service)
            if len(services) > 1 and max(services, key=lambda each: _received(zeroconf, each)) != service:
                return
        if self._sink is not None:
            self._sink.heard(advertisement, self.name)

    def _forget(self, service: str) -> None:
        node_id = self._ids.pop(service, "")
        if node_id:
            self._services[node_id].discard(service)
            if not self._services[node_id]:
                del self._services[node_id]

    def _in_thread(self, function: Callable[..., Any], *arguments: object) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)


def _from_cache(zeroconf: Zeroconf, service: str) -> Advertisement | None:
    """Return the advertisement of *service* when all of it came with its first packet, which is the rule."""
    found = ServiceInfo(SERVICE_TYPE, service)
    return _advertisement(service, found) if found.load_from_cache(zeroconf) else None


def _received(zeroconf: Zeroconf, service: str) -> float:
    """Return when it was received where *service* listens, by zeroconf's clock; 0.0 when it is not known any longer."""
    return max(
        (record.created for record in zeroconf.cache.get_all_by_details(service, TYPE_SRV, CLASS_IN)), default=0.0
    )


def _resolve(zeroconf: Zeroconf, service: str) -> Advertisement | None:
    """Return the advertisement of *service*, None when it lacks address or port. Blocks."""
    found = zeroconf.get_service_info(SERVICE_TYPE, service, timeout=RESOLVE_TIMEOUT_MS)
    return None if found is None else _advertisement(service, found)


def _advertisement(service: str, found: ServiceInfo) -> Advertisement | None:
    addresses = found.parsed_addresses(IPVersion.V4Only)
    if not addresses or not found.port:
        return None
    return from_mdns(service, addresses[0], found.port, found.properties)
