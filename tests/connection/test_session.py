"""Sessions: operations that outlive a connection."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError

from tests.fakes import DONE, NO_MEMBERS, Endpoint, answer, body_of, header, user_event
from tests.session_case import SessionCase, Told
from txserf import commands, constant
from txserf.commands import AUTH, EVENT, MEMBERS, MEMBERS_FILTERED, QUERY, RESPOND, STATS, STREAM, Road
from txserf.connection.hosts import Host
from txserf.connection.session import Session
from txserf.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    Disconnected,
    InvalidRequest,
    ProtocolError,
    RequestTimeout,
)

#: The arguments of each command that needs some.
GIVEN: dict[str, dict[str, Any]] = {
    "event": {"Name": "deploy"},
    "force-leave": {"Node": "n2"},
    "monitor": {"LogLevel": "INFO"},
    "stop": {"Stop": 99},
    "query": {"Name": "load"},
    "respond": {"ID": 1},
    "get-coordinate": {"Node": "n2"},
}

#: The commands that use the main connection.
SHARED = [row for row in commands.TABLE if row.road is Road.MAIN]


class UnsentTests(SessionCase):
    """A request that had not left as the connection was lost: the agent has certainly not carried it out."""

    def test_a_change_that_had_not_left_is_sent_by_the_next_connection(self) -> None:
        session = self.connected()
        left = self.call(session, EVENT, Name="left")
        protocol = session.factory.open_connection
        assert protocol is not None
        protocol.pauseProducing()
        waits = self.call(session, EVENT, Name="waits")
        self.agent.asked_one("event")
        self.reconnect()
        self.failureResultOf(left, ConnectionLost)
        asked = self.agent.asked_one("event")
        self.assertEqual(body_of(asked)["Name"], "waits")
        self.agent.reply(asked.seq)
        self.successResultOf(waits)
        self.disconnect(session)

    def test_by_that_it_has_left_and_is_not_sent_once_more(self) -> None:
        session = self.connected()
        protocol = session.factory.open_connection
        assert protocol is not None
        protocol.pauseProducing()
        waits = self.call(session, EVENT, Name="waits")
        self.reconnect()
        self.agent.asked_one("event")
        self.reconnect()
        self.assertEqual(self.agent.asked(), [])
        self.failureResultOf(waits, ConnectionLost)
        self.disconnect(session)

    def test_a_response_to_a_query_fails_for_another_connection_has_no_use_for_it(self) -> None:
        session = self.connected()
        protocol = session.factory.open_connection
        assert protocol is not None
        protocol.pauseProducing()
        waits = self.call(session, RESPOND, ID=1)
        self.reconnect()
        self.failureResultOf(waits, ConnectionLost)
        self.disconnect(session)

    def test_it_fails_where_the_session_does_not_go_on(self) -> None:
        session = self.connected(reconnect=False)
        protocol = session.factory.open_connection
        assert protocol is not None
        protocol.pauseProducing()
        waits = self.call(session, EVENT, Name="waits")
        self.agent.lose()
        self.failureResultOf(waits, ConnectionLost)
        self.assertEqual(self.host.waiting, 0)
        self.disconnect(session)


class BrokenReplyTests(SessionCase):
    """A reply that breaks the rules costs the call that it belongs to, and the connection, for the codec lost step."""

    #: Headers of Seq 1 with such a body, and whether the size of a message is limited to 1,000 bytes.
    BROKEN = (
        (b"\x81\xa7Members\x91\x81\xa4Tags\x81\x01\xa1x", False),  # a tag's key is an int
        (b"\x81\xa7Members\xc6\x00\x00\x08\x00" + bytes(1500), True),
        (b"\xc1", False),
        (header(2), False),
    )

    def test_its_call_fails_with_a_protocol_error_and_is_not_sent_again(self) -> None:
        for body, limited in self.BROKEN:
            if limited:
                self.patch(constant, "MESSAGE_SIZE_LIMIT", 1000)
            session = self.connected()
            waiting = self.call(session, MEMBERS)
            beside = self.call(session, STATS)
            self.assertEqual([asked.seq for asked in self.agent.asked()], [1, 2])
            self.agent.send(header(1), body)
            self.assertTrue(self.agent.closed_by_client)
            self.reconnect()
            self.failureResultOf(waiting, ProtocolError)
            self.agent.reply(self.agent.asked_one("stats").seq, {})
            self.successResultOf(beside)
            self.disconnect(session)

    def test_where_it_is_nobodys_all_that_only_reads_is_sent_again(self) -> None:
        session = self.connected()
        waiting = self.call(session, MEMBERS)
        self.agent.asked()
        self.agent.send(b"\xc1")
        self.reconnect()
        self.agent.reply(self.agent.asked_one("members").seq, NO_MEMBERS)
        self.successResultOf(waiting)
        self.disconnect(session)

    def test_a_broken_record_of_a_stream_costs_no_call(self) -> None:
        session = self.connected()
        stream = self.submit(session, STREAM, Type="*")
        waiting = self.call(session, MEMBERS)
        self.agent.asked()
        self.agent.send(header(1), header(1), b"\xc1")
        self.reconnect()
        self.assertEqual(self.agent.asked_names(), ["stream", "members"])
        self.assertEqual(stream.told, ["replied", "interrupted"])
        self.assertNoResult(waiting)
        self.disconnect(session)
        self.failureResultOf(waiting, Disconnected)

    def test_what_it_is_the_reply_of_is_told_by_a_lane_too(self) -> None:
        session = self.connected()
        waiting = self.call(session, MEMBERS_FILTERED, Name="(")
        lane = self.host.accept_and_greet()
        lane.send(header(lane.asked_one("members-filtered").seq), b"\xc1")
        lane.finish_closing()
        self.failureResultOf(waiting, ProtocolError)
        self.clock.advance(1)
        self.assertEqual(self.host.waiting, 0)
        self.disconnect(session)


class ConnectingTests(SessionCase):
    def test_continue_trying_that_is_put_to_0_on_its_factory_ends_what_waits(self) -> None:
        session = self.session()
        waiting = self.call(session, MEMBERS)
        session.factory.continueTrying = 0
        self.host.refuse()
        self.failureResultOf(waiting, ConnectError)
        self.clock.advance(1000)
        self.assertEqual((self.host.attempts, self.clock.getDelayedCalls()), (1, []))
        # A later request starts afresh, as after any other end of the trying.
        self.submit(session, MEMBERS)
        self.assertEqual(self.host.attempts, 2)

    def test_nothing_is_dialled_before_it_is_used(self) -> None:
        self.session()
        self.assertEqual((self.host.attempts, self.clock.getDelayedCalls()), (0, []))

    def test_connect_twice_is_connect_once(self) -> None:
        session = self.session()
        session.connect()
        session.connect()
        self.assertEqual(self.host.attempts, 1)

    def test_an_operation_connects_by_itself(self) -> None:
        self.submit(self.session(), MEMBERS)
        self.assertEqual(self.host.attempts, 1)

    def test_what_waited_goes_out_in_one_write_in_its_order_behind_the_greeting(self) -> None:
        session = self.session()
        self.submit(session, MEMBERS)
        self.submit(session, EVENT, Name="e")
        self.submit(session, STATS)
        agent = self.host.accept()
        self.assertEqual(agent.asked_names(), ["handshake"])
        agent.reply(0)
        self.assertEqual(agent.asked_names(), ["members", "event", "stats"])
        self.assertEqual(len(agent.transport.writes), 2)

    def test_on_an_open_connection_operations_go_out_at_once_in_one_write(self) -> None:
        session = self.connected()
        session.submit([Told(session, MEMBERS), Told(session, EVENT, Name="e")])
        self.assertEqual(len(self.agent.transport.writes), 2)
        self.assertEqual(self.agent.asked_names(), ["members", "event"])

    def test_one_alone_waits_and_is_sent_as_several_are(self) -> None:
        session = self.session()
        session.submit_one(Told(session, MEMBERS))
        agent = self.host.accept_and_greet()
        self.assertEqual(agent.asked_names(), ["members"])
        session.submit_one(Told(session, EVENT, Name="e"))
        self.assertEqual(agent.asked_names(), ["event"])
        session.submit_one(Told(session, commands.LIST_KEYS))
        self.assertEqual(self.host.accept_and_greet().asked_names(), ["list-keys"])
        self.assertEqual(agent.asked(), [])

    def test_a_call_waits_for_a_connection_within_its_own_timeout(self) -> None:
        session = self.session()
        impatient = self.call(session, MEMBERS, timeout=1.0)
        patient = self.call(session, STATS, timeout=3.0)
        self.clock.advance(1.0)
        self.failureResultOf(impatient, RequestTimeout)
        self.assertNoResult(patient)
        agent = self.host.accept_and_greet()
        self.assertEqual(agent.asked_names(), ["stats"])
        self.clock.advance(2.0)
        self.failureResultOf(patient, RequestTimeout)

    def test_a_call_without_a_timeout_waits_as_long_as_it_takes(self) -> None:
        call = self.call(self.session(connect_timeout=1e9), MEMBERS)
        self.clock.advance(1e8)
        agent = self.host.accept_and_greet()
        agent.reply(agent.asked_one("members").seq, NO_MEMBERS)
        self.assertEqual(self.successResultOf(call), [])

    def test_while_it_waits_it_says_why(self) -> None:
        session = self.session()
        call = self.call(session, MEMBERS, timeout=1.0)
        self.host.refuse()
        self.assertIn("refused", session.why_waiting())
        self.clock.advance(1.0)
        self.assertIn("refused", str(self.failureResultOf(call, RequestTimeout).value))

    def test_with_a_connection_there_is_nothing_to_say(self) -> None:
        session = self.session()
        session.connect()
        self.host.refuse()
        self.clock.advance(1.0)
        self.host.accept_and_greet()
        self.assertEqual(session.why_waiting(), "")

    def test_wrong_settings_are_refused_at_once(self) -> None:
        wrong: list[dict[str, Any]] = [{"connect_timeout": -1}, {"connect_timeout": "5"}]
        wrong += [{"heartbeat": 0}, {"heartbeat": -1}, {"heartbeat": True}]
        for setting in wrong:
            with self.assertRaises(InvalidRequest):
                Session([self.host], reconnect=True, reactor=self.clock, **setting)


class LossTests(SessionCase):
    def test_each_command_that_reads_is_sent_again_and_no_other(self) -> None:
        session = self.connected()
        operations = [self.submit(session, row, **GIVEN.get(row.wire, {})) for row in SHARED]
        before = self.agent.asked()
        self.reconnect()
        self.assertEqual(self.agent.asked(), [asked for asked in before if reads(asked.command)])
        for operation in operations:
            if not reads(operation.command.wire):
                self.assertEqual(operation.told, ["ConnectionLost"], operation.command.wire)

    def test_a_change_that_was_lost_says_which_agent_and_each_has_its_own_error(self) -> None:
        session = self.connected()
        first, second = (self.submit(session, EVENT, Name=name) for name in "ab")
        self.agent.lose()
        (one,), (other,) = first.reasons, second.reasons
        assert isinstance(one, ConnectionLost)
        self.assertIn(one.host, str(one))
        self.assertEqual(one.host, session.factory.hosts[0].label)
        self.assertIsNot(one, other)

    def test_a_change_that_was_answered_is_over(self) -> None:
        session = self.connected()
        event = self.submit(session, EVENT, Name="e")
        self.agent.reply(self.agent.asked_one("event").seq)
        self.reconnect()
        self.assertEqual(event.told, ["replied"])
        self.assertEqual(self.agent.asked(), [])

    def test_a_change_that_was_not_sent_yet_waits_for_the_next_connection(self) -> None:
        session = self.connected()
        self.agent.lose()
        event = self.submit(session, EVENT, Name="e")
        self.assertEqual(event.told, [])
        self.assertEqual(self.host.accept_and_greet().asked_names(), ["event"])

    def test_what_waits_survives_a_connection_that_never_opens(self) -> None:
        session = self.session()
        event = self.submit(session, EVENT, Name="e")
        self.host.accept().lose()
        self.clock.advance(1.0)
        self.assertEqual(event.told, [])
        self.assertEqual(self.host.accept_and_greet().asked_names(), ["event"])

    def test_a_read_keeps_its_seq_through_any_number_of_losses_and_is_answered_once(self) -> None:
        session = self.connected()
        members = self.submit(session, MEMBERS)
        seqs = {self.agent.asked_one("members").seq}
        for _ in range(3):
            self.reconnect()
            seqs.add(self.agent.asked_one("members").seq)
        self.agent.reply(seqs.pop(), NO_MEMBERS)
        self.assertEqual(seqs, set())
        self.assertEqual(members.told, ["replied"])
        self.reconnect()
        self.assertEqual(self.agent.asked(), [])

    def test_a_read_that_is_sent_again_keeps_its_timeout(self) -> None:
        session = self.connected()
        call = self.call(session, MEMBERS, timeout=2.0)
        self.clock.advance(1.5)
        self.agent.lose()
        self.host.accept_and_greet()
        self.clock.advance(0.5)
        self.failureResultOf(call, RequestTimeout)

    def test_a_subscription_is_told_and_opened_again_under_its_seq(self) -> None:
        session = self.connected()
        stream = self.submit(session, STREAM)
        seq = self.agent.asked_one("stream").seq
        self.agent.reply(seq)
        self.agent.reply(seq, user_event())
        self.reconnect()
        self.assertEqual(self.agent.asked_one("stream").seq, seq)
        self.agent.reply(seq)
        self.agent.reply(seq, user_event())
        self.assertEqual(stream.told, ["replied", "record", "interrupted", "replied", "record"])

    def test_each_loss_is_told_once_and_that_of_a_dialling_not_at_all(self) -> None:
        session = self.connected()
        stream = self.submit(session, STREAM)
        self.reconnect()
        self.clock.advance(1.0)
        self.agent.lose()
        self.host.refuse()
        self.clock.advance(1.0)
        self.host.accept().lose()
        self.assertEqual(stream.told, ["interrupted", "interrupted"])

    def test_a_query_fails_whether_it_was_replied_to_or_not_and_is_not_asked_again(self) -> None:
        session = self.connected()
        replied, silent = (self.submit(session, QUERY, Name=name) for name in "ab")
        seq = self.agent.asked()[0].seq
        self.agent.reply(seq)
        self.agent.reply(seq, answer("n1"))
        self.reconnect()
        self.assertEqual(replied.told, ["replied", "record", "ConnectionLost"])
        self.assertEqual(silent.told, ["ConnectionLost"])
        self.assertEqual(self.agent.asked(), [])

    def test_a_query_that_is_done_is_over(self) -> None:
        session = self.connected()
        query = self.submit(session, QUERY, Name="q")
        seq = self.agent.asked_one("query").seq
        self.agent.reply(seq)
        self.agent.reply(seq, DONE)
        self.agent.lose()
        self.assertEqual(query.told, ["replied", "record"])

    def test_what_is_submitted_as_another_is_told_of_the_loss_waits_for_the_next_connection(self) -> None:
        session = self.connected()
        call = self.call(session, EVENT, Name="e")
        call.addErrback(lambda _: self.submit(session, STATS))
        self.reconnect()
        self.assertEqual(self.agent.asked_names(), ["stats"])

    def test_a_disconnect_as_another_is_told_of_the_loss_ends_what_would_be_sent_again(self) -> None:
        session = self.connected()
        members = self.submit(session, MEMBERS)
        call = self.call(session, EVENT, Name="e")
        call.addErrback(lambda _: session.disconnect())
        self.agent.lose()
        self.clock.advance(0)
        self.assertEqual(members.told, ["Disconnected"])
        self.assertEqual(self.host.waiting, 0)

    def test_nothing_was_done_on_a_connection_that_wanted_a_key_so_all_of_it_goes_to_the_next_host(
        self,
    ) -> None:
        other = Endpoint()
        session = Session([self.host, other], reconnect=True, reactor=self.clock, heartbeat=None)
        stream = self.submit(session, STREAM)
        event = self.submit(session, EVENT, Name="e")
        agent = self.host.accept_and_greet()
        before = agent.asked()
        agent.reply(before[0].seq, error=commands.AUTHENTICATION_REQUIRED)
        agent.finish_closing()
        self.assertEqual(other.accept_and_greet().asked(), before)
        self.assertEqual((stream.told, event.told), ([], []))


def reads(wire: str) -> bool:
    """Return whether a command only reads, according to Serf's manual, so that it may be sent again."""
    return wire in {"members", "members-filtered", "stream", "monitor", "stop", "stats", "get-coordinate"}


