"""`Serf.advertise`: tags that are kept, on a fake agent and on embedded ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

import txserf
from tests.fakes import Log
from tests.serf_case import SerfCase
from txserf.embedded import EmbeddedCluster
from txserf.errors import (
    AuthenticationError,
    Disconnected,
    InvalidRequest,
    RequestTimeout,
    RpcError,
)
from txserf.serf.advertise import Advertisement, NodeTags


class Warnings(Log):
    """The lines that txserf's typed face logs."""

    @property
    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events if event.get("log_namespace") == "txserf.serf"]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


TOO_LARGE = "Encoded length of tags exceeds limit of 512 bytes"


class AdvertiseCase(SerfCase):
    """
    A test with a fake agent whose node has tags.

    :ivar tags: the tags of the node, as the agent has them now.
    """

    def setUp(self) -> None:
        super().setUp()
        self.tags: dict[str, str] = {}

    def tearDown(self) -> None:
        if self.serf.factory.open_connection is not None:
            self.agent.lose()  # so that the end does not wait for answers
        super().tearDown()

    def answer_stats(self, name: str = "n1") -> None:
        asked = self.asked_one("stats")
        self.agent.reply(asked.seq, {"agent": {"name": name}, "tags": dict(self.tags)})

    def answer_tags(self, tags: Mapping[str, str], delete: Sequence[str] = (), error: str = "") -> None:
        """Check the request for new tags, and answer it."""
        asked = self.asked_one("tags")
        self.assertEqual(asked.body, {"Tags": dict(tags), "DeleteTags": list(delete)})
        if not error:
            self.tags = {tag: value for tag, value in self.tags.items() if tag not in delete} | dict(tags)
        self.agent.reply(asked.seq, error=error)

    def advertised(self, tags: Mapping[str, str]) -> Advertisement:
        """Return an advertisement that the agent has set."""
        advertisement = self.serf.advertise(tags)
        self.answer_stats()
        self.answer_tags({tag: value for tag, value in tags.items() if self.tags.get(tag) != value})
        self.assertTrue(advertisement.is_set)
        return advertisement

    def withdrawn(self, advertisement: Advertisement) -> Deferred[None]:
        waiting = advertisement.withdraw()
        self.answer_stats()
        return waiting


class SettingTests(AdvertiseCase):
    def test_the_tags_are_set_on_the_agents_own_node(self) -> None:
        advertisement = self.serf.advertise({"role": "web", "http": "8080"})
        waiting = advertisement.when_set()
        self.assertEqual(advertisement.tags, {"role": "web", "http": "8080"})
        self.answer_stats()
        self.assertNoResult(waiting)
        self.assertFalse(advertisement.is_set)
        self.answer_tags({"role": "web", "http": "8080"})
        self.assertIsNone(self.successResultOf(waiting))
        self.assertIsNone(self.successResultOf(advertisement.when_set()))
        self.assertTrue(advertisement.is_set)
        self.assertEqual(repr(advertisement), "<Advertisement of http, role: its tags are set>")

    def test_only_what_differs_is_sent(self) -> None:
        self.tags = {"role": "web", "dc": "1"}
        advertisement = self.serf.advertise({"role": "web"})
        self.answer_stats()
        self.assertEqual(self.agent.asked(), [])
        self.assertTrue(advertisement.is_set)

    def test_tags_can_not_be_changed_behind_its_back(self) -> None:
        tags = {"role": "web"}
        advertisement = self.serf.advertise(tags)
        tags["role"] = "db"
        self.assertEqual(advertisement.tags, {"role": "web"})
        self.assertRaises(TypeError, advertisement.tags.update, tags)

    def test_a_bad_argument_raises_at_the_call(self) -> None:
        for bad in (["role"], {"role": 1}, {1: "web"}, None, {"role": "\ud800"}):
            self.assertRaises(InvalidRequest, self.serf.advertise, bad)
        self.assertEqual(self.agent.asked(), [])

    def test_two_at_once_take_one_comparison_more_and_no_second_change(self) -> None:
        one, two = self.serf.advertise({"a": "1"}), self.serf.advertise({"b": "2"})
        self.answer_stats()
        self.answer_tags({"a": "1"})
        self.answer_stats()
        self.answer_tags({"b": "2"})
        self.assertTrue(one.is_set and two.is_set)

    def test_a_wait_that_is_cancelled_harms_no_other_one(self) -> None:
        advertisement = self.serf.advertise({"role": "web"})
        cancelled, other = advertisement.when_set(), advertisement.when_set()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.answer_stats()
        self.answer_tags({"role": "web"})
        self.successResultOf(other)

    def test_a_callback_may_withdraw_it_and_cancel_the_next_wait(self) -> None:
        advertisement = self.serf.advertise({"role": "web"})
        first, second = advertisement.when_set(), advertisement.when_set()
        second.addErrback(lambda failure: failure.trap(CancelledError))
        first.addCallback(lambda _: second.cancel()).addCallback(lambda _: advertisement.withdraw())
        self.answer_stats()
        self.answer_tags({"role": "web"})
        self.answer_stats()
        self.answer_tags({}, ["role"])
        self.assertEqual(self.tags, {})


