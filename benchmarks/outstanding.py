"""
The time of one call of `Serf`, with up to 100,000 calls outstanding.

All calls of a round are under way before the first is answered. Each has its own timeout and can be cancelled.
While objects are added, Python's garbage collector looks at all of them again and again, which slows any program with
so many Deferreds. So each size is measured without it too.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import Deferred

import txserf
from benchmarks.harness import Sample, Setting, Stopwatch, Subject, Table, Turn

SIZES = (1, 10, 100, 1_000, 10_000, 100_000)
LEAST = 2_000  # calls of a turn, in as many rounds as that takes


class Round:
    """Calls that are outstanding together."""

    def __init__(self, serf: txserf.Serf, number: int) -> None:
        self.left = number
        self.answered: Deferred[None] = Deferred()
        self.calls = [serf.coordinate("nobody", timeout=600).addBoth(self._fired) for _ in range(number)]

    def _fired(self, result: Any) -> None:
        assert result is None, result
        self.left -= 1
        if not self.left:
            self.answered.callback(None)


async def sample(serf: txserf.Serf, number: int, collecting: bool) -> Sample:
    rounds = max(1, LEAST // number)
    gc.collect()
    (gc.enable if collecting else gc.disable)()
    watch = Stopwatch()
    for _ in range(rounds):
        await Round(serf, number).answered
    row = f"Serf.coordinate(), collector {'on' if collecting else 'off'}"
    calls = rounds * number
    found = Sample(watch.seconds() / calls * 1e6, "us", watch.cpu() / calls, row, number)
    gc.enable()
    return found


async def measure(setting: Setting) -> AsyncIterator[Turn]:
    async with txserf.Serf(setting.address, heartbeat=None) as serf:
        await serf.ping()
        sizes = sorted({setting.number(size) for size in SIZES})
        while True:
            yield [await sample(serf, size, collecting) for collecting in (True, False) for size in sizes]


TABLE = Table(
    "outstanding",
    "the time of a call, with this number outstanding",
    (Subject("Serf", measure),),
    base="100",
    agents=1,
    growth="calls",
)
