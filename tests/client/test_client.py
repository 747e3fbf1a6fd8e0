"""The fluent API: commands chain and are sent together, and the request's Deferred fires once."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import tracemalloc
import warnings
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import (
    DONE,
    MEMBERS,
    NO_MEMBERS,
    Agent,
    Endpoint,
    Log,
    answer,
    body_of,
    header,
    reply,
    user_event,
)
from txserf import constant
from txserf.client.client import Client
from txserf.client.requests import Response, Responses
from txserf.commands import Command
from txserf.connection.hosts import Host
from txserf.connection.protocol import SerfProtocol
from txserf.connection.session import Session
from txserf.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    Disconnected,
    InvalidHostURL,
    InvalidRequest,
    Overloaded,
    ProtocolError,
    RequestTimeout,
    StopReceiveData,
)


class ClientCase(SynchronousTestCase):
    """A test with clients of two hosts in memory."""

    def setUp(self) -> None:
        # The tests must not use an address or a key from the environment they run in.
        self.patch(os, "environ", {n: v for n, v in os.environ.items() if not n.startswith("SERF_")})
        self.clock = Clock()
        self.hosts = [Endpoint(), Endpoint()]

    def client(self, hosts: Any = None, **settings: Any) -> Client:
        return Client(self.hosts if hosts is None else hosts, reactor=self.clock, **settings)

    def connected(self, hosts: Any = None, **settings: Any) -> tuple[Client, Agent]:
        """Return a client that is connected to the first agent, and the agent's end. The next Seq is 1."""
        client = self.client(hosts, **settings).connect()
        return client, self.hosts[0].accept_and_greet()

    def reason(
        self, waiting: Deferred[Any], kind: type[BaseException] | tuple[type[BaseException], ...]
    ) -> Any:
        """Return the error that *waiting* failed with."""
        return self.failureResultOf(waiting, *(kind if isinstance(kind, tuple) else (kind,))).value

    def disconnect(self, client: Client, *agents: Agent) -> None:
        """Disconnect, and check that no timer is left."""
        client.disconnect()
        for agent in agents:
            agent.finish_closing()
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ForgottenTests(ClientCase):
    """A client that is dropped with commands that were never requested."""

    def warnings(self, *uses: Callable[[Client], object]) -> list[str]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            client = self.client()
            for use in uses:
                use(client)
            del client
            gc.collect()
        return [str(each.message) for each in told]

    def test_it_warns_with_their_names_alone(self) -> None:
        told = self.warnings(lambda client: client.auth(AuthKey="s3cret").members(Name="x"))
        self.assertEqual(
            told, ["nothing was sent, for request() was not called behind: auth, members-filtered"]
        )

    def test_it_does_not_where_they_were_given_up(self) -> None:
        self.assertEqual(self.warnings(Client.members, Client.disconnect), [])

    def test_it_does_not_where_nothing_is_queued(self) -> None:
        self.assertEqual(self.warnings(), [])

    def test_it_does_not_where_the_client_was_never_made(self) -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self.assertRaises(InvalidHostURL, Client, "a:b:c")
            gc.collect()
        self.assertEqual(told, [])


