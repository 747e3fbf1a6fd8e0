"""The commands that follow or wait, in memory."""

from __future__ import annotations

import io
import json

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import Logger

from tests.cli_case import CliCase, Terminal
from tests.fakes import Endpoint, new_folder
from txserf.cli.process import StderrLog
from txserf.model import QueryEvent


def answer(query: QueryEvent) -> bytes:
    return b"0.31"


class QueryTests(CliCase):
    def handle(self, *names: str) -> None:
        for name in names:
            self.cluster.agents[name].handle_query("load", answer)

    def test_answers_are_lines_and_all_ends_with_the_last_one(self) -> None:
        self.handle("n1", "n2", "n3")
        running = self.start("query", "load", "--expect", "all")
        self.assertEqual(running.code(0.5), 0)
        self.assertEqual(
            sorted(line for line in running.lines if "answer" in line),
            [f"answer n{n} 0.31" for n in (1, 2, 3)],
        )
        self.assertIn("ack n2", running.lines)

    def test_one_that_is_missing_is_3_and_named(self) -> None:
        self.handle("n1", "n3")
        running = self.start("query", "load", "--expect", "all")
        self.assertEqual(running.code(10), 3)
        self.assertEqual(running.errors, "txserf: query load: 2 answers came; missing: n2\n")

    def test_it_ends_with_the_nth_answer(self) -> None:
        self.handle("n1", "n2", "n3")
        running = self.start("query", "load", "--expect", "2", "-o", "names")
        self.assertEqual(running.code(0.5), 0)
        self.assertEqual(len(running.lines), 2)

    def test_fewer_answers_than_expected_are_3_with_those_that_are_missing(self) -> None:
        self.handle("n1", "n3")
        running = self.start("query", "load", "--expect", "3")
        self.assertEqual(running.code(10), 3)
        self.assertEqual(running.errors, "txserf: query load: 2 of 3 answers came; missing: n2\n")

    def test_a_query_that_nobody_answers_is_3_with_those_that_have_it(self) -> None:
        running = self.start("query", "load")
        self.assertEqual(running.code(10), 3)
        self.assertEqual(running.errors, "txserf: query load: 0 answers came; missing: n1, n2, n3\n")

    def test_no_answer_is_enough_if_none_is_expected(self) -> None:
        self.assertEqual(self.start("query", "load", "--expect", "0").code(10), 0)

    def test_without_a_number_any_answer_is_enough(self) -> None:
        self.handle("n2")
        self.assertEqual(self.start("query", "load").code(10), 0)

    def test_json_is_one_document_with_all_of_it(self) -> None:
        self.handle("n1", "n3")
        running = self.start("query", "load", "--expect", "all", "-o", "json")
        self.assertEqual(running.code(10), 3)
        self.assertEqual(
            running.json,
            {"acks": ["n1", "n2", "n3"], "answers": {"n1": "0.31", "n3": "0.31"}, "missing": ["n2"]},
        )

    def test_jsonl_is_an_object_for_each_ack_and_answer(self) -> None:
        self.handle("n1", "n2", "n3")
        running = self.start("query", "load", "--expect", "all", "-o", "jsonl")
        self.assertEqual(running.code(0.5), 0)
        kinds = [json.loads(line)["type"] for line in running.lines]
        self.assertEqual(kinds.count("answer"), 3)

    def test_no_acks_and_only_some_nodes(self) -> None:
        self.handle("n1", "n2", "n3")
        argv = ["query", "load", "--no-ack", "--node", "n1", "--node", "n2", "--expect", "all"]
        running = self.start(*argv)
        self.assertEqual(running.code(0.5), 0)
        self.assertEqual(sorted(running.lines), ["answer n1 0.31", "answer n2 0.31"])

    def test_only_members_with_a_tag(self) -> None:
        self.cluster.add("web1", {"role": "web"}).handle_query("load", answer)
        self.handle("n1")
        self.advance(3)
        running = self.start("query", "load", "--tag", "role=web", "--expect", "all", "-o", "names")
        self.assertEqual((running.code(0.5), running.lines), (0, ["web1"]))

    def test_nobody_that_is_asked_is_3(self) -> None:
        running = self.start("query", "load", "--tag", "role=typo", "--expect", "all")
        self.assertEqual(running.code(10), 3)

    def test_a_pattern_that_no_node_can_read_is_2_and_named(self) -> None:
        for more in ((), ("--expect", "all")):
            running = self.start("query", "load", "--tag", "role=[", *more)
            self.assertEqual(running.code(20), 2)
            self.assertTrue(running.errors.startswith("txserf: --tag '[' is no regular expression"))

    def test_the_timeout_is_that_of_the_query(self) -> None:
        running = self.start("query", "load", "--timeout", "1")
        self.advance(0.8)
        self.assertFalse(running.has_ended)
        self.assertEqual(running.code(0.5), 3)

    def test_a_number_that_is_none_is_2_without_an_agent(self) -> None:
        self.hosts = [Endpoint(at_once=ConnectionRefusedError())]
        running = self.start("query", "load", "--expect", "most")
        self.assertEqual(running.code(), 2)
        self.assertIn("--expect", running.errors)


