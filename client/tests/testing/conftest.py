"""What the tests of the doubles share."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.threads import blockingCallFromThread

from granum.testing import FakeNode

pytest.register_assert_rewrite("granum.testing.conformance")


@pytest.fixture(scope="session")
def reactor() -> Iterator[Any]:
    """A reactor of its own, in a thread of its own: these tests block, and the reactor of other tests is left alone."""
    reactor = EPollReactor()
    thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False})
    thread.start()
    yield reactor
    reactor.callFromThread(reactor.stop)
    thread.join()


@pytest.fixture
def run(reactor: Any) -> Callable[[Callable[[], "Deferred[None] | None"]], object]:
    """Calls something in the reactor's thread and waits for it."""
    return lambda action: blockingCallFromThread(reactor, action)


@pytest.fixture
def node(reactor: Any, run: Any) -> Iterator[FakeNode]:
    """A fake node that listens."""
    fake = FakeNode(reactor, cluster="lab", computer="scope1", node_id="4f2a")
    run(fake.start)
    yield fake
    run(fake.stop)
