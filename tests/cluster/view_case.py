"""The base class for tests of views: an embedded cluster under a `Clock`, and a `Serf` for it."""

from __future__ import annotations

from typing import Any, TypeVar

from tests.embedded.helpers import ClusterTestCase
from txserf.cluster.changes import Change
from txserf.cluster.view import ClusterView
from txserf.model import Member
from txserf.serf.serf import Serf

T = TypeVar("T")


class Replay:
    """
    A function of `on_change` that replays the changes.

    :ivar told: the changes, in order.
    :ivar members: what they lead to.
    """

    def __init__(self) -> None:
        self.told: list[Change] = []
        self.members: dict[str, Member] = {}

    def __call__(self, old: Member | None, new: Member | None) -> None:
        change = Change(old, new)
        assert old != new
        assert self.members.get(change.name) == old, f"{change} behind {self.members.get(change.name)}"
        self.told.append(change)
        if new is None:
            del self.members[change.name]
        else:
            self.members[change.name] = new

    def take(self) -> list[tuple[str, str | None, str | None]]:
        """Return names with the old and the new status of the changes since the last call."""
        told, self.told = self.told, []
        return [
            (
                change.name,
                None if change.old is None else str(change.old.status),
                None if change.new is None else str(change.new.status),
            )
            for change in told
        ]


class ViewCase(ClusterTestCase):
    """
    A test with a cluster of three, a `Serf` for the agents ``n1`` and ``n2``, and views.

    A test that does not close its views and its `Serf` has that done at its end, and nothing may be left in the reactor.
    """

    def setUp(self) -> None:
        super().setUp()
        self.nodes = self.cluster(3)
        self.views: list[ClusterView] = []
        self.serf = self.new_serf("n1", "n2")

    def new_serf(self, *names: str) -> Serf:
        hosts = [self.nodes.agents[name].endpoint() for name in names]
        serf = Serf(hosts, reactor=self.clock, timeout=10.0)
        serf.factory.jitter = 0  # else it would wait after a loss
        self.addCleanup(self.end, serf)
        return serf

    def end(self, serf: Serf) -> None:
        stopped = [view.stopService() for view in self.views]
        closed = serf.close()
        self.run_for(0.5)
        for deferred in (*stopped, closed):
            self.successResultOf(deferred)
        self.run_for(10.0)  # the cluster's own calls, as long as anybody watched it
        ours = [call for call in self.clock.getDelayedCalls() if "Agenda" not in str(call)]
        self.assertEqual(ours, [], "timers are left")

    def view(self, **options: Any) -> ClusterView:
        """Return a new view that is not started."""
        view = ClusterView(self.serf, **options)
        self.views.append(view)
        return view

    def ready(self, **options: Any) -> ClusterView:
        """Return a view after its first snapshot."""
        view = self.view(**options)
        view.startService()
        return self.made_ready(view)

    def made_ready(self, view: ClusterView) -> ClusterView:
        ready = view.when_ready()
        self.run_for(0.2)
        self.assertIs(self.successResultOf(ready), view)
        return view

    def statuses_of(self, view: ClusterView) -> dict[str, str]:
        return {name: str(member.status) for name, member in view.members.items()}

    def agent_says(self, serf: Serf | None = None) -> dict[str, Member]:
        """Return the members as the agent has them now."""
        asked = (serf or self.serf).members()
        self.run_for(0.1)
        return {member.name: member for member in self.successResultOf(asked)}

    def set_tags(self, name: str, **tags: str) -> None:
        serf = Serf([self.nodes.agents[name].endpoint()], reactor=self.clock)
        done = serf.set_tags(tags)
        self.run_for(0.5)
        self.successResultOf(done)
        serf.close()
        self.run_for(0.1)
