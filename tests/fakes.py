"""
Fake agents and hosts in memory.

Nothing here opens a socket or waits. A test reads the requests, sends each reply
and moves the clock itself.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.base import BaseConnector
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txserf import commands, wire

ADDRESS = IPv4Address("TCP", "127.0.0.1", 7373)

# A member as a 0.9.4 agent sends it.
MEMBER: dict[str, Any] = {
    "Addr": b"\x7f\x00\x00\x01",
    "DelegateCur": 5,
    "DelegateMax": 5,
    "DelegateMin": 2,
    "Name": "n1",
    "Port": 7946,
    "ProtocolCur": 2,
    "ProtocolMax": 5,
    "ProtocolMin": 1,
    "Status": "alive",
    "Tags": {"role": "web"},
}
MEMBERS: dict[str, Any] = {"Members": [MEMBER]}
NO_MEMBERS: dict[str, Any] = {"Members": []}


def user_event(name: str = "deploy", ltime: int = 1) -> dict[str, Any]:
    """Return the record of a user event."""
    return {"Coalesce": False, "Event": "user", "LTime": ltime, "Name": name, "Payload": None}


def answer(node: str, payload: bytes | None = b"", kind: str = "response") -> dict[str, Any]:
    """Return a record of a query's stream: an answer, unless *kind* is ``ack`` or ``done``."""
    return {"From": node, "Payload": payload, "Type": kind}


DONE = answer("", None, "done")


def header(seq: int, error: str = "") -> bytes:
    """Return the bytes of a reply's header."""
    return wire.pack({"Error": error, "Seq": seq})


def reply(seq: int, body: object = None, error: str = "") -> bytes:
    """Return the bytes of a reply, or of a stream's record."""
    return header(seq, error) + (b"" if body is None else wire.pack(body))


class Asked(NamedTuple):
    """A request that an agent has read."""

    command: str
    seq: int
    body: dict[str, Any] | None


def read_requests(data: bytes) -> list[Asked]:
    """Read requests as an agent does: a body follows where the table says so."""
    objects = iter(wire.Unpacker().feed(data))
    requests = []
    for head in objects:
        assert set(head) == {"Command", "Seq"}, head
        takes_body = bool(commands.BY_WIRE[head["Command"]].args)
        requests.append(Asked(head["Command"], head["Seq"], next(objects) if takes_body else None))
    return requests


