"""The streams and queries of `Serf` on real agents: order, gaps, levels, losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults

import txserf
from tests.agents import Agent
from tests.real.helpers import fails, in_reactor
from txserf import Ack, Answer, Gap, QueryEvent, UserEvent
from txserf.connection.factory import SerfClientFactory


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the wait between two rounds over the hosts, because some tests restart an agent."""
    monkeypatch.setattr(SerfClientFactory, "maxDelay", 0.2)


async def user_events(stream: txserf.EventStream, number: int) -> list[str]:
    """Return the names of the next events."""
    names = []
    for _ in range(number):
        event = await anext(stream)
        assert isinstance(event, UserEvent), event
        names.append(event.name)
    return names


@in_reactor
async def test_no_event_is_missed_once_a_stream_is_active(two_agents: list[Agent]) -> None:
    """Another connection sends the event as soon as the stream is active."""
    near, _ = two_agents
    async with txserf.Serf(near.rpc) as serf, txserf.Serf(near.rpc) as sender:
        await sender.ping()
        for number in range(50):
            stream = serf.stream(f"user:e{number}")
            await stream.when_active()
            await sender.event(f"e{number}", coalesce=False)
            assert await user_events(stream, 1) == [f"e{number}"]
            await stream.stop()


@in_reactor
async def test_streams_with_different_filters_each_get_their_own_in_order(agent: Agent) -> None:
    async with txserf.Serf(agent.rpc) as serf:
        everything, some, queries = serf.stream("user"), serf.stream("user:a,user:b"), serf.stream("query")
        await gatherResults([stream.when_active() for stream in (everything, some, queries)])
        called: list[Any] = []
        some.add_callback(called.append)
        for name in "abcab":
            await serf.event(name, coalesce=False)
        await serf.query("a", timeout=0.1)
        assert await user_events(everything, 5) == list("abcab")
        assert [event.name for event in called] == list("abab")
        event = await anext(queries)
        assert isinstance(event, QueryEvent)
        assert event.name == "a"


@in_reactor
async def test_a_stream_goes_on_with_another_agent_and_tells_the_gap(two_agents: list[Agent]) -> None:
    near, far = two_agents
    async with txserf.Serf(f"{near.rpc},{far.rpc}") as serf:
        with_gaps, without = serf.stream("user", gaps=True), serf.stream("user")
        called: list[Any] = []
        with_gaps.add_callback(called.append)
        items = aiter(with_gaps)
        await gatherResults([with_gaps.when_active(), without.when_active()])
        await serf.event("before", coalesce=False)
        assert await user_events(items, 1) == ["before"]
        near.kill()
        gap = await anext(items)
        assert isinstance(gap, Gap)
        assert gap.lost_at <= gap.resumed_at
        await gatherResults([with_gaps.when_active(), without.when_active()])
        await serf.event("after", coalesce=False)
        assert await user_events(items, 1) == ["after"]
        assert await user_events(without, 2) == ["before", "after"]
        assert [type(item) for item in called] == [UserEvent, Gap, UserEvent]


@in_reactor
async def test_the_agent_refuses_each_filter_that_is_refused_at_the_call(agent: Agent) -> None:
    filters = ["no-such-type", "usr", "User", "member-", "member-join:n1", "*:a", "user,,query", " user"]
    async with txserf.Serf(agent.rpc) as serf:
        for filter in filters:
            with pytest.raises(txserf.InvalidRequest, match="is no event type"):
                serf.stream(filter)
    async with txserf.Client(agent.rpc) as client:
        for filter in filters:
            (response,) = await client.stream(Type=filter).request()
            assert response.error == "Invalid event filter"


@in_reactor
async def test_the_agent_takes_each_filter_that_the_call_takes(agent: Agent) -> None:
    async with txserf.Serf(agent.rpc) as serf:
        for filter in ("", "*", "user:", "user:a:b", "query:load,member-reap", "user,user"):
            await serf.stream(filter).when_active()