class QueueTests(ClientCase):
    def test_every_method_returns_the_client(self) -> None:
        client = self.client()
        for chained in (
            client.handshake(),
            client.auth(AuthKey="k"),
            client.event(Name="e"),
            client.force_leave(Node="n"),
            client.join(Existing=["a"]),
            client.members(),
            client.members(Status="alive"),
            client.tags(),
            client.stream(),
            client.monitor(LogLevel="INFO"),
            client.stop(Stop=1),
            client.leave(),
            client.query(Name="q"),
            client.respond(ID=1),
            client.install_key(Key="k"),
            client.use_key(Key="k"),
            client.remove_key(Key="k"),
            client.list_keys(),
            client.stats(),
            client.get_coordinate(Node="n"),
            client.add_callback(print),
            client.disconnect(wait=True),
            client.connect(),
        ):
            self.assertIs(chained, client)

    def test_nothing_connects_before_a_request(self) -> None:
        self.client().members().stream().add_callback(print)
        self.assertEqual(self.hosts[0].attempts, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_is_sent_before_a_request(self) -> None:
        client, agent = self.connected()
        client.members().stats()
        self.assertEqual(agent.asked(), [])

    def test_a_batch_is_one_write_in_the_order_of_the_calls(self) -> None:
        client, agent = self.connected()
        before = len(agent.transport.writes)
        client.members().event(Name="e").stats().request()
        self.assertEqual(len(agent.transport.writes), before + 1)
        self.assertEqual(
            [(name, seq) for name, seq, _ in agent.asked()], [("members", 1), ("event", 2), ("stats", 3)]
        )

    def test_what_waited_for_the_connection_is_one_write_too(self) -> None:
        client = self.client()
        client.members().stats().request()
        client.event(Name="e").request()
        agent = self.hosts[0].accept_and_greet()
        self.assertEqual(len(agent.transport.writes), 2)
        self.assertEqual(agent.asked_names(), ["members", "stats", "event"])

    def test_a_request_connects_by_itself(self) -> None:
        self.client().members().request()
        self.assertEqual(self.hosts[0].attempts, 1)

    def test_a_request_of_nothing_fires_at_once_and_connects_to_nothing(self) -> None:
        responses = self.successResultOf(self.client().request())
        self.assertEqual(responses, [])
        self.assertTrue(responses.is_success)
        self.assertEqual(self.hosts[0].attempts, 0)

    def test_members_with_any_filter_is_members_filtered(self) -> None:
        client, agent = self.connected()
        client.members().members(Status="alive").members(Name="n1").members(Tags={"role": "web"}).request()
        asked = agent.asked()
        self.assertEqual([name for name, _, _ in asked], ["members"] + ["members-filtered"] * 3)
        self.assertEqual(body_of(asked[3]), {"Tags": {"role": "web"}, "Status": "", "Name": ""})

    def test_a_filter_with_an_alternation_is_sent_in_a_group_and_shown_as_it_was_given(self) -> None:
        client, agent = self.connected()
        answer = client.members(Name="a|b", Status="alive", Tags={"role": "web|dbx", "dc": "e.*"}).request()
        asked = agent.asked_one("members-filtered")
        self.assertEqual(
            body_of(asked),
            {"Tags": {"role": "(?:web|dbx)", "dc": "e.*"}, "Status": "alive", "Name": "(?:a|b)"},
        )
        agent.reply(asked.seq, {"Members": []})
        (response,) = self.successResultOf(answer)
        self.assertEqual(response.request.values["Name"], "a|b")

    def test_a_wrong_call_raises_at_the_call_and_queues_nothing(self) -> None:
        client, agent = self.connected()
        wrong: list[Callable[[], object]] = [
            lambda: client.event(),  # type: ignore[call-arg]  # as the others: what is tested
            lambda: client.event(name="e"),  # type: ignore[call-arg]
            lambda: client.event("e"),  # type: ignore[call-arg]
            lambda: client.event(Name=7),  # type: ignore[arg-type]
            lambda: client.event(Name="e", Payload=b"x" * 1025),
            lambda: client.event(Name="\ud800"),
            lambda: client.members("n1"),  # type: ignore[call-arg]
            lambda: client.members(Nmae="n1"),  # type: ignore[call-arg]
            lambda: client.members(Name=None),  # type: ignore[arg-type]
            lambda: client.query(Name="q", Timeout=5),
            lambda: client.stats(Node="n"),  # type: ignore[call-arg]
            lambda: client.handshake(Version=2),
        ]
        for call in wrong:
            self.assertRaises(InvalidRequest, call)
        client.request()
        self.assertEqual(agent.asked(), [])

    def test_an_argument_whose_letters_are_of_another_case_is_told_as_the_table_has_it(self) -> None:
        error = self.assertRaises(InvalidRequest, self.client().members, status="alive")
        self.assertEqual(str(error), "members-filtered: unknown argument 'status' (did you mean Status?)")

    def test_a_positional_argument_is_an_invalid_request(self) -> None:
        error = self.assertRaises(InvalidRequest, self.client().force_leave, "n1")
        self.assertIn("force-leave", str(error))

    def test_a_wrong_timeout_raises_at_the_call(self) -> None:
        client = self.client().members()
        timeouts: tuple[Any, ...] = (-1, "5", True, float("nan"), b"", [], -0.1)
        for timeout in timeouts:
            self.assertRaises(InvalidRequest, client.request, timeout=timeout)

    def test_a_refused_timeout_keeps_what_was_queued(self) -> None:
        client, agent = self.connected()
        client.members()
        self.assertRaises(InvalidRequest, client.request, timeout=-1)
        client.request()
        agent.asked_one("members")

    def test_wrong_settings_raise_at_once(self) -> None:
        self.assertRaises(InvalidHostURL, Client, "a:0")
        for settings in (
            {"connect_timeout": -1},
            {"connect_timeout": "5"},
            {"heartbeat": 0},
            {"heartbeat": "30"},
        ):
            self.assertRaises(InvalidRequest, self.client, **settings)

    def test_a_callback_without_a_command_is_refused(self) -> None:
        self.assertRaises(InvalidRequest, self.client().add_callback, print)

    def test_a_callback_that_cannot_be_called_is_refused(self) -> None:
        self.assertRaises(InvalidRequest, self.client().members().add_callback, None)


class ResponseTests(ClientCase):
    def test_responses_come_in_the_order_of_seq_whatever_the_order_of_replies(self) -> None:
        client, agent = self.connected()
        waiting = client.members().event(Name="e").stats().request()
        agent.send(reply(3, {}), header(2))
        self.assertNoResult(waiting)
        agent.send(reply(1, MEMBERS))
        responses = self.successResultOf(waiting)
        self.assertIsInstance(responses, Responses)
        self.assertEqual([response.seq for response in responses], [1, 2, 3])
        self.assertTrue(responses.is_success)

    def test_a_response_has_request_header_body_seq_and_error(self) -> None:
        client, agent = self.connected()
        waiting = client.members().request()
        agent.reply(1, MEMBERS)
        (response,) = self.successResultOf(waiting)
        self.assertEqual(response.request.command.wire, "members")
        self.assertEqual(response.header, {"Seq": 1, "Error": ""})
        self.assertEqual(response.body, MEMBERS)
        self.assertEqual((response.seq, response.error, response.is_success), (1, "", True))

    def test_an_error_is_a_response_and_not_a_failure(self) -> None:
        client, agent = self.connected()
        waiting = client.event(Name="e").members().request()
        agent.send(header(1, "too large"), reply(2, MEMBERS))
        responses = self.successResultOf(waiting)
        self.assertEqual([r.error for r in responses], ["too large", ""])
        self.assertEqual([r.is_success for r in responses], [False, True])
        self.assertFalse(responses.is_success)

    def test_a_join_is_a_success_from_one_address_on(self) -> None:
        client, agent = self.connected()
        waiting = client.join(Existing=["a", "b"]).join(Existing=[]).join(Existing=["a"]).request()
        agent.send(reply(1, {"Num": 1}), reply(2, {"Num": 0}), reply(3, {"Num": 0}, "1 error occurred"))
        self.assertEqual([r.is_success for r in self.successResultOf(waiting)], [True, False, False])

    def test_text_that_is_not_utf_8_is_kept_by_surrogateescape_and_binary_is_bytes(self) -> None:
        client, agent = self.connected()
        waiting = client.members().request()
        agent.reply(1, {"Members": [{"Name": "n\udcff", "Addr": b"\x7f\x00\x00\x01"}]})
        (response,) = self.successResultOf(waiting)
        self.assertEqual(response.body["Members"], [{"Name": "n\udcff", "Addr": b"\x7f\x00\x00\x01"}])

    def test_reprs_follow_the_wire_name(self) -> None:
        client, agent = self.connected()
        waiting = client.join(Existing=["127.0.0.1:7900"]).force_leave(Node="n1").request()
        agent.send(reply(1, {"Num": 1}), header(2))
        join, force_leave = self.successResultOf(waiting)
        self.assertEqual(
            repr(join),
            "<ResponseJoin: <RequestJoin: join, 1, {'Existing': ('127.0.0.1:7900',), 'Replay': False}>, "
            "{'Seq': 1, 'Error': ''}>",
        )
        self.assertEqual(
            repr(force_leave),
            "<ResponseForceLeave: <RequestForceLeave: force-leave, 2, {'Node': 'n1', 'Prune': False}>, "
            "{'Seq': 2, 'Error': ''}>",
        )

    def test_the_repr_of_a_record_is_that_of_a_stream_result(self) -> None:
        client, agent = self.connected()
        waiting = client.query(Name="q", RequestAck=False).request()
        agent.send(header(1), reply(1, DONE))
        (record,) = self.successResultOf(waiting)
        self.assertTrue(
            repr(record).startswith("<ResponseStreamResult: <RequestQuery: query, 1, {'Name': 'q', ")
        )

    def test_the_reprs_of_keys_are_blotted_out(self) -> None:
        client, agent = self.connected()
        waiting = client.install_key(Key="s3cret").use_key(Key="s3cret").remove_key(Key="s3cret").request()
        keys: dict[str, Any] = {"Messages": {}, "Keys": None, "NumNodes": 1, "NumErr": 0, "NumResp": 1}
        agent.send(reply(1, keys), reply(2, keys), reply(3, keys))
        shown = repr(self.successResultOf(waiting))
        self.assertNotIn("s3cret", shown)
        self.assertEqual(shown.count("{'Key': '***'}"), 3)

    def test_the_keys_of_an_agent_are_not_in_a_repr(self) -> None:
        client, agent = self.connected()
        waiting = client.list_keys().request()
        agent.reply(1, {"Messages": {}, "Keys": {"s3cret": 1}, "NumNodes": 1, "NumErr": 0, "NumResp": 1})
        responses = self.successResultOf(waiting)
        self.assertNotIn("s3cret", repr(responses))
        self.assertEqual(responses[0].body["Keys"], {"s3cret": 1})

    def test_two_requests_at_once_get_their_own(self) -> None:
        client, agent = self.connected()
        first, second = client.members().request(), client.stats().request()
        agent.reply(2, {})
        self.assertEqual([r.seq for r in self.successResultOf(second)], [2])
        agent.reply(1, MEMBERS)
        self.assertEqual([r.seq for r in self.successResultOf(first)], [1])


class TimeoutTests(ClientCase):
    def test_past_its_timeout_a_request_fails_with_what_did_arrive(self) -> None:
        client, agent = self.connected()
        waiting = client.members().event(Name="e").request(timeout=5)
        agent.reply(1, MEMBERS)
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        error = self.reason(waiting, RequestTimeout)
        self.assertEqual([response.seq for response in error.responses], [1])
        self.assertIn("event", str(error))
        self.assertNotIn("members", str(error))

    def test_it_is_a_timeout_error_of_python_too(self) -> None:
        waiting = self.connected()[0].members().request()
        self.clock.advance(2.1)
        self.assertIsInstance(self.reason(waiting, RequestTimeout), TimeoutError)

    def test_the_default_is_read_at_the_call(self) -> None:
        client, _ = self.connected()
        self.patch(constant, "DEFAULT_TIMEOUT", 7.0)
        waiting = client.members().request()
        self.clock.advance(6.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.reason(waiting, RequestTimeout)

    def test_late_replies_are_dropped_without_harm(self) -> None:
        client, agent = self.connected()
        log = Log(self)
        late = client.members().join(Existing=["a"]).request()
        self.clock.advance(2.1)
        self.reason(late, RequestTimeout)
        agent.send(reply(1, MEMBERS), reply(2, {"Num": 1}))
        again = client.stats().request()
        agent.reply(3, {})
        self.successResultOf(again)
        self.assertFalse(agent.closed_by_client)
        self.assertEqual(log.texts, [])

    def test_a_callback_that_never_ends_is_late_too(self) -> None:
        client, agent = self.connected()
        waiting = client.members().add_callback(lambda _: Deferred()).request(timeout=1)
        agent.reply(1, MEMBERS)
        self.clock.advance(1.1)
        error = self.reason(waiting, RequestTimeout)
        self.assertIn("callbacks of members", str(error))
        self.assertEqual([r.body for r in error.responses], [MEMBERS])

    def test_its_error_survives_copy_and_pickle_with_its_responses(self) -> None:
        client, agent = self.connected()
        waiting = client.members().event(Name="e").request(timeout=1)
        agent.reply(1, MEMBERS)
        self.clock.advance(1.1)
        error = self.reason(waiting, RequestTimeout)
        for twin in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
            self.assertEqual((str(twin), repr(twin.responses)), (str(error), repr(error.responses)))
            self.assertEqual(twin.responses[0].body, MEMBERS)

    def test_the_timeout_counts_the_time_that_it_takes_to_connect(self) -> None:
        waiting = self.client().members().request(timeout=1)
        self.clock.advance(1.1)
        self.reason(waiting, RequestTimeout)

    def test_what_timed_out_before_there_was_a_connection_is_not_sent(self) -> None:
        client = self.client()
        waiting = client.event(Name="e").request(timeout=1)
        self.clock.advance(1.1)
        self.reason(waiting, RequestTimeout)
        agent = self.hosts[0].accept_and_greet()
        self.assertEqual(agent.asked(), [])

    def test_a_timeout_without_a_connection_says_why_there_is_none(self) -> None:
        client = self.client(auto_reconnect=True)
        waiting = client.members().request(timeout=3)
        for host in self.hosts:
            host.refuse()
        self.clock.advance(3.1)
        self.assertIn("refused", str(self.reason(waiting, RequestTimeout)))

    def test_a_request_under_way_does_not_know_of_the_next_ones_timeout(self) -> None:
        client, agent = self.connected()
        slow, quick = client.members().request(timeout=60), client.stats().request(timeout=1)
        self.clock.advance(1.1)
        self.reason(quick, RequestTimeout)
        agent.reply(1, MEMBERS)
        self.successResultOf(slow)

    def test_a_cancelled_request_leaves_the_connection_good(self) -> None:
        client, agent = self.connected()
        waiting = client.members().stream().request()
        waiting.cancel()
        self.reason(waiting, CancelledError)
        self.assertEqual([(n, b) for n, _, b in agent.asked()][2:], [("stop", {"Stop": 2})])
        agent.send(reply(1, MEMBERS), header(2), reply(2, user_event()), header(3), reply(2, user_event()))
        again = client.stats().request()
        agent.reply(4, {})
        self.successResultOf(again)

    def test_a_request_cancelled_before_there_was_a_connection_is_not_sent(self) -> None:
        client = self.client()
        waiting = client.event(Name="e").request()
        waiting.cancel()
        self.reason(waiting, CancelledError)
        self.assertEqual(self.hosts[0].accept_and_greet().asked(), [])

    def test_an_answered_request_leaves_no_timer_after_the_end(self) -> None:
        client, agent = self.connected()
        waiting = client.members().request(timeout=100)
        agent.reply(1, MEMBERS)
        self.successResultOf(waiting)
        self.disconnect(client, agent)


class CollectingTests(ClientCase):
    def test_a_stream_collects_until_the_timeout_and_is_stopped(self) -> None:
        client, agent = self.connected()
        waiting = client.stream().request(timeout=3)
        agent.asked()
        agent.send(header(1), reply(1, user_event("a")), reply(1, user_event("b")))
        self.clock.advance(2.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        responses = self.successResultOf(waiting)
        self.assertEqual([response.body["Name"] for response in responses], ["a", "b"])
        self.assertEqual(agent.asked_one("stop").body, {"Stop": 1})
        agent.send(reply(1, user_event("c")), header(2), reply(1, user_event("c")))
        self.assertEqual(len(responses), 2)

    def test_a_stream_that_was_never_opened_is_late(self) -> None:
        client = self.client(auto_reconnect=True)
        waiting = client.stream().request(timeout=3)
        self.clock.advance(3.1)
        self.assertIn("no answer to stream within 3", str(self.reason(waiting, RequestTimeout)))

    def test_streams_that_were_collected_take_no_memory_for_long(self) -> None:
        client, agent = self.connected(heartbeat=None)

        def collect(times: int) -> int:
            for _ in range(times):
                waiting = client.stream().request(timeout=1.0)
                seq = agent.asked_one("stream").seq
                agent.send(header(seq), reply(seq, user_event()))
                self.clock.advance(1.0)
                self.assertEqual(len(self.successResultOf(waiting)), 1)
                agent.send(header(agent.asked_one("stop").seq), reply(seq, user_event()))
                agent.forget_what_was_asked()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            few, some, many = collect(200), collect(1500), collect(1500)
        finally:
            tracemalloc.stop()
        self.assertLess(some - few, 150_000)
        self.assertLess(many - some, 20_000)

    def test_a_streams_callback_that_never_ends_does_not_outlast_the_timeout(self) -> None:
        client, agent = self.connected()
        waiting = client.stream().add_callback(lambda _: Deferred()).stats().request(timeout=3)
        agent.send(header(1), reply(1, user_event("a")), reply(2, {}))
        self.clock.advance(3.1)
        self.assertEqual(len(self.successResultOf(waiting)), 2)

    def test_a_monitor_does_likewise(self) -> None:
        client, agent = self.connected()
        waiting = client.monitor(LogLevel="DEBUG").request()
        agent.send(header(1), reply(1, {"Log": "a line"}))
        self.clock.advance(2.1)
        self.assertEqual([r.body for r in self.successResultOf(waiting)], [{"Log": "a line"}])

    def test_a_refused_stream_is_a_response_at_once(self) -> None:
        client, agent = self.connected()
        waiting = client.stream(Type="nonsense").request()
        agent.reply(1, error="Invalid event filter")
        (response,) = self.successResultOf(waiting)
        self.assertEqual(response.error, "Invalid event filter")

    def test_what_else_was_asked_is_due_within_the_timeout_all_the_same(self) -> None:
        client, agent = self.connected()
        waiting = client.stream().members().request()
        agent.send(header(1), reply(1, user_event()))
        self.clock.advance(2.1)
        error = self.reason(waiting, RequestTimeout)
        self.assertEqual(len(error.responses), 1)
        self.assertEqual(agent.asked_names()[-1], "stop")

    def test_a_query_is_awaited_until_done_however_long(self) -> None:
        client, agent = self.connected()
        waiting = client.query(Name="q").request()
        agent.send(header(1), reply(1, answer("n1", None, "ack")), reply(1, answer("n1", b"x")))
        self.clock.advance(25)
        self.assertNoResult(waiting)
        agent.reply(1, DONE)
        bodies = [response.body for response in self.successResultOf(waiting)]
        self.assertEqual([body["Type"] for body in bodies], ["ack", "response", "done"])

    def test_commands_over_the_limit_of_calls_raise_and_are_dropped(self) -> None:
        self.patch(constant, "CALLS_LIMIT", 2)
        client, agent = self.connected()
        agent.asked()
        with self.assertRaises(Overloaded):
            client.members().event(Name="e").stats().request()
        waiting = client.members().event(Name="e").request()
        with self.assertRaises(Overloaded):
            client.stats().request()
        self.assertEqual(agent.asked_names(), ["members", "event"])
        agent.send(reply(1, MEMBERS), reply(2))
        self.successResultOf(waiting)
        again = client.stats().request()
        agent.reply(agent.asked_one("stats").seq, {})
        self.successResultOf(again)

    def test_a_query_that_finds_no_agent_fails_past_the_default_timeout(self) -> None:
        client = self.client(auto_reconnect=True)
        waiting = client.query(Name="q").request()
        for host in self.hosts:
            host.refuse()
        self.clock.advance(constant.DEFAULT_TIMEOUT)
        error = self.reason(waiting, RequestTimeout)
        self.assertIn("query", str(error))
        self.assertIn("no connection", str(error))
        self.hosts[0].accept_and_greet()
        self.assertEqual(self.hosts[0].agents[-1].asked(), [])

    def test_a_query_whose_reply_never_comes_fails_past_the_default_timeout(self) -> None:
        client, agent = self.connected()
        waiting = client.query(Name="q").request()
        self.clock.advance(constant.DEFAULT_TIMEOUT)
        self.reason(waiting, RequestTimeout)
        agent.send(header(1), reply(1, answer("n1", b"x")), reply(1, DONE))
        self.assertFalse(agent.closed_by_client)

    def test_a_query_with_a_timeout_fails_past_it(self) -> None:
        client, agent = self.connected()
        waiting = client.query(Name="q").request(timeout=1)
        agent.send(header(1), reply(1, answer("n1", b"x")))
        self.clock.advance(1.1)
        error = self.reason(waiting, RequestTimeout)
        self.assertEqual([r.body["From"] for r in error.responses], ["n1"])
        agent.send(reply(1, answer("n2", b"x")), reply(1, DONE))
        self.assertFalse(agent.closed_by_client)

    def test_a_querys_noise_is_dropped(self) -> None:
        client, agent = self.connected()
        waiting = client.query(Name="q").request()
        agent.send(
            header(1), reply(1, answer("")), reply(1, answer("n1")), reply(1, answer("")), reply(1, DONE)
        )
        self.assertEqual([r.body["From"] for r in self.successResultOf(waiting)], ["n1", ""])

    def test_a_refused_query_is_a_response(self) -> None:
        client, agent = self.connected()
        waiting = client.query(Name="_serf_x").request()
        agent.reply(1, error="Queries cannot contain the '_serf_' prefix")
        (response,) = self.successResultOf(waiting)
        self.assertFalse(response.is_success)

    def test_a_query_among_others_keeps_the_order_of_seq(self) -> None:
        client, agent = self.connected()
        waiting = client.query(Name="q").members().request()
        agent.send(header(1), reply(2, MEMBERS), reply(1, answer("n1")), reply(1, DONE))
        self.assertEqual([r.seq for r in self.successResultOf(waiting)], [1, 1, 2])


class CallbackTests(ClientCase):
    def test_callbacks_belong_to_the_last_command(self) -> None:
        client, agent = self.connected()
        seen: list[tuple[str, int]] = []
        client.members().add_callback(lambda r: seen.append(("members", r.seq)))
        client.stats().add_callback(lambda r: seen.append(("stats", r.seq)))
        waiting = client.request()
        agent.send(reply(2, {}), reply(1, MEMBERS))
        self.assertEqual(seen, [("stats", 2), ("members", 1)])
        self.successResultOf(waiting)

    def test_several_get_each_response_in_order(self) -> None:
        client, agent = self.connected()
        seen: list[str] = []
        client.members().add_callback(lambda r: seen.append("a"), lambda r: seen.append("b"))
        client.add_callback(lambda r: seen.append("c")).request()
        agent.reply(1, MEMBERS)
        self.assertEqual(seen, ["a", "b", "c"])

    def test_a_callback_gets_the_reply_and_each_record(self) -> None:
        client, agent = self.connected()
        seen: list[Response] = []
        client.stream().add_callback(seen.append).request()
        agent.send(header(1), reply(1, user_event("a")), reply(1, user_event("b")))
        self.assertEqual([type(r).__name__ for r in seen], ["ResponseStream", *["ResponseStreamResult"] * 2])
        self.assertEqual([r.body and r.body["Name"] for r in seen], [None, "a", "b"])

    def test_a_callback_gets_an_error_too(self) -> None:
        client, agent = self.connected()
        seen: list[str] = []
        client.event(Name="e").add_callback(lambda r: seen.append(r.error)).request()
        agent.reply(1, error="no")
        self.assertEqual(seen, ["no"])

    def test_the_next_function_and_the_next_record_wait_for_a_deferred(self) -> None:
        client, agent = self.connected()
        seen: list[str] = []
        gates: list[Deferred[None]] = []

        def wait(response: Response) -> Deferred[None]:
            seen.append(f"first {response.body and response.body['Name']}")
            gates.append(Deferred())
            return gates[-1]

        client.stream().add_callback(wait, lambda r: seen.append("second")).watch()
        agent.send(header(1), reply(1, user_event("a")))
        self.assertEqual(seen, ["first None"])
        gates[0].callback(None)
        self.assertEqual(seen, ["first None", "second", "first a"])

    def test_they_wait_for_a_coroutine(self) -> None:
        client, agent = self.connected()
        gate: Deferred[None] = Deferred()
        seen: list[str] = []

        async def wait(response: Response) -> None:
            seen.append("begun")
            await gate
            seen.append("ended")

        waiting = client.members().add_callback(wait, lambda r: seen.append("next")).request()
        agent.reply(1, MEMBERS)
        self.assertEqual(seen, ["begun"])
        self.assertNoResult(waiting)
        gate.callback(None)
        self.assertEqual(seen, ["begun", "ended", "next"])
        self.successResultOf(waiting)

    def test_another_streams_records_do_not_wait(self) -> None:
        client, agent = self.connected()
        seen: list[int] = []
        client.stream().add_callback(lambda r: Deferred()).stream().add_callback(
            lambda r: seen.append(r.seq)
        ).watch()
        agent.send(header(1), header(2), reply(1, user_event()), reply(2, user_event()))
        self.assertEqual(seen, [2, 2])

    def test_an_exception_fails_the_request_and_the_connection_stays_good(self) -> None:
        client, agent = self.connected()
        seen: list[object] = []

        def broken(response: Response) -> None:
            raise RuntimeError("a mistake")

        waiting = client.members().add_callback(broken, seen.append).request()
        agent.reply(1, MEMBERS)
        self.reason(waiting, RuntimeError)
        self.assertEqual(seen, [])
        again = client.stats().request()
        agent.reply(2, {})
        self.successResultOf(again)

    def test_a_failed_deferred_and_a_failed_coroutine_fail_it_too(self) -> None:
        async def broken(response: Response) -> None:
            raise RuntimeError("a mistake")

        async def broken_later(response: Response) -> None:
            await gate
            raise RuntimeError("a mistake")

        def fail(_: object) -> None:
            raise ZeroDivisionError

        def broken_deferred(response: Response) -> Deferred[None]:
            return gate.addCallback(fail)

        callbacks: list[tuple[Any, type[Exception]]] = [
            (broken, RuntimeError),
            (broken_later, RuntimeError),
            (broken_deferred, ZeroDivisionError),
        ]
        for callback, kind in callbacks:
            gate: Deferred[None] = Deferred()
            client, agent = self.connected()
            waiting = client.members().add_callback(callback).request()
            agent.reply(1, MEMBERS)
            gate.callback(None)
            self.reason(waiting, kind)

    def test_a_stream_whose_callback_failed_is_stopped_and_the_connection_stays_good(self) -> None:
        client, agent = self.connected()
        seen: list[object] = []

        def broken(response: Response) -> None:
            seen.append(response)
            if response.body:
                raise RuntimeError("a mistake")

        waiting = client.stream().add_callback(broken).watch()
        agent.asked()
        agent.send(header(1), reply(1, user_event()), reply(1, user_event()))
        self.reason(waiting, RuntimeError)
        self.assertEqual(len(seen), 2)
        self.assertEqual(agent.asked_one("stop").body, {"Stop": 1})
        agent.send(reply(1, user_event()), header(2), reply(1, user_event()))
        self.assertFalse(agent.closed_by_client)

    def test_a_watch_whose_callback_calls_sys_exit_fails_with_that(self) -> None:
        for mistake in (SystemExit, asyncio.CancelledError):
            client, agent = self.connected()

            def broken(response: Response, mistake: type[BaseException] = mistake) -> None:
                raise mistake

            waiting = client.stream().add_callback(broken).watch()
            agent.reply(agent.asked_one("stream").seq)
            self.assertIsInstance(self.failureResultOf(waiting).value, mistake)
            self.assertFalse(agent.closed_by_client)

    def test_a_callback_may_ask_the_same_client(self) -> None:
        client, agent = self.connected()
        inner: list[Deferred[Responses]] = []

        def ask(response: Response) -> Deferred[Responses]:
            inner.append(client.stats().request())
            return inner[0]

        waiting = client.members().add_callback(ask).request()
        agent.asked()
        agent.reply(1, MEMBERS)
        self.assertNoResult(waiting)
        agent.reply(agent.asked_one("stats").seq, {})
        self.successResultOf(waiting)

    def test_no_callback_runs_inside_another_ones_stack(self) -> None:
        client, agent = self.connected()
        events: list[str] = []

        def outer(response: Response) -> None:
            events.append("outer begins")
            client.handshake().add_callback(lambda r: events.append("inner")).request()
            events.append("outer ends")

        client.members().add_callback(outer).request()
        agent.reply(1, MEMBERS)
        self.clock.advance(0)
        self.assertEqual(events, ["outer begins", "outer ends", "inner"])

    def test_a_callback_that_fails_after_its_request_was_over_is_logged(self) -> None:
        client, agent = self.connected()
        gate: Deferred[None] = Deferred()
        waiting = client.members().add_callback(lambda r: gate).stats().request(timeout=1)
        agent.reply(1, MEMBERS)
        self.clock.advance(1.1)
        self.reason(waiting, RequestTimeout)
        gate.errback(RuntimeError("a mistake"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_records_for_a_callback_that_is_too_slow_are_dropped_and_counted_in_the_log(self) -> None:
        self.patch(constant, "STREAM_BUFFER", 2)
        client, agent = self.connected()
        log = Log(self)
        seen: list[int] = []
        gate: Deferred[None] = Deferred()

        def slow(response: Response) -> Deferred[None] | None:
            if response.body is None:
                return gate
            seen.append(response.body["LTime"])
            return None

        waiting = client.stream().add_callback(slow).watch()
        agent.send(header(1), *(reply(1, user_event(ltime=number)) for number in range(5)))
        self.assertEqual(log.texts, ["records of stream are being dropped: its callbacks are too slow"])
        gate.callback(None)
        self.assertEqual(seen, [3, 4])
        waiting.cancel()
        self.reason(waiting, CancelledError)
        self.assertTrue(any("3 records of stream" in text for text in log.texts), log.texts)


class WatchTests(ClientCase):
    def test_it_runs_without_a_timeout(self) -> None:
        client, agent = self.connected(heartbeat=None)
        waiting = client.stream().watch()
        agent.reply(1)
        self.clock.advance(100_000)
        self.assertNoResult(waiting)

    def test_stop_receive_data_ends_it_with_the_first_replies(self) -> None:
        client, agent = self.connected()
        seen: list[object] = []

        def enough(response: Response) -> None:
            seen.append(response)
            if response.body:
                raise StopReceiveData

        waiting = client.stream().add_callback(enough).watch()
        agent.asked()
        agent.send(header(1), reply(1, user_event()), reply(1, user_event()))
        (first,) = self.successResultOf(waiting)
        self.assertEqual(type(first).__name__, "ResponseStream")
        self.assertEqual(len(seen), 2)
        self.assertEqual(agent.asked_one("stop").body, {"Stop": 1})

    def test_after_it_the_connection_is_good_whatever_still_comes(self) -> None:
        client, agent = self.connected()

        def enough(response: Response) -> None:
            raise StopReceiveData

        waiting = client.stream().add_callback(enough).watch()
        agent.reply(1)
        self.successResultOf(waiting)
        agent.send(reply(1, user_event()), header(2), reply(1, user_event()))
        again = client.members().request()
        agent.reply(3, MEMBERS)
        self.successResultOf(again)

    def test_stop_receive_data_in_a_coroutine_ends_it_too(self) -> None:
        client, agent = self.connected()
        gate: Deferred[None] = Deferred()

        async def enough(response: Response) -> None:
            await gate
            raise StopReceiveData

        waiting = client.stream().add_callback(enough).watch()
        agent.asked()
        agent.reply(1)
        gate.callback(None)
        self.successResultOf(waiting)
        agent.asked_one("stop")

    def test_stop_receive_data_under_request_ends_it_with_what_was_collected(self) -> None:
        client, agent = self.connected()

        def enough(response: Response) -> None:
            if response.body:
                raise StopReceiveData

        waiting = client.stream().add_callback(enough).request()
        agent.send(header(1), reply(1, user_event("a")))
        self.assertEqual([r.body["Name"] for r in self.successResultOf(waiting)], ["a"])

    def test_a_stop_of_its_seq_ends_it(self) -> None:
        client, agent = self.connected()
        seen: list[Response] = []
        waiting = client.stream().add_callback(seen.append).watch()
        agent.reply(1)
        stopping = client.stop(Stop=seen[0].seq).request()
        agent.send(reply(1, user_event("a")), header(2), reply(1, user_event("b")))
        self.successResultOf(stopping)
        self.assertEqual([type(r).__name__ for r in self.successResultOf(waiting)], ["ResponseStream"])
        self.assertEqual(len(seen), 2)

    def test_it_ends_once_all_its_streams_are_stopped(self) -> None:
        client, agent = self.connected()
        waiting = client.stream().monitor(LogLevel="INFO").watch()
        agent.send(header(1), header(2))
        client.stop(Stop=1).stop(Stop=2).request()
        agent.reply(3)
        self.assertNoResult(waiting)
        agent.reply(4)
        self.assertEqual([r.seq for r in self.successResultOf(waiting)], [1, 2])

    def test_a_refused_stream_ends_it(self) -> None:
        client, agent = self.connected()
        waiting = client.stream(Type="nonsense").watch()
        agent.reply(1, error="Invalid event filter")
        self.assertFalse(self.successResultOf(waiting).is_success)

    def test_a_loss_without_auto_reconnect_ends_it(self) -> None:
        client, agent = self.connected()
        waiting = client.stream().watch()
        agent.reply(1)
        agent.lose()
        self.reason(waiting, ConnectionLost)

    def test_disconnect_ends_it(self) -> None:
        client, agent = self.connected(auto_reconnect=True)
        waiting = client.stream().watch()
        agent.reply(1)
        self.disconnect(client, agent)
        self.assertIs(type(self.reason(waiting, Disconnected)), Disconnected)

    def test_it_does_not_keep_the_records(self) -> None:
        client, agent = self.connected()
        waiting = client.stream().watch()
        agent.send(header(1), *[reply(1, user_event())] * 10)
        client.stop(Stop=1).request()
        agent.reply(2)
        self.assertEqual(len(self.successResultOf(waiting)), 1)

    def test_a_query_in_it_contributes_its_records(self) -> None:
        client, agent = self.connected()
        waiting = client.query(Name="q").watch()
        agent.send(header(1), reply(1, answer("n1")), reply(1, DONE))
        self.assertEqual([r.body["Type"] for r in self.successResultOf(waiting)], ["response", "done"])


class ChunkTests(ClientCase):
    """Records that come in one piece, of a stream whose records have come before."""

    def watch(self, at: str, do: Callable[[], object], **how: Any) -> tuple[Deferred[Responses], Agent]:
        """Watch a stream with a callback that keeps names, and calls *do* at the record *at*."""
        self.got: list[str] = []

        def take(response: Response) -> object:
            self.got.append(response.body["Name"] if response.body else "opened")
            return do() if self.got[-1] == at else None

        client, agent = self.connected(**how)
        self.watcher = client
        waiting = client.stream().add_callback(take).request(watch=True)
        agent.asked()
        agent.reply(1)
        agent.reply(1, user_event("first"))
        del self.got[:]
        return waiting, agent

    def come(self, agent: Agent, *names: str) -> None:
        agent.send(*(reply(1, user_event(name)) for name in names))

    def test_stop_receive_data_in_the_middle_ends_it(self) -> None:
        def enough() -> None:
            raise StopReceiveData

        waiting, agent = self.watch("b", enough)
        self.come(agent, "a", "b", "c")
        self.successResultOf(waiting)
        self.assertEqual(self.got, ["a", "b"])
        self.assertEqual(agent.asked_one("stop").body, {"Stop": 1})

    def test_a_callback_that_raises_in_the_middle_fails_it(self) -> None:
        def raises() -> None:
            raise RuntimeError("a mistake")

        waiting, agent = self.watch("b", raises)
        self.come(agent, "a", "b", "c")
        self.failureResultOf(waiting, RuntimeError)
        self.assertEqual(self.got, ["a", "b"])

    def test_the_others_wait_for_a_deferred(self) -> None:
        gate: Deferred[None] = Deferred()
        waiting, agent = self.watch("b", lambda: gate)
        self.come(agent, "a", "b", "c", "d")
        self.assertEqual(self.got, ["a", "b"])
        gate.callback(None)
        self.assertEqual(self.got, ["a", "b", "c", "d"])
        self.assertNoResult(waiting)

    def test_past_the_buffer_the_oldest_of_them_goes(self) -> None:
        self.patch(constant, "STREAM_BUFFER", 2)
        log = Log(self)
        gate: Deferred[None] = Deferred()
        _, agent = self.watch("b", lambda: gate)
        self.come(agent, "a", "b", "c", "d", "e")
        gate.callback(None)
        self.assertEqual(self.got, ["a", "b", "d", "e"])
        self.assertEqual(len([text for text in log.texts if "being dropped" in text]), 1)

    def test_a_cancel_in_the_middle_ends_it(self) -> None:
        waiting, agent = self.watch("b", lambda: waiting.cancel())
        self.come(agent, "a", "b", "c")
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.got, ["a", "b"])

    def test_a_disconnect_in_the_middle_ends_it(self) -> None:
        _, agent = self.watch("b", lambda: self.watcher.disconnect().request())
        self.come(agent, "a", "b", "c")
        self.assertEqual(self.got, ["a", "b"])

    def test_a_loss_in_the_middle_ends_them(self) -> None:
        waiting, agent = self.watch("b", lambda: agent.lose())
        self.come(agent, "a", "b", "c")
        self.failureResultOf(waiting, ConnectionLost)
        self.assertEqual(self.got, ["a", "b"])

    def test_a_request_collects_them(self) -> None:
        client, agent = self.connected()
        seen: list[Response] = []
        plain, called = (
            client.stream().request(timeout=1),
            client.stream().add_callback(seen.append).request(timeout=1),
        )
        for seq in (1, 2):
            agent.reply(seq)
            agent.reply(seq, user_event("first"))
            agent.send(*(reply(seq, user_event(name)) for name in "abc"))
        self.clock.advance(1)
        for waiting in (plain, called):
            responses = self.successResultOf(waiting)
            self.assertEqual([r.body["Name"] for r in responses], ["first", "a", "b", "c"])
        self.assertEqual(seen[1:], [*responses])


class LossWithoutReconnectTests(ClientCase):
    def test_a_loss_ends_what_was_in_flight(self) -> None:
        client, agent = self.connected()
        reads, writes = client.members().request(), client.event(Name="e").request()
        agent.lose()
        for waiting in (reads, writes):
            self.assertTrue(self.reason(waiting, ConnectionLost).host)

    def test_it_does_not_connect_again_by_itself(self) -> None:
        _, agent = self.connected()
        agent.lose()
        self.clock.advance(100)
        self.assertEqual([host.attempts for host in self.hosts], [1, 0])

    def test_the_next_request_starts_afresh_with_the_next_host(self) -> None:
        client, agent = self.connected()
        agent.lose()
        waiting = client.members().request()
        agent = self.hosts[1].accept_and_greet()
        agent.reply(agent.asked_one("members").seq, MEMBERS)
        self.successResultOf(waiting)

    def test_a_request_made_inside_the_loss_starts_afresh_too(self) -> None:
        client, agent = self.connected()
        again: list[Deferred[Responses]] = []
        client.members().request().addErrback(lambda _: again.append(client.members().request()))
        agent.lose()
        agent = self.hosts[1].accept_and_greet()
        agent.reply(agent.asked_one("members").seq, MEMBERS)
        self.successResultOf(again[0])

    def test_there_is_one_round_for_a_connection(self) -> None:
        waiting = self.client().members().request()
        self.hosts[0].refuse()
        self.assertNoResult(waiting)
        self.hosts[1].refuse()
        error = self.reason(waiting, ConnectError)
        self.assertEqual(len(error.failures), 2)
        self.clock.advance(100)
        self.assertEqual([host.attempts for host in self.hosts], [1, 1])

    def test_after_a_round_that_failed_the_next_request_has_another(self) -> None:
        client = self.client()
        waiting = client.members().request()
        for host in self.hosts:
            host.refuse()
        self.reason(waiting, ConnectError)
        waiting = client.members().request()
        agent = self.hosts[0].accept_and_greet()
        agent.reply(agent.asked_one("members").seq, MEMBERS)
        self.successResultOf(waiting)

    def test_all_that_wait_for_a_round_get_its_error_each_its_own(self) -> None:
        client = self.client()
        first, second = client.members().request(), client.stats().request()
        for host in self.hosts:
            host.refuse()
        self.assertIsNot(self.reason(first, ConnectError), self.reason(second, ConnectError))


class ReconnectTests(ClientCase):
    def setUp(self) -> None:
        super().setUp()
        self.client_, self.agent = self.connected(auto_reconnect=True)
        self.clock.advance(10)

    def lose(self) -> Agent:
        """Lose the agent, and return the next one's end."""
        self.agent.lose()
        return self.hosts[1].accept_and_greet()

    def test_a_loss_is_followed_by_the_next_host_at_once(self) -> None:
        self.agent.lose()
        self.assertEqual(self.hosts[1].attempts, 1)

    def test_a_command_that_reads_is_sent_again_with_the_same_seq(self) -> None:
        waiting = self.client_.members().request()
        asked = self.agent.asked_one("members")
        agent = self.lose()
        self.assertEqual(agent.asked_one("members").seq, asked.seq)
        agent.reply(asked.seq, MEMBERS)
        self.assertEqual([r.seq for r in self.successResultOf(waiting)], [asked.seq])

    def test_a_command_that_changes_something_fails_and_is_never_sent_twice(self) -> None:
        changes: list[Callable[[Client], Client]] = [
            lambda c: c.event(Name="e"),
            lambda c: c.force_leave(Node="n"),
            lambda c: c.join(Existing=["a"]),
            lambda c: c.tags(Tags={"a": "b"}),
            lambda c: c.leave(),
            lambda c: c.query(Name="q"),
            lambda c: c.respond(ID=1),
            lambda c: c.install_key(Key="k"),
            lambda c: c.use_key(Key="k"),
            lambda c: c.remove_key(Key="k"),
        ]
        waiting = [queue(self.client_).request() for queue in changes]
        agent = self.lose()
        for call in waiting:
            self.reason(call, ConnectionLost)
        self.assertEqual(agent.asked(), [])

    def test_a_query_that_was_replied_to_fails_too(self) -> None:
        waiting = self.client_.query(Name="q").request()
        self.agent.send(header(1), reply(1, answer("n1")))
        agent = self.lose()
        self.reason(waiting, ConnectionLost)
        self.assertEqual(agent.asked(), [])

    def test_a_batch_with_a_change_fails_as_one_and_nothing_of_it_is_sent_again(self) -> None:
        waiting = self.client_.members().event(Name="e").request()
        agent = self.lose()
        self.reason(waiting, ConnectionLost)
        self.assertEqual(agent.asked(), [])

    def test_a_batch_whose_change_was_answered_goes_on(self) -> None:
        waiting = self.client_.event(Name="e").members().request()
        self.agent.reply(1)
        agent = self.lose()
        self.assertEqual(agent.asked_names(), ["members"])
        agent.reply(2, MEMBERS)
        self.assertEqual(len(self.successResultOf(waiting)), 2)

    def test_a_stream_is_opened_again_with_the_same_seq_and_its_callbacks_are_told(self) -> None:
        seen: list[Response] = []
        waiting = self.client_.stream(Type="user").add_callback(seen.append).watch()
        asked = self.agent.asked_one("stream")
        self.agent.send(header(asked.seq), reply(asked.seq, user_event("a")))
        agent = self.lose()
        again = agent.asked_one("stream")
        self.assertEqual(again, asked)
        agent.send(header(asked.seq), reply(asked.seq, user_event("b")))
        self.assertEqual(
            [(type(r).__name__, r.body and r.body["Name"]) for r in seen],
            [
                ("ResponseStream", None),
                ("ResponseStreamResult", "a"),
                ("ResponseStream", None),
                ("ResponseStreamResult", "b"),
            ],
        )
        self.assertNoResult(waiting)

    def test_a_watch_that_was_opened_again_has_its_first_reply_once(self) -> None:
        waiting = self.client_.stream().watch()
        self.agent.reply(1)
        agent = self.lose()
        agent.reply(1)
        self.client_.stop(Stop=1).request()
        agent.reply(agent.asked()[-1].seq)
        self.assertEqual(len(self.successResultOf(waiting)), 1)

    def test_a_watch_that_an_agent_has_passed_over_is_asked_for_again_on_another_connection(self) -> None:
        seen: list[str] = []
        waiting = self.client_.stream().add_callback(lambda r: seen.append(type(r).__name__)).watch()
        self.agent.asked()
        self.clock.advance(30)
        self.agent.reply(self.agent.asked_one("stop").seq)
        self.agent.finish_closing()
        self.clock.advance(1)
        agent = self.hosts[1].accept_and_greet()
        agent.reply(agent.asked_one("stream").seq)
        agent.reply(1, user_event())
        self.assertEqual(seen, ["ResponseStream", "ResponseStreamResult"])
        self.assertNoResult(waiting)

    def test_a_stopped_stream_is_not_opened_again(self) -> None:
        waiting = self.client_.stream().watch()
        self.agent.reply(1)
        self.client_.stop(Stop=1).request()
        self.agent.reply(2)
        self.successResultOf(waiting)
        self.assertEqual(self.lose().asked(), [])

    def test_a_stream_of_a_seq_that_was_stopped_in_vain_is_stopped_on_the_next_connection(self) -> None:
        waiting = self.client_.stream().watch()
        self.agent.reply(1)
        stopping = self.client_.stop(Stop=1).request()
        agent = self.lose()
        self.assertEqual(agent.asked_names(), ["stream", "stop"])
        agent.send(header(1), header(2))
        self.successResultOf(stopping)
        self.successResultOf(waiting)

    def test_calls_made_meanwhile_wait_for_the_connection(self) -> None:
        self.agent.lose()
        waiting = self.client_.event(Name="e").request()
        self.hosts[1].refuse()
        agent = self.hosts[0].accept_and_greet()
        agent.reply(agent.asked_one("event").seq)
        self.successResultOf(waiting)

    def test_they_wait_within_their_own_timeout(self) -> None:
        self.agent.lose()
        short, long = self.client_.members().request(timeout=1), self.client_.stats().request(timeout=4)
        self.clock.advance(1.1)
        self.reason(short, RequestTimeout)
        self.assertNoResult(long)
        agent = self.hosts[1].accept_and_greet()
        self.assertEqual(agent.asked_names(), ["stats"])

    def test_a_read_that_was_sent_before_the_loss_keeps_its_timeout(self) -> None:
        waiting = self.client_.members().request(timeout=4)
        self.clock.advance(3)
        self.agent.lose()
        self.clock.advance(1.1)
        self.reason(waiting, RequestTimeout)
        self.assertEqual(self.hosts[1].accept_and_greet().asked(), [])

    def test_the_queue_survives_rounds_that_fail(self) -> None:
        self.agent.lose()
        waiting = self.client_.members().request(timeout=600)
        for _ in range(5):
            for host in (self.hosts[1], self.hosts[0]):
                if host.waiting:
                    host.refuse()
            self.clock.advance(0)
            if not any(host.waiting for host in self.hosts):
                while not any(host.waiting for host in self.hosts):
                    self.clock.advance(0.1)
        self.assertNoResult(waiting)
        host = next(host for host in self.hosts if host.waiting)
        agent = host.accept_and_greet()
        agent.reply(agent.asked_one("members").seq, MEMBERS)
        self.successResultOf(waiting)

    def test_a_call_made_inside_the_loss_of_another_waits_for_the_connection(self) -> None:
        again: list[Deferred[Responses]] = []
        self.client_.event(Name="e").request().addErrback(
            lambda _: again.append(self.client_.stats().request())
        )
        agent = self.lose()
        self.assertEqual(agent.asked_names(), ["stats"])

    def test_disconnect_inside_the_loss_ends_it_all(self) -> None:
        self.client_.event(Name="e").request().addErrback(lambda _: self.client_.disconnect())
        waiting = self.client_.members().request()
        self.agent.lose()
        self.clock.advance(0)
        self.reason(waiting, Disconnected)
        self.assertEqual(self.hosts[1].attempts, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CutTests(ClientCase):
    def test_a_loss_at_every_byte_fires_each_deferred_once(self) -> None:
        data = b"".join(
            [
                reply(1, MEMBERS),
                header(2),
                header(3),
                reply(3, user_event()),
                header(4),
                reply(4, answer("n1")),
            ]
        )
        for cut in range(len(data) + 1):
            self.hosts = [Endpoint(), Endpoint()]
            client, agent = self.connected(auto_reconnect=True)
            fired: list[object] = []
            client.members().request(timeout=5).addBoth(fired.append)
            client.event(Name="e").request(timeout=5).addBoth(fired.append)
            client.stream().request(timeout=5).addBoth(fired.append)
            client.query(Name="q").request(timeout=5).addBoth(fired.append)
            agent.send(data[:cut])
            agent.lose()
            agent = self.hosts[1].accept_and_greet()
            for name, seq, _ in agent.asked():
                self.assertIn(name, ("members", "stream"))
                agent.reply(seq, MEMBERS if name == "members" else None)
            self.clock.advance(6)
            self.assertEqual(len(fired), 4, cut)
            self.disconnect(client, agent)


class DisconnectTests(ClientCase):
    def test_what_was_queued_is_not_sent(self) -> None:
        client, agent = self.connected()
        client.members()
        client.disconnect()
        agent.finish_closing()
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(client.request()), [])
        self.assertEqual(agent.asked(), [])

    def test_what_was_in_flight_or_waiting_ends_with_disconnected(self) -> None:
        client, agent = self.connected()
        waiting = client.members().request()
        self.disconnect(client, agent)
        self.assertIs(type(self.reason(waiting, Disconnected)), Disconnected)
        waiting = client.members().request()
        self.disconnect(client)
        self.reason(waiting, Disconnected)

    def test_nobody_is_told_inside_the_callers_stack(self) -> None:
        client = self.client()
        waiting = client.members().request()
        client.disconnect()
        self.assertNoResult(waiting)
        self.clock.advance(0)
        self.reason(waiting, Disconnected)

    def test_it_ends_all_trying(self) -> None:
        client = self.client(auto_reconnect=True).connect()
        for host in self.hosts:
            host.refuse()
        self.disconnect(client)
        self.clock.advance(1000)
        self.assertEqual([host.attempts for host in self.hosts], [1, 1])

    def test_it_cancels_an_attempt(self) -> None:
        client = self.client(auto_reconnect=True).connect()
        self.disconnect(client)
        self.assertEqual(self.hosts[0].cancelled, 1)
        self.assertEqual(self.hosts[1].attempts, 0)

    def test_it_ends_a_connection_that_is_opening(self) -> None:
        client = self.client(auto_reconnect=True)
        waiting = client.members().request()
        agent = self.hosts[0].accept()
        self.disconnect(client, agent)
        self.reason(waiting, Disconnected)

    def test_with_wait_it_closes_behind_the_responses_of_the_coming_request(self) -> None:
        client, agent = self.connected()
        waiting = client.members().disconnect(wait=True).request()
        self.assertFalse(agent.closed_by_client)
        agent.reply(1, MEMBERS)
        self.assertTrue(agent.closed_by_client)
        self.assertNoResult(waiting)
        agent.finish_closing()
        self.clock.advance(0)
        self.assertEqual(len(self.successResultOf(waiting)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_with_wait_and_nothing_else_it_just_closes(self) -> None:
        client, agent = self.connected(auto_reconnect=True)
        waiting = client.disconnect(wait=True).request()
        agent.finish_closing()
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(waiting), [])

    def test_with_wait_it_closes_behind_a_failure_too(self) -> None:
        client, agent = self.connected()
        waiting = client.members().disconnect(wait=True).request()
        self.clock.advance(2.1)
        self.assertTrue(agent.closed_by_client)
        agent.finish_closing()
        self.clock.advance(0)
        self.reason(waiting, RequestTimeout)

    def test_a_request_behind_it_fires_once_it_is_closed(self) -> None:
        client, agent = self.connected()
        waiting = client.disconnect().request()
        self.assertNoResult(waiting)
        agent.finish_closing()
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(waiting), [])

    def test_twice_is_once(self) -> None:
        client, agent = self.connected()
        client.disconnect()
        client.disconnect()
        agent.finish_closing()
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_request_made_while_it_closes_goes_by_a_connection_of_its_own(self) -> None:
        for reconnect in (False, True):
            self.hosts = [Endpoint(), Endpoint()]
            client, agent = self.connected(auto_reconnect=reconnect)
            client.disconnect()
            waiting = client.members().request()
            self.assertEqual(agent.asked(), [])
            agent.finish_closing()
            host = next(host for host in self.hosts if host.waiting)
            agent = host.accept_and_greet()
            self.clock.advance(0)
            agent.reply(agent.asked_one("members").seq, MEMBERS)
            self.successResultOf(waiting)

    def test_a_request_made_while_a_dead_connection_ends_goes_by_the_next(self) -> None:
        client, agent = self.connected()
        agent.send(b"\xc1")
        waiting = client.members().request()
        agent.finish_closing()
        agent = self.hosts[1].accept_and_greet()
        agent.reply(agent.asked_one("members").seq, MEMBERS)
        self.successResultOf(waiting)

    def test_connect_behind_it_connects_again(self) -> None:
        client, agent = self.connected()
        client.disconnect().connect()
        waiting = client.when_connected()
        agent.finish_closing()
        host = next(host for host in self.hosts if host.waiting)
        host.accept_and_greet()
        self.assertIs(self.successResultOf(waiting), client)


class ContextTests(ClientCase):
    def test_with_closes_once_what_was_requested_has_been_answered(self) -> None:
        with self.client() as client:
            waiting = client.members().request()
            agent = self.hosts[0].accept_and_greet()
        self.assertFalse(agent.closed_by_client)
        agent.reply(1, MEMBERS)
        self.successResultOf(waiting)
        agent.finish_closing()
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_with_closes_at_once_where_nothing_is_under_way(self) -> None:
        with self.client().connect():
            agent = self.hosts[0].accept_and_greet()
        agent.finish_closing()

    def test_async_with_waits_for_the_answers_and_the_closing(self) -> None:
        responses: list[Responses] = []

        async def main() -> None:
            async with self.client() as client:
                client.members().request().addCallback(responses.append)

        waiting = Deferred.fromCoroutine(main())
        agent = self.hosts[0].accept_and_greet()
        agent.reply(1, MEMBERS)
        self.assertEqual(len(responses), 1)
        self.assertNoResult(waiting)
        agent.finish_closing()
        self.clock.advance(0)
        self.successResultOf(waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_async_with_closes_though_what_waits_for_the_answers_is_cancelled(self) -> None:
        async def main() -> None:
            async with self.client(auto_reconnect=True) as client:
                client.stream().watch().addErrback(lambda _: None)

        waiting = Deferred.fromCoroutine(main())
        agent = self.hosts[0].accept_and_greet()
        waiting.cancel()
        agent.finish_closing()
        self.clock.advance(0)
        self.reason(waiting, CancelledError)

    def test_async_with_does_not_hide_an_exception(self) -> None:
        async def main() -> None:
            async with self.client():
                raise RuntimeError("a mistake")

        waiting = Deferred.fromCoroutine(main())
        self.clock.advance(0)
        self.reason(waiting, RuntimeError)

    def test_who_hears_of_the_end_of_the_block_may_cancel_the_request_that_ended_it(self) -> None:
        def ended_by(end: Callable[[Deferred[Any]], object], commands: int) -> None:
            with self.client() as client:
                connected = client.connect().when_connected()
                for _ in range(commands):
                    client.stats()
                waiting = client.request(timeout=1)
                gone: Deferred[Any] = connected.addErrback(lambda _: waiting.cancel())
            end(waiting)
            self.failureResultOf(waiting, RequestTimeout, CancelledError)
            self.assertIsNone(self.successResultOf(gone))

        for commands in (1, 2):
            ended_by(lambda _: self.clock.advance(1.5), commands)
            ended_by(lambda waiting: waiting.cancel(), commands)

    def test_a_request_that_fails_does_not_keep_the_block_open(self) -> None:
        async def main() -> None:
            async with self.client() as client:
                client.members().request().addErrback(lambda _: None)

        waiting = Deferred.fromCoroutine(main())
        for host in self.hosts:
            host.refuse()
        self.clock.advance(0)
        self.successResultOf(waiting)


class ConnectedTests(ClientCase):
    def test_when_connected_fails_where_the_attempt_has_failed_already(self) -> None:
        client = self.client().connect()
        for host in self.hosts:
            host.refuse()
        self.reason(client.when_connected(), ConnectError)
        client.connect()
        again = client.when_connected()
        self.hosts[0].accept_and_greet()
        self.assertIs(self.successResultOf(again), client)

    def test_when_connected_fails_where_an_endpoint_fails_at_once(self) -> None:
        self.hosts = [Endpoint(at_once=ConnectionRefusedError())]
        self.reason(self.client().connect().when_connected(), ConnectError)

    def test_who_waits_as_the_only_connection_ends_is_told(self) -> None:
        client, agent = self.connected()
        agent.send(b"\xc1")
        waiting = client.when_connected()
        agent.finish_closing()
        self.reason(waiting, ProtocolError)

    def test_who_waits_for_the_connection_behind_one_that_closes_gets_it(self) -> None:
        client, agent = self.connected()
        waiting = client.disconnect().connect().when_connected()
        agent.finish_closing()
        self.hosts[1].accept_and_greet()
        self.assertIs(self.successResultOf(waiting), client)

    def test_who_asks_for_the_next_connection_as_this_one_is_told_does_not_get_this_one(self) -> None:
        client = self.client([self.hosts[0]])
        asked: list[Deferred[Client]] = []
        client.handshake().request().addCallback(
            lambda _: asked.append(client.disconnect().connect().when_connected())
        )
        self.hosts[0].accept_and_greet()
        self.assertNoResult(asked[0])
        self.hosts[0].agents[0].finish_closing()
        self.hosts[0].accept_and_greet()
        self.assertIs(self.successResultOf(asked[0]), client)

    def test_a_client_that_gave_up_leaves_no_timer(self) -> None:
        waiting = self.client().members().request()
        for host in self.hosts:
            host.refuse()
        self.reason(waiting, ConnectError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nor_does_one_whose_only_connection_was_lost(self) -> None:
        client, agent = self.connected(heartbeat=None)
        waiting = client.members().request()
        agent.lose()
        self.reason(waiting, ConnectionLost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_when_connected_fires_with_the_client_once_the_handshake_is_through(self) -> None:
        client = self.client().connect()
        waiting = client.when_connected()
        agent = self.hosts[0].accept()
        self.assertNoResult(waiting)
        agent.greet()
        self.assertIs(self.successResultOf(waiting), client)
        self.assertIs(self.successResultOf(client.when_connected()), client)

    def test_each_asker_has_its_own_and_may_cancel_it(self) -> None:
        client = self.client().connect()
        first, second = client.when_connected(), client.when_connected()
        first.cancel()
        self.reason(first, CancelledError)
        self.hosts[0].accept_and_greet()
        self.successResultOf(second)

    def test_it_starts_nothing(self) -> None:
        self.client().when_connected()
        self.assertEqual(self.hosts[0].attempts, 0)

    def test_it_fails_where_no_host_can_be_reached(self) -> None:
        waiting = self.client().connect().when_connected()
        for host in self.hosts:
            host.refuse()
        self.reason(waiting, ConnectError)

    def test_it_fails_where_the_client_is_closed_first(self) -> None:
        client = self.client(auto_reconnect=True).connect()
        waiting = client.when_connected()
        client.disconnect()
        self.reason(waiting, Disconnected)

    def test_connect_twice_is_connect_once(self) -> None:
        self.client().connect().connect()
        self.assertEqual(self.hosts[0].attempts, 1)

    def test_the_repr_names_hosts_and_no_key(self) -> None:
        client = self.client("10.0.0.1,serf://b:1?AuthKey=s3cret")
        self.assertEqual(repr(client), "<Client: 10.0.0.1:7373,b:1, not trying>")


class GreetingTests(ClientCase):
    def test_a_handshake_is_answered_with_the_connections_own(self) -> None:
        client = self.client()
        waiting = client.handshake().request()
        agent = self.hosts[0].accept_and_greet()
        (response,) = self.successResultOf(waiting)
        self.assertEqual(repr(response)[:20], "<ResponseHandshake: ")
        self.assertEqual((response.seq, response.is_success), (0, True))
        self.assertEqual(agent.asked(), [])

    def test_a_handshake_on_an_open_connection_sends_nothing(self) -> None:
        client, agent = self.connected()
        waiting = client.handshake().request()
        self.clock.advance(0)
        self.successResultOf(waiting)
        self.assertEqual(agent.asked(), [])

    def test_a_handshake_and_what_is_behind_it(self) -> None:
        client = self.client()
        waiting = client.handshake().members().request()
        agent = self.hosts[0].accept_and_greet()
        agent.reply(agent.asked_one("members").seq, MEMBERS)
        self.assertEqual(
            [r.request.command.wire for r in self.successResultOf(waiting)], ["handshake", "members"]
        )

    def test_auth_uses_its_key_and_brings_its_handshake_along(self) -> None:
        client = self.client()
        waiting = client.auth(AuthKey="s3cret").request()
        agent = self.hosts[0].accept()
        asked = agent.greet()
        self.assertEqual([(n, b) for n, _, b in asked][1], ("auth", {"AuthKey": "s3cret"}))
        responses = self.successResultOf(waiting)
        self.assertEqual([type(r).__name__ for r in responses], ["ResponseHandshake", "ResponseAuth"])
        self.assertEqual([r.seq for r in responses], [0, 1])
        self.assertNotIn("s3cret", repr(responses))

    def test_handshake_and_auth_by_hand_are_two_responses(self) -> None:
        waiting = self.client().handshake().auth(AuthKey="k").request()
        self.hosts[0].accept_and_greet()
        self.assertEqual(len(self.successResultOf(waiting)), 2)

    def test_its_key_goes_before_the_hosts_own(self) -> None:
        client = self.client([Host(endpoint=self.hosts[0], auth_key="old")])
        client.auth(AuthKey="new").request()
        asked = self.hosts[0].accept().greet()
        self.assertEqual(body_of(asked[1]), {"AuthKey": "new"})

    def test_its_key_is_that_of_later_connections_too(self) -> None:
        client = self.client(auto_reconnect=True)
        client.auth(AuthKey="s3cret").request()
        self.hosts[0].accept_and_greet().lose()
        self.assertEqual(body_of(self.hosts[1].accept().greet()[1]), {"AuthKey": "s3cret"})

    def test_a_refused_key_fails_the_request(self) -> None:
        log = Log(self)
        client = self.client([self.hosts[0]])
        waiting = client.auth(AuthKey="s3cret").members().request()
        agent = self.hosts[0].accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        failure = self.failureResultOf(waiting, AuthenticationError)
        self.assertNotIn("s3cret", failure.getTraceback() + log.everything)

    def test_a_refused_key_is_not_used_again(self) -> None:
        client = self.client([self.hosts[0]])
        waiting = client.auth(AuthKey="wrong").request()
        agent = self.hosts[0].accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        self.reason(waiting, AuthenticationError)
        client.members().request()
        self.assertEqual([n for n, _, _ in self.hosts[0].accept().asked()], ["handshake"])

    def test_auth_on_an_open_connection_goes_before_what_is_behind_it(self) -> None:
        client, agent = self.connected()
        waiting = client.auth(AuthKey="s3cret").event(Name="e").members().request()
        agent.reply(agent.asked_one("auth").seq)
        self.clock.advance(0)
        event, members = agent.asked()
        agent.send(header(event.seq), reply(members.seq, MEMBERS))
        self.clock.advance(0)
        self.assertEqual([r.seq for r in self.successResultOf(waiting)], [0, 1, 2, 3])

    def test_a_key_refused_on_an_open_connection_fails_the_request_and_nothing_behind_it_is_sent(
        self,
    ) -> None:
        client, agent = self.connected()
        waiting = client.auth(AuthKey="s3cret").event(Name="e").members().request()
        agent.reply(agent.asked_one("auth").seq, error="Invalid authentication token")
        error = self.reason(waiting, AuthenticationError)
        self.assertEqual((error.host, agent.asked(), agent.closed_by_client), (agent_label(agent), [], False))

    def test_a_key_that_timed_out_or_was_cancelled_is_not_used_again(self) -> None:
        for end in (Deferred.cancel, lambda waiting: self.clock.advance(2.1)):
            self.hosts = [Endpoint()]
            client = self.client([Host(endpoint=self.hosts[0], auth_key="own")], auto_reconnect=True)
            waiting = client.auth(AuthKey="typo").request()
            end(waiting)
            self.reason(waiting, (CancelledError, RequestTimeout))
            self.hosts[0].refuse()
            self.clock.advance(1.0)
            self.assertEqual(body_of(self.hosts[0].accept().greet()[1]), {"AuthKey": "own"})

    def test_behind_a_refused_key_a_good_one_is_shown_though_another_host_is_down(self) -> None:
        client = self.client(auto_reconnect=True)
        typo = client.auth(AuthKey="typo").request(timeout=1)
        agent = self.hosts[0].accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        self.hosts[1].at_once = ConnectionRefusedError()
        self.hosts[1].refuse()
        self.clock.advance(1.1)
        self.reason(typo, RequestTimeout)
        good = client.auth(AuthKey="good").request(timeout=60)
        self.clock.advance(2.0)
        self.assertEqual(body_of(self.hosts[0].accept().greet()[1]), {"AuthKey": "good"})
        self.assertTrue(self.successResultOf(good).is_success)

    def test_a_key_that_was_refused_by_one_host_with_the_others_down_is_not_used_again(self) -> None:
        client = self.client([Host(endpoint=self.hosts[0], auth_key="own"), self.hosts[1]])
        waiting = client.auth(AuthKey="typo").request()
        agent = self.hosts[0].accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        self.hosts[1].refuse()
        self.reason(waiting, ConnectError)
        client.members().request()
        self.assertEqual(body_of(self.hosts[0].accept().greet()[1]), {"AuthKey": "own"})

    def test_the_responses_are_in_the_order_of_seq_with_a_handshake_behind(self) -> None:
        client, agent = self.connected()
        waiting = client.members().handshake().request()
        agent.reply(1, MEMBERS)
        self.clock.advance(0)
        self.assertEqual([r.seq for r in self.successResultOf(waiting)], [0, 1])


def agent_label(agent: Agent) -> str:
    """Return the label of this agent's host, as errors show it."""
    return str(getattr(agent.protocol, "host", None))


class OrderTests(ClientCase):
    """A command with its own connection keeps its place among commands that change something."""

    def test_a_filter_that_may_close_sees_the_changes_in_front_of_it(self) -> None:
        client, agent = self.connected()
        waiting = client.join(Existing=["b"]).members(Name="[ab]").request()
        self.assertEqual(self.hosts[0].waiting, 0)
        agent.reply(agent.asked_one("join").seq, {"Num": 1})
        lane = self.hosts[0].accept_and_greet()
        lane.reply(lane.asked_one("members-filtered").seq, MEMBERS)
        self.assertTrue(self.successResultOf(waiting).is_success)

    def test_and_none_that_are_behind_it(self) -> None:
        client, agent = self.connected()
        waiting = client.members(Name="[ab]").stats().force_leave(Node="b").request()
        agent.reply(agent.asked_one("stats").seq, {})
        lane = self.hosts[0].accept_and_greet()
        self.assertEqual(agent.asked(), [])
        lane.reply(lane.asked_one("members-filtered").seq, MEMBERS)
        agent.reply(agent.asked_one("force-leave").seq)
        names = [response.request.command.wire for response in self.successResultOf(waiting)]
        self.assertEqual(names, ["members-filtered", "stats", "force-leave"])

    def test_what_is_held_back_when_it_is_over_is_never_sent(self) -> None:
        client, agent = self.connected()
        waiting = client.join(Existing=["b"]).members(Name="[ab]").request(timeout=1)
        self.clock.advance(1.1)
        self.reason(waiting, RequestTimeout)
        agent.reply(agent.asked_one("join").seq, {"Num": 1})
        self.assertEqual((agent.asked(), self.hosts[0].waiting), ([], 0))


class AuthenticationRequiredTests(ClientCase):
    def test_it_is_no_answer_to_a_filter_on_a_connection_of_its_own(self) -> None:
        for reconnect in (False, True):
            self.hosts = [Endpoint(), Endpoint()]
            waiting = self.client(auto_reconnect=reconnect).members(Name="n[0-9]").request()
            agent = self.hosts[0].accept_and_greet()
            lane = self.hosts[0].accept_and_greet()
            lane.reply(lane.asked_one("members-filtered").seq, error="Authentication required")
            lane.finish_closing()
            agent.finish_closing()
            self.hosts[1].accept_and_greet()
            lane = self.hosts[1].accept_and_greet()
            lane.reply(lane.asked_one("members-filtered").seq, MEMBERS)
            self.assertTrue(self.successResultOf(waiting).is_success)

    def test_it_fails_over_to_the_next_host_with_all_that_was_sent(self) -> None:
        waiting = self.client().event(Name="e").members().request()
        agent = self.hosts[0].accept_and_greet()
        seqs = [seq for _, seq, _ in agent.asked()]
        agent.send(*(header(seq, "Authentication required") for seq in (seqs[0], seqs[0], seqs[1])))
        agent.finish_closing()
        agent = self.hosts[1].accept_and_greet()
        self.assertEqual(agent.asked_names(), ["event", "members"])
        agent.send(header(seqs[0]), reply(seqs[1], MEMBERS))
        self.assertTrue(self.successResultOf(waiting).is_success)

    def test_where_every_host_wants_a_key_it_is_an_authentication_error(self) -> None:
        for reconnect in (False, True):
            self.hosts = [Endpoint(), Endpoint()]
            waiting = self.client(auto_reconnect=reconnect).members().request()
            for host in self.hosts:
                agent = host.accept_and_greet()
                agent.reply(agent.asked_one("members").seq, error="Authentication required")
                agent.finish_closing()
            self.reason(waiting, AuthenticationError)
            self.clock.advance(1000)
            self.assertEqual([host.attempts for host in self.hosts], [1, 1])

    def test_a_refused_key_with_the_other_host_down_is_a_connect_error_that_has_both(self) -> None:
        hosts = [Host(endpoint=host, auth_key="k") for host in self.hosts]
        waiting = self.client(hosts).members().request()
        agent = self.hosts[0].accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        self.hosts[1].refuse()
        error = self.reason(waiting, ConnectError)
        self.assertEqual(type(error.failures[0][1]), AuthenticationError)


class FilterTests(ClientCase):
    """A members filter that may not compile."""

    def test_it_goes_by_a_connection_of_its_own(self) -> None:
        client, main = self.connected()
        waiting = client.members(Name="n[12]").stats().request()
        main.reply(main.asked_one("stats").seq, {})
        lane = self.hosts[0].accept_and_greet()
        lane.reply(lane.asked_one("members-filtered").seq, MEMBERS)
        self.assertEqual([r.seq for r in self.successResultOf(waiting)], [1, 2])
        self.assertTrue(lane.closed_by_client)
        self.assertFalse(main.closed_by_client)

    def test_where_the_agent_closes_it_only_that_command_has_an_error(self) -> None:
        for reconnect in (False, True):
            self.hosts = [Endpoint(), Endpoint()]
            client, main = self.connected(auto_reconnect=reconnect)
            waiting = client.members(Name="(").stats().request()
            main.reply(main.asked_one("stats").seq, {})
            for _ in range(2):
                lane = self.hosts[0].accept_and_greet()
                lane.asked_one("members-filtered")
                lane.lose()
            filtered, stats = self.successResultOf(waiting)
            self.assertIn("regular expression", filtered.error)
            self.assertTrue(stats.is_success)
            self.assertFalse(main.closed_by_client)
            self.assertEqual(self.hosts[0].attempts, 3)

    def test_an_agent_that_dies_with_it_is_asked_elsewhere(self) -> None:
        client, main = self.connected(auto_reconnect=True)
        waiting = client.members(Name="(").request()
        lane = self.hosts[0].accept_and_greet()
        lane.lose()
        main.lose()
        if self.hosts[0].waiting:
            self.hosts[0].refuse()
        self.hosts[1].accept_and_greet()
        self.clock.advance(0.2)
        lane = self.hosts[1].accept_and_greet()
        lane.reply(lane.asked_one("members-filtered").seq, NO_MEMBERS)
        self.assertTrue(self.successResultOf(waiting).is_success)

    def test_its_connection_has_the_same_key(self) -> None:
        client = self.client([Host(endpoint=self.hosts[0], auth_key="k")])
        client.members(Name="(").request()
        self.hosts[0].accept_and_greet()
        self.assertEqual([n for n, _, _ in self.hosts[0].accept().greet()], ["handshake", "auth"])

    def test_a_timeout_ends_it_and_nothing_is_left(self) -> None:
        client, main = self.connected()
        waiting = client.members(Name="(").request()
        self.clock.advance(2.1)
        self.reason(waiting, RequestTimeout)
        self.disconnect(client, main)

    def test_disconnect_while_its_connection_is_made_ends_it(self) -> None:
        client, main = self.connected()
        waiting = client.members(Name="(").request(timeout=60)
        self.disconnect(client, main)
        self.reason(waiting, Disconnected)

    def test_disconnect_while_its_connection_opens_ends_it(self) -> None:
        client, main = self.connected()
        waiting = client.members(Name="(").request(timeout=60)
        lane = self.hosts[0].accept()
        self.disconnect(client, main, lane)
        self.reason(waiting, Disconnected)

    def test_a_cancel_before_its_connection_is_made_sends_nothing(self) -> None:
        client, _ = self.connected()
        waiting = client.members(Name="(").request()
        waiting.cancel()
        self.reason(waiting, CancelledError)
        if self.hosts[0].waiting:
            lane = self.hosts[0].accept_and_greet()
            self.assertEqual(lane.asked(), [])


class SecrecyTests(ClientCase):
    def test_no_log_no_repr_and_no_traceback_shows_a_key(self) -> None:
        key = "s3cret"
        log = Log(self)
        shown: list[str] = []
        host = Host(endpoint=self.hosts[0], auth_key=key)
        client = self.client([host])
        waiting = client.install_key(Key=key).auth(AuthKey=key).request()
        shown += [repr(client), repr(host)]
        agent = self.hosts[0].accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        shown.append(self.failureResultOf(waiting, AuthenticationError).getTraceback())
        waiting = client.use_key(Key=key).request()
        self.hosts[0].accept_and_greet()
        self.clock.advance(2.1)
        shown.append(self.failureResultOf(waiting, RequestTimeout).getTraceback())
        waiting = client.remove_key(Key=key).request()
        self.hosts[0].agents[-1].lose()
        shown.append(self.failureResultOf(waiting, ConnectionLost).getTraceback())
        self.assertNotIn(key, "\n".join([*shown, log.everything]))

    def answered(self, auto_reconnect: bool = False) -> list[Response]:
        """Return a record and some replies, to requests with keys too, of a client that has disconnected since."""
        client, agent = self.connected(auto_reconnect=auto_reconnect)
        seen: list[Response] = []
        client.stream().add_callback(seen.append).watch().addErrback(lambda _: None)
        agent.send(header(1), reply(1, user_event()))
        waiting = client.auth(AuthKey="s3cret").request()
        agent.reply(agent.asked()[-1].seq)
        self.clock.advance(0)
        seen += [*self.successResultOf(waiting)]
        waiting = client.install_key(Key="s3cret").use_key(Key="s3cret").members().request()
        keys: dict[str, Any] = {"Messages": {}, "Keys": None, "NumNodes": 1, "NumErr": 0, "NumResp": 1}
        agent.send(*(reply(asked.seq, keys) for asked in agent.asked()))
        seen += [*self.successResultOf(waiting)]
        single = client.remove_key(Key="s3cret").request()
        agent.reply(agent.asked_one("remove-key").seq, keys)
        seen += [*self.successResultOf(single)]
        self.disconnect(client, agent)
        self.assertEqual(
            [response.request.command.wire for response in seen],
            ["stream", "stream", "handshake", "auth", "install-key", "use-key", "members", "remove-key"],
        )
        return seen

    def test_nothing_that_hangs_on_a_response_has_a_key_in_clear(self) -> None:
        for response in self.answered():
            for value in hanging_on(response):
                if isinstance(value, (str, bytes)):
                    self.assertNotIn("s3cret", str(value), response)
            self.assertNotIn(b"s3cret", pickle.dumps(response))
            self.assertNotIn("s3cret", str(vars(response.request)))

    def test_a_kept_response_keeps_no_connection(self) -> None:
        for response in self.answered(auto_reconnect=True):
            kept = [value for value in hanging_on(response) if isinstance(value, (SerfProtocol, Session))]
            self.assertEqual(kept, [], response)

    def test_what_came_in_time_keeps_no_key_and_no_connection_either(self) -> None:
        client, agent = self.connected()
        waiting = client.use_key(Key="s3cret").members().request()
        agent.reply(1, {"NumErr": 0})
        self.clock.advance(2.1)
        error = self.reason(waiting, RequestTimeout)
        for value in hanging_on(error.responses):
            self.assertNotIsInstance(value, SerfProtocol)
            if isinstance(value, (str, bytes)):
                self.assertNotIn("s3cret", str(value))

    def test_the_records_of_one_stream_have_the_same_request(self) -> None:
        opened, record = self.answered()[:2]
        self.assertIs(opened.request, record.request)
        self.assertEqual((record.request.seq, record.request.values), (1, {"Type": "*"}))


def hanging_on(value: object) -> list[object]:
    """Return all objects that can be reached from *value*, without modules, classes, functions and commands."""
    found: dict[int, object] = {}
    left = [value]
    while left:
        one = left.pop()
        if id(one) not in found and not isinstance(one, (type, ModuleType, FunctionType, Command)):
            found[id(one)] = one
            left += gc.get_referents(one)
    return list(found.values())
