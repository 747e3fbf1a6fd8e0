"""The time from the loss of a connection to the first answer of the next agent, on the loopback interface."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.task import deferLater

import txserf
from benchmarks.harness import Sample, Setting, Stopwatch, Subject, Table, Turn
from tests.agents import cluster

LOSSES = 3  # of a turn
HELD = 1.1  # seconds before each: a connection that is lost sooner flaps, and the next dial waits


async def once(serf: txserf.Serf) -> float:
    """Break the connection; return the seconds until another agent has answered."""
    connection = serf.factory.open_connection
    assert connection is not None and connection.transport is not None
    transport: Any = connection.transport
    watch = Stopwatch()
    transport.abortConnection()
    # A call before the loss is noticed is sent again by itself.
    await serf.members()
    seconds = watch.seconds()
    assert serf.factory.open_connection is not connection
    return seconds


async def measure(setting: Setting) -> AsyncIterator[Turn]:
    from twisted.internet import reactor

    with cluster(2, log_level="err") as agents:
        async with txserf.Serf([agent.rpc for agent in agents], heartbeat=None) as serf:
            while True:
                times = []
                for _ in range(setting.number(LOSSES, small=1)):
                    await serf.members()
                    await deferLater(reactor, HELD)
                    times.append(await once(serf))
                yield [Sample(statistics.median(times) * 1000, "ms")]


TABLE = Table(
    "failover",
    "a connection is lost: the time until the next agent has answered",
    (Subject("Serf", measure),),
)
