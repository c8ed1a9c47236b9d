"""The client for plain threads: the verbs of `granum.cluster`, each of which waits for its result.

    cluster = granum.connect("lab")
    print(list(cluster.listdir("/run7")))

`thread` owns the one reactor that the client ever runs; `cluster` and `series` are thin over it.
"""

from granum.blocking.cluster import Cluster, connect
from granum.blocking.series import SeriesReader, SeriesWriter

__all__ = ["Cluster", "SeriesReader", "SeriesWriter", "connect"]
