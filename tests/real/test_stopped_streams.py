"""A stream that is stopped while its agent is flooded with events: what still comes for it harms nobody."""

from __future__ import annotations

from typing import Any

import pytest

import txserf
from tests.agents import Agent
from tests.real.helpers import LIMIT, in_reactor
from txserf.connection import replies
from txserf.connection.protocol import SerfProtocol

# Events that are more than the sockets' buffers hold, so that the agent's queue of the stream is full.
_EVENTS, _AT_ONCE = 20_000, 200


async def flood(agent: Agent, events: int) -> None:
    """Send events by another connection."""
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
async def test_records_behind_the_reply_of_a_stop_are_skipped(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, log: list[str], remembered: int
) -> None:
    """Also where the Seq was forgotten by then: a body is told from a header without it."""
    monkeypatch.setattr(replies, "_MOST_STOPPED", remembered)
    factory, protocol = await opened(agent)
    records: list[Any] = []
    reply = await protocol.call("stream", {"Type": "user"}, on_record=records.append)
    await protocol.call("stop", {"Stop": 2**40})  # the stream is registered behind this
    assert protocol.transport is not None
    protocol.transport.pauseProducing()  # type: ignore[attr-defined]  # it is a TCP one
    await flood(agent, _EVENTS)
    stopped = protocol.call("stop", {"Stop": reply.seq}, timeout=LIMIT)
    others = [protocol.call("members", timeout=LIMIT) for _ in range(600)]
    await flood(agent, _AT_ONCE)  # the agent has read the stop by then, and can't answer it yet
    protocol.transport.resumeProducing()  # type: ignore[attr-defined]
    await stopped
    before = len(records)
    for other in others:
        assert [member["Name"] for member in ((await other).body or {})["Members"]] == [agent.name]
    assert len(records) == before
    assert before > 512
    await factory.disconnect()
    strays = [text for text in log if "never sent" in text]
    assert bool(strays) is (remembered == 0), strays
