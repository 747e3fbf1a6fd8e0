"""The heartbeat: a quiet agent is checked, a busy one is not, and a dead one is noticed."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from tests.fakes import header, user_event
from tests.protocol_case import Owner, ProtocolCase
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

    def test_an_idle_connection_is_checked_by_a_stop_of_an_unused_seq(self) -> None:
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

    def test_whatever_arrives_puts_the_check_off(self) -> None:
        self.protocol.call("stream")
        self.agent.reply(1)
        self.agent.asked()
        for _ in range(10):
            self.clock.advance(20)
            self.agent.reply(1, user_event())
        self.clock.advance(1)
        self.assertEqual(self.agent.asked(), [])

    def test_a_check_comes_within_an_eighth_of_the_period_past_it(self) -> None:
        self.protocol.call("stream")
        self.agent.reply(1)
        self.agent.asked()
        for heard_at in (1.0, 3.75, 7.25, 29.875):
            self.advance(heard_at)
            self.agent.reply(1, user_event())
            self.advance(29.875)
            self.assertEqual(self.agent.asked(), [], heard_at)
            self.advance(30.0 / 8 + 0.125)
            self.agent.reply(self.agent.asked_one("stop").seq)

    def test_bytes_of_an_unfinished_message_put_the_check_off_too(self) -> None:
        self.agent.asked()
        for byte in header(7)[:4]:
            self.advance(20.0)
            self.agent.send(bytes([byte]))
        self.assertEqual(self.agent.asked(), [])

    def test_a_check_is_due_at_once_where_the_reactor_was_held_up(self) -> None:
        self.agent.asked()
        self.clock.advance(1000.0)
        self.assertEqual(len(self.agent.asked()), 1)
        self.assertFalse(self.agent.closed_by_client)

    def test_records_while_the_check_is_due_are_a_sign_of_life(self) -> None:
        self.protocol.call("stream")
        self.agent.reply(1)
        self.clock.advance(30)
        self.clock.advance(30)
        self.agent.reply(1, user_event())
        self.clock.advance(5.1)
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
        self.advance(29.0)
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
