"""`EmbeddedCluster` under a `Clock`: members, failures, partitions, latency, handlers and keys."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.embedded.helpers import ClusterTestCase, Line
from txserf.embedded import EmbeddedCluster, Keyring, agenda
from txserf.embedded.queries import QueryAnswer
from txserf.model import QueryEvent, members_from_wire


class MakingTests(ClusterTestCase):
    def test_the_first_nodes_are_called_n1_and_so_on_and_have_met(self) -> None:
        cluster = self.cluster(3)
        self.assertEqual(list(cluster.agents), ["n1", "n2", "n3"])
        for name in cluster.agents:
            self.assertEqual(
                self.statuses(self.connect(cluster, name)), dict.fromkeys(cluster.agents, "alive")
            )

    def test_each_agent_has_an_endpoint(self) -> None:
        cluster = self.cluster(2)
        self.assertEqual(len(cluster.endpoints()), 2)

    def test_agents_can_not_be_changed_from_outside(self) -> None:
        agents: Any = self.cluster(1).agents
        with self.assertRaises(TypeError):
            agents["n2"] = None

    def test_an_unknown_node_is_a_key_error_that_names_it(self) -> None:
        cluster = self.cluster(1)
        for act in (cluster.fail, cluster.recover, cluster.leave, lambda name: cluster.partition([name])):
            with self.assertRaisesRegex(KeyError, "n7"):
                act("n7")

    def test_a_name_can_be_given_once(self) -> None:
        with self.assertRaisesRegex(ValueError, "n1"):
            self.cluster(1).add("n1")

    def test_tags_over_the_limit_are_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "512 bytes"):
            self.cluster(1).add("n2", {"a": "x" * 600})

    def test_a_node_that_is_added_joins_and_the_streams_hear_of_it(self) -> None:
        cluster = self.cluster(1)
        line = self.connect(cluster)
        self.stream(line)
        cluster.add("db1", {"role": "db"})
        self.run_for(1.1)
        (record,) = line.records(5)
        self.assertEqual(record["Event"], "member-join")
        self.assertEqual([each["Tags"] for each in record["Members"]], [{"role": "db"}])

    def test_a_node_that_does_not_join_is_alone_until_it_does(self) -> None:
        cluster = self.cluster(1)
        alone = cluster.add("n2", join=False)
        line, other = self.connect(cluster), self.connect(cluster, "n2")
        self.assertEqual((self.statuses(line), self.statuses(other)), ({"n1": "alive"}, {"n2": "alive"}))
        replies = self.ask(line, "join", {"Existing": [alone.bind]}, within=0.1)
        self.assertEqual(replies[1], {"Num": 1})
        both = {"n1": "alive", "n2": "alive"}
        self.assertEqual((self.statuses(line), self.statuses(other)), (both, both))

    def test_two_groups_that_join_all_know_each_other(self) -> None:
        cluster = self.cluster(2)
        for name in ("m1", "m2"):
            cluster.add(name, join=False)
        lines = {name: self.connect(cluster, name) for name in cluster.agents}
        self.ask(lines["m1"], "join", {"Existing": [cluster.agents["m2"].bind]}, within=0.2)
        self.assertEqual(set(self.statuses(lines["m2"])), {"m1", "m2"})
        self.ask(lines["n1"], "join", {"Existing": [cluster.agents["m1"].bind]}, within=0.2)
        for line in lines.values():
            self.assertEqual(self.statuses(line), dict.fromkeys(cluster.agents, "alive"))

    def test_the_key_of_the_rpc_is_asked_for(self) -> None:
        cluster = self.cluster(1, auth_key="s3cret")
        line = self.connect(cluster)
        self.assertEqual(self.ask(line, "members")[0]["Error"], "Authentication required")
        self.assertEqual(self.ask(line, "auth", {"AuthKey": "s3cret"})[0]["Error"], "")

    def test_agents_with_the_default_bind_have_addresses_of_their_own_and_can_be_joined(self) -> None:
        cluster = self.cluster(1, default_bind=True)
        self.assertEqual(
            [cluster.agents["n1"].bind, cluster.add("n2").bind], ["10.0.0.1:7946", "10.0.0.2:7946"]
        )
        cluster.add("n3", join=False)
        line = self.connect(cluster, "n3")
        self.assertEqual(self.ask(line, "join", {"Existing": ["10.0.0.2"]}, within=0.1)[-1], {"Num": 1})
        members = members_from_wire(self.ask(line, "members")[-1])
        self.assertEqual(
            sorted(str(member.address) for member in members), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        )

    def test_the_reactor_is_taken_at_the_first_use_that_needs_the_time(self) -> None:
        clock = Clock()
        taken: list[object] = []

        def take(reactor: object) -> Clock:
            taken.append(reactor)
            return clock

        self.patch(agenda, "time_source", take)
        cluster = EmbeddedCluster(nodes=2)
        self.assertEqual(list(cluster.agents), ["n1", "n2"])
        self.assertEqual(taken, [])
        cluster.fail("n1")
        cluster.fail("n2")
        self.assertEqual(taken, [None])

    def test_a_wrong_reactor_is_refused_when_the_cluster_is_made(self) -> None:
        self.assertIn("'x'", str(self.assertRaises(TypeError, EmbeddedCluster, "x")))


class FailureTests(ClusterTestCase):
    def test_a_recovered_node_and_a_new_one_join_those_that_have_joined_a_stranger(self) -> None:
        cluster = self.cluster(2)
        alone = cluster.add("x1", join=False)
        line = self.connect(cluster)
        self.assertEqual(self.ask(line, "join", {"Existing": [alone.bind]}, within=1.0)[-1], {"Num": 1})
        cluster.fail("n2")
        self.run_for(2.0)
        cluster.recover("n2")
        cluster.add("n3")
        self.run_for(1.0)
        self.assertEqual(self.statuses(line), dict.fromkeys(["n1", "n2", "x1", "n3"], "alive"))

    def test_an_agent_that_nobody_looked_at_takes_connections_after_a_node_that_runs_was_pruned(self) -> None:
        cluster = self.cluster()
        self.ask(self.connect(cluster), "force-leave", {"Node": "n2", "Prune": True}, within=7.0)
        self.assertEqual(self.statuses(self.connect(cluster, "n3")), {"n1": "alive", "n3": "alive"})

    def test_a_failed_agent_loses_its_connections_and_refuses_new_ones(self) -> None:
        cluster = self.cluster()
        line = self.connect(cluster)
        cluster.fail("n1")
        self.clock.advance(0)
        self.assertTrue(line.lost is not None and line.lost.check(error.ConnectionLost))
        self.failureResultOf(self.connecting(cluster), error.ConnectionRefusedError)
        self.assertFalse(cluster.agents["n1"].running)

    def test_the_others_notice_after_a_time_and_their_streams_a_second_later(self) -> None:
        cluster = self.cluster()
        cluster.failure_detection = 2.0
        line = self.connect(cluster, "n2")
        self.stream(line)
        cluster.fail("n1")
        self.run_for(1.9)
        self.assertEqual(self.statuses(line)["n1"], "alive")
        self.run_for(0.2)
        self.assertEqual(self.statuses(line)["n1"], "failed")
        self.run_for(0.8)
        self.assertEqual(self.events(line), [])
        self.run_for(0.2)
        self.assertEqual(self.events(line), [("member-failed", ["n1"])])

    def test_that_a_node_is_back_is_told_though_nobody_looked_when_it_failed_or_left(self) -> None:
        cluster = self.cluster(3)
        self.clock.advance(10.0)
        cluster.fail("n2")
        cluster.leave("n3")
        self.run_for(5.0)
        line = self.connect(cluster)
        self.stream(line)
        cluster.recover("n2")
        cluster.recover("n3")
        self.run_for(2.0)
        self.assertEqual(self.events(line), [("member-join", ["n2", "n3"])])

    def test_an_agent_that_recovers_joins_again_with_the_tags_it_started_with(self) -> None:
        cluster = self.cluster(1)
        cluster.add("db1", {"role": "db"})
        line, db = self.connect(cluster), self.connect(cluster, "db1")
        self.ask(db, "tags", {"Tags": {"role": "old"}}, within=0.2)
        cluster.fail("db1")
        self.run_for(3)
        self.stream(line)
        cluster.recover("db1")
        self.run_for(1.1)
        (record,) = line.records(5)
        self.assertEqual((record["Event"], record["Members"][0]["Tags"]), ("member-join", {"role": "db"}))
        self.connect(cluster, "db1")

    def test_an_agent_that_starts_does_not_hear_of_nodes_that_were_gone(self) -> None:
        cluster = self.cluster()
        cluster.fail("n3")
        self.run_for(2)
        cluster.add("n4")
        self.run_for(1)
        self.assertEqual(set(self.statuses(self.connect(cluster, "n4"))), {"n1", "n2", "n4"})
        self.assertEqual(self.statuses(self.connect(cluster, "n1"))["n3"], "failed")

    def test_a_node_that_left_answers_nothing_and_is_not_failed(self) -> None:
        cluster = self.cluster()
        line, other = self.connect(cluster), self.connect(cluster, "n2")
        self.stream(other)
        leaving = cluster.leave("n1")
        self.assertNoResult(leaving)
        self.run_for(1.4)
        self.successResultOf(leaving)
        self.assertTrue(line.lost is not None and line.lost.check(error.ConnectionDone))
        self.failureResultOf(self.connecting(cluster), error.ConnectionRefusedError)
        self.run_for(3)
        self.assertEqual(self.events(other), [("member-leave", ["n1"])])
        self.assertEqual(self.statuses(other)["n1"], "left")

    def test_an_agent_that_left_while_nobody_looked_is_down_and_can_be_paused(self) -> None:
        cluster = self.cluster(2)
        agent = cluster.agents["n1"]
        line = self.connect(cluster)
        line.request("leave")
        self.clock.advance(0)
        agent.drop_connections()
        self.clock.advance(3)
        agent.pause()
        agent.resume()
        self.assertFalse(agent.running)

    def test_a_leave_of_an_agent_that_is_down_is_over_at_once(self) -> None:
        cluster = self.cluster()
        cluster.fail("n1")
        self.successResultOf(cluster.leave("n1"))

    def test_after_a_day_failed_and_left_members_are_reaped(self) -> None:
        cluster = self.cluster()
        line = self.connect(cluster)
        cluster.fail("n2")
        cluster.leave("n3")
        self.run_for(5)
        self.stream(line)
        self.clock.advance(24 * 3600 - 60)
        self.clock.advance(0)
        self.assertEqual(self.statuses(line), {"n1": "alive", "n2": "failed", "n3": "left"})
        self.clock.advance(120)
        self.clock.advance(0)
        self.assertEqual(self.events(line), [("member-reap", ["n2", "n3"])])
        self.assertEqual(self.statuses(line), {"n1": "alive"})

    def test_many_failures_are_one_event(self) -> None:
        cluster = self.cluster(20)
        line = self.connect(cluster)
        self.stream(line)
        names = [f"n{number}" for number in range(2, 12)]
        for name in names:
            cluster.fail(name)
        self.run_for(2.2)
        self.assertEqual(self.events(line), [("member-failed", sorted(names))])

    def test_actions_on_an_agent_that_is_down_do_nothing(self) -> None:
        cluster = self.cluster()
        cluster.fail("n1")
        cluster.fail("n1")
        agent = cluster.agents["n1"]
        agent.pause()
        agent.resume()
        agent.drop_connections()
        cluster.recover("n2")
        self.assertEqual((agent.connections, agent.log), (0, []))


class ConnectionTests(ClusterTestCase):
    def test_dropped_connections_are_lost_and_new_ones_taken(self) -> None:
        cluster = self.cluster()
        lines = [self.connect(cluster) for _ in range(2)]
        self.assertEqual(cluster.agents["n1"].connections, 2)
        cluster.agents["n1"].drop_connections()
        self.clock.advance(0)
        self.assertTrue(
            all(line.lost is not None and line.lost.check(error.ConnectionLost) for line in lines)
        )
        self.assertEqual(cluster.agents["n1"].connections, 0)
        self.assertEqual(self.statuses(self.connect(cluster))["n1"], "alive")

    def test_a_paused_agent_accepts_and_answers_when_it_goes_on(self) -> None:
        cluster = self.cluster()
        line = self.connect(cluster)
        cluster.agents["n1"].pause()
        late: Any = self.successResultOf(self.connecting(cluster))
        late.request("handshake", {"Version": 1})
        line.request("members")
        self.run_for(0.5)
        self.assertEqual((line.objects, late.objects), ([], []))
        cluster.agents["n1"].resume()
        self.clock.advance(0)
        self.assertEqual(late.take(), [{"Error": "", "Seq": 9}])
        self.assertEqual(len(line.take()), 2)

    def test_a_paused_agent_is_taken_for_failed_and_comes_back(self) -> None:
        cluster = self.cluster()
        line, near = self.connect(cluster, "n2"), self.connect(cluster)
        self.stream(line)
        self.stream(near, "user")
        cluster.agents["n1"].pause()
        self.ask(line, "event", {"Name": "missed"})
        self.run_for(2.5)
        self.assertEqual(self.events(line), [("member-failed", ["n1"])])
        cluster.agents["n1"].resume()
        self.run_for(1.5)
        self.assertEqual(self.events(line), [("member-join", ["n1"])])
        self.assertEqual([record["Name"] for record in near.records(5)], ["missed"])

    def test_a_paused_agent_finds_the_nodes_that_failed_meanwhile_when_it_goes_on(self) -> None:
        cluster = self.cluster(3)
        line = self.connect(cluster)
        cluster.agents["n1"].pause()
        cluster.fail("n2")
        self.run_for(5.0)
        cluster.agents["n1"].resume()
        self.run_for(3.0)
        self.assertEqual(self.statuses(line), {"n1": "alive", "n2": "failed", "n3": "alive"})

    def test_a_command_under_way_is_answered_after_the_pause(self) -> None:
        cluster = self.cluster()
        line = self.connect(cluster)
        line.request("tags", {"Tags": {"a": "1"}})
        self.clock.advance(0)
        cluster.agents["n1"].pause()
        self.run_for(0.5)
        self.assertEqual(line.take(), [])
        cluster.agents["n1"].resume()
        self.clock.advance(0)
        self.assertEqual(line.take(), [{"Error": "", "Seq": 9}])

    def test_a_stream_keeps_512_events_for_a_client_that_does_not_read(self) -> None:
        cluster = self.cluster(1)
        slow, line = self.connect(cluster), self.connect(cluster)
        self.stream(slow, "user")
        assert slow.transport is not None
        slow.transport.pauseProducing()  # type: ignore[attr-defined]
        for number in range(1200):
            line.request("event", {"Name": str(number), "Payload": bytes(400)})
        self.clock.advance(0)
        slow.transport.resumeProducing()  # type: ignore[attr-defined]
        self.clock.advance(0)
        told = [int(record["Name"]) for record in slow.records(5)]
        self.assertEqual(told, list(range(len(told))))
        self.assertTrue(512 + 100 < len(told) < 512 + 200, len(told))
        log = cluster.agents["n1"].log
        self.assertTrue(
            any("[WARN] agent.ipc: Dropping event to ipc.client: 127.0.0.1:" in line for line in log)
        )

    def test_without_connections_no_timer_is_left(self) -> None:
        cluster = self.cluster()
        line = self.connect(cluster)
        self.ask(line, "query", {"Name": "x"})
        cluster.fail("n2")
        assert line.transport is not None
        line.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.clock.calls, [])
        cluster.fail("n3")
        self.assertEqual(self.clock.calls, [])
        # The next connection finds the members as they are after that time.
        self.clock.advance(10)
        self.assertEqual(
            self.statuses(self.connect(cluster)), {"n1": "alive", "n2": "failed", "n3": "failed"}
        )

    def test_close_drops_all(self) -> None:
        cluster = self.cluster()
        lines = [self.connect(cluster, name) for name in cluster.agents]
        self.successResultOf(cluster.close())
        self.clock.advance(0)
        self.assertTrue(all(line.lost for line in lines))
        self.assertEqual(self.clock.calls, [])


class PartitionTests(ClusterTestCase):
    def lines(self, cluster: EmbeddedCluster) -> dict[str, Line]:
        lines = {name: self.connect(cluster, name) for name in cluster.agents}
        for line in lines.values():
            self.stream(line)
        return lines

    def test_each_side_takes_the_other_for_failed_and_finds_it_again(self) -> None:
        cluster = self.cluster(3)
        lines = self.lines(cluster)
        cluster.partition(["n1", "n2"], ["n3"])
        self.run_for(2.5)
        self.assertEqual(self.statuses(lines["n3"]), {"n1": "failed", "n2": "failed", "n3": "alive"})
        self.assertEqual(self.events(lines["n1"]), [("member-failed", ["n3"])])
        self.assertEqual(self.statuses(lines["n1"]), {"n1": "alive", "n2": "alive", "n3": "failed"})
        cluster.heal()
        self.run_for(1.5)
        self.assertEqual(self.events(lines["n1"]), [("member-join", ["n3"])])
        for line in lines.values():
            self.assertEqual(self.statuses(line), dict.fromkeys(cluster.agents, "alive"))

    def test_events_stay_on_their_side_until_it_heals(self) -> None:
        cluster = self.cluster(3)
        lines = self.lines(cluster)
        cluster.partition(["n3"])
        self.run_for(2)
        self.ask(lines["n1"], "event", {"Name": "deploy"}, within=0.1)
        lines["n2"].take()
        lines["n3"].take()
        self.run_for(1)
        self.assertEqual(lines["n3"].records(5), [])
        cluster.heal()
        self.run_for(0.5)
        self.assertEqual([record["Name"] for record in lines["n3"].records(5)], ["deploy"])

    def test_a_query_is_answered_by_its_own_side(self) -> None:
        cluster = self.cluster(3)
        line = self.connect(cluster)
        cluster.partition(["n1", "n2"])
        replies = self.ask(line, "query", {"Name": "x", "RequestAck": True}, within=2)
        self.assertEqual([each["From"] for each in replies if "From" in each], ["n1", "n2", ""])

    def test_a_tag_that_changed_during_a_partition_arrives_after_it(self) -> None:
        cluster = self.cluster(2)
        lines = self.lines(cluster)
        cluster.partition(["n1"], ["n2"])
        self.run_for(2)
        self.ask(lines["n1"], "tags", {"Tags": {"role": "new"}}, within=0.3)
        cluster.heal()
        self.run_for(0.2)
        body = self.ask(lines["n2"], "members-filtered", {"Name": "n1"})[-1]
        self.assertEqual(body["Members"][0]["Tags"], {"role": "new"})

    def test_a_short_cut_is_not_noticed(self) -> None:
        cluster = self.cluster(2)
        lines = self.lines(cluster)
        cluster.partition(["n1"], ["n2"])
        self.run_for(0.5)
        cluster.heal()
        self.run_for(3)
        self.assertEqual([self.events(line) for line in lines.values()], [[], []])

    def test_a_join_across_a_cut_times_out(self) -> None:
        cluster = self.cluster(2)
        line = self.connect(cluster)
        cluster.partition(["n1"], ["n2"])
        replies = self.ask(line, "join", {"Existing": [cluster.agents["n2"].bind]}, within=1.2)
        self.assertIn("i/o timeout", replies[0]["Error"])

    def test_a_node_that_is_first_used_during_a_cut_sees_it(self) -> None:
        cluster = self.cluster(3)
        cluster.partition(["n3"])
        line = self.connect(cluster, "n3")
        self.run_for(1.1)
        self.assertEqual(self.statuses(line), {"n1": "failed", "n2": "failed", "n3": "alive"})


class LatencyTests(ClusterTestCase):
    def test_latency_holds_up_messages_and_moves_the_coordinate(self) -> None:
        cluster = self.cluster(2)
        cluster.agents["n2"].latency = 0.4
        line, far = self.connect(cluster), self.connect(cluster, "n2")
        self.stream(far, "user")
        self.ask(line, "event", {"Name": "x"}, within=0.15)
        self.assertEqual(far.records(5), [])
        self.run_for(0.1)
        self.assertEqual(len(far.records(5)), 1)
        _, body = self.ask(line, "get-coordinate", {"Node": "n2"})
        self.assertAlmostEqual(body["Coord"]["Height"], 0.4, places=3)

    def test_an_ack_takes_the_round_trip_that_the_coordinates_tell(self) -> None:
        cluster = self.cluster(2)
        cluster.agents["n2"].latency = 1.0
        line = self.connect(cluster)
        line.request("query", {"Name": "x", "RequestAck": True})
        self.run_for(0.9)
        self.assertEqual([record["From"] for record in line.records(9)], ["n1"])
        self.run_for(0.2)
        self.assertEqual([record["From"] for record in line.records(9)], ["n2"])

    def test_an_answer_that_comes_too_late_is_lost(self) -> None:
        cluster = self.cluster(2)
        cluster.agents["n2"].latency = 3.0
        cluster.agents["n2"].handle_query("x", lambda event: b"late")
        line = self.connect(cluster)
        replies = self.ask(line, "query", {"Name": "x", "RequestAck": True}, within=4)
        self.assertEqual([each["From"] for each in replies if "From" in each], ["n1", ""])


class HandlerTests(ClusterTestCase):
    def answers(self, cluster: EmbeddedCluster, **query: Any) -> list[tuple[str, Any]]:
        line = self.connect(cluster)
        replies = self.ask(line, "query", {"Name": "load", "Payload": b"1m", **query}, within=2)
        return [(each["From"], each["Payload"]) for each in replies if each.get("Type") == "response"]

    def test_a_function_answers_with_bytes_or_text_or_not_at_all(self) -> None:
        cluster = self.cluster(4)
        seen: list[QueryEvent] = []
        cluster.agents["n1"].handle_query("load", lambda event: b"\xff")
        cluster.agents["n2"].handle_query("load", lambda event: "0.31é")
        cluster.agents["n3"].handle_query("load", seen.append)
        cluster.agents["n4"].handle_query("other", lambda event: b"no")
        self.assertEqual(sorted(self.answers(cluster)), [("n1", b"\xff"), ("n2", "0.31é".encode())])
        self.assertEqual([(event.name, event.payload, event.ltime) for event in seen], [("load", b"1m", 1)])

    def test_an_answer_may_come_later(self) -> None:
        cluster = self.cluster(2)
        later: Deferred[bytes | str | None] = Deferred()
        self.clock.callLater(0.5, later.callback, b"later")

        async def load(event: QueryEvent) -> bytes:
            return event.payload * 2

        cluster.agents["n1"].handle_query("load", lambda event: later)
        cluster.agents["n2"].handle_query("load", load)
        self.assertEqual(self.answers(cluster), [("n2", b"1m1m"), ("n1", b"later")])

    def test_a_function_that_raises_is_logged_and_no_answer(self) -> None:
        cluster = self.cluster(1)
        cluster.agents["n1"].handle_query("load", lambda event: 1 // 0)  # type: ignore[arg-type, return-value]
        self.assertEqual(self.answers(cluster), [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_any_awaitable_that_a_function_returns_is_waited_for(self) -> None:
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        future: asyncio.Future[QueryAnswer] = loop.create_future()
        cluster = self.cluster(1)
        cluster.agents["n1"].handle_query("load", lambda event: future)

        def answer() -> None:
            future.set_result(b"future")
            loop.call_soon(loop.stop)
            loop.run_forever()

        self.clock.callLater(0.5, answer)
        self.assertEqual(self.answers(cluster), [("n1", b"future")])

    def test_a_function_that_returns_no_answer_of_a_type_that_there_is_is_logged_with_that_type(self) -> None:
        cluster = self.cluster(1)
        cluster.agents["n1"].handle_query("load", lambda event: 3)  # type: ignore[arg-type, return-value]
        self.assertEqual(self.answers(cluster), [])
        (failure,) = self.flushLoggedErrors(TypeError)
        self.assertIn("returned int", failure.getErrorMessage())

    def test_sys_exit_in_a_function_is_a_failure_like_any_other_and_a_keyboard_interrupt_propagates(
        self,
    ) -> None:
        cluster = self.cluster(1)

        def raises(mistake: BaseException) -> Callable[[QueryEvent], bytes]:
            def function(event: QueryEvent) -> bytes:
                raise mistake

            return function

        cluster.agents["n1"].handle_query("load", raises(SystemExit(3)))
        self.assertEqual(self.answers(cluster), [])
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)
        cluster.agents["n1"].handle_query("load", raises(KeyboardInterrupt()))
        self.assertRaises(KeyboardInterrupt, self.answers, cluster)

    def test_behind_a_keyboard_interrupt_the_cluster_goes_on(self) -> None:
        cluster = self.cluster(1)

        def interrupt(event: QueryEvent) -> bytes:
            raise KeyboardInterrupt

        cluster.agents["n1"].handle_query("load", interrupt)
        line = self.connect(cluster)
        self.assertRaises(KeyboardInterrupt, self.ask, line, "query", {"Name": "load"}, within=2)
        self.run_for(10)
        self.assertEqual(line.records(9)[-1]["Type"], "done")

    def test_an_event_can_be_answered_once_by_its_own_method(self) -> None:
        cluster = self.cluster(1)

        def load(event: QueryEvent) -> bytes:
            event.respond("first")
            return b"second"

        cluster.agents["n1"].handle_query("load", load)
        self.assertEqual(self.answers(cluster), [("n1", b"first")])
        self.assertTrue(any("response already sent" in each for each in cluster.agents["n1"].log))

    def test_an_answer_that_is_too_large_is_not_sent(self) -> None:
        cluster = self.cluster(1)
        cluster.agents["n1"].handle_query("load", lambda event: bytes(2000))
        self.assertEqual(self.answers(cluster), [])
        self.assertTrue(
            any("response exceeds limit of 1024 bytes" in each for each in cluster.agents["n1"].log)
        )

    def test_a_function_can_be_removed(self) -> None:
        cluster = self.cluster(1)
        cluster.agents["n1"].handle_query("load", lambda event: b"x")
        cluster.agents["n1"].handle_query("load", None)
        self.assertEqual(self.answers(cluster), [])

    def test_filters_hold_for_functions_too(self) -> None:
        cluster = self.cluster(1)
        cluster.add("db1", {"role": "db"}).handle_query("load", lambda event: b"db")
        cluster.agents["n1"].handle_query("load", lambda event: b"n")
        self.assertEqual(self.answers(cluster, FilterTags={"role": "db"}), [("db1", b"db")])


class KeyringTests(ClusterTestCase):
    KEY = "a2tra2tra2tra2tra2traw=="
    OTHER = "bGxsbGxsbGxsbGxsbGxsbA=="

    def test_a_key_command_fails_on_a_node_without_a_keyring(self) -> None:
        cluster = self.cluster(3, encrypt_key=self.KEY)
        cluster.agents["n2"].keyring = None
        line = self.connect(cluster)
        header, body = self.ask(line, "install-key", {"Key": self.OTHER}, within=0.2)
        self.assertEqual(header["Error"], "1/3 nodes reported failure")
        self.assertEqual(body["Messages"], {"n2": "No keyring to modify (encryption not enabled)"})
        self.assertEqual((body["NumNodes"], body["NumErr"], body["NumResp"]), (3, 1, 3))
        header, body = self.ask(line, "list-keys", within=0.2)
        self.assertEqual(body["Keys"], {self.KEY: 2, self.OTHER: 2})

    def test_keyrings_may_differ(self) -> None:
        cluster = self.cluster(2, encrypt_key=self.KEY)
        cluster.agents["n2"].keyring = Keyring(self.KEY, self.OTHER)
        header, body = self.ask(self.connect(cluster), "use-key", {"Key": self.OTHER}, within=0.2)
        self.assertEqual(header["Error"], "1/2 nodes reported failure")
        self.assertEqual(body["Messages"], {"n1": "Requested key is not in the keyring"})

    def test_key_commands_exclude_each_other(self) -> None:
        cluster = self.cluster(2, encrypt_key=self.KEY)
        cluster.failure_detection = 10.0
        cluster.agents["n2"].pause()
        lines = [self.connect(cluster) for _ in range(2)]
        for line in lines:
            line.request("install-key", {"Key": self.OTHER})
        self.run_for(1.7)
        self.assertEqual([len(line.objects) for line in lines], [2, 0])
        self.run_for(1.7)
        self.assertEqual([len(line.objects) for line in lines], [2, 2])

    def test_a_list_of_many_keys_is_truncated_as_by_newer_agents(self) -> None:
        cluster = self.cluster(1, encrypt_key=self.KEY)
        keys = [base64.b64encode(bytes([number]) * 32).decode() for number in range(20)]
        cluster.agents["n1"].keyring = Keyring(*keys)
        header, body = self.ask(self.connect(cluster), "list-keys", within=0.2)
        self.assertEqual(header["Error"], "")
        self.assertEqual(body["Messages"], {"n1": "truncated key list response, showing first 17 of 20 keys"})
        self.assertEqual((len(body["Keys"]), body["NumErr"]), (17, 0))


class DeterminismTests(ClusterTestCase):
    def script(self, seed: int) -> bytes:
        """Use many commands and faults, and return all bytes that came."""
        self.setUp()
        cluster = self.cluster(5, seed=seed, encrypt_key=KeyringTests.KEY)
        cluster.agents["n2"].handle_query("load", lambda event: b"0.3")
        line, far = self.connect(cluster), self.connect(cluster, "n4")
        self.stream(far)
        line.request("monitor", {"LogLevel": "DEBUG"}, seq=2)
        line.request("members")
        line.request("query", {"Name": "load", "RequestAck": True})
        line.request("event", {"Name": "deploy", "Coalesce": True})
        line.request("tags", {"Tags": {"role": "web"}})
        line.request("get-coordinate", {"Node": "n3"})
        line.request("list-keys")
        line.request("stats")
        cluster.fail("n3")
        cluster.add("n6")
        self.run_for(3)
        cluster.leave("n5")
        line.request("members")
        self.run_for(3)
        return line.data + far.data

    def test_the_same_seed_gives_the_same_bytes(self) -> None:
        first = self.script(7)
        self.assertGreater(len(first), 5000)
        self.assertEqual(first, self.script(7))
        self.assertNotEqual(first, self.script(8))

    def test_the_same_seed_gives_the_same_bytes_in_another_process(self) -> None:
        """No order comes from a hash, which differs from process to process."""
        code = f"import sys, {__name__} as t; sys.stdout.buffer.write(t.{type(self).__name__}().script(7))"
        runs = {
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "PYTHONHASHSEED": hash_seed},
                cwd=Path(__file__).parents[2],
                capture_output=True,
                check=True,
            ).stdout
            for hash_seed in ("1", "2")
        }
        self.assertEqual(runs, {self.script(7)})


class SizeTests(ClusterTestCase):
    def test_ten_thousand_members_are_listed_and_filtered(self) -> None:
        cluster = self.cluster(10_000)
        line = self.connect(cluster)
        _, body = self.ask(line, "members")
        self.assertEqual(len({member["Name"] for member in body["Members"]}), 10_000)
        cluster.fail("n5000")
        self.run_for(1.1)
        _, body = self.ask(line, "members-filtered", {"Status": "failed"})
        self.assertEqual([member["Name"] for member in body["Members"]], ["n5000"])
        line.request("query", {"Name": "x", "RequestAck": True, "Timeout": 10**9})
        self.run_for(1.1)
        self.assertEqual(len(line.records(9)), 10_000)