class RetriesTests(SessionCase):
    def test_where_no_retry_is_left_a_loss_ends_reads_and_streams_too(self) -> None:
        session = self.connected()
        session.factory.maxRetries = 0  # type: ignore[assignment]  # Twisted's own is None
        stream, members = self.submit(session, STREAM), self.submit(session, MEMBERS)
        self.clock.advance(5.0)
        self.agent.lose()
        self.clock.advance(500.0)
        self.assertEqual((stream.told, members.told), (["ConnectionLost"], ["ConnectionLost"]))


class StoppedFactoryTests(SessionCase):
    """A program may stop the trying: ``client.factory.stopTrying()``."""

    def stopped(self, session: Session) -> None:
        members, stream = self.submit(session, MEMBERS), self.submit(session, STREAM)
        session.factory.stopTrying()
        self.assertEqual((members.told, stream.told), (["Disconnected"], ["Disconnected"]))
        self.clock.advance(100.0)
        self.assertEqual((self.host.waiting, self.clock.getDelayedCalls()), (0, []))

    def test_as_it_dials_all_that_waits_ends(self) -> None:
        self.stopped(self.session())

    def test_in_the_wait_between_two_rounds_all_that_waits_ends(self) -> None:
        session = self.session()
        session.connect()
        self.host.refuse()
        self.stopped(session)

    def test_as_it_shakes_hands_all_that_waits_ends(self) -> None:
        session = self.session()
        session.connect()
        agent = self.host.accept()
        self.stopped(session)
        agent.finish_closing()

    def test_the_next_operation_starts_it_again(self) -> None:
        session = self.session()
        self.stopped(session)
        self.submit(session, MEMBERS)
        self.assertEqual(self.host.accept_and_greet().asked_names(), ["members"])

    def test_stopped_and_asked_again_as_a_loss_is_told_the_new_operation_waits(self) -> None:
        session = self.connected()
        again: list[Told] = []

        def stop_and_ask(_: object) -> None:
            session.factory.stopTrying()
            again.append(self.submit(session, MEMBERS))

        self.call(session, EVENT, Name="e").addErrback(stop_and_ask)
        self.clock.advance(1.0)
        self.agent.lose()
        self.assertEqual(self.host.accept_and_greet().asked_names(), ["members"])
        self.assertEqual(again[0].told, [])


