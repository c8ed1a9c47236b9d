"""The simulated network: connections between processes, with delay, loss of order in time, back-pressure and breaks.

A connection is two wires, one for each end. What a program writes goes into a real socket, because both ends send by sendmsg(2)
and sendfile(2) themselves; the network takes it out at the other end of that socket in pieces of a chance size, and delivers each
after a chance delay, in order. What the other end does not read stays where it is, so a sender that is not read is blocked,
as it is in a kernel. Between processes that are parted nothing moves, in neither direction, and connecting times out; what was
on the way arrives when they are joined again.
"""

import os
import select
import socket
from collections.abc import Iterable
from functools import partial
from typing import Any

from twisted.internet import error as network
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from integration.simulation.world import Process, World

PIECE_MAX = 256 * 1024  # what one delivery brings at most: Twisted's nodes read as much at a time
WAY_MIN_S, WAY_MAX_S = 50e-6, 3e-3  # one way through the network of a building, under load
RATE = 1e9  # bytes a second


@implementer(IPushProducer)
class Wire:
    """One end of a connection, as the transport of its protocol. *other* is the opposite end."""

    disconnecting = False
    connected = 1

    def __init__(self, net: "Network", process: Process, host: IPv4Address, peer: IPv4Address) -> None:
        self._net = net
        self.process = process
        self.protocol: Any = None  # Any: a protocol of either package
        self.other: Wire
        self.bufferSize = PIECE_MAX
        self._host, self._peer = host, peer
        self._handle, self._far = socket.socketpair()
        for each in (self._handle, self._far):
            each.setblocking(False)  # noqa: FBT003 - its own signature
        self._buffer: list[bytes] = []
        self._producer: Any = None
        self._is_streaming = False
        self._producer_paused = False
        self._wants_to_write = False
        self._is_paused = False
        self.waiting: list[bytes] = []  # delivered, while the protocol reads nothing
        self._in_flight = 0  # pieces on their way from here
        self._arrives = 0.0
        self._is_scheduled = False
        self._has_ended = False  # nothing more comes from here
        self._end_told = False  # and the other end is told, or will be
        self._end_heard = False
        self.is_lost = False

    # -- for the protocol -----------------------------------------------------------------------------------------------

    def getHandle(self) -> socket.socket:  # noqa: N802
        """Return the socket to write to."""
        return self._handle

    def getHost(self) -> IPv4Address:  # noqa: N802
        """Return the own address."""
        return self._host

    def getPeer(self) -> IPv4Address:  # noqa: N802
        """Return the address of the other end."""
        return self._peer

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001, N802
        """Do nothing: nothing is held back here."""

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001, N802
        """Do nothing: no connection is idle for hours here."""

    def getTcpNoDelay(self) -> bool:  # noqa: N802
        """Return what every socket here has."""
        return True

    def write(self, data: bytes) -> None:
        """Send *data* behind what was written before."""
        if self.is_lost or self.disconnecting or self._has_ended:
            return
        self._buffer.append(bytes(data))
        self._flush()
        if self._buffer and self._is_streaming and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, pieces: Iterable[bytes]) -> None:  # noqa: N802
        """Send *pieces*."""
        self.write(b"".join(pieces))

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001, N802
        """Ask *producer* for more whenever the socket takes it."""
        if self.is_lost:
            producer.stopProducing()
            return
        self._producer, self._is_streaming, self._producer_paused = producer, bool(streaming), False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:  # noqa: N802
        """Ask it no more."""
        self._producer = None
        self._is_streaming = False
        if self.disconnecting:
            self._end_when_written()

    def startWriting(self) -> None:  # noqa: N802
        """Have the producer asked when the socket is writable."""
        self._wants_to_write = True

    def stopWriting(self) -> None:  # noqa: N802
        """Have it asked no more."""
        self._wants_to_write = False

    def pauseProducing(self) -> None:
        """Deliver nothing until `resumeProducing`."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Deliver again."""
        self._is_paused = False
        if self.waiting or self._end_heard:
            self._net.world.soon(self.process, self.deliver_waiting, most_s=WAY_MIN_S)
            self._net.world.soon(self._net.process, self.other.carry_on)

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    def loseConnection(self, reason: object = None) -> None:  # noqa: ARG002, N802
        """Close when all is written."""
        if not self.is_lost and not self.disconnecting:
            self.disconnecting = True
            self._end_when_written()

    def loseWriteConnection(self) -> None:  # noqa: N802
        """Close this direction when all is written."""
        self._has_ended = True
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self._net.world.soon(self.process, self._tell_half_closed)

    def abortConnection(self) -> None:  # noqa: N802
        """Close at once; the other end is told that it broke."""
        if not self.is_lost:
            self._drop_outgoing()
            self._lose(network.ConnectionAborted())
            self._net.tell_broken(self)

    # -- for the network ------------------------------------------------------------------------------------------------

    def stir(self) -> None:
        """Do what the turn of the reactor that has just ended calls for: send, and ask for more."""
        if self.is_lost:
            return
        self._flush()
        if self._wants_to_write and not self._is_scheduled and self._is_writable():
            self._is_scheduled = True
            self._net.world.soon(self.process, self._ask, most_s=WAY_MIN_S)
        self.carry()

    def carry(self) -> None:
        """Take a piece out of the socket, and the end behind the last, and send it on its way."""
        if self.other.is_lost or self._in_flight > 3 or not self._net.are_joined(self.process, self.other.process):
            return
        if len(self.other.waiting) > 3:  # a receive buffer is full
            return
        world = self._net.world
        try:
            piece = self._far.recv(world.random.choice((1, 700, 1460, 16384, 65536, PIECE_MAX)))
        except OSError:  # nothing is there, or the process is dead and its sockets are closed
            piece = b""
        if piece:
            self._in_flight += 1
            way = world.random.uniform(WAY_MIN_S, WAY_MAX_S) + len(piece) / RATE
            self._arrives = max(self._arrives, world.now + way)
            world.at(self._arrives, self.other.process, lambda: self._arrive(piece))
            world.at(world.now + WAY_MIN_S, self._net.process, self.carry_on)
        elif self._has_ended and not self._buffer and not self._end_told:
            self._end_told = True
            self._arrives = max(self._arrives, world.now + WAY_MIN_S)
            world.at(self._arrives, self.other.process, self.other.hear_end)

    def carry_on(self) -> None:
        """Carry the next piece; the sender, which waits for room, may write again."""
        self.carry()
        if (self._wants_to_write or self._buffer) and self.process.is_alive and not self.process.is_frozen:
            self.stir()

    def break_off(self, reason: Exception) -> None:
        """Lose the connection: the other end broke it."""
        if self.is_lost:
            return
        self._drop_outgoing()
        if self.protocol is None:  # the connection had not come about here
            self.is_lost = True
        else:
            self._lose(reason)

    def release(self) -> None:
        """Close the sockets."""
        self._handle.close()
        self._far.close()

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _arrive(self, piece: bytes) -> None:
        self._in_flight -= 1
        other = self.other
        if other.is_lost:
            if not self.is_lost:  # a kernel answers data for a closed socket with a reset
                self._net.tell_broken(other)
            return
        other.waiting.append(piece)
        other.deliver_waiting()
        self._net.world.at(self._net.world.now, self._net.process, self.carry_on)

    def deliver_waiting(self) -> None:
        """Give the protocol what has come, unless it reads nothing at the moment."""
        while self.waiting and not self._is_paused and not self.is_lost:
            piece = self.waiting.pop(0)
            self._net.world.note(self.process.name, len(piece))
            self.protocol.dataReceived(piece)
        if self._end_heard and not self.waiting and not self._is_paused and not self.is_lost:
            self._end_heard = False
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.readConnectionLost()
            else:
                self._has_ended = True
                self._net.world.soon(self._net.process, self.carry)
                self._lose(network.ConnectionDone())

    def hear_end(self) -> None:
        """Take in that nothing more comes."""
        self._end_heard = True
        self.deliver_waiting()

    def _is_writable(self) -> bool:
        return self._net.is_writable(self._handle)

    def _ask(self) -> None:
        self._is_scheduled = False
        if self.is_lost or not self._wants_to_write or self._producer is None:
            return
        self._wants_to_write = False
        self._producer.resumeProducing()

    def _tell_half_closed(self) -> None:
        if not self.is_lost:
            self.protocol.writeConnectionLost()

    def _flush(self) -> None:
        while self._buffer and not self.is_lost:
            try:
                taken = self._handle.send(self._buffer[0])
            except OSError:  # it is full, and `carry_on` comes back here when it is not; or it is closed
                return
            rest = self._buffer[0][taken:]
            self._buffer[:1] = [rest] if rest else []
        if self._producer is not None and self._is_streaming and self._producer_paused and not self.is_lost:
            self._producer_paused = False
            self._net.world.soon(self.process, self._resume_streaming, most_s=WAY_MIN_S)
        if self.disconnecting:
            self._end_when_written()

    def _resume_streaming(self) -> None:
        if self._producer is not None and self._is_streaming and not self.is_lost:
            self._producer.resumeProducing()

    def _end_when_written(self) -> None:
        if self._buffer or self._producer is not None or self.is_lost:
            return
        self._has_ended = True
        self._net.world.soon(self._net.process, self.carry)
        self._lose(network.ConnectionDone())

    def _drop_outgoing(self) -> None:
        self._buffer.clear()
        self._has_ended = self._end_told = True

    def _lose(self, reason: Exception) -> None:
        self.is_lost = True
        self.connected = 0
        producer, self._producer = self._producer, None
        failure = Failure(reason)

        def lost() -> None:
            if producer is not None:
                producer.stopProducing()
            if self.protocol is not None:  # else it was reset before anybody here was told of it
                self.protocol.connectionLost(failure)

        self._net.world.soon(self.process, lost, most_s=WAY_MIN_S)


