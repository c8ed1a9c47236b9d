"""The first words of SMB: a request as its specification has it, and honest reading of whatever comes back."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.cli import smb


def answer(*, status: int = 0, size: int = 65, dialect: int = 0x0302, magic: bytes = b"\xfeSMB") -> bytes:
    head = struct.pack("<4sHHIHHIIQIIQ16s", magic, 64, 0, status, 0, 1, 1, 0, 0, 0, 0, 0, bytes(16))
    return head + struct.pack("<HHH", size, 3, dialect) + bytes(58)


def test_the_request_offers_smb_3_alone() -> None:
    sent = smb.request(b"0123456789abcdef")
    assert sent[:8] == bytes.fromhex("00000068fe534d42")
    assert len(sent) == 4 + 0x68
    assert sent[68:72] == bytes.fromhex("24000200")  # 36 bytes of body, two dialects
    assert sent[80:96] == b"0123456789abcdef"
    assert sent[-4:] == bytes.fromhex("00030203")


def test_the_dialect_is_read() -> None:
    assert smb.dialect(answer()) == 0x0302
    assert smb.length(bytes.fromhex("00000080")) == 128


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (answer(status=0xC00000BB), "the server has no SMB 3"),
        (answer(status=0xC0000022), "the server refuses to negotiate (status 0xc0000022)"),
        (answer(magic=b"\xffSMB"), "what answers there is no server of SMB 2 or later"),
        (answer(size=9), "the server's answer to a request to negotiate is none"),
        (b"", "what answers there is no server of SMB 2 or later"),
    ],
)
def test_an_answer_without_a_dialect_says_why(body: bytes, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        smb.dialect(body)
    assert str(raised.value) == said


@pytest.mark.parametrize("prefix", [b"HTTP", bytes.fromhex("0000003f"), bytes.fromhex("00010001")])
def test_a_length_that_no_server_says_is_refused(prefix: bytes) -> None:
    with pytest.raises(ValueError):
        smb.length(prefix)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    for read in (smb.dialect, lambda told: smb.length(told[:4].ljust(4))):
        with suppress(ValueError):
            assert 0 <= read(body) < 1 << 17
