"""``/members``, ``/sd`` and ``/coordinates``, requested in memory."""

from __future__ import annotations

import json
import math
from unittest import mock

from twisted.internet.defer import succeed

from tests.service.web_case import WebCase
from txserf.model import Coordinate


class MembersTests(WebCase):
    def test_each_member_has_its_fields_and_they_are_sorted_by_name(self) -> None:
        self.set_tags("n2", role="web")
        self.run_for(3.0)
        got = self.get("/members")
        self.assertEqual((got.status, got.headers["content-type"]), (200, "application/json"))
        self.assertEqual([member["name"] for member in got.json], ["n1", "n2", "n3"])
        member = got.json[1]
        self.assertEqual(
            (member["address"], member["status"], member["tags"]), ("127.0.0.1", "alive", {"role": "web"})
        )
        self.assertEqual(member["port"], self.live.view.members["n2"].port)
        self.assertEqual(member["versions"]["protocol"], {"min": 1, "max": 5, "current": 2})
        self.assertEqual(member["versions"]["delegate"]["max"], 5)

    def test_they_are_filtered_by_status_name_and_tags(self) -> None:
        self.set_tags("n2", role="web")
        self.nodes.fail("n3")
        self.run_for(10.0)
        self.assertEqual(self.names("/members?status=failed"), ["n3"])
        self.assertEqual(self.names("/members?name=n1"), ["n1"])
        self.assertEqual(self.names("/members?tag.role=web"), ["n2"])
        self.assertEqual(self.names("/members?tag.role=web&status=failed"), [])
        self.assertEqual(self.names("/members"), ["n1", "n2", "n3"])

    def test_a_parameter_with_several_values_matches_any_of_them(self) -> None:
        self.set_tags("n1", role="db")
        self.set_tags("n2", role="web")
        self.run_for(3.0)
        self.assertEqual(self.names("/members?name=n3&name=n1"), ["n1", "n3"])
        self.assertEqual(self.names("/members?tag.role=web&tag.role=db"), ["n1", "n2"])
        self.assertEqual(self.names("/members?status=failed&status=alive"), ["n1", "n2", "n3"])

    def test_a_parameter_that_is_not_understood_is_refused_by_name(self) -> None:
        for path, told in {
            "/members?statos=alive": "'statos' (did you mean status?)",
            "/members?tag.=x": "'tag.'",
            "/members?status=alve": "'alve'",
            "/members?x=": "there are status, name, tag.NAME",
            "/health?x=1": "there are none here",
            "/health?x": "'x'",
            "/members?status=alive&tag.role": "'tag.role'",
            "/events?user:deploy": "'user:deploy'",
        }.items():
            got = self.get(path)
            self.assertEqual(got.status, 400, path)
            self.assertIn(told, got.json["error"])

    def test_who_has_them_already_is_told_so_until_one_changes(self) -> None:
        etag = self.get("/members").headers["etag"]
        for known in (etag, f'"other", W/{etag}', "*"):
            got = self.get("/members", If_None_Match=known)
            self.assertEqual((got.status, got.body, got.headers["etag"]), (304, "", etag), known)
        self.assertEqual(self.get("/members", If_None_Match='"other"').status, 200)
        self.set_tags("n2", role="web")
        self.run_for(3.0)
        got = self.get("/members", If_None_Match=etag)
        self.assertEqual((got.status, len(got.json)), (200, 3))
        self.assertNotEqual(got.headers["etag"], etag)

    def test_an_answer_is_made_once_for_each_change(self) -> None:
        view = self.live.view
        selected = mock.Mock(wraps=view.select)
        self.patch(view, "select", selected)
        for _ in range(3):
            self.get("/members")
            self.get("/members?name=n1")
        self.assertEqual(selected.call_count, 2)
        self.set_tags("n2", role="web")
        self.run_for(3.0)
        self.get("/members")
        self.assertEqual(selected.call_count, 3)

    def test_no_more_answers_are_kept_than_there_may_be(self) -> None:
        for number in range(100):
            self.get(f"/members?name={number}")
        pages = self.site.resource._paths[b"/members"].handler.__self__
        self.assertLessEqual(len(pages._kept), 16)

    def test_texts_of_the_cluster_are_valid_json_whatever_they_are(self) -> None:
        tags = {
            "html": "<script>alert(1)</script>\u2028\n",
            "bytes": b"\xff".decode("utf-8", "surrogateescape"),
        }
        self.nodes.add("<script>", tags)
        self.run_for(5.0)
        got = self.get("/members?name=%3Cscript%3E")
        self.assertTrue(got.body.isascii())
        self.assertEqual(got.json[0]["tags"], tags)
        self.assertEqual(self.names("/members?tag.bytes=%ff"), ["<script>"])
        self.assertEqual(
            json.loads(self.get("/sd?port=1&name=%3Cscript%3E").body)[0]["labels"]["__meta_serf_tag_bytes"],
            "\udcff",
        )


