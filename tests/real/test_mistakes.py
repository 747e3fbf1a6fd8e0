"""The mistakes that the documentation lists: those that need a network."""

from __future__ import annotations

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from tests.agents import Agent
from tests.mistakes import MESSAGES
from tests.real.helpers import fails, in_reactor, reactor
from txserf.client.client import Client
from txserf.errors import ConnectError


async def message(host: str) -> str:
    """Return the text of the error that a request to that host fails with."""
    return str(await fails(Client(host).members().request(), ConnectError))


@in_reactor
async def test_no_agent() -> None:
    assert (await message("127.0.0.1:1")).replace("127.0.0.1:1", "127.0.0.1:7373") == MESSAGES[
        "No agent runs"
    ]


@in_reactor
async def test_the_port_of_gossip(agent: Agent) -> None:
    told = (await message(agent.bind)).replace(agent.bind, "127.0.0.1:7946")
    assert told == MESSAGES["The wrong port of an agent"]


class Web(Protocol):
    """Answers what is no HTTP as nginx does."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n")
        self.transport.loseConnection()


@in_reactor
async def test_an_http_server() -> None:
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Web))
    host = f"127.0.0.1:{port.getHost().port}"
    try:
        told = await message(host)
    finally:
        await port.stopListening()
    assert told.replace(host, "127.0.0.1:8500") == MESSAGES["The port of an HTTP server"]
