"""Readiness: it is logged, and a service that can never be ready ends."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Agent, Endpoint, Log
from txserf import AuthenticationError, Host, Router, RpcError, Serf
from txserf.service.follow import Follower
from txserf.service.readiness import Guard


class WithSerfCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.serf = Serf([self.endpoint], reactor=self.clock)
        self.log = Log(self)
        self.addCleanup(self.close)

    def close(self) -> None:
        self.serf.close()
        self.clock.advance(0)


class GuardTests(WithSerfCase):
    def setUp(self) -> None:
        super().setUp()
        self.serf = Serf([Host(endpoint=self.endpoint, auth_key="k")], reactor=self.clock)
        self.serf.factory.jitter = 0  # else it would wait after a loss
        self.failures: list[BaseException] = []
        self.guard = Guard(self.failures.append)
        router = Router()
        router.user_event()(print)
        handling = self.guard.handling = router.bind(self.serf, observer=self.guard)
        self.serf.startService()
        handling.startService()
        self.addCleanup(handling.stopService)
        self.guard.startService()

    def test_a_key_that_every_host_refuses_ends_it(self) -> None:
        agent = self.endpoint.accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        self.assertEqual([type(failure) for failure in self.failures], [AuthenticationError])
        self.assertIn("no events can be handled: ", "\n".join(self.log.texts))

    def ready(self) -> Agent:
        """Accept a connection, and open the stream on it."""
        agent = self.endpoint.accept_and_greet()
        for _ in range(2):  # the stream, then its confirmation
            for asked in agent.asked():
                agent.reply(asked.seq)
        return agent

    def test_it_says_once_when_no_event_is_missed_any_more(self) -> None:
        agent = self.endpoint.accept_and_greet()
        for _ in range(2):  # the stream, then its confirmation
            self.assertNotIn("ready: ", "\n".join(self.log.texts))
            for asked in agent.asked():
                agent.reply(asked.seq)
        agent.lose()
        self.ready()
        self.assertEqual("\n".join(self.log.texts).count("ready: "), 1)
        self.assertEqual(self.failures, [])

    def test_a_key_that_is_refused_later_ends_it_too(self) -> None:
        self.ready().lose()
        agent = self.ready()
        self.clock.advance(2.0)  # after a connection that was lost sooner, it waits before it dials
        agent.lose()
        agent = self.endpoint.accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        self.assertEqual([type(failure) for failure in self.failures], [AuthenticationError])

    def test_a_stream_that_is_refused_ends_it(self) -> None:
        agent = self.endpoint.accept_and_greet()
        agent.reply(agent.asked_one("stream").seq, error="Invalid event filter")
        self.assertEqual([type(failure) for failure in self.failures], [RpcError])

    def test_a_stop_before_there_is_a_connection_is_no_failure(self) -> None:
        self.guard.stopService()
        self.serf.close()
        self.clock.advance(0)
        self.assertEqual(self.failures, [])


class FollowerHealthTests(WithSerfCase):
    def test_it_tells_why_events_may_be_missed(self) -> None:
        follower = Follower(self.serf, lambda line: None, str)
        self.serf.startService()
        follower.startService()
        self.addCleanup(follower.stopService)
        self.assertEqual(follower.unready, "not connected")
        agent = self.endpoint.accept_and_greet()
        self.assertEqual(follower.unready, "not subscribed")
        for _ in range(3):  # the stream, its confirmation, the members
            for asked in agent.asked():
                agent.reply(asked.seq, {"Members": []} if asked.command == "members" else None)
        self.assertIs(follower.unready, None)
        agent.lose()
        self.assertEqual(follower.unready, "not connected")
