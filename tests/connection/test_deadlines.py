"""Deadlines: any number of them share one timer of the reactor."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txserf.connection.deadlines import Deadlines


class DeadlinesCase(SynchronousTestCase):
    """
    A test with deadlines whose functions record their calls.

    :ivar called: the letters of the functions that were called, in order.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(lambda: self.clock)
        self.called = ""

    def letter(self, letter: str) -> Callable[[], None]:
        def call() -> None:
            self.called += letter

        return call

    def add(self, delay: float, letter: str) -> Any:
        return self.deadlines.add(delay, self.letter(letter))

    def timers(self) -> list[float]:
        """Return the times of the reactor's timers."""
        return [timer.getTime() for timer in self.clock.getDelayedCalls()]


class OrderTests(DeadlinesCase):
    def test_each_is_called_once_when_its_time_has_come_and_not_before(self) -> None:
        self.add(1.0, "a")
        self.clock.advance(0.999)
        self.assertEqual(self.called, "")
        self.clock.advance(0.001)
        self.assertEqual(self.called, "a")
        self.clock.advance(100.0)
        self.assertEqual(self.called, "a")

    def test_they_are_called_in_the_order_of_their_times_whatever_order_they_were_added_in(self) -> None:
        for delay, letter in ((3.0, "c"), (1.0, "a"), (4.0, "d"), (2.0, "b")):
            self.add(delay, letter)
        for expected in ("a", "ab", "abc", "abcd"):
            self.clock.advance(1.0)
            self.assertEqual(self.called, expected)

    def test_they_are_in_order_though_the_clock_leaps_over_all_of_them(self) -> None:
        for delay, letter in ((3.0, "c"), (1.0, "a"), (2.0, "b")):
            self.add(delay, letter)
        self.clock.advance(10.0)
        self.assertEqual(self.called, "abc")

    def test_equal_times_are_called_in_the_order_that_they_were_added_in(self) -> None:
        for letter in "abcdefgh":
            self.add(1.0, letter)
        self.clock.advance(1.0)
        self.assertEqual(self.called, "abcdefgh")

    def test_times_count_from_when_each_was_added(self) -> None:
        self.add(2.0, "b")
        self.clock.advance(1.0)
        self.add(0.5, "a")
        self.add(1.5, "c")
        self.clock.advance(0.5)
        self.assertEqual(self.called, "a")
        self.clock.advance(0.5)
        self.assertEqual(self.called, "ab")
        self.clock.advance(0.5)
        self.assertEqual(self.called, "abc")

    def test_no_delay_is_the_next_turn_and_not_this_one(self) -> None:
        self.add(0.0, "a")
        self.assertEqual(self.called, "")
        self.clock.advance(0)
        self.assertEqual(self.called, "a")

    def test_a_far_one_does_not_hold_up_a_near_one(self) -> None:
        self.add(1e9, "z")
        self.add(1.0, "a")
        self.clock.advance(1.0)
        self.assertEqual(self.called, "a")
        self.clock.advance(1e9)
        self.assertEqual(self.called, "az")

    def test_one_without_end_never_comes_and_holds_up_nothing(self) -> None:
        never = self.add(math.inf, "z")
        self.add(1.0, "a")
        self.clock.advance(1e12)
        self.assertEqual(self.called, "a")
        self.deadlines.forget(never)
        self.deadlines.close()
        self.assertEqual(self.timers(), [])


class TimerTests(DeadlinesCase):
    def test_without_a_deadline_there_is_no_timer(self) -> None:
        self.assertEqual(self.timers(), [])

    def test_thousands_of_them_have_one_timer_which_is_for_the_first(self) -> None:
        for number in range(5000):
            self.add(1.0 + (number * 7919) % 5000, "x")
        self.assertEqual(self.timers(), [1.0])
        self.clock.advance(1.0)
        self.assertEqual((self.called, self.timers()), ("x", [2.0]))

    def test_an_earlier_one_moves_the_timer(self) -> None:
        self.add(5.0, "b")
        self.add(1.0, "a")
        self.assertEqual(self.timers(), [1.0])

    def test_behind_the_last_one_there_is_no_timer(self) -> None:
        self.add(1.0, "a")
        self.add(2.0, "b")
        self.clock.advance(2.0)
        self.assertEqual(self.timers(), [])

    def test_one_that_is_added_behind_the_last_has_a_timer_again(self) -> None:
        self.add(1.0, "a")
        self.clock.advance(1.0)
        self.add(1.0, "b")
        self.clock.advance(1.0)
        self.assertEqual(self.called, "ab")


