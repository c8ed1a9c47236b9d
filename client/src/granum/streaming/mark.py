"""The mark of a series: the two files behind its frames, of which the last says that it is complete.

The rule: the final metadata come first and the mark last; a try that failed on the way is gone on with, and what it stored
already is looked at, not stored again. That every frame has its receipt by then is the matter of the caller.
"""

from collections.abc import Callable

from granum.cluster import Cluster
from granum.streaming.layout import EVENTS, FINAL_METADATA
from granum.wire.errors import AlreadyStored
from granum.wire.paths import ClusterPath


class Mark:
    """Marks the series *directory* of *cluster*."""

    def __init__(self, cluster: Cluster, directory: ClusterPath) -> None:
        self._cluster = cluster
        self._directory = directory
        self._tried: set[str] = set()  # files that may be stored

    async def set(self, final: bytes, events: bytes, check: Callable[[], None]) -> None:
        """Store the *final* metadata and the *events*; *check* is called between the two, and may raise."""
        await self._put(FINAL_METADATA, final)
        check()
        await self._put(EVENTS, events)

    async def _put(self, name: str, body: bytes) -> None:
        """Store one of the files, which a former try may have stored already."""
        path = self._directory / name
        was_tried = name in self._tried
        self._tried.add(name)
        try:
            await self._cluster.put(path, body)
        except AlreadyStored:
            if not was_tried or await self._cluster.get(path) != body:
                raise
