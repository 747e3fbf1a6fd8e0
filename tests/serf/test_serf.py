"""`Serf` on a fake agent: its calls, its lanes, starting and closing."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.fakes import MEMBER, MEMBERS, reply, user_event
from tests.serf_case import SerfCase
from txserf import commands, constant
from txserf.embedded import EmbeddedCluster
from txserf.errors import (
    ConnectionLost,
    Disconnected,
    InvalidHostURL,
    InvalidRequest,
    JoinError,
    KeyringError,
    Overloaded,
    ProtocolError,
    RequestTimeout,
    RpcError,
)
from txserf.model import Coordinate, KeyReply, Member, members_from_wire
from txserf.serf.serf import Serf

KEYS = {"Keys": {"secret==": 2}, "Messages": {"n1": "hm"}, "NumNodes": 2, "NumErr": 0, "NumResp": 2}
COORD = {"Coord": {"Vec": [0.0] * 8, "Error": 1.5, "Adjustment": 0.0, "Height": 0.001}, "Ok": True}
NO_COORD = {"Coord": {"Vec": None, "Error": 0.0, "Adjustment": 0.0, "Height": 0.0}, "Ok": False}


def by_name(members: list[Member]) -> list[Member]:
    return sorted(members, key=attrgetter("name"))


class CallTests(SerfCase):
    def answered(self, call: Deferred[Any], command: str, sent: object, body: object = None) -> Any:
        """Check the request of a call, answer it, and return the call's result."""
        asked = self.asked_one(command)
        self.assertEqual(asked.body, sent)
        self.agent.reply(asked.seq, body)
        return self.successResultOf(call)

    def test_commands_go_by_serfs_names_and_come_back_as_values(self) -> None:
        serf, member = self.serf, Member.from_wire(MEMBER)
        self.assertEqual(self.answered(serf.members(), "members", None, MEMBERS), [member])
        self.assertIsNone(
            self.answered(
                serf.event("go", "ü", coalesce=False),
                "event",
                {"Name": "go", "Payload": "ü".encode(), "Coalesce": False},
            )
        )
        self.assertIsNone(
            self.answered(serf.force_leave("n2", prune=True), "force-leave", {"Node": "n2", "Prune": True})
        )
        self.assertIsNone(
            self.answered(
                serf.set_tags({"a": "b"}, delete=["c"]), "tags", {"Tags": {"a": "b"}, "DeleteTags": ["c"]}
            )
        )
        stats = {"agent": {"name": "n1"}}
        self.assertEqual(self.answered(serf.stats(), "stats", None, stats), stats)
        self.assertEqual(
            self.answered(serf.coordinate("n1"), "get-coordinate", {"Node": "n1"}, COORD),
            Coordinate((0.0,) * 8, height=0.001),
        )
        self.assertIsNone(self.answered(serf.coordinate("n9"), "get-coordinate", {"Node": "n9"}, NO_COORD))
        self.assertIsNone(self.answered(serf.leave(), "leave", None))

    def test_each_method_takes_what_the_table_says(self) -> None:
        """The signatures are written out for people and for mypy, so they have to agree with the table."""
        names = {"tags": "set_tags", "get-coordinate": "coordinate", "members-filtered": "members"}
        internal = {"handshake", "auth", "stop", "respond"}
        for row in commands.TABLE:
            if row.wire in internal:
                continue
            method = getattr(Serf, names.get(row.wire, row.wire.replace("-", "_")))
            parameters = inspect.signature(method).parameters
            missing = {arg.python for arg in row.args} - set(parameters)
            self.assertEqual(missing, set(), row.wire)

    def test_the_buffer_of_a_stream_is_as_long_as_the_constant_says_when_it_is_made(self) -> None:
        self.patch(constant, "STREAM_BUFFER", 2)
        events, lines = self.serf.stream("user"), self.serf.monitor()
        stream, monitor = self.agent.asked()
        for asked, record in ((stream, user_event()), (monitor, {"Log": "x"})):
            self.agent.reply(asked.seq)
            for _ in range(3):
                self.agent.reply(asked.seq, record)
        self.assertEqual((events.dropped, lines.dropped), (1, 1))

    def test_the_agents_error_is_an_rpc_error(self) -> None:
        call = self.serf.event("go")
        self.agent.reply(self.asked_one("event").seq, error="too big")
        error = self.failureResultOf(call, RpcError).value
        self.assertEqual((error.command, error.message, str(error)), ("event", "too big", "event: too big"))

    def test_a_reply_of_a_wrong_shape_fails_that_call_alone(self) -> None:
        bad, good = self.serf.members(), self.serf.stats()
        first, second = self.agent.asked()
        self.agent.reply(first.seq, {"Members": [{**MEMBER, "Port": "7946"}]})
        error = self.failureResultOf(bad, ProtocolError).value
        self.assertEqual(str(error), "members: Port is str, not int")
        self.agent.reply(second.seq, {})
        self.assertEqual(self.successResultOf(good), {})

    def test_members_of_a_status_that_nobody_knows_are_members(self) -> None:
        members = self.serf.members()
        record = {**MEMBER, "Name": "n2", "Status": "suspect"}
        self.agent.reply(self.asked_one("members").seq, {"Members": [record, MEMBER]})
        self.assertEqual(
            [(member.name, member.status) for member in self.successResultOf(members)],
            [("n1", "alive"), ("n2", "suspect")],
        )

    def test_rtt_is_the_distance_of_two_coordinates(self) -> None:
        rtt = self.serf.rtt("n1", "n2")
        for asked in self.agent.asked():
            self.agent.reply(asked.seq, COORD)
        self.assertEqual(self.successResultOf(rtt), 0.002)
        unknown = self.serf.rtt("n1", "n2")
        first, second = self.agent.asked()
        self.agent.reply(first.seq, COORD)
        self.agent.reply(second.seq, NO_COORD)
        self.assertIn("'n2'", str(self.failureResultOf(unknown, RpcError).value))

    def test_rtt_of_coordinates_that_do_not_go_together_is_an_error_that_says_so(self) -> None:
        rtt = self.serf.rtt("n1", "n2")
        first, second = self.agent.asked()
        self.agent.reply(first.seq, COORD)
        flat = {"Vec": [0.0, 0.0], "Error": 1.5, "Adjustment": 0.0, "Height": 0.001}
        self.agent.reply(second.seq, {"Coord": flat, "Ok": True})
        error = self.failureResultOf(rtt, RpcError).value
        self.assertEqual(
            str(error),
            "get-coordinate: there is no distance from 'n1' to 'n2': coordinates of 8 and 2 dimensions",
        )

    def test_ping_measures_a_round_trip_without_the_dialling(self) -> None:
        ping = self.serf.ping()
        self.clock.advance(0.25)
        self.agent.reply(self.asked_one("stop").seq)
        self.assertEqual(self.successResultOf(ping), 0.25)
        self.reconnect(again=False)
        ping = self.serf.ping()
        self.clock.advance(3)
        self.agent = self.endpoint.accept_and_greet()
        self.agent.reply(self.asked_one("stop").seq)
        self.clock.advance(0.5)
        self.agent.reply(self.asked_one("stop").seq)
        self.assertEqual(self.successResultOf(ping), 0.5)

    def test_ping_measures_a_round_trip_without_a_loss_in_it(self) -> None:
        ping = self.serf.ping()
        self.clock.advance(7)
        self.reconnect()
        self.agent.reply(self.asked_one("stop").seq)
        self.assertNoResult(ping)
        self.clock.advance(0.5)
        self.agent.reply(self.asked_one("stop").seq)
        self.assertEqual(self.successResultOf(ping), 0.5)

    def test_ping_takes_no_longer_than_its_timeout_where_it_waits_for_a_connection_first(self) -> None:
        self.reconnect(again=False)
        ping = self.serf.ping(timeout=4)
        self.clock.advance(3)
        self.agent = self.endpoint.accept_and_greet()
        self.agent.reply(self.asked_one("stop").seq)
        self.clock.advance(0.9)
        self.assertNoResult(ping)
        self.clock.advance(0.1)
        error = self.failureResultOf(ping, RequestTimeout).value
        self.assertEqual(str(error), "stop: no answer within 4.0 s")

    # Losses, timeouts, cancels

    def test_a_read_is_sent_again_after_a_loss_and_a_change_fails(self) -> None:
        reads: list[Deferred[Any]] = [
            self.serf.members(),
            self.serf.stats(),
            self.serf.coordinate("n1"),
            self.serf.ping(),
        ]
        changes = [self.serf.event("go"), self.serf.set_tags({"a": "b"}), self.serf.force_leave("n2")]
        self.agent.asked()
        self.reconnect()
        for call in changes:
            self.failureResultOf(call, ConnectionLost)
        self.assertEqual(self.agent.asked_names(), ["members", "stats", "get-coordinate", "stop"])
        for call in reads:
            self.assertNoResult(call)
            call.addErrback(lambda failure: failure.trap(Disconnected))

    def test_a_timeout_covers_the_wait_for_a_connection_and_says_why(self) -> None:
        self.reconnect(again=False)
        self.endpoint.refuse(ConnectionRefusedError("refused, really"))
        call = self.serf.members(timeout=2)
        self.clock.advance(2)
        error = self.failureResultOf(call, RequestTimeout).value
        self.assertRegex(str(error), "members: .* 2.0 s .*refused, really")

    def test_a_late_reply_is_dropped_and_the_connection_stays_good(self) -> None:
        late = self.serf.members(timeout=2)
        asked = self.asked_one("members")
        self.clock.advance(2)
        self.failureResultOf(late, RequestTimeout)
        self.agent.reply(asked.seq, MEMBERS)
        self.assertEqual(len(self.answered(self.serf.members(), "members", None, MEMBERS)), 1)

    def test_a_cancelled_call_that_was_not_sent_yet_is_never_sent(self) -> None:
        self.reconnect(again=False)
        call = self.serf.event("go")
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.agent = self.endpoint.accept_and_greet()
        self.assertEqual(self.agent.asked(), [])

    def test_a_timeout_without_end_is_fine(self) -> None:
        call = self.serf.members(timeout=math.inf)
        self.clock.advance(1_000_000)
        self.agent.reply(self.asked_one("members").seq, MEMBERS)
        self.successResultOf(call)

    def test_thousands_of_calls_share_one_timer(self) -> None:
        calls = [self.serf.stats() for _ in range(3000)]
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(10)
        for call in calls:
            self.failureResultOf(call, RequestTimeout)

    def test_leave_fires_where_the_agent_goes_away_instead_of_an_answer(self) -> None:
        leave = self.serf.leave()
        self.asked_one("leave")
        self.reconnect()
        self.assertIsNone(self.successResultOf(leave))
        self.assertEqual(self.agent.asked(), [])

    def test_a_leave_that_was_never_sent_does_not_succeed(self) -> None:
        self.reconnect(again=False)
        leave = self.serf.leave()
        self.clock.advance(10)
        self.failureResultOf(leave, RequestTimeout)


