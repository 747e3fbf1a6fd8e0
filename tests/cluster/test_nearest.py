"""`ClusterView.nearest`: members by their estimated distance from a node."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.cluster.view_case import ViewCase
from txserf.cluster.view import ClusterView
from txserf.errors import Disconnected, InvalidRequest, RpcError
from txserf.model import Coordinate, Member


class NearestTests(ViewCase):
    def setUp(self) -> None:
        super().setUp()
        for name, latency in (("near", 0.01), ("far", 0.2), ("middle", 0.05)):
            self.nodes.add(name, {"role": "web"}).latency = latency
        self.run_for(30.0)
        self.asked: list[str] = []
        ask = self.serf.coordinate

        def coordinate(node: str, *, timeout: float | None = None) -> Deferred[Coordinate | None]:
            self.asked.append(node)
            return ask(node, timeout=timeout)

        self.patch(self.serf, "coordinate", coordinate)

    def found(self, view: ClusterView, *args: Any, **options: Any) -> list[tuple[Member, float]]:
        finding = view.nearest(*args, **options)
        self.run_for(0.5)
        return self.successResultOf(finding)

    def names(self, view: ClusterView, *args: Any, **options: Any) -> list[str]:
        return [member.name for member, _ in self.found(view, *args, **options)]

    def test_members_come_by_their_distance_which_is_that_of_rtt(self) -> None:
        view = self.view()  # which it starts
        found = self.found(view, "n1", role="web")
        self.assertEqual([member.name for member, _ in found], ["near", "middle", "far"])
        for member, seconds in found:
            rtt = self.serf.rtt("n1", member.name)
            self.run_for(0.1)
            self.assertEqual(self.successResultOf(rtt), seconds)

    def test_from_no_node_it_is_the_agents_own_also_after_the_next_agent_took_over(self) -> None:
        view = self.ready()
        self.assertEqual(self.found(view), self.found(view, "n1"))
        self.nodes.fail("n1")
        self.run_for(4.0)
        self.assertEqual(self.found(view), self.found(view, "n2"))

    def test_count_and_within_limit_it(self) -> None:
        view = self.ready()
        self.assertEqual(self.names(view, role="web", count=2), ["near", "middle"])
        (_, _), (_, middle), (_, _) = self.found(view, role="web")
        self.assertEqual(self.names(view, role="web", within=middle), ["near", "middle"])
        self.assertEqual(self.names(view, role="nothing"), [])

    def test_coordinates_are_asked_for_once_and_kept_for_a_while(self) -> None:
        view = self.ready()
        both = [view.nearest(role="web"), view.nearest(role="web")]
        self.run_for(0.5)
        for each in both:
            self.successResultOf(each)
        self.assertEqual(sorted(self.asked), ["far", "middle", "n1", "near"])
        self.found(view, role="web")
        self.assertEqual(len(self.asked), 4)
        self.run_for(31.0)
        self.found(view, role="web")
        self.assertEqual(len(self.asked), 8)

    def test_a_member_that_has_just_joined_is_asked_for_again_soon(self) -> None:
        self.nodes.add("new", {"role": "web"})
        view = self.ready()
        self.assertNotIn("new", self.names(view, role="web"))
        self.run_for(2.5)
        self.assertIn("new", self.names(view, role="web"))
        self.assertEqual(self.asked.count("new"), 2)
        self.assertEqual(self.asked.count("far"), 1)

    def test_a_member_without_a_coordinate_is_left_out_and_a_node_without_one_is_an_error(self) -> None:
        self.nodes.add("new", {"role": "web"})
        view = self.ready()
        self.assertIn("new", view.members)
        self.assertEqual(self.names(view, role="web"), ["near", "middle", "far"])
        failing = view.nearest("nobody")
        self.run_for(0.5)
        failure = self.failureResultOf(failing, RpcError)
        self.assertEqual(str(failure.value), "get-coordinate: the agent has no coordinate of 'nobody'")

    def test_its_cancel_and_the_stop_of_the_view_leave_the_next_call_as_it_is(self) -> None:
        view = self.ready()
        cancelled, next_one = view.nearest(), view.nearest()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.run_for(0.5)
        self.assertEqual(len(self.successResultOf(next_one)), 6)
        view.stopService()
        self.run_for(0.2)
        self.failureResultOf(view.nearest(), Disconnected)

    def test_a_bad_argument_is_refused_at_the_call(self) -> None:
        view = self.ready()
        wrongs: list[dict[str, Any]] = [
            {"node": ""},
            {"node": 3},
            {"count": 0},
            {"within": -1},
            {"status": 3},
            {"role": 3},
        ]
        for wrong in wrongs:
            self.assertRaises(InvalidRequest, view.nearest, **wrong)
