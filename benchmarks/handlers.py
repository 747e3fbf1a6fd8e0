"""
Events a second through handlers: an empty Python function, compared with a script that does nothing.

One ``serf agent`` runs ``true`` as its event handler. On another agent a `Router` calls an empty function, and also
runs ``true``. Another process sends the events. It keeps some hundred under way: the agent's queue has room for 512,
and it drops the rest. The time is taken from the first event handled to the last. For the agent's own scripts a
stream shows it: the agent sends an event to the stream only after the script for the event before it has ended.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import txserf
from benchmarks.harness import Measure, Sample, Setting, Subject, Table, Turn
from benchmarks.limit import dialled
from tests.agents import Agent
from txserf import wire
from txserf.handlers.work import Observer, Outcome

AGENT, FUNCTION, SCRIPT = "serf agent, script", "txserf, function", "txserf, script"
EVENTS = {AGENT: 300, FUNCTION: 20_000, SCRIPT: 300}

# -- the process that sends

UNDER_WAY, STEP = 400, 100


def send(address: str, number: int) -> None:
    """Send events to an agent, the next hundred for each byte on standard input."""
    # All requests have one Seq, which the agent accepts. So all replies are equal, and counting bytes is enough.
    event = {"Name": "work", "Payload": None, "Coalesce": False}
    request = wire.pack({"Command": "event", "Seq": 1}) + wire.pack(event)
    reply = len(wire.pack({"Error": "", "Seq": 1}))
    with dialled(address) as agent:
        unread = 0
        for sent in range(0, number, STEP):
            os.read(0, 1)
            agent.sendall(request * STEP)
            unread += STEP * reply
            while unread > UNDER_WAY * reply or (sent + STEP == number and unread):
                unread -= len(agent.recv(65_536))


class Sender(ProcessProtocol):
    """The process that sends."""

    transport: Any

    def __init__(self, reactor: Any, address: str, number: int) -> None:
        self.ended: Deferred[None] = Deferred()
        argv = [sys.executable, "-m", "benchmarks.handlers", address, str(number)]
        reactor.spawnProcess(self, sys.executable, argv, os.environ, childFDs={0: "w", 1: 1, 2: 2})

    def connectionMade(self) -> None:
        self.transport.write(b"." * (UNDER_WAY // STEP))

    def go_on(self) -> None:
        self.transport.write(b".")

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


# -- the handlers


class Count(Observer):
    """Counts events, and keeps the times of the first and the last."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.count = 0
        self.first = self.last = 0.0
        self.all: Deferred[None] = Deferred()
        self.sender: Sender | None = None

    def ended(self, type: str, handler: str, outcome: Outcome, duration: float) -> None:
        self.note()

    def note(self, event: object = None) -> None:
        self.last = perf_counter()
        if not self.count:
            self.first = self.last
        self.count += 1
        if self.count % STEP == 0 and self.sender is not None:
            self.sender.go_on()
        if self.count == self.expected:
            self.all.callback(None)

    @property
    def rate(self) -> float:
        return (self.count - 1) / (self.last - self.first)


def empty(event: object) -> None:
    pass


async def rate(reactor: Any, agent: Agent, what: str, events: int) -> float:
    """Send events to an agent, and return how many are handled a second."""
    count = Count(events)
    async with txserf.Serf(agent.rpc) as serf:
        if what == AGENT:
            await serf.stream("user").add_callback(count.note).when_active()
            service = None
        else:
            router = txserf.Router()
            if what == FUNCTION:
                router.user_event()(empty)
            else:
                router.add_script("user=true")
            service = router.bind(serf, observer=count)
            service.startService()
            await service.when_active()
        count.sender = Sender(reactor, agent.rpc, events)
        await count.all.addTimeout(60, reactor)
        await count.sender.ended
        if service is not None:
            await service.stopService()
    return count.rate


def handled(what: str) -> Measure:
    """Return how to measure one kind of handlers."""

    async def measure(setting: Setting) -> AsyncIterator[Turn]:
        from twisted.internet import reactor

        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            agent = Agent(
                "n1", Path(folder), log_level="err", event_handlers=["user=true"] if what == AGENT else []
            )
            stack.callback(agent.kill)
            agent.start()
            while True:
                events = setting.number(EVENTS[what], small=STEP)
                yield [Sample(await rate(reactor, agent, what, events), "events/s")]

    return measure


TABLE = Table(
    "handlers",
    "events handled a second",
    (
        Subject(AGENT, handled(AGENT), ours=False),
        Subject(FUNCTION, handled(FUNCTION)),
        Subject(SCRIPT, handled(SCRIPT)),
    ),
    base=AGENT,
)


if __name__ == "__main__":
    send(sys.argv[1], int(sys.argv[2]))
