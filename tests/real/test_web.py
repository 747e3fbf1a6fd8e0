"""The cluster over HTTP, on real agents and real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from tests.agents import Agent
from tests.real.conftest import Listen
from tests.real.helpers import Proxy, Watched, in_reactor, reactor, wait_for
from txserf import Serf
from txserf.service import webevents
from txserf.service.live import Live
from txserf.service.website import Site

TOKEN = "t0ken"


class Served:
    """A site, served on a port of 127.0.0.1."""

    def __init__(self, *hosts: str) -> None:
        self.serf = Serf(",".join(hosts))
        self.live = Live(self.serf)
        self.site = Site(self.live, token=TOKEN.encode)
        self._port: Any = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.port: int = self._port.getHost().port
        self.serf.startService()
        self.live.startService()

    async def ready(self) -> None:
        await self.live.view.when_ready()

    async def get(self, path: str, fields: object = None) -> tuple[int, Any]:
        """Get a path, or post an act to it; return the status and the JSON, or the text of another answer."""
        body = None if fields is None else json.dumps(fields).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"} if body else {}
        request = Request(f"http://localhost:{self.port}{path}", body, headers)

        def ask() -> tuple[int, Any]:
            try:
                with urlopen(request, timeout=20) as reply:
                    status, text, kind = reply.status, reply.read(), reply.headers["content-type"]
            except HTTPError as refusal:
                with refusal:
                    status, text, kind = refusal.code, refusal.read(), refusal.headers["content-type"]
            return status, json.loads(text) if kind == "application/json" else text.decode()

        return await deferToThread(ask)

    async def follow(self, path: str = "/events", reads: bool = True) -> Followed:
        reader: Followed = await connectProtocol(
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.port), Followed(path, reads)
        )
        if reads:
            await reader.until(lambda: reader.text.endswith(":\n\n\r\n"))
        return reader

    async def close(self) -> None:
        self.site.close()
        await self._port.stopListening()
        await self.live.stopService()
        await self.serf.close()


class Followed(Watched, Protocol):
    """A reader of server-sent events."""

    def __init__(self, path: str, reads: bool) -> None:
        super().__init__()
        self.text = ""
        self.lost = False
        self._path = path
        self._reads = reads

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        if not self._reads:
            transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.text += data.decode()
        self.changed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self.changed()

    async def sees(self, part: str) -> None:
        await self.until(lambda: part in self.text)

    async def end(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
        await self.until(lambda: self.lost)


@pytest.fixture
def serve(listen: Listen) -> Iterator[Any]:
    served: list[Served] = []

    def start(*hosts: str) -> Served:
        served.append(Served(*hosts))
        return served[-1]

    yield start
    for each in served:
        wait_for(Deferred.fromCoroutine(each.close()))


@in_reactor
async def test_what_happens_in_the_cluster_is_seen_by_all_readers(
    two_agents: list[Agent], serve: Any
) -> None:
    served = serve(two_agents[0].rpc)
    await served.ready()
    status, members = await served.get("/members")
    assert status == 200 and [member["name"] for member in members] == ["n1", "n2"]
    readers = [await served.follow() for _ in range(3)]
    two_agents[1].serf("event", "deploy", "v2")
    for reader in readers:
        await reader.sees('"name": "deploy", "payload": "v2"')
    two_agents[1].kill()
    for reader in readers:
        await reader.sees('{"type": "member-failed"')
    assert [member["name"] for member in (await served.get("/members?status=failed"))[1]] == ["n2"]
    assert len((await served.get("/sd?port=9100"))[1]) == 1
    for reader in readers:
        await reader.end()


@in_reactor
async def test_the_death_of_the_agent_is_seen_as_bad_health_and_then_as_a_gap(
    agent: Agent, serve: Any
) -> None:
    served = serve(agent.rpc)
    await served.ready()
    reader = await served.follow()
    assert (await served.get("/health"))[0] == 200
    agent.kill()
    while (answer := await served.get("/health"))[0] == 200:
        pass
    assert answer[0] == 503 and answer[1]["reason"].startswith("not connected")
    assert (await served.get("/members"))[0] == 200  # the last known ones
    agent.restart()
    await reader.sees("event: gap\ndata: {")
    await reader.end()
    assert (await served.get("/state"))[1]["gaps"] == 1


@in_reactor
async def test_actions_are_carried_out_by_the_agent(two_agents: list[Agent], serve: Any) -> None:
    served = serve(two_agents[0].rpc)
    await served.ready()
    async with Serf(two_agents[1].rpc) as far:
        seen: list[Any] = []
        events = far.stream("user,query")
        await events.when_active()

        def respond(event: Any) -> Any:
            seen.append(event)
            return event.respond(b"0.31") if event.type == "query" else None

        events.add_callback(respond)
        assert await served.get("/event", {"name": "deploy", "payload": "v2", "coalesce": False}) == (200, {})
        status, text = await served.get(
            "/query", {"name": "load", "nodes": ["n2"], "expect": "all", "timeout": 10}
        )
        assert status == 200 and '{"type": "answer", "node": "n2", "payload": "0.31"' in text
        assert '"responses": {"n2": "0.31"}, "complete": true' in text.partition("event: result\ndata: ")[2]
        assert [event.name for event in seen] == ["deploy", "load"]
    status, answer = await served.get("/event", {"name": "x", "payload": "x" * 1000})
    assert (status, "limit" in answer["error"]) == (502, True)
    reader = await served.follow()
    two_agents[1].kill()
    await reader.sees("member-failed")
    await reader.end()
    assert await served.get("/force-leave", {"node": "n2"}) == (200, {})


@in_reactor
async def test_a_reader_that_does_not_read_is_cut_off_and_others_miss_nothing(
    agent: Agent, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webevents, "WAITING_LIMIT", 10_000)
    served = serve(agent.rpc)
    await served.ready()
    fast, idle = await served.follow(), await served.follow(reads=False)
    for channel in served.site.channels:  # else the kernel would keep some megabytes for a reader
        channel.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sent = 0
    while (await served.get("/state"))[1]["cut_off"] == 0:
        await served.serf.event(f"e{sent}", b"x" * 400, coalesce=False)
        sent += 1
        await fast.sees(f'"name": "e{sent - 1}"')
    assert fast.text.count('"type": "user"') == sent
    assert (await served.get("/state"))[1]["readers"] == 1
    await idle.end()
    await fast.end()


@in_reactor
async def test_a_hundred_readers_cost_the_agent_nothing(agent: Agent, serve: Any, listen: Listen) -> None:
    proxy = Proxy(agent)
    served = serve(listen(proxy))
    await served.ready()
    assert (proxy.commands.count("stream"), proxy.commands.count("members")) == (1, 1)
    before = list(proxy.commands)
    readers = [await served.follow() for _ in range(100)]
    for _ in range(3):
        for path in ("/members", "/sd?port=1", "/state", "/health"):
            assert (await served.get(path))[0] == 200
    agent.serf("event", "deploy")
    for reader in readers:
        await reader.sees('"name": "deploy"')
        await reader.end()
    assert proxy.commands == before
