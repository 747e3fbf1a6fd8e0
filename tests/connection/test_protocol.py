"""One connection to an agent: requests, replies, records, and its end."""

from __future__ import annotations

import gc
import itertools
import math
import tracemalloc
from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, ITransport
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.fakes import ADDRESS, MEMBERS, Log, cuts, header, read_requests, reply, user_event
from tests.protocol_case import HOST, CallCase, Owner, ProtocolCase
from txserf import commands, constant
from txserf.commands import EVENT
from txserf.connection.exchange import Awaited, Reply
from txserf.connection.protocol import SerfProtocol, State
from txserf.errors import (
    AuthenticationError,
    ConnectionLost,
    Disconnected,
    InvalidRequest,
    Overloaded,
    ProtocolError,
    RequestTimeout,
)


class Socket(FileDescriptor):
    """
    A transport as Twisted's own of a socket, without one.

    :ivar takes: how many bytes the socket takes at once; an exception where it is lost.
    :ivar sent: the bytes that it took, piece by piece.
    :ivar TLS: whether what is written is encrypted first.
    :ivar encrypted: what was written then.
    """

    TLS = False

    def __init__(self, reactor: MemoryReactor) -> None:
        super().__init__(reactor)
        self.connected = 1
        self.takes: float | Exception = math.inf
        self.sent: list[bytes] = []
        self.encrypted: list[bytes] = []

    def write(self, data: bytes) -> None:
        if self.TLS:
            self.encrypted.append(data)
        else:
            super().write(data)

    def writeSomeData(self, data: bytes) -> int | BaseException:
        if isinstance(self.takes, Exception):
            return self.takes
        number = int(min(self.takes, len(data)))
        self.sent.append(bytes(data[:number]))
        return number


