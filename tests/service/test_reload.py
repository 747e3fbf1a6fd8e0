"""A reload in memory: handlers and limits change, the rest stays, and no event is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.router_case import RouterCase
from txserf import Host, Router, UserEvent
from txserf.service import settings
from txserf.service.reload import Reloader
from txserf.service.settings import ConfigError


class FakeReactor:
    """A reactor whose `callFromThread` calls the function at once."""

    def callFromThread(self, function: Callable[[], object]) -> None:
        function()


class ReloadCase(RouterCase):
    def setUp(self) -> None:
        super().setUp()
        self.file: dict[str, Any] = {}
        self.agents: tuple[Host, ...] | None = None
        self.next_router: Router | ConfigError = self.router

    def read(self) -> tuple[dict[str, Any], Router]:
        if isinstance(self.next_router, ConfigError):
            raise self.next_router
        return settings.merged({}, self.file), self.next_router

    def reloader(self) -> Reloader:
        """Start a service with the router, and return a started reloader for it."""
        self.service = self.bind()
        reloader = Reloader(
            self.service, settings.merged({}, self.file), self.read, FakeReactor(), agents=lambda: self.agents
        )
        reloader.startService()
        self.addCleanup(reloader.stopService)
        return reloader

    def router_of(self, note: Callable[[Any], None], *names: str) -> Router:
        router = Router()
        router.user_event(*names)(note)
        return router


class SignalTests(ReloadCase):
    def test_the_signal_reloads(self) -> None:
        self.reloader()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(len(self.logged("reloaded: ")), 1)

    def test_a_stop_gives_the_signal_back(self) -> None:
        def others(*_: object) -> None: ...

        for before in (others, signal.SIG_IGN, signal.SIG_DFL):
            self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, before))
            reloader = Reloader(self.router.bind(self.serf), {}, self.read, FakeReactor())
            reloader.startService()
            self.assertNotEqual(signal.getsignal(signal.SIGHUP), before)
            reloader.stopService()
            self.assertEqual(signal.getsignal(signal.SIGHUP), before)


class ReloadTests(ReloadCase):
    def test_new_handlers_and_limits_take_effect(self) -> None:
        old: list[UserEvent] = []
        new: list[UserEvent] = []
        self.router.user_event("a")(old.append)
        reloader = self.reloader()
        self.send("a", "b")
        self.next_router = self.router_of(new.append, "b")
        self.file = {"concurrency": 7, "handler-timeout": 2.5}
        reloader.reload()
        self.turn(0.5)
        self.send("a", "b")
        self.assertEqual(([event.name for event in old], [event.name for event in new]), (["a"], ["b"]))
        self.assertEqual((self.service.concurrency, self.service.handler_timeout), (7, 2.5))

    def test_events_that_wait_are_begun_where_more_may_be_at_work(self) -> None:
        @self.router.user_event()
        def hangs(event: UserEvent) -> Deferred[None]:
            self.got.append(event)
            return Deferred()

        reloader = self.reloader()
        self.send("a", "b", "c", "d")
        self.assertEqual(self.names(), ["a"])
        self.file = {"concurrency": 3}
        reloader.reload()
        self.assertEqual(self.names(), ["a", "b", "c"])

    def test_no_limit_is_zero(self) -> None:
        reloader = self.reloader()
        self.file = {"handler-timeout": 0}
        reloader.reload()
        self.assertIsNone(self.service.handler_timeout)

    def test_an_event_under_way_goes_on_with_its_handler_and_those_that_wait_have_the_new_one(self) -> None:
        going: list[Deferred[None]] = []
        new: list[UserEvent] = []

        @self.router.user_event()
        def slow(event: UserEvent) -> Deferred[None]:
            going.append(Deferred())
            return going[-1]

        reloader = self.reloader()
        self.send("first", "second")
        self.next_router = self.router_of(new.append)
        reloader.reload()
        self.turn(0.5)
        self.assertEqual((len(going), new), (1, []))
        going[0].callback(None)
        self.turn(0.5)
        self.assertEqual([event.name for event in new], ["second"])
        self.assertEqual(len(self.logged("'first' (LTime 1) handled in")), 1)

    def test_no_event_is_lost_or_doubled_where_the_stream_changes_among_events(self) -> None:
        self.router.user_event()(self.got.append)
        reloader = self.reloader()
        for number in range(60):
            self.peer.event(f"e{number}", coalesce=False)
            if number % 10 == 5:
                self.next_router = self.router_of(self.got.append)
                if number % 20 == 5:
                    self.next_router.member_event("join")(self.got.append)
                reloader.reload()
            self.turn(0.04)
        self.turn(2.0)
        self.assertEqual(self.names(), [f"e{number}" for number in range(60)])

    def test_it_may_be_while_the_agent_is_away(self) -> None:
        self.router.user_event("a")(self.got.append)
        reloader = self.reloader()
        self.cluster.fail("n1")
        self.turn(1.0)
        self.next_router = self.router_of(self.got.append, "b")
        reloader.reload()
        self.turn(1.0)
        self.cluster.recover("n1")
        self.turn(40.0)
        self.assertIs(self.service.unready, None)
        self.send("a", "b")
        self.assertEqual(self.names(), ["b"])

    def test_many_at_once_leave_the_last_one(self) -> None:
        self.router.user_event("a")(self.got.append)
        reloader = self.reloader()
        for name in "bcdef":
            self.next_router = self.router_of(self.got.append, name)
            reloader.reload()
        self.turn(10.0)
        self.send(*"abcdef")
        self.assertEqual(self.names(), ["f"])
        self.assertIs(self.service.unready, None)

    def test_all_handlers_may_go_and_come_back(self) -> None:
        self.router.user_event()(self.got.append)
        reloader = self.reloader()
        self.next_router = Router()
        reloader.reload()
        self.turn(1.0)
        self.send("nobody")
        self.next_router = self.router_of(self.got.append)
        reloader.reload()
        self.turn(1.0)
        self.send("a")
        self.assertEqual(self.names(), ["a"])

    def test_what_can_not_work_leaves_all_as_it_was(self) -> None:
        self.router.user_event()(self.got.append)
        reloader = self.reloader()
        self.file = {"concurrency": 7}
        self.next_router = ConfigError("txserf.toml: there is no option 'x'")
        reloader.reload()
        self.send("a")
        self.assertEqual((self.names(), self.service.concurrency), (["a"], 1))
        self.assertEqual(
            self.logged("not reloaded"),
            ["not reloaded, all stays as it was: txserf.toml: there is no option 'x'"],
        )

    def test_after_one_that_can_not_work_the_next_one_counts(self) -> None:
        reloader = self.reloader()
        self.next_router = ConfigError("no")
        reloader.reload()
        self.next_router = self.router_of(self.got.append)
        reloader.reload()
        self.turn(0.5)
        self.send("a")
        self.assertEqual(self.names(), ["a"])

    def test_what_needs_a_restart_is_named_without_its_value_and_each_time(self) -> None:
        reloader = self.reloader()
        self.file = {"agent": "serf://x?AuthKey=s3cret", "http": "9100", "concurrency": 2}
        reloader.reload()
        reloader.reload()
        self.assertEqual(self.logged("restart"), ["needs a restart to take effect: agent, http"] * 2)
        self.assertEqual(self.service.concurrency, 2)
        self.assertNotIn("s3cret", self.log.everything)

    def test_the_keys_of_the_agents_are_used_anew(self) -> None:
        reloader = self.reloader()
        factory, before = self.serf.factory, self.serf.factory.hosts
        self.agents = tuple(Host(endpoint=host.endpoint, auth_key="new") for host in before)
        reloader.reload()
        self.assertEqual([host.auth_key for host in factory.hosts], ["new"] * len(before))

    def test_other_agents_need_a_restart(self) -> None:
        for name in ("agent", "auth-key-file"):
            reloader = self.reloader()
            before = self.serf.factory.hosts
            self.file, self.agents = {name: "other"}, (Host("other"),)
            reloader.reload()
            self.assertEqual(self.serf.factory.hosts, before)
            self.file = {}

    def test_the_connection_stays(self) -> None:
        reloader = self.reloader()
        before = self.serf.factory.open_connection
        self.next_router = self.router_of(self.got.append)
        reloader.reload()
        self.turn(1.0)
        self.assertIs(self.serf.factory.open_connection, before)
        self.assertIsNotNone(before)
