"""A `ServiceEndpoint` dials the members that are alive and match, one after the other until one can be reached."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectingCancelledError, DNSLookupError, NoRouteError
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from zope.interface.verify import verifyObject

from tests.cluster.endpoint_case import FACTORY, EndpointCase
from tests.fakes import Log
from txserf import constant
from txserf.cluster.endpoint import ServiceEndpoint
from txserf.errors import ConnectError, Disconnected, InvalidRequest, NoMember
from txserf.model import Coordinate, Member


class DiallingCase(EndpointCase):
    def dial(self, endpoint: ServiceEndpoint) -> Deferred[IProtocol]:
        connecting = endpoint.connect(FACTORY)
        self.run_for(0.2)
        return connecting


class DiallingTests(DiallingCase):
    def setUp(self) -> None:
        super().setUp()
        for number in (1, 2, 3):
            self.add(f"w{number}", role="web", http=f"800{number}")

    def in_turn(self, view: Any = None, **options: Any) -> ServiceEndpoint:
        """Return an endpoint that dials w1, w2, w3 and so on."""
        given: dict[str, Any] = {"port_tag": "http", "policy": "round-robin", "role": "web", **options}
        return ServiceEndpoint(view or self.ready(), **given)

    def test_it_dials_an_alive_member_that_matches_at_the_port(self) -> None:
        endpoint = ServiceEndpoint(self.ready(), port=8080, role="web")
        verifyObject(IStreamClientEndpoint, endpoint)
        connecting = self.dial(endpoint)
        self.assertEqual(self.dialled, [("127.0.0.1", 8080)])
        self.assertEqual(self.dials[0][3], constant.CONNECT_TIMEOUT)
        self.assertNoResult(connecting)
        self.accept(connecting)

    def test_it_waits_for_the_first_snapshot_and_starts_the_view(self) -> None:
        view = self.view()
        endpoint = self.in_turn(view)
        self.run_for(1.0)
        self.assertFalse(view.running)
        connecting = endpoint.connect(FACTORY)
        self.assertEqual(self.dialled, [])
        self.run_for(0.2)
        self.assertEqual(self.dialled, [("127.0.0.1", 8001)])
        self.accept(connecting)

    def test_it_dials_the_next_member_if_one_cannot_be_reached(self) -> None:
        connecting = self.dial(self.in_turn())
        self.refuse()
        self.refuse(DNSLookupError("nor that"))
        self.assertEqual(self.dialled, [("127.0.0.1", 8001), ("127.0.0.1", 8002), ("127.0.0.1", 8003)])
        self.accept(connecting)

    def test_it_fails_with_all_reasons_where_no_member_can_be_reached(self) -> None:
        connecting = self.dial(self.in_turn())
        reasons = [NoRouteError("first"), OSError("second"), NoRouteError("third")]
        for reason in reasons:
            self.assertNoResult(connecting)
            self.refuse(reason)
        error = self.failureResultOf(connecting, ConnectError).value
        self.assertIs(type(error), ConnectError)
        labels = [f"w{number} (127.0.0.1:800{number})" for number in (1, 2, 3)]
        self.assertEqual(error.failures, tuple(zip(labels, reasons, strict=True)))
        self.assertIn("alive and has role='web': w1 (127.0.0.1:8001): ", str(error))
        self.assertEqual(len(self.dials), 3)

    def test_without_a_member_that_matches_it_fails_with_no_member(self) -> None:
        connecting = self.dial(self.in_turn(dc=lambda value: value == "1"))
        error = self.failureResultOf(connecting, NoMember).value
        self.assertEqual(str(error), "no member is alive and has role='web', dc")
        self.assertEqual((error.failures, self.dialled), ((), []))

    def test_while_the_agent_is_away_the_last_known_members_are_dialled(self) -> None:
        view = self.ready()
        for name in ("n1", "n2"):
            self.nodes.fail(name)
        self.run_for(0.5)
        self.assertTrue(view.stale)
        self.accept(self.dial(self.in_turn(view)))
        error = self.failureResultOf(self.dial(self.in_turn(view, role="db")), NoMember).value
        self.assertIn("as far as is known while the agent is away", str(error))

    def test_a_member_that_failed_is_not_dialled_and_one_that_came_is(self) -> None:
        endpoint = self.in_turn()
        self.nodes.fail("w1")
        self.run_for(4.0)
        connecting = self.dial(endpoint)
        self.assertEqual(self.dialled, [("127.0.0.1", 8002)])
        self.nodes.fail("w3")
        self.add("w4", role="web", http="8004")  # both while w2 is dialled
        self.refuse()
        self.assertEqual(self.dialled[1:], [("127.0.0.1", 8004)])
        self.accept(connecting)

    def test_round_robin_goes_on_behind_the_member_that_was_dialled_last(self) -> None:
        endpoint = self.in_turn()
        for _ in range(4):
            self.accept(self.dial(endpoint))
        self.assertEqual([port for _, port in self.dialled], [8001, 8002, 8003, 8001])
        self.nodes.fail("w2")
        self.run_for(4.0)
        self.accept(self.dial(endpoint))
        self.assertEqual(self.dialled[-1], ("127.0.0.1", 8003))

    def test_random_dials_each_member_first_at_times_and_none_twice_in_a_connect(self) -> None:
        endpoint = self.in_turn(policy="random")
        first = set()
        for _ in range(100):
            before = len(self.dials)
            connecting = self.dial(endpoint)
            for _ in range(3):
                self.refuse()
            self.failureResultOf(connecting, ConnectError)
            ports = [port for _, port in self.dialled[before:]]
            self.assertEqual(sorted(ports), [8001, 8002, 8003])
            first.add(ports[0])
        self.assertEqual(first, {8001, 8002, 8003})  # by chance not: 1 in 10**17

    def test_a_tag_that_is_no_port_is_logged_and_counts_as_a_failure(self) -> None:
        log = Log(self)
        for value in ("", "http", "0", "65536", "+80", "8_0", " 80", "80\n", "٨٠", "9" * 400):
            self.set_tags("w1", role="web", http=value)
            self.run_for(4.0)
            endpoint = self.in_turn()
            log.events.clear()
            connecting = self.dial(endpoint)
            reason = f"its tag 'http' is no port: {value!r}"
            self.assertEqual(log.texts, [f"member w1 is not dialled: {reason}"])
            self.assertEqual(self.dialled[-1], ("127.0.0.1", 8002))
            self.refuse()
            self.refuse()
            error = self.failureResultOf(connecting, ConnectError).value
            self.assertEqual([label.partition(" ")[0] for label, _ in error.failures], ["w1", "w2", "w3"])
            self.assertEqual(str(error.failures[0][1]), reason)

    def test_a_member_without_the_tag_of_the_port_counts_as_a_failure(self) -> None:
        error = self.failureResultOf(self.dial(self.in_turn(port_tag="grpc")), ConnectError).value
        self.assertIs(type(error), ConnectError)
        self.assertEqual(str(error.failures[2][1]), "it has no tag 'grpc' with a port")
        self.assertEqual(self.dialled, [])

    def test_an_ipv6_address_is_dialled_and_a_member_without_an_address_counts_as_a_failure(self) -> None:
        view = self.ready()
        members = [Member(name="nowhere"), Member(name="v6", address=IPv6Address("fd00::1"))]
        self.patch(view, "select", lambda **_: members)
        connecting = self.dial(ServiceEndpoint(view, port=80, policy="round-robin"))
        self.assertEqual(self.dialled, [("fd00::1", 80)])
        self.refuse()
        error = self.failureResultOf(connecting, ConnectError).value
        failures = [(label, str(reason)) for label, reason in error.failures]
        self.assertEqual(failures[0], ("nowhere", "the agent knows no address of it"))
        self.assertEqual(failures[1][0], "v6 ([fd00::1]:80)")

    def test_an_error_of_the_factory_is_no_reason_to_dial_another_member(self) -> None:
        class Broken(Factory):
            def buildProtocol(self, addr: object) -> Any:
                raise ZeroDivisionError("a bug")

        connecting = self.in_turn().connect(Broken())
        self.run_for(0.1)
        self.dials[-1][2].buildProtocol(None)
        self.failureResultOf(connecting, ZeroDivisionError)
        self.assertEqual(len(self.dials), 1)

    def test_a_predicate_that_raises_fails_the_connect(self) -> None:
        self.failureResultOf(self.dial(self.in_turn(role=lambda value: 1 / 0)), ZeroDivisionError)

    def test_it_can_be_cancelled_while_it_dials(self) -> None:
        connecting = self.dial(self.in_turn())
        connecting.cancel()
        self.failureResultOf(connecting, ConnectingCancelledError)
        self.run_for(1.0)
        self.assertEqual(len(self.dials), 1)

    def test_it_can_be_cancelled_while_it_waits_for_the_view(self) -> None:
        view = self.view()
        connecting = self.in_turn(view).connect(FACTORY)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.made_ready(view)
        self.assertEqual(self.dialled, [])

    def test_a_limit_of_the_whole_is_that_of_the_deferred(self) -> None:
        connecting = self.in_turn().connect(FACTORY).addTimeout(3, self.clock)
        self.run_for(4.0)
        self.failureResultOf(connecting, Exception)
        self.assertEqual(len(self.dials), 1)

    def test_after_the_stop_of_the_view_it_fails(self) -> None:
        view = self.ready()
        endpoint = self.in_turn(view)
        under_way = self.dial(endpoint)
        view.stopService()
        self.failureResultOf(endpoint.connect(FACTORY), Disconnected)
        self.refuse()
        error = self.failureResultOf(under_way, Disconnected).value
        self.assertEqual(str(error), "this ClusterView is stopped")
        self.assertEqual(len(self.dials), 1)

    def test_a_stop_of_the_view_fails_those_who_wait_for_it(self) -> None:
        view = self.view()
        connecting = self.in_turn(view).connect(FACTORY)
        view.stopService()
        self.run_for(0.1)
        self.failureResultOf(connecting, Disconnected)


class NearestTests(DiallingCase):
    def setUp(self) -> None:
        super().setUp()
        for name, port, latency in (
            ("a-far", "8003", 0.2),
            ("b-near", "8001", 0.01),
            ("c-middle", "8002", 0.05),
        ):
            self.nodes.add(name, {"role": "web", "http": port}).latency = latency
        self.run_for(30.0)  # in which the agents learn of their distances

    def ports_of(self, endpoint: ServiceEndpoint) -> list[int]:
        """Return the ports that are dialled by a connect that fails."""
        before = len(self.dials)
        connecting = self.dial(endpoint)
        self.run_for(0.5)
        while not connecting.called:
            self.refuse()
        self.failureResultOf(connecting, ConnectError)
        return [port for _, port in self.dialled[before:]]

    def test_the_nearest_member_is_dialled_first_and_then_the_next(self) -> None:
        endpoint = self.nearest()
        self.assertEqual(self.ports_of(endpoint), [8001, 8002, 8003])
        self.nodes.fail("b-near")
        self.run_for(4.0)
        self.assertEqual(self.ports_of(endpoint), [8002, 8003])

    def test_members_without_a_known_distance_come_last(self) -> None:
        endpoint = self.nearest()
        self.add("a-new", role="web", http="8004")
        self.patch(self.serf, "coordinate", self.no_coordinate_of("a-new"))
        self.assertEqual(self.ports_of(endpoint), [8001, 8002, 8003, 8004])

    def test_where_the_agent_cannot_say_the_distances_all_are_dialled_and_that_is_logged(self) -> None:
        log = Log(self)
        endpoint = self.nearest()
        self.patch(self.serf, "coordinate", self.no_coordinate_of("n1"))
        self.assertEqual(sorted(self.ports_of(endpoint)), [8001, 8002, 8003])
        reason = "get-coordinate: the agent has no coordinate of 'n1'"
        self.assertIn(f"the distances of members are not known: {reason}", log.texts)

    def test_while_the_agent_is_away_it_does_not_wait_for_it(self) -> None:
        endpoint = self.nearest()
        for name in ("n1", "n2"):
            self.nodes.fail(name)
        self.run_for(0.5)
        self.assertEqual(sorted(self.ports_of(endpoint)), [8001, 8002, 8003])

    def test_it_can_be_cancelled_while_it_asks_for_distances(self) -> None:
        endpoint = self.nearest()
        connecting = endpoint.connect(FACTORY)
        self.assertEqual(self.dialled, [])
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.run_for(1.0)
        self.assertEqual(self.dialled, [])

    def nearest(self) -> ServiceEndpoint:
        return ServiceEndpoint(self.ready(), port_tag="http", policy="nearest", role="web")

    def no_coordinate_of(self, unknown: str) -> Callable[..., Deferred[Coordinate | None]]:
        ask = self.serf.coordinate

        def coordinate(node: str) -> Deferred[Coordinate | None]:
            return succeed(None) if node == unknown else ask(node)

        return coordinate


class ArgumentTests(EndpointCase):
    def test_a_bad_argument_is_refused_at_once_by_its_name(self) -> None:
        view = self.view()
        refused: list[tuple[str, Any, dict[str, Any]]] = [
            ("view", self.serf, {"port": 80}),
            ("either port or port_tag", view, {}),
            ("either port or port_tag", view, {"port": 80, "port_tag": "http"}),
            ("port", view, {"port": 0}),
            ("port", view, {"port": 65536}),
            ("port", view, {"port": "80"}),
            ("port", view, {"port": True}),
            ("port_tag", view, {"port_tag": 80}),
            ("policy", view, {"port": 80, "policy": "fastest"}),
            ("policy", view, {"port": 80, "policy": None}),
            ("tags", view, {"port": 80, "tags": ["role"]}),
            ("'role'", view, {"port": 80, "role": 1}),
        ]
        for named, given, options in refused:
            error = self.assertRaises(InvalidRequest, ServiceEndpoint, given, **options)
            self.assertIn(f"ServiceEndpoint: {'tag ' * (named[0] == chr(39))}", str(error))
            self.assertIn(named, str(error))

    def test_its_repr_says_which_members_it_is_for(self) -> None:
        view = self.view()
        shown = repr(ServiceEndpoint(view, port=80, tags={"view": "a"}, role="web"))
        self.assertEqual(shown, "<ServiceEndpoint: view='a', role='web'>")
        self.assertEqual(repr(ServiceEndpoint(view, port=80)), "<ServiceEndpoint: any tags>")
