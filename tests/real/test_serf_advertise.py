"""`Serf.advertise` on real agents: kept over kills, put back at the end."""

from __future__ import annotations

import txserf
from tests.agents import Agent
from tests.real.helpers import fails, in_reactor


async def tags_of(serf: txserf.Serf, name: str) -> dict[str, str]:
    (member,) = await serf.members(name=name)
    return dict(member.tags)


@in_reactor
async def test_tags_are_set_again_after_the_agent_was_killed_and_started_without_them(
    two_agents: list[Agent],
) -> None:
    near, far = two_agents
    async with txserf.Serf(near.rpc) as serf:
        advertisement = serf.advertise({"role": "web", "http": "8080"})
        await advertisement.when_set()
        for _ in range(2):
            near.kill()
            await fails(serf.ping(timeout=0.5), txserf.RequestTimeout)
            assert not advertisement.is_set
            near.start(join=[far])
            near.wait_for_member(far.name, "alive")
            await advertisement.when_set()
            assert await tags_of(serf, near.name) == {"role": "web", "http": "8080"}
        await advertisement.withdraw()
        assert await tags_of(serf, near.name) == {}


@in_reactor
async def test_closing_puts_back_the_tags_that_the_agent_had(agent: Agent) -> None:
    before = {"role": "db", "dc": "1"}
    async with txserf.Serf(agent.rpc) as other:
        await other.set_tags(before)
        async with txserf.Serf(agent.rpc) as serf:
            first = serf.advertise({"role": "web"})
            second = serf.advertise({"role": "cache", "http": "80"})
            await first.when_set()
            await second.when_set()
            assert await tags_of(other, agent.name) == {"role": "cache", "http": "80", "dc": "1"}
            await second.withdraw()
            assert await tags_of(other, agent.name) == {"role": "web", "dc": "1"}
        assert await tags_of(other, agent.name) == before


@in_reactor
async def test_too_many_tags_are_refused_and_cost_the_others_nothing(agent: Agent) -> None:
    async with txserf.Serf(agent.rpc) as serf:
        good = serf.advertise({"role": "web"})
        refused = serf.advertise({"big": "w" * 600})
        error = await fails(refused.when_set(), txserf.RpcError)
        assert error.message == "Encoded length of tags exceeds limit of 512 bytes"
        await good.when_set()
        agent.restart()
        await fails(refused.when_set(), txserf.RpcError)
        await good.when_set()
        assert await tags_of(serf, agent.name) == {"role": "web"}


@in_reactor
async def test_closing_does_not_wait_for_an_agent_that_is_gone_or_hangs(agent: Agent) -> None:
    serf = txserf.Serf(agent.rpc, timeout=1.0)
    await serf.advertise({"role": "web"}).when_set()
    agent.pause()
    await serf.close()
    agent.resume()
    await serf.close()
    serf = txserf.Serf(agent.rpc)
    await serf.advertise({"role": "db"}).when_set()
    agent.kill()
    await serf.close()
