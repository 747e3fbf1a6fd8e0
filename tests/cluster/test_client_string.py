"""``clientFromString("serf:...")`` makes endpoints that share a view."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.endpoints import clientFromString
from twisted.internet.testing import MemoryReactorClock

from tests.cluster.endpoint_case import FACTORY, EndpointCase
from txserf.cluster import client_string
from txserf.cluster.client_string import endpoint_from_string
from txserf.cluster.endpoint import ServiceEndpoint
from txserf.cluster.view import ClusterView
from txserf.errors import Disconnected, InvalidHostURL, InvalidRequest
from txserf.serf.serf import Serf


def view_of(endpoint: Any) -> ClusterView:
    assert isinstance(endpoint, ServiceEndpoint)
    return endpoint._view


class ClientStringTests(EndpointCase):
    def from_string(self, description: str) -> Any:
        return clientFromString(self.clock, description)

    def hosts_are_of_the_cluster(self) -> None:
        """Have the views of descriptions ask the embedded agents, whatever hosts they name."""

        def new_serf(hosts: object, *, reactor: object) -> Serf:
            return self.new_serf("n1")

        self.patch(client_string, "Serf", new_serf)

    def shut_down(self) -> None:
        assert isinstance(self.clock, MemoryReactorClock)
        for trigger, args, kwargs in self.clock.triggers["before"]["shutdown"]:
            stopped = trigger(*args, **kwargs)
            self.run_for(0.5)
            self.successResultOf(stopped)

    def test_a_description_names_tags_and_a_port(self) -> None:
        self.hosts_are_of_the_cluster()
        self.nodes.add("w1", {"role": "web", "dc": "1"})
        endpoint = self.from_string("serf:role=web:dc=1:port=8080")
        self.assertEqual(repr(endpoint), "<ServiceEndpoint: role='web', dc='1'>")
        connecting = endpoint.connect(FACTORY)
        self.run_for(0.5)
        self.assertEqual(self.dialled, [("127.0.0.1", 8080)])
        self.accept(connecting)
        self.shut_down()

    def test_a_description_names_a_policy_an_agent_and_the_tag_of_the_port(self) -> None:
        self.hosts_are_of_the_cluster()
        for number in (1, 2):
            self.nodes.add(f"w{number}", {"role": "web", "http": f"800{number}"})
        endpoint = self.from_string(r"serf:role=web:portTag=http:policy=round-robin:agent=10.0.0.1\:7373")
        for _ in range(3):
            connecting = endpoint.connect(FACTORY)
            self.run_for(0.5)
            self.accept(connecting)
        self.assertEqual([port for _, port in self.dialled], [8001, 8002, 8001])
        self.shut_down()

    def test_the_agent_is_a_host_list(self) -> None:
        view = view_of(self.from_string("serf:port=80:agent=10.0.0.1,10.0.0.2"))
        self.assertEqual([host.label for host in view.serf.factory.hosts], ["10.0.0.1:7373", "10.0.0.2:7373"])

    def test_those_of_one_reactor_and_agent_share_a_view_and_others_have_their_own(self) -> None:
        views = [
            view_of(self.from_string("serf:port=80" + rest))
            for rest in ("", ":role=web", r":agent=127.0.0.1\:7373", ":agent=10.0.0.1", ":agent=10.0.0.2")
        ]
        self.assertIs(views[0], views[1])
        self.assertIs(views[0], views[2])
        self.assertEqual(len(set(views)), 3)
        other = view_of(endpoint_from_string(MemoryReactorClock(), port="80"))
        self.assertNotIn(other, views)

    def test_nothing_is_begun_before_the_first_connect(self) -> None:
        endpoint = self.from_string("serf:role=web:port=8080")
        self.run_for(1.0)
        self.assertFalse(view_of(endpoint).running or view_of(endpoint).serf.running)
        self.assertEqual(self.dialled, [])
        self.shut_down()

    def test_the_end_of_the_reactor_closes_view_and_connection(self) -> None:
        self.hosts_are_of_the_cluster()
        endpoint = self.from_string("serf:role=web:port=8080")
        endpoint.connect(FACTORY).addErrback(lambda _: None)
        self.run_for(0.5)
        view = view_of(endpoint)
        self.assertTrue(view.running and view.serf.running)
        self.shut_down()
        self.assertFalse(view.running or view.serf.running)
        self.failureResultOf(endpoint.connect(FACTORY), Disconnected)

    def test_it_keeps_no_reactor_alive(self) -> None:
        reactor = MemoryReactorClock()
        endpoint_from_string(reactor, port="80", role="web")
        gone = weakref.ref(reactor)
        del reactor
        gc.collect()
        self.assertIsNone(gone())

    def test_a_bad_description_is_refused_at_once(self) -> None:
        for description, named in [
            ("serf:web:port=80", "'web' has none"),
            ("serf:role=web", "either port or port_tag"),
            ("serf:port=80:portTag=http", "either port or port_tag"),
            ("serf:port=http", "from 1 to 65535, not 'http'"),
            ("serf:port=99999", "from 1 to 65535, not '99999'"),
            ("serf:port=80:policy=fastest", "policy"),
        ]:
            error = self.assertRaises(InvalidRequest, self.from_string, description)
            self.assertIn(named, str(error))
        error = self.assertRaises(InvalidHostURL, self.from_string, r"serf:port=80:agent=s3cret@10.0.0.1\:x")
        self.assertNotIn("s3cret", str(error))

    def test_a_tag_may_have_the_name_of_anything_of_python_or_of_the_parser(self) -> None:
        endpoint = self.from_string("serf:port=80:self=a:reactor=b:tags=c:view=d:more=e:port_tag=f")
        shown = "self='a', reactor='b', tags='c', view='d', more='e', port_tag='f'"
        self.assertEqual(repr(endpoint), f"<ServiceEndpoint: {shown}>")
