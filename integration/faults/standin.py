"""A tiny server of one store with one known flaw: what the rows of the scoreboard must be able to find.

`sound` has none and shows that the checks can pass. It speaks as much HTTP as the harness needs and says where it serves in
the words of the node, so that both are started alike. It is not a node: no roster, no limits, no deadlines.
"""

import argparse
import errno
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from integration.faults.waiting import pause

PIECE_BYTES = 64 * 1024
RACE_S = 0.001  # between question and opening: without it the interpreter's lock often hides the race
FLAWS = {
    "sound": "spool, fdatasync, exclusive link, fsync of every directory on the way, then the receipt",
    "in-place": "create under the final name, then write; no sync",
    "no-file-sync": "the bytes are not synced before the link",
    "no-directory-sync": "the link is not synced before the receipt",
    "no-sync": "nothing is synced before the receipt",
    "exists-then-open": "ask whether the name is free, then open it for writing",
}


class Standin(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    root: ClassVar[str]
    flaw: ClassVar[str]
    failed: ClassVar[bool] = False

    def do_GET(self) -> None:
        """Answer with the file, or with the listing of a directory."""
        name = self.root + self.path
        try:
            if self.path == "/__healthz":
                self._answer(200)
            elif self.path.endswith("/"):
                sizes = {entry.name: [0, entry.stat().st_size] for entry in os.scandir(name)}
                self._answer(200, json.dumps(sizes).encode())
            else:
                self._answer(200, Path(name).read_bytes())
        except OSError:
            self._answer(404)

    def do_PUT(self) -> None:
        """Store the body as the flaw has it."""
        name = self.root + self.path
        self._owed = int(self.headers["Content-Length"])
        try:
            if Standin.failed:
                self._drop()
                self._answer(503)
            elif os.path.exists(name):
                self._drop()
                self._answer(405)
            else:
                os.makedirs(os.path.dirname(name), exist_ok=True)
                self._store(name)
                self._answer(200)
        except ConnectionResetError:
            self.close_connection = True
        except FileExistsError:
            self._drop()
            self._answer(405)
        except OSError as error:
            Standin.failed |= error.errno == errno.EIO
            self._drop()
            self._answer(507 if error.errno in {errno.ENOSPC, errno.EDQUOT} else 503)

    def _store(self, name: str) -> None:
        directory, base = os.path.split(name)
        if self.flaw in {"in-place", "exists-then-open"}:
            exclusive = os.O_EXCL
            if self.flaw == "exists-then-open":
                exclusive = os.O_TRUNC
                pause(RACE_S)
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | exclusive, 0o440)
            try:
                self._receive(fd)
            finally:
                os.close(fd)
            return
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o440)
        try:
            self._receive(fd)
            if self.flaw not in {"no-file-sync", "no-sync"}:
                os.fdatasync(fd)
            os.link(f"/proc/self/fd/{fd}", base, dst_dir_fd=parent, follow_symlinks=True)
        finally:
            os.close(fd)
            os.close(parent)
        if self.flaw not in {"no-directory-sync", "no-sync"}:
            while len(directory) >= len(self.root):
                self._sync_directory(directory)
                directory = os.path.dirname(directory)

    def _receive(self, fd: int) -> None:
        while self._owed:
            os.write(fd, self._piece())

    def _drop(self) -> None:
        while self._owed:
            self._piece()

    def _piece(self) -> bytes:
        piece = self.rfile.read1(min(self._owed, PIECE_BYTES))
        if not piece:
            raise ConnectionResetError
        self._owed -= len(piece)
        return piece

    @staticmethod
    def _sync_directory(directory: str) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """A thread for each connection."""

    request_queue_size = 1024
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about a connection that the harness has cut."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--flaw", choices=sorted(FLAWS), required=True)
    arguments = parser.parse_args()
    Standin.root, Standin.flaw = os.path.realpath(arguments.root), arguments.flaw
    server = Server(("127.0.0.1", arguments.port), Standin)
    port = server.server_address[1]
    print(f"granum-node stand-in serves {Standin.root} at http://127.0.0.1:{port} (cluster faults)", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
