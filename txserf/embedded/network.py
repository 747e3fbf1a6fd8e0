"""
The network between the nodes: who reaches whom, how long that takes, and when a failure is noticed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IReactorCore, IReactorTime

from txserf.embedded.agenda import Agenda
from txserf.embedded.coordinates import UNMEASURED
from txserf.embedded.membership import Knowledge
from txserf.embedded.process import AgentProcess
from txserf.model import Coordinate, Member, UserEvent

if TYPE_CHECKING:
    from txserf.embedded.agent import EmbeddedAgent

# What is due at the same time as this counts as due.
_EPSILON = 1e-6


class _Nobody:
    """Listens to the common knowledge of a pool: nobody has to be told."""

    def __init__(self, pool: Pool, agenda: Agenda) -> None:
        self._pool = pool
        self._agenda = agenda

    def seconds(self) -> float:
        return self._agenda.seconds()

    def member_changed(self, kind: str, member: Member) -> None:
        pass

    def user_event(self, event: UserEvent) -> None:
        pass

    def refute(self) -> None:
        pass

    def prune_leaving(self, name: str) -> None:
        self._pool.common.erase(name)

    def ended(self) -> None:
        pass


class Pool:
    """
    Nodes that have joined each other.

    :ivar common: what one of them knows that hears of everything at once.
    """

    def __init__(self, agenda: Agenda) -> None:
        self.common = Knowledge(None, _Nobody(self, agenda))


class Network:
    """
    All the nodes, in one pool or in several.

    :param clock: the time of everything.
    :param seed: of all that is random; None for another run each time.
    :ivar agents: by name, those that are down too.
    :ivar detection: seconds until a node that can't be reached counts as failed.
    """

    def __init__(self, clock: IReactorTime, seed: int | None) -> None:
        self.agenda = Agenda(clock)
        self.rng = random.Random(seed)
        self.agents: dict[str, EmbeddedAgent] = {}
        self.detection = 1.0
        self.watched: dict[AgentProcess, None] = {}
        self._by_bind: dict[tuple[str, int], EmbeddedAgent] = {}
        self._sides: dict[str, int] = {}
        self._cut_at = 0.0
        self._last_client = 32767
        # Under a Clock the date is the clock's, so that two runs are the same.
        self._start = datetime(1970, 1, 1)
        if IReactorCore.providedBy(clock):
            self._start = datetime.now() - timedelta(seconds=clock.seconds())

    def date(self) -> str:
        """Return the time as a line of an agent's log has it."""
        return f"{self._start + timedelta(seconds=self.agenda.seconds()):%Y/%m/%d %H:%M:%S}"

    # -- who is there

    def add(self, agent: EmbeddedAgent) -> None:
        self.agents[agent.name] = agent
        self._by_bind[str(agent.address), agent.port] = agent

    def client_address(self) -> IPv4Address:
        """Return another address for the client's end of a connection in memory."""
        self._last_client = 32768 + (self._last_client - 32767) % 28232
        return IPv4Address("TCP", "127.0.0.1", self._last_client)

    def at(self, host: str, port: int) -> EmbeddedAgent | None:
        """Return the agent that gossips at an address."""
        return self._by_bind.get((host, port))

    def processes_of(self, pool: Pool) -> Iterable[AgentProcess]:
        """Return those that run and have joined each other, in order of their adding."""
        for agent in tuple(self.agents.values()):
            if agent.process is not None and agent.process.pool is pool:
                yield agent.process

    def ended(self, process: AgentProcess) -> None:
        """A process is no more."""
        self.watched.pop(process, None)
        process.agent.process_ended(process, self.agenda.seconds())
        self.look_for_the_unreachable()

    # -- who reaches whom

    def connected(self, one: AgentProcess, other: AgentProcess) -> bool:
        """Say whether the network between two nodes is whole."""
        return self._sides.get(one.name, 0) == self._sides.get(other.name, 0)

    def send(self, sender: AgentProcess, target: AgentProcess, call: Callable[[], None]) -> None:
        """Have *call* called at the target when a message gets there, or never."""
        if not sender.running or not self.connected(sender, target):
            return
        delay = sender.agent.place.delay_to(target.agent.place)
        self.agenda.later(delay, lambda: target.receive(call))

    def coordinate(self, process: AgentProcess, name: str) -> Coordinate | None:
        """Return where a node lies as another one knows it; None where it does not."""
        agent = self.agents.get(name)
        if agent is None or name not in process.knowledge.members:
            return None
        other = agent.process
        measured = process.coordinate_known() and (other is None or other.coordinate_known())
        if measured:
            return agent.place.coordinate
        return UNMEASURED if other is process else None

    def partition(self, sides: Iterable[Iterable[str]]) -> None:
        """Let nodes of different sides not reach each other; all that are on none are together."""
        self._sides = {name: number for number, names in enumerate(sides, 1) for name in names}
        self._cut_at = self.agenda.seconds()
        self.look_for_the_unreachable()

    def heal(self) -> None:
        """Let all reach each other."""
        self._sides = {}
        self.reunite()

    # -- failures

    def look_for_the_unreachable(self) -> None:
        """Look for failed nodes when what happens now is long enough ago."""
        self.agenda.later(self.detection, self._sweep)

    def _sweep(self) -> None:
        then = self.agenda.seconds() - self.detection + _EPSILON
        for process in tuple(self.watched):
            if not process.frozen:
                for name in tuple(process.knowledge.present):
                    since = self._unreachable_since(process, name)
                    if since is not None and since <= then:
                        process.knowledge.dead(name)
        for pool in self._pools():
            for name in tuple(pool.common.present):
                gone = self._away_since(name)
                if gone is not None and gone <= then:
                    pool.common.dead(name)

    def _pools(self) -> set[Pool]:
        return {agent.process.pool for agent in self.agents.values() if agent.process is not None}

    def _away_since(self, name: str) -> float | None:
        """Return since when a node does not answer anybody."""
        agent = self.agents[name]
        return agent.stopped_at if agent.process is None else agent.process.frozen_at

    def _unreachable_since(self, process: AgentProcess, name: str) -> float | None:
        """Return since when a node does not answer another one."""
        since = self._away_since(name)
        other = self.agents[name].process
        if since is None and other is not None and not self.connected(process, other):
            since = self._cut_at
        return since

    def reunite(self) -> None:
        """Have those find each other again that reach each other again."""
        for process in tuple(self.watched):
            if process.frozen:
                continue
            met: set[int] = set()
            for other in self.processes_of(process.pool):
                if other is process or other.frozen or not self.connected(process, other):
                    continue
                if other.name not in process.knowledge.present:
                    # It hears that it is taken for dead, and says that it is not.
                    other.agent.incarnation += 1
                    record = other.record
                    other.broadcast(lambda knowledge, record=record: knowledge.alive(record))  # type: ignore[misc]
                    if id(other.knowledge) not in met:
                        met.add(id(other.knowledge))
                        self._catch_up(process, other)

    def _catch_up(self, process: AgentProcess, other: AgentProcess) -> None:
        """Have a node hear from another one what it has missed."""
        knowledge = other.knowledge
        other.send(process, lambda: process.knowledge.merge(knowledge))

    # -- joining

    def merge(self, joiner: AgentProcess, target: AgentProcess, *, replay: bool) -> None:
        """Have two nodes join, and with them all that those have joined."""
        ours, theirs = joiner.pool, target.pool
        before = {id(side): tuple(self.processes_of(side)) for side in (ours, theirs)}
        joiner.knowledge.merge(target.knowledge, ignore_old=not replay)
        if target.watched:
            target.knowledge.merge(joiner.knowledge)
        if ours is theirs:
            return
        theirs.common.merge(ours.common)
        for side, others in ((ours, theirs), (theirs, ours)):
            for process in before[id(side)]:
                process.pool = theirs
                if process.watched and process is not joiner and process is not target:
                    for other in before[id(others)]:
                        record = other.record
                        other.send(process, lambda p=process, r=record: p.knowledge.alive(r))  # type: ignore[misc]
