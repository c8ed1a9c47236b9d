"""Telling systemd that the node is ready, stops, and lives.

The protocol is one datagram per word to the socket named in `NOTIFY_SOCKET`; see sd_notify(3). Without that variable nothing
is sent, and a supervisor that does not listen is no reason to fail. The watchdog is fed only when the reactor turns *and* the
threads that publish have answered since the last time: a node whose disk hangs serves nobody, and must not look alive.
"""

import os
import socket
from collections.abc import Mapping
from typing import Protocol

from twisted.logger import Logger

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"
_log = Logger()


class Answering(Protocol):
    """What must show that it lives: the publisher."""

    @property
    def answers(self) -> int:
        """How often it has answered, anybody."""

    def probe(self) -> None:
        """Ask for an answer."""


class Supervisor:
    """The other end of `NOTIFY_SOCKET` in *environment*, if there is one."""

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        """Take the settings for the process *pid*."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # '@': an abstract name
        self.beat_s = _beat_s(environment, pid) if address else None

    def tell(self, word: str) -> None:
        """Send *word*."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as end:
                end.sendto(word.encode(), os.fsencode(self._address))
        except OSError as error:
            _log.warn("the supervisor could not be told {word}: {error}", word=word, error=error)


class Watchdog:
    """Feeds the watchdog of *supervisor* while *publisher* answers; `beat` is to be called every `supervisor.beat_s`."""

    def __init__(self, supervisor: Supervisor, publisher: Answering) -> None:
        self._supervisor = supervisor
        self._publisher = publisher
        self._answers = publisher.answers
        self._asked = False

    def beat(self) -> None:
        """Feed, unless nothing was answered since the last beat; then ask for the next answer."""
        if self._publisher.answers != self._answers or not self._asked:
            self._supervisor.tell(WATCHDOG)
        self._answers = self._publisher.answers
        self._asked = True
        self._publisher.probe()


def _beat_s(environment: Mapping[str, str], pid: int) -> float | None:
    """Return half of the time after which the watchdog bites, as sd_watchdog_enabled(3) advises; None without one."""
    text = environment.get("WATCHDOG_USEC", "")
    meant = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
    return int(text) / 2e6 if meant and text.isascii() and text.isdigit() and int(text) else None
