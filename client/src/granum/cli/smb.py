"""The first words of SMB: a request to negotiate SMB 3, and what the answer to it says. Pure; MS-SMB2, sections 2.2.1 to 2.2.4.

Only 3.0 and 3.0.2 are offered: they need no negotiate contexts, and every server of SMB 3 has one of them.
"""

import struct

DIALECTS = (0x0300, 0x0302)
ANSWER_BYTES_MAX = 1 << 16  # an answer is some hundred bytes

_PREFIX = struct.Struct(">I")  # length of the message, the first byte being 0
_HEADER = struct.Struct("<4sHHIHHIIQIIQ16s")
_REQUEST = struct.Struct("<HHHHI16sQ")
_ANSWER = struct.Struct("<HHH")
_MAGIC, _REQUEST_SIZE, _ANSWER_SIZE = b"\xfeSMB", 36, 65
_SIGNING_ENABLED = 1
NOT_SUPPORTED = 0xC00000BB


def request(guid: bytes) -> bytes:
    """Return the request to negotiate, with its length in front; *guid* is 16 bytes that name the client."""
    header = _HEADER.pack(_MAGIC, _HEADER.size, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, bytes(16))
    body = _REQUEST.pack(_REQUEST_SIZE, len(DIALECTS), _SIGNING_ENABLED, 0, 0, guid, 0)
    message = header + body + struct.pack(f"<{len(DIALECTS)}H", *DIALECTS)
    return _PREFIX.pack(len(message)) + message


def length(prefix: bytes) -> int:
    """Return how many bytes follow the 4 of *prefix*; raise ValueError when no server of SMB says so."""
    found: int = _PREFIX.unpack(prefix)[0]
    if not _HEADER.size <= found <= ANSWER_BYTES_MAX:
        raise ValueError("what answers there is no server of SMB")
    return found


def dialect(answer: bytes) -> int:
    """Return the dialect that the server chose in *answer*, which has no length in front; raise ValueError saying why none."""
    if len(answer) < _HEADER.size + _ANSWER.size or not answer.startswith(_MAGIC):
        raise ValueError("what answers there is no server of SMB 2 or later")
    status = _HEADER.unpack_from(answer)[3]
    if status == NOT_SUPPORTED:
        raise ValueError("the server has no SMB 3")
    if status:
        raise ValueError(f"the server refuses to negotiate (status {status:#010x})")
    size, _, chosen = _ANSWER.unpack_from(answer, _HEADER.size)
    if size != _ANSWER_SIZE:
        raise ValueError("the server's answer to a request to negotiate is none")
    return int(chosen)
