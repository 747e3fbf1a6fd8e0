"""Routers on real agents: events, queries, and lost agents."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.agents import Agent
from tests.real.conftest import Listen
from tests.real.helpers import Proxy, _Inward, in_reactor, reactor
from tests.real.routers import Handled, Run, Running
from txserf import Serf, UserEvent, wire


@in_reactor
async def test_an_event_runs_a_script_and_a_function(
    run: Run, two_agents: list[Agent], tmp_path: Path
) -> None:
    handled, running = Handled(), run(two_agents[0])
    running.router.add_script(f"user:deploy=cat > {tmp_path}/version")
    running.router.user_event("deploy")(handled)
    await running.start()
    await deferToThread(two_agents[1].serf, "event", "deploy", "v2")
    (event,) = await handled.count(1)
    assert (event.name, event.payload) == ("deploy", b"v2")
    assert (tmp_path / "version").read_text() == "v2\n"


@in_reactor
async def test_a_query_of_the_serf_program_gets_the_answers_of_both_agents(
    run: Run, two_agents: list[Agent]
) -> None:
    for agent in two_agents:
        running = run(agent)
        running.router.query("load")(lambda event, name=agent.name: f"load of {name}")
        await running.start()
    told = json.loads(await deferToThread(two_agents[0].serf, "query", "-format=json", "-timeout=1s", "load"))
    assert told["Responses"] == {"n1": "load of n1", "n2": "load of n2"}


@in_reactor
async def test_a_member_event_is_handled(run: Run, two_agents: list[Agent]) -> None:
    handled, running = Handled(), run(two_agents[0])
    running.router.member_event("update")(handled)
    await running.start()
    await running.serf.set_tags({"role": "web"})
    (event,) = await handled.count(1)
    assert [(member.name, dict(member.tags)) for member in event.members] == [("n1", {"role": "web"})]


@in_reactor
async def test_a_handler_by_tag_gets_its_members_of_a_group_only(run: Run, two_agents: list[Agent]) -> None:
    handled, all_of_them, running = Handled(), Handled(), run(two_agents[0])
    running.router.member_event("update", tags={"role": "web", "dc": lambda dc: dc is None})(handled)
    running.router.member_event("update")(all_of_them)
    await running.start()
    async with Serf(two_agents[1].rpc) as far:
        await far.ping()
        await gatherResults([running.serf.set_tags({"role": "db"}), far.set_tags({"role": "web"})])
        while len({member.name for event in all_of_them.events for member in event.members}) < 2:
            await all_of_them.count(len(all_of_them.events) + 1)
        await far.set_tags({"role": "web", "dc": "east"})
        await all_of_them.count(len(all_of_them.events) + 1)
    seen = [[member.name for member in event.members] for event in handled.events]
    assert seen == [["n2"]]


@in_reactor
async def test_a_response_that_is_too_large_is_refused_by_name_of_the_limit(
    run: Run, agent: Agent, log: list[str]
) -> None:
    running = run(agent)
    running.router.query()(lambda event: b"x" * 1100)
    await running.start()
    result = await running.serf.query("q", timeout=0.5)
    assert result.responses == {}
    (said,) = [line for line in log if "response exceeds limit of 1024 bytes" in line]
    assert said.startswith("query 'q' (LTime 1): ")


# -- losses


class _Tapped(_Inward):
    """Adds the user events that it passes on to the client to its proxy's list."""

    def connectionMade(self) -> None:
        self._records = wire.Unpacker()
        super().connectionMade()

    def answer(self, data: bytes) -> None:
        super().answer(data)
        for record in self._records.feed(data):
            if record.get("Event") == "user":
                self._proxy.delivered.append((record["LTime"], record["Name"]))  # type: ignore[attr-defined]


class Tap(Proxy):
    """
    A proxy that records the user events that the agent delivers.

    :ivar delivered: the LTime and name of each, over all connections.
    """

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.delivered: list[tuple[int, str]] = []

    def buildProtocol(self, addr: IAddress | None) -> _Inward:
        return _Tapped(self)


async def burst(serf: Serf, first: int, last: int) -> None:
    """Send numbered events, slowly enough for gossip: members forget events that are 512 LTimes old."""
    for start in range(first, last, 20):
        names = [f"burst-{number:04}" for number in range(start, min(start + 20, last))]
        await gatherResults([serf.event(name, coalesce=False) for name in names])
        await deferLater(reactor, 0.02, lambda: None)


