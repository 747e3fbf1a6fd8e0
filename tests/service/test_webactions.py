"""The actions over HTTP, requested in memory: who may act, and how acts are answered."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import LogLevel, formatEvent

from tests.fakes import Log
from tests.service.web_case import Got, Reader, WebCase
from txserf.model import QueryEvent, UserEvent
from txserf.serf.query import Query
from txserf.service.website import Site

TOKEN = "t0ken-s3cret"
ACTS = {"/event": {"name": "deploy"}, "/query": {"name": "load"}, "/force-leave": {"node": "n3"}}


class ActionCase(WebCase):
    def make_site(self, **options: Any) -> Site:
        return super().make_site(token=TOKEN.encode, **options)

    def post(self, path: str, fields: object, **headers: str) -> Reader:
        """Send an act with the token, and with those headers instead of the usual ones; an empty one is left out."""
        body = fields if isinstance(fields, str) else json.dumps(fields)
        usual = {
            "Authorization": f"Bearer {TOKEN}",
            "Content_Type": "application/json",
            "Host": "localhost:9100",
        }
        sent = {name: value for name, value in {**usual, **headers}.items() if value}
        reader = self.connect_reader()
        reader.request(path, "POST", body, **sent)
        return reader

    def act(self, path: str, fields: object, **headers: str) -> Got:
        """Send an act, and return its answer."""
        reader = self.post(path, fields, **headers)
        self.run_for(0.5)
        return reader.got


class EventTests(ActionCase):
    def test_an_event_is_sent_to_the_cluster(self) -> None:
        events: list[UserEvent] = []
        self.serf.stream("user").add_callback(events.append)  # type: ignore[arg-type]  # of user events alone
        self.run_for(0.5)
        got = self.act("/event", {"name": "deploy", "payload": "v2\udcff", "coalesce": False})
        self.assertEqual((got.status, got.json), (200, {}))
        (event,) = events
        self.assertEqual((event.name, event.payload, event.coalesce), ("deploy", b"v2\xff", False))

    def test_the_refusal_of_the_agent_is_told(self) -> None:
        got = self.act("/event", {"name": "deploy", "payload": "x" * 1000})
        self.assertEqual(got.status, 502)
        self.assertIn("limit", got.json["error"])

    def test_fields_that_can_not_be_are_refused_by_name(self) -> None:
        for path, fields, told in (
            ("/event", {"payload": "x"}, "'name'"),
            ("/event", {"name": 1}, "name"),
            ("/event", {"name": "x", "nam": 1}, "'nam' (did you mean name?)"),
            ("/event", {"name": "x", "payload": 1}, "payload"),
            ("/event", {"name": "x", "payload": "\ud800"}, "payload"),
            ("/event", {"name": "x", "payload": "x" * 2000}, "1024"),
            ("/event", {"name": "\ud800"}, ""),
            ("/event", {"name": "x", "coalesce": "no"}, "coalesce"),
            ("/event", [], "object"),
            ("/event", "{", "JSON"),
            ("/event", "[" * 60_000, "JSON"),
            ("/event", "\xff", "JSON"),
            ("/query", {"name": "x", "timeout": -1}, "timeout"),
            ("/query", '{"name": "x", "timeout": NaN}', "timeout"),
            ("/query", {"name": "x", "nodes": "n1"}, "nodes"),
            ("/query", {"name": "x", "tags": []}, "tags"),
            ("/query", {"name": "x", "expect": "some"}, "expect"),
            ("/query", {"name": "x", "relay_factor": 1000}, "relay_factor"),
            ("/force-leave", {"node": ""}, "node"),
        ):
            got = self.act(path, fields)
            self.assertEqual(got.status, 400, (path, fields, got.body))
            self.assertIn(told, got.json["error"])

    def test_while_no_agent_is_there_it_waits_and_says_so_then(self) -> None:
        self.nodes.fail("n1")
        self.nodes.fail("n2")
        self.run_for(1.0)
        reader = self.post("/event", {"name": "deploy"})
        self.run_for(12.0)
        self.assertEqual(reader.got.status, 504)


def _load(name: str, query: QueryEvent) -> str:
    return f"{name}:{query.payload.decode()}"


class QueryTests(ActionCase):
    def setUp(self) -> None:
        super().setUp()
        for name, agent in self.nodes.agents.items():
            agent.handle_query("load", partial(_load, name))

    def test_acks_and_answers_come_and_then_the_result(self) -> None:
        watcher = self.follow("/events?type=query:load")
        reader = self.post("/query", {"name": "load", "payload": "x", "expect": "all", "timeout": 5})
        self.assertEqual(reader.got.headers["content-type"], "text/event-stream; charset=utf-8")
        self.run_for(1.0)
        *records, (kind, result) = reader.events
        kinds = sorted((data["type"], data["node"]) for _, data in records)
        self.assertEqual(kinds, [(type, node) for type in ("ack", "answer") for node in ("n1", "n2", "n3")])
        self.assertEqual(kind, "result")
        self.assertEqual(result["responses"], {"n1": "n1:x", "n2": "n2:x", "n3": "n3:x"})
        self.assertEqual(
            (sorted(result["acks"]), result["complete"], result["missing"]), (["n1", "n2", "n3"], True, [])
        )
        self.assertTrue(reader.transport.disconnecting)
        seen = [data["type"] for _, data in watcher.events]
        self.assertEqual(sorted(seen), ["ack"] * 3 + ["answer"] * 3 + ["query"])

    def test_nodes_and_tags_choose_who_is_asked(self) -> None:
        reader = self.post("/query", {"name": "load", "nodes": ["n2"], "timeout": 0.5, "acks": False})
        self.run_for(1.0)
        self.assertEqual([data.get("node") for _, data in reader.events], ["n2", None])

    def test_an_error_is_an_event_of_its_own(self) -> None:
        reader = self.post("/query", {"name": "load", "payload": "x" * 2000})
        self.run_for(0.5)
        ((kind, data),) = reader.events
        self.assertEqual(kind, "error")
        self.assertIn("exceeds limit", data["error"])

    def test_a_stop_ends_the_answer_with_an_event_that_says_so(self) -> None:
        log = Log(self)
        reader = self.connect_reader()
        body = json.dumps({"name": "load", "timeout": 60})
        head = "Host: localhost", f"Authorization: Bearer {TOKEN}", "Content-Type: application/json"
        lines = ["POST /query HTTP/1.1", *head, f"Content-Length: {len(body)}", "", body]
        reader.send("\r\n".join(lines))
        self.run_for(1.0)
        self.site.close()
        self.assertTrue(
            reader.text.endswith('event: error\ndata: {"error": "txserf stops"}\n\n\r\n0\r\n\r\n'),
            reader.text,
        )
        self.assertIn("127.0.0.1 asked for query 'load': txserf stops", log.texts)
        self.assertTrue(reader.transport.disconnecting)

    def test_a_reader_that_leaves_ends_the_query(self) -> None:
        asked: list[Query] = []
        ask = self.serf.query

        def kept(*args: Any, **options: Any) -> Query:
            asked.append(ask(*args, **options))
            return asked[0]

        self.patch(self.serf, "query", kept)
        reader = self.post("/query", {"name": "never", "timeout": 60})
        self.run_for(0.5)
        before = reader.text
        waiting = asked[0].when_done()
        self.assertNoResult(waiting)
        reader.lose()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(reader.text, before)


class ForceLeaveTests(ActionCase):
    def test_a_failed_member_leaves(self) -> None:
        self.nodes.fail("n3")
        self.run_for(10.0)
        self.assertEqual(self.act("/force-leave", {"node": "n3"}).status, 200)
        self.run_for(3.0)
        self.assertEqual(self.statuses_of(self.live.view)["n3"], "left")
        self.assertEqual(self.act("/force-leave", {"node": "n3", "prune": True}).status, 200)
        self.run_for(3.0)
        self.assertEqual(self.names("/members"), ["n1", "n2"])


class AuditTests(ActionCase):
    def setUp(self) -> None:
        super().setUp()
        self.log = Log(self)
        for name, agent in self.nodes.agents.items():
            agent.handle_query("load", partial(_load, name))

    def told(self, path: str, fields: object) -> str:
        """Send an act, and return the line that is logged of it."""
        self.log.events.clear()
        self.act(path, fields)
        self.run_for(12.0)
        (event,) = [event for event in self.log.events if "outcome" in event]
        self.assertEqual(event["log_level"], LogLevel.info)
        for secret in (TOKEN, "p4yload"):
            self.assertNotIn(secret, self.log.everything)
        return str(formatEvent(event))

    def test_each_act_leaves_a_line_that_says_who_asked_for_what_and_how_it_went(self) -> None:
        payload = {"payload": "p4yload"}
        for path, fields, line in (
            ("/event", {"name": "deploy", **payload}, "event 'deploy': done"),
            ("/force-leave", {"node": "n9"}, "force-leave 'n9': done"),
            ("/query", {"name": "load", **payload, "expect": "all"}, "query 'load': 3 acks, 3 answers"),
            ("/query", {"name": "no", "acks": False, "timeout": 0.5}, "query 'no': 0 acks, 0 answers"),
        ):
            self.assertEqual(self.told(path, fields), f"127.0.0.1 asked for {line}")

    def test_so_does_one_that_is_refused_or_fails(self) -> None:
        self.assertIn("event 'x': ", self.told("/event", {"name": "x", "payload": "p4yload" * 100}))
        self.assertIn("event 'x': ", self.told("/event", {"name": "x", "payload": "p4yload" * 1000}))
        self.assertIn("event 7: ", self.told("/event", {"name": 7}))
        self.assertIn("query 'x': ", self.told("/query", {"name": "x", "payload": "p4yload" * 1000}))

    def test_a_name_can_not_forge_a_line(self) -> None:
        self.assertNotIn("\n", self.told("/event", {"name": "x\n127.0.0.1 asked for \x1b[2J\udcff"}))

    def test_so_does_one_whose_reader_leaves(self) -> None:
        self.nodes.agents["n1"].pause()
        for path in ("/event", "/query"):
            reader = self.post(path, {"name": "deploy"})
            reader.lose()
            (line,) = [text for text in self.log.texts if "asked for" in text]
            self.assertEqual(line, f"127.0.0.1 asked for {path[1:]} 'deploy': the reader left before the end")
            self.log.events.clear()

    def test_a_request_without_the_token_leaves_none(self) -> None:
        self.act("/event", ACTS["/event"], Authorization="Bearer wrong")
        self.assertNotIn("asked for", self.log.everything)


class GuardTests(ActionCase):
    def refused(self, status: int, **headers: str) -> None:
        for path, fields in ACTS.items():
            got = self.act(path, fields, **headers)
            self.assertEqual(got.status, status, (path, headers))
            self.assertNotIn(TOKEN, got.body)
            if status == 401:
                self.assertEqual(got.headers["www-authenticate"], "Bearer")

    def test_without_the_token_nobody_may_act(self) -> None:
        for authorization in (
            "",
            "Bearer",
            "Bearer ",
            "Bearer wrong",
            f"Basic {TOKEN}",
            TOKEN,
            f"Bearer {TOKEN}x",
            "Bearer \xff",
        ):
            self.refused(401, Authorization=authorization)
        self.assertEqual(self.live.counts["user"] + self.live.counts["query"], 0)

    def test_a_token_that_has_changed_counts_from_the_next_request_on(self) -> None:
        tokens: list[bytes | None] = [b"new", None, TOKEN.encode()]
        self.site = Site(self.live, reactor=self.clock, token=lambda: tokens[0])
        for status in (401, 403, 200):
            self.assertEqual(self.act("/event", ACTS["/event"]).status, status)
            tokens.pop(0)

    def test_the_scheme_may_be_in_any_case(self) -> None:
        self.assertEqual(self.act("/event", ACTS["/event"], Authorization=f"bearer {TOKEN}").status, 200)

    def test_only_json_is_taken(self) -> None:
        for content_type in (
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonx",
        ):
            got = self.act("/event", ACTS["/event"], Content_Type=content_type)
            self.assertIn(got.status, (415, 400), content_type)
        self.assertEqual(
            self.act("/event", ACTS["/event"], Content_Type="Application/JSON; charset=utf-8").status, 200
        )

    def test_a_page_of_another_site_may_not_act_with_the_token_either(self) -> None:
        for origin in (
            "http://evil.example",
            "null",
            "http://localhost",
            "http://localhost:9100.evil.example",
            "http://[",
            "\xff",
        ):
            self.refused(403, Origin=origin)
        for origin in ("http://localhost:9100", "HTTP://LOCALHOST:9100"):
            self.assertEqual(self.act("/event", ACTS["/event"], Origin=origin).status, 200)

    def test_an_act_is_a_post(self) -> None:
        for path in ACTS:
            for method in ("GET", "HEAD", "PUT", "OPTIONS"):
                got = self.get(path, method)
                self.assertEqual((got.status, got.headers["allow"]), (405, "POST"))

    def test_a_request_with_parameters_is_refused(self) -> None:
        self.assertEqual(self.act("/event?token=x", ACTS["/event"]).status, 400)

    def test_the_state_says_that_they_are_on(self) -> None:
        self.assertTrue(self.get("/state").json["actions"])

    def test_the_token_is_in_no_repr(self) -> None:
        self.assertNotIn(TOKEN, repr(self.site) + repr(self.site._actions))


class OffTests(WebCase):
    def test_without_a_token_file_they_are_off_and_say_how_they_are_turned_on(self) -> None:
        for path in ACTS:
            got = self.get(path, "POST", "{}", Content_Type="application/json", Authorization="Bearer ")
            self.assertEqual(got.status, 403)
            self.assertIn("--http-token-file", got.json["error"])
        self.assertFalse(self.get("/state").json["actions"])
