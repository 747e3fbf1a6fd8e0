"""`twistd txserf` without a process: its options, and how its parts start and stop."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

from twisted.application.service import Application, IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Agent, Endpoint, Log, new_folder
from txserf import AuthenticationError, Host, Router, RpcError, Serf
from txserf.handlers.work import Observer, Outcome
from txserf.model import UserEvent
from txserf.service import making, settings
from txserf.service.follow import Follower
from txserf.service.making import Options, Parts
from txserf.service.readiness import Guard, Observers
from txserf.service.settings import ConfigError


class OptionsCase(SynchronousTestCase):
    def setUp(self) -> None:
        path = list(sys.path)
        self.addCleanup(setattr, sys, "path", path)
        self.folder = new_folder(self)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)

    def options(self, *arguments: str, **twistd: Any) -> Options:
        options: Any = Options()
        options.parent = twistd
        options.parseOptions(arguments)
        parsed: Options = options
        return parsed

    def refusal(self, *arguments: str, **twistd: Any) -> str:
        return str(self.assertRaises(usage.UsageError, self.options, *arguments, **twistd))

    def file(self, text: str, name: str = "c.toml") -> str:
        (self.folder / name).write_text(text)
        return name


class OptionsTests(OptionsCase):
    def test_the_help_has_every_option_of_the_table_and_its_default(self) -> None:
        told = " ".join(str(Options()).split())
        for row in settings.SETTINGS:
            self.assertIn(f"--{row.name}", told)
            self.assertIn(row.help.split(",")[0].split(" or ")[0].split(" '")[0][:30], told)
            if row.default is not None:
                self.assertIn(f"[default: {row.shown_default}]", told)

    def test_without_any_there_are_no_handlers(self) -> None:
        self.assertIsNone(self.options().router)

    def test_handlers_add_up_in_their_order(self) -> None:
        router = self.options("--handler", "user:a=one", "--handler", "two").router
        assert router is not None
        self.assertEqual(router.scripts, ["one", "two"])

    def test_an_unknown_option_is_refused_with_the_nearest_known_one(self) -> None:
        for given, known in {
            "--agents": "agent",
            "--handlers=x": "handler",
            "--log_format": "log-format",
        }.items():
            self.assertTrue(self.refusal(given).endswith(f" (did you mean --{known}?)"), self.refusal(given))
        for given in ("--xyz", "-x", "--agent", "--embedded-quiet=1"):
            self.assertNotIn("did you mean", self.refusal(given))

    def test_each_option_of_the_command_line_wins_over_the_file(self) -> None:
        name = self.file(
            'handler = ["a", "b"]\nconcurrency = 3\nhandler-timeout = 4\nembedded-quiet = true\nembedded = 2'
        )
        options = self.options("--config", name, "--handler", "c", "--concurrency", "5")
        self.assertEqual(options.chosen["handler"], ["c"])
        self.assertEqual([options.chosen[n] for n in ("concurrency", "handler-timeout")], [5, 4])
        self.assertIs(options.chosen["embedded-quiet"], True)

    def test_zero_on_the_command_line_wins_too(self) -> None:
        options = self.options("--config", self.file("handler-timeout = 4"), "--handler-timeout", "0")
        self.assertEqual(options.chosen["handler-timeout"], 0)

    def test_a_file_alone_makes_a_router_which_a_reload_may_fill(self) -> None:
        router = self.options("--config", self.file("")).router
        assert router is not None
        self.assertIsNone(router.routes().stream_type)

    def test_an_application_is_found_where_twistd_is_started(self) -> None:
        self.file("import txserf\nrouter = txserf.Router()\nrouter.any(print)", "txserf_test_local.py")
        self.addCleanup(sys.modules.pop, "txserf_test_local")
        router = self.options("--app", "txserf_test_local:router").router
        assert router is not None
        self.assertEqual(len(router.routes().handlers(UserEvent("x"))), 1)

    def test_without_an_application_nothing_is_imported_from_there(self) -> None:
        self.options("--handler", "true")
        self.assertNotIn(str(self.folder), sys.path)

    def test_files_are_meant_where_twistd_is_started_and_scripts_where_it_works(self) -> None:
        (self.folder / "work").mkdir()
        (self.folder / "work" / "run.sh").touch(mode=0o755)
        options = self.options("--config", self.file('state = "s"\nhandler = ["./run.sh"]'), rundir="work")
        self.assertEqual(options.chosen["state"], str(self.folder / "s"))
        os.chdir("work")
        values, _ = options.read(again=True)
        self.assertEqual(values, options.chosen)
        self.assertIn("./run.sh does not exist", self.refusal("--handler", "./run.sh", rundir="/"))

    def test_what_can_not_work_is_refused_by_name(self) -> None:
        for arguments, told in {
            ("--handler", "nonsense=true"): "--handler 'nonsense=true'",
            ("--app", "txserf_nowhere:x"): "--app txserf_nowhere:x: there is no module",
            ("--agent", "a:0"): "--agent: ",
            ("--stream", "user,member_join"): "--stream 'user,member_join': 'member_join' is no event type",
            ("--monitor", "LOUD"): "--monitor 'LOUD': there are TRACE, ",
            ("--http", "nonsense"): "--http: 'nonsense'",
            ("--state", "nowhere/s", "--handler", "x"): "--state ",
            ("--state", "s"): "--state goes with",
            ("--config", "nowhere.toml"): "nowhere.toml can't be read",
            ("--concurrency", "0"): "--concurrency is a whole number from 1 on, not '0'",
            ("--handler-timeout", "soon"): "--handler-timeout is seconds, 0 or more, not 'soon'",
            ("--handler-timeout", "nan"): "--handler-timeout is seconds",
            ("--log-format", "xml"): "--log-format is text or json",
            ("--format", "xml"): "--format is text or json",
        }.items():
            self.assertIn(told, self.refusal(*arguments))

    def test_what_the_file_asks_to_be_shown_is_refused_by_name_too(self) -> None:
        self.assertIn("--stream 'foo'", self.refusal("--config", self.file('stream = "foo"')))
        self.assertIn("--monitor 'LOUD'", self.refusal("--config", self.file('monitor = "LOUD"')))

    def test_at_a_reload_it_is_refused_as_well(self) -> None:
        for text, told in (('stream = "foo"', "--stream 'foo'"), ('monitor = "LOUD"', "--monitor 'LOUD'")):
            options = self.options("--config", self.file('handler = ["true"]'))
            self.file(f'handler = ["false"]\n{text}')
            self.assertIn(told, str(self.assertRaises(ConfigError, options.read, again=True)))

    def test_a_json_log_goes_where_twistd_writes_its_own(self) -> None:
        for name in ("syslog", "logger"):
            self.assertIn(f"--{name} exclude", self.refusal("--log-format", "json", **{name: "x"}))
        self.options("--log-format", "text", syslog=True)


class MakeServiceTests(OptionsCase):
    def parts(self, *arguments: str) -> list[str]:
        """Return the names of the services that the options make."""
        stdout = sys.stdout
        self.addCleanup(setattr, sys, "stdout", stdout)
        made: Any = making.makeService(self.options(*arguments, nodaemon=1, logfile="x"))
        return [type(part).__name__ for part in made]

    def test_without_handlers_it_follows(self) -> None:
        self.assertEqual(self.parts(), ["Serf", "Follower"])

    def test_with_handlers_it_shows_nothing_unless_asked(self) -> None:
        handling = ["Serf", "RouterService", "Guard", "Reloader"]
        self.assertEqual(self.parts("--handler", "true"), handling)
        for asked in (("--stream", "user"), ("--monitor", "INFO"), ("--stream", "")):
            self.assertEqual(self.parts("--handler", "true", *asked), [*handling, "Follower"])

    def test_a_file_without_handlers_follows_and_waits_for_handlers(self) -> None:
        parts = self.parts("--config", self.file(""))
        self.assertEqual(parts, ["Serf", "RouterService", "Guard", "Reloader", "Follower"])

    def test_the_pages_are_there_until_handlers_are_through(self) -> None:
        parts = self.parts("--handler", "true", "--http", "9100")
        self.assertEqual(parts[:3], ["Serf", "WebService", "RouterService"])

    def test_what_happens_is_told_to_who_guards_and_to_who_counts(self) -> None:
        made: Any = making.makeService(
            self.options("--handler", "x", "--http", "9100", nodaemon=1, logfile="x")
        )
        told = made.services[2].observer._observers
        self.assertEqual([type(each).__name__ for each in told], ["Guard", "Metrics"])

    def test_limits_and_state_reach_the_service(self) -> None:
        options = self.options(
            "--handler",
            "true",
            "--concurrency",
            "4",
            "--handler-timeout",
            "0",
            "--state",
            "s",
            nodaemon=1,
            logfile="x",
        )
        made: Any = making.makeService(options)
        handling = made.services[1]
        self.assertEqual((handling.concurrency, handling.handler_timeout), (4, None))
        self.assertEqual(handling._state, self.folder / "s")

    def written(self, encoding: str, errors: str, *arguments: str) -> bytes:
        """Have an event named in Japanese shown on a standard output of that encoding."""
        stdout = io.BytesIO()
        self.patch(sys, "__stdout__", io.TextIOWrapper(stdout, encoding=encoding, errors=errors))
        self.patch(sys, "stdout", sys.stdout)
        made: Any = making.makeService(self.options(*arguments, nodaemon=1, logfile="x"))
        (follower,) = (part for part in made if isinstance(part, Follower))
        follower._write(follower._format(UserEvent("\u914d\u5099-\xe9", b"v2", ltime=1)))
        return stdout.getvalue()

    def test_what_standard_output_can_not_encode_is_escaped(self) -> None:
        self.assertEqual(self.written("latin-1", "strict"), b"user \\u914d\\u5099-\xe9 ltime=1 v2\n")
        self.assertEqual(self.written("ascii", "surrogateescape"), b"user \\u914d\\u5099-\\xe9 ltime=1 v2\n")
        self.assertEqual(self.written("utf-8", "strict"), "user \u914d\u5099-\xe9 ltime=1 v2\n".encode())

    def test_an_object_of_json_is_ascii_in_any_encoding(self) -> None:
        for encoding in ("latin-1", "ascii", "utf-8"):
            line = self.written(encoding, "strict", "--format", "json")
            self.assertIn(b'"name": "\\u914d\\u5099-\\u00e9"', line)

    def test_another_way_with_what_it_can_not_encode_may_be_asked_for(self) -> None:
        self.assertEqual(self.written("latin-1", "replace"), b"user ??-\xe9 ltime=1 v2\n")

    def test_a_json_log_becomes_that_of_the_application(self) -> None:
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        options = self.options("--log-format", "json", nodaemon=1, logfile="log")
        application = Application("txserf")
        making.makeService(options).setServiceParent(application)
        self.assertTrue(ILogObserver.providedBy(application.getComponent(ILogObserver)))
        self.assertTrue((self.folder / "log").exists())


class Part(Service):
    """Notes its stop, which is over when the test says so."""

    def __init__(self, name: str, stopped: list[str]) -> None:
        self.setName(name)
        self._stopped = stopped
        self.over: Deferred[None] = Deferred()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._stopped.append(str(self.name))
        return self.over


class PartsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stopped: list[str] = []
        self.all = Parts()
        self.parts = [Part(name, self.stopped) for name in ("first", "second")]
        for part in self.parts:
            self.all.add(IService(part))
        self.all.startService()

    def test_each_one_is_stopped_once_those_behind_it_have_stopped(self) -> None:
        first, second = self.parts
        stopping = self.all.stopService()
        self.assertEqual(self.stopped, ["second"])
        second.over.callback(None)
        self.assertEqual(self.stopped, ["second", "first"])
        self.assertNoResult(stopping)
        first.over.callback(None)
        self.successResultOf(stopping)

    def test_one_that_fails_is_logged_and_the_others_are_stopped(self) -> None:
        first, second = self.parts
        second.over.errback(OSError())
        first.over.callback(None)
        self.successResultOf(self.all.stopService())
        self.assertEqual(self.stopped, ["second", "first"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


class WithSerfCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.serf = Serf([self.endpoint], reactor=self.clock)
        self.log = Log(self)
        self.addCleanup(self.close)

    def close(self) -> None:
        self.serf.close()
        self.clock.advance(0)


class GuardTests(WithSerfCase):
    def setUp(self) -> None:
        super().setUp()
        self.serf = Serf([Host(endpoint=self.endpoint, auth_key="k")], reactor=self.clock)
        self.failures: list[BaseException] = []
        self.guard = Guard(self.failures.append)
        router = Router()
        router.user_event()(print)
        handling = self.guard.handling = router.bind(self.serf, observer=self.guard)
        self.serf.startService()
        handling.startService()
        self.addCleanup(handling.stopService)
        self.guard.startService()

    def test_a_key_that_every_host_refuses_ends_it(self) -> None:
        agent = self.endpoint.accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        self.assertEqual([type(failure) for failure in self.failures], [AuthenticationError])
        self.assertIn("no events can be handled: ", "\n".join(self.log.texts))

    def ready(self) -> Agent:
        """Accept a connection, and open the stream on it."""
        agent = self.endpoint.accept_and_greet()
        for _ in range(2):  # the stream, then its confirmation
            for asked in agent.asked():
                agent.reply(asked.seq)
        return agent

    def test_it_says_once_when_no_event_is_missed_any_more(self) -> None:
        agent = self.endpoint.accept_and_greet()
        for _ in range(2):  # the stream, then its confirmation
            self.assertNotIn("ready: ", "\n".join(self.log.texts))
            for asked in agent.asked():
                agent.reply(asked.seq)
        agent.lose()
        self.ready()
        self.assertEqual("\n".join(self.log.texts).count("ready: "), 1)
        self.assertEqual(self.failures, [])

    def test_a_key_that_is_refused_later_ends_it_too(self) -> None:
        self.ready().lose()
        agent = self.ready()
        self.clock.advance(2.0)  # else it flaps, and is not dialled at once
        agent.lose()
        agent = self.endpoint.accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        self.assertEqual([type(failure) for failure in self.failures], [AuthenticationError])

    def test_a_stream_that_is_refused_ends_it(self) -> None:
        agent = self.endpoint.accept_and_greet()
        agent.reply(agent.asked_one("stream").seq, error="Invalid event filter")
        self.assertEqual([type(failure) for failure in self.failures], [RpcError])

    def test_a_stop_before_there_is_a_connection_is_no_failure(self) -> None:
        self.guard.stopService()
        self.serf.close()
        self.clock.advance(0)
        self.assertEqual(self.failures, [])


class Noting(Observer):
    def __init__(self, told: list[tuple[object, ...]]) -> None:
        for name in ("arrived", "duplicate", "resumed", "ended"):
            setattr(self, name, lambda *arguments, name=name: told.append((name, *arguments)))


class ObserversTests(SynchronousTestCase):
    def test_each_one_is_told_everything(self) -> None:
        told: list[tuple[object, ...]] = []
        both = Observers(Noting(told), Noting(told))
        both.arrived("user")
        both.duplicate("user")
        both.resumed()
        both.ended("user", "f", Outcome.OK, 0.5)
        calls = [("arrived", "user"), ("duplicate", "user"), ("resumed",)]
        self.assertEqual(
            told, [call for call in [*calls, ("ended", "user", "f", Outcome.OK, 0.5)] for _ in "12"]
        )


class FollowerHealthTests(WithSerfCase):
    def test_it_tells_why_events_may_be_missed(self) -> None:
        follower = Follower(self.serf, lambda line: None, str)
        self.serf.startService()
        follower.startService()
        self.addCleanup(follower.stopService)
        self.assertEqual(follower.unready, "not connected")
        agent = self.endpoint.accept_and_greet()
        self.assertEqual(follower.unready, "not subscribed")
        for _ in range(3):  # the stream, its confirmation, the members
            for asked in agent.asked():
                agent.reply(asked.seq, {"Members": []} if asked.command == "members" else None)
        self.assertIs(follower.unready, None)
        agent.lose()
        self.assertEqual(follower.unready, "not connected")