class KeepingTests(AdvertiseCase):
    def test_they_are_set_again_where_an_agent_has_lost_them(self) -> None:
        advertisement = self.advertised({"role": "web"})
        self.tags = {}
        self.reconnect()
        self.assertFalse(advertisement.is_set)
        waiting = advertisement.when_set()
        self.answer_stats()
        self.answer_tags({"role": "web"})
        self.successResultOf(waiting)

    def test_they_are_left_alone_where_the_agent_still_has_them(self) -> None:
        advertisement = self.advertised({"role": "web"})
        self.reconnect()
        self.answer_stats()
        self.assertEqual(self.agent.asked(), [])
        self.assertTrue(advertisement.is_set)

    def test_a_change_whose_connection_was_lost_is_made_on_the_next_one(self) -> None:
        advertisement = self.serf.advertise({"role": "web"})
        self.answer_stats()
        self.asked_one("tags")
        self.reconnect()
        self.answer_stats()
        self.answer_tags({"role": "web"})
        self.assertTrue(advertisement.is_set)

    def test_a_change_is_never_sent_to_an_agent_that_was_not_compared(self) -> None:
        self.serf.advertise({"role": "web"})
        asked = self.asked_one("stats")
        lost = self.agent
        self.reconnect()
        self.assertNotEqual(lost, self.agent)
        again = self.asked_one("stats")
        self.assertNotEqual(again.seq, asked.seq)
        self.tags = {"role": "web"}
        self.agent.reply(again.seq, {"agent": {"name": "n2"}, "tags": {"role": "web"}})
        self.assertEqual(self.agent.asked(), [])

    def test_those_that_wait_for_an_agent_are_set_by_the_first_one(self) -> None:
        self.reconnect(again=False)
        advertisement = self.serf.advertise({"role": "web"})
        self.agent = self.endpoint.accept_and_greet()
        self.answer_stats()
        self.answer_tags({"role": "web"})
        self.assertTrue(advertisement.is_set)

    def test_no_answer_in_time_is_logged_and_tried_again_with_the_next_connection(self) -> None:
        advertisement = self.serf.advertise({"role": "web"})
        waiting = advertisement.when_set()
        log = Warnings(self)
        self.clock.advance(10.0)
        self.assertIn("could not be put right: stats: no answer within 10.0 s; tried again", log.text)
        self.assertNoResult(waiting)
        self.agent.asked()
        self.reconnect()
        self.answer_stats()
        self.answer_tags({"role": "web"})
        self.successResultOf(waiting)

    def test_stats_without_the_name_of_a_node_are_logged(self) -> None:
        advertisement = self.serf.advertise({"role": "web"})
        log = Warnings(self)
        self.agent.reply(self.asked_one("stats").seq, {})
        self.assertIn("the agent did not say its node's name", log.text)
        self.assertFalse(advertisement.is_set)

    def test_a_key_that_every_host_refuses_fails_the_wait(self) -> None:
        waiting = self.serf.advertise({"role": "web"}).when_set()
        self.agent.reply(self.asked_one("stats").seq, error="Authentication required")
        self.agent.lose()
        self.failureResultOf(waiting, AuthenticationError)
        self.assertEqual(self.endpoint.waiting, 0)
        self.serf.advertise({"role": "db"})
        self.assertEqual(self.endpoint.waiting, 1)