class Port:
    """What listens: made by `Network.listen`."""

    def __init__(self, net: "Network", process: Process, bound: socket.socket, factory: Any) -> None:
        self._net = net
        self.process = process
        self.bound = bound
        self.factory = factory
        self.is_accepting = True

    def getHost(self) -> IPv4Address:  # noqa: N802
        """Return where it listens."""
        return IPv4Address("TCP", *self.bound.getsockname())

    def stopListening(self) -> None:  # noqa: N802
        """Take no more connections."""
        self._net.forget(self)

    def stopReading(self) -> None:  # noqa: N802
        """Let connections wait."""
        self.is_accepting = False

    def startReading(self) -> None:  # noqa: N802
        """Take them again."""
        self.is_accepting = True


class Connector:
    """What Twisted gives whoever connects."""

    def __init__(self, destination: IPv4Address, factory: Any) -> None:
        self._destination = destination
        self._factory = factory
        self.is_over = False
        self.wire: Wire | None = None

    def getDestination(self) -> IPv4Address:  # noqa: N802
        """Return where it connects to."""
        return self._destination

    def stopConnecting(self) -> None:  # noqa: N802
        """Give up."""
        self.fail(network.UserError())

    def disconnect(self) -> None:
        """Give up, or close."""
        if self.wire is None:
            self.stopConnecting()
        else:
            self.wire.loseConnection()

    def fail(self, reason: Exception) -> None:
        """Tell the factory, once, that there is no connection."""
        if not self.is_over:
            self.is_over = True
            self._factory.clientConnectionFailed(self, Failure(reason))


