"""A router's service: stop, restart, loss, a full queue, other handlers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.fakes import new_folder, user_event
from tests.router_case import RouterCase
from tests.serf_case import SerfCase
from txserf import Disconnected, InvalidRequest, QueryEvent, Router, Serf, UserEvent
from txserf.embedded import rpc


class LifeTests(RouterCase):
    def test_a_stop_waits_for_what_came_to_be_worked_off(self) -> None:
        going = self.slow()
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
        self.router.user_event()(self.got.append)
        service = self.bind(drain=2.0)
        self.send("a", "b")
        stopped = service.stopService()
        self.turn(1.9)
        self.assertNoResult(stopped)
        self.turn(0.2)
        self.successResultOf(stopped)
        self.assertEqual((len(cancelled), self.names()), (1, []))
        self.assertEqual(len(self.logged("1 events that waited are dropped")), 1)

    def slow(self) -> list[Deferred[None]]:
        """Add a handler that returns Deferreds, and return the list of them. The test fires them."""
        going: list[Deferred[None]] = []

        @self.router.user_event()
        def handle(event: UserEvent) -> Deferred[None]:
            self.got.append(event)
            going.append(Deferred())
            return going[-1]

        return going

    def test_each_who_stops_it_waits_and_may_wait_no_longer(self) -> None:
        going = self.slow()
        state = new_folder(self) / "state"
        service = self.bind(state=state)
        self.send("a")
        first, second, third = (service.stopService() for _ in range(3))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        going[0].callback(None)
        self.successResultOf(first)
        self.successResultOf(third)
        self.assertIn('"a"', state.read_text())
        self.successResultOf(service.stopService())

    def test_a_handler_that_waits_for_the_stop_is_cancelled_at_its_limit(self) -> None:
        @self.router.user_event("a")
        async def stop(event: UserEvent) -> None:
            await service.stopService()

        state = new_folder(self) / "state"
        service = self.bind(drain=2.0, state=state)
        self.router.user_event("b")(self.got.append)
        service.replace(self.router.routes())
        self.turn(0.5)
        self.send("b", "a")
        self.turn(2.5)
        self.assertEqual((service.working, len(self.logged("stop was cancelled after 2.0"))), (0, 1))
        self.assertIn('"b"', state.read_text())
        self.successResultOf(service.stopService())

    def test_started_again_before_it_has_stopped_it_goes_on(self) -> None:
        going = self.slow()
        service = self.bind(drain=2.0)
        self.send("a")
        stopped = service.stopService()
        service.startService()
        self.successResultOf(stopped)
        self.turn(0.5)
        self.send("b")
        self.turn(3.0)
        self.assertEqual((service.working, service.queued, len(going)), (1, 1, 1))
        going[0].callback(None)
        going[1].callback(None)
        self.assertEqual(self.names(), ["a", "b"])

    def test_a_stop_after_that_waits_for_its_own_end(self) -> None:
        going = self.slow()
        service = self.bind(Serf([self.cluster.agents["n1"].endpoint()], reactor=self.clock))
        self.send("a")
        first = service.stopService()
        service.startService()
        second = service.stopService()
        self.turn(1.0)
        self.successResultOf(first)
        self.assertNoResult(second)
        going[0].callback(None)
        self.turn(1.0)
        self.successResultOf(second)

    def test_the_limit_of_a_stop_is_over_with_it(self) -> None:
        going = self.slow()
        service = self.bind(drain=2.0, state=new_folder(self) / "state")
        self.send("a")
        going[0].callback(None)
        self.successResultOf(service.stopService())
        service.startService()
        self.turn(0.5)
        self.send("b")
        self.turn(3.0)
        self.assertEqual((len(going), service.working), (2, 1))
        going[1].callback(None)

    def test_a_full_queue_of_quick_handlers_is_worked_off_in_a_loop(self) -> None:
        first: Deferred[None] = Deferred()

        @self.router.user_event()
        def handle(event: UserEvent) -> Deferred[None] | None:
            self.got.append(event)
            return first if event.ltime == 1 else None

        service = self.bind()
        for ltime in range(1, 3001):
            service._take(UserEvent("a", b"", ltime))
        first.callback(None)
        self.assertEqual([event.ltime for event in self.got], list(range(1, 3001)))
        self.assertEqual(service.working, 0)

    def test_started_twice_it_follows_by_one_stream(self) -> None:
        self.router.query()(self.got.append)
        service = self.bind()
        service.startService()
        self.turn(0.5)
        self.ask("q")
        self.assertEqual(self.names(), ["q"])

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

    def test_its_warning_after_a_loss_counts_from_when_the_agent_was_last_heard(self) -> None:
        self.router.user_event()(self.got.append)
        self.bind()
        agent = self.cluster.agents["n1"]
        agent.pause()
        for _ in range(40):  # 30 until it is asked, 5 until it is given up
            self.turn(1.0)
        agent.resume()
        for _ in range(10):
            self.turn(1.0)
        (warning,) = self.logged("events may have been missed in")
        self.assertGreater(float(warning.split(" in ")[1].split(" s")[0]), 39.0)

    def test_a_record_that_can_not_be_read_costs_that_record_only(self) -> None:
        self.router.any(self.got.append)
        service = self.bind()
        event_record = rpc.Conversation.event_record

        def newer_record(conversation: rpc.Conversation, event: Any) -> dict[str, Any]:
            record = event_record(conversation, event)
            return {"Event": "member-promoted", "Members": []} if event.name == "broken" else record

        self.patch(rpc.Conversation, "event_record", newer_record)
        self.send("a", "broken", "b", payload=b"s3cret")
        self.assertEqual((self.names(), service.unreadable, service.unready), (["a", "b"], 1, None))
        self.assertEqual(
            self.logged("can't be read"),
            ["<EventStream: *>: a record can't be read and is left out: unknown event: 'member-promoted'"],
        )
        self.successResultOf(service.stopService())
        self.assertEqual(service.unreadable, 1)

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

    def test_other_limits_hold_for_what_waits(self) -> None:
        going = self.slow()
        service = self.bind(timeout=None)
        self.send("a", "b", "c")
        service.replace(self.router.routes(), concurrency=2, timeout=1.0)
        self.assertEqual(len(going), 2)
        self.turn(1.1)
        self.assertEqual([len(going), *(result.called for result in going)], [3, False, True, False])

    def test_limits_stay_where_only_handlers_are_replaced(self) -> None:
        service = self.bind(concurrency=3, timeout=1.0)
        service.replace(self.router.routes())
        self.assertEqual((service.concurrency, service.handler_timeout), (3, 1.0))
        service.replace(self.router.routes(), timeout=None)
        self.assertEqual((service.concurrency, service.handler_timeout), (3, None))

    def test_bad_limits_leave_all_as_it_was(self) -> None:
        self.router.user_event()(self.got.append)
        service = self.bind(concurrency=3, timeout=1.0)
        for bad in ({"concurrency": 0}, {"timeout": 0}, {"timeout": "1"}, {"concurrency": 2, "timeout": -1}):
            self.assertRaises(InvalidRequest, service.replace, Router().routes(), **bad)
        self.assertEqual((service.concurrency, service.handler_timeout), (3, 1.0))
        self.send("a")
        self.assertEqual(self.names(), ["a"])

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


class TimerTests(SerfCase):
    def test_no_timer_is_left_behind_a_stop(self) -> None:
        router = Router()
        router.user_event("a")(lambda event: None)
        held: Deferred[None] = Deferred()
        router.user_event("b")(lambda event: held)
        service = router.bind(self.serf, state=new_folder(self) / "state")
        service.startService()
        stream = self.asked_one("stream")
        self.agent.reply(stream.seq)
        self.agent.reply(self.asked_one("stop").seq)
        self.agent.reply(self.asked_one("stats").seq, {})
        for name in ("a", "b"):
            self.agent.reply(stream.seq, user_event(name))
        stopped = service.stopService()
        held.callback(None)
        self.successResultOf(stopped)  # tearDown() checks that no timer is left
