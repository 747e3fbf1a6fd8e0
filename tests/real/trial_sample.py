"""
A sample of a test that users of txserf may write: trial, a real agent, a `Client`.

`test_trial_sample` runs it with trial, which fails a test that leaves anything in the reactor.
"""

from __future__ import annotations

import contextlib

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.agents import cluster
from txserf import Client, StopReceiveData
from txserf.client.requests import Response


async def deploy(client: Client, version: str) -> int:
    """Send all members an event with the new version, and return their number."""
    members, _ = await client.members(Status="alive").event(Name="deploy", Payload=version).request()
    return len(members.body["Members"])


class DeployTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        (self.agent,) = stack.enter_context(cluster(1))
        self.client = Client(self.agent.rpc, auto_reconnect=True)
        self.addCleanup(lambda: self.client.disconnect(wait=True).request())

    async def test_all_members_are_counted(self) -> None:
        self.assertEqual(await deploy(self.client, "v2"), 1)

    async def test_a_follower_of_the_events_gets_it(self) -> None:
        heard: Deferred[bytes] = Deferred()

        def hear(response: Response) -> None:
            if response.body is not None:
                heard.callback(response.body["Payload"])
                raise StopReceiveData

        watched = self.client.stream(Type="user:deploy").add_callback(hear).watch()
        await deploy(self.client, "v2")
        self.assertEqual(await heard, b"v2")
        await watched

    async def test_an_agent_that_is_restarted_is_used_again(self) -> None:
        self.assertEqual(await deploy(self.client, "v2"), 1)
        self.agent.restart()
        # This request notices the loss. It is a read, so it is sent again.
        await self.client.members().request(timeout=20)
        self.assertEqual(await deploy(self.client, "v3"), 1)
