"""The choice: which lane a put goes to, among those that take puts and have room.

The rule: a placement that only spreads puts (least recently written, space-aware) chooses among the lanes with room, so that
nobody waits for a slow node; any other means its choice, and the put waits for that node rather than go where nobody looks for
it. What becomes of a put that finds no lane is the dispatch's affair.
"""

from granum.placement import AnyPlacement, Ledger, SpaceAware, choose, least_recently_written
from granum.placement import Put as PutToPlace
from granum.streaming.account import Account, Put
from granum.streaming.lanes import Lane, Lanes
from granum.wire.errors import BadConfig, NoNode


class Choice:
    """Chooses among *lanes* by *placement*; what *account* holds without a receipt stays within *memory_bytes_max*."""

    def __init__(
        self, lanes: Lanes, account: Account, ledger: Ledger, placement: AnyPlacement, memory_bytes_max: int
    ) -> None:
        # Whether no window had room for a put, and nothing has changed since: else each put would ask every lane in vain.
        self.is_full = False
        self.lacks_memory = False  # whether that was for all windows together
        self._was_last = False  # whether the lane chosen was the only one with room
        self._lanes = lanes
        self._account = account
        self._ledger = ledger
        self._placement = placement
        self._spreads = placement is least_recently_written or isinstance(placement, SpaceAware)
        self._memory_bytes_max = memory_bytes_max

    def look_again(self) -> None:
        """Take note that something has changed, so that there may be room."""
        self.is_full = self.lacks_memory = False

    def lane_for(self, put: Put, now: float) -> Lane | None:
        """Return the lane that has room for *put*; None when it has to wait for that.

        Raises NoNode when no node takes it at the moment, BadConfig when the placement fails.
        """
        lanes = self._lanes.taking(now)
        if put.refused:
            lanes = [lane for lane in lanes if lane.node.key not in put.refused]
        if put.maybe:  # where it may be already, it is not stored a second time
            lanes = [lane for lane in lanes if lane.node.key in put.maybe] or lanes
        if not self.fits(put):
            self.is_full = self.lacks_memory = True
            return None
        free = [lane for lane in lanes if lane.room(put.size)] if self._spreads else lanes
        if lanes and not free:
            self.is_full = not (put.maybe or put.refused)
            return None
        self._was_last = self._spreads and len(free) == 1
        if self._was_last:
            return free[0]
        try:
            nodes = [lane.node for lane in free]
            if self._placement is least_recently_written:  # needs no look at the put, and no check
                node = least_recently_written(put.number, nodes, self._ledger)
            else:
                to_place = PutToPlace(put.path, put.size, put.number)
                node = choose(self._placement, to_place, nodes, self._ledger)
        except NoNode:
            raise
        except Exception as error:
            raise BadConfig(f"the placement chose no node: {error!r}") from error
        chosen = self._lanes[node.key]
        return chosen if chosen.room(put.size) else None

    def sent(self, lane: Lane, size: int) -> None:
        """Take note that a put of *size* bytes has left by *lane*, the one chosen last."""
        if self._was_last and not lane.room(size):
            self.is_full = True  # as the next put would find out

    def fits(self, put: Put) -> bool:
        """Tell whether the memory of unreceipted puts has room for *put*; one larger than all of it enters alone."""
        held = self._account.held
        return put.is_accepted or not held or held + put.size <= self._memory_bytes_max

    def has_spare_room(self, now: float) -> bool:
        """Tell whether there is more room than fresh puts need."""
        is_spare = self._account.held <= self._memory_bytes_max // 2
        return is_spare and any(lane.has_spare_room(0) for lane in self._lanes.taking(now))
