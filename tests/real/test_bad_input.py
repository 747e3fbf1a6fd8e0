"""Bad input: requests that make an agent close the connection, wrong keys, and servers that are not agents."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

import txserf
from tests.agents import Agent
from tests.real.conftest import Listen, NewClient
from tests.real.helpers import LIMIT, Proxy, Scripted, ScriptedServer, Seen, fails, in_reactor, round_trip
from txserf import wire

# -- filters that are not regular expressions: the agent closes the connection instead of answering


@pytest.mark.parametrize("reconnect", [False, True])
@pytest.mark.parametrize("filters", [{"Name": "("}, {"Status": "[z-a]"}, {"Tags": {"role": "a**"}}])
@in_reactor
async def test_a_bad_filter_fails_its_own_command_only(
    filters: dict[str, Any], reconnect: bool, new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    near = shared_cluster[0]
    client, seen = new_client(near.rpc, auto_reconnect=reconnect), Seen()
    watched = client.stream(Type="user").add_callback(seen).watch()
    await round_trip(client)
    client.members().event(Name="before", Coalesce=False)
    client.members(**filters)
    client.event(Name="behind", Coalesce=False).members(Name="n1")
    members, before, bad, behind, filtered = await client.request(timeout=LIMIT)
    assert "no regular expression" in bad.error
    assert not bad.is_success
    assert bad.header == {"Seq": bad.seq, "Error": bad.error}
    assert bad.body is None
    for response in (members, before, behind, filtered):
        assert response.is_success, response
    assert [member["Name"] for member in filtered.body["Members"]] == ["n1"]
    # The stream goes on, and each event was sent once.
    await client.event(Name="after", Coalesce=False).request()
    await seen.until(lambda: "after" in seen.names)
    assert seen.names == ["before", "behind", "after"]
    assert seen.openings == 1
    assert not watched.called
    client.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_a_bad_filter_alone_is_a_response_too(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    seen = Seen()
    client = new_client(shared_cluster[0].rpc)
    responses = await client.members(Name="(").add_callback(seen).request()
    assert [response.is_success for response in responses] == [False]
    assert seen.responses == responses
    assert not responses.is_success


@in_reactor
async def test_a_filter_that_only_looks_odd_is_answered(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    (response,) = await new_client(shared_cluster[0].rpc).members(Name="(?i)N[1]{1}").request()
    assert [member["Name"] for member in response.body["Members"]] == ["n1"]


# -- handshakes and keys


@in_reactor
async def test_a_second_handshake_is_answered_by_the_first(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)
    await client.members().request()
    responses = await client.handshake().members().handshake().request()
    assert [(response.seq, response.error) for response in responses] == [(0, ""), (0, ""), (2, "")]


@in_reactor
async def test_a_key_for_an_agent_that_needs_none_is_refused(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(f"serf://{shared_cluster[0].rpc}?AuthKey=s3cret")
    error = await fails(client.members().request(), txserf.AuthenticationError)
    assert "Invalid authentication token" in str(error)
    assert error.host == shared_cluster[0].rpc


@in_reactor
async def test_a_host_that_refuses_its_key_is_left_for_another(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    near, far = shared_cluster
    client = new_client(f"serf://{near.rpc}?AuthKey=s3cret,{far.rpc}")
    (stats,) = await client.stats().request()
    assert stats.body["agent"]["name"] == "n2"


@in_reactor
async def test_no_host_is_tried_again_after_all_have_refused(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    near, far = shared_cluster
    client = new_client(
        f"serf://{near.rpc}?AuthKey=s3cret,serf://{far.rpc}?AuthKey=s3cret", auto_reconnect=True
    )
    connected = client.connect().when_connected()
    await fails(client.members().request(), txserf.AuthenticationError)
    await fails(connected, txserf.AuthenticationError)
    assert "not trying" in repr(client)


@pytest.mark.parametrize("reconnect", [False, True])
@in_reactor
async def test_a_request_without_the_key_that_the_agent_needs_fails(
    reconnect: bool, new_client: NewClient, auth_agent: Agent
) -> None:
    client = new_client(auth_agent.rpc, auto_reconnect=reconnect)
    request = client.members().event(Name="e").join(Existing=["127.0.0.1:1"]).query(Name="q").request()
    await fails(request, txserf.AuthenticationError)
    watched = client.stream().watch()
    await fails(watched, txserf.AuthenticationError)
    assert (await client.auth(AuthKey=auth_agent.rpc_auth or "").members().request()).is_success


@pytest.mark.parametrize("reconnect", [False, True])
@in_reactor
async def test_without_its_key_a_filter_that_may_not_compile_fails_like_other_commands(
    reconnect: bool, new_client: NewClient, auth_agent: Agent
) -> None:
    client = new_client(auth_agent.rpc, auto_reconnect=reconnect)
    await fails(client.members(Name="n[0-9]").request(timeout=LIMIT), txserf.AuthenticationError)
    assert (await client.auth(AuthKey=auth_agent.rpc_auth or "").members(Name="n[0-9]").request()).is_success


@in_reactor
async def test_after_a_refused_key_the_next_key_is_accepted_on_the_open_connection(
    new_client: NewClient, auth_agent: Agent
) -> None:
    client = await new_client(auth_agent.rpc).connect().when_connected()
    refused = client.auth(AuthKey="wrong").event(Name="never").members().request()
    await fails(refused, txserf.AuthenticationError)
    accepted = await client.auth(AuthKey=auth_agent.rpc_auth or "").event(Name="x").members().request()
    assert [type(response).__name__ for response in accepted] == [
        "ResponseHandshake",
        "ResponseAuth",
        "ResponseEvent",
        "ResponseMembers",
    ]
    assert accepted.is_success


@in_reactor
async def test_commands_refused_for_lack_of_a_key_are_run_once_by_another_host(
    new_client: NewClient, auth_agent: Agent, agent: Agent
) -> None:
    seen = Seen()
    watching = new_client(agent.rpc)
    watched = watching.stream(Type="user").add_callback(seen).watch()
    await round_trip(watching)
    client = new_client(f"{auth_agent.rpc},{agent.rpc}")
    request = client.event(Name="one", Coalesce=False).members().event(Name="two", Coalesce=False)
    assert (await request.request(timeout=LIMIT)).is_success
    await client.event(Name="end", Coalesce=False).request()
    await seen.until(lambda: "end" in seen.names)
    assert seen.names == ["one", "two", "end"]
    watching.disconnect()
    await fails(watched, txserf.Disconnected)


# -- servers that are not agents

HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request"
#: The alert of a TLS server for a client that does not use TLS.
TLS = bytes.fromhex("15030300020246")
SSH = b"SSH-2.0-OpenSSH_9.2p1\r\n"
RANDOM = random.Random(1).randbytes(4096)
#: Valid MessagePack objects, none of them a header.
OBJECTS = b"".join(wire.pack(value) for value in (7, "text", [1, 2], {"Seq": 0}, None))
#: A header with an Error that is not text.
ODD_HEADER = wire.pack({"Seq": 0, "Error": 3})


@pytest.mark.parametrize(
    "answer",
    [HTTP, TLS, SSH, RANDOM, OBJECTS, ODD_HEADER, b""],
    ids=["HTTP", "TLS", "SSH", "random bytes", "MessagePack objects", "odd header", "closed at once"],
)
@in_reactor
async def test_a_server_that_is_not_an_agent_fails_and_another_host_is_used(
    answer: bytes, new_client: NewClient, shared_cluster: list[Agent], listen: Listen
) -> None:
    def heard(connection: Scripted, data: bytes) -> None:
        connection.say(answer)
        connection.hang_up()

    server = ScriptedServer(heard)
    address = listen(server)
    error = await fails(new_client(address).members().request(timeout=LIMIT), txserf.ConnectError)
    ((host, reason),) = error.failures
    assert host == address
    assert isinstance(reason, txserf.ProtocolError if answer else txserf.ConnectionLost)
    client = new_client(f"{address},{shared_cluster[0].rpc}")
    assert (await client.members().request(timeout=LIMIT)).is_success


@in_reactor
async def test_random_bytes_in_any_amount_never_hang_a_client(new_client: NewClient, listen: Listen) -> None:
    dice = random.Random(3)

    def heard(connection: Scripted, data: bytes) -> None:
        connection.say(dice.randbytes(dice.randrange(1, 60)))
        connection.hang_up()

    client = new_client(listen(ScriptedServer(heard)))
    for _ in range(50):
        error = await fails(client.members().request(timeout=LIMIT), txserf.ConnectError)
        assert isinstance(error.failures[0][1], txserf.ProtocolError | txserf.ConnectionLost)


def agent_like(server_says: Callable[[Scripted, int], object]) -> Callable[[Scripted, bytes], None]:
    """Make the behaviour of a server that answers handshakes, and passes the Seq of every other request to a function."""

    unpackers: dict[Scripted, wire.Unpacker] = {}

    def heard(connection: Scripted, data: bytes) -> None:
        for value in unpackers.setdefault(connection, wire.Unpacker()).feed(data):
            if value.get("Command") == "handshake":
                connection.say(wire.pack({"Error": "", "Seq": value["Seq"]}))
            elif "Command" in value:
                server_says(connection, value["Seq"])

    return heard


@in_reactor
async def test_a_reply_for_a_seq_that_nobody_sent_is_dropped(new_client: NewClient, listen: Listen) -> None:
    def says(connection: Scripted, seq: int) -> None:
        connection.say(wire.pack({"Error": "", "Seq": 4711}))
        connection.say(wire.pack({"Error": "", "Seq": seq}) + wire.pack({"Members": []}))

    server = ScriptedServer(agent_like(says))
    client = new_client(listen(server))
    for _ in range(2):
        (response,) = await client.members().request()
        assert response.body == {"Members": []}
    assert len(server.connections) == 1


@in_reactor
async def test_replies_in_another_order_reach_their_own_requests(
    new_client: NewClient, listen: Listen
) -> None:
    waiting: list[int] = []

    def says(connection: Scripted, seq: int) -> None:
        waiting.append(seq)
        if len(waiting) == 3:
            for each in reversed(waiting):
                reply = wire.pack({"Error": "", "Seq": each}) + wire.pack({"Members": [{"Name": f"n{each}"}]})
                for index in range(len(reply)):
                    connection.say(reply[index : index + 1])

    responses = (
        await new_client(listen(ScriptedServer(agent_like(says)))).members().members().members().request()
    )
    assert [response.seq for response in responses] == [1, 2, 3]
    assert [response.body["Members"][0]["Name"] for response in responses] == ["n1", "n2", "n3"]


@in_reactor
async def test_garbage_from_an_agent_fails_the_requests_under_way(
    new_client: NewClient, listen: Listen
) -> None:
    client = new_client(listen(ScriptedServer(agent_like(lambda connection, seq: connection.say(HTTP)))))
    watched = client.stream().watch()
    await fails(client.members().request(timeout=LIMIT), txserf.ProtocolError)
    await fails(watched, txserf.ProtocolError)


@in_reactor
async def test_an_agent_that_hangs_up_without_an_answer_is_not_asked_for_ever(
    new_client: NewClient, listen: Listen
) -> None:
    asked: list[int] = []

    def says(connection: Scripted, seq: int) -> None:
        asked.append(seq)
        connection.hang_up()

    client = new_client(listen(ScriptedServer(agent_like(says))), auto_reconnect=True)
    await fails(client.event(Name="once").request(timeout=LIMIT), txserf.ConnectionLost)
    assert len(asked) == 1
    await fails(client.members().request(timeout=3), txserf.RequestTimeout)
    assert 2 <= len(asked) < 20  # the waits between them grow


# -- hosts that stay silent


@in_reactor
async def test_a_host_that_accepts_and_stays_silent_has_failed_after_a_while(
    new_client: NewClient, shared_cluster: list[Agent], listen: Listen
) -> None:
    server = ScriptedServer(lambda connection, data: None)
    silent = listen(server)
    error = await fails(
        new_client(silent, connect_timeout=0.1).members().request(timeout=LIMIT), txserf.ConnectError
    )
    assert "no answer to the handshake within 0.1 s" in str(error)
    client = new_client(f"{silent},{shared_cluster[0].rpc}", connect_timeout=0.1)
    assert (await client.members().request(timeout=LIMIT)).is_success
    assert server.connections == []


@in_reactor
async def test_a_request_that_waits_for_a_silent_host_has_its_own_timeout(
    new_client: NewClient, listen: Listen
) -> None:
    client = new_client(listen(ScriptedServer(lambda connection, data: None)))
    error = await fails(client.members().request(timeout=0.1), txserf.RequestTimeout)
    assert error.responses == ()


@in_reactor
async def test_a_stopped_agent_is_found_by_the_heartbeat(
    new_client: NewClient, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    seen = Seen()
    client = new_client(f"{near.rpc},{far.rpc}", auto_reconnect=True, heartbeat=0.1, connect_timeout=0.2)
    watched = client.stream(Type="user:beat").add_callback(seen).watch()
    await round_trip(client)
    near.pause()
    await seen.opened(2)
    await round_trip(client)
    await client.event(Name="beat", Coalesce=False).request()
    await seen.count(1)
    assert not watched.called
    near.resume()
    client.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_a_heartbeat_keeps_an_idle_connection_that_is_good(
    new_client: NewClient, shared_cluster: list[Agent], listen: Listen
) -> None:
    proxy = Proxy(shared_cluster[0])
    client = new_client(listen(proxy), heartbeat=0.05)
    watched = client.stream(Type="user:none").watch()
    await proxy.until(lambda: proxy.commands.count("stop") == 5)
    assert not watched.called
    assert len(proxy.connections) == 1
    assert proxy.commands == ["handshake", "stream", *["stop"] * 5]
    client.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_without_a_heartbeat_nothing_is_sent(
    new_client: NewClient, shared_cluster: list[Agent], listen: Listen
) -> None:
    quiet, checked = Proxy(shared_cluster[0]), Proxy(shared_cluster[0])
    for proxy, heartbeat in ((quiet, None), (checked, 0.05)):
        await new_client(listen(proxy), heartbeat=heartbeat).members().request()
    await checked.until(lambda: checked.commands.count("stop") == 2)
    assert quiet.commands == ["handshake", "members"]
