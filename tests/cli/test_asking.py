"""The commands that ask once, in memory: the output of each, and its exit codes."""

from __future__ import annotations

import base64
import io
import sys

from twisted.internet.error import ConnectionRefusedError

from tests.cli_case import CliCase, Terminal
from tests.fakes import Endpoint
from txserf.embedded import EmbeddedCluster


class MembersTests(CliCase):
    def setUp(self) -> None:
        super().setUp()
        self.cluster.add("web1", {"role": "web", "zone": "a"})
        self.advance(3)

    def test_text_has_a_line_for_each_member_sorted_by_name(self) -> None:
        lines = self.run_command("members").lines
        self.assertEqual([line.split()[0] for line in lines], ["n1", "n2", "n3", "web1"])
        self.assertEqual(lines[3].split(), ["web1", "127.0.0.1:7949", "alive", "role=web,zone=a"])

    def test_a_table_has_a_heading_and_columns(self) -> None:
        lines = self.run_command("members", "-o", "table").lines
        self.assertEqual(lines[0].split(), ["NAME", "ADDRESS", "STATUS", "TAGS"])
        self.assertEqual({line.index("127.0.0.1") for line in lines[1:]}, {lines[0].index("ADDRESS")})

    def test_a_terminal_gets_a_table(self) -> None:
        running = self.start("members", out=Terminal())
        self.assertEqual(running.code(0.2), 0)
        self.assertIn("STATUS", running.lines[0])

    def test_json_is_a_list_and_jsonl_an_object_a_line(self) -> None:
        found = self.run_command("members", "-o", "json").json
        self.assertEqual([member["name"] for member in found], ["n1", "n2", "n3", "web1"])
        self.assertEqual(found[3]["tags"], {"role": "web", "zone": "a"})
        self.assertEqual(found[3]["versions"]["protocol"], {"min": 1, "max": 5, "current": 2})
        self.assertEqual(len(self.run_command("members", "-o", "jsonl").lines), 4)

    def test_filters_are_those_of_the_agent(self) -> None:
        self.assertEqual(self.run_command("members", "--tag", "role=w.b", "-o", "names").lines, ["web1"])
        self.assertEqual(self.run_command("members", "--name", "n[12]", "-o", "names").lines, ["n1", "n2"])
        self.assertEqual(self.run_command("members", "--status", "failed", "-o", "names").lines, [])

    def test_two_tags_must_both_match(self) -> None:
        argv = ["members", "-o", "names", "--tag", "role=web", "--tag"]
        self.assertEqual(self.run_command(*argv, "zone=a").lines, ["web1"])
        self.assertEqual(self.run_command(*argv, "zone=b").lines, [])

    def test_a_status_that_no_member_can_have_is_2_and_named(self) -> None:
        running = self.start("members", "--status", "dead")
        self.assertEqual(running.code(0.2), 2)
        self.assertIn("'dead' is no status", running.errors)

    def test_a_tag_without_a_value_is_2_without_an_agent(self) -> None:
        self.hosts = [Endpoint(at_once=ConnectionRefusedError())]
        running = self.start("members", "--tag", "role")
        self.assertEqual(running.code(), 2)
        self.assertEqual(running.errors, "txserf: --tag is KEY=VALUE, not 'role'\n")

    def test_a_pattern_that_the_agent_refuses_is_2_and_named(self) -> None:
        for argv, named in (
            (["--name", "("], "--name '('"),
            (["--status", "a)"], "--status 'a)'"),
            (["--tag", "role=["], "--tag '['"),
        ):
            running = self.start("members", *argv)
            self.assertEqual(running.code(1), 2)
            self.assertEqual(running.errors.count("\n"), 1)
            self.assertTrue(running.errors.startswith(f"txserf: {named} is no regular expression"))


