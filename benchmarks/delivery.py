"""
The time from the start of the ``serf`` program, which sends an event, until a callback has it.

The agent sends each event to both at the same time: to a `Serf` and to Serf's Go client, each in a process of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.python.failure import Failure

import txserf
from benchmarks import go
from benchmarks.bare import Bare
from benchmarks.harness import Measure, Sample, Setting, Subject, Table, Turn
from tests.agents import serf_binary

EVENTS = 100  # of a turn


class Follower:
    """A process that prints the time of each event, as ``client stream`` does."""

    def __init__(self, *argv: str) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._line() == "active"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def came_at(self, name: str) -> int:
        """Wait for an event, and return its time in nanoseconds since 1970."""
        at, _, found = self._line().partition(" ")
        assert found == name, f"the event is {found}, not {name}"
        return int(at)

    def close(self) -> None:
        self._process.communicate()


def send(address: str, name: str) -> int:
    """Send an event with the ``serf`` program, and return the time at which that was started."""
    start = time.time_ns()
    subprocess.run(
        [str(serf_binary()), "event", f"-rpc-addr={address}", "-coalesce=false", name],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return start


SERF, BARE, GO = "Serf, callback", "bare protocol", f"{go.ROW}, stream"


def beside_go(row: str, *shown: str) -> Measure:
    """Return how to measure the follower *row* beside Serf's Go client, and give the figures of the rows *shown*."""

    def measure(setting: Setting) -> Iterator[Turn]:
        with ExitStack() as stack:
            # An event of its own: the agent sends it to no other row's followers.
            name = "bare" if row == BARE else "typed"
            argv = (sys.executable, "-m", "benchmarks.delivery", row, setting.address, name)
            followers = {row: Follower(*argv)}
            if not go.missing():
                followers[GO] = Follower(go.client(), "stream", setting.address, f"user:{name}")
            for follower in followers.values():
                stack.callback(follower.close)
            while True:
                times: dict[str, list[float]] = {each: [] for each in followers}
                for _ in range(setting.number(EVENTS)):
                    start = send(setting.address, name)
                    for each, follower in followers.items():
                        times[each].append((follower.came_at(name) - start) / 1e6)
                yield [
                    Sample(value, "ms", row=f"{each}: {what}")
                    for each in followers
                    if each in shown
                    for what, value in (
                        ("median", statistics.median(times[each])),
                        ("p99", statistics.quantiles(times[each], n=100)[-1]),
                    )
                ]

    return measure


TABLE = Table(
    "delivery",
    "an event from the start of the serf program until it is there",
    (
        Subject(SERF, beside_go(SERF, SERF, GO)),
        Subject(BARE, beside_go(BARE, BARE), ours=False),
    ),
    base=f"{GO}: median",
    agents=1,
)


# -- the process that follows


class Input(Protocol):
    """Standard input, whose end is awaited."""

    def __init__(self) -> None:
        self.over: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over.callback(None)


async def told_to_end() -> None:
    """Say that events will be shown, and wait for the end of standard input."""
    os.write(1, b"active\n")
    standard_input = Input()
    StandardIO(standard_input)
    await standard_input.over


def came(name: object) -> None:
    os.write(1, f"{time.time_ns()} {name}\n".encode())


class BareStream(Bare):
    """Prints each event of a stream."""

    async def open(self, name: str) -> None:
        await self.call("handshake", {"Version": 1}, False)
        await self.call("stream", {"Type": f"user:{name}"}, False)

    def dataReceived(self, data: bytes) -> None:
        if self.waiting:
            super().dataReceived(data)
            return
        self.unpacker.feed(data)
        for value in self.unpacker:
            if "Name" in value:
                came(value["Name"])


async def follow(reactor: Any, row: str, address: str, name: str) -> None:
    if row == BARE:
        connection = await connectProtocol(clientFromString(reactor, f"tcp:{address}"), BareStream())
        await connection.open(name)
        await told_to_end()
        return
    async with txserf.Serf(address, heartbeat=None) as serf:
        stream = serf.stream(f"user:{name}").add_callback(lambda event: came(getattr(event, "name", event)))
        await stream.when_active()
        await told_to_end()


if __name__ == "__main__":
    react(follow, sys.argv[1:])
