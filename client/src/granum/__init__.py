"""granum: the client of a storage cluster for microscopy.

>>> import granum
>>> cluster = granum.connect("lab")             # doctest: +SKIP
>>> cluster.get("/run7/frame00000.pzf")         # doctest: +SKIP

`connect` gives the blocking client. Programs that run a Twisted reactor use `granum.Cluster`. Importing this package alone
imports neither Twisted nor NumPy: a host program that chooses its own reactor must be able to do so first.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from granum.arrays.series import SeriesReader
    from granum.blocking import connect
    from granum.cluster import Cluster
    from granum.streaming.series import SeriesWriter
    from granum.wire import errors

__version__ = "0.1.0"
__all__ = ["Cluster", "SeriesReader", "SeriesWriter", "__version__", "connect", "errors"]

_MODULES = {
    "Cluster": "granum.cluster",
    "SeriesReader": "granum.arrays.series",
    "SeriesWriter": "granum.streaming.series",
    "connect": "granum.blocking",
}


def __getattr__(name: str) -> object:
    """Import on first use what `__all__` promises (PEP 562)."""
    if name == "errors":
        return import_module("granum.wire.errors")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'granum' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
