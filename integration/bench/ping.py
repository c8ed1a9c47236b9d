"""How long a small request takes while the server does something else: one GET every 10 ms, timed from when it was due.

Timed from then, and not from when it was sent, so that a server that stands still for a second counts with all the requests
that it kept waiting. A process of its own: a thread beside a reader of listings would measure the reader.
"""

import json
import select
import socket
import statistics
import sys
import time

PERIOD_S = 0.01


def ping(port: int, target: str, seconds: float) -> dict[str, float]:
    """Return p50, p99 and the longest wait in ms, of the requests due in *seconds*."""
    request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    waits = []
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print("ready", flush=True)
        began = time.perf_counter()
        for number in range(int(seconds / PERIOD_S)):
            due = began + number * PERIOD_S
            if (early := due - time.perf_counter()) > 0:
                select.select([], [], [], early)
            sock.sendall(request)
            answer = sock.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the answer to {target} was {answer[:40]!r}")
            waits.append((time.perf_counter() - due) * 1e3)
    hundredths = statistics.quantiles(waits, n=100, method="inclusive")
    return {"p50_ms": hundredths[49], "p99_ms": hundredths[98], "max_ms": max(waits)}


if __name__ == "__main__":
    print(json.dumps(ping(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))))
