"""Streams run on the asyncio reactor as on any other."""

import subprocess
import sys

SCRIPT = """
import asyncio
from twisted.internet.asyncioreactor import AsyncioSelectorReactor

loop = asyncio.new_event_loop()
reactor = AsyncioSelectorReactor(loop)

import numpy as np
from granum.cluster import Cluster
from granum.streaming.series import SeriesWriter
from granum.testing import MemoryCluster


async def main():
    memory = MemoryCluster(reactor, 3)
    await memory.start().asFuture(loop)
    hosts = [f"{fake.address}:{fake.port}" for fake in memory.nodes]
    cluster = Cluster("test", reactor=reactor, sources=(), nodes=hosts, bypass=False)
    cluster.startService()
    for compression in ("raw", "huffman"):
        series = await SeriesWriter.create(cluster, compression, compression=compression).asFuture(loop)
        for n in range(30):
            if n == 10:
                memory.nodes[0].fail_next("drop", verb="PUT")
            await series.store_frame(n, np.full((64, 64), n, "u2")).asFuture(loop)
        summary = await series.finalise().asFuture(loop)
        print(summary.puts)
    await cluster.stopService().asFuture(loop)
    await memory.stop().asFuture(loop)
    print(len(reactor.getDelayedCalls()))
    reactor.stop()


reactor.callWhenRunning(lambda: loop.create_task(main()))
reactor.run()
"""


def test_a_series_is_streamed_on_the_asyncio_reactor_and_survives_a_broken_connection() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "30\n30\n0\n")
