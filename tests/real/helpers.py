"""Helpers of the tests on real agents: waiting for responses, and servers in place of an agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.agents import Agent
from tests.in_reactor import LIMIT as LIMIT
from tests.in_reactor import UNUSED as UNUSED
from tests.in_reactor import in_reactor as in_reactor
from tests.in_reactor import reactor as reactor
from tests.in_reactor import wait_for as wait_for
from txserf import wire
from txserf.client.client import Client
from txserf.client.requests import Response

T = TypeVar("T")


async def fails(result: Awaitable[object], kind: type[BaseException]) -> Any:
    """Return the error that an awaitable fails with. It has to be of class *kind*, not of a subclass."""
    try:
        value = await result
    except Exception as error:
        assert type(error) is kind, repr(error)
        return error
    raise AssertionError(f"it did not fail, its result is {value!r}")


class Watched:
    """An object that a test can wait for to change."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Wait until *condition* is true. It is checked now and at each change."""
        met: Deferred[None] = Deferred()
        if condition():
            met.callback(None)
        else:
            self._waiting.append((condition, met))
        return met

    def changed(self) -> None:
        """Fire the Deferreds whose condition is true now."""
        for entry in list(self._waiting):
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)


class Seen(Watched):
    """
    A callback that keeps its responses, so that a test can wait for them.

    :ivar responses: the responses, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.responses: list[Response] = []

    def __call__(self, response: Response) -> None:
        self.responses.append(response)
        self.changed()

    @property
    def records(self) -> list[Any]:
        """The bodies of the records, without the replies that opened the stream."""
        return [response.body for response in self.responses if response.body is not None]

    @property
    def openings(self) -> int:
        """The number of times that the stream was opened."""
        return len(self.responses) - len(self.records)

    @property
    def names(self) -> list[str]:
        """The names of the events and queries."""
        return [record["Name"] for record in self.records]

    async def count(self, number: int) -> list[Any]:
        """Wait for *number* records, and return all of them."""
        await self.until(lambda: len(self.records) >= number)
        return self.records

    async def opened(self, times: int = 1) -> None:
        """Wait until the stream was opened *times* times."""
        await self.until(lambda: self.openings >= times)


async def round_trip(client: Client) -> None:
    """
    Wait until the agent has run all commands that *client* sent.

    An agent sends the reply that opens a stream a moment before it registers the stream. After
    this round trip no event is missed.
    """
    await client.stop(Stop=UNUSED).request(timeout=LIMIT)


def accepted(agent: Agent) -> int:
    """Return the number of RPC connections that the agent has accepted so far, from its log."""
    return agent.log.count("Accepted client")


# -- servers in place of an agent, or between it and a client


class Scripted(Protocol):
    """A server's connection. It passes the bytes that come to the server's function."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    def connectionMade(self) -> None:
        self._server.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self._server.heard(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.connections.remove(self)

    def say(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def hang_up(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class ScriptedServer(Factory):
    """
    A server whose behaviour is a function.

    :param heard: called with the connection and the bytes that came.
    :ivar connections: the open connections.
    """

    def __init__(self, heard: Callable[[Scripted, bytes], object]) -> None:
        self.heard = heard
        self.connections: list[Scripted] = []

    def buildProtocol(self, addr: IAddress | None) -> Scripted:
        return Scripted(self)


class _Inward(Protocol):
    """The connection of a client to a `Proxy`."""

    outward: _Outward | None = None

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def connectionMade(self) -> None:
        self._proxy.connections.append(self)
        self._unpacker = wire.Unpacker()
        self._early: list[bytes] = []
        host, _, port = self._proxy.agent.rpc.partition(":")
        endpoint = TCP4ClientEndpoint(reactor, host, int(port))
        connectProtocol(endpoint, _Outward(self)).addErrback(lambda _: self.cut())

    def dataReceived(self, data: bytes) -> None:
        if self.outward is None or self.outward.transport is None:
            self._early.append(data)
        else:
            self.outward.transport.write(data)
        headers = [value for value in self._unpacker.feed(data) if "Command" in value]
        self._proxy.passed([header["Command"] for header in headers])

    def joined(self, outward: _Outward) -> None:
        self.outward = outward
        assert outward.transport is not None
        outward.transport.write(b"".join(self._early))

    def answer(self, data: bytes) -> None:
        if not self._proxy.holding:
            assert self.transport is not None
            self.transport.write(data)

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._proxy.connections.remove(self)
        if self.outward is not None and self.outward.transport is not None:
            self.outward.transport.loseConnection()


class _Outward(Protocol):
    """The connection of a `Proxy` to the agent."""

    def __init__(self, inward: _Inward) -> None:
        self._inward = inward

    def connectionMade(self) -> None:
        self._inward.joined(self)

    def dataReceived(self, data: bytes) -> None:
        self._inward.answer(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._inward.cut()


class Proxy(Factory, Watched):
    """
    A proxy between clients and an agent. It can hold back the agent's answers.

    :ivar commands: the names of the commands that were passed on to the agent.
    :ivar holding: whether it holds back the agent's answers. It passes on the clients' requests anyway.
    :ivar connections: the clients' connections.
    """

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent
        self.commands: list[str] = []
        self.holding = False
        self.connections: list[_Inward] = []

    def buildProtocol(self, addr: IAddress | None) -> _Inward:
        return _Inward(self)

    def passed(self, commands: list[str]) -> None:
        self.commands += commands
        self.changed()

    def cut(self) -> None:
        """Close all connections."""
        for connection in list(self.connections):
            connection.cut()


class Listeners:
    """Starts servers, and closes them and their connections."""

    def __init__(self) -> None:
        self._ports: list[Any] = []
        self._factories: list[Any] = []

    def listen(self, factory: Factory, endpoint: IStreamServerEndpoint | None = None) -> str:
        """Listen with *factory*, by default on a free loopback port. Return the port's ``host:port``."""
        if endpoint is None:
            endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        ports: list[Any] = []
        endpoint.listen(factory).addCallback(ports.append)
        self._ports += ports
        self._factories.append(factory)
        return f"127.0.0.1:{getattr(ports[0].getHost(), 'port', 0)}"

    async def close(self) -> None:
        for port in self._ports:
            await port.stopListening()
        for factory in self._factories:
            for connection in list(factory.connections):
                connection.transport.abortConnection()