@pytest.mark.parametrize("replay", [False, True], ids=["without replay", "with replay"])
@in_reactor
async def test_each_delivered_event_is_handled_once_and_in_order_though_the_agent_dies_in_a_burst(
    run: Run, listen: Listen, tmp_path: Path, replay: bool
) -> None:
    with contextlib.ExitStack() as stack:
        far, near = Agent("n1", tmp_path), Agent("n2", tmp_path)
        for agent, join in ((far, []), (near, [far])):
            stack.callback(agent.kill)
            agent.start(join=join)
        far.wait_for_member("n2", "alive")
        tap, handled = Tap(near), Handled()
        running = run(listen(tap), state=tmp_path / "state")
        running.router.user_event("burst-*", "last")(handled)
        await running.start()
        async with Serf(far.rpc) as sender:
            # Members remember the last 512: at the end some of the 200 are still among them.
            sending = Deferred.fromCoroutine(burst(sender, 0, 600))
            await handled.count(200)
            near.kill()
            if replay:
                # The agent comes back alone. Once the stream is open, it joins and gets the old events.
                near.start()
                await sending
                await running.service.when_active()
                await running.serf.join([far.bind], replay=True)
            else:
                near.start(join=[far])
                await sending
            # From here on the agent is in the cluster and the stream is open, so no event is missed.
            await deferToThread(near.wait_for_member, "n1", "alive")
            await running.service.when_active()
            while not any(event.name == "last" for event in handled.events):
                await sender.event("last", coalesce=False)
                await deferLater(reactor, 0.1, lambda: None)
        # After a round trip all events that the agent delivered have arrived.
        await running.serf.ping()
        once = list(dict.fromkeys(tap.delivered))
        assert [(event.ltime, event.name) for event in handled.events] == once
        burst_events = sum(name.startswith("burst") for _, name in once)
        repeated = len(tap.delivered) - len(once)
        print(f"\n{burst_events} of 600 delivered and handled once, {repeated} came again")
        assert burst_events >= 200
        if replay:
            assert repeated > 0
        assert tap.commands.count("stream") == 2


@in_reactor
async def test_an_event_under_way_and_those_that_wait_outlive_the_agent(
    run: Run, two_agents: list[Agent]
) -> None:
    handled, held, running = Handled(), Deferred[None](), run(two_agents[0])

    @running.router.user_event()
    async def slow(event: UserEvent) -> None:
        if event.name == "first":
            await held
        handled(event)

    await running.start()
    async with Serf(two_agents[1].rpc) as sender:
        for name in ("first", "second", "third"):
            await sender.event(name, coalesce=False)
        while running.service.queued < 2:
            await running.serf.ping()
        two_agents[0].restart(join=[two_agents[1]])
        await running.serf.ping()
        held.callback(None)
        assert sorted(event.name for event in await handled.count(3)) == ["first", "second", "third"]


@in_reactor
async def test_a_restart_handles_the_missed_events_and_none_twice(run: Run, tmp_path: Path) -> None:
    """While the router is stopped the agent dies too. It comes back alone, joins and gets all old events again."""
    with contextlib.ExitStack() as stack:
        far, near = Agent("n1", tmp_path), Agent("n2", tmp_path)
        for agent, join in ((far, []), (near, [far])):
            stack.callback(agent.kill)
            agent.start(join=join)
        handled = Handled()

        async def start() -> Running:
            running = run(near, state=tmp_path / "state")
            running.router.user_event()(handled)
            await running.start()
            return running

        async with Serf(far.rpc) as sender:
            running = await start()
            await burst(sender, 0, 40)
            await handled.count(40)
            await running.service.stopService()
            near.kill()
            await burst(sender, 40, 80)
            # Gossip goes on to a dead member for a while: it would reach the new agent before its router.
            while (await sender.stats())["serf"]["event_queue"] != "0":
                pass
            near.start()
            running = await start()
            await running.serf.join([far.bind], replay=True)
            await burst(sender, 80, 100)
            await handled.count(100)
        await running.serf.ping()
        names = [f"burst-{number:04}" for number in range(100)]
        assert sorted(event.name for event in handled.events) == names
        assert sorted(event.name for event in handled.events[:40]) == names[:40]
