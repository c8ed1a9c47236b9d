"""When missing nodes are asked whether they are back."""

from collections import Counter
from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from granum.gathering import Gathering
from granum.roster import Node, Roster
from granum.wire.advert import Advertisement
from granum.wire.errors import NodeUnreachable


class World:
    """Two missing nodes: one whose machine says nothing at all, and one whose machine refuses connections until it *is_back*."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.roster = Roster("")
        self.knocks: Counter[str] = Counter()
        self.cancelled = 0
        self.is_back = False
        for name, port in (("silent", 1), ("refusing", 2)):
            self.roster.heard(Advertisement(name, "10.0.0.1", port), "mdns", 0.0)
            self.roster.failed(name, 0.0, NodeUnreachable("it is gone"))
        self.gathering = Gathering(self.roster, (), self.status, self.reach, self.clock)

    async def reach(self, node: Node) -> None:
        self.knocks[node.key] += 1
        if node.key == "silent":
            await Deferred(self._count)
        elif not self.is_back:
            raise NodeUnreachable("refused")

    async def status(self, node: Node) -> Mapping[str, object]:
        self.roster.answered(node.key, self.clock.seconds())
        return {}

    def _count(self, _: Deferred[None]) -> None:
        self.cancelled += 1

    def missing(self) -> list[str]:
        return [node.key for node in self.roster.missing()]


def test_a_silent_node_is_not_knocked_at_again_while_a_connection_is_tried() -> None:
    world = World()
    world.gathering.start()
    world.clock.pump([0.5] * 18)
    assert world.knocks == {"silent": 1, "refusing": 10}


def test_a_silent_node_delays_no_other() -> None:
    world = World()
    world.gathering.start()
    world.clock.advance(0.5)
    world.is_back = True
    world.clock.advance(1.0)
    assert world.missing() == ["silent"]


def test_stopping_ends_the_tries() -> None:
    world = World()
    world.gathering.start()
    world.gathering.stop()
    assert world.cancelled == 1
    world.clock.advance(20.0)
    assert world.knocks["silent"] == 1
