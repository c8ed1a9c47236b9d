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
from zeroconf import InterfaceChoice, IPVersion, ServiceBrowser, ServiceStateChange, Zeroconf

from granum.wire.advert import SERVICE_TYPE, Advertisement, from_mdns

SETTLE_S = 1.5  # zeroconf asks within 0.12 s of its start and again 1 s later; an answer may take 0.12 s and one loss
RESOLVE_TIMEOUT_MS = 3000  # for the parts of an advertisement that did not come with its first packet
RESOLVERS_MAX = 4  # at once: each holds a thread, of ten that files and frames need too

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
        self._changes: dict[str, int] = {}  # service -> number of its latest change
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
        change = self._changes[service] = self._changes.get(service, 0) + 1
        if not is_there:
            if self._sink is not None:
                self._sink.gone(service.removesuffix("." + SERVICE_TYPE), self.name)
            return
        self._unresolved += 1
        asked = self._resolvers.run(self._in_thread, _resolve, zeroconf, service)
        asked.addErrback(lambda failure: log.debug("{service}: {error}", service=service, error=failure.value))
        asked.addCallback(self._resolved, service, change)

    def _resolved(self, advertisement: Advertisement | None, service: str, change: int) -> None:
        self._unresolved -= 1
        if advertisement is not None and self._sink is not None and self._changes[service] == change:
            self._sink.heard(advertisement, self.name)

    def _in_thread(self, function: Callable[..., Any], *arguments: object) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)


def _resolve(zeroconf: Zeroconf, service: str) -> Advertisement | None:
    """Return the advertisement of *service*, None when it lacks address or port. Blocks."""
    found = zeroconf.get_service_info(SERVICE_TYPE, service, timeout=RESOLVE_TIMEOUT_MS)
    addresses = found.parsed_addresses(IPVersion.V4Only) if found is not None else []
    if found is None or not addresses or not found.port:
        return None
    return from_mdns(service, addresses[0], found.port, found.properties)