@in_reactor
async def test_a_level_that_the_agent_does_not_know_harms_no_other_monitor(agent: Agent) -> None:
    async with txserf.Serf(agent.rpc) as serf:
        good = serf.monitor()
        await good.when_active()
        bad = serf.monitor("loud")
        error = await fails(bad.when_active(), txserf.RpcError)
        assert (error.command, error.message) == ("monitor", "Unknown log level: LOUD")
        await fails(anext(bad), txserf.RpcError)
        assert (await anext(good)).text == "Serf agent starting"


@in_reactor
async def test_monitors_share_the_connections_monitor_and_each_gets_its_level_once(agent: Agent) -> None:
    """The second monitor needs a lower level than the first. The third is opened after both."""
    async with txserf.Serf(agent.rpc) as serf:
        informed = serf.monitor("INFO")
        await informed.when_active()
        detailed = serf.monitor("DEBUG")
        await detailed.when_active()
        late = serf.monitor("INFO")
        await late.when_active()
        await serf.event("marker", coalesce=False)
        await serf.query("_marker", timeout=0.1)
        debug = [line async for line in until(detailed, "marker")]
        assert "DEBUG" in {line.level for line in debug}
        assert len({line.line for line in debug}) == len(debug)
        # All three need a last line of level INFO. A new connection logs none, but an agent that leaves does.
        await serf.leave()
        info = [line async for line in until(informed, "requesting graceful leave")]
        assert {line.level for line in info} <= {"INFO", "WARN", "ERR"}
        assert len({line.line for line in info}) == len(info)
        assert [line async for line in until(late, "requesting graceful leave")] == info


async def until(lines: txserf.LogStream, text: str) -> Any:
    """Iterate up to a line that contains *text*."""
    async for line in lines:
        yield line
        if text.lower() in line.line.lower():
            return


@in_reactor
async def test_after_a_reconnect_the_agents_replay_brings_no_line_twice(agent: Agent) -> None:
    async with txserf.Serf(agent.rpc) as serf:
        lines, gaps = serf.monitor("DEBUG"), serf.stream("member-reap", gaps=True)
        await gatherResults([lines.when_active(), gaps.when_active()])
        await serf.event("first", coalesce=False)
        seen = [line async for line in until(lines, "send: first")]
        drop_connection(serf)
        assert isinstance(await anext(gaps), Gap)
        await lines.when_active()
        await serf.event("second", coalesce=False)
        seen += [line async for line in until(lines, "send: second")]
        assert len({line.line for line in seen}) == len(seen)
        assert "\n    ".join(line.line for line in seen) in agent.log


def drop_connection(serf: txserf.Serf) -> None:
    """Drop the connection. The agent goes on."""
    connection = serf.factory.open_connection
    assert connection is not None and connection.transport is not None
    connection.transport.abortConnection()  # type: ignore[attr-defined]  # a TCP one can


@in_reactor
async def test_a_stopped_stream_is_stopped_at_the_agent_and_its_iteration_ends(agent: Agent) -> None:
    async with txserf.Serf(agent.rpc) as serf:
        stopped, other = serf.stream("user"), serf.stream("user")
        await other.when_active()
        await serf.event("one", coalesce=False)
        assert await user_events(other, 1) == ["one"]
        await stopped.stop()
        assert [event async for event in stopped] == []
        await fails(stopped.when_active(), txserf.Disconnected)
        await serf.event("two", coalesce=False)
        assert await user_events(other, 1) == ["two"]


@in_reactor
async def test_a_slow_reader_loses_the_oldest_events_and_can_count_them(agent: Agent) -> None:
    async with txserf.Serf(agent.rpc) as serf:
        slow, quick = serf.stream("user", buffer=10), serf.stream("user")
        await gatherResults([slow.when_active(), quick.when_active()])
        await gatherResults([serf.event(f"e{number}", coalesce=False) for number in range(100)])
        await user_events(quick, 100)
        await serf.ping()
        assert slow.dropped == 90
        assert await user_events(slow, 10) == [f"e{number}" for number in range(90, 100)]


def respond_with(payload: bytes | str) -> Callable[[object], Deferred[None]]:
    def respond(event: object) -> Deferred[None]:
        assert isinstance(event, QueryEvent)
        return event.respond(payload)

    return respond


