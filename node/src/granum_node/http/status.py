"""The node's own endpoints: what it says about itself.

`/__status` has the shape of PYME's, whose acquisition program and web page fail without `Disk`; what is ours stands under
`Granum`. It names no path of the host.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from granum_node.http.state import State, States
from granum_node.storage.publish import Publisher
from granum_node.storage.store import Store

MEMORY_FILE = "/proc/meminfo"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node says of itself."""

    node_id: str
    cluster: str
    computer: str
    address: str
    port: int
    version: str
    digest: str = "off"  # which one each file that arrives gets


def status_body(
    identity: Identity, store: Store, publisher: Publisher, states: States, uptime_s: float, requests: dict[str, int]
) -> bytes:
    """Return the JSON of `/__status`; *requests* counts answers by verb and status, 'PUT 200'."""
    room = store.room()
    state, refusal = states.now()
    return json.dumps(
        {
            "IPAddress": identity.address,
            "BindAddress": [identity.address, identity.port],
            "Port": identity.port,
            "Protocol": "HTTP/1.1",
            "TestMode": False,
            "ComputerName": identity.computer,
            "Uptime": _duration(uptime_s),
            "Disk": {"total": room.total_bytes, "used": room.used_bytes, "free": room.free_bytes},
            "CPUUsage": [],
            "MemUsage": _memory(_read_memory_file),
            "Network": {},
            "Granum": {
                "node_id": identity.node_id,
                "cluster": identity.cluster,
                "version": identity.version,
                "durability": publisher.durability,
                "digest": identity.digest,
                "state": state,
                "writable": state is State.SERVING,
                "reason": None if refusal is None else str(refusal),
                "failure": None if publisher.failure is None else str(publisher.failure),
                "uptime_s": round(uptime_s, 3),
                "requests": requests,
                "quarantined": len(store.quarantine),
                "scrub": None if store.scrubbing is None else store.scrubbing.report(),
            },
        }
    ).encode()


def _duration(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"


def _read_memory_file() -> str:
    with open(MEMORY_FILE, encoding="ascii") as file:
        return file.read()


def _memory(read: Callable[[], str]) -> dict[str, float]:
    """Return total, available and used bytes, and the percentage in use."""
    rows = dict(line.split(":", 1) for line in read().splitlines())
    total, available = (int(rows[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    used = total - available
    return {"total": total, "available": available, "used": used, "percent": round(100 * used / total, 1)}
