"""The end of handlers: their time limit, the calls of the observer, and the log."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import LogLevel, formatEvent, globalLogPublisher, textFileLogObserver

from tests.fakes import Log
from tests.router_case import RouterCase
from tests.serf_case import SerfCase
from txserf import InvalidRequest, Member, MemberEvent, QueryEvent, Router, RpcError, UserEvent, wire
from txserf.handlers.routes import FunctionHandler
from txserf.handlers.work import Observer, Outcome, describe
from txserf.service import jsonlog


class Noted(Observer):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def arrived(self, type: str) -> None:
        self.calls.append(("arrived", type))

    def duplicate(self, type: str) -> None:
        self.calls.append(("duplicate", type))

    def resumed(self) -> None:
        self.calls.append(("resumed",))

    def ended(self, type: str, handler: str, outcome: Outcome, duration: float) -> None:
        self.calls.append((type, handler.rpartition(".")[2], outcome.value, round(duration, 1)))


class Broken(Exception):
    """An error whose text can't be made."""

    def __str__(self) -> str:
        raise ValueError("no text")


class BadObserver(Observer):
    """Raises in each of its methods."""

    def __init__(self) -> None:
        self.arrived = self.duplicate = self.resumed = self.ended = self.fail  # type: ignore[method-assign,assignment]

    def fail(self, *arguments: object) -> None:
        raise ZeroDivisionError


