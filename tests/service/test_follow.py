"""Following a cluster: the lines that are written, their order, and the end."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from tests.fakes import MEMBERS, Log, user_event
from tests.serf_case import SerfCase
from txserf.errors import Disconnected
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
