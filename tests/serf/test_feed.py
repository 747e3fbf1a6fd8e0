"""`Feed`: items for callbacks, for ``async for``, or for both."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Log
from txserf.errors import ConnectionLost, Disconnected, InvalidRequest, StopReceiveData
from txserf.serf.feed import Feed


class Letters(Feed[str]):
    """A feed that a test fills by hand."""

    stops = 0

    def _stop_asked(self) -> None:
        self.stops += 1
        self._end(None, discard=True)


class FeedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.feed = Letters(3)

    def deliver(self, letters: str) -> None:
        for letter in letters:
            self.feed._deliver(letter)

    def next(self) -> Deferred[str]:
        return Deferred.fromCoroutine(anext(self.feed))

    def rest(self) -> Deferred[list[str]]:
        async def collect() -> list[str]:
            return [item async for item in self.feed]

        return Deferred.fromCoroutine(collect())

    def test_a_reader_gets_what_came_before_it_read_and_then_waits(self) -> None:
        self.deliver("ab")
        self.assertEqual(self.successResultOf(self.next()), "a")
        self.assertEqual(self.successResultOf(self.next()), "b")
        waiting = self.next()
        self.assertNoResult(waiting)
        self.deliver("c")
        self.assertEqual(self.successResultOf(waiting), "c")

    def test_a_full_buffer_drops_the_oldest_and_counts_it(self) -> None:
        self.deliver("abcde")
        self.assertEqual(self.feed.dropped, 2)
        self.feed._end(None)
        self.assertEqual(self.successResultOf(self.rest()), list("cde"))

    def test_the_first_item_that_is_dropped_is_a_warning(self) -> None:
        log = Log(self)
        self.deliver("abc")
        self.assertEqual(log.texts, [])
        self.deliver("def")
        (told,) = log.texts
        self.assertIn("3 items wait for who reads it, and the oldest are dropped from now on", told)

    def test_so_it_is_behind_a_slow_callback(self) -> None:
        log = Log(self)
        self.feed.add_callback(lambda item: Deferred())
        self.deliver("abcdef")
        (told,) = log.texts
        self.assertIn("3 items wait for who reads it", told)

    def test_a_slow_callback_loses_the_oldest_too(self) -> None:
        busy: Deferred[None] = Deferred()
        got: list[str] = []

        def slow(item: str) -> Deferred[None] | None:
            got.append(item)
            return busy if item == "a" else None

        self.feed.add_callback(slow)
        self.deliver("abcdef")
        self.assertEqual((got, self.feed.dropped), (["a"], 2))
        busy.callback(None)
        self.assertEqual(got, ["a", "d", "e", "f"])

    def test_callbacks_get_what_came_before_they_were_added(self) -> None:
        got: list[str] = []
        self.deliver("ab")
        self.feed.add_callback(got.append)
        self.deliver("c")
        self.assertEqual(got, list("abc"))
        self.feed._end(None)
        self.assertEqual(self.successResultOf(self.rest()), [])

    def test_a_reader_beside_callbacks_gets_all_from_the_moment_that_it_iterates(self) -> None:
        got: list[str] = []
        self.feed.add_callback(got.append)
        self.deliver("a")
        aiter(self.feed)
        self.deliver("bc")
        self.feed._end(None)
        self.assertEqual(got, list("abc"))
        self.assertEqual(self.successResultOf(self.rest()), list("bc"))

    def test_callbacks_beside_a_reader_get_all_from_the_moment_that_they_are_added(self) -> None:
        got: list[str] = []
        first = self.next()
        self.deliver("a")
        self.feed.add_callback(got.append)
        self.deliver("b")
        self.assertEqual(self.successResultOf(first), "a")
        self.assertEqual(self.successResultOf(self.next()), "b")
        self.assertEqual(got, ["b"])

    def test_two_readers_share_the_items(self) -> None:
        first, second = self.next(), self.next()
        self.deliver("ab")
        self.assertEqual({self.successResultOf(first), self.successResultOf(second)}, {"a", "b"})

    def test_an_end_comes_behind_the_last_item_and_comes_again(self) -> None:
        self.deliver("a")
        self.feed._end(ConnectionLost("gone", host="n1"))
        self.assertEqual(self.successResultOf(self.next()), "a")
        errors = [self.failureResultOf(self.next(), ConnectionLost).value for _ in range(2)]
        self.assertEqual([(str(error), error.host) for error in errors], [("gone", "n1")] * 2)
        self.assertIsNot(errors[0], errors[1])

    def test_an_end_wakes_all_who_wait(self) -> None:
        waiting = [self.next(), self.next()]
        self.feed._end(None)
        for reader in waiting:
            self.failureResultOf(reader, StopAsyncIteration)

    def test_a_reader_that_is_cancelled_takes_no_item_with_it(self) -> None:
        cancelled, waiting = self.next(), self.next()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.deliver("a")
        self.assertEqual(self.successResultOf(waiting), "a")

    def test_a_reader_may_cancel_another_one_at_the_end(self) -> None:
        first, second = self.next(), self.next()
        first.addErrback(lambda _: second.cancel())
        self.feed._end(None)
        self.failureResultOf(second, CancelledError)

    def test_a_callback_that_raises_is_logged_and_the_next_item_comes(self) -> None:
        got: list[str] = []

        def picky(item: str) -> None:
            if item == "a":
                raise ValueError("no a, please")

        self.feed.add_callback(picky, got.append)
        self.deliver("ab")
        self.assertEqual(got, ["b"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_stop_receive_data_stops_it(self) -> None:
        def enough(item: str) -> None:
            raise StopReceiveData

        self.feed.add_callback(enough)
        self.deliver("ab")
        self.assertEqual(self.feed.stops, 1)

    def test_a_callback_that_stops_it_leaves_nothing_to_a_reader_beside_it(self) -> None:
        aiter(self.feed)

        def enough(item: str) -> None:
            self.feed._end(None, discard=True)

        self.feed.add_callback(enough)
        self.deliver("ab")
        self.assertEqual(self.successResultOf(self.rest()), [])

    def test_a_callback_that_ends_it_leaves_its_item_to_a_reader_beside_it(self) -> None:
        reading = self.rest()
        self.feed.add_callback(lambda item: self.feed._end(None))
        self.deliver("ab")
        self.assertEqual(self.successResultOf(reading), ["a"])

    def test_a_callback_that_waited_as_we_closed_has_not_failed(self) -> None:
        pending: list[Deferred[None]] = [Deferred(), Deferred()]
        waiting = iter(pending)
        self.feed.add_callback(lambda item: next(waiting))
        self.deliver("ab")
        pending[0].errback(Disconnected("closed by us, and yet the stream goes on"))
        self.assertEqual(len(self.flushLoggedErrors(Disconnected)), 1)
        self.feed._end(None)
        pending[1].errback(Disconnected("closed by us"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_function_that_can_not_be_called_is_refused_and_nothing_is_added(self) -> None:
        function: Any = "print"
        with self.assertRaisesRegex(InvalidRequest, "callable"):
            self.feed.add_callback(print, function)
        self.deliver("a")
        self.assertEqual(self.successResultOf(self.next()), "a")


class TogetherTests(FeedTests):
    """The same, where items are delivered together."""

    def deliver(self, letters: str) -> None:
        self.feed._deliver_all(iter(letters))

    def test_a_reader_that_keeps_up_loses_none_of_more_than_the_buffer_takes(self) -> None:
        rest = self.rest()
        self.deliver("abcdefghij")
        self.feed._end(None)
        self.assertEqual(self.successResultOf(rest), list("abcdefghij"))
        self.assertEqual(self.feed.dropped, 0)

    def test_a_reader_that_falls_behind_in_the_middle_loses_the_oldest(self) -> None:
        got: list[str] = []
        gate: Deferred[None] = Deferred()

        async def read() -> None:
            async for item in self.feed:
                got.append(item)
                if item == "d":
                    await gate

        reading = Deferred.fromCoroutine(read())
        self.deliver("abcdefghij")
        self.assertEqual((got, self.feed.dropped), (list("abcd"), 3))
        gate.callback(None)
        self.feed._end(None)
        self.successResultOf(reading)
        self.assertEqual(got, list("abcdhij"))

    def test_a_reader_that_ends_it_in_the_middle_gets_no_more(self) -> None:
        got: list[str] = []

        async def read() -> None:
            async for item in self.feed:
                got.append(item)
                if item == "b":
                    self.feed._stop_asked()

        self.successResultOf(self.after(read, "abcdefghij"))
        self.assertEqual((got, self.feed.dropped), (["a", "b"], 0))

    def after(self, read: Any, letters: str) -> Deferred[None]:
        """Begin to read, then deliver *letters*."""
        reading = Deferred.fromCoroutine(read())
        self.deliver(letters)
        return reading

    def test_without_a_limit_none_is_lost(self) -> None:
        self.feed = Letters(None)
        self.deliver("abcdefghij")
        self.feed._end(None)
        self.assertEqual(self.successResultOf(self.rest()), list("abcdefghij"))

    def test_a_buffer_of_none_keeps_none(self) -> None:
        self.feed = Letters(0)
        self.deliver("abc")
        self.assertEqual(self.feed.dropped, 3)

    def test_what_is_behind_the_item_at_which_a_callback_begins_to_read_is_for_both(self) -> None:
        got: list[str] = []

        def read(item: str) -> None:
            got.append(item)
            if item == "b":
                aiter(self.feed)

        self.feed.add_callback(read)
        self.deliver("abcde")
        self.feed._end(None)
        self.assertEqual((got, self.successResultOf(self.rest())), (list("abcde"), list("cde")))

    def test_a_reader_that_a_callback_begins_gets_them_in_turns_with_the_callbacks(self) -> None:
        self.feed = Letters(1)
        got: list[str] = []

        async def read() -> None:
            async for item in self.feed:
                got.append(f"read {item}")

        def begin(item: str) -> Deferred[None] | None:
            got.append(item)
            return Deferred.fromCoroutine(read()) and None if item == "b" else None

        self.feed.add_callback(begin, lambda item: got.append(f"then {item}"))
        self.deliver("abcd")
        self.assertEqual(
            got, ["a", "then a", "b", "then b", "c", "then c", "read c", "d", "then d", "read d"]
        )
        self.assertEqual(self.feed.dropped, 0)

    def test_no_item_is_left_while_a_reader_waits(self) -> None:
        self.feed = Letters(2)
        got: list[str] = []

        async def second() -> None:
            async for item in self.feed:
                got.append(f"second {item}")
                await Deferred()

        async def first() -> None:
            async for item in self.feed:
                got.append(f"first {item}")
                if item == "b":
                    Deferred.fromCoroutine(second())

        Deferred.fromCoroutine(first())
        self.deliver("abcd")
        self.assertEqual(got, ["first a", "first b", "second c", "first d"])

    def test_a_callback_that_begins_to_read_and_waits_leaves_the_others_to_both(self) -> None:
        gate: Deferred[None] = Deferred()
        got: list[str] = []

        def read(item: str) -> Deferred[None] | None:
            got.append(item)
            if item != "b":
                return None
            aiter(self.feed)
            return gate

        self.feed.add_callback(read)
        self.deliver("abcde")
        gate.callback(None)
        self.feed._end(None)
        self.assertEqual((got, self.successResultOf(self.rest())), (list("abcde"), list("cde")))

    def test_what_a_keyboard_interrupt_has_cut_off_is_not_delivered_late(self) -> None:
        def interrupted(item: str) -> None:
            raise KeyboardInterrupt

        self.feed.add_callback(interrupted)
        self.assertRaises(KeyboardInterrupt, self.deliver, "abc")
        aiter(self.feed)
        self.feed._end(None)
        self.assertEqual(self.successResultOf(self.rest()), [])

    def test_a_callback_that_stops_it_in_the_middle_is_given_no_more_and_none_is_made(self) -> None:
        got: list[str] = []
        made: list[str] = []

        def stop(item: str) -> None:
            got.append(item)
            if item == "b":
                raise StopReceiveData

        def letters() -> Any:
            for letter in "abcde":
                made.append(letter)
                yield letter

        self.feed.add_callback(stop)
        self.feed._deliver_all(letters())
        self.assertEqual((got, made, self.feed.stops), (["a", "b"], ["a", "b"], 1))

    def test_two_readers_that_wait_get_one_each(self) -> None:
        first, second = self.next(), self.next()
        self.deliver("ab")
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), ("a", "b"))
