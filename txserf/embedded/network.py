"""
The network between the nodes: which of them reach each other, how long a message takes, when a failure is noticed.

It knows no agent: `Node` is its view of those that gossip.
"""

from __future__ import annotations

import ipaddress
import math
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IReactorCore

from txserf.embedded.agenda import Agenda
from txserf.embedded.membership import Knowledge, NodeRecord
from txserf.model import Coordinate, Member, UserEvent

# Seconds by which times that should be equal may differ.
_EPSILON = 1e-6

_DIMENSIONS = 8
_SPREAD = 0.0002  # seconds: as between machines of one rack
_LEAST_HEIGHT = 1e-05  # Serf's own

#: The coordinate of a node whose place was not measured yet.
UNMEASURED = Coordinate((0.0,) * _DIMENSIONS)

#: Seconds until a node's coordinate is known.
PROBE_INTERVAL = 1.0


class Place:
    """
    A node's place; messages between two nodes take half of the round trip between their places.

    :ivar latency: seconds that this node adds to each round trip.
    """

    def __init__(self, rng: random.Random) -> None:
        self._vec = tuple(rng.uniform(-_SPREAD, _SPREAD) for _ in range(_DIMENSIONS))
        self._error = rng.uniform(0.05, 0.3)
        self.latency: float = 0.0

    @property
    def coordinate(self) -> Coordinate:
        """Its coordinate, once it has been measured."""
        return Coordinate(self._vec, error=self._error, height=_LEAST_HEIGHT + self.latency)

    def delay_to(self, other: Place) -> float:
        """Return the seconds that a message to *other* takes."""
        if other is self:
            return 0.0
        heights = 2 * _LEAST_HEIGHT + self.latency + other.latency
        return (math.dist(self._vec, other._vec) + heights) / 2


