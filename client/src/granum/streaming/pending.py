"""What is pending in an overflow: every record on disk, whether it is handed out, and which segments are done with.

Counts and places only, 9 bytes for each record: an overflow may hold a million. The rule: a record is delivered once it is
said to be, and until then it is handed out again whenever it comes back; a segment is done with when all its records are
delivered. Pure: nothing here reads or writes the segments.
"""

from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NewType

Token = NewType("Token", int)  # names one record of one overflow: its place in the stream

_WAITING, _OUT, _DELIVERED, _DAMAGED = range(4)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies: *length* bytes from *offset* of the segment numbered *segment*."""

    token: Token
    segment: int
    offset: int
    length: int


@dataclass(slots=True)
class _Segment:
    """A segment whose first record is *first*; *size* is where the next record would begin, *left* what is undelivered."""

    number: int
    first: int
    size: int
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    states: bytearray = field(default_factory=bytearray)
    left: int = 0
    is_sealed: bool = False

    def place(self, index: int) -> Place:
        end = self.offsets[index + 1] if index + 1 < len(self.offsets) else self.size
        return Place(Token(self.first + index), self.number, self.offsets[index], end - self.offsets[index])


class Pending:
    """The records of one overflow, oldest first."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []  # by number, and so by first record
        self._cursor = 0  # every record before it was handed out once
        self._returned: list[Token] = []  # a heap
        self._unnoted: dict[int, list[int]] = {}  # delivered, not in the docket yet: by number of segment
        self._left = 0

    def __len__(self) -> int:
        """Return the number of records that are not delivered and can be read."""
        return self._left

    @property
    def size(self) -> int:
        """The bytes that the segments take."""
        return sum(segment.size for segment in self._segments)

    @property
    def is_done(self) -> bool:
        """Whether no segment is left."""
        return not self._segments

    @property
    def places(self) -> Iterator[Place]:
        """Where each record lies that is not delivered."""
        for segment in self._segments:
            for index, state in enumerate(segment.states):
                if state != _DELIVERED:
                    yield segment.place(index)

    # -- what lies on disk ---------------------------------------------------------------------------------------------

    def found(
        self, number: int, first: int, offsets: "array[int]", size: int, delivered: Collection[int], *, is_damaged: bool
    ) -> None:
        """Take in the segment *number*, found on disk, sealed; its records in *delivered* are done with.

        A segment that *is_damaged* behind its last record is never done with.
        """
        states = bytearray(_DELIVERED if first + index in delivered else _WAITING for index in range(len(offsets)))
        left = states.count(_WAITING)
        self._segments.append(_Segment(number, first, size, offsets, states, left + is_damaged, is_sealed=True))
        self._left += left

    def written(self, place: Place) -> None:
        """Take in a record behind all others; one in a new segment seals those before."""
        if not self._segments or self._segments[-1].number != place.segment:
            self.seal()
            self._segments.append(_Segment(place.segment, place.token, place.offset))
        segment = self._segments[-1]
        segment.offsets.append(place.offset)
        segment.states.append(_WAITING)
        segment.size = place.offset + place.length
        segment.left += 1
        self._left += 1

    def seal(self) -> None:
        """Note that nothing more will be written to the last segment."""
        if self._segments:
            self._segments[-1].is_sealed = True

    @property
    def is_idle(self) -> bool:
        """Whether the segment that is being written holds delivered records alone."""
        return bool(self._segments) and not self._segments[-1].is_sealed and not self._segments[-1].left

    # -- who has what --------------------------------------------------------------------------------------------------

    def take(self) -> Place | None:
        """Hand out the oldest record that waits; None when there is none."""
        while self._returned:
            segment, index = self._find(heappop(self._returned))
            if segment is not None and segment.states[index] == _WAITING:
                segment.states[index] = _OUT
                return segment.place(index)
        for segment in self._segments[self._at(self._cursor) :]:
            index = segment.states.find(_WAITING, max(self._cursor - segment.first, 0))
            if index >= 0:
                segment.states[index] = _OUT
                self._cursor = segment.first + index + 1
                return segment.place(index)
            self._cursor = segment.first + len(segment.states)
        return None

    def returned(self, token: Token) -> None:
        """Take back a record that was handed out; any other is left as it is."""
        segment, index = self._find(token)
        if segment is not None and segment.states[index] == _OUT:
            segment.states[index] = _WAITING
            heappush(self._returned, token)

    def delivered(self, token: Token) -> bool:
        """Note that a record is delivered; tell whether that is new."""
        segment, index = self._find(token)
        if segment is None or segment.states[index] not in {_WAITING, _OUT}:
            return False
        segment.states[index] = _DELIVERED
        segment.left -= 1
        self._left -= 1
        self._unnoted.setdefault(segment.number, []).append(token)
        return True

    def damaged(self, token: Token) -> None:
        """Note that a record cannot be read: it counts as pending no more, and its segment is never done with."""
        segment, index = self._find(token)
        if segment is not None and segment.states[index] in {_WAITING, _OUT}:
            segment.states[index] = _DAMAGED
            self._left -= 1

    # -- the docket ----------------------------------------------------------------------------------------------------

    def take_unnoted(self) -> Mapping[int, list[int]]:
        """Return what was delivered since the last call and belongs into the dockets, by number of segment."""
        unnoted, self._unnoted = self._unnoted, {}
        return unnoted

    def not_noted(self, unnoted: Mapping[int, Sequence[int]]) -> None:
        """Take back what could not be written down, for the next time."""
        for number, tokens in unnoted.items():
            self._unnoted.setdefault(number, []).extend(tokens)

    def finished(self) -> list[int]:
        """Return the segments that are sealed and all delivered; `take_unnoted` has their last entries or had them."""
        return [segment.number for segment in self._segments if segment.is_sealed and not segment.left]

    def deleted(self, numbers: Collection[int]) -> None:
        """Forget segments that are gone."""
        self._segments = [segment for segment in self._segments if segment.number not in numbers]

    # -- inside --------------------------------------------------------------------------------------------------------

    def _at(self, seq: int) -> int:
        """Return the index of the last segment that begins at or before *seq*, or 0."""
        return max(bisect_right(self._segments, seq, key=lambda segment: segment.first) - 1, 0)

    def _find(self, token: int) -> tuple[_Segment, int] | tuple[None, int]:
        if self._segments:
            segment = self._segments[self._at(token)]
            if 0 <= token - segment.first < len(segment.states):
                return segment, token - segment.first
        return None, 0
