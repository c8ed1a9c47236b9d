"""Spilling: puts on their way through the overflow, to the local disk and back to the nodes.

The rule: a record is taken out once, stays on the disk until the receipt, and belongs to exactly one put of the account; one
that a former run left behind becomes a put of this one. When a put from the overflow fails, its record is still there.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from granum.streaming.account import Account, Overflow, Piece, Put, Token
from granum.wire.paths import ClusterPath


class Spill:
    """The puts in *overflow*. *came_back* is called with each that is in memory again, *changed* when something else moved."""

    def __init__(
        self,
        overflow: Overflow,
        account: Account,
        came_back: Callable[[Put], None],
        changed: Callable[[], None],
        not_written: Callable[[Put, BaseException], None],
    ) -> None:
        """*not_written* is told of a put that the overflow failed to take, which is not accepted."""
        self._overflow = overflow
        self._account = account
        self._came_back = came_back
        self._changed = changed
        self._not_written = not_written
        self._appending = 0
        self._taking: Deferred[Any] | None = None
        self._out = 0  # records that were taken out and are not delivered
        self._unclaimed: dict[Token, tuple[ClusterPath, Piece, int | None]] = {}  # read before their put knew of it
        self._withdrawn: set[Token] = set()  # written for nobody, and perhaps being read already
        self._is_ended = False
        self._damage: BaseException | None = None  # why a record could not be read, one that is passed over since

    @property
    def has_more(self) -> bool:
        """Whether a record waits to be taken out."""
        return not self._is_ended and self._overflow.pending > self._out

    def room(self, size: int) -> bool:
        """Tell whether the overflow takes a put of *size* bytes."""
        return self._overflow.room(size)

    def append(self, put: Put) -> None:
        """Write *put* to the disk, which accepts it; its caller is told."""

        def written(token: Token) -> None:
            self._appending -= 1
            if put.is_settled:  # withdrawn meanwhile
                if self._unclaimed.pop(token, None) is not None:
                    self._out -= 1
                elif self._taking is not None:
                    self._withdrawn.add(token)
                self._overflow.delivered(token)
                self._check_damage()
                return
            self._account.accept(put)
            self._account.overflow(put, token)
            record = self._unclaimed.pop(token, None)
            put.accepted.callback(None)
            if record is not None:
                self._taken((token, *record))
            self._changed()

        def failed(failure: Failure) -> None:
            self._appending -= 1
            if not put.is_settled:
                assert failure.value is not None
                self._not_written(put, failure.value)
            self._check_damage()

        self._appending += 1
        self._overflow.append(put.path, put.pieces, put.number).addCallbacks(written, failed)

    def take(self) -> None:
        """Bring the oldest record back into memory, unless one is on its way."""
        if self._taking is None:
            taking = self._taking = self._overflow.next()
            taking.addCallbacks(self._arrived, self._not_taken)

    def delivered(self, put: Put) -> None:
        """Note that *put* has its receipt, so that its record may go."""
        self._out -= 1
        self._overflow.delivered(put.token)
        self._check_damage()

    def give_up(self, cause: BaseException) -> None:
        """Fail everything that is on the disk alone, where it stays."""
        for put in tuple(self._account.overflowed.values()):
            self._account.fail(put, None, cause)

    def end(self) -> None:
        """Take nothing out any more."""
        self._is_ended = True
        if self._taking is not None:
            self._taking.cancel()

    # -- private ------------------------------------------------------------------------------------------------------

    def _arrived(self, record: tuple[Token, ClusterPath, Piece, int | None] | None) -> None:
        self._taking = None
        withdrawn, self._withdrawn = self._withdrawn, set()
        if record is None or self._is_ended:
            return
        if record[0] in withdrawn:
            self._changed()
            return
        self._out += 1
        if record[0] not in self._account.overflowed and self._appending:
            self._unclaimed[record[0]] = record[1:]
        else:
            self._taken(record)
        self._check_damage()
        self._changed()

    def _taken(self, record: tuple[Token, ClusterPath, Piece, int | None]) -> None:
        token, path, body, number = record
        put = self._account.take(token, body)
        if put is None:  # left behind by a former run
            put = self._account.begin(path, (body,), number, 0.0)
            self._account.accept(put)
            put.record, put.token = True, token
            put.accepted.callback(None)
        self._came_back(put)

    def _not_taken(self, failure: Failure) -> None:
        self._taking = None
        self._withdrawn.clear()
        if not self._is_ended:
            assert failure.value is not None
            self._damage = failure.value
            self._check_damage()
            self._changed()

    def _check_damage(self) -> None:
        """Fail what is left when all that can be read was taken out: which records are damaged shows at the end only."""
        if self._damage is not None and not self._appending and not self.has_more:
            self.give_up(self._damage)
