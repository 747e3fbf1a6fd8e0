"""
What stands between a client and an agent, and lets faults happen.

`FaultProxy` is a TCP server in front of an agent; `FaultEndpoint` stands in front of another
endpoint, with no socket of its own, so that under a ``Clock`` each run is the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.faults.damage import Course, End, Fault, Way
from tests.faults.ledger import Ledger

#: Chooses the faults of a connection by its number, from 0 on.
Plan = Callable[[int], Sequence[Fault]]


def no_faults(number: int) -> Sequence[Fault]:
    """Have no connection go wrong."""
    return ()


class Plans:
    """
    The faults of the connections to come, over all hosts.

    :param plan: chooses them.
    :param ledger: reads along.
    :ivar made: the number of connections so far.
    :ivar relays: those that are open.
    """

    def __init__(self, clock: IReactorTime, plan: Plan, ledger: Ledger) -> None:
        self.clock = clock
        self.plan = plan
        self.ledger = ledger
        self.made = 0
        self.relays: list[Relay] = []

    def relay(self, client: End, agent: End) -> Relay:
        """Join the two ends of a new connection."""
        faults = self.plan(self.made)
        self.made += 1
        return Relay(self, list(faults), client, agent)

    def heal(self) -> None:
        """Let the connections to come have no faults; those that are slow end."""
        self.plan = no_faults
        for relay in list(self.relays):
            if relay.slow:
                relay.end(reset=True)


class Relay:
    """
    One connection, from a client to an agent.

    :ivar passed: the number of bytes that came, by direction.
    """

    def __init__(self, plans: Plans, faults: list[Fault], client: End, agent: End) -> None:
        self._ends = (client, agent)
        self._plans = plans
        self._read = plans.ledger.reader()
        plans.relays.append(self)
        self._courses: dict[Way, Course] = {}
        for way, receiver in ((Way.UP, agent), (Way.DOWN, client)):
            own = [fault for fault in faults if fault.way is way]
            self._courses[way] = Course(plans.clock, own, receiver, self.end)

    @property
    def slow(self) -> bool:
        return any(course.slow for course in self._courses.values())

    def start(self) -> None:
        """Let those faults happen that are due before the first byte."""
        for course in self._courses.values():
            course.start()

    @property
    def passed(self) -> dict[Way, int]:
        return {way: course.passed for way, course in self._courses.items()}

    def received(self, way: Way, data: bytes) -> None:
        """Take bytes from the end that sends this way."""
        if way is Way.UP:
            self._read(data)
        self._courses[way].take(data)

    def ended(self, way: Way) -> None:
        """The end that sends this way is gone."""
        other = Way.DOWN if way is Way.UP else Way.UP
        self._courses[other].stop()
        self._courses[way].finish()

    def gone(self) -> None:
        """Both ends are gone."""
        for course in self._courses.values():
            course.stop()
        if self in self._plans.relays:
            self._plans.relays.remove(self)

    def end(self, reset: bool) -> None:
        """End the connection, at both ends."""
        for course in self._courses.values():
            course.stop()
        for end in self._ends:
            if reset:
                end.abortConnection()
            else:
                end.loseConnection()


# -- over TCP


class _AgentSide(Protocol):
    """The connection to the agent."""

    relay: Relay

    def __init__(self, client: _ClientSide) -> None:
        self._client = client

    def connectionMade(self) -> None:
        self._client.connected_to(self)

    def dataReceived(self, data: bytes) -> None:
        self.relay.received(Way.DOWN, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.relay.ended(Way.DOWN)
        self._client.side_gone()


class _ClientSide(Protocol):
    """The connection from a client; it is not read before there is one to the agent."""

    relay: Relay | None = None

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self._sides = 1

    def connectionMade(self) -> None:
        self._proxy.connections.append(self)
        self._transport.pauseProducing()
        factory = Factory.forProtocol(lambda: _AgentSide(self))
        factory.noisy = False  # what is logged would keep the factory, and all that hangs on it
        connecting = self._proxy.agent.connect(factory)
        connecting.addErrback(self._refused)

    @property
    def _transport(self) -> Any:
        return self.transport

    def _refused(self, failure: Failure) -> None:
        failure.trap(error.ConnectError)
        self._transport.abortConnection()

    def connected_to(self, agent: _AgentSide) -> None:
        self._sides += 1
        end: Any = agent.transport
        self.relay = agent.relay = self._proxy.plans.relay(self._transport, end)
        if self._sides == 1:  # the client was quicker to go
            self.relay.ended(Way.UP)
        else:
            self._transport.resumeProducing()
            self.relay.start()

    def dataReceived(self, data: bytes) -> None:
        assert self.relay is not None
        self.relay.received(Way.UP, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.relay is not None:
            self.relay.ended(Way.UP)
        self.side_gone()

    def side_gone(self) -> None:
        self._sides -= 1
        if not self._sides:
            self._proxy.connections.remove(self)
            if self.relay is not None:
                self.relay.gone()


class FaultProxy(Factory):
    """
    Passes TCP connections on to an agent.

    :param agent: how to connect to it.
    :ivar connections: those that are open, with one of their ends at least.
    """

    noisy = False

    def __init__(self, plans: Plans, agent: IStreamClientEndpoint) -> None:
        self.plans = plans
        self.agent = agent
        self.connections: list[_ClientSide] = []

    def buildProtocol(self, addr: IAddress | None) -> _ClientSide:
        return _ClientSide(self)


# -- in memory


@implementer(ITransport)
class _Pipe:
    """The transport of a client in memory; and the client's end of its relay."""

    disconnecting = False

    def __init__(self, clock: IReactorTime, client: IProtocol) -> None:
        self._clock = clock
        self._client = client
        self._coming: deque[bytes] = deque()
        self._why: type[Exception] | None = None  # the connection is over, behind what is coming
        self._told = False
        self._reading = True
        self._turn: IDelayedCall | None = None
        self.relay: Relay | None = None
        self.from_relay = _FromRelay(self)

    # what a client does

    def write(self, data: bytes) -> None:
        if not self.disconnecting and self._why is None:
            assert self.relay is not None
            self.relay.received(Way.UP, data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self._end(error.ConnectionDone)

    def abortConnection(self) -> None:
        self.disconnecting = True
        self._end(error.ConnectionAborted)

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        self._reading = True
        self._wake()

    def getPeer(self) -> IAddress:
        return IPv4Address("TCP", "127.0.0.1", 7373)

    def getHost(self) -> IAddress:
        return IPv4Address("TCP", "127.0.0.1", 40000)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is ever delayed but by a fault."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing has to be kept alive."""

    # what comes to it

    def come(self, data: bytes) -> None:
        if self._why is None:
            self._coming.append(data)
            self._wake()

    def end(self, why: type[Exception]) -> None:
        if self._why is None:
            self._why = why
            if why is not error.ConnectionDone:
                self._coming.clear()
            self._wake()

    def _end(self, why: type[Exception]) -> None:
        self._coming.clear()
        if self._why is None and self.relay is not None:
            self.relay.ended(Way.UP)
        self._why = self._why or why
        self._reading = True
        self._wake()

    def _wake(self) -> None:
        if self._turn is None and not self._told:
            self._turn = self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._turn = None
        if not self._reading:
            return
        if self._coming:
            self._client.dataReceived(self._coming.popleft())
            self._wake()
        elif self._why is not None:
            self._told = True
            if self.relay is not None:
                self.relay.gone()
            self._client.connectionLost(Failure(self._why()))


class _FromRelay:
    """The end of a relay that the client is connected to."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe

    def write(self, data: bytes) -> None:
        self._pipe.come(data)

    def loseConnection(self) -> None:
        self._pipe.end(error.ConnectionDone)

    loseWriteConnection = loseConnection  # to a client that knows no half-closed connections it is the same

    def abortConnection(self) -> None:
        self._pipe.end(error.ConnectionLost)


class _AgentSideInMemory(Protocol):
    """The connection to the agent, of a client in memory."""

    relay: Relay | None = None

    def dataReceived(self, data: bytes) -> None:
        assert self.relay is not None
        self.relay.received(Way.DOWN, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.relay is not None
        self.relay.ended(Way.DOWN)


@implementer(IStreamClientEndpoint)
class FaultEndpoint:
    """
    Connects a client in memory to what another endpoint connects to.

    :param name: what logs and errors call it.
    """

    def __init__(self, plans: Plans, agent: IStreamClientEndpoint, name: str) -> None:
        self._plans = plans
        self._agent = agent
        self._name = name

    def __repr__(self) -> str:
        return f"<FaultEndpoint {self._name}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting = self._agent.connect(Factory.forProtocol(_AgentSideInMemory))

        def connected(agent: Any) -> IProtocol:
            client, agent.relay = join(self._plans, protocolFactory, agent.transport)
            agent.relay.start()
            return client

        return connecting.addCallback(connected)


def join(plans: Plans, factory: IProtocolFactory, agent: End) -> tuple[IProtocol, Relay]:
    """Connect a client in memory to an agent's end; `Relay.start` is still to be called."""
    client = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 7373))
    assert client is not None
    pipe = _Pipe(plans.clock, client)
    relay = pipe.relay = plans.relay(pipe.from_relay, agent)
    client.makeConnection(pipe)
    return client, relay
