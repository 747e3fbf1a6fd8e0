"""The life of a router's service: stop, restart, loss, a full queue, other handlers."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from tests.router_case import RouterCase
from txserf import Disconnected, QueryEvent, Serf, UserEvent


class LifeTests(RouterCase):
    def test_a_stop_waits_for_what_came_to_be_worked_off(self) -> None:
        going: list[Deferred[None]] = []

        @self.router.user_event()
        def slow(event: UserEvent) -> Deferred[None]:
            self.got.append(event)
            going.append(Deferred())
            return going[-1]

        service = self.bind()
        self.send("a", "b")
        stopped = service.stopService()
        self.send("late")
        self.assertNoResult(stopped)
        going[0].callback(None)
        self.assertNoResult(stopped)
        going[1].callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.names(), ["a", "b"])

    def test_a_stop_has_a_limit(self) -> None:
        cancelled: list[object] = []
        self.router.user_event()(lambda event: Deferred(cancelled.append))
        service = self.bind(drain=2.0)
        self.send("a", "b")
        stopped = service.stopService()
        self.turn(1.9)
        self.assertNoResult(stopped)
        self.turn(0.2)
        self.successResultOf(stopped)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(len(self.logged("1 events that waited are dropped")), 1)

    def test_it_can_be_started_again(self) -> None:
        self.router.user_event()(self.got.append)
        service = self.bind()
        self.successResultOf(service.stopService())
        self.send("between")
        service.startService()
        self.turn(0.5)
        self.send("after")
        self.assertEqual(self.names(), ["after"])

    def test_a_serf_that_it_has_started_stays_open_until_handlers_are_through(self) -> None:
        held: list[Deferred[None]] = []

        @self.router.query()
        async def slow(event: QueryEvent) -> bytes:
            held.append(Deferred())
            await held[0]
            return b"in time"

        service = self.bind(serf := Serf([self.cluster.agents["n1"].endpoint()], reactor=self.clock))
        asked = self.peer.query("q", timeout=5.0, expect=1)
        answer = Deferred.fromCoroutine(self.result_of(asked))
        self.turn(0.5)
        stopped = service.stopService()
        self.turn(0.5)
        self.assertTrue(serf.running)
        held[0].callback(None)
        self.turn(0.5)
        self.successResultOf(stopped)
        self.assertFalse(serf.running)
        self.assertEqual(self.successResultOf(answer).responses, {"n1": b"in time"})

    def test_a_serf_that_ran_before_it_runs_on(self) -> None:
        service = self.bind()
        self.successResultOf(service.stopService())
        self.assertTrue(self.serf.running)

    def test_it_goes_on_after_a_loss(self) -> None:
        self.router.user_event()(self.got.append)
        service = self.bind()
        self.cluster.agents["n1"].drop_connections()
        self.clock.advance(0.0)
        self.turn(1.0)
        self.send("a")
        self.assertEqual((self.names(), service.unready), (["a"], None))
        self.assertEqual(len(self.logged("events may have been missed in")), 1)

    def test_it_tells_when_no_event_is_missed_any_more(self) -> None:
        self.router.user_event()(self.got.append)
        service = self.router.bind(self.serf)
        self.failureResultOf(service.when_active(), Disconnected)
        service.startService()
        active = service.when_active()
        self.assertNoResult(active)
        self.turn(0.5)
        self.successResultOf(active)
        self.successResultOf(service.when_active())
        cancelled = self.router.bind(self.serf)
        cancelled.startService()
        waiting = cancelled.when_active()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        ended = cancelled.when_active()
        cancelled.stopService()
        self.failureResultOf(ended, Disconnected)
        self.successResultOf(service.stopService())

    def test_a_router_without_handlers_asks_for_no_stream(self) -> None:
        service = self.bind()
        self.successResultOf(service.when_active())
        self.send("a")
        self.assertEqual(service.working + service.queued, 0)

    def test_it_says_why_it_is_not_ready(self) -> None:
        self.router.user_event()(self.got.append)
        service = self.bind()
        self.cluster.fail("n1")
        self.turn(1.0)
        self.assertIn("not connected", str(service.unready))
        self.successResultOf(service.stopService())
        self.assertEqual(service.unready, "not running")
