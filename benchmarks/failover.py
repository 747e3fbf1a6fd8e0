"""The time from the death of an agent to the first answer of the next one: both on the loopback interface."""

from __future__ import annotations

import contextlib
import signal
import statistics
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from twisted.internet.task import deferLater

import txserf
from benchmarks.harness import Sample, Setting, Stopwatch, Subject, Table, Turn
from tests.agents import Agent

DEATHS = 3  # of a turn
HELD = 1.1  # seconds before each: one that is lost sooner flaps, and the next dial waits


async def once(serf: txserf.Serf, agent: Agent) -> float:
    """Kill the agent that *serf* is connected to; return the seconds until another one has answered."""
    assert agent.process is not None
    watch = Stopwatch()
    agent.process.send_signal(signal.SIGKILL)
    # What was asked before the loss is noticed is asked again by itself.
    await serf.members()
    return watch.seconds()


async def measure(setting: Setting) -> AsyncIterator[Turn]:
    from twisted.internet import reactor

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        agents = [Agent(name, Path(folder), log_level="err") for name in ("n1", "n2")]
        for agent in agents:
            stack.callback(agent.kill)
            agent.start()
        async with txserf.Serf([agent.rpc for agent in agents], heartbeat=None) as serf:
            while True:
                times = []
                for _ in range(setting.number(DEATHS, small=1)):
                    await deferLater(reactor, HELD)
                    connection = serf.factory.open_connection
                    assert connection is not None
                    (connected,) = (each for each in agents if each.rpc == connection.host)
                    times.append(await once(serf, connected))
                    connected.restart()
                yield [Sample(statistics.median(times) * 1000, "ms")]


TABLE = Table(
    "failover", "an agent is killed: the time until the next one has answered", (Subject("Serf", measure),)
)
