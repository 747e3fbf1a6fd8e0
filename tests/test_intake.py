"""The stream of a router's events, while its filter changes."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.fakes import MEMBER, user_event
from tests.router_case import RouterCase
from tests.serf_case import SerfCase
from txserf import MemberEvent, QueryEvent, RpcError, UserEvent
from txserf.intake import Intake
from txserf.model import Event, Gap


class IntakeTests(RouterCase):
    def setUp(self) -> None:
        super().setUp()
        self.active: list[Gap | None] = []
        self.intake = Intake(self.serf, self.got.append, self.active.append)
        self.addCleanup(self.intake.stop)

    def follow(self, type: str | None) -> None:
        self.intake.follow(type)
        self.turn(0.5)

    def streams(self) -> int:
        """How many streams the agent has."""
        process = self.cluster.agents["n1"].process
        assert process is not None
        return len(process.streams)

    def test_it_follows_one_filter_after_the_other_by_one_stream(self) -> None:
        for type, names in (("user:a", ["a"]), ("user:b", ["b"]), ("user", ["a", "b"])):
            self.follow(type)
            self.send("a", "b")
            self.assertEqual((self.names(), self.intake.is_active), (names, True))
            self.assertEqual(self.streams(), 1)
            self.got.clear()
        self.assertEqual(self.active, [None])

    def test_of_changes_in_a_row_the_last_one_counts(self) -> None:
        for type in ("user:a", "user:b", "user:c", "query", "user:d"):
            self.intake.follow(type)
        self.turn(1.0)
        self.send("a", "b", "c", "d")
        self.assertEqual((self.names(), self.streams()), (["d"], 1))

    def test_without_a_filter_nothing_is_followed_nor_missed(self) -> None:
        self.follow("user")
        self.follow(None)
        self.send("a")
        self.assertEqual((self.names(), self.intake.is_active, self.streams()), ([], True, 0))
        self.follow("user")
        self.send("b")
        self.assertEqual(self.names(), ["b"])

    def test_a_filter_that_the_agent_refuses_leaves_the_one_before(self) -> None:
        self.follow("user:a")
        self.follow("nonsense")
        self.assertIsInstance(self.intake.failure, RpcError)
        self.assertEqual(len(self.logged("no events: ")), 1)
        self.send("a")
        self.assertEqual(self.names(), ["a"])
        self.follow("user")
        self.assertIsNone(self.intake.failure)
        self.send("b")
        self.assertEqual(self.names(), ["a", "b"])

    def test_a_first_filter_that_is_refused_is_told(self) -> None:
        self.follow("nonsense")
        self.assertIsInstance(self.intake.failure, RpcError)
        self.assertEqual((self.intake.is_active, self.active), (False, []))
        self.assertEqual(len(self.logged("no events: ")), 1)
        self.follow("user")
        self.assertEqual((self.intake.is_active, self.active), (True, [None]))

    def test_no_event_is_lost_or_twice_while_one_stream_takes_over_from_the_other(self) -> None:
        self.follow("user")
        self.intake.follow("user,query")
        for number in range(40):
            self.peer.event(str(number), coalesce=False)
            self.clock.advance(0.02)
        self.turn(1.0)
        self.assertEqual(self.names(), [str(number) for number in range(40)])

    def test_nor_a_query_which_has_another_number_on_each(self) -> None:
        self.follow("query")
        self.intake.follow("user,query")
        for number in range(40):
            self.peer.query(str(number), timeout=5.0)
            self.clock.advance(0.02)
        self.turn(1.0)
        self.assertEqual(self.names(), [str(number) for number in range(40)])

    def test_a_loss_in_the_middle_of_it_is_one_gap_and_nothing_comes_twice(self) -> None:
        for advance in range(12):
            self.follow("user:a")
            self.intake.follow("user")
            self.turn(advance * 0.02)
            self.cluster.agents["n1"].drop_connections()
            self.turn(1.0)
            self.send("a")
            self.assertEqual((self.names(), self.intake.is_active), (["a"], True), advance)
            self.send("b")
            self.assertEqual(self.names(), ["a", "b"], advance)
            self.got.clear()

    def test_a_stop_in_the_middle_of_it_ends_both(self) -> None:
        self.follow("user:a")
        self.intake.follow("user")
        self.clock.advance(0.02)
        self.intake.stop()
        self.turn(1.0)
        self.send("a")
        self.assertEqual((self.names(), self.streams()), ([], 0))


class OverlapTests(SerfCase):
    """An agent played by hand, at the moment in which it has both streams."""

    def setUp(self) -> None:
        super().setUp()
        self.got: list[Event] = []
        self.active: list[Gap | None] = []
        self.intake = Intake(self.serf, self.got.append, self.active.append)
        self.intake.follow("user:a")
        self.old = self.opened()
        self.intake.follow("user,query")
        self.new = self.opened()
        self.ping = self.asked_one("stop")

    def tearDown(self) -> None:
        self.intake.stop()
        super().tearDown()

    def opened(self) -> int:
        """Open the stream that is asked for; return its Seq."""
        opening = self.asked_one("stream")
        self.agent.reply(opening.seq)
        self.agent.reply(self.asked_one("stop").seq)
        return opening.seq

    def names(self) -> list[str]:
        names = [event.name for event in self.got if not isinstance(event, MemberEvent)]
        self.got.clear()
        return names

    def test_what_both_bring_is_delivered_once_whichever_is_first(self) -> None:
        a, b = user_event("a", 1), user_event("a", 2)
        for seq, record in ((self.old, a), (self.new, a), (self.new, b), (self.old, b)):
            self.agent.reply(seq, record)
        self.assertEqual(self.got, [UserEvent.from_wire(a), UserEvent.from_wire(b)])

    def test_equal_ones_of_one_stream_are_two(self) -> None:
        update = {"Event": "member-update", "Members": [MEMBER]}
        for seq in (self.new, self.new, self.old, self.old):
            self.agent.reply(seq, update)
        self.assertEqual(len(self.got), 2)

    def test_a_query_is_known_though_each_stream_has_its_own_number_for_it(self) -> None:
        for seq, id in ((self.old, 1), (self.new, 2)):
            self.agent.reply(seq, {"Event": "query", "ID": id, "LTime": 1, "Name": "q", "Payload": None})
        self.assertEqual(self.got, [QueryEvent(1, "q", b"", 1)])

    def test_the_old_one_is_stopped_behind_a_round_trip_for_it_may_have_some_under_way(self) -> None:
        self.assertEqual(self.agent.asked(), [])
        self.agent.reply(self.old, user_event("under way", 1))
        self.agent.reply(self.ping.seq)
        stop = self.asked_one("stop")
        self.assertEqual(stop.body, {"Stop": self.old})
        self.agent.reply(stop.seq)
        self.agent.reply(self.new, user_event("under way", 1))
        self.agent.reply(self.new, user_event("a", 2))
        self.assertEqual(self.names(), ["under way", "a"])

    def test_a_loss_of_both_is_one_gap(self) -> None:
        self.reconnect()
        streams = [asked for asked in self.agent.asked() if asked.command == "stream"]
        self.assertEqual([asked.body for asked in streams], [{"Type": "user:a"}, {"Type": "user,query"}])
        for asked in streams:
            self.agent.reply(asked.seq)
            self.agent.reply(asked.seq, user_event("a", 1))
        for confirmation in self.agent.asked():
            self.agent.reply(confirmation.seq)
        self.assertEqual(self.names(), ["a"])
        self.assertEqual([gap is not None for gap in self.active], [False, True])

    def test_what_came_once_is_forgotten_a_while_after(self) -> None:
        self.agent.reply(self.old, user_event("a", 1))
        self.agent.reply(self.ping.seq)
        self.agent.reply(self.asked_one("stop").seq)
        self.clock.advance(6.0)
        self.agent.reply(self.new, user_event("a", 1))
        self.assertEqual(self.names(), ["a", "a"])


class ReplaceTests(RouterCase):
    def test_events_that_wait_get_the_new_handlers_and_those_at_work_keep_theirs(self) -> None:
        held: list[Deferred[None]] = []

        @self.router.user_event()
        def slow(event: UserEvent) -> Deferred[None]:
            held.append(Deferred())
            return held[-1]

        self.router.user_event()(lambda event: self.got.append(("old", event.name)))
        service = self.bind()
        self.send("a", "b")
        other = type(self.router)()
        other.user_event("b")(lambda event: self.got.append(("new", event.name)))
        service.replace(other.routes())
        held[0].callback(None)
        self.assertEqual((self.got, len(held)), ([("old", "a"), ("new", "b")], 1))