class ConnectingTests(CliCase):
    def test_an_agent_that_refuses_the_connection_is_1_and_one_line(self) -> None:
        self.hosts = [Endpoint(at_once=ConnectionRefusedError())]
        running = self.start("members")
        self.assertEqual(running.code(), 1)
        self.assertEqual(running.errors.count("\n"), 1)
        self.assertIn("no host could be reached", running.errors)

    def test_an_agent_that_never_answers_is_1_at_the_timeout(self) -> None:
        self.cluster.agents["n1"].pause()
        self.hosts = self.hosts[:1]
        running = self.start("members", "--timeout", "2")
        self.advance(1.9)
        self.assertFalse(running.has_ended)
        self.assertEqual(running.code(0.2), 1)

    def test_the_next_agent_is_asked_if_the_first_is_gone(self) -> None:
        self.hosts = [Endpoint(at_once=ConnectionRefusedError()), *self.hosts]
        self.assertEqual(self.run_command("members", "-o", "names").lines, ["n1", "n2", "n3"])

    def test_a_missing_key_is_1_and_one_line(self) -> None:
        self.cluster = EmbeddedCluster(self.clock, auth_key="s3cret")
        self.hosts = self.cluster.endpoints()
        running = self.start("members")
        self.assertEqual(running.code(0.2), 1)
        self.assertEqual(running.errors.count("\n"), 1)
        self.assertIn("key", running.errors)

    def test_nothing_of_a_command_is_left_behind(self) -> None:
        self.hosts = [Endpoint(at_once=ConnectionRefusedError())]
        self.start("members")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class EventTests(CliCase):
    def seen(self, *argv: str) -> list[str]:
        """Send an event, and return the lines of a command that follows events."""
        following = self.start("events", "-o", "jsonl", "-n", "1", "--timeout", "5")
        self.advance(0.2)
        self.run_command(*argv)
        self.assertEqual(following.code(1), 0)
        return following.lines

    def test_it_is_sent_with_its_payload(self) -> None:
        (line,) = self.seen("event", "deploy", "v2")
        self.assertIn('"payload": "v2"', line)
        self.assertIn('"coalesce": true', line)

    def test_no_coalesce_is_sent(self) -> None:
        (line,) = self.seen("event", "deploy", "--no-coalesce")
        self.assertIn('"coalesce": false', line)

    def test_it_says_so_in_text_and_in_json(self) -> None:
        self.assertEqual(self.run_command("event", "deploy").lines, ["event deploy was sent"])
        self.assertEqual(self.run_command("event", "deploy", "-o", "json").json, {"event": "deploy"})

    def test_an_event_that_is_too_large_is_refused(self) -> None:
        running = self.start("event", "deploy", "x" * 600)
        self.assertEqual(running.code(0.2), 1)
        self.assertIn("exceeds configured limit of 512 bytes", running.errors)


class NetworkTests(CliCase):
    def test_nearest_begins_with_the_agents_own_node(self) -> None:
        lines = self.run_command("nearest").lines
        self.assertEqual(lines[0].split()[0], "n1")
        self.assertEqual(len(lines), 3)
        self.assertTrue(all(line.endswith(" ms") for line in lines))

    def test_nearest_takes_a_count_and_a_node(self) -> None:
        found = self.run_command("nearest", "n3", "-n", "1", "-o", "json").json
        self.assertEqual([member["name"] for member in found], ["n3"])
        self.assertIsInstance(found[0]["seconds"], float)

    def test_nearest_takes_a_distance_and_filters(self) -> None:
        self.assertEqual(self.run_command("nearest", "--within", "0", "-o", "names").lines, [])
        self.assertEqual(self.run_command("nearest", "--status", "failed", "-o", "names").lines, [])
        self.assertEqual(self.run_command("nearest", "--tag", "role=web", "-o", "names").lines, [])

    def test_rtt_is_between_two_nodes_or_from_the_agents_own(self) -> None:
        given = self.run_command("rtt", "n2", "n1", "-o", "json").json
        self.assertEqual(self.run_command("rtt", "n2", "-o", "json").json, given)
        self.assertEqual((given["node"], given["other"]), ("n2", "n1"))
        shown = f"n2 n1 {given['seconds'] * 1000:.3f} ms"
        self.assertEqual(self.run_command("rtt", "n2", "n1").lines, [shown])

    def test_rtt_of_a_node_that_nobody_knows_is_1(self) -> None:
        running = self.start("rtt", "n1", "nobody")
        self.assertEqual(running.code(0.2), 1)
        self.assertIn("nobody", running.errors)


