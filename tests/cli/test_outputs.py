"""Members as lines of /etc/hosts, as Ansible's inventory and as Prometheus' targets."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.cli_case import CliCase
from txserf.cli import outputs
from txserf.model import Member, Tags


def member(name: str, address: str | None = "10.0.0.1", status: str = "alive", **tags: str) -> Member:
    place = None if address is None else ipaddress.ip_address(address)
    return Member(name=name, address=place, port=7946, status=status, tags=Tags(tags))


class HostsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.warnings: list[str] = []

    def hosts(self, *members: Member) -> list[str]:
        return outputs.hosts(members, self.warnings.append)

    def test_each_member_is_a_line(self) -> None:
        lines = self.hosts(member("web-1.example"), member("n2", "fe80::1"))
        self.assertEqual(lines, ["10.0.0.1\tweb-1.example", "fe80::1\tn2"])

    def test_a_name_that_would_add_a_line_of_its_own_is_left_out(self) -> None:
        self.assertEqual(
            self.hosts(member("x\n6.6.6.6 bank.example"), member("a b"), member("#x"), member("")), []
        )
        self.assertEqual(len(self.warnings), 4)
        self.assertNotIn("\n", self.warnings[0])

    def test_a_member_without_an_address_is_left_out(self) -> None:
        self.assertEqual(self.hosts(member("n1", None)), [])
        self.assertEqual(self.warnings, ["n1 has no address"])


class InventoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.warnings: list[str] = []

    def inventory(self, *members: Member) -> dict[str, Any]:
        return outputs.inventory(members, self.warnings.append)

    def test_a_tag_that_ansible_would_run_as_a_template_is_marked_as_unsafe(self) -> None:
        evil = "{{ lookup('pipe', 'id') }}"
        found = self.inventory(member("n1", role="web", evil=evil))
        tags = found["_meta"]["hostvars"]["n1"]["serf_tags"]
        self.assertEqual(tags, {"role": "web", "evil": {"__ansible_unsafe": evil}})

    def test_a_name_that_no_host_can_have_is_left_out(self) -> None:
        found = self.inventory(member("{{ x }}", role="web"), member("n1"))
        self.assertEqual(found["all"]["hosts"], ["n1"])
        self.assertEqual(list(found["_meta"]["hostvars"]), ["n1"])
        self.assertNotIn("tag_role_web", found)
        self.assertEqual(self.warnings, ["'{{ x }}' is no name that a host can have"])

    def test_each_member_is_a_host_with_variables(self) -> None:
        found = self.inventory(member("n1", role="web"), member("n2", None))
        self.assertEqual(found["all"]["hosts"], ["n1", "n2"])
        self.assertEqual(
            found["_meta"]["hostvars"],
            {
                "n1": {"ansible_host": "10.0.0.1", "serf_address": "10.0.0.1:7946", "serf_status": "alive", "serf_tags": {"role": "web"}},
                "n2": {"serf_address": "", "serf_status": "alive", "serf_tags": {}},
            },
        )  # fmt: skip

    def test_there_is_a_group_for_each_status_and_each_tag(self) -> None:
        found = self.inventory(member("n1", role="web"), member("n2", status="failed", role="db"))
        self.assertEqual(found["status_alive"]["hosts"], ["n1"])
        self.assertEqual(found["tag_role_db"]["hosts"], ["n2"])
        groups = {"status_alive", "status_failed", "tag_role_web", "tag_role_db"}
        self.assertEqual(set(found["all"]["children"]), groups)

    def test_a_group_has_only_characters_that_ansible_takes(self) -> None:
        found = self.inventory(member("n1", **{"the-role": "a.b c"}), member("n2", the_role="a_b_c"))
        self.assertEqual(found["tag_the_role_a_b_c"]["hosts"], ["n1", "n2"])

    def test_a_tag_can_not_take_the_place_of_another_part(self) -> None:
        found = self.inventory(member("n1", _meta="x"))
        self.assertIn("hostvars", found["_meta"])
        self.assertIn("tag__meta_x", found)


class TargetsTests(SynchronousTestCase):
    def targets(self, *members: Member, **more: Any) -> list[str]:
        return [target for entry in outputs.targets(members, **more) for target in entry["targets"]]

    def test_the_port_is_that_of_the_gossip_or_the_one_that_was_given(self) -> None:
        self.assertEqual(self.targets(member("n1")), ["10.0.0.1:7946"])
        self.assertEqual(self.targets(member("n1", "fe80::1"), port=9100), ["[fe80::1]:9100"])

    def test_a_tag_may_have_the_port(self) -> None:
        members = [
            member("n1", metrics="9101"),
            member("n2"),
            member("n3", metrics="x"),
            member("n4", metrics="70000"),
        ]
        self.assertEqual(self.targets(*members, port_tag="metrics"), ["10.0.0.1:9101"])
        both = self.targets(*members[:2], port_tag="metrics", port=9100)
        self.assertEqual(both, ["10.0.0.1:9101", "10.0.0.1:9100"])

    def test_labels_have_the_name_the_status_and_the_tags(self) -> None:
        (entry,) = outputs.targets([member("n1", **{"the-role": "web"})])
        expected = {
            "__meta_serf_name": "n1",
            "__meta_serf_status": "alive",
            "__meta_serf_tag_the_role": "web",
        }
        self.assertEqual(entry["labels"], expected)

    def test_a_member_without_an_address_is_left_out(self) -> None:
        self.assertEqual(outputs.targets([member("n1", None)]), [])


class CommandTests(CliCase):
    """The same through ``txserf members``."""

    def test_names_that_could_steer_a_terminal_are_escaped(self) -> None:
        self.cluster.add("\x1b[2J")
        self.advance(3)
        for output in ("text", "table", "names", "jsonl", "json"):
            self.assertNotIn("\x1b", self.run_command("members", "-o", output).output, output)

    def test_hosts(self) -> None:
        self.assertEqual(self.run_command("members", "-o", "hosts").lines[0], "127.0.0.1\tn1")

    def test_a_name_that_is_left_out_is_told(self) -> None:
        self.cluster.add("a b")
        self.advance(3)
        running = self.start("members", "-o", "hosts")
        self.assertEqual(running.code(0.2), 0)
        self.assertEqual(running.errors, "txserf: left out: 'a b' is no name that a host can have\n")

    def test_ansible_as_ansible_calls_it(self) -> None:
        listed = self.run_command("members", "-o", "ansible", "--list").json
        self.assertEqual(listed["all"]["hosts"], ["n1", "n2", "n3"])
        one = self.run_command("members", "-o", "ansible", "--host", "n2").json
        self.assertEqual(one, listed["_meta"]["hostvars"]["n2"])
        self.assertEqual(self.run_command("members", "-o", "ansible", "--host", "nobody").json, {})

    def test_prometheus(self) -> None:
        found = self.run_command("members", "-o", "prometheus", "--port", "9100").json
        self.assertEqual([entry["targets"] for entry in found], [["127.0.0.1:9100"]] * 3)
        self.assertEqual(self.run_command("members", "-o", "prometheus", "--port-tag", "metrics").json, [])

    def test_wait_has_names_and_hosts_too(self) -> None:
        self.assertEqual(self.run_command("wait", "3", "-o", "names").lines, ["n1", "n2", "n3"])
        self.assertEqual(len(self.run_command("wait", "3", "-o", "hosts").lines), 3)
        self.assertEqual(len(json.loads(self.run_command("wait", "3", "-o", "json").output)), 3)
