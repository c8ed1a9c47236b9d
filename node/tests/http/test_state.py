"""The states of a node: which is told, and what it answers to a put."""

import pytest

from granum.wire.errors import GranumError, NodeBusy, NoSpace
from granum_node.http.state import State, States


class Parts:
    """A publisher and a space in one."""

    failure: GranumError | None = None
    full: str | None = None


@pytest.mark.parametrize(
    ("failed", "draining", "full", "state", "error"),
    [
        (False, False, False, State.SERVING, type(None)),
        (False, False, True, State.FULL, NoSpace),
        (False, True, True, State.DRAINING, NodeBusy),
        (True, True, True, State.FAILED, NodeBusy),
    ],
)
def test_the_graver_state_is_told(failed: bool, draining: bool, full: bool, state: State, error: type) -> None:
    parts = Parts()
    parts.failure = NodeBusy("the disk failed") if failed else None
    parts.full = "no room" if full else None
    states = States(parts, parts)
    states.draining = draining
    found, refusal = states.now()
    assert (found, type(refusal)) == (state, error)


def test_a_put_is_refused_by_a_failed_and_by_a_draining_node() -> None:
    parts = Parts()
    states = States(parts, parts)
    states.check_put()
    states.draining = True
    with pytest.raises(NodeBusy, match="drained"):
        states.check_put()
    parts.failure = NodeBusy("the disk failed")
    with pytest.raises(NodeBusy, match="the disk failed"):
        states.check_put()
