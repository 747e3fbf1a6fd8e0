"""A reply of ``members`` becomes `Member` values: their time, compared with bare MessagePack, and their memory."""

from __future__ import annotations

import gc
import statistics
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock

import txserf
from benchmarks.bare import UNPACKING, unpack
from benchmarks.events import CHUNK
from benchmarks.harness import Measure, Sample, Setting, Stopwatch, Subject, Table, Turn
from tests.fakes import MEMBER, Agent, Endpoint, reply
from txserf import commands, wire

MEMBERS = 10_000
SIZES = (10, 100, 1_000, 10_000, 100_000)


def few_tags(number: int) -> dict[str, str]:
    """Return a member's three tags. They have few values."""
    return {"role": ("web", "db", "cache")[number % 3], "dc": f"dc{number % 5}", "version": f"1.{number % 7}"}


def record(number: int) -> dict[str, Any]:
    """Return a member as an agent sends it."""
    address = bytes((10, number >> 16 & 255, number >> 8 & 255, number & 255))
    return {**MEMBER, "Addr": address, "Name": f"node-{number:06}", "Tags": few_tags(number)}


def body(members: int) -> bytes:
    """Return the body of such a reply. An agent lists its members in no order."""
    return wire.pack({"Members": [record(number * 7_919 % members) for number in range(members)]})


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


@contextmanager
def nothing_known() -> Iterator[None]:
    """Let the members of each reply be new ones."""
    # A commit that is compared with this one may not have it.
    known = getattr(commands.MEMBERS, "known", None)
    if known is None:
        yield
        return
    find = known.find

    def find_anew(_: object, body: bytes) -> Any:
        known.clear()
        return find(body)

    with patch.object(type(known), "find", find_anew):
        yield


class Asking:
    """A `Serf` whose agent answers each ``members`` with the same body."""

    def __init__(self, members: int) -> None:
        self.body = body(members)
        endpoint = Endpoint()
        self.serf = txserf.Serf([endpoint], reactor=Clock(), timeout=60.0, heartbeat=None)
        self.serf.startService()
        self.agent: Agent = endpoint.accept_and_greet()

    def ask(self) -> tuple[list[txserf.Member], float]:
        """Return the members, and the CPU seconds from the first byte until they were there."""
        found: list[list[txserf.Member]] = []
        self.serf.members().addCallback(found.append)
        data = chunks(reply(self.agent.asked_one("members").seq) + self.body)
        self.agent.forget_what_was_asked()
        watch = Stopwatch()
        for chunk in data:
            self.agent.protocol.dataReceived(chunk)
        return found.pop(), watch.cpu()


def unpacked(members: int) -> Callable[[], float]:
    """Return what unpacks a reply, and returns its CPU seconds: every client has to do that."""
    data = chunks(reply(1) + body(members))

    def ask() -> float:
        watch = Stopwatch()
        unpack(data)
        return watch.cpu()

    return ask


def typed(members: int) -> Callable[[], float]:
    asking = Asking(members)

    def ask() -> float:
        with nothing_known():
            return asking.ask()[1]

    return ask


def asked(asking: Callable[[int], Callable[[], float]], *sizes: int) -> Measure:
    """Return how to measure replies of these sizes; the smaller ones are read several times in a turn."""

    def measure(setting: Setting) -> Iterator[Turn]:
        replies = {size: asking(size) for size in map(setting.number, sizes)}
        while True:
            yield [
                Sample(
                    statistics.fmean(ask() for _ in range(max(1, 1_000 // size))) / size * 1e6,
                    "us",
                    at=size if len(sizes) > 1 else None,
                )
                for size, ask in replies.items()
            ]

    return measure


def strings(members: Iterable[txserf.Member]) -> int:
    """Return the bytes of names and tags, each object once."""
    objects: dict[int, object] = {}
    for member in members:
        for each in (member.name, member.tags, *member.tags, *member.tags.values()):
            objects[id(each)] = each
    return sum(map(sys.getsizeof, objects.values()))


def memory(setting: Setting) -> Iterator[Turn]:
    asking = Asking(
        setting.number(MEMBERS, small=1_000)
    )  # of few, the tags that are kept between replies weigh more
    asking.ask()
    while True:
        gc.collect()
        tracemalloc.start()
        members, _ = asking.ask()
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        yield [Sample((used - strings(members)) / len(members), "bytes")]
        del members


TABLE = Table(
    "decoding",
    f"a reply of {MEMBERS:,} members to Member values, each of them",
    (
        Subject(UNPACKING, asked(unpacked, MEMBERS), ours=False),
        Subject("Serf.members()", asked(typed, MEMBERS)),
    ),
    base=UNPACKING,
)
MEMORY = Table(
    "member-memory",
    "the memory of a Member, beyond its strings and tags",
    (Subject("Serf.members()", memory),),
)
GROWTH = Table(
    "growth-members",
    "the time of each member of a reply",
    (
        Subject(UNPACKING, asked(unpacked, *SIZES), ours=False),
        Subject("Serf.members()", asked(typed, *SIZES)),
    ),
    base="1000",
    growth="members",
)