class SocketTests(SynchronousTestCase):
    """Requests that callbacks make leave before the reactor's next turn, where the transport is a socket."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.connect()

    def connect(self) -> None:
        """Open a connection with a call under way, whose callback makes three more."""
        self.transport = transport = Socket(self.reactor)
        self.protocol = SerfProtocol(host=HOST, reactor=Clock())
        self.protocol.makeConnection(transport)
        self.protocol.dataReceived(header(0))
        self.made: list[Deferred[Reply]] = []
        self.protocol.call("stop", {"Stop": 0}).addCallback(lambda _: self.call("0", "1", "2"))
        transport.doWrite()
        transport.sent.clear()

    def call(self, *names: str) -> None:
        self.made += [self.protocol.call("event", {"Name": name}) for name in names]

    def answer(self) -> None:
        """Let the reply to the call come."""
        self.protocol.dataReceived(header(1))

    def sent(self) -> list[str]:
        """Return the names of the events that were sent."""
        return [asked.body["Name"] for asked in read_requests(b"".join(self.transport.sent)) if asked.body]

    def test_requests_of_callbacks_leave_at_once_in_one_piece(self) -> None:
        self.answer()
        self.assertEqual((len(self.transport.sent), self.sent()), (1, ["0", "1", "2"]))

    def test_the_reactor_is_not_asked_to_write_where_the_socket_took_all(self) -> None:
        self.answer()
        self.assertEqual(self.reactor.writers, set())

    def test_requests_outside_of_callbacks_wait_for_the_reactor_and_go_together(self) -> None:
        self.call("0", "1")
        self.protocol._send([Awaited(EVENT, EVENT.arguments({"Name": name})) for name in ("2", "3")])
        self.assertEqual(self.sent(), [])
        self.transport.doWrite()
        self.assertEqual((len(self.transport.sent), self.sent()), (1, ["0", "1", "2", "3"]))

    def test_the_rest_of_what_a_socket_does_not_take_follows(self) -> None:
        self.answer()
        for takes in range(len(self.transport.sent[0])):
            self.connect()
            self.transport.takes = takes
            self.answer()
            self.assertEqual(len(b"".join(self.transport.sent)), takes)
            self.transport.takes = math.inf
            self.transport.doWrite()
            self.assertEqual(self.sent(), ["0", "1", "2"])

    def test_bytes_that_wait_already_go_first(self) -> None:
        self.call("before")
        self.answer()
        self.assertEqual(self.sent(), [])
        self.transport.doWrite()
        self.assertEqual(self.sent(), ["before", "0", "1", "2"])

    def test_a_socket_that_is_lost_is_left_to_the_reactor(self) -> None:
        self.transport.takes = error.ConnectionLost()
        self.answer()
        self.assertNoResult(self.made[0])
        self.assertIsInstance(
            self.transport.doWrite(), error.ConnectionLost
        )  # so the reactor ends the connection
        self.protocol.connectionLost(Failure(error.ConnectionLost()))
        for made in self.made:
            self.failureResultOf(made, ConnectionLost)

    def test_under_tls_nothing_goes_past_the_encryption(self) -> None:
        self.transport.TLS = True  # as startTLS() sets it
        self.answer()
        self.assertEqual(self.sent(), [])
        self.assertEqual([asked.seq for asked in read_requests(self.transport.encrypted[0])], [2, 3, 4])


class OpeningTests(ProtocolCase):
    def test_the_handshake_goes_out_at_once(self) -> None:
        _, agent = self.connect(greet=False)
        self.assertEqual(agent.asked(), [("handshake", 0, {"Version": 1})])

    def test_handshake_and_auth_go_out_in_one_write(self) -> None:
        _, agent = self.connect(greet=False, auth_key="s3cret")
        self.assertEqual(len(agent.transport.writes), 1)
        self.assertEqual(
            agent.asked(), [("handshake", 0, {"Version": 1}), ("auth", 1, {"AuthKey": "s3cret"})]
        )

    def test_an_empty_key_is_shown_too(self) -> None:
        _, agent = self.connect(greet=False, auth_key="")
        self.assertEqual(agent.asked_names(), ["handshake", "auth"])

    def test_it_is_open_once_the_handshake_is_through(self) -> None:
        owner = Owner()
        protocol, agent = self.connect(greet=False, owner=owner)
        self.assertEqual((protocol.state, owner.ready), (State.OPENING, []))
        agent.greet()
        self.assertEqual((protocol.state, owner.ready), (State.READY, [protocol]))

    def test_with_a_key_it_is_open_once_auth_is_through(self) -> None:
        owner = Owner()
        protocol, agent = self.connect(greet=False, owner=owner, auth_key="k")
        agent.reply(0)
        self.assertEqual((protocol.state, owner.ready), (State.OPENING, []))
        agent.reply(1)
        self.assertEqual((protocol.state, owner.ready), (State.READY, [protocol]))

    def test_nothing_is_sent_before_it_is_open(self) -> None:
        protocol, agent = self.connect(greet=False)
        agent.asked()
        self.reason(protocol.call("members"), Disconnected)
        self.assertEqual(agent.asked(), [])

    def test_a_server_of_http_is_named_as_one(self) -> None:
        owner = Owner()
        protocol, agent = self.connect(greet=False, owner=owner)
        protocol.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        agent.finish_closing()
        ((reason, _),) = owner.closed
        self.assertEqual(str(reason), f"{HOST}: it answers HTTP, and is no Serf agent")

    def test_a_loss_before_the_handshake_is_through_says_so(self) -> None:
        owner = Owner()
        _, agent = self.connect(greet=False, owner=owner)
        agent.lose()
        ((reason, _),) = owner.closed
        self.assertTrue(str(reason).startswith(f"lost {HOST} before it answered the handshake: "), reason)

    def test_a_refused_handshake_is_a_protocol_error(self) -> None:
        owner = Owner()
        _, agent = self.connect(greet=False, owner=owner)
        agent.greet("Unsupported IPC version")
        agent.finish_closing()
        ((reason, unanswered),) = owner.closed
        self.assertIsInstance(reason, ProtocolError)
        self.assertIn(HOST, str(reason))
        self.assertIn("Unsupported IPC version", str(reason))
        self.assertEqual(unanswered, [])

    def test_a_refused_key_is_an_authentication_error_of_that_host(self) -> None:
        owner = Owner()
        _, agent = self.connect(greet=False, owner=owner, auth_key="s3cret")
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        reason, _ = owner.closed[0]
        assert isinstance(reason, AuthenticationError)
        self.assertEqual(reason.host, HOST)
        self.assertNotIn("s3cret", str(reason))

    def test_what_comes_behind_a_refusal_is_ignored(self) -> None:
        owner = Owner()
        _, agent = self.connect(greet=False, owner=owner, auth_key="k")
        agent.send(header(0, "Unsupported IPC version"), header(1), reply(5, MEMBERS))
        agent.send(header(1))
        self.assertEqual(owner.ready, [])

    def test_an_agent_that_never_answers_the_handshake_is_given_up(self) -> None:
        owner = Owner()
        _, agent = self.connect(greet=False, owner=owner, connect_timeout=3.0)
        self.clock.advance(2.9)
        self.assertFalse(agent.closed_by_client)
        self.clock.advance(0.2)
        self.assertTrue(agent.transport.aborted)
        agent.finish_closing()
        reason, _ = owner.closed[0]
        self.assertIsInstance(reason, ConnectionLost)
        self.assertIn("3.0 s", str(reason))
        self.assertQuiet()

    def test_an_agent_that_never_answers_auth_is_given_up(self) -> None:
        _, agent = self.connect(greet=False, auth_key="k", connect_timeout=3.0)
        agent.reply(0)
        self.clock.advance(3.1)
        self.assertTrue(agent.transport.aborted)

    def test_a_loss_while_it_opens_is_a_connection_lost(self) -> None:
        owner = Owner()
        _, agent = self.connect(greet=False, owner=owner)
        agent.lose()
        reason, unanswered = owner.closed[0]
        self.assertIsInstance(reason, ConnectionLost)
        self.assertEqual(unanswered, [])
        self.assertQuiet()

    def test_a_mistake_of_the_owner_is_not_swallowed(self) -> None:
        class Mistaken(Owner):
            def connection_ready(self, protocol: SerfProtocol) -> None:
                raise AssertionError("a mistake")

        _, agent = self.connect(greet=False, owner=Mistaken())
        agent.greet()
        agent.lose()
        del agent
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)

    def test_what_is_no_agent_is_a_protocol_error_with_the_host(self) -> None:
        for data in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x15\x03\x01\x00\x02\x02\x46",
            b"\xc1",
            b"SSH-2.0-x\r\n",
        ):
            owner = Owner()
            _, agent = self.connect(greet=False, owner=owner)
            agent.send(data)
            self.assertTrue(agent.transport.aborted)
            agent.finish_closing()
            reason, _ = owner.closed[0]
            self.assertIsInstance(reason, ProtocolError)
            self.assertIn(HOST, str(reason))

    def test_hostile_bytes_before_the_handshake_take_little_memory(self) -> None:
        owner = Owner()
        _, agent = self.connect(greet=False, owner=owner)
        # Each byte is an empty map, which takes 70 times as much memory in Python.
        data = b"\x94" + (b"\xdd\x00\x10\x00\x00" + b"\x80" * (1 << 20)) * 4
        tracemalloc.start()
        try:
            for start in range(0, len(data), 65536):
                if not agent.transport.aborted:
                    agent.send(data[start : start + 65536])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertTrue(agent.transport.aborted)
        self.assertLess(peak, 2 * 1024 * 1024)

    def test_a_connection_that_has_ended_keeps_nothing_of_what_came(self) -> None:
        """Also without the garbage collector: a hostile agent may be dialled again and again."""
        data = b"\xdd\x00\x00\xff\xff" * 500  # an unfinished object, and no broken rule yet
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for greet in (False, True, True, True):
                _, agent = self.connect(greet=greet)
                agent.send(data)
                if not agent.transport.aborted:
                    agent.lose()
                else:
                    agent.finish_closing()
                del agent
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
        self.assertLess(held, 2 * 1024 * 1024)

    def test_a_message_that_is_larger_than_an_answer_to_the_handshake_is_taken_once_it_is_open(self) -> None:
        protocol, agent = self.connect()
        waiting = protocol.call("members")
        body = {"Members": [MEMBERS["Members"][0]] * 2000}
        agent.reply(1, body)
        self.assertEqual(self.successResultOf(waiting).body, body)


class CallTests(CallCase):
    def test_a_call_fires_with_its_reply(self) -> None:
        waiting = self.protocol.call("members")
        asked = self.agent.asked_one("members")
        self.agent.reply(asked.seq, MEMBERS)
        self.assertEqual(self.successResultOf(waiting), Reply(asked.seq, "", MEMBERS))

    def test_an_agents_error_is_a_reply(self) -> None:
        waiting = self.protocol.call("event", {"Name": "e"})
        self.agent.reply(1, error="no")
        self.assertEqual(self.successResultOf(waiting), Reply(1, "no", None))

    def test_a_joins_error_has_a_body(self) -> None:
        waiting = self.protocol.call("join", {"Existing": ["a"]})
        self.agent.reply(1, {"Num": 0}, "1 error occurred")
        self.assertEqual(self.successResultOf(waiting), Reply(1, "1 error occurred", {"Num": 0}))

    def test_calls_are_sent_without_waiting_for_each_other(self) -> None:
        for _ in range(3):
            self.protocol.call("stats")
        self.assertEqual(self.agent.asked(), [("stats", 1, None), ("stats", 2, None), ("stats", 3, None)])

    def test_replies_find_their_calls_in_any_order(self) -> None:
        for order in itertools.permutations(range(3)):
            protocol, agent = self.connect()
            waiting = [protocol.call("join", {"Existing": ["a"]}) for _ in range(3)]
            for index in order:
                agent.reply(index + 1, {"Num": index})
            replies = [self.successResultOf(call) for call in waiting]
            self.assertEqual(replies, [Reply(index + 1, "", {"Num": index}) for index in range(3)])

    def test_a_row_of_the_table_does_for_a_name(self) -> None:
        self.protocol.call(commands.STATS)
        self.agent.asked_one("stats")

    def test_a_wrong_command_or_argument_raises_at_the_call_and_nothing_is_sent(self) -> None:
        self.assertRaises(InvalidRequest, self.protocol.call, "no-such-command")
        self.assertRaises(InvalidRequest, self.protocol.call, "event", {"Name": 7})
        self.assertRaises(InvalidRequest, self.protocol.call, "event", {"Name": "\ud800"})
        self.assertEqual(self.agent.asked(), [])

    def test_a_reply_to_an_unknown_seq_is_logged_and_harmless(self) -> None:
        log = Log(self)
        self.agent.reply(77, MEMBERS)
        self.assertTrue(any("77" in text and HOST in text for text in log.texts))
        self.assertWorks()

    def test_many_replies_to_unknown_seqs_are_logged_once_and_counted_at_the_end(self) -> None:
        log = Log(self)
        self.agent.send(*(header(seq) for seq in range(100, 1100)))
        self.assertEqual(len([text for text in log.texts if "never sent" in text]), 1)
        self.agent.lose()
        first, last = (text for text in log.texts if "never sent" in text)
        self.assertIn("100", first)
        self.assertIn("1000", last)
        self.assertIn(HOST, last)

    def test_a_single_reply_to_an_unknown_seq_is_not_counted_at_the_end(self) -> None:
        log = Log(self)
        self.agent.send(header(77))
        self.agent.lose()
        self.assertEqual(len([text for text in log.texts if "never sent" in text]), 1)

    def test_a_second_reply_is_harmless(self) -> None:
        waiting = self.protocol.call("members")
        self.agent.reply(1, MEMBERS)
        self.agent.reply(1, MEMBERS)
        self.successResultOf(waiting)
        self.assertWorks()

    def test_a_call_fired_inside_a_reply_is_sent(self) -> None:
        first = self.protocol.call("stats")
        second = first.addCallback(lambda _: self.protocol.call("members"))
        self.agent.asked()
        self.agent.reply(1, {})
        self.agent.asked_one("members")
        self.agent.reply(2, MEMBERS)
        self.assertEqual(self.successResultOf(second).body, MEMBERS)

    def test_a_cancelled_call_leaves_the_connection_good(self) -> None:
        waiting = self.protocol.call("members")
        waiting.cancel()
        self.reason(waiting, CancelledError)
        self.agent.reply(1, MEMBERS)
        self.assertWorks()

    def test_a_late_reply_is_dropped_and_the_connection_stays_good(self) -> None:
        waiting = self.protocol.call("members", timeout=2.0)
        self.clock.advance(1.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        error = self.reason(waiting, RequestTimeout)
        self.assertIn("members", str(error))
        self.assertIn(HOST, str(error))
        self.agent.reply(1, MEMBERS)
        self.assertWorks()

    def test_an_answer_in_time_takes_its_deadline_along(self) -> None:
        waiting = self.protocol.call("members", timeout=2.0)
        self.agent.reply(1, MEMBERS)
        self.successResultOf(waiting)
        self.agent.lose()
        self.assertQuiet()

    def test_without_a_timeout_a_call_waits_as_long_as_the_connection_lasts(self) -> None:
        protocol, agent = self.connect(heartbeat=None)
        waiting = protocol.call("members")
        self.clock.advance(100_000)
        agent.reply(1, MEMBERS)
        self.successResultOf(waiting)


class AuthenticationRequiredTests(ProtocolCase):
    def test_it_ends_the_connection_for_its_call_and_all_behind_it(self) -> None:
        protocol, agent = self.connect()
        calls = [protocol.call("event", {"Name": "e"}), protocol.call("members")]
        # The agent has read the first request's body as a header too: two errors with one Seq.
        error = header(1, "Authentication required")
        agent.send(error, error, header(2, "Authentication required"))
        self.assertTrue(agent.transport.aborted)
        agent.finish_closing()
        for call in calls:
            self.assertEqual(self.reason(call, AuthenticationError).host, HOST)

    def test_its_calls_are_the_owners(self) -> None:
        owner = Owner()
        protocol, agent = self.connect(owner=owner)
        protocol.call("members")
        agent.reply(1, error="Authentication required")
        agent.finish_closing()
        reason, unanswered = owner.closed[0]
        self.assertIsInstance(reason, AuthenticationError)
        self.assertEqual([exchange.command.wire for exchange in unanswered], ["members"])

    def test_no_body_follows_it_though_one_follows_other_errors(self) -> None:
        owner = Owner()
        protocol, agent = self.connect(owner=owner)
        protocol.call("join", {"Existing": ["a"]})
        agent.send(header(1, "Authentication required"), header(1, "Authentication required"))
        agent.finish_closing()
        self.assertIsInstance(owner.closed[0][0], AuthenticationError)


class LossTests(ProtocolCase):
    def test_a_loss_fails_each_call_once_with_host_and_reason(self) -> None:
        protocol, agent = self.connect()
        calls = [protocol.call("members"), protocol.call("event", {"Name": "e"}, timeout=5.0)]
        agent.lose(error.ConnectionLost())
        for call in calls:
            failure = self.reason(call, ConnectionLost)
            self.assertEqual(failure.host, HOST)
            self.assertIn(HOST, str(failure))
            self.assertIn("non-clean", str(failure))
        self.assertQuiet()

    def test_each_call_gets_an_exception_of_its_own(self) -> None:
        protocol, agent = self.connect()
        calls = [protocol.call("members"), protocol.call("members")]
        agent.lose()
        first, second = (self.reason(call, ConnectionLost) for call in calls)
        self.assertIsNot(first, second)

    def test_after_a_loss_a_call_fails(self) -> None:
        protocol, agent = self.connect()
        agent.lose()
        self.reason(protocol.call("members"), Disconnected)

    def test_a_call_made_inside_a_loss_fails(self) -> None:
        protocol, agent = self.connect()
        again: list[Deferred[Any]] = []
        protocol.call("members").addErrback(lambda _: again.append(protocol.call("members")))
        agent.lose()
        self.reason(again[0], Disconnected)

    def test_the_loss_of_a_cancelled_call_is_nobodys(self) -> None:
        protocol, agent = self.connect()
        first, second = protocol.call("members"), protocol.call("members")
        first.addErrback(lambda _: second.cancel())
        agent.lose()
        self.successResultOf(first)
        self.reason(second, CancelledError)

    def test_cutting_the_bytes_anywhere_fires_each_deferred_once(self) -> None:
        data = b"".join(
            [
                header(0),
                header(1),
                reply(2, MEMBERS),
                reply(3, user_event()),
                header(4, "no"),
                reply(3, user_event()),
                reply(5, {"Num": 0}, "1 error occurred"),
            ]
        )
        for cut in range(len(data) + 1):
            protocol, agent = self.connect(greet=False, auth_key="k")
            agent.send(data[: len(header(0) + header(1))][:cut])
            fired: list[object] = []
            calls: list[Deferred[Reply]] = []
            if protocol.state is State.READY:
                calls = [
                    protocol.call("members"),
                    protocol.call("stream"),
                    protocol.call("event", {"Name": "e"}, timeout=9.0),
                    protocol.call("join", {"Existing": ["a"]}),
                ]
                agent.send(data[len(header(0) + header(1)) : cut])
            for call in calls:
                call.addBoth(fired.append)
            agent.lose()
            self.assertEqual(len(fired), len(calls), cut)
            self.assertQuiet()

    def test_garbage_on_an_open_connection_fails_its_calls_with_a_protocol_error(self) -> None:
        protocol, agent = self.connect()
        waiting = protocol.call("members")
        agent.send(b"\xc1")
        self.assertTrue(agent.transport.aborted)
        agent.finish_closing()
        self.assertIn(HOST, str(self.reason(waiting, ProtocolError)))
        self.assertQuiet()

    def test_a_loss_told_twice_is_told_once(self) -> None:
        owner = Owner()
        _, agent = self.connect(owner=owner)
        agent.lose()
        agent.lose()
        self.assertEqual(len(owner.closed), 1)

    def test_an_owner_gets_what_was_unanswered_in_order_of_seq(self) -> None:
        owner = Owner()
        protocol, agent = self.connect(owner=owner)
        for command in ("stream", "members", "stats", "stream"):
            protocol.call(command)
        protocol.call("leave").addErrback(lambda _: None).cancel()
        agent.send(header(4), reply(2, MEMBERS), header(1))
        agent.lose()
        ((_, unanswered),) = owner.closed
        self.assertEqual([exchange.seq for exchange in unanswered], [1, 3, 4])


class ClosingTests(ProtocolCase):
    def test_close_ends_calls_with_disconnected_and_not_connection_lost(self) -> None:
        protocol, agent = self.connect()
        waiting = protocol.call("members")
        protocol.close()
        self.assertTrue(agent.closed_by_client)
        self.assertNoResult(waiting)
        agent.finish_closing()
        self.assertIs(type(self.reason(waiting, Disconnected)), Disconnected)
        self.assertQuiet()

    def test_a_close_that_the_agent_does_not_follow_is_forced(self) -> None:
        protocol, agent = self.connect(connect_timeout=3.0)
        protocol.close()
        self.assertFalse(agent.transport.aborted)
        self.clock.advance(3.1)
        self.assertTrue(agent.transport.aborted)
        agent.finish_closing()
        self.assertQuiet()

    def test_close_twice_is_close_once(self) -> None:
        protocol, agent = self.connect()
        protocol.close()
        protocol.close()
        agent.finish_closing()
        protocol.close()
        self.assertQuiet()

    def test_a_drained_connection_closes_behind_the_last_reply(self) -> None:
        protocol, agent = self.connect()
        calls = [protocol.call("members"), protocol.call("stats")]
        protocol._drain()
        agent.reply(2, {})
        self.assertFalse(agent.closed_by_client)
        agent.reply(1, MEMBERS)
        self.assertTrue(agent.closed_by_client)
        for call in calls:
            self.successResultOf(call)

    def test_a_connection_that_drains_takes_no_further_call(self) -> None:
        protocol, agent = self.connect()
        waiting = protocol.call("members")
        protocol._drain()
        self.reason(protocol.call("stats"), Disconnected)
        agent.asked_one("members")
        agent.reply(1, MEMBERS)
        self.successResultOf(waiting)
        self.assertTrue(agent.closed_by_client)

    def test_a_connection_that_drains_and_is_lost_fails_what_was_sent(self) -> None:
        protocol, agent = self.connect()
        waiting = protocol.call("members")
        protocol._drain()
        agent.lose()
        self.reason(waiting, ConnectionLost)
        self.assertQuiet()

    def test_an_idle_connection_is_drained_at_once(self) -> None:
        protocol, agent = self.connect()
        protocol._drain()
        self.assertTrue(agent.closed_by_client)

    def test_nothing_is_delivered_once_it_is_closed(self) -> None:
        protocol, agent = self.connect()
        waiting = protocol.call("members")
        protocol.close()
        agent.reply(1, MEMBERS)
        self.assertNoResult(waiting)
        agent.finish_closing()
        self.reason(waiting, Disconnected)


@implementer(ITransport)
class Pipe:
    """A transport like that of a process: it can't be aborted, and does not end while the process lives."""

    def __init__(self) -> None:
        self.disconnecting = False

    def write(self, data: bytes) -> None:
        pass

    def writeSequence(self, data: Iterable[bytes]) -> None:
        pass

    def loseConnection(self) -> None:
        self.disconnecting = True

    def getPeer(self) -> IAddress:
        return ADDRESS

    def getHost(self) -> IAddress:
        return ADDRESS


