"""The service made from the options: its parts, their start and their stop."""

from __future__ import annotations

import io
import re
import signal
import sys
from typing import Any

from twisted.application.service import Application, IService, Service
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.options_case import OptionsCase
from txserf.model import UserEvent
from txserf.service import making
from txserf.service.follow import Follower
from txserf.service.live import Live
from txserf.service.making import Parts


class MakeServiceTests(OptionsCase):
    def parts(self, *arguments: str) -> list[str]:
        """Return the names of the services that the options make."""
        stdout = sys.stdout
        self.addCleanup(setattr, sys, "stdout", stdout)
        made: Any = making.makeService(self.options(*arguments, nodaemon=1, logfile="x"))
        return [type(part).__name__ for part in made]

    def test_without_handlers_it_follows(self) -> None:
        self.assertEqual(self.parts(), ["Interrupts", "Serf", "Follower"])

    def test_with_handlers_it_shows_nothing_unless_asked(self) -> None:
        handling = ["Interrupts", "Serf", "RouterService", "Guard", "Reloader"]
        self.assertEqual(self.parts("--handler", "true"), handling)
        for asked in (("--stream", "user"), ("--monitor", "INFO"), ("--stream", "")):
            self.assertEqual(self.parts("--handler", "true", *asked), [*handling, "Follower"])

    def test_a_file_without_handlers_follows_and_waits_for_handlers(self) -> None:
        parts = self.parts("--config", self.file(""))
        self.assertEqual(
            parts, ["Interrupts", "Serf", "RouterService", "Guard", "Templates", "Reloader", "Follower"]
        )

    def test_the_pages_are_there_until_handlers_are_through(self) -> None:
        parts = self.parts("--handler", "true", "--http", "9100")
        self.assertEqual(parts[:4], ["Interrupts", "Serf", "Live", "WebService"])

    def test_the_lines_are_made_of_the_members_and_events_of_the_site(self) -> None:
        made: Any = making.makeService(self.options("--http", "9100", nodaemon=1, logfile="x"))
        _, _, live, _, follower = made
        self.assertIsInstance(live, Live)
        self.assertIs(follower._live, live)

    def test_what_happens_is_told_to_who_guards_and_to_who_counts(self) -> None:
        made: Any = making.makeService(
            self.options("--handler", "x", "--http", "9100", nodaemon=1, logfile="x")
        )
        told = made.services[4].observers
        self.assertEqual([type(each).__name__ for each in told], ["Guard", "Metrics"])

    def test_limits_and_state_reach_the_service(self) -> None:
        options = self.options(
            "--handler",
            "true",
            "--concurrency",
            "4",
            "--handler-timeout",
            "0",
            "--drain-timeout",
            "2.5",
            "--state",
            "s",
            nodaemon=1,
            logfile="x",
        )
        made: Any = making.makeService(options)
        lock, handling = made.services[2:4]
        self.assertEqual(lock.path, self.folder / "s.lock")
        self.assertEqual((handling.concurrency, handling.handler_timeout, handling._drain), (4, None, 2.5))
        self.assertEqual(handling._file.path, self.folder / "s")

    def written(self, encoding: str, errors: str, *arguments: str) -> bytes:
        """Show an event with a Japanese name on a standard output of that encoding."""
        stdout = io.BytesIO()
        self.patch(sys, "__stdout__", io.TextIOWrapper(stdout, encoding=encoding, errors=errors))
        self.patch(sys, "stdout", sys.stdout)
        made: Any = making.makeService(self.options(*arguments, nodaemon=1, logfile="x"))
        (follower,) = (part for part in made if isinstance(part, Follower))
        follower._write(follower._format(UserEvent("\u914d\u5099-\xe9", b"v2", ltime=1)))
        return re.sub(rb"^[-0-9T:+]+ ", b"AT ", stdout.getvalue())

    def test_what_standard_output_can_not_encode_is_escaped(self) -> None:
        self.assertEqual(self.written("latin-1", "strict"), b"AT user \\u914d\\u5099-\xe9 ltime=1 v2\n")
        self.assertEqual(
            self.written("ascii", "surrogateescape"), b"AT user \\u914d\\u5099-\\xe9 ltime=1 v2\n"
        )
        self.assertEqual(self.written("utf-8", "strict"), "AT user \u914d\u5099-\xe9 ltime=1 v2\n".encode())

    def test_an_object_of_json_is_ascii_in_any_encoding(self) -> None:
        for encoding in ("latin-1", "ascii", "utf-8"):
            line = self.written(encoding, "strict", "--format", "json")
            self.assertIn(b'"name": "\\u914d\\u5099-\\u00e9"', line)

    def test_another_way_with_what_it_can_not_encode_may_be_asked_for(self) -> None:
        self.assertEqual(self.written("latin-1", "replace"), b"AT user ??-\xe9 ltime=1 v2\n")

    def test_a_json_log_becomes_that_of_the_application(self) -> None:
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        options = self.options("--log-format", "json", nodaemon=1, logfile="log")
        application = Application("txserf")
        making.makeService(options).setServiceParent(application)
        self.assertTrue(ILogObserver.providedBy(application.getComponent(ILogObserver)))
        self.assertTrue((self.folder / "log").exists())


class TerminalTests(OptionsCase):
    """Standard error is a terminal."""

    def setUp(self) -> None:
        super().setUp()
        self.error = io.StringIO()
        self.patch(self.error, "isatty", lambda: True)
        self.patch(sys, "stderr", self.error)
        self.patch(sys, "stdout", sys.stdout)

    def observer(self, *arguments: str, **twistd: Any) -> Any:
        made: Any = making.makeService(self.options(*arguments, **twistd))
        return made._observer

    def test_without_n_it_says_that_it_goes_to_the_background_and_where_its_log_is(self) -> None:
        making.makeService(self.options())
        self.assertEqual(
            self.error.getvalue(),
            f"txserf goes to the background; its log is {self.folder / 'twistd.log'}. 'twistd -n txserf' stays here.\n",
        )

    def test_so_it_does_for_another_log(self) -> None:
        making.makeService(self.options(logfile="/var/log/x"))
        making.makeService(self.options(syslog=True))
        told = self.error.getvalue()
        self.assertIn("its log is /var/log/x.", told)
        self.assertIn("its log is the system's.", told)

    def test_with_n_it_says_nothing(self) -> None:
        making.makeService(self.options(nodaemon=1))
        self.assertEqual(self.error.getvalue(), "")

    def test_the_log_beside_a_demonstration_has_warnings_and_errors_only(self) -> None:
        observer = self.observer("--embedded", "1", nodaemon=1)()
        log = Logger(observer=observer, namespace="x")
        log.info("all is well")
        log.warn("look out")
        self.assertNotIn("all is well", self.error.getvalue())
        self.assertIn("look out", self.error.getvalue())

    def test_the_log_is_whole_elsewhere(self) -> None:
        self.assertIsNone(self.observer(nodaemon=1))
        self.assertIsNone(self.observer("--embedded", "1", "--embedded-quiet", nodaemon=1))
        for name in ("logfile", "syslog", "logger"):
            self.assertIsNone(self.observer("--embedded", "1", nodaemon=1, **{name: "x"}))
        self.patch(self.error, "isatty", lambda: False)
        self.assertIsNone(self.observer("--embedded", "1", nodaemon=1))


class Part(Service):
    """A service that records its stop. The test ends the stop."""

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
