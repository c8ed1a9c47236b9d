"""Where the body of a request goes: what a channel asks of the verb behind it, and the sink of what nobody wants."""

from typing import Protocol


class Sink(Protocol):
    """Where a request's body goes."""

    @property
    def is_dropping(self) -> bool:
        """Whether what still comes is only read to keep the connection in step."""

    def write(self, piece: bytes | memoryview) -> None:
        """Take *piece*; it is only valid during the call."""

    def finish(self) -> None:
        """Take note that the body is whole."""

    def abort(self) -> None:
        """Take note that the rest will never come."""


class Dropped:
    """The sink of a body that nobody wants, read to keep the connection in step."""

    is_dropping = True

    def write(self, piece: bytes | memoryview) -> None:
        """Drop *piece*."""

    def finish(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""