class EndTests(RouterCase):
    def test_the_observer_hears_of_each_handler_with_its_time(self) -> None:
        @self.router.user_event("a")
        def at_once(event: UserEvent) -> None: ...

        @self.router.user_event("a")
        def later(event: UserEvent) -> Deferred[None]:
            done: Deferred[None] = Deferred()
            if event.ltime == 1:
                self.clock.callLater(0.4, done.callback, None)
            return done

        @self.router.user_event("a")
        def bad(event: UserEvent) -> None:
            raise ZeroDivisionError

        @self.router.user_event("a")
        async def value(event: UserEvent) -> str:
            return "which nobody asked for"

        observer = Noted()
        service = self.bind(observer=observer, timeout=1.0)
        self.send("a")
        self.turn(0.5)
        self.cluster.agents["n1"].drop_connections()
        self.turn(1.0)
        service._take(UserEvent("a", b"", 1))
        self.send("a")
        self.turn(1.0)
        ended = [("user", "bad", "failed", 0), ("user", "value", "ok", 0)]
        self.assertEqual(
            observer.calls,
            [
                ("arrived", "user"), ("user", "at_once", "ok", 0), ("user", "later", "ok", 0.4), *ended,
                ("resumed",), ("duplicate", "user"),
                ("arrived", "user"), ("user", "at_once", "ok", 0), ("user", "later", "timeout", 1.0), *ended,
            ],
        )  # fmt: skip
        self.flushLoggedErrors(ZeroDivisionError)

    def test_an_event_ends_as_the_worst_of_its_handlers(self) -> None:
        @self.router.user_event("slow")
        def slow(event: UserEvent) -> Deferred[None]:
            return Deferred()

        @self.router.user_event()
        def bad(event: UserEvent) -> None:
            raise ZeroDivisionError

        self.router.user_event()(lambda event: None)
        self.bind(timeout=1.0)
        self.send("bad", "slow")
        self.turn(1.0)
        results = [text.rpartition(": ")[2] for text in self.logged(" handled in ")]
        self.assertEqual(results, ["failed", "timeout"])
        self.assertEqual(len(self.logged("user 'slow' (LTime 2) handled in 1.0")), 1)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_each_handler_has_the_whole_of_its_time(self) -> None:
        for _ in range(3):

            @self.router.user_event("a")
            def slow(event: UserEvent) -> Deferred[None]:
                self.got.append(event)
                done: Deferred[None] = Deferred()
                self.clock.callLater(0.8, done.callback, None)
                return done

        self.bind(timeout=1.0)
        self.send("a")
        self.turn(3.0)
        self.assertEqual(len(self.got), 3)
        self.assertEqual(self.logged("took too long"), [])

    def test_a_generator_that_a_handler_returns_is_an_error_for_it_never_runs(self) -> None:
        def generator(event: UserEvent) -> Any:
            yield

        self.router.user_event()(lambda event: generator(event))
        self.bind()
        self.send("a")
        self.assertEqual(len(self.logged("returned a generator, whose body never ran")), 1)

    def test_a_canceller_that_raises_is_logged_and_hurts_nobody_else(self) -> None:
        def canceller(cancelled: Deferred[None]) -> None:
            raise ZeroDivisionError

        self.router.user_event()(lambda event: Deferred(canceller))
        self.router.user_event()(self.got.append)
        self.bind(timeout=1.0)
        self.send("a")
        self.turn(1.0)
        self.assertEqual(self.names(), ["a"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_what_ends_after_it_was_given_up_is_told_once_and_answers_nothing(self) -> None:
        late: Deferred[bytes] = Deferred()

        @self.router.query("q")
        async def stubborn(event: QueryEvent) -> bytes:
            try:
                await Deferred()
            except BaseException:
                return await late
            return b""

        observer = Noted()
        self.bind(observer=observer, timeout=0.5)
        asked = Deferred.fromCoroutine(self.result_of(self.peer.query("q", timeout=2.0)))
        self.turn(1.0)
        late.callback(b"late")
        self.turn(2.0)
        self.assertEqual(self.successResultOf(asked).responses, {})
        self.assertEqual([call[2] for call in observer.calls[1:]], ["timeout"])

    def test_what_a_handler_returns_as_it_is_cancelled_is_no_answer(self) -> None:
        @self.router.query("q")
        async def excuse(event: QueryEvent) -> bytes:
            try:
                await Deferred()
            except CancelledError:
                pass
            return b"not in time"

        self.bind(timeout=0.2)
        self.assertEqual(self.ask("q").responses, {})
        self.assertEqual(len(self.logged("took too long and was cancelled")), 1)

    def test_an_answer_that_comes_behind_a_loss_is_an_error_in_the_log(self) -> None:
        held: Deferred[bytes] = Deferred()
        self.router.query("q")(lambda event: held)
        self.router.user_event()(self.got.append)
        self.bind()
        self.peer.query("q", timeout=10.0)
        self.turn(0.5)
        self.cluster.agents["n1"].drop_connections()
        self.turn(1.0)
        held.callback(b"0.31")
        self.assertEqual(len(self.logged("by which the query came, is gone")), 1)
        self.send("a")
        self.assertEqual(self.names(), ["a"])


class BrokenReplyTests(SerfCase):
    def test_a_broken_reply_to_an_answer_is_an_error_in_the_log_that_says_so(self) -> None:
        log = Log(self)

        def load(event: QueryEvent) -> bytes:
            return b"s3cret"

        router = Router()
        router.query("load")(load)
        service = router.bind(self.serf)
        service.startService()
        self.addCleanup(service.stopService)
        stream = self.asked_one("stream")
        self.agent.reply(stream.seq)
        for asked in self.agent.asked():
            self.agent.reply(asked.seq)
        self.agent.reply(self.asked_one("stats").seq, {})
        query = {"Event": "query", "ID": 1, "LTime": 1, "Name": "load", "Payload": b"s3cret"}
        self.agent.reply(stream.seq, query)
        self.agent.send(wire.pack({"Error": 7, "Seq": self.asked_one("respond").seq}))
        self.agent.finish_closing()
        (line,) = [event for event in log.events if event["log_level"] is LogLevel.error]
        self.assertRegex(
            formatEvent(line),
            r"^query 'load' .*load: not answered: .*a header whose Seq or Error is not one$",
        )
        self.assertNotIn("log_failure", line)
        self.assertNotIn("s3cret", log.everything)


class UsersErrorTests(RouterCase):
    """Errors of users' code do not disturb the service or the log, and show no payload."""

    def test_an_error_that_can_not_be_told_stops_nothing(self) -> None:
        @self.router.user_event("now")
        def now(event: UserEvent) -> None:
            raise Broken

        @self.router.user_event("later")
        async def later(event: UserEvent) -> None:
            wait: Deferred[None] = Deferred()
            self.clock.callLater(0.1, wait.callback, None)
            await wait
            raise Broken

        @self.router.member_event("leave")
        def left(event: MemberEvent) -> None:
            raise Broken

        self.router.any(self.got.append)
        service = self.bind()
        self.send("now", "later", "next")
        self.cluster.leave("n2")
        self.turn(10.0)
        self.assertEqual([getattr(event, "name", "") for event in self.got if not self.joined(event)],
                         ["now", "later", "next", ""])  # fmt: skip
        self.assertEqual(service.working, 0)
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 3)

    def joined(self, event: object) -> bool:
        return isinstance(event, MemberEvent) and event.kind != "leave"

    def test_what_is_no_exception_is_a_failure_like_any_other(self) -> None:
        for mistake in (SystemExit, asyncio.CancelledError):

            def raises(event: UserEvent, mistake: type[BaseException] = mistake) -> None:
                raise mistake

            async def raises_later(event: UserEvent, mistake: type[BaseException] = mistake) -> None:
                wait: Deferred[None] = Deferred()
                self.clock.callLater(0.1, wait.callback, None)
                await wait
                raise mistake

            def failed(event: UserEvent, mistake: type[BaseException] = mistake) -> Deferred[None]:
                return fail(mistake())

            for function in (raises, raises_later, failed):
                self.router.user_event()(function)
        self.router.user_event()(self.got.append)
        service = self.bind()
        self.send("a")
        self.turn(1.0)
        self.assertEqual((self.names(), service.working), (["a"], 0))
        for mistake in (SystemExit, asyncio.CancelledError):
            self.assertEqual(len(self.flushLoggedErrors(mistake)), 3)

    def test_a_keyboard_interrupt_goes_on_up_and_leaves_a_service_that_works_on(self) -> None:
        @self.router.user_event("stop")
        def interrupted(event: UserEvent) -> None:
            raise KeyboardInterrupt

        self.router.user_event()(self.got.append)
        service = self.bind()
        self.assertRaises(KeyboardInterrupt, service._take, UserEvent("stop", b"", 1))
        self.assertEqual((self.names(), service.working), ([], 0))
        service._take(UserEvent("a", b"", 2))
        self.assertEqual(self.names(), ["a"])

    def test_an_observer_that_fails_is_logged_and_stops_nothing(self) -> None:
        @self.router.user_event()
        async def later(event: UserEvent) -> None:
            self.got.append(event)
            wait: Deferred[None] = Deferred()
            self.clock.callLater(0.1, wait.callback, None)
            await wait

        self.router.user_event()(lambda event: None)
        service = self.bind(observer=BadObserver())
        self.send("a")
        self.cluster.agents["n1"].drop_connections()
        self.turn(1.0)
        service._take(self.got[0])
        self.send("b")
        self.assertEqual((self.names(), service.working), (["a", "b"], 0))
        # `arrived` once and `ended` twice for each event, one gap, one duplicate
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 8)
        self.assertEqual(len(self.logged("an observer failed")), 8)

    def test_each_observer_is_told_everything_though_another_one_fails(self) -> None:
        self.router.user_event()(self.got.append)
        noted = Noted(), Noted()
        service = self.bind(observer=noted[0])
        service.observers += [BadObserver(), noted[1]]
        self.send("a")
        self.cluster.agents["n1"].drop_connections()
        self.turn(1.0)
        service._take(self.got[0])
        self.assertEqual(
            noted[1].calls,
            [("arrived", "user"), ("user", "append", "ok", 0), ("resumed",), ("duplicate", "user")],
        )
        self.assertEqual(noted[0].calls, noted[1].calls)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)

    def test_no_text_of_a_users_error_is_logged_where_the_event_has_a_payload(self) -> None:
        errors: list[Callable[[bytes], object]] = [
            lambda payload: int(payload.strip()),
            lambda payload: dict[str, str]()[payload.decode().partition("=")[2]],
            lambda payload: Deferred().addTimeout(1, payload),  # type: ignore[arg-type]
            self.refuse,
        ]

        @self.router.any
        def bad(event: UserEvent | QueryEvent | MemberEvent) -> None:
            if not isinstance(event, MemberEvent):
                errors[len(self.got)](event.payload)

        @self.router.any
        def next(event: UserEvent | QueryEvent | MemberEvent) -> None:
            if not isinstance(event, MemberEvent):
                self.got.append(event)

        self.bind()
        self.send("a", "b", "c", payload=b"key=s3cret\n")
        self.peer.query("d", b"s3cret", timeout=1.0)
        self.turn(2.0)
        failures = self.flushLoggedErrors()
        self.assertEqual(
            [failure.type for failure in failures], [ValueError, KeyError, AttributeError, InvalidRequest]
        )
        for failure in failures:
            self.assertIn("in bad", failure.getTraceback())
        ours = [event for event in self.log.events if event.get("log_namespace", "").startswith("txserf")]
        shown = self.log.everything + "".join(map(jsonlog.line, ours))
        told = [line for line in shown.splitlines() if "s3cret" in line]
        self.assertEqual([line for line in told if "Event(" not in line], [])

    def refuse(self, payload: bytes) -> None:
        raise InvalidRequest(f"not {payload!r}")

    def test_the_text_of_a_canceller_s_error_is_not_logged_either(self) -> None:
        def canceller(cancelled: Deferred[None]) -> None:
            raise ValueError(text)

        text = "s3cret"
        self.router.user_event()(lambda event: Deferred(canceller))
        self.bind(timeout=0.5)
        self.send("a")
        self.turn(1.0)
        (failure,) = self.flushLoggedErrors(ValueError)
        self.assertNotIn("s3cret", failure.getTraceback())

    def test_without_its_text_an_error_that_came_later_has_its_traceback(self) -> None:
        @self.router.user_event()
        async def later(event: UserEvent) -> None:
            wait: Deferred[None] = Deferred()
            self.clock.callLater(0.1, wait.callback, None)
            await wait
            int(event.payload)

        self.bind()
        self.send("a", payload=b"s3cret")
        (failure,) = self.flushLoggedErrors(ValueError)
        self.assertIn("int(event.payload)", failure.getTraceback())
        self.assertNotIn("s3cret", failure.getTraceback())

    def test_the_words_of_an_agent_are_logged(self) -> None:
        @self.router.user_event()
        def refused(event: UserEvent) -> None:
            raise RpcError(command="join", message="no\nroute")

        self.bind()
        self.send("a")
        self.assertEqual(len(self.logged("refused: join: no route")), 1)

    def test_the_text_of_an_error_at_a_member_event_is_logged(self) -> None:
        @self.router.member_event("leave")
        def left(event: MemberEvent) -> None:
            raise ValueError(event.members[0].name)

        self.bind()
        self.cluster.leave("n2")
        self.turn(10.0)
        (failure,) = self.flushLoggedErrors(ValueError)
        self.assertEqual(failure.getErrorMessage(), "n2")

    def test_what_no_encoding_has_breaks_no_log(self) -> None:
        @self.router.any
        def bad(event: Any) -> None:
            raise ValueError("\udcff")

        @self.router.any
        def refused(event: Any) -> None:
            raise RpcError(command="x", message="\udcff")

        self.router.add_script("*=true \udcff")
        file = io.TextIOWrapper(io.BytesIO(), "utf-8")
        observer = textFileLogObserver(file)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        service = self.bind()
        service._take(MemberEvent("leave", (Member(name="\udcff"),)))
        service._take(UserEvent("\udcff", b"", 1))
        self.turn(1.0)
        file.flush()
        text = file.buffer.getvalue().decode()
        self.assertIn("ValueError: \\udcff", text)
        self.assertIn("x: \\udcff", text)
        self.assertIn("true \\udcff", text)
        self.assertEqual([line for line in text.splitlines() if "disabling" in line], [])
        self.flushLoggedErrors()  # a Clock starts no script


