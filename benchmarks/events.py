"""
Records of a stream a second, through each layer, compared with bare MessagePack.

No socket is opened: the same bytes go through each, in chunks of the size that a socket gives. Seconds are of CPU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import msgpack
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

import txserf
from benchmarks.bare import UNPACKING
from benchmarks.harness import Measure, Sample, Setting, Stopwatch, Subject, Table, Turn
from tests.fakes import Agent, Endpoint, reply
from txserf import wire
from txserf.connection.protocol import SerfProtocol

EVENTS, CHUNK = 20_000, 65_536

RECORD = {
    "Coalesce": False,
    "Event": "user",
    "LTime": 12345,
    "Name": "deploy",
    "Payload": b"0123456789abcdef",
}
Feed = Callable[[bytes], object]
Counted = Callable[[], int]


def chunks(seqs: list[int], records: int) -> list[bytes]:
    """Return *records* of streams in chunks, the streams by turns."""
    record = wire.pack(RECORD)
    data = b"".join(reply(seq) + record for seq in seqs) * (records // len(seqs))
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


def fed(opened: Callable[[], tuple[Feed, int]]) -> Measure:
    """Return how to measure a feed of bytes; *opened* returns it and the Seq of its stream."""

    def measure(setting: Setting) -> Iterator[Turn]:
        feed, seq = opened()
        records = setting.number(EVENTS)
        data = chunks([seq], records)
        while True:
            watch = Stopwatch()
            for chunk in data:
                feed(chunk)
            yield [Sample(records / watch.cpu(), "records/s")]

    return measure


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

    def header(self, seq: int, error: str) -> Literal["record"]:
        return "record"

    def body(self, seq: int, error: str, body: dict[str, Any]) -> None:
        pass

    def known(self, seq: int, body: bytes) -> None:
        return None

    def answered(self, seq: int, value: Any) -> None:
        pass

    def items(self, seq: int, number: int) -> None:
        return None

    def records(self, seq: int, bodies: list[dict[str, Any]]) -> None:
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


def client() -> tuple[Feed, int]:
    endpoint = Endpoint()
    face = txserf.Client([endpoint], reactor=Clock(), heartbeat=None)
    face.stream().add_callback(lambda response: None).watch()
    agent = endpoint.accept_and_greet()
    seq = agent.asked_one("stream").seq
    agent.reply(seq)
    return agent.protocol.dataReceived, seq


def opened(streams: int = 1) -> tuple[list[txserf.EventStream], Agent, list[int]]:
    """Return streams of a `Serf` that are active, their agent and their Seqs."""
    endpoint = Endpoint()
    face = txserf.Serf([endpoint], reactor=Clock(), heartbeat=None)
    face.startService()
    agent = endpoint.accept_and_greet()
    found = [face.stream() for _ in range(streams)]
    seqs = [asked.seq for asked in agent.asked()]
    for seq in seqs:
        agent.reply(seq)
    for confirmation in agent.asked():
        agent.reply(confirmation.seq)
    assert all(stream.is_active for stream in found)
    return found, agent, seqs


def callback() -> tuple[Feed, int]:
    (stream,), agent, (seq,) = opened()
    stream.add_callback(lambda event: None)
    return agent.protocol.dataReceived, seq


class Count:
    """Counts what an iterator gives."""

    def __init__(self, items: AsyncIterator[object]) -> None:
        self.number = 0
        self.reading = Deferred.fromCoroutine(self._read(items))

    async def _read(self, items: AsyncIterator[object]) -> None:
        async for _ in items:
            self.number += 1


def counted(opened: Callable[[], tuple[Feed, int, Count]]) -> Measure:
    """Return how to measure an iterator: as `fed`, and all records have to come out of it."""

    def measure(setting: Setting) -> Iterator[Turn]:
        feed, seq, count = opened()
        records = setting.number(EVENTS)
        data = chunks([seq], records)
        while True:
            count.number = 0
            watch = Stopwatch()
            for chunk in data:
                feed(chunk)
            assert count.number == records, f"{count.number} of {records} records came"
            yield [Sample(records / watch.cpu(), "records/s")]

    return measure


def iterator() -> tuple[Feed, int, Count]:
    (stream,), agent, (seq,) = opened()
    return agent.protocol.dataReceived, seq, Count(stream)


class Value:
    """A slotted value, as plain as can be."""

    __slots__ = ("coalesce", "ltime", "name", "payload")

    def __init__(self, name: str, payload: bytes, ltime: int, coalesce: bool) -> None:
        self.name = name
        self.payload = payload
        self.ltime = ltime
        self.coalesce = coalesce


class StraightLine:
    """The floor of Python code: it unpacks, checks, builds a slotted value, queues it, and is read by ``async for``."""

    def __init__(self) -> None:
        self.unpacker = msgpack.Unpacker(raw=False)
        self.queue: deque[Value] = deque()
        self.reader: Deferred[None] | None = None
        self.header: dict[str, Any] | None = None

    def feed(self, data: bytes) -> None:
        self.unpacker.feed(data)
        put = self.queue.append
        header = self.header
        for value in self.unpacker:
            if header is None:
                header = value
                continue
            assert header["Seq"] == 1 and not header["Error"]
            header = None
            name, payload, ltime, coalesce = (
                value["Name"],
                value["Payload"],
                value["LTime"],
                value["Coalesce"],
            )
            if (
                value["Event"] != "user"
                or name.__class__ is not str
                or payload.__class__ is not bytes
                or ltime.__class__ is not int
                or coalesce.__class__ is not bool
            ):
                raise ValueError(value)
            put(Value(name, payload, ltime, coalesce))
        self.header = header
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.callback(None)

    def __aiter__(self) -> StraightLine:
        return self

    async def __anext__(self) -> Value:
        while not self.queue:
            self.reader = Deferred()
            await self.reader
        return self.queue.popleft()


def straight_line() -> tuple[Feed, int, Count]:
    floor = StraightLine()
    return floor.feed, 1, Count(floor)


TABLE = Table(
    "events",
    f"records of a stream of {len(reply(1) + wire.pack(RECORD))} bytes each, from memory",
    (
        Subject(UNPACKING, fed(unpacker), ours=False),
        Subject("straight-line code, async for", counted(straight_line), ours=False),
        Subject("wire", fed(decoder)),
        Subject("SerfProtocol", fed(protocol)),
        Subject("Client, callback", fed(client)),
        Subject("Serf, callback", fed(callback)),
        Subject("Serf, async for", counted(iterator)),
    ),
    base=UNPACKING,
)
