"""A router's event stream, and changes of its filter."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.fakes import MEMBER, Asked, user_event
from tests.router_case import RouterCase
from tests.serf_case import SerfCase
from txserf import MemberEvent, QueryEvent, RpcError, UserEvent
from txserf.embedded import rpc
from txserf.filters import EventFilter, parse_filter
from txserf.handlers.intake import Intake
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

    def refuse(self, type: str) -> None:
        """Make the agent refuse a filter, as an agent of a release without such events would."""

        def parse(text: str) -> tuple[EventFilter, ...]:
            return parse_filter("no such type" if text == type else text)

        self.patch(rpc, "parse_filter", parse)

    def streams(self) -> int:
        """Return the number of streams that the agent has."""
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
        self.refuse("member-reap")
        self.follow("user:a")
        self.follow("member-reap")
        self.assertIsInstance(self.intake.failure, RpcError)
        self.assertEqual(len(self.logged("no events: ")), 1)
        self.send("a")
        self.assertEqual(self.names(), ["a"])
        self.follow("user")
        self.assertIsNone(self.intake.failure)
        self.send("b")
        self.assertEqual(self.names(), ["a", "b"])

    def test_a_first_filter_that_is_refused_is_told(self) -> None:
        self.refuse("member-reap")
        self.follow("member-reap")
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
    """A test with a fake agent, at the time when it has both streams."""

    def setUp(self) -> None:
        super().setUp()
        self.got: list[Event] = []
        self.active: list[Gap | None] = []
        self.intake = Intake(self.serf, self.got.append, self.active.append)
        self.old = self.opened(*self.follow("user:a"))
        self.new = self.opened(*self.follow("user,query"))
        self.ping = self.asked_one("stop")

    def tearDown(self) -> None:
        self.intake.stop()
        super().tearDown()

    def follow(self, type: str) -> list[Asked]:
        """Ask for another filter. Return the requests that follow, the last of them for the stream."""
        self.intake.follow(type)
        asked = self.agent.asked()
        self.assertEqual(asked[-1].command, "stream")
        return asked

    def opened(self, *asked: Asked) -> int:
        """Answer the requests for a stream, and return its Seq."""
        for each in asked:
            self.agent.reply(each.seq)
        self.agent.reply(self.asked_one("stop").seq)
        return asked[-1].seq

    def stopped(self) -> None:
        """Answer the requests that stop the old stream."""
        asked = [self.ping]
        while asked:
            self.agent.reply(asked.pop().seq)
            asked += self.agent.asked()

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

    def test_what_came_once_is_forgotten_with_the_old_one(self) -> None:
        self.agent.reply(self.old, user_event("a", 1))
        self.stopped()
        self.agent.reply(self.new, user_event("a", 1))
        self.assertEqual(self.names(), ["a", "a"])

    def test_the_old_one_may_go_on_for_long(self) -> None:
        self.clock.advance(7.0)
        query = {"Event": "query", "LTime": 1, "Name": "q", "Payload": None}
        for seq, id in ((self.old, 1), (self.new, 2)):
            self.agent.reply(seq, {**query, "ID": id})
        self.assertEqual(self.names(), ["q"])

    def test_what_the_old_one_brought_before_there_was_a_new_one_has_no_copy(self) -> None:
        self.stopped()
        update = {"Event": "member-update", "Members": [MEMBER]}
        *before, stream = self.follow("*")
        self.agent.reply(self.new, update)
        new = self.opened(*before, stream)
        self.agent.reply(new, update)
        self.assertEqual(len(self.got), 2)

    def test_a_change_while_there_is_no_connection_asks_for_nothing_but_streams(self) -> None:
        self.stopped()
        self.reconnect(again=False)
        self.intake.follow("*")
        self.agent = self.endpoint.accept_and_greet()
        streams = self.agent.asked()
        self.assertEqual([asked.command for asked in streams], ["stream", "stream"])
        for seq in [asked.seq for asked in streams]:
            self.agent.reply(seq)
        update = {"Event": "member-update", "Members": [MEMBER]}
        for asked in streams:
            self.agent.reply(asked.seq, update)
        for asked in self.agent.asked():
            self.agent.reply(asked.seq)
        self.assertEqual(len(self.got), 1)

    def test_records_that_can_not_be_read_are_counted_over_all_streams(self) -> None:
        broken = {"Event": "member-promoted", "Members": []}
        self.agent.reply(self.old, broken)
        self.agent.reply(self.new, broken)
        self.assertEqual(self.intake.unreadable, 2)
        self.stopped()
        self.agent.reply(self.new, broken)
        self.agent.reply(self.new, user_event("a", 1))
        self.assertEqual((self.names(), self.intake.unreadable), (["a"], 3))
        self.intake.follow(None)
        self.assertEqual(self.intake.unreadable, 3)

    def test_where_a_filter_is_refused_that_nobody_wants_any_more_the_wanted_one_is_followed(self) -> None:
        self.stopped()
        *before, stream = self.follow("member-reap")
        self.intake.follow("user:b")
        for asked in before:
            self.agent.reply(asked.seq)
        self.agent.reply(stream.seq, error="Invalid event filter")
        *_, stream = self.agent.asked()
        self.assertEqual((stream.command, stream.body), ("stream", {"Type": "user:b"}))
        self.assertIsNone(self.intake.failure)


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