class LaneTests(SerfCase):
    def test_a_join_has_a_connection_of_its_own_and_all_joins_share_it(self) -> None:
        first = self.serf.join(["n2:7946"])
        self.assertEqual(self.agent.asked(), [])
        lane = self.endpoint.accept_and_greet()
        second = self.serf.join(("a", "b"), replay=True)
        asked = lane.asked()
        self.assertEqual(
            [one.body for one in asked],
            [
                {"Existing": ["n2:7946"], "Replay": False},
                {"Existing": ["a", "b"], "Replay": True},
            ],
        )
        lane.reply(asked[0].seq, {"Num": 1})
        self.assertEqual(self.successResultOf(first), 1)
        lane.reply(asked[1].seq, {"Num": 1})
        error = self.failureResultOf(second, JoinError).value
        self.assertEqual((error.joined, error.command), (1, "join"))

    def test_a_join_that_failed_altogether_has_the_agents_words(self) -> None:
        join = self.serf.join(iter(["n2"]))
        lane = self.endpoint.accept_and_greet()
        lane.reply(lane.asked_one("join").seq, {"Num": 0}, error="1 error occurred")
        error = self.failureResultOf(join, JoinError).value
        self.assertEqual((error.joined, error.message), (0, "1 error occurred"))

    def test_key_commands_share_another_one(self) -> None:
        calls = [self.serf.install_key("k1"), self.serf.use_key("k2"), self.serf.remove_key("k3")]
        listing = self.serf.list_keys()
        self.assertEqual(self.agent.asked(), [])
        lane = self.endpoint.accept_and_greet()
        asked = lane.asked()
        self.assertEqual(
            [(one.command, one.body) for one in asked],
            [
                ("install-key", {"Key": "k1"}),
                ("use-key", {"Key": "k2"}),
                ("remove-key", {"Key": "k3"}),
                ("list-keys", None),
            ],
        )
        for one in asked[:3]:
            lane.reply(one.seq, {**KEYS, "Keys": None}, error="1/2 nodes reported failure")
        for call in calls:
            error = self.failureResultOf(call, KeyringError).value
            self.assertEqual(error.reply, KeyReply({}, {"n1": "hm"}, 2, 0, 2))
        lane.reply(asked[3].seq, KEYS)
        self.assertEqual(self.successResultOf(listing), KeyReply({"secret==": 2}, {"n1": "hm"}, 2, 0, 2))

    def test_members_are_in_the_order_of_their_names(self) -> None:
        members = {"Members": [{**MEMBER, "Name": name} for name in ("n2", "n10", "N3", "n1")]}
        calls = [self.serf.members(), self.serf.members(status="alive")]
        for asked in self.agent.asked():
            self.agent.reply(asked.seq, members)
        for call in calls:
            names = [member.name for member in self.successResultOf(call)]
            self.assertEqual(names, ["N3", "n1", "n10", "n2"])

    def test_members_of_a_large_cluster_are_read_as_they_come(self) -> None:
        records = [{**MEMBER, "Name": f"n{n * 7 % 300:03}", "Tags": {"n": str(n)}} for n in range(300)]
        for cut in range(0, 60_000, 997):
            calls: list[Deferred[Any]] = [
                self.serf.members(),
                self.serf.members(status="alive"),
                self.serf.ping(),
            ]
            first, second, ping = self.agent.asked()
            data = reply(first.seq, {"Members": records}) + reply(second.seq, {"Members": records[:100]})
            self.agent.send(data[:cut])
            self.agent.send(data[cut:], reply(ping.seq))
            all_of_them, some, _ = [self.successResultOf(call) for call in calls]
            self.assertEqual(all_of_them, by_name(members_from_wire({"Members": records})))
            self.assertEqual(some, by_name(members_from_wire({"Members": records[:100]})))

    def test_a_wrong_one_among_many_members_fails_that_call_alone(self) -> None:
        records = [MEMBER] * 200
        calls = [self.serf.members(), self.serf.members()]
        bad, good = self.agent.asked()
        self.agent.reply(bad.seq, {"Members": [*records, {**MEMBER, "Port": "7946"}, *records]})
        self.agent.reply(good.seq, {"Members": records})
        error = self.failureResultOf(calls[0], ProtocolError).value
        self.assertEqual(str(error), "members: Port is str, not int")
        self.assertEqual(len(self.successResultOf(calls[1])), 200)

    def test_a_call_that_is_cancelled_while_its_members_come_leaves_the_connection_good(self) -> None:
        cancelled, other = self.serf.members(), self.serf.members()
        first, second = self.agent.asked()
        data = reply(first.seq, {"Members": [MEMBER] * 200})
        self.agent.send(data[:9000])
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.agent.send(data[9000:], reply(second.seq, {"Members": [MEMBER]}))
        self.assertEqual(len(self.successResultOf(other)), 1)

    def test_members_that_had_come_in_part_before_a_loss_are_all_read_again(self) -> None:
        call = self.serf.members()
        records = [{**MEMBER, "Name": f"n{n:03}"} for n in range(200)]
        self.agent.send(reply(self.asked_one("members").seq, {"Members": records})[:9000])
        self.reconnect()
        self.agent.reply(self.asked_one("members").seq, {"Members": records})
        self.assertEqual(self.successResultOf(call), members_from_wire({"Members": records}))

    def test_a_filter_that_may_not_compile_goes_alone_and_its_connection_is_closed(self) -> None:
        call = self.serf.members(name="n[12]")
        self.assertEqual(self.agent.asked(), [])
        lane = self.endpoint.accept_and_greet()
        asked = lane.asked_one("members-filtered")
        self.assertEqual(asked.body, {"Name": "n[12]", "Status": "", "Tags": {}})
        lane.reply(asked.seq, MEMBERS)
        self.assertEqual(len(self.successResultOf(call)), 1)
        lane.finish_closing()

    def test_a_filter_that_is_plain_goes_with_all_the_others(self) -> None:
        self.serf.members(status="alive", tags={"role": "web"}).addErrback(lambda _: None)
        asked = self.asked_one("members-filtered")
        self.assertEqual(asked.body, {"Name": "", "Status": "alive", "Tags": {"role": "web"}})

    def test_where_the_agent_closes_on_a_filter_twice_it_was_no_regular_expression(self) -> None:
        call = self.serf.members(name="(")
        for _ in range(2):
            self.assertNoResult(call)
            lane = self.endpoint.accept_and_greet()
            lane.asked_one("members-filtered")
            lane.lose()
        error = self.failureResultOf(call, RpcError).value
        self.assertIn("no regular expression", error.message)

    def test_a_lost_agent_fails_the_join_and_asks_for_the_keys_again(self) -> None:
        join, listing = self.serf.join(["n2"]), self.serf.list_keys()
        lanes = [self.endpoint.accept_and_greet(), self.endpoint.accept_and_greet()]
        for lane in lanes:
            lane.lose()
        self.failureResultOf(join, ConnectionLost)
        self.reconnect()
        lane = self.endpoint.accept_and_greet()
        lane.reply(lane.asked_one("list-keys").seq, KEYS)
        self.successResultOf(listing)


