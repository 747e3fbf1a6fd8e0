"""Random stories of a cluster: at their end a view has what its agent has, and its changes led there."""

from __future__ import annotations

import unittest

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.cluster.view_case import Replay
from txserf.cluster.view import ClusterView
from txserf.embedded import EmbeddedCluster
from txserf.errors import SerfError
from txserf.model import Member
from txserf.serf.serf import Serf

AGENTS = ["n1", "n2", "n3"]  # of the view
NODES = [*AGENTS, "n4", "n5"]
RESYNC = 40.0


def has_a_role(value: str | None) -> bool:
    return value is not None


class ViewMachine(RuleBasedStateMachine):
    """Nodes join, fail, leave and change their tags, and connections are lost, at any point."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cluster = EmbeddedCluster(self.clock, nodes=len(NODES), seed=1)
        self.serf = self.new_serf(*AGENTS)
        self.of_nodes = {name: self.new_serf(name) for name in NODES}
        self.view = ClusterView(self.serf, resync=RESYNC)
        self.replay = Replay()
        self.view.on_change(self.replay)
        self.part = ClusterView(self.serf, status="alive", tags={"role": has_a_role}, resync=None)
        self.part_replay = Replay()
        self.part.on_change(self.part_replay)
        for view in (self.view, self.part):
            view.startService()

    def new_serf(self, *names: str) -> Serf:
        serf = Serf([self.cluster.agents[name].endpoint() for name in names], reactor=self.clock)
        serf.factory.jitter = 0
        serf.factory.maxDelay = 2.0
        return serf

    def run_for(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        while True:
            due = [call.getTime() for call in self.clock.getDelayedCalls()]
            if not due or min(due) > end:
                break
            self.clock.advance(max(0.0, min(due) - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    def ignore(self, asked: Deferred[None]) -> None:
        asked.addErrback(lambda failure: failure.trap(SerfError))

    # -- what may happen

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 1.0, 1.1, 2.5, 4.0, 12.0, RESYNC]))
    def time_passes(self, seconds: float) -> None:
        self.run_for(seconds)

    @rule(name=st.sampled_from(NODES))
    def fail(self, name: str) -> None:
        self.cluster.fail(name)

    @rule(name=st.sampled_from(NODES))
    def recover(self, name: str) -> None:
        self.cluster.recover(name)

    @rule(name=st.sampled_from(NODES))
    def leave(self, name: str) -> None:
        self.cluster.leave(name)

    @rule(name=st.sampled_from(NODES), role=st.sampled_from(["web", "db", ""]))
    def set_tags(self, name: str, role: str) -> None:
        if self.cluster.agents[name].running:
            tags, delete = ({"role": role}, ()) if role else ({}, ("role",))
            self.ignore(self.of_nodes[name].set_tags(tags, delete=delete, timeout=2.0))

    @rule(name=st.sampled_from(NODES), prune=st.booleans())
    def force_leave(self, name: str, prune: bool) -> None:
        self.ignore(self.serf.force_leave(name, prune=prune, timeout=2.0))

    @rule(name=st.sampled_from(AGENTS))
    def drop_connections(self, name: str) -> None:
        self.cluster.agents[name].drop_connections()

    @rule(name=st.sampled_from(AGENTS))
    def pause(self, name: str) -> None:
        self.cluster.agents[name].pause()

    @rule(name=st.sampled_from(AGENTS))
    def resume(self, name: str) -> None:
        self.cluster.agents[name].resume()

    @rule(side=st.lists(st.sampled_from(NODES), unique=True))
    def partition(self, side: list[str]) -> None:
        self.cluster.partition(side)

    @rule()
    def heal(self) -> None:
        self.cluster.heal()

    @rule()
    def restart(self) -> None:
        self.view.stopService()
        self.view.startService()

    @precondition(lambda self: not self.view.stale)
    @rule()
    def ask_at_once(self) -> None:
        """A reading under way is no hindrance to another one."""
        self.ignore(self.serf.members().addCallback(lambda _: None))

    # -- what has to hold

    @invariant()
    def the_index_is_right(self) -> None:
        members = list(self.view.members.values())
        assert [member.name for member in members] == sorted(member.name for member in members)
        for role in ("web", "db"):
            found = [m for m in members if m.status == "alive" and m.tags.get("role") == role]
            assert self.view.select(role=role) == found

    def teardown(self) -> None:
        for agent in self.cluster.agents.values():
            agent.resume()
        self.cluster.heal()
        self.run_for(10.0)  # one may be leaving
        self.cluster.recover("n1")
        self.run_for(30.0)
        asked: list[list[Member] | Failure] = []
        before = self.view.repairs
        self.run_for(2 * RESYNC)
        self.serf.members().addBoth(asked.append)
        self.run_for(0.5)
        (found,) = asked
        assert isinstance(found, list), found
        assert not self.view.stale
        assert dict(self.view.members) == {member.name: member for member in found}
        assert self.replay.members == self.view.members
        # The other one reads them only after a loss.
        for agent in self.cluster.agents.values():
            agent.drop_connections()
        self.run_for(10.0)
        self.serf.members().addBoth(asked.append)
        self.run_for(0.5)
        found = asked[-1]
        assert isinstance(found, list), found
        alive = {m.name: m for m in found if m.status == "alive" and "role" in m.tags}
        assert dict(self.part.members) == alive == self.part_replay.members
        assert self.view.repairs - before <= len(NODES)  # each is mended once
        # Nothing is left.
        self.view.stopService()
        self.part.stopService()
        for serf in (self.serf, *self.of_nodes.values()):
            serf.close()
        self.run_for(10.0)
        assert [call for call in self.clock.getDelayedCalls() if "Agenda" not in str(call)] == []


class ViewStories(ViewMachine.TestCase):  # type: ignore[misc, valid-type]  # hypothesis makes the class
    settings = settings(
        max_examples=25,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


assert issubclass(ViewStories, unittest.TestCase)
