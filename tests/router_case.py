"""The base class for tests of routers in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Log
from txserf import Query, QueryResult, Router, Serf
from txserf.embedded import EmbeddedCluster
from txserf.handlers.running import RouterService


class RouterCase(SynchronousTestCase):
    """
    A test with a router, on an embedded cluster of two agents under a `Clock`.

    :ivar serf: connected to ``n1``, where the router works.
    :ivar peer: connected to ``n2``; sends the events and queries.
    :ivar got: a list for the handlers of a test to put their events in.
    :ivar log: the log events of the test.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = EmbeddedCluster(self.clock, nodes=2, seed=1)
        self.serf = Serf([self.cluster.agents["n1"].endpoint()], reactor=self.clock)
        self.serf.factory.jitter = 0  # an only host is tried again at once, and not within a second
        self.serf.startService()
        self.peer = Serf([self.cluster.agents["n2"].endpoint()], reactor=self.clock)
        self.router = Router()
        self.got: list[Any] = []
        self.log = Log(self)
        self.addCleanup(self.close)

    def close(self) -> None:
        self.serf.close()
        self.peer.close()
        self.turn(1.0)
        self.cluster.close()
        self.turn(20.0)

    def turn(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            self.clock.advance(0.02)

    def bind(self, serf: Serf | None = None, **options: Any) -> RouterService:
        service = self.router.bind(serf or self.serf, **options)
        service.startService()
        self.addCleanup(service.stopService)
        self.turn(0.5)
        self.assertIs(service.unready, None)
        return service

    def send(self, *names: str, payload: bytes = b"") -> None:
        for name in names:
            self.peer.event(name, payload, coalesce=False)
        self.turn(0.5)

    def ask(self, name: str) -> QueryResult:
        answer = Deferred.fromCoroutine(self.result_of(self.peer.query(name, timeout=1.0)))
        self.turn(2.0)
        return self.successResultOf(answer)

    async def result_of(self, query: Query) -> QueryResult:
        return await query

    def logged(self, part: str) -> list[str]:
        return [text for text in self.log.texts if part in text]

    def names(self) -> list[str]:
        return [event.name for event in self.got]