class Transport(StringTransport):
    """A transport that keeps each write, and closes only when the test calls `Agent.lose`."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        if not self.disconnecting and data:
            self.writes.append(data)
            super().write(data)

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Agent:
    """
    The agent's end of one connection.

    :ivar transport: the client's transport.
    """

    def __init__(self, protocol: IProtocol, lost: Callable[[Failure], None] | None = None) -> None:
        self.protocol = protocol
        self.transport = Transport()
        self._lost = lost
        self._read = 0
        protocol.makeConnection(self.transport)

    @property
    def closed_by_client(self) -> bool:
        """Whether the client has closed its end of the connection."""
        return self.transport.disconnecting

    def asked(self) -> list[Asked]:
        """Return the requests that came since the last call."""
        data = self.transport.value()[self._read :]
        self._read += len(data)
        return read_requests(data)

    def forget_what_was_asked(self) -> None:
        """Let go of the bytes that came, for a test that looks at memory."""
        self.transport.clear()
        self.transport.writes.clear()
        self._read = 0

    def asked_names(self) -> list[str]:
        """Return the commands of the requests that came since the last call."""
        return [asked.command for asked in self.asked()]

    def asked_one(self, command: str) -> Asked:
        """Return the only request that came since the last call. It has to be *command*."""
        (asked,) = self.asked()
        assert asked.command == command, asked
        return asked

    def send(self, *data: bytes) -> None:
        """Send bytes, in one piece."""
        self.protocol.dataReceived(b"".join(data))

    def reply(self, seq: int, body: object = None, error: str = "") -> None:
        """Send a reply, or a record."""
        self.send(reply(seq, body, error))

    def greet(self, error: str = "") -> list[Asked]:
        """Answer the handshake, and the auth if there is one; the last answer has *error*. Return these requests."""
        asked = self.asked()
        assert [request.command for request in asked] in (["handshake"], ["handshake", "auth"]), asked
        self.send(*(header(request.seq) for request in asked[:-1]), header(asked[-1].seq, error))
        return asked

    def lose(self, reason: Exception | None = None) -> None:
        """End the connection, in the way the reactor does."""
        failure = Failure(reason or error.ConnectionDone())
        self.transport.disconnecting = True
        self.protocol.connectionLost(failure)
        if self._lost is not None:
            self._lost(failure)

    def finish_closing(self) -> None:
        """End the connection that the client has closed."""
        assert self.closed_by_client, "the client has not closed it"
        self.lose()


@implementer(IStreamClientEndpoint)
class Endpoint:
    """
    A host whose connection attempts wait until the test accepts or refuses them.

    :param at_once: an exception. Each attempt fails with it at once, instead of waiting.
    :ivar attempts: the number of attempts so far.
    :ivar cancelled: the number of attempts that were cancelled.
    :ivar agents: the agents' ends of the connections that were accepted.
    """

    def __init__(self, at_once: Exception | None = None) -> None:
        self.at_once = at_once
        self.attempts = 0
        self.cancelled = 0
        self.agents: list[Agent] = []
        self._waiting: list[tuple[Deferred[IProtocol], IProtocolFactory]] = []

    @property
    def waiting(self) -> int:
        """The number of attempts that wait."""
        return len(self._waiting)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        self.attempts += 1
        if self.at_once is not None:
            return fail(self.at_once)

        def cancel(connecting: Deferred[IProtocol]) -> None:
            self.cancelled += 1
            self._waiting = [entry for entry in self._waiting if entry[0] is not connecting]

        connecting: Deferred[IProtocol] = Deferred(cancel)
        self._waiting.append((connecting, protocolFactory))
        return connecting

    def accept(self) -> Agent:
        """Accept the oldest waiting attempt, without answering anything."""
        connecting, factory = self._waiting.pop(0)
        protocol = factory.buildProtocol(ADDRESS)
        assert protocol is not None
        agent = Agent(protocol)
        self.agents.append(agent)
        connecting.callback(protocol)
        return agent

    def accept_untold(self) -> Agent:
        """Accept the oldest waiting attempt, whose Deferred does not fire: `refuse` may fail it afterwards."""
        _, factory = self._waiting[0]
        protocol = factory.buildProtocol(ADDRESS)
        assert protocol is not None
        self.agents.append(Agent(protocol))
        return self.agents[-1]

    def accept_and_greet(self) -> Agent:
        """Accept the oldest waiting attempt, and answer its handshake and auth."""
        agent = self.accept()
        agent.greet()
        return agent

    def prepare_late(self) -> Callable[[], Agent]:
        """Return a function that accepts the only waiting attempt and answers its greeting, even after a cancel."""
        ((_, factory),) = self._waiting

        def connect() -> Agent:
            protocol = factory.buildProtocol(ADDRESS)
            assert protocol is not None
            agent = Agent(protocol)
            for asked in agent.asked():
                agent.reply(asked.seq)
            return agent

        return connect

    def refuse(self, reason: Exception | None = None) -> None:
        """Refuse the oldest waiting attempt."""
        connecting, _ = self._waiting.pop(0)
        connecting.errback(reason or error.ConnectionRefusedError())


@implementer(IStreamClientEndpoint)
class ImmediateEndpoint:
    """A host that answers handshake and auth before `connect` returns, which no real host does."""

    def __init__(self) -> None:
        self.agents: list[Agent] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        protocol = protocolFactory.buildProtocol(ADDRESS)
        assert protocol is not None
        agent = Agent(protocol)
        self.agents.append(agent)
        agent.greet()
        return succeed(protocol)


@implementer(IStreamClientEndpoint)
class RaisingEndpoint:
    """A broken endpoint: it raises instead of returning a Deferred."""

    def __init__(self, mistake: BaseException | None = None) -> None:
        self._mistake = mistake or RuntimeError("this endpoint is broken")

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        raise self._mistake


class _Connecting:
    """The transport of a connector that is still connecting."""

    def __init__(self, connector: Connector) -> None:
        self.failIfNotConnected = lambda reason: connector.connectionFailed(Failure(reason))


class Connector(BaseConnector):
    """A connector as ``reactor.connectTCP`` returns it. A test accepts or refuses its connection."""

    def __init__(self, host: str, port: int, factory: Any, reactor: Any) -> None:
        super().__init__(factory, None, reactor)  # type: ignore[arg-type]  # no timeout: Twisted's own takes None
        self.host = host
        self.port = port
        self.attempts = 0

    def _makeTransport(self) -> Any:
        self.attempts += 1
        return _Connecting(self)

    def getDestination(self) -> IPv4Address:
        return IPv4Address("TCP", self.host, self.port)

    def accept(self) -> Agent:
        """Accept the connection, without answering anything."""
        protocol = self.buildProtocol(ADDRESS)
        assert protocol is not None
        return Agent(protocol, self.connectionLost)

    def refuse(self) -> None:
        """Refuse the connection."""
        self.connectionFailed(Failure(error.ConnectionRefusedError()))


class Reactor(Clock):
    """A clock that also has ``connectTCP``."""

    def __init__(self) -> None:
        super().__init__()
        self.connectors: list[Connector] = []

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: object = None
    ) -> Connector:
        connector = Connector(host, port, factory, self)
        self.connectors.append(connector)
        connector.connect()
        return connector


def connect(protocol: Protocol) -> Agent:
    """Connect a protocol to an agent."""
    return Agent(protocol)


def cuts(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut *data* at *places*, each taken modulo its length plus one."""
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


def body_of(asked: Asked) -> Mapping[str, Any]:
    """Return the body of a request that has one."""
    assert asked.body is not None
    return asked.body


@implementer(ILogObserver)
class Log:
    """The log events emitted while *case* runs."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self)
        case.addCleanup(globalLogPublisher.removeObserver, self)

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)

    @property
    def texts(self) -> list[str]:
        """The text of each event."""
        return [formatEvent(event) for event in self.events]

    @property
    def everything(self) -> str:
        """Everything that a log observer could show: texts, fields and tracebacks."""
        failures = [event["log_failure"] for event in self.events if "log_failure" in event]
        return "\n".join([*self.texts, *map(repr, self.events), *(f.getTraceback() for f in failures)])


def new_folder(case: SynchronousTestCase) -> Path:
    """Make a folder that is deleted at the end of the test."""
    folder = tempfile.TemporaryDirectory(prefix="txserf-test-")
    case.addCleanup(folder.cleanup)
    return Path(folder.name)