class Wrapped(Pipe):
    """A transport like TLS over such a pipe: it has `abortConnection`, but the pipe below has not."""

    def abortConnection(self) -> None:
        Pipe().abortConnection()  # type: ignore[attr-defined]


class PipeTests(ProtocolCase):
    def pipe(self, pipe: Pipe, *, greet: bool = True) -> tuple[SerfProtocol, Owner]:
        """Return a connection over *pipe*, and its owner."""
        owner = Owner()
        protocol = SerfProtocol(host=HOST, reactor=self.clock, owner=owner, connect_timeout=3.0)
        protocol.makeConnection(pipe)
        if greet:
            protocol.dataReceived(header(0))
        return protocol, owner

    def test_a_silent_host_is_given_up_though_its_transport_never_ends(self) -> None:
        for pipe in (Pipe(), Wrapped()):
            protocol, owner = self.pipe(pipe, greet=False)
            self.clock.advance(3.0)
            self.clock.advance(0)
            self.assertTrue(pipe.disconnecting)
            ((reason, unanswered),) = owner.closed
            self.assertIn("the handshake", str(reason))
            self.assertEqual((protocol.state, unanswered), (State.CLOSED, []))
            self.assertQuiet()

    def test_its_end_is_not_told_within_the_call_that_gives_it_up(self) -> None:
        protocol, owner = self.pipe(Pipe())
        protocol._give_up(ProtocolError("enough"))
        self.assertEqual(owner.closed, [])
        self.clock.advance(0)
        self.assertEqual([str(reason) for reason, _ in owner.closed], ["enough"])

    def test_the_transports_own_word_of_its_end_may_come_first(self) -> None:
        protocol, owner = self.pipe(Pipe())
        protocol._give_up(ProtocolError("enough"))
        protocol.connectionLost(Failure(error.ConnectionDone()))
        self.clock.advance(0)
        self.assertEqual(len(owner.closed), 1)
        self.assertQuiet()

    def test_the_transports_own_word_may_come_late_and_so_may_bytes(self) -> None:
        protocol, owner = self.pipe(Pipe())
        protocol._give_up(ProtocolError("enough"))
        self.clock.advance(0)
        protocol.dataReceived(reply(7, MEMBERS))
        protocol.connectionLost(Failure(error.ConnectionDone()))
        self.assertEqual(len(owner.closed), 1)
        self.assertQuiet()

    def test_a_close_ends_though_the_transport_never_does(self) -> None:
        protocol, owner = self.pipe(Pipe())
        waiting = protocol.call("members")
        protocol.close()
        self.clock.advance(2.9)
        self.assertEqual(owner.closed, [])
        self.clock.advance(0.1)
        self.clock.advance(0)
        ((reason, (exchange,)),) = owner.closed
        self.assertIs(type(reason), Disconnected)
        exchange.lost(reason)
        self.reason(waiting, Disconnected)
        self.assertQuiet()


