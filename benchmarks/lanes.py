"""
The time of a ``members`` call, with and without a join under way to addresses that hang.

Run it on a real agent: ``python -m tests.agents -n 1 -- python benchmarks/lanes.py``.

The join has three addresses, each of a listener that accepts and stays silent. The agent waits for each until its
own timeout: 10 s with the profile ``lan``, 1 s with ``local``. `Serf` sends joins over a connection of
their own. A plain pipelined client, here `SerfProtocol` alone, sends everything over one connection,
and the agent works through that in order.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure

import txserf


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument(
        "--calls",
        type=int,
        default=1000,
        help="calls in each measurement (the plain client makes 1 while a join hangs)",
    )
    return parser.parse_args()


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


async def measure(what: str, call: Callable[[], Awaitable[object]], number: int) -> None:
    times = []
    for _ in range(number):
        start = perf_counter()
        await call()
        times.append((perf_counter() - start) * 1000)
    times.sort()
    last = times[-1]
    print(f"{what:44}{statistics.median(times):12.3f} ms{last:12.3f} ms{number:8}", flush=True)


async def main(reactor: Any, options: argparse.Namespace) -> None:
    address = os.environ["SERF_RPC_ADDR"].split(",")[0]
    silent = SilentFactory()
    port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(silent)
    hanging = [f"127.0.0.1:{port.getHost().port}"] * 3

    print(f"{'members':44}{'median':>15}{'longest':>15}{'calls':>8}")
    async with txserf.Serf(address) as serf:
        await measure("Serf", serf.members, options.calls)
        heard = silent.heard()
        joining = serf.join(hanging, timeout=60)
        await heard
        await measure("Serf, a join hangs", serf.members, options.calls)
        assert not joining.called, "the join was over too early: take fewer --calls"
        await joining.addErrback(lambda failure: failure.trap(txserf.JoinError))

    factory = txserf.SerfClientFactory(address)
    factory.start()
    plain = await factory.when_connected()
    await measure("plain pipelined client", lambda: plain.call("members"), options.calls)
    hung = plain.call("join", {"Existing": hanging, "Replay": False})
    await measure("plain pipelined client, a join hangs", lambda: plain.call("members"), 1)
    await hung
    await factory.disconnect()
    for connection in silent.connections:
        connection.transport.abortConnection()  # type: ignore[union-attr]  # it is connected
    await port.stopListening()


if __name__ == "__main__":
    react(main, [options()])
