"""How slow, how many and how much: the limits of connections and bodies, as rules without a socket.

Deadlines are on progress, never on the whole: a large body over a slow line takes as long as it takes. They are looked at
about once a second, so each may be late by that much.
"""

from dataclasses import dataclass

from granum.wire.errors import BodyTooLarge

HEAD_S = 10.0  # from the first byte of a head to its last: a head fits a few packets, and no drip extends this
BODY_WINDOW_S = 30.0  # a pause of a sender (a disk that spins up, a wireless link) is no reason to end it
BODY_BYTES_PER_S_MIN = 1024  # on average over the window; a slower sender holds a descriptor for nothing
READER_STALL_S = 60.0  # without taking a byte of what is ready; then the reader has gone, or means to hold us
NODE_STALL_S = 5.0  # between two looks: then the node was stopped or its disk held it, and peers are not to blame

CONNECTIONS_MAX = 4096  # in all: some 200 lab machines with a dozen each
CONNECTIONS_PER_ADDRESS_MAX = 256  # a rack of acquisition programs behind one address
CONNECTION_DESCRIPTORS = 2  # the socket, and the file that its put or get has open
DESCRIPTORS_RESERVED = 64  # for the store, the log, listings and mDNS
CONNECTIONS_MIN = 8  # whatever the descriptors say, a node without connections is none

HELD_BYTES_MAX = (
    64 << 20
)  # over all connections, of requests that cannot be answered yet; bodies go to the disk at once
GZIP_FREE_BYTES = 32 << 20  # an empty image of a large camera is worth a thousandfold; up to here nothing is asked
GZIP_RATIO_MAX = 100  # beyond it: images reach 10, text 30, and only a bomb goes on at the 1,032 of the format


def connections_max(descriptors: int) -> tuple[int, int]:
    """Return how many connections a process with *descriptors* may hold: in all, and from one address.

    One address alone can never take all of them.
    """
    room = (descriptors - DESCRIPTORS_RESERVED) // CONNECTION_DESCRIPTORS
    in_all = max(CONNECTIONS_MIN, min(CONNECTIONS_MAX, room))
    return in_all, min(CONNECTIONS_PER_ADDRESS_MAX, in_all * 3 // 4)


def check_expansion(coded: int, decoded: int, body_bytes_max: int) -> None:
    """Raise BodyTooLarge when *decoded* bytes out of *coded* ones are more than a gzip body may come to."""
    if decoded > body_bytes_max:
        raise BodyTooLarge(f"the body is longer than {body_bytes_max} bytes when decoded")
    if decoded > GZIP_FREE_BYTES and decoded > coded * GZIP_RATIO_MAX:
        raise BodyTooLarge(f"the gzip body grows more than {GZIP_RATIO_MAX}fold; send the bytes as they are")


@dataclass(slots=True)
class Pace:
    """Whether a body keeps up the least average, window by window; times in seconds, from any one clock."""

    since: float
    arrived: int = 0

    def is_too_slow(self, now: float) -> bool:
        """Return whether less than the least has arrived in a window that is over; then begin the next."""
        if now - self.since < BODY_WINDOW_S:
            return False
        slow = self.arrived < BODY_BYTES_PER_S_MIN * (now - self.since)
        self.since, self.arrived = now, 0
        return slow


@dataclass(slots=True)
class Budget:
    """Bytes of unanswered requests in memory, over all connections of a node."""

    most: int = HELD_BYTES_MAX
    held: int = 0

    def change(self, before: int, after: int) -> None:
        """Note that a connection that held *before* bytes now holds *after*."""
        self.held += after - before

    @property
    def is_spent(self) -> bool:
        """Whether no connection should keep more."""
        return self.held > self.most