class SecrecyTests(ProtocolCase):
    def test_no_log_event_and_no_repr_shows_a_key(self) -> None:
        key = "s3cret"
        log = Log(self)
        protocol, agent = self.connect(greet=False, auth_key=key)
        shown = [repr(protocol), *map(repr, protocol._greeting)]
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        protocol, agent = self.connect(auth_key=key)
        failed = protocol.call("install-key", {"Key": key})
        agent.send(b"\xc1")
        agent.finish_closing()
        shown.append(self.failureResultOf(failed, ProtocolError).getTraceback())
        self.assertNotIn(key, "\n".join([*shown, log.everything]))

    def test_the_repr_of_a_reply_shows_no_key_of_a_keyring(self) -> None:
        protocol, agent = self.connect()
        waiting = protocol.call("list-keys")
        agent.reply(1, {"Keys": {"s3cret": 2}, "Messages": {}, "NumErr": 0})
        shown = repr(self.successResultOf(waiting))
        self.assertEqual(shown, "Reply(seq=1, error='', body={'Keys': ..., 'Messages': ..., 'NumErr': ...})")

    def test_the_repr_of_a_reply_without_a_body_says_so(self) -> None:
        self.assertEqual(repr(Reply(3, "no", None)), "Reply(seq=3, error='no', body=None)")
        self.assertEqual(repr(Reply(3, "", {})), "Reply(seq=3, error='', body={})")


