"""What a node must do on the wire, as tests: one class, run on the fake node and on the daemon alike.

Subclass it where pytest collects, and give it a fixture named `node` with `.address` and `.port`. Each test works in a
directory of its own, so the node may hold other files and may be shared by all tests. Needed is a cluster of one node
without access rules; nothing is removed afterwards, because nothing can be.

    class TestMyNode(NodeConformance):
        @pytest.fixture(scope="class")
        def node(self):
            ...

The suite needs no reactor: it talks through blocking sockets.
"""

from granum.testing.conformance.bodies import BodyConformance
from granum.testing.conformance.connections import ConnectionConformance
from granum.testing.conformance.names import NameConformance
from granum.testing.conformance.reading import ReadingConformance
from granum.testing.conformance.writing import WritingConformance


class NodeConformance(ReadingConformance, WritingConformance, NameConformance, BodyConformance, ConnectionConformance):
    """Everything that a node must do on the wire."""


__all__ = ["NodeConformance"]
