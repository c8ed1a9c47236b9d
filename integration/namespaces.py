"""A network of its own on one machine: hosts in network namespaces on a switch, which can be parted, healed and unplugged.

It needs root and iproute2 only. What is parted is plugged into another switch: nothing passes, multicast included, in neither
direction, and nobody is told, as with a cable that was pulled somewhere between. The switches lie in a namespace too, so
nothing is seen of them, or of their addresses, in that of the machine.
"""

import functools
import os
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Self

NET = "10.213.7"  # in no table of routes but those of the namespaces
SWITCH, ASIDE = "sw0", "sw1"
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Host:
    """One host: the namespace *space* with *address*; *port* is where it is plugged in."""

    space: str
    address: str
    port: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """What replaces itself with a command that runs there."""
        return ("ip", "netns", "exec", self.space)


@functools.cache
def obstacle() -> str:
    """Return why no network can be made here, '' when one can."""
    try:
        with Network() as network:
            network.host()
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        return f"this machine makes no network namespaces: {said}"
    return ""


class Network(AbstractContextManager["Network"]):
    """Hosts on one switch. At its end their namespaces go, and with them every interface."""

    def __init__(self) -> None:
        self._tag = f"granum-{os.getpid()}-{next(_numbers)}"
        self._spaces: list[str] = []
        self._hosts: list[Host] = []

    def host(self) -> Host:
        """Plug a new host in."""
        number = len(self._hosts) + 1
        host = Host(self._space(f"h{number}"), f"{NET}.{number}", f"p{number}")
        switch = self._spaces[0]
        _ip("-n", switch, "link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.space)
        _ip("-n", switch, "link", "set", host.port, "master", SWITCH, "up")
        _ip("-n", host.space, "address", "add", f"{host.address}/24", "dev", "eth0")
        for interface in ("lo", "eth0"):
            _ip("-n", host.space, "link", "set", interface, "up")
        _ip("-n", host.space, "route", "add", "default", "dev", "eth0")  # multicast has no other
        self._hosts.append(host)
        return host

    def part(self, hosts: Sequence[Host]) -> None:
        """Let *hosts* reach each other and nobody else."""
        for host in hosts:
            self._plug(host, ASIDE)

    def heal(self) -> None:
        """Let every host reach every other."""
        for host in self._hosts:
            self._plug(host, SWITCH)

    def _plug(self, host: Host, switch: str) -> None:
        _ip("-n", self._spaces[0], "link", "set", host.port, "master", switch)

    def _space(self, name: str) -> str:
        space = f"{self._tag}-{name}"
        _ip("netns", "add", space)
        self._spaces.append(space)
        return space

    def __enter__(self) -> Self:
        try:
            switch = self._space("switch")
            for name in (SWITCH, ASIDE):
                # With snooping the switch would forget who listens to a multicast group that nobody asks about.
                _ip("-n", switch, "link", "add", name, "type", "bridge", "mcast_snooping", "0")
                _ip("-n", switch, "link", "set", name, "up")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        for space in reversed(self._spaces):
            _ip("netns", "delete", space)
        self._spaces.clear()


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True, capture_output=True, text=True)
