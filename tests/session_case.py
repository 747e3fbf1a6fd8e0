"""The base class for tests of sessions in memory, and an operation that records its calls."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Agent, Endpoint
from txserf.commands import Command
from txserf.connection.operation import Operation
from txserf.connection.session import Session
from txserf.errors import RpcError, SerfError
from txserf.serf.call import Call


class Told(Operation):
    """
    An operation that records which of its methods are called.

    :ivar told: a word for each call, in order; for a failure, the name of the error's class.
    :ivar reasons: the errors of those failures.
    """

    def __init__(self, session: Session, command: Command, **given: Any) -> None:
        super().__init__(command, command.arguments(given), lanes=True)
        self.told: list[str] = []
        self.reasons: list[Exception] = []
        self._session = session

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        self.told.append(error or "replied")
        if error or not self.command.streams:
            self._session.settle(self)

    def record(self, body: Mapping[str, Any]) -> None:
        self.told.append("record")
        if self.last:
            self._session.settle(self)

    def stopped(self) -> None:
        self.told.append("stopped")

    def interrupted(self, heard_at: float) -> None:
        self.told.append("interrupted")

    def lost(self, reason: SerfError) -> None:
        self._ended_by(reason)

    def refused(self, error: RpcError) -> None:
        self._ended_by(error)

    def _ended_by(self, reason: SerfError) -> None:
        self.told.append(type(reason).__name__)
        self.reasons.append(reason)


class SessionCase(SynchronousTestCase):
    """
    A test with sessions, and a fake agent that they connect to.

    :ivar agent: the agent's end of the last connection that `connected` or `reconnect` made.
    """

    agent: Agent

    def setUp(self) -> None:
        # The tests must not use an address or a key from the environment they run in.
        self.patch(os, "environ", {n: v for n, v in os.environ.items() if not n.startswith("SERF_")})
        self.clock = Clock()
        self.host = Endpoint()

    def session(self, *, reconnect: bool = True, **settings: Any) -> Session:
        """Make a session that is not connected."""
        session = Session([self.host], reconnect=reconnect, reactor=self.clock, heartbeat=None, **settings)
        session.factory.jitter = 0  # else it would wait after a loss
        return session

    def connected(self, *, reconnect: bool = True) -> Session:
        """Make a session that is connected."""
        session = self.session(reconnect=reconnect)
        session.connect()
        self.agent = self.host.accept_and_greet()
        return session

    def reconnect(self) -> None:
        """Lose the connection, and make another one."""
        self.clock.advance(1.0)  # after a connection that was lost sooner, the session waits before it dials
        self.agent.lose()
        self.agent = self.host.accept_and_greet()

    def submit(self, session: Session, command: Command, **given: Any) -> Told:
        operation = Told(session, command, **given)
        session.submit([operation])
        return operation

    def call(
        self, session: Session, command: Command, timeout: float | None = None, **given: Any
    ) -> Deferred[Any]:
        call = Call(session, command, command.arguments(given), timeout)
        session.submit([call])
        return call.result

    def disconnect(self, session: Session) -> None:
        """Disconnect, and check that no attempt and no timer is left."""
        closed = session.disconnect()
        for agent in self.host.agents:
            if agent.closed_by_client:
                agent.finish_closing()
        self.clock.advance(0)
        self.successResultOf(closed)
        self.assertEqual(self.host.waiting, 0, "a connection attempt is left")
        self.assertEqual(self.clock.getDelayedCalls(), [], "timers are left")
