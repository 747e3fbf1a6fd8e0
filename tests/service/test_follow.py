"""Following a cluster: the lines that are written, their order, and the end."""

from __future__ import annotations

from unittest import mock

from twisted.internet.defer import CancelledError

from tests.fakes import MEMBERS, Log, user_event
from tests.serf_case import SerfCase
from tests.service.web_case import WebCase
from txserf.errors import Disconnected, RpcError
from txserf.service.follow import Follower
from txserf.service.lines import as_text


class FollowerTests(SerfCase):
    def setUp(self) -> None:
        super().setUp()
        self.lines: list[str] = []
        self.broken: BaseException | None = None
        self.failures: list[BaseException] = []
        self.log = Log(self)
        self.follower = Follower(
            self.serf, self.write, as_text, stream="user", monitor="INFO", failed=self.failures.append
        )
        self.follower.startService()
        self.stream, self.monitor = self.agent.asked()

    def tearDown(self) -> None:
        self.follower.stopService()
        super().tearDown()

    def write(self, line: str) -> None:
        if self.broken is not None:
            raise self.broken
        self.lines.append(line)

    def answer(self) -> None:
        """Answer the requests for both streams and for the members."""
        self.agent.reply(self.stream.seq)
        self.agent.reply(self.monitor.seq)
        for _ in range(2):  # the confirmations, then the members
            for asked in self.agent.asked():
                self.agent.reply(asked.seq, MEMBERS if asked.command == "members" else None)

    def test_members_come_first_then_events_and_log_lines(self) -> None:
        self.answer()
        self.agent.reply(self.stream.seq, user_event("deploy"))
        self.agent.reply(self.monitor.seq, {"Log": "hello"})
        self.assertEqual(
            [line.split()[:2] for line in self.lines],
            [["member", "n1"], ["user", "deploy"], ["log", "hello"]],
        )

    def test_an_output_that_is_gone_ends_it_whatever_was_to_be_written(self) -> None:
        self.broken = BrokenPipeError(32, "Broken pipe")
        self.answer()
        self.assertEqual(self.failures, [self.broken])
        self.agent.reply(self.monitor.seq, {"Log": "hello"})
        self.assertEqual(self.failures, [self.broken] * 2)
        self.assertIn("stopped following: [Errno 32] Broken pipe", self.log.texts)

    def test_so_it_does_behind_the_members(self) -> None:
        self.answer()
        self.broken = BrokenPipeError(32, "Broken pipe")
        self.agent.reply(self.stream.seq, user_event("deploy"))
        self.assertEqual(self.failures, [self.broken])

    def test_a_mistake_is_logged_with_its_place(self) -> None:
        self.broken = KeyError("x")
        self.answer()
        self.assertEqual(self.failures, [self.broken])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_stop_is_no_failure_and_is_told_to_who_waits(self) -> None:
        waiting, cancelled = self.follower.when_following(), self.follower.when_following()
        ended: list[object] = []
        waiting.addErrback(ended.append)
        waiting.addCallback(lambda _: cancelled.cancel())
        self.follower.stopService()
        self.assertEqual(len(ended), 1)
        self.failureResultOf(cancelled, CancelledError)
        self.failureResultOf(self.follower.when_following(), Disconnected)
        self.assertEqual(self.failures, [])

    def test_who_waits_is_told_when_the_members_are_written(self) -> None:
        waiting = self.follower.when_following()
        self.assertNoResult(waiting)
        self.answer()
        self.successResultOf(waiting)
        self.successResultOf(self.follower.when_following())


class LiveTests(WebCase):
    """The lines beside a site, made of the members and events that the site has."""

    starts = False

    def setUp(self) -> None:
        super().setUp()
        self.lines: list[str] = []
        self.failures: list[BaseException] = []
        self.streams = mock.Mock(wraps=self.serf.stream)
        self.readings = mock.Mock(wraps=self.serf.members)
        self.patch(self.serf, "stream", self.streams)
        self.patch(self.serf, "members", self.readings)

    def begin(self, stream: str | None = "*") -> Follower:
        follower = Follower(
            self.serf,
            lambda line: self.lines.append(" ".join(line.split()[:2])),
            as_text,
            stream=stream,
            live=self.live,
            failed=self.failures.append,
        )
        self.live.startService()
        follower.startService()
        self.addCleanup(follower.stopService)
        return follower

    def send(self, *names: str) -> None:
        for name in names:
            done = self.serf.event(name, coalesce=False)
            self.run_for(0.2)
            self.successResultOf(done)

    def test_members_come_first_and_then_events_of_the_one_stream(self) -> None:
        follower = self.begin()
        self.assertIsNotNone(follower.unready)
        early = self.serf.event("early", coalesce=False)
        self.run_for(0.5)
        self.successResultOf(early)
        self.send("deploy")
        self.assertEqual(self.lines[:3], ["member n1", "member n2", "member n3"])
        self.assertEqual(self.lines[-1], "user deploy")
        self.successResultOf(follower.when_following())
        self.assertIsNone(follower.unready)
        self.assertEqual((self.streams.call_count, self.readings.call_count), (1, 1))

    def test_a_filter_chooses_among_them_and_gaps_pass(self) -> None:
        self.begin("user:deploy,member-failed")
        self.run_for(0.5)
        self.send("other", "deploy")
        self.nodes.agents["n1"].drop_connections()
        self.run_for(2.0)
        self.nodes.fail("n3")
        self.run_for(10.0)
        self.assertEqual(self.lines[3:], ["user deploy", "gap of", "member-failed n3"])

    def test_without_a_filter_the_members_alone_are_shown(self) -> None:
        follower = self.begin(None)
        self.run_for(0.5)
        self.send("deploy")
        self.assertEqual(len(self.lines), 3)
        self.successResultOf(follower.when_following())

    def test_an_error_that_ends_the_stream_ends_it(self) -> None:
        self.begin()
        self.run_for(0.5)
        error = RpcError(command="stream", message="no")
        self.live._following._fail(error)
        self.run_for(0.1)
        self.assertEqual([str(each) for each in self.failures], [str(error)])

    def test_the_end_of_the_site_is_no_failure(self) -> None:
        self.begin()
        self.run_for(0.5)
        self.live.stopService()
        self.run_for(0.5)
        self.assertEqual((self.failures, self.live.listeners), ([], {}))
