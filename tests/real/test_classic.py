"""`SerfClientFactory` with ``reactor.connectTCP`` and by itself, and endpoints as hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.endpoints import (
    HostnameEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    clientFromString,
)

import txserf
from tests.agents import Agent
from tests.real.conftest import Listen, NewClient
from tests.real.helpers import (
    LIMIT,
    Proxy,
    ScriptedServer,
    Seen,
    accepted,
    fails,
    in_reactor,
    reactor,
    round_trip,
    wait_for,
)
from txserf.connection.factory import SerfClientFactory


class Classic:
    """The factories of a test, which are disconnected after it."""

    def __init__(self) -> None:
        self._factories: list[SerfClientFactory] = []

    def owned(self, factory: SerfClientFactory) -> SerfClientFactory:
        self._factories.append(factory)
        return factory

    def connect(self, address: str, factory: SerfClientFactory) -> SerfClientFactory:
        host, _, port = address.partition(":")
        reactor.connectTCP(host, int(port), self.owned(factory))
        return factory

    def close(self) -> None:
        for factory in self._factories:
            wait_for(factory.disconnect())


@pytest.fixture
def classic(nothing_is_left: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Classic]:
    monkeypatch.setattr(SerfClientFactory, "maxDelay", 0.2)
    used = Classic()
    yield used
    used.close()


# -- reactor.connectTCP


@in_reactor
async def test_connect_tcp_with_the_factory(classic: Classic, shared_cluster: list[Agent]) -> None:
    factory = classic.connect(shared_cluster[1].rpc, SerfClientFactory())
    protocol = await factory.when_connected()
    assert isinstance(protocol, txserf.SerfProtocol)
    reply = await protocol.call("stats")
    assert (reply.seq, reply.error) == (1, "")
    assert reply.body is not None and reply.body["agent"]["name"] == "n2"
    assert (await factory.when_connected()) is protocol


@in_reactor
async def test_commands_are_checked_at_the_call(classic: Classic, shared_cluster: list[Agent]) -> None:
    protocol = await classic.connect(shared_cluster[0].rpc, SerfClientFactory()).when_connected()
    with pytest.raises(txserf.InvalidRequest):
        protocol.call("event", {"Name": 7})
    with pytest.raises(txserf.InvalidRequest):
        protocol.call("no-such-command")
    reply = await protocol.call(
        "event", {"Name": "classic", "Payload": b"x", "Coalesce": False}, timeout=LIMIT
    )
    assert reply.error == ""


@in_reactor
async def test_records_of_a_stream_go_to_a_function(classic: Classic, shared_cluster: list[Agent]) -> None:
    protocol = await classic.connect(shared_cluster[0].rpc, SerfClientFactory()).when_connected()
    records: list[Any] = []
    await protocol.call("stream", {"Type": "user:classic"}, on_record=records.append)
    await protocol.call("stop", {"Stop": 99})
    await protocol.call("event", {"Name": "classic", "Coalesce": False})
    while not records:
        await protocol.call("members")
    assert records[0]["Name"] == "classic"


@in_reactor
async def test_a_connector_reconnects_to_an_agent_that_was_killed_and_restarted(
    classic: Classic, agent: Agent
) -> None:
    factory = classic.connect(agent.rpc, SerfClientFactory())
    for _ in range(3):
        protocol = await factory.when_connected()
        waiting = protocol.call("query", {"Name": "q", "Timeout": 20 * 10**9})
        await waiting
        agent.kill()
        # This call can't be answered any more, so it fails once the loss is noticed.
        await fails(protocol.call("members"), txserf.ConnectionLost)
        again = factory.when_connected()
        agent.start()
        assert (await (await again).call("members")).error == ""


@in_reactor
async def test_a_connector_waits_for_an_agent_that_is_not_up_yet(classic: Classic, agent: Agent) -> None:
    agent.kill()
    factory = classic.connect(agent.rpc, SerfClientFactory())
    connected = factory.when_connected()
    agent.start()
    assert (await (await connected).call("members")).error == ""


@in_reactor
async def test_a_connector_uses_the_key_of_the_first_host(classic: Classic, auth_agent: Agent) -> None:
    url = f"serf://unused?AuthKey={quote(auth_agent.rpc_auth or '', safe='')}"
    protocol = await classic.connect(auth_agent.rpc, SerfClientFactory(url)).when_connected()
    assert (await protocol.call("members")).seq == 2


@in_reactor
async def test_a_connector_does_not_try_a_refused_key_again(classic: Classic, auth_agent: Agent) -> None:
    before = accepted(auth_agent)
    factory = classic.connect(auth_agent.rpc, SerfClientFactory("serf://unused?AuthKey=wrong"))
    error = await fails(factory.when_connected(), txserf.AuthenticationError)
    assert auth_agent.rpc in str(error)
    assert accepted(auth_agent) == before + 1


@in_reactor
async def test_stop_trying_ends_it(classic: Classic, agent: Agent) -> None:
    agent.kill()
    factory = classic.connect(agent.rpc, SerfClientFactory())
    connected = factory.when_connected()
    factory.stopTrying()
    await fails(connected, txserf.Disconnected)


@in_reactor
async def test_a_connector_gives_up_on_an_agent_that_stays_silent(classic: Classic, listen: Listen) -> None:
    factory = SerfClientFactory(connect_timeout=0.1)
    factory.maxRetries = 1  # type: ignore[assignment]  # Twisted's own is None
    classic.connect(listen(ScriptedServer(lambda connection, data: None)), factory)
    error = await fails(factory.when_connected(), txserf.ConnectError)
    assert "no answer to the handshake" in str(error)


@in_reactor
async def test_the_factory_dials_its_own_hosts_once_it_is_started(
    classic: Classic, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    factory = classic.owned(SerfClientFactory([near.rpc, far.rpc]))
    factory.start()
    protocol = await factory.when_connected()
    near.kill()
    await fails(protocol.call("members"), txserf.ConnectionLost)
    reply = await (await factory.when_connected()).call("stats")
    assert reply.body is not None and reply.body["agent"]["name"] == "n2"


# -- endpoints as hosts


@in_reactor
async def test_a_hostname_endpoint_is_a_host(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    host, _, port = shared_cluster[0].rpc.partition(":")
    client = new_client(HostnameEndpoint(reactor, host, int(port)))
    assert (await client.members().request()).is_success
    assert repr(client).startswith(f"<Client: tcp:{host}:{port}, ")


@in_reactor
async def test_a_host_name_is_looked_up(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    port = shared_cluster[0].rpc.partition(":")[2]
    assert (await new_client(f"localhost:{port}").members().request(timeout=LIMIT)).is_success


@in_reactor
async def test_a_unix_socket_in_front_of_an_agent_is_a_host(
    new_client: NewClient, shared_cluster: list[Agent], listen: Listen, tmp_path: Path
) -> None:
    path = str(tmp_path / "serf.sock")
    listen(Proxy(shared_cluster[0]), UNIXServerEndpoint(reactor, path))
    client, seen = new_client([UNIXClientEndpoint(reactor, path)]), Seen()
    watched = client.stream(Type="user:unix").add_callback(seen).watch()
    members, _ = await client.members(Name="n[1]").event(Name="unix", Coalesce=False).request()
    assert len(members.body["Members"]) == 1
    await seen.count(1)
    client.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_an_endpoint_from_a_string_may_have_its_own_key(
    new_client: NewClient, auth_agent: Agent
) -> None:
    port = auth_agent.rpc.partition(":")[2]
    endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{port}")
    host = txserf.Host(endpoint=endpoint, auth_key=auth_agent.rpc_auth)
    assert (await new_client(host).members().request()).is_success


@in_reactor
async def test_endpoints_and_addresses_may_be_in_one_list(
    new_client: NewClient, two_agents: list[Agent], listen: Listen, tmp_path: Path
) -> None:
    near, far = two_agents
    path, seen = str(tmp_path / "serf.sock"), Seen()
    proxy = Proxy(near)
    listen(proxy, UNIXServerEndpoint(reactor, path))
    client = new_client([UNIXClientEndpoint(reactor, path), far.rpc], auto_reconnect=True)
    watched = client.stream(Type="user").add_callback(seen).watch()
    await round_trip(client)
    proxy.cut()
    await seen.opened(2)
    (stats,) = await client.stats().request()
    assert stats.body["agent"]["name"] == "n2"
    client.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_an_endpoint_that_never_connects_has_failed_after_a_while(
    new_client: NewClient, shared_cluster: list[Agent], tmp_path: Path
) -> None:
    missing = UNIXClientEndpoint(reactor, str(tmp_path / "nothing.sock"))
    client = new_client([missing, shared_cluster[0].rpc])
    assert (await client.members().request()).is_success
    error = await fails(new_client(missing).members().request(), txserf.ConnectError)
    assert error.failures[0][0] == f"unix:{tmp_path}/nothing.sock"
