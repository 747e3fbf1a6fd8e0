"""Lanes: further connections to the same agent, for commands that would delay others or end the connection."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.fakes import MEMBERS as MEMBERS_BODY
from tests.fakes import NO_MEMBERS, Agent, Endpoint
from tests.session_case import SessionCase, Told
from txserf.commands import (
    AUTH,
    EVENT,
    HANDSHAKE,
    INSTALL_KEY,
    JOIN,
    LIST_KEYS,
    MEMBERS,
    MEMBERS_FILTERED,
    STATS,
    Road,
)
from txserf.connection.hosts import Host
from txserf.connection.lanes import Lane, LaneState
from txserf.connection.session import Session
from txserf.errors import (
    AuthenticationError,
    ConnectionLost,
    Disconnected,
    RequestTimeout,
    RpcError,
)
from txserf.model import KeyReply

NO_KEYS = KeyReply().to_wire(listing=True)

#: A filter that txserf can't be sure of: an agent may close the connection for it.
RISKY = "n[12]"


class LaneCase(SessionCase):
    seq: int

    def join(self, session: Session, name: str = "n2", timeout: float | None = None) -> Deferred[Any]:
        return self.call(session, JOIN, timeout, Existing=[name])

    def joining(self, reconnect: bool = True) -> tuple[Session, Deferred[Any], Agent]:
        """Return a session, a join under way (`seq` is its Seq), and the agent's end of the join's lane."""
        session = self.connected(reconnect=reconnect)
        join = self.join(session)
        lane = self.host.accept_and_greet()
        self.seq = lane.asked_one("join").seq
        return session, join, lane


class OwnConnectionTests(LaneCase):
    def test_nothing_is_dialled_for_what_holds_up_nobody(self) -> None:
        session = self.connected()
        self.submit(session, MEMBERS)
        self.submit(session, MEMBERS_FILTERED, Name="n1")
        self.assertEqual(self.host.attempts, 1)

    def test_joins_share_one_lane_and_key_commands_another(self) -> None:
        session = self.connected()
        for name in "ab":
            self.submit(session, JOIN, Existing=[name])
            self.submit(session, LIST_KEYS)
        self.submit(session, INSTALL_KEY, Key="k")
        lanes = [self.host.accept_and_greet(), self.host.accept_and_greet()]
        self.assertEqual(
            [lane.asked_names() for lane in lanes], [["join"] * 2, ["list-keys", "list-keys", "install-key"]]
        )
        self.assertEqual((self.host.waiting, self.agent.asked()), (0, []))

    def test_risky_filters_go_alone_and_each_connection_is_closed_behind_its_answer(self) -> None:
        session = self.connected()
        calls = [self.call(session, MEMBERS_FILTERED, Name=RISKY) for _ in range(2)]
        for call in calls:
            lane = self.host.accept_and_greet()
            lane.reply(lane.asked_one("members-filtered").seq, MEMBERS_BODY)
            self.assertEqual(len(self.successResultOf(call)), 1)
            lane.finish_closing()
        self.assertFalse(self.agent.closed_by_client)

    def test_a_lane_goes_to_the_agent_that_is_connected(self) -> None:
        other = Endpoint()
        session = Session([self.host, other], reconnect=True, reactor=self.clock, heartbeat=None)
        session.connect()
        self.host.refuse()
        other.accept_and_greet()
        self.submit(session, JOIN, Existing=["a"])
        self.assertEqual((self.host.attempts, other.attempts), (1, 2))

    def test_it_has_the_same_key(self) -> None:
        host = Host(endpoint=self.host, auth_key="k")
        session = Session([host], reconnect=True, reactor=self.clock, heartbeat=None)
        self.submit(session, JOIN, Existing=["a"])
        for _ in range(2):
            self.assertEqual(self.host.accept().greet()[1].body, {"AuthKey": "k"})

    def test_none_is_dialled_before_the_session_is_connected(self) -> None:
        session = self.session()
        self.submit(session, JOIN, Existing=["a"])
        main = self.host.accept()
        self.assertEqual(self.host.waiting, 0)
        main.greet()
        self.assertEqual(self.host.accept_and_greet().asked_names(), ["join"])
        self.assertEqual(main.asked(), [])

    def test_what_waits_for_it_goes_out_in_one_write_in_its_order(self) -> None:
        session = self.connected()
        for name in "abc":
            self.submit(session, JOIN, Existing=[name])
        lane = self.host.accept_and_greet()
        self.assertEqual([asked.body for asked in lane.asked()], [
            {"Existing": [name], "Replay": False} for name in "abc"
        ])  # fmt: skip
        self.assertEqual(len(lane.transport.writes), 2)

    def test_it_is_kept_for_the_next_one(self) -> None:
        session, join, lane = self.joining()
        lane.reply(self.seq, {"Num": 1})
        self.successResultOf(join)
        self.clock.advance(1000.0)
        self.submit(session, JOIN, Existing=["c"])
        self.assertEqual(lane.asked_names(), ["join"])


class HangingTests(LaneCase):
    def test_one_that_hangs_holds_up_nothing_else(self) -> None:
        session, join, _ = self.joining()
        stats, keys = self.call(session, STATS), self.call(session, LIST_KEYS)
        self.agent.reply(self.agent.asked_one("stats").seq, {})
        other = self.host.accept_and_greet()
        other.reply(other.asked_one("list-keys").seq, NO_KEYS)
        self.successResultOf(stats)
        self.successResultOf(keys)
        self.assertNoResult(join)

    def test_a_call_that_times_out_by_it_leaves_it_good(self) -> None:
        session = self.connected()
        first, second = self.join(session, "a", timeout=1.0), self.join(session, "b", timeout=9.0)
        lane = self.host.accept_and_greet()
        self.clock.advance(1.0)
        self.failureResultOf(first, RequestTimeout)
        for asked in lane.asked():
            lane.reply(asked.seq, {"Num": 1})
        self.assertEqual(self.successResultOf(second), 1)
        self.disconnect(session)

    def test_a_call_that_is_cancelled_by_it_leaves_it_good(self) -> None:
        session, join, lane = self.joining()
        join.cancel()
        self.failureResultOf(join, CancelledError)
        lane.reply(self.seq, {"Num": 1})
        again = self.join(session)
        lane.reply(lane.asked_one("join").seq, {"Num": 1})
        self.assertEqual(self.successResultOf(again), 1)

    def test_what_is_abandoned_in_flight_is_told_neither_of_its_reply_nor_of_a_loss(self) -> None:
        session = self.connected()
        replied, lost = (self.submit(session, JOIN, Existing=[name]) for name in "ab")
        lane = self.host.accept_and_greet()
        seq = lane.asked()[0].seq
        session.abandon(replied)
        session.abandon(lost)
        lane.reply(seq, {"Num": 1})
        lane.lose()
        self.assertEqual((replied.told, lost.told), ([], []))

    def test_what_is_cancelled_before_it_is_open_is_never_sent_by_it(self) -> None:
        session = self.connected()
        for cancelled in (self.join(session), self.call(session, MEMBERS_FILTERED, Name=RISKY)):
            cancelled.cancel()
            self.failureResultOf(cancelled, CancelledError)
            self.assertEqual(self.host.accept_and_greet().asked(), [])
        self.disconnect(session)

    def test_what_is_cancelled_leaves_what_waits_beside_it(self) -> None:
        session = self.connected()
        self.join(session, "a").addErrback(lambda _: None).cancel()
        self.submit(session, JOIN, Existing=["b"])
        (asked,) = self.host.accept_and_greet().asked()
        self.assertEqual(asked.body, {"Existing": ["b"], "Replay": False})


class LaneLossTests(LaneCase):
    def test_a_change_fails_with_it_and_nothing_else_does(self) -> None:
        session, join, lane = self.joining()
        stats = self.call(session, STATS)
        lane.lose()
        self.failureResultOf(join, ConnectionLost)
        self.agent.reply(self.agent.asked_one("stats").seq, {})
        self.successResultOf(stats)
        self.assertEqual(self.host.waiting, 0)

    def test_the_next_one_has_a_new_lane(self) -> None:
        session, join, lane = self.joining()
        lane.lose()
        self.failureResultOf(join, ConnectionLost)
        again = self.join(session)
        lane = self.host.accept_and_greet()
        lane.reply(lane.asked_one("join").seq, {"Num": 1})
        self.assertEqual(self.successResultOf(again), 1)

    def test_what_only_reads_is_asked_again_by_a_new_one_under_its_seq(self) -> None:
        session = self.connected()
        keys = self.call(session, LIST_KEYS)
        lane = self.host.accept_and_greet()
        asked = lane.asked()
        lane.lose()
        lane = self.host.accept_and_greet()
        self.assertEqual(lane.asked(), asked)
        lane.reply(asked[0].seq, NO_KEYS)
        self.successResultOf(keys)

    def test_without_reconnecting_that_fails_too(self) -> None:
        session = self.connected(reconnect=False)
        keys = self.call(session, LIST_KEYS)
        self.host.accept_and_greet().lose()
        self.failureResultOf(keys, ConnectionLost)
        self.assertFalse(self.agent.closed_by_client)

    def test_one_that_can_not_be_opened_is_tried_again_and_what_waits_for_it_waits(self) -> None:
        """The agent may have just ended, without the session having noticed."""
        session = self.connected()
        join = self.join(session)
        for _ in range(3):
            self.host.refuse()
            self.assertEqual(self.host.waiting, 0)
            self.clock.advance(0.2)
        lane = self.host.accept_and_greet()
        lane.reply(lane.asked_one("join").seq, {"Num": 1})
        self.assertEqual(self.successResultOf(join), 1)
        self.disconnect(session)

    def test_a_connection_that_was_lost_is_not_kept_for_further_lanes(self) -> None:
        session = self.connected()
        protocol = weakref.ref(self.agent.protocol)
        self.disconnect(session)
        self.host.agents.clear()
        del self.agent
        gc.collect()
        self.assertIsNone(protocol())

    def test_one_whose_endpoint_fails_after_it_was_lost_is_over_once(self) -> None:
        session = self.connected()
        join = self.join(session)
        self.host.accept_untold().lose()
        self.host.refuse()
        del self.host.agents[-1]  # it holds the attempt
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.clock.advance(session.factory.initialDelay)
        self.assertEqual(self.host.waiting, 1)
        lane = self.host.accept_and_greet()
        lane.reply(lane.asked_one("join").seq, {"Num": 1})
        self.successResultOf(join)

    def test_it_is_tried_no_longer_than_the_calls_timeout(self) -> None:
        session = self.connected()
        join = self.join(session, timeout=0.5)
        self.host.refuse()
        self.clock.advance(0.2)
        self.host.refuse()
        self.clock.advance(0.3)
        self.failureResultOf(join, RequestTimeout)
        self.disconnect(session)

    def test_one_that_never_answers_its_handshake_is_given_up_and_tried_again(self) -> None:
        session = self.connected()
        join = self.join(session)
        hanging = self.host.accept()
        self.clock.advance(5.0)
        hanging.finish_closing()
        self.clock.advance(0.2)
        lane = self.host.accept_and_greet()
        lane.reply(lane.asked_one("join").seq, {"Num": 1})
        self.assertEqual(self.successResultOf(join), 1)
        self.assertFalse(self.agent.closed_by_client)

    def test_where_its_key_is_refused_what_waits_for_it_fails_with_that(self) -> None:
        session = Session(
            [Host(endpoint=self.host, auth_key="k")], reconnect=True, reactor=self.clock, heartbeat=None
        )
        join = self.join(session)
        main = self.host.accept_and_greet()
        lane = self.host.accept()
        lane.greet("Invalid authentication token")
        lane.finish_closing()
        self.failureResultOf(join, AuthenticationError)
        self.assertFalse(main.closed_by_client)

    def test_a_filter_on_which_it_is_closed_once_is_asked_once_more(self) -> None:
        session = self.connected(reconnect=False)
        call = self.call(session, MEMBERS_FILTERED, Name=RISKY)
        self.host.accept_and_greet().lose()
        self.assertNoResult(call)
        lane = self.host.accept_and_greet()
        lane.reply(lane.asked_one("members-filtered").seq, NO_MEMBERS)
        self.assertEqual(self.successResultOf(call), [])

    def test_a_filter_on_which_it_is_closed_twice_is_refused_and_asked_no_more(self) -> None:
        session = self.connected()
        call = self.call(session, MEMBERS_FILTERED, Name=RISKY, timeout=9.0)
        for _ in range(2):
            self.host.accept_and_greet().lose()
        error = self.failureResultOf(call, RpcError).value
        self.assertEqual(error.command, "members-filtered")
        self.disconnect(session)

    def test_an_agent_that_dies_on_a_filter_is_not_what_it_thinks_of_it(self) -> None:
        session = self.connected()
        call = self.call(session, MEMBERS_FILTERED, Name=RISKY, timeout=9.0)
        for _ in range(2):
            self.clock.advance(1.0)
            lane = self.host.accept_and_greet()
            lane.lose()  # either of an agent's two connections may be lost first
            self.agent.lose()
            self.agent = self.host.accept_and_greet()
        lane = self.host.accept_and_greet()
        lane.reply(lane.asked_one("members-filtered").seq, NO_MEMBERS)
        self.assertEqual(self.successResultOf(call), [])

    def test_one_that_was_cancelled_is_not_asked_again(self) -> None:
        session = self.connected()
        call = self.call(session, MEMBERS_FILTERED, Name=RISKY)
        lane = self.host.accept_and_greet()
        call.cancel()
        self.failureResultOf(call, CancelledError)
        lane.lose()
        self.assertEqual(self.host.waiting, 0)


class MainLossTests(LaneCase):
    def test_what_its_agent_works_on_is_still_answered_and_the_lane_closed_behind_it(self) -> None:
        _, join, lane = self.joining()
        self.agent.lose()
        self.assertFalse(lane.closed_by_client)
        lane.reply(self.seq, {"Num": 1})
        self.assertEqual(self.successResultOf(join), 1)
        self.assertTrue(lane.closed_by_client)

    def test_an_idle_lane_is_closed_at_once(self) -> None:
        _, _, lane = self.joining()
        lane.reply(self.seq, {"Num": 1})
        self.agent.lose()
        self.assertTrue(lane.closed_by_client)

    def test_the_next_one_has_a_lane_to_the_next_agent(self) -> None:
        session, _, lane = self.joining()
        self.reconnect()
        self.submit(session, JOIN, Existing=["b"])
        self.assertEqual(self.host.accept_and_greet().asked_names(), ["join"])
        self.assertEqual(lane.asked(), [])

    def test_what_waited_for_the_lane_goes_to_the_next_agent(self) -> None:
        for opening in (False, True):
            self.host = Endpoint()
            session = self.connected()
            join = self.submit(session, JOIN, Existing=["b"])
            lane = self.host.accept() if opening else None
            self.reconnect()
            if lane is not None:
                lane.finish_closing()
                self.clock.advance(0.2)
            self.assertEqual(self.host.accept_and_greet().asked_names(), ["join"])
            self.assertEqual(join.told, [])

    def test_without_reconnecting_what_waits_for_another_try_starts_afresh(self) -> None:
        session = self.connected(reconnect=False)
        self.submit(session, JOIN, Existing=["a"])
        self.host.refuse()
        self.agent.lose()
        self.assertEqual(self.host.waiting, 0)
        self.clock.advance(0.2)
        self.host.accept_and_greet()
        self.assertEqual(self.host.accept_and_greet().asked_names(), ["join"])

    def test_without_reconnecting_a_join_that_was_sent_is_still_answered(self) -> None:
        _, join, lane = self.joining(reconnect=False)
        self.agent.lose()
        lane.reply(self.seq, {"Num": 1})
        self.assertEqual(self.successResultOf(join), 1)
        self.assertEqual(self.host.waiting, 0)


class KeyTests(LaneCase):
    """Keys, on a lane and on the main connection beside it."""

    def test_a_lane_has_the_key_that_is_under_way_on_the_connection(self) -> None:
        session = self.connected()
        self.submit(session, AUTH, AuthKey="k")
        self.submit(session, LIST_KEYS)
        self.assertEqual([body for _, _, body in self.host.accept().greet()][1:], [{"AuthKey": "k"}])

    def test_a_change_on_an_authenticated_connection_is_not_sent_again_for_what_a_lane_was_told(self) -> None:
        session = self.connected()
        self.submit(session, MEMBERS_FILTERED, Name=RISKY)
        lane = self.host.accept_and_greet()  # without a key, because none was set yet
        self.submit(session, AUTH, AuthKey="k")
        self.agent.reply(self.agent.asked_one("auth").seq)
        event = self.submit(session, EVENT, Name="e")
        self.assertEqual(self.agent.asked_names(), ["event"])
        lane.reply(lane.asked_one("members-filtered").seq, error="Authentication required")
        lane.finish_closing()
        self.assertEqual((self.agent.closed_by_client, event.told), (False, []))

    def test_nor_on_one_that_is_given_up_for_it(self) -> None:
        session = self.connected()
        self.submit(session, MEMBERS_FILTERED, Name=RISKY)
        event = self.submit(session, EVENT, Name="e")
        self.agent.asked()
        lane = self.host.accept_and_greet()
        lane.reply(lane.asked_one("members-filtered").seq, error="Authentication required")
        lane.finish_closing()
        self.agent.finish_closing()
        self.assertEqual(event.told, ["ConnectionLost"])

    def test_what_comes_back_of_a_lane_once_all_is_given_up_ends_too(self) -> None:
        session = self.connected()
        filters = [self.submit(session, MEMBERS_FILTERED, Name=RISKY) for _ in range(2)]
        lanes = [self.host.accept_and_greet() for _ in range(2)]
        for number, lane in enumerate(lanes):
            lane.reply(lane.asked_one("members-filtered").seq, error="Authentication required")
            lane.finish_closing()
            if not number:
                self.agent.finish_closing()
        self.assertEqual([operation.told for operation in filters], [["AuthenticationError"]] * 2)


class GivenUpTests(LaneCase):
    def test_who_is_told_of_it_may_close_all_with_another_that_waits_for_it(self) -> None:
        session, join, lane = self.joining()
        lane.send(b"\xc1")
        waits = self.submit(session, JOIN, Existing=["b"])
        join.addErrback(lambda _: session.disconnect())
        lane.finish_closing()
        self.agent.finish_closing()
        self.clock.advance(1.0)
        self.assertEqual((waits.told, self.host.waiting), (["Disconnected"], 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_submitted_to_a_lane_that_was_just_given_up_goes_by_the_next(self) -> None:
        session = self.connected()
        first = self.submit(session, LIST_KEYS)
        lane = self.host.accept_and_greet()
        lane.send(b"\xc1")
        second = self.submit(session, LIST_KEYS)
        lane.finish_closing()
        self.clock.advance(1.0)
        lane = self.host.accept_and_greet()
        for asked in lane.asked():
            lane.reply(asked.seq, NO_KEYS)
        self.assertEqual((first.told, second.told), (["replied"], ["replied"]))

    def test_garbage_for_a_filter_is_not_taken_for_a_refusal_of_it(self) -> None:
        session = self.connected()
        members = self.submit(session, MEMBERS_FILTERED, Name=RISKY)
        for _ in range(2):
            lane = self.host.accept_and_greet()
            lane.send(b"\xc1")
            lane.finish_closing()
        self.assertEqual(members.told, ["ProtocolError"])


class DisconnectTests(LaneCase):
    """In every phase of a lane, a disconnect ends it, and ends each of its operations once."""

    def told_by_disconnecting(self, session: Session, operation: Told, lane: Agent | None) -> None:
        """Disconnect, close the main transport and then the lane's, and check that *operation* gets only that end."""
        closed = session.disconnect()
        for agent in (self.agent, lane):
            if agent is not None:
                agent.finish_closing()
        self.clock.advance(0)
        self.successResultOf(closed)
        self.assertEqual([type(reason) for reason in operation.reasons], [Disconnected])
        self.assertEqual(self.clock.getDelayedCalls(), [], "something is still to come")
        self.assertEqual((len(operation.told), self.host.waiting), (1, 0))

    def test_while_it_is_dialled(self) -> None:
        session = self.connected()
        join = self.submit(session, JOIN, Existing=["a"])
        self.told_by_disconnecting(session, join, None)

    def test_while_its_handshake_is_under_way(self) -> None:
        session = self.connected()
        join = self.submit(session, JOIN, Existing=["a"])
        self.told_by_disconnecting(session, join, self.host.accept())

    def test_while_its_handshake_is_under_way_and_its_transport_is_closed_first(self) -> None:
        session = self.connected()
        join = self.submit(session, JOIN, Existing=["a"])
        main, self.agent = self.agent, self.host.accept()
        self.told_by_disconnecting(session, join, main)

    def test_while_the_agent_works_on_a_join(self) -> None:
        session = self.connected()
        join = self.submit(session, JOIN, Existing=["a"])
        self.told_by_disconnecting(session, join, self.host.accept_and_greet())

    def test_while_what_only_reads_is_under_way(self) -> None:
        session = self.connected()
        keys = self.submit(session, LIST_KEYS)
        self.told_by_disconnecting(session, keys, self.host.accept_and_greet())

    def test_while_a_filter_is_alone_with_the_agent(self) -> None:
        session = self.connected()
        members = self.submit(session, MEMBERS_FILTERED, Name=RISKY)
        self.told_by_disconnecting(session, members, self.host.accept_and_greet())

    def test_while_the_wait_for_another_try_lasts(self) -> None:
        session = self.connected()
        join = self.submit(session, JOIN, Existing=["a"])
        self.host.refuse()
        self.told_by_disconnecting(session, join, None)

    def test_behind_a_loss_of_the_main_one_while_the_agent_still_works_on_a_join(self) -> None:
        session = self.connected()
        join = self.submit(session, JOIN, Existing=["a"])
        lane = self.host.accept_and_greet()
        self.agent.lose()
        self.agent = self.host.accept_and_greet()
        self.told_by_disconnecting(session, join, lane)

    def test_nobody_is_told_inside_the_callers_stack(self) -> None:
        session = self.connected()
        filters = [self.submit(session, MEMBERS_FILTERED, Name=RISKY) for _ in range(2)]
        session.disconnect()
        self.assertEqual([operation.told for operation in filters], [[], []])

    def test_each_who_is_told_may_disconnect_again(self) -> None:
        session = self.connected()
        endings: list[Deferred[Any]] = []
        for _ in range(2):
            call = self.call(session, MEMBERS_FILTERED, Name=RISKY)
            call.addErrback(lambda _: endings.append(session.disconnect()))
        endings.append(session.disconnect())
        self.agent.finish_closing()
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual([self.successResultOf(ending) for ending in endings], [None] * 3)

    def test_as_another_is_told_of_the_lanes_loss_what_would_be_asked_again_ends(self) -> None:
        session = self.connected()
        install = self.call(session, INSTALL_KEY, Key="k")
        keys = self.submit(session, LIST_KEYS)
        install.addErrback(lambda _: session.disconnect())
        lane = self.host.accept_and_greet()
        lane.lose()
        self.agent.finish_closing()
        self.clock.advance(1.0)
        self.assertEqual((keys.told, self.host.waiting), (["Disconnected"], 0))

    def test_a_greeting_that_disconnects_ends_what_waits_for_a_lane(self) -> None:
        session = self.session()
        greeting = self.call(session, HANDSHAKE)
        greeting.addCallback(lambda _: session.disconnect())
        members = self.submit(session, MEMBERS_FILTERED, Name=RISKY)
        agent = self.host.accept_and_greet()
        agent.finish_closing()
        self.clock.advance(0)
        self.assertEqual((members.told, self.host.waiting), (["Disconnected"], 0))

    def test_a_lane_that_connects_though_it_was_cancelled_is_closed(self) -> None:
        session = self.connected()
        self.submit(session, JOIN, Existing=["a"])
        connect = self.host.prepare_late()
        session.disconnect()
        self.assertTrue(connect().closed_by_client)

    def test_its_deferred_waits_for_the_lanes_transport_too(self) -> None:
        session, join, lane = self.joining()
        closed = session.disconnect()
        self.agent.finish_closing()
        self.clock.advance(0)
        self.assertNoResult(closed)
        lane.finish_closing()
        self.successResultOf(closed)
        self.failureResultOf(join, Disconnected)

    def test_its_deferred_waits_for_a_lane_that_connected_though_it_was_cancelled(self) -> None:
        session = self.connected()
        self.submit(session, JOIN, Existing=["a"])
        connect = self.host.prepare_late()
        self.agent.lose()
        late, self.agent = connect(), self.host.accept_and_greet()
        closed = session.disconnect()
        self.agent.finish_closing()
        self.clock.advance(0)
        self.assertNoResult(closed)
        late.finish_closing()
        self.successResultOf(closed)