class BadInputTests(SerfCase):
    def refused(self, what: str, call: Callable[[], object]) -> None:
        with self.assertRaises(InvalidRequest) as caught:
            call()
        self.assertIn(what, str(caught.exception))
        self.assertIsInstance(caught.exception, ValueError)

    def test_a_status_that_no_member_can_have_is_refused(self) -> None:
        for status in ("live", "Alive", "alive ", "a", "(live|dead)", "^live$", "x|y", "live+", "al.ve."):
            with self.assertRaises(InvalidRequest) as caught:
                self.serf.members(status=status)
            self.assertEqual(
                str(caught.exception),
                f"members: {status!r} is no status; there are none, alive, leaving, left, failed",
            )
        self.assertEqual(self.agent.asked(), [])

    def test_a_filter_that_is_no_event_type_is_refused(self) -> None:
        with self.assertRaises(InvalidRequest) as caught:
            self.serf.stream("usr")
        self.assertEqual(
            str(caught.exception),
            "stream: 'usr' is no event type; there are user, query, member-join, member-leave, member-failed, "
            "member-update, member-reap, *, user:NAME and query:NAME",
        )
        self.assertEqual(self.agent.asked(), [])

    def test_each_bad_argument_is_named_before_anything_is_sent(self) -> None:
        serf: Any = self.serf
        number: Any = 1
        for what, call in [
            ("name", lambda: serf.members(name=1)),
            ("status", lambda: serf.members(status=b"alive")),
            ("status", lambda: serf.members(status=["alive"])),
            ("tags", lambda: serf.members(tags={"role": 1})),
            ("tags", lambda: serf.members(tags="role")),
            ("timeout", lambda: serf.members(timeout="1")),
            ("timeout", lambda: serf.members(timeout=-1)),
            ("timeout", lambda: serf.members(timeout=math.nan)),
            ("timeout", lambda: serf.members(timeout=True)),
            ("name", lambda: serf.event(b"go")),
            ("name", lambda: serf.event(None)),
            ("Name", lambda: serf.event("\ud800")),
            ("payload", lambda: serf.event("go", 1)),
            ("payload", lambda: serf.event("go", b"x" * 1025)),
            ("coalesce", lambda: serf.event("go", coalesce=1)),
            ("addresses", lambda: serf.join("n1")),
            ("addresses", lambda: serf.join(None)),
            ("addresses", lambda: serf.join({"n1": 1})),
            ("addresses", lambda: serf.join(b"n1")),
            ("addresses", lambda: serf.join(["n1", 1])),
            ("replay", lambda: serf.join(["n1"], replay="yes")),
            ("timeout", lambda: serf.join(["n1"], timeout="soon")),
            ("node", lambda: serf.force_leave("")),
            ("node", lambda: serf.force_leave(number)),
            ("prune", lambda: serf.force_leave("n1", prune=1)),
            ("tags", lambda: serf.set_tags(["a"])),
            ("delete", lambda: serf.set_tags(delete="a")),
            ("key", lambda: serf.install_key(b"k")),
            ("key", lambda: serf.use_key(None)),
            ("key", lambda: serf.remove_key(1)),
            ("node", lambda: serf.coordinate("")),
            ("node", lambda: serf.rtt("n1", 2)),
            ("node", lambda: serf.rtt(1, "n2")),
            ("timeout", lambda: serf.ping(timeout=[])),
            ("type", lambda: serf.stream(1)),
            ("buffer", lambda: serf.stream(buffer=0)),
            ("buffer", lambda: serf.stream(buffer=1.5)),
            ("gaps", lambda: serf.stream(gaps=1)),
            ("level", lambda: serf.monitor(None)),
            ("buffer", lambda: serf.monitor(buffer=True)),
            ("name", lambda: serf.query(1)),
            ("payload", lambda: serf.query("q", ["x"])),
            ("nodes", lambda: serf.query("q", nodes="n1")),
            ("nodes", lambda: serf.query("q", nodes=[b"n1"])),
            ("tags", lambda: serf.query("q", tags={1: "a"})),
            ("acks", lambda: serf.query("q", acks=None)),
            ("timeout", lambda: serf.query("q", timeout=0)),
            ("timeout", lambda: serf.query("q", timeout=0.0001)),
            ("timeout", lambda: serf.query("q", timeout=math.inf)),
            ("timeout", lambda: serf.query("q", timeout="3")),
            ("relay_factor", lambda: serf.query("q", relay_factor=256)),
            ("relay_factor", lambda: serf.query("q", relay_factor=-1)),
            ("expect", lambda: serf.query("q", expect=0)),
            ("expect", lambda: serf.query("q", expect=True)),
            ("expect", lambda: serf.query("q", expect=2.0)),
            ("callable", lambda: serf.stream().add_callback(1)),
        ]:
            self.refused(what, call)
        self.assertEqual(
            [asked.command for asked in self.agent.asked()], ["stream"], "that had good arguments"
        )
        self.assertEqual(self.endpoint.waiting, 0, "no lane was dialled")

    def test_a_key_is_in_no_message(self) -> None:
        with self.assertRaises(InvalidRequest) as caught:
            self.serf.install_key(["s3cret"])  # type: ignore[arg-type]  # that is the point
        self.assertNotIn("s3cret", str(caught.exception))

    def test_so_are_its_own_arguments(self) -> None:
        serf: Any = Serf
        self.refused("timeout", lambda: serf(timeout=None))
        self.refused("timeout", lambda: serf(timeout=-1))
        self.refused("connect_timeout", lambda: serf(connect_timeout="5"))
        self.refused("heartbeat", lambda: serf(heartbeat=0))
        with self.assertRaises(InvalidHostURL):
            serf("no host:at all:")


