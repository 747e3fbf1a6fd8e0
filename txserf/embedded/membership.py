"""
A node's knowledge of its cluster, and how it changes.

There are two layers, as in Serf. Memberlist's knows which nodes are there (`Knowledge.alive`, `Knowledge.dead`).
Serf's own knows which nodes mean to leave (the intents), and so tells a failure from a leave. Follows ``serf/serf.go`` and ``serf/delegate.go``.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import attrs

from txserf import wire
from txserf.model import Member, MemberStatus, Tags, UserEvent

#: LTimes of user events that are kept, against duplicates and for a replay.
EVENT_BUFFER = 512

#: Seconds that failed and left members are kept.
KEPT = 24 * 3600.0


class LamportClock:
    """
    A counter that orders what happens on different nodes; it never falls behind a time that it has heard of.

    :ivar time: the time that the next event of this node gets.
    """

    __slots__ = ("time",)

    def __init__(self, time: int = 1) -> None:
        self.time: int = time

    def increment(self) -> int:
        """Step on; returns the new time."""
        self.time += 1
        return self.time

    def witness(self, time: int) -> None:
        """Take note of the time of an event from elsewhere."""
        if time >= self.time:
            self.time = time + 1


@attrs.frozen(kw_only=True)
class WideMember(Member):
    """A member whose gossip listens on 0.0.0.0: its IPv4 address takes 16 bytes on the wire."""

    def to_wire(self) -> dict[str, Any]:
        assert self.address is not None
        return {**super().to_wire(), "Addr": bytes(10) + b"\xff\xff" + self.address.packed}


@attrs.frozen(eq=False)
class NodeRecord:
    """
    A node's record of itself; a newer one has a higher *incarnation*.

    :ivar kind: the class of member that it is.
    """

    name: str
    address: ipaddress.IPv4Address
    port: int
    tags: Tags
    incarnation: int
    kind: type[Member] = Member


class Known:
    """
    A member as one or more nodes know it. It is replaced, never changed, for nodes share it.

    :ivar status_ltime: the Lamport time of the message that its status comes from.
    :ivar since: when it failed or left.
    """

    __slots__ = ("_packed", "member", "since", "status_ltime")

    def __init__(self, member: Member, status_ltime: int = 0, since: float = 0.0) -> None:
        self.member: Member = member
        self.status_ltime: int = status_ltime
        self.since: float = since
        self._packed: bytes | None = None

    @property
    def packed(self) -> bytes:
        """Its bytes on the wire."""
        if self._packed is None:
            self._packed = wire.pack(self.member.to_wire())
        return self._packed

    def at(self, status_ltime: int) -> Known:
        """Return the same with another Lamport time."""
        same = Known(self.member, status_ltime, self.since)
        same._packed = self._packed
        return same

    def becomes(self, status: MemberStatus, since: float = 0.0) -> Known:
        """Return the same in another status."""
        return Known(attrs.evolve(self.member, status=status), self.status_ltime, since)


class Watcher(Protocol):
    """Is told of changes in a node's knowledge."""

    def seconds(self) -> float:
        """The time."""

    def member_changed(self, kind: str, member: Member) -> None:
        """A member joined, left, failed, was updated or reaped."""

    def user_event(self, event: UserEvent) -> None:
        """A user event came that was not known."""

    def refute(self) -> None:
        """Another node says that this one leaves; it does not."""

    def prune_leaving(self, name: str) -> None:
        """A member that is leaving has to be erased, once it has had the time to leave."""

    def ended(self) -> None:
        """A member has failed or left, and is to be erased a day later."""


