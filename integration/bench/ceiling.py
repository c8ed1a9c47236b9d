"""The ceiling of a node in Python: one process, one buffer, `recv_into` and `write` for a put, `sendfile` for a get.

It speaks as little HTTP as the load generator needs: a request is known by its first byte, its name stands before the version,
its length comes last, and nothing is checked. It shows what sockets, file system and interpreter leave to a node that would
have no work of its own, and is a server for nothing else.
"""

import os
import selectors
import socket
import sys
from collections import deque

CHUNK_BYTES = 256 * 1024  # the node's, so that both make the same number of system calls
_STORED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_END = b"\r\n\r\n"


class Connection:
    """One connection: heads found, bodies written as they arrive, files sent in order."""

    def __init__(self, sock: socket.socket, root: int) -> None:
        """Serve *sock* from the open directory *root*."""
        self.socket = sock
        self.files: deque[tuple[int, int, int]] = deque()  # descriptor, offset or -1 before the head, size
        self._root = root
        self._buffer = memoryview(bytearray(CHUNK_BYTES))
        self._kept = 0  # bytes of an unfinished head, at the front of the buffer
        self._owed = 0
        self._spooled = -1
        self._name = ""

    def receive(self) -> bool:
        """Take what has arrived; False when the peer is gone."""
        got = self.socket.recv_into(self._buffer[self._kept :])
        at, end, self._kept = 0, self._kept + got, 0
        while at < end:
            if self._owed:
                at = self._take(at, end)
                continue
            text = bytes(self._buffer[at : min(end, at + 512)])
            length = text.find(_END)
            if length < 0:
                self._kept = end - at
                self._buffer[: self._kept] = text
                break
            at += length + len(_END)
            self._begin(text[:length])
        return got > 0

    def send(self) -> bool:
        """Send files while the socket takes them; False when some are left."""
        try:
            while self.files:
                fd, offset, size = self.files[0]
                if offset < 0:
                    self.socket.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, socket.MSG_MORE)
                    offset = 0
                    self.files[0] = (fd, offset, size)
                offset += os.sendfile(self.socket.fileno(), fd, offset, size - offset)
                self.files[0] = (fd, offset, size)
                if offset == size:
                    os.close(fd)
                    self.files.popleft()
        except BlockingIOError:
            return False
        return True

    def _begin(self, head: bytes) -> None:
        self._name = head[5 : head.index(b" HTTP")].decode()
        if head.startswith(b"G"):
            fd = os.open(self._name, os.O_RDONLY, dir_fd=self._root)
            self.files.append((fd, -1, os.fstat(fd).st_size))
        else:
            self._owed = int(head[head.rindex(b":") + 1 :])
            self._spooled = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o440, dir_fd=self._root)

    def _take(self, at: int, end: int) -> int:
        written = os.write(self._spooled, self._buffer[at : min(at + self._owed, end)])
        self._owed -= written
        if not self._owed:
            os.link(f"/proc/self/fd/{self._spooled}", self._name, dst_dir_fd=self._root, follow_symlinks=True)
            os.close(self._spooled)
            self.socket.send(_STORED)
        return at + written


def serve(listening: socket.socket, root: int) -> None:
    """Serve every connection from *root* until the process is ended."""
    selector = selectors.EpollSelector()
    selector.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                sock, _ = listening.accept()
                sock.settimeout(0)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(sock, selectors.EVENT_READ, Connection(sock, root))
                continue
            connection: Connection = key.data
            try:
                alive = bool(connection.files) or connection.receive()
                blocked = not connection.send()
            except ConnectionError:
                alive = False
            if not alive:
                selector.unregister(connection.socket)
                connection.socket.close()
            elif blocked != (key.events == selectors.EVENT_WRITE):
                events = selectors.EVENT_WRITE if blocked else selectors.EVENT_READ
                selector.modify(connection.socket, events, connection)


def main() -> None:
    """Serve the directory that is the one argument; print the port."""
    root = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        print(listening.getsockname()[1], flush=True)
        serve(listening, root)


if __name__ == "__main__":
    main()
