"""The base of the tests of one connection: a connection, its agent and its clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import MEMBERS, Agent
from txserf.connection.exchange import Exchange
from txserf.connection.protocol import SerfProtocol
from txserf.errors import (
    SerfError,
)

HOST = "10.0.0.1:7373"


class Owner:
    """Records the calls of its methods."""

    def __init__(self) -> None:
        self.ready: list[SerfProtocol] = []
        self.closed: list[tuple[SerfError, list[Exchange]]] = []

    def connection_ready(self, protocol: SerfProtocol) -> None:
        self.ready.append(protocol)

    def connection_closed(
        self, protocol: SerfProtocol, reason: SerfError, unanswered: list[Exchange]
    ) -> None:
        self.closed.append((reason, unanswered))


class ProtocolCase(SynchronousTestCase):
    """A test with connections to a fake agent, under a `Clock`."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, *, greet: bool = True, **settings: Any) -> tuple[SerfProtocol, Agent]:
        protocol = SerfProtocol(host=HOST, reactor=self.clock, **settings)
        agent = Agent(protocol)
        if greet:
            agent.greet()
        return protocol, agent

    def assertQuiet(self) -> None:
        """Check that no timer is left in the reactor."""
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def reason(self, waiting: Deferred[Any], kind: type[Exception]) -> Any:
        """Return the error that *waiting* failed with."""
        return self.failureResultOf(waiting, kind).value


class CallCase(ProtocolCase):
    """A test with an open connection."""

    def setUp(self) -> None:
        super().setUp()
        self.protocol, self.agent = self.connect()

    def assertWorks(self, protocol: SerfProtocol | None = None, agent: Agent | None = None) -> None:
        """Check that the connection is good: another call is answered."""
        protocol, agent = protocol or self.protocol, agent or self.agent
        agent.asked()
        waiting = protocol.call("members")
        agent.reply(agent.asked_one("members").seq, MEMBERS)
        self.assertEqual(self.successResultOf(waiting).body, MEMBERS)
