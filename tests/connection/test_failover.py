"""Which host is next, which ones have refused the key, and how long to wait."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txserf.connection.failover import Rounds, Unreached, jittered
from txserf.errors import AuthenticationError, ConnectionLost


class RoundsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rounds = Rounds()
        self.rounds.begin(3)

    def left(self) -> list[int]:
        """Return all that the round has still to try."""
        return list(iter(self.rounds.next, None))

    def note(self, place: int | None, reason: BaseException, key_is_old: bool = False) -> None:
        assert place is not None
        self.rounds.failed(place, reason, key_is_old)

    def test_a_round_has_each_host_once_in_order(self) -> None:
        self.assertEqual(self.left(), [0, 1, 2])

    def test_the_next_round_begins_behind_the_host_that_was_tried_last(self) -> None:
        self.rounds.next()
        self.rounds.begin(3)
        self.assertEqual(self.left(), [1, 2, 0])

    def test_one_that_refused_the_key_is_left_out_and_stands_first_among_the_failures(self) -> None:
        refusal, other = AuthenticationError("no"), OSError("gone")
        self.note(self.rounds.next(), refusal)
        self.note(self.rounds.next(), other)
        self.rounds.begin(3)
        self.assertEqual(self.rounds.failures, [(0, refusal)])
        self.assertEqual(self.left(), [2, 1])

    def test_one_that_refused_an_old_key_is_tried_again_in_the_same_round(self) -> None:
        self.note(self.rounds.next(), AuthenticationError("no"), key_is_old=True)
        self.assertEqual(self.left(), [1, 2, 0])
        self.assertIsNone(self.rounds.refusal)

    def test_with_another_key_those_that_refused_are_tried_again_in_the_same_round(self) -> None:
        self.note(self.rounds.next(), AuthenticationError("no"))
        self.rounds.forget_refusals()
        self.assertEqual(self.left(), [1, 2, 0])

    def test_the_refusal_counts_once_all_have_refused(self) -> None:
        refusals = [AuthenticationError(str(number)) for number in range(3)]
        for refusal in refusals:
            self.assertIsNone(self.rounds.refusal)
            self.note(self.rounds.next(), refusal)
        self.assertIs(self.rounds.refusal, refusals[0])
        self.rounds.start_afresh()
        self.assertIsNone(self.rounds.refusal)

    def test_a_connection_to_another_host_than_the_last_is_a_failover(self) -> None:
        self.assertEqual([self.rounds.connected(place) for place in (1, 1, 2)], [False, False, True])

    def test_each_host_has_to_flap_before_there_is_a_wait(self) -> None:
        reason = ConnectionLost("lost")
        for _ in range(3):
            self.assertFalse(self.rounds.lost(0, reason, lasted=0.1))
            self.assertIsNone(self.rounds.flapped)
        self.rounds.lost(0, reason, lasted=0.1)
        self.assertIs(self.rounds.flapped, reason)

    def test_one_that_held_ends_the_flapping(self) -> None:
        for lasted in (0.1, 0.1, 0.1, 5.0, 0.1):
            held = self.rounds.lost(0, ConnectionLost("lost"), lasted)
            self.assertEqual(held, lasted == 5.0)
        self.assertIsNone(self.rounds.flapped)
        self.assertTrue(self.rounds.flaps)

    def test_a_host_that_wanted_a_key_has_refused_and_any_other_loss_forgets_the_refusals(self) -> None:
        refusal = AuthenticationError("wants one")
        self.rounds.lost(1, refusal, lasted=5.0)
        self.rounds.begin(3)
        self.assertEqual(self.left(), [0, 2])
        self.rounds.lost(0, ConnectionLost("lost"), lasted=5.0)
        self.rounds.begin(3)
        self.assertEqual(self.left(), [0, 1, 2])


class JitterTests(SynchronousTestCase):
    def test_without_jitter_the_wait_is_the_delay(self) -> None:
        self.assertEqual(jittered(2.5, 0, 30), 2.5)

    def test_it_lies_between_nothing_and_the_most_whatever_the_jitter(self) -> None:
        waits = [jittered(10, 5.0, 12) for _ in range(500)]
        self.assertEqual((min(waits), max(waits)), (0, 12))
        self.assertGreater(len(set(waits)), 10)


class UnreachedTests(SynchronousTestCase):
    def test_a_failure_is_news_once_and_again_when_the_reason_changes(self) -> None:
        unreached = Unreached()
        told = []
        for reason in ("refused", "refused", "timeout", "refused"):
            unreached.failed("a:1", reason)
            told.append(unreached.take())
        refused, late = (f"no connection to a:1: {reason}" for reason in ("refused", "timeout"))
        self.assertEqual(told, [refused, "", late, refused])

    def test_after_a_connection_it_is_news_again(self) -> None:
        unreached = Unreached()
        unreached.failed("a:1", "refused")
        unreached.take()
        unreached.connected("a:1")
        unreached.failed("a:1", "refused")
        self.assertEqual(unreached.take(), "no connection to a:1: refused")

    def test_a_line_names_ten_hosts_at_most(self) -> None:
        unreached = Unreached()
        for number in range(12):
            unreached.failed(f"a:{number}", "refused")
        news = unreached.take()
        self.assertEqual(news.count("refused"), 10)
        self.assertTrue(news.endswith("; and 2 more"))
        self.assertEqual(unreached.take(), "")
