"""Failing over among hosts, and backing off."""

from __future__ import annotations

import functools
import os
import random
from collections import Counter
from typing import Any

from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.fakes import ADDRESS, MEMBERS, Agent, Endpoint, ImmediateEndpoint, Log, RaisingEndpoint, Reactor
from txserf.connection.exchange import Exchange
from txserf.connection.factory import Phase, SerfClientFactory
from txserf.connection.hosts import Host
from txserf.connection.observers import DialBeside
from txserf.connection.protocol import SerfProtocol
from txserf.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    Disconnected,
    InvalidHostURL,
    InvalidRequest,
    ProtocolError,
    SerfError,
)


class Observer:
    """Records the calls of its methods."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def connected(self, protocol: SerfProtocol, dial_beside: DialBeside) -> None:
        self.events.append("connected")

    def lost(self, reason: SerfError, unanswered: list[Exchange]) -> None:
        self.events.append(f"lost: {type(reason).__name__}")

    def gave_up(self, reason: SerfError) -> None:
        self.events.append(f"gave up: {type(reason).__name__}")


class FactoryCase(SynchronousTestCase):
    """A test with a factory for three hosts in memory: a, b and c."""

    def setUp(self) -> None:
        self.patch(os, "environ", {n: v for n, v in os.environ.items() if not n.startswith("SERF_")})
        self.clock = Clock()
        self.a, self.b, self.c = self.hosts = [Endpoint(), Endpoint(), Endpoint()]

    def factory(self, hosts: Any = None, **settings: Any) -> SerfClientFactory:
        factory = SerfClientFactory(self.hosts if hosts is None else hosts, reactor=self.clock, **settings)
        factory.jitter = 0
        return factory

    def keyed(self) -> list[Host]:
        return [Host(endpoint=host, auth_key="s3cret") for host in self.hosts]

    @property
    def attempts(self) -> list[int]:
        return [host.attempts for host in self.hosts]

    def refuse_key(self, host: Endpoint) -> None:
        """Accept the waiting attempt, and refuse its key."""
        agent = host.accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()

    def fail_round(self) -> None:
        """Refuse all attempts, until no more are made."""
        while waiting := [host for host in self.hosts if host.waiting]:
            waiting[0].refuse()

    def wait_of(self, factory: SerfClientFactory) -> float:
        """Return the seconds until the factory's next round."""
        self.assertIs(factory.phase, Phase.WAITING)
        (call,) = self.clock.getDelayedCalls()
        return round(call.getTime() - self.clock.seconds(), 9)

    def reason(self, waiting: Deferred[Any], kind: type[BaseException]) -> Any:
        return self.failureResultOf(waiting, kind).value


class RoundTests(FactoryCase):
    def test_nothing_is_tried_before_it_is_started(self) -> None:
        self.factory()
        self.assertEqual(self.attempts, [0, 0, 0])

    def test_hosts_are_tried_in_order_one_at_a_time(self) -> None:
        self.factory().start()
        self.assertEqual(self.attempts, [1, 0, 0])
        self.a.refuse()
        self.assertEqual(self.attempts, [1, 1, 0])
        self.b.refuse()
        self.assertEqual(self.attempts, [1, 1, 1])

    def test_there_is_no_delay_within_a_round(self) -> None:
        factory = self.factory()
        factory.start()
        self.a.refuse()
        self.b.refuse()
        self.c.accept_and_greet()
        self.assertEqual(self.clock.seconds(), 0)
        self.assertIs(factory.phase, Phase.CONNECTED)

    def test_start_twice_is_start_once(self) -> None:
        factory = self.factory()
        factory.start()
        factory.start()
        self.a.accept_and_greet()
        factory.start()
        self.assertEqual(self.attempts, [1, 0, 0])

    def test_the_next_round_begins_with_the_first_host(self) -> None:
        self.factory().start()
        self.fail_round()
        self.clock.advance(0.1)
        self.assertEqual(self.attempts, [2, 1, 1])

    def test_an_endpoint_that_fails_at_once_is_one_that_failed(self) -> None:
        self.a.at_once = RuntimeError("no")
        self.factory().start()
        self.assertEqual(self.attempts, [1, 1, 0])

    def test_an_endpoint_that_raises_is_one_that_failed(self) -> None:
        factory = self.factory([RaisingEndpoint(), RaisingEndpoint(SystemExit()), self.b])
        factory.start()
        self.b.accept_and_greet()
        self.assertIs(factory.phase, Phase.CONNECTED)

    def test_an_endpoint_that_never_fires_is_given_up_after_the_connect_timeout(self) -> None:
        self.factory(connect_timeout=3.0).start()
        self.clock.advance(2.9)
        self.assertEqual(self.attempts, [1, 0, 0])
        self.clock.advance(0.2)
        self.assertEqual((self.attempts, self.a.cancelled), ([1, 1, 0], 1))

    def test_a_host_that_accepts_and_never_answers_is_given_up_after_the_connect_timeout(self) -> None:
        self.factory(connect_timeout=3.0).start()
        agent = self.a.accept()
        self.clock.advance(3.1)
        agent.finish_closing()
        self.assertEqual(self.attempts, [1, 1, 0])

    def test_a_host_that_refuses_the_handshake_is_one_that_failed(self) -> None:
        self.factory().start()
        agent = self.a.accept()
        agent.greet("Unsupported IPC version")
        agent.finish_closing()
        self.assertEqual(self.attempts, [1, 1, 0])

    def test_a_host_that_is_no_agent_is_one_that_failed(self) -> None:
        self.factory().start()
        agent = self.a.accept()
        agent.send(b"HTTP/1.1 400 Bad Request\r\n")
        agent.finish_closing()
        self.assertEqual(self.attempts, [1, 1, 0])

    def test_thousands_of_hosts_that_fail_at_once_need_no_stack(self) -> None:
        factory = self.factory([Endpoint(RuntimeError("no")) for _ in range(3000)] + [self.b])
        factory.start()
        self.b.accept_and_greet()
        self.assertIs(factory.phase, Phase.CONNECTED)

    def test_an_endpoint_that_answers_within_connect_is_as_good_as_any(self) -> None:
        immediate = ImmediateEndpoint()
        factory = self.factory([immediate])
        factory.start()
        self.assertIs(factory.phase, Phase.CONNECTED)
        self.clock.advance(10)
        immediate.agents[0].lose()
        self.assertIs(factory.phase, Phase.CONNECTED)
        self.assertEqual(len(immediate.agents), 2)

    def test_an_open_connection_stays_though_its_endpoint_never_fires(self) -> None:
        factory = self.factory()
        factory.start()
        self.a.accept_untold().greet()
        self.clock.advance(5)
        self.assertIs(factory.phase, Phase.CONNECTED)
        self.assertEqual(self.attempts, [1, 0, 0])
        closed = factory.disconnect()
        self.a.agents[0].finish_closing()
        self.successResultOf(closed)
        self.assertIs(factory.phase, Phase.IDLE)

    def test_an_endpoint_that_fails_before_the_handshake_is_through_is_one_that_failed(self) -> None:
        factory = self.factory()
        factory.start()
        agent = self.a.accept_untold()
        self.a.refuse(OSError("the certificate is another one"))
        self.assertTrue(agent.closed_by_client)
        self.assertEqual(self.attempts, [1, 1, 0])
        self.b.accept_and_greet()
        closed = factory.disconnect()
        self.b.agents[0].finish_closing()
        self.assertNoResult(closed)
        agent.finish_closing()
        self.successResultOf(closed)

    def test_the_list_is_read_when_it_is_made(self) -> None:
        self.assertRaises(InvalidHostURL, SerfClientFactory, "a:0")