class CancelTests(DeadlinesCase):
    def test_a_cancelled_one_is_not_called_and_the_others_are(self) -> None:
        deadlines = {letter: self.add(1.0, letter) for letter in "abc"}
        self.deadlines.forget(deadlines["b"])
        self.clock.advance(1.0)
        self.assertEqual(self.called, "ac")

    def test_cancelling_the_first_one_makes_the_next_no_earlier_and_no_later(self) -> None:
        first = self.add(1.0, "a")
        self.add(2.0, "b")
        self.deadlines.forget(first)
        self.clock.advance(1.999)
        self.assertEqual(self.called, "")
        self.clock.advance(0.001)
        self.assertEqual(self.called, "b")

    def test_cancelling_twice_is_cancelling_once(self) -> None:
        first = self.add(1.0, "a")
        self.deadlines.forget(first)
        self.deadlines.forget(first)
        self.add(1.0, "b")
        self.deadlines.close()
        self.clock.advance(1.0)
        self.assertEqual(self.called, "b")

    def test_cancelling_one_that_is_over_harms_nothing(self) -> None:
        over = self.add(1.0, "a")
        self.clock.advance(1.0)
        self.add(1.0, "b")
        self.deadlines.forget(over)
        self.deadlines.close()
        self.clock.advance(1.0)
        self.assertEqual(self.called, "ab")

    def test_the_last_of_thousands_that_were_cancelled_still_comes(self) -> None:
        self.add(2.0, "z")
        for _ in range(5000):
            self.deadlines.forget(self.add(1.0, "x"))
        self.clock.advance(2.0)
        self.assertEqual(self.called, "z")

    def test_those_left_of_thousands_are_called_in_order(self) -> None:
        called: list[int] = []
        for number in range(5000):
            time = (number * 7919) % 5000
            deadline = self.deadlines.add(float(time), lambda time=time: called.append(time))  # type: ignore[misc]  # bound now
            if time % 10:
                self.deadlines.forget(deadline)
        for _ in range(5000):
            self.clock.advance(1.0)
        self.assertEqual(called, list(range(0, 5000, 10)))

    def test_what_was_cancelled_is_let_go_of_though_its_time_is_far(self) -> None:
        """Most deadlines are cancelled: an answered call must not stay in memory until its timeout."""

        class Held:
            """Counts its live instances."""

            alive = 0

            def __init__(self) -> None:
                Held.alive += 1

            def __del__(self) -> None:
                Held.alive -= 1

            def __call__(self) -> None:
                pass

        for _ in range(1000):
            self.deadlines.forget(self.deadlines.add(1e6, Held()))
        self.assertEqual(Held.alive, 0)


