"""Replies and records: each goes to the exchange that it belongs to."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.fakes import DONE, MEMBERS, Log, answer, cuts, header, reply, user_event
from tests.protocol_case import CallCase
from txserf import commands
from txserf.connection import replies
from txserf.connection.exchange import Awaited, Reply
from txserf.errors import (
    RequestTimeout,
)


class BodyTests(CallCase):
    def test_each_reply_has_a_body_of_its_own_though_it_is_the_same_one(self) -> None:
        for _ in range(3):
            waiting = self.protocol.call("members")
            self.agent.reply(self.agent.asked_one("members").seq, MEMBERS)
            body: Any = self.successResultOf(waiting).body
            self.assertEqual(body, MEMBERS)
            body["Members"][0]["Tags"].clear()
            body.clear()


class StreamTests(CallCase):
    def setUp(self) -> None:
        super().setUp()
        self.records: list[Mapping[str, Any]] = []

    def stream(self, command: str = "stream", **arguments: Any) -> Deferred[Reply]:
        """Open a stream as Seq 1."""
        waiting = self.protocol.call(command, arguments, on_record=self.records.append)
        self.agent.asked_one(command)
        return waiting

    def test_records_go_to_their_stream(self) -> None:
        others: list[Mapping[str, Any]] = []
        self.stream()
        self.protocol.call("stream", on_record=others.append)
        self.agent.send(header(1), header(2))
        self.agent.send(reply(1, user_event("a")), reply(2, user_event("b")), reply(1, user_event("c")))
        self.assertEqual([record["Name"] for record in self.records], ["a", "c"])
        self.assertEqual([record["Name"] for record in others], ["b"])

    def test_replies_and_records_interleave(self) -> None:
        self.stream()
        waiting = self.protocol.call("members")
        self.agent.send(header(1), reply(1, user_event("a")), reply(2, MEMBERS), reply(1, user_event("b")))
        self.assertEqual(len(self.records), 2)
        self.assertEqual(self.successResultOf(waiting).body, MEMBERS)

    def test_a_refused_stream_has_no_records(self) -> None:
        waiting = self.stream(Type="nonsense")
        self.agent.reply(1, error="Invalid event filter")
        self.assertEqual(self.successResultOf(waiting).error, "Invalid event filter")
        self.assertWorks()

    def test_a_record_whose_callback_raises_is_logged_and_the_next_still_comes(self) -> None:
        seen: list[object] = []

        def broken(record: Mapping[str, Any]) -> None:
            seen.append(record)
            raise RuntimeError("a mistake")

        self.protocol.call("stream", on_record=broken)
        self.agent.send(header(1), reply(1, user_event()), reply(1, user_event()))
        self.assertEqual(len(seen), 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        self.assertWorks()

    def test_so_is_one_whose_callback_calls_sys_exit(self) -> None:
        def broken(record: Mapping[str, Any]) -> None:
            sys.exit(1)

        self.protocol.call("stream", on_record=broken)
        self.agent.send(header(1), reply(1, user_event()), reply(1, user_event()))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 2)
        self.assertWorks()

    def test_a_stopped_streams_records_are_swallowed_before_and_after_the_reply(self) -> None:
        self.stream()
        self.agent.reply(1)
        stopping = self.protocol.call("stop", {"Stop": 1})
        self.agent.send(reply(1, user_event("before")))
        self.agent.send(header(2), reply(1, user_event("after")), reply(1, user_event("after")))
        self.successResultOf(stopping)
        # Records that come before the reply to the stop still belong to the stream.
        self.assertEqual([record["Name"] for record in self.records], ["before"])
        self.assertWorks()

    def open_and_stop(self, times: int) -> None:
        """Open a stream and stop it, *times* times."""
        for _ in range(times):
            stream = self.protocol.call("stream")
            seq = self.agent.asked_one("stream").seq
            self.agent.reply(seq)
            self.successResultOf(stream)
            stop = self.protocol.call("stop", {"Stop": seq})
            self.agent.reply(self.agent.asked_one("stop").seq)
            self.successResultOf(stop)
            self.agent.forget_what_was_asked()

    def test_stopped_streams_take_a_few_bytes_each_and_from_some_number_on_none(self) -> None:
        tracemalloc.start()
        try:
            self.open_and_stop(100)
            gc.collect()
            first, _ = tracemalloc.get_traced_memory()
            self.open_and_stop(1900)
            gc.collect()
            then, _ = tracemalloc.get_traced_memory()
            self.open_and_stop(2000)
            gc.collect()
            last, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertLess(then - first, 150_000)
        self.assertLess(last - then, 10_000)

    def test_the_records_of_a_stream_that_was_stopped_long_ago_harm_nobody(self) -> None:
        self.stream()
        self.agent.reply(1)
        self.protocol.call("stop", {"Stop": 1})
        self.agent.reply(self.agent.asked_one("stop").seq)
        self.open_and_stop(2000)
        late, place, length = reply(1, user_event("late")), 0, 1
        while place < length:
            members, join = self.protocol.call("members"), self.protocol.call("join", {"Existing": ["a"]})
            first, second = (asked.seq for asked in self.agent.asked())
            data = b"".join([late, reply(first, MEMBERS), late, late, reply(second, {"Num": 1}), late])
            for chunk in cuts(data, [place]):
                self.agent.send(chunk)
            self.assertEqual(self.successResultOf(members).body, MEMBERS)
            self.assertEqual(self.successResultOf(join).body, {"Num": 1})
            place, length = place + 1, len(data)
        self.assertEqual(self.records, [])
        self.assertWorks()

    def test_a_stop_of_another_seq_stops_nothing(self) -> None:
        self.stream()
        self.agent.reply(1)
        self.protocol.call("stop", {"Stop": 99})
        self.agent.send(header(2), reply(1, user_event()))
        self.assertEqual(len(self.records), 1)

    def test_a_cancelled_stream_is_stopped_at_the_agent(self) -> None:
        waiting = self.stream()
        waiting.cancel()
        self.reason(waiting, CancelledError)
        self.assertEqual(self.agent.asked_one("stop").body, {"Stop": 1})
        self.agent.send(header(1), reply(1, user_event()), header(2), reply(1, user_event()))
        self.assertEqual(self.records, [])
        self.assertWorks()

    def test_a_timed_out_stream_is_stopped_at_the_agent(self) -> None:
        waiting = self.protocol.call("monitor", {"LogLevel": "INFO"}, timeout=1.0)
        self.agent.asked()
        self.clock.advance(1.1)
        self.reason(waiting, RequestTimeout)
        self.assertEqual(self.agent.asked_one("stop").body, {"Stop": 1})
        self.agent.send(header(1), reply(1, {"Log": "x"}), header(2), reply(1, {"Log": "y"}))
        self.assertWorks()

    def test_a_query_ends_with_done_and_its_seq_is_free_then(self) -> None:
        self.stream("query", Name="q")
        self.agent.send(header(1), reply(1, answer("n1", b"x")), reply(1, DONE))
        self.assertEqual([record["Type"] for record in self.records], ["response", "done"])
        log = Log(self)
        self.agent.reply(1)
        self.assertTrue(any("never sent" in text for text in log.texts))
        self.assertWorks()

    def test_an_exchange_knows_its_last_record_as_it_gets_it(self) -> None:
        class Told(Awaited):
            def record(self, body: Mapping[str, Any]) -> None:
                told.append((body["Type"], self.last))

        told: list[tuple[str, bool]] = []
        query = Told(commands.QUERY, commands.QUERY.arguments({"Name": "q"}))
        self.protocol._send([query])
        self.agent.send(header(1), reply(1, answer("n1", b"x")), reply(1, DONE))
        self.assertEqual(told, [("response", False), ("done", True)])

    def test_a_querys_records_from_nobody_are_dropped(self) -> None:
        self.stream("query", Name="q")
        noise = [reply(1, answer("", kind=kind)) for kind in ("ack", "response")]
        self.agent.send(header(1), *noise, reply(1, answer("n1")), *noise, reply(1, DONE))
        self.assertEqual([record["From"] for record in self.records], ["n1", ""])

    def test_a_cancelled_query_is_not_stopped_and_its_records_are_swallowed(self) -> None:
        waiting = self.stream("query", Name="q")
        waiting.cancel()
        self.reason(waiting, CancelledError)
        self.assertEqual(self.agent.asked(), [])
        self.agent.send(header(1), reply(1, answer("n1")), reply(1, DONE))
        self.assertEqual(self.records, [])
        self.assertWorks()

    def test_a_stop_does_not_end_a_query(self) -> None:
        self.stream("query", Name="q")
        self.protocol.call("stop", {"Stop": 1})
        self.agent.send(header(1), header(2), reply(1, answer("n1")), reply(1, DONE))
        self.assertEqual(len(self.records), 2)

    def test_a_close_inside_a_record_ends_the_records(self) -> None:
        def closing(record: Mapping[str, Any]) -> None:
            self.records.append(record)
            self.protocol.close()

        self.protocol.call("stream", on_record=closing)
        self.agent.send(header(1), reply(1, user_event()), reply(1, user_event()))
        self.assertEqual(len(self.records), 1)

    def test_a_loss_inside_a_record_ends_the_records(self) -> None:
        log = Log(self)

        def losing(record: Mapping[str, Any]) -> None:
            self.records.append(record)
            self.agent.lose()

        self.protocol.call("stream", on_record=losing)
        self.agent.send(header(1), reply(1, user_event()), reply(1, user_event()))
        self.assertEqual(len(self.records), 1)
        self.assertEqual([text for text in log.texts if "never sent" in text], [])


class ChunkTests(CallCase):
    """Records that come in one piece, of a stream whose records have come before."""

    def setUp(self) -> None:
        super().setUp()
        self.records: list[Mapping[str, Any]] = []

    def began(self, on_record: Any, *others: Any) -> None:
        """Open streams from Seq 1 on; a record of each has come."""
        for seq, take in enumerate((on_record, *others), 1):
            self.protocol.call("stream", on_record=take)
            self.agent.send(header(seq), reply(seq, user_event("first")))
        del self.records[:]

    def ending(self, end: Any) -> Any:
        """Return a function that keeps records, and calls *end* with the second one that it gets after the first."""

        def take(record: Mapping[str, Any]) -> None:
            self.records.append(record)
            if record["Name"] == "b":
                end()

        return take

    def come(self, *names: str, seq: int = 1) -> None:
        self.agent.send(*(reply(seq, user_event(name)) for name in names))

    def names(self) -> list[str]:
        return [record["Name"] for record in self.records]

    def test_streams_and_a_reply_stay_in_order(self) -> None:
        self.began(self.records.append, self.records.append)
        self.protocol.call("members").addCallback(lambda reply: self.records.append({"Name": "reply"}))
        self.agent.send(
            reply(1, user_event("a")),
            reply(2, user_event("b")),
            reply(1, user_event("c")),
            reply(1, user_event("d")),
            reply(3, MEMBERS),
            reply(2, user_event("e")),
        )
        self.assertEqual(self.names(), ["a", "b", "c", "d", "reply", "e"])

    def test_a_close_in_the_middle_ends_them(self) -> None:
        self.began(self.ending(self.protocol.close))
        self.come("a", "b", "c")
        self.assertEqual(self.names(), ["a", "b"])

    def test_a_loss_in_the_middle_ends_them(self) -> None:
        self.began(self.ending(lambda: self.agent.lose()))
        self.come("a", "b", "c")
        self.assertEqual(self.names(), ["a", "b"])

    def test_an_end_behind_bytes_that_came_inside_a_callback_ends_them(self) -> None:
        def disown() -> None:
            self.protocol._disown(self.protocol._replies._streams[1])

        for end in (disown, lambda: self.protocol.close()):
            self.setUp()

            def run_the_reactor(end: Any = end) -> None:
                self.come("x", seq=2)
                end()

            self.began(self.ending(run_the_reactor), self.records.append)
            self.come("a", "b", "c")
            self.assertEqual(self.names(), ["a", "b", "x"])

    def test_a_stream_that_is_disowned_in_the_middle_gets_no_more_and_another_one_does(self) -> None:
        others: list[Mapping[str, Any]] = []

        def disown() -> None:
            self.protocol._disown(self.protocol._replies._streams[1])

        self.began(self.ending(disown), others.append)
        self.agent.send(
            *(reply(1, user_event(name)) for name in "abc"),
            reply(2, user_event("x")),
            reply(1, user_event("d")),
        )
        self.assertEqual(self.names(), ["a", "b"])
        self.assertEqual([record["Name"] for record in others], ["first", "x"])

    def test_those_of_a_stopped_stream_are_swallowed(self) -> None:
        log = Log(self)
        self.began(self.records.append)
        stop = self.protocol.call("stop", {"Stop": 1})
        self.agent.send(*[reply(1, user_event("a"))] * 2, header(2), *[reply(1, user_event("b"))] * 2)
        self.come("c", "d")
        self.successResultOf(stop)
        self.assertEqual(self.names(), ["a", "a"])
        self.assertEqual([text for text in log.texts if "never sent" in text], [])
        self.assertWorks()

    def test_each_record_of_a_forgotten_stream_is_counted(self) -> None:
        log = Log(self)
        self.patch(replies, "_MOST_STOPPED", 0)
        self.began(self.records.append)
        self.protocol.call("stop", {"Stop": 1})
        self.agent.send(header(2))
        self.come("c", "d", "e")
        self.agent.lose()
        self.assertEqual(len([text for text in log.texts if "never sent" in text]), 2)
        self.assertEqual(len([text for text in log.texts if "3 times" in text]), 1)
