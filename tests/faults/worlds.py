"""Where programs run: beside an embedded cluster under a `Clock`, or beside a real agent."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

import txserf
from tests.agents import Agent
from tests.faults.ledger import Ledger
from tests.faults.relay import FaultEndpoint, FaultProxy, Plan, Plans
from txserf.embedded import EmbeddedCluster

T = TypeVar("T")

#: Seconds between the first two looks at a condition.
_LOOK = 0.01


class World:
    """
    An agent, and hosts that lead to it through faults.

    :ivar clock: the time of all of it, also what clients get as their reactor.
    :ivar hosts: two ways to the one agent, so that a program sees the events of one only.
    :ivar agent: the way to it without faults.
    :ivar auth_key: the key of the agent's RPC, None for none.
    :ivar joinable: a gossip address that nobody has.
    """

    clock: Any
    hosts: list[Any]
    agent: IStreamClientEndpoint
    joinable = "127.0.0.1:1"

    def __init__(self, clock: Any, plan: Plan, auth_key: str | None) -> None:
        self.clock = clock
        self.auth_key = auth_key
        self.ledger = Ledger()
        self.plans = Plans(clock, plan, self.ledger)

    async def open(self) -> None:
        """Make it ready."""

    async def close(self) -> None:
        """Close it, with all its connections."""

    def left(self) -> list[str]:
        """Return what is left in the reactor of what was not there before."""
        raise NotImplementedError

    def wait(self, seconds: float) -> Deferred[None]:
        """Let time pass."""
        return deferLater(self.clock, seconds, lambda: None)

    async def until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Wait until *condition* holds; False where it does not within *limit* seconds."""
        return await wait_until(self.clock, condition, limit)


async def wait_until(clock: Any, condition: Callable[[], bool], limit: float) -> bool:
    """Wait until *condition* holds; False where it does not within *limit* seconds of *clock*."""
    waited = 0.0
    while not condition():
        if waited > limit:
            return False
        look = _LOOK + waited / 50  # less often, the longer it takes
        await deferLater(clock, look, lambda: None)
        waited += look
    return True


# -- in memory


class MemoryWorld(World):
    """An embedded cluster of two, under a `Clock`; all that is random in it comes from *seed*."""

    clock: Clock

    def __init__(self, plan: Plan, seed: int, auth_key: str | None = None) -> None:
        super().__init__(Clock(), plan, auth_key)
        self.cluster = EmbeddedCluster(self.clock, nodes=2, seed=seed, auth_key=auth_key)
        self.agent = self.cluster.agents["n1"].endpoint()
        for agent in self.cluster.agents.values():
            agent.handle_query("ask", lambda query: b"here")
        ways = [FaultEndpoint(self.plans, self.agent, name) for name in ("first way", "second way")]
        self.hosts = [txserf.Host(endpoint=way, auth_key=auth_key) for way in ways]

    async def close(self) -> None:
        await self.cluster.close()

    def left(self) -> list[str]:
        return [str(call) for call in self.clock.getDelayedCalls()]


def run_in_memory(world: MemoryWorld, play: Coroutine[Any, Any, T]) -> T:
    """
    Run a coroutine in the time of a `Clock`: whatever is due next happens at once.

    :raises AssertionError: where nothing is due, and it is not at its end.
    """
    clock = world.clock
    outcome: list[Any] = []
    playing: Deferred[Any] = Deferred.fromCoroutine(play)
    playing.addBoth(outcome.append)
    while not outcome:
        calls = clock.getDelayedCalls()
        assert calls, "nothing will ever happen any more"
        clock.advance(max(0.0, min(call.getTime() for call in calls) - clock.seconds()))
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    result: T = outcome[0]
    return result


# -- on real agents


class RealWorld(World):
    """
    A real agent, behind two TCP proxies.

    :param reactor: the global one.
    """

    def __init__(self, plan: Plan, reactor: Any, agent: Agent) -> None:
        super().__init__(reactor, plan, agent.rpc_auth)
        host, _, port = agent.rpc.rpartition(":")
        self.agent = TCP4ClientEndpoint(reactor, host, int(port))
        self._ports: list[Any] = []
        self._proxies: list[FaultProxy] = []

    async def open(self) -> None:
        for _ in range(2):
            proxy = FaultProxy(self.plans, self.agent)
            self._proxies.append(proxy)
            self._ports.append(self.clock.listenTCP(0, proxy, interface="127.0.0.1"))
        self.hosts = [txserf.Host("127.0.0.1", port.getHost().port, self.auth_key) for port in self._ports]

    async def close(self) -> None:
        for port in self._ports:
            await port.stopListening()
        # Those of clients have ended with the clients; an agent may take a moment longer.
        await self.until(lambda: not any(proxy.connections for proxy in self._proxies), 5.0)

    def left(self) -> list[str]:
        return [f"a connection of a proxy: {each}" for proxy in self._proxies for each in proxy.connections]


def in_reactor(reactor: Any) -> set[Any]:
    """Return what the reactor holds: timers, and what it reads and writes."""
    return {*reactor.getDelayedCalls(), *reactor.getReaders(), *reactor.getWriters()}