class BackOffTests(FactoryCase):
    def waits(self, factory: SerfClientFactory, rounds: int) -> list[float]:
        factory.start()
        waits = []
        for _ in range(rounds):
            self.fail_round()
            waits.append(self.wait_of(factory))
            self.clock.advance(waits[-1] + 1e-6)  # the wait was rounded
        return waits

    def test_the_wait_grows_from_a_tenth_of_a_second_to_thirty(self) -> None:
        waits = self.waits(self.factory(), 10)
        self.assertAlmostEqual(waits[0], 0.1)
        self.assertEqual(waits, sorted(waits))
        self.assertGreater(waits[1], waits[0])
        self.assertAlmostEqual(waits[-1], 30)

    def test_it_has_jitter_and_never_passes_the_most(self) -> None:
        factory = self.factory([self.a])
        factory.jitter = 0.5
        waits = self.waits(factory, 60)
        self.assertGreater(len(set(waits[20:])), 5)
        self.assertLessEqual(max(waits), 30)
        self.assertGreaterEqual(min(waits), 0)

    def test_it_can_be_set(self) -> None:
        factory = self.factory([self.a])
        factory.initialDelay, factory.factor, factory.maxDelay = 1, 3, 20
        self.assertEqual(self.waits(factory, 5), [1, 3, 9, 20, 20])

    def test_a_connection_that_got_through_resets_it(self) -> None:
        factory = self.factory()
        self.waits(factory, 5)
        agent = self.a.accept_and_greet()
        self.clock.advance(10)
        agent.lose()
        self.fail_round()
        self.assertAlmostEqual(self.wait_of(factory), 0.1)

    def test_a_connection_that_did_not_get_through_does_not(self) -> None:
        factory = self.factory()
        self.waits(factory, 5)
        self.a.accept().lose()
        self.fail_round()
        self.assertGreater(self.wait_of(factory), 1)

    def test_without_retries_there_is_one_round(self) -> None:
        factory = self.factory()
        factory.maxRetries = 0  # type: ignore[assignment]  # Twisted's own is None
        factory.start()
        waiting = factory.when_connected()
        self.fail_round()
        self.reason(waiting, ConnectError)
        self.assertEqual((factory.phase, self.clock.getDelayedCalls()), (Phase.IDLE, []))

    def test_retries_are_the_rounds_that_may_follow(self) -> None:
        factory = self.factory()
        factory.maxRetries = 2  # type: ignore[assignment]  # as above
        factory.start()
        waiting = factory.when_connected()
        for _ in range(2):
            self.fail_round()
            self.assertNoResult(waiting)
            self.clock.advance(30)
        self.fail_round()
        self.reason(waiting, ConnectError)
        self.assertEqual(self.attempts, [3, 3, 3])

    def test_a_host_that_loses_each_connection_at_once_is_not_tried_at_once_for_ever(self) -> None:
        factory = self.factory([self.a])
        factory.start()
        tried_at = []
        for _ in range(8):
            while not self.a.waiting:
                self.clock.advance(0.05)
            tried_at.append(self.clock.seconds())
            self.a.accept_and_greet().lose()
        self.assertGreater(tried_at[-1], 5)

    def test_a_flapping_host_among_good_ones_does_not_hold_anybody_up(self) -> None:
        self.factory().start()
        self.a.accept_and_greet().lose()
        self.assertEqual(self.attempts, [1, 1, 0])

    def test_after_a_connection_that_held_the_wait_begins_anew(self) -> None:
        factory = self.factory([self.a])
        factory.start()
        for _ in range(6):
            while not self.a.waiting:
                self.clock.advance(0.05)
            self.a.accept_and_greet().lose()
        while not self.a.waiting:
            self.clock.advance(0.05)
        agent = self.a.accept_and_greet()
        self.clock.advance(3600)
        agent.reply(agent.asked()[-1].seq)
        agent.lose()
        self.fail_round()
        self.assertAlmostEqual(self.wait_of(factory), 0.1)


