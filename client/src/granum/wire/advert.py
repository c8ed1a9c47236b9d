"""Advertisements: how a node makes itself known, by mDNS and in the registry that PYME keeps on one machine.

Both carry the same instance name, 'PYMEDataServer [cluster]:computer - PID:n': a PYME client merges the two sources by that
name and would list a node twice under two. The cluster name is what stands between the brackets, compared exactly; PYME's
own clients test for a substring. The node id travels as a TXT key, and PYME nodes have none.

This module knows the grammar only; sockets and the registry's file are opened by each side's own adapter.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

SERVICE_TYPE = "_pyme-http._tcp.local."
PORT = 15348  # PYME's, where none is named
INSTANCE_MAX = 63  # bytes of one DNS label
PROPERTY_NODE_ID = "id"
PROPERTY_VERSION = "version"

REGISTRY_FILE = "_pyme-http.sqlite"  # in the system's directory for temporary files, as PYME has it
REGISTRY_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS dns (name TEXT, address TEXT, port INTEGER, creation_time FLOAT, URI TEXT)"
)
REGISTRY_INSERT = "INSERT INTO dns (name, address, port, creation_time, URI) VALUES (?, ?, ?, ?, '')"
REGISTRY_DELETE = "DELETE FROM dns WHERE name = ?"
REGISTRY_SELECT = "SELECT name, address, port FROM dns ORDER BY creation_time"  # a later row of one name wins

# The part behind the cluster name may be cut anywhere, so that 'PID:' stands right behind what is left of it.
_INSTANCE = re.compile(r"PYMEDataServer \[([^\]]*)\]:?(.*?)(?: - .*| ?-? ?PID:\d.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Advertisement:
    """One node as it was advertised: where it listens and what it says of itself.

    *node_id* is '' for a PYME node, and for a row of the local registry, which has no place for it.
    """

    instance: str
    address: str
    port: int
    node_id: str = ""
    version: str = ""

    @property
    def cluster(self) -> str:
        """The cluster name in the instance name; '' when there is none."""
        found = _INSTANCE.fullmatch(self.instance)
        return found[1] if found else ""

    @property
    def computer(self) -> str:
        """The name of the machine in the instance name, possibly cut short; the whole instance when it has no such part."""
        found = _INSTANCE.fullmatch(self.instance)
        return found[2] if found else self.instance


def instance_name(cluster: str, computer: str, number: int) -> str:
    """Return the instance name of a node, of at most 63 bytes; what is too long is cut from the end of *computer*.

    *cluster* is a valid cluster name; *number*, of at most 10 digits, is the process id or another number unique on the machine.
    """
    tail = f"PID:{number}"
    head = f"PYMEDataServer [{cluster}]:{computer} - "
    return head.encode()[: INSTANCE_MAX - len(tail)].decode(errors="ignore") + tail


def properties(node_id: str, version: str) -> dict[str, str]:
    """Return the TXT record of a node."""
    return {"txtvers": "1", PROPERTY_NODE_ID: node_id, PROPERTY_VERSION: version}


def from_mdns(service: str, address: str, port: int, txt: Mapping[bytes, bytes | None]) -> Advertisement:
    """Return the advertisement in an mDNS answer; *service* is the full name, '<instance>._pyme-http._tcp.local.'."""
    return Advertisement(
        service.removesuffix("." + SERVICE_TYPE),
        address,
        port,
        (txt.get(PROPERTY_NODE_ID.encode()) or b"").decode("ascii", "replace"),
        (txt.get(PROPERTY_VERSION.encode()) or b"").decode("ascii", "replace"),
    )
