"""Discovery by mDNS, for real, on the loopback interface: nodes come, move and say goodbye."""

import os
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from zeroconf import ServiceInfo, Zeroconf

from granum import discovery
from granum.discovery import ZeroconfSource
from granum.wire.advert import SERVICE_TYPE, Advertisement, instance_name, properties

INSTANCE = instance_name("test-discovery", "scope1", os.getpid())


class Heard:
    """A sink that keeps what it hears and wakes who waits for something."""

    def __init__(self) -> None:
        self.known: dict[str, Advertisement] = {}
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def heard(self, advertisement: Advertisement, source: str) -> None:
        if advertisement.cluster == "test-discovery":  # other nodes may be on this network
            self.known[advertisement.instance] = advertisement
        self._wake()

    def gone(self, instance: str, source: str) -> None:
        self.known.pop(instance, None)
        self._wake()

    def failed(self, instance: str, source: str, cause: BaseException) -> None:
        raise AssertionError("mDNS never says so")

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        met: Deferred[None] = Deferred()
        self._waiting.append((condition, met))
        self._wake()
        return met.addTimeout(10, reactor)  # type: ignore[arg-type]

    def _wake(self) -> None:
        for condition, met in tuple(self._waiting):
            if condition():
                self._waiting.remove((condition, met))
                met.callback(None)


def service(port: int) -> ServiceInfo:
    return ServiceInfo(
        SERVICE_TYPE,
        f"{INSTANCE}.{SERVICE_TYPE}",
        addresses=[bytes([127, 0, 0, 1])],
        port=port,
        properties=properties("id-1", "1.0"),
        server="no such host [x].local.",  # as PYME has it: this name must never be resolved
    )


@pytest_twisted.async_yield_fixture
async def advertiser() -> AsyncIterator[Zeroconf]:
    try:
        zeroconf = await deferToThread(lambda: Zeroconf(interfaces=["127.0.0.1"]))
    except OSError as error:
        pytest.skip(f"this machine has no multicast: {error}")
    yield zeroconf
    await deferToThread(zeroconf.close)


@pytest_twisted.ensureDeferred
async def test_a_node_is_heard_moves_and_says_goodbye(advertiser: Zeroconf) -> None:
    sink, source = Heard(), ZeroconfSource(reactor)
    await deferToThread(advertiser.register_service, service(4001), cooperating_responders=True)
    await source.start(sink)
    assert sink.known == {INSTANCE: Advertisement(INSTANCE, "127.0.0.1", 4001, "id-1", "1.0")}
    await deferToThread(advertiser.update_service, service(4002))
    await sink.until(lambda: sink.known[INSTANCE].port == 4002)
    await deferToThread(advertiser.unregister_all_services)
    await sink.until(lambda: not sink.known)
    await source.stop()


def test_what_a_node_said_before_it_crashed_does_not_count_again_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its old record changes with the address that it shares with the new one; nothing says that it is old but its age."""
    received = {"PID:1": 1.0, "PID:2": 2.0}
    monkeypatch.setattr(discovery, "_received", lambda _, service: received[service])
    monkeypatch.setattr(
        discovery,
        "_from_cache",
        lambda _, service: Advertisement(f"PYMEDataServer [test-discovery]:n - {service}", "10.0.0.1", 1, "id-1"),
    )
    source, told = ZeroconfSource(reactor), []
    sink = source._sink = Heard()
    sink.heard = lambda advertisement, _: told.append(advertisement.instance[-5:])  # type: ignore[method-assign]
    for service in ("PID:1", "PID:2", "PID:1"):
        source._changed(None, service, True)  # type: ignore[arg-type]
    assert told == ["PID:1", "PID:2"]
    received["PID:1"] = 3.0  # said anew: a process may get the number of an earlier one
    source._changed(None, "PID:1", True)  # type: ignore[arg-type]
    source._changed(None, "PID:1", False)  # type: ignore[arg-type]
    source._changed(None, "PID:2", True)  # type: ignore[arg-type]
    assert told[2:] == ["PID:1", "PID:2"]
    source._changed(None, "PID:2", False)  # type: ignore[arg-type]
    assert (source._ids, source._services) == ({}, {})


@pytest_twisted.ensureDeferred
async def test_the_source_says_where_it_listens(advertiser: Zeroconf) -> None:
    source = ZeroconfSource(reactor)
    await source.start(Heard())
    assert source.describe().startswith("mDNS on ")
    assert "127.0.0.1" in source.describe()
    await source.stop()


@pytest_twisted.ensureDeferred
async def test_a_machine_without_multicast_settles_at_once_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: Any) -> None:
        raise OSError(19, "No such device")

    monkeypatch.setattr("granum.discovery.Zeroconf", refused)
    source = ZeroconfSource(reactor)
    before = reactor.seconds()
    await source.start(Heard())
    assert source.describe() == "mDNS (not available: [Errno 19] No such device)"
    assert reactor.seconds() - before < 1.0
    await source.stop()


@pytest_twisted.ensureDeferred
async def test_a_source_can_be_stopped_while_it_starts() -> None:
    source = ZeroconfSource(reactor)
    source.start(Heard())
    await source.stop()


@pytest_twisted.ensureDeferred
async def test_a_node_that_is_still_being_resolved_is_waited_for(
    advertiser: Zeroconf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the first view of a program would lack its files and call itself complete."""
    monkeypatch.setattr("granum.discovery.SETTLE_S", 1.2)  # for the first packet on a busy machine
    answer, resolve = threading.Event(), discovery._resolve

    def resolve_late(zeroconf: Zeroconf, name: str) -> Any:
        answer.wait(5)
        return resolve(zeroconf, name)

    monkeypatch.setattr("granum.discovery._resolve", resolve_late)
    sink, source = Heard(), ZeroconfSource(reactor)
    await deferToThread(advertiser.register_service, service(4003), cooperating_responders=True)
    reactor.callLater(1.8, answer.set)
    await source.start(sink)
    assert list(sink.known) == [INSTANCE]
    await source.stop()


@pytest_twisted.ensureDeferred
async def test_resolving_many_nodes_leaves_threads_for_others_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_from_cache", lambda *_: None)
    source, sink, asked = ZeroconfSource(reactor), Heard(), []

    def in_thread(*what: Any) -> Deferred[Any]:
        asked.append(what)
        return Deferred()

    source._sink, source._in_thread = sink, in_thread  # type: ignore[method-assign]
    for number in range(1000):
        source._changed(None, f"node {number}", True)  # type: ignore[arg-type]
    assert len(asked) == 4
    assert (source._unresolved, len(source._changes)) == (64, 64)


def test_what_comes_whole_is_heard_at_once_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [Advertisement(f"PYMEDataServer [test-discovery]:n - PID:{n}", "10.0.0.1", 1) for n in range(1000)]
    monkeypatch.setattr(discovery, "_from_cache", lambda _, service: said[int(service)])
    source, sink = ZeroconfSource(reactor), Heard()
    source._sink = sink
    for n in range(1000):
        source._changed(None, str(n), True)  # type: ignore[arg-type]
    assert (len(sink.known), source._unresolved, source._changes) == (1000, 0, {})
