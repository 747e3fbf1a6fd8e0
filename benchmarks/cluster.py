"""
A `ClusterView` of embedded clusters of 100 to 100,000 members: its memory, its snapshot, one event, ``select()``, a template.

All is in one process, and only the time between the bytes that come from the agent and the view's new members counts. An event is
measured twice:

- *back to back*: the bytes of events that the agent has sent come once more, one behind the other. That is the view's own cost.
- *after other work*: each comes alone, after the agents have done their part. That reads memory of each agent, so the
  processor's caches have lost what the view needs. It costs two to four times as much, with few members less than with many.
  Where some 30 MB of other objects are read before each event, it costs the same at each size: 180 to 190 us, not 40.

A cluster of 100,000 takes 14 s of CPU time to make, 7 s for each reading of its members, of which the view's part is 2 s, and
800 MB. All of it grows in proportion to the members. Only crashes do not: each agent hears of each.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time

from twisted.internet.task import Clock

import txserf
from benchmarks.bare import UNPACKING, unpack
from benchmarks.decoding import few_tags
from benchmarks.harness import Measure, Sample, Setting, Subject, Table, Turn
from txserf.connection.protocol import SerfProtocol
from txserf.embedded import EmbeddedCluster

SIZES = (100, 1_000, 10_000, 100_000)
EVENTS, REPLAYS = 10, 1_000  # events that an agent is made to send, and those of them that come back to back
FAILED = 10  # one member of so many
HOSTS = Path(__file__).parents[1] / "examples" / "hosts.j2"

# Rows that goals are about.
ALL, EVENT, SNAPSHOT = "view and indexes", "event, back to back", "snapshot, each member"


class Arrivals:
    """
    The bytes that come to clients' connections, and the CPU time that these take for them.

    :ivar data: the bytes, in order.
    :ivar seconds: the time.
    :ivar protocol: the connection that got the last ones.
    """

    protocol: SerfProtocol

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.seconds = 0.0

    def take(self) -> tuple[list[bytes], float]:
        """Return the bytes and the seconds since the last call."""
        taken = self.data, self.seconds
        self.data, self.seconds = [], 0.0
        return taken

    def again(self, data: list[bytes]) -> float:
        """Let bytes come once more; return their seconds."""
        begun = process_time()
        for each in data:
            self._received(self.protocol, each)
        return process_time() - begun

    def __enter__(self) -> Arrivals:
        received = self._received = SerfProtocol.dataReceived

        def timed(protocol: SerfProtocol, data: bytes) -> None:
            begun = process_time()
            received(protocol, data)
            self.seconds += process_time() - begun
            self.data.append(data)
            self.protocol = protocol

        SerfProtocol.dataReceived = timed  # type: ignore[assignment, method-assign]  # nothing else is between both
        return self

    def __exit__(self, *args: object) -> None:
        SerfProtocol.dataReceived = self._received  # type: ignore[method-assign]  # as it was


class Followed:
    """
    A cluster of *size* members, and a `Serf` of one of them.

    :param unique: whether each member has a tag of its own.
    """

    def __init__(self, size: int, unique: bool = False) -> None:
        self.clock = Clock()
        self.size = size
        self.cluster = EmbeddedCluster(self.clock, nodes=1, seed=1, default_bind=True)
        for number in range(1, size):
            self.cluster.add(self.name(number), self.tags(number, unique))
        endpoint = self.cluster.agents["n1"].endpoint()
        self.serf = txserf.Serf([endpoint], reactor=self.clock, timeout=600.0, heartbeat=None)
        self.serf.members()  # so that the agent has what it keeps for each member
        self.run(1.0)

    def __enter__(self) -> Followed:
        gc.collect()
        gc.freeze()  # the collector does not look at the agents: a program has none
        return self

    def __exit__(self, *args: object) -> None:
        gc.unfreeze()

    @staticmethod
    def name(number: int) -> str:
        return f"node-{number:06}"

    @staticmethod
    def tags(number: int, unique: bool) -> dict[str, str]:
        """Return a member's tags. Only the first has a ``leader``."""
        leader = {"leader": "yes"} if number == 1 else {}
        return few_tags(number) | leader | ({"id": f"i-{number:08x}"} if unique else {})

    def run(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds / 0.1))

    def view(self) -> txserf.ClusterView:
        """Return a view that has read the members."""
        view = txserf.ClusterView(self.serf, resync=None)
        view.startService()
        self.run(1.0)
        assert not view.stale and len(view.members) == self.size
        return view

    def stop(self, view: txserf.ClusterView) -> None:
        view.stopService()
        self.run(1.0)

    def strings(self, unique: bool) -> float:
        """Return the bytes of one member's own strings: its name, and the values of its tags where no other has the same."""
        own = [
            [self.name(number), *(self.tags(number, unique).values() if unique else ())]
            for number in range(self.size)
        ]
        return sum(sys.getsizeof(text) for texts in own for text in texts) / self.size


