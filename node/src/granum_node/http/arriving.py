"""The body of one request while it arrives: which bytes belong to it, and when it is whole.

Pieces go to the sink as slices of what was received, never gathered. A body that nobody wants any more is read on, to keep the
connection in step, as long as its end is worth that.
"""

from granum.wire.errors import BodyTooLarge
from granum_node.http.parser import BODY_BYTES_MAX, ChunkedBody
from granum_node.http.reply import Reply
from granum_node.http.sink import Dropped, Sink

DROPPED_BODY_BYTES_MAX = 1 << 30  # of a refused put, read only to keep the connection in step


class ArrivingBody:
    """What the request of *reply* owes, on its way to *sink*; None to have it dropped."""

    __slots__ = ("_chunks", "_dropped_bytes", "_owed", "is_endless", "is_whole", "reply", "sink")

    def __init__(self, reply: Reply, sink: Sink | None) -> None:
        self.reply = reply
        self.sink = sink or Dropped()
        self.is_whole = False
        self.is_endless = False  # nobody wants it, and its end is too far
        self._owed = reply.request.length or 0  # of a chunked body: what has come
        self._chunks = ChunkedBody() if reply.request.chunked else None
        self._dropped_bytes = 0

    def take(self, data: bytes, at: int) -> int:
        """Pass on what of *data* belongs to the body, from *at* on; return the index behind it.

        Raises BadRequest or BodyTooLarge when its framing is broken.
        """
        if self._chunks is not None:
            return self._take_chunks(self._chunks, data, at)
        size = min(self._owed, len(data) - at)
        self.sink.write(data if size == len(data) else memoryview(data)[at : at + size])
        self._owed -= size
        self.is_whole = not self._owed
        if self._owed and self.sink.is_dropping:
            self._drop(size, self._owed)
        return at + size

    def _take_chunks(self, chunks: ChunkedBody, data: bytes, at: int) -> int:
        for piece in chunks.feed(data, at):
            if isinstance(piece, int):
                at = piece
                continue
            self._owed += len(piece)
            if self._owed > BODY_BYTES_MAX:
                raise BodyTooLarge("the body does not end")
            self.sink.write(piece)
            if self.sink.is_dropping:
                self._drop(len(piece), 0)
                if self.is_endless:
                    return len(data)
        self.is_whole = chunks.done
        return at

    def _drop(self, size: int, owed: int) -> None:
        """Take note that *size* bytes were for nobody and that *owed* are known to come."""
        self._dropped_bytes += size
        self.is_endless = self._dropped_bytes + owed > DROPPED_BODY_BYTES_MAX
