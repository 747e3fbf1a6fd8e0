"""Routers in memory: which functions may be handlers, and the use of their return values."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.router_case import RouterCase
from txserf import (
    Disconnected,
    InvalidRequest,
    Member,
    MemberEvent,
    Query,
    QueryEvent,
    Router,
    Serf,
    UserEvent,
)
from txserf.model import Event, Tags


def one(event: Event) -> None: ...


#: For functions, which need none.
NO_CONTEXT: Any = None


class RegistrationTests(SynchronousTestCase):
    def refused(self, text: str, function: Callable[..., object], *arguments: Any) -> None:
        self.assertIn(text, str(self.assertRaises(InvalidRequest, function, *arguments)))

    def test_what_can_t_be_called_is_refused_at_once(self) -> None:
        router = Router()
        for decorate in (router.user_event("a"), router.query(), router.member_event("join"), router.any):
            self.refused("must be callable, not 5", decorate, 5)
        self.assertEqual(router.routes().stream_type, None)

    def test_a_decorator_without_its_parentheses_says_how_it_is_used(self) -> None:
        self.refused("@router.user_event('name')", Router().user_event, one)

    def test_a_generator_function_is_refused_for_it_would_never_run(self) -> None:
        def generator(event: Event) -> Any:
            yield

        async def async_generator(event: Event) -> Any:
            yield

        for function in (generator, async_generator, partial(generator), partial(async_generator)):
            self.refused("generator", Router().user_event("a"), function)

    def test_an_unknown_kind_of_member_event_is_refused_by_name(self) -> None:
        self.refused("'gone' is no kind", Router().member_event, "gone")

    def test_tags_that_match_nothing_are_refused_by_name(self) -> None:
        bad: Any
        for bad, text in (
            ("role=web", "tags must be a mapping, not 'role=web'"),
            ({"role": 5}, "tag 'role' must be str or a predicate, not 5"),
            ({"role": None}, "tag 'role' must be str or a predicate, not None"),
            ({5: "web"}, "a tag must be str, not 5"),
        ):
            self.refused(f"member_event: {text}", partial(Router().member_event, "failed", tags=bad))

    def test_a_predicate_that_is_a_coroutine_function_is_refused_for_it_would_always_match(self) -> None:
        async def later(value: str | None) -> bool:
            return False

        self.refused(
            "tag 'role' must be a predicate that returns at once, not a coroutine function",
            partial(Router().member_event, "failed", tags={"role": later}),
        )

    def test_a_bad_script_spec_is_refused_with_the_types_that_there_are(self) -> None:
        for spec in ("foo=x", "member-gone=x", "user,foo=x", "user: =", "member-join:a=x", "=", "a=b c"):
            self.refused("handler", Router().add_script, spec)
        self.refused("member-join", Router().add_script, "foo=x")
        self.refused("text", Router().add_script, 5)

    def test_bad_limits_are_refused_by_name(self) -> None:
        serf = Serf("127.0.0.1")
        bad: Any
        for name, bad in (
            ("concurrency", 0),
            ("timeout", -1),
            ("timeout", "1"),
            ("drain", 0),
            ("buffer", 1.5),
        ):
            with self.assertRaises(InvalidRequest) as caught:
                Router().bind(serf, **{name: bad})
            self.assertIn(name, str(caught.exception))


class HandlingTests(RouterCase):
    def test_events_are_handled_in_order(self) -> None:
        self.router.user_event()(self.got.append)
        self.bind()
        self.send("a", "b", "c")
        self.assertEqual(self.names(), ["a", "b", "c"])

    def test_a_handler_waits_for_the_one_before_it_and_an_event_too(self) -> None:
        first: list[Deferred[None]] = []

        @self.router.user_event()
        def slow(event: UserEvent) -> Deferred[None]:
            first.append(Deferred())
            return first[-1]

        self.router.user_event()(self.got.append)
        self.bind()
        self.send("a", "b")
        self.assertEqual((len(first), self.names()), (1, []))
        first[0].callback(None)
        self.assertEqual((len(first), self.names()), (2, ["a"]))
        first[1].callback(None)
        self.assertEqual(self.names(), ["a", "b"])

    def test_concurrency_bounds_how_many_events_are_in_work(self) -> None:
        going: list[Deferred[None]] = []

        @self.router.user_event()
        def slow(event: UserEvent) -> Deferred[None]:
            self.got.append(event)
            going.append(Deferred())
            return going[-1]

        service = self.bind(concurrency=2)
        self.send("a", "b", "c", "d")
        self.assertEqual((self.names(), service.working, service.queued), (["a", "b"], 2, 2))
        going[1].callback(None)
        self.assertEqual(self.names(), ["a", "b", "c"])
        for each in (0, 2, 3):
            going[each].callback(None)
        self.assertEqual((service.working, service.queued), (0, 0))

    def test_coroutine_functions_and_fired_deferreds_do(self) -> None:
        @self.router.user_event()
        async def coroutine(event: UserEvent) -> None:
            self.got.append(event)

        @self.router.user_event()
        def fired(event: UserEvent) -> Deferred[None]:
            result: Deferred[None] = Deferred()
            result.callback(None)
            self.got.append(event)
            return result

        self.bind()
        self.send("a", "b")
        self.assertEqual(self.names(), ["a", "a", "b", "b"])

    def test_what_a_handler_of_a_query_returns_is_the_response(self) -> None:
        @self.router.query("bytes")
        def as_bytes(event: QueryEvent) -> bytes:
            return b"\xff"

        @self.router.query("text")
        async def as_text(event: QueryEvent) -> str:
            return "é"

        @self.router.query("nothing")
        def nothing(event: QueryEvent) -> None: ...

        self.bind()
        self.assertEqual(self.ask("bytes").responses, {"n1": b"\xff"})
        self.assertEqual(self.ask("text").responses, {"n1": "é".encode()})
        self.assertEqual(self.ask("nothing").responses, {})

    def test_a_response_that_is_too_large_is_an_error_that_names_the_limit(self) -> None:
        self.router.query("large")(lambda event: b"x" * 2000)
        self.bind()
        self.assertEqual(self.ask("large").responses, {})
        self.assertEqual(len(self.logged("query 'large' (LTime 1): ")), 1)
        self.assertEqual(len(self.logged("response exceeds limit of 1024 bytes")), 1)

    def test_a_response_of_a_wrong_type_is_an_error_that_names_it(self) -> None:
        self.router.query("wrong")(lambda event: 0.31)  # type: ignore[type-var]  # the mistake
        self.bind()
        self.assertEqual(self.ask("wrong").responses, {})
        self.assertEqual(len(self.logged("returned float: an answer is bytes or str, or None")), 1)

    def test_the_first_of_two_responses_counts(self) -> None:
        self.router.query("q")(lambda event: b"1")
        self.router.query("q")(lambda event: b"2")
        self.bind()
        self.assertEqual(self.ask("q").responses, {"n1": b"1"})
        self.assertEqual(len(self.logged("response already sent")), 1)


def member(name: str, **tags: str) -> Member:
    return Member(name=name, tags=Tags(tags))


class TagTests(SynchronousTestCase):
    WEB, DB, BARE = member("n1", role="web", dc="east"), member("n2", role="db"), member("n3")

    def setUp(self) -> None:
        self.router = Router()
        self.got: list[MemberEvent] = []

    def names(self, *members: Member, kind: str = "failed") -> list[list[str]]:
        """Handle an event of these members. Return the names of the members that each handler has got."""
        event = MemberEvent(kind, members)
        for handler in self.router.routes().handlers(event):
            handler.start(event, NO_CONTEXT)
        got, self.got[:] = list(self.got), []
        self.assertEqual({each.kind for each in got} - {kind}, set())
        return [[each.name for each in event.members] for event in got]

    def test_a_handler_gets_the_members_whose_tags_have_these_values(self) -> None:
        self.router.member_event("failed", tags={"role": "web"})(self.got.append)
        self.assertEqual(self.names(self.WEB, self.DB, self.BARE, member("n4", role="web")), [["n1", "n4"]])
        self.assertEqual(self.names(self.WEB), [["n1"]])

    def test_an_event_that_has_none_of_them_has_no_handler(self) -> None:
        self.router.member_event("failed", tags={"role": "web"})(self.got.append)
        for members in (
            (self.DB,),
            (self.DB, self.BARE),
            (member("n1", role="webs"),),
            (member("n1", role=""),),
            (),
        ):
            self.assertEqual(self.router.routes().handlers(MemberEvent("failed", members)), ())
        self.assertEqual(self.router.routes().handlers(MemberEvent("join", (self.WEB,))), ())

    def test_all_tags_have_to_match(self) -> None:
        self.router.member_event(tags={"role": "web", "dc": "east"})(self.got.append)
        self.assertEqual(self.names(member("n5", role="web"), self.WEB, kind="join"), [["n1"]])

    def test_a_predicate_gets_the_value_or_none_where_there_is_no_such_tag(self) -> None:
        seen: list[str | None] = []

        def absent(value: str | None) -> bool:
            seen.append(value)
            return value is None

        self.router.member_event("failed", tags={"role": absent})(self.got.append)
        self.assertEqual(self.names(self.WEB, self.DB, self.BARE), [["n3"]])
        self.assertEqual(seen, ["web", "db", None])

    def test_handlers_of_one_event_each_get_their_own_members(self) -> None:
        self.router.member_event("failed", tags={"role": "db"})(self.got.append)
        self.router.member_event("failed")(self.got.append)
        other = Router()
        other.member_event("failed", "join", tags={"role": "web"})(self.got.append)
        self.router.include(other)
        self.assertEqual(self.names(self.WEB, self.DB), [["n2"], ["n1", "n2"], ["n1"]])

    def test_no_tags_at_all_are_all_members(self) -> None:
        self.router.member_event("failed", tags={})(self.got.append)
        self.assertEqual(self.names(self.WEB, self.BARE), [["n1", "n3"]])

    def test_a_narrowed_event_leaves_the_original_as_it_was(self) -> None:
        self.router.member_event("failed", tags={"role": "db"})(self.got.append)
        event = MemberEvent("failed", (self.WEB, self.DB))
        (handler,) = self.router.routes().handlers(event)
        self.assertIn("append", handler.label)
        handler.start(event, NO_CONTEXT)
        self.assertEqual([each.name for each in event.members], ["n1", "n2"])


class TagHandlingTests(RouterCase):
    def test_only_changes_of_members_with_the_tag_are_handled(self) -> None:
        self.router.member_event("update", tags={"role": "web"})(self.got.append)
        self.bind()
        for role in ("db", "web"):
            self.peer.set_tags({"role": role})
            self.turn(5.0)
        self.assertEqual([[each.tags["role"] for each in event.members] for event in self.got], [["web"]])
        self.assertEqual(len(self.logged("member-update of 'n2' handled")), 1)

    def test_a_predicate_that_raises_is_logged_as_the_handler_s_failure_and_the_next_one_is_called(
        self,
    ) -> None:
        def broken(value: str | None) -> bool:
            raise ValueError("broken predicate")

        self.router.member_event("update", tags={"role": broken})(self.got.append)
        after: list[MemberEvent] = []
        self.router.member_event("update")(after.append)
        self.bind()
        self.peer.set_tags({"role": "web"})
        self.turn(5.0)
        self.assertEqual((self.got, len(after)), ([], 1))
        self.assertEqual(len(self.logged("member-update of 'n2': ?.list.append failed")), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class ReturnTests(RouterCase):
    def test_what_nobody_asked_for_is_named_at_the_first_call_without_its_value(self) -> None:
        def mistaken(event: UserEvent) -> bytes:
            self.got.append(event)
            return b"s3cret"

        self.router.user_event()(mistaken)  # type: ignore[type-var]  # the mistake
        self.bind()
        self.send("a", "b")
        self.assertEqual(self.names(), ["a", "b"])
        dropped = "mistaken returned bytes, which is dropped: only a query is answered"
        self.assertEqual(len(self.logged(dropped)), 1)
        self.assertNotIn("s3cret", self.log.everything)
        self.assertEqual(len(self.logged(": ok")), 2)

    def test_what_can_be_awaited_may_bring_anything(self) -> None:
        @self.router.user_event()
        def ask(event: UserEvent) -> Deferred[list[Member]]:
            return self.serf.members()

        self.bind()
        self.send("a")
        self.assertEqual(self.logged("is dropped"), [])

    def test_a_handler_of_everything_may_return_a_response(self) -> None:
        @self.router.any
        def name(event: Event) -> str:
            return event.type

        @self.router.any  # type: ignore[type-var]  # a mistake
        def number(event: Event) -> int:
            return 5

        self.bind()
        self.send("a")
        self.assertEqual(self.ask("q").responses, {"n1": b"query"})
        self.assertEqual(len(self.logged("number returned int, which is dropped")), 1)
        self.assertEqual(len(self.logged("number: returned int: an answer is bytes or str, or None")), 1)

    def test_mypy_refuses_what_is_no_handler_of_that_event(self) -> None:
        """This is a test for mypy: an ignore that it does not need is an error."""

        def of_user_events(event: UserEvent) -> None: ...
        async def of_events(event: Event) -> None: ...
        def of_nothing() -> None: ...
        def of_queries(event: QueryEvent) -> bytes:
            return b""

        async def of_queries_later(event: QueryEvent) -> str | None:
            return None

        def of_member_events(event: MemberEvent) -> Deferred[None]:
            return Deferred()

        router = self.router
        router.user_event()(of_user_events)
        router.query()(of_queries)
        router.query("a")(of_queries_later)
        router.member_event()(of_member_events)
        for decorate in (router.user_event("a"), router.query(), router.member_event("join"), router.any):
            decorate(of_events)
        router.user_event()(of_queries)  # type: ignore[type-var]
        router.query()(of_user_events)  # type: ignore[type-var]
        router.member_event()(of_user_events)  # type: ignore[type-var]
        router.query()(of_nothing)  # type: ignore[type-var]
        router.any(of_member_events)  # type: ignore[type-var]
        router.member_event("join", tags={"role": "web", "dc": lambda dc: dc != "east"})(of_member_events)
        router.member_event(tags={"role": "web"})(of_user_events)  # type: ignore[type-var]
        wrong: Callable[[QueryEvent], float] = lambda event: 0.31  # noqa: E731
        router.query()(wrong)  # type: ignore[type-var]
        answers: Callable[[UserEvent], str] = lambda event: ""  # noqa: E731
        router.user_event()(answers)  # type: ignore[type-var]
        self.assertEqual(len(router.routes().handlers(UserEvent("a"))), 6)


class AwaitableTests(RouterCase):
    def test_what_can_be_awaited_is_waited_for(self) -> None:
        @self.router.user_event()
        def ask(event: UserEvent) -> Query:
            return self.serf.query("load", timeout=1.0)

        self.router.user_event()(self.got.append)
        service = self.bind()
        self.send("a")
        self.assertEqual((self.names(), service.working), ([], 1))
        self.turn(2.0)
        self.assertEqual((self.names(), service.working), (["a"], 0))

    def test_its_time_has_a_limit_too(self) -> None:
        self.router.user_event()(lambda event: self.serf.query("load", timeout=10.0))
        self.router.user_event()(self.got.append)
        self.bind(timeout=1.0)
        self.send("a")
        self.turn(1.0)
        self.assertEqual(self.names(), ["a"])
        self.assertEqual(len(self.logged("took too long and was cancelled")), 1)

    def test_its_failure_is_the_handler_s(self) -> None:
        self.router.user_event()(lambda event: self.serf.query("load", timeout=10.0))
        self.bind(timeout=None)
        self.send("a")
        self.serf.close()
        self.turn(1.0)
        self.assertEqual(len(self.flushLoggedErrors(Disconnected)), 1)


class FailureTests(RouterCase):
    def test_a_handler_that_raises_is_logged_and_hurts_nobody_else(self) -> None:
        @self.router.user_event()
        def bad(event: UserEvent) -> None:
            raise ZeroDivisionError("oops")

        @self.router.user_event()
        async def bad_later(event: UserEvent) -> None:
            raise ZeroDivisionError("oops")

        @self.router.user_event()
        def leaves(event: UserEvent) -> None:
            sys.exit()

        self.router.user_event()(self.got.append)
        self.bind()
        self.send("a", "b")
        self.assertEqual(self.names(), ["a", "b"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 2)
        self.assertEqual(len(self.logged("user 'a' (LTime 1) handled in ")), 1)
        self.assertTrue(self.logged("user 'a' (LTime 1) handled in ")[0].endswith(": failed"))

    def test_one_that_hangs_is_cancelled_and_hurts_nobody_else(self) -> None:
        cancelled: list[object] = []

        @self.router.user_event()
        def hangs(event: UserEvent) -> Deferred[None]:
            return Deferred(cancelled.append)

        self.router.user_event()(self.got.append)
        self.bind(timeout=3.0)
        self.send("a", "b")
        self.assertEqual(self.names(), [])
        self.turn(3.0)
        self.assertEqual((self.names(), len(cancelled)), (["a"], 1))
        self.turn(3.0)
        self.assertEqual(self.names(), ["a", "b"])
        self.assertEqual(len(self.logged("took too long and was cancelled after 3.0")), 2)
        self.assertEqual(len(self.logged(": timeout")), 2)

    def test_one_that_can_t_be_cancelled_is_given_up(self) -> None:
        stubborn: Deferred[bytes] = Deferred()

        @self.router.query("q")
        async def hangs(event: QueryEvent) -> bytes:
            while True:
                try:
                    return await stubborn
                except Exception:
                    return await Deferred()

        self.router.query()(self.got.append)
        self.bind(timeout=0.5)
        self.assertEqual(self.ask("q").responses, {})
        self.assertEqual(self.names(), ["q"])

    def test_a_payload_is_never_logged(self) -> None:
        @self.router.user_event()
        def bad(event: UserEvent) -> None:
            int(event.payload)

        self.bind()
        self.send("a", payload=b"s3cret")
        (failure,) = self.flushLoggedErrors()
        self.assertNotIn("s3cret", failure.getTraceback())
        self.assertIn("ValueError", failure.getTraceback())
        told = [
            (
                text,
                {name: value for name, value in event.items() if name not in ("log_source", "log_failure")},
            )
            for event, text in zip(self.log.events, self.log.texts, strict=True)
            if event.get("log_namespace", "").startswith("txserf")
        ]
        self.assertEqual(len(told), 4, told)
        self.assertNotIn("s3cret", repr(told))

    def test_names_with_shell_characters_quotes_and_newlines_stay_in_one_line_of_the_log(self) -> None:
        self.router.user_event()(self.got.append)
        self.bind()
        names = ["$(reboot)", "a'b\"c", "x\ny", "nul\0", "; rm -rf /", ""]
        self.send(*names)
        self.assertEqual(self.names(), names)
        handled = self.logged(" handled in ")
        self.assertEqual(len(handled), len(names))
        for line in handled:
            self.assertTrue(line.isprintable(), line)

    def test_an_overfull_queue_loses_the_oldest_and_says_so_once_until_there_is_room(self) -> None:
        going: list[Deferred[None]] = []

        @self.router.user_event()
        def slow(event: UserEvent) -> Deferred[None]:
            self.got.append(event)
            going.append(Deferred())
            return going[-1]

        service = self.bind(buffer=2)
        self.send("a", "b", "c", "d", "e")
        self.assertEqual(service.dropped, 2)
        self.assertEqual(len(self.logged("are dropped")), 1)
        self.assertEqual(len(self.logged("the oldest ones are dropped from user 'b' (LTime 2) on")), 1)
        going[-1].callback(None)
        self.send("f", "g")
        self.assertEqual(len(self.logged("are dropped")), 2)
        while service.working:
            going[-1].callback(None)
        self.assertEqual((self.names(), service.dropped), (["a", "d", "f", "g"], 3))
