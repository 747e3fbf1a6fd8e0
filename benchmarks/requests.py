"""
Requests a second to one agent: `Client` and `SerfProtocol`, compared with a bare protocol.

Run it on a real agent: ``python -m tests.agents -n 1 -- python benchmarks/requests.py``.

The bare protocol is thirty lines that only pack, unpack and match Seq. All are used in the same
two ways: a fixed number of requests under way, each followed by the next one; or the same number
at once, and the next ones after all are answered. They take turns in one run, because the
machine's speed changes with time; only the ratios count. ``--reactor`` is ``epoll``, ``asyncio``
or another of Twisted's reactors.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
from collections import defaultdict
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import msgpack
from twisted.application.reactors import installReactor


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--reactor", default="epoll")
    parser.add_argument("--flights", default="1,16,64,256", help="requests in flight, with commas")
    parser.add_argument("--commands", default="members,stop")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds of each measurement")
    return parser.parse_args()


OPTIONS = options()
installReactor(OPTIONS.reactor)

from twisted.internet import reactor  # noqa: E402  # the one that was just installed
from twisted.internet.defer import Deferred, gatherResults  # noqa: E402
from twisted.internet.endpoints import clientFromString, connectProtocol  # noqa: E402
from twisted.internet.protocol import Protocol  # noqa: E402
from twisted.internet.task import react  # noqa: E402

import txserf  # noqa: E402

Call = Callable[[], "Deferred[Any]"]


class Bare(Protocol):
    """Packs, unpacks and matches Seq, and does nothing else."""

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]  # it is a TCP one
        self.unpacker = msgpack.Unpacker(raw=False)
        self.packer = msgpack.Packer()
        self.seq = itertools.count()
        self.waiting: dict[int, tuple[Deferred[Any], bool]] = {}
        self.header: dict[str, Any] | None = None

    def call(self, command: str, body: dict[str, Any] | None, replies: bool) -> Deferred[Any]:
        seq = next(self.seq)
        data = self.packer.pack({"Command": command, "Seq": seq})
        if body is not None:
            data += self.packer.pack(body)
        done: Deferred[Any] = Deferred()
        self.waiting[seq] = (done, replies)
        self.transport.write(data)  # type: ignore[union-attr]  # it is connected
        return done

    def dataReceived(self, data: bytes) -> None:
        self.unpacker.feed(data)
        for value in self.unpacker:
            header, self.header = self.header, None
            if header is None:
                if self.waiting[value["Seq"]][1]:
                    self.header = value
                else:
                    self.waiting.pop(value["Seq"])[0].callback((value, None))
            else:
                self.waiting.pop(header["Seq"])[0].callback((header, value))


async def rate(call: Call, in_flight: int) -> float:
    """Keep *in_flight* requests under way for ``--seconds``, and return requests a second."""
    end = perf_counter() + OPTIONS.seconds
    done = 0

    async def lane() -> None:
        nonlocal done
        while perf_counter() < end:
            await call()
            done += 1

    start = perf_counter()
    await gatherResults([Deferred.fromCoroutine(lane()) for _ in range(in_flight)])
    return done / (perf_counter() - start)


async def batch_rate(request: Callable[[int], Awaitable[Any]], size: int) -> float:
    """Request batches of *size* commands, one after the other, and return requests a second."""
    done = 0
    start = perf_counter()
    while perf_counter() < start + OPTIONS.seconds:
        await request(size)
        done += size
    return done / (perf_counter() - start)


def measures(
    in_flight: int, bare: Call, protocol: Call, queue: Callable[[], txserf.Client]
) -> dict[str, Callable[[], Awaitable[float]]]:
    """Return the measurements of one command by name: one request at a time, and *in_flight* in one batch."""

    def bare_batch(size: int) -> Awaitable[Any]:
        return gatherResults([bare() for _ in range(size)])

    def batch(size: int) -> Awaitable[Any]:
        for _ in range(size):
            client = queue()
        return client.request()

    return {
        "bare": lambda: rate(bare, in_flight),
        "protocol": lambda: rate(protocol, in_flight),
        "Client": lambda: rate(lambda: queue().request(), in_flight),
        "bare batch": lambda: batch_rate(bare_batch, in_flight),
        "batch": lambda: batch_rate(batch, in_flight),
    }


async def main(reactor: Any) -> None:
    address = os.environ["SERF_RPC_ADDR"].split(",")[0]
    bare = await connectProtocol(clientFromString(reactor, f"tcp:{address}"), Bare())
    await bare.call("handshake", {"Version": 1}, False)
    client = txserf.Client(address, auto_reconnect=True)
    factory = txserf.SerfClientFactory(address)
    factory.start()
    protocol = await factory.when_connected()
    ways: dict[str, tuple[Call, Call, Callable[[], txserf.Client]]] = {
        "members": (
            lambda: bare.call("members", None, True),
            lambda: protocol.call("members"),
            client.members,
        ),
        "stop": (
            lambda: bare.call("stop", {"Stop": 0}, False),
            lambda: protocol.call("stop", {"Stop": 0}),
            lambda: client.stop(Stop=0),
        ),
    }
    print(
        f"{OPTIONS.reactor} reactor, {OPTIONS.rounds} rounds in turns; ratio to bare: median (min to max)\n\n"
        f"{'':29}{'one request() a command':^48}{'all in one request()':^24}\n"
        f"{'command':9}{'in flight':>10}{'bare/s':>10}{'protocol':>24}{'Client':>24}{'Client':>24}"
    )
    for command in OPTIONS.commands.split(","):
        for in_flight in map(int, OPTIONS.flights.split(",")):
            rates: dict[str, list[float]] = defaultdict(list)
            for _ in range(OPTIONS.rounds):
                for name, measure in measures(in_flight, *ways[command]).items():
                    rates[name].append(await measure())
            row = f"{command:9}{in_flight:>10}{statistics.median(rates['bare']):>10,.0f}"
            for name, base in (("protocol", "bare"), ("Client", "bare"), ("batch", "bare batch")):
                ratios = [ours / other for ours, other in zip(rates[name], rates[base], strict=True)]
                row += f"{statistics.median(ratios):>9.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(row, flush=True)
    bare.transport.loseConnection()
    await client.disconnect(wait=True).request()
    await factory.disconnect()


react(main, _reactor=reactor)
