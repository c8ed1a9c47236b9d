"""What a node is fit for at the moment. Pure: what it asks is handed in.

| state    | reads | puts                  | /__readyz | until                              |
|----------|-------|-----------------------|-----------|------------------------------------|
| serving  | yes   | yes                   | 200       |                                    |
| full     | yes   | 507, before the body  | 503       | 1.2 times the reserve is free      |
| draining | yes   | 503, before the body  | 503       | PUT /__undrain, or a restart       |
| failed   | yes   | 503, before the body  | 503       | a restart                          |

A put that has begun is finished in every state but the last. Where several apply, the lowest in the table is told.
"""

from enum import StrEnum
from typing import Protocol

from granum.wire.errors import GranumError, NodeBusy, NoSpace

DRAINING = "the node is being drained and takes no puts; put on another node"


class State(StrEnum):
    """The states of a node that serves at all."""

    SERVING = "serving"
    FULL = "full"
    DRAINING = "draining"
    FAILED = "failed"


class Failing(Protocol):
    """What may have failed for good."""

    @property
    def failure(self) -> GranumError | None:
        """Why nothing can be written any more."""


class Filling(Protocol):
    """What may be full."""

    @property
    def full(self) -> str | None:
        """Why no put is admitted."""


class States:
    """The state of one node; *draining* is set from outside."""

    def __init__(self, publisher: Failing, space: Filling) -> None:
        self.draining = False
        self._publisher = publisher
        self._space = space

    def now(self) -> tuple[State, GranumError | None]:
        """Return the state, and the error that answers a put in it."""
        if self._publisher.failure is not None:
            return State.FAILED, self._publisher.failure
        if self.draining:
            return State.DRAINING, NodeBusy(DRAINING)
        full = self._space.full
        if full is not None:
            return State.FULL, NoSpace(full)
        return State.SERVING, None

    def check_put(self) -> None:
        """Raise what refuses every put, whatever its size: the first question asked of each."""
        if self._publisher.failure is not None:
            raise self._publisher.failure
        if self.draining:
            raise NodeBusy(DRAINING)
