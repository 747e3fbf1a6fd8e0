"""
The time of one call of `Serf`, with up to 100,000 calls outstanding.

Run it on a real agent: ``python -m tests.agents -n 1 -- python benchmarks/outstanding.py``.

All calls of a round are under way before the first is answered. Each has its own timeout and
can be cancelled. ``called`` is the time to make them, ``answered`` the time until all have
their answers, each divided by the number of calls; ``timers`` is the reactor's number of timers
at that time. While objects are added, Python's garbage collector looks at all of them again and
again, which slows any program with so many Deferreds. So the second half has the times without
it. At the end all calls of the largest round are cancelled, and one more call is answered.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from time import perf_counter
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater, react

import txserf


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument(
        "--outstanding", default="100,1000,10000,100000", help="numbers of calls, with commas"
    )
    parser.add_argument("--calls", type=int, default=100_000, help="calls in all, for each of these numbers")
    return parser.parse_args()


class Round:
    """Calls that are outstanding together."""

    def __init__(self, serf: txserf.Serf, number: int) -> None:
        self.left = number
        self.answered: Deferred[None] = Deferred()
        self.cancelled = 0
        start = perf_counter()
        self.calls = [serf.coordinate("nobody", timeout=600).addBoth(self._fired) for _ in range(number)]
        self.calling = perf_counter() - start

    def _fired(self, result: Any) -> None:
        self.cancelled += result is not None and result.check(CancelledError) is not None
        assert result is None or self.cancelled, result
        self.left -= 1
        if not self.left:
            self.answered.callback(None)


async def main(reactor: Any, options: argparse.Namespace) -> None:
    numbers = [int(number) for number in options.outstanding.split(",")]
    async with txserf.Serf(heartbeat=None) as serf:
        await serf.ping()
        for collecting in (True, False):
            (gc.enable if collecting else gc.disable)()
            print(f"garbage collector {'on' if collecting else 'off'}")
            print(f"{'outstanding':>11}{'called':>14}{'answered':>14}{'in all':>14}{'timers':>9}")
            for number in numbers:
                calling, answering = [], []
                for _ in range(max(3, options.calls // number)):
                    gc.collect()
                    start = perf_counter()
                    calls = Round(serf, number)
                    timers = len(reactor.getDelayedCalls())
                    await calls.answered
                    calling.append(calls.calling / number)
                    answering.append((perf_counter() - start - calls.calling) / number)
                called, answered = (statistics.median(times) * 1e6 for times in (calling, answering))
                print(
                    f"{number:11,}{called:11.1f} us{answered:11.1f} us{called + answered:11.1f} us{timers:9}",
                    flush=True,
                )
            print()
        calls = Round(serf, numbers[-1])
        start = perf_counter()
        for call in calls.calls:
            call.cancel()
        spent = (perf_counter() - start) / numbers[-1]
        assert calls.cancelled == numbers[-1]
        await serf.ping(timeout=600)
        print(f"cancelled {numbers[-1]:,} of them in {spent * 1e6:.1f} us each; the connection is good")
        await deferLater(reactor, 0)


if __name__ == "__main__":
    react(main, [options()])
