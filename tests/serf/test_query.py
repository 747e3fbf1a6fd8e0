"""Queries of the typed API, on a fake agent."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import CancelledError

from tests.fakes import DONE, MEMBER, Asked, Log, answer
from tests.serf_case import SerfCase
from txserf import constant
from txserf.errors import (
    ConnectionLost,
    Disconnected,
    InvalidRequest,
    Overloaded,
    ProtocolError,
    QueryError,
    RequestTimeout,
    RpcError,
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

    def test_one_that_has_ended_is_let_go_of_though_more_may_come(self) -> None:
        query, seq = self.ask(expect=1)
        self.send(seq, answer("n1", b"a"))
        ended = weakref.ref(query)
        del query
        gc.collect()
        self.assertIsNone(ended())

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

    def test_one_that_is_done_does_not_time_out_afterwards(self) -> None:
        query, seq = self.ask(timeout=3.0)
        log = Log(self)
        self.send(seq, DONE)
        self.clock.advance(60.0)
        self.assertEqual(self.successResultOf(query.when_done()), QueryResult(complete=True))
        self.assertEqual(log.texts, [])

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


def members(*names: str) -> dict[str, Any]:
    """Return the body of a reply that lists these members."""
    return {"Members": [{**MEMBER, "Name": name} for name in names]}


class QueryOfAllTests(SerfCase):
    def ask(self, **options: Any) -> tuple[Query, list[Asked]]:
        """Start a query with ``expect="all"``. Return it and the requests that the agent has got."""
        query = self.serf.query("load", expect="all", **options)
        return query, self.agent.asked()

    def ask_of(self, *names: str, **options: Any) -> tuple[Query, int]:
        """Start one that the agent accepts, while these members are alive. Return it and its Seq."""
        query, (read, asked) = self.ask(**options)
        self.agent.reply(read.seq, members(*names))
        self.agent.reply(asked.seq)
        return query, asked.seq

    def send(self, seq: int, *records: dict[str, Any]) -> None:
        for record in records:
            self.agent.reply(seq, record)

    def result(self, query: Query) -> QueryResult:
        return self.successResultOf(query.when_done())

    def test_the_members_are_read_in_the_same_write_before_it(self) -> None:
        self.agent.forget_what_was_asked()
        self.serf.query("load", expect="all")
        self.assertEqual(len(self.agent.transport.writes), 1)
        asked = self.agent.asked()
        self.assertEqual([each.command for each in asked], ["members-filtered", "query"])
        self.assertEqual(asked[0].body, {"Name": "", "Status": "alive", "Tags": {}})

    def test_it_ends_with_the_last_answer_of_the_members_that_were_alive(self) -> None:
        query, seq = self.ask_of("n1", "n2")
        self.send(seq, answer("n2", b"2"), answer("n1", None, "ack"), answer("n2", b"twice"))
        self.assertNoResult(query.when_done())
        self.send(seq, answer("n1", b"1"))
        self.assertEqual(self.result(query), QueryResult(["n1"], {"n2": b"2", "n1": b"1"}, complete=True))

    def test_at_done_those_that_did_not_answer_are_missing(self) -> None:
        query, seq = self.ask_of("n3", "n1", "n2")
        self.send(seq, answer("n3", None, "ack"), answer("n1"), DONE)
        self.assertEqual(
            self.result(query), QueryResult(["n3"], {"n1": b""}, complete=False, missing=["n2", "n3"])
        )

    def test_the_answer_of_a_member_that_joins_meanwhile_is_taken_and_not_waited_for(self) -> None:
        query, seq = self.ask_of("n1", "n2")
        self.send(seq, answer("n1"), answer("n9"))
        self.assertNoResult(query.when_done())
        self.send(seq, answer("n2"))
        result = self.result(query)
        self.assertEqual((list(result.responses), result.missing), (["n1", "n9", "n2"], []))

    def test_one_that_nobody_is_asked_by_ends_as_soon_as_the_agent_has_taken_it(self) -> None:
        query, (read, asked) = self.ask(tags={"role": "none"})
        self.agent.reply(read.seq, members())
        self.assertNoResult(query.when_done())
        self.agent.reply(asked.seq)
        self.assertEqual(self.result(query), QueryResult(complete=True))

    def test_its_refusal_is_a_query_error_also_where_nobody_is_asked(self) -> None:
        query, (read, asked) = self.ask()
        self.agent.reply(read.seq, members())
        self.agent.reply(asked.seq, error="query exceeds limit of 1024 bytes")
        self.failureResultOf(query.when_done(), QueryError)

    def test_patterns_of_tags_are_sent_so_that_they_match_anywhere(self) -> None:
        _, (read, asked) = self.ask(tags={"role": "web|db", "dc": "^east"})
        patterns = {"role": "(?s:.*)(?:web|db)(?s:.*)", "dc": "(?s:.*)(?:^east)(?s:.*)"}
        self.assertEqual(read.body, {"Name": "", "Status": "alive", "Tags": patterns})
        assert asked.body is not None
        self.assertEqual(asked.body["FilterTags"], {"role": "web|db", "dc": "^east"})

    def test_only_the_nodes_that_it_names_are_read_and_those_that_are_not_alive_are_missing(self) -> None:
        query, (read, asked) = self.ask(nodes=["web.1", "ghost"])
        assert read.body is not None
        self.assertEqual(read.body["Name"], "(?:web\\.1|ghost)")
        self.agent.reply(read.seq, members("web.1", "other"))
        self.agent.reply(asked.seq)
        self.assertNoResult(query.when_done())
        self.send(asked.seq, answer("web.1"))
        self.assertEqual(
            self.result(query), QueryResult([], {"web.1": b""}, complete=False, missing=["ghost"])
        )

    def test_nodes_whose_names_may_be_no_patterns_are_picked_from_all_members(self) -> None:
        query, (read, asked) = self.ask(nodes=["é"])
        assert read.body is not None
        self.assertEqual(read.body["Name"], "")
        self.agent.reply(read.seq, members("n1", "é"))
        self.agent.reply(asked.seq)
        self.send(asked.seq, answer("é"))
        self.assertTrue(self.result(query).complete)

    def test_a_named_node_is_not_missing_where_its_tags_exclude_it(self) -> None:
        query, (selected, named, asked) = self.ask(nodes=["n1", "n2", "ghost"], tags={"role": "web"})
        assert selected.body is not None and named.body is not None
        self.assertEqual(
            [list(each.body) for each in (selected, named) if each.body], [["Tags", "Status", "Name"]] * 2
        )
        self.assertEqual((list(selected.body["Tags"]), named.body["Tags"]), (["role"], {}))
        self.agent.reply(selected.seq, members("n1"))
        self.agent.reply(named.seq, members("n1", "n2"))
        self.agent.reply(asked.seq)
        self.send(asked.seq, answer("n1"))
        self.assertEqual(self.result(query).missing, ["ghost"])

    def test_an_absent_node_that_answers_all_the_same_is_not_missing(self) -> None:
        query, seq = self.ask_of("n1", nodes=["n1", "n2"])
        self.send(seq, answer("n2"), answer("n1"))
        self.assertEqual(self.result(query), QueryResult([], {"n2": b"", "n1": b""}, complete=True))

    def test_without_expect_all_nobody_is_missing(self) -> None:
        query = self.serf.query("load", nodes=["ghost"], expect=2)
        seq = self.asked_one("query").seq
        self.agent.reply(seq)
        self.send(seq, DONE)
        self.assertEqual(self.result(query), QueryResult(complete=True))

    def test_a_filter_that_may_not_compile_goes_by_a_connection_of_its_own(self) -> None:
        query, (asked,) = self.ask(tags={"role": "[wd]"})
        self.agent.reply(asked.seq)
        self.send(asked.seq, answer("n1"), answer("n2"))
        lane = self.endpoint.accept_and_greet()
        self.assertNoResult(query.when_done())
        lane.reply(lane.asked_one("members-filtered").seq, members("n1", "n2"))
        self.assertTrue(self.result(query).complete)
        lane.finish_closing()

    def test_done_waits_for_the_members_where_they_are_read_by_another_connection(self) -> None:
        query, (asked,) = self.ask(tags={"role": "[wd]"})
        self.agent.reply(asked.seq)
        self.send(asked.seq, answer("n1"), DONE)
        self.assertNoResult(query.when_done())
        lane = self.endpoint.accept_and_greet()
        lane.reply(lane.asked_one("members-filtered").seq, members("n1", "n2"))
        self.assertEqual(self.result(query), QueryResult([], {"n1": b""}, complete=False, missing=["n2"]))
        lane.finish_closing()

    def test_one_that_waits_for_the_members_only_can_be_cancelled_and_times_out(self) -> None:
        for end, error in (
            (Query.cancel, CancelledError),
            (lambda _: self.clock.advance(10), RequestTimeout),
        ):
            query, (asked,) = self.ask(tags={"role": "[wd]"})
            self.agent.reply(asked.seq)
            self.send(asked.seq, DONE)
            end(query)
            self.failureResultOf(query.when_done(), error)

    def test_a_pattern_that_is_no_regular_expression_fails_it(self) -> None:
        query, (asked,) = self.ask(tags={"role": "("})
        done = query.when_done()
        self.agent.reply(asked.seq)
        for _ in range(2):
            self.assertNoResult(done)
            lane = self.endpoint.accept_and_greet()
            lane.asked_one("members-filtered")
            lane.lose()
        error = self.failureResultOf(done, RpcError).value
        self.assertIn("no regular expression", error.message)
        self.send(asked.seq, answer("n1"), DONE)

    def test_an_agent_that_refuses_to_list_its_members_fails_it_with_that_error(self) -> None:
        query, (read, asked) = self.ask()
        self.agent.reply(read.seq, error="no")
        error = self.failureResultOf(query.when_done(), RpcError).value
        self.assertEqual((error.command, error.message), ("members-filtered", "no"))
        self.agent.reply(asked.seq)
        self.send(asked.seq, answer("n1"), DONE)

    def test_a_list_of_members_that_can_not_be_read_fails_it(self) -> None:
        query, (read, _) = self.ask()
        self.agent.reply(read.seq, {"Members": 7})
        self.failureResultOf(query.when_done(), ProtocolError)

    def test_a_loss_fails_it_with_those_missing_so_far_and_nothing_is_asked_again(self) -> None:
        query, seq = self.ask_of("n1", "n2")
        done = query.when_done()
        self.send(seq, answer("n1"))
        self.reconnect()
        error = self.failureResultOf(done, ConnectionLost).value
        self.assertEqual(error.result, QueryResult([], {"n1": b""}, complete=False, missing=["n2"]))
        self.assertEqual(self.agent.asked(), [])

    def test_a_loss_before_the_members_are_known_ends_the_reading_of_them_too(self) -> None:
        query, _ = self.ask(nodes=["n1"], tags={"role": "web"})
        done = query.when_done()
        self.reconnect()
        self.assertEqual(self.failureResultOf(done, ConnectionLost).value.result, QueryResult())
        self.assertEqual(self.agent.asked(), [])

    def test_one_that_is_not_sent_yet_is_sent_with_its_reading_once_there_is_a_connection(self) -> None:
        self.reconnect(again=False)
        query = self.serf.query("load", expect="all")
        self.agent = self.endpoint.accept_and_greet()
        read, asked = self.agent.asked()
        self.agent.reply(read.seq, members("n1"))
        self.agent.reply(asked.seq)
        self.send(asked.seq, answer("n1"))
        self.assertTrue(self.result(query).complete)

    def test_without_an_answer_it_times_out_once(self) -> None:
        query, _ = self.ask()
        done = query.when_done()
        self.clock.advance(10)
        self.assertIn("query 'load'", str(self.failureResultOf(done, RequestTimeout).value))

    def test_cancelling_it_ends_the_reading_too(self) -> None:
        query, (read, asked) = self.ask()
        query.cancel()
        self.failureResultOf(query.when_done(), CancelledError)
        self.agent.reply(read.seq, members("n1"))
        self.agent.reply(asked.seq)
        self.send(asked.seq, answer("n1"), DONE)

    def test_a_callback_that_has_enough_ends_it_and_says_who_is_missing(self) -> None:
        def enough(item: object) -> None:
            raise StopReceiveData

        query, seq = self.ask_of("n1", "n2")
        query.add_callback(enough)
        self.send(seq, answer("n1"))
        self.assertEqual(self.result(query).missing, ["n2"])

    def test_its_readings_count_as_calls_under_way(self) -> None:
        self.patch(constant, "CALLS_LIMIT", 2)
        self.assertRaises(Overloaded, self.serf.query, "load", nodes=["n1"], tags={"a": "b"}, expect="all")
        self.assertEqual(self.agent.asked(), [])
        self.ask()

    def test_what_is_neither_a_number_nor_all_is_refused_at_the_call(self) -> None:
        for bad in ("ALL", "", 0, -1, True, 1.5, ["all"], b"all"):
            with self.assertRaises(InvalidRequest) as raised:
                self.serf.query("load", expect=bad)  # type: ignore[arg-type]  # the error is the point
            self.assertEqual(
                str(raised.exception), f"query: expect must be an int of at least 1, or 'all', not {bad!r}"
            )
        self.assertEqual(self.agent.asked(), [])