class EventsTests(CliCase):
    def test_events_are_lines_with_their_time(self) -> None:
        following = self.start("events", "user:deploy")
        self.advance(0.3)
        self.run_command("event", "other")
        self.run_command("event", "deploy", "v2")
        self.advance(1)
        self.assertEqual([line.split(" ", 1)[1] for line in following.lines], ["user deploy ltime=2 v2"])
        self.assertFalse(following.has_ended)
        self.failureResultOf(following.cancel(), CancelledError)

    def test_a_count_ends_it(self) -> None:
        following = self.start("events", "-n", "2", "-o", "jsonl")
        self.advance(0.3)
        self.run_command("event", "a")
        self.assertFalse(following.has_ended)
        self.run_command("event", "b")
        self.assertEqual(following.code(1), 0)
        self.assertEqual([json.loads(line)["name"] for line in following.lines], ["a", "b"])

    def test_fewer_in_time_are_3(self) -> None:
        following = self.start("events", "-n", "1", "--timeout", "2")
        self.assertEqual(following.code(2.2), 3)
        self.assertEqual(following.errors, "txserf: events: 0 of 1 came\n")

    def test_without_a_count_the_timeout_is_its_end(self) -> None:
        self.assertEqual(self.start("events", "--timeout", "2").code(2.2), 0)

    def test_it_goes_on_with_the_next_agent_and_shows_the_gap(self) -> None:
        following = self.start("events", "user", "-o", "jsonl")
        self.advance(0.3)
        self.cluster.fail("n1")
        self.advance(3)
        self.hosts = self.cluster.endpoints()[1:]
        self.run_command("event", "deploy")
        self.advance(1)
        self.assertEqual([json.loads(line)["type"] for line in following.lines], ["gap", "user"])
        self.failureResultOf(following.cancel(), CancelledError)

    def test_a_gap_does_not_count_as_an_event(self) -> None:
        following = self.start("events", "user", "-n", "1")
        self.advance(0.3)
        self.cluster.agents["n1"].drop_connections()
        self.advance(3)
        self.assertEqual(len(following.lines), 1)
        self.assertFalse(following.has_ended)
        self.failureResultOf(following.cancel(), CancelledError)

    def test_a_filter_that_no_agent_has_is_2(self) -> None:
        self.hosts = [Endpoint(at_once=ConnectionRefusedError())]
        running = self.start("events", "nonsense")
        self.assertEqual(running.code(), 2)
        self.assertIn("nonsense", running.errors)

    def test_no_agent_is_1(self) -> None:
        self.hosts = [Endpoint(at_once=ConnectionRefusedError())]
        self.assertEqual(self.start("events").code(), 1)

    def test_an_agent_that_does_not_answer_is_1_at_the_timeout(self) -> None:
        self.hosts = [Endpoint()]
        self.assertEqual(self.start("events", "--timeout", "1").code(1), 1)

    def test_control_characters_of_strangers_do_not_reach_a_terminal(self) -> None:
        following = self.start("events", "-n", "1", out=Terminal())
        self.advance(0.3)
        self.run_command("event", "a", "\x1b]0;owned\x07")
        self.assertEqual(following.code(1), 0)
        self.assertNotIn("\x1b]", following.output)
        self.assertIn("\\x1b]0;owned\\x07", following.output)


