"""A view follows its cluster: snapshot and events, losses and readings again, those who are told and those who wait."""

from __future__ import annotations

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred

from tests.cluster.view_case import Replay, ViewCase
from tests.fakes import MEMBER
from tests.serf_case import SerfCase
from txserf import constant
from txserf.cluster.changes import Change
from txserf.cluster.view import ClusterView
from txserf.errors import AuthenticationError, Disconnected, InvalidRequest, RequestTimeout
from txserf.model import Member
from txserf.serf.serf import Serf

LATE = 4.0  # seconds in which an embedded agent reports what has happened


class SnapshotTests(ViewCase):
    def test_it_has_all_members_by_name_after_the_first_snapshot(self) -> None:
        view = self.view()
        self.assertTrue(view.stale)
        self.assertEqual(dict(view.members), {})
        ready = view.when_ready()  # which starts it
        self.assertNoResult(ready)
        self.run_for(0.2)
        self.assertIs(self.successResultOf(ready), view)
        self.assertFalse(view.stale)
        self.assertEqual(list(view.members), ["n1", "n2", "n3"])
        self.assertEqual(view.members, self.agent_says())
        self.assertEqual(repr(view), "<ClusterView: 3 members, live>")

    def test_a_join_a_leave_a_failure_and_new_tags_are_followed(self) -> None:
        view = self.ready()
        replay = Replay()
        replay.members.update(view.members)
        view.on_change(replay)
        self.nodes.add("n4", {"role": "web"})
        self.run_for(LATE)
        self.assertEqual(replay.take(), [("n4", None, "alive")])
        self.assertEqual([member.name for member in view.select(role="web")], ["n4"])
        self.set_tags("n4", role="db")
        self.run_for(LATE)
        self.assertEqual(replay.take(), [("n4", "alive", "alive")])
        self.assertEqual(view.select(role="web"), [])
        self.nodes.fail("n3")
        self.nodes.leave("n4")
        self.run_for(LATE)
        self.assertEqual(sorted(replay.take()), [("n3", "alive", "failed"), ("n4", "alive", "left")])
        self.assertEqual([member.name for member in view.select()], ["n1", "n2"])
        self.assertEqual([member.name for member in view.select(status="left")], ["n4"])
        self.assertEqual([member.name for member in view.select(status=None)], ["n1", "n2", "n3", "n4"])
        self.assertEqual(replay.members, view.members)

    def test_a_ring_has_the_members_that_match_and_does_not_change_with_the_view(self) -> None:
        self.nodes.add("w1", {"role": "web"})
        view = self.ready()
        self.run_for(LATE)
        ring = view.ring(role="web")
        self.nodes.fail("w1")
        self.run_for(LATE)
        owner = ring.owner("key")
        assert owner is not None
        self.assertEqual(owner.name, "w1")
        self.assertEqual(len(view.ring(role="web")), 0)
        self.assertEqual([member.name for member in view.ring()], ["n1", "n2", "n3"])

    def test_a_pruned_member_leaves_the_view(self) -> None:
        view = self.ready()
        replay = Replay()
        replay.members.update(view.members)
        view.on_change(replay)
        self.nodes.fail("n3")
        self.run_for(LATE)
        done = self.serf.force_leave("n3", prune=True)
        self.run_for(LATE)
        self.successResultOf(done)
        self.assertEqual(replay.take(), [("n3", "alive", "failed"), ("n3", "failed", None)])
        self.assertEqual(list(view.members), ["n1", "n2"])

    def test_a_filter_limits_the_view_and_a_member_that_matches_no_more_leaves_it(self) -> None:
        self.nodes.add("n4", {"role": "web"})
        self.nodes.add("n5", {"role": "db"})
        self.run_for(LATE)
        view = self.ready(status="alive", tags={"role": "web"})
        replay = Replay()
        replay.members.update(view.members)
        view.on_change(replay)
        self.assertEqual(list(view.members), ["n4"])
        self.set_tags("n5", role="web")
        self.set_tags("n4", role="db")
        self.run_for(LATE)
        self.assertEqual(sorted(replay.take()), [("n4", "alive", None), ("n5", None, "alive")])
        self.nodes.fail("n5")
        self.run_for(LATE)
        self.assertEqual(replay.take(), [("n5", "alive", None)])
        self.assertEqual(dict(view.members), {})

    def test_a_member_on_which_a_predicate_fails_is_left_out_and_the_view_goes_on(self) -> None:
        self.nodes.add("n4", {"version": "2"})
        self.nodes.add("n5", {"version": "two"})

        def is_new(value: str | None) -> bool:
            return value is not None and int(value) > 1

        view = self.ready(tags={"version": is_new})
        self.set_tags("n4", version="x")
        self.set_tags("n5", version="3")
        self.run_for(LATE)
        self.assertEqual(list(view.members), ["n5"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.nodes.fail("n5")
        self.run_for(LATE)
        self.assertEqual(self.statuses_of(view), {"n5": "failed"})

    def test_a_bad_argument_is_refused_at_once(self) -> None:
        async def never(members: list[Member]) -> bool:
            return False

        view = self.ready()
        for wrong in (
            lambda: ClusterView("127.0.0.1"),  # type: ignore[arg-type]
            lambda: ClusterView(self.serf, resync=0),
            lambda: ClusterView(self.serf, status=3),  # type: ignore[arg-type]
            lambda: ClusterView(self.serf, tags={"role": 3}),  # type: ignore[dict-item]
            lambda: view.on_change(3),  # type: ignore[arg-type]
            lambda: view.changes(buffer=0),
            lambda: view.wait_for(0),
            lambda: view.wait_for(never),
            lambda: view.wait_for(1, timeout=-1),
            lambda: view.wait_for(1, role=5),  # type: ignore[arg-type]
            lambda: view.select(role=5),  # type: ignore[arg-type]
        ):
            self.assertRaises(InvalidRequest, wrong)


class LossTests(ViewCase):
    def test_while_the_agent_is_away_the_last_known_members_stay_and_the_view_is_stale(self) -> None:
        self.serf = self.new_serf("n1")
        view = self.ready()
        self.nodes.fail("n1")
        self.run_for(1.0)
        self.assertTrue(view.stale)
        self.assertEqual(self.statuses_of(view), dict.fromkeys(("n1", "n2", "n3"), "alive"))
        self.assertEqual(len(view.select()), 3)
        self.nodes.recover("n1")
        self.run_for(40.0)
        self.assertFalse(view.stale)

    def test_after_a_loss_the_difference_is_told_once(self) -> None:
        self.serf = self.new_serf("n1")
        view = self.ready()
        replay = Replay()
        replay.members.update(view.members)
        view.on_change(replay)
        self.nodes.agents["n1"].pause()
        self.nodes.agents["n1"].drop_connections()
        self.nodes.add("n4")
        self.nodes.fail("n3")
        self.nodes.fail("n2")
        self.run_for(LATE)
        self.assertEqual(replay.take(), [])
        self.nodes.agents["n1"].resume()
        self.run_for(60.0)
        self.assertEqual(
            sorted(replay.take()),
            [("n2", "alive", "failed"), ("n3", "alive", "failed"), ("n4", None, "alive")],
        )
        self.assertEqual(view.repairs, 0)
        self.assertEqual(replay.members, self.agent_says())

    def test_the_next_agent_takes_over(self) -> None:
        view = self.ready()
        self.nodes.fail("n1")
        self.run_for(LATE)
        self.assertFalse(view.stale)
        self.assertEqual(self.statuses_of(view), {"n1": "failed", "n2": "alive", "n3": "alive"})

    def test_a_reading_every_few_seconds_mends_what_no_event_told_and_counts_it(self) -> None:
        self.nodes = self.cluster(2)
        self.serf = self.new_serf("n1")
        view, unmended = self.ready(resync=30.0), self.ready(resync=None)
        replay = Replay()
        replay.members.update(view.members)
        view.on_change(replay)
        # It is alive: that it leaves shows in the list of this agent only, and no event tells of it.
        done = self.serf.force_leave("n2")
        self.run_for(LATE)
        self.successResultOf(done)
        self.assertEqual(self.statuses_of(view)["n2"], "alive")
        self.run_for(30.0)
        self.assertEqual(replay.take(), [("n2", "alive", "leaving")])
        self.assertEqual((view.repairs, unmended.repairs), (1, 0))
        self.assertEqual(view.select(status="leaving"), [view.members["n2"]])
        self.assertEqual(self.statuses_of(unmended)["n2"], "alive")  # until the next loss
        self.nodes.agents["n1"].drop_connections()
        self.run_for(60.0)
        self.assertEqual(unmended.members, self.agent_says())

    def test_a_refused_key_fails_those_who_wait_and_is_tried_again(self) -> None:
        self.nodes = self.cluster(1, auth_key="secret")
        serf = Serf([self.nodes.agents["n1"].endpoint()], reactor=self.clock)
        self.addCleanup(self.end, serf)
        view = ClusterView(serf)
        self.views.append(view)
        ready, waiting = view.when_ready(), view.wait_for(1)
        changes = view.changes()
        self.run_for(0.5)
        self.failureResultOf(ready, AuthenticationError)
        self.failureResultOf(waiting, AuthenticationError)
        self.failureResultOf(Deferred.fromCoroutine(anext(changes)), AuthenticationError)
        self.assertTrue(view.stale)
        again = view.when_ready()
        self.run_for(0.5)
        self.failureResultOf(again, AuthenticationError)
        self.run_for(61.0)
        self.assertIn("failed", repr(view))


class SilentAgentTests(SerfCase):
    """Views of an agent whose every answer the test gives."""

    def setUp(self) -> None:
        super().setUp()
        self.view = ClusterView(self.serf, resync=300.0)
        self.replay = Replay()
        self.view.on_change(self.replay)
        self.view.startService()

    def tearDown(self) -> None:
        stopped = self.view.stopService()
        self.clock.advance(0)
        super().tearDown()
        self.successResultOf(stopped)

    def opened(self) -> int:
        """Have the stream opened; return its Seq."""
        stream = self.asked_one("stream")
        self.agent.reply(stream.seq)
        self.agent.reply(self.asked_one("stop").seq)
        return stream.seq

    def member(self, name: str, status: str = "alive", **tags: str) -> dict[str, object]:
        return {**MEMBER, "Name": name, "Status": status, "Tags": tags}

    def tell(self, seq: int, kind: str, *members: dict[str, object]) -> None:
        self.agent.reply(seq, {"Event": f"member-{kind}", "Members": list(members)})

    def answer(self, *members: dict[str, object]) -> None:
        self.agent.reply(self.asked_one("members").seq, {"Members": list(members)})

    def statuses(self) -> dict[str, str]:
        return {name: str(member.status) for name, member in self.view.members.items()}

    def test_the_members_are_asked_for_once_no_event_is_missed(self) -> None:
        stream = self.asked_one("stream")
        self.agent.reply(stream.seq)
        self.assertEqual(self.agent.asked_names(), ["stop"])  # and no members before its answer

    def test_events_that_come_during_the_snapshot_are_applied_behind_it_in_order(self) -> None:
        seq = self.opened()
        self.tell(seq, "failed", self.member("n1", "failed"))
        self.tell(seq, "join", self.member("n2"))
        self.tell(seq, "update", self.member("n2", role="web"))
        self.assertEqual(self.statuses(), {})
        self.answer(self.member("n1"), self.member("n3"))
        self.clock.advance(0)
        self.assertEqual(self.statuses(), {"n1": "failed", "n2": "alive", "n3": "alive"})
        self.assertEqual(
            self.replay.take(),
            [
                ("n1", None, "alive"),
                ("n3", None, "alive"),
                ("n1", "alive", "failed"),
                ("n2", None, "alive"),
                ("n2", "alive", "alive"),
            ],
        )
        self.assertEqual(self.replay.members, self.view.members)

    def test_records_for_members_never_seen_are_taken(self) -> None:
        seq = self.opened()
        self.answer()
        self.tell(seq, "failed", self.member("n1", "failed"))
        self.tell(seq, "leave", self.member("n2", "left"), self.member("n3", "left"))
        self.tell(seq, "reap", self.member("n4", "left"))
        self.clock.advance(0)
        self.assertEqual(self.statuses(), {"n1": "failed", "n2": "left", "n3": "left"})
        self.assertEqual(len(self.replay.take()), 3)

    def test_two_nodes_at_one_address_and_a_renamed_one_are_different_members(self) -> None:
        seq = self.opened()
        self.answer(self.member("old"), self.member("other"))
        self.tell(seq, "failed", self.member("old", "failed"))
        self.tell(seq, "join", self.member("new"))
        self.clock.advance(0)
        self.assertEqual(self.statuses(), {"new": "alive", "old": "failed", "other": "alive"})
        self.assertEqual(len({member.address for member in self.view.members.values()}), 1)

    def test_a_status_that_only_a_newer_agent_has_is_kept_and_found(self) -> None:
        seq = self.opened()
        self.answer(self.member("n1", "quarantined"))
        self.tell(seq, "update", self.member("n2", "quarantined"))
        self.assertEqual([m.name for m in self.view.select(status="quarantined")], ["n1", "n2"])
        self.assertEqual(self.view.select(), [])

    def test_an_event_that_says_nothing_new_is_not_told(self) -> None:
        seq = self.opened()
        self.answer(self.member("n1"))
        self.clock.advance(0)
        self.replay.take()
        self.tell(seq, "update", self.member("n1"))
        self.tell(seq, "join", self.member("n1"))
        self.clock.advance(0)
        self.assertEqual(self.replay.take(), [])

    def test_nobody_is_told_inside_the_stack_of_the_connection(self) -> None:
        seq = self.opened()
        ready = self.view.when_ready()
        waiting = self.view.wait_for(1)
        self.answer(self.member("n1"))
        self.assertNoResult(ready)
        self.assertNoResult(waiting)
        self.assertEqual(self.replay.take(), [])
        self.clock.advance(0)
        self.assertIs(self.successResultOf(ready), self.view)
        self.assertEqual([m.name for m in self.successResultOf(waiting)], ["n1"])
        self.tell(seq, "failed", self.member("n1", "failed"))
        self.tell(seq, "join", self.member("n1"))
        self.assertEqual(self.replay.told[1:], [])
        self.clock.advance(0)
        self.assertEqual(len(self.replay.told), 3)

    def test_a_loss_during_the_snapshot_has_it_taken_again_by_the_new_connection(self) -> None:
        self.opened()
        self.asked_one("members")
        self.reconnect()
        names = {asked.command: asked.seq for asked in self.agent.asked()}
        self.assertEqual(set(names), {"stream", "members"})
        # The members come before the stream is open: what happens in between would be missed.
        self.agent.reply(names["members"], {"Members": [self.member("n1")]})
        self.assertTrue(self.view.stale)
        self.agent.reply(names["stream"])
        self.agent.reply(self.asked_one("stop").seq)
        self.answer(self.member("n1"), self.member("n2"))
        self.clock.advance(0)
        self.assertEqual(self.statuses(), {"n1": "alive", "n2": "alive"})
        self.assertEqual(len(self.replay.take()), 2)
        self.assertFalse(self.view.stale)

    def test_a_loss_between_the_opening_and_its_confirmation_misses_nothing(self) -> None:
        stream = self.asked_one("stream")
        self.agent.reply(stream.seq)
        self.reconnect()
        self.opened()
        self.answer(self.member("n1"))
        self.assertFalse(self.view.stale)

    def test_after_a_loss_the_difference_is_told_in_the_order_of_names(self) -> None:
        self.opened()
        self.answer(self.member("n3"), self.member("n1"), self.member("n5"))
        self.clock.advance(0)
        self.replay.take()
        self.reconnect()
        self.assertTrue(self.view.stale)
        self.opened()
        self.answer(self.member("n4"), self.member("n3", "failed"), self.member("n2"), self.member("n1"))
        self.clock.advance(0)
        self.assertEqual(
            self.replay.take(),
            [("n2", None, "alive"), ("n3", "alive", "failed"), ("n4", None, "alive"), ("n5", "alive", None)],
        )
        self.assertEqual(list(self.view.members), ["n1", "n2", "n3", "n4"])
        self.assertEqual(self.view.repairs, 0)

    def test_a_second_loss_before_the_snapshot_after_the_first_is_one_gap_more(self) -> None:
        self.opened()
        self.answer(self.member("n1"))
        for number in range(3):
            self.clock.advance(1.0)
            self.reconnect()
            stream, *rest = self.agent.asked()
            self.assertEqual(
                [asked.command for asked in rest], ["members"] if number else []
            )  # cut off before
            self.agent.reply(stream.seq)
            self.agent.reply(self.asked_one("stop").seq)
            asked = self.asked_one("members")
            self.assertTrue(self.view.stale)
        self.agent.reply(asked.seq, {"Members": [self.member("n2")]})
        self.clock.advance(0)
        self.assertEqual(
            self.replay.take(), [("n1", None, "alive"), ("n1", "alive", None), ("n2", None, "alive")]
        )

    def test_members_that_can_not_be_read_are_asked_for_again_later_each_time(self) -> None:
        self.opened()
        waits = []
        for _ in range(8):
            self.agent.reply(self.asked_one("members").seq, {"Members": "none"})
            begun = self.clock.seconds()
            while not self.agent.transport.value()[self.agent._read :]:
                self.clock.advance(0.5)
            waits.append(self.clock.seconds() - begun)
        self.assertEqual(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0])
        self.answer(self.member("n1"))
        self.assertFalse(self.view.stale)

    def test_a_resync_that_fails_leaves_all_as_it_is_and_follows_the_events(self) -> None:
        seq = self.opened()
        self.answer(self.member("n1"))
        self.clock.advance(300.0)
        asked = self.asked_one("members")
        self.tell(seq, "failed", self.member("n1", "failed"))
        self.assertFalse(self.view.stale)
        self.agent.reply(asked.seq, {"Members": 3})
        self.assertEqual(self.statuses(), {"n1": "failed"})
        self.assertEqual(self.view.repairs, 0)
        self.clock.advance(1.0)
        self.answer(self.member("n2"))
        self.assertEqual(self.view.repairs, 2)

    def test_more_events_during_a_snapshot_than_may_be_held_make_another_one(self) -> None:
        self.patch(constant, "STREAM_BUFFER", 3)
        seq = self.opened()
        self.asked_one("members")
        for number in range(5):
            self.tell(seq, "join", self.member(f"n{number}"))
        self.answer(*(self.member(f"n{number}") for number in range(5)))
        self.assertEqual(len(self.view.members), 5)

    def test_the_stop_during_a_snapshot_ends_all(self) -> None:
        ready, waiting = self.view.when_ready(), self.view.wait_for(1, timeout=9.0)
        self.opened()
        asked = self.asked_one("members")
        stopped = self.view.stopService()
        self.assertNoResult(ready)
        self.clock.advance(0)
        self.failureResultOf(ready, Disconnected)
        self.failureResultOf(waiting, Disconnected)
        self.agent.reply(asked.seq, {"Members": [self.member("n1")]})  # late, and dropped
        self.assertNoResult(stopped)
        self.agent.reply(self.asked_one("stop").seq)
        self.successResultOf(stopped)
        self.assertEqual(self.replay.take(), [])

    def test_whoever_cancels_the_end_of_a_stop_hinders_nobody(self) -> None:
        ready, waiting = self.view.when_ready(), self.view.wait_for(1)
        self.opened()
        stopped = self.view.stopService()
        stopped.cancel()
        self.successResultOf(stopped)
        self.clock.advance(0)
        self.failureResultOf(ready, Disconnected)
        self.failureResultOf(waiting, Disconnected)

    def test_a_start_again_reads_anew_and_tells_the_difference(self) -> None:
        self.opened()
        self.answer(self.member("n1"), self.member("n2"))
        self.clock.advance(0)
        self.replay.take()
        stopped = self.view.stopService()
        self.agent.reply(self.asked_one("stop").seq)
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.view.startService()
        ready = self.view.when_ready()
        self.opened()
        self.assertNoResult(ready)
        self.answer(self.member("n2"), self.member("n3"))
        self.clock.advance(0)
        self.successResultOf(ready)
        self.assertEqual(self.replay.take(), [("n1", "alive", None), ("n3", None, "alive")])

    def test_changes_that_were_not_told_at_a_stop_are_told_at_the_next_start(self) -> None:
        self.opened()
        self.answer(self.member("n1"))
        self.view.stopService()
        self.clock.advance(0)
        self.assertEqual(self.replay.take(), [])
        self.agent.reply(self.asked_one("stop").seq)
        self.view.startService()
        self.clock.advance(0)
        self.assertEqual(self.replay.take(), [("n1", None, "alive")])

    def test_the_serf_closed_under_it_ends_it_without_a_timer_and_a_start_of_both_goes_on(self) -> None:
        self.opened()
        self.answer(self.member("n1"))
        changes = self.view.changes()
        closed = self.serf.close()
        self.agent.finish_closing()
        self.clock.advance(0)
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.view.stale)
        self.assertEqual(self.statuses(), {"n1": "alive"})
        self.assertEqual(self.successResultOf(self.collect(changes)), [])
        self.failureResultOf(self.view.when_ready(), Disconnected)
        self.view.startService()  # which starts the Serf
        self.agent = self.endpoint.accept_and_greet()
        self.opened()
        self.answer(self.member("n1"))
        self.assertFalse(self.view.stale)

    def test_used_after_its_stop_it_says_so(self) -> None:
        self.opened()
        self.answer(self.member("n1"))
        self.view.stopService()
        self.clock.advance(0)
        self.agent.reply(self.asked_one("stop").seq)
        for use in (
            lambda: self.view.members,
            lambda: self.view.select(),
            lambda: self.view.on_change(print),
            lambda: self.view.changes(),
        ):
            error = self.assertRaises(Disconnected, use)
            self.assertIn("ClusterView", str(error))
        self.failureResultOf(self.view.when_ready(), Disconnected)
        self.failureResultOf(self.view.wait_for(1), Disconnected)
        self.assertTrue(self.view.stale)
        self.successResultOf(self.view.stopService())

    def test_a_member_is_kept_once(self) -> None:
        seq = self.opened()
        self.answer(self.member("n1"))
        kept = self.view.members["n1"]
        self.tell(seq, "update", self.member("n1"))
        self.clock.advance(300.0)
        self.answer(self.member("n1"))
        self.assertIs(self.view.members["n1"], kept)


