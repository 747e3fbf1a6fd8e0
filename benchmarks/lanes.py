"""
The time of a ``members`` call, with and without a join under way to addresses that hang.

The join has three addresses, each of a listener that accepts and stays silent. The agent waits for each until its
own timeout: 10 s with the profile ``lan``, 1 s with ``local``, as here. `Serf` sends joins over a connection of their
own. A plain pipelined client, here `SerfProtocol` alone, sends everything over one connection, and the agent works
through that in order.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

import txserf
from benchmarks.harness import Sample, Setting, Stopwatch, Subject, Table, Turn
from txserf.connection.exchange import Reply

CALLS = 500


class Silent(Protocol):
    """Reads everything an agent sends, and answers nothing."""

    factory: SilentFactory

    def connectionMade(self) -> None:
        self.factory.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        waiting, self.factory.waiting = self.factory.waiting, None
        if waiting is not None:
            waiting.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.remove(self)


class SilentFactory(Factory):
    protocol = Silent  # type: ignore[assignment]  # Twisted wants a callable of any Factory here

    def __init__(self) -> None:
        self.connections: list[Silent] = []
        self.waiting: Deferred[None] | None = None

    def heard(self) -> Deferred[None]:
        """Return a Deferred that fires when an agent has sent something, and waits for an answer."""
        self.waiting = Deferred()
        return self.waiting


@asynccontextmanager
async def hanging() -> AsyncIterator[tuple[list[str], SilentFactory]]:
    """Give addresses that hang, and their factory."""
    from twisted.internet import reactor

    silent = SilentFactory()
    port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(silent)
    yield [f"127.0.0.1:{port.getHost().port}"] * 3, silent
    for connection in silent.connections:
        connection.transport.abortConnection()  # type: ignore[union-attr]  # it is connected
    await port.stopListening()


async def median(row: str, call: Callable[[], Awaitable[object]], number: int) -> Sample:
    times = []
    for _ in range(number):
        watch = Stopwatch()
        await call()
        times.append(watch.seconds() * 1000)
    return Sample(statistics.median(times), "ms", row=row)


async def of_serf(setting: Setting) -> AsyncIterator[Turn]:
    async with hanging() as (addresses, silent), txserf.Serf(setting.address) as serf:
        while True:
            calls = setting.number(CALLS)
            free = await median("Serf", serf.members, calls)
            heard = silent.heard()
            joining = serf.join(addresses, timeout=60)
            await heard
            hindered = await median("Serf, a join hangs", serf.members, calls)
            assert not joining.called, "the join was over too early"
            await joining.addErrback(lambda failure: failure.trap(txserf.JoinError))
            yield [free, hindered]


async def of_plain_client(setting: Setting) -> AsyncIterator[Turn]:
    factory = txserf.SerfClientFactory(setting.address)
    factory.start()
    plain = await factory.when_connected()

    def members() -> Deferred[Reply]:
        return plain.call("members")

    async with hanging() as (addresses, _):
        while True:
            free = await median("plain pipelined client", members, setting.number(CALLS))
            hung = plain.call("join", {"Existing": addresses, "Replay": False})
            hindered = await median("plain pipelined client, a join hangs", members, 1)
            await hung
            yield [free, hindered]


TABLE = Table(
    "lanes",
    "the median of members calls one at a time, with and without a join that hangs",
    (Subject("Serf", of_serf), Subject("plain pipelined client", of_plain_client)),
    base="Serf",
    agents=1,
    rounds=3,
)
