"""Calls of ``members`` a second, on an agent with two members: many in flight, and one at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import clientFromString, connectProtocol

import txserf
from benchmarks import go, limit
from benchmarks.bare import Bare, StraightLine
from benchmarks.decoding import nothing_known
from benchmarks.harness import Measure, Setting, Stopwatch, Subject, Table, Turn, without

Call = Callable[[], Awaitable[Any]]


async def flights(call: Call, in_flight: int, seconds: float) -> Turn:
    """Keep *in_flight* calls under way, each followed by the next one."""
    watch, done = Stopwatch(), 0

    async def lane() -> None:
        nonlocal done
        while watch.seconds() < seconds:
            await call()
            done += 1

    await gatherResults([Deferred.fromCoroutine(lane()) for _ in range(in_flight)])
    return [watch.rate(done)]


def bare(kind: type[Bare]) -> Callable[[str], AbstractAsyncContextManager[Call]]:
    """Return what connects a protocol that is not txserf's."""

    @asynccontextmanager
    async def connected(address: str) -> AsyncIterator[Call]:
        from twisted.internet import reactor

        connection = await connectProtocol(clientFromString(reactor, f"tcp:{address}"), kind())
        await connection.call("handshake", {"Version": 1}, False)
        yield lambda: connection.call("members", None, True)
        connection.transport.loseConnection()

    return connected


@asynccontextmanager
async def protocol(address: str) -> AsyncIterator[Call]:
    factory = txserf.SerfClientFactory(address, heartbeat=None)
    factory.start()
    connection = await factory.when_connected()
    yield lambda: connection.call("members")
    await factory.disconnect()


@asynccontextmanager
async def client(address: str) -> AsyncIterator[Call]:
    async with txserf.Client(address, heartbeat=None) as face:
        await face.connect().when_connected()
        yield lambda: face.members().request()


@asynccontextmanager
async def serf(address: str) -> AsyncIterator[Call]:
    async with txserf.Serf(address, heartbeat=None) as face:
        await face.ping()
        yield face.members


@asynccontextmanager
async def serf_of_new_members(address: str) -> AsyncIterator[Call]:
    """Connect a `Serf` to which the members of each reply are new."""
    with nothing_known():
        async with serf(address) as call:
            yield call


def in_flight(number: int, connected: Callable[[str], Any]) -> Measure:
    """Return how to measure *number* calls under way at the same time."""

    async def measure(setting: Setting) -> AsyncIterator[Turn]:
        async with connected(setting.address) as call:
            while True:
                yield await flights(call, number, setting.seconds)

    return measure


def batches(number: int) -> Measure:
    """Return how to measure a `Client` that requests *number* calls at a time."""

    async def measure(setting: Setting) -> AsyncIterator[Turn]:
        async with txserf.Client(setting.address, heartbeat=None) as face:
            while True:
                watch, done = Stopwatch(), 0
                while watch.seconds() < setting.seconds:
                    for _ in range(number):
                        face.members()
                    await face.request()
                    done += number
                yield [watch.rate(done)]

    return measure


def serfclient(setting: Setting) -> Iterator[Turn]:
    from serfclient.client import SerfClient

    host, _, port = setting.address.rpartition(":")
    face = SerfClient(host=host, port=int(port))
    while True:
        watch, done = Stopwatch(), 0
        while watch.seconds() < setting.seconds:
            face.members()
            done += 1
        yield [watch.rate(done)]


def subjects(number: int) -> tuple[Subject, ...]:
    """Return all that can keep *number* calls in flight."""
    return (
        Subject(limit.ROW, lambda setting: limit.members(setting, number), ours=False),
        Subject(
            go.ROW,
            program=lambda setting: [
                go.client(),
                "members",
                setting.address,
                str(number),
                str(setting.seconds),
            ],
            ours=False,
            missing=go.missing,
        ),
        Subject("bare protocol", in_flight(number, bare(Bare)), ours=False),
        Subject("straight-line code", in_flight(number, bare(StraightLine)), ours=False),
        Subject("SerfProtocol", in_flight(number, protocol)),
        Subject("Client", in_flight(number, client)),
        Subject("Serf", in_flight(number, serf)),
        Subject("Serf, new members", in_flight(number, serf_of_new_members)),
    )


MANY = 64
IN_FLIGHT = Table(
    "members",
    f"members of two, {MANY} in flight",
    (*subjects(MANY), Subject(f"Client, {MANY} in a request()", batches(MANY))),
    base=go.ROW,
    agents=2,
)
ONE = Table(
    "one",
    "members of two, one at a time",
    (*subjects(1), Subject("serfclient", serfclient, ours=False, missing=without("serfclient"))),
    base=go.ROW,
    agents=2,
)


def on_reactors(number: int) -> tuple[Subject, ...]:
    return tuple(
        Subject(
            f"{name}, {reactor}",
            in_flight(number, connected),
            reactor=reactor,
            missing=without("uvloop") if reactor == "uvloop" else str,
        )
        for name, connected in (("SerfProtocol", protocol), ("Serf", serf))
        for reactor in ("epoll", "asyncio", "uvloop")
    )


REACTORS = Table("reactors", f"members of two, {MANY} in flight, by reactor", on_reactors(MANY), agents=2)
REACTORS_ONE = Table(
    "reactors-one", "members of two, one at a time, by reactor", on_reactors(1), "Serf, epoll", agents=2
)