class LazySerfTests(ViewCase):
    def test_its_start_starts_the_serf_and_its_stop_leaves_it(self) -> None:
        self.assertFalse(self.serf.running)
        view = self.ready()
        self.assertTrue(self.serf.running)
        view.stopService()
        self.run_for(0.2)
        self.assertTrue(self.serf.running)
        self.agent_says()

    def test_as_a_child_in_either_order_it_starts_stops_and_starts_again(self) -> None:
        for first in (True, False):
            serf = self.new_serf("n1")
            view = ClusterView(serf)
            self.views.append(view)
            parent = MultiService()
            for child in (view, serf) if first else (serf, view):
                child.setServiceParent(parent)
            for _ in range(2):
                parent.startService()
                self.made_ready(view)
                self.assertEqual(len(view.members), 3)
                stopped = parent.stopService()
                self.run_for(0.5)
                self.successResultOf(stopped)


class TellingTests(ViewCase):
    def test_a_function_that_raises_is_logged_and_the_others_still_hear(self) -> None:
        view = self.ready()
        replay = Replay()
        replay.members.update(view.members)

        def broken(old: Member | None, new: Member | None) -> None:
            raise RuntimeError("broken function")

        view.on_change(broken)
        view.on_change(replay)
        self.nodes.fail("n3")
        self.run_for(LATE)
        self.assertEqual(replay.take(), [("n3", "alive", "failed")])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_what_on_change_returns_ends_it(self) -> None:
        view = self.ready()
        told: list[str] = []
        end = view.on_change(lambda old, new: told.append("first"))
        view.on_change(lambda old, new: told.append("second"))
        end()
        end()
        self.nodes.fail("n3")
        self.run_for(LATE)
        self.assertEqual(told, ["second"])

    def test_a_function_may_end_another_one_and_stop_the_view(self) -> None:
        view = self.ready()
        told: list[str] = []

        def first(old: Member | None, new: Member | None) -> None:
            told.append("first")
            end()
            view.stopService()

        view.on_change(first)
        end = view.on_change(lambda old, new: told.append("second"))
        self.nodes.fail("n2")
        self.nodes.fail("n3")
        self.run_for(LATE)
        self.assertEqual(told, ["first"])

    def test_a_coroutine_function_is_waited_for_and_holds_up_nobody_else(self) -> None:
        view = self.ready()
        gates: list[Deferred[None]] = []
        told: list[str] = []

        async def slow(old: Member | None, new: Member | None) -> None:
            assert new is not None
            told.append(new.name)
            gates.append(Deferred())
            await gates[-1]

        replay = Replay()
        replay.members.update(view.members)
        view.on_change(slow)
        view.on_change(replay)
        self.nodes.fail("n2")
        self.nodes.fail("n3")
        self.run_for(LATE)
        self.assertEqual(len(replay.take()), 2)
        self.assertEqual(len(told), 1)
        gates[0].callback(None)
        self.assertEqual(sorted(told), ["n2", "n3"])
        gates[1].callback(None)

    def test_one_that_listens_between_a_change_and_its_telling_does_not_hear_of_it(self) -> None:
        view = self.ready()
        early, late = Replay(), Replay()
        early.members.update(view.members)
        view.on_change(early)
        view._set("n9", Member(name="n9"))  # applied, and told in the next turn
        late.members.update(view.members)
        view.on_change(late)
        self.run_for(0.1)
        self.assertEqual(early.take(), [("n9", None, "alive")])
        self.assertEqual(late.take(), [])

    def test_changes_are_an_iterator_that_ends_with_the_view(self) -> None:
        view = self.view()
        changes = view.changes()  # which starts it

        async def collect() -> list[Change]:
            return [change async for change in changes]

        collecting = Deferred.fromCoroutine(collect())
        self.run_for(0.5)
        view.stopService()
        self.run_for(0.5)
        told = self.successResultOf(collecting)
        self.assertEqual([change.name for change in told], ["n1", "n2", "n3"])
        self.assertEqual([change.old for change in told], [None] * 3)

    def test_a_slow_reader_loses_the_oldest_changes_and_they_are_counted(self) -> None:
        view = self.view()
        few, all_of_them = view.changes(buffer=1), view.changes()
        self.patch(constant, "STREAM_BUFFER", 1)
        grown = view.changes()  # room for all members, twice
        self.run_for(0.5)
        self.assertEqual((few.dropped, all_of_them.dropped, grown.dropped), (2, 0, 0))

        async def first() -> Change:
            return await anext(few)

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(first())).name, "n3")

    def test_a_reader_that_has_stopped_gets_nothing_more(self) -> None:
        view = self.ready()
        changes = view.changes()
        changes.stop()
        self.assertEqual(view._teller.listeners, {})
        self.nodes.fail("n3")
        self.run_for(LATE)

    def test_a_change_is_a_value_and_can_not_be_changed(self) -> None:
        change = Change(None, Member(name="n1"))
        self.assertEqual(change, Change(None, Member(name="n1")))
        self.assertEqual(change.name, Change(change.new, None).name)
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            change.old = None  # type: ignore[misc]


