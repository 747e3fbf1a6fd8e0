"""
Fetch a page from the members of a role, whichever are alive.

    python web_client.py ROLE PORT_TAG PATH [TIMES]
    python web_client.py web http /index.html 10

Each member with the tag ``role=ROLE`` has a web server at its gossip address, at the port in its tag PORT_TAG. The
requests go to these in turn. One that can't be reached is left out, and the next one is asked.

With treq it is the same agent: ``treq.client.HTTPClient(agent).get("http://web/index.html")``.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import react
from twisted.web.client import URI, Agent, readBody
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

import txserf

# Twisted gives each reader of a body such a transport.
warnings.filterwarnings("ignore", "Using readBody with a transport that does not have an abortConnection")


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
        agent = Agent.usingEndpointFactory(reactor, Roles(view, port_tag))
        try:
            for _ in range(int(times)):
                response = await agent.request(b"GET", f"http://{role}{path}".encode("ascii"))
                body = await readBody(response)
                print(response.code, body.decode("utf-8", "replace").rstrip(), flush=True)
        except txserf.ConnectError as error:  # NoMember is one, too
            sys.exit(f"{role}: {error}")
        finally:
            await view.stopService()


if __name__ == "__main__":
    react(main, sys.argv[1:])