class WarningTests(FactoryCase):
    """The warnings of a log about hosts that can't be reached."""

    def setUp(self) -> None:
        super().setUp()
        self.log = Log(self)

    @property
    def warnings(self) -> list[str]:
        """The warnings since the last call."""
        found = [formatEvent(event) for event in self.log.events if event["log_level"] is LogLevel.warn]
        self.log.events.clear()
        return found

    def test_the_first_round_that_failed_is_one_with_the_wait_until_the_next(self) -> None:
        factory = self.factory([self.a])
        factory.start()
        self.a.refuse()
        (told,) = self.warnings
        self.assertIn("no connection to ", told)
        self.assertTrue(told.endswith("; tries again in 0.1 s, then at intervals that grow to 30 s"), told)

    def test_further_rounds_are_silent_until_something_changes(self) -> None:
        self.factory([self.a]).start()
        for _ in range(3):
            self.a.refuse()
            self.clock.advance(30)
        self.assertEqual(len(self.warnings), 1)
        self.a.refuse(OSError("no route"))
        (told,) = self.warnings
        self.assertIn("no route; tries again in ", told)

    def test_a_host_that_failed_before_another_one_did_is_one_too(self) -> None:
        factory = self.factory()
        factory.start()
        self.a.refuse()
        self.b.accept_and_greet()
        (told,) = self.warnings
        self.assertIn("no connection to ", told)
        self.assertNotIn("tries again", told)

    def test_started_again_it_warns_again(self) -> None:
        factory = self.factory([self.a])
        for _ in range(2):
            factory.start()
            self.a.refuse()
            self.assertEqual(len(self.warnings), 1)
            factory.stopTrying()

    def test_giving_up_is_one_warning_that_names_all(self) -> None:
        factory = self.factory()
        factory.maxRetries = 0  # type: ignore[assignment]  # of Twisted it is None
        factory.start()
        self.fail_round()
        (told,) = self.warnings
        self.assertTrue(told.startswith("gave up: no host could be reached: "), told)


class HerdTests(FactoryCase):
    """1,000 clients of one agent that comes back."""

    def setUp(self) -> None:
        super().setUp()
        random.seed(11)
        self.addCleanup(random.seed)

    def comes_back(self, away: float) -> float:
        """Return the seconds from the loss to the connection of a client whose agent is away for *away* seconds."""
        clock, agent = Clock(), Endpoint()
        factory = SerfClientFactory([agent], reactor=clock, heartbeat=None)
        factory.start()
        connection = agent.accept_and_greet()
        clock.advance(10)
        agent.at_once = OSError("away") if away else None
        connection.lose()
        while not agent.waiting:
            due = min(call.getTime() for call in clock.getDelayedCalls())
            agent.at_once = OSError("away") if due < 10 + away else None
            clock.advance(due - clock.seconds() + 1e-9)
        return clock.seconds() - 10

    def most(self, away: float) -> int:
        """Return how many of 1,000 clients come back within the same tenth of a second."""
        return max(Counter(int(self.comes_back(away) * 10) for _ in range(1000)).values())

    def test_those_of_an_only_host_do_not_come_back_at_one_moment(self) -> None:
        # They are 111, 199, 211, 184, 114. Where the first attempt came at once, they were 1000, 785, 356, 362, 160.
        for away in (0, 0.3, 0.5, 1, 3):
            self.assertLess(self.most(away), 250, away)

    def test_the_first_attempt_at_an_only_host_comes_within_a_second(self) -> None:
        back = [self.comes_back(0) for _ in range(1000)]
        self.assertLess(max(back), 1.001)
        self.assertLess(abs(sum(back) / 1000 - 0.5), 0.05)

    def test_the_first_attempt_at_another_host_comes_at_once(self) -> None:
        factory = SerfClientFactory(self.hosts, reactor=self.clock)
        factory.start()
        agent = self.a.accept_and_greet()
        self.clock.advance(10)
        agent.lose()
        self.assertEqual(self.b.waiting, 1)

    def test_without_jitter_an_only_host_is_tried_at_once_too(self) -> None:
        factory = self.factory([self.a])
        factory.start()
        agent = self.a.accept_and_greet()
        self.clock.advance(10)
        agent.lose()
        self.assertEqual(self.a.waiting, 1)

    def test_one_whose_connection_was_lost_at_once_is_alone_with_that_and_tries_at_once(self) -> None:
        factory = SerfClientFactory([self.a], reactor=self.clock)
        factory.start()
        self.a.accept_and_greet().lose()
        self.assertEqual(self.a.waiting, 1)

    def test_closed_in_that_wait_it_stays_closed(self) -> None:
        factory = SerfClientFactory([self.a], reactor=self.clock)
        factory.start()
        agent = self.a.accept_and_greet()
        self.clock.advance(10)
        agent.lose()
        self.assertIs(factory.phase, Phase.WAITING)
        self.successResultOf(factory.disconnect())
        self.clock.advance(1000)
        self.assertEqual((self.a.attempts, factory.phase), (1, Phase.IDLE))


