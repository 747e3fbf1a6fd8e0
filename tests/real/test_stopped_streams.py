"""A stream is stopped while its agent sends many events. The records that still come affect nothing else."""

from __future__ import annotations

from typing import Any

import pytest

import txserf
from tests.agents import Agent
from tests.real.helpers import LIMIT, in_reactor
from txserf.connection import replies
from txserf.connection.protocol import SerfProtocol

# More events than fit into the sockets' buffers, so that the agent's queue for the stream is full.
_EVENTS, _AT_ONCE = 20_000, 200


async def flood(agent: Agent, events: int) -> None:
    """Send events over another connection."""
    async with txserf.Client(agent.rpc) as sender:
        for _ in range(events // _AT_ONCE):
            for _ in range(_AT_ONCE):
                sender.event(Name="e", Payload=b"x" * 400, Coalesce=False)
            responses = await sender.request(timeout=LIMIT)
            assert responses.is_success


async def opened(agent: Agent) -> tuple[txserf.SerfClientFactory, SerfProtocol]:
    """Return a factory and its open connection."""
    factory = txserf.SerfClientFactory(agent.rpc)
    factory.start()
    return factory, await factory.when_connected()


@pytest.mark.parametrize("remembered", [0, 1024])
@in_reactor
async def test_records_after_the_reply_to_a_stop_are_skipped(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, log: list[str], remembered: int
) -> None:
    """The decoder skips them even if the stopped Seq was forgotten, because it can tell a body from a header."""
    monkeypatch.setattr(replies, "_MOST_STOPPED", remembered)
    factory, protocol = await opened(agent)
    records: list[Any] = []
    reply = await protocol.call("stream", {"Type": "user"}, on_record=records.append)
    await protocol.call("stop", {"Stop": 2**40})  # after this round trip the agent has registered the stream
    assert protocol.transport is not None
    protocol.transport.pauseProducing()  # type: ignore[attr-defined]  # it is a TCP one
    await flood(agent, _EVENTS)
    stopped = protocol.call("stop", {"Stop": reply.seq}, timeout=LIMIT)
    others = [protocol.call("members", timeout=LIMIT) for _ in range(600)]
    await flood(agent, _AT_ONCE)  # now the agent has read the stop, and can't answer it yet
    protocol.transport.resumeProducing()  # type: ignore[attr-defined]
    await stopped
    before = len(records)
    for other in others:
        assert [member["Name"] for member in ((await other).body or {})["Members"]] == [agent.name]
    assert len(records) == before
    assert before > 512
    await factory.disconnect()
    # Whether records come behind the reply at all is up to the agent. A remembered Seq is never logged as a stray.
    strays = [text for text in log if "never sent" in text]
    assert not strays or remembered == 0, strays