def memory(size: int, unique: bool) -> Measure:
    """Return how to measure bytes a member, beyond its own strings, where one of `FAILED` has failed."""

    def measure(setting: Setting) -> Iterator[Turn]:
        with Followed(setting.number(size), unique) as followed:
            # Cut off, they count as failed. So many crashes take hours, for every agent hears of each.
            followed.cluster.partition([followed.name(number) for number in range(1, followed.size, FAILED)])
            followed.run(4.0)
            followed.stop(followed.view())  # the agent has what it keeps for those that failed
            while True:
                used = used_by_view(followed)
                used["view"] -= followed.strings(unique)
                used[ALL] = sum(used.values())
                yield [
                    Sample(each, "bytes", row=name + kind(unique), at=followed.size)
                    for name, each in used.items()
                ]

    return measure


def used_by_view(followed: Followed) -> dict[str, float]:
    """Return bytes a member, by row."""
    views: list[txserf.ClusterView] = []
    steps: dict[str, Callable[[], object]] = {
        "view": lambda: views.append(followed.view()),
        "order of names": lambda: views[0].select(),
        "index by status": lambda: views[0].select(status="failed"),
        "index by a tag": lambda: views[0].select(role="db"),
    }
    gc.collect()
    tracemalloc.start()
    used = {row: used_by(step) / followed.size for row, step in steps.items()}
    tracemalloc.stop()
    followed.stop(views[0])
    return used


def kind(unique: bool) -> str:
    return ", unique tags" if unique else ""


def used_by(step: Callable[[], object]) -> int:
    """Return the bytes that a step leaves."""
    before = tracemalloc.get_traced_memory()[0]
    step()
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before


def times(size: int) -> Measure:
    """Return how to measure the CPU time of a view."""

    def measure(setting: Setting) -> Iterator[Turn]:
        with Followed(setting.number(size)) as followed, Arrivals() as arrivals:
            while True:
                arrivals.take()
                view = followed.view()
                data, snapshot = arrivals.take()
                found = {
                    SNAPSHOT: snapshot / followed.size,
                    f"{UNPACKING} of it, each": taken(lambda data=data: unpack(data)) / followed.size,  # type: ignore[misc]  # of this turn
                    **events(followed, view, arrivals),
                    **selects(view),
                    "template, each line": rendering(view) / followed.size,
                }
                yield [Sample(each * 1e6, "us", row=row, at=followed.size) for row, each in found.items()]
                followed.stop(view)

    return measure


def events(followed: Followed, view: txserf.ClusterView, arrivals: Arrivals) -> dict[str, float]:
    """Return the seconds of an event of one member, from its bytes to the members, by row. At the end all are alive again."""
    names = [followed.name(number) for number in range(1, min(EVENTS, followed.size - 1) + 1)]
    view.select(role="db")  # an index has to be kept too
    sent: list[bytes] = []
    alone = []
    for happen, status in ((followed.cluster.fail, "failed"), (followed.cluster.recover, "alive")):
        for name in names:
            happen(name)
            followed.run(4.0)
            data, seconds = arrivals.take()
            assert len(data) == 1 and view.members[name].status == status
            sent += data
            alone.append(seconds)
    rounds = [arrivals.again(sent) for _ in range(max(1, REPLAYS // len(sent)))]
    assert all(view.members[name].status == "alive" for name in names)
    return {
        EVENT: statistics.median(rounds) / len(sent),
        "event, after other work": statistics.median(alone),
    }


def selects(view: txserf.ClusterView) -> dict[str, float]:
    """Return the seconds of ``select()``, and of a scan that finds the same, by row."""
    view.select(leader="yes")  # the first one makes the index

    def scan() -> list[txserf.Member]:
        return [m for m in view.members.values() if m.status == "alive" and m.tags.get("leader") == "yes"]

    assert len(view.select(leader="yes")) == len(scan()) == 1
    return {
        "select() of one": taken(lambda: view.select(leader="yes"), 100),
        "scan for it": taken(scan),
        "select() of a third, each": taken(lambda: view.select(role="db")) / len(view.select(role="db")),
    }


def rendering(view: txserf.ClusterView) -> float:
    """Return the seconds of a template that has a line for each member."""
    with tempfile.TemporaryDirectory() as folder:
        template = txserf.Template(view, HOSTS, Path(folder) / "hosts")
        agent = view.members["n1"]
        return taken(lambda: template._render(agent))


def taken(function: Callable[[], object], times: int = 1) -> float:
    """Return the CPU seconds of one call."""
    begun = process_time()
    for _ in range(times):
        function()
    return (process_time() - begun) / times


MEMORY = Table(
    "view-memory",
    f"the memory of a ClusterView for each member, beyond its own strings; one of {FAILED} has failed",
    tuple(
        Subject(f"{size:,}{kind(unique)}", memory(size, unique))
        for unique, size in itertools.product((False, True), SIZES)
    ),
    base=str(SIZES[0]),
    growth="members",
    rounds=1,  # it is the same each time
)
TABLE = Table(
    "view",
    "the CPU time of a ClusterView",
    tuple(Subject(f"{size:,}", times(size)) for size in SIZES),
    base=str(SIZES[0]),
    growth="members",
    rounds=5,
)
