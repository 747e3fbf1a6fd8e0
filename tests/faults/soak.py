"""
A soak by hand: events, queries and calls for a long time, while agents are killed and connections break.

    python -m tests.faults.soak --minutes 30

A `Serf` with four streams and a `Client` with a watch share three real agents, each behind a `FaultProxy`.
Each minute the load stops until all calls have ended; then descriptors, objects and memory are counted.
Nothing of it may grow. Exits with 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.logger import globalLogBeginner

import txserf
from tests import agents
from tests.faults.damage import Fault, Kind, Way
from tests.faults.ledger import Ledger
from tests.faults.relay import FaultProxy, Plans
from tests.faults.runs import AUTH_KEY
from tests.faults.witness import Witness
from tests.faults.worlds import in_reactor, wait_until
from txserf import Gap

#: Kinds that are left when every byte means what it says; one that is slow would hold up the load for good.
KINDS = (Kind.CUT, Kind.RESET, Kind.HALF_CLOSE, Kind.SILENCE)

#: Seconds that a call may take, and until all have ended once nothing is asked any more.
CALL, QUIET = 10.0, 30.0

#: Seconds between two kills, and before a killed agent is started again.
KILLS, AWAY = 10.0, 2.0

#: Pieces that the load of a second comes in.
PIECES = 20


@attrs.define
class Sample:
    """
    A minute of it.

    :ivar sent: events that an agent has taken; *failed*: those that it may not have.
    :ivar delivered: events that the stream with gaps has delivered.
    :ivar connections: those that were made so far.
    :ivar objects: those that the garbage collector knows.
    :ivar rss: bytes of memory.
    """

    minute: float
    sent: int
    failed: int
    delivered: int
    gaps: int
    kills: int
    connections: int
    descriptors: int
    objects: int
    rss: int

    @staticmethod
    def heading() -> str:
        return (
            f"{'minute':>6} {'sent':>9} {'failed':>7} {'delivered':>9} {'gaps':>5} {'kills':>5} {'connections':>11} "
            f"{'descriptors':>11} {'objects':>9} {'MiB':>6}"
        )

    def __str__(self) -> str:
        return (
            f"{self.minute:>6.1f} {self.sent:>9,} {self.failed:>7,} {self.delivered:>9,} {self.gaps:>5} {self.kills:>5} "
            f"{self.connections:>11,} {self.descriptors:>11} {self.objects:>9,} {self.rss / 2**20:>6.1f}"
        )


def malloc_trim() -> None:
    """Give back to the system what was freed: only then does the size of the process say something."""
    ctypes.CDLL(None).malloc_trim(0)


def resident() -> int:
    """Return the bytes of memory that this process has."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Soak:
    """
    All of it.

    :param rate: events a second.
    :param kinds: the faults that connections have.
    :ivar kinds: for each minute, how many objects there are of each class.
    """

    def __init__(
        self,
        reactor: Any,
        cluster: list[agents.Agent],
        rate: int,
        rng: random.Random,
        kinds: Sequence[Kind],
    ) -> None:
        self.reactor, self.rng, self.rate, self._kinds_of_fault = reactor, rng, rate, kinds
        self.cluster = cluster
        self.witness = Witness(reactor, (AUTH_KEY,))
        self.ledger = Ledger()
        self.plans = Plans(reactor, self._faults, self.ledger)
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.seen: Counter[str] = Counter()
        self.under_way = 0
        self.kills = 0
        self.samples: list[Sample] = []
        self.kinds: list[Counter[str]] = []
        self._names = itertools.count()
        self._ports: list[Any] = []
        self._proxies: list[FaultProxy] = []
        self._clocks: list[LoopingCall] = []

    def _faults(self, number: int) -> list[Fault]:
        """Choose when a connection breaks: after some seconds, mostly."""
        kind = self.rng.choice(self._kinds_of_fault)
        return [Fault(kind, self.rng.choice(list(Way)), int(self.rng.expovariate(1 / 1_500_000)))]

    async def open(self) -> None:
        for agent in self.cluster:
            host, _, port = agent.rpc.rpartition(":")
            proxy = FaultProxy(self.plans, TCP4ClientEndpoint(self.reactor, host, int(port)))
            self._proxies.append(proxy)
            self._ports.append(self.reactor.listenTCP(0, proxy, interface="127.0.0.1"))
        hosts = [txserf.Host("127.0.0.1", port.getHost().port, AUTH_KEY) for port in self._ports]
        self.serf = txserf.Serf(hosts, reactor=self.reactor, timeout=CALL, connect_timeout=1.0, heartbeat=2.0)
        self.client = txserf.Client(
            hosts, auto_reconnect=True, reactor=self.reactor, connect_timeout=1.0, heartbeat=2.0
        )
        for factory in (self.serf.factory, self.client.factory):
            factory.maxDelay = 1
        self._call("events", self._read(self.serf.stream("user", gaps=True)))
        self.serf.stream("*").add_callback(lambda event: self.seen.update(["any event"]))
        self.serf.stream("query").add_callback(self._answer)
        self.serf.monitor("INFO").add_callback(lambda line: self.seen.update(["line"]))
        watch = self.client.stream(Type="user").add_callback(lambda response: self.seen.update(["response"]))
        self._call("watch", watch.watch())
        self._streams = self.under_way

    async def _read(self, stream: txserf.EventStream) -> None:
        async for event in stream:
            self.seen["gap" if isinstance(event, Gap) else "event"] += 1

    def _answer(self, event: Any) -> Deferred[Any]:
        answered: Deferred[Any] = event.respond(f"a{next(self._names)}".encode())
        return answered.addErrback(lambda failure: failure.trap(txserf.SerfError) and None)

    def _call(self, what: str, result: Any) -> None:
        """Count what becomes of something."""
        self.under_way += 1
        deferred: Deferred[Any] = result if isinstance(result, Deferred) else Deferred.fromCoroutine(result)

        def ended(value: Any) -> None:
            self.under_way -= 1
            error = getattr(value, "value", None)
            if isinstance(error, BaseException) and not isinstance(error, txserf.SerfError):
                self.witness.accuse(f"{what} failed with what is not ours: {error!r}")
            self.outcomes[what, type(error).__name__ if isinstance(error, BaseException) else "success"] += 1

        deferred.addBoth(ended)

    # The load

    def start(self) -> None:
        """Begin the load, or go on with it."""
        for function, interval in ((self._piece, 1 / PIECES), (self._calls, 1.0), (self._joins, 10.0)):
            clock = LoopingCall(function)
            clock.clock = self.reactor
            clock.start(interval)
            self._clocks.append(clock)

    async def quiet(self) -> None:
        """Stop the load, and wait until all calls have ended."""
        while self._clocks:
            self._clocks.pop().stop()
        if not await wait_until(self.reactor, lambda: self.under_way <= self._streams, QUIET):
            self.witness.accuse(f"{self.under_way - self._streams} calls have not ended {QUIET:g} s later")
        for change in self.ledger.sent_twice:
            self.witness.accuse(f"{change} was sent twice")
        self.ledger.changes.clear()

    def _piece(self) -> None:
        for _ in range(self.rate // PIECES // 2):
            self._call("event", self.serf.event(f"e{next(self._names)}", b"x" * 100, coalesce=False))
            event = self.client.event(Name=f"e{next(self._names)}", Payload=b"x" * 100, Coalesce=False)
            self._call("event", event.request(timeout=CALL))

    def _calls(self) -> None:
        serf, client = self.serf, self.client
        calls: dict[str, Callable[[], Any]] = {
            "members": serf.members,
            "filtered": lambda: serf.members(name="n.*"),
            "stats": serf.stats,
            "ping": serf.ping,
            "query": lambda: serf.query(f"q{next(self._names)}", timeout=0.5).when_done(),
            "fluent": lambda: client.members().stats().request(timeout=CALL),
            "fluent query": lambda: client.query(
                Name=f"q{next(self._names)}", Timeout=timedelta(seconds=0.5)
            ).request(timeout=CALL),
        }
        for name, call in calls.items():
            self._call(name, call())

    def _joins(self) -> None:
        self._call("join", self.serf.join([f"x{next(self._names)}/127.0.0.1:1"]))
        self._call("keys", self.serf.list_keys())

    async def kill(self) -> None:
        """Kill an agent, and start it again a moment later."""
        victim = self.rng.choice(self.cluster)
        victim.kill()
        self.kills += 1
        await deferLater(self.reactor, AWAY, lambda: None)
        # It blocks, for an agent ends with the thread that started it.
        victim.start(join=[other for other in self.cluster if other is not victim])

    # The measuring

    def sample(self, minute: float) -> Sample:
        gc.collect()
        malloc_trim()
        self.kinds.append(
            Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
        )
        sent = self.outcomes["event", "success"]
        failed = sum(number for (what, _), number in self.outcomes.items() if what == "event") - sent
        self.samples.append(
            Sample(
                minute,
                sent,
                failed,
                self.seen["event"],
                self.seen["gap"],
                self.kills,
                self.plans.made,
                len(os.listdir("/proc/self/fd")),
                len(gc.get_objects()),
                resident(),
            )
        )
        return self.samples[-1]

    async def close(self) -> None:
        await self.serf.close()
        self.client.disconnect()
        await self.client.disconnect(wait=True).request()
        for port in self._ports:
            await port.stopListening()
        ended = await wait_until(
            self.reactor, lambda: not any(proxy.connections for proxy in self._proxies), 5.0
        )
        if not ended or self.under_way:
            self.witness.accuse(f"at the end {self.under_way} calls are under way")
        self.witness.leave()


async def soak(reactor: Any, options: argparse.Namespace, cluster: list[agents.Agent]) -> Soak:
    """Go on for so many minutes, and print a line after each."""
    await deferLater(reactor, 0, lambda: None)  # it has just begun, and adds a few readers of its own
    before = in_reactor(reactor)
    kinds = [kind for kind in KINDS if kind.value not in options.without.split(",")]
    work = Soak(reactor, cluster, options.rate, random.Random(options.seed), kinds)
    await work.open()
    print(Sample.heading(), flush=True)
    begun = reactor.seconds()
    while reactor.seconds() - begun < 60 * options.minutes:
        work.start()
        minute_ends = reactor.seconds() + 60.0
        while reactor.seconds() < minute_ends:
            await deferLater(reactor, KILLS, lambda: None)
            await work.kill()
        await work.quiet()
        print(work.sample((reactor.seconds() - begun) / 60), flush=True)
    await work.close()
    if not await wait_until(reactor, lambda: in_reactor(reactor) <= before, 1.0):
        work.witness.accuse(f"left in the reactor: {in_reactor(reactor) - before}")
    return work


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.faults.soak", description="Events, kills and faults for a long time."
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    parser.add_argument("--rate", type=int, default=600, help="events a second (default: 600)")
    parser.add_argument("--without", default="", metavar="KINDS", help="faults to leave out, as silence,cut")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="of all that is random")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    # As in any program that logs: until then Twisted keeps what is logged, and with it what the events name.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    done: list[Soak] = []

    async def run(reactor: Any, cluster: list[agents.Agent]) -> None:
        done.append(await soak(reactor, options, cluster))

    with agents.cluster(3, rpc_auth=AUTH_KEY, log_level="err") as cluster:
        try:
            react(lambda reactor: Deferred.fromCoroutine(run(reactor, cluster)))
        except SystemExit as ended:
            if ended.code:
                raise
    (work,) = done
    print("\nwhat became of the calls:")
    for (what, outcome), number in sorted(work.outcomes.items()):
        print(f"  {what:<14} {outcome:<20} {number:>9,}")
    print("\nobjects that there are more of in the last minute than in the first:")
    for kind, number in (work.kinds[-1] - work.kinds[0]).most_common(12):
        print(f"  {kind:<60} {number:>9,}")
    print(f"\nviolations: {len(work.witness.violations)}")
    for violation in work.witness.violations[:50]:
        print(f"  {violation}")
    return 1 if work.witness.violations else 0


if __name__ == "__main__":
    sys.exit(main())
