"""
Fetch a page from the members of a role, whichever are alive.

    python web_client.py ROLE PORT_TAG PATH [TIMES]
    python web_client.py web http /index.html 10

Each member with the tag ``role=ROLE`` has a web server at its gossip address, at the port in its tag PORT_TAG. The
requests go to these in turn. One that can't be reached is left out, and the next one is asked.

It needs treq, whose client takes any agent of Twisted's.
"""

from __future__ import annotations

import sys
from typing import Any

from treq.client import HTTPClient
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import react
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

import txserf


@implementer(IAgentEndpointFactory)
class Roles:
    """The endpoints of the URLs of an agent: the host of a URL is a role."""

    def __init__(self, view: txserf.ClusterView, port_tag: str) -> None:
        self._view = view
        self._port_tag = port_tag
        self._endpoints: dict[str, txserf.ServiceEndpoint] = {}

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        role = uri.host.decode("ascii")
        if role not in self._endpoints:  # kept, for it knows whose turn it is
            self._endpoints[role] = txserf.ServiceEndpoint(
                self._view, port_tag=self._port_tag, policy="round-robin", role=role
            )
        return self._endpoints[role]


async def main(reactor: Any, role: str, port_tag: str, path: str, times: str = "1") -> None:
    async with txserf.Serf() as serf:
        view = txserf.ClusterView(serf)
        client = HTTPClient(Agent.usingEndpointFactory(reactor, Roles(view, port_tag)))
        try:
            for _ in range(int(times)):
                response = await client.get(f"http://{role}{path}")
                print(response.code, (await response.text()).rstrip(), flush=True)
        except txserf.ConnectError as error:  # NoMember is one, too
            sys.exit(f"{role}: {error}")
        finally:
            await view.stopService()


if __name__ == "__main__":
    react(main, sys.argv[1:])
