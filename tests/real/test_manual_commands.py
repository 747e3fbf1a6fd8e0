"""
The examples of the predecessor's manual on real agents: the section Commands.

The key commands, ``stats`` and ``get-coordinate`` are not in that manual; they come at the end.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

import txserf
from tests.agents import Agent, cluster
from tests.real.conftest import NewClient
from tests.real.helpers import LIMIT, Seen, fails, in_reactor, round_trip
from txserf import constant
from txserf.client.requests import Response

SOON = timedelta(milliseconds=300)


def by_name(response: Response) -> dict[str, dict[str, object]]:
    """Return the members of a response by name, because agents list them in any order."""
    return {member["Name"]: member for member in response.body["Members"]}


def key_of(agent: Agent) -> str:
    assert agent.rpc_auth is not None
    return agent.rpc_auth


# -- handshake


@in_reactor
async def test_handshake_by_hand_is_answered(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    responses = await new_client(shared_cluster[0].rpc).handshake().request()
    assert repr(responses) == (
        "[<ResponseHandshake: <RequestHandshake: handshake, 0, {'Version': 1}>, {'Seq': 0, 'Error': ''}>]"
    )
    assert responses[0].is_success


@in_reactor
async def test_handshake_happens_by_itself(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    (members,) = await new_client(shared_cluster[0].rpc).members().request()
    assert members.is_success
    assert members.seq == 1  # the handshake took 0


# -- auth


@in_reactor
async def test_auth_brings_its_handshake_along(new_client: NewClient, auth_agent: Agent) -> None:
    client = new_client(auth_agent.rpc)
    responses = await client.auth(AuthKey=key_of(auth_agent)).request()
    assert repr(responses) == (
        "[<ResponseHandshake: <RequestHandshake: handshake, 0, {'Version': 1}>, {'Seq': 0, 'Error': ''}>, "
        "<ResponseAuth: <RequestAuth: auth, 1, {'AuthKey': '***'}>, {'Seq': 1, 'Error': ''}>]"
    )
    assert responses[1].header == {"Error": "", "Seq": 1}
    assert responses[1].body is None
    assert (await client.members().request()).is_success


@in_reactor
async def test_auth_may_come_in_front_of_other_commands(new_client: NewClient, auth_agent: Agent) -> None:
    client = new_client(auth_agent.rpc)
    responses = await client.auth(AuthKey=key_of(auth_agent)).members().stats().request()
    assert [response.seq for response in responses] == [0, 1, 2, 3]
    assert responses.is_success


@in_reactor
async def test_a_refused_key_fails_the_request(new_client: NewClient, auth_agent: Agent) -> None:
    client = new_client(auth_agent.rpc)
    error = await fails(client.auth(AuthKey="bad-authkey").request(), txserf.AuthenticationError)
    assert auth_agent.rpc in str(error)
    assert "bad-authkey" not in f"{error!s} {error!r} {client!r}"
    # The refused key was only that request's. The next request may have another.
    assert (await client.auth(AuthKey=key_of(auth_agent)).members().request()).is_success


# -- event


@in_reactor
async def test_an_event_reaches_the_other_agents(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    near, far = (new_client(agent.rpc) for agent in shared_cluster)
    seen = Seen()
    far.stream(Type="user:deploy").add_callback(seen).watch().addErrback(
        lambda failure: failure.trap(txserf.Disconnected)
    )
    await round_trip(far)
    (response,) = await near.event(Name="deploy", Payload="this is payload", Coalesce=False).request()
    assert repr(response) == (
        "<ResponseEvent: <RequestEvent: event, 1, {'Name': 'deploy', 'Payload': b'this is payload', "
        "'Coalesce': False}>, {'Seq': 1, 'Error': ''}>"
    )
    assert (response.seq, response.error, response.body) == (1, "", None)
    assert response.header == {"Error": "", "Seq": 1}
    (record,) = await seen.count(1)
    assert record["LTime"] > 0
    del record["LTime"]
    assert record == {"Event": "user", "Name": "deploy", "Payload": b"this is payload", "Coalesce": False}


@in_reactor
async def test_payloads_are_any_bytes_or_text_as_utf_8(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)
    payloads: list[bytes | str] = [b"\x00\xff\xc1", "é", b""]
    client.stream(Type="user:bytes")
    for payload in payloads:
        client.event(Name="bytes", Payload=payload, Coalesce=False)
    responses = await client.request(timeout=0.4)
    received = [response.body["Payload"] for response in responses if response.seq == 1]
    assert [payload or b"" for payload in received] == [b"\x00\xff\xc1", "é".encode(), b""]


@in_reactor
async def test_the_payload_limit_is_checked_at_the_call_and_can_be_tuned(
    new_client: NewClient, shared_cluster: list[Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = new_client(shared_cluster[0].rpc)
    with pytest.raises(txserf.InvalidRequest, match="1025 bytes"):
        client.event(Name="big", Payload=b"x" * 1025)
    monkeypatch.setattr(constant, "PAYLOAD_SIZE_LIMIT", None)
    responses = await client.event(Name="big", Payload=b"x" * 1025).members().request()
    # The agent has a limit of its own.
    assert "exceeds configured limit of 512 bytes" in responses[0].error
    assert [response.is_success for response in responses] == [False, True]


# -- join


@in_reactor
async def test_join_makes_one_cluster_of_two(new_client: NewClient, agent: Agent) -> None:
    with cluster(1, node_name="other") as (other,):
        other_client = new_client(other.rpc)
        (response,) = await other_client.join(Existing=(agent.bind,)).request()
        assert repr(response) == (
            f"<ResponseJoin: <RequestJoin: join, 1, {{'Existing': ('{agent.bind}',), 'Replay': False}}>, "
            "{'Seq': 1, 'Error': ''}>"
        )
        assert (response.seq, response.error, response.body) == (1, "", {"Num": 1})
        assert response.is_success


@in_reactor
async def test_a_join_that_joins_nobody_is_no_success(new_client: NewClient, agent: Agent) -> None:
    client = new_client(agent.rpc)
    responses = await client.join(Existing=["127.0.0.1:1"]).join(Existing=[]).members().request()
    refused, nobody, _ = responses
    assert "Failed to join" in refused.error
    assert refused.body == nobody.body == {"Num": 0}
    assert nobody.error == ""
    assert [response.is_success for response in responses] == [False, False, True]
    assert not responses.is_success


# -- members


@in_reactor
async def test_members_as_the_agent_sends_them(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    (response,) = await new_client(shared_cluster[0].rpc).members().request()
    assert repr(response) == "<ResponseMembers: <RequestMembers: members, 1, {}>, {'Seq': 1, 'Error': ''}>"
    members = by_name(response)
    assert sorted(members) == ["n1", "n2"]
    assert members["n2"] == {
        "Name": "n2",
        "Addr": b"\x7f\x00\x00\x01",
        "Port": int(shared_cluster[1].bind.partition(":")[2]),
        "Tags": {"role": "db"},
        "Status": "alive",
        "ProtocolMin": 1,
        "ProtocolMax": 5,
        "ProtocolCur": 2,
        "DelegateMin": 2,
        "DelegateMax": 5,
        "DelegateCur": 5,
    } | {name: members["n1"][name] for name in ("ProtocolMin", "ProtocolMax", "ProtocolCur")}


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"Name": "n1"}, ["n1"]),
        ({"Name": "n[12]"}, ["n1", "n2"]),
        ({"Status": "alive"}, ["n1", "n2"]),
        ({"Status": "failed|left"}, []),
        ({"Tags": {"role": "web|cache"}}, ["n1"]),
        ({"Tags": {"role": "w.*"}, "Status": "alive"}, ["n1"]),
        ({"Tags": {"role": "web"}, "Name": "n2"}, []),
    ],
)
@in_reactor
async def test_filters_of_members_must_all_match(
    filters: dict[str, Any], found: list[str], new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    (response,) = await new_client(shared_cluster[0].rpc).members(**filters).request()
    assert sorted(by_name(response)) == found
    assert type(response).__name__ == "ResponseMembersFiltered"
    assert response.request.command.wire == "members-filtered"
    assert response.is_success


# -- tags


@in_reactor
async def test_tags_are_set_and_deleted(new_client: NewClient, agent: Agent) -> None:
    client = new_client(agent.rpc)
    assert (await client.tags(Tags={"critical": "1", "kept": "1"}).request()).is_success
    (response, members) = (
        await client.tags(Tags={"role": "dummy"}, DeleteTags=("critical", "unknown")).members().request()
    )
    assert repr(response) == (
        "<ResponseTags: <RequestTags: tags, 2, {'Tags': {'role': 'dummy'}, "
        "'DeleteTags': ('critical', 'unknown')}>, {'Seq': 2, 'Error': ''}>"
    )
    assert response.is_success
    assert by_name(members)["n1"]["Tags"] == {"kept": "1", "role": "dummy"}


@in_reactor
async def test_too_many_tags_are_an_error_of_the_agent(new_client: NewClient, agent: Agent) -> None:
    (response, _) = await new_client(agent.rpc).tags(Tags={"t": "x" * 600}).members().request()
    assert response.error == "Encoded length of tags exceeds limit of 512 bytes"


# -- stream


@in_reactor
async def test_a_stream_gives_its_callback_each_event(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client, seen = new_client(shared_cluster[0].rpc), Seen()
    watched = client.stream(Type="*").add_callback(seen).watch()
    await round_trip(client)
    await client.event(Name="test-event", Payload="test message", Coalesce=False).request()
    await seen.until(lambda: "test-event" in [record.get("Name") for record in seen.records])
    opening, result = seen.responses[0], seen.responses[-1]
    assert repr(opening) == (
        "<ResponseStream: <RequestStream: stream, 1, {'Type': '*'}>, {'Seq': 1, 'Error': ''}>"
    )
    assert repr(result) == (
        "<ResponseStreamResult: <RequestStream: stream, 1, {'Type': '*'}>, {'Seq': 1, 'Error': ''}>"
    )
    assert (result.seq, result.error, result.header) == (1, "", {"Error": "", "Seq": 1})
    assert result.body["Payload"] == b"test message"
    await client.stop(Stop=1).request()
    assert [type(response).__name__ for response in await watched] == ["ResponseStream"]


@in_reactor
async def test_a_stream_has_only_events_of_its_type(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)
    client.stream(Type="user:this,query")
    client.event(Name="other", Coalesce=False).event(Name="this", Coalesce=False)
    responses = await client.query(Name="asked", Timeout=timedelta(milliseconds=100)).request(timeout=0.5)
    records = [response.body for response in responses if response.seq == 1]
    assert sorted((record["Event"], record["Name"]) for record in records) == [
        ("query", "asked"),
        ("user", "this"),
    ]


@in_reactor
async def test_member_events_hold_whole_members(new_client: NewClient, agent: Agent) -> None:
    client, seen = new_client(agent.rpc), Seen()
    watched = client.stream(Type="member-update").add_callback(seen).watch()
    await client.tags(Tags={"role": "dummy"}).request()
    (record,) = await seen.count(1)  # comes after a second, because the agent coalesces member events
    assert record["Event"] == "member-update"
    assert by_name(seen.responses[-1])["n1"]["Tags"] == {"role": "dummy"}
    client.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_two_streams_of_one_client_are_told_apart(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client, one, two = new_client(shared_cluster[0].rpc), Seen(), Seen()
    client.stream(Type="user:one").add_callback(one)
    watched = client.stream(Type="user:two").add_callback(two).watch()
    await client.event(Name="one", Coalesce=False).event(Name="two", Coalesce=False).request()
    await one.count(1)
    await two.count(1)
    assert (one.names, two.names) == (["one"], ["two"])
    await client.stop(Stop=1).request()
    assert not watched.called
    await client.stop(Stop=2).request()
    assert [response.seq for response in await watched] == [1, 2]


# -- monitor


@in_reactor
async def test_monitor_under_request_gives_the_latest_log_messages(
    new_client: NewClient, agent: Agent
) -> None:
    seen = Seen()
    client = new_client(agent.rpc)
    responses = await client.monitor(LogLevel="DEBUG").add_callback(seen).request(timeout=0.2)
    assert {type(response).__name__ for response in responses} == {"ResponseStreamResult"}
    lines = [response.body["Log"] for response in responses]
    assert any("[INFO] agent: Serf agent starting" in line for line in lines)
    assert seen.openings == 1
    assert [record["Log"] for record in seen.records] == lines
    # The first monitor was stopped at the agent, so a second one may be opened.
    assert (await client.monitor(LogLevel="INFO").request(timeout=0.1)).is_success


@in_reactor
async def test_monitor_under_watch_goes_on_with_new_lines(new_client: NewClient, agent: Agent) -> None:
    client, seen = new_client(agent.rpc), Seen()
    watched = client.monitor(LogLevel="info").add_callback(seen).watch()
    await round_trip(client)  # after it, each line is a new one
    await new_client(agent.rpc).event(Name="new", Coalesce=False).request()
    await seen.until(lambda: any("user-event: new" in record["Log"] for record in seen.records))
    await client.stop(Stop=1).request()
    assert [type(response).__name__ for response in await watched] == ["ResponseMonitor"]


@in_reactor
async def test_a_second_monitor_of_the_connection_and_an_unknown_level_are_errors(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)
    watched = client.monitor(LogLevel="ERR").watch()
    (second,) = await client.monitor(LogLevel="ERR").request(timeout=0.1)
    assert second.error == "Monitor already exists"
    await client.stop(Stop=1).request()
    await watched
    (unknown,) = await client.monitor(LogLevel="warning").request(timeout=0.1)
    assert unknown.error == "Unknown log level: WARNING"


# -- stop


@in_reactor
async def test_stop_from_a_callback_ends_the_watch(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client, stopped = new_client(shared_cluster[0].rpc), Seen()

    def stop(response: Response) -> None:
        if response.body is not None:
            client.stop(Stop=response.seq).add_callback(stopped).request()

    watched = client.stream(Type="user:enough").add_callback(stop).watch()
    await round_trip(client)
    await client.event(Name="enough", Coalesce=False).request()
    assert [type(response).__name__ for response in await watched] == ["ResponseStream"]
    assert [response.is_success for response in stopped.responses] == [True]
    assert (await client.members().request()).is_success


@in_reactor
async def test_a_callback_may_wait_for_the_stop_of_its_own_stream(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)

    async def stop(response: Response) -> None:
        if response.body is not None:
            assert (await client.stop(Stop=response.seq).request()).is_success

    watched = client.stream(Type="user:enough").add_callback(stop).watch()
    await round_trip(client)
    await client.event(Name="enough", Coalesce=False).event(Name="enough", Coalesce=False).request()
    assert (await watched).is_success


# -- leave


@in_reactor
async def test_leave_makes_the_agent_leave_and_exit(new_client: NewClient, agent: Agent) -> None:
    client = new_client(agent.rpc)
    responses = await client.connect().leave().request(timeout=LIMIT)
    assert [repr(response) for response in responses] == [
        "<ResponseLeave: <RequestLeave: leave, 1, {}>, {'Seq': 1, 'Error': ''}>"
    ]
    assert agent.process is not None
    assert agent.process.wait(LIMIT) == 0


# -- force-leave


@in_reactor
async def test_force_leave_marks_a_failed_member_as_left(
    new_client: NewClient, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    far.kill()
    near.wait_for_member("n2", "failed")
    client = new_client(near.rpc)
    gone, members = await client.connect().force_leave(Node="n2").members().request(timeout=LIMIT)
    assert repr(gone) == (
        "<ResponseForceLeave: <RequestForceLeave: force-leave, 1, {'Node': 'n2', 'Prune': False}>, "
        "{'Seq': 1, 'Error': ''}>"
    )
    assert by_name(members)["n2"]["Status"] == "left"
    pruned, members = await client.force_leave(Node="n2", Prune=True).members().request(timeout=LIMIT)
    assert pruned.is_success
    assert sorted(by_name(members)) == ["n1"]


# -- query and respond


@pytest.fixture
def answering(new_client: NewClient, shared_cluster: list[Agent]) -> Iterator[Seen]:
    """A client of the second agent that answers queries named ``response-me``."""
    client, responded = new_client(shared_cluster[1].rpc), Seen()

    def respond(response: Response) -> None:
        if response.body is not None:
            client.respond(ID=response.body["ID"], Payload=b"this is payload", Timeout=10).add_callback(
                responded
            ).request()

    watched = client.stream(Type="query:response-me").add_callback(respond).watch()
    watched.addErrback(lambda failure: failure.trap(txserf.Disconnected))
    yield responded
    client.disconnect()


@in_reactor
async def test_a_query_waits_for_done_and_collects_all(
    answering: Seen, new_client: NewClient, shared_cluster: list[Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The default timeout does not apply to a request with a query, however long the query takes.
    monkeypatch.setattr(constant, "DEFAULT_TIMEOUT", 0.1)
    far = new_client(shared_cluster[1].rpc)
    await far.stop(Stop=1).request(timeout=LIMIT)
    client, seen = new_client(shared_cluster[0].rpc), Seen()
    client.query(Name="response-me", Payload="this is payload of the query", Timeout=SOON)
    responses = await client.add_callback(seen).request()
    assert responses.is_success
    bodies = [response.body for response in responses]
    assert bodies[-1] == {"From": "", "Payload": None, "Type": "done"}
    assert sorted((body["Type"], body["From"], body["Payload"]) for body in bodies[:-1]) == [
        ("ack", "n1", None),
        ("ack", "n2", None),
        ("response", "n2", b"this is payload"),
    ]
    assert seen.openings == 1
    assert seen.records == bodies
    assert {response.seq for response in responses} == {1}
    assert [response.error for response in answering.responses] == [""]


@in_reactor
async def test_respond_from_inside_a_stream_callback_and_wait_for_its_answer(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client, seen = new_client(shared_cluster[0].rpc), Seen()

    async def respond(response: Response) -> None:
        if response.body is not None:
            (responded,) = await client.respond(ID=response.body["ID"], Payload="é").request()
            seen(responded)
            raise txserf.StopReceiveData

    watched = client.stream(Type="query:inside").add_callback(respond).watch()
    await round_trip(client)
    responses = await client.query(Name="inside", RequestAck=False, Timeout=SOON).request()
    await watched
    assert [(response.body["Type"], response.body["Payload"]) for response in responses] == [
        ("response", "é".encode()),
        ("done", None),
    ]
    (responded,) = seen.responses
    assert repr(responded) == (
        f"<ResponseRespond: <RequestRespond: respond, {responded.seq}, {{'ID': 1, 'Payload': b'\\xc3\\xa9', "
        f"'Timeout': 0}}>, {{'Seq': {responded.seq}, 'Error': ''}}>"
    )


@in_reactor
async def test_a_query_asks_the_nodes_that_its_filters_name(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client, short = new_client(shared_cluster[0].rpc), timedelta(milliseconds=200)
    client.query(Name="q", FilterNodes=["n2"], Timeout=short)
    client.query(Name="q", FilterTags={"role": "web"}, Timeout=200_000_000)
    responses = await client.request()
    assert [(response.seq, response.body["Type"], response.body["From"]) for response in responses] == [
        (1, "ack", "n2"),
        (1, "done", ""),
        (2, "ack", "n1"),
        (2, "done", ""),
    ]


@in_reactor
async def test_a_query_may_have_a_timeout_of_the_request(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)
    error = await fails(
        client.query(Name="q", Timeout=timedelta(seconds=5)).request(timeout=0.2), txserf.RequestTimeout
    )
    assert sorted(response.body["From"] for response in error.responses) == ["n1", "n2"]
    assert (await client.members().request()).is_success


@in_reactor
async def test_a_query_that_is_refused_is_a_response_with_an_error(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)
    responses = await client.query(Name="big", Payload=b"x" * 2000).members().request()
    assert "query exceeds limit of 1024 bytes" in responses[0].error
    assert responses[1].is_success


@in_reactor
async def test_responding_to_an_unknown_query_is_an_error(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    (response,) = await new_client(shared_cluster[0].rpc).respond(ID=99, Payload="x").request()
    assert response.error == "No pending queries matching ID"


# -- beyond the manual: keys, stats, coordinates


@in_reactor
async def test_keys_are_installed_used_and_removed(
    new_client: NewClient, encrypted_agents: list[Agent]
) -> None:
    client = new_client(encrypted_agents[0].rpc)
    key = base64.b64encode(os.urandom(32)).decode()
    (listed,) = await client.list_keys().request(timeout=LIMIT)
    ((old, nodes),) = listed.body["Keys"].items()
    assert (nodes, listed.body["NumNodes"], listed.body["NumErr"], listed.body["NumResp"]) == (2, 2, 0, 2)
    install, use, remove, listed = await (
        client.install_key(Key=key).use_key(Key=key).remove_key(Key=old).list_keys().request(timeout=LIMIT)
    )
    assert repr(install) == (
        "<ResponseInstallKey: <RequestInstallKey: install-key, 2, {'Key': '***'}>, {'Seq': 2, 'Error': ''}>"
    )
    for response in (install, use, remove):
        assert response.body == {"Messages": {}, "Keys": None, "NumNodes": 2, "NumErr": 0, "NumResp": 2}
    assert listed.body["Keys"] == {key: 2}


@in_reactor
async def test_a_key_command_that_fails_has_an_error_and_a_body(
    new_client: NewClient, encrypted_agents: list[Agent]
) -> None:
    client = new_client(encrypted_agents[0].rpc)
    unknown = base64.b64encode(bytes(32)).decode()
    responses = await client.use_key(Key=unknown).use_key(Key="!").members().request(timeout=LIMIT)
    refused, invalid, members = responses
    assert refused.error == "2/2 nodes reported failure"
    assert refused.body["Messages"] == dict.fromkeys(["n1", "n2"], "Requested key is not in the keyring")
    assert invalid.error.startswith("illegal base64 data")
    assert invalid.body["NumNodes"] == 0
    assert members.is_success
    assert unknown not in repr(responses)


@in_reactor
async def test_stats_are_text_by_section(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    (stats,) = await new_client(shared_cluster[0].rpc).stats().request()
    assert stats.body["agent"] == {"name": "n1"}
    assert stats.body["tags"] == {"role": "web"}
    assert stats.body["serf"]["members"] == "2"


@in_reactor
async def test_coordinates_of_a_known_and_of_an_unknown_node(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    known, unknown = await (
        new_client(shared_cluster[0].rpc).get_coordinate(Node="n1").get_coordinate(Node="nobody").request()
    )
    assert known.body["Ok"] is True
    assert len(known.body["Coord"]["Vec"]) == 8
    assert {name for name in known.body["Coord"]} == {"Vec", "Error", "Adjustment", "Height"}
    assert (unknown.body["Ok"], unknown.body["Coord"]["Vec"]) == (False, None)
    assert unknown.is_success
