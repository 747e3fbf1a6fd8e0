"""Queries of the typed API, on a fake agent."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError

from tests.fakes import DONE, Log, answer
from tests.serf_case import SerfCase
from txserf.errors import (
    ConnectionLost,
    Disconnected,
    QueryError,
    RequestTimeout,
    StopReceiveData,
)
from txserf.model import Ack, Answer, QueryResult
from txserf.serf.query import Query


class QueryTests(SerfCase):
    def ask(self, **options: Any) -> tuple[Query, int]:
        """Start a query that the agent accepts. Return it and its Seq."""
        query = self.serf.query("load", **options)
        seq = self.asked_one("query").seq
        self.agent.reply(seq)
        return query, seq

    def send(self, seq: int, *records: dict[str, Any]) -> None:
        for record in records:
            self.agent.reply(seq, record)

    def test_its_arguments_go_by_serfs_names_and_the_timeout_in_nanoseconds(self) -> None:
        self.serf.query(
            "load",
            "now",
            nodes=["n1"],
            tags={"role": "web"},
            acks=False,
            timeout=1.5,
            relay_factor=2,
        )
        self.assertEqual(
            self.asked_one("query").body,
            {
                "Name": "load",
                "Payload": b"now",
                "FilterNodes": ["n1"],
                "FilterTags": {"role": "web"},
                "RequestAck": False,
                "Timeout": 1_500_000_000,
                "RelayFactor": 2,
            },
        )

    def test_its_result_is_complete_with_done(self) -> None:
        query, seq = self.ask()
        result = self.awaited(query)
        self.send(seq, answer("n1", None, "ack"), answer("n1", b"0.3"), answer("n2", b""))
        self.assertNoResult(result)
        self.send(seq, DONE)
        expected = QueryResult(["n1"], {"n1": b"0.3", "n2": b""}, complete=True)
        self.assertEqual(self.successResultOf(result), expected)
        self.assertEqual(self.successResultOf(query.when_done()), expected)

    def test_it_can_be_iterated_and_awaited_and_have_callbacks(self) -> None:
        query, seq = self.ask()
        called: list[object] = []
        query.add_callback(called.append)
        items = self.collect(query)
        self.send(seq, answer("n1", None, "ack"), answer("n1", b"0.3"), DONE)
        expected: list[object] = [Ack("n1"), Answer("n1", b"0.3")]
        self.assertEqual(self.successResultOf(items), expected)
        self.assertEqual(called, expected)
        self.assertTrue(self.successResultOf(self.awaited(query)).complete)

    def test_duplicates_and_what_is_from_nobody_are_dropped(self) -> None:
        query, seq = self.ask()
        items = self.collect(query)
        ack, first, second = answer("n1", None, "ack"), answer("n1", b"first"), answer("n1", b"second")
        self.send(seq, ack, ack, first, answer("", b"noise"), second, first, answer("", None, "ack"), DONE)
        self.assertEqual(self.successResultOf(items), [Ack("n1"), Answer("n1", b"first")])

    def test_it_ends_with_the_answer_that_was_expected_and_what_still_comes_is_dropped(self) -> None:
        query, seq = self.ask(expect=2)
        items = self.collect(query)
        self.send(seq, answer("n1"), answer("n1"), answer("n2", None, "ack"))
        self.assertNoResult(items)
        self.send(seq, answer("n2"), answer("n3"), DONE)
        result = self.successResultOf(self.awaited(query))
        self.assertEqual((list(result.responses), result.complete), (["n1", "n2"], True))
        self.assertEqual(self.agent.asked(), [], "a query can't be stopped")

    def test_one_that_gets_fewer_answers_than_expected_ends_with_done(self) -> None:
        query, seq = self.ask(expect=2)
        self.send(seq, answer("n1"), DONE)
        self.assertTrue(self.successResultOf(self.awaited(query)).complete)

    def test_a_refusal_of_the_agent_is_a_query_error(self) -> None:
        query = self.serf.query("load")
        waiting = self.awaited(query)
        self.agent.reply(self.asked_one("query").seq, error="query exceeds limit of 1024 bytes")
        for failed in (waiting, self.awaited(query), self.next(query)):
            error = self.failureResultOf(failed, QueryError).value
            self.assertEqual((error.command, error.message), ("query", "query exceeds limit of 1024 bytes"))

    def test_a_record_that_can_not_be_read_is_left_out_counted_and_logged(self) -> None:
        log = Log(self)
        query, seq = self.ask(expect=2)
        done = query.when_done()
        broken: list[dict[str, Any]] = [answer("n1", None, "nack"), {**answer("n1"), "Payload": 7}]
        self.send(seq, answer("n2"), *broken)
        self.assertNoResult(done)
        self.send(seq, answer("n1", b"1"))
        self.assertEqual(self.successResultOf(done).responses, {"n2": b"", "n1": b"1"})
        self.assertEqual(query.unreadable, 2)
        why = "<Query: 'load', 0 acks, 1 responses>: a record can't be read and is left out:"
        self.assertEqual(
            log.texts, [f"{why} unknown record of a query: 'nack'", f"{why} Payload is int, not bytes"]
        )

    def test_a_loss_fails_it_with_the_answers_so_far_and_it_is_not_asked_again(self) -> None:
        query, seq = self.ask()
        waiting, items = self.awaited(query), self.collect(query)
        self.send(seq, answer("n1", None, "ack"), answer("n1", b"0.3"))
        self.reconnect()
        error = self.failureResultOf(waiting, ConnectionLost).value
        self.assertEqual(error.result, QueryResult(["n1"], {"n1": b"0.3"}, complete=False))
        self.failureResultOf(items, ConnectionLost)
        self.assertEqual(self.agent.asked(), [])

    def test_one_that_was_not_sent_yet_waits_for_a_connection(self) -> None:
        self.reconnect(again=False)
        query = self.serf.query("load")
        self.agent = self.endpoint.accept_and_greet()
        seq = self.asked_one("query").seq
        self.agent.reply(seq)
        self.send(seq, DONE)
        self.successResultOf(self.awaited(query))

    def test_without_a_connection_it_times_out_with_the_reason(self) -> None:
        self.reconnect(again=False)
        self.endpoint.refuse()
        query = self.serf.query("load")
        waiting = self.awaited(query)
        self.clock.advance(10)
        error = self.failureResultOf(waiting, RequestTimeout).value
        self.assertIn("no connection", str(error))

    def test_an_agent_that_forgets_done_is_not_waited_for_for_ever(self) -> None:
        query, seq = self.ask(timeout=3)
        waiting = self.awaited(query)
        self.send(seq, answer("n1"))
        self.clock.advance(12.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.failureResultOf(waiting, RequestTimeout)

    def test_a_cancelled_one_fails_who_waits_and_harms_nothing(self) -> None:
        query, seq = self.ask()
        waiting, items = self.awaited(query), self.collect(query)
        query.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.failureResultOf(items, CancelledError)
        self.send(seq, answer("n1"), DONE)
        query.cancel()
        self.failureResultOf(self.awaited(query), CancelledError)
        self.assertEqual(self.agent.asked(), [])

    def test_cancelling_who_waits_cancels_nobody_else(self) -> None:
        query, seq = self.ask()
        cancelled, waiting, items = query.when_done(), query.when_done(), self.collect(query)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.send(seq, answer("n1"), DONE)
        self.successResultOf(waiting)
        self.assertEqual(self.successResultOf(items), [Answer("n1", b"")])

    def test_a_callback_that_has_enough_ends_it_incomplete(self) -> None:
        def enough(item: object) -> None:
            raise StopReceiveData

        query, seq = self.ask()
        query.add_callback(enough)
        self.send(seq, answer("n1"), answer("n2"))
        result = self.successResultOf(self.awaited(query))
        self.assertEqual((list(result.responses), result.complete), (["n1"], False))

    def test_closing_fails_it(self) -> None:
        query, _ = self.ask()
        waiting = self.awaited(query)
        self.serf.close()
        self.clock.advance(0)
        self.agent.finish_closing()
        self.failureResultOf(waiting, Disconnected)

    def test_one_that_nobody_waits_for_fails_with_a_warning_only(self) -> None:
        query, _ = self.ask()
        self.reconnect()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.failureResultOf(self.awaited(query), ConnectionLost)

    def test_queries_side_by_side_keep_their_answers_apart(self) -> None:
        (first, one), (second, two) = self.ask(), self.ask()
        self.send(two, answer("n1", b"2"))
        self.send(one, answer("n1", b"1"), DONE)
        self.send(two, DONE)
        results = [self.successResultOf(self.awaited(query)).responses for query in (first, second)]
        self.assertEqual(results, [{"n1": b"1"}, {"n1": b"2"}])

    def test_its_repr_says_how_far_it_is(self) -> None:
        query, seq = self.ask()
        self.send(seq, answer("n1", None, "ack"), answer("n1", b"secret"))
        self.assertEqual(repr(query), "<Query: 'load', 1 acks, 1 responses>")
        self.send(seq, DONE)
