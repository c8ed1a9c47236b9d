"""Nearby: the frames of a series that lie in stores on this machine, read in the thread that wants them.

A hand-over between threads costs more than reading a small frame, so here is none: files are opened some numbers ahead, which
lets the disk begin, and read when their turn comes. The rule: taken from here is only what one node alone holds. Which of
several is read, and where to get what cannot be had this way, is for others to find out, and so is what is in a file.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from numpy.typing import NDArray

from granum.arrays.prefetch import AHEAD
from granum.bypass import Folder, LocalStores, Wanted
from granum.streaming.series import frame_name
from granum.union import UnionView
from granum.wire.paths import ClusterPath

Array: TypeAlias = NDArray[Any]  # Any: the dtype of the series


class Nearby:
    """The frames *numbers* of the series *path*, in that order, at most *ahead* of them, and never more than AHEAD, opened.

    *view* shows who holds each, *stores* are those of this machine; *decode* is given number and file of a frame. `elsewhere`
    are the numbers, in their order, of the frames that are not here.
    """

    def __init__(
        self,
        stores: LocalStores,
        path: ClusterPath,
        view: UnionView,
        numbers: Iterable[int],
        decode: Callable[[int, bytes], Array],
        *,
        ahead: int = AHEAD,
    ) -> None:
        folders: dict[str, Folder | None] = {}

        def folder_of(name: str) -> Folder | None:
            try:
                (node,) = view.holders(name)
            except (KeyError, ValueError):  # held by none, or by several
                return None
            if node.key not in folders:
                folders[node.key] = stores.folder(node, path)
            return folders[node.key]

        names = ((n, frame_name(n)) for n in numbers)
        self._left = deque((n, name, folder_of(name)) for n, name in names)
        self.elsewhere = [n for n, _, folder in self._left if folder is None]
        self._wanted: deque[tuple[int, Folder | None, Wanted | None]] = deque()
        self._decode = decode
        self._ahead = min(max(ahead, 1), AHEAD)  # descriptors are few, whatever was asked for

    def next(self, elsewhere: Callable[[], tuple[int, Array]], ask: Callable[[int], Array]) -> tuple[int, Array] | None:
        """Return the next pair, None at the end.

        *elsewhere* gives the next pair of those, *ask* the frame of a number that was here and is not any more. Raises what
        these or *decode* do; the next call goes on behind it.
        """
        while self._left and len(self._wanted) < self._ahead:
            n, name, folder = self._left.popleft()
            self._wanted.append((n, folder, folder.want(name) if folder is not None else None))
        if not self._wanted:
            return None
        n, folder, wanted = self._wanted.popleft()
        if folder is None:
            return elsewhere()
        file = wanted.read() if wanted is not None else None
        return n, ask(n) if file is None else self._decode(n, file)

    def close(self) -> None:
        """Close every file; there is nothing more after this."""
        self._left.clear()
        self._wanted.clear()