class WithoutReconnectTests(SessionCase):
    def test_a_loss_ends_all_that_was_in_flight(self) -> None:
        session = self.connected(reconnect=False)
        operations = [self.submit(session, row, **GIVEN.get(row.wire, {})) for row in SHARED]
        self.agent.lose()
        for operation in operations:
            self.assertEqual(operation.told, ["ConnectionLost"], operation.command.wire)

    def test_a_stream_that_was_open_ends_and_is_not_interrupted(self) -> None:
        session = self.connected(reconnect=False)
        stream = self.submit(session, STREAM)
        self.agent.reply(self.agent.asked_one("stream").seq)
        self.agent.lose()
        self.assertEqual(stream.told, ["replied", "ConnectionLost"])

    def test_it_does_not_connect_again_by_itself(self) -> None:
        self.connected(reconnect=False)
        self.agent.lose()
        self.clock.advance(1000.0)
        self.assertEqual(self.host.attempts, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_next_operation_starts_afresh(self) -> None:
        session = self.connected(reconnect=False)
        self.agent.lose()
        members = self.submit(session, MEMBERS)
        agent = self.host.accept_and_greet()
        agent.reply(agent.asked_one("members").seq, NO_MEMBERS)
        self.assertEqual(members.told, ["replied"])

    def test_there_is_one_round_for_a_connection_and_all_who_wait_get_its_error(self) -> None:
        other = Endpoint()
        session = Session([self.host, other], reconnect=False, reactor=self.clock)
        first, second = self.submit(session, MEMBERS), self.submit(session, EVENT, Name="e")
        self.host.refuse()
        self.assertEqual(first.told, [])
        other.refuse()
        for operation in (first, second):
            (reason,) = operation.reasons
            assert isinstance(reason, ConnectError)
            self.assertEqual(len(reason.failures), 2)
        self.assertIsNot(first.reasons[0], second.reasons[0])
        self.assertEqual((self.host.waiting, self.clock.getDelayedCalls()), (0, []))

    def test_an_operation_that_is_submitted_as_a_round_fails_has_a_round_of_its_own(self) -> None:
        session = self.session(reconnect=False)
        call = self.call(session, MEMBERS)
        call.addErrback(lambda _: self.call(session, STATS))
        self.host.refuse()
        self.assertEqual(self.host.accept_and_greet().asked_names(), ["stats"])


class AbandonTests(SessionCase):
    def test_what_is_cancelled_before_there_is_a_connection_is_never_sent(self) -> None:
        session = self.session()
        call = self.call(session, MEMBERS, timeout=5.0)
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.assertEqual(self.host.accept_and_greet().asked(), [])
        self.disconnect(session)

    def test_what_is_cancelled_between_two_connections_is_not_sent_again(self) -> None:
        session = self.connected()
        call = self.call(session, MEMBERS)
        self.agent.lose()
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.assertEqual(self.host.accept_and_greet().asked(), [])

    def test_cancelled_in_flight_its_late_reply_is_dropped_and_the_next_one_is_understood(self) -> None:
        session = self.connected()
        call = self.call(session, MEMBERS, timeout=5.0)
        call.cancel()
        self.failureResultOf(call, CancelledError)
        stats = self.call(session, STATS)
        for asked in self.agent.asked():
            self.agent.reply(asked.seq, NO_MEMBERS if asked.command == "members" else {})
        self.assertEqual(self.successResultOf(stats), {})
        self.disconnect(session)

    def test_cancelled_in_flight_it_is_not_sent_again_after_a_loss(self) -> None:
        session = self.connected()
        call = self.call(session, MEMBERS)
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.reconnect()
        self.assertEqual(self.agent.asked(), [])

    def test_an_abandoned_stream_is_stopped_at_the_agent_and_told_nothing_more(self) -> None:
        session = self.connected()
        stream = self.submit(session, STREAM)
        seq = self.agent.asked_one("stream").seq
        self.agent.reply(seq)
        session.abandon(stream)
        stop = self.agent.asked_one("stop")
        self.assertEqual(stop.body, {"Stop": seq})
        self.agent.reply(seq, user_event())
        self.agent.reply(stop.seq)
        self.agent.reply(seq, user_event())
        self.reconnect()
        self.assertEqual(stream.told, ["replied"])
        self.assertEqual(self.agent.asked(), [])

    def test_a_stream_that_is_abandoned_before_its_reply_is_stopped_too(self) -> None:
        session = self.connected()
        stream = self.submit(session, STREAM)
        seq = self.agent.asked_one("stream").seq
        session.abandon(stream)
        self.assertEqual(self.agent.asked_one("stop").body, {"Stop": seq})
        self.agent.reply(seq)
        self.agent.reply(seq, user_event())
        self.assertEqual(stream.told, [])

    def test_a_stream_that_is_being_stopped_is_not_opened_again(self) -> None:
        session = self.connected()
        stream = self.submit(session, STREAM)
        seq = self.agent.asked_one("stream").seq
        self.agent.reply(seq)
        session.settle(stream)
        self.submit(session, commands.STOP, Stop=seq)
        self.reconnect()
        self.assertEqual(self.agent.asked_names(), ["stop"])
        self.assertEqual(stream.told, ["replied"])

    def test_an_abandoned_query_is_not_stopped_for_no_agent_could(self) -> None:
        session = self.connected()
        query = self.submit(session, QUERY, Name="q")
        seq = self.agent.asked_one("query").seq
        self.agent.reply(seq)
        session.abandon(query)
        for record in (answer("n1"), DONE):
            self.agent.reply(seq, record)
        self.assertEqual((query.told, self.agent.asked()), (["replied"], []))

    def test_what_is_over_may_be_abandoned(self) -> None:
        session = self.connected()
        members = self.submit(session, MEMBERS)
        self.agent.reply(self.agent.asked_one("members").seq, NO_MEMBERS)
        session.abandon(members)
        session.abandon(members)
        self.assertEqual((members.told, self.agent.asked()), (["replied"], []))


class TimeoutTests(SessionCase):
    def test_past_its_timeout_a_call_fails_and_harms_no_other(self) -> None:
        session = self.connected()
        slow, patient = self.call(session, MEMBERS, timeout=1.0), self.call(session, STATS, timeout=2.0)
        self.clock.advance(1.0)
        self.assertIn("members", str(self.failureResultOf(slow, RequestTimeout).value))
        for asked in self.agent.asked():
            self.agent.reply(asked.seq, NO_MEMBERS if asked.command == "members" else {})
        self.assertEqual(self.successResultOf(patient), {})

    def test_a_change_that_timed_out_is_told_nothing_of_a_later_loss(self) -> None:
        session = self.connected()
        call = self.call(session, EVENT, timeout=1.0, Name="e")
        fired: list[object] = []
        call.addBoth(fired.append)
        self.clock.advance(1.0)
        self.reconnect()
        self.assertEqual(len(fired), 1)
        self.assertEqual(self.agent.asked(), [])

    def test_a_call_that_was_answered_leaves_no_timer(self) -> None:
        session = self.connected()
        self.call(session, MEMBERS, timeout=60.0)
        self.agent.reply(self.agent.asked_one("members").seq, NO_MEMBERS)
        self.disconnect(session)


class DisconnectTests(SessionCase):
    def test_what_is_in_flight_ends_once_with_disconnected(self) -> None:
        session = self.connected()
        operations = [self.submit(session, row, **GIVEN.get(row.wire, {})) for row in SHARED]
        self.disconnect(session)
        for operation in operations:
            self.assertEqual(operation.told, ["Disconnected"], operation.command.wire)

    def test_what_waits_ends_with_it_too(self) -> None:
        session = self.session()
        members, event = self.submit(session, MEMBERS), self.submit(session, EVENT, Name="e")
        self.disconnect(session)
        self.assertEqual((members.told, event.told), (["Disconnected"], ["Disconnected"]))
        self.assertEqual(self.host.cancelled, 1)

    def test_a_key_that_waited_opens_no_connection_that_is_asked_for_right_behind_it(self) -> None:
        session = self.session()
        self.submit(session, AUTH, AuthKey="k")
        session.disconnect()
        session.connect()
        self.assertEqual(self.host.accept().asked_names(), ["handshake"])

    def test_a_key_that_waited_opens_no_connection_that_is_asked_for_as_another_call_ends(self) -> None:
        session = self.session()
        call = self.call(session, EVENT, Name="e")
        call.addErrback(lambda _: self.submit(session, MEMBERS))
        self.submit(session, AUTH, AuthKey="k")
        session.disconnect()
        self.clock.advance(0)
        self.assertEqual(self.host.accept().asked_names(), ["handshake"])

    def test_cancelling_its_deferred_ends_the_waiting_for_it_and_nothing_else(self) -> None:
        session = self.session()
        members = self.submit(session, MEMBERS)
        closed = session.disconnect()
        closed.cancel()
        self.failureResultOf(closed, CancelledError)
        self.clock.advance(0)
        self.assertEqual(members.told, ["Disconnected"])
        self.disconnect(session)

    def test_what_waits_while_the_handshake_is_under_way_ends_with_it_too(self) -> None:
        session = self.session()
        members = self.submit(session, MEMBERS)
        self.host.accept()
        self.disconnect(session)
        self.assertEqual(members.told, ["Disconnected"])

    def test_what_waits_between_two_rounds_ends_with_it_too(self) -> None:
        session = self.session()
        members = self.submit(session, MEMBERS)
        self.host.refuse()
        self.disconnect(session)
        self.clock.advance(100.0)
        self.assertEqual((members.told, self.host.attempts), (["Disconnected"], 1))

    def test_it_is_no_loss(self) -> None:
        session = self.connected()
        members = self.submit(session, MEMBERS)
        self.disconnect(session)
        self.assertIs(type(members.reasons[0]), Disconnected)
        self.assertEqual(self.host.attempts, 1)

    def test_nobody_is_told_inside_the_callers_stack(self) -> None:
        connected, waiting = self.connected(), self.session()
        members, stats = self.submit(connected, MEMBERS), self.submit(waiting, STATS)
        connected.disconnect()
        waiting.disconnect()
        self.assertEqual((members.told, stats.told), ([], []))

    def test_its_deferred_fires_once_the_transport_is_closed_and_all_are_told(self) -> None:
        session = self.connected()
        members = self.submit(session, MEMBERS)
        told: list[str] = []
        closed = session.disconnect().addCallback(lambda _: told.extend(members.told))
        self.clock.advance(0)
        self.assertNoResult(closed)
        self.agent.finish_closing()
        self.assertEqual(told, ["Disconnected"])

    def test_behind_a_connection_that_was_just_given_up_streams_end_too(self) -> None:
        session = self.connected()
        stream, members = self.submit(session, STREAM), self.submit(session, MEMBERS)
        self.agent.send(b"\xc1")
        self.disconnect(session)
        self.assertEqual((stream.told, members.told), (["Disconnected"], ["Disconnected"]))

    def test_and_a_new_request_as_a_loss_is_told_make_one_connection(self) -> None:
        session = self.session()
        session.connect()
        self.host.accept_and_greet().lose()
        agent = self.host.accept_and_greet()

        def start_again(_: object) -> None:
            session.disconnect()
            self.submit(session, MEMBERS)

        self.call(session, EVENT, Name="e").addErrback(start_again)
        agent.lose()
        self.host.accept_and_greet()
        self.clock.advance(1.0)
        self.assertEqual(self.host.waiting, 0)

    def test_without_a_connection_it_fires_in_the_next_turn(self) -> None:
        closed = self.session().disconnect()
        self.clock.advance(0)
        self.successResultOf(closed)

    def test_twice_is_once_and_each_who_asks_is_told(self) -> None:
        session = self.connected()
        members = self.submit(session, MEMBERS)
        first, second = session.disconnect(), session.disconnect()
        self.agent.finish_closing()
        self.clock.advance(0)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(members.told, ["Disconnected"])

    def test_what_times_out_or_is_cancelled_before_it_is_told_is_not_told(self) -> None:
        session = self.session()
        call = self.call(session, MEMBERS)
        stats = self.submit(session, STATS)
        session.disconnect()
        call.cancel()
        session.abandon(stats)
        self.clock.advance(0)
        self.failureResultOf(call, CancelledError)
        self.assertEqual(stats.told, [])

    def test_a_reply_that_comes_behind_it_is_dropped(self) -> None:
        session = self.connected()
        members = self.submit(session, MEMBERS)
        seq = self.agent.asked_one("members").seq
        session.disconnect()
        self.agent.reply(seq, NO_MEMBERS)
        self.agent.finish_closing()
        self.assertEqual(members.told, ["Disconnected"])

    def test_behind_it_the_next_operation_connects_again(self) -> None:
        session = self.connected()
        self.disconnect(session)
        members = self.submit(session, MEMBERS)
        agent = self.host.accept_and_greet()
        agent.reply(agent.asked_one("members").seq, NO_MEMBERS)
        self.assertEqual(members.told, ["replied"])
        self.disconnect(session)

    def test_what_is_submitted_while_it_closes_goes_by_the_next_connection(self) -> None:
        session = self.connected()
        session.disconnect()
        members = self.submit(session, MEMBERS)
        self.assertEqual(self.host.attempts, 1)
        self.agent.finish_closing()
        self.clock.advance(0)
        self.assertEqual(self.host.accept_and_greet().asked_names(), ["members"])
        self.assertEqual(members.told, [])


class AuthTests(SessionCase):
    def test_a_key_that_was_submitted_opens_the_connection_and_what_waits_goes_behind_it(self) -> None:
        session = self.session()
        auth = self.submit(session, commands.AUTH, AuthKey="k")
        members = self.submit(session, MEMBERS)
        agent = self.host.accept()
        self.assertEqual(agent.greet()[1].body, {"AuthKey": "k"})
        self.assertEqual(agent.asked_names(), ["members"])
        self.assertEqual((auth.told, members.told), (["replied"], []))

    def test_a_refused_key_fails_all_who_wait_and_is_not_used_again(self) -> None:
        session = self.session()
        auth, members = self.submit(session, commands.AUTH, AuthKey="k"), self.submit(session, MEMBERS)
        agent = self.host.accept()
        agent.greet("Invalid authentication token")
        agent.finish_closing()
        for operation in (auth, members):
            self.assertIsInstance(operation.reasons[0], AuthenticationError)
        session.connect()
        self.assertEqual(self.host.accept().asked_names(), ["handshake"])

    def test_a_handshake_on_an_open_connection_is_answered_with_its_own_in_a_later_turn(self) -> None:
        session = self.connected()
        handshake = self.submit(session, commands.HANDSHAKE)
        self.assertEqual(handshake.told, [])
        self.clock.advance(0)
        self.assertEqual((handshake.told, handshake.seq, self.agent.asked()), (["replied"], 0, []))

    def test_a_key_that_still_waits_outlives_the_end_of_another(self) -> None:
        session = self.session()
        first = self.submit(session, commands.AUTH, AuthKey="first")
        self.submit(session, commands.AUTH, AuthKey="second")
        session.abandon(first)
        self.host.refuse()
        self.clock.advance(1.0)
        self.assertEqual(self.host.accept().greet()[1].body, {"AuthKey": "second"})

    def test_a_refusal_of_the_key_before_does_not_count_against_the_one_that_was_submitted_since(
        self,
    ) -> None:
        other = Endpoint()
        hosts = [Host(endpoint=host, auth_key="old") for host in (self.host, other)]
        session = Session(hosts, reconnect=False, reactor=self.clock, heartbeat=None)
        session.connect()
        for host in (self.host, other):
            agent = host.accept()
            if host is other:
                auth = self.submit(session, commands.AUTH, AuthKey="new")
            agent.greet("Invalid authentication token")
            agent.finish_closing()
        self.assertEqual(self.host.accept().greet()[1].body, {"AuthKey": "new"})
        self.assertEqual(auth.told, ["replied"])

    def test_of_several_the_first_may_disconnect_and_the_others_end_with_it(self) -> None:
        session = self.session()
        self.call(session, commands.HANDSHAKE).addCallback(lambda _: session.disconnect())
        second = self.submit(session, commands.HANDSHAKE)
        self.host.accept_and_greet().finish_closing()
        self.clock.advance(0)
        self.assertEqual(second.told, ["Disconnected"])

    def test_one_that_was_not_answered_before_a_disconnect_ends_with_it(self) -> None:
        session = self.connected()
        handshake = self.submit(session, commands.HANDSHAKE)
        self.disconnect(session)
        self.assertEqual(handshake.told, ["Disconnected"])

    def test_one_that_is_abandoned_before_is_not_told(self) -> None:
        session = self.connected()
        handshake = self.submit(session, commands.HANDSHAKE)
        session.abandon(handshake)
        self.clock.advance(0)
        self.assertEqual(handshake.told, [])
