"""The members that a query with ``expect="all"`` is for, where a view of the same `Serf` knows them."""

from __future__ import annotations

from typing import Any

from tests.cluster.view_case import ViewCase
from txserf import constant
from txserf.embedded.rpc import Conversation
from txserf.errors import Overloaded
from txserf.model import QueryResult
from txserf.serf.serf import Serf

LATE = 4.0  # seconds in which an embedded agent reports what has happened


class RosterTests(ViewCase):
    """
    A test with a cluster of three that answer the query ``load``, and a fourth with tags.

    :ivar asked: the commands that the agents have got.
    """

    def setUp(self) -> None:
        super().setUp()
        self.nodes.add("w1", {"role": "web", "dc": "east"})
        for agent in self.nodes.agents.values():
            agent.handle_query("load", lambda query: b"0.3")
        self.asked: list[str] = []
        run = Conversation.run

        def counting(conversation: Conversation, row: Any, values: Any, seq: int) -> Any:
            self.asked.append(row.wire)
            return run(conversation, row, values, seq)

        self.patch(Conversation, "run", counting)

    def reads(self) -> int:
        """Return how often the members were read since the last call."""
        asked, self.asked[:] = list(self.asked), []
        return sum(command.startswith("members") for command in asked)

    def result(self, **options: Any) -> QueryResult:
        """Return the result of a query that nobody leaves open."""
        query = self.serf.query("load", expect="all", timeout=1.0, **options)
        self.run_for(1.5)
        return self.successResultOf(query.when_done())

    def answered(self, **options: Any) -> tuple[list[str], list[str]]:
        result = self.result(**options)
        return sorted(result.responses), result.missing

    def test_where_a_view_is_ready_the_agent_is_not_asked_for_the_members(self) -> None:
        self.assertEqual(self.answered(), (["n1", "n2", "n3", "w1"], []))
        self.assertEqual(self.reads(), 1)
        self.ready()
        self.reads()
        result = self.result()
        self.assertEqual((sorted(result.responses), result.complete), (["n1", "n2", "n3", "w1"], True))
        self.assertEqual(self.reads(), 0)

    def test_it_ends_with_the_last_answer_of_those_that_the_view_has_alive(self) -> None:
        self.nodes.agents["n3"].handle_query("load", None)
        self.ready()
        self.assertEqual(self.answered(), (["n1", "n2", "w1"], ["n3"]))
        self.nodes.fail("n3")
        self.run_for(LATE)
        query = self.serf.query("load", expect="all", timeout=60.0)
        self.run_for(1.0)  # and not the timeout
        self.assertEqual(self.successResultOf(query.when_done()).missing, [])

    def test_nodes_and_tags_select_as_they_do_without_a_view(self) -> None:
        cases: list[dict[str, Any]] = [
            {"nodes": ["n1", "ghost"]},
            {"nodes": ["n1", "w1", "ghost"], "tags": {"role": "web"}},
            {"tags": {"role": "^web$|db"}},
            {"tags": {"role": "^$"}},
            {"tags": {"role": "e", "dc": "ea.t"}},
            {"tags": {"role": "^none$"}},
        ]
        asked = [self.answered(**options) for options in cases]
        view = self.ready()
        self.reads()
        self.assertEqual([self.answered(**options) for options in cases], asked)
        self.assertEqual(self.reads(), 0)
        self.successResultOf(self.stopped(view))

    def test_a_pattern_that_only_the_agent_can_read_is_still_read_by_it(self) -> None:
        self.ready()
        self.reads()
        self.assertEqual(self.answered(tags={"role": "(?i)WEB"}), (["w1"], []))
        self.assertEqual(self.reads(), 1)

    def test_a_view_of_those_that_are_alive_will_do_and_one_of_some_of_them_will_not(self) -> None:
        for options, reads in (
            ({"status": "alive"}, 0),
            ({"tags": {"role": "web"}}, 1),
            ({"status": "failed"}, 1),
        ):
            view = self.ready(**options)
            self.reads()
            self.assertEqual(self.answered(), (["n1", "n2", "n3", "w1"], []))
            self.assertEqual(self.reads(), reads, options)
            self.successResultOf(self.stopped(view))

    def test_one_of_several_views_will_do(self) -> None:
        self.ready(tags={"role": "web"})
        self.view().startService()  # it is not ready
        query = self.serf.query("load", expect="all")
        self.run_for(0.5)
        self.successResultOf(query.when_done())
        self.assertEqual(self.reads(), 3)
        self.answered()
        self.assertEqual(self.reads(), 0)

    def test_a_view_that_is_not_ready_stale_or_stopped_is_not_asked(self) -> None:
        view = self.view()
        view.startService()
        self.assertTrue(view.stale)
        query = self.serf.query("load", expect="all")
        self.run_for(0.5)
        self.successResultOf(query.when_done())
        self.assertEqual(self.reads(), 2)
        for name in ("n1", "n2"):
            self.nodes.fail(name)
        self.run_for(0.2)
        self.assertTrue(view.stale)
        query = self.serf.query("load", expect="all")
        self.nodes.recover("n2")
        self.run_for(10.0)
        self.assertIn("n2", self.successResultOf(query.when_done()).responses)
        self.assertEqual(self.reads(), 2)  # by the query, and by the view
        self.answered()
        self.assertEqual(self.reads(), 0)
        self.successResultOf(self.stopped(view))
        self.answered()
        self.assertEqual(self.reads(), 1)
        view.startService()
        self.made_ready(view)
        self.reads()
        self.answered()
        self.assertEqual(self.reads(), 0)

    def test_a_view_of_another_serf_is_not_asked(self) -> None:
        self.ready()
        self.reads()
        other = Serf([self.nodes.agents["n1"].endpoint()], reactor=self.clock)
        query = other.query("load", expect="all")
        self.run_for(0.5)
        self.successResultOf(query.when_done())
        self.assertEqual(self.reads(), 1)
        other.close()

    def test_the_reading_that_is_saved_is_no_call_under_way(self) -> None:
        view = self.ready()
        self.patch(constant, "CALLS_LIMIT", 1)
        self.answered()
        self.successResultOf(self.stopped(view))
        self.assertRaises(Overloaded, self.serf.query, "load", expect="all")

    def stopped(self, view: Any) -> Any:
        stopping = view.stopService()
        self.run_for(0.2)
        return stopping