class AgentTests(CliCase):
    def test_info_has_the_sections_of_the_agent(self) -> None:
        self.assertEqual(self.run_command("info", "-o", "json").json["agent"]["name"], "n1")
        rows = [line.split() for line in self.run_command("info").lines]
        self.assertIn(["serf", "members", "3"], rows)
        self.assertEqual(
            self.run_command("info", "-o", "table").lines[0].split(), ["SECTION", "NAME", "VALUE"]
        )

    def test_join_tells_how_many_were_joined(self) -> None:
        alone = self.cluster.add("alone", join=False)
        running = self.start("join", alone.bind)
        self.assertEqual((running.code(3), running.lines), (0, ["joined 1 of 1"]))
        self.assertIn("alone", self.run_command("members", "-o", "names").lines)

    def test_a_join_that_fails_is_1(self) -> None:
        running = self.start("join", "127.0.0.1:1")
        self.assertEqual(running.code(20), 1)
        self.assertEqual(running.errors.count("\n"), 1)

    def test_leave_makes_the_agent_leave(self) -> None:
        running = self.start("leave")
        self.assertEqual((running.code(5), running.lines), (0, ["the agent has left"]))
        self.hosts = self.cluster.endpoints()[1:]
        self.assertEqual(self.run_command("members", "--status", "left", "-o", "names").lines, ["n1"])

    def test_force_leave_and_prune(self) -> None:
        self.cluster.fail("n2")
        self.cluster.fail("n3")
        self.advance(10)
        self.run_command("force-leave", "n2")
        self.assertEqual(self.run_command("members", "--status", "left", "-o", "names").lines, ["n2"])
        running = self.start("force-leave", "n3", "--prune", "-o", "json")
        self.assertEqual((running.code(3), running.json), (0, {"node": "n3", "pruned": True}))
        self.assertNotIn("n3", self.run_command("members", "-o", "names").lines)


class TagsTests(CliCase):
    def test_they_are_set_shown_and_deleted(self) -> None:
        self.assertEqual(self.run_command("tags").lines, [])
        self.assertEqual(
            self.run_command("tags", "set", "role=web", "zone=a").lines, ["role  web", "zone  a"]
        )
        self.assertEqual(self.run_command("tags", "-o", "json").json, {"role": "web", "zone": "a"})
        self.assertEqual(self.run_command("tags", "delete", "role").lines, ["zone  a"])

    def test_what_is_no_tag_is_2(self) -> None:
        for argv in (["set", "role"], ["set", "=x"], ["set"], ["delete"]):
            running = self.start("tags", *argv)
            self.assertEqual(running.code(0.2), 2, argv)
            self.assertEqual(running.errors.count("\n"), 1)


class KeysTests(CliCase):
    first, second = (base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2))

    def setUp(self) -> None:
        super().setUp()
        self.cluster = EmbeddedCluster(self.clock, nodes=2, seed=1, encrypt_key=self.first)
        self.hosts = self.cluster.endpoints()

    def test_they_are_listed_with_the_number_of_nodes(self) -> None:
        self.assertEqual(self.run_command("keys", after=5).lines, [f"{self.first}  2/2"])
        found = self.run_command("keys", "list", "-o", "json", after=5).json
        self.assertEqual(found, {"keys": {self.first: 2}, "nodes": 2})

    def test_one_is_installed_used_and_the_other_removed(self) -> None:
        for action, key in (("install", self.second), ("use", self.second), ("remove", self.first)):
            self.assertEqual(self.run_command("keys", action, key, after=5).lines, ["2 of 2 nodes did it"])
        self.assertEqual(self.run_command("keys", after=5).lines, [f"{self.second}  2/2"])

    def test_a_failure_of_a_node_is_1_with_its_words_and_without_the_key(self) -> None:
        running = self.start("keys", "remove", self.first)
        self.assertEqual(running.code(5), 1)
        self.assertIn("n2: ", running.errors)
        self.assertEqual(running.errors.count("\n"), 1)
        self.assertNotIn(self.first, running.errors)

    def test_a_key_that_is_not_given_is_2(self) -> None:
        self.assertEqual(self.start("keys", "install").code(0.2), 2)
        self.assertEqual(self.start("keys", "list", self.first).code(0.2), 2)


class StandardInputTests(CliCase):
    def setUp(self) -> None:
        super().setUp()
        self.key = base64.b64encode(bytes(32)).decode()

    def given(self, data: bytes) -> None:
        """Let standard input have these bytes."""
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    def test_a_dash_takes_the_payload_from_there(self) -> None:
        following = self.start("events", "-o", "jsonl", "-n", "1")
        self.advance(0.3)
        self.given(b"v2\n")
        self.run_command("event", "deploy", "-")
        self.assertEqual(following.code(1), 0)
        self.assertIn('"payload": "v2\\n"', following.output)

    def test_a_dash_without_one_is_2_and_a_line(self) -> None:
        self.patch(sys, "stdin", None)
        for argv in (["event", "deploy", "-"], ["keys", "install", "-"]):
            running = self.start(*argv)
            self.assertEqual(running.code(1), 2)
            self.assertEqual(running.errors, "txserf: - is the standard input, which is closed\n")

    def test_a_dash_takes_the_key_from_there(self) -> None:
        self.cluster = EmbeddedCluster(self.clock, encrypt_key=self.key)
        self.hosts = self.cluster.endpoints()
        self.given(self.key.encode() + b"\n")
        self.assertEqual(self.run_command("keys", "install", "-", after=5).lines, ["1 of 1 nodes did it"])
