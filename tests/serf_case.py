"""The base class for tests of `Serf` in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Asked, Endpoint
from txserf.serf.serf import Serf

T = TypeVar("T")


class SerfCase(SynchronousTestCase):
    """
    A test with a `Serf`, a `Clock`, and a fake agent that the `Serf` is connected to.

    :ivar agent: the agent's end of the latest connection.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.serf = Serf([self.endpoint], reactor=self.clock, timeout=10.0, heartbeat=None)
        self.serf.factory.jitter = 0  # else it would wait after a loss
        self.serf.startService()
        self.agent = self.endpoint.accept_and_greet()

    def tearDown(self) -> None:
        closed = self.serf.close()
        self.clock.advance(0)
        for agent in self.endpoint.agents:
            if agent.closed_by_client:
                agent.finish_closing()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [], "timers are left")

    def reconnect(self, again: bool = True) -> None:
        """Lose the connection, and if *again*, make another one."""
        self.agent.lose()
        if again:
            self.agent = self.endpoint.accept_and_greet()

    def asked_one(self, command: str) -> Asked:
        return self.agent.asked_one(command)

    def next(self, items: AsyncIterator[T]) -> Deferred[T]:
        return Deferred.fromCoroutine(anext(items))  # type: ignore[arg-type]  # it is a coroutine here

    def now(self, items: AsyncIterator[T], number: int) -> list[T]:
        """Return the next *number* items, which have to be there already."""
        return [self.successResultOf(self.next(items)) for _ in range(number)]

    def collect(self, items: AsyncIterator[T]) -> Deferred[list[T]]:
        """Return a Deferred of all items up to the end."""

        async def all_of_it() -> list[T]:
            return [item async for item in items]

        return Deferred.fromCoroutine(all_of_it())

    def awaited(self, thing: Any) -> Deferred[Any]:
        """Return a Deferred of the result of any awaitable."""

        async def wait() -> Any:
            return await thing

        return Deferred.fromCoroutine(wait())
