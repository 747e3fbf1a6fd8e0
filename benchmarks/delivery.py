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
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.python.failure import Failure

import txserf
from benchmarks import go
from benchmarks.harness import Sample, Setting, Subject, Table, Turn
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


def measure(setting: Setting) -> Iterator[Turn]:
    with ExitStack() as stack:
        followers = {"Serf, callback": Follower(sys.executable, "-m", "benchmarks.delivery", setting.address)}
        if not go.missing():
            followers[f"{go.ROW}, stream"] = Follower(go.client(), "stream", setting.address, "user")
        for follower in followers.values():
            stack.callback(follower.close)
        while True:
            times: dict[str, list[float]] = {row: [] for row in followers}
            for number in range(setting.number(EVENTS)):
                name = f"event-{number}"
                start = send(setting.address, name)
                for row, follower in followers.items():
                    times[row].append((follower.came_at(name) - start) / 1e6)
            yield [
                Sample(value, "ms", row=f"{row}: {what}")
                for row, each in times.items()
                for what, value in (
                    ("median", statistics.median(each)),
                    ("p99", statistics.quantiles(each, n=100)[-1]),
                )
            ]


TABLE = Table(
    "delivery",
    "an event from the start of the serf program until it is there",
    (Subject("Serf, callback", measure),),
    base=f"{go.ROW}, stream: median",
    agents=1,
)


# -- the process of a `Serf`


class Input(Protocol):
    """Standard input, whose end is awaited."""

    def __init__(self) -> None:
        self.over: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over.callback(None)


async def follow(reactor: Any, address: str) -> None:
    def came(event: object) -> None:
        at = time.time_ns()
        assert isinstance(event, txserf.UserEvent)
        os.write(1, f"{at} {event.name}\n".encode())

    async with txserf.Serf(address, heartbeat=None) as serf:
        stream = serf.stream("user").add_callback(came)
        await stream.when_active()
        os.write(1, b"active\n")
        standard_input = Input()
        StandardIO(standard_input)
        await standard_input.over


if __name__ == "__main__":
    react(follow, sys.argv[1:])