class MonitorTests(CliCase):
    def test_text_is_the_agents_own_line(self) -> None:
        running = self.start("monitor", "--timeout", "1")
        self.assertEqual(running.code(1.2), 0)
        self.assertRegex(running.lines[0], r"^\d{4}/\d\d/\d\d .* \[INFO\] agent: Serf agent starting$")

    def test_json_has_its_parts(self) -> None:
        running = self.start("monitor", "info", "--timeout", "1", "-o", "jsonl")
        self.assertEqual(running.code(1.2), 0)
        self.assertEqual(json.loads(running.lines[0])["level"], "INFO")

    def test_a_level_that_no_agent_has_is_2(self) -> None:
        running = self.start("monitor", "loud")
        self.assertEqual(running.code(), 2)
        self.assertIn("'loud'", running.errors)


class WaitTests(CliCase):
    def test_enough_members_are_shown(self) -> None:
        self.assertEqual(self.run_command("wait", "3", "-o", "names").lines, ["n1", "n2", "n3"])

    def test_it_waits_for_a_member_that_joins(self) -> None:
        running = self.start("wait", "1", "--tag", "role=db")
        self.advance(5)
        self.assertFalse(running.has_ended)
        self.cluster.add("db1", {"role": "db"})
        self.assertEqual(running.code(5), 0)
        self.assertEqual(running.lines[0].split()[0], "db1")

    def test_too_few_in_time_are_3_with_those_that_are_there_and_those_that_are_not(self) -> None:
        self.cluster.fail("n3")
        self.advance(10)
        running = self.start("wait", "3", "--timeout", "5")
        self.assertEqual(running.code(5.2), 3)
        expected = "txserf: wait: 2 of 3 members are there (n1, n2); missing: n3 (failed)\n"
        self.assertEqual(running.errors, expected)

    def test_it_waits_for_an_agent_that_is_not_there_yet(self) -> None:
        endpoint = Endpoint(at_once=ConnectionRefusedError())
        self.hosts = [endpoint]
        running = self.start("wait", "1", "--timeout", "5")
        self.advance(3)
        self.assertFalse(running.has_ended)
        self.assertEqual(running.code(2.2), 1)
        self.assertIn("not connected", running.errors)

    def test_an_agent_that_says_nothing_is_1_and_told(self) -> None:
        self.cluster.agents["n1"].pause()
        self.hosts = self.hosts[:1]
        for argv in (["wait", "1"], ["events"]):
            running = self.start(*argv, "--timeout", "2")
            self.assertEqual(running.code(2.2), 1)
            self.assertEqual(running.errors, "txserf: no agent answered within 2 s: not connected\n")

    def test_a_pattern_that_is_none_is_2(self) -> None:
        running = self.start("wait", "1", "--tag", "role=(")
        self.assertEqual(running.code(), 2)
        self.assertIn("--tag", running.errors)


