"""Servers that believe what they are told: the controls of the security rows.

`GULLIBLE` flaws are a small file server with one trusting habit each; `stock` is Twisted's own web server over one resource,
with none of the rules that granum adds. Both say where they serve in the words of the node.

What they believe may name any file of the machine, and they may run as root. So there is a fence around them: they open
nothing outside the directory that holds their root, where the harness has put what is there to be reached.
"""

import argparse
import os
import zlib
from http.server import BaseHTTPRequestHandler
from typing import IO, ClassVar
from urllib.parse import unquote

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorCore, IReactorTCP
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from integration.faults.daemon import Program
from integration.faults.standin import RACE_S, Server
from integration.faults.waiting import pause

IDLE_S = 2.0  # of the stock server, after which it means to close a connection
FLAWS = {
    "decoded-join": "decode the path and join it to the root",
    "check-then-open": "ask where the path leads, then open it",
    "open-for-writing": "open the name for writing, whatever is there",
    "unbounded-gunzip": "expand a gzip body in memory, whatever it comes to",
}
STOCK = Program("stock twisted.web", ("-m", "integration.faults.gullible", "--flaw", "stock"))


def gullible(flaw: str) -> Program:
    """Return the server with *flaw*, one of FLAWS."""
    return Program(f"gullible, {flaw}", ("-m", "integration.faults.gullible", "--flaw", flaw))


class Gullible(BaseHTTPRequestHandler):
    """One connection of a file server that trusts."""

    protocol_version = "HTTP/1.1"
    root: ClassVar[str]
    flaw: ClassVar[str]

    def _open(self, name: str, mode: str) -> IO[bytes]:
        """Open *name*, wherever in the harness's own directory it leads; raise PermissionError beyond that."""
        fence = os.path.dirname(self.root) + "/"
        if "\0" in name or not os.path.realpath(name).startswith(fence):
            raise PermissionError(name)
        if mode == "wb":
            os.makedirs(os.path.dirname(name), exist_ok=True)
        fd = os.open(name, os.O_RDONLY if mode == "rb" else os.O_WRONLY | os.O_CREAT, 0o600)
        found = os.readlink(f"/proc/self/fd/{fd}")
        if not found.startswith(fence):  # it was swapped since
            os.close(fd)
            raise PermissionError(name)
        if mode == "wb":
            os.ftruncate(fd, 0)
        return os.fdopen(fd, mode)

    def do_GET(self) -> None:
        """Answer with whatever the path leads to."""
        name = self.root + unquote(self.path)
        if self.path == "/__healthz":
            self._answer(200)
            return
        try:
            if self.flaw == "check-then-open" and not os.path.realpath(name).startswith(self.root):
                self._answer(404)
                return
            pause(RACE_S)
            with self._open(name, "rb") as file:
                self._answer(200, file.read())
        except (OSError, ValueError):
            self._answer(404)

    def do_PUT(self) -> None:
        """Store the body, come what may."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = self.root + unquote(self.path)
        try:
            if self.headers.get("Content-Encoding") == "gzip":
                body = zlib.decompress(body, wbits=31)
            with self._open(name, "wb") as file:
                file.write(body)
            self._answer(200)
        except (OSError, ValueError, zlib.error):
            self._answer(405)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
        """Log nothing."""


class Stored(Resource):
    """Takes every put as whole and answers every read."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:  # noqa: ARG002 - the base class has it
        """Answer with something."""
        return b"ok\n"

    def render_PUT(self, request: Request) -> bytes:  # noqa: ARG002 - the base class has it
        """Take the body."""
        return b""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--flaw", choices=["stock", *FLAWS], required=True)
    arguments = parser.parse_args()
    root = os.path.realpath(arguments.root)
    if arguments.flaw == "stock":
        site = Site(Stored(), timeout=IDLE_S)  # type: ignore[no-untyped-call]
        port = IReactorTCP(reactor).listenTCP(arguments.port, site, 1024, "127.0.0.1")  # type: ignore[arg-type]
        IReactorCore(reactor).callWhenRunning(_say, root, port.getHost().port)  # type: ignore[attr-defined]
        IReactorCore(reactor).run()
        return
    Gullible.root, Gullible.flaw = root, arguments.flaw
    server = Server(("127.0.0.1", arguments.port), Gullible)
    _say(root, server.server_address[1])
    server.serve_forever()


def _say(root: str, port: int) -> None:
    print(f"granum-node stand-in serves {root} at http://127.0.0.1:{port} (cluster faults)", flush=True)


if __name__ == "__main__":
    main()
