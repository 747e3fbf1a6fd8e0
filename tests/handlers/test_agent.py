"""The agent's name and tags for scripts, and events that may have been handled before."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.fakes import Endpoint, user_event
from tests.router_case import RouterCase
from tests.serf_case import SerfCase
from txserf import Router, Serf, UserEvent
from txserf.handlers.agent import Identity
from txserf.handlers.handled import LTimes, key_of
from txserf.handlers.scripts import Myself
from txserf.model import Event
from txserf.processes import ScriptFailed


class MyselfTests(RouterCase):
    def test_name_and_tags_are_those_of_the_moment(self) -> None:
        service = self.bind()
        for tags in ({"role": "web"}, {"role": "db"}):
            self.serf.set_tags(tags)
            self.turn(0.5)
            asked = service.myself()
            self.turn(0.5)
            self.assertEqual(self.successResultOf(asked), Myself("n1", tags))

    def test_what_an_agent_tells_is_read_once(self) -> None:
        read: list[object] = []
        from_stats = Myself.from_stats

        def counted(stats: dict[str, dict[str, str]]) -> Myself:
            read.append(stats)
            return from_stats(stats)

        service = self.bind()
        self.patch(Myself, "from_stats", counted)
        asked = service.myself()
        self.turn(0.5)
        self.assertEqual((self.successResultOf(asked).name, len(read)), ("n1", 1))

    def test_the_last_known_ones_do_while_the_agent_is_away(self) -> None:
        service = self.bind()
        known = service.myself()
        self.turn(0.5)
        self.cluster.fail("n1")
        self.turn(0.5)
        self.assertEqual(self.successResultOf(service.myself()), self.successResultOf(known))

    def test_they_do_for_an_agent_that_hangs_and_it_is_asked_again_behind_that(self) -> None:
        self.router.query()(self.got.append)
        service = self.bind()
        self.cluster.agents["n1"].pause()
        late = service.myself()
        self.turn(3.0)
        self.assertEqual(self.successResultOf(late), Myself("n1", {}))
        self.cluster.agents["n1"].resume()
        self.serf.set_tags({"role": "web"})
        self.turn(0.5)
        asked = service.myself()
        self.turn(0.5)
        self.assertEqual(self.successResultOf(asked).tags, {"role": "web"})

    def test_without_any_a_script_is_not_started(self) -> None:
        clock = Clock()
        serf = Serf([Endpoint()], reactor=clock)
        service = Router().bind(serf)
        service.startService()
        asked = service.myself()
        clock.advance(3.0)
        error = self.failureResultOf(asked, ScriptFailed).value
        self.assertIn("not started: the agent has not told its name: stats: no answer", str(error))
        service.stopService()


class DoubtTests(RouterCase):
    """The agent has failed, and another one takes over that knows no other node and has the event LTime 1."""

    def setUp(self) -> None:
        super().setUp()
        self.alone = self.cluster.add("n3", join=False)
        both = [self.cluster.agents["n1"].endpoint(), self.alone.endpoint()]
        self.other = Serf(both, reactor=self.clock)
        self.router.user_event()(self.got.append)
        self.service = self.bind(self.other)
        self.send("a", "b", "c")
        self.cluster.fail("n1")
        self.turn(1.0)
        self.assertIsNone(self.service.unready)
        self.assertEqual(self.names(), ["a", "b", "c"])
        self.got.clear()

    def send_again(self, *names: str) -> None:
        """Send events with the LTimes and names of events that were handled already."""
        for name in names:
            self.other.event(name, coalesce=False)
        self.turn(0.5)

    def join(self) -> None:
        """Let the agent join the others, and replay their events."""
        self.other.join([self.cluster.agents["n2"].bind], replay=True)
        self.turn(1.0)

    def test_an_agent_that_hears_from_the_others_has_told_duplicates(self) -> None:
        self.join()
        self.send("d")
        self.assertEqual(self.names(), ["d"])
        self.assertEqual(self.logged("begun anew"), [])

    def test_one_that_hears_a_moment_later_has_too(self) -> None:
        self.send_again("a")
        self.assertEqual(self.names(), [])
        self.join()
        self.send("d")
        self.assertEqual(self.names(), ["d"])
        self.assertEqual(self.logged("begun anew"), [])

    def test_one_that_hears_nothing_has_told_new_events(self) -> None:
        self.send_again("a", "b")
        self.assertEqual(self.names(), [])
        self.turn(2.5)
        self.assertEqual(self.names(), ["a", "b"])
        self.assertEqual(len(self.logged("the cluster's event clock has begun anew")), 1)
        self.send_again("c")
        self.assertEqual(self.names(), ["a", "b", "c"])

    def test_an_event_is_held_until_an_agent_that_went_away_is_back(self) -> None:
        self.send_again("a")
        self.alone.drop_connections()
        self.alone.pause()
        self.turn(10.0)
        self.assertEqual(self.names(), [])
        self.alone.resume()
        self.turn(30.0)
        self.assertEqual(self.names(), ["a"])

    def test_a_stop_waits_for_the_doubt_to_end(self) -> None:
        self.send_again("a", "b")
        stopped = self.service.stopService()
        self.turn(1.0)
        self.assertNoResult(stopped)
        self.turn(1.5)
        self.successResultOf(stopped)
        self.assertEqual((self.names(), self.service.dropped), (["a", "b"], 0))

    def test_a_stop_that_hears_of_the_others_throws_the_duplicates_away(self) -> None:
        self.send_again("a")
        stopped = self.service.stopService()
        self.join()
        self.successResultOf(stopped)
        self.assertEqual((self.names(), self.service.dropped), ([], 0))

    def test_what_is_in_doubt_at_the_end_of_a_stop_is_dropped_and_counted(self) -> None:
        self.service._drain = 1.0
        self.send_again("a", "b")
        stopped = self.service.stopService()
        self.turn(1.1)
        self.successResultOf(stopped)
        self.assertEqual((self.names(), self.service.dropped), ([], 2))
        self.assertEqual(len(self.logged("2 events that waited are dropped")), 1)
        asked: list[object] = []
        self.patch(self.other, "stats", asked.append)
        self.turn(1.0)
        self.assertEqual(asked, [])

    def test_started_again_it_finds_out_what_was_in_doubt_at_the_stop(self) -> None:
        self.send_again("a")
        stopped = self.service.stopService()
        self.service.startService()
        self.turn(5.0)
        self.successResultOf(stopped)
        self.assertEqual((self.names(), self.service.dropped), (["a"], 0))


class AskedTests(SerfCase):
    """A test with a fake agent, and remembered events up to LTime 5."""

    def setUp(self) -> None:
        super().setUp()
        ltimes = LTimes()
        for ltime in range(1, 6):
            ltimes.begun(key_of(UserEvent("a", b"", ltime)))
        self.ltimes = ltimes
        self.identity = Identity(self.serf, ltimes)

    def tells(self, event_time: str) -> None:
        self.agent.reply(self.asked_one("stats").seq, {"serf": {"event_time": event_time}})

    def test_an_agent_that_is_behind_is_doubted_and_no_other(self) -> None:
        for event_time, doubtful in (("5", True), ("6", False), ("1", True), ("0", False), ("x", False)):
            compared = Deferred.fromCoroutine(self.identity.compare())
            self.tells(event_time)
            self.successResultOf(compared)
            self.assertEqual(self.identity.doubtful, doubtful, event_time)

    def test_one_that_does_not_tell_in_time_is_doubted_where_there_is_something_to_remember(self) -> None:
        for identity, doubtful in ((self.identity, True), (Identity(self.serf, LTimes()), False)):
            compared = Deferred.fromCoroutine(identity.compare())
            self.clock.advance(2.0)
            self.successResultOf(compared)
            self.assertEqual(identity.doubtful, doubtful)
            self.agent.asked()

    def test_one_that_has_no_stats_is_believed(self) -> None:
        found = Deferred.fromCoroutine(self.identity.find_out())
        self.agent.reply(self.asked_one("stats").seq, error="Unsupported command")
        self.successResultOf(found)
        self.assertEqual((self.identity.doubtful, self.ltimes.last), (False, 5))

    def test_a_question_is_not_asked_on_where_another_has_replaced_it(self) -> None:
        router = Router()
        router.user_event()(lambda event: None)
        service = router.bind(self.serf)
        service.startService()
        for _ in range(2):
            service._hold(Deferred.fromCoroutine(self.identity.find_out()))
        _, *stats = self.agent.asked()
        for asked in stats:
            self.agent.reply(asked.seq, {"serf": {"event_time": "1"}})
        self.clock.advance(0.2)
        self.assertEqual(self.agent.asked_names(), ["stats"])
        service.stopService()

    def test_no_event_is_begun_before_it_was_asked(self) -> None:
        router, got = Router(), list[Event]()
        router.user_event()(got.append)
        service = router.bind(self.serf)
        service.startService()
        stream = self.asked_one("stream")
        self.agent.reply(stream.seq)
        self.agent.reply(stream.seq, user_event("a", 1))
        self.agent.reply(self.asked_one("stop").seq)
        self.agent.reply(stream.seq, user_event("b", 2))
        self.assertEqual((got, service.queued), ([], 2))
        self.tells("3")
        self.assertEqual(got, [UserEvent("a", b"", 1), UserEvent("b", b"", 2)])
        service.stopService()

    def test_a_stop_waits_for_that_answer_too(self) -> None:
        router, got = Router(), list[Event]()
        router.user_event()(got.append)
        service = router.bind(self.serf)
        service.startService()
        stream = self.asked_one("stream")
        self.agent.reply(stream.seq)
        self.agent.reply(self.asked_one("stop").seq)
        stats = self.asked_one("stats")
        self.agent.reply(stream.seq, user_event("a", 1))
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.agent.reply(stats.seq, {"serf": {"event_time": "2"}})
        self.successResultOf(stopped)
        self.assertEqual(len(got), 1)

    def test_a_stop_before_there_is_a_stream_is_over_at_once(self) -> None:
        router = Router()
        router.user_event()(lambda event: None)
        service = router.bind(self.serf)
        service.startService()
        service._take(UserEvent("a", b"", 1))
        self.successResultOf(service.stopService())
        self.assertEqual((service.queued, service.working), (0, 0))
