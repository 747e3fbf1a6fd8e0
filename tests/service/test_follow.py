"""The lines that ``twistd txserf`` writes, as text and as JSON."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import MEMBERS, Log, user_event
from tests.serf_case import SerfCase
from txserf.errors import Disconnected
from txserf.model import Gap, LogLine, Member, MemberEvent, QueryEvent, Tags, UserEvent
from txserf.service.follow import Follower, as_json, as_text

WEB = Member(name="n1", address=ipaddress.ip_address("10.0.0.1"), port=7946, tags=Tags(role="web"))


class TextTests(SynchronousTestCase):
    def test_a_member_has_its_address_status_and_tags(self) -> None:
        self.assertEqual(as_text(WEB), "member n1 10.0.0.1:7946 alive role=web")

    def test_a_user_event_has_its_name_ltime_and_payload(self) -> None:
        self.assertEqual(as_text(UserEvent("deploy", b"v2", 7)), "user deploy ltime=7 v2")

    def test_a_query_has_its_name_ltime_and_payload(self) -> None:
        self.assertEqual(as_text(QueryEvent(1, "load", b"15m", 3)), "query load ltime=3 15m")

    def test_a_member_event_names_the_members(self) -> None:
        self.assertEqual(as_text(MemberEvent("failed", (WEB,))), "member-failed n1")

    def test_a_gap_says_how_long_it_was(self) -> None:
        self.assertEqual(as_text(Gap(1.0, 3.5)), "gap of 2.500 s: events may have been missed")

    def test_a_log_line_is_shown_whole(self) -> None:
        line = "2026/11/24 00:47:08 [INFO] agent: Serf agent starting"
        self.assertEqual(as_text(LogLine.parse(line)), f"log {line}")

    def test_what_could_steer_a_terminal_is_escaped(self) -> None:
        self.assertEqual(
            as_text(UserEvent("a\x1b[2Jb", b"\x1b]0;x\x07\xff")), r"user a\x1b[2Jb ltime=0 \x1b]0;x\x07\\xff"
        )
        self.assertNotIn("\n", as_text(UserEvent("a\nb")))


class JSONTests(SynchronousTestCase):
    def test_each_kind_of_record_says_its_type(self) -> None:
        records: list[Any] = [
            WEB,
            UserEvent("a"),
            QueryEvent(1, "a"),
            MemberEvent("join", (WEB,)),
            Gap(0, 1),
            LogLine("x"),
        ]
        types = [json.loads(as_json(record))["type"] for record in records]
        self.assertEqual(types, ["member", "user", "query", "member-join", "gap", "log"])

    def test_a_payload_that_is_not_text_can_be_read_back(self) -> None:
        record = json.loads(as_json(UserEvent("a", b"\xff\x00")))
        self.assertEqual(record["payload"].encode("utf-8", "surrogateescape"), b"\xff\x00")

    def test_a_member_event_has_its_members_in_full(self) -> None:
        (member,) = json.loads(as_json(MemberEvent("update", (WEB,))))["members"]
        self.assertEqual(
            member,
            {"name": "n1", "address": "10.0.0.1", "port": 7946, "status": "alive", "tags": {"role": "web"}},
        )

    def test_it_is_one_line_of_ascii_whatever_was_sent(self) -> None:
        line = as_json(UserEvent("a\nb\u2028\udcff", b"\n"))
        self.assertTrue(line.isascii() and "\n" not in line)


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
        """Open both streams, and say who the members are."""
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
