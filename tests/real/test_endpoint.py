"""A `ServiceEndpoint` behind Twisted's web agent, with a web server for each member, some of which are killed."""

from __future__ import annotations

import re

import pytest
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.web.client import URI, Agent, readBody
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

import txserf
from tests import agents
from tests.real.helpers import fails, in_reactor, reactor
from tests.real.web_servers import WebServer


@implementer(IAgentEndpointFactory)
class Always:
    """Gives the same endpoint for each URL."""

    def __init__(self, endpoint: txserf.ServiceEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._endpoint


async def answers(client: Agent, times: int) -> list[str]:
    """Return the names of the members that answer one request after the other."""
    found = []
    for _ in range(times):
        response = await client.request(b"GET", b"http://web/")
        assert response.code == 200
        found.append((await readBody(response)).decode())
    return found


@pytest.mark.filterwarnings("ignore:Using readBody with a transport:DeprecationWarning")  # within Twisted
@in_reactor
async def test_requests_go_to_the_members_whose_servers_live(two_agents: list[agents.Agent]) -> None:
    near, far = two_agents
    servers = [WebServer(agent) for agent in two_agents]
    for server in servers:
        await server.advertise()
    async with txserf.Serf([near.rpc, far.rpc]) as serf:
        view = txserf.ClusterView(serf)
        endpoint = txserf.ServiceEndpoint(view, port_tag="http", policy="round-robin", role="web")
        client = Agent.usingEndpointFactory(reactor, Always(endpoint))
        await view.wait_for(2, role="web")
        assert await answers(client, 4) == ["n1", "n2", "n1", "n2"]

        # A server that is killed while its member lives costs no request.
        await servers[0].kill()
        assert await answers(client, 4) == ["n2"] * 4

        # So does a member that is killed with its server and its agent, to which the view is connected.
        servers[0] = WebServer(near)
        await servers[0].advertise()
        await view.wait_for(1, role="web", http=str(servers[0].port))
        await servers[0].kill()
        near.kill()
        assert await answers(client, 4) == ["n2"] * 4
        await view.wait_for(1, status="failed", role="web")
        assert await answers(client, 2) == ["n2"] * 2

        # None is left.
        await servers[1].kill()
        error = await fails(answers(client, 1), txserf.ConnectError)
        assert [label for label, _ in error.failures] == [f"n2 (127.0.0.1:{servers[1].port})"]
        await fails(txserf.ServiceEndpoint(view, port=80, role="db").connect(Factory()), txserf.NoMember)
        await view.stopService()


def printed_order(agent: agents.Agent, names: list[str]) -> list[str]:
    """Return the names in the order of ``serf rtt`` from an agent's own node; none while it does not know them all."""
    found = [re.search(r"rtt: ([0-9.]+) ms", agent.serf("rtt", name, check=False)) for name in names]
    by_name = {name: float(rtt[1]) for name, rtt in zip(names, found, strict=True) if rtt is not None}
    return sorted(by_name, key=by_name.__getitem__) if len(by_name) == len(names) else []


@pytest.mark.filterwarnings("ignore:Using readBody with a transport:DeprecationWarning")  # within Twisted
@in_reactor
async def test_the_nearest_policy_dials_in_the_order_of_serf_rtt() -> None:
    with agents.cluster(4) as (near, *others):
        names = [agent.name for agent in others]
        servers = {agent.name: WebServer(agent) for agent in others}
        for server in servers.values():
            await server.advertise()
        async with txserf.Serf(near.rpc) as serf:
            while True:  # the coordinates move with each probe; a view keeps those that it has read
                view = txserf.ClusterView(serf)
                await view.wait_for(3, role="web")
                before = await deferToThread(printed_order, near, names)
                order = [member.name for member, _ in await view.nearest(role="web")]
                if before and before == order == await deferToThread(printed_order, near, names):
                    break
                await view.stopService()
            endpoint = txserf.ServiceEndpoint(view, port_tag="http", policy="nearest", role="web")
            client = Agent.usingEndpointFactory(reactor, Always(endpoint))
            for name in order:  # the nearest one of those that live
                assert await answers(client, 2) == [name] * 2
                await servers[name].kill()
            error = await fails(answers(client, 1), txserf.ConnectError)
            assert [label.split()[0] for label, _ in error.failures] == order
            await view.stopService()
