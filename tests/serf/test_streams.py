"""Streams of events and of log lines, on a fake agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail

from tests.fakes import DONE, MEMBER, Asked, Log, reply, user_event
from tests.serf_case import SerfCase
from txserf.errors import (
    AuthenticationError,
    ConnectionLost,
    Disconnected,
    RpcError,
    StopReceiveData,
)
from txserf.model import Gap, LogLine, Member, MemberEvent, QueryEvent, UserEvent
from txserf.serf.logs import LogStream
from txserf.serf.serf import Serf
from txserf.serf.streams import EventStream


def log_line(text: str, level: str = "INFO") -> dict[str, Any]:
    return {"Log": f"2026/11/24 00:47:08 [{level}] agent: {text}"}


# Records that can't be read, and what is logged.
UNREADABLE: list[tuple[dict[str, Any], str]] = [
    ({"Event": "member-promoted", "Members": []}, "unknown event: 'member-promoted'"),
    ({"Event": "x" * 100_000}, f"unknown event: '{'x' * 60}...'"),
    ({"Event": "user", "LTime": 1, "Name": "a", "Payload": b"s3cret"}, "Coalesce is NoneType, not bool"),
    ({**user_event(), "Payload": ["s3cret"]}, "Payload is list, not bytes"),
    ({"Event": "member-join", "Members": [{**MEMBER, "Tags": {"a": 1}}]}, "Tags is not a map of str to str"),
    (
        {"Event": "member-join", "Members": [{**MEMBER, "Addr": b"s3cret"}]},
        "Addr is no IP address: it has 6 bytes",
    ),
    ({"Event": "query", "ID": "1", "Name": "a", "LTime": 1, "Payload": b"s3cret"}, "ID is str, not int"),
    ({"Event": "query", "ID": -1, "Name": "a", "LTime": 1, "Payload": b"s3cret"}, "ID is not of 0 to 2^64-1"),
    ({}, "Event is NoneType, not str"),
]


class StreamCase(SerfCase):
    def agree(self, command: str = "stream") -> tuple[Asked, Asked]:
        """Answer the request that opens a stream. Return that request, and the one that follows it."""
        opening = self.asked_one(command)
        self.agent.reply(opening.seq)
        return opening, self.asked_one("stop")

    def open(self, command: str = "stream") -> int:
        """Answer both requests that open a stream, and return its Seq."""
        opening, confirmation = self.agree(command)
        self.agent.reply(confirmation.seq)
        return opening.seq

    def send(self, seq: int, *names: str) -> None:
        for name in names:
            self.agent.reply(seq, user_event(name))

    def send_lines(self, seq: int, *texts: str, level: str = "INFO") -> None:
        for text in texts:
            self.agent.reply(seq, log_line(text, level))

    def names(self, stream: EventStream, number: int) -> list[str]:
        return [
            type(item).__name__ if isinstance(item, Gap) else item.name  # type: ignore[union-attr]  # a user event
            for item in self.now(stream, number)
        ]

    def texts(self, stream: LogStream) -> list[str]:
        """Return the texts of the lines that wait to be read."""
        return [line.text for line in self.now(stream, len(stream._items))]


class EventStreamTests(StreamCase):
    def test_it_is_active_behind_a_second_round_trip(self) -> None:
        """The agent replies a moment before it registers the stream."""
        stream = self.serf.stream("user:deploy")
        active = stream.when_active()
        opening, confirmation = self.agree()
        self.assertEqual(opening.body, {"Type": "user:deploy"})
        assert confirmation.body is not None
        self.assertNotEqual(confirmation.body["Stop"], opening.seq)
        self.assertNoResult(active)
        self.assertFalse(stream.is_active)
        self.agent.reply(confirmation.seq)
        self.assertIsNone(self.successResultOf(active))
        self.assertTrue(stream.is_active)
        self.assertIsNone(self.successResultOf(stream.when_active()))

    def test_events_are_values_in_order(self) -> None:
        stream = self.serf.stream()
        seq = self.open()
        self.agent.reply(seq, user_event("deploy", ltime=7))
        self.agent.reply(seq, {"Event": "member-join", "Members": [MEMBER]})
        self.agent.reply(seq, {"Event": "query", "ID": 3, "LTime": 2, "Name": "load", "Payload": b"text"})
        self.assertEqual(
            self.now(stream, 3),
            [
                UserEvent("deploy", b"", 7, False),
                MemberEvent("join", (Member.from_wire(MEMBER),)),
                QueryEvent(3, "load", b"text", 2),
            ],
        )

    def test_streams_get_what_is_theirs_by_seq(self) -> None:
        first, second = self.serf.stream("user:a"), self.serf.stream("user:b")
        asked = self.agent.asked()
        for opening in asked:
            self.agent.reply(opening.seq)
        self.send(asked[1].seq, "b")
        self.send(asked[0].seq, "a")
        self.assertEqual((self.names(first, 1), self.names(second, 1)), (["a"], ["b"]))

    def test_an_end_by_the_agents_refusal_comes_to_who_waits_and_who_reads(self) -> None:
        stream = self.serf.stream("member-reap")  # an agent of a release without this type would refuse it
        active, event = stream.when_active(), self.next(stream)
        self.agent.reply(self.asked_one("stream").seq, error="Invalid event filter")
        for failed in (active, event, stream.when_active(), self.next(stream)):
            error = self.failureResultOf(failed, RpcError).value
            self.assertEqual((error.command, error.message), ("stream", "Invalid event filter"))
        self.assertIsInstance(stream.error, RpcError)
        self.reconnect()
        self.assertEqual(self.agent.asked(), [])

    def test_it_is_opened_again_after_a_loss_under_its_seq(self) -> None:
        stream = self.serf.stream("user")
        seq = self.open()
        self.send(seq, "before")
        self.reconnect()
        active = stream.when_active()
        self.assertNoResult(active)
        self.assertEqual(self.open(), seq)
        self.successResultOf(active)
        self.send(seq, "after")
        self.assertEqual(self.names(stream, 2), ["before", "after"])

    def test_a_gap_is_in_its_place_among_the_events(self) -> None:
        stream = self.serf.stream(gaps=True)
        called: list[Any] = []
        stream.add_callback(called.append)
        items = aiter(stream)
        seq = self.open()
        self.send(seq, "one")
        self.clock.advance(5)
        self.reconnect(again=False)
        self.clock.advance(2)
        self.agent = self.endpoint.accept_and_greet()
        _, confirmation = self.agree()
        self.send(seq, "two")  # an event before it may still have been missed
        self.assertEqual(len(called), 1)
        self.clock.advance(1)
        self.agent.reply(confirmation.seq)
        self.send(seq, "three")
        _, gap, _, _ = called
        self.assertEqual(gap, Gap(lost_at=0, resumed_at=8))
        self.assertEqual(self.names(items, 4), ["one", "Gap", "two", "three"])

    def test_a_gap_begins_when_the_agent_was_last_heard(self) -> None:
        stream = self.serf.stream(gaps=True)
        seq = self.open()
        self.clock.advance(3)
        self.send(seq, "one")
        self.clock.advance(5.3)  # a loss that is noticed late
        self.reconnect()
        self.open()
        self.assertEqual(self.now(stream, 2)[1:], [Gap(lost_at=3, resumed_at=8.3)])

    def test_a_gap_begins_with_the_last_answer_to_a_heartbeat_where_bytes_were_out_of_step(self) -> None:
        serf = Serf([self.endpoint], reactor=self.clock, heartbeat=30.0)
        stream = serf.stream(gaps=True)
        self.agent = self.endpoint.accept_and_greet()
        seq = self.open()
        self.clock.advance(30)
        self.agent.reply(self.asked_one("stop").seq)
        self.send(seq, "one")
        self.clock.advance(20)
        self.send(seq, "two")
        self.agent.send(b"\xdb\x03\xff\xff\xff")  # the length of a text, garbled: all behind it is swallowed
        for _ in range(3):
            self.send(seq, "swallowed")
            self.clock.advance(5)
        self.agent.finish_closing()
        self.clock.advance(1)
        self.agent = self.endpoint.accept_and_greet()
        self.open()
        self.assertEqual(self.names(stream, 2), ["one", "two"])
        self.assertEqual(self.now(stream, 1), [Gap(lost_at=30, resumed_at=66)])
        serf.close()
        self.agent.finish_closing()
        self.clock.advance(0)

    def test_one_that_the_agent_never_opens_is_asked_for_again_with_a_line_in_the_log(self) -> None:
        log = Log(self)
        for command, follow in (("stream", self.serf.stream), ("monitor", self.serf.monitor)):
            active = follow().when_active()
            first = self.asked_one(command).seq
            self.clock.advance(10)
            self.clock.advance(10)
            stop, again = self.agent.asked()
            self.assertEqual((stop.command, stop.body), ("stop", {"Stop": first}))
            self.assertEqual(again.command, command)
            self.assertEqual(len([line for line in log.texts if f"no answer to {command} within" in line]), 1)
            self.agent.reply(first)  # late: the agent opens and stops it
            self.agent.reply(first, user_event("late") if command == "stream" else log_line("late"))
            self.agent.reply(stop.seq)
            self.assertEqual(self.agent.asked(), [])
            self.agent.reply(again.seq)
            self.agent.reply(self.asked_one("stop").seq)
            self.successResultOf(active)
        self.clock.pump([10.0] * 10)
        self.assertEqual(self.agent.asked(), [])

    def test_one_whose_second_round_trip_is_never_answered_is_asked_for_again(self) -> None:
        stream = self.serf.stream()
        first, confirmation = self.agree()
        self.clock.advance(10)
        self.clock.advance(10)
        stop, again = self.agent.asked()
        self.assertEqual((stop.body, again.command), ({"Stop": first.seq}, "stream"))
        self.agent.reply(confirmation.seq)
        self.assertFalse(stream.is_active)
        self.agent.reply(again.seq)
        self.agent.reply(self.asked_one("stop").seq)
        self.assertTrue(stream.is_active)

    def test_one_that_waits_for_a_connection_is_asked_for_once_there(self) -> None:
        self.reconnect(again=False)
        active = self.serf.stream().when_active()
        self.clock.pump([10.0] * 5)
        while not self.endpoint.waiting:  # between two attempts
            self.clock.advance(1)
        self.agent = self.endpoint.accept_and_greet()
        self.clock.advance(10)
        self.open()
        self.successResultOf(active)

    def test_one_that_is_opened_again_is_watched_again(self) -> None:
        self.serf.stream()
        self.open()
        self.clock.advance(100)
        self.reconnect()
        self.asked_one("stream")
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual(self.agent.asked_names(), ["stop", "stream"])

    def test_two_losses_before_it_is_active_again_are_one_gap(self) -> None:
        stream = self.serf.stream(gaps=True)
        self.open()
        self.clock.advance(1)
        self.reconnect()
        self.agree()
        self.clock.advance(1)
        self.reconnect()
        self.clock.advance(1)
        self.open()
        self.assertEqual(self.now(stream, 1), [Gap(0, 3)])
        self.assertEqual(len(stream._items), 0)

    def test_a_loss_behind_a_gap_that_a_full_buffer_has_ended_is_another_gap(self) -> None:
        stream = self.serf.stream(gaps=True, buffer=1)
        called: list[Any] = []
        stream.add_callback(called.append)
        self.open()
        self.reconnect()
        opening, _ = self.agree()
        self.send(opening.seq, "one", "two")  # one more than the buffer holds
        self.clock.advance(1)
        self.reconnect()
        self.clock.advance(1)
        self.send(self.open(), "three")
        gaps = [item for item in called if isinstance(item, Gap)]
        self.assertEqual(gaps, [Gap(0, 0), Gap(0, 2)])
        self.assertEqual(
            [getattr(item, "name", "Gap") for item in called], ["Gap", "one", "two", "Gap", "three"]
        )

    def test_events_that_came_between_two_losses_have_a_gap_before_and_behind_them(self) -> None:
        stream = self.serf.stream(gaps=True)
        self.open()
        self.reconnect()
        opening, _ = self.agree()
        self.send(opening.seq, "one")  # and others may be missed before the next connection
        self.clock.advance(1)
        self.reconnect()
        self.send(self.open(), "two")
        self.assertEqual(self.names(stream, 4), ["Gap", "one", "Gap", "two"])

    def test_events_that_came_before_a_stream_is_asked_for_again_have_a_gap_behind_them(self) -> None:
        stream = self.serf.stream(gaps=True)
        self.open()
        self.reconnect()
        opening, _ = self.agree()
        self.send(opening.seq, "one")
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual(self.agent.asked_names(), ["stop", "stream"])
        self.assertEqual(self.names(stream, 2), ["Gap", "one"])

    def test_a_stream_that_was_never_active_has_no_gap(self) -> None:
        stream = self.serf.stream(gaps=True)
        self.agree()
        self.reconnect()
        self.send(self.open(), "one")
        self.assertEqual(self.names(stream, 1), ["one"])

    def test_a_gap_that_never_ends_is_told_at_the_end(self) -> None:
        stream = self.serf.stream(gaps=True)
        self.open()
        self.reconnect()
        items = self.collect(stream)
        self.serf.close()
        self.clock.advance(0)
        self.agent.finish_closing()
        self.assertEqual(self.successResultOf(items), [Gap(0, 0)])

    def test_a_stopped_stream_ends_and_drops_what_waits_and_what_still_comes(self) -> None:
        stream = self.serf.stream()
        seq = self.open()
        self.send(seq, "unread")
        stopped = stream.stop()
        stop = self.asked_one("stop")
        self.assertEqual(stop.body, {"Stop": seq})
        self.send(seq, "late")
        self.assertNoResult(stopped)
        self.agent.reply(stop.seq)
        self.assertIsNone(self.successResultOf(stopped))
        self.send(seq, "later")  # the agent sent it before it read the stop
        self.assertEqual(self.successResultOf(self.collect(stream)), [])
        self.failureResultOf(stream.when_active(), Disconnected)
        self.assertIsNone(self.successResultOf(stream.stop()))

    def test_a_stream_that_is_being_stopped_is_not_opened_again(self) -> None:
        stopped = self.serf.stream("user:a")
        self.open()
        stopping = stopped.stop()
        self.reconnect()
        self.agent.reply(self.asked_one("stop").seq)
        self.successResultOf(stopping)

    def test_a_stream_that_was_stopped_before_it_could_be_asked_for_is_never_asked_for(self) -> None:
        self.reconnect(again=False)
        stream = self.serf.stream()
        self.successResultOf(stream.stop())
        self.agent = self.endpoint.accept_and_greet()
        self.assertEqual(self.agent.asked(), [])

    def test_a_stop_that_is_never_answered_does_not_fail(self) -> None:
        stream = self.serf.stream()
        self.open()
        stopping = stream.stop()
        self.clock.advance(10)
        self.assertIsNone(self.successResultOf(stopping))

    def test_a_record_that_can_not_be_read_is_left_out_counted_and_logged(self) -> None:
        log = Log(self)
        stream, other = self.serf.stream("*", gaps=True), self.serf.stream("user:b")
        first, second = self.agent.asked()
        self.agent.reply(first.seq)
        self.agent.reply(second.seq)
        self.agent.asked()
        for number, (record, why) in enumerate(UNREADABLE, 1):
            self.send(first.seq, "a")
            self.agent.reply(first.seq, record)
            self.assertEqual(stream.unreadable, number)
            self.send(first.seq, "b")
            self.assertEqual(self.names(stream, 2), ["a", "b"])
            line = f"<EventStream: *>: a record can't be read and is left out: {why}"
            self.assertEqual(log.texts[number - 1 :], [line])
        self.assertNotIn("s3cret", "".join(log.texts))
        self.assertEqual((other.unreadable, stream.dropped, self.agent.asked()), (0, 0, []))
        self.assertFalse(self.agent.closed_by_client)

    def test_a_record_that_can_not_be_read_in_a_gap_or_behind_the_end_harms_nothing(self) -> None:
        stream = self.serf.stream(gaps=True)
        self.open()
        self.reconnect()
        opening, confirmation = self.agree()
        self.agent.reply(opening.seq, {"Event": "member-promoted"})
        self.send(opening.seq, "a")
        self.agent.reply(confirmation.seq)
        self.assertEqual((self.names(stream, 2), stream.unreadable), (["Gap", "a"], 1))
        stream.stop()
        self.agent.reply(opening.seq, {"Event": "member-promoted"})
        self.assertEqual(stream.unreadable, 1)

    def test_sys_exit_in_a_callback_costs_neither_the_connection_nor_the_next_event(
        self,
    ) -> None:
        for mistake in (SystemExit, asyncio.CancelledError):
            for now in (True, False):
                seen: list[object] = []
                stream = self.serf.stream().add_callback(seen.append, self.fails(mistake(), now))
                seq = self.open()
                self.send(seq, "first", "second")
                self.assertEqual(len(seen), 2)
                self.assertEqual(len(self.flushLoggedErrors(mistake)), 2)
                self.assertFalse(self.agent.closed_by_client)
                stream.stop()
                self.agent.reply(self.asked_one("stop").seq)

    def fails(self, mistake: BaseException, now: bool) -> Callable[[object], object]:
        """Make a callback that raises *mistake*, or returns a Deferred that failed with it."""

        def wrong(_: object) -> Deferred[None]:
            if now:
                raise mistake
            return fail(mistake)

        return wrong

    def test_a_callback_that_returns_a_query_is_waited_for(self) -> None:
        behind: list[object] = []
        self.serf.stream().add_callback(lambda _: self.serf.query("load"), behind.append)
        seq = self.open()
        self.send(seq, "first")
        query = self.asked_one("query")
        self.agent.reply(query.seq)
        self.assertEqual(behind, [])
        self.agent.reply(query.seq, DONE)
        self.assertEqual(len(behind), 1)

    def test_stop_receive_data_in_a_callback_stops_it_at_the_agent(self) -> None:
        def enough(event: object) -> None:
            raise StopReceiveData

        stream = self.serf.stream().add_callback(enough)
        seq = self.open()
        self.send(seq, "one")
        self.assertEqual(self.asked_one("stop").body, {"Stop": seq})
        self.assertEqual(self.successResultOf(self.collect(stream)), [])

    def test_waiting_for_it_to_be_active_can_be_cancelled_by_another_who_waits(self) -> None:
        stream = self.serf.stream()
        first, second, third = (stream.when_active() for _ in range(3))
        first.addCallback(lambda _: second.cancel())
        self.open()
        self.failureResultOf(second, CancelledError)
        self.successResultOf(third)

    def test_it_counts_what_a_slow_reader_lost(self) -> None:
        stream = self.serf.stream(buffer=2)
        seq = self.open()
        self.send(seq, *"abcde")
        self.assertEqual(stream.dropped, 3)
        self.assertEqual(self.names(stream, 2), ["d", "e"])

    def test_a_buffer_may_be_larger_than_any_memory(self) -> None:
        stream = self.serf.stream(buffer=2**70)
        self.send(self.open(), "one")
        self.assertEqual(self.names(stream, 1), ["one"])

    def test_where_every_host_refuses_the_key_it_ends_with_that(self) -> None:
        stream = self.serf.stream()
        self.asked_one("stream")
        event = self.next(stream)
        self.clock.advance(1)
        self.reconnect()
        self.agent.reply(self.asked_one("stream").seq, error="Authentication required")
        self.agent.lose()
        self.failureResultOf(event, AuthenticationError)
        self.failureResultOf(stream.when_active(), AuthenticationError)

    def test_a_query_is_answered_by_the_connection_that_it_came_by(self) -> None:
        stream = self.serf.stream("query")
        seq = self.open()
        self.agent.reply(seq, {"Event": "query", "ID": 9, "LTime": 1, "Name": "load", "Payload": None})
        (event,) = self.now(stream, 1)
        assert isinstance(event, QueryEvent)
        answered = event.respond("0.3")
        asked = self.asked_one("respond")
        self.assertEqual(asked.body, {"ID": 9, "Payload": b"0.3"})
        self.agent.reply(asked.seq)
        self.assertIsNone(self.successResultOf(answered))
        lost = event.respond()
        self.asked_one("respond")
        self.reconnect()
        self.failureResultOf(lost, ConnectionLost)
        self.failureResultOf(event.respond(b"late"), ConnectionLost)
        self.assertEqual(self.agent.asked_names(), ["stream"])

    def test_an_answer_that_the_agent_never_takes_times_out(self) -> None:
        stream = self.serf.stream("query")
        self.agent.reply(
            self.open(), {"Event": "query", "ID": 9, "LTime": 1, "Name": "load", "Payload": None}
        )
        (event,) = self.now(stream, 1)
        assert isinstance(event, QueryEvent)
        late = event.respond(b"1")
        self.clock.advance(10)
        self.failureResultOf(late, TimeoutError)


class LogStreamTests(StreamCase):
    def test_lines_are_taken_apart(self) -> None:
        lines = self.serf.monitor()
        seq = self.open("monitor")
        self.send_lines(seq, "Serf agent starting")
        self.agent.reply(seq, {"Log": "no such line"})
        first, second = self.now(lines, 2)
        self.assertEqual((first.level, first.subsystem, first.text), ("INFO", "agent", "Serf agent starting"))
        self.assertEqual(second, LogLine("no such line", text="no such line"))

    def test_a_second_one_shares_the_first_ones_and_gets_its_past_lines(self) -> None:
        first = self.serf.monitor("INFO")
        seq = self.open("monitor")
        self.send_lines(seq, "a")
        self.send_lines(seq, "b", level="WARN")
        second, third = self.serf.monitor("warn"), self.serf.monitor("INFO")
        self.assertEqual(self.agent.asked(), [])
        self.successResultOf(second.when_active())
        self.send_lines(seq, "c", level="ERR")
        self.assertEqual(self.texts(first), ["a", "b", "c"])
        self.assertEqual(self.texts(second), ["b", "c"])
        self.assertEqual(self.texts(third), ["a", "b", "c"])

    def test_for_a_lower_level_the_agent_is_asked_anew_and_each_gets_what_it_wants_once(self) -> None:
        first = self.serf.monitor("WARN")
        seq = self.open("monitor")
        self.send_lines(seq, "a", "b", level="WARN")
        second = self.serf.monitor("DEBUG")
        stop, opening = self.agent.asked()
        self.assertEqual((stop.command, stop.body), ("stop", {"Stop": seq}))
        self.assertEqual((opening.command, opening.body), ("monitor", {"LogLevel": "DEBUG"}))
        self.send_lines(seq, "the old one's last", level="WARN")
        self.agent.reply(stop.seq)
        self.agent.reply(opening.seq)
        self.agent.reply(self.asked_one("stop").seq)
        self.successResultOf(second.when_active())
        # The agent first sends its last lines, of all levels from the new one up.
        self.send_lines(opening.seq, "x", level="DEBUG")
        self.send_lines(opening.seq, "a", "b", "the old one's last", level="WARN")
        self.send_lines(opening.seq, "y", level="DEBUG")
        self.send_lines(opening.seq, "c", level="WARN")
        self.assertEqual(self.texts(first), ["a", "b", "the old one's last", "c"])
        self.assertEqual(self.texts(second), ["x", "a", "b", "the old one's last", "y", "c"])

    def test_a_loss_while_the_level_is_changed_leaves_one_monitor(self) -> None:
        self.serf.monitor("WARN")
        self.open("monitor")
        self.serf.monitor("DEBUG")
        self.agent.asked()
        self.reconnect()
        asked = [(asked.command, asked.body) for asked in self.agent.asked() if asked.command == "monitor"]
        self.assertEqual(asked, [("monitor", {"LogLevel": "DEBUG"})])

    def test_lines_that_the_agent_replays_after_a_reconnect_come_once(self) -> None:
        lines = self.serf.monitor()
        self.send_lines(self.open("monitor"), "a", "b", "b", "c")
        self.reconnect()
        self.send_lines(self.open("monitor"), "b", "b", "c", "missed", "d")
        self.assertEqual(self.texts(lines), ["a", "b", "b", "c", "missed", "d"])

    def test_lines_that_another_agent_replays_are_new(self) -> None:
        lines = self.serf.monitor()
        self.send_lines(self.open("monitor"), "a", "b")
        self.reconnect()
        self.send_lines(self.open("monitor"), "its own a", "its own b")
        self.assertEqual(self.texts(lines), ["a", "b", "its own a", "its own b"])

    def test_a_loss_within_a_replay_makes_nothing_come_twice(self) -> None:
        lines = self.serf.monitor()
        self.send_lines(self.open("monitor"), *"abcd")
        self.reconnect()
        self.send_lines(self.open("monitor"), *"ab")
        self.clock.advance(1)
        self.reconnect()
        self.send_lines(self.open("monitor"), *"abcde")
        self.assertEqual(self.texts(lines), list("abcde"))

    def test_one_that_joins_within_a_replay_gets_nothing_twice(self) -> None:
        self.serf.monitor()
        self.send_lines(self.open("monitor"), *"abcd")
        self.reconnect()
        late = self.serf.monitor()
        seq = self.open("monitor")
        self.send_lines(seq, *"ab")
        later = self.serf.monitor()
        self.send_lines(seq, *"cde")
        self.assertEqual(self.texts(late), list("abcde"))
        self.assertEqual(self.texts(later), list("abcde"))

    def test_the_agents_monitor_is_stopped_with_the_last_stream_of_it(self) -> None:
        first, second = self.serf.monitor(), self.serf.monitor("ERR")
        seq = self.open("monitor")
        self.successResultOf(first.stop())
        self.assertEqual(self.agent.asked(), [])
        self.send_lines(seq, "a", level="ERR")
        self.assertEqual(self.texts(second), ["a"])
        stopped = second.stop()
        stop = self.asked_one("stop")
        self.assertEqual(stop.body, {"Stop": seq})
        self.agent.reply(stop.seq)
        self.successResultOf(stopped)
        self.assertEqual(self.successResultOf(self.collect(first)), [])
        third = self.serf.monitor()  # and one may be opened again
        self.send_lines(self.open("monitor"), "a")
        self.assertEqual(self.texts(third), ["a"])

    def test_an_unknown_level_is_the_agents_to_refuse_and_harms_no_other(self) -> None:
        good = self.serf.monitor()
        seq = self.open("monitor")
        bad = self.serf.monitor("loud")
        asked = self.asked_one("monitor")
        self.assertEqual(asked.body, {"LogLevel": "LOUD"})
        self.agent.reply(asked.seq, error="Unknown log level: LOUD")
        self.failureResultOf(bad.when_active(), RpcError)
        self.failureResultOf(self.next(bad), RpcError)
        self.send_lines(seq, "a")
        self.assertEqual(self.texts(good), ["a"])

    def test_a_record_that_is_no_line_is_left_out_of_all_of_them(self) -> None:
        log = Log(self)
        streams = [self.serf.monitor("INFO"), self.serf.monitor("WARN")]
        seq = self.open("monitor")
        self.agent.reply(seq, {"Log": None})
        self.send_lines(seq, "a", level="WARN")
        for stream in streams:
            self.assertEqual((self.texts(stream), stream.unreadable), (["a"], 1))
        why = "a record can't be read and is left out: Log is NoneType, not str"
        self.assertEqual(log.texts, [f"<LogStream: {level}>: {why}" for level in ("INFO", "WARN")])

    def test_a_slow_reader_of_one_takes_nothing_from_another(self) -> None:
        slow, quick = self.serf.monitor(buffer=1), self.serf.monitor()
        self.send_lines(self.open("monitor"), *"abc")
        self.assertEqual((slow.dropped, quick.dropped), (2, 0))
        self.assertEqual((self.texts(slow), self.texts(quick)), (["c"], ["a", "b", "c"]))

    def test_closing_ends_all_of_them(self) -> None:
        streams = [self.serf.monitor(), self.serf.monitor("ERR")]
        waiting: list[Deferred[Any]] = [self.collect(stream) for stream in streams]
        self.serf.close()
        self.clock.advance(0)
        self.agent.finish_closing()
        self.assertEqual([self.successResultOf(collected) for collected in waiting], [[], []])


class ChunkTests(StreamCase):
    """Events that come in one piece, of a stream whose events have come before."""

    def setUp(self) -> None:
        super().setUp()
        self.got: list[str] = []
        self.stream = self.serf.stream(buffer=4, gaps=True)
        self.seq = self.open()

    def tell(self, at: str = "", do: Callable[[], object] = lambda: None) -> None:
        """Add a callback that keeps names and calls *do* at the event *at*; let a first event come."""

        def take(event: Any) -> object:
            self.got.append(getattr(event, "name", type(event).__name__))
            return do() if self.got[-1] == at else None

        self.stream.add_callback(take)
        self.send(self.seq, "first")
        del self.got[:]

    def come(self, *records: Any) -> None:
        self.agent.send(
            *(reply(self.seq, user_event(name) if isinstance(name, str) else name) for name in records)
        )

    def test_a_stop_in_the_middle_delivers_no_more(self) -> None:
        self.tell("b", lambda: self.stream.stop())
        self.come("a", "b", {}, "c")
        self.assertEqual((self.got, self.stream.unreadable), (["a", "b"], 0))
        self.assertEqual(self.asked_one("stop").body, {"Stop": self.seq})

    def test_stop_receive_data_in_the_middle_delivers_no_more(self) -> None:
        def enough() -> None:
            raise StopReceiveData

        self.tell("b", enough)
        self.come("a", "b", "c")
        self.assertEqual(self.got, ["a", "b"])
        self.assertEqual(self.asked_one("stop").body, {"Stop": self.seq})

    def test_a_close_in_the_middle_delivers_no_more(self) -> None:
        self.tell("b", lambda: self.serf.close())
        self.come("a", "b", "c")
        self.assertEqual(self.got, ["a", "b"])

    def test_a_callback_that_raises_in_the_middle_is_logged_and_the_next_event_comes(self) -> None:
        log = Log(self)

        def raises() -> None:
            raise RuntimeError("a mistake")

        self.tell("b", raises)
        self.come("a", "b", "c")
        self.assertEqual(self.got, ["a", "b", "c"])
        self.assertEqual(len(log.texts), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_the_others_wait_for_a_deferred_and_the_oldest_beyond_the_buffer_go(self) -> None:
        gate: Deferred[None] = Deferred()
        self.tell("b", lambda: gate)
        self.come("a", "b", "c", "d", "e", "f", "g")
        self.assertEqual((self.got, self.stream.dropped), (["a", "b"], 1))
        gate.callback(None)
        self.assertEqual(self.got, ["a", "b", "d", "e", "f", "g"])

    def test_a_loss_in_the_middle_is_followed_by_a_gap(self) -> None:
        self.tell("b", lambda: self.agent.lose())
        self.come("a", "b", "c")
        self.assertEqual(self.got, ["a", "b"])
        self.agent = self.endpoint.accept_and_greet()
        self.open()
        self.come("d", "e")
        self.assertEqual(self.got, ["a", "b", "Gap", "d", "e"])

    def test_they_are_held_behind_a_gap_that_has_not_ended(self) -> None:
        self.tell()
        self.reconnect()
        _, confirmation = self.agree()
        for _ in range(2):
            self.come("a", "b")
        self.assertEqual(self.got, [])
        self.agent.reply(confirmation.seq)
        self.assertEqual(self.got, ["Gap", "a", "b", "a", "b"])

    def test_more_of_them_than_are_held_end_the_gap(self) -> None:
        self.tell()
        self.reconnect()
        self.agree()
        self.come("a")
        self.come("b", "c", "d", "e", "f")
        self.assertEqual(self.got, ["Gap", "a", "b", "c", "d", "e", "f"])

    def test_one_that_can_not_be_read_is_left_out_in_its_place(self) -> None:
        log = Log(self)
        self.tell()
        self.come("a", {}, "b", {**user_event(), "Payload": [1]}, "c")
        self.assertEqual((self.got, self.stream.unreadable, len(log.texts)), (["a", "b", "c"], 2, 2))

    def test_a_query_among_them_is_answered(self) -> None:
        answers: list[Deferred[None]] = []
        self.stream.add_callback(
            lambda event: answers.append(event.respond(b"yes")) if isinstance(event, QueryEvent) else None
        )
        self.send(self.seq, "first")
        self.come("a", {"Event": "query", "ID": 5, "LTime": 1, "Name": "q", "Payload": None}, "b")
        asked = self.asked_one("respond")
        self.assertEqual(asked.body, {"ID": 5, "Payload": b"yes"})
        self.agent.reply(asked.seq)
        self.successResultOf(answers[0])

    def test_a_reader_gets_all_of_them_and_one_that_stops_it_gets_no_more(self) -> None:
        async def read() -> None:
            async for event in self.stream:
                self.got.append(getattr(event, "name", ""))
                if self.got[-1] == "f":
                    self.stream.stop()

        reading = Deferred.fromCoroutine(read())
        self.send(self.seq, "first")
        self.come("a", "b", "c", "d", "e", "f", "g", "h")
        self.successResultOf(reading)
        self.assertEqual((self.got, self.stream.dropped), (["first", "a", "b", "c", "d", "e", "f"], 0))
        self.assertEqual(self.asked_one("stop").body, {"Stop": self.seq})

    def test_two_streams_and_a_reply_stay_in_order(self) -> None:
        self.tell()
        other = self.serf.stream()
        other.add_callback(lambda event: self.got.append("other"))
        seq = self.open()
        self.send(seq, "first")
        self.serf.members().addCallback(lambda members: self.got.append("members"))
        asked = self.asked_one("members")
        del self.got[:]
        self.agent.send(
            reply(self.seq, user_event("a")),
            reply(self.seq, user_event("b")),
            reply(seq, user_event("x")),
            reply(self.seq, user_event("c")),
            reply(asked.seq, {"Members": []}),
            reply(self.seq, user_event("d")),
            reply(seq, user_event("y")),
        )
        self.assertEqual(self.got, ["a", "b", "other", "c", "members", "d", "other"])
