"""
A `ClusterView` of 100 to 100,000 members: its memory, its snapshot, one event, and ``select()`` against a scan.

Run it without an agent: ``python -m benchmarks.view``. It opens no socket: the script answers as an agent does. Each
member has three tags of few values, or one more of its own with ``unique``: ``python -m benchmarks.view unique``.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tracemalloc
from collections.abc import Callable
from time import perf_counter
from typing import Any

import msgpack
from twisted.internet.task import Clock

import txserf
from tests.fakes import MEMBER, Agent, Endpoint, reply

SIZES, ROUNDS, EVENTS = (100, 1_000, 10_000, 100_000), 3, 1_000
UNIQUE = "unique" in sys.argv[1:]


def record(number: int, status: str = "alive", **more: str) -> dict[str, Any]:
    """Return a member as an agent sends it."""
    tags = {"role": ("web", "db", "cache")[number % 3], "dc": f"dc{number % 5}", "version": f"1.{number % 7}"}
    if UNIQUE:
        tags["id"] = f"i-{number:08x}"
    address = bytes((10, number >> 16 & 255, number >> 8 & 255, number & 255))
    return {
        **MEMBER,
        "Addr": address,
        "Name": f"node-{number:06}",
        "Status": status,
        "Tags": {**tags, **more},
    }


def strings(number: int) -> int:
    """Return the bytes of a member's own strings: its name and the values of its tags."""
    member = record(number)
    return sum(map(sys.getsizeof, (member["Name"], *member["Tags"].values())))


def opened() -> tuple[txserf.ClusterView, Agent, int, int]:
    """Return a view that waits for its snapshot, its agent, and the Seqs of the stream and of the request."""
    endpoint = Endpoint()
    serf = txserf.Serf([endpoint], reactor=Clock(), timeout=60.0, heartbeat=None)
    view = txserf.ClusterView(serf)
    view.startService()
    agent = endpoint.accept_and_greet()
    stream = agent.asked_one("stream").seq
    agent.reply(stream)
    agent.reply(agent.asked_one("stop").seq)
    return view, agent, stream, agent.asked_one("members").seq


def seconds(function: Callable[[], object], times: int = 1) -> float:
    begun = perf_counter()
    for _ in range(times):
        function()
    return (perf_counter() - begun) / times


def unpacked(data: bytes) -> None:
    """The baseline of the snapshot: unpacking alone."""
    bare = msgpack.Unpacker(raw=False, max_buffer_size=2**30)
    bare.feed(data)
    for _ in bare:
        pass


def memory(size: int) -> list[float]:
    """Return bytes a member: of the view, of its index by status, of one by tag."""
    view, agent, _, seq = opened()
    data = reply(seq, {"Members": [record(number) for number in range(size)]})
    steps: list[Callable[[], object]] = [
        lambda: agent.send(data),
        view.select,
        lambda: view.select(role="db"),
    ]
    gc.collect()
    tracemalloc.start()
    used = []
    for step in steps:
        before = tracemalloc.get_traced_memory()[0]
        step()
        gc.collect()
        used.append((tracemalloc.get_traced_memory()[0] - before) / size)
    tracemalloc.stop()
    return used


def times(size: int) -> dict[str, float]:
    """Return seconds, by name."""
    view, agent, stream, seq = opened()
    data = reply(seq, {"Members": [record(number) for number in range(size)]})
    updates = [
        reply(stream, {"Event": "member-update", "Members": [record(number % size, at=str(number))]})
        for number in range(EVENTS)
    ]
    joins = [
        reply(stream, {"Event": "member-join", "Members": [record(size + number)]})
        for number in range(EVENTS)
    ]
    measured = {"bare": seconds(lambda: unpacked(data)), "snapshot": seconds(lambda: agent.send(data))}
    view.select(role="db")
    measured["select a third"] = seconds(lambda: view.select(role="db"))
    for name, events in (("update", updates), ("join", joins)):
        waiting = iter(events)
        measured[name] = seconds(lambda waiting=waiting: agent.send(next(waiting)), EVENTS)  # type: ignore[misc]
    view.select(at="5")
    measured["select one"] = seconds(lambda: view.select(at="5"), 100)
    measured["scan"] = seconds(
        lambda: [m for m in view.members.values() if m.status == "alive" and m.tags.get("at") == "5"]
    )
    return measured


def main() -> None:
    for size in SIZES:
        view, by_status, by_tag = memory(size)
        own = sum(map(strings, range(size))) / size
        print(f"{size} members, bytes each: {view:.0f}, of which {own:.0f} would be strings of their own")
        print(f"    index by status {by_status:.0f}, by a tag {by_tag:.0f}")
        rounds = [times(size) for _ in range(ROUNDS)]
        best = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        print(
            f"    snapshot {best['snapshot'] * 1e3:.1f} ms, {best['snapshot'] / best['bare']:.1f} times bare MessagePack"
        )
        print(f"    an update {best['update'] * 1e6:.1f} us, a join {best['join'] * 1e6:.1f} us")
        print(
            f"    select of one {best['select one'] * 1e6:.1f} us, of a third {best['select a third'] * 1e3:.2f} ms, "
            f"a scan {best['scan'] * 1e3:.2f} ms"
        )


if __name__ == "__main__":
    main()