class UnreadTests(WebCase):
    starts = False

    def test_before_the_members_are_read_there_is_no_list(self) -> None:
        for path in ("/members", "/sd?port=9100", "/coordinates"):
            got = self.get(path)
            self.assertEqual((got.status, got.headers["retry-after"]), (503, "1"), path)
            self.assertIn("not known yet", got.json["error"])


class ServiceDiscoveryTests(WebCase):
    def test_each_member_is_a_target_with_its_tags_as_labels(self) -> None:
        self.set_tags("n2", **{"role": "web", "a-b.c": "x"})
        self.run_for(3.0)
        got = self.get("/sd?port=9100&tag.role=web")
        self.assertEqual((got.status, got.headers["content-type"]), (200, "application/json"))
        labels = {
            "__meta_serf_name": "n2",
            "__meta_serf_status": "alive",
            "__meta_serf_tag_role": "web",
            "__meta_serf_tag_a_b_c": "x",
        }
        self.assertEqual(got.json, [{"targets": ["127.0.0.1:9100"], "labels": labels}])

    def test_a_tag_may_name_the_port_and_members_without_one_are_left_out(self) -> None:
        for name, port in {"n1": "9100", "n2": "0x1", "n3": "65536"}.items():
            self.set_tags(name, metrics=port)
        self.run_for(3.0)
        got = self.get("/sd?port_tag=metrics")
        self.assertEqual([group["targets"] for group in got.json], [["127.0.0.1:9100"]])

    def test_only_members_that_are_alive_are_targets_unless_others_are_asked_for(self) -> None:
        self.nodes.fail("n3")
        self.run_for(10.0)
        self.assertEqual(len(self.get("/sd?port=1").json), 2)
        labels = self.get("/sd?port=1&status=failed").json[0]["labels"]
        self.assertEqual(labels, {"__meta_serf_name": "n3", "__meta_serf_status": "failed"})

    def test_one_of_the_two_ways_to_name_a_port_is_needed(self) -> None:
        for query in (
            "",
            "?port=1&port_tag=x",
            "?port=0",
            "?port=65536",
            "?port=%2B1",
            "?port=x",
            "?port=1&port=2",
        ):
            self.assertEqual(self.get(f"/sd{query}").status, 400, query)


class CoordinatesTests(WebCase):
    def test_each_member_that_has_a_coordinate_is_there(self) -> None:
        self.run_for(5.0)
        reader = self.follow("/coordinates")
        self.run_for(0.5)
        self.assertEqual([place["name"] for place in reader.got.json], ["n1", "n2", "n3"])
        self.assertEqual(set(reader.got.json[0]), {"name", "vec", "height", "adjustment", "error"})
        self.assertEqual(len(reader.got.json[0]["vec"]), 8)

    def test_one_that_json_can_not_hold_is_left_out(self) -> None:
        odd = {
            "n1": Coordinate((math.nan,)),
            "n2": Coordinate((0.0,), error=math.inf),
            "n3": Coordinate((0.0,)),
        }
        self.patch(self.serf, "coordinate", lambda name: succeed(odd[name]))
        self.assertEqual(self.names("/coordinates"), ["n3"])

    def test_they_are_read_once_for_all_readers(self) -> None:
        asked = mock.Mock(wraps=self.serf.coordinate)
        self.patch(self.serf, "coordinate", asked)
        readers = [self.follow("/coordinates") for _ in range(3)]
        self.run_for(0.5)
        self.assertEqual([reader.got.status for reader in readers], [200] * 3)
        self.assertEqual(sorted(call.args[0] for call in asked.mock_calls), ["n1", "n2", "n3"])

    def test_a_failure_of_the_agent_is_told(self) -> None:
        self.nodes.fail("n1")
        self.nodes.fail("n2")
        reader = self.follow("/coordinates")
        self.run_for(12.0)
        self.assertEqual(reader.got.status, 502)
        self.assertIn("the coordinates can't be read", reader.got.json["error"])

    def test_a_reader_that_leaves_ends_its_waiting(self) -> None:
        self.nodes.agents["n1"].pause()
        reader = self.follow("/coordinates")
        self.run_for(0.5)
        reader.lose()
        self.run_for(0.5)
        self.assertEqual(reader.text, "")
        self.nodes.agents["n1"].resume()
