"""The events that ``--embedded`` makes by itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Log
from txserf.embedded import EmbeddedCluster
from txserf.errors import Disconnected
from txserf.serf.serf import Serf
from txserf.service.demo import Demo, greeting
from txserf.service.follow import Follower
from txserf.service.lines import as_text


def kind(line: str) -> str:
    return line.split()[0]


class RhythmTests(SynchronousTestCase):
    """The demo on a clock, for a minute."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lines: list[tuple[float, str]] = []
        self.serf: Any = None

    def show(self, stream: str | None = "*") -> None:
        cluster: Any = EmbeddedCluster(self.clock, nodes=3, seed=1)
        serf = Serf(cluster.endpoints(), reactor=self.clock)
        follower = Follower(serf, self.write, as_text, stream=stream, failed=self.failed)
        demo = Demo(
            cluster,
            follower=follower,
            write=self.write,
            format=as_text,
            greeting=greeting(3, None),
            failed=self.failed,
            reactor=self.clock,
        )
        services = [demo, serf, follower]
        for service in services:
            service.startService()
        for _ in range(600):
            self.clock.advance(0.1)
        for service in reversed(services):
            service.stopService()
        self.clock.advance(20.0)
        self.clock.advance(20.0)

    def write(self, line: str) -> None:
        self.lines.append((self.clock.seconds(), line))

    def failed(self, reason: BaseException) -> None:
        raise reason

    def test_two_lines_come_first_then_the_members(self) -> None:
        self.show()
        texts = [line for _, line in self.lines]
        self.assertEqual(texts[:2], list(greeting(3, None)))
        self.assertEqual(list(map(kind, texts[2:5])), ["member"] * 3)

    def test_each_kind_of_record_is_shown_within_five_seconds(self) -> None:
        self.show()
        soon = {kind(line) for at, line in self.lines if at < 4.5}
        wanted = {"member", "user", "query", "ack", "answer"}
        wanted |= {f"member-{each}" for each in ("join", "update", "failed", "leave", "reap")}
        self.assertEqual(wanted - soon, set())

    def test_a_query_stands_before_its_answers(self) -> None:
        self.show()
        kinds = [kind(line) for _, line in self.lines]
        before = [kinds[place - 1] for place, each in enumerate(kinds) if each == "answer"]
        self.assertEqual(set(before), {"query", "ack", "answer"})
        self.assertGreaterEqual(kinds.count("query"), 3)

    def test_answers_to_a_query_that_is_not_shown_are_not_shown(self) -> None:
        self.show("user")
        self.assertEqual({kind(line) for _, line in self.lines[2:]}, {"member", "user"})

    def test_then_something_happens_every_few_seconds(self) -> None:
        self.show()
        times = [at for at, _ in self.lines if 5.0 < at <= 60.0]
        pauses = [after - before for before, after in pairwise(times)]
        self.assertLess(max(pauses), 6.0)
        self.assertGreater(times[-1], 54.0)
        self.assertLess(len(times), 60)

    def test_members_fail_and_come_back_leave_and_join(self) -> None:
        self.show()
        later = [line for at, line in self.lines if at > 5.0]
        for line in ("member-join web-3", "member-failed web-3", "member-leave web-2", "member-join web-2"):
            self.assertGreaterEqual(later.count(line), 2, line)


class GreetingTests(SynchronousTestCase):
    def test_it_names_the_port_to_reach_the_agents_by(self) -> None:
        self.assertIn("1 agent in", greeting(1, None)[0])
        self.assertIn("txserf members -a 127.0.0.1:7373", greeting(1, 7373)[1])

    def test_its_lines_fit_a_terminal(self) -> None:
        for line in (*greeting(1000, None), *greeting(1000, 65535)):
            self.assertLess(len(line), 85, line)


class EndTests(SynchronousTestCase):
    """The demo ends before it has made any event."""

    def failures(self, waiting: Deferred[None]) -> list[BaseException]:
        """Return the errors that the demo reports if its wait for the follower ends with *waiting*."""

        class Waiting:
            def when_following(self) -> Deferred[None]:
                return waiting

        told: list[BaseException] = []
        clock = Clock()
        cluster: Any = EmbeddedCluster(clock, nodes=1, seed=1)
        follower = cast(Follower, Waiting())
        demo = Demo(cluster, follower=follower, write=print, format=as_text, failed=told.append)
        demo.startService()
        demo.stopService()
        clock.advance(20.0)
        return told

    def test_what_it_fails_by_is_told(self) -> None:
        reason = RuntimeError()
        self.assertEqual(self.failures(fail(reason)), [reason])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_an_output_that_is_gone_is_told_without_a_traceback(self) -> None:
        log, reason = Log(self), BrokenPipeError("gone")
        self.assertEqual(self.failures(fail(reason)), [reason])
        self.assertIn("stopped showing: gone", log.texts)

    def test_a_stop_is_no_failure(self) -> None:
        self.assertEqual(self.failures(fail(Disconnected())), [])
        self.assertEqual(self.failures(Deferred()), [])
