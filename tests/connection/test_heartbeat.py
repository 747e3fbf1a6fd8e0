"""The heartbeat: an agent is checked unless it is busy, and one that does not answer is lost."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from tests.fakes import header, reply, user_event
from tests.protocol_case import Owner, ProtocolCase
from txserf import wire
from txserf.errors import (
    ConnectionLost,
    RequestTimeout,
)


class HeartbeatTests(ProtocolCase):
    def setUp(self) -> None:
        super().setUp()
        self.protocol, self.agent = self.connect()

    def advance(self, seconds: float) -> None:
        """Advance the clock in small steps."""
        self.clock.pump([0.125] * int(seconds / 0.125))

    def test_a_connection_is_checked_by_a_stop_of_an_unused_seq(self) -> None:
        self.clock.advance(29.9)
        self.assertEqual(self.agent.asked(), [])
        self.clock.advance(0.2)
        asked = self.agent.asked_one("stop")
        self.assertEqual(asked.body, {"Stop": asked.seq})

    def test_an_answered_check_is_followed_by_the_next(self) -> None:
        for _ in range(3):
            self.clock.advance(30)
            self.agent.reply(self.agent.asked_one("stop").seq)
            self.clock.advance(5)
        self.assertFalse(self.agent.closed_by_client)

    def test_a_check_without_an_answer_is_a_loss(self) -> None:
        waiting = self.protocol.call("members")
        self.clock.advance(30)
        self.clock.advance(4.9)
        self.assertFalse(self.agent.closed_by_client)
        self.clock.advance(0.2)
        self.assertTrue(self.agent.transport.aborted)
        self.agent.finish_closing()
        self.assertIn("heartbeat", str(self.reason(waiting, ConnectionLost)))
        self.assertQuiet()

    def test_an_unanswered_check_is_nobodys_exchange(self) -> None:
        owner = Owner()
        _, agent = self.connect(owner=owner)
        self.clock.advance(30)
        agent.lose()
        self.assertEqual(owner.closed[0][1], [])

    def test_the_connection_is_checked_while_events_arrive_too(self) -> None:
        self.protocol.call("stream")
        self.agent.reply(1)
        self.agent.asked()
        for _ in range(3):
            self.clock.pump([7.5] * 4)
            self.agent.reply(1, user_event())
            self.agent.reply(self.agent.asked_one("stop").seq)
        self.assertFalse(self.agent.closed_by_client)

    def test_a_way_up_that_went_silent_is_a_loss_though_events_arrive(self) -> None:
        self.protocol.call("stream")
        self.agent.reply(1)
        for _ in range(35 * 8):
            self.assertFalse(self.agent.closed_by_client)
            self.agent.reply(1, user_event())
            self.clock.advance(0.125)
        self.assertTrue(self.agent.transport.aborted)

    def test_bytes_out_of_step_are_a_loss_though_they_keep_coming(self) -> None:
        # The length of a text is garbled: all that follows is taken for the rest of it. Once in the place of a
        # header, once in a record, and once in the body of a reply.
        garbled = (b"\xdb\x03\xff\xff\xff", b"\xdc\xff\xff")
        for start in (b"", header(1) + b"\x81\xa4Name", header(2) + b"\x81\xa7Members"):
            for length in garbled:
                protocol, agent = self.connect()
                stream, members = protocol.call("stream"), protocol.call("members")
                agent.reply(1)
                self.successResultOf(stream)
                agent.send(start, length)
                for _ in range(35 * 8):
                    self.assertFalse(agent.closed_by_client)
                    agent.send(reply(1, user_event()) if length == garbled[0] else b"\xc0")
                    self.clock.advance(0.125)
                self.assertTrue(agent.transport.aborted, (start, length))
                agent.finish_closing()
                self.reason(members, ConnectionLost)

    def test_a_stream_that_the_agent_has_passed_over_is_a_loss(self) -> None:
        # Its header was garbled: the agent has opened it under another Seq, or refused something else.
        owner = Owner()
        protocol, agent = self.connect(owner=owner)
        protocol.call("stream")
        agent.asked()
        self.clock.advance(30)
        agent.reply(agent.asked_one("stop").seq)
        self.assertTrue(agent.transport.aborted)
        agent.finish_closing()
        [(reason, unanswered)] = owner.closed
        self.assertIn("no answer to stream", str(reason))
        self.assertEqual([exchange.command.wire for exchange in unanswered], ["stream"])

    def test_a_stream_that_was_asked_for_behind_the_check_has_time_until_the_next(self) -> None:
        self.clock.advance(30)
        beat = self.agent.asked_one("stop").seq
        self.protocol.call("stream")
        self.agent.reply(beat)
        self.clock.advance(29)
        self.agent.reply(self.agent.asked_one("stream").seq)
        self.clock.advance(1)
        self.agent.reply(self.agent.asked_one("stop").seq)
        self.assertFalse(self.agent.closed_by_client)

    def test_neither_a_call_nor_a_stream_that_nobody_wants_is_a_loss_where_it_was_passed_over(self) -> None:
        self.protocol.call("members")
        self.protocol.call("stream", timeout=3).addErrback(lambda _: None)
        self.agent.asked()
        for _ in range(2):
            self.clock.advance(30)
            self.agent.reply(self.agent.asked()[-1].seq)
        self.assertFalse(self.agent.closed_by_client)

    def test_a_check_is_due_at_once_where_the_reactor_was_held_up(self) -> None:
        self.agent.asked()
        self.clock.advance(1000.0)
        self.assertEqual(len(self.agent.asked()), 1)
        self.assertFalse(self.agent.closed_by_client)

    def test_a_large_reply_under_way_is_waited_for(self) -> None:
        waiting = self.protocol.call("members")
        body = wire.pack({"Members": [], "More": bytes(1_000_000)})
        self.agent.asked()
        self.agent.send(header(1), body[:10])
        self.clock.advance(30)
        beat = self.agent.asked_one("stop").seq
        for start in range(10, len(body), 100_000):
            self.clock.advance(4.9)
            self.agent.send(body[start : start + 100_000])
        self.assertEqual(self.successResultOf(waiting).body, {"Members": [], "More": bytes(1_000_000)})
        self.clock.advance(4.9)
        self.agent.reply(beat)
        self.clock.advance(29)
        self.assertFalse(self.agent.closed_by_client)

    def test_a_large_reply_that_stops_coming_is_a_loss(self) -> None:
        self.protocol.call("members").addErrback(lambda _: None)
        self.agent.send(header(1), wire.pack({"More": bytes(1_000_000)})[:200_000])
        self.clock.advance(30)
        self.clock.advance(5)
        self.assertTrue(self.agent.transport.aborted)

    def test_a_large_reply_is_not_waited_for_without_end(self) -> None:
        self.protocol.call("members").addErrback(lambda _: None)
        self.agent.send(header(1), b"\x81\xa4More\xc6\x03\xff\xff\xff")
        self.clock.advance(30)
        for _ in range(12):
            self.agent.send(bytes(100_000))
            self.clock.advance(5)
            self.assertFalse(self.agent.closed_by_client)
        self.agent.send(bytes(100_000))
        self.clock.advance(5)
        self.assertTrue(self.agent.transport.aborted)

    def test_an_agent_that_works_off_many_requests_is_waited_for(self) -> None:
        waiting = [self.protocol.call("stats") for _ in range(30)]
        self.agent.asked()
        self.clock.advance(30)
        beat = self.agent.asked_one("stop").seq
        for seq in range(1, 31):
            self.clock.advance(4.9)
            self.agent.reply(seq, {})
        self.agent.reply(beat)
        self.assertEqual(len([self.successResultOf(each) for each in waiting]), 30)
        self.assertFalse(self.agent.closed_by_client)

    def test_an_answer_that_came_while_the_reactor_was_held_up_is_read_first(self) -> None:
        self.agent.asked()
        self.clock.advance(30)
        beat = self.agent.asked_one("stop").seq
        self.clock.callLater(6, self.agent.reply, beat)  # a reactor runs what is due before it reads sockets
        self.clock.advance(6)
        self.assertFalse(self.agent.closed_by_client)

    def test_an_agent_that_works_on_a_slow_command_is_left_alone(self) -> None:
        waiting = self.protocol.call("join", {"Existing": ["a"]})
        self.agent.asked()
        for _ in range(10):
            self.clock.advance(30)
        self.assertEqual(self.agent.asked(), [])
        self.agent.reply(1, {"Num": 1})
        self.successResultOf(waiting)
        self.clock.advance(30)
        self.clock.advance(30)
        self.agent.asked_one("stop")

    def test_an_agent_that_works_on_a_join_which_timed_out_is_left_alone(self) -> None:
        waiting = self.protocol.call("join", {"Existing": ["a", "b", "c"]}, timeout=10.0)
        self.agent.asked()
        self.advance(100.0)
        self.reason(waiting, RequestTimeout)
        self.assertEqual(self.agent.asked(), [])
        self.agent.reply(1, {"Num": 1})
        self.advance(19.0)
        self.assertEqual(self.agent.asked(), [])
        self.assertFalse(self.agent.closed_by_client)

    def test_an_agent_that_never_answers_a_join_which_was_cancelled_is_a_loss_in_the_end(self) -> None:
        waiting = self.protocol.call("join", {"Existing": ["a"]})
        self.agent.asked()
        self.advance(1000.0)
        self.assertEqual(self.agent.asked(), [])
        waiting.cancel()
        self.reason(waiting, CancelledError)
        self.advance(119.0)
        self.assertEqual(self.agent.asked(), [])
        self.advance(30.0 + 3.75 + 5.0 + 1.0)
        self.agent.asked_one("stop")
        self.assertTrue(self.agent.transport.aborted)

    def test_a_quick_command_that_timed_out_puts_no_check_off(self) -> None:
        waiting = self.protocol.call("members", timeout=1.0)
        self.agent.asked()
        self.advance(30.0)
        self.reason(waiting, RequestTimeout)
        self.agent.asked_one("stop")

    def test_there_are_none_where_none_are_wanted(self) -> None:
        _, agent = self.connect(heartbeat=None)
        agent.asked()
        before = len(self.clock.getDelayedCalls())
        self.clock.advance(1000)
        self.assertEqual(agent.asked(), [])
        self.assertLessEqual(len(self.clock.getDelayedCalls()), before)

    def test_its_period_and_its_patience_can_be_set(self) -> None:
        _, agent = self.connect(heartbeat=2.0, connect_timeout=1.0)
        agent.asked()
        self.clock.advance(2.1)
        agent.asked_one("stop")
        self.clock.advance(1.1)
        self.assertTrue(agent.transport.aborted)

    def test_a_closed_connection_is_not_checked(self) -> None:
        self.protocol.close()
        self.agent.finish_closing()
        self.assertQuiet()
