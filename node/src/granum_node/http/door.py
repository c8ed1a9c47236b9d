"""Who gets a connection: only hosts that may talk to the node, not too many for one address, not too many in all.

A stranger's connection is closed before a byte of it is read. An address that has its share is told so. When the node is
full it stops to accept, and the kernel keeps the next ones waiting; descriptors are then left for the files of those inside.
"""

from collections import Counter
from typing import Protocol as TypingProtocol

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol

from granum.wire.errors import NodeBusy
from granum_node.http.errors import status_and_text
from granum_node.http.gate import Rules
from granum_node.http.limits import connections_max
from granum_node.http.reply import HeadMaker


class AcceptingPort(TypingProtocol):
    """What the door does to a port."""

    def stopReading(self) -> None: ...  # noqa: D102, N802
    def startReading(self) -> None: ...  # noqa: D102, N802


class Door:
    """Lets connections in and counts them: *strangers* came from an address that is not allowed, *crowded_out* were too many."""

    def __init__(self, rules: Rules, descriptors: int) -> None:
        """Let in by *rules*, and so many that *descriptors*, of the whole process, suffice."""
        self.strangers = 0
        self.crowded_out = 0
        self._rules = rules
        self._most, self._most_per_address = connections_max(descriptors)
        self._inside: Counter[str] = Counter()
        self._total = 0
        self._ports: list[AcceptingPort] = []

    def knows(self, peer: str) -> bool:
        """Return whether *peer* may connect at all; count it when not."""
        if self._rules.place_of(peer) is None:
            self.strangers += 1
            return False
        return True

    def enter(self, peer: str) -> bool:
        """Return whether there is room for one more of *peer*; then it is inside until it leaves."""
        if self._total >= self._most or self._inside[peer] >= self._most_per_address:
            self.crowded_out += 1
            return False
        self._total += 1
        self._inside[peer] += 1
        if self._total >= self._most:
            for port in self._ports:
                port.stopReading()
        return True

    def leave(self, peer: str) -> None:
        """Note that a connection of *peer* is gone."""
        self._inside[peer] -= 1
        if not self._inside[peer]:
            del self._inside[peer]
        if self._total == self._most:
            for port in self._ports:
                port.startReading()
        self._total -= 1

    def accept_from(self, ports: list[AcceptingPort]) -> None:
        """Accept from *ports* while there is room; none when the node stops."""
        self._ports = ports


class TurnedAway(Protocol):
    """A connection that there is no room for: told so, and closed."""

    def __init__(self, heads: HeadMaker) -> None:
        self._heads = heads

    def connectionMade(self) -> None:
        """Answer before anything is asked."""
        status, text = status_and_text(NodeBusy("your address has too many connections to this node; close some"))
        headers = {"Content-Type": "text/plain; charset=utf-8", "Retry-After": "1"}
        head = self._heads.head(status, len(text), headers, closes=True)
        self.transport.write(head + text)  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]


def host_of(address: IAddress | None) -> str:
    """Return the IP address in what Twisted says of a peer; '' when it is none."""
    return str(getattr(address, "host", ""))
