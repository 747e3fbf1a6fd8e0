"""
Events a second through a stream that is fed from memory, compared with bare MessagePack.

Run it without an agent: ``python benchmarks/events.py``. It opens no socket. The same bytes go
through each layer in turns, in chunks of the size that a socket gives.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

import msgpack
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

import txserf
from txserf import wire
from txserf.connection.protocol import SerfProtocol
from txserf.connection.session import Session

ROUNDS, EVENTS, CHUNK = 15, 20_000, 65_536

RECORD = {
    "Coalesce": False,
    "Event": "user",
    "LTime": 12345,
    "Name": "deploy",
    "Payload": b"0123456789abcdef",
}
Feed = Callable[[bytes], object]


def reply(seq: int) -> bytes:
    return wire.pack({"Error": "", "Seq": seq})


def chunks(seq: int) -> list[bytes]:
    data = (reply(seq) + wire.pack(RECORD)) * EVENTS
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


def unpacker() -> tuple[Feed, int]:
    """The baseline: unpacking alone, which every client has to do."""
    bare = msgpack.Unpacker(raw=False)

    def feed(data: bytes) -> None:
        bare.feed(data)
        for _ in bare:
            pass

    return feed, 1


class Nobody:
    """Takes all bodies, and does nothing with them."""

    def header(self, seq: int, error: str) -> bool:
        return True

    def body(self, seq: int, error: str, body: dict[str, Any]) -> None:
        pass


def decoder() -> tuple[Feed, int]:
    return wire.Decoder(Nobody()).feed, 1


def protocol() -> tuple[Feed, int]:
    connection = SerfProtocol(reactor=Clock(), heartbeat=None)
    connection.makeConnection(StringTransport())  # type: ignore[no-untyped-call]  # Twisted's own
    connection.dataReceived(reply(0))
    connection.call("stream", on_record=lambda record: None)
    connection.dataReceived(reply(1))
    return connection.dataReceived, 1


def connected(session: Session) -> SerfProtocol:
    """Give a session a connection whose other end is this script."""
    connection = session.factory.buildProtocol(None)  # as an endpoint does that has connected
    assert connection is not None
    connection.makeConnection(StringTransport())  # type: ignore[no-untyped-call]  # Twisted's own
    connection.dataReceived(reply(0))
    return connection


def client() -> tuple[Feed, int]:
    face = txserf.Client("127.0.0.1", reactor=Clock(), heartbeat=None)
    connection = connected(face._session)
    face.stream().add_callback(lambda response: None).watch()
    connection.dataReceived(reply(1))
    return connection.dataReceived, 1


def serf() -> tuple[Feed, int]:
    face = txserf.Serf("127.0.0.1", reactor=Clock(), heartbeat=None)
    connection = connected(face._session)
    face.running = 1
    face.stream().add_callback(lambda event: None)
    connection.dataReceived(reply(1) + reply(2))
    return connection.dataReceived, 1


def main() -> None:
    layers = {
        "msgpack.Unpacker": unpacker,
        "wire": decoder,
        "protocol": protocol,
        "Client": client,
        "Serf": serf,
    }
    fed = {name: make() for name, make in layers.items()}
    times: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(ROUNDS):
        for name, (feed, seq) in fed.items():
            data = chunks(seq)
            start = perf_counter()
            for chunk in data:
                feed(chunk)
            times[name].append(perf_counter() - start)
    print(f"{EVENTS} events of {len(reply(1) + wire.pack(RECORD))} bytes, {ROUNDS} rounds in turns\n")
    print(f"{'layer':18}{'events/s':>12}{'of bare: median (min to max)':>32}")
    for name, taken in times.items():
        ratios = [base / ours for ours, base in zip(taken, times["msgpack.Unpacker"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:18}{EVENTS / statistics.median(taken):>12,.0f}{spread:>32}")


main()
