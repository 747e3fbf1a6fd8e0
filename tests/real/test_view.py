"""A view of twelve real agents, of which some die, come back and change their tags."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.agents import Agent, cluster
from tests.cluster.view_case import Replay
from tests.real.helpers import in_reactor, reactor
from txserf import Change, ClusterView, Member, Serf


@pytest.fixture
def twelve_agents() -> Iterator[list[Agent]]:
    with cluster(12) as agents:
        yield agents


class Following:
    """
    A view, and two who are told of its changes.

    :ivar replay: replays them as a function of `on_change`.
    :ivar read: those that its iterator has brought.
    """

    def __init__(self, serf: Serf, resync: float) -> None:
        self.view = ClusterView(serf, resync=resync)
        self.replay = Replay()
        self.read: list[Change] = []
        self.view.on_change(self.replay)

    async def follow(self) -> None:
        async for change in self.view.changes():
            self.read.append(change)


def by_name(members: list[Member]) -> dict[str, Member]:
    return {member.name: member for member in members}


@in_reactor
async def test_after_kills_starts_and_new_tags_it_is_what_a_fresh_connection_says(
    twelve_agents: list[Agent],
) -> None:
    first, second, third = twelve_agents[:3]
    killed = [first, *twelve_agents[-3:]]
    serf = Serf(f"{first.rpc},{second.rpc},{third.rpc}")
    following = Following(serf, resync=3.0)
    view = following.view
    reading = Deferred.fromCoroutine(following.follow())
    await view.when_ready()
    assert list(view.members) == sorted(agent.name for agent in twelve_agents)
    assert serf.factory.open_connection is not None

    for agent in killed:  # with the first one, which the view is connected to
        agent.kill()
    for agent in twelve_agents[3:7]:
        other = Serf(agent.rpc)
        await other.set_tags({"role": "web", "of": agent.name})
        await other.close()
    web = await view.wait_for(4, role="web")
    assert [member.name for member in web] == ["n4", "n5", "n6", "n7"]
    await view.wait_for(4, status="failed")
    assert [member.name for member in view.select(status="failed")] == ["n1", "n10", "n11", "n12"]
    assert view.members["n1"].status == "failed" and not view.stale

    second.kill()  # the next one, while the others start
    for agent in killed:
        agent.start(join=[third])
    second.start(join=[third])
    await view.wait_for(12)

    async with Serf(third.rpc) as fresh:
        while True:
            told = by_name(await fresh.members())
            if dict(view.members) == told and not view.stale:
                break
            await deferLater(reactor, 0.2)
    assert [str(member.status) for member in told.values()] == ["alive"] * 12
    assert following.replay.members == told
    told_by_function = list(following.replay.told)
    await view.stopService()
    await serf.close()
    await reading
    assert following.read == told_by_function


def serf_says(agent: Agent, other: Agent) -> float:
    """Return the seconds that ``serf rtt`` estimates between two agents; it shows them to the microsecond."""
    (milliseconds,) = re.findall(r"rtt: ([\d.]+) ms", agent.serf("rtt", agent.name, other.name))
    return float(milliseconds) / 1000


@in_reactor
async def test_the_nearest_are_at_the_distance_that_serf_rtt_says(shared_cluster: list[Agent]) -> None:
    first, second = shared_cluster
    async with Serf(first.rpc) as serf:
        while await serf.coordinate(second.name) is None:  # until it has been probed
            await deferLater(reactor, 0.1)
        while True:
            before = serf_says(first, second)
            view = ClusterView(serf)
            found = {member.name: seconds for member, seconds in await view.nearest()}
            await view.stopService()
            if before == serf_says(first, second):  # else a probe has moved them meanwhile
                break
    assert set(found) == {first.name, second.name}
    assert abs(found[second.name] - before) <= 1e-6