class LifeTests(SerfCase):
    def test_it_is_a_service(self) -> None:
        verifyObject(IService, self.serf)
        parent = MultiService()
        serf = Serf([self.endpoint], reactor=self.clock, heartbeat=None)
        serf.setServiceParent(parent)
        parent.startService()
        agent = self.endpoint.accept_and_greet()
        self.assertTrue(serf.running)
        stopped = parent.stopService()
        self.clock.advance(0)
        self.assertNoResult(stopped)
        agent.finish_closing()
        self.successResultOf(stopped)

    def test_nothing_is_dialled_before_it_is_started_or_used(self) -> None:
        serf = Serf([self.endpoint], reactor=self.clock, heartbeat=None)
        self.assertEqual(self.endpoint.waiting, 0)
        members = serf.members()
        agent = self.endpoint.accept_and_greet()
        agent.reply(agent.asked_one("members").seq, MEMBERS)
        self.assertEqual(len(self.successResultOf(members)), 1)
        self.assertTrue(serf.running)
        serf.close()

    def test_as_a_context_it_is_closed_at_the_end_of_the_block(self) -> None:
        async def use() -> str:
            async with Serf([self.endpoint], reactor=self.clock, heartbeat=None) as serf:
                return (await serf.stats())["agent"]["name"]

        used = Deferred.fromCoroutine(use())
        agent = self.endpoint.accept_and_greet()
        agent.reply(agent.asked_one("stats").seq, {"agent": {"name": "n1"}})
        self.assertNoResult(used)
        self.clock.advance(0)
        agent.finish_closing()
        self.assertEqual(self.successResultOf(used), "n1")

    def test_closing_fails_what_waits_and_each_who_closes_waits_for_the_sockets(self) -> None:
        join, call = self.serf.join(["n2"]), self.serf.members()
        lane = self.endpoint.accept_and_greet()
        closings = [self.serf.close(), self.serf.close()]
        self.clock.advance(0)
        self.agent.finish_closing()
        self.failureResultOf(call, Disconnected)
        for closing in closings:
            self.assertNoResult(closing)
        lane.finish_closing()
        self.failureResultOf(join, Disconnected)
        for closing in closings:
            self.assertIsNone(self.successResultOf(closing))

    def test_a_closed_one_says_so(self) -> None:
        self.serf.close()
        self.agent.finish_closing()
        for call in (self.serf.members, self.serf.ping, self.serf.stats, self.serf.list_keys):
            self.failureResultOf(call(), Disconnected)
        self.failureResultOf(self.serf.rtt("n1", "n2"), Disconnected)
        for use in (self.serf.stream, self.serf.monitor, lambda: self.serf.query("q")):
            with self.assertRaisesRegex(Disconnected, "closed"):
                use()

    def test_it_can_be_started_again(self) -> None:
        closing = self.serf.close()
        self.clock.advance(0)
        self.agent.finish_closing()
        self.successResultOf(closing)
        self.serf.startService()
        self.agent = self.endpoint.accept_and_greet()
        members = self.serf.members()
        self.agent.reply(self.asked_one("members").seq, MEMBERS)
        self.assertEqual(len(self.successResultOf(members)), 1)

    def test_it_can_be_started_again_while_it_closes(self) -> None:
        self.serf.close()
        self.serf.startService()
        members = self.serf.members()
        self.clock.advance(0)
        self.agent.finish_closing()
        self.agent = self.endpoint.accept_and_greet()
        self.agent.reply(self.asked_one("members").seq, MEMBERS)
        self.assertEqual(len(self.successResultOf(members)), 1)

    def test_each_waiter_for_a_connection_gets_it(self) -> None:
        self.reconnect(again=False)
        waiting = self.serf.when_connected()
        self.assertNoResult(waiting)
        self.agent = self.endpoint.accept_and_greet()
        self.assertIs(self.successResultOf(waiting), self.serf)

    def test_it_says_why_there_is_no_connection(self) -> None:
        self.assertIsNone(self.serf.why_disconnected)
        self.reconnect(again=False)
        self.assertEqual(self.serf.why_disconnected, "not connected")
        self.endpoint.refuse()
        self.assertIn("refused", str(self.serf.why_disconnected))
        self.clock.advance(1.0)
        self.agent = self.endpoint.accept_and_greet()
        self.assertIsNone(self.serf.why_disconnected)

    def test_its_repr_says_where_and_how_it_is(self) -> None:
        serf = Serf("serf://db1.example:7373?AuthKey=s3cret", reactor=self.clock)
        self.assertEqual(repr(serf), "<Serf: db1.example:7373, not trying>")


