"""`ClusterView`: the members of a cluster, kept up to date."""

from __future__ import annotations

import copy
import enum
from collections import deque
from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf import commands, constant
from txserf.arguments import count as counted
from txserf.arguments import limit, seconds
from txserf.callbacks import check_callables
from txserf.cluster.changes import Change, Changes, Listener, function_chain
from txserf.cluster.coordinates import Coordinates
from txserf.cluster.matching import Match, TagMatch
from txserf.cluster.ring import Ring
from txserf.cluster.table import Members, Table
from txserf.cluster.waits import Enough, Waits
from txserf.errors import Disconnected, InvalidRequest, SerfError, reason_text
from txserf.model import MEMBER_KINDS, Event, Gap, Member, MemberEvent
from txserf.serf.serf import Serf
from txserf.serf.streams import EventStream

_log = Logger(namespace="txserf.cluster")

_EVENTS = ",".join(f"member-{kind}" for kind in MEMBER_KINDS)

# Seconds until the members are asked for again that could not be read; then twice as many each time, up to the last one.
_RETRY, _LAST_RETRY = 1.0, 60.0


class Phase(enum.Enum):
    """The state of a `ClusterView`; each value says what the view does in it."""

    IDLE = "nothing yet"
    OPENING = "waits until no event is missed"
    READING = "reads the members"
    LIVE = "follows the events"
    CHECKING = "follows the events, and reads the members again"
    FAILED = "nothing, for its stream has ended"
    CLOSED = "nothing any more"


_MOVES = {
    Phase.IDLE: {Phase.OPENING, Phase.CLOSED},
    Phase.OPENING: {Phase.READING, Phase.FAILED, Phase.CLOSED},
    Phase.READING: {Phase.LIVE, Phase.OPENING, Phase.FAILED, Phase.CLOSED},
    Phase.LIVE: {Phase.CHECKING, Phase.OPENING, Phase.FAILED, Phase.CLOSED},
    Phase.CHECKING: {Phase.LIVE, Phase.OPENING, Phase.FAILED, Phase.CLOSED},
    Phase.FAILED: {Phase.OPENING, Phase.CLOSED},
    Phase.CLOSED: {Phase.OPENING},
}

# The phases in which the members that the agent knows and those of the view are the same, but for events under way.
_FRESH = frozenset({Phase.LIVE, Phase.CHECKING})


