"""Queries of all members on real agents: ``expect="all"``, and those that are missing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from twisted.internet.defer import gatherResults

import txserf
from tests.agents import Agent, cluster
from tests.real.helpers import fails, in_reactor, reactor
from txserf import QueryEvent, QueryResult

# Values of tags: a newline, letters beyond ASCII, an empty one, an absent one.
TAGS = (
    {"role": "web", "dc": "east"},
    {"role": "db\nweb", "dc": ""},
    {"role": "wéb.2"},
)


@pytest.fixture(scope="module")
def three_agents() -> Iterator[list[Agent]]:
    """Three agents with `TAGS`, for all tests of this module; a test may suspend one for a while."""
    with cluster(3, tags=TAGS) as agents:
        yield agents


@contextlib.asynccontextmanager
async def answering(agents: Sequence[Agent]) -> AsyncIterator[txserf.Serf]:
    """Have these agents answer the query ``load``. Gives a connection to the first one."""

    def answer(event: object) -> object:
        assert isinstance(event, QueryEvent)
        return event.respond(b"0.3")

    async with contextlib.AsyncExitStack() as stack:
        serfs = [await stack.enter_async_context(txserf.Serf(agent.rpc)) for agent in agents]
        await gatherResults([serf.stream("query:load").add_callback(answer).when_active() for serf in serfs])
        yield serfs[0]


async def asked(serf: txserf.Serf, answers: list[str], acks: Sequence[str] = (), **given: Any) -> QueryResult:
    """
    Ask until these have answered, and these have acknowledged at least.

    In a hundred queries among three agents one is lost on its way to an agent, or what comes back from it.
    """
    for _ in range(5):
        result = await serf.query("load", expect="all", **given)
        if sorted(result.responses) == answers and set(acks) <= set(result.acks):
            break
    return result


@in_reactor
async def test_a_query_of_all_ends_long_before_its_timeout(three_agents: list[Agent]) -> None:
    async with answering(three_agents) as serf:
        for _ in range(5):
            began_at = reactor.seconds()
            result = await serf.query("load", expect="all", timeout=10)
            if len(result.responses) == 3:
                break
        assert reactor.seconds() - began_at < 5
        assert (sorted(result.responses), result.missing) == (["n1", "n2", "n3"], [])
        assert result.complete
        some = await asked(serf, ["n1", "n2"], tags={"role": "web"}, timeout=10)
        assert (sorted(some.responses), some.missing) == (["n1", "n2"], [])
        named = await asked(serf, ["n3"], nodes=["n3", "ghost"], timeout=10)
        assert (list(named.responses), named.missing, named.complete) == (["n3"], ["ghost"], False)
        both = await asked(serf, ["n1"], nodes=["n1", "n3", "ghost"], tags={"dc": "e"}, timeout=10)
        assert (list(both.responses), both.missing) == (["n1"], ["ghost"])
        nobody = await serf.query("load", expect="all", tags={"role": "^none$"}, timeout=60)
        assert nobody == txserf.QueryResult(complete=True)


@in_reactor
async def test_a_suspended_agent_is_missing_and_the_timeout_ends_the_query(three_agents: list[Agent]) -> None:
    async with answering(three_agents) as serf:
        three_agents[2].pause()
        try:
            result = await asked(serf, ["n1", "n2"], timeout=0.5)
        finally:
            three_agents[2].resume()
        assert (sorted(result.responses), result.missing, result.complete) == (["n1", "n2"], ["n3"], False)
        assert "n3" not in result.acks


@in_reactor
async def test_a_member_without_a_handler_is_missing_though_it_acknowledges(
    three_agents: list[Agent],
) -> None:
    async with answering(three_agents[:2]) as serf:
        result = await asked(serf, ["n1", "n2"], ["n3"], timeout=1)
        assert ("n3" in result.acks, result.missing) == (True, ["n3"])


@pytest.mark.parametrize("by_view", [False, True])
@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"role": ""},
        {"role": "web"},
        {"role": "^web$"},
        {"role": "b.web"},
        {"role": "(?s)b.web"},
        {"role": "(?m)^web$"},
        {"role": "(?i)WEB|DB"},
        {"role": "w.b"},
        {"role": "w..b"},  # é is one character, not two bytes
        {"role": r"\.2$"},
        {"role": r"\Q.2"},
        {"role": "[é]"},
        {"role": "b$|^d"},
        {"role": r"\bweb\z"},
        {"dc": "^$"},
        {"dc": ".+"},
        {"dc": "^(?:east|west)$"},
        {"none": "^$"},
        {"none": "."},
        {"role": "b", "dc": "s"},
    ],
)
@in_reactor
async def test_the_members_that_are_waited_for_are_those_that_serf_asks(
    tags: dict[str, str], by_view: bool, three_agents: list[Agent]
) -> None:
    async with txserf.Serf(three_agents[0].rpc) as serf:
        if by_view:
            await txserf.ClusterView(serf).wait_for(3)
        for _ in range(5):  # gossip may lose an acknowledgement
            result = await serf.query("nobody answers", expect="all", tags=tags, timeout=0.3)
            if result.missing == sorted(result.acks):
                return
        raise AssertionError(f"{result.missing} were waited for, {result.acks} were asked")


@in_reactor
async def test_a_tag_filter_that_is_no_regular_expression_fails_a_query_of_all(
    three_agents: list[Agent],
) -> None:
    async with txserf.Serf(three_agents[0].rpc) as serf:
        await serf.ping()
        for pattern in ("(", "a)(b", "*", "(?=w)", r"\E"):
            error = await fails(
                serf.query("load", expect="all", tags={"role": pattern}, timeout=60), txserf.RpcError
            )
            assert "no regular expression" in error.message
        assert serf.factory.connections == 1
