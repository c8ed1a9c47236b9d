"""Doubles for tests of programs that use granum: nodes that keep their files in memory.

A `FakeNode` answers on a real port of the loopback address as `granum-node` does, needs neither a disk nor the daemon, and
fails on demand. A `MemoryCluster` is several of them. The conformance suite in `granum.testing.conformance` runs on the fake
and on the daemon alike, so that a test which passes here means the same there; it is not imported from here, because it is
for those who write a node.

    @pytest_twisted.ensureDeferred
    async def test_my_script_survives_a_node_that_drops_the_connection():
        node = FakeNode(reactor)
        await node.start()
        node.files["/run1/frame00000.pzf"] = b"..."
        node.fail_next("drop", verb="GET")
        await my_script(node.address, node.port)
        assert ("GET", "/run1/frame00000.pzf") in node.requests
        await node.stop()
"""

from granum.testing.fake import FakeNode, MemoryCluster

__all__ = ["FakeNode", "MemoryCluster"]
