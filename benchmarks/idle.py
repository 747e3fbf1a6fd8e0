"""The memory of a connected `Serf` that does nothing, and how memory and time grow with the number of connections."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncIterator

from twisted.internet.defer import gatherResults

import txserf
from benchmarks.harness import Measure, Sample, Setting, Stopwatch, Subject, Table, Turn

IDLE = 100
SIZES = (1, 10, 100, 1_000)


async def connected(address: str, number: int) -> list[txserf.Serf]:
    serfs = [txserf.Serf(address) for _ in range(number)]
    for serf in serfs:
        serf.startService()
    await gatherResults([serf.ping() for serf in serfs])
    return serfs


async def close(serfs: list[txserf.Serf]) -> None:
    await gatherResults([serf.close() for serf in serfs])


async def memory(setting: Setting) -> AsyncIterator[Turn]:
    number = setting.number(IDLE)
    await close(await connected(setting.address, 1))
    while True:
        gc.collect()
        tracemalloc.start()
        serfs = await connected(setting.address, number)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        await close(serfs)
        yield [Sample(used / number / 1024, "KiB")]


def grown(sizes: tuple[int, ...]) -> Measure:
    """Return how to measure calls of ``ping``, one on each of so many connections at the same time."""

    async def measure(setting: Setting) -> AsyncIterator[Turn]:
        connections = {size: await connected(setting.address, size) for size in map(setting.number, sizes)}
        while True:
            turn = []
            for size, serfs in connections.items():
                rounds = max(1, 1_000 // size)
                watch = Stopwatch()
                for _ in range(rounds):
                    await gatherResults([serf.ping() for serf in serfs])
                calls = rounds * size
                turn.append(
                    Sample(watch.seconds() / calls * 1e6, "us", watch.cpu() / calls, "Serf.ping()", size)
                )
            yield turn

    return measure


TABLE = Table(
    "idle", f"the memory of a connected, idle Serf, of {IDLE}", (Subject("Serf", memory),), agents=1
)
GROWTH = Table(
    "growth-connections",
    "the time of a ping, one on each connection at the same time",
    (Subject("Serf", grown(SIZES)),),
    base="10",
    agents=1,
    growth="connections",
)
