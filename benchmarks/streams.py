"""How the cost of a record grows with the number of streams on one connection: callbacks, from memory."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.events import chunks, opened
from benchmarks.harness import Sample, Setting, Stopwatch, Subject, Table, Turn

SIZES = (1, 3, 10, 30, 100)
RECORDS = 12_000


def measure(setting: Setting) -> Iterator[Turn]:
    feeds = {}
    for size in map(setting.number, SIZES):
        streams, agent, seqs = opened(size)
        for stream in streams:
            stream.add_callback(lambda event: None)
        feeds[size] = agent.protocol.dataReceived, chunks(seqs, setting.number(RECORDS, small=100))
    while True:
        turn = []
        for size, (feed, data) in feeds.items():
            watch = Stopwatch()
            for chunk in data:
                feed(chunk)
            records = setting.number(RECORDS, small=100) // size * size
            turn.append(Sample(watch.cpu() / records * 1e6, "us", at=size))
        yield turn


TABLE = Table(
    "growth-streams",
    "the time of a record, of this number of streams that get records by turns",
    (Subject("Serf, callback", measure),),
    base="1",
    growth="streams",
)
