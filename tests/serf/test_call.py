"""A call of the typed API: its Deferred fires once, with the reply as the table decodes it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError

from tests.fakes import MEMBER, MEMBERS, Log, reply
from tests.session_case import SessionCase
from txserf import commands, constant
from txserf.errors import (
    ConnectionLost,
    Disconnected,
    JoinError,
    KeyringError,
    ProtocolError,
    QueryError,
    RequestTimeout,
    RpcError,
)
from txserf.model import KeyReply, Member
from txserf.serf.call import Call

KEYS = {"Keys": None, "Messages": {"n1": "no"}, "NumErr": 1, "NumNodes": 2, "NumResp": 2}


class CallCase(SessionCase):
    def setUp(self) -> None:
        super().setUp()
        self.owner = self.connected()

    def made(self, wire: str, timeout: float | None = None, **given: Any) -> Call:
        """Make a call, and submit it."""
        row = commands.BY_WIRE[wire]
        call = Call(self.owner, row, row.arguments(given), timeout)
        self.owner.submit([call])
        return call


class CallTests(CallCase):
    def test_it_fires_with_the_decoded_reply(self) -> None:
        call = self.made("members")
        self.agent.reply(self.agent.asked_one("members").seq, MEMBERS)
        self.assertEqual(self.successResultOf(call.result), [Member.from_wire(MEMBER)])

    def test_a_reply_that_is_a_header_only_is_none(self) -> None:
        call = self.made("event", Name="e")
        self.agent.reply(self.agent.asked_one("event").seq)
        self.assertIsNone(self.successResultOf(call.result))

    def test_one_that_is_under_way_is_three_objects_to_the_garbage_collector(self) -> None:
        # The call, its Deferred and the Deferred's list: with many calls, each further one slows all of them.
        self.made("get-coordinate", timeout=9, Node="n")
        gc.collect()
        before = len(gc.get_objects())
        calls = [self.made("get-coordinate", timeout=9, Node="n") for _ in range(1000)]
        gc.collect()
        # Python 3.10 makes the dict of an instance at once, and from 3.14 on each dict counts, here that of the arguments.
        dicts = 2 if sys.version_info < (3, 11) else 1 if sys.version_info >= (3, 14) else 0
        self.assertLess((len(gc.get_objects()) - before) / len(calls), 3.1 + dicts)

    def test_an_error_of_the_agent_is_what_the_table_says_with_its_words_and_its_body(self) -> None:
        refusals: list[tuple[str, type[RpcError], dict[str, Any], Any]] = [
            ("tags", RpcError, {}, None),
            ("respond", QueryError, {"ID": 1}, None),
            ("join", JoinError, {"Existing": ["a"]}, {"Num": 0}),
            ("use-key", KeyringError, {"Key": "k"}, KEYS),
        ]
        for wire, kind, given, body in refusals:
            call = self.made(wire, **given)
            agent = self.host.accept_and_greet() if self.host.waiting else self.agent
            agent.reply(agent.asked_one(wire).seq, body, "no")
            error = self.failureResultOf(call.result).value
            assert isinstance(error, kind), error
            self.assertEqual((error.command, error.message), (wire, "no"))
            if isinstance(error, KeyringError):
                self.assertEqual(error.reply, KeyReply.from_wire(KEYS))

    def test_a_body_that_has_not_its_shape_is_a_protocol_error_that_names_the_command(self) -> None:
        call = self.made("members")
        self.agent.reply(self.agent.asked_one("members").seq, {"Members": [{**MEMBER, "Name": None}]})
        error = self.failureResultOf(call.result, ProtocolError).value
        self.assertEqual(str(error), "members: Name is NoneType, not str")
        self.assertFalse(self.agent.closed_by_client)

    def test_so_is_one_behind_an_error(self) -> None:
        call = self.made("join", Existing=["a"])
        lane = self.host.accept_and_greet()
        lane.reply(lane.asked_one("join").seq, {"Num": None}, "no")
        self.assertIn("join", str(self.failureResultOf(call.result, ProtocolError).value))

    def test_an_answer_in_time_takes_its_deadline_along(self) -> None:
        call = self.made("members", timeout=5.0)
        self.agent.reply(self.agent.asked_one("members").seq, MEMBERS)
        self.clock.advance(5.0)
        self.successResultOf(call.result)
        self.disconnect(self.owner)

    def test_its_timeout_names_the_command_and_the_time(self) -> None:
        call = self.made("stats", timeout=5.0)
        self.clock.advance(5.0)
        error = self.failureResultOf(call.result, RequestTimeout).value
        self.assertEqual(str(error), "stats: no answer within 5.0 s")

    def test_cancelled_it_fails_once_and_leaves_no_timer(self) -> None:
        call = self.made("stats", timeout=5.0)
        call.result.cancel()
        self.failureResultOf(call.result, CancelledError)
        self.agent.reply(self.agent.asked_one("stats").seq, {})
        self.disconnect(self.owner)

    def test_what_comes_for_one_that_is_done_is_dropped(self) -> None:
        call = self.made("stats")
        call.result.cancel()
        self.failureResultOf(call.result, CancelledError)
        call.replied("", {})
        call.answered({})

    def test_a_call_may_be_cancelled_by_what_another_fires(self) -> None:
        first, second = self.made("stats"), self.made("members")
        first.result.addCallback(lambda _: second.result.cancel())
        stats, members = self.agent.asked()
        self.agent.send(reply(stats.seq, {}), reply(members.seq, MEMBERS))
        self.failureResultOf(second.result, CancelledError)
        self.assertFalse(self.agent.closed_by_client)


class KnownMembersTests(CallCase):
    """A member that came twice is not unpacked again, and is the same object. Nobody can tell otherwise."""

    def setUp(self) -> None:
        super().setUp()
        self.one = {**MEMBER, "Name": "n1", "Tags": {"role": "web"}}
        self.two = {**MEMBER, "Name": "n2", "Tags": {}}
        for _ in range(3):
            self.members = self.told(self.asked_for(self.one, self.two))

    def asked_for(self, *records: dict[str, Any], wire: str = "members", **given: Any) -> Call:
        """Make a call that is answered with these members."""
        call = self.made(wire, **given)
        self.agent.reply(self.agent.asked_one(wire).seq, {"Members": list(records)})
        return call

    def answer_in_one_piece(self) -> None:
        """Answer all calls with both members."""
        body = {"Members": [self.one, self.two]}
        self.agent.send(b"".join(reply(asked.seq, body) for asked in self.agent.asked()))

    def told(self, call: Call) -> list[Member]:
        members: list[Member] = self.successResultOf(call.result)
        return members

    def names(self, call: Call) -> list[str]:
        return [member.name for member in self.told(call)]

    def test_each_call_has_a_list_of_its_own_sorted_by_name(self) -> None:
        first = self.told(self.asked_for(self.two, self.one))
        self.assertEqual(first, [Member.from_wire(self.one), Member.from_wire(self.two)])
        first.clear()
        again = self.told(self.asked_for(self.two, self.one))
        self.assertEqual([*map(id, again)], [*map(id, self.members)])

    def test_a_member_that_has_changed_is_told_as_it_is_now(self) -> None:
        failed = {**self.one, "Status": "failed"}
        for records in ([failed, self.two], [self.one, self.two], [self.two, failed]):
            for _ in range(2):
                told = self.told(self.asked_for(*records))
                self.assertEqual(told, sorted(map(Member.from_wire, records), key=lambda member: member.name))
            self.assertIs(told[1], self.members[1])

    def test_members_that_a_filter_selects_are_known_too(self) -> None:
        for _ in range(3):
            told = self.told(self.asked_for(self.two, wire="members-filtered", Status="alive"))
        self.assertIs(told[0], self.members[1])

    def test_a_call_that_was_answered_is_not_under_way_any_more(self) -> None:
        self.patch(constant, "CALLS_LIMIT", 1)
        self.asked_for(self.one)
        self.owner.admit()  # raises Overloaded where there is one

    def test_a_wrong_member_among_them_fails_that_call_alone(self) -> None:
        bad = self.asked_for(self.one, {**self.two, "Port": "7946"})
        error = self.failureResultOf(bad.result, ProtocolError).value
        self.assertEqual(str(error), "members: Port is str, not int")
        self.assertEqual(self.names(self.asked_for(self.one, self.two)), ["n1", "n2"])

    def test_a_call_of_the_connection_itself_has_a_body_of_its_own(self) -> None:
        connection = self.owner.factory.open_connection
        assert connection is not None
        calls = self.made("members"), connection.call("members")
        self.answer_in_one_piece()
        self.assertEqual(self.names(calls[0]), ["n1", "n2"])
        self.assertEqual(self.successResultOf(calls[1]).body, {"Members": [self.one, self.two]})

    def test_a_second_reply_to_a_call_is_logged_and_ignored(self) -> None:
        call = self.made("members")
        seq = self.agent.asked_one("members").seq
        log = Log(self)
        self.agent.send(reply(seq, {"Members": [self.one]}) + reply(seq, {"Members": [self.two]}))
        self.assertEqual(self.names(call), ["n1"])
        self.assertEqual(len([text for text in log.texts if "never sent" in text]), 1)

    def test_an_error_between_them_goes_to_its_call(self) -> None:
        calls = [self.made("members") for _ in range(3)]
        first, second, third = self.agent.asked()
        body = {"Members": [self.one, self.two]}
        self.agent.send(reply(first.seq, body) + reply(second.seq, error="no") + reply(third.seq, body))
        self.assertEqual([self.names(calls[0]), self.names(calls[2])], [["n1", "n2"]] * 2)
        self.failureResultOf(calls[1].result, RpcError)

    def fired(self, of_the_first: Callable[[Call], object]) -> Call:
        """Make two calls that are answered in one piece, and return the second; it is given to what the first one fires."""
        first, second = self.made("members"), self.made("members")
        first.result.addCallback(lambda _: of_the_first(second))
        self.answer_in_one_piece()
        return second

    def test_a_call_may_be_cancelled_by_what_another_fires(self) -> None:
        call = self.fired(lambda second: second.result.cancel())
        self.failureResultOf(call.result, CancelledError)
        self.assertEqual(self.names(self.asked_for(self.one)), ["n1"])

    def test_a_call_may_be_closed_by_what_another_fires(self) -> None:
        call = self.fired(lambda _: self.owner.disconnect())
        self.agent.finish_closing()
        self.clock.advance(0)
        self.failureResultOf(call.result, Disconnected)

    def test_a_call_that_was_cancelled_leaves_the_others_their_replies(self) -> None:
        first, second = self.made("members"), self.made("members")
        first.result.cancel()
        self.failureResultOf(first.result, CancelledError)
        self.answer_in_one_piece()
        self.assertEqual(self.names(second), ["n1", "n2"])

    def test_an_answer_in_time_takes_its_deadline_along(self) -> None:
        self.asked_for(self.one, timeout=5.0)
        self.clock.advance(5.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LeaveTests(CallCase):
    """An agent exits when it answers a leave, so a loss counts as an answer."""

    def test_the_agents_going_away_is_its_answer(self) -> None:
        call = self.made("leave")
        self.agent.asked_one("leave")
        self.agent.lose()
        self.assertIsNone(self.successResultOf(call.result))

    def test_it_is_not_asked_of_the_next_agent(self) -> None:
        self.made("leave")
        self.reconnect()
        self.assertEqual(self.agent.asked(), [])

    def test_one_that_was_not_sent_waits_for_an_agent(self) -> None:
        self.agent.lose()
        call = self.made("leave")
        self.assertNoResult(call.result)
        agent = self.host.accept_and_greet()
        agent.reply(agent.asked_one("leave").seq)
        self.successResultOf(call.result)

    def test_our_own_closing_is_no_answer(self) -> None:
        call = self.made("leave")
        self.disconnect(self.owner)
        error = self.failureResultOf(call.result, Disconnected).value
        self.assertNotIsInstance(error, ConnectionLost)

    def test_a_refusal_is_an_error(self) -> None:
        call = self.made("leave")
        self.agent.reply(self.agent.asked_one("leave").seq, error="timeout while waiting for graceful leave")
        self.failureResultOf(call.result, RpcError)
