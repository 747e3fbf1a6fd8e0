"""Records as lines of text, and as JSON objects."""

from __future__ import annotations

import io
import ipaddress
import json
from datetime import datetime
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from txserf.model import Ack, Answer, Gap, LogLine, Member, MemberEvent, QueryEvent, Tags, UserEvent
from txserf.service.lines import as_json, as_text, line_format
from txserf.service.terminal import Look

WEB = Member(name="n1", address=ipaddress.ip_address("10.0.0.1"), port=7946, tags=Tags(role="web"))


def at(address: str | None) -> Member:
    """Make a member with that address."""
    return Member(name="n1", address=None if address is None else ipaddress.ip_address(address), port=7946)


class TextTests(SynchronousTestCase):
    def test_a_member_has_its_address_status_and_tags(self) -> None:
        self.assertEqual(as_text(WEB), "member n1 10.0.0.1:7946 alive role=web")

    def test_an_address_of_ipv6_is_written_in_brackets(self) -> None:
        self.assertEqual(as_text(at("::1")), "member n1 [::1]:7946 alive")

    def test_an_address_of_ipv4_that_came_in_the_form_of_ipv6_is_written_as_ipv4(self) -> None:
        self.assertEqual(as_text(at("::ffff:10.0.0.1")), "member n1 10.0.0.1:7946 alive")

    def test_a_member_without_an_address_has_a_dash(self) -> None:
        self.assertEqual(as_text(at(None)), "member n1 - alive")

    def test_a_user_event_has_its_name_ltime_and_payload(self) -> None:
        self.assertEqual(as_text(UserEvent("deploy", b"v2", 7)), "user deploy ltime=7 v2")

    def test_a_query_has_its_name_ltime_and_payload(self) -> None:
        self.assertEqual(as_text(QueryEvent(1, "load", b"15m", 3)), "query load ltime=3 15m")

    def test_a_status_that_nobody_knows_is_shown_so_that_it_can_not_steer_a_terminal(self) -> None:
        suspect = attrs.evolve(WEB, status="sus\x1bpect")
        self.assertEqual(as_text(suspect), r"member n1 10.0.0.1:7946 sus\x1bpect role=web")
        self.assertEqual(json.loads(as_json(suspect))["status"], "sus\x1bpect")

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


class Screen(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


# Noon in whatever time zone the tests run.
NOON = datetime(2026, 11, 24, 12, 0, 0).timestamp()


class ColumnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.show = line_format("text", Look(Screen(), {"NO_COLOR": "1"}), lambda: NOON)

    def test_time_kind_and_name_stand_below_each_other(self) -> None:
        records: list[Any] = [
            WEB,
            MemberEvent("failed", (WEB,)),
            MemberEvent("join", (WEB, at(None))),
            UserEvent("deploy", b"v2", 7),
            QueryEvent(1, "load", b"", 3),
            Ack("n1"),
            Answer("n1", b"0.31"),
            Gap(1.0, 3.5),
            LogLine.parse("2026/11/24 00:47:08 [INFO] agent: hello"),
        ]
        self.assertEqual(
            list(map(self.show, records)),
            [
                "12:00:00  member         n1        10.0.0.1:7946  alive  role=web",
                "12:00:00  member-failed  n1        10.0.0.1:7946  role=web",
                "12:00:00  member-join    n1 n1",
                "12:00:00  user           deploy    v2  LTime 7",
                "12:00:00  query          load      LTime 3",
                "12:00:00  ack            n1",
                "12:00:00  answer         n1        0.31",
                "12:00:00  gap            2.500 s   events may have been missed",
                "12:00:00  log            INFO      agent: hello",
            ],
        )

    def test_a_long_name_widens_its_column_up_to_a_limit(self) -> None:
        self.show(MemberEvent("join", (WEB, WEB, WEB, WEB)))
        self.show(Answer("n" * 12, b"x"))
        self.assertEqual(self.show(Answer("n1", b"x")), "12:00:00  answer         n1            x")
        self.show(Answer("n" * 99, b"x"))
        self.assertEqual(self.show(Answer("n1", b"x")), f"12:00:00  answer         n1{' ' * 22}  x")

    def test_kind_and_status_have_colours(self) -> None:
        show = line_format("text", Look(Screen(), {"TERM": "xterm"}), lambda: NOON)
        self.assertEqual(
            show(WEB),
            "\x1b[2m12:00:00\x1b[0m  \x1b[1mmember\x1b[0m         n1        10.0.0.1:7946  "
            "\x1b[32malive\x1b[0m  role=web",
        )

    def test_what_could_steer_the_terminal_is_escaped(self) -> None:
        self.assertEqual(
            self.show(UserEvent("a\x1b[2Jb", b"\n\xff")),
            r"12:00:00  user           a\x1b[2Jb  \n\\xff  LTime 0",
        )


class TimeTests(SynchronousTestCase):
    pipe = Look(io.StringIO(), {})

    def test_text_elsewhere_begins_with_the_time_and_its_zone(self) -> None:
        self.assertRegex(
            line_format("text", self.pipe, lambda: NOON)(Ack("n1")),
            r"^2026-11-24T12:00:00[+-]\d{4} ack n1$",
        )

    def test_text_of_a_log_that_has_times_has_none(self) -> None:
        self.assertEqual(line_format("text", self.pipe, None)(Ack("n1")), "ack n1")

    def test_an_object_of_json_has_its_time_in_utc(self) -> None:
        for look in (self.pipe, Look(Screen(), {})):
            record = json.loads(line_format("json", look, lambda: 1.5)(Ack("n1")))
            self.assertEqual(record["time"], "1970-01-01T00:00:01.500000+00:00")

    def test_a_log_line_keeps_the_time_of_its_agent(self) -> None:
        show = line_format("json", self.pipe, lambda: 1.5)
        line = LogLine.parse("2026/11/24 00:47:08 [INFO] agent: hello")
        self.assertEqual(json.loads(show(line))["time"], "2026-11-24T00:47:08")
        self.assertEqual(json.loads(show(LogLine("x")))["time"], "1970-01-01T00:00:01.500000+00:00")


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

    def test_a_member_has_its_address_as_serf_prints_it(self) -> None:
        for address, written in {"::1": "::1", "::ffff:10.0.0.1": "10.0.0.1", None: None}.items():
            self.assertEqual(json.loads(as_json(at(address)))["address"], written, address)

    def test_it_is_one_line_of_ascii_whatever_was_sent(self) -> None:
        line = as_json(UserEvent("a\nb\u2028\udcff", b"\n"))
        self.assertTrue(line.isascii() and "\n" not in line)