class Network:
    """Every connection of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.process = Process(world, "network", "")
        self._ports: dict[tuple[str, int], Port] = {}
        self._wires: dict[Process, list[Wire]] = {}
        self._parted: set[frozenset[Process]] = set()
        self._client_port = 40000
        self._poll = select.poll()
        self.hosts: dict[str, Process] = {}  # who lives, or lived last, at an address

    # -- faults ---------------------------------------------------------------------------------------------------------

    def part(self, one: Process, other: Process) -> None:
        """Let nothing pass between two processes."""
        self._parted.add(frozenset((one, other)))

    def join(self, one: Process, other: Process) -> None:
        """Let everything pass again."""
        self._parted.discard(frozenset((one, other)))
        for process in (one, other):
            for wire in self._wires.get(process, ()):
                if wire.is_lost and not wire.other.is_lost:
                    self.tell_broken(wire)
                self.world.soon(self.process, wire.carry_on)

    def reset(self, one: Process, other: Process) -> None:
        """Break every connection between two processes; what was on the way is lost."""
        for wire in tuple(self._wires.get(one, ())):
            if wire.other.process is other:
                for end in (wire, wire.other):
                    self.world.soon(end.process, partial(end.break_off, network.ConnectionLost()))

    def are_joined(self, one: Process, other: Process) -> bool:
        """Return whether anything passes between them."""
        return frozenset((one, other)) not in self._parted

    def bury(self, process: Process, *, is_silent: bool = False) -> None:
        """Take what *process*, which is dead, has listened with and connected; *is_silent* when its machine lost power."""
        for port in [port for port in self._ports.values() if port.process is process]:
            self.forget(port)
        for wire in self._wires.pop(process, []):
            was_lost, wire.is_lost = wire.is_lost, True
            wire.release()
            if not was_lost and not is_silent:
                self.tell_broken(wire)

    def close(self) -> None:
        """Close every socket: the world has ended."""
        for process in list(self._wires):
            self.bury(process, is_silent=True)
        for port in list(self._ports.values()):
            self.forget(port)

    # -- for reactors -----------------------------------------------------------------------------------------------------

    def listen(self, process: Process, fd: int, factory: Any) -> Port:
        """Accept connections for *factory* at the address of the socket *fd*, which stays reserved by it."""
        port = Port(self, process, socket.socket(fileno=os.dup(fd)), factory)
        self._ports[port.bound.getsockname()] = port
        factory.doStart()
        return port

    def forget(self, port: Port) -> None:
        """Accept no more connections at *port*."""
        self._ports.pop(port.bound.getsockname(), None)
        port.bound.close()

    def connect(self, process: Process, host: str, number: int, factory: Any, timeout: float) -> Connector:
        """Connect *process* to what listens at *host* and *number*; tell *factory*."""
        connector = Connector(IPv4Address("TCP", host, number), factory)
        factory.doStart()
        factory.startedConnecting(connector)
        began = self.world.now

        def knock() -> None:
            if connector.is_over or not process.is_alive:
                return
            port, there = self._ports.get((host, number)), self.hosts.get(host)
            is_silent = there is None or there.has_no_power or not self.are_joined(process, there)
            if is_silent or (port is not None and not port.is_accepting):
                if self.world.now - began >= timeout:
                    self.world.soon(process, lambda: connector.fail(network.TimeoutError()))
                else:
                    self.world.at(self.world.now + min(0.25, timeout), self.process, knock)
            elif port is None:
                self.world.soon(process, lambda: connector.fail(network.ConnectionRefusedError()))
            else:
                self._establish(process, port, connector, factory)

        self.world.soon(self.process, knock)
        return connector

    def stir(self, process: Process) -> None:
        """Move what a turn of *process* has written."""
        wires = self._wires.get(process)
        if wires is None:
            return
        for wire in tuple(wires):
            wire.stir()
        if len(wires) > 8:
            gone = [wire for wire in wires if wire.is_lost and wire.other.is_lost and wire.other.process.is_alive]
            for wire in gone:
                wires.remove(wire)

    def tell_broken(self, wire: Wire) -> None:
        """Have the other end of *wire* told that the connection broke, when the news gets through."""
        other = wire.other
        if not other.is_lost and self.are_joined(wire.process, other.process):
            self.world.soon(other.process, lambda: other.break_off(network.ConnectionLost()))

    def is_writable(self, handle: socket.socket) -> bool:
        """Return whether the socket takes anything now."""
        self._poll.register(handle, select.POLLOUT)
        ready = self._poll.poll(0)
        self._poll.unregister(handle)
        return bool(ready)

    def _establish(self, process: Process, port: Port, connector: Connector, factory: Any) -> None:
        self._client_port += 1
        here, there = IPv4Address("TCP", process.address, self._client_port), port.getHost()
        near, far = Wire(self, process, here, there), Wire(self, port.process, there, here)
        near.other, far.other = far, near
        for wire in (near, far):
            self._wires.setdefault(wire.process, []).append(wire)

        def accept() -> None:
            if far.is_lost:
                return
            far.protocol = port.factory.buildProtocol(here)
            if far.protocol is None:
                far.protocol = _Nobody()
                far.abortConnection()
            else:
                far.protocol.makeConnection(far)

        def connected() -> None:
            if near.is_lost:
                connector.fail(network.ConnectionRefusedError())
                return
            if connector.is_over:
                near.protocol = _Nobody()
                near.abortConnection()
                return
            connector.is_over, connector.wire = True, near
            near.protocol = factory.buildProtocol(there)
            if near.protocol is None:
                near.protocol = _Nobody()
                near.abortConnection()
            else:
                near.protocol.makeConnection(near)

        self.world.soon(port.process, accept, most_s=WAY_MIN_S)
        self.world.soon(process, connected, least_s=WAY_MIN_S, most_s=WAY_MAX_S)


class _Nobody:
    """The protocol of a connection that nobody wanted."""

    def dataReceived(self, data: bytes) -> None:
        """Drop what comes."""

    def connectionLost(self, reason: Failure) -> None:
        """Be content."""