class RefusalTests(AdvertiseCase):
    def test_one_that_has_been_set_all_the_same_is_no_refusal(self) -> None:
        """An agent that could not broadcast the tags in five seconds says so, and has set them."""
        advertisement = self.serf.advertise({"role": "web"})
        self.answer_stats()
        log = Warnings(self)
        self.answer_tags({"role": "web"}, error="timeout waiting for update broadcast")
        self.tags = {"role": "web"}
        self.answer_stats()
        self.assertTrue(advertisement.is_set)
        self.assertEqual(log.lines, [])

    def test_a_refusal_never_changes_the_tags_of_others(self) -> None:
        self.advertised({"role": "web"})
        self.advertised({"role": "db"})
        waiting = self.serf.advertise({"big": "w" * 600}).when_set()
        self.answer_stats()
        self.answer_tags({"big": "w" * 600}, error=TOO_LARGE)
        for _ in range(3):  # whether it was set all the same, what is to be put back, and what is to be set
            self.answer_stats()
        self.answer_tags({"big": "w" * 600}, error=TOO_LARGE)
        self.answer_stats()
        self.failureResultOf(waiting, RpcError)
        self.assertEqual(self.agent.asked(), [])


class WithdrawalTests(AdvertiseCase):
    def test_a_tag_that_the_node_did_not_have_is_deleted(self) -> None:
        advertisement = self.advertised({"role": "web"})
        waiting = self.withdrawn(advertisement)
        self.assertNoResult(waiting)
        self.answer_tags({}, ["role"])
        self.assertIsNone(self.successResultOf(waiting))
        self.failureResultOf(advertisement.when_set(), Disconnected)
        self.assertFalse(advertisement.is_set)
        self.assertIsNone(self.successResultOf(advertisement.withdraw()))

    def test_a_tag_that_the_node_had_is_put_back(self) -> None:
        self.tags = {"role": "db", "dc": "1"}
        advertisement = self.advertised({"role": "web", "http": "80"})
        waiting = self.withdrawn(advertisement)
        self.answer_tags({"role": "db"}, ["http"])
        self.successResultOf(waiting)
        self.assertEqual(self.tags, {"role": "db", "dc": "1"})

    def test_a_tag_that_somebody_else_has_changed_stays(self) -> None:
        advertisement = self.advertised({"role": "web"})
        self.tags = {"role": "cache"}
        self.successResultOf(self.withdrawn(advertisement))
        self.assertEqual(self.agent.asked(), [])

    def test_of_two_values_the_later_one_counts_and_leaves_the_earlier_one_behind(self) -> None:
        self.tags = {"role": "old"}
        first, second = self.advertised({"role": "web"}), self.advertised({"role": "db"})
        waiting = self.withdrawn(second)
        self.answer_tags({"role": "web"})
        self.successResultOf(waiting)
        waiting = self.withdrawn(first)
        self.answer_tags({"role": "old"})
        self.successResultOf(waiting)

    def test_the_earlier_of_two_values_goes_without_a_change(self) -> None:
        first, second = self.advertised({"role": "web"}), self.advertised({"role": "db"})
        self.successResultOf(self.withdrawn(first))
        self.assertEqual(self.agent.asked(), [])
        waiting = self.withdrawn(second)
        self.answer_tags({}, ["role"])
        self.successResultOf(waiting)

    def test_before_it_was_set_nothing_is_ever_set(self) -> None:
        advertisement = self.serf.advertise({"role": "web"})
        set_ = advertisement.when_set()
        self.assertIsNone(self.successResultOf(advertisement.withdraw()))
        self.assertNoResult(set_)  # it is told in a turn of its own
        self.clock.advance(0)
        self.failureResultOf(set_, Disconnected)
        self.answer_stats()
        self.assertEqual(self.agent.asked(), [])

    def test_while_it_is_being_set_it_is_deleted_afterwards(self) -> None:
        advertisement = self.serf.advertise({"role": "web"})
        self.answer_stats()
        waiting = advertisement.withdraw()
        self.answer_tags({"role": "web"})
        self.assertNoResult(waiting)
        self.answer_stats()
        self.answer_tags({}, ["role"])
        self.successResultOf(waiting)

    def test_while_the_agent_is_away_it_is_put_back_by_the_next_connection(self) -> None:
        advertisement = self.advertised({"role": "web"})
        self.reconnect(again=False)
        waiting = advertisement.withdraw()
        self.assertNoResult(waiting)
        self.agent = self.endpoint.accept_and_greet()
        self.answer_stats()
        self.answer_tags({}, ["role"])
        self.successResultOf(waiting)

    def test_its_wait_ends_at_the_timeout_and_the_tags_are_put_back_later(self) -> None:
        advertisement = self.advertised({"role": "web"})
        self.reconnect(again=False)
        waiting = advertisement.withdraw()
        self.clock.advance(10.0)
        self.failureResultOf(waiting, RequestTimeout)
        self.clock.advance(1.0)  # the next attempt
        self.agent = self.endpoint.accept_and_greet()
        self.answer_stats()
        self.answer_tags({}, ["role"])

    def test_its_wait_can_be_cancelled(self) -> None:
        waiting = self.withdrawn(self.advertised({"role": "web"}))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.answer_tags({}, ["role"])

    def test_after_a_failover_the_tags_of_the_first_node_are_put_back_once_it_is_there_again(self) -> None:
        advertisement = self.advertised({"role": "web"})
        self.reconnect()
        self.tags = {}
        log = Warnings(self)
        self.answer_stats("n2")
        self.assertIn("the agent's node is n2 now; the advertised tags stay on n1", log.text)
        self.answer_tags({"role": "web"})
        waiting = advertisement.withdraw()
        self.answer_stats("n2")
        self.answer_tags({}, ["role"])
        self.successResultOf(waiting)
        self.reconnect(again=False)
        self.clock.advance(1.0)  # it was lost soon
        self.agent = self.endpoint.accept_and_greet()
        self.tags = {"role": "web"}
        self.answer_stats("n1")
        self.answer_tags({}, ["role"])