class BlockingTests(RouterCase):
    def warnings(self, seconds: float, result: object = None) -> list[str]:
        """Return what the log says of a handler that takes so long before it returns."""
        log = Log(self)

        @self.router.any
        def slow(event: object) -> Any:
            self.clock.rightNow += seconds
            return result

        self.bind()
        self.send("a")
        return [text for text in log.texts if "blocked" in text]

    def test_a_handler_that_blocks_for_long_is_a_warning(self) -> None:
        (told,) = self.warnings(1.5)
        self.assertRegex(told, r"slow has blocked the reactor for 1\.5 s: nothing else ran meanwhile$")

    def test_so_is_one_that_has_done_it_before_it_returns_a_deferred(self) -> None:
        self.assertEqual(len(self.warnings(1.5, succeed(None))), 1)

    def test_one_that_does_not_take_long_is_none(self) -> None:
        self.assertEqual(self.warnings(0.9), [])


class NameTests(RouterCase):
    def test_an_event_is_named_in_one_line_without_its_payload(self) -> None:
        self.assertEqual(describe(UserEvent("a\nb", b"s3cret", 7)), r"user 'a\nb' (LTime 7)")
        self.assertEqual(describe(QueryEvent(3, "q", b"s3cret", 8)), "query 'q' (LTime 8)")
        few = tuple(Member(name=f"n{number}\n") for number in range(2))
        self.assertEqual(describe(MemberEvent("join", few)), r"member-join of 'n0\n', 'n1\n'")
        many = tuple(Member(name=f"n{number}") for number in range(1000))
        self.assertEqual(
            describe(MemberEvent("failed", many)), "member-failed of 'n0', 'n1', 'n2', 'n3', 'n4', 995 more"
        )

    def test_a_function_is_called_by_its_module_and_name_and_anything_else_by_its_class(self) -> None:
        self.assertEqual(FunctionHandler(describe).label, "txserf.handlers.work.describe")
        self.assertEqual(FunctionHandler(self.got.append).label, "?.list.append")

    def test_the_label_of_a_partial_is_that_of_its_function(self) -> None:
        for function in (partial(describe), partial(partial(describe), 1)):
            self.assertEqual(FunctionHandler(function).label, "txserf.handlers.work.describe")
