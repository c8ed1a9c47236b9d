"""PYME's layout of a series: a directory NAME.pcs, and the names of the files in it."""

from granum.wire.paths import ClusterPath

SUFFIX = ".pcs"
METADATA = "metadata.json"
FINAL_METADATA = "final_metadata.json"
EVENTS = "events.json"


def frame_name(n: int) -> str:
    """Return the file name of frame *n*."""
    return f"frame{n:05d}.pzf"


def series_path(path: str | ClusterPath) -> ClusterPath:
    """Return the directory of the series *path*, which may lack the suffix."""
    parsed = ClusterPath.parse(path)
    if parsed.name.endswith(SUFFIX):
        return parsed
    return parsed.parent / (parsed.name + SUFFIX)