class StateTests(LaneCase):
    """The states of a lane, and the moves between them."""

    def setUp(self) -> None:
        super().setUp()
        session = self.connected()
        self.lane = Lane(Road.JOIN, session._lanes)
        self.operation = Told(session, JOIN, Existing=["a"])

    def test_each_state_has_its_moves_and_the_last_has_none(self) -> None:
        self.assertEqual(set(Lane._MOVES), set(LaneState))
        self.assertEqual(Lane._MOVES[LaneState.OVER], frozenset())

    def test_an_illegal_move_is_refused(self) -> None:
        with self.assertRaises(AssertionError):
            self.lane._move(LaneState.OPEN)

    def test_from_its_first_operation_to_its_end(self) -> None:
        states = [self.lane.state]
        self.operation.seq = 7
        self.lane.submit(self.operation)
        states.append(self.lane.state)
        agent = self.host.accept_and_greet()
        states.append(self.lane.state)
        self.lane.retire()
        states.append(self.lane.state)
        agent.reply(7, {"Num": 1})
        agent.finish_closing()
        self.assertEqual([*states, self.lane.state], list(LaneState))

    def test_retired_as_it_is_dialled_it_is_over_at_once_and_gives_back_what_waited(self) -> None:
        self.lane.submit(self.operation)
        self.lane.retire()
        self.assertEqual((self.lane.state, self.host.cancelled), (LaneState.OVER, 1))
        self.clock.advance(0.2)
        self.assertEqual(self.host.accept_and_greet().asked_names(), ["join"])
