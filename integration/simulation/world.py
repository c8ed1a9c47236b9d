"""Simulated time, and the processes that live in it.

Everything that happens is an event with a time; they happen one after the other, in the order of their times, and nothing else
decides: the same seed gives the same run, to the last byte. A process is a node or a client. Killed, none of its events happen
any more; frozen, they wait until it is thawed. Each has a reactor of its own over the one clock, so that what one process has
scheduled can be stopped without touching the others.
"""

import hashlib
import heapq
import random
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

TURN_S = 20e-6  # what one turn of a reactor costs at least: nothing happens at once, so nothing can spin without time passing


class Process:
    """One program on one machine, at *address*."""

    def __init__(self, world: "World", name: str, address: str) -> None:
        self.world = world
        self.name = name
        self.address = address
        self.is_alive = True
        self.is_frozen = False
        self.has_no_power = False
        self._held: list[Callable[[], None]] = []
        self.reactor: Any = Reactor(self)  # Any: those who take a reactor ask for interfaces of Twisted

    def do(self, call: Callable[[], None]) -> None:
        """Make *call* as an event of this process: now, later when it is frozen, never when it is dead."""
        if not self.is_alive:
            return
        if self.is_frozen:
            self._held.append(call)
            return
        self.world.running = self
        try:
            call()
        except Exception as error:  # noqa: BLE001 - a reactor survives whatever its calls raise; the run does not pass
            self.world.errors.append(f"{self.name}: {Failure(error).getTraceback()}")
        finally:
            self.world.running = None
        self.world.network.stir(self)

    def freeze(self) -> None:
        """Stop running, and keep everything (SIGSTOP)."""
        self.is_frozen = True

    def thaw(self) -> None:
        """Run again; what was due meanwhile happens now, in its order."""
        self.is_frozen = False
        held, self._held = self._held, []
        for call in held:
            self.do(call)

    def kill(self, *, has_no_power: bool = False) -> None:
        """End at once: by SIGKILL, or because the machine has no power, and then it does not even refuse connections."""
        self.is_alive = False
        self.has_no_power = has_no_power
        self._held.clear()
        self.world.network.bury(self, is_silent=has_no_power)


class World:
    """Time, chance and what was seen. *seed* decides all of it. *current* is the one world of this process."""

    current: "World"

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        self.sync_s = self.random.choice((0.004, 0.004, 0.1, 1.0))  # what a disk takes at most: some are slow
        self.errors: list[str] = []
        self.running: Process | None = None
        self.network: Any = None  # Any: a Network, which knows this class
        self._events: list[tuple[float, int, Process, Any]] = []
        self._order = 0
        self._trace = hashlib.sha256()

    def at(self, when: float, process: Process, call: "Callable[[], None] | DelayedCall") -> None:
        """Have *call* made in *process* at *when*."""
        self._order += 1
        heapq.heappush(self._events, (max(when, self.now), self._order, process, call))

    def soon(self, process: Process, call: Callable[[], None], least_s: float = TURN_S, most_s: float = 0.002) -> None:
        """Have *call* made in *process* after a time that chance decides."""
        self.at(self.now + self.random.uniform(least_s, most_s), process, call)

    def note(self, *what: object) -> None:
        """Take *what* into the trace, which tells two runs apart."""
        self._trace.update(repr((round(self.now, 6), *what)).encode())

    @property
    def trace(self) -> str:
        """The digest of all that was noted."""
        return self._trace.hexdigest()

    def run(self, until: Callable[[], bool], limit_s: float) -> bool:
        """Let time pass until *until* is true; return False when *limit_s* simulated seconds did not suffice."""
        end = self.now + limit_s
        while not until():
            if not self._events or self._events[0][0] > end:
                self.now = end
                return until()
            self._step()
        return True

    def _step(self) -> None:
        when, _, process, call = heapq.heappop(self._events)
        if isinstance(call, DelayedCall):
            if call.cancelled or call.called or when < call.time:  # `reset` has pushed it anew, or it was put off
                return
            if call.delayed_time:
                call.activate_delay()
                self.at(call.time, process, call)
                return
            self.now = when
            process.do(lambda: _fire(call))
            return
        self.now = when
        process.do(call)


def _fire(call: DelayedCall) -> None:
    if not call.cancelled and not call.called:
        call.called = 1
        call.func(*call.args, **call.kw)


class Reactor:
    """What a client or a node asks of a reactor, and no more."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._pool = Pool(process)
        self.delayed: list[DelayedCall] = []

    def seconds(self) -> float:
        """Return the simulated time, which never jumps."""
        return self._world.now

    def callLater(self, delay: float, call: Callable[..., object], *args: Any, **kwargs: Any) -> DelayedCall:  # noqa: N802
        """Schedule *call*."""
        when = self._world.now + max(delay, TURN_S)
        delayed = DelayedCall(when, call, args, kwargs, lambda _: None, self._put_back, self.seconds)
        self.delayed = [each for each in self.delayed if each.active()] if len(self.delayed) > 256 else self.delayed
        self.delayed.append(delayed)
        self._world.at(when, self._process, delayed)
        return delayed

    def getDelayedCalls(self) -> list[DelayedCall]:  # noqa: N802
        """Return what is still to come."""
        return [each for each in self.delayed if each.active()]

    def callFromThread(self, call: Callable[..., object], *args: Any, **kwargs: Any) -> None:  # noqa: N802
        """Schedule *call* for the next turn."""
        self._world.at(self._world.now + TURN_S, self._process, lambda: (call(*args, **kwargs), None)[1])

    def getThreadPool(self) -> "Pool":  # noqa: N802
        """Return the pool, whose threads are events."""
        return self._pool

    def resolve(self, name: str, _: object = ()) -> Deferred[str]:
        """Fire with *name*: there are addresses only."""
        return succeed(name)

    def connectTCP(  # noqa: N802
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: object = None,  # noqa: ARG002, N803 - Twisted's signature
    ) -> object:
        """Connect to what listens at *host* and *port*."""
        return self._world.network.connect(self._process, host, port, factory, timeout)

    def adoptStreamPort(self, fd: int, family: int, factory: Any) -> object:  # noqa: ARG002, N802
        """Listen at the address that the socket *fd* is bound to."""
        return self._world.network.listen(self._process, fd, factory)

    def _put_back(self, delayed: DelayedCall) -> None:
        self._world.at(delayed.time, self._process, delayed)


class Pool:
    """A pool of threads in which each piece of work is one event: what work does to its own process happens whole."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.threadFactory: object = threading.Thread

    def callInThread(self, call: Callable[..., object], *args: Any, **kwargs: Any) -> None:  # noqa: N802
        """Make *call* some time later."""
        self.callInThreadWithCallback(None, call, *args, **kwargs)

    def callInThreadWithCallback(  # noqa: N802
        self, on_result: Callable[[bool, Any], object] | None, call: Callable[..., object], *args: Any, **kwargs: Any
    ) -> None:
        """Make *call* some time later and tell *on_result* how it went."""

        def work() -> None:
            try:
                outcome: tuple[bool, Any] = (True, call(*args, **kwargs))
            except Exception:  # noqa: BLE001 - as a thread of a pool
                outcome = (False, Failure())
            if on_result is not None:
                on_result(*outcome)
            elif not outcome[0]:
                outcome[1].raiseException()

        self._process.world.soon(self._process, work)

    def start(self) -> None:
        """Do nothing: there are no threads."""

    def stop(self) -> None:
        """Do nothing."""

    def adjustPoolsize(self, least: int, most: int) -> None:  # noqa: N802
        """Do nothing."""
