"""Where a node listens: its sockets, the endpoints over them, and the names by which it is asked there.

The only place that opens a port. What listens is made before the store is opened, so that a port that cannot be had leaves
no trace in the store.
"""

import errno
import ipaddress
import socket
from collections.abc import Sequence

from twisted.internet.endpoints import AdoptedStreamServerEndpoint

from granum.wire.errors import BadConfig
from granum_node.config import NodeConfig
from granum_node.reactor import Reactor

BACKLOG = 1024  # PYME's 5 makes a fifth of 200 clients wait a second


def listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Return sockets that listen on each of *addresses*, all on *port*; 0 takes one that is free on the first of them.

    Raises BadConfig when one cannot be had; then none is kept.
    """
    listening: list[socket.socket] = []
    try:
        for address in addresses:
            listening.append(_listen(address, port))
            port = listening[0].getsockname()[1]
    except BaseException:
        for each in listening:
            each.close()
        raise
    return listening


def endpoints(reactor: Reactor, listening: Sequence[socket.socket]) -> list[AdoptedStreamServerEndpoint]:
    """Return an endpoint for each socket of *listening*, and give the sockets up to them."""
    # An endpoint closes the descriptor that it is given and listens on a copy.
    families = [each.family for each in listening]
    return [
        AdoptedStreamServerEndpoint(reactor, each.detach(), family)
        for each, family in zip(listening, families, strict=True)
    ]


def own_names(config: NodeConfig) -> list[str]:
    """Return every name and address by which the node of *config* may be asked."""
    host = socket.gethostname()
    short = host.partition(".")[0]
    names = [*config.bind, host, short, f"{short}.local", *config.names]
    if any(ipaddress.ip_address(address).is_loopback for address in config.bind):
        names.append("localhost")
    return names


def _listen(address: str, port: int) -> socket.socket:
    """Return a socket that listens on *address* and *port* (0: any); raise BadConfig when that cannot be."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:  # the gate knows IPv4 peers by their own addresses, never as ::ffff:10.0.0.7
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        match error.errno:
            case errno.EADDRINUSE:
                problem = "is taken by another program; stop that one or choose another with --port (0 = any free one)"
            case errno.EADDRNOTAVAIL:
                problem = "cannot be used: this machine does not have the address; choose one that it has with --bind"
            case errno.EACCES:
                problem = "cannot be used without privileges; choose one above 1023 with --port"
            case _:
                problem = f"cannot be used: {error.strerror}"
        raise BadConfig(f"port {port} on {address} {problem}") from error
    return listening