class SplittingTests(ProtocolCase):
    @given(places=st.lists(st.integers(0, 2000), max_size=10))
    @settings(deadline=None)
    def test_however_the_bytes_are_cut_each_gets_its_own(self, places: list[int]) -> None:
        protocol, agent = self.connect()
        records: list[Mapping[str, Any]] = []
        waiting = [
            protocol.call("members"),
            protocol.call("stream", on_record=records.append),
            protocol.call("event", {"Name": "e"}),
        ]
        data = b"".join(
            [
                header(2),
                reply(2, user_event("a")),
                reply(1, MEMBERS),
                reply(2, user_event("b")),
                header(3, "no"),
            ]
        )
        for chunk in cuts(data, places):
            agent.send(chunk)
        replies = [self.successResultOf(call) for call in waiting]
        self.assertEqual(replies, [Reply(1, "", MEMBERS), Reply(2, "", None), Reply(3, "no", None)])
        self.assertEqual([record["Name"] for record in records], ["a", "b"])

    @given(data=st.binary(max_size=100))
    @settings(deadline=None)
    def test_random_bytes_end_in_a_connection_that_is_good_or_given_up(self, data: bytes) -> None:
        protocol, agent = self.connect()
        waiting = protocol.call("members")
        agent.send(data)
        agent.lose()
        fired: list[object] = []
        waiting.addBoth(fired.append)
        self.assertEqual(len(fired), 1)


