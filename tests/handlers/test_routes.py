"""The handlers of an event, and the event stream that they need."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txserf import MemberEvent, QueryEvent, Router, UserEvent
from txserf.handlers.routes import Routes
from txserf.model import Event


def one(event: Event) -> None: ...
def two(event: Event) -> None: ...


class MatchingTests(SynchronousTestCase):
    def matched(self, router: Router, event: Event) -> list[object]:
        return [handler.label.rpartition(".")[2] for handler in router.routes().handlers(event)]

    def test_a_name_matches_itself_only(self) -> None:
        router = Router()

        @router.user_event("deploy")
        def deploy(event: UserEvent) -> None: ...

        self.assertEqual(self.matched(router, UserEvent("deploy")), ["deploy"])
        for other in (
            UserEvent("Deploy"),
            UserEvent("deploy2"),
            QueryEvent(1, "deploy"),
            MemberEvent("join", ()),
        ):
            self.assertEqual(self.matched(router, other), [])

    def test_wildcards_match_names_with_anything_in_them(self) -> None:
        router = Router()

        @router.user_event("web-*", "a?c", "[xy]")
        def some(event: UserEvent) -> None: ...

        for name in ("web-", "web-1\n2", "web-'$(x)\0", "abc", "y"):
            self.assertEqual(self.matched(router, UserEvent(name)), ["some"], name)
        for name in ("Web-1", "ac", "z", "xy"):
            self.assertEqual(self.matched(router, UserEvent(name)), [], name)

    def test_all_handlers_of_an_event_are_in_the_order_of_their_adding(self) -> None:
        router, more = Router(), Router()
        router.user_event("b")(one)
        router.any(two)
        router.add_script("user:b=three")
        more.user_event()(one)
        router.include(more)
        self.assertEqual(self.matched(router, UserEvent("b")), ["one", "two", "three", "one"])
        self.assertEqual(self.matched(router, MemberEvent("reap", ())), ["two"])

    def test_a_function_comes_once_though_several_of_its_names_match(self) -> None:
        router = Router()
        router.user_event("web-*", "web-1", "web-1")(one)
        router.user_event("web-1")(two)
        router.user_event("*")(one)  # added once more
        router.add_script("user:web-1,user=three")  # as Serf's agent runs it
        self.assertEqual(self.matched(router, UserEvent("web-1")), ["one", "two", "one", "three", "three"])

    def test_member_events_match_by_their_kind(self) -> None:
        router = Router()
        router.member_event("join", "failed")(one)
        router.member_event()(two)
        self.assertEqual(self.matched(router, MemberEvent("failed", ())), ["one", "two"])
        self.assertEqual(self.matched(router, MemberEvent("leave", ())), ["two"])
        router.member_event("reap", "reap")(one)
        self.assertEqual(self.matched(router, MemberEvent("reap", ())), ["two", "one"])

    def test_names_in_a_script_s_filter_have_no_wildcards(self) -> None:
        router = Router()
        router.add_script("user:a*=true")
        self.assertEqual(self.matched(router, UserEvent("ab")), [])
        self.assertEqual(self.matched(router, UserEvent("a*")), ["true"])

    def test_a_stream_is_asked_for_what_has_handlers_and_for_nothing_else(self) -> None:
        for specs, type in {
            (): None,
            ("user:b=x", "query:a=x", "member-join,user:a=x"): "member-join,query:a,user:a,user:b",
            ("user:b=x", "user=x", "query:q=x"): "query:q,user",
            ("user:b=x", "x"): "*",
        }.items():
            router = Router()
            for spec in specs:
                router.add_script(spec)
            self.assertEqual(router.routes().stream_type, type)
        router = Router()
        router.user_event("b", "c")(one)
        router.query("load")(one)
        self.assertEqual(router.routes().stream_type, "query:load,user:b,user:c")
        router = Router()
        router.user_event("a,b", "c")(one)
        router.query("load*")(one)
        # A filter of Serf can have neither a comma nor a wildcard in a name.
        self.assertEqual(router.routes().stream_type, "query,user")

    def test_names_from_the_network_do_not_fill_the_memory(self) -> None:
        router = Router()
        router.user_event()(one)
        routes: Routes = router.routes()
        for number in range(3000):
            routes.handlers(UserEvent(str(number)))
        self.assertLess(len(routes._found), 1100)