class ReentrancyTests(DeadlinesCase):
    def test_one_may_be_added_from_within_a_call(self) -> None:
        self.deadlines.add(1.0, lambda: self.add(1.0, "b"))
        self.add(3.0, "c")
        self.clock.advance(1.0)
        self.clock.advance(1.0)
        self.assertEqual(self.called, "b")
        self.clock.advance(1.0)
        self.assertEqual((self.called, self.timers()), ("bc", []))

    def test_one_that_is_added_from_within_a_call_without_delay_comes_behind_those_that_are_due(self) -> None:
        self.deadlines.add(1.0, lambda: self.add(0.0, "b"))
        self.add(1.0, "a")
        self.clock.advance(1.0)
        self.clock.advance(0)
        self.assertEqual(self.called, "ab")
        self.assertEqual(self.timers(), [])

    def test_one_that_is_added_from_within_a_call_is_not_called_inside_it(self) -> None:
        def call() -> None:
            self.called += "("
            self.add(0.0, "b")
            self.called += ")"

        self.deadlines.add(1.0, call)
        self.clock.advance(1.0)
        self.clock.advance(0)
        self.assertEqual(self.called, "()b")

    def test_one_may_cancel_another_that_is_due_at_the_same_time(self) -> None:
        later: list[Any] = []
        self.deadlines.add(1.0, lambda: self.deadlines.forget(later[0]))
        later.append(self.add(1.0, "b"))
        self.add(1.0, "c")
        self.clock.advance(1.0)
        self.assertEqual(self.called, "c")

    def test_one_may_cancel_itself(self) -> None:
        own: list[Any] = []
        own.append(self.deadlines.add(1.0, lambda: self.deadlines.forget(own[0])))
        self.add(2.0, "b")
        self.clock.advance(1.0)
        self.deadlines.close()
        self.clock.advance(1.0)
        self.assertEqual(self.called, "b")

    def test_one_may_cancel_thousands(self) -> None:
        others = [self.add(1.0 + number, "x") for number in range(1, 5000)]
        self.add(2.5, "z")

        def cancel_all() -> None:
            for other in others:
                self.deadlines.forget(other)

        self.deadlines.add(1.0, cancel_all)
        self.clock.advance(10_000.0)
        self.assertEqual((self.called, self.timers()), ("z", []))

    def test_one_may_close_them(self) -> None:
        self.deadlines.add(1.0, self.deadlines.close)
        self.add(1.0, "b")
        self.add(2.0, "c")
        self.clock.advance(2.0)
        self.assertEqual((self.called, self.timers()), ("bc", []))

    def test_one_that_raises_holds_up_none_of_the_later_ones(self) -> None:
        def fails() -> None:
            raise ZeroDivisionError

        self.deadlines.add(1.0, fails)
        self.add(2.0, "b")
        self.assertRaises(ZeroDivisionError, self.clock.advance, 1.0)
        self.clock.advance(1.0)
        self.assertEqual(self.called, "b")


class CloseTests(DeadlinesCase):
    def test_where_all_are_cancelled_no_timer_is_left(self) -> None:
        for deadline in [self.add(1.0, "a"), self.add(2.0, "b")]:
            self.deadlines.forget(deadline)
        self.deadlines.close()
        self.assertEqual(self.timers(), [])

    def test_what_is_due_is_kept(self) -> None:
        self.deadlines.forget(self.add(1.0, "a"))
        self.add(2.0, "b")
        self.deadlines.close()
        self.clock.advance(2.0)
        self.assertEqual(self.called, "b")

    def test_they_may_be_used_again_behind_it(self) -> None:
        self.deadlines.forget(self.add(1.0, "a"))
        self.deadlines.close()
        self.add(1.0, "b")
        self.clock.advance(1.0)
        self.assertEqual(self.called, "b")

    def test_closing_what_was_never_used_does_nothing(self) -> None:
        self.deadlines.close()
        self.deadlines.close()
        self.assertEqual(self.timers(), [])


#: Steps: add a deadline after some seconds, cancel one, or let time pass.
_STEPS = st.lists(
    st.tuples(st.just("add"), st.floats(0.0, 20.0))
    | st.tuples(st.just("cancel"), st.integers(0, 200))
    | st.tuples(st.just("wait"), st.floats(0.0, 10.0))
    | st.tuples(st.just("close"), st.none()),
    max_size=60,
)


class PropertyTests(SynchronousTestCase):
    @given(steps=_STEPS)
    @settings(deadline=None)
    def test_whatever_is_added_and_cancelled_each_comes_when_due_or_not_at_all(
        self, steps: list[tuple[str, Any]]
    ) -> None:
        clock = Clock()
        deadlines = Deadlines(lambda: clock)
        added: list[Any] = []
        due: dict[int, float] = {}  # a simple model: the deadlines that were neither called nor cancelled
        called: list[int] = []
        expected: list[int] = []
        for what, value in steps:
            if what == "add":
                number = len(added)
                due[number] = clock.seconds() + value
                added.append(deadlines.add(value, lambda number=number: called.append(number)))  # type: ignore[misc]  # bound now
            elif what == "cancel" and added:
                deadlines.forget(added[value % len(added)])
                due.pop(value % len(added), None)
            elif what == "wait":
                clock.advance(value)
                over = sorted((at, number) for number, at in due.items() if at <= clock.seconds())
                expected += [number for _, number in over]
                for _, number in over:
                    del due[number]
            elif what == "close":
                deadlines.close()
            self.assertEqual(called, expected)
            self.assertLessEqual(len(clock.getDelayedCalls()), 1)
