"""The calls of `Serf` on real agents: a slow, late, cancelled or wrong one affects no other."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults

import txserf
from tests.agents import Agent
from tests.real.conftest import Listen
from tests.real.helpers import ScriptedServer, fails, in_reactor


def connection_of(serf: txserf.Serf) -> object:
    return serf.factory.open_connection


@in_reactor
async def test_other_calls_are_answered_while_a_join_hangs(agent: Agent, listen: Listen) -> None:
    heard: Deferred[None] = Deferred()

    def keep_silent(connection: object, data: bytes) -> None:
        if not heard.called:
            heard.callback(None)

    silent = listen(ScriptedServer(keep_silent))
    async with txserf.Serf(agent.rpc) as serf:
        joining = serf.join([silent, silent, "127.0.0.1:1"])
        await heard  # the agent has connected, and waits for an answer
        for _ in range(3):
            calls: list[Deferred[Any]] = [
                serf.members(),
                serf.stats(),
                serf.event("go"),
                serf.set_tags({"a": "b"}),
            ]
            await gatherResults(calls)
        assert not joining.called
        error = await fails(joining, txserf.JoinError)
        assert error.joined == 0
        assert "connection refused" in error.message


@in_reactor
async def test_a_join_with_some_addresses_that_fail_says_how_many_were_joined(
    two_agents: list[Agent],
) -> None:
    near, far = two_agents
    async with txserf.Serf(near.rpc) as serf:
        error = await fails(serf.join(["127.0.0.1:1", far.bind]), txserf.JoinError)
        assert error.joined == 1
        assert "1 of 2" in error.message
        assert await serf.join([far.bind, near.bind], replay=True) == 2
        assert await serf.join([]) == 0


@in_reactor
async def test_other_calls_are_answered_while_a_key_command_waits_for_a_silent_node(
    encrypted_agents: list[Agent],
) -> None:
    near, far = encrypted_agents
    async with txserf.Serf(near.rpc) as serf:
        far.pause()
        listing = serf.list_keys()
        for _ in range(3):
            calls: list[Deferred[Any]] = [serf.members(), serf.stats(), serf.ping()]
            await gatherResults(calls)
        assert not listing.called
        error = await fails(listing, txserf.KeyringError)
        assert (error.reply.nodes, error.reply.errors, error.reply.responses) == (2, 0, 1)
        far.resume()


@in_reactor
async def test_a_filter_that_is_no_regular_expression_harms_no_other_call(agent: Agent) -> None:
    async with txserf.Serf(agent.rpc) as serf:
        await serf.ping()
        connection = connection_of(serf)
        query = serf.query("slow", timeout=0.3)
        bad = [serf.members(name="("), serf.members(status="a)"), serf.members(tags={"a": "[" * 9})]
        good: Any = serf.members(name="n[0-9]+")
        for call in bad:
            error = await fails(call, txserf.RpcError)
            assert error.command == "members-filtered"
        assert [member.name for member in await good] == ["n1"]
        assert (await query).complete
        assert connection_of(serf) is connection


@in_reactor
async def test_cancelling_any_call_leaves_the_connection_good(two_agents: list[Agent]) -> None:
    near, far = two_agents
    async with txserf.Serf(near.rpc) as serf:
        await serf.ping()
        connection = connection_of(serf)
        calls: list[Deferred[Any]] = [
            serf.members(),
            serf.members(name="n[12]"),
            serf.event("cancelled"),
            serf.join([far.bind]),
            serf.force_leave("nobody"),
            serf.set_tags({"a": "b"}),
            serf.list_keys(),
            serf.install_key("AAAAAAAAAAAAAAAAAAAAAA=="),
            serf.stats(),
            serf.coordinate("n1"),
            serf.rtt("n1", "n2"),
            serf.ping(),
            serf.stream().when_active(),
            serf.monitor().when_active(),
            serf.query("cancelled", timeout=0.1).when_done(),
        ]
        for call in calls:
            call.cancel()
        outcomes: Any = await DeferredList(calls, consumeErrors=True)
        assert {failure.type for _, failure in outcomes} == {CancelledError}
        assert len(await serf.members()) == 2
        assert await serf.join([far.bind]) == 1
        assert connection_of(serf) is connection


@in_reactor
async def test_a_call_that_is_answered_too_late_leaves_the_connection_good(agent: Agent) -> None:
    async with txserf.Serf(agent.rpc) as serf:
        await serf.ping()
        connection = connection_of(serf)
        agent.pause()
        late: list[Deferred[Any]] = [
            serf.members(timeout=0.05),
            serf.stats(timeout=0),
            serf.ping(timeout=0.05),
        ]
        late += [serf.rtt("n1", "n1", timeout=0.05), serf.members(name="n[1]", timeout=0.05)]
        for call in late:
            error = await fails(call, txserf.RequestTimeout)
            assert isinstance(error, TimeoutError)
        agent.resume()
        assert [member.name for member in await serf.members()] == ["n1"]
        assert connection_of(serf) is connection


@in_reactor
async def test_leave_fires_although_a_second_one_ends_the_agent_without_an_answer(agent: Agent) -> None:
    async with txserf.Serf(agent.rpc) as serf, txserf.Serf(agent.rpc) as other:
        await other.ping()
        events = other.stream("member-leave")
        await events.when_active()
        first = serf.leave()
        await serf_is_leaving(other)
        outcomes: Any = await DeferredList([first, other.leave()], consumeErrors=True)
        assert outcomes[0] == (True, None)
        good, second = outcomes[1]
        assert good or second.value.message == "Leave already in progress"


async def serf_is_leaving(serf: txserf.Serf) -> None:
    while [str(member.status) for member in await serf.members()] == ["alive"]:
        pass


@in_reactor
async def test_the_estimated_round_trip_is_the_one_that_serf_rtt_prints(two_agents: list[Agent]) -> None:
    near, _ = two_agents
    async with txserf.Serf(near.rpc) as serf:
        while await serf.coordinate("n2") is None:  # until n1 has probed n2 once
            pass
        before = after = -1.0
        printed = ""
        while before < 0 or before != after:  # the coordinates move with each probe
            before = await serf.rtt("n1", "n2")
            printed = near.serf("rtt", "n1", "n2")
            after = await serf.rtt("n1", "n2")
        found = re.search(r"rtt: ([0-9.]+) ms", printed)
        assert found is not None, printed
        assert float(found[1]) == round(before * 1000, 3)
        mine, its = await serf.coordinate("n1"), await serf.coordinate("n2")
        assert mine is not None and its is not None
        assert mine.distance_to(its) == its.distance_to(mine)