class OverloadTests(SerfCase):
    """A limit on the calls under way."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(constant, "CALLS_LIMIT", 3)
        self.producer: Any = self.agent.transport.producer

    def fill(self) -> list[Deferred[Any]]:
        return [self.serf.event("e", timeout=1.0).addErrback(lambda _: None) for _ in range(3)]

    def refused(self) -> None:
        """Check that each kind of call is refused, and leaves no timer."""
        for call in (
            self.serf.members,
            self.serf.ping,
            self.serf.stream,
            self.serf.monitor,
            lambda: self.serf.query("q"),
            lambda: self.serf.join(["a"]),
        ):
            with self.assertRaisesRegex(Overloaded, "3 calls"):
                call()

    def test_one_call_more_raises_at_the_call(self) -> None:
        calls = self.fill()
        self.refused()
        for asked in self.agent.asked():
            self.agent.reply(asked.seq)
        for call in calls:
            self.successResultOf(call)
        again = self.serf.event("e")
        self.agent.reply(self.asked_one("event").seq)
        self.successResultOf(again)

    def test_calls_that_have_timed_out_count_until_the_agent_answers(self) -> None:
        self.fill()
        self.clock.advance(1.0)
        self.refused()
        self.agent.asked()
        self.agent.reply(1)
        self.serf.event("e").addErrback(lambda _: None)
        self.refused()

    def test_calls_that_never_left_do_not_count_once_they_have_timed_out(self) -> None:
        self.producer.pauseProducing()
        self.fill()
        self.refused()
        self.clock.advance(1.0)
        self.fill()
        self.clock.advance(1.0)
        self.producer.resumeProducing()
        self.assertEqual(self.agent.asked(), [])

    def test_calls_that_wait_for_a_connection_count_too(self) -> None:
        self.reconnect(again=False)
        self.fill()
        self.refused()
        self.clock.advance(1.0)
        self.fill()

    def test_calls_of_a_lane_count_too(self) -> None:
        for _ in range(3):
            self.serf.join(["a"]).addErrback(lambda _: None)
        self.refused()
        lane = self.endpoint.accept_and_greet()
        self.refused()
        lane.lose()

    def test_an_answer_to_a_query_counts_too(self) -> None:
        stream = self.serf.stream("query")
        seq = self.asked_one("stream").seq
        self.agent.reply(seq)
        self.agent.reply(self.asked_one("stop").seq)
        self.agent.reply(seq, {"Event": "query", "ID": 1, "LTime": 1, "Name": "q", "Payload": b""})
        self.fill()
        (event,) = self.now(stream, 1)
        with self.assertRaises(Overloaded):
            event.respond(b"x")  # type: ignore[union-attr]  # it is a query

    def test_of_ten_thousand_calls_to_an_agent_that_stands_still_as_many_are_taken_as_the_limit_says(
        self,
    ) -> None:
        self.patch(constant, "CALLS_LIMIT", 1000)
        self.producer.pauseProducing()
        refused = 0
        for _ in range(10_000):
            try:
                self.serf.event("e", timeout=1.0).addErrback(lambda _: None)
            except Overloaded:
                refused += 1
        self.assertEqual(refused, 9_000)
        self.assertEqual(len(self.agent.asked()), 0)

    def test_events_that_all_timed_out_before_they_left_are_not_carried_out(self) -> None:
        self.patch(constant, "CALLS_LIMIT", 10_000)
        clock = Clock()
        agent = EmbeddedCluster(clock, nodes=1).agents["n1"]
        serf, other = (Serf([agent.endpoint()], reactor=clock) for _ in range(2))
        serf.startService()
        carried_out: list[object] = []
        other.stream("user").add_callback(carried_out.append)
        clock.pump([0.1] * 10)
        agent.pause()
        for number in range(3000):
            serf.event(f"e{number}", coalesce=False, timeout=1.0).addErrback(lambda _: None)
        clock.advance(1.0)
        agent.resume()
        clock.pump([0.1] * 100)
        # Some 50 bytes each: those in the 64 KiB that the transport had taken.
        self.assertLess(len(carried_out), 1500)
        self.assertGreater(len(carried_out), 1000)
        serf.close()
        other.close()
        clock.pump([0.1] * 10)
