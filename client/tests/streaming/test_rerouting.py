"""What a node's refusal means for the put."""

import pytest

from granum.streaming.rerouting import Meaning, digest_of, meaning
from granum.wire import errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.AlreadyStored(), Meaning.OF_THE_PUT),
        (errors.PreconditionFailed(), Meaning.OF_THE_PUT),
        (errors.BadPath(), Meaning.OF_THE_PUT),
        (errors.PathTooLong(), Meaning.OF_THE_PUT),
        (errors.BodyTooLarge(), Meaning.OF_THE_PUT),
        (errors.NotADirectory(), Meaning.OF_THE_PUT),
        (errors.DigestMismatch(), Meaning.OF_THE_PUT),
        (errors.NodeBusy(), Meaning.FOR_NOW),
        (errors.OverQuota(), Meaning.FOR_NOW),
        (errors.NoSpace(), Meaning.FOR_GOOD),
        (errors.NotAllowed(), Meaning.FOR_GOOD),
        (errors.Misdirected(), Meaning.FOR_GOOD),
        (errors.NodeError(), Meaning.UNKNOWN),
    ],
)
def test_a_refusal_is_the_puts_own_or_the_nodes(error: errors.GranumError, expected: Meaning) -> None:
    assert meaning(error) is expected


def test_the_digest_is_that_of_the_pieces_joined() -> None:
    assert digest_of([b"first ", memoryview(b"light\n")]).member == "xxh3-128=3bc103bd753460ea501629d3e770ada3"
