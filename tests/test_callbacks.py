"""Callback chains: items go through in order and one at a time, whatever the functions do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txserf.callbacks import Callback, Chain, check_callables, waited_for
from txserf.errors import InvalidRequest, StopReceiveData


class ChainCase(SynchronousTestCase):
    """
    A test with chains whose functions record their calls.

    :ivar events: the calls in order, each as the function's letter and the item.
    :ivar failures: the exceptions that `failed` got.
    """

    def setUp(self) -> None:
        self.events: list[str] = []
        self.failures: list[BaseException] = []

    def chain(self, *functions: Callback[int], limit: int | None = None) -> Chain[int]:
        return Chain(list(functions), self.failed, lambda: self.events.append("idle"), limit)

    def failed(self, failure: Failure) -> None:
        assert failure.value is not None
        self.events.append("failed")
        self.failures.append(failure.value)

    def function(self, letter: str, results: dict[int, Any] | None = None) -> Callback[int]:
        """Make a function that looks up its item in *results*, and raises or returns the value."""

        def called(item: int) -> object:
            self.events.append(f"{letter}{item}")
            result = (results or {}).get(item)
            if isinstance(result, BaseException):
                raise result
            return result

        return called

    def happened(self, *events: str) -> None:
        """Check the calls since the last check."""
        seen, self.events = self.events, []
        self.assertEqual(seen, list(events))


class TogetherTests(ChainCase):
    """Items that are put together are handled as if each was put behind the other."""

    current: Chain[int]

    def both(self, make: Callable[[], Chain[int]], *then: Callable[[], None]) -> list[str]:
        """Put 1, 2 and 3 one by one, then in another chain together, and do *then*; return what happened, the same twice."""
        happened: list[list[str]] = []
        for together in (False, True):
            self.events = []
            self.current = chain = make()
            if together:
                chain.put_all(iter([1, 2, 3]))
            else:
                for item in (1, 2, 3):
                    chain.put(item)
            for step in then:
                step()
            happened.append([event for event in self.events if event != "idle"])
            self.assertFalse(chain.busy)
        self.assertEqual(*happened)
        return happened[0]

    def test_each_goes_through_all_functions_before_the_next(self) -> None:
        both = self.both(lambda: self.chain(self.function("a"), self.function("b")))
        self.assertEqual(both, ["a1", "b1", "a2", "b2", "a3", "b3"])

    def test_one_that_raises_leaves_out_the_rest_of_its_item_only(self) -> None:
        both = self.both(lambda: self.chain(self.function("a", {2: RuntimeError("no")}), self.function("b")))
        self.assertEqual(both[-2:], ["a3", "b3"])
        self.assertNotIn("b2", both)

    def test_the_others_wait_for_a_deferred(self) -> None:
        gates: list[Deferred[None]] = []

        def slow(item: int) -> Deferred[None] | None:
            self.events.append(f"slow{item}")
            if item == 2:
                gates.append(Deferred())
                return gates[-1]
            return None

        for limit, expected in ((None, ["slow3", "b3"]), (0, [])):
            both = self.both(
                lambda limit=limit: self.chain(slow, self.function("b"), limit=limit),  # type: ignore[misc]
                lambda: self.assertTrue(self.current.busy),
                lambda: self.events.append("fires"),
                lambda: gates.pop().callback(None),
            )
            self.assertEqual(both, ["slow1", "b1", "slow2", "fires", "b2", *expected])
            self.assertEqual(self.current.dropped, len(expected) == 0)

    def test_a_close_in_the_middle_ends_them(self) -> None:
        def closing(item: int) -> None:
            if item == 2:
                self.current.close()

        both = self.both(lambda: self.chain(self.function("a"), closing, self.function("b")))
        self.assertEqual(both, ["a1", "b1", "a2"])

    def test_an_item_that_a_function_puts_comes_behind_them(self) -> None:
        chain = self.chain(self.function("a"))
        chain._functions.append(lambda item: chain.put(9) if item == 1 else None)
        chain.put_all(iter([1, 2]))
        self.happened("a1", "a2", "a9", "idle")

    def test_a_function_that_is_added_gets_the_next_item(self) -> None:
        functions: list[Callback[int]] = [self.function("a")]
        chain = Chain(functions, self.failed)
        functions.append(lambda item: functions.append(self.function("b")) if item == 1 else None)
        chain.put_all(iter([1, 2]))
        self.happened("a1", "a2", "b2")

    def test_those_behind_one_that_is_at_work_wait(self) -> None:
        gate: Deferred[None] = Deferred()
        chain = self.chain(self.function("a", {1: gate}))
        chain.put(1)
        chain.put_all(iter([2, 3]))
        self.happened("a1")
        gate.callback(None)
        self.happened("a2", "a3", "idle")

    def test_a_keyboard_interrupt_propagates_and_the_chain_goes_on(self) -> None:
        chain = self.chain(self.function("a", {1: KeyboardInterrupt()}))
        self.assertRaises(KeyboardInterrupt, chain.put_all, iter([1, 2]))
        chain.put_all(iter([3]))
        self.happened("a1", "a3", "idle")

    def test_the_next_one_is_asked_for_when_the_one_before_is_done(self) -> None:
        def items() -> Iterator[int]:
            for item in (1, 2):
                self.events.append(f"made{item}")
                yield item

        self.chain(self.function("a")).put_all(items())
        self.happened("made1", "a1", "made2", "a2", "idle")


class OrderTests(ChainCase):
    def test_each_item_goes_through_all_functions_before_the_next(self) -> None:
        chain = self.chain(self.function("a"), self.function("b"))
        chain.put(1)
        chain.put(2)
        self.happened("a1", "b1", "idle", "a2", "b2", "idle")

    def test_the_next_function_and_the_next_item_wait_for_a_deferred(self) -> None:
        gate: Deferred[None] = Deferred()
        chain = self.chain(self.function("a", {1: gate}), self.function("b"))
        chain.put(1)
        chain.put(2)
        self.happened("a1")
        gate.callback(None)
        self.happened("b1", "a2", "b2", "idle")

    def test_they_wait_for_a_coroutine(self) -> None:
        gate: Deferred[None] = Deferred()

        async def slow(item: int) -> None:
            self.events.append(f"begins {item}")
            await gate
            self.events.append(f"ends {item}")

        chain = self.chain(slow, self.function("b"))
        chain.put(1)
        chain.put(2)
        self.happened("begins 1")
        gate.callback(None)
        self.happened("ends 1", "b1", "begins 2", "ends 2", "b2", "idle")

    def test_they_wait_for_anything_that_can_be_awaited(self) -> None:
        gate: Deferred[None] = Deferred()

        class Awaitable:
            def __await__(self) -> Generator[Any, Any, None]:
                return gate.__await__()

        chain = self.chain(self.function("a", {1: Awaitable()}), self.function("b"))
        chain.put(1)
        chain.put(2)
        self.happened("a1")
        gate.callback(None)
        self.happened("b1", "a2", "b2", "idle")

    def test_a_wait_of_the_last_function_holds_up_the_next_item_too(self) -> None:
        gate: Deferred[None] = Deferred()
        chain = self.chain(self.function("a"), self.function("b", {1: gate}))
        chain.put(1)
        chain.put(2)
        self.happened("a1", "b1")
        gate.callback(None)
        self.happened("a2", "b2", "idle")

    def test_a_deferred_that_has_fired_is_not_waited_for(self) -> None:
        chain = self.chain(self.function("a", {1: succeed(None)}), self.function("b"))
        chain.put(1)
        self.happened("a1", "b1", "idle")

    def test_results_are_not_handed_on(self) -> None:
        chain = self.chain(self.function("a", {1: "result", 2: succeed("result")}), self.function("b"))
        chain.put(1)
        chain.put(2)
        self.happened("a1", "b1", "idle", "a2", "b2", "idle")

    def test_one_deferred_may_be_waited_for_by_several(self) -> None:
        gate: Deferred[None] = Deferred()
        chain = self.chain(self.function("a", {1: gate}), self.function("b", {1: gate}))
        chain.put(1)
        self.happened("a1")
        gate.callback(None)
        self.happened("b1", "idle")

    def test_another_chain_does_not_wait(self) -> None:
        one = self.chain(self.function("a", {1: Deferred()}))
        other = self.chain(self.function("b"))
        one.put(1)
        other.put(1)
        self.happened("a1", "b1", "idle")

    def test_a_function_that_is_added_gets_the_next_item(self) -> None:
        functions = [self.function("a")]
        chain = Chain(functions, self.failed)
        chain.put(1)
        functions.append(self.function("b"))
        chain.put(2)
        self.happened("a1", "a2", "b2")

    def test_a_function_may_add_itself_for_the_next_item(self) -> None:
        functions: list[Callback[int]] = []

        def more(item: int) -> None:
            self.events.append(f"a{item}")
            functions.append(more)

        functions.append(more)
        chain = Chain(functions, self.failed)
        chain.put(1)
        chain.put(2)
        self.happened("a1", "a2", "a2")

    def test_without_functions_items_pass(self) -> None:
        self.chain().put(1)
        self.happened("idle")

    def test_thousands_of_items_after_a_slow_one_need_no_stack(self) -> None:
        gate: Deferred[None] = Deferred()
        seen: list[int] = []

        async def at_once(item: int) -> None:
            seen.append(item)

        chain = self.chain(self.function("a", {0: gate}), lambda item: succeed(None), at_once)
        for item in range(5000):
            chain.put(item)
        gate.callback(None)
        self.assertEqual(seen, list(range(5000)))

    @given(waits=st.lists(st.sampled_from(("no", "fired", "waits", "raises", "fails")), max_size=20))
    @settings(deadline=None)
    def test_each_item_comes_once_and_in_order_whatever_they_wait_for(self, waits: list[str]) -> None:
        began: list[int] = []
        ended: list[int] = []
        gates: list[Deferred[None]] = []
        failures: list[Failure] = []

        def first(item: int) -> Deferred[None] | None:
            began.append(item)
            if waits[item] == "raises":
                raise ValueError(item)
            if waits[item] in ("waits", "fails"):
                gates.append(Deferred())
                return gates[-1]
            return succeed(None) if waits[item] == "fired" else None

        chain: Chain[int] = Chain([first, ended.append], failures.append)
        for item in range(len(waits)):
            chain.put(item)
        while gates:
            if waits[began[-1]] == "fails":
                gates.pop().errback(ValueError(began[-1]))
            else:
                gates.pop().callback(None)
        good = [item for item, wait in enumerate(waits) if wait not in ("raises", "fails")]
        self.assertEqual((began, ended), (list(range(len(waits))), good))
        self.assertEqual(len(failures), len(waits) - len(good))
        self.assertFalse(chain.busy)


class FailureTests(ChainCase):
    def test_an_exception_leaves_out_the_rest_of_that_item_only(self) -> None:
        mistake = ValueError("no")
        chain = self.chain(self.function("a", {1: mistake}), self.function("b"))
        chain.put(1)
        chain.put(2)
        self.happened("a1", "failed", "idle", "a2", "b2", "idle")
        self.assertEqual(self.failures, [mistake])

    def test_a_deferred_that_fails_leaves_out_the_rest_of_its_item_only(self) -> None:
        mistake, later = ValueError("no"), Deferred[None]()
        chain = self.chain(self.function("a", {1: fail(mistake), 2: later}), self.function("b"))
        for item in (1, 2, 3):
            chain.put(item)
        self.happened("a1", "failed", "idle", "a2")
        later.errback(mistake)
        self.happened("failed", "a3", "b3", "idle")
        self.assertEqual(self.failures, [mistake, mistake])

    def test_a_coroutine_that_raises_leaves_out_the_rest_of_its_item_only(self) -> None:
        gate: Deferred[None] = Deferred()

        async def wrong(item: int) -> None:
            if item == 2:
                await gate
            raise ValueError(item)

        chain = self.chain(wrong, self.function("b"))
        chain.put(1)
        chain.put(2)
        self.happened("failed", "idle")
        gate.callback(None)
        self.happened("failed", "idle")
        self.assertEqual([str(failure) for failure in self.failures], ["1", "2"])

    def test_a_wait_that_is_cancelled_is_a_failure_and_the_next_item_comes(self) -> None:
        gate: Deferred[None] = Deferred()
        chain = self.chain(self.function("a", {1: gate}), self.function("b"))
        chain.put(1)
        chain.put(2)
        gate.cancel()
        self.happened("a1", "failed", "a2", "b2", "idle")
        self.assertIsInstance(self.failures[0], CancelledError)

    def test_base_exceptions_that_end_a_program_or_a_task_are_failures_like_any_other(self) -> None:
        for mistake in (SystemExit("no"), asyncio.CancelledError(), GeneratorExit()):
            later: Deferred[None] = Deferred()
            raised = self.function("a", {1: mistake, 2: fail(mistake), 3: later})
            chain = self.chain(raised, self.function("b"))
            for item in (1, 2, 3, 4):
                chain.put(item)
            later.errback(mistake)
            self.happened("a1", "failed", "idle", "a2", "failed", "idle", "a3", "failed", "a4", "b4", "idle")
        self.assertEqual(len(self.failures), 9)

    def test_a_keyboard_interrupt_propagates_and_the_items_that_wait_come_next(self) -> None:
        def interrupted(item: int) -> None:
            self.events.append(f"a{item}")
            if item == 1:
                chain.put(2)
                raise KeyboardInterrupt

        chain = self.chain(interrupted)
        self.assertRaises(KeyboardInterrupt, chain.put, 1)
        self.assertEqual((chain.busy, self.failures), (False, []))
        chain.put(3)
        self.happened("a1", "a2", "a3", "idle")

    def test_stop_receive_data_comes_as_it_was_raised(self) -> None:
        chain = self.chain(self.function("a", {1: StopReceiveData("enough")}), self.function("b"))
        chain.put(1)
        self.happened("a1", "failed", "idle")
        self.assertIsInstance(self.failures[0], StopReceiveData)

    def test_the_failure_has_the_place_where_it_was_raised(self) -> None:
        tracebacks: list[str] = []
        chain: Chain[int] = Chain(
            [self.function("a", {1: ValueError("no")})],
            lambda failure: tracebacks.append(failure.getTraceback()),
        )
        chain.put(1)
        self.assertIn("in called", tracebacks[0])

    def test_nothing_of_a_failure_that_was_handed_on_is_logged(self) -> None:
        later: Deferred[None] = Deferred()
        chain = self.chain(self.function("a", {1: fail(ValueError("no")), 2: later}))
        chain.put(1)
        chain.put(2)
        later.errback(ValueError("no"))
        del later, chain
        self.assertEqual(self.flushLoggedErrors(), [])


class ReentrancyTests(ChainCase):
    def test_an_item_that_a_function_puts_comes_after_the_current_one(self) -> None:
        def feed(item: int) -> None:
            self.events.append(f"a{item} begins")
            if item < 3:
                chain.put(item + 1)
            self.events.append(f"a{item} ends")

        chain = self.chain(feed, self.function("b"))
        chain.put(1)
        self.happened(
            "a1 begins", "a1 ends", "b1", "a2 begins", "a2 ends", "b2", "a3 begins", "a3 ends", "b3", "idle"
        )

    def test_an_item_that_is_put_by_failed_comes_next(self) -> None:
        chain: Chain[int] = Chain([self.function("a", {1: ValueError("no")})], lambda failure: chain.put(2))
        chain.put(1)
        self.happened("a1", "a2")

    def test_an_item_that_is_put_by_idle_is_handled_too(self) -> None:
        left = [2, 3]
        chain: Chain[int] = Chain(
            [self.function("a")], self.failed, lambda: chain.put(left.pop(0)) if left else None
        )
        chain.put(1)
        self.happened("a1", "a2", "a3")

    def test_a_function_that_feeds_its_own_chain_needs_no_stack(self) -> None:
        last = [0]

        def feed(item: int) -> None:
            last[0] = item
            if item < 5000:
                chain.put(item + 1)

        chain = self.chain(feed)
        chain.put(1)
        self.assertEqual(last, [5000])

    def test_it_is_busy_while_a_function_is_at_work_or_waits(self) -> None:
        gate: Deferred[None] = Deferred()
        busy: list[bool] = []

        def look(item: int) -> Deferred[None]:
            busy.append(chain.busy)
            return gate

        chain = self.chain(look)
        self.assertFalse(chain.busy)
        chain.put(1)
        self.assertEqual((busy, chain.busy), ([True], True))
        gate.callback(None)
        self.assertFalse(chain.busy)

    def test_it_is_not_busy_any_more_when_idle_is_called(self) -> None:
        busy: list[bool] = []
        chain: Chain[int] = Chain([self.function("a")], self.failed, lambda: busy.append(chain.busy))
        chain.put(1)
        self.assertEqual(busy, [False])


class CloseTests(ChainCase):
    def closed_by(self, close: Callable[[Chain[int]], None]) -> None:
        """Check that no function is called after the one that was running when *close* closed the chain."""
        gate: Deferred[None] = Deferred()

        def closing(item: int) -> Deferred[None]:
            self.events.append(f"a{item}")
            close(chain)
            return gate

        chain = self.chain(closing, self.function("b"))
        chain.put(1)
        chain.put(2)
        chain.close()
        gate.callback(None)
        chain.put(3)
        self.happened("a1", "idle")

    def test_a_closed_chain_takes_no_items(self) -> None:
        chain = self.chain(self.function("a"))
        chain.close()
        chain.put(1)
        self.happened()

    def test_after_a_close_a_function_that_waits_ends_and_no_other_is_called(self) -> None:
        self.closed_by(lambda chain: None)

    def test_after_a_close_by_a_function_it_ends_and_no_other_is_called(self) -> None:
        self.closed_by(Chain.close)

    def test_after_a_close_by_a_function_that_does_not_wait_no_other_is_called(self) -> None:
        chain = self.chain(lambda item: chain.close(), self.function("b"))
        chain.put(1)
        self.happened("idle")

    def test_after_a_close_by_failed_no_function_is_called(self) -> None:
        gate: Deferred[None] = Deferred()
        chain: Chain[int] = Chain([self.function("a", {1: gate})], lambda failure: chain.close())
        chain.put(1)
        chain.put(2)
        gate.errback(StopReceiveData())
        self.happened("a1")

    def test_a_failure_after_the_close_is_still_reported(self) -> None:
        gate: Deferred[None] = Deferred()
        chain = self.chain(self.function("a", {1: gate}))
        chain.put(1)
        chain.close()
        gate.errback(ValueError("no"))
        self.happened("a1", "failed", "idle")

    def test_closing_twice_is_closing_once(self) -> None:
        chain = self.chain(self.function("a"))
        chain.close()
        chain.close()
        self.happened()


class LimitTests(ChainCase):
    def test_past_the_limit_the_oldest_that_waits_is_dropped_and_counted(self) -> None:
        gate: Deferred[None] = Deferred()
        chain = self.chain(self.function("a", {1: gate}), limit=2)
        for item in (1, 2, 3, 4, 5):
            chain.put(item)
        self.assertEqual(chain.dropped, 2)
        gate.callback(None)
        self.happened("a1", "a4", "a5", "idle")

    def test_up_to_the_limit_nothing_is_dropped_and_the_one_at_work_is_not_counted(self) -> None:
        gate: Deferred[None] = Deferred()
        chain = self.chain(self.function("a", {1: gate}), limit=2)
        for item in (1, 2, 3):
            chain.put(item)
        self.assertEqual(chain.dropped, 0)

    def test_a_limit_that_is_raised_counts_for_those_that_wait_already(self) -> None:
        gate: Deferred[None] = Deferred()
        chain = self.chain(self.function("a", {1: gate}), limit=1)
        chain.put(1)
        chain.put(2)
        chain.limit = 2
        chain.put(3)
        self.assertEqual(chain.dropped, 0)
        gate.callback(None)
        self.happened("a1", "a2", "a3", "idle")

    def test_without_a_limit_nothing_is_dropped(self) -> None:
        chain = self.chain(self.function("a", {0: Deferred()}))
        for item in range(20000):
            chain.put(item)
        self.assertEqual(chain.dropped, 0)

    def test_with_a_limit_of_zero_items_that_would_wait_are_dropped(self) -> None:
        gate: Deferred[None] = Deferred()
        chain = self.chain(self.function("a", {1: gate}), limit=0)
        chain.put(1)
        chain.put(2)
        self.assertEqual(chain.dropped, 1)
        gate.callback(None)
        self.happened("a1", "idle")


class CallableTests(SynchronousTestCase):
    def test_a_value_that_is_not_callable_is_refused_with_its_type(self) -> None:
        for wrong in ("print", None, 7):
            error = self.assertRaises(InvalidRequest, check_callables, (print, wrong))
            self.assertIn(type(wrong).__name__, str(error))

    def test_any_callable_is_accepted(self) -> None:
        check_callables((print, list, [].append, lambda item: None, type("C", (), {"__call__": print})()))

    def test_any_awaitable_is_waited_for_and_nothing_else(self) -> None:
        async def coroutine() -> str:
            return "done"

        class Awaitable:
            def __await__(self) -> Generator[Any, Any, str]:
                return coroutine().__await__()

        for thing in (succeed("done"), coroutine(), Awaitable()):
            waiting = waited_for(thing)
            assert waiting is not None
            self.assertEqual(self.successResultOf(waiting), "done")
        for other in (None, "text", coroutine, Awaitable, iter([1])):
            self.assertIsNone(waited_for(other))

    def test_so_is_a_future_of_asyncio(self) -> None:
        """On its reactor of Twisted, that is what a library gives."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        future: asyncio.Future[str] = loop.create_future()
        waiting = waited_for(future)
        assert waiting is not None
        self.assertNoResult(waiting)
        future.set_result("done")
        loop.run_until_complete(asyncio.sleep(0))
        self.assertEqual(self.successResultOf(waiting), "done")