class WatchTests(CliCase):
    def test_members_come_first_and_then_a_line_a_change(self) -> None:
        running = self.start("members", "--watch")
        self.advance(0.5)
        self.assertEqual(
            [line.split()[:2] for line in running.lines], [["member", f"n{n}"] for n in (1, 2, 3)]
        )
        self.cluster.add("web1", {"role": "web"})
        self.advance(3)
        self.cluster.fail("n3")
        self.advance(10)
        shown = [line.split() for line in running.lines[3:]]
        self.assertEqual([words[:2] for words in shown], [["added", "web1"], ["changed", "n3"]])
        self.assertIn("failed", shown[1])
        self.failureResultOf(running.cancel(), CancelledError)

    def test_only_those_that_are_selected_are_followed(self) -> None:
        running = self.start("members", "--watch", "--status", "alive", "--name", "n.", "-o", "jsonl")
        self.cluster.add("web1", {"role": "web"})
        self.advance(3)
        self.cluster.fail("n3")
        self.advance(10)
        records = [json.loads(line) for line in running.lines]
        self.assertEqual(
            [(record["type"], record["name"], record["status"]) for record in records[3:]],
            [("removed", "n3", "failed")],
        )
        self.failureResultOf(running.cancel(), CancelledError)

    def test_a_terminal_has_the_table_drawn_again(self) -> None:
        self.patch(__import__("os"), "environ", {"TERM": "xterm", "NO_COLOR": "1"})
        running = self.start("members", "--watch", out=Terminal())
        self.advance(0.5)
        self.assertIn("3 alive", running.output)
        drawn = len(running.output)
        self.advance(2)
        self.assertEqual(len(running.output), drawn, "nothing has changed")
        self.cluster.fail("n3")
        self.advance(10)
        last = running.output.rpartition("\x1b[H")[2]
        self.assertIn("2 alive, 1 failed", last)
        self.assertIn("STATUS", last)
        self.failureResultOf(running.cancel(), CancelledError)

    def test_a_terminal_is_told_that_the_agent_is_away(self) -> None:
        self.patch(__import__("os"), "environ", {"TERM": "xterm", "NO_COLOR": "1"})
        self.hosts = self.hosts[:1]
        running = self.start("members", "--watch", out=Terminal())
        self.advance(0.5)
        self.cluster.fail("n1")
        self.advance(2)
        self.assertIn("not connected", running.output.rpartition("\x1b[H")[2])
        self.failureResultOf(running.cancel(), CancelledError)

    def test_no_warning_stands_in_the_middle_of_the_table(self) -> None:
        self.patch(__import__("os"), "environ", {"TERM": "xterm", "NO_COLOR": "1"})
        for argv, told in ((["-o", "text"], "txserf: lost n1\n"), ([], "")):
            stream = io.StringIO()
            log = StderrLog(self.clock, stream)
            running = self.start("members", "--watch", *argv, out=Terminal(), log=log)
            self.advance(0.5)
            Logger(namespace="txserf.test", observer=log).warn("lost n1")
            self.advance(0.5)
            self.assertEqual(stream.getvalue(), told)
            self.failureResultOf(running.cancel(), CancelledError)

    def test_a_dumb_terminal_gets_lines(self) -> None:
        self.patch(__import__("os"), "environ", {"TERM": "dumb"})
        running = self.start("members", "--watch", "--timeout", "1", out=Terminal())
        self.assertEqual(running.code(1.2), 0)
        self.assertNotIn("\x1b", running.output)
        self.assertEqual(len(running.lines), 3)

    def test_an_inventory_can_not_be_followed(self) -> None:
        running = self.start("members", "--watch", "-o", "ansible")
        self.assertEqual(running.code(), 2)


class TemplateTests(CliCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = new_folder(self)
        self.source, self.destination = self.folder / "hosts.j2", self.folder / "hosts"
        self.source.write_text("{% for each in select() %}\n{{ each.name }}\n{% endfor %}\n")

    def files(self, *more: str) -> list[str]:
        return ["template", str(self.source), str(self.destination), *more]

    def test_it_writes_the_file_once(self) -> None:
        self.run_command(*self.files("--mode", "0600"))
        self.assertEqual(self.destination.read_text().split(), ["n1", "n2", "n3"])
        self.assertEqual(self.destination.stat().st_mode & 0o777, 0o600)

    def test_it_keeps_the_file_with_watch(self) -> None:
        running = self.start(*self.files("--watch"))
        self.advance(2)
        self.cluster.add("web1")
        self.advance(5)
        self.assertIn("web1", self.destination.read_text())
        self.failureResultOf(running.cancel(), CancelledError)

    def test_a_template_that_fails_is_1_with_its_line(self) -> None:
        self.source.write_text("fine\n{{ nothing.there }}\n")
        running = self.start(*self.files())
        self.assertEqual(running.code(1), 1)
        self.assertIn("line 2", running.errors)
        self.assertEqual(running.errors.count("\n"), 1)
        self.assertFalse(self.destination.exists())

    def test_one_that_is_not_there_is_2(self) -> None:
        self.source.unlink()
        self.assertEqual(self.start(*self.files()).code(), 2)

    def test_a_file_that_can_not_be_written_is_1(self) -> None:
        self.destination.mkdir()
        running = self.start(*self.files())
        self.assertEqual(running.code(1), 1)
        self.assertIn("can't be written", running.errors)

    def test_a_mode_that_is_none_is_2(self) -> None:
        self.assertEqual(self.start(*self.files("--mode", "rw")).code(), 2)