class Knowledge:
    """
    The knowledge of one node.

    :param own: the name of that node; None for the common knowledge of a pool.
    :ivar members: all that it has heard of, by name.
    :ivar records: the latest record of each of them.
    :ivar present: the names of those that it takes to be there, in order of joining.
    """

    def __init__(self, own: str | None, listener: Watcher) -> None:
        self.own = own
        self.refutes: bool = own is not None
        self.members: dict[str, Known] = {}
        self.records: dict[str, NodeRecord] = {}
        self.present: dict[str, None] = {}
        self.clock: LamportClock = LamportClock()
        self.event_clock: LamportClock = LamportClock()
        self.query_clock: LamportClock = LamportClock()
        self._listener = listener
        self._intents: dict[str, tuple[str, int]] = {}
        self._events: dict[int, list[tuple[str, bytes]]] = {}
        self._event_times: deque[int] = deque()
        self._least_event_time = 0

    def copy(self, own: str, listener: Watcher) -> Knowledge:
        """Return the same knowledge, as another node's."""
        other = Knowledge(own, listener)
        for name in ("members", "records", "present", "_intents"):
            setattr(other, name, dict(getattr(self, name)))
        for name in ("clock", "event_clock", "query_clock"):
            getattr(other, name).time = getattr(self, name).time
        other._events = {ltime: list(events) for ltime, events in self._events.items()}
        other._event_times = deque(self._event_times)
        return other

    def counts(self) -> dict[str, int]:
        """Return how many members are in each status."""
        counts: dict[str, int] = dict.fromkeys(MemberStatus, 0)
        for known in self.members.values():
            counts[known.member.status] += 1
        return counts

    def others_alive(self) -> bool:
        """Say whether any other node is alive."""
        return any(
            known.member.status is MemberStatus.ALIVE and name != self.own
            for name, known in self.members.items()
        )

    # -- memberlist's layer

    def alive(self, record: NodeRecord) -> None:
        """Note that a node says that it is there."""
        name, before = record.name, self.records.get(record.name)
        if before is not None and record.incarnation <= before.incarnation:
            return
        self.records[name] = record
        if name not in self.present:
            self.present[name] = None
            self._joined(record)
        elif before is None or before.tags != record.tags:
            self._updated(record)

    def dead(self, name: str, incarnation: int | None = None) -> None:
        """
        Note that a node is gone.

        :param incarnation: the latest that the sender knew; an older one is ignored. None for the one that is known.
        """
        if name in self.present and (incarnation is None or incarnation >= self.records[name].incarnation):
            del self.present[name]
            self._gone(name)

    def _joined(self, record: NodeRecord) -> None:
        before = self.members.get(record.name)
        status, ltime = MemberStatus.ALIVE, before.status_ltime if before else 0
        if before is None and record.name in self._intents:
            intent, ltime = self._intents[record.name]
            if intent == "leave":
                status = MemberStatus.LEAVING
        member = record.kind(
            name=record.name, address=record.address, port=record.port, tags=record.tags, status=status
        )
        self.members[record.name] = Known(member, ltime)
        self._listener.member_changed("join", member)

    def _updated(self, record: NodeRecord) -> None:
        known = self.members.get(record.name)
        if known is None:
            return  # a node that runs, and was pruned
        member = attrs.evolve(known.member, tags=record.tags)
        self.members[record.name] = Known(member, known.status_ltime)
        self._listener.member_changed("update", member)

    def _gone(self, name: str) -> None:
        known = self.members.get(name)
        if known is None:
            return
        left = known.member.status is MemberStatus.LEAVING
        self._end(known, MemberStatus.LEFT if left else MemberStatus.FAILED, "leave" if left else "failed")

    def _end(self, known: Known, status: MemberStatus, kind: str) -> None:
        ended = known.becomes(status, self._listener.seconds())
        self.members[ended.member.name] = ended
        self._listener.member_changed(kind, ended.member)
        self._listener.ended()

    # -- Serf's layer

    def leave_intent(self, ltime: int, name: str, prune: bool = False) -> None:
        """Note that a node means to leave, or is made to."""
        self.clock.witness(ltime)
        known = self.members.get(name)
        if known is None:
            self._intend("leave", ltime, name)
            return
        if ltime <= known.status_ltime:
            return
        if name == self.own and self.refutes:
            self._listener.refute()
            return
        known = self.members[name] = known.at(ltime)
        status = known.member.status
        if status is MemberStatus.ALIVE:
            self.members[name] = known.becomes(MemberStatus.LEAVING)
        elif status is MemberStatus.FAILED:
            self._end(known, MemberStatus.LEFT, "leave")
        if prune:
            if self.members[name].member.status is MemberStatus.LEAVING:
                self._listener.prune_leaving(name)
            else:
                self.erase(name)

    def join_intent(self, ltime: int, name: str) -> None:
        """Note that a node means to stay."""
        self.clock.witness(ltime)
        known = self.members.get(name)
        if known is None:
            self._intend("join", ltime, name)
        elif ltime > known.status_ltime:
            leaving = known.member.status is MemberStatus.LEAVING
            self.members[name] = (known.becomes(MemberStatus.ALIVE) if leaving else known).at(ltime)

    def _intend(self, kind: str, ltime: int, name: str) -> None:
        if name not in self._intents or ltime > self._intents[name][1]:
            self._intents[name] = (kind, ltime)

    def erase(self, name: str) -> None:
        """Forget a member."""
        known = self.members.pop(name, None)
        if known is not None:
            self._listener.member_changed("reap", known.member)

    def reap(self) -> float | None:
        """Forget those that failed or left a day ago; returns when the next one is due."""
        now, rest = self._listener.seconds(), []
        for name, known in tuple(self.members.items()):
            if known.member.status in (MemberStatus.FAILED, MemberStatus.LEFT):
                if now - known.since > KEPT:
                    self.erase(name)
                else:
                    rest.append(known.since)
        return min(rest) + KEPT if rest else None

    # -- user events

    def user_event(self, event: UserEvent) -> None:
        """Take a user event, unless it is known or too old."""
        self.event_clock.witness(event.ltime)
        if event.ltime < max(self._least_event_time, self.event_clock.time - EVENT_BUFFER):
            return
        if event.ltime not in self._events:
            self._events[event.ltime] = []
            self._event_times.append(event.ltime)
            if len(self._event_times) > EVENT_BUFFER:
                del self._events[self._event_times.popleft()]
        same_time = self._events[event.ltime]
        if (event.name, event.payload) not in same_time:
            same_time.append((event.name, event.payload))
            self._listener.user_event(event)

    def _recent_events(self) -> Iterator[UserEvent]:
        for ltime in sorted(self._events):
            for name, payload in self._events[ltime]:
                yield UserEvent(name, payload, ltime)

    # -- all at once

    def merge(self, other: Knowledge, *, ignore_old: bool = False) -> None:
        """
        Take over another node's knowledge, as two nodes do that join.

        :param ignore_old: leave out the user events before now.
        """
        for name in tuple(other.present):
            self.alive(other.records[name])
        for ours, theirs in (
            (self.clock, other.clock),
            (self.event_clock, other.event_clock),
            (self.query_clock, other.query_clock),
        ):
            ours.witness(theirs.time - 1)
        for name, known in tuple(other.members.items()):
            if known.member.status is MemberStatus.LEFT:
                self.leave_intent(known.status_ltime + 1, name)
        for name, known in tuple(other.members.items()):
            if known.member.status is not MemberStatus.LEFT:
                self.join_intent(known.status_ltime, name)
        if ignore_old:
            self._least_event_time = max(self._least_event_time, other.event_clock.time)
        for event in tuple(other._recent_events()):
            self.user_event(event)
