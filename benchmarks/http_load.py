"""
Many readers of ``twistd txserf --http`` beside a real agent.

::

    python -m benchmarks.http_load --seconds 60 --readers 100 --rate 50

It starts an agent, a proxy that counts what the agent is asked, and ``twistd txserf --http``. Readers follow ``/events``, one
more does not read, requests for ``/members``, ``/health`` and ``/sd`` come at a steady rate, and so do events. It prints the
memory of the process every ten seconds, the times of the requests, what the agent was asked, and whether the reader
that does not read was cut off: the kernel keeps some megabytes for it first, so that a minute may be too short (tests/real/test_web.py
has that with small buffers). Its exit code is 1 where memory or the number of streams grew, or an event was missed.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.python.failure import Failure

import txserf
from tests.agents import Agent, cluster
from tests.real.helpers import Listeners, Proxy, reactor
from tests.real.processes import Twistd

_PATHS = ("/members", "/health", "/sd?port=9100", "/members?status=alive&tag.role=web", "/metrics")

# Seconds between two events, and the bytes of their payloads. In a minute a reader that does not read has 1.5 MB before it.
_EVENTS_EVERY, _PAYLOAD = 0.02, 400

# Kilobytes by which the memory of the process may grow behind the first ten seconds.
_MAY_GROW = 4 * 1024


class Following(Protocol):
    """A reader of ``/events``: it counts them, or does not read at all."""

    def __init__(self, reads: bool) -> None:
        self.events = 0
        self.lost = False
        self._reads = reads

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(b"GET /events?type=user HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if not self._reads:
            # Else the kernel would keep some megabytes for it.
            transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.events += data.count(b"data: ")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class Asking(Protocol):
    """One request; the Deferred *answered* fires with its status and its time."""

    def __init__(self, path: str) -> None:
        self.answered: Deferred[tuple[int, float]] = Deferred()
        self._path = path
        self._head = b""

    def connectionMade(self) -> None:
        self._begun = reactor.seconds()
        assert self.transport is not None
        self.transport.write(f"GET {self._path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())

    def dataReceived(self, data: bytes) -> None:
        if len(self._head) < 12:
            self._head += data[:12]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        found = re.match(rb"HTTP/1.. (\d+)", self._head)
        self.answered.callback((int(found[1]) if found else 0, reactor.seconds() - self._begun))


def memory(running: Twistd) -> int:
    """Return the resident memory of the process in kB."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1])


class Load:
    """The load on one site."""

    def __init__(self, port: int, rate: float, serf: txserf.Serf) -> None:
        self.endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self.statuses: Counter[int] = Counter()
        self.times: list[float] = []
        self.sent = 0
        self._serf = serf
        self._number = 0
        self._calls = [(LoopingCall(self._ask), 1 / rate), (LoopingCall(self._send), _EVENTS_EVERY)]

    async def follow(self, reads: bool = True) -> Following:
        reader: Following = await connectProtocol(self.endpoint, Following(reads))
        return reader

    def start(self) -> None:
        for call, period in self._calls:
            call.start(period)

    def stop(self) -> None:
        for call, _ in self._calls:
            call.stop()

    def _ask(self) -> None:
        self._number += 1
        asking = Asking(_PATHS[self._number % len(_PATHS)])
        connecting = connectProtocol(self.endpoint, asking)
        connecting.addCallback(lambda _: asking.answered)
        connecting.addCallbacks(self._answered, lambda _: self.statuses.update([-1]))

    def _answered(self, answer: tuple[int, float]) -> None:
        self.statuses[answer[0]] += 1
        self.times.append(answer[1])

    def _send(self) -> Deferred[None]:
        self.sent += 1
        return self._serf.event(f"e{self.sent}", b"x" * _PAYLOAD, coalesce=False)


async def run(options: argparse.Namespace, agent: Agent, folder: Path) -> bool:
    """Run the load, print what was seen, and return whether all is well."""
    listeners = Listeners()
    proxy = Proxy(agent)
    running = Twistd(folder, "--agent", listeners.listen(proxy), "--http", "tcp:0:interface=127.0.0.1")
    shown = re.compile(r"the cluster is shown on http://127.0.0.1:(\d+)/\n")
    await running.until(lambda: shown.search(running.log) is not None)
    await running.line("member n1")
    await deferLater(reactor, 1.0)
    async with txserf.Serf(agent.rpc, timeout=30.0) as serf:
        load = Load(int(shown.findall(running.log)[0]), options.rate, serf)
        before = Counter(proxy.commands)
        readers = [await load.follow() for _ in range(options.readers)]
        idler = await load.follow(reads=False)
        await deferLater(reactor, 1.0)
        load.start()
        kilobytes = []
        for second in range(options.seconds):
            await deferLater(reactor, 1.0)
            if second % 10 == 9:
                kilobytes.append(memory(running))
                print(
                    f"after {second + 1:3} s: {kilobytes[-1]} kB, {load.sent} events, {len(load.times)} requests",
                    flush=True,
                )
        load.stop()
        await deferLater(reactor, 2.0)
        asked = Counter(proxy.commands) - before
        missed = [load.sent - reader.events for reader in readers]
        ordered = sorted(load.times)
        report = {
            "memory_kB": kilobytes,
            "statuses": load.statuses,
            "median_ms": round(statistics.median(ordered) * 1e3, 2),
            "99_of_100_ms": round(ordered[len(ordered) * 99 // 100] * 1e3, 2),
            "events_sent": load.sent,
            "events_missed_by_a_reader": max(missed),
            "agent_was_asked_before": before,
            "agent_was_asked_for_the_readers": asked,
            "cut_off": running.log.count("was cut off"),
        }
        print(json.dumps(report, indent=2))
        for reader in (*readers, idler):
            transport: Any = reader.transport
            transport.abortConnection()
    running.process.signalProcess("TERM")
    await running.gone()
    await listeners.close()
    flat = not kilobytes or kilobytes[-1] - kilobytes[0] <= _MAY_GROW
    return flat and max(missed) == 0 and not asked["stream"] and set(load.statuses) == {200}


def main() -> None:
    parser = argparse.ArgumentParser(description="Many readers of twistd txserf --http beside a real agent.")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    options = parser.parse_args()

    async def all_is_well(agent: Agent, folder: str) -> None:
        if not await run(options, agent, Path(folder)):
            raise SystemExit(1)

    with cluster(1) as (agent,), tempfile.TemporaryDirectory() as folder:
        react(lambda _: Deferred.fromCoroutine(all_is_well(agent, folder)))


if __name__ == "__main__":
    main()
