"""A call of the typed API: its Deferred fires once, with the reply as the table decodes it."""

from __future__ import annotations

import gc
import sys
from typing import Any

from twisted.internet.defer import CancelledError

from tests.fakes import MEMBER, MEMBERS, reply
from tests.session_case import SessionCase
from txserf import commands
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

    def test_a_call_may_be_cancelled_by_what_another_fires(self) -> None:
        first, second = self.made("stats"), self.made("members")
        first.result.addCallback(lambda _: second.result.cancel())
        stats, members = self.agent.asked()
        self.agent.send(reply(stats.seq, {}), reply(members.seq, MEMBERS))
        self.failureResultOf(second.result, CancelledError)
        self.assertFalse(self.agent.closed_by_client)


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
