"""How a view follows its cluster: the stream of events, the snapshot, and the readings after it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf import constant
from txserf.errors import Disconnected, SerfError, reason_text
from txserf.model import MEMBER_KINDS, Event, Gap, Member, MemberEvent
from txserf.serf.serf import Serf
from txserf.serf.streams import EventStream

_log = Logger(namespace="txserf.cluster")

_EVENTS = ",".join(f"member-{kind}" for kind in MEMBER_KINDS)

# Seconds until the members are asked for again that could not be read; then twice as many each time, up to the last one.
_RETRY, _LAST_RETRY = 1.0, 60.0


class ViewPhase(enum.Enum):
    """The state of a `ClusterView`; each value says what the view does in it."""

    IDLE = "nothing yet"
    OPENING = "waits until no event is missed"
    READING = "reads the members"
    LIVE = "follows the events"
    CHECKING = "follows the events, and reads the members again"
    FAILED = "nothing, for its stream has ended"
    CLOSED = "nothing any more"


_MOVES = {
    ViewPhase.IDLE: {ViewPhase.OPENING, ViewPhase.CLOSED},
    ViewPhase.OPENING: {ViewPhase.READING, ViewPhase.FAILED, ViewPhase.CLOSED},
    ViewPhase.READING: {ViewPhase.LIVE, ViewPhase.OPENING, ViewPhase.FAILED, ViewPhase.CLOSED},
    ViewPhase.LIVE: {ViewPhase.CHECKING, ViewPhase.OPENING, ViewPhase.FAILED, ViewPhase.CLOSED},
    ViewPhase.CHECKING: {ViewPhase.LIVE, ViewPhase.OPENING, ViewPhase.FAILED, ViewPhase.CLOSED},
    ViewPhase.FAILED: {ViewPhase.OPENING, ViewPhase.CLOSED},
    ViewPhase.CLOSED: {ViewPhase.OPENING},
}

# The phases in which the members that the agent knows and those of the view are the same, but for events under way.
_FRESH = frozenset({ViewPhase.LIVE, ViewPhase.CHECKING})


class ViewCallbacks(NamedTuple):
    """
    Gets what a `Following` brings. It must call nobody else's functions before it returns.

    :ivar compare: called with all members as the agent has them; returns how many were different.
    :ivar apply: called with each event behind them.
    :ivar read: called each time that the members were read, and the events that came meanwhile are applied.
    :ivar failed: called with the error that ended the stream.
    """

    compare: Callable[[list[Member]], int]
    apply: Callable[[MemberEvent], None]
    read: Callable[[], None]
    failed: Callable[[SerfError], None]


class Following:
    """
    Follows the members of a cluster: it subscribes first and reads them then, and again after each gap.

    :param resync: seconds between two readings; None to read after a gap only.
    :ivar phase: what it does now.
    :ivar read_at: when the members were read last since the start; None before.
    :ivar repairs: how many differences were found by the readings every *resync* seconds.
    :ivar listener: where it is set before the start, the stream is one of all events, and this is called with each of its
        records, in the agent's order. It must not raise.
    :ivar ended: called with the error that ended the stream, behind its records. It must not raise.
    """

    listener: Callable[[Event | Gap], None] | None = None
    ended: Callable[[SerfError], None] | None = None

    def __init__(self, serf: Serf, resync: float | None, follower: ViewCallbacks) -> None:
        self.phase: ViewPhase = ViewPhase.IDLE
        self.read_at: float | None = None
        self.repairs: int = 0
        self._serf = serf
        self._resync = resync
        self._follower = follower
        self._stream: EventStream | None = None  # from OPENING to CHECKING
        self._reading: Deferred[None] | None = None
        self._timer: Any = None  # the next reading of the members
        self._retry = _RETRY
        self._held: list[MemberEvent] = []  # they came while the members are read

    @property
    def stale(self) -> bool:
        """Whether something may be missing: the agent is away, or the members were not read since."""
        return self.phase not in _FRESH or self._stream is None or not self._stream.is_active

    @property
    def stream(self) -> EventStream | None:
        """The stream of events; None where nothing is followed."""
        return self._stream

    @property
    def lost_at(self) -> float | None:
        """When the agent was last heard, in seconds of the clock, while it is away; else None, and before the first one."""
        return None if self._stream is None else self._stream._lost_at

    def open(self) -> None:
        """Begin; raises what `Serf.stream` raises."""
        stream = self._serf.stream(_EVENTS if self.listener is None else "*", gaps=True)
        self._move(ViewPhase.OPENING)
        self._stream = stream
        following = Deferred.fromCoroutine(self._follow(stream))
        following.addErrback(lambda failure: _log.failure("an event of {stream!r}", failure, stream=stream))
        if self.phase is ViewPhase.OPENING:
            self._read(stream)

    def close(self) -> Deferred[None] | None:
        """End it; return the Deferred of the stream's end at the agent, None where there is no stream."""
        stream = self._leave(ViewPhase.CLOSED)
        return None if stream is None else stream.stop()

    def _move(self, phase: ViewPhase) -> None:
        assert phase in _MOVES[self.phase], f"{self.phase} to {phase}"
        self.phase = phase

    def _leave(self, phase: ViewPhase) -> EventStream | None:
        """Move to *phase*, in which nothing is followed; return the stream that was."""
        self._move(phase)
        stream, self._stream = self._stream, None
        self.read_at = None
        self._retry = _RETRY
        self._stop_reading()
        return stream

    # The stream

    async def _follow(self, stream: EventStream) -> None:
        reason: SerfError = Disconnected("the Serf of this ClusterView is closed")
        try:
            async for item in stream:
                self._take(stream, item)
        except SerfError as error:
            reason = error
        if stream is self._stream:
            self._fail(reason)

    def _take(self, stream: EventStream, item: Event | Gap) -> None:
        if stream is not self._stream:
            return
        if self.listener is not None:
            self.listener(item)
        if isinstance(item, Gap):
            self._read(stream)
        elif isinstance(item, MemberEvent):
            if self.phase is ViewPhase.LIVE:
                self._follower.apply(item)
            elif self.phase is not ViewPhase.OPENING:  # else the snapshot to come has it
                self._held.append(item)
                if len(self._held) > constant.STREAM_BUFFER:
                    self._read(stream)

    def _fail(self, reason: SerfError) -> None:
        self._leave(ViewPhase.FAILED)
        if type(reason) is not Disconnected:
            _log.error("no changes of members: {reason}", reason=reason_text(reason))
            self._schedule(_LAST_RETRY)
        if self.ended is not None:
            self.ended(reason)
        self._follower.failed(reason)

    # The snapshot

    def _read(self, stream: EventStream) -> None:
        """Read the members, once no event is missed."""
        self._stop_reading()
        if self.phase is not ViewPhase.OPENING:
            self._move(ViewPhase.OPENING)
        self._reading = Deferred.fromCoroutine(self._snapshot(stream)).addErrback(self._unread)

    def _check(self, stream: EventStream) -> None:
        """Read the members again, while their events go on."""
        self._move(ViewPhase.CHECKING)
        self._reading = Deferred.fromCoroutine(self._snapshot(stream)).addErrback(self._unread)

    def _stop_reading(self) -> None:
        self._held.clear()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()

    async def _snapshot(self, stream: EventStream) -> None:
        await stream.when_active()
        if self.phase is ViewPhase.OPENING:
            self._move(ViewPhase.READING)
        # An answer by a new connection, whose stream is not open yet, may lack what happens until it is. But then there
        # is a gap, and they are read once more.
        members = await self._serf.members()
        found = self._follower.compare(members)
        if self.phase is ViewPhase.CHECKING and found:
            self.repairs += found
            _log.info("{count} changes of members had been missed", count=found)
        self._retry = _RETRY
        self.read_at = self._serf.clock.seconds()
        self._go_live()
        if self._resync is not None:
            self._schedule(self._resync)
        self._follower.read()

    def _go_live(self) -> None:
        self._move(ViewPhase.LIVE)
        held, self._held = self._held, []
        for event in held:
            self._follower.apply(event)

    def _unread(self, failure: Failure) -> None:
        """Take that the members could not be read, or that their reading was cancelled."""
        if failure.check(CancelledError):
            return
        failure.trap(SerfError)
        _log.warn("the members can't be read: {reason}", reason=reason_text(failure))
        if self.phase is ViewPhase.CHECKING:
            self._go_live()
        elif self.phase is ViewPhase.READING:
            self._move(ViewPhase.OPENING)
        self._schedule(self._retry)
        self._retry = min(2 * self._retry, _LAST_RETRY)

    def _schedule(self, delay: float) -> None:
        self._timer = self._serf.clock.callLater(delay, self._due)

    def _due(self) -> None:
        self._timer = None
        stream = self._stream
        if stream is None:  # it had failed
            try:
                self.open()
            except Disconnected:
                pass  # the Serf was closed meanwhile; who starts it again starts the view too
            except SerfError as error:
                _log.warn("no changes of members: {reason}", reason=reason_text(error))
                self._schedule(_LAST_RETRY)
        elif self.phase is ViewPhase.OPENING:
            self._read(stream)
        elif stream.is_active:
            self._check(stream)
        # Else the agent is away, and the gap at its return has the members read.