class ClosingTests(AdvertiseCase):
    def test_closing_puts_the_tags_back_and_then_closes(self) -> None:
        self.tags = {"dc": "1"}
        advertisement = self.advertised({"role": "web"})
        closed = self.serf.close()
        self.assertFalse(self.agent.closed_by_client)
        self.assertRaises(Disconnected, self.serf.advertise, {"role": "db"})
        self.answer_stats()
        self.answer_tags({}, ["role"])
        self.assertTrue(self.agent.closed_by_client)
        self.assertNoResult(closed)
        self.agent.finish_closing()
        self.clock.advance(0)
        self.successResultOf(closed)
        self.failureResultOf(advertisement.when_set(), Disconnected)

    def test_closing_twice_waits_twice(self) -> None:
        self.advertised({"role": "web"})
        closed = [self.serf.close(), self.serf.close()]
        self.answer_stats()
        self.answer_tags({}, ["role"])
        self.answer_stats()
        self.agent.finish_closing()
        self.clock.advance(0)
        for each in closed:
            self.successResultOf(each)

    def test_an_agent_that_is_away_is_not_waited_for(self) -> None:
        self.advertised({"role": "web"})
        self.reconnect(again=False)
        log = Warnings(self)
        closed = self.serf.close()
        self.clock.advance(0)
        self.successResultOf(closed)
        self.assertEqual(log.lines, ["the tags role of n1 are not put back"])

    def test_an_agent_that_does_not_answer_is_not_waited_for_without_end(self) -> None:
        self.advertised({"role": "web"})
        closed = self.serf.close()
        self.clock.advance(5.0)
        self.answer_stats()
        self.clock.advance(4.9)
        self.assertFalse(self.agent.closed_by_client)
        self.clock.advance(0.1)
        self.agent.finish_closing()
        self.clock.advance(0)
        self.successResultOf(closed)

    def test_an_agent_that_is_lost_meanwhile_ends_it(self) -> None:
        self.advertised({"role": "web"})
        closed = self.serf.close()
        self.agent.lose()
        self.clock.advance(0)
        self.successResultOf(closed)
        self.assertEqual(self.endpoint.waiting, 0)

    def test_cancelling_the_end_closes_without_waiting(self) -> None:
        self.advertised({"role": "web"})
        closed = self.serf.close()
        closed.cancel()
        self.assertTrue(self.agent.closed_by_client)
        self.agent.finish_closing()
        self.clock.advance(0)
        self.successResultOf(closed)

    def test_a_start_meanwhile_closes_at_once_and_connects_anew(self) -> None:
        self.advertised({"role": "web"})
        closed = self.serf.close()
        self.serf.startService()
        self.assertTrue(self.agent.closed_by_client)
        self.agent.finish_closing()
        self.clock.advance(0)
        self.successResultOf(closed)
        self.agent = self.endpoint.accept_and_greet()
        self.answer_stats()
        self.answer_tags({}, ["role"])  # what the end could not do

    def test_before_anything_was_set_it_closes_at_once(self) -> None:
        waiting = self.serf.advertise({"role": "web"}).when_set()
        closed = self.serf.close()
        self.assertTrue(self.agent.closed_by_client)
        self.agent.finish_closing()
        self.clock.advance(0)
        self.successResultOf(closed)
        self.failureResultOf(waiting, Disconnected)

    def test_a_withdrawal_under_way_is_done_first(self) -> None:
        waiting = self.advertised({"role": "web"}).withdraw()
        self.serf.close()
        self.answer_stats()
        self.answer_tags({}, ["role"])
        self.successResultOf(waiting)

    def test_a_withdrawal_that_could_not_be_done_fails(self) -> None:
        waiting = self.advertised({"role": "web"}).withdraw()
        self.agent.lose()
        self.serf.close()
        self.clock.advance(0)
        self.failureResultOf(waiting, Disconnected)


