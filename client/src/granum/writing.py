"""Writing: whole files to one node each, where the placement says, and never over a name that any node has.

All nodes are asked first whether they have the name. A node that cannot take the file now is followed by the next one; one
whose answer was lost is not, because it may have stored it. It is sent the file once more: the digest tells it whether that
is what it has.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from granum.directory import Directory
from granum.placement import AnyPlacement, Ledger, Put, choose
from granum.roster import Node, Roster
from granum.transfer import Receipt, Transfer
from granum.wire.errors import (
    AlreadyStored,
    BadPath,
    NodeBusy,
    NodeError,
    NodeTimeout,
    NodeUnreachable,
    NoNode,
    NoSpace,
    NotReceipted,
    OnSomeNodes,
)
from granum.wire.paths import ClusterPath


class Writing:
    """Puts files on the nodes of *roster*; *ledger* is told of each. *seconds* is a monotonic clock."""

    def __init__(
        self, transfer: Transfer, directory: Directory, roster: Roster, ledger: Ledger, seconds: Callable[[], float]
    ) -> None:
        self._transfer = transfer
        self._directory = directory
        self._roster = roster
        self._ledger = ledger
        self._seconds = seconds

    async def put(self, path: ClusterPath, body: bytes, node: Node | None, placement: AnyPlacement) -> Receipt:
        """Store *body* as *path* on *node*, for None where *placement* says, as `granum.cluster.Cluster.put`."""
        return await self._write(Put(path, len(body)), node, placement, lambda chosen: self._put_on(chosen, path, body))

    async def _put_on(self, node: Node, path: ClusterPath, body: bytes) -> Receipt:
        """Put on *node*, twice where the answer was lost; a PYME node knows no digests, and silence is waited for once."""
        try:
            return await self._transfer.put(node, path, body)
        except NotReceipted as lost:
            if not node.node_id or any(isinstance(cause, NodeTimeout) for cause in lost.causes.values()):
                raise
            try:
                return await self._transfer.put(node, path, body)
            except (NodeUnreachable, NodeError):  # it says nothing of the first one
                raise lost from None

    async def mkdir(self, path: ClusterPath, placement: AnyPlacement) -> Receipt:
        """Make the directory *path*; otherwise as `put`."""
        return await self._write(Put(path, 0), None, placement, lambda chosen: self._transfer.mkdir(chosen, path))

    async def _write(
        self,
        put: Put,
        node: Node | None,
        placement: AnyPlacement,
        write: Callable[[Node], Coroutine[Any, Any, Receipt]],
    ) -> Receipt:
        path = put.path
        if not path.parts:
            raise BadPath("the root is there already; name what is to be stored")
        view = await self._directory.find(path, fresh=True)
        if view.stored:
            holders = ", ".join(holder.name for holder in view.holders(path.name))
            raise AlreadyStored(f"{path} is stored already, on {holders}; choose another name")
        left = [node] if node is not None else list(self._roster.nodes())
        causes: dict[str, BaseException] = {known.name: cause for known, cause in self._roster.missing().items()}
        while left:
            try:
                chosen = node or choose(placement, put, left, self._ledger)
            except NoNode as error:  # the placement wants none of those that are left
                causes["placement"] = error
                break
            left.remove(chosen)
            try:
                receipt = await write(chosen)
            except (NodeUnreachable, NodeBusy, NoSpace) as error:  # nothing was stored, so another node may have it
                if node is not None:
                    raise
                causes[chosen.name] = error
                continue
            finally:
                self._directory.forget(path)
            self._ledger.wrote(chosen.key, self._seconds())
            return receipt
        raise OnSomeNodes(f"{path} could not be stored", causes)
