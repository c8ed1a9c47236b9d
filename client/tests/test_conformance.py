"""The fake node keeps the contract that the conformance suite states."""

import threading
from collections.abc import Iterator

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.threads import blockingCallFromThread

pytest.register_assert_rewrite("granum.testing.conformance")

from granum.testing import FakeNode  # noqa: E402
from granum.testing.conformance import NodeConformance  # noqa: E402


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNode]:
    # A reactor of its own, in a thread of its own: the suite blocks, and the reactor of other tests is left alone.
    reactor = EPollReactor()
    thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False})
    thread.start()
    fake = FakeNode(reactor)
    blockingCallFromThread(reactor, fake.start)  # type: ignore[arg-type]
    yield fake
    blockingCallFromThread(reactor, fake.stop)  # type: ignore[arg-type]
    reactor.callFromThread(reactor.stop)
    thread.join()


class TestFakeNode(NodeConformance):
    pass
