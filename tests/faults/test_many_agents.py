"""Thirty agents with a `Serf` on each; a third of them killed: every event reaches every survivor."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it ships no types
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

import txserf
from tests.agents import Agent
from tests.faults.worlds import wait_until
from tests.in_reactor import reactor
from txserf import Gap

NODES = 30

#: Seconds that gossip may take to reach all of them, on a machine that is busy.
PATIENCE = 60.0


@pytest.fixture
def many_agents() -> Iterator[list[Agent]]:
    """
    Thirty agents that have been told to join the first.

    `tests.agents.cluster` asks each of them for all others by a program, one after the other: 900 processes.
    """
    agents: list[Agent] = []
    with tempfile.TemporaryDirectory(prefix="txserf-many-") as folder, contextlib.ExitStack() as stack:
        for number in range(NODES):
            agent = Agent(f"n{number}", Path(folder), log_level="err")
            stack.callback(agent.kill)
            agent.start(join=agents[:1])
            agents.append(agent)
        yield agents


class Node:
    """
    An agent with a `Serf` on it, which follows the events.

    :ivar seen: the names of the events, in the order in which they came.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.serf = txserf.Serf(agent.rpc, reactor=reactor, timeout=PATIENCE)
        self.seen: list[str] = []
        self.stream = self.serf.stream("user", gaps=True).add_callback(self._event)

    def _event(self, event: object) -> None:
        self.seen.append("gap" if isinstance(event, Gap) else getattr(event, "name", repr(event)))


async def compare(nodes: list[Node]) -> None:
    """
    Let the agents compare what they know.

    Gossip misses some of them, most of all where a third are dead. They compare every 15 seconds, and at a join: the
    first round of joins brings everything to one agent, the second brings it to all.
    """
    for node in 2 * nodes[1:]:
        await node.serf.join([nodes[0].agent.bind], replay=True)


async def until_all_see(nodes: list[Node], number: int) -> None:
    """Wait until each agent counts that many members as alive."""
    for node in nodes:
        while len(await node.serf.members(status="alive")) != number:
            await deferLater(reactor, 0.2, lambda: None)


@pytest.mark.real
@pytest.mark.timeout(180)  # some 3 s where the machine has nothing else to do
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it ships no types
async def test_every_event_reaches_every_survivor_of_a_cluster_of_thirty(many_agents: list[Agent]) -> None:
    nodes = [Node(agent) for agent in many_agents]
    await gatherResults([node.stream.when_active() for node in nodes])
    await compare(nodes)
    await until_all_see(nodes, NODES)
    victims, survivors = nodes[1::3], nodes[0::3] + nodes[2::3]
    sent = []
    for number, node in enumerate(survivors):
        await node.serf.event(f"from-{node.agent.name}", coalesce=False)
        sent.append(f"from-{node.agent.name}")
        if number < len(victims):  # half of the events are under way while agents die
            victims[number].agent.kill()
    await compare(survivors)
    assert await wait_until(
        reactor, lambda: all(set(node.seen) >= set(sent) for node in survivors), PATIENCE
    ), {node.agent.name: sorted(set(sent) - set(node.seen)) for node in survivors}
    # Each once, and no connection to a survivor was lost.
    assert [node.agent.name for node in survivors if len(node.seen) != len(sent)] == []
    await gatherResults([node.serf.close() for node in nodes])
