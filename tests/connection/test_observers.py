"""Those that hear of a factory's connection, and the order in which they do."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Agent
from txserf.commands import MEMBERS
from txserf.connection.diallers import Attempt, Listener
from txserf.connection.exchange import Awaited, Exchange
from txserf.connection.observers import Audience, DialBeside
from txserf.connection.protocol import SerfProtocol
from txserf.errors import ConnectionLost, Disconnected, SerfError


def no_lane(listener: Listener) -> Attempt:
    raise AssertionError


class AudienceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[str] = []
        self.audience = Audience(self)
        self.protocol = SerfProtocol(reactor=Clock(), heartbeat=None)
        self.agent = Agent(self.protocol)
        self.agent.greet()

    # A ConnectionObserver

    def connected(self, protocol: SerfProtocol, dial_beside: DialBeside) -> None:
        self.told.append("connected")

    def lost(self, reason: SerfError, unanswered: list[Exchange]) -> None:
        self.told.append("lost")

    def gave_up(self, reason: SerfError) -> None:
        self.told.append("gave up")

    def tell_all(self) -> None:
        while self.audience.tell_next():
            pass

    def test_nothing_is_told_at_once_and_then_one_after_the_other(self) -> None:
        self.audience.connected(self.protocol, no_lane)
        self.audience.lost(ConnectionLost("lost"), [])
        self.audience.gave_up(ConnectionLost("lost"))
        steps = [list(self.told)]
        while self.audience.tell_next():
            steps.append(list(self.told))
        expected = ["connected", "lost", "gave up"]
        self.assertEqual(steps, [expected[:count] for count in range(4)])

    def test_the_observer_hears_before_those_that_wait(self) -> None:
        self.audience.wait().addCallback(lambda _: self.told.append("waited"))
        self.audience.connected(self.protocol, no_lane)
        self.tell_all()
        self.assertEqual(self.told, ["connected", "waited"])

    def test_of_a_connection_that_has_ended_nobody_hears(self) -> None:
        waiting = self.audience.wait()
        self.audience.connected(self.protocol, no_lane)
        self.agent.lose()
        self.tell_all()
        self.assertNoResult(waiting)
        self.assertEqual(self.told, [])

    def test_one_that_waits_may_close_the_connection_and_the_next_waits_on(self) -> None:
        first, second = self.audience.wait(), self.audience.wait()
        first.addCallback(SerfProtocol.close)
        self.audience.connected(self.protocol, no_lane)
        self.tell_all()
        self.successResultOf(first)
        self.assertNoResult(second)

    def test_each_that_waits_has_an_error_of_its_own(self) -> None:
        askers = [self.audience.wait(), self.audience.wait()]
        self.audience.fail_waiting(Disconnected("closed"))
        self.tell_all()
        first, second = (self.failureResultOf(asker, Disconnected).value for asker in askers)
        self.assertIsNot(first, second)

    def test_one_that_has_cancelled_hears_nothing(self) -> None:
        before, between = self.audience.wait(), self.audience.wait()
        before.cancel()
        self.audience.fail_waiting(Disconnected("closed"))
        between.cancel()
        self.tell_all()
        for asker in (before, between):
            self.failureResultOf(asker, CancelledError)

    def test_without_an_observer_the_exchanges_are_told_of_a_loss(self) -> None:
        audience = Audience(None)
        call = Awaited(MEMBERS, {})
        audience.lost(ConnectionLost("lost"), [call])
        audience.tell_next()
        self.failureResultOf(call.result, ConnectionLost)