class NodeTagsTests(SynchronousTestCase):
    def test_while_it_is_not_known_which_value_got_through_both_are_ours(self) -> None:
        node = NodeTags()
        for has in ({"role": "one"}, {"role": "two"}):
            node = NodeTags()
            node.changed(node.change({}, {"role": "one"}, ()), {"role": "one"})
            node.change({"role": "one"}, {"role": "two"}, ())  # nobody knows what became of it
            self.assertEqual(node.change(has, {}, ()), {"role": None})

    def test_the_value_of_an_agent_that_was_started_again_is_the_one_to_put_back(self) -> None:
        node = NodeTags()
        node.changed(node.change({"role": "old"}, {"role": "web"}, ()), {"role": "web"})
        self.assertEqual(node.change({"role": "new"}, {"role": "web"}, ()), {"role": "web"})
        self.assertEqual(node.change({"role": "web"}, {}, ()), {"role": "new"})

    def test_nothing_is_held_once_all_is_put_back(self) -> None:
        node = NodeTags()
        node.changed(node.change({"a": "1"}, {"a": "2", "b": "1"}, ()), {"a": "2", "b": "1"})
        node.changed(node.change({"a": "2", "b": "1"}, {}, ()), {})
        self.assertEqual(node.held, {})

    def test_a_tag_that_had_the_value_already_is_left(self) -> None:
        node = NodeTags()
        self.assertEqual(node.change({"a": "1"}, {"a": "1"}, ()), {})
        self.assertEqual(node.change({"a": "1"}, {}, ()), {})
        self.assertEqual(node.held, {})


