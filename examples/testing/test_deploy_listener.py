"""
A test under trial that uses no socket and never waits.

Run it with ``trial ./test_deploy_listener.py``.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import txserf
from txserf.embedded import EmbeddedCluster


class DeployListener:
    """The code under test: it notes each deploy, even if an agent dies."""

    def __init__(self, serf: txserf.Serf) -> None:
        self.seen: list[bytes] = []
        self.events = serf.stream("user:deploy").add_callback(self.deployed)

    def deployed(self, event: object) -> None:
        assert isinstance(event, txserf.UserEvent)
        self.seen.append(event.payload)


class DeployListenerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = EmbeddedCluster(self.clock, nodes=2, seed=1)
        self.serf = txserf.Serf(self.cluster.endpoints(), reactor=self.clock)
        self.listener = DeployListener(self.serf)
        self.pass_time(0.1)
        self.successResultOf(self.listener.events.when_active())

    def pass_time(self, seconds: float) -> None:
        """Move the clock in small steps, so that the program and its agents can react."""
        self.clock.pump([0.01] * round(seconds / 0.01))

    def deploy(self, payload: bytes) -> Deferred[None]:
        return self.serf.event("deploy", payload, coalesce=False)

    def test_a_deploy_is_noted(self) -> None:
        deployed = self.deploy(b"v1")
        self.pass_time(0.5)
        self.successResultOf(deployed)
        self.assertEqual(self.listener.seen, [b"v1"])

    def test_a_deploy_is_noted_after_the_agent_died(self) -> None:
        self.cluster.fail("n1")
        self.pass_time(1.0)
        deployed = self.deploy(b"v2")
        self.pass_time(0.5)
        self.successResultOf(deployed)
        self.assertEqual(self.listener.seen, [b"v2"])