class WaitTests(ViewCase):
    def test_it_fires_once_enough_members_match(self) -> None:
        view = self.ready()
        waiting = view.wait_for(2, role="web")
        self.nodes.add("w1", {"role": "web"})
        self.run_for(LATE)
        self.assertNoResult(waiting)
        self.nodes.add("w2", {"role": "web"})
        self.run_for(LATE)
        self.assertEqual([member.name for member in self.successResultOf(waiting)], ["w1", "w2"])
        self.assertEqual(len(self.successResultOf(view.wait_for(3))), 5)

    def test_a_predicate_of_the_list_may_say_what_is_enough(self) -> None:
        view = self.ready()
        waiting = view.wait_for(lambda members: len(members) < 3)
        self.assertNoResult(waiting)
        self.nodes.fail("n3")
        self.run_for(LATE)
        self.assertEqual([member.name for member in self.successResultOf(waiting)], ["n1", "n2"])

    def test_a_predicate_that_raises_fails_its_own_deferred_only(self) -> None:
        view = self.ready()

        def broken(members: list[Member]) -> bool:
            if len(members) < 3:
                raise RuntimeError("broken predicate")
            return False

        waiting, other = view.wait_for(broken), view.wait_for(1, status="failed")
        self.nodes.fail("n3")
        self.run_for(LATE)
        self.failureResultOf(waiting, RuntimeError)
        self.successResultOf(other)

    def test_past_its_time_it_fails_and_says_how_many_there_were(self) -> None:
        view = self.ready()
        waiting = view.wait_for(5, timeout=2.0)
        self.run_for(1.9)
        self.assertNoResult(waiting)
        self.run_for(0.2)
        failure = self.failureResultOf(waiting, RequestTimeout)
        self.assertEqual(str(failure.value), "wait_for: 3 of 5 members within 2.0 s")

    def test_its_cancel_leaves_nothing(self) -> None:
        view = self.ready()
        before = len(self.clock.getDelayedCalls())
        waiting, ready = view.wait_for(9, timeout=5.0), view.when_ready()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(len(self.clock.getDelayedCalls()), before)
        self.successResultOf(ready)
        fresh = self.view()
        asked = fresh.when_ready()
        other = fresh.when_ready()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.run_for(0.2)
        self.successResultOf(other)