class LossTests(FactoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.observer = Observer()
        self.made = self.factory(observer=self.observer)
        self.made.start()
        self.agent = self.a.accept_and_greet()
        self.clock.advance(10)

    def test_a_failover_is_a_connection_to_another_host_whatever_they_are_called(self) -> None:
        for host in self.hosts:
            self.patch(host, "__class__", type("Alike", (Endpoint,), {"__repr__": lambda _: "alike"}))
        factory = self.factory()
        factory.start()
        self.a.accept_and_greet().lose()
        self.b.accept_and_greet().lose()
        self.c.refuse()
        self.a.refuse()
        self.b.accept_and_greet()
        self.assertEqual((factory.connections, factory.failovers), (3, 1))

    def test_once_connected_the_failures_before_it_are_forgotten(self) -> None:
        factory = self.factory([self.a])
        factory.start()
        self.a.refuse()
        self.clock.advance(0.1)
        self.assertEqual(len(factory.last_failures), 1)
        self.a.accept_and_greet()
        self.assertEqual(factory.last_failures, ())

    def test_after_a_loss_the_next_host_comes_first_at_once(self) -> None:
        self.agent.lose()
        self.assertEqual(self.attempts, [1, 1, 0])
        self.assertIsNone(self.made.connection)

    def test_the_lost_host_comes_last_in_that_round(self) -> None:
        self.agent.lose()
        self.b.refuse()
        self.c.refuse()
        self.a.accept_and_greet()
        self.assertIs(self.made.phase, Phase.CONNECTED)

    def test_the_observer_is_told_in_order(self) -> None:
        self.agent.lose()
        self.b.accept_and_greet()
        self.assertEqual(self.observer.events, ["connected", "lost: ConnectionLost", "connected"])

    def test_a_protocol_error_is_a_loss(self) -> None:
        self.agent.send(b"\xc1")
        self.agent.finish_closing()
        self.assertEqual(self.attempts, [1, 1, 0])

    def test_without_an_observer_calls_are_failed(self) -> None:
        factory = self.factory([self.b])
        factory.start()
        agent = self.b.accept_and_greet()
        calls = [self.successResultOf(factory.when_connected()).call("members") for _ in range(2)]
        agent.lose()
        first, second = (self.reason(call, ConnectionLost) for call in calls)
        self.assertIsNot(first, second)

    def test_without_retries_nothing_follows_a_loss(self) -> None:
        factory = self.factory([self.b])
        factory.maxRetries = 0  # type: ignore[assignment]  # as above
        factory.start()
        self.b.accept_and_greet().lose()
        self.assertEqual((factory.phase, self.b.attempts), (Phase.IDLE, 1))


class AuthenticationTests(FactoryCase):
    def test_a_host_that_refused_the_key_is_not_asked_again_while_another_may_do(self) -> None:
        self.factory(self.keyed()).start()
        self.refuse_key(self.a)
        for _ in range(3):
            self.fail_round()
            self.clock.advance(30)
        self.fail_round()
        self.assertEqual(self.attempts, [1, 4, 4])

    def test_where_all_refused_it_stops_and_all_are_told(self) -> None:
        observer = Observer()
        factory = self.factory(self.keyed(), observer=observer)
        factory.start()
        askers = [factory.when_connected(), factory.when_connected()]
        for host in self.hosts:
            self.refuse_key(host)
        first, second = (self.reason(asker, AuthenticationError) for asker in askers)
        self.assertIsNot(first, second)
        self.assertEqual(observer.events, ["gave up: AuthenticationError"])
        self.clock.advance(1000)
        self.assertEqual((self.attempts, factory.phase), ([1, 1, 1], Phase.IDLE))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_where_the_rest_comes_to_refuse_in_a_later_round_it_stops_too(self) -> None:
        factory = self.factory(self.keyed())
        factory.start()
        waiting = factory.when_connected()
        self.refuse_key(self.a)
        self.refuse_key(self.b)
        self.c.refuse()
        self.clock.advance(1)
        self.assertNoResult(waiting)
        self.refuse_key(self.c)
        self.reason(waiting, AuthenticationError)

    def test_started_again_it_asks_them_all_again(self) -> None:
        factory = self.factory(self.keyed())
        factory.start()
        for host in self.hosts:
            self.refuse_key(host)
        factory.start()
        self.a.accept_and_greet()
        self.assertIs(factory.phase, Phase.CONNECTED)

    def test_after_a_good_connection_they_are_asked_again(self) -> None:
        self.factory(self.keyed()).start()
        self.refuse_key(self.a)
        agent = self.b.accept_and_greet()
        self.clock.advance(10)
        agent.lose()
        self.c.refuse()
        self.assertEqual(self.attempts, [2, 1, 1])

    def test_authentication_required_goes_on_with_the_next_host(self) -> None:
        factory = self.factory()
        factory.start()
        agent = self.a.accept_and_greet()
        self.clock.advance(10)
        assert factory.connection is not None
        factory.connection.call("members").addErrback(lambda _: None)
        agent.reply(agent.asked_one("members").seq, error="Authentication required")
        agent.finish_closing()
        self.assertEqual(self.attempts, [1, 1, 0])

    def test_each_host_is_shown_its_own_key(self) -> None:
        self.factory([Host(endpoint=self.a, auth_key="ka"), Host(endpoint=self.b)]).start()
        self.assertEqual(self.a.accept().asked()[1].body, {"AuthKey": "ka"})
        self.a.agents[0].lose()
        self.assertEqual([name for name, _, _ in self.b.accept().asked()], ["handshake"])


class WaitingTests(FactoryCase):
    def test_each_asker_has_a_deferred_of_its_own(self) -> None:
        factory = self.factory()
        factory.start()
        first, second = factory.when_connected(), factory.when_connected()
        first.addCallback(lambda _: "changed")
        self.a.accept_and_greet()
        self.assertEqual(self.successResultOf(first), "changed")
        self.assertIs(self.successResultOf(second), factory.connection)

    def test_it_fires_once_handshake_and_auth_are_through(self) -> None:
        factory = self.factory(self.keyed())
        factory.start()
        waiting = factory.when_connected()
        agent = self.a.accept()
        agent.reply(0)
        self.assertNoResult(waiting)
        agent.reply(1)
        self.successResultOf(waiting)

    def test_an_asker_may_cancel(self) -> None:
        factory = self.factory()
        factory.start()
        first, second = factory.when_connected(), factory.when_connected()
        first.cancel()
        self.reason(first, CancelledError)
        self.a.accept_and_greet()
        self.successResultOf(second)

    def test_it_outlasts_rounds_that_fail(self) -> None:
        factory = self.factory()
        factory.start()
        waiting = factory.when_connected()
        self.fail_round()
        self.clock.advance(1)
        self.a.accept_and_greet()
        self.successResultOf(waiting)

    def test_a_connect_error_has_each_host_and_its_reason_in_order(self) -> None:
        factory = self.factory(self.keyed())
        factory.maxRetries = 0  # type: ignore[assignment]  # as above
        factory.start()
        waiting = factory.when_connected()
        self.refuse_key(self.a)
        agent = self.b.accept()
        agent.send(b"\xc1")
        agent.finish_closing()
        self.c.refuse(RuntimeError("no such thing"))
        error = self.reason(waiting, ConnectError)
        self.assertEqual([host for host, _ in error.failures], [host.label for host in factory.hosts])
        kinds = [type(reason) for _, reason in error.failures]
        self.assertEqual(kinds, [AuthenticationError, ProtocolError, RuntimeError])
        for host, _ in error.failures:
            self.assertIn(host, str(error))
        self.assertIn("no such thing", str(error))
        self.assertNotIn("s3cret", str(error))


class StoppingTests(FactoryCase):
    def test_one_that_connects_though_it_was_cancelled_is_closed(self) -> None:
        factory = self.factory([self.a])
        factory.start()
        connect = self.a.prepare_late()
        factory.disconnect()
        self.assertTrue(connect().closed_by_client)
        self.assertIsNone(factory.connection)

    def late(self, factory: SerfClientFactory) -> Agent:
        """Start *factory*, stop it while it dials, start it again, and let the first attempt connect after all."""
        factory.start()
        connect = self.a.prepare_late()
        factory.stopTrying()
        factory.start()
        return connect()

    def test_one_that_connects_though_it_took_too_long_is_closed(self) -> None:
        factory = self.factory()
        factory.start()
        connect = self.a.prepare_late()
        self.clock.advance(5)
        self.b.accept_and_greet()
        late = connect()
        self.assertTrue(late.closed_by_client)
        self.assertIs(factory.phase, Phase.CONNECTED)

    def test_one_that_connects_though_it_has_failed_at_once_is_closed(self) -> None:
        built: list[IProtocol | None] = []

        @implementer(IStreamClientEndpoint)
        class Hasty:
            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
                built.append(protocolFactory.buildProtocol(ADDRESS))
                return fail(OSError("no"))

        factory = self.factory([Hasty(), self.b])
        factory.start()
        self.b.accept_and_greet()
        assert built[0] is not None
        late = Agent(built[0])
        late.greet()
        self.assertTrue(late.closed_by_client)
        self.assertIs(factory.phase, Phase.CONNECTED)

    def test_disconnect_does_not_fire_for_the_end_of_a_connection_that_came_late(self) -> None:
        factory = self.factory()
        late, agent = self.late(factory), self.b.accept_and_greet()
        closed = factory.disconnect()
        late.finish_closing()
        self.assertNoResult(closed)
        agent.finish_closing()
        self.successResultOf(closed)

    def test_disconnect_waits_for_a_connection_that_came_late(self) -> None:
        factory = self.factory()
        late, agent = self.late(factory), self.b.accept_and_greet()
        closed = factory.disconnect()
        agent.finish_closing()
        self.assertNoResult(closed)
        late.finish_closing()
        self.successResultOf(closed)

    def test_disconnect_does_not_wait_for_a_connection_that_was_asked_for_since(self) -> None:
        factory = self.factory()
        late, agent = self.late(factory), self.b.accept_and_greet()
        closed = factory.disconnect()
        factory.start()
        agent.finish_closing()
        self.c.accept_and_greet()
        self.assertNoResult(closed)
        late.finish_closing()
        self.successResultOf(closed)

    def test_disconnect_does_not_wait_for_a_connection_that_its_endpoint_never_connects(self) -> None:
        @implementer(IStreamClientEndpoint)
        class Forgetting:
            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
                protocolFactory.buildProtocol(ADDRESS)
                return Deferred()

        factory = self.factory([Forgetting()])
        factory.start()
        self.successResultOf(factory.disconnect())

    def test_disconnect_fires_once_the_transport_is_closed(self) -> None:
        factory = self.factory()
        factory.start()
        agent = self.a.accept_and_greet()
        closed = factory.disconnect()
        self.assertTrue(agent.closed_by_client)
        self.assertNoResult(closed)
        agent.finish_closing()
        self.successResultOf(closed)
        self.assertEqual((self.attempts, self.clock.getDelayedCalls()), ([1, 0, 0], []))

    def test_cancelling_the_deferred_of_disconnect_ends_the_waiting_for_it_and_nothing_else(self) -> None:
        factory = self.factory()
        factory.start()
        agent = self.a.accept_and_greet()
        closed, other = factory.disconnect(), factory.disconnect()
        closed.cancel()
        self.failureResultOf(closed, CancelledError)
        self.assertNoResult(other)
        agent.finish_closing()
        self.successResultOf(other)

    def test_disconnect_between_rounds_ends_the_wait(self) -> None:
        factory = self.factory()
        factory.start()
        waiting = factory.when_connected()
        self.fail_round()
        self.successResultOf(factory.disconnect())
        self.reason(waiting, Disconnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_disconnect_while_it_dials_cancels_the_attempt(self) -> None:
        factory = self.factory()
        factory.start()
        self.successResultOf(factory.disconnect())
        self.assertEqual((self.a.cancelled, self.attempts), (1, [1, 0, 0]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_disconnect_while_a_handshake_is_under_way_closes_it(self) -> None:
        factory = self.factory()
        factory.start()
        agent = self.a.accept()
        closed = factory.disconnect()
        agent.finish_closing()
        self.successResultOf(closed)
        self.assertEqual((self.attempts, self.clock.getDelayedCalls()), ([1, 0, 0], []))

    def test_disconnect_of_one_that_was_never_started_fires_at_once(self) -> None:
        self.successResultOf(self.factory().disconnect())

    def test_stop_trying_leaves_an_open_connection(self) -> None:
        factory = self.factory()
        factory.start()
        agent = self.a.accept_and_greet()
        factory.stopTrying()
        self.assertFalse(agent.closed_by_client)
        self.clock.advance(10)
        agent.lose()
        self.assertEqual((self.attempts, factory.phase), ([1, 0, 0], Phase.IDLE))

    def test_stop_trying_ends_the_trying_and_the_waiting(self) -> None:
        factory = self.factory()
        factory.start()
        waiting = factory.when_connected()
        self.a.refuse()
        factory.stopTrying()
        self.reason(waiting, Disconnected)
        self.clock.advance(1000)
        self.assertEqual(self.attempts, [1, 1, 0])

    def test_it_can_be_started_again(self) -> None:
        factory = self.factory()
        factory.start()
        factory.disconnect()
        factory.start()
        next(host for host in self.hosts if host.waiting).accept_and_greet()
        self.assertIs(factory.phase, Phase.CONNECTED)

    def test_started_while_it_closes_it_connects_once_that_is_closed(self) -> None:
        factory = self.factory()
        factory.start()
        agent = self.a.accept_and_greet()
        factory.disconnect()
        factory.start()
        waiting = factory.when_connected()
        self.assertNoResult(waiting)
        agent.finish_closing()
        next(host for host in self.hosts if host.waiting).accept_and_greet()
        self.successResultOf(waiting)

    def test_started_while_a_handshake_is_being_closed_it_connects_after_that(self) -> None:
        factory = self.factory()
        factory.start()
        agent = self.a.accept()
        factory.disconnect()
        factory.start()
        agent.finish_closing()
        next(host for host in self.hosts if host.waiting).accept_and_greet()
        self.assertIs(factory.phase, Phase.CONNECTED)

    def test_stopped_inside_a_failure_it_stops(self) -> None:
        factory = self.factory()

        @implementer(IStreamClientEndpoint)
        class Stopping:
            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
                factory.stopTrying()
                return fail(RuntimeError("no"))

        factory.hosts = (Host(endpoint=Stopping()), *factory.hosts)
        factory.start()
        self.assertEqual(self.attempts, [0, 0, 0])
        self.assertIs(factory.phase, Phase.IDLE)

    def test_an_endpoint_that_stops_the_factory_as_it_is_dialled_is_cancelled(self) -> None:
        factory = self.factory()

        @implementer(IStreamClientEndpoint)
        class Stopping:
            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
                factory.stopTrying()
                return endpoint.connect(protocolFactory)

        endpoint = Endpoint()
        factory.hosts = (Host(endpoint=Stopping()),)
        factory.start()
        self.assertEqual((endpoint.cancelled, endpoint.waiting, factory.phase), (1, 0, Phase.IDLE))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_started_again_by_whoever_is_told_that_it_gave_up(self) -> None:
        factory = self.factory()
        factory.maxRetries = 0  # type: ignore[assignment]  # as above
        factory.start()
        factory.when_connected().addErrback(lambda _: factory.start())
        self.fail_round_once()
        self.assertEqual(self.attempts, [2, 1, 1])

    def fail_round_once(self) -> None:
        for host in self.hosts:
            host.refuse()


class NoFurtherAttemptTests(FactoryCase):
    """Whatever ends the trying, nothing spins, those who wait are told, and closed stays closed."""

    def ended(self, factory: SerfClientFactory, waiting: Deferred[Any], attempts: list[int]) -> None:
        self.reason(waiting, ConnectError)
        self.assertIs(factory.phase, Phase.IDLE)
        self.reason(factory.when_connected(), ConnectError)
        self.clock.advance(1000)
        self.assertEqual((self.attempts, self.clock.getDelayedCalls()), (attempts, []))

    def test_continue_trying_that_is_put_to_0_as_it_dials_ends_it_with_that_attempt(self) -> None:
        observer = Observer()
        factory = self.factory(observer=observer)
        factory.start()
        factory.continueTrying = 0
        waiting = factory.when_connected()
        self.a.refuse()
        self.ended(factory, waiting, [1, 0, 0])
        self.assertEqual(observer.events, ["gave up: ConnectError"])

    def test_continue_trying_that_is_put_to_0_in_the_wait_ends_it_with_the_wait(self) -> None:
        factory = self.factory()
        factory.start()
        waiting = factory.when_connected()
        self.fail_round()
        factory.continueTrying = 0
        self.clock.advance(0.1)
        self.assertEqual([host for host, _ in factory.last_failures], [host.label for host in factory.hosts])
        self.ended(factory, waiting, [1, 1, 1])

    def test_continue_trying_that_is_put_to_0_outlasts_the_connection(self) -> None:
        factory = self.factory()
        factory.start()
        factory.continueTrying = 0
        agent = self.a.accept_and_greet()
        self.clock.advance(10)
        agent.lose()
        self.assertEqual((self.attempts, factory.phase), ([1, 0, 0], Phase.IDLE))

    def test_it_ends_where_the_retry_of_a_subclass_begins_nothing(self) -> None:
        class Once(SerfClientFactory):
            def retry(self, connector: object = None) -> None:
                pass

        factory = Once(self.hosts, reactor=self.clock)
        factory.start()
        waiting = factory.when_connected()
        self.fail_round()
        self.ended(factory, waiting, [1, 1, 1])

    def test_it_ends_where_connections_flap_and_the_retry_of_a_subclass_begins_nothing(self) -> None:
        class Once(SerfClientFactory):
            def retry(self, connector: object = None) -> None:
                pass

        factory = Once([self.a], reactor=self.clock)
        factory.jitter = 0
        factory.start()
        for _ in range(2):
            self.a.accept_and_greet().lose()
        self.reason(factory.when_connected(), ConnectionLost)
        self.assertEqual((factory.phase, self.a.waiting), (Phase.IDLE, 0))

    def test_a_delay_that_is_reset_in_the_wait_leaves_the_wait(self) -> None:
        factory = self.factory()
        factory.start()
        self.fail_round()
        factory.resetDelay()
        self.clock.advance(0.1)
        self.assertEqual(self.attempts, [2, 1, 1])
        self.fail_round()
        self.assertEqual(self.wait_of(factory), 0.1)

    def test_closed_in_the_wait_it_stays_closed_though_the_delay_was_reset(self) -> None:
        for close in (SerfClientFactory.stopTrying, SerfClientFactory.disconnect):
            factory = self.factory([self.a])
            factory.start()
            waiting = factory.when_connected()
            self.a.refuse()
            factory.resetDelay()
            close(factory)
            self.reason(waiting, Disconnected)
            self.clock.advance(1000)
            self.assertEqual((factory.phase, self.a.waiting), (Phase.IDLE, 0))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_retry_while_something_is_under_way_is_none(self) -> None:
        factory = self.factory()
        factory.start()
        factory.retry()
        self.fail_round()
        factory.retry()
        self.clock.advance(0.1)
        self.a.accept_and_greet()
        factory.retry()
        self.assertIs(factory.phase, Phase.CONNECTED)
        self.clock.advance(10)
        self.assertEqual(self.attempts, [2, 1, 1])


class MovesTests(FactoryCase):
    def test_an_illegal_move_is_refused(self) -> None:
        with self.assertRaises(AssertionError):
            self.factory()._move(Phase.CONNECTED)

    def test_each_phase_has_its_moves_and_can_be_reached(self) -> None:
        moves = SerfClientFactory._MOVES
        self.assertEqual(set(moves), set(Phase))
        self.assertEqual(set().union(*moves.values()), set(Phase))

    def test_while_it_closes_it_does_not_go_on_unless_it_is_started(self) -> None:
        factory = self.factory()
        factory.start()
        agent = self.a.accept_and_greet()
        closed = factory.disconnect()
        self.assertEqual((factory.phase, factory.phase.goes_on), (Phase.CLOSING, False))
        factory.start()
        self.assertEqual((factory.phase, factory.phase.goes_on), (Phase.REOPENING, True))
        factory.stopTrying()
        self.assertIs(factory.phase, Phase.CLOSING)
        agent.finish_closing()
        self.successResultOf(closed)
        self.assertIs(factory.phase, Phase.IDLE)

    def test_nobody_is_told_inside_another_ones_stack(self) -> None:
        factory = self.factory([ImmediateEndpoint()])
        inside: list[str] = []
        told: list[str] = []

        def tell(name: str, step: Any) -> Any:
            def called(_: object) -> None:
                told.append(name + "".join(f" inside {other}" for other in inside))
                inside.append(name)
                step()
                inside.remove(name)

            return called

        factory.when_connected().addCallback(tell("first", factory.stopTrying))
        factory.when_connected().addBoth(tell("second", lambda: None))
        factory.start()
        self.assertEqual(told, ["first", "second"])

    def test_one_who_waits_may_cancel_another_as_both_are_told(self) -> None:
        factory = self.factory([self.a])
        factory.maxRetries = 0  # type: ignore[assignment]  # as above
        factory.start()
        first, second = factory.when_connected(), factory.when_connected()
        first.addErrback(lambda _: second.cancel())
        self.a.refuse()
        self.successResultOf(first)
        self.reason(second, CancelledError)


class EndpointTests(FactoryCase):
    """``endpoint.connect(SerfClientFactory(...))``"""

    def test_it_is_connected_by_it_and_fails_over_among_its_own_hosts(self) -> None:
        factory = self.factory()
        endpoint = Endpoint()
        endpoint.connect(factory)
        waiting = factory.when_connected()
        agent = endpoint.accept_and_greet()
        self.successResultOf(waiting)
        self.clock.advance(10)
        agent.lose()
        self.assertEqual(sum(self.attempts), 1)

    def test_without_an_address_it_has_the_name_of_the_first_host(self) -> None:
        protocol = self.factory("10.0.0.9:7400").buildProtocol(None)
        assert protocol is not None
        self.assertEqual(protocol.host, "10.0.0.9:7400")

    def test_beside_a_connection_it_is_refused(self) -> None:
        factory = self.factory()
        factory.start()
        self.a.accept_and_greet()
        self.assertIsNone(factory.buildProtocol(None))


class SettingsTests(FactoryCase):
    def test_wrong_ones_are_refused_at_once(self) -> None:
        for wrong in (
            {"heartbeat": 0},
            {"heartbeat": "x"},
            {"connect_timeout": -1},
            {"connect_timeout": "5"},
        ):
            with self.assertRaises(InvalidRequest) as raised:
                self.factory(**wrong)
            self.assertIn(next(iter(wrong)), str(raised.exception))


class ClassicTests(FactoryCase):
    """``reactor.connectTCP(host, port, SerfClientFactory())``"""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = Reactor()

    def dial(self, **settings: Any) -> SerfClientFactory:
        factory = SerfClientFactory(reactor=self.reactor, **settings)
        factory.jitter = 0
        self.connector = self.reactor.connectTCP("10.0.0.9", 7400, factory)
        return factory

    def accept(self) -> Agent:
        agent = self.connector.accept()
        agent.greet()
        return agent

    def test_it_can_be_started_again_as_a_call_is_told_of_the_loss(self) -> None:
        factory = self.dial()
        factory.maxRetries = 0  # type: ignore[assignment]  # Twisted's own is None
        agent = self.accept()
        assert factory.connection is not None
        factory.connection.call("members").addErrback(lambda _: factory.start())
        agent.lose()
        self.assertEqual(self.connector.attempts, 2)
        self.accept()
        self.assertIs(factory.phase, Phase.CONNECTED)

    def test_an_ipv6_address_and_a_path_are_shown_as_such(self) -> None:
        for address, label in (
            (IPv6Address("TCP", "::1", 7373), "[::1]:7373"),
            (UNIXAddress("/tmp/agent"), "/tmp/agent"),
        ):
            factory = self.dial()
            self.patch(self.connector, "getDestination", functools.partial(next, iter([address])))
            factory.startedConnecting(self.connector)
            protocol = factory.buildProtocol(None)
            assert protocol is not None
            self.assertEqual(protocol.host, label)

    def test_it_shakes_hands_and_answers(self) -> None:
        factory = self.dial()
        waiting = factory.when_connected()
        agent = self.accept()
        call = self.successResultOf(waiting).call("members")
        agent.reply(agent.asked_one("members").seq, MEMBERS)
        self.assertEqual(self.successResultOf(call).body, MEMBERS)

    def test_it_calls_the_agent_by_the_address_that_was_dialled(self) -> None:
        factory = self.dial()
        self.accept()
        assert factory.connection is not None
        self.assertEqual(factory.connection.host, "10.0.0.9:7400")

    def test_it_reconnects_to_that_address_at_once(self) -> None:
        factory = self.dial()
        agent = self.accept()
        self.reactor.advance(10)
        agent.lose()
        self.assertEqual(self.connector.attempts, 2)
        self.accept()
        self.assertIs(factory.phase, Phase.CONNECTED)

    def test_it_backs_off_where_that_address_refuses(self) -> None:
        factory = self.dial()
        self.connector.refuse()
        self.assertEqual((self.connector.attempts, factory.phase), (1, Phase.WAITING))
        self.reactor.advance(0.1)
        self.assertEqual(self.connector.attempts, 2)
        self.connector.refuse()
        self.reactor.advance(0.1)
        self.assertEqual(self.connector.attempts, 2)
        self.reactor.advance(0.3)
        self.accept()
        self.assertIs(factory.phase, Phase.CONNECTED)

    def test_an_agent_that_never_answers_is_given_up_and_dialled_again(self) -> None:
        self.dial(connect_timeout=3.0)
        agent = self.connector.accept()
        self.reactor.advance(3.1)
        agent.finish_closing()
        self.reactor.advance(0.1)
        self.assertEqual(self.connector.attempts, 2)

    def test_the_key_is_that_of_the_first_host(self) -> None:
        self.dial(hosts="serf://x?AuthKey=k")
        self.assertEqual(self.connector.accept().asked()[1].body, {"AuthKey": "k"})

    def test_a_refused_key_ends_it(self) -> None:
        factory = self.dial(hosts="serf://x?AuthKey=k")
        waiting = factory.when_connected()
        agent = self.connector.accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        self.reason(waiting, AuthenticationError)
        self.reactor.advance(1000)
        self.assertEqual(self.connector.attempts, 1)

    def test_stop_trying_while_it_dials_stops_the_connector(self) -> None:
        factory = self.dial()
        waiting = factory.when_connected()
        factory.stopTrying()
        self.assertEqual(self.connector.state, "disconnected")
        self.reason(waiting, Disconnected)
        self.reactor.advance(1000)
        self.assertEqual((self.connector.attempts, self.reactor.getDelayedCalls()), (1, []))

    def test_stop_trying_between_two_attempts_ends_it(self) -> None:
        factory = self.dial()
        self.connector.refuse()
        factory.stopTrying()
        self.reactor.advance(1000)
        self.assertEqual((self.connector.attempts, self.reactor.getDelayedCalls()), (1, []))

    def test_disconnect_closes_and_does_not_dial_again(self) -> None:
        factory = self.dial()
        agent = self.accept()
        closed = factory.disconnect()
        agent.finish_closing()
        self.successResultOf(closed)
        self.reactor.advance(1000)
        self.assertEqual((self.connector.attempts, self.reactor.getDelayedCalls()), (1, []))

    def test_it_goes_on_where_a_subclass_dials_again_itself(self) -> None:
        class Dials(SerfClientFactory):
            def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
                connector.connect()

            clientConnectionFailed = clientConnectionLost

        class Retries(SerfClientFactory):
            def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
                self.retry(connector)

            clientConnectionFailed = clientConnectionLost

        for kind in (Dials, Retries):
            factory = kind(reactor=self.reactor)
            self.connector = self.reactor.connectTCP("10.0.0.9", 7400, factory)
            self.connector.refuse()
            self.reactor.advance(1)
            for attempts in (2, 3):
                agent = self.accept()
                self.assertIs(factory.phase, Phase.CONNECTED)
                self.assertEqual(self.connector.attempts, attempts)
                agent.lose()
                self.reactor.advance(1)
            factory.stopTrying()

    def test_it_goes_on_where_a_subclass_builds_no_protocol(self) -> None:
        class Builds(SerfClientFactory):
            def buildProtocol(self, addr: Any) -> SerfProtocol | None:
                return None

        factory = Builds(reactor=self.reactor)
        self.connector = self.reactor.connectTCP("10.0.0.9", 7400, factory)
        self.assertIsNone(self.connector.buildProtocol(ADDRESS))
        self.connector.connectionLost(Failure(ConnectionAborted()))
        self.assertIs(factory.phase, Phase.WAITING)
        self.reactor.advance(1)
        self.assertEqual(self.connector.attempts, 2)

    def test_once_it_has_ended_it_may_be_connected_to_another_address(self) -> None:
        factory = self.dial()
        first, agent = self.connector, self.accept()
        closed = factory.disconnect()
        agent.finish_closing()
        self.successResultOf(closed)
        self.connector = self.reactor.connectTCP("10.0.0.8", 7500, factory)
        agent = self.accept()
        protocol = self.successResultOf(factory.when_connected())
        self.assertEqual(protocol.host, "10.0.0.8:7500")
        self.reactor.advance(1)
        agent.lose()
        self.accept()
        self.assertEqual((first.attempts, self.connector.attempts), (1, 2))

    def test_a_second_connector_disturbs_nothing(self) -> None:
        factory = self.dial()
        first = self.connector
        second = self.reactor.connectTCP("10.0.0.8", 7500, factory)
        second.refuse()
        first.accept().greet()
        self.assertEqual(self.successResultOf(factory.when_connected()).host, "10.0.0.9:7400")
        self.assertEqual((first.attempts, second.attempts), (1, 1))

    def test_a_protocol_that_is_built_is_enough_to_know_of_a_new_transport(self) -> None:
        reactor = MemoryReactorClock()
        factory = SerfClientFactory(reactor=reactor, heartbeat=None)
        factory.jitter = 0
        reactor.connectTCP("10.0.0.9", 7400, factory)
        for _ in range(2):
            protocol = factory.buildProtocol(ADDRESS)
            assert protocol is not None
            agent = Agent(protocol)
            agent.greet()
            self.assertIs(factory.connection, protocol)
            agent.lose()

    def test_retries_are_counted_here_too(self) -> None:
        factory = SerfClientFactory(reactor=self.reactor)
        factory.maxRetries = 1  # type: ignore[assignment]  # as above
        self.connector = self.reactor.connectTCP("10.0.0.9", 7400, factory)
        waiting = factory.when_connected()
        self.connector.refuse()
        self.reactor.advance(30)
        self.assertNoResult(waiting)
        self.connector.refuse()
        self.assertEqual(self.reason(waiting, ConnectError).failures[0][0], "10.0.0.9:7400")

    def test_it_works_with_the_connector_of_twisteds_own_memory_reactor(self) -> None:
        reactor = MemoryReactorClock()
        factory = SerfClientFactory(reactor=reactor)
        factory.jitter = 0
        connector = reactor.connectTCP("10.0.0.9", 7400, factory)
        dialled: list[object] = []
        connector.connect = lambda: dialled.append(connector)
        factory.clientConnectionFailed(connector, Failure(RuntimeError("no")))
        reactor.advance(1)
        self.assertEqual(len(dialled), 1)
        protocol = factory.buildProtocol(connector.getDestination())
        assert protocol is not None
        agent = Agent(protocol)
        agent.greet()
        reactor.advance(10)
        agent.lose()
        factory.clientConnectionLost(connector, Failure(RuntimeError("lost")))
        self.assertEqual(len(dialled), 2)


class SecrecyTests(FactoryCase):
    def test_no_log_event_shows_a_key(self) -> None:
        log = Log(self)
        factory = self.factory(self.keyed())
        factory.start()
        for host in self.hosts:
            self.refuse_key(host)
        factory.start()
        self.a.accept_and_greet().send(b"\xc1")
        self.a.agents[-1].finish_closing()
        self.assertNotIn("s3cret", log.everything)