@in_reactor
async def test_a_query_ends_with_as_many_answers_as_are_expected(two_agents: list[Agent]) -> None:
    near, far = two_agents
    async with txserf.Serf(near.rpc) as serf, txserf.Serf(far.rpc) as other:
        for answering, payload in ((serf, b"1"), (other, "zwei")):
            await answering.stream("query:load").add_callback(respond_with(payload)).when_active()
        query = serf.query("load", expect=2, timeout=30)
        items = [item async for item in query]
        assert {item for item in items if isinstance(item, Answer)} == {
            Answer("n1", b"1"),
            Answer("n2", b"zwei"),
        }
        result = await query
        assert result.complete
        assert result.responses == {"n1": b"1", "n2": b"zwei"}
        only = await serf.query("load", nodes=["n2"], acks=False, expect=1, timeout=30)
        assert (only.acks, only.responses) == ([], {"n2": b"zwei"})


@in_reactor
async def test_a_query_whose_agent_dies_has_the_answers_so_far(two_agents: list[Agent]) -> None:
    near, _ = two_agents
    async with txserf.Serf(near.rpc) as serf:
        query = serf.query("load", timeout=60)
        assert isinstance(await anext(query), Ack)
        near.kill()
        error = await fails(query, txserf.ConnectionLost)
        assert error.result.acks
        assert not error.result.complete
        assert error.host == near.rpc


@in_reactor
async def test_an_answer_goes_by_the_connection_that_the_query_came_by_or_not_at_all(
    two_agents: list[Agent],
) -> None:
    near, far = two_agents
    async with txserf.Serf(f"{near.rpc},{far.rpc}") as serf, txserf.Serf(far.rpc) as asking:
        stream = serf.stream("query")
        await stream.when_active()
        query = asking.query("load", timeout=60)
        event = await anext(stream)
        assert isinstance(event, QueryEvent)
        near.kill()
        await serf.ping()  # by the other agent
        error = await fails(event.respond(b"late"), txserf.ConnectionLost)
        assert error.host == near.rpc
        query.cancel()
        await fails(query, CancelledError)


@in_reactor
async def test_the_agents_limits_are_query_errors(agent: Agent) -> None:
    async with txserf.Serf(agent.rpc) as serf:
        error = await fails(serf.query("big", b"x" * 1025), txserf.QueryError)
        assert error.message == "query exceeds limit of 1024 bytes"
        error = await fails(serf.query("_serf_secret"), txserf.QueryError)
        assert "_serf_" in error.message
        stream = serf.stream("query")
        await stream.when_active()
        query = serf.query("ask", expect=1, timeout=30)
        event = await anext(stream)
        assert isinstance(event, QueryEvent)
        error = await fails(event.respond(b"x" * 1025), txserf.QueryError)
        assert error.command == "respond"
        await event.respond(b"fits")
        assert (await query).responses == {"n1": b"fits"}
        error = await fails(event.respond(b"again"), txserf.QueryError)
        error = await fails(serf.event("big", b"x" * 600), txserf.RpcError)
        assert "512 bytes" in error.message


@in_reactor
async def test_closing_ends_streams_and_fails_what_still_waits(agent: Agent) -> None:
    serf = txserf.Serf(agent.rpc)
    stream, lines = serf.stream("user"), serf.monitor("ERR")
    await gatherResults([stream.when_active(), lines.when_active()])
    query = serf.query("load", timeout=60)
    await anext(query)
    reader = Deferred.fromCoroutine(rest(stream))
    call = serf.stats()
    closing = [serf.close(), serf.close()]
    await fails(call, txserf.Disconnected)
    await fails(query, txserf.Disconnected)
    assert await reader == []
    assert [line async for line in lines] == []
    await gatherResults(closing)
    await fails(serf.members(), txserf.Disconnected)
    for use in (serf.stream, serf.monitor, lambda: serf.query("x")):
        with pytest.raises(txserf.Disconnected):
            use()
    serf.startService()  # and a service may be started again
    assert len(await serf.members()) == 1
    await serf.close()


async def rest(stream: txserf.EventStream) -> list[object]:
    return [event async for event in stream]