class ClusterView(Service):
    """
    The members of a cluster, kept up to date by the agent's events.

    ::

        view = txserf.ClusterView(serf)
        await view.when_ready()
        for member in view.select(role="web"):
            print(member.name, member.address)

    It is a service (``setServiceParent``). `when_ready`, `wait_for`, `changes` and `nearest` start it too. Its start
    starts the `Serf` if that does not run, and its stop does not close that.

    It subscribes to the events before it reads the members, so that nothing falls between. After a loss of the agent it
    reads them again and reports the difference, as it does every *resync* seconds: an agent reports changes one to
    three seconds late, and some not at all. While the agent is away the last known members stay (`stale`).

    :param serf: the connection.
    :param status: the view has members of this status only; None for any.
    :param tags: the view has members with these tags only: values by tag, or predicates of the value. A member on which a
        predicate fails is left out; the first such failure is logged.
    :param resync: seconds between two readings of the members; None to read them after a loss only.
    :raises InvalidRequest: for a bad argument.
    :ivar serf: the connection.
    """

    def __init__(
        self,
        serf: Serf,
        *,
        status: str | None = None,
        tags: Mapping[str, TagMatch] | None = None,
        resync: float | None = 300.0,
    ) -> None:
        if not isinstance(serf, Serf):
            raise InvalidRequest(f"ClusterView: serf must be a Serf, not {type(serf).__name__}")
        self.serf = serf
        self._match = Match("ClusterView", status, tags)
        self._predicate_failed = False  # so that it has been logged
        self._resync = None if resync is None else limit(resync, "ClusterView: resync")
        self._phase = Phase.IDLE
        self._stream: EventStream | None = None  # from OPENING to CHECKING
        self._reading: Deferred[None] | None = None
        self._timer: Any = None  # the next reading of the members
        self._retry = _RETRY
        self._held: list[MemberEvent] = []  # they came while the members are read
        self._read_at: float | None = None  # since the start: when the members were read last
        self._repairs = 0
        self._table = Table()
        self._members = Members(self._table)
        self._listeners: dict[Listener, None] = {}
        self._number = 0  # of the next change
        self._pending: deque[tuple[int, Change]] = deque()  # to be told
        self._turn: Any = None  # the call that tells
        self._askers: deque[Deferred[ClusterView]] = deque()  # of `when_ready`
        self._waits = Waits(self._table.select)
        self._coordinates = Coordinates(serf)

    def __repr__(self) -> str:
        return f"<ClusterView: {len(self._table.by_name)} members, {self._phase.name.lower()}>"

    # A service

    def startService(self) -> None:
        """Begin to follow the cluster."""
        if self._phase in (Phase.IDLE, Phase.FAILED, Phase.CLOSED):
            if not self.serf.running:
                self.serf.startService()
            self._open()
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own

    def stopService(self) -> Deferred[None]:
        """
        End it: those who wait get `Disconnected`, and ``changes()`` end.

        The functions of `on_change` stay, for another start, which tells them the difference.

        :returns: a Deferred of None, once all have been told and the agent has stopped the stream.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        if self._phase is Phase.CLOSED:
            return succeed(None)
        stream = self._leave_stream(Phase.CLOSED)
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        over: list[Deferred[Any]] = [self._end_all(Disconnected("this ClusterView was stopped"))]
        if stream is not None:
            over.append(stream.stop())
        return DeferredList(over, consumeErrors=True).addCallback(lambda _: None)

    # The members

    @property
    def members(self) -> Mapping[str, Member]:
        """
        The members by name, in the order of names: a mapping that can't be changed and follows the view.

        It is empty before the first snapshot (`when_ready`).

        :raises Disconnected: once the view is stopped.
        """
        self._check_open()
        return self._members

    def select(
        self, *, status: str | None = "alive", tags: Mapping[str, TagMatch] = {}, **more_tags: TagMatch
    ) -> list[Member]:
        """
        Return the members that match.

        :param status: compared exactly; None for any.
        :param tags: a value by tag, compared exactly, or a predicate of the value, which gets None where the tag
            is absent. *more_tags* are the same.
        :returns: a list, sorted by name. It is found by an index, which is made for a tag when it is first asked for.
        :raises InvalidRequest: for a bad argument; `Disconnected` once the view is stopped.
        """
        self._check_open()
        return self._table.select(Match("select", status, tags, more_tags))

    def ring(
        self, *, status: str | None = "alive", tags: Mapping[str, TagMatch] = {}, **more_tags: TagMatch
    ) -> Ring[Member]:
        """
        Return the ring of the members that match now; it does not change with the view.

        :param status: as of `select`, and so the tags.
        :returns: a `Ring`, which says for each key which members own it. It is a hint, and no lock.
        :raises InvalidRequest: for a bad argument; `Disconnected` once the view is stopped.
        """
        self._check_open()
        return Ring(self._table.select(Match("ring", status, tags, more_tags)))

    @property
    def stale(self) -> bool:
        """Whether the members may be out of date: the agent is away, or they have not been read since."""
        return self._phase not in _FRESH or self._stream is None or not self._stream.is_active

    @property
    def repairs(self) -> int:
        """
        How many changes were found by reading the members again every *resync* seconds.

        One that its event would have told of a moment later counts too.
        """
        return self._repairs

    # Changes

    def on_change(self, function: Callable[[Member | None, Member | None], object]) -> Callable[[], None]:
        """
        Have a function called for each change from now on, in order.

        :param function: called with the old and the new `Member`; None stands for no member. It is called in a turn of
            the reactor of its own. If it returns an awaitable, the next change waits for that. What it
            raises is logged, and nobody else misses anything.
        :returns: a function that ends it.
        :raises InvalidRequest: for a function that can't be called; `Disconnected` once the view is stopped.
        """
        check_callables((function,))
        self._check_open()
        chain = function_chain(function)
        listener = self._listen(chain.put)

        def end() -> None:
            self._listeners.pop(listener, None)
            chain.close()

        return end

    def changes(self, *, buffer: int | None = None) -> Changes:
        """
        Follow the changes from now on.

        :param buffer: changes that may wait for a slow reader; past it the oldest goes (``dropped``). None takes
            ``constant.STREAM_BUFFER``, or room for each member twice where that is more.
        :returns: an async iterator of `Change`, with ``stop()``. It ends when the view is stopped, and with an error where
            the agent refuses the view.
        :raises InvalidRequest: for a bad argument; `Disconnected` once the view or its `Serf` is stopped.
        """
        most = None if buffer is None else counted(buffer, "changes: buffer")
        self._begin()

        def stopped(_: object) -> None:
            self._listeners.pop(listener, None)

        changes = Changes(most, stopped)
        listener = self._listen(lambda change: changes._put(change, len(self._table.by_name)))
        listener.feed = changes
        return changes

    # Waiting

    def when_ready(self) -> Deferred[ClusterView]:
        """
        Wait for the first snapshot.

        :returns: a Deferred of this view. It fails with `Disconnected` where the view or its `Serf` is stopped, or with
            the error that ended the stream, such as `AuthenticationError`. It can be cancelled.
        """
        try:
            self._begin()
        except SerfError as error:
            return fail(error)
        if self._read_at is not None:
            return succeed(self)
        asker: Deferred[ClusterView] = Deferred(self._askers.remove)
        self._askers.append(asker)
        return asker

    def wait_for(
        self,
        count: Enough,
        *,
        status: str | None = "alive",
        timeout: float | None = None,
        tags: Mapping[str, TagMatch] = {},
        **more_tags: TagMatch,
    ) -> Deferred[list[Member]]:
        """
        Wait until enough members match.

        While the view is `stale`, the last known members count.

        :param count: how many, or a predicate of the list of those that match.
        :param status: as of `select`, and so the tags.
        :param timeout: seconds; None for no limit.
        :returns: a Deferred of the list, as of `select`. It fails with `RequestTimeout` past *timeout*, as `when_ready`
            does, or with what a predicate raises. It can be cancelled.
        :raises InvalidRequest: at the call, for a bad argument.
        """
        match = Match("wait_for", status, tags, more_tags)
        if iscoroutinefunction(count):  # a coroutine is never false
            raise InvalidRequest(
                "wait_for: count must be a predicate that returns at once, no coroutine function"
            )
        enough = count if callable(count) else counted(count, "wait_for: count")
        patience = None if timeout is None else seconds(timeout, "wait_for: timeout")
        try:
            self._begin()
        except SerfError as error:
            return fail(error)
        wait = self._waits.add(match, enough)
        if patience is not None:
            self._waits.limit(wait, self.serf.clock, patience, self._why_stale)
        if self._read_at is not None:
            self._waits.check_one(wait)
        return wait.result

    def nearest(
        self,
        node: str | None = None,
        *,
        count: int | None = None,
        within: float | None = None,
        status: str | None = "alive",
        tags: Mapping[str, TagMatch] = {},
        **more_tags: TagMatch,
    ) -> Deferred[list[tuple[Member, float]]]:
        """
        Find the members that are nearest to a node, by the estimated round trip.

        :param node: the node's name; None for the agent's own.
        :param count: how many at the most; None for all.
        :param within: seconds; None for any distance.
        :param status: as of `select`, and so the tags.
        :returns: a Deferred of pairs of a `Member` and seconds, the nearest first. The seconds are those of `Serf.rtt`; the
            coordinates are kept for 30 s. The node itself is one of them if it matches. Members without a coordinate
            are left out. It fails with `RpcError` where the agent has no coordinate of *node*, as a
            call of `Serf` does, or as `when_ready` does. It can be cancelled.
        :raises InvalidRequest: at the call, for a bad argument.
        """
        match = Match("nearest", status, tags, more_tags)
        if node is not None:
            commands.GET_COORDINATE.typed_arguments({"node": node})
        most = None if count is None else counted(count, "nearest: count")
        furthest = None if within is None else seconds(within, "nearest: within")

        async def find() -> list[tuple[Member, float]]:
            await self.when_ready()
            return (await self._coordinates.nearest(node, self._table.select(match), furthest))[:most]

        return Deferred.fromCoroutine(find())

    # How it works

    def _move(self, phase: Phase) -> None:
        assert phase in _MOVES[self._phase], f"{self._phase} to {phase}"
        self._phase = phase

    def _check_open(self) -> None:
        if self._phase is Phase.CLOSED:
            raise Disconnected("this ClusterView is stopped")

    def _begin(self) -> None:
        """Start it, if it does not run."""
        self._check_open()
        if self._phase in (Phase.IDLE, Phase.FAILED):
            self._open()
            super().startService()  # type: ignore[no-untyped-call]  # Twisted's own

    def _why_stale(self) -> str:
        reason = self.serf.why_disconnected
        return f" ({reason})" if reason else ""

    def _open(self) -> None:
        stream = self.serf.stream(_EVENTS, gaps=True)
        self._move(Phase.OPENING)
        self._stream = stream
        following = Deferred.fromCoroutine(self._follow(stream))
        following.addErrback(lambda failure: _log.failure("{view!r}: an event", failure, view=self))
        if self._phase is Phase.OPENING:
            self._read(stream)
        if self._pending:
            self._tell_soon()

    def _leave_stream(self, phase: Phase) -> EventStream | None:
        """Move to *phase*, in which nothing is followed; return the stream that was."""
        self._move(phase)
        stream, self._stream = self._stream, None
        self._read_at = None
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
        if isinstance(item, Gap):
            self._read(stream)
        elif isinstance(item, MemberEvent):
            if self._phase is Phase.LIVE:
                self._apply(item)
            elif self._phase is not Phase.OPENING:  # else the snapshot to come has it
                self._held.append(item)
                if len(self._held) > constant.STREAM_BUFFER:
                    self._read(stream)

    def _fail(self, reason: SerfError) -> None:
        """Take that the stream has ended."""
        self._leave_stream(Phase.FAILED)
        if type(reason) is not Disconnected:
            _log.error("no changes of members: {reason}", reason=reason_text(reason))
            self._schedule(_LAST_RETRY)
        self._end_all(reason)

    # The snapshot

    def _read(self, stream: EventStream) -> None:
        """Read the members, once no event is missed."""
        self._stop_reading()
        if self._phase in (Phase.READING, Phase.LIVE, Phase.CHECKING):
            self._move(Phase.OPENING)
        self._reading = Deferred.fromCoroutine(self._snapshot(stream)).addErrback(self._unread)

    def _check(self, stream: EventStream) -> None:
        """Read the members again, while their events go on."""
        self._move(Phase.CHECKING)
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
        if self._phase is Phase.OPENING:
            self._move(Phase.READING)
        # An answer by a new connection, whose stream is not open yet, may lack what happens until it is. But then there
        # is a gap, and they are read once more.
        members = await self.serf.members()
        found = self._compare(members)
        if self._phase is Phase.CHECKING and found:
            self._repairs += found
            _log.info("{count} changes of members had been missed", count=found)
        self._retry = _RETRY
        self._read_at = self.serf.clock.seconds()
        self._go_live()
        if self._resync is not None:
            self._schedule(self._resync)
        if self._askers or self._waits:
            self._tell_soon()

    def _go_live(self) -> None:
        self._move(Phase.LIVE)
        held, self._held = self._held, []
        for event in held:
            self._apply(event)

    def _unread(self, failure: Failure) -> None:
        """Take that the members could not be read, or that their reading was cancelled."""
        if failure.check(CancelledError):
            return
        failure.trap(SerfError)
        _log.warn("the members can't be read: {reason}", reason=reason_text(failure))
        if self._phase is Phase.CHECKING:
            self._go_live()
        elif self._phase is Phase.READING:
            self._move(Phase.OPENING)
        self._schedule(self._retry)
        self._retry = min(2 * self._retry, _LAST_RETRY)

    def _schedule(self, delay: float) -> None:
        self._timer = self.serf.clock.callLater(delay, self._due)

    def _due(self) -> None:
        self._timer = None
        stream = self._stream
        if stream is None:  # it had failed
            try:
                self._open()
            except Disconnected:
                pass  # the Serf was closed meanwhile; who starts it again starts the view too
            except SerfError as error:
                _log.warn("no changes of members: {reason}", reason=reason_text(error))
                self._schedule(_LAST_RETRY)
        elif self._phase is Phase.OPENING:
            self._read(stream)
        elif stream.is_active:
            self._check(stream)
        # Else the agent is away, and the gap at its return has the members read.

    # The table

    def _compare(self, members: list[Member]) -> int:
        """Make the table what the agent says; return the number of changes, which are told in the order of names."""
        matches = self._matches
        by_name = self._table.by_name
        now = {member.name: member for member in members if matches(member)}
        changed: list[tuple[str, Member | None]] = [(name, None) for name in by_name if name not in now]
        changed += [(name, member) for name, member in now.items() if by_name.get(name) != member]
        for name, member in sorted(changed, key=_name):
            self._set(name, member)
        return len(changed)

    def _apply(self, event: MemberEvent) -> None:
        gone = event.kind == "reap"
        for member in event.members:
            self._set(member.name, None if gone or not self._matches(member) else member)

    def _matches(self, member: Member) -> bool:
        """Whether the view is to have a member. One on which a predicate of the user's fails is left out."""
        try:
            return self._match.matches(member)
        except Exception:
            if not self._predicate_failed:  # else there might be a line for each member, at each reading
                self._predicate_failed = True
                _log.failure("a predicate of {view!r} failed on {name}", view=self, name=member.name)
            return False

    def _set(self, name: str, member: Member | None) -> None:
        table = self._table
        if member == table.by_name.get(name):
            return
        old = table.remove(name) if member is None else table.put(member)
        if self._listeners:
            self._pending.append((self._number, Change(old, member)))
        self._number += 1
        if self._pending or self._waits:
            self._tell_soon()

    # Telling

    def _listen(self, tell: Callable[[Change], None]) -> Listener:
        listener = Listener(self._number, tell)
        self._listeners[listener] = None
        return listener

    def _tell_soon(self) -> None:
        if self._turn is None:
            self._turn = self.serf.clock.callLater(0, self._tell)

    def _tell(self) -> None:
        """Tell all what has changed, in a turn of its own."""
        self._turn = None
        try:
            self._tell_changes()
        finally:  # a KeyboardInterrupt leaves some
            if self._pending and self._phase is not Phase.CLOSED:
                self._tell_soon()
        if self._read_at is not None:
            while self._askers:  # one by one: each may cancel those behind it
                self._askers.popleft().callback(self)
            self._waits.check()

    def _tell_changes(self) -> None:
        for _ in range(len(self._pending)):
            number, change = self._pending.popleft()
            for listener in list(self._listeners):
                if listener.since <= number and listener in self._listeners:
                    listener.tell(change)
            if self._phase is Phase.CLOSED:
                break  # by one of those who were told

    def _end_all(self, reason: SerfError) -> Deferred[None]:
        """Tell those who wait, and readers of changes, that it is over; the Deferred fires then."""
        askers, self._askers = self._askers, deque()
        waits, self._waits = self._waits, Waits(self._table.select)
        feeds = [listener for listener in self._listeners if listener.feed is not None]
        error = None if type(reason) is Disconnected else reason

        told: Deferred[None] = Deferred()

        def tell() -> None:
            if self._phase is not Phase.CLOSED:
                self._tell_changes()  # those that came before
            for listener in feeds:
                self._listeners.pop(listener, None)
                assert listener.feed is not None
                listener.feed._end(error)
            while askers:
                askers.popleft().errback(copy.copy(reason))
            waits.fail(lambda: copy.copy(reason))
            told.callback(None)

        self.serf.clock.callLater(0, tell)  # whatever becomes of the Deferred: its caller may cancel it
        return told


def _name(changed: tuple[str, Member | None]) -> str:
    return changed[0]
