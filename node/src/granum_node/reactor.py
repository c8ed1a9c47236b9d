"""What a node asks of a Twisted reactor, as one type."""

from twisted.internet.interfaces import IReactorCore, IReactorFromThreads, IReactorSocket, IReactorTime
from zope.interface import Interface


class Reactor(IReactorCore, IReactorFromThreads, IReactorSocket, IReactorTime, Interface):
    """Sockets, time in monotonic seconds, and calls from other threads."""