class FullTransportTests(CallCase):
    """An agent that does not read: requests wait here, where they can still be taken back."""

    def setUp(self) -> None:
        super().setUp()
        self.agent.asked()
        self.protocol.pauseProducing()

    def test_nothing_is_written_until_the_agent_reads_and_then_all_in_order(self) -> None:
        for name in ("a", "b", "c"):
            self.protocol.call("event", {"Name": name})
        self.assertEqual(self.agent.asked(), [])
        self.protocol.resumeProducing()
        self.assertEqual([(asked.body or {})["Name"] for asked in self.agent.asked()], ["a", "b", "c"])
        self.assertEqual(len(self.agent.transport.writes), 2)  # the other one is the greeting

    def test_what_timed_out_or_was_cancelled_before_it_left_is_not_sent_any_more(self) -> None:
        late = self.protocol.call("event", {"Name": "late"}, timeout=1.0)
        unwanted = self.protocol.call("stream", {"Type": "*"})
        wanted = self.protocol.call("event", {"Name": "wanted"})
        unwanted.cancel()
        self.failureResultOf(unwanted, CancelledError)
        self.clock.advance(1.0)
        self.reason(late, RequestTimeout)
        self.protocol.resumeProducing()
        asked = self.agent.asked_one("event")
        self.assertEqual((asked.body or {})["Name"], "wanted")
        self.agent.reply(asked.seq)
        self.successResultOf(wanted)
        self.assertWorks()

    def test_a_stop_is_sent_though_nobody_waits_for_it(self) -> None:
        stop = self.protocol.call("stop", {"Stop": 7}, timeout=1.0)
        self.clock.advance(1.0)
        self.reason(stop, RequestTimeout)
        self.protocol.resumeProducing()
        self.agent.reply(self.agent.asked_one("stop").seq)
        self.assertWorks()

    def test_what_did_not_leave_is_not_sent_as_it_closes(self) -> None:
        waiting = self.protocol.call("event", {"Name": "late"})
        self.protocol.close()
        self.protocol.resumeProducing()
        self.agent.finish_closing()
        self.assertEqual(self.agent.asked(), [])
        self.reason(waiting, Disconnected)

    def test_a_heartbeat_that_does_not_leave_is_a_loss(self) -> None:
        self.clock.advance(30)
        self.clock.advance(5)
        self.assertTrue(self.agent.transport.aborted)

    def test_the_last_call_of_a_connection_that_drains_may_time_out_before_it_leaves(self) -> None:
        waiting = self.protocol.call("members", timeout=1.0)
        self.protocol._drain()
        self.clock.advance(1.0)
        self.reason(waiting, RequestTimeout)
        self.assertTrue(self.agent.closed_by_client)

    def test_no_more_is_given_to_the_transport_than_it_takes(self) -> None:
        self.protocol.resumeProducing()
        write = self.agent.transport.write

        def write_and_be_full(data: bytes) -> None:
            write(data)
            self.protocol.pauseProducing()

        self.patch(self.agent.transport, "write", write_and_be_full)
        events = [Awaited(EVENT, EVENT.arguments({"Name": str(number)})) for number in range(600)]
        self.protocol._send(events)
        sizes = []
        while asked := self.agent.asked():
            sizes.append(len(asked))
            self.protocol.resumeProducing()
        self.assertEqual(sizes, [256, 256, 88])

    def test_its_transport_has_no_producer_once_it_closes(self) -> None:
        self.assertIs(self.agent.transport.producer, self.protocol)
        self.protocol.close()
        self.assertIsNone(self.agent.transport.producer)


class OverloadTests(CallCase):
    def test_one_call_more_than_the_limit_raises_and_is_not_sent(self) -> None:
        self.patch(constant, "CALLS_LIMIT", 2)
        for _ in range(2):
            self.protocol.call("members", timeout=1.0).addErrback(lambda _: None)
        with self.assertRaises(Overloaded):
            self.protocol.call("members")
        self.clock.advance(1.0)  # the agent still owes the answers
        with self.assertRaises(Overloaded):
            self.protocol.call("members")
        self.assertEqual([asked.seq for asked in self.agent.asked()], [1, 2])
        self.agent.reply(1, MEMBERS)
        self.agent.reply(2, MEMBERS)
        self.assertWorks()

    def test_there_may_be_no_limit(self) -> None:
        self.patch(constant, "CALLS_LIMIT", None)
        self.protocol.call("members").addErrback(lambda _: None)
        self.agent.reply(1, MEMBERS)
        self.assertWorks()