class Node(Protocol):
    """
    A node as the network needs it.

    :ivar pool: the nodes that it has joined; the network changes it.
    """

    name: str
    pool: Pool
    started_at: float

    @property
    def seat(self) -> Seat[Any]:
        """Its part of the network, of which it is the node until it ends."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""

    @property
    def frozen_at(self) -> float | None:
        """The time since which it hangs; None for one that does not."""

    @property
    def knowledge(self) -> Knowledge:
        """Its knowledge of the cluster."""

    @property
    def record(self) -> NodeRecord:
        """The record that it spreads of itself."""

    def receive(self, call: Callable[[], None]) -> None:
        """Take a message."""


N = TypeVar("N", bound=Node)


@attrs.define(eq=False)
class Seat(Generic[N]):
    """
    An agent's part of the network, which outlives each of its processes.

    :ivar address: of its gossip.
    :ivar default_bind: whether its gossip listens on 0.0.0.0.
    :ivar incarnation: the number of its latest record.
    :ivar node: its process; None while it is down.
    :ivar stopped_at: the time since which it is down; None while it runs.
    """

    name: str = attrs.field(on_setattr=attrs.setters.frozen)
    address: ipaddress.IPv4Address = attrs.field(on_setattr=attrs.setters.frozen)
    port: int = attrs.field(on_setattr=attrs.setters.frozen)
    default_bind: bool = attrs.field(on_setattr=attrs.setters.frozen)
    place: Place = attrs.field(on_setattr=attrs.setters.frozen)
    incarnation: int = 0
    node: N | None = None
    stopped_at: float | None = None


class _Nobody:
    """Listens to the common knowledge of a pool, for which nobody has to be told."""

    def __init__(self, pool: Pool, agenda: Agenda) -> None:
        self._pool = pool
        self._agenda = agenda

    def seconds(self) -> float:
        return self._agenda.seconds()

    def member_changed(self, kind: str, member: Member) -> None:
        pass

    def user_event(self, event: UserEvent) -> None:
        pass

    def refute(self) -> None:
        pass

    def prune_leaving(self, name: str) -> None:
        self._pool.common.erase(name)

    def ended(self) -> None:
        pass


class Pool:
    """
    Nodes that have joined each other.

    :ivar common: the knowledge of a node that would hear of everything at once. Nodes that nobody looks at share it.
    """

    def __init__(self, agenda: Agenda) -> None:
        self.common: Knowledge = Knowledge(None, _Nobody(self, agenda))


class Network(Generic[N]):
    """
    All the nodes, in one pool or in several.

    :param reactor: gives the time of everything; None for the global one, at first use.
    :param seed: of all that is random; None for another run each time.
    :ivar seats: by name, in order of their adding; those of agents that are down too.
    :ivar detection: seconds until a node that can't be reached counts as failed.
    :ivar home: the pool of the first nodes, and of those that join them as they start.
    :ivar watched: the nodes that keep a view of their own.
    """

    def __init__(self, reactor: object | None, seed: int | None) -> None:
        self.agenda: Agenda = Agenda(reactor)
        self.rng: random.Random = random.Random(seed)
        self.seats: dict[str, Seat[N]] = {}
        self.home: Pool = Pool(self.agenda)
        self.detection: float = 1.0
        self.watched: dict[N, None] = {}
        self._by_address: dict[tuple[str, int], Seat[N]] = {}
        self._sides: dict[str, int] = {}
        self._cut_at = 0.0
        self._last_client = 32767
        self._start: datetime | None = None

    def date(self) -> str:
        """Return the time as a line of an agent's log has it."""
        if self._start is None:
            # Under a Clock the date is the clock's, so that two runs are the same.
            self._start = datetime(1970, 1, 1)
            if IReactorCore.providedBy(self.agenda.clock):
                self._start = datetime.now() - timedelta(seconds=self.agenda.clock.seconds())
        return f"{self._start + timedelta(seconds=self.agenda.seconds()):%Y/%m/%d %H:%M:%S}"

    # -- seats

    def new_seat(
        self, name: str, address: ipaddress.IPv4Address, port: int, *, default_bind: bool
    ) -> Seat[N]:
        """Add a node's part, at a place of its own."""
        seat = self.seats[name] = self._by_address[str(address), port] = Seat(
            name, address, port, default_bind, Place(self.rng)
        )
        return seat

    def client_address(self) -> IPv4Address:
        """Return another address for the client's end of a connection in memory."""
        self._last_client = 32768 + (self._last_client - 32767) % 28232
        return IPv4Address("TCP", "127.0.0.1", self._last_client)

    def node_at(self, host: str, port: int) -> N | None:
        """Return the node that gossips at an address."""
        seat = self._by_address.get((host, port))
        return None if seat is None else seat.node

    def nodes_of(self, pool: Pool) -> Iterable[N]:
        """Return those that run and have joined each other, in order of their adding."""
        for seat in tuple(self.seats.values()):
            if seat.node is not None and seat.node.pool is pool:
                yield seat.node

    def started(self, node: N) -> None:
        """A node runs: it takes its seat."""
        seat: Seat[N] = node.seat
        seat.node, seat.stopped_at = node, None
        seat.incarnation += 1

    def ended(self, node: N) -> None:
        """A node is no more."""
        self.watched.pop(node, None)
        seat: Seat[N] = node.seat
        seat.node, seat.stopped_at = None, self.agenda.seconds()
        self.look_for_the_unreachable()

    # -- messages

    def connected(self, one: Node, other: Node) -> bool:
        """Say whether the network between two nodes is whole."""
        return self._sides.get(one.name, 0) == self._sides.get(other.name, 0)

    def send(self, sender: Node, target: Node, call: Callable[[], None]) -> None:
        """Have *call* called at *target* when a message gets there, or never."""
        if not sender.running or not self.connected(sender, target):
            return
        delay = sender.seat.place.delay_to(target.seat.place)
        self.agenda.later(delay, lambda: target.receive(call))

    def send_to_all(self, sender: N, call: Callable[[N], None]) -> None:
        """Have *call* called with each node that *sender* has joined, itself too, when a message gets there."""
        for target in self.nodes_of(sender.pool):
            self.send(sender, target, partial(call, target))

    def broadcast(self, sender: N, message: Callable[[Knowledge], None]) -> None:
        """Have all that *sender* has joined hear of *message*, itself excepted."""
        message(sender.pool.common)
        for target in tuple(self.watched):
            if target is not sender and target.pool is sender.pool:
                self.send(sender, target, lambda target=target: message(target.knowledge))  # type: ignore[misc]  # a default binds

    # -- coordinates

    def coordinate(self, node: N, name: str) -> Coordinate | None:
        """Return the coordinate of the node called *name* as *node* knows it; None where it knows none."""
        seat = self.seats.get(name)
        if seat is None or name not in node.knowledge.members:
            return None
        other = seat.node
        if self._measured(node) and (other is None or self._measured(other)):
            return seat.place.coordinate
        return UNMEASURED if other is node else None

    def _measured(self, node: Node) -> bool:
        return self.agenda.seconds() - node.started_at >= PROBE_INTERVAL

    # -- partitions

    def partition(self, sides: Iterable[Iterable[str]]) -> None:
        """Let nodes of different sides not reach each other; all that are on none are together."""
        self._sides = {name: number for number, names in enumerate(sides, 1) for name in names}
        self._cut_at = self.agenda.seconds()
        self.look_for_the_unreachable()

    def heal(self) -> None:
        """Let all reach each other."""
        self._sides = {}
        self.reunite()

    # -- failures

    def look_for_the_unreachable(self) -> None:
        """Look for failed nodes once the failure detection has taken its time from now."""
        self.agenda.later(self.detection, self._sweep)

    def _sweep(self) -> None:
        then = self.agenda.seconds() - self.detection + _EPSILON
        for node in tuple(self.watched):
            if node.frozen_at is None:
                for name in tuple(node.knowledge.present):
                    since = self._unreachable_since(node, name)
                    if since is not None and since <= then:
                        node.knowledge.dead(name)
        for pool in self._pools():
            for name in tuple(pool.common.present):
                gone = self._away_since(name)
                if gone is not None and gone <= then:
                    pool.common.dead(name)

    def _pools(self) -> set[Pool]:
        return {seat.node.pool for seat in self.seats.values() if seat.node is not None}

    def _away_since(self, name: str) -> float | None:
        """Return the time since which a node answers none; None for one that answers."""
        seat = self.seats[name]
        return seat.stopped_at if seat.node is None else seat.node.frozen_at

    def _unreachable_since(self, node: Node, name: str) -> float | None:
        """Return the time since which the node called *name* does not answer *node*; None while it does."""
        since = self._away_since(name)
        other = self.seats[name].node
        if since is None and other is not None and not self.connected(node, other):
            since = self._cut_at
        return since

    def reunite(self) -> None:
        """Have the nodes that reach each other again find each other."""
        for node in tuple(self.watched):
            if node.frozen_at is not None:
                continue
            met: set[int] = set()
            for other in self.nodes_of(node.pool):
                if other is node or other.frozen_at is not None or not self.connected(node, other):
                    continue
                if other.name not in node.knowledge.present:
                    # It hears that it is taken for dead, and says that it is not.
                    other.seat.incarnation += 1
                    record = other.record
                    self.broadcast(other, lambda knowledge, record=record: knowledge.alive(record))  # type: ignore[misc]
                    if id(other.knowledge) not in met:
                        met.add(id(other.knowledge))
                        self._catch_up(node, other)

    def _catch_up(self, node: N, other: N) -> None:
        """Have a node hear from another one of all that it has missed."""
        knowledge = other.knowledge
        self.send(other, node, lambda: node.knowledge.merge(knowledge))

    # -- joining

    def merge(self, joiner: N, target: N, *, replay: bool) -> None:
        """Have two nodes join, and with them all that those have joined."""
        ours, theirs = joiner.pool, target.pool
        before = {id(side): tuple(self.nodes_of(side)) for side in (ours, theirs)}
        joiner.knowledge.merge(target.knowledge, ignore_old=not replay)
        if target in self.watched:
            target.knowledge.merge(joiner.knowledge)
        if ours is theirs:
            return
        if ours is self.home:
            self.home = theirs
        theirs.common.merge(ours.common)
        for side, others in ((ours, theirs), (theirs, ours)):
            for node in before[id(side)]:
                node.pool = theirs
                if node in self.watched and node is not joiner and node is not target:
                    for other in before[id(others)]:
                        record = other.record
                        self.send(other, node, lambda n=node, r=record: n.knowledge.alive(r))  # type: ignore[misc]