class EmbeddedTests(SynchronousTestCase):
    """On agents that lose their tags where they are started again, and refuse too many."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = EmbeddedCluster(self.clock, nodes=2, seed=1)
        self.observer = txserf.Serf([self.cluster.agents["n2"].endpoint()], reactor=self.clock)
        self.serf = txserf.Serf([self.cluster.agents["n1"].endpoint()], reactor=self.clock)

    def tearDown(self) -> None:
        closed = [self.serf.close(), self.observer.close()]
        self.clock.pump([0.1] * 50)
        for each in closed:
            self.successResultOf(each)

    def result(self, waiting: Deferred[Any], within: float = 5.0) -> Any:
        results: list[Any] = []
        waiting.addBoth(results.append)
        self.clock.pump([0.1] * int(within * 10))
        self.assertEqual(len(results), 1, "it has not fired")
        return results[0]

    def seen(self) -> dict[str, str]:
        """Return the tags of n1 as n2 sees them."""
        (member,) = self.result(self.observer.members(name="n1"))
        return dict(member.tags)

    def test_tags_come_back_after_the_agent_was_started_again_without_them(self) -> None:
        advertisement = self.serf.advertise({"role": "web"})
        self.result(advertisement.when_set())
        for _ in range(3):
            self.assertEqual(self.seen(), {"role": "web"})
            self.cluster.fail("n1")
            self.clock.pump([0.1] * 30)
            self.assertFalse(advertisement.is_set)
            self.cluster.recover("n1")
            self.result(advertisement.when_set(), within=60)
        self.assertIsNone(self.result(advertisement.withdraw()))
        self.assertEqual(self.seen(), {})

    def test_closing_leaves_the_node_as_it_was(self) -> None:
        self.result(self.serf.set_tags({"role": "db"}))
        self.result(self.serf.advertise({"role": "web", "http": "80"}).when_set())
        self.assertEqual(self.seen(), {"role": "web", "http": "80"})
        self.assertIsNone(self.result(self.serf.close()))
        self.assertEqual(self.seen(), {"role": "db"})

    def test_a_refusal_is_told_and_logged_without_values(self) -> None:
        log = Warnings(self)
        advertisement = self.serf.advertise({"role": "w" * 600})
        failure = self.result(advertisement.when_set())
        self.assertEqual(failure.check(RpcError) and failure.value.message, TOO_LARGE)
        self.assertFalse(advertisement.is_set)
        self.assertIn("the agent refuses the advertised tags role: tags: Encoded length", log.text)
        self.assertNotIn("www", log.text)

    def test_one_that_is_refused_costs_the_others_nothing(self) -> None:
        before = self.serf.advertise({"a": "1", "b": "1"})
        self.result(before.when_set())
        refused = self.serf.advertise({"big": "w" * 600})
        behind = self.serf.advertise({"b": "2"})
        self.result(behind.when_set())
        self.assertEqual(self.seen(), {"a": "1", "b": "2"})
        self.cluster.fail("n1")
        self.clock.pump([0.1] * 30)
        self.cluster.recover("n1")
        self.result(behind.when_set(), within=60)
        self.assertTrue(before.is_set)
        self.assertFalse(refused.is_set)
        self.assertEqual(self.seen(), {"a": "1", "b": "2"})

    def test_a_withdrawal_is_done_beside_one_that_is_refused(self) -> None:
        small = self.serf.advertise({"a": "1"})
        self.result(small.when_set())
        self.result(self.serf.advertise({"big": "w" * 600}).when_set())
        self.assertIsNone(self.result(small.withdraw()))
        self.assertEqual(self.seen(), {})

    def test_one_that_was_refused_is_set_with_a_later_connection(self) -> None:
        self.result(self.serf.set_tags({"filler": "w" * 400}))
        advertisement = self.serf.advertise({"big": "w" * 200})
        self.assertTrue(self.result(advertisement.when_set()).check(RpcError))
        self.result(self.serf.set_tags(delete=["filler"]))
        self.cluster.agents["n1"].drop_connections()
        self.result(advertisement.when_set(), within=60)
        self.assertEqual(self.seen(), {"big": "w" * 200})


STEPS = st.one_of(
    st.tuples(
        st.just("advertise"), st.dictionaries(st.sampled_from("abc"), st.sampled_from("123"), min_size=1)
    ),
    st.tuples(st.just("withdraw"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["fail", "recover", "cut"]), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.1, 3.0])),
)


class StoryTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(st.lists(STEPS, min_size=5, max_size=30))
    def test_whatever_happens_the_node_ends_with_the_tags_that_are_advertised_and_then_with_its_own(
        self, story: list[tuple[str, Any]]
    ) -> None:
        clock = Clock()
        cluster = EmbeddedCluster(clock, nodes=1, seed=1)
        own = {"a": "own"}
        node = cluster.add("web", own)
        serf = txserf.Serf([node.endpoint()], reactor=clock, timeout=5.0)
        active: list[Advertisement] = []
        waiting: list[Deferred[None]] = []
        for step, value in story:
            if step == "advertise":
                active.append(serf.advertise(value))
                waiting.append(active[-1].when_set())
            elif step == "withdraw" and active:
                waiting.append(active.pop(value % len(active)).withdraw())
            elif step == "fail":
                cluster.fail("web")
            elif step == "recover":
                cluster.recover("web")
            elif step == "cut":
                node.drop_connections()
            elif step == "wait":
                clock.advance(value)

        outcomes: list[Any] = []
        for each in waiting:
            each.addBoth(outcomes.append)
        cluster.recover("web")
        clock.pump([0.5] * 200)
        self.assertEqual([one.is_set for one in active], [True] * len(active))
        self.assertEqual(len(outcomes), len(waiting), "a wait has no end")
        wanted = dict(own)
        for advertisement in active:
            wanted |= advertisement.tags
        self.assertEqual(tags_of(serf, clock), wanted)
        closed = serf.close()
        clock.pump([0.1] * 60)
        self.successResultOf(closed)
        observer = txserf.Serf([node.endpoint()], reactor=clock)
        self.assertEqual(tags_of(observer, clock), own)
        closed = observer.close()
        clock.advance(0)
        self.successResultOf(closed)


def tags_of(serf: txserf.Serf, clock: Clock) -> dict[str, str]:
    """Return the tags of the node web."""
    asked = serf.members(name="web")
    found: list[Any] = []
    asked.addCallback(found.extend)
    clock.pump([0.1] * 20)
    (member,) = found
    return dict(member.tags)
