"""
A `ClusterView` of embedded clusters of 100 to 100,000 members: its memory, its snapshot, one event, ``select()``, a template.

Run it without an agent: ``python -m benchmarks.cluster [SIZE...]``. Each member has a name and three tags of few values, and
with ``unique`` one more of its own: ``python -m benchmarks.cluster unique``. All is in one process, and only the time between the
bytes that come from the agent and the view's new members counts. A cluster of 100,000 takes some 30 s and 1 GB.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import msgpack
from twisted.internet.task import Clock

import txserf
from txserf.connection.protocol import SerfProtocol
from txserf.embedded import EmbeddedCluster

SIZES, EVENTS, ROUNDS = (100, 1_000, 10_000, 100_000), 20, 5
HOSTS = Path(__file__).parents[1] / "examples" / "hosts.j2"


def tags(number: int, unique: bool) -> dict[str, str]:
    """Return a member's tags."""
    few = {"role": ("web", "db", "cache")[number % 3], "dc": f"dc{number % 5}", "version": f"1.{number % 7}"}
    return {**few, "id": f"i-{number:08x}"} if unique else few


class Stopwatch:
    """
    The time that a client's connections take for the bytes that come.

    :ivar data: the bytes, in order.
    :ivar seconds: CPU time.
    """

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.seconds = 0.0

    def take(self) -> tuple[list[bytes], float]:
        """Return the bytes and the seconds since the last call."""
        taken = self.data, self.seconds
        self.data, self.seconds = [], 0.0
        return taken

    def __enter__(self) -> Stopwatch:
        received = self._received = SerfProtocol.dataReceived

        def timed(protocol: SerfProtocol, data: bytes) -> None:
            begun = process_time()
            received(protocol, data)
            self.seconds += process_time() - begun
            self.data.append(data)

        SerfProtocol.dataReceived = timed  # type: ignore[assignment, method-assign]  # nothing else is between both
        return self

    def __exit__(self, *args: object) -> None:
        SerfProtocol.dataReceived = self._received  # type: ignore[method-assign]  # as it was


class Followed:
    """
    A cluster of *size* members, and a view that is not started.

    :param unique: whether each member has a tag of its own.
    """

    def __init__(self, size: int, unique: bool) -> None:
        self.clock = Clock()
        self.size = size
        self.cluster = EmbeddedCluster(self.clock, nodes=1, seed=1)
        for number in range(1, size):
            self.cluster.add(self.name(number), tags(number, unique))
        endpoint = self.cluster.agents["n1"].endpoint()
        self.serf = txserf.Serf([endpoint], reactor=self.clock, timeout=600.0, heartbeat=None)
        self.view = txserf.ClusterView(self.serf, resync=None)

    @staticmethod
    def name(number: int) -> str:
        return f"node-{number:06}"

    def run(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds / 0.1))

    def ready(self) -> None:
        """Start the view, and let it read the members."""
        self.view.startService()
        self.run(1.0)
        assert not self.view.stale and len(self.view.members) == self.size


def strings(size: int, unique: bool) -> float:
    """Return the bytes of one member's own strings: its name, and the values of its tags where no other has the same ones."""
    own = [
        [Followed.name(number), *(tags(number, unique).values() if unique else ())] for number in range(size)
    ]
    return sum(sys.getsizeof(text) for texts in own for text in texts) / size


def memory(size: int, unique: bool = False) -> dict[str, float]:
    """
    Return bytes a member, by name.

    ``strings`` is for its own strings, ``view`` is the rest of the view, ``by status`` and ``by tag`` are indexes.
    """
    followed = Followed(size, unique)
    steps: dict[str, Callable[[], object]] = {
        "view": followed.ready,
        "by status": followed.view.select,
        "by tag": lambda: followed.view.select(role="db"),
    }
    used = {"strings": strings(size, unique)}
    followed.serf.members()  # so that the agent has what it keeps for each member
    followed.run(1.0)
    gc.collect()
    tracemalloc.start()
    for name, step in steps.items():
        before = tracemalloc.get_traced_memory()[0]
        step()
        gc.collect()
        used[name] = (tracemalloc.get_traced_memory()[0] - before) / size
    tracemalloc.stop()
    used["view"] -= used["strings"]
    return used


def taken(function: Callable[[], object], times: int = 1) -> float:
    """Return the seconds of one call: the median."""
    rounds = []
    for _ in range(ROUNDS):
        begun = process_time()
        for _ in range(times):
            function()
        rounds.append((process_time() - begun) / times)
    return statistics.median(rounds)


def unpacked(data: list[bytes]) -> None:
    """The baseline of the snapshot: unpacking alone."""
    bare: Any = msgpack.Unpacker(raw=False, max_buffer_size=2**30)
    for each in data:
        bare.feed(each)
        for _ in bare:
            pass


def event_seconds(followed: Followed, watch: Stopwatch) -> float:
    """Return the seconds of an event of one member, from its bytes to the members: the median."""
    found = []
    for number in range(1, EVENTS + 1):
        watch.take()
        followed.cluster.fail(followed.name(number))
        followed.run(4.0)
        data, seconds = watch.take()
        assert len(data) == 1 and followed.view.members[followed.name(number)].status == "failed"
        found.append(seconds)
    return statistics.median(found)


def times(size: int, unique: bool = False) -> dict[str, float]:
    """Return seconds of CPU time, by name."""
    followed = Followed(size, unique)
    view = followed.view
    with Stopwatch() as watch:
        followed.ready()
        data, snapshot = watch.take()
        measured = {"snapshot": snapshot, "bare": taken(lambda: unpacked(data))}
        view.select(role="db")
        measured["event"] = event_seconds(followed, watch)
    measured["select one"] = taken(
        lambda: view.select(status="failed", role="db", dc="dc1", version="1.1"), 100
    )
    measured["select a third"] = taken(lambda: view.select(role="db"))
    measured["scan"] = taken(
        lambda: [m for m in view.members.values() if m.status == "alive" and m.tags.get("role") == "db"]
    )
    with tempfile.TemporaryDirectory() as folder:
        template = txserf.Template(view, HOSTS, Path(folder) / "hosts")
        agent = view.members["n1"]
        measured["template"] = taken(lambda: template._render(agent))
    return measured


def main() -> None:
    unique = "unique" in sys.argv[1:]
    sizes = [int(each) for each in sys.argv[1:] if each != "unique"] or SIZES
    for size in sizes:
        used = memory(size, unique)
        print(
            f"{size} members: {used['view']:.0f} bytes each beyond {used['strings']:.0f} of its own strings; "
            f"an index by status {used['by status']:.0f}, by a tag {used['by tag']:.0f}",
            flush=True,
        )
        found = times(size, unique)
        print(
            f"    snapshot {found['snapshot'] * 1e3:.1f} ms, {found['snapshot'] / found['bare']:.1f} times bare MessagePack; "
            f"an event {found['event'] * 1e6:.0f} us; a template {found['template'] * 1e3:.1f} ms"
        )
        print(
            f"    select of few {found['select one'] * 1e6:.0f} us, of a third {found['select a third'] * 1e3:.2f} ms, "
            f"a scan {found['scan'] * 1e3:.2f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
