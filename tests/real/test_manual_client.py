"""
The examples of the predecessor's manual on real agents: the client.

They are those of the sections Basic Usage, disconnect, How To Request Command (Response,
timeout, Using callback, Streaming Response), Tips and Tricks, and Host URL, written with
Deferreds. `test_manual_commands` has the section Commands.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from urllib.parse import quote

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

import txserf
from tests.agents import Agent, cluster
from tests.real.conftest import Listen, NewClient
from tests.real.helpers import LIMIT, ScriptedServer, Seen, accepted, fails, in_reactor, reactor, round_trip
from txserf import constant
from txserf.client.requests import Response


@pytest.fixture
def dead(agent: Agent) -> str:
    """Kill an agent, and return its address."""
    agent.kill()
    return agent.rpc


# -- Basic Usage


@in_reactor
async def test_making_a_client_and_queueing_commands_connects_to_nothing(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    near = shared_cluster[0]
    before = accepted(near)
    idle = new_client(near.rpc).members().stats()
    await new_client(near.rpc).members().request()
    assert accepted(near) == before + 1
    assert "not trying" in repr(idle)


@in_reactor
async def test_connecting_by_hand(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    client = new_client(shared_cluster[0].rpc)
    connected = client.when_connected()
    assert client.connect() is client
    assert await connected is client
    assert (await client.members().request()).is_success


@in_reactor
async def test_a_second_connect_makes_no_second_connection(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    near = shared_cluster[0]
    before = accepted(near)
    client = new_client(near.rpc).connect().connect()
    await client.when_connected()
    await client.connect().members().request()
    assert accepted(near) == before + 1


@in_reactor
async def test_a_connection_serves_one_request_after_the_other(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    near = shared_cluster[0]
    before = accepted(near)
    client = new_client(near.rpc)
    assert [(await client.members().request())[0].seq for _ in range(3)] == [1, 2, 3]
    assert accepted(near) == before + 1


# -- disconnect


@in_reactor
async def test_disconnect_closes_now_and_queued_commands_are_not_sent(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    near = shared_cluster[0].rpc
    other, client, seen = new_client(near), new_client(near), Seen()
    watched = other.stream(Type="user").add_callback(seen).watch()
    await round_trip(other)
    client.event(Name="not-sent", Coalesce=False).disconnect()
    assert await client.request() == []
    await other.event(Name="sent", Coalesce=False).request()
    await seen.count(1)
    assert seen.names == ["sent"]
    other.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_a_disconnect_ends_requests_under_way_with_disconnected(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)
    await client.connect().when_connected()
    answer, watched = client.members().request(), client.stream().watch()
    client.disconnect()
    await fails(answer, txserf.Disconnected)
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_after_a_disconnect_the_next_request_connects_again(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)
    for _ in range(2):
        assert (await client.members().request()).is_success
        client.disconnect()
    assert (await client.members().request()).is_success


@in_reactor
async def test_giving_up_while_it_still_connects(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    client = new_client(shared_cluster[0].rpc)
    answer, connected = client.members().request(), client.when_connected()
    client.disconnect()
    await fails(answer, txserf.Disconnected)
    await fails(connected, txserf.Disconnected)


# -- How To Request Command


@in_reactor
async def test_nothing_reaches_the_agent_before_the_request(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client, seen = new_client(shared_cluster[0].rpc), Seen()
    watched = client.stream(Type="user:early,user:late").add_callback(seen).watch()
    await round_trip(client)
    client.event(Name="early", Coalesce=False)
    other = new_client(shared_cluster[0].rpc)
    await other.event(Name="late", Coalesce=False).request()
    await seen.count(1)
    await client.request()
    await seen.count(2)
    assert seen.names == ["late", "early"]
    client.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_responses_are_a_list_in_the_order_of_seq(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)
    responses = await client.members().stats().get_coordinate(Node="n1").request()
    assert isinstance(responses, list)
    assert [response.seq for response in responses] == [1, 2, 3]
    assert [response.request.command.wire for response in responses] == ["members", "stats", "get-coordinate"]
    assert responses.is_success


# -- Response


@in_reactor
async def test_a_response_has_its_attributes(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    first, second = await new_client(shared_cluster[0].rpc).members().stop(Stop=5).request()
    assert (first.seq, second.seq) == (1, 2)
    assert first.header == {"Error": "", "Seq": 1}
    assert list(first.body) == ["Members"]
    assert second.body is None
    assert (first.error, first.is_success) == ("", True)


@in_reactor
async def test_an_error_is_a_response_and_not_a_failure(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    responses = await new_client(shared_cluster[0].rpc).stream(Type="nonsense").members().request()
    refused, members = responses
    assert refused.error == "Invalid event filter"
    assert refused.header == {"Error": "Invalid event filter", "Seq": 1}
    assert not refused.is_success
    assert refused.body is None
    assert members.is_success
    assert not responses.is_success


# -- timeout


@in_reactor
async def test_past_its_timeout_a_request_fails_and_the_connection_stays_good(
    new_client: NewClient, agent: Agent
) -> None:
    client, seen = new_client(agent.rpc), Seen()
    await client.members().request()
    before = accepted(agent)
    agent.pause()
    error = await fails(client.members().add_callback(seen).request(timeout=0.1), txserf.RequestTimeout)
    assert error.responses == ()
    assert isinstance(error, TimeoutError)
    agent.resume()
    # The late reply comes before the reply to this request, and is dropped.
    (members,) = await client.members().request(timeout=LIMIT)
    assert members.seq == 3
    assert seen.responses == []
    assert accepted(agent) == before


@in_reactor
async def test_responses_that_came_in_time_are_in_the_error(
    new_client: NewClient, agent: Agent, listen: Listen
) -> None:
    silent = listen(ScriptedServer(lambda connection, data: None))
    late = new_client(agent.rpc).members().join(Existing=[silent]).stats().request(timeout=0.3)
    error = await fails(late, txserf.RequestTimeout)
    assert [response.request.command.wire for response in error.responses] == ["members"]
    assert "join, stats" in str(error)


@in_reactor
async def test_without_a_timeout_the_constant_counts(
    new_client: NewClient, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constant, "DEFAULT_TIMEOUT", 0.1)
    client = new_client(agent.rpc)
    await client.members().request(timeout=LIMIT)
    agent.pause()
    await fails(client.members().request(), txserf.RequestTimeout)
    agent.resume()


@in_reactor
async def test_a_request_that_is_cancelled_leaves_the_connection_good(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    near, seen = shared_cluster[0], Seen()
    client = new_client(near.rpc)
    await client.members().request()
    before = accepted(near)
    requests = [
        client.members().add_callback(seen).request(),
        client.stats().request(),
        client.query(Name="q", Timeout=timedelta(milliseconds=1)).add_callback(seen).request(),
        client.stream(Type="user").add_callback(seen).watch(),
    ]
    for request in requests:
        request.cancel()
        await fails(request, CancelledError)
    # The late replies come before the replies to these requests, and are dropped.
    await (
        client.event(Name="e", Coalesce=False).query(Name="q", Timeout=timedelta(milliseconds=100)).request()
    )
    assert seen.responses == []
    assert accepted(near) == before


# -- Using callback


@in_reactor
async def test_callbacks_are_called_in_order(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    called: list[tuple[str, int]] = []

    def note(name: str) -> Callable[[Response], None]:
        return lambda response: called.append((name, response.seq))

    client = new_client(shared_cluster[0].rpc)
    client.members().add_callback(note("one"), note("two"))
    client.stats().add_callback(note("three"))
    client.members().add_callback(note("four")).add_callback(note("five"))
    responses = await client.request()
    assert called == [("one", 1), ("two", 1), ("three", 2), ("four", 3), ("five", 3)]
    assert len(responses) == 3


@in_reactor
async def test_the_next_callback_waits_for_the_deferred_of_the_one_before(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    called: list[str] = []
    gate: Deferred[None] = Deferred()

    def first(response: Response) -> Deferred[None]:
        called.append("first begins")
        reactor.callLater(0, gate.callback, None)
        return gate.addCallback(lambda _: called.append("first ends"))

    async def second(response: Response) -> None:
        called.append("second begins")
        await deferLater(reactor, 0)
        called.append("second ends")

    client = new_client(shared_cluster[0].rpc)
    await client.members().add_callback(first, second, lambda _: called.append("third")).request()
    assert called == ["first begins", "first ends", "second begins", "second ends", "third"]


@in_reactor
async def test_a_callback_that_raises_fails_the_request_and_leaves_the_connection_good(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    near = shared_cluster[0]
    before = accepted(near)
    client, behind = new_client(near.rpc), Seen()

    def bad(response: Response) -> None:
        raise LookupError("mine")

    error = await fails(client.members().add_callback(bad, behind).request(), LookupError)
    assert str(error) == "mine"
    assert behind.responses == []
    assert (await client.members().request()).is_success
    assert accepted(near) == before + 1


@in_reactor
async def test_a_callback_may_request_by_the_same_client(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)
    found: list[int] = []

    async def count(response: Response) -> None:
        (members,) = await client.members().request()
        found.append(len(members.body["Members"]))

    await client.stats().add_callback(count).request()
    assert found == [2]


# -- Streaming Response


@pytest.mark.parametrize("how", ["watch()", "request(watch=True)"])
@in_reactor
async def test_a_watch_runs_until_the_stream_is_stopped(
    how: str, new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client, seen = new_client(shared_cluster[0].rpc), Seen()
    client.stream(Type="user:tick").add_callback(seen)
    watched = client.watch() if how == "watch()" else client.request(watch=True)
    await round_trip(client)
    for number in range(3):
        await client.event(Name="tick", Payload=str(number), Coalesce=False).request()
        await seen.count(number + 1)
    assert [record["Payload"] for record in seen.records] == [b"0", b"1", b"2"]
    assert not watched.called
    await client.stop(Stop=seen.responses[0].seq).request()
    (opening,) = await watched
    assert (
        repr(opening)
        == "<ResponseStream: <RequestStream: stream, 1, {'Type': 'user:tick'}>, {'Seq': 1, 'Error': ''}>"
    )
    assert opening.body is None


@in_reactor
async def test_a_watch_of_a_refused_command_fires_with_the_error(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    seen = Seen()
    client = new_client(shared_cluster[0].rpc)
    responses = await client.stream(Type="nonsense").add_callback(seen).watch()
    assert [response.error for response in responses] == ["Invalid event filter"]
    assert [response.is_success for response in seen.responses] == [False]


@in_reactor
async def test_a_watch_fails_with_the_error_of_a_callback(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client = new_client(shared_cluster[0].rpc)

    def callback(response: Response) -> None:
        if response.body is not None:
            raise ValueError(response.body["Name"])

    watched = client.stream(Type="user:boom").add_callback(callback).watch()
    await round_trip(client)
    await client.event(Name="boom", Coalesce=False).request()
    assert str(await fails(watched, ValueError)) == "boom"
    # The client has stopped the stream at the agent, and the connection is still good.
    assert (await client.members().request()).is_success


@in_reactor
async def test_a_stream_under_request_collects_until_the_timeout(
    new_client: NewClient, shared_cluster: list[Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constant, "DEFAULT_TIMEOUT", 0.3)
    client = new_client(shared_cluster[0].rpc)
    responses = await client.stream(Type="user:one").event(Name="one", Coalesce=False).request()
    assert [(type(response).__name__, response.seq) for response in responses] == [
        ("ResponseStreamResult", 1),
        ("ResponseEvent", 2),
    ]
    assert responses[0].body["Name"] == "one"
    assert responses.is_success


# -- Chaining Commands


@in_reactor
async def test_chained_commands_go_out_together(new_client: NewClient, shared_cluster: list[Agent]) -> None:
    near, far = shared_cluster
    client = new_client(near.rpc)
    members, join = await client.members().join(Existing=(far.bind,), Replay=True).request()
    assert len(members.body["Members"]) == 2
    assert join.body == {"Num": 1}


# -- Disconnect After Getting Response


@in_reactor
async def test_disconnect_with_wait_closes_after_the_answers(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    near, far = shared_cluster
    client = new_client(near.rpc)
    responses = await client.members().join(Existing=(far.bind,)).disconnect(wait=True).request()
    assert [type(response).__name__ for response in responses] == ["ResponseMembers", "ResponseJoin"]
    assert "not trying" in repr(client)


@in_reactor
async def test_disconnect_with_wait_closes_after_a_timeout_too(new_client: NewClient, agent: Agent) -> None:
    client = new_client(agent.rpc)
    await client.members().request()
    agent.pause()
    await fails(client.members().disconnect(wait=True).request(timeout=0.1), txserf.RequestTimeout)
    assert "not trying" in repr(client)
    agent.resume()


# -- Stop `watch`ing


@in_reactor
async def test_stop_receive_data_ends_a_watch_and_stops_the_stream(
    new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    client, seen, behind = new_client(shared_cluster[0].rpc), Seen(), Seen()

    def callback(response: Response) -> None:
        seen(response)
        if response.body is not None and response.body["Event"] == "query":
            raise txserf.StopReceiveData

    watched = client.stream(Type="*").add_callback(callback, behind).watch()
    await round_trip(client)
    await client.event(Name="before", Coalesce=False).request()
    await seen.until(lambda: "before" in seen.names)
    await client.query(Name="the-end", Timeout=timedelta(milliseconds=100)).request()
    responses = await watched
    assert [type(response).__name__ for response in responses] == ["ResponseStream"]
    assert seen.records[-1]["Event"] == "query"
    assert [record["Event"] for record in behind.records] == ["user"]
    # The old stream gets nothing any more. A new one gets the next event.
    count, later = len(seen.responses), Seen()
    watched = client.stream(Type="user").add_callback(later).watch()
    await client.event(Name="after", Coalesce=False).request()
    await later.count(1)
    assert len(seen.responses) == count
    await client.stop(Stop=later.responses[0].seq).request()
    await watched


# -- Use `with` Statement For One Time Request


@in_reactor
async def test_with_closes_once_all_requests_are_answered(shared_cluster: list[Agent]) -> None:
    with txserf.Client(",".join(agent.rpc for agent in shared_cluster)) as client:
        answer = client.members().request()
    (members,) = await answer
    assert len(members.body["Members"]) == 2
    await client.disconnect(wait=True).request()
    assert "not trying" in repr(client)


@in_reactor
async def test_async_with_waits_for_the_answers_too(shared_cluster: list[Agent]) -> None:
    async with txserf.Client(shared_cluster[0].rpc) as client:
        answer = client.members().request()
    assert answer.called
    assert "not trying" in repr(client)
    assert (await answer).is_success


@in_reactor
async def test_async_with_lets_an_error_of_the_block_through(shared_cluster: list[Agent]) -> None:
    with pytest.raises(LookupError):
        async with txserf.Client(shared_cluster[0].rpc) as client:
            await client.members().request()
            raise LookupError
    assert "not trying" in repr(client)


# -- Host URL


@in_reactor
async def test_the_first_host_that_answers_is_taken(
    dead: str, new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    near, far = shared_cluster
    (stats,) = await new_client(f"{dead},{far.rpc},{near.rpc}").stats().request()
    assert stats.body["agent"]["name"] == "n2"


@in_reactor
async def test_hosts_may_be_a_sequence_of_lists_and_hosts(
    dead: str, new_client: NewClient, shared_cluster: list[Agent]
) -> None:
    address, _, port = shared_cluster[1].rpc.partition(":")
    client = new_client([f"{dead},serf://{dead}", txserf.Host(address, int(port))])
    (stats,) = await client.stats().request()
    assert stats.body["agent"]["name"] == "n2"


@in_reactor
async def test_no_host_that_can_be_reached_is_an_error_that_names_them(
    dead: str, new_client: NewClient
) -> None:
    client = new_client(f"{dead},serf://{dead}?AuthKey=s3cret")
    connected = client.when_connected()
    error = await fails(client.members().request(), txserf.ConnectError)
    assert [host for host, _ in error.failures] == [dead, dead]
    assert dead in str(error) and "refused" in str(error)
    assert "s3cret" not in f"{error!s}{error!r}{client!r}"
    await fails(connected, txserf.ConnectError)


@in_reactor
async def test_after_no_host_could_be_reached_a_request_may_be_made_at_once(
    dead: str, new_client: NewClient
) -> None:
    client = new_client(dead)
    errors: list[str] = []
    for _ in range(3):
        error = await fails(client.members().request(), txserf.ConnectError)
        errors.append(str(error))
        connected = client.connect().when_connected()
        await fails(connected, txserf.ConnectError)
    assert len(errors) == 3


@in_reactor
async def test_a_key_of_the_url_is_used(new_client: NewClient, auth_agent: Agent) -> None:
    assert auth_agent.rpc_auth is not None
    client = new_client(f"serf://{auth_agent.rpc}?AuthKey={quote(auth_agent.rpc_auth, safe='')}")
    (members,) = await client.members().request()
    assert members.is_success
    assert members.seq == 2  # after handshake and auth


@in_reactor
async def test_without_hosts_the_environment_has_the_hosts_and_the_key(
    new_client: NewClient, auth_agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert auth_agent.rpc_auth is not None
    monkeypatch.setenv("SERF_RPC_ADDR", auth_agent.rpc)
    monkeypatch.setenv("SERF_RPC_AUTH", auth_agent.rpc_auth)
    assert (await new_client().members().request()).is_success


@in_reactor
async def test_a_host_with_a_key_of_its_own_does_not_take_the_one_of_the_environment(
    new_client: NewClient, auth_agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert auth_agent.rpc_auth is not None
    monkeypatch.setenv("SERF_RPC_AUTH", "another")
    client = new_client(f"serf://{auth_agent.rpc}?AuthKey={quote(auth_agent.rpc_auth, safe='')}")
    assert (await client.members().request()).is_success
    await fails(new_client(auth_agent.rpc).members().request(), txserf.AuthenticationError)


@in_reactor
async def test_hosts_with_different_keys_may_be_in_one_list(new_client: NewClient, auth_agent: Agent) -> None:
    assert auth_agent.rpc_auth is not None
    with cluster(1, rpc_auth="other key") as (other,):
        client = new_client(
            f"serf://{auth_agent.rpc}?AuthKey={quote(auth_agent.rpc_auth, safe='')},"
            f"serf://{other.rpc}?AuthKey=other%20key",
            auto_reconnect=True,
        )
        assert (await client.members().request()).is_success
        before = accepted(other)
        auth_agent.kill()
        (stats,) = await client.stats().request(timeout=LIMIT)
        assert stats.is_success
        assert accepted(other) > before


def test_a_host_that_is_not_understood_is_an_error_at_once() -> None:
    with pytest.raises(txserf.InvalidHostURL) as raised:
        txserf.Client("127.0.0.1:7373,http://127.0.0.1?AuthKey=s3cret")
    assert "http://127.0.0.1" in str(raised.value)
    assert "s3cret" not in str(raised.value)
