"""
All faults and fuzzers, by hand: for some minutes, with a table at the end.

    python -m tests.faults --minutes 10
    python -m tests.faults --seed 5 --only 'serf, cut' --run 17      one run again

Each row has its turn, again and again, until the time is over; the rows that cut at every byte
end when each byte had its turn. Exits with 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from tests import agents
from tests.faults.damage import Kind
from tests.faults.fuzz import FUZZERS
from tests.faults.programs import PROGRAMS
from tests.faults.runs import (
    AUTH_KEY,
    Report,
    collect_garbage,
    cut_run,
    places,
    random_memory_run,
    random_real_run,
)
from tests.faults.witness import Witness
from tests.faults.worlds import in_reactor

#: The kinds of fault that are tried at every byte.
EVERYWHERE = (Kind.CUT, Kind.RESET, Kind.HALF_CLOSE, Kind.SILENCE)

#: Runs on a real agent that go at the same time, for most of their time is waiting.
AT_ONCE = 12

#: Runs of a row in one turn.
TURN = 25

#: Makes a run by its number, or gives None behind the last.
Make = Callable[[int], Report | None]
MakeReal = Callable[[int], Awaitable[Report]]


@attrs.define
class Row:
    """A row of the table."""

    name: str
    make: Make | None = None
    make_real: MakeReal | None = None
    runs: int = 0
    operations: int = 0
    violations: int = 0
    failed_agents: int = 0
    over: bool = False

    def count(self, report: Report) -> None:
        if report.agent_failed:
            self.failed_agents += 1
            print(f"\n{self.name}: the agent failed, {report.agent_failed}", flush=True)
        self.runs += 1
        self.operations += report.operations
        if report.violations:
            self.violations += 1
            print(f"\n{self.name}, run {self.runs - 1}: {report}", flush=True)


def rows(seed: str, reactor: Any, agent: agents.Agent | None) -> Iterator[Row]:
    """Give the rows; those on a real agent only where there is one."""
    for face in PROGRAMS:
        for kind in EVERYWHERE:
            yield Row(f"{face}, {kind.value} at every byte", _everywhere(seed, face, kind))
    for face in PROGRAMS:
        for kind in (*Kind, None):
            title = "all kinds" if kind is None else kind.value
            yield Row(f"{face}, {title} at random", _at_random(seed, face, kind))
    for name, fuzzer in FUZZERS.items():
        yield Row(f"fuzzed: {name}", _fuzzed(seed, name, fuzzer))
    if agent is not None:
        for face in PROGRAMS:
            for kind in (*Kind, None):
                title = "all kinds" if kind is None else kind.value
                yield Row(f"{face}, {title}, a real agent", None, _real(seed, reactor, agent, face, kind))


def _everywhere(seed: str, face: str, kind: Kind) -> Make:
    order: list[Any] = []

    def make(number: int) -> Report | None:
        if not order:
            order.extend(places(face, [kind]))
            random.Random(seed).shuffle(order)
        return cut_run(face, *order[number]) if number < len(order) else None

    return make


def _at_random(seed: str, face: str, kind: Kind | None) -> Make:
    return lambda number: random_memory_run(face, kind, f"{seed}/{face}/{kind}/{number}")


def _fuzzed(seed: str, name: str, fuzzer: Callable[[str], Report]) -> Make:
    return lambda number: fuzzer(f"{seed}/{name}/{number}")


def _real(seed: str, reactor: Any, agent: agents.Agent, face: str, kind: Kind | None) -> MakeReal:
    return lambda number: random_real_run(reactor, agent, face, kind, f"{seed}/{face}/{kind}/{number}")


async def real_turn(reactor: Any, row: Row, numbers: range) -> None:
    """Make runs of a row at the same time, and see that nothing is left behind them in the reactor."""
    assert row.make_real is not None
    before = in_reactor(reactor)
    runs = [Deferred.fromCoroutine(_as_coroutine(row.make_real(number))) for number in numbers]
    for report in await gatherResults(runs, consumeErrors=True):
        row.count(report)
    # A socket that was closed a moment ago is gone in one of the next turns.
    for _ in range(50):
        left = in_reactor(reactor) - before
        if not left:
            return
        await _turn(reactor)
    row.violations += 1
    print(
        f"\n{row.name}, runs {numbers.start} to {numbers.stop - 1}: left in the reactor: {left}", flush=True
    )


async def _as_coroutine(thing: Awaitable[Report]) -> Report:
    return await thing


def _turn(reactor: Any) -> Deferred[None]:
    turned: Deferred[None] = Deferred()
    reactor.callLater(0.01, turned.callback, None)
    return turned


def memory_turn(row: Row, number: int) -> None:
    """Make some runs of a row."""
    assert row.make is not None
    witness = Witness(_NoTime())  # type: ignore[arg-type]  # it watches over the log only
    for each in range(number, number + TURN):
        report = row.make(each)
        if report is None:
            row.over = True
            break
        row.count(report)
    collect_garbage()
    witness.leave()
    for violation in witness.violations:
        row.violations += 1
        print(f"\n{row.name}, before run {row.runs}: {violation}", flush=True)


class _NoTime:
    def seconds(self) -> float:
        return 0.0


def table(all_rows: list[Row]) -> str:
    lines = [f"{'kind of fault':<44} {'runs':>8} {'operations':>11} {'violations':>11}"]
    lines += [
        f"{row.name:<44} {row.runs:>8,} {row.operations:>11,} {row.violations:>11,}{'  all' if row.over else ''}"
        for row in all_rows
    ]
    total = [sum(getattr(row, what) for row in all_rows) for what in ("runs", "operations", "violations")]
    lines.append(f"{'all':<44} {total[0]:>8,} {total[1]:>11,} {total[2]:>11,}")
    return "\n".join(lines)


async def work(reactor: Any, options: argparse.Namespace, agent: agents.Agent | None) -> list[Row]:
    chosen = [row for row in rows(options.seed, reactor, agent) if options.only in row.name]
    if not chosen:
        raise SystemExit(f"no row has {options.only!r} in its name")
    deadline, agents_restarted = time.monotonic() + 60 * options.minutes, 0
    await _turn(reactor)  # a reactor that has just begun adds a few readers of its own
    while time.monotonic() < deadline and not all(row.over for row in chosen):
        for row in chosen:
            if row.over or time.monotonic() > deadline:
                continue
            number = row.runs if options.run is None else options.run
            if row.make is not None and options.run is not None:
                report = row.make(number)
                assert report is not None, "there is no such run"
                row.count(report)
            elif row.make is not None:
                memory_turn(row, number)
                await _turn(reactor)
            else:
                count = AT_ONCE if options.run is None else 1
                await real_turn(reactor, row, range(number, number + count))
                if row.failed_agents and agent is not None:
                    agent.restart()
                    agents_restarted += 1
                    row.failed_agents = 0
            row.over = row.over or options.run is not None
    if agents_restarted:
        print(f"\nthe agent itself failed {agents_restarted} times, and was started again", flush=True)
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="of all that is random")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with this text in their names")
    parser.add_argument("--run", type=int, metavar="N", help="that one run of each row")
    parser.add_argument("--no-agents", action="store_true", help="no real agents")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    done: list[Row] = []

    async def run(reactor: Any, agent: agents.Agent | None = None) -> None:
        done.extend(await work(reactor, options, agent))

    def reacted(function: Any) -> None:
        try:
            react(lambda reactor: Deferred.fromCoroutine(function(reactor)))
        except SystemExit as ended:
            if ended.code:
                raise

    if options.no_agents:
        reacted(run)
    else:
        with agents.cluster(1, rpc_auth=AUTH_KEY) as (agent,):
            reacted(lambda reactor: run(reactor, agent))
    print(f"\n{table(done)}\nseed {options.seed}")
    return 1 if any(row.violations for row in done) else 0


if __name__ == "__main__":
    sys.exit(main())
