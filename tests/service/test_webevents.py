"""``/events``: server-sent events for many readers, in memory."""

from __future__ import annotations

from unittest import mock

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred

from tests.fakes import Log
from tests.service.web_case import Reader, WebCase
from txserf.model import Ack, Answer
from txserf.service import webevents


class EventsTests(WebCase):
    def send(self, *names: str, payload: bytes = b"v2") -> None:
        for name in names:
            done = self.serf.event(name, payload, coalesce=False)
            self.run_for(0.2)
            self.successResultOf(done)

    def test_each_record_is_an_object_of_json_in_an_event(self) -> None:
        reader = self.follow()
        self.assertEqual(reader.got.headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertEqual(reader.got.headers["cache-control"], "no-store")
        self.assertEqual(reader.got.body, ":\n\n")
        self.send("deploy")
        ((kind, data),) = reader.events
        self.assertEqual(
            (kind, data["type"], data["name"], data["payload"]), ("message", "user", "deploy", "v2")
        )
        self.nodes.fail("n3")
        self.run_for(10.0)
        self.assertEqual(reader.events[1][1]["members"][0]["name"], "n3")

    def test_a_filter_lets_through_what_it_names(self) -> None:
        readers = {
            each: self.follow(f"/events?type={each}")
            for each in ("user:deploy,member-failed", "query", "user&type=query", "*")
        }
        self.send("deploy", "other")
        query = self.serf.query("load", timeout=0.5)
        self.run_for(10.0)
        self.successResultOf(query.when_done())
        names = {each: [data.get("name") for _, data in reader.events] for each, reader in readers.items()}
        self.assertEqual(
            names,
            {
                "user:deploy,member-failed": ["deploy"],
                "query": ["load"],
                "user&type=query": ["deploy", "other", "load"],
                "*": ["deploy", "other", "load"],
            },
        )

    def test_a_filter_that_is_none_is_refused(self) -> None:
        for query in ("type=nonsense", "type=", "type=member-join,,", "tipe=user"):
            self.assertEqual(self.get(f"/events?{query}").status, 400, query)

    def test_a_gap_is_an_event_of_its_own_for_every_reader(self) -> None:
        readers = [self.follow(), self.follow("/events?type=user:never")]
        self.nodes.agents["n1"].drop_connections()
        self.run_for(2.0)
        for reader in readers:
            ((kind, data),) = reader.events
            self.assertEqual((kind, data["type"]), ("gap", "gap"))
        self.assertEqual(self.live.gaps, 1)

    def test_a_hundred_readers_are_one_stream_for_the_agent(self) -> None:
        asked = mock.Mock(wraps=self.serf.stream)
        self.patch(self.serf, "stream", asked)
        readers = [self.follow() for _ in range(100)]
        self.send("deploy")
        self.assertEqual({len(reader.events) for reader in readers}, {1})
        asked.assert_not_called()

    def test_the_members_are_read_once_each_time_that_they_have_to_be_however_many_read_them(self) -> None:
        asked = mock.Mock(wraps=self.serf.members)
        self.patch(self.serf, "members", asked)
        readers = [self.follow() for _ in range(100)]
        for _ in range(12):
            for path in ("/members", "/sd?port=1", "/state", "/health"):
                self.assertEqual(self.get(path).status, 200)
            self.run_for(50.0)
        self.assertEqual(asked.call_count, 2)  # in ten minutes, one each five
        self.assertEqual({reader.transport.disconnecting for reader in readers}, {False})

    def test_a_comment_comes_every_fifteen_seconds(self) -> None:
        reader = self.follow()
        self.run_for(15.1)
        self.assertEqual(reader.got.body, ":\n\n" * 2)
        self.run_for(30.1)
        self.assertEqual(reader.got.body, ":\n\n" * 4)

    def test_readers_that_left_are_let_go(self) -> None:
        reader = self.follow()
        other = self.follow()
        reader.lose()
        self.send("deploy")
        self.assertEqual((len(reader.events), len(other.events)), (0, 1))
        other.lose()
        self.assertEqual((len(self.site._events), self.live.listeners), (0, {}))

    def test_a_head_request_gets_the_head_alone(self) -> None:
        got = self.get("/events", "HEAD")
        self.assertEqual((got.status, got.body), (200, ""))
        self.assertEqual(got.headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertEqual(len(self.site._events), 0)

    def test_more_readers_than_there_may_be_are_refused(self) -> None:
        self.patch(webevents, "READERS_LIMIT", 2)
        readers = [self.follow() for _ in range(3)]
        self.assertEqual([reader.got.status for reader in readers], [200, 200, 503])
        readers[0].lose()
        self.assertEqual(self.follow().got.status, 200)

    def test_answers_to_queries_that_are_asked_here_come_with_the_name_of_the_query(self) -> None:
        readers = [self.follow(), self.follow("/events?type=query:load"), self.follow("/events?type=user")]
        self.site._events.tell_of_query("load", Ack("n1"))
        self.site._events.tell_of_query("load", Answer("n1", b"0.31"))
        self.site._events.tell_of_query("other", Ack("n1"))
        self.assertEqual([len(reader.events) for reader in readers], [3, 2, 0])
        (_, answer) = readers[1].events[1]
        self.assertRegex(answer.pop("time"), r"^1970-01-01T00:00:00\.[0-9]{6}\+00:00$")
        self.assertEqual(answer, {"type": "answer", "node": "n1", "payload": "0.31", "query": "load"})

    def test_the_end_of_the_site_ends_the_answers(self) -> None:
        reader = self.follow()
        self.site.close()
        self.assertTrue(reader.transport.disconnecting)
        self.assertEqual(len(self.site._events), 0)


class SlowReaderTests(WebCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(webevents, "WAITING_LIMIT", 1000)
        self.log = Log(self)
        self.slow, self.fast = self.follow(), self.follow()
        producer = self.slow.transport.producer
        assert producer is not None
        self.producer = producer

    def send(self, number: int) -> None:
        for each in range(number):
            done: Deferred[None] = self.serf.event(f"e{each}", b"x" * 100, coalesce=False)
            self.run_for(0.1)
            self.successResultOf(done)

    def names(self, reader: Reader) -> list[str]:  # type: ignore[override]  # of what came
        return [data["name"] for _, data in reader.events]

    def test_what_it_has_not_read_waits_and_comes_in_order(self) -> None:
        self.producer.pauseProducing()
        self.send(3)
        self.assertEqual((self.names(self.slow), self.names(self.fast)), ([], ["e0", "e1", "e2"]))
        self.producer.resumeProducing()
        self.assertEqual(self.names(self.slow), ["e0", "e1", "e2"])
        self.send(1)
        self.assertEqual(self.names(self.slow), ["e0", "e1", "e2", "e0"])

    def test_it_is_cut_off_where_more_waits_than_may(self) -> None:
        self.producer.pauseProducing()
        self.send(12)
        self.assertTrue(self.slow.transport.aborted)
        self.assertFalse(self.fast.transport.aborted)
        self.assertEqual(len(self.names(self.fast)), 12)
        self.assertIn("a reader of events is too slow: 127.0.0.1 was cut off", self.log.texts)
        self.assertEqual((len(self.site._events), self.get("/state").json["cut_off"]), (1, 1))
        self.slow.lose()

    def test_so_it_is_where_it_reads_by_a_unix_socket(self) -> None:
        slow = self.connect_reader()
        slow.transport.peerAddr = UNIXAddress(None)
        slow.request("/events")
        assert slow.transport.producer is not None
        slow.transport.producer.pauseProducing()
        self.send(12)
        self.assertTrue(slow.transport.aborted)
        self.assertEqual(len(self.names(self.fast)), 12)

    def test_one_record_may_be_larger_than_that(self) -> None:
        self.producer.pauseProducing()
        self.site._events.tell_of_query("load", Answer("n1", b"x" * 5000))
        self.producer.resumeProducing()
        self.assertEqual(len(self.slow.events), 1)

    def test_a_pause_in_between_keeps_the_rest(self) -> None:
        self.producer.pauseProducing()
        self.send(3)
        write = self.slow.transport.write

        def write_and_pause(data: bytes) -> None:
            write(data)
            self.producer.pauseProducing()

        self.patch(self.slow.transport, "write", write_and_pause)
        self.patch(self.slow.transport, "writeSequence", lambda parts: write_and_pause(b"".join(parts)))
        self.producer.resumeProducing()
        self.assertEqual(self.names(self.slow), ["e0"])
