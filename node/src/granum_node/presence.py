"""Telling programs on the same machine where the store of a node is, so that they can read files without HTTP.

One small file per node, `<node id>.json` with the key `store`, in a directory that only root or the user can write: the
service's runtime directory, else the user's. A reader checks who owns the file and that the store has this node id.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress

SYSTEM_DIRECTORY = "/run/granum"  # made by systemd for the service (RuntimeDirectory=)


class Presence:
    """The file that says where the store of the node *node_id* is."""

    def __init__(self, node_id: str, store: str, environment: Mapping[str, str]) -> None:
        """Choose the directory; nothing is written yet. Without a suitable one nothing ever is."""
        self._directory = ""
        if os.access(SYSTEM_DIRECTORY, os.W_OK):
            self._directory = SYSTEM_DIRECTORY
        elif os.path.isdir(environment.get("XDG_RUNTIME_DIR", "")):
            self._directory = os.path.join(environment["XDG_RUNTIME_DIR"], "granum")
        self._file = os.path.join(self._directory, f"{node_id}.json")
        self._text = json.dumps({"store": store}) + "\n"

    def show(self) -> None:
        """Write the file; raise OSError when it cannot be."""
        if not self._directory:
            return
        os.makedirs(self._directory, mode=0o755, exist_ok=True)
        temporary = f"{self._file}.{os.getpid()}"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(self._text)
        os.rename(temporary, self._file)

    def remove(self) -> None:
        """Remove the file."""
        if self._directory:
            with suppress(FileNotFoundError):
                os.unlink(self._file)
