"""The client for plain threads: the verbs of `granum.cluster`, each of which waits for its result.

    cluster = granum.connect("lab")
    print(list(cluster.listdir("/run7")))

`thread` owns the one reactor that the client ever runs; `cluster`, `series` and `reader` are thin over it.
"""

from granum.blocking.cluster import Cluster, connect
from granum.blocking.reader import SeriesReader
from granum.blocking.series import SeriesWriter

__all__ = ["Cluster", "SeriesReader", "SeriesWriter", "connect"]
