"""Agents killed at random moments under load: each loss shows in `Serf`, and nothing is left."""

from __future__ import annotations

import gc
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it ships no types
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

import txserf
from tests.agents import Agent
from tests.real.helpers import Watched, reactor
from txserf import Gap, QueryEvent, QueryResult, UserEvent
from txserf.connection.factory import SerfClientFactory
from txserf.model import _MOST_RECENT

#: The number of kills. ``TXSERF_KILLS`` sets another.
KILLS = int(os.environ.get("TXSERF_KILLS", "60"))

#: The number of kills before memory is measured for the first time.
WARM_UP = min(20, KILLS // 2)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the wait between two rounds over the hosts."""
    monkeypatch.setattr(SerfClientFactory, "maxDelay", 0.1)


class Load(Watched):
    """
    Starts calls and queries, and counts their outcomes.

    :ivar started: the number of calls, by name.
    :ivar outcomes: the number of outcomes, by the call's name and the class of its result or error.
    """

    def __init__(self, serf: txserf.Serf, peer: str) -> None:
        super().__init__()
        self.started: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._calls: dict[str, Callable[[], Deferred[Any]]] = {
            "members": serf.members,
            "members by regex": lambda: serf.members(name="n[0-9]"),
            "stats": serf.stats,
            "coordinate": lambda: serf.coordinate("n1"),
            "ping": serf.ping,
            "rtt": lambda: serf.rtt("n1", "n1"),
            "event": lambda: serf.event("load"),
            "set_tags": lambda: serf.set_tags({"n": str(random.random())}),
            "join": lambda: serf.join([peer]),
            "query": lambda: serf.query("load", timeout=0.2).when_done(),
            "query for one": lambda: serf.query("load", expect=1, timeout=0.2).when_done(),
        }
        # For these the agent waits for the answer of each node, even of one that has just died.
        self._slow_calls: dict[str, Callable[[], Deferred[Any]]] = {
            "list_keys": serf.list_keys,
            "install_key": lambda: serf.install_key("AAAAAAAAAAAAAAAAAAAAAA=="),
        }

    def start(self, slow: bool = False) -> None:
        """Start one more call of each kind."""
        for name, call in (self._slow_calls if slow else self._calls).items():
            self.started[name] += 1
            call().addBoth(self._fired, name)

    def _fired(self, result: Any, name: str) -> None:
        what = getattr(result, "value", result)
        if isinstance(what, txserf.ConnectionLost) and name.startswith("query"):
            assert isinstance(what.result, QueryResult) and not what.result.complete
        self.outcomes[name, type(what).__name__] += 1
        self.changed()

    def finished(self) -> bool:
        return sum(self.started.values()) == sum(self.outcomes.values())


#: The allowed outcomes of each call. Calls that only read always succeed.
READ = {
    "members": {"list"},
    "members by regex": {"list"},
    "stats": {"dict"},
    "coordinate": {"Coordinate", "NoneType"},
    "ping": {"float"},
    "rtt": {"float", "RpcError"},  # an agent that was restarted may not know the other one's coordinate yet
    "list_keys": {"KeyringError"},  # nothing is encrypted here
}
CHANGE = {
    "event": {"NoneType", "ConnectionLost"},
    "set_tags": {
        "NoneType",
        "ConnectionLost",
        "RpcError",
    },  # RpcError: the agent timed out on a dead one's gossip
    "join": {"int", "JoinError", "ConnectionLost"},
    "install_key": {"KeyringError", "ConnectionLost"},
    "query": {"QueryResult", "ConnectionLost"},
    "query for one": {"QueryResult", "ConnectionLost"},
}


def memory() -> Counter[str]:
    """Count the live objects of txserf's classes and of Deferred, by class."""
    gc.collect()
    things = (thing for thing in gc.get_objects() if type(thing) is Deferred or is_of_txserf(type(thing)))
    return Counter(type(thing).__name__ for thing in things)


def is_of_txserf(kind: type) -> bool:
    return str(kind.__dict__.get("__module__")).startswith("txserf.")


@pytest.mark.timeout(150)
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it ships no types
async def test_agents_killed_at_random_leave_no_deferred_unfired_no_stream_dead_and_no_memory(
    two_agents: list[Agent],
) -> None:
    random.seed(seed := random.randrange(1_000_000))
    print(f"seed {seed}, {KILLS} kills")
    async with txserf.Serf([agent.rpc for agent in two_agents], timeout=60) as serf:
        events = serf.stream("user", gaps=True)
        queries = serf.stream("query").add_callback(answer)
        lines = serf.monitor("DEBUG").add_callback(lambda line: None)
        load = Load(serf, two_agents[1].bind)
        before: Counter[str] = Counter()
        gaps = 0
        for number in range(KILLS):
            for stream in (events, queries, lines):
                await stream.when_active()
            connection = serf.factory.open_connection
            assert connection is not None
            victim, other = sorted(two_agents, key=lambda agent: agent.rpc != connection.host)
            load.start()
            load.start(slow=True)
            await deferLater(reactor, random.uniform(0, 0.02))
            load.start()
            victim.kill()
            load.start()
            # The connection is lost, so the streams show a gap. After it they are active again.
            await until_gap(events)
            gaps += 1
            for stream in (events, queries, lines):
                await stream.when_active()
            await serf.event(f"round {number}", coalesce=False)
            await until_event(events, f"round {number}")
            victim.start(join=[other])
            if number == WARM_UP:
                await load.until(load.finished)
                before = memory()
        await load.until(load.finished)
        after = memory()
    assert gaps == KILLS
    assert load.started == Counter({n: KILLS if "key" in n else 3 * KILLS for n in load.started})
    for name, allowed in {**READ, **CHANGE}.items():
        became = {outcome for call, outcome in load.outcomes if call == name}
        assert became <= allowed, (name, load.outcomes)
    assert load.outcomes["event", "ConnectionLost"] > 0, "no kill came at a bad moment"
    # The last log lines are kept on purpose, to recognize them when the agent sends them again.
    assert after.pop("LogLine") <= 2 * 512
    # So are tags, to share them among members.
    assert after.pop("Tags") <= before["Tags"] + _MOST_RECENT
    grown = {name: number - before[name] for name, number in after.items() if number > before[name] + 20}
    assert grown == {}, "memory grows"


def answer(event: Any) -> Deferred[Any]:
    assert isinstance(event, QueryEvent)
    # This fails if the query has ended, or its connection is lost.
    return event.respond(b"here").addErrback(lambda failure: failure.trap(txserf.SerfError))


async def until_gap(stream: txserf.EventStream) -> None:
    async for event in stream:
        if isinstance(event, Gap):
            return


async def until_event(stream: txserf.EventStream, name: str) -> None:
    async for event in stream:
        assert not isinstance(event, Gap)
        if isinstance(event, UserEvent) and event.name == name:
            return
