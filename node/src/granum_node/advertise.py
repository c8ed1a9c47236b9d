"""Making a node known: by mDNS on the network it serves, or in the registry that PYME keeps on one machine.

Both are told after the node listens and before it stops. zeroconf and sqlite block, so both run in threads of the pool that
is handed in. A node that cannot be advertised still serves; it says so in its log.
"""

import os
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zeroconf import NonUniqueNameException, ServiceInfo, Zeroconf

from granum.wire.advert import (
    REGISTRY_DELETE,
    REGISTRY_FILE,
    REGISTRY_INSERT,
    REGISTRY_SCHEMA,
    SERVICE_TYPE,
    Advertisement,
    instance_name,
    properties,
)

NAMES_TRIED = 8  # when another machine of the same name has a node with our process id
REGISTRY_WAIT_S = 5.0  # for another process that writes the registry at this moment

Outcome = TypeVar("Outcome")
InThread = Callable[[Callable[[], None]], "Deferred[None]"]
_log = Logger()


class Advertiser(Protocol):
    """Makes a node known and forgotten again."""

    def announce(self) -> None:
        """Make the node known; may block for seconds. Raises OSError or sqlite3.Error."""

    def withdraw(self) -> None:
        """Say goodbye; may block. Does nothing unless announced."""


class MdnsAdvertiser:
    """Advertises by mDNS on the interface of the node's own address, and on no other."""

    def __init__(self, advertisement: Advertisement) -> None:
        """Advertise *advertisement*; its instance name gets another number when it is taken on the network."""
        self._advertisement = advertisement
        self._zeroconf: Zeroconf | None = None

    def announce(self) -> None:
        """Probe for the name and register it; takes about two seconds."""
        ours = self._advertisement
        zeroconf = Zeroconf(interfaces=[ours.address])
        try:
            for turn in range(NAMES_TRIED):
                number = os.getpid() + turn * 10_000_000
                instance = instance_name(ours.cluster, ours.computer, number) if turn else ours.instance
                with suppress(NonUniqueNameException):
                    zeroconf.register_service(_service(ours, instance))
                    self._zeroconf = zeroconf
                    return
        finally:
            if self._zeroconf is None:
                zeroconf.close()
        raise OSError(f"the name {ours.instance!r} is taken on this network by {NAMES_TRIED} others")

    def withdraw(self) -> None:
        """Send the goodbye."""
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            zeroconf.unregister_all_services()
            zeroconf.close()


class RegistryAdvertiser:
    """Advertises in PYME's registry, an sqlite file in the directory for temporary files; for loopback only."""

    def __init__(self, advertisement: Advertisement, file: str, wall_clock: Callable[[], float] = time.time) -> None:
        """Keep a row for *advertisement* in *file*."""
        self._advertisement = advertisement
        self._file = file
        self._clock = wall_clock

    def announce(self) -> None:
        """Insert the row."""
        ours = self._advertisement
        with closing(sqlite3.connect(self._file, timeout=REGISTRY_WAIT_S)) as registry, registry:
            registry.execute(REGISTRY_SCHEMA)
            registry.execute(REGISTRY_DELETE, (ours.instance,))
            registry.execute(REGISTRY_INSERT, (ours.instance, ours.address, ours.port, self._clock()))

    def withdraw(self) -> None:
        """Delete the row."""
        with closing(sqlite3.connect(self._file, timeout=REGISTRY_WAIT_S)) as registry, registry:
            registry.execute(REGISTRY_SCHEMA)
            registry.execute(REGISTRY_DELETE, (self._advertisement.instance,))


def make_advertiser(how: str, advertisement: Advertisement) -> Advertiser | None:
    """Return what advertises in the way *how* ('mdns', 'local' or 'off')."""
    if how == "mdns":
        return MdnsAdvertiser(advertisement)
    if how == "local":
        return RegistryAdvertiser(advertisement, os.path.join(tempfile.gettempdir(), REGISTRY_FILE))
    return None


def computer_name(environment: "os._Environ[str] | dict[str, str]") -> str:
    """Return this machine's name as PYME has it: up to the first dot, `PYME_COMPUTERNAME` winning."""
    return environment.get("PYME_COMPUTERNAME") or socket.gethostname().partition(".")[0]


def _service(ours: Advertisement, instance: str) -> ServiceInfo:
    return ServiceInfo(
        SERVICE_TYPE,
        f"{instance}.{SERVICE_TYPE}",
        port=ours.port,
        addresses=[socket.inet_aton(ours.address)],
        properties=properties(ours.node_id, ours.version),
        # Of its own, since two nodes of one machine may sit on two addresses, and one record must not claim the other's.
        server=f"granum-{ours.node_id}.local.",
    )
