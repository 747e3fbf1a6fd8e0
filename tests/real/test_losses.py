"""Requests and streams of a `Client` when its agent, or the connection to it, is lost."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred, DeferredList

import txserf
from tests.agents import Agent
from tests.real.conftest import Listen, NewClient
from tests.real.helpers import LIMIT, UNUSED, Proxy, Seen, fails, in_reactor, round_trip
from txserf.client.requests import Response, Responses
from txserf.connection.factory import SerfClientFactory


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the wait between two rounds over the hosts, because some tests kill agents again and again."""
    monkeypatch.setattr(SerfClientFactory, "maxDelay", 0.2)


async def tally(results: list[Deferred[Responses]]) -> Counter[str]:
    """Wait for all results, and count the successes and the errors by class."""
    outcomes: Any = await DeferredList(results, consumeErrors=True)
    return Counter("success" if good else type(failure.value).__name__ for good, failure in outcomes)


def count_firings(result: Deferred[Responses], firings: list[int]) -> Deferred[Responses]:
    """Add an item to *firings* when a Deferred fires. If it fires twice, the log has an AlreadyCalledError."""

    def fired(value: object) -> object:
        firings.append(1)
        return value

    result.addBoth(fired)
    return result


# -- a watch


@in_reactor
async def test_without_auto_reconnect_a_watch_fails_and_the_next_request_starts_afresh(
    new_client: NewClient, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    seen = Seen()
    client = new_client(f"{near.rpc},{far.rpc}")
    watched = client.stream().add_callback(seen).watch()
    await round_trip(client)
    near.kill()
    error = await fails(watched, txserf.ConnectionLost)
    assert error.host == near.rpc
    assert near.rpc in str(error)
    assert "not trying" in repr(client)
    (stats,) = await client.stats().request()
    assert stats.body["agent"]["name"] == "n2"  # the next host comes first
    assert seen.openings == 1


@in_reactor
async def test_with_auto_reconnect_a_watch_goes_on_at_the_other_host(
    new_client: NewClient, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    seen = Seen()
    client = new_client(f"{near.rpc},{far.rpc}", auto_reconnect=True)
    watched = client.stream(Type="user").add_callback(seen).watch()
    await round_trip(client)
    await client.event(Name="before", Coalesce=False).request()
    await seen.count(1)
    near.kill()
    await seen.opened(2)  # the second reply tells the callbacks that there was a gap
    await round_trip(client)
    (stats, _) = await client.stats().event(Name="after", Coalesce=False).request()
    assert stats.body["agent"]["name"] == "n2"
    await seen.until(lambda: "after" in seen.names)
    assert {response.seq for response in seen.responses} == {1}  # a stream keeps its Seq
    assert not watched.called
    await client.stop(Stop=1).request()
    assert [type(response).__name__ for response in await watched] == ["ResponseStream"]


@in_reactor
async def test_with_auto_reconnect_a_watch_comes_back_to_an_agent_that_was_restarted(
    new_client: NewClient, agent: Agent
) -> None:
    seen = Seen()
    client = new_client(agent.rpc, auto_reconnect=True)
    watched = client.stream(Type="user").add_callback(seen).monitor(LogLevel="INFO").watch()
    await round_trip(client)
    agent.restart()
    await seen.opened(2)
    await round_trip(client)
    await client.event(Name="after", Coalesce=False).request()
    await seen.count(1)
    # The stream and the monitor are open on the new connection, and have kept their Seqs.
    await client.stop(Stop=1).stop(Stop=2).request()
    assert [response.seq for response in await watched] == [1, 2]


@in_reactor
async def test_a_request_that_is_made_while_no_agent_runs_waits_for_one(
    new_client: NewClient, agent: Agent
) -> None:
    client = new_client(agent.rpc, auto_reconnect=True)
    asked = client.query(Name="q", Timeout=timedelta(seconds=20)).request()
    await round_trip(client)
    agent.kill()
    await fails(asked, txserf.ConnectionLost)
    error = await fails(client.members().request(timeout=0.2), txserf.RequestTimeout)
    assert f"no connection: {agent.rpc}" in str(error)
    waiting = client.members().event(Name="e", Coalesce=False).request(timeout=LIMIT)
    agent.start()
    assert (await waiting).is_success


@in_reactor
async def test_ten_kills_in_a_row_end_neither_watch_nor_requests(
    new_client: NewClient, two_agents: list[Agent]
) -> None:
    seen = Seen()
    client = new_client(",".join(each.rpc for each in two_agents), auto_reconnect=True)
    watched = client.stream(Type="user").add_callback(seen).watch()
    await round_trip(client)
    names = []
    for number in range(10):
        (stats,) = await client.stats().request(timeout=LIMIT)
        name = stats.body["agent"]["name"]
        names.append(name)
        victim = next(each for each in two_agents if each.name == name)
        reading = [client.members().request(timeout=LIMIT) for _ in range(5)]
        victim.kill()
        assert await tally(reading) == {"success": 5}
        await seen.opened(number + 2)
        victim.start()
        await round_trip(client)
        await client.event(Name=f"event-{number}", Coalesce=False).request(timeout=LIMIT)
        await seen.count(number + 1)
    assert len(set(names)) == 2
    assert seen.names == [f"event-{number}" for number in range(10)]
    assert not watched.called
    client.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_a_watch_that_stopped_receiving_is_not_opened_again(
    new_client: NewClient, two_agents: list[Agent], listen: Listen
) -> None:
    near, far = two_agents
    first, second = Proxy(near), Proxy(far)
    client = new_client([listen(first), listen(second)], auto_reconnect=True)

    def enough(response: Response) -> None:
        raise txserf.StopReceiveData

    await client.stream(Type="user").add_callback(enough).watch()
    assert (await client.stats().request()).is_success
    first.cut()
    (stats,) = await client.stats().request()
    assert stats.body["agent"]["name"] == "n2"
    assert first.commands == ["handshake", "stream", "stop", "stats"]
    assert second.commands == ["handshake", "stats"]


# -- a query


@pytest.mark.parametrize("reconnect", [False, True])
@in_reactor
async def test_a_query_in_flight_is_lost_and_never_asked_twice(
    reconnect: bool, new_client: NewClient, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    heard, seen = Seen(), Seen()
    listening = new_client(far.rpc)
    watched = listening.stream(Type="query,user").add_callback(heard).watch()
    await round_trip(listening)
    client = new_client(f"{near.rpc},{far.rpc}", auto_reconnect=reconnect)
    asked = client.query(Name="asked", Timeout=timedelta(seconds=20)).add_callback(seen).request()
    await seen.count(2)  # an ack of each agent
    near.kill()
    error = await fails(asked, txserf.ConnectionLost)
    assert error.host == near.rpc
    await client.event(Name="end", Coalesce=False).request(timeout=LIMIT)
    await heard.until(lambda: "end" in heard.names)
    assert heard.names == ["asked", "end"]
    listening.disconnect()
    await fails(watched, txserf.Disconnected)


# -- many requests at once


@in_reactor
async def test_reads_in_flight_are_answered_by_the_next_connection(
    new_client: NewClient, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    client = new_client(f"{near.rpc},{far.rpc}", auto_reconnect=True)
    await client.members().request()
    near.pause()
    firings: list[int] = []
    requests = [
        count_firings(
            client.members().stats().get_coordinate(Node="n1").members(Name="n1").request(timeout=LIMIT),
            firings,
        )
        for _ in range(100)
    ]
    near.kill()
    for request in requests:
        members, stats, coordinate, filtered = await request
        assert len(members.body["Members"]) == 2
        assert stats.body["agent"]["name"] == "n2"
        assert coordinate.is_success
        assert len(filtered.body["Members"]) == 1
    assert len(firings) == 100


@in_reactor
async def test_without_auto_reconnect_reads_in_flight_are_lost(
    new_client: NewClient, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    client = new_client(f"{near.rpc},{far.rpc}")
    await client.members().request()
    near.pause()
    firings: list[int] = []
    requests = [count_firings(client.members().request(timeout=LIMIT), firings) for _ in range(100)]
    near.kill()
    assert await tally(requests) == {"ConnectionLost": 100}
    assert len(firings) == 100


@pytest.mark.parametrize("reconnect", [False, True])
@in_reactor
async def test_writes_whose_replies_were_lost_are_not_sent_again(
    reconnect: bool, new_client: NewClient, shared_cluster: list[Agent], listen: Listen
) -> None:
    near, far = shared_cluster
    proxy, heard = Proxy(near), Seen()
    listening = new_client(far.rpc)
    watched = listening.stream(Type="user").add_callback(heard).watch()
    await round_trip(listening)
    client = new_client([listen(proxy), far.rpc], auto_reconnect=reconnect)
    await client.members().request()
    proxy.holding = True
    firings: list[int] = []
    requests = [
        count_firings(
            client.event(Name=f"write-{reconnect}-{number}", Coalesce=False).request(timeout=LIMIT), firings
        )
        for number in range(50)
    ]

    def written() -> list[str]:
        # The cluster is shared: events of other tests, or of this test's other run, may still arrive.
        return [name for name in heard.names if name.startswith(f"write-{reconnect}-")]

    await heard.until(lambda: len(written()) >= 50)  # the agent has run all of them, and no reply came
    proxy.cut()
    assert await tally(requests) == {"ConnectionLost": 50}
    await client.event(Name=f"end-{reconnect}", Coalesce=False).request()
    await heard.until(lambda: f"end-{reconnect}" in heard.names)
    assert Counter(written()) == {f"write-{reconnect}-{number}": 1 for number in range(50)}
    assert len(firings) == 50
    listening.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_reads_and_writes_of_one_request_are_told_apart(
    new_client: NewClient, shared_cluster: list[Agent], listen: Listen
) -> None:
    near, far = shared_cluster
    first, second = Proxy(near), Proxy(far)
    seen = Seen()
    client = new_client([listen(first), listen(second)], auto_reconnect=True)
    await client.stop(Stop=UNUSED).request()
    first.holding = True
    reading = client.members().add_callback(seen).stats().request(timeout=LIMIT)
    mixed = client.members().event(Name="mixed").request(timeout=LIMIT)
    writing = client.event(Name="written").request(timeout=LIMIT)
    await first.until(lambda: first.commands.count("event") == 2)
    first.cut()
    await fails(mixed, txserf.ConnectionLost)
    await fails(writing, txserf.ConnectionLost)
    assert (await reading).is_success
    assert len(seen.responses) == 1
    assert second.commands == ["handshake", "members", "stats"]


@in_reactor
async def test_an_agent_that_is_killed_in_the_middle_of_writes_runs_none_twice(
    new_client: NewClient, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    heard, listening = Seen(), new_client(far.rpc)
    watched = listening.stream(Type="user").add_callback(heard).watch()
    await round_trip(listening)
    client = new_client(f"{near.rpc},{far.rpc}", auto_reconnect=True)
    await client.members().request()
    answered = Seen()
    firings: list[int] = []
    requests = []
    for number in range(100):
        client.event(Name=f"write-{number}", Coalesce=False).add_callback(answered)
        requests.append(count_firings(client.request(timeout=LIMIT), firings))
    await answered.until(lambda: len(answered.responses) >= 10)
    near.kill()
    outcomes = await tally(requests)
    assert set(outcomes) <= {"success", "ConnectionLost"}
    assert outcomes["success"] >= 10
    assert len(firings) == 100
    await client.members().request(timeout=LIMIT)  # a read is sent again, so it finds the other host
    await client.event(Name="end", Coalesce=False).request(timeout=LIMIT)
    await heard.until(lambda: "end" in heard.names)
    assert set(Counter(heard.names).values()) == {1}
    listening.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_a_bad_filter_while_the_agent_dies_is_sent_to_the_next_one(
    new_client: NewClient, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    client = new_client(f"{near.rpc},{far.rpc}", auto_reconnect=True)
    await client.members().request()
    near.pause()
    good, bad = (
        client.members(Name="n[12]").request(timeout=LIMIT),
        client.members(Name="(").request(timeout=LIMIT),
    )
    near.kill()
    assert [len(response.body["Members"]) for response in await good] == [2]
    assert ["no regular expression" in response.error for response in await bad] == [True]


@in_reactor
async def test_a_leave_that_ends_its_agent_is_not_sent_to_the_next_one(
    new_client: NewClient, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    client = new_client(f"{near.rpc},{far.rpc}", auto_reconnect=True)
    assert (await client.leave().request(timeout=LIMIT)).is_success
    members: dict[str, str] = {}
    while members.get("n1") != "left":
        (response,) = await client.members().request(timeout=LIMIT)
        members = {member["Name"]: member["Status"] for member in response.body["Members"]}
    assert members["n2"] == "alive"
    assert far.running


# -- losses while the client disconnects


@in_reactor
async def test_disconnecting_while_all_hosts_are_away_leaves_nothing_behind(
    new_client: NewClient, two_agents: list[Agent]
) -> None:
    client = new_client(",".join(each.rpc for each in two_agents), auto_reconnect=True)
    watched = client.stream().watch()
    await round_trip(client)
    for each in two_agents:
        each.kill()
    waiting = client.members().request(timeout=LIMIT)
    await fails(client.members().request(timeout=0.3), txserf.RequestTimeout)
    connected = client.connect().when_connected()
    client.disconnect()
    await fails(waiting, txserf.Disconnected)
    await fails(connected, txserf.Disconnected)
    await fails(watched, txserf.Disconnected)
    # The fixture `nothing_is_left` checks the reactor.


@in_reactor
async def test_a_connection_that_is_cut_while_we_close_it_counts_as_closed(
    new_client: NewClient, shared_cluster: list[Agent], listen: Listen
) -> None:
    proxy = Proxy(shared_cluster[0])
    client = new_client(listen(proxy), auto_reconnect=True)
    await client.members().request()
    proxy.holding = True
    answer = client.members().request()
    await proxy.until(lambda: proxy.commands.count("members") == 2)
    client.disconnect()
    proxy.cut()
    await fails(answer, txserf.Disconnected)
    assert await client.disconnect(wait=True).request() == []
